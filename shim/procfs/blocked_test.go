package procfs_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/shim/fanotify"
	"github.com/stockade-dev/stockade/shim/fanotify/fanotifytest"
	"github.com/stockade-dev/stockade/shim/procfs"
)

const fanOpen = fanotify.OpenPerm

// openBy opens args[1] in the way that args[0] names.
func openBy(args []string) error {
	path := append([]byte(args[1]), 0)
	at, name := unix.AT_FDCWD, uintptr(ptr(&path[0]))
	var errno unix.Errno
	switch args[0] {
	case "open":
		_, _, errno = unix.Syscall(2, name, unix.O_RDWR|unix.O_APPEND, 0)
	case "creat":
		_, _, errno = unix.Syscall(85, name, 0o644, 0)
	case "openat":
		_, _, errno = unix.Syscall6(unix.SYS_OPENAT, uintptr(at), name, unix.O_WRONLY|unix.O_CREAT, 0o644, 0, 0)
	case "openat2":
		how := unix.OpenHow{Flags: unix.O_WRONLY}
		_, err := unix.Openat2(at, args[1], &how)
		return err
	case "open_by_handle_at":
		handle, _, err := unix.NameToHandleAt(at, args[1], 0)
		if err != nil {
			return err
		}
		dir, err := unix.Open(filepath.Dir(args[1]), unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		_, err = unix.OpenByHandleAt(dir, handle, unix.O_RDWR)
		return err
	}
	if errno != 0 {
		return errno
	}
	return nil
}

// int80 is a program that opens path through the 32-bit entry: class 1 is a
// 32-bit ELF, class 2 a 64-bit one.
func int80(class byte, path string) []byte {
	const base = 0x400000
	header := map[byte]int{1: 52 + 32, 2: 64 + 56}[class]
	code := []byte{0xb8, 5, 0, 0, 0, 0xbb} // mov eax, open; mov ebx, path
	code = binary.LittleEndian.AppendUint32(code, uint32(base+header+23))
	code = append(code, 0x31, 0xc9, 0xcd, 0x80) // xor ecx, ecx; int 0x80
	code = append(code, 0xb8, 1, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80)
	code = append(append(code, path...), 0)
	size := uint64(header + len(code))

	le := binary.LittleEndian
	b := append([]byte("\x7fELF"), class, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	b = le.AppendUint16(b, 2)
	b = le.AppendUint16(b, map[byte]uint16{1: 3, 2: 62}[class])
	b = le.AppendUint32(b, 1)
	word := func(v uint64) {
		if class == 1 {
			b = le.AppendUint32(b, uint32(v))
		} else {
			b = le.AppendUint64(b, v)
		}
	}
	word(base + uint64(header))
	word(map[byte]uint64{1: 52, 2: 64}[class])
	word(0)
	b = le.AppendUint32(b, 0)
	for _, v := range map[byte][]uint16{1: {52, 32, 1, 0, 0, 0}, 2: {64, 56, 1, 0, 0, 0}}[class] {
		b = le.AppendUint16(b, v)
	}
	b = le.AppendUint32(b, 1) // PT_LOAD
	if class == 2 {
		b = le.AppendUint32(b, 5)
	}
	for _, v := range []uint64{0, base, base, size, size} {
		word(v)
	}
	if class == 1 {
		b = le.AppendUint32(b, 5)
	}
	word(0x1000)
	return append(b, code...)
}

func TestOpenFlagsOfABlockedThread(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("knows amd64's calls")
	}
	p := open(t)
	dir := fanotifytest.Tmpfs(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	g := fanotifytest.Open(t)
	calls := make(chan procfs.Syscall, 8)
	fanotifytest.Listen(t, g, dir, func(s fanotifytest.Seen) bool {
		sys, err := p.Syscall(s.TID)
		for errors.Is(err, procfs.ErrRunning) { // as whoever decides about it asks again
			sys, err = p.Syscall(s.TID)
		}
		if err != nil {
			t.Error(err)
		}
		calls <- sys
		return true
	})
	if err := g.MarkFilesystem(fanotifytest.Path(t, dir), fanOpen); err != nil {
		t.Fatal(err)
	}
	compat := t.TempDir()
	for class, name := range map[byte]string{1: "elf32", 2: "elf64"} {
		if err := os.WriteFile(filepath.Join(compat, name), int80(class, file), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		how, compat string
		flags       int
		known       bool
	}{
		{how: "open", flags: unix.O_RDWR | unix.O_APPEND, known: true},
		{how: "openat", flags: unix.O_WRONLY | unix.O_CREAT, known: true},
		{how: "creat", flags: unix.O_WRONLY | unix.O_CREAT | unix.O_TRUNC, known: true},
		{how: "open_by_handle_at", flags: unix.O_RDWR, known: true},
		{how: "openat2"},
		{how: "int 0x80 of a 32-bit program", compat: "elf32"},
		{how: "int 0x80 of a 64-bit program", compat: "elf64"},
	} {
		t.Run(c.how, func(t *testing.T) {
			cmd := fanotifytest.Actor(timeout(t), "open", c.how, file)
			if c.compat != "" {
				cmd = fanotifytest.Command(timeout(t), "/", filepath.Join(compat, c.compat))
			}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			sys := <-calls
			flags, known := procfs.OpenFlags(sys)
			if flags != c.flags || known != c.known || !sys.OK || procfs.IsExec(sys) {
				t.Errorf("%+v: %#x, %v; want %#x, %v", sys, flags, known, c.flags, c.known)
			}
		})
	}
}

// execs runs argv in a marked root and returns each exec with the loader that
// the kernel's stack shows: "/usr/bin/true 0".
func execs(t *testing.T, prepare func(root string), argv ...string) []string {
	p := open(t)
	root := fanotifytest.Root(t)
	if prepare != nil {
		prepare(root)
	}
	g := fanotifytest.Open(t)
	seen := make(chan string, 64)
	fanotifytest.Listen(t, g, root, func(s fanotifytest.Seen) bool {
		if !s.Exec() {
			return true
		}
		in, inErr := settled(func() (procfs.Loader, error) { return p.InExec(s.TID) })
		sys, err := settled(func() (procfs.Syscall, error) { return p.Syscall(s.TID) })
		if inErr != nil || err != nil || !procfs.IsExec(sys) {
			t.Errorf("%v: InExec %v, %v; %+v, %v", s, in, inErr, sys, err)
		}
		name := filepath.Base(s.Path)
		if strings.HasPrefix(name, "ld-") {
			name = "ld.so"
		}
		seen <- fmt.Sprint(name, " ", in)
		return true
	})
	if err := g.MarkFilesystem(fanotifytest.Path(t, root), fanotify.OpenExecPerm); err != nil {
		t.Fatal(err)
	}
	out, err := fanotifytest.Command(timeout(t), root, argv...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var all []string
	for len(seen) > 0 { // every exec has been answered
		all = append(all, <-seen)
	}
	return all
}

// settled asks as callers do: again for as long as a busy machine does not let the thread fall asleep.
func settled[T any](ask func() (T, error)) (T, error) {
	for {
		v, err := ask()
		if !errors.Is(err, procfs.ErrRunning) {
			return v, err
		}
	}
}

func loaderPath(t *testing.T) string {
	for _, pattern := range []string{"/lib64/ld-*", "/lib/ld-linux-*"} {
		if m, _ := filepath.Glob(pattern); len(m) > 0 {
			return m[0]
		}
	}
	t.Skip("no ELF interpreter")
	return ""
}

// The proof that an interpreter is told from a program: by the kernel's stack,
// in the middle of the very exec.
func TestInExec(t *testing.T) {
	const none, elf, script = procfs.LoaderNone, procfs.LoaderELF, procfs.LoaderScript
	say := func(name string, l procfs.Loader) string { return fmt.Sprint(name, " ", l) }
	write := func(name, text string) func(string) {
		return func(root string) {
			if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
	check := func(name string, prepare func(string), argv []string, want ...string) {
		t.Run(name, func(t *testing.T) {
			if got := execs(t, prepare, argv...); !slices.Equal(got, want) {
				t.Errorf("saw %q, want %q", got, want)
			}
		})
	}
	check("dynamic program", nil, []string{"/usr/bin/true"}, say("true", none), say("ld.so", elf))
	check("the loader itself", nil, []string{loaderPath(t), "/usr/bin/true"}, say("ld.so", none))
	check("script", write("s", "#!/usr/bin/env true\n"), []string{"/s"},
		say("s", none), say("env", script), say("ld.so", elf), say("true", none), say("ld.so", elf))
	check("script of a script", func(root string) {
		write("s", "#!/t\n")(root)
		write("t", "#!/usr/bin/true\n")(root)
	}, []string{"/s"}, say("s", none), say("t", script), say("true", script), say("ld.so", elf))
	check("script run by the loader's name", write("s", "#!"+loaderPath(t)+" /usr/bin/true\n"), []string{"/s"},
		say("s", none), say("ld.so", script))

	register(t)
	check("binfmt_misc", write("s."+extension(), "anything"), []string{"/s." + extension()},
		say("s."+extension(), none), say("true", script), say("ld.so", elf))
}

func extension() string { return fmt.Sprintf("stockade%d", os.Getpid()) }

// register makes /usr/bin/true the interpreter of all files with our extension.
func register(t *testing.T) {
	dir := fanotifytest.Tmpfs(t)
	if err := unix.Mount("binfmt_misc", dir, "binfmt_misc", 0, ""); err != nil {
		t.Logf("no binfmt_misc: %v", err)
		t.SkipNow()
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	rule := fmt.Sprintf(":%[1]s:E::%[1]s::/usr/bin/true:", extension())
	if err := os.WriteFile(filepath.Join(dir, "register"), []byte(rule), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(filepath.Join(dir, extension()), []byte("-1"), 0); err != nil {
			t.Error(err)
		}
	})
}

// A thread that never blocks must be given up on, not waited for.
func TestSyscallOfARunningThread(t *testing.T) {
	p := open(t)
	if _, err := p.Syscall(1 << 30); err == nil {
		t.Error("no error for no thread")
	}
	if in, err := p.InExec(os.Getpid()); in != procfs.LoaderNone || !errors.Is(err, procfs.ErrRunning) {
		t.Errorf("InExec of a thread that waits for no answer = %v, %v", in, err)
	}
}

func BenchmarkFacts(b *testing.B) {
	p := open(b)
	dir := fanotifytest.Tmpfs(b)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		b.Fatal(err)
	}
	g := fanotifytest.Open(b)
	if err := g.MarkFilesystem(fanotifytest.Path(b, dir), fanOpen); err != nil {
		b.Fatal(err)
	}
	start(b, fanotifytest.Actor(timeout(b), "open", "openat", file), "")
	evs := make([]fanotify.Event, 1)
	if _, err := g.Read(evs); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = g.Respond(evs[0], true) }()
	th, err := p.Thread(evs[0].TID)
	if err != nil {
		b.Fatal(err)
	}
	facts := []struct {
		name string
		get  func() error
	}{
		{"thread", func() error { _, err := p.Thread(th.TID); return err }},
		{"starttime", func() error { _, err := p.StartTime(th.TGID); return err }},
		{"cgroup", func() error { _, err := p.CgroupPath(th.TID); return err }},
		{"exe", func() error { _, err := p.Exe(th.TGID); return err }},
		{"syscall", func() error { _, err := p.Syscall(th.TID); return err }},
		{"fd", func() error { _, err := p.FD(evs[0].FD); return err }},
		{"inexec", func() error { _, err := p.InExec(th.TID); return err }},
	}
	for _, f := range facts {
		b.Run(f.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := f.get(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("thread+cgroup+exe+syscall", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for _, i := range []int{0, 2, 3, 4} {
				if err := facts[i].get(); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
