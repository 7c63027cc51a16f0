package enforce

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/profiles"
)

func compile(t *testing.T, spec string) *profiles.Plan {
	t.Helper()
	text := "apiVersion: stockade.dev/v1alpha1\nkind: Profile\nmetadata: {name: x}\nspec: " + spec + "\n"
	ps, err := profiles.Parse("x.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	plan, err := profiles.Compile(ps[0], profiles.Target{
		Kernel: "6.18.5", Arch: "amd64",
		Fanotify: profiles.Yes, FanotifyStack: profiles.Yes, SeccompNotify: profiles.Yes, MountSeal: profiles.Yes,
	})
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// watched is a container without a container: this machine's root and mounts, and a plan.
func watched(t *testing.T, spec string) *Container {
	t.Helper()
	c := &Container{proc: openProc(t), mounts: map[uint64]*mount{}}
	c.plan.arm(compile(t, spec))
	c.table.proc = c.proc
	var err error
	if c.root, err = openPath("/"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(c.root) })
	infos, err := mountinfo.GetMounts(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range infos {
		c.mounts[uint64(i.ID)] = &mount{dest: i.Mountpoint, seen: i.FSType != "proc", fd: -1}
	}
	return c
}

// sleeper starts a process in dir that the lookups are made for.
func sleeper(t *testing.T, dir string) int {
	t.Helper()
	cmd := exec.Command("/bin/sleep", "60")
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

// rooted gives a thread of this process another root, and its id.
func rooted(t *testing.T, dir string) int {
	t.Helper()
	tid, done := make(chan int), make(chan struct{})
	t.Cleanup(func() { close(done) })
	go chrooted(t, dir, tid, done)
	return <-tid
}

func chrooted(t *testing.T, dir string, tid chan<- int, done <-chan struct{}) {
	runtime.LockOSThread() // for good: the thread ends with this function
	if unix.Gettid() == os.Getpid() {
		// The first thread's root is what /proc/self/root means to all of them: it stays, held here, and another is taken.
		go chrooted(t, dir, tid, done)
		<-done
		runtime.UnlockOSThread()
		return
	}
	if err := errors.Join(unix.Unshare(unix.CLONE_FS), unix.Chroot(dir)); err != nil {
		t.Error(err)
	}
	tid <- unix.Gettid()
	<-done
}

func TestPlaceResolvesAsTheKernelDoes(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"sub/deep", "other"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"file", "sub/file", "sub/deep/file"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	pid := sleeper(t, filepath.Join(dir, "sub"))
	for link, target := range map[string]string{
		"l": "sub/deep", "abs": filepath.Join(dir, "sub"), "dangling": "other/new", "loop": "loop",
		"magic": "/proc/self/cwd", "thread": "/proc/thread-self/cwd",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	c := watched(t, "{}")
	tests := []struct {
		name   string
		follow bool
		dir    string // below dir
		last   string
		there  bool
	}{
		{dir + "/file", true, "", "file", true},
		{dir + "//./sub/../file", true, "", "file", true},
		{dir + "/l/../file", true, "sub", "file", true}, // not dir/file
		{dir + "/l", false, "", "l", true},
		{dir + "/l", true, "sub", "deep", true},
		{dir + "/l/", false, "sub", "deep", true},
		{dir + "/abs/deep/file", true, "sub/deep", "file", true},
		{dir + "/dangling", true, "other", "new", false},
		{dir + "/dangling", false, "", "dangling", true},
		{dir + "/none", true, "", "none", false},
		{"file", true, "sub", "file", true},
		{"../file", true, "", "file", true},
		{"../../../../../../../../../../../.." + dir + "/file", true, "", "file", true},
		{"/proc/self/cwd/file", true, "sub", "file", true},
		{"/proc/self/cwd/../none", true, "", "none", false},
		{fmt.Sprintf("/proc/%d/root%s/file", pid, dir), true, "", "file", true},
		{dir + "/magic/file", true, "sub", "file", true},
		{dir + "/thread/deep/file", true, "sub/deep", "file", true},
		{"/proc/self/root" + dir + "/l/file", true, "sub/deep", "file", true},
	}
	for _, tt := range tests {
		l := lookup{c: c, plan: c.Plan(), tid: pid, at: unix.AT_FDCWD, name: tt.name}
		p, err := l.place(tt.follow)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		where, err := c.proc.FDPath(p.dir)
		if want := filepath.Join(dir, tt.dir); err != nil || where != want || p.last != tt.last || (p.fd >= 0) != tt.there {
			t.Errorf("%s (follow %t): %s, %q, there %t (%v); want %s, %q, %t", tt.name, tt.follow, where, p.last, p.fd >= 0, err, want, tt.last, tt.there)
		}
		p.close()
	}
	for name, want := range map[string]error{
		dir + "/loop": unix.ELOOP, dir + "/none/x": unix.ENOENT, dir + "/file/x": unix.ENOTDIR,
	} {
		if _, err := (&lookup{c: c, plan: c.Plan(), tid: pid, at: unix.AT_FDCWD, name: name}).place(true); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

func TestLookupUnderAnotherRoot(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	pid := rooted(t, dir)
	l := lookup{c: watched(t, "{}"), tid: pid, at: unix.AT_FDCWD, name: "/../file"}
	f, err := l.find(true)
	if err != nil || f.path != filepath.Join(dir, "file") {
		t.Errorf("%+v, %v: want the file below the thread's root", f, err)
	}
}

// TestAttempts: what each call is about to do to which path. The caller is this very thread.
func TestAttempts(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"file": 0o644, "tmp/file": 0o644} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c := watched(t, `{allow: {write: ["`+dir+`/tmp/**"]}}`)
	const cwd = ^uint64(99) // AT_FDCWD, -100
	file, free, none := dir+"/file", dir+"/tmp/file", dir+"/none"
	open := func(name string, flags int) int {
		if filepath.Base(name) == "nameless" {
			flags |= unix.O_CREAT
		}
		fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0o600)
		if err != nil {
			t.Fatal(name, err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		if flags&unix.O_CREAT != 0 {
			_ = unix.Unlink(name)
		}
		return fd
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	tests := []struct {
		call string
		args []any // a string is a path
		want []string
	}{
		{"open", []any{file, unix.O_WRONLY}, []string{file}},
		{"open", []any{file, unix.O_RDONLY | unix.O_TRUNC}, []string{file}},
		{"open", []any{file, unix.O_RDONLY | unix.O_CREAT}, nil},
		{"open", []any{file, unix.O_RDWR | unix.O_CREAT | unix.O_EXCL}, nil}, // EEXIST
		{"open", []any{none, unix.O_WRONLY}, nil},                            // ENOENT
		{"openat", []any{cwd, none, unix.O_WRONLY | unix.O_CREAT}, []string{none}},
		{"open", []any{dir, unix.O_TMPFILE | unix.O_RDWR}, []string{dir + "/#tmpfile"}},
		{"open", []any{free, unix.O_WRONLY}, nil}, // declared
		{"open", []any{"/dev/null", unix.O_WRONLY}, nil},
		{"creat", []any{file}, []string{file}},
		{"unlink", []any{file}, []string{file}},
		{"unlink", []any{none}, nil},
		{"unlinkat", []any{cwd, "/proc/self/root" + file, 0}, []string{file}},
		{"mkdir", []any{none}, []string{none}},
		{"mkdir", []any{file}, nil},
		{"rename", []any{free, file}, []string{file}},
		{"rename", []any{file, free}, []string{file}},
		{"rename", []any{none, file}, nil},
		{"renameat2", []any{cwd, free, cwd, none, 0}, []string{none}},
		{"link", []any{file, dir + "/tmp/new"}, []string{file}},
		{"link", []any{free, dir + "/tmp/new"}, nil},
		{"link", []any{free, none}, []string{none}},
		{"linkat", []any{cwd, file, cwd, dir + "/tmp/new", 0}, []string{file}},
		{"symlink", []any{"/anything", none}, []string{none}},
		{"chmod", []any{file}, []string{file}},
		{"truncate", []any{file}, []string{file}},
		{"rmdir", []any{dir + "/."}, nil},
		{"fchmod", []any{open(file, unix.O_RDONLY)}, []string{file}},
		{"fchmod", []any{open(free, unix.O_RDONLY)}, nil},
		{"fchmod", []any{open(file, unix.O_PATH)}, nil}, // EBADF
		{"fchmod", []any{open(dir+"/nameless", unix.O_RDONLY)}, nil},
		{"fchmod", []any{-1}, nil},
		{"fchmod", []any{pipe[0]}, nil},
		{"fchown", []any{open(dir, unix.O_RDONLY)}, []string{dir}},
		{"fchownat", []any{open(file, unix.O_PATH), "", 0, 0, unix.AT_EMPTY_PATH}, []string{file}},
		{"fchownat", []any{open(file, unix.O_PATH), "", 0, 0, 0}, nil}, // ENOENT
		{"fchmodat", []any{open(file, unix.O_RDONLY), 0}, nil},         // EFAULT
		{"fsetxattr", []any{open(file, unix.O_RDONLY)}, []string{file}},
		{"fremovexattr", []any{open(file, unix.O_RDONLY)}, []string{file}},
		{"setxattrat", []any{cwd, file, 0}, []string{file}},
		{"removexattrat", []any{open(file, unix.O_RDONLY), "", unix.AT_EMPTY_PATH}, []string{file}},
		{"utime", []any{file}, []string{file}},
		{"utimes", []any{free}, nil},
		{"futimesat", []any{open(file, unix.O_RDONLY), 0}, []string{file}},
		{"utimensat", []any{cwd, file, 0, 0}, []string{file}},
		{"utimensat", []any{open(file, unix.O_RDONLY), 0, 0, 0}, []string{file}},
		{"utimensat", []any{open(file, unix.O_PATH), 0, 0, 0}, nil}, // EBADF
		{"utimensat", []any{cwd, 0, 0, 0}, nil},                     // EFAULT
	}
	for _, tt := range tests {
		call := Call{TID: unix.Gettid(), Name: tt.call}
		for i, a := range tt.args {
			switch a := a.(type) {
			case string:
				call.Args[i] = address(a)
			case int:
				call.Args[i] = uint64(a)
			case uint64:
				call.Args[i] = a
			}
		}
		var got []string
		for _, a := range c.watch(c.Plan(), call) {
			got = append(got, a.Path)
		}
		if fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("%s %v: %v, want %v", tt.call, tt.args, got, tt.want)
		}
	}
}

func TestEveryWatchedCallHasOperands(t *testing.T) {
	plan := compile(t, `{allow: {write: ["/data/*"]}}`)
	for name, operands := range watchedCalls {
		if newer := map[string]bool{"fchmodat2": true, "setxattrat": true, "removexattrat": true}; !plan.Watches(name) && !newer[name] {
			t.Errorf("%s is not watched by the filter", name)
		}
		for _, o := range operands {
			if o.path < 0 && o.dir < 0 || o.path > 5 || o.dir > 5 || o.flags > 5 {
				t.Errorf("%s: %+v", name, o)
			}
		}
	}
}
