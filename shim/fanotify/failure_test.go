package fanotify_test

import (
	"errors"
	"io"
	"net"
	"os"
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

// Kernels since about 6.14 send no permission events for sockets, FIFOs and
// device nodes; older ones do. The package must do right on both, so the tests
// of those take either.

// A socket cannot be opened, by the event neither.
func TestOpenOfSocket(t *testing.T) {
	root := fanotifytest.Root(t)
	l, err := net.Listen("unix", filepath.Join(root, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g := fanotifytest.Open(t)
	undelivered := make(chan error, 16)
	fanotifytest.Listen(t, g, root, func(s fanotifytest.Seen) bool {
		if err := s.Undelivered(); err != nil {
			undelivered <- err
		}
		return true
	})
	mustMark(t, g, root)
	out := sh(t, root, "cat /sock; cat /etc/hostname >/dev/null && echo end")
	if !strings.HasSuffix(out, "end\n") {
		t.Errorf("the script said %q", out)
	}
	if strings.Contains(out, "not permitted") {
		if err := <-undelivered; !errors.Is(err, unix.ENXIO) {
			t.Errorf("undelivered: %v", err)
		}
	}
}

// A device node and a FIFO without a writer must not hold up the reader.
func TestNodesDoNotBlock(t *testing.T) {
	root := fanotifytest.Root(t)
	if err := unix.Mkfifo(filepath.Join(root, "fifo"), 0o666); err != nil {
		t.Fatal(err)
	}
	g := fanotifytest.Open(t)
	log := fanotifytest.Listen(t, g, root, nil)
	mustMark(t, g, root)
	out := sh(t, root, `cat /fifo & echo x >/dev/null; cat /etc/passwd >/dev/null; echo through >/fifo; wait`)
	if out != "through\n" {
		t.Errorf("the script said %q", out)
	}
	if got := log.Strings("/fifo"); len(got) != 2 && len(got) != 0 {
		t.Errorf("saw %q", got)
	}
}

// fifo(7): a writer blocks until somebody reads, loses nothing, and gets no
// SIGPIPE. Our fd in between must not change that.
func TestFIFOKeepsItsMeaning(t *testing.T) {
	root := fanotifytest.Root(t)
	if err := unix.Mkfifo(filepath.Join(root, "fifo"), 0o666); err != nil {
		t.Fatal(err)
	}
	g := fanotifytest.Open(t)
	fanotifytest.Listen(t, g, root, nil)
	mustMark(t, g, root)
	for _, c := range []struct{ name, script, want string }{
		{
			"writer first", `
(echo hello >/fifo; echo wrote >>/said) & writer=$!
sleep 0.3; echo started >>/said
cat /fifo >>/said; wait $writer && cat /said`, "started\nhello\nwrote\n",
		},
		{
			"reader first", `
cat /fifo & reader=$!
sleep 0.3; echo hello >/fifo && wait $reader`, "hello\n",
		},
		{
			"many rounds", `
i=0; while [ $i -lt 100 ]; do (echo $i >/fifo; echo $? >>/status) & cat /fifo; wait; i=$((i+1)); done >/got
wc -l </got; sort -u /status`, "100\n0\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := sh(t, root, "rm -f /said /status; "+c.script)
			if c.name == "writer first" {
				// "hello" and "wrote" race once the reader is there.
				if !strings.HasPrefix(out, "started\n") || !strings.Contains(out, "hello\n") || !strings.Contains(out, "wrote\n") {
					t.Errorf("got %q", out)
				}
				return
			}
			if out != c.want {
				t.Errorf("got %q, want %q", out, c.want)
			}
		})
	}
}

func TestHeldFIFOsAreBounded(t *testing.T) {
	root := fanotifytest.Root(t)
	if err := unix.Mkfifo(filepath.Join(root, "fifo"), 0o666); err != nil {
		t.Fatal(err)
	}
	g := fanotifytest.Open(t)
	fanotifytest.Listen(t, g, root, nil)
	mustMark(t, g, root)
	// <> opens for both, which never blocks.
	sh(t, root, `i=0; while [ $i -lt 1000 ]; do : <>/fifo; i=$((i+1)); done`)
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) > 100 {
		t.Errorf("%d fds open", len(entries))
	}
}
