package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Syscall is the system call that a thread is blocked in.
type Syscall struct {
	// Nr is the number as the thread passed it. A 32-bit caller's number is
	// of its own table.
	Nr   int
	Args [6]uint64
	// OK is false if the thread is not in a system call (or Nr is -1).
	OK bool
}

// Syscall reads /proc/TID/syscall (proc_pid_syscall(5)). ErrRunning if the
// thread does not block.
func (p *FS) Syscall(tid int) (Syscall, error) {
	sys, done, err := p.trySyscall(tid)
	if done || err != nil {
		return sys, err
	}
	err = settle(func() (bool, error) {
		var err error
		sys, done, err = p.trySyscall(tid)
		return done, err
	})
	return sys, err
}

func (p *FS) trySyscall(tid int) (sys Syscall, done bool, err error) {
	var buf [256]byte // nine numbers of at most 18 characters
	b, err := p.read(tid, "syscall", buf[:])
	if err != nil {
		return Syscall{}, false, err
	}
	if bytes.HasPrefix(b, running) {
		return Syscall{}, false, nil
	}
	sys, ok := parseSyscall(b)
	if !ok {
		return Syscall{}, false, fmt.Errorf("/proc/%d/syscall: %w", tid, errParse)
	}
	return sys, true, nil
}

var running = []byte("running")

// parseSyscall reads "NR A0 .. A5 SP PC", or "-1 SP PC" outside of a system
// call.
func parseSyscall(b []byte) (Syscall, bool) {
	b, whole := bytes.CutSuffix(b, newline)
	if !whole {
		return Syscall{}, false
	}
	word, b, _ := bytes.Cut(b, space)
	if string(word) == "-1" {
		return Syscall{Nr: -1}, true
	}
	nr, ok := parseUint(word, 10)
	if !ok || nr > 1<<31-1 {
		return Syscall{}, false
	}
	sys := Syscall{Nr: int(nr), OK: true}
	for i := range sys.Args {
		word, b, _ = bytes.Cut(b, space)
		hex, prefixed := bytes.CutPrefix(word, hexPrefix)
		if sys.Args[i], ok = parseUint(hex, 16); !ok || !prefixed {
			return Syscall{}, false
		}
	}
	return sys, true
}

var (
	space     = []byte(" ")
	hexPrefix = []byte("0x")
)

// table holds one architecture's numbers and, for the calls that carry open
// flags in a register, which argument it is. openat2 keeps its flags in memory
// that another thread may change; io_uring opens from a worker thread: neither
// can be known.
type table struct {
	flags map[int]int // number -> argument
	creat int         // 0: none
	exec  [2]int      // execve, execveat
}

// No number below means, in the 32-bit table of the same machine, a call that
// opens anything: i386 has there fork (2), oldolduname (59), readlink (85),
// remap_file_pages (257), symlinkat (304) and timerfd_create (322); arm has
// nothing (56), fcntl64 (221), clock_nanosleep (265) and socket (281). So a
// 32-bit caller that is blocked in an open never looks like one of these. x32
// sets bit 30.
var tables = map[string]table{
	"amd64": {
		flags: map[int]int{2: 1, 257: 2, 304: 2}, // open, openat, open_by_handle_at
		creat: 85,
		exec:  [2]int{59, 322},
	},
	"arm64": {
		flags: map[int]int{56: 2, 265: 2}, // openat, open_by_handle_at
		exec:  [2]int{221, 281},
	},
}

var native = tables[runtime.GOARCH]

// OpenFlags gives the flags of open(2), openat(2), creat(2) and
// open_by_handle_at(2), as O_* of this architecture. For anything else known
// is false: openat2, io_uring, 32-bit callers, opens by the kernel.
//
// The thread must be blocked in an open: the number alone cannot tell a 32-bit
// caller's other calls.
func OpenFlags(sys Syscall) (flags int, known bool) { return native.openFlags(sys) }

func (t table) openFlags(sys Syscall) (int, bool) {
	if !sys.OK {
		return 0, false
	}
	if t.creat > 0 && sys.Nr == t.creat {
		return unix.O_CREAT | unix.O_WRONLY | unix.O_TRUNC, true
	}
	arg, ok := t.flags[sys.Nr]
	if !ok {
		return 0, false
	}
	return int(int32(uint32(sys.Args[arg]))), true
}

// OpensToWrite reports whether an open with these flags may change the file:
// O_TRUNC truncates even with O_RDONLY, and O_CREAT makes a file.
func OpensToWrite(flags int) bool {
	return flags&unix.O_ACCMODE != unix.O_RDONLY || flags&(unix.O_TRUNC|unix.O_CREAT) != 0
}

// IsExec reports whether the call is execve(2) or execveat(2).
func IsExec(sys Syscall) bool {
	return sys.OK && sys.Nr > 0 && (sys.Nr == native.exec[0] || sys.Nr == native.exec[1])
}

