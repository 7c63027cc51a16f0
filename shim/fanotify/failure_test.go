package fanotify_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/shim/fanotify/fanotifytest"
)

// Without a free fd an event cannot be delivered: the open must fail, and the
// reader must hear of it and go on.
func TestOutOfFDs(t *testing.T) {
	root := fanotifytest.Root(t)
	g := fanotifytest.Open(t)
	undelivered := make(chan error, 16)
	log := fanotifytest.Listen(t, g, root, func(s fanotifytest.Seen) bool {
		if err := s.Undelivered(); err != nil {
			undelivered <- err
		}
		return true
	})
	cmd := fanotifytest.Command(timeout(t), root, "/bin/sh", "-c", `echo ready; read x; true </etc/passwd && echo opened; read x; true </etc/passwd && echo opened again`)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	said, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(said, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	mustMark(t, g, root)
	log.Take()

	restore := noFreeFDs(t)
	_, werr := in.Write([]byte("\n"))
	err = <-undelivered
	restore()
	if werr != nil || !errors.Is(err, unix.EMFILE) {
		t.Errorf("undelivered: %v (%v)", err, werr)
	}
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	in.Close()
	out, err := io.ReadAll(said)
	_ = cmd.Wait()
	if err != nil || strings.Contains(string(out), "opened\n") || !strings.Contains(string(out), "opened again\n") {
		t.Errorf("the script said\n%s(%v)", out, err)
	}
	if s := g.Stats(); s.Undelivered != 1 {
		t.Errorf("stats %+v", s)
	}
}

// noFreeFDs lowers this process's limit to the fds it has.
func noFreeFDs(t *testing.T) (restore func()) {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	free, err := unix.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(free)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(free), Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
			t.Error(err)
		}
	}
}

// The package says that only regular files cause events. Rules about device
// nodes, FIFOs and sockets must therefore be kept by something else.
func TestSpecialFilesCauseNoEvents(t *testing.T) {
	root := fanotifytest.Root(t)
	l, err := net.Listen("unix", filepath.Join(root, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := unix.Mkfifo(filepath.Join(root, "fifo"), 0o666); err != nil {
		t.Fatal(err)
	}
	g := fanotifytest.Open(t)
	log := fanotifytest.Listen(t, g, root, nil)
	mustMark(t, g, root)
	out := sh(t, root, `cat /fifo & echo x >/dev/null; cat /sock 2>/dev/null; cat /etc/hostname >/dev/null; echo through >/fifo; wait`)
	if out != "through\n" {
		t.Errorf("the script said %q", out)
	}
	for _, s := range log.Take() {
		if s.Undelivered() != nil || s.Path == "/fifo" || s.Path == "/dev/null" || s.Path == "/sock" {
			t.Errorf("saw %v", s)
		}
	}
}

// leaseHolder takes a write lease on a file: whoever opens it then waits for
// the holder, or is told EAGAIN.
func leaseHolder(args []string) error {
	signal.Ignore(unix.SIGIO)
	f, err := os.OpenFile(args[0], os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		return err
	}
	fmt.Println("ready")
	_, err = io.ReadAll(os.Stdin)
	return err
}

// A program must not be able to stop the reader by a lease (fcntl(2)) on its
// own file. The open that meets the lease is denied.
func TestLeaseDoesNotBlockTheReader(t *testing.T) {
	dir := fanotifytest.Tmpfs(t)
	for _, f := range []string{"leased", "other"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ctx := timeout(t)
	holder := fanotifytest.Actor(ctx, "lease", filepath.Join(dir, "leased"))
	in, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	holder.Stderr = os.Stderr
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); _ = holder.Wait() }()
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	g := fanotifytest.Open(t)
	log := fanotifytest.Listen(t, g, dir, nil)
	mustMark(t, g, dir)
	if err := fanotifytest.Actor(ctx, "blockedopen", filepath.Join(dir, "leased")).Run(); err == nil {
		t.Error("the leased file was opened without a decision")
	}
	if err := fanotifytest.Actor(ctx, "blockedopen", filepath.Join(dir, "other")).Run(); err != nil {
		t.Errorf("another file: %v", err)
	}
	for _, s := range log.Take() {
		if err := s.Undelivered(); err != nil && !errors.Is(err, unix.EAGAIN) || s.Path == "/leased" {
			t.Errorf("saw %v", s)
		}
	}
}
