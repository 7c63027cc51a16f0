package fanotify_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/shim/fanotify"
	"github.com/stockade-dev/stockade/shim/fanotify/fanotifytest"
)

const all = fanotify.OpenPerm | fanotify.OpenExecPerm

func mustMark(t testing.TB, g *fanotify.Group, root string) {
	t.Helper()
	if err := g.MarkFilesystem(fanotifytest.Path(t, root), all); err != nil {
		t.Fatal(err)
	}
}

// The order within one execve: the program, then its ELF interpreter, each
// first as an exec and then as an open.
func TestEventsOfOneExec(t *testing.T) {
	root := fanotifytest.Root(t)
	g := fanotifytest.Open(t)
	mustMark(t, g, root)
	log := fanotifytest.Listen(t, g, root, nil)
	if err := fanotifytest.Command(timeout(t), root, "/usr/bin/true").Run(); err != nil {
		t.Fatal(err)
	}
	seen := log.Take()
	if len(seen) < 4 {
		t.Fatalf("saw %v", seen)
	}
	ld := seen[2].Path
	if !strings.Contains(ld, "/ld-") {
		t.Errorf("third event is %v, not the ELF interpreter", seen[2])
	}
	want := []string{"exec /usr/bin/true", "open /usr/bin/true", "exec " + ld, "open " + ld}
	for i, w := range want {
		if seen[i].String() != w {
			t.Errorf("event %d is %q, not %q", i, seen[i], w)
		}
		if seen[i].TID != seen[0].TID {
			t.Errorf("event %d is of thread %d, not %d", i, seen[i].TID, seen[0].TID)
		}
	}
}