// Loader is the binary format for which the kernel opens an interpreter.
type Loader int

// Binary formats. LoaderNone: what is opened is the program that execve named.
// A process that LoaderELF serves runs the program; one that LoaderScript (#!,
// binfmt_misc) serves runs the interpreter.
const (
	LoaderNone Loader = iota
	LoaderELF
	LoaderScript
)

// ErrNoStack says that the kernel writes no stack of a thread, or one without
// names.
var ErrNoStack = errors.New("no kernel stack to read")

// InExec tells, of a thread blocked in a permission event, whether the kernel
// is opening an interpreter for a program that it already has (ELF
// interpreter, #! or binfmt_misc) and not the program that execve named.
// ErrRunning if the thread does not block there, ErrNoStack if that cannot be
// seen.
//
// It looks at the kernel's own stack (/proc/TID/stack): a binary format's
// loader is on it or is not. The thread has no say in that.
func (p *FS) InExec(tid int) (Loader, error) {
	in, done, err := p.tryInExec(tid)
	if done || err != nil {
		return in, err
	}
	err = settle(func() (bool, error) {
		var err error
		in, done, err = p.tryInExec(tid)
		return done, err
	})
	return in, err
}

func (p *FS) tryInExec(tid int) (in Loader, done bool, err error) {
	var buf [4096]byte
	b, err := p.read(tid, "stack", buf[:])
	if err != nil {
		return LoaderNone, false, err
	}
	if in, blocked := parseStack(b); blocked {
		return in, true, nil
	}
	// Not asleep yet, unless it is a kernel that writes no symbols.
	if len(b) > 0 && bytes.IndexByte(b, '+') < 0 {
		return LoaderNone, false, fmt.Errorf("/proc/%d/stack: %w", tid, ErrNoStack)
	}
	return LoaderNone, false, nil
}

// OpensItself tells, of a thread blocked in a permission event, whether it opens the file by a system call of its own,
// so that [FS.Syscall] speaks of it. What io_uring opens is opened by a worker that has the registers of another
// thread, or by a thread that is on its way out of whatever call. ok is false if that cannot be told.
func (p *FS) OpensItself(tid int) (own, ok bool) {
	try := func() (bool, error) {
		var buf [4096]byte
		b, err := p.read(tid, "stack", buf[:])
		if err == nil {
			own, ok = parseOpener(b)
		}
		return ok, err
	}
	if ok, err := try(); ok || err != nil {
		return own, ok
	}
	err := settle(try)
	return own, ok && err == nil
}

// parseOpener reads a stack as parseStack does. io_uring's functions all begin with io_.
func parseOpener(b []byte) (own, blocked bool) {
	own = true
	whole := false
	for line := range bytes.Lines(b) {
		_, symbol, _ := bytes.Cut(line, space)
		whole = outermost(symbol)
		switch {
		case bytes.HasPrefix(symbol, fanotify):
			blocked = true
		case bytes.HasPrefix(symbol, uring):
			own = false
		}
	}
	return own, blocked && whole
}

// outermost says whether symbol is where a thread came into the kernel, or began in it: on x86 and on arm64. A stack that
// ends elsewhere was cut off. One that waits is woken whenever any of its group is answered, and what the kernel reads of
// it while it falls asleep again can break off anywhere.
func outermost(symbol []byte) bool {
	for _, from := range entries {
		if bytes.HasPrefix(symbol, from) {
			return true
		}
	}
	return false
}

var entries = [][]byte{[]byte("entry_"), []byte("asm_"), []byte("el0"), []byte("ret_from_fork")}

var uring = []byte("io_")

// parseStack reads lines "[<0>] symbol+0x1/0x2", innermost first. blocked: the
// thread waits in fanotify, and this is all of its stack.
func parseStack(b []byte) (loader Loader, blocked bool) {
	end := false
	for len(b) > 0 {
		line, rest, whole := bytes.Cut(b, newline)
		if !whole {
			break // cut off by the buffer
		}
		b = rest
		_, symbol, ok := bytes.Cut(line, space)
		if !ok {
			continue
		}
		symbol, _, _ = bytes.Cut(symbol, plus)
		// GCC appends .isra.0, .constprop.0 and the like.
		symbol, _, _ = bytes.Cut(symbol, dot)
		end = outermost(symbol)
		switch {
		case bytes.HasPrefix(symbol, fanotify):
			blocked = true
		case loader == LoaderNone:
			loader = loaderOf(symbol)
		}
	}
	if !blocked || !end {
		return LoaderNone, false
	}
	return loader, true
}

func loaderOf(symbol []byte) Loader {
	switch string(symbol) {
	case "load_elf_binary", "load_elf_fdpic_binary":
		return LoaderELF
	case "load_script", "load_misc_binary":
		return LoaderScript
	}
	return LoaderNone
}

var (
	plus     = []byte("+")
	dot      = []byte(".")
	fanotify = []byte("fanotify_")
)
