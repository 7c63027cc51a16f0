package procfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
)

// Thread is who a thread is.
type Thread struct {
	TID, TGID, PPID int
	UID             uint32 // real
	Comm            string // what the thread calls itself: evidence, never identity
}

// errParse says that the kernel wrote something unexpected.
var errParse = errors.New("unexpected content")

// Thread reads /proc/TID/status. errors.Is(err, unix.ENOENT) or unix.ESRCH if
// the thread is gone.
func (p *FS) Thread(tid int) (Thread, error) {
	// What is needed stands in the first 300 bytes; writing it all is the
	// kernel's cost, copying it need not be ours.
	var buf [512]byte
	b, err := p.read(tid, "status", buf[:])
	if err != nil {
		return Thread{}, err
	}
	t, ok := parseStatus(b)
	if !ok {
		return Thread{}, fmt.Errorf("/proc/%d/status: %w", tid, errParse)
	}
	return t, nil
}

// parseStatus reads proc_pid_status(5). The kernel escapes newline and
// backslash in the name, so a line's first word is the kernel's.
func parseStatus(b []byte) (Thread, bool) {
	var t Thread
	const (
		name = 1 << iota
		tgid
		pid
		ppid
		uid
		all = name | tgid | pid | ppid | uid
	)
	seen := 0
	for len(b) > 0 && seen != all {
		line, rest, whole := bytes.Cut(b, newline)
		if !whole {
			return t, false // cut off by the buffer
		}
		b = rest
		key, value, ok := bytes.Cut(line, colonTab)
		if !ok {
			continue
		}
		field := 0
		switch string(key) {
		case "Name":
			t.Comm, field, ok = unescape(value), name, true
		case "Tgid":
			t.TGID, ok = atoi(value)
			field = tgid
		case "Pid":
			t.TID, ok = atoi(value)
			field = pid
		case "PPid":
			t.PPID, ok = atoi(value)
			field = ppid
		case "Uid":
			real, _, _ := bytes.Cut(value, tab)
			var n int
			n, ok = atoi(real)
			t.UID, field = uint32(n), uid
		}
		if !ok || seen&field != 0 {
			return t, false
		}
		seen |= field
	}
	return t, seen == all
}

var (
	newline  = []byte("\n")
	tab      = []byte("\t")
	colonTab = []byte(":\t")
)

// unescape undoes what the kernel does to a name: \n and \\.
func unescape(b []byte) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b)
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] == '\\' && i+1 < len(b) && (b[i+1] == 'n' || b[i+1] == '\\') {
			i++
			if b[i] == 'n' {
				out = append(out, '\n')
				continue
			}
		}
		out = append(out, b[i])
	}
	return string(out)
}

// Process is a process as evidence names it.
type Process struct {
	PID, PPID int
	StartTime uint64 // clock ticks since boot: with PID, an identity
	// Image tells one execution of a program from another: where the kernel put its stack, at random. A child has its
	// parent's until it executes something itself.
	Image uint64
	Comm  string
	Exe   string // "" for a kernel thread or a process without memory
}

// Process reads /proc/PID/stat and exe.
func (p *FS) Process(pid int) (Process, error) {
	pr, err := p.stat(pid)
	if err != nil {
		return Process{}, err
	}
	if exe, err := p.Exe(pid); err == nil {
		pr.Exe = exe.Path
	}
	return pr, nil
}

// StartTime is when the process (or thread) started, in clock ticks since
// boot.
func (p *FS) StartTime(pid int) (uint64, error) {
	pr, err := p.stat(pid)
	return pr.StartTime, err
}

// Stat is Process without Exe: one file to read.
func (p *FS) Stat(pid int) (Process, error) { return p.stat(pid) }

// Randomized says whether what a process executes gets its stack at a random place, so that Image tells one execution
// from another: proc_sys_kernel(5), personality(2). A process's children have its personality.
func (p *FS) Randomized(pid int) (bool, error) {
	var buf [32]byte
	b, err := p.read(pid, "personality", buf[:])
	if err != nil {
		return false, err
	}
	persona, ok := parseUint(bytes.TrimSuffix(b, newline), 16)
	if !ok {
		return false, fmt.Errorf("/proc/%d/personality: %w", pid, errParse)
	}
	mode, err := os.ReadFile("/proc/sys/kernel/randomize_va_space")
	if err != nil {
		return false, err
	}
	const addrNoRandomize = 0x40000 // include/uapi/linux/personality.h
	return persona&addrNoRandomize == 0 && strings.TrimSpace(string(mode)) != "0", nil
}

func (p *FS) stat(pid int) (Process, error) {
	var buf [1024]byte
	b, err := p.read(pid, "stat", buf[:])
	if err != nil {
		return Process{}, err
	}
	pr, ok := parseStat(b)
	if !ok {
		return Process{}, fmt.Errorf("/proc/%d/stat: %w", pid, errParse)
	}
	return pr, nil
}

// parseStat reads proc_pid_stat(5). The name stands in parentheses as the
// program chose it, newlines and ") R 1" included: only the last parenthesis
// is the kernel's.
func parseStat(b []byte) (Process, bool) {
	var pr Process
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 2 || end < open || b[open-1] != ' ' {
		return pr, false
	}
	var ok bool
	if pr.PID, ok = atoi(b[:open-1]); !ok {
		return pr, false
	}
	pr.Comm = string(b[open+1 : end])
	rest := b[end+1:]
	// rest: " S ppid pgrp ..."; starttime is field 22, startstack field 28, the state field 3.
	const state, ppid, start, stack = 3, 4, 22, 28
	for field := state; field <= stack; field++ {
		if len(rest) == 0 || rest[0] != ' ' {
			return pr, false
		}
		rest = rest[1:]
		n := bytes.IndexAny(rest, " \n")
		if n <= 0 {
			return pr, false
		}
		switch field {
		case ppid:
			if pr.PPID, ok = atoi(rest[:n]); !ok {
				return pr, false
			}
		case start:
			v, ok := parseUint(rest[:n], 10)
			pr.StartTime = v
			if !ok {
				return pr, false
			}
		case stack:
			pr.Image, ok = parseUint(rest[:n], 10)
			return pr, ok
		}
		rest = rest[n:]
	}
	return pr, false
}

// Ancestors returns the process itself, its parent and so on, at most max of
// them. It ends early at a process that is gone, or at a "parent" younger than
// its child: a pid used again.
func (p *FS) Ancestors(tgid, max int) []Process {
	var out []Process
	for pid := tgid; pid > 0 && len(out) < max; {
		pr, err := p.Process(pid)
		if err != nil {
			break
		}
		if n := len(out); n > 0 && pr.StartTime > out[n-1].StartTime {
			break
		}
		out = append(out, pr)
		pid = pr.PPID
	}
	return out
}

func atoi(b []byte) (int, bool) {
	v, ok := parseUint(b, 10)
	return int(v), ok && v <= 1<<32-1
}

// parseUint reads digits and nothing else; no sign, no allocation.
func parseUint(b []byte, base uint64) (uint64, bool) {
	if len(b) == 0 {
		return 0, false
	}
	var v uint64
	for _, c := range b {
		d := uint64(16)
		switch {
		case '0' <= c && c <= '9':
			d = uint64(c - '0')
		case 'a' <= c && c <= 'f':
			d = uint64(c-'a') + 10
		}
		if d >= base || v > (1<<64-1-d)/base {
			return 0, false
		}
		v = v*base + d
	}
	return v, true
}