func TestDeny(t *testing.T) {
	root := fanotifytest.Root(t)
	g := fanotifytest.Open(t)
	log := fanotifytest.Listen(t, g, root, func(s fanotifytest.Seen) bool {
		return s.String() != "exec /usr/bin/touch" && s.String() != "open /secret"
	})
	if err := os.WriteFile(filepath.Join(root, "secret"), []byte("xyzzy"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustMark(t, g, root)
	out := sh(t, root, `touch /made; cat /secret; echo x >>/secret; echo end`)
	if n := strings.Count(out, "not permitted"); n != 3 || !strings.HasSuffix(out, "end\n") || strings.Contains(out, "xyzzy") {
		t.Errorf("the script said\n%s", out)
	}
	if _, err := os.Lstat(filepath.Join(root, "made")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("touch was denied and yet: %v", err)
	}
	if s := log.Strings("/secret"); !slices.Equal(s, []string{"open /secret", "open /secret"}) {
		t.Errorf("saw %v", s)
	}
	if fi, err := os.Lstat(filepath.Join(root, "secret")); err != nil || fi.Size() != 5 {
		t.Errorf("secret was written to: %v %v", fi, err)
	}
}

func TestMarkMount(t *testing.T) {
	scratch := fanotifytest.Tmpfs(t)
	for _, f := range []string{"a", "b"} {
		if err := os.Mkdir(filepath.Join(scratch, f), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	a, b := filepath.Join(scratch, "a"), filepath.Join(scratch, "b")
	if err := os.WriteFile(a+"/file", []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(a, b, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(b, unix.MNT_DETACH) })
	g := fanotifytest.Open(t)
	log := fanotifytest.Listen(t, g, scratch, nil)
	dir := fanotifytest.Path(t, b)
	if err := g.MarkMount(dir, all); err != nil {
		t.Fatal(err)
	}
	sh(t, "/", "cat "+a+"/file "+b+"/file")
	if s := log.Strings("/"); !slices.Equal(s, []string{"open /b/file"}) {
		t.Errorf("saw %v", s)
	}
	if err := g.UnmarkMount(dir, all); err != nil {
		t.Fatal(err)
	}
	sh(t, "/", "cat "+b+"/file")
	if s := log.Strings("/"); len(s) != 0 {
		t.Errorf("saw %v after UnmarkMount", s)
	}
}

// procfs takes no permission marks: the package says so, and callers rely on
// the error.
func TestProcCannotBeMarked(t *testing.T) {
	fanotifytest.Tmpfs(t) // skips without root
	g := fanotifytest.Open(t)
	if err := g.MarkMount(fanotifytest.Path(t, "/proc"), all); !errors.Is(err, unix.EINVAL) {
		t.Errorf("MarkMount(/proc) = %v", err)
	}
}

func TestClose(t *testing.T) {
	fanotifytest.Tmpfs(t)
	g := fanotifytest.Open(t)
	result := make(chan error)
	go func() {
		_, err := g.Read(make([]fanotify.Event, 1))
		result <- err
	}()
	time.Sleep(10 * time.Millisecond) // let it block; either way it must end
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-result:
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("Read = %v", err)
		}
	case <-timeout(t).Done():
		t.Fatal("Close did not wake Read")
	}
	if _, err := g.Read(make([]fanotify.Event, 1)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Read after Close = %v", err)
	}
	if err := g.MarkMount(0, all); !errors.Is(err, os.ErrClosed) {
		t.Errorf("MarkMount after Close = %v", err)
	}
	if err := g.Close(); err != nil {
		t.Errorf("second Close = %v", err)
	}
}

// The file handed to another process must not come out blocking: a blocking
// read could not be woken.
func TestFileStaysNonblocking(t *testing.T) {
	fanotifytest.Tmpfs(t)
	g := fanotifytest.Open(t)
	cmd := exec.Command("/bin/true")
	cmd.ExtraFiles = []*os.File{g.File()}
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	flags, err := unix.FcntlInt(g.File().Fd(), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("flags %#x, %v", flags, err)
	}
}

// hungListener holds the group as fd 3, reads an event and never answers.
func hungListener([]string) error {
	var b [fanotify.Batch * 24]byte
	fds := []unix.PollFd{{Fd: 3, Events: unix.POLLIN}}
	if _, err := unix.Poll(fds, -1); err != nil {
		return err
	}
	if _, err := unix.Read(3, b[:]); err != nil {
		return err
	}
	fmt.Println("read")
	select {}
}

// Two processes hold the group. The listener is killed with an event read and
// others queued: all opens stay blocked until the other holder lets go.
func TestSecondHolderKeepsOpensBlocked(t *testing.T) {
	root := fanotifytest.Root(t)
	g := fanotifytest.Open(t)
	mustMark(t, g, root)
	ctx := timeout(t)

	listener := fanotifytest.Actor(ctx, "hung")
	listener.ExtraFiles = []*os.File{g.File()}
	said, err := listener.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := listener.Start(); err != nil {
		t.Fatal(err)
	}
	var openers []*exec.Cmd
	for range 3 {
		opener := fanotifytest.Actor(ctx, "blockedopen", filepath.Join(root, "etc/passwd"))
		if err := opener.Start(); err != nil {
			t.Fatal(err)
		}
		openers = append(openers, opener)
	}
	if _, err := said.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	for _, o := range openers {
		waitBlocked(ctx, t, o.Process.Pid)
	}
	_ = listener.Process.Kill()
	_ = listener.Wait()
	for range 20 {
		time.Sleep(time.Millisecond)
		for _, o := range openers {
			if !blocked(o.Process.Pid) {
				t.Fatal("an open went on when the listener died")
			}
		}
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	for _, o := range openers {
		if err := o.Wait(); err != nil {
			t.Errorf("opener: %v", err)
		}
	}
}

func blockedOpen(args []string) error {
	f, err := os.Open(args[0])
	if err != nil {
		return err
	}
	return f.Close()
}

// blocked reports whether a thread of the process waits for an answer.
func blocked(pid int) bool {
	stacks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stack", pid))
	for _, f := range stacks {
		if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte("fanotify_")) {
			return true
		}
	}
	return false
}

func waitBlocked(ctx context.Context, t testing.TB, pid int) {
	t.Helper()
	for !blocked(pid) {
		if ctx.Err() != nil {
			t.Fatal("the opener never blocked")
		}
		time.Sleep(time.Millisecond)
	}
}

// A thread that is killed while it waits needs no answer, and the answer is no
// error; nor does its event stop others.
func TestKilledWhileWaiting(t *testing.T) {
	root := fanotifytest.Root(t)
	g := fanotifytest.Open(t)
	mustMark(t, g, root)
	ctx := timeout(t)
	opener := fanotifytest.Actor(ctx, "blockedopen", filepath.Join(root, "etc/passwd"))
	if err := opener.Start(); err != nil {
		t.Fatal(err)
	}
	evs := make([]fanotify.Event, fanotify.Batch)
	n, err := g.Read(evs)
	if n != 1 || err != nil {
		t.Fatal(n, err)
	}
	waitBlocked(ctx, t, opener.Process.Pid)
	_ = opener.Process.Kill()
	_ = opener.Wait() // it does die, before any answer
	if err := g.Respond(evs[0], false); err != nil {
		t.Errorf("Respond = %v", err)
	}
	log := fanotifytest.Listen(t, g, root, nil)
	sh(t, root, "cat /etc/hostname")
	if len(log.Strings("/etc/hostname")) == 0 {
		t.Error("no events after a killed opener")
	}
}

func TestExecStorm(t *testing.T) {
	root := fanotifytest.Root(t)
	g := fanotifytest.Open(t)
	mustMark(t, g, root)
	log := fanotifytest.Listen(t, g, root, nil)
	sh(t, root, `i=0; while [ $i -lt 64 ]; do /usr/bin/true & p="$p $!"; i=$((i+1)); done; for p in $p; do wait $p || exit 1; done`)
	n := 0
	for _, s := range log.Take() {
		if s.String() == "exec /usr/bin/true" {
			n++
		}
	}
	if n != 64 {
		t.Errorf("saw %d execs of 64", n)
	}
	if s := g.Stats(); s != (fanotify.Stats{}) {
		t.Errorf("stats %+v", s)
	}
}

// groupLimit opens groups until there are no more.
func groupLimit(args []string) error {
	most, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	for i := 0; i <= most; i++ {
		if _, err = fanotify.Open(); err != nil {
			break
		}
	}
	if !errors.Is(err, fanotify.ErrGroupLimit) {
		return fmt.Errorf("group %d: %v", most+1, err)
	}
	// Out of fds is something else, although the kernel's word is the same.
	limit := unix.Rlimit{Cur: 3, Max: 3}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if _, err = fanotify.Open(); errors.Is(err, fanotify.ErrGroupLimit) || !errors.Is(err, unix.EMFILE) {
		return fmt.Errorf("without fds: %v", err)
	}
	return nil
}

// The limit counts by user: another uid with the capability leaves the other
// processes of this machine alone.
func TestGroupLimit(t *testing.T) {
	fanotifytest.Tmpfs(t)
	most, err := os.ReadFile("/proc/sys/fs/fanotify/max_user_groups")
	if err != nil {
		t.Fatal(err)
	}
	actor := fanotifytest.Actor(timeout(t), "grouplimit", strings.TrimSpace(string(most)))
	actor.SysProcAttr.Credential = &syscall.Credential{Uid: 54321, Gid: 54321}
	actor.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_DAC_OVERRIDE}
	if out, err := actor.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
