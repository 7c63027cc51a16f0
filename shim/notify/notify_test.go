package notify

import (
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAnswers(t *testing.T) {
	var calls []Call
	answers := []Answer{Deny(syscall.EACCES), {}, Deny(5000), Deny(syscall.ENOSYS), Continue()}
	s := serve(t, func(c *Call) (Answer, error) {
		must(t, c.Valid())
		calls = append(calls, *c)
		return answers[len(calls)-1], nil
	})
	c := startChild(t, "keyctl", s.path, "5")
	<-s.Init()
	// keyctl(1, 2, 3, 4, 5): KEYCTL_JOIN_SESSION_KEYRING with a bad pointer.
	want := []string{"13", "1", "1", "38", "14"}
	if got := c.finish(t); !slices.Equal(got, want) {
		t.Errorf("the child saw the errors %q, want %q", got, want)
	}
	s.stop(t)
	pid := c.cmd.Process.Pid
	for _, got := range calls {
		if got.Name != "keyctl" || got.Arch != "amd64" && got.Arch != "arm64" || got.Nr != unix.SYS_KEYCTL || got.Args != [6]uint64{1, 2, 3, 4, 5} {
			t.Errorf("call %+v", got)
		}
		if want := (Process{Container: "c1", Bundle: "/bundle", PID: pid, Init: true, Metadata: "m"}); got.Process != want || got.PID == 0 {
			t.Errorf("caller %d of %+v, want %+v", got.PID, got.Process, want)
		}
	}
}

func TestFailsClosed(t *testing.T) {
	handlers := map[string]Handler{
		"no idea": func(*Call) (Answer, error) { return Continue(), errors.New("no idea") },
		"panic":   func(*Call) (Answer, error) { panic("oops") },
		"index out of range": func(c *Call) (Answer, error) {
			return []Answer{Continue()}[c.Args[1]], nil
		},
	}
	for name, h := range handlers {
		t.Run(name, func(t *testing.T) {
			s := serve(t, h)
			c := startChild(t, "keyctl", s.path, "2")
			if got := c.finish(t); !slices.Equal(got, []string{"1", "1"}) {
				t.Errorf("the child saw %q, want EPERM twice", got)
			}
			s.wantFault(t, name)
			s.wantFault(t, name)
		})
	}
}

func TestEveryThreadIsAnsweredWithItsOwn(t *testing.T) {
	const n = 200
	var count atomic.Int64
	tids := sync.Map{}
	s := serve(t, func(c *Call) (Answer, error) {
		count.Add(1)
		tids.Store(c.PID, true)
		return Deny(syscall.Errno(1 + (int(c.Args[0])*n+int(c.Args[1]))%100)), nil
	})
	c := startChild(t, "threads", s.path, strconv.Itoa(n))
	if got := c.finish(t); !slices.Equal(got, []string{"done"}) {
		t.Error(got)
	}
	s.stop(t)
	threads := 0
	tids.Range(func(any, any) bool { threads++; return true })
	if threads < 16 || count.Load() < 16*n {
		t.Errorf("%d calls of %d threads", count.Load(), threads)
	}
}

// A signal takes the thread out of its call while we decide: the answer comes
// too late, and the call is made, and notified, again.
func TestInterruptedCallIsAskedAgain(t *testing.T) {
	var asked []error
	s := serve(t, func(c *Call) (Answer, error) {
		if len(asked) == 0 {
			eventually(t, "the call is withdrawn", func() bool { return c.Valid() != nil })
		}
		asked = append(asked, c.Valid())
		return Deny(syscall.EACCES), nil
	})
	c := startChild(t, "interrupted", s.path, "1")
	if got := c.finish(t); !slices.Equal(got, []string{"13"}) {
		t.Errorf("the child saw %q", got)
	}
	s.stop(t)
	if len(asked) != 2 || !errors.Is(asked[0], ErrGone) || asked[1] != nil {
		t.Errorf("asked: %v", asked)
	}
}

func TestKilledCallerIsNoFault(t *testing.T) {
	s := serve(t, func(c *Call) (Answer, error) {
		must(t, unix.Kill(c.Process.PID, unix.SIGKILL))
		eventually(t, "the call is withdrawn", func() bool { return errors.Is(c.Valid(), ErrGone) })
		return Deny(syscall.EPERM), nil
	})
	c := startChild(t, "keyctl", s.path, "1")
	var exit *exec.ExitError
	if err := c.cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("child: %v", err)
	}
	eventually(t, "its descriptor is closed", func() bool { return openFDs(t, notifyLink) == 0 })
	s.noFault(t)
}

func TestCloseWakesEverything(t *testing.T) {
	asked := make(chan bool)
	release := make(chan bool)
	s := serve(t, func(*Call) (Answer, error) {
		asked <- true
		<-release
		return Continue(), nil
	})
	c := startChild(t, "keyctl", s.path, "3")
	<-asked
	go func() {
		// Close has closed the descriptor once the socket is gone; the
		// handler is let go after that.
		eventually(t, "Close", s.isClosed)
		close(release)
	}()
	must(t, s.Close())
	must(t, <-s.done)
	if got := c.finish(t); !slices.Equal(got, []string{"38", "38", "38"}) {
		t.Errorf("the child saw %q, want ENOSYS", got)
	}
	s.noFault(t)
	if n := openFDs(t, notifyLink); n != 0 {
		t.Errorf("%d descriptors are left", n)
	}
	must(t, s.Close())
}

// What runc would never send is refused, told, and leaves nothing open.
func TestRefusedHandovers(t *testing.T) {
	pipe := make([]int, 2)
	must(t, unix.Pipe2(pipe, unix.O_CLOEXEC))
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	good := testState("c1", 10, 10)
	noID, noFDs := good, good
	noID.State.ID, noFDs.Fds = "", nil
	cases := []struct {
		name  string
		state any
		fds   []int
		fault string
	}{
		{"a pipe", good, pipe[:1], "pipe"},
		{"two descriptors", good, pipe, "2 descriptors"},
		{"many descriptors", good, slices.Repeat(pipe, 100), "descriptors"},
		{"more than fit", good, slices.Repeat(pipe, 126), "descriptors"},
		{"no descriptor", good, nil, "0 descriptors"},
		{"no state", "hello", pipe[:1], "container process state"},
		{"no container", noID, pipe[:1], "container process state"},
		{"no names", noFDs, pipe[:1], "container process state"},
		{"too long", strings.Repeat("x", maxState+1), pipe[:1], "more than"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, nil)
			before := openFDs(t, linkOf(t, pipe[0]))
			// The listener may hang up before it has read everything.
			if err := handOver(s.path, c.state, c.fds...); err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
				t.Fatal(err)
			}
			s.wantFault(t, c.fault)
			eventually(t, "the descriptors are closed", func() bool { return openFDs(t, linkOf(t, pipe[0])) == before })
			select {
			case <-s.Init():
				t.Error("Init is closed")
			default:
			}
		})
	}
}

// A runc that is killed before it hands anything over takes no container along.
func TestPeerThatHangsUpIsNoFault(t *testing.T) {
	s := serve(t, func(*Call) (Answer, error) { return Deny(syscall.EACCES), nil })
	for range 20 {
		conn, err := net.Dial("unix", s.path)
		must(t, err)
		must(t, conn.Close())
	}
	c := startChild(t, "keyctl", s.path, "1")
	if got := c.finish(t); !slices.Equal(got, []string{"13"}) {
		t.Errorf("after it, a child saw the errors %q", got)
	}
	eventually(t, "all of them were heard", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.open) == 0
	})
	s.noFault(t)
}

func linkOf(t *testing.T, fd int) string {
	t.Helper()
	link, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	must(t, err)
	return link
}

func TestOneContainerPerSocket(t *testing.T) {
	type step struct {
		p    Process
		want bool
	}
	init1, exec1 := Process{Container: "c1", PID: 1, Init: true}, Process{Container: "c1", PID: 2}
	cases := map[string][]step{
		"in order":        {{init1, true}, {exec1, true}, {exec1, true}},
		"exec first":      {{exec1, false}, {init1, true}},
		"two first ones":  {{init1, true}, {init1, false}},
		"other container": {{init1, true}, {Process{Container: "c2", PID: 3}, false}},
	}
	for name, steps := range cases {
		t.Run(name, func(t *testing.T) {
			l := &Listener{}
			for i, s := range steps {
				if err := l.admit(s.p); (err == nil) != s.want {
					t.Errorf("step %d: %v", i, err)
				}
			}
		})
	}
}

func TestLongState(t *testing.T) {
	s := serve(t, func(*Call) (Answer, error) { return Deny(syscall.EACCES), nil })
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	state := testState("c1", 10, 10)
	state.State.Annotations = map[string]string{"a": strings.Repeat("x", 1<<20)}
	must(t, handOver(s.path, state, fd))
	s.wantFault(t, "a descriptor of /dev/null") // that is: the state was read
}

// Too few descriptors for a moment: the handover waits, and is not lost.
func TestShortageOfDescriptors(t *testing.T) {
	s := serve(t, nil)
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(null)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	none := limit
	none.Cur = 3
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &none))
	must(t, unix.Connect(fd, &unix.SockaddrUnix{Name: s.path}))
	data, err := json.Marshal(testState("c1", 10, 10))
	if err == nil {
		err = unix.Sendmsg(fd, data, unix.UnixRights(null), nil, 0)
	}
	time.Sleep(50 * time.Millisecond)
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit))
	must(t, err)
	must(t, unix.Shutdown(fd, unix.SHUT_WR))
	s.wantFault(t, "a descriptor of /dev/null")
}

func TestOnlyRootConnects(t *testing.T) {
	s := serve(t, nil)
	// Open the way that the folder's mode keeps closed.
	for dir := filepath.Dir(s.path); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755))
	}
	must(t, os.Chmod(s.path, 0o777))
	exe, err := os.Readlink("/proc/self/exe")
	must(t, err)
	for dir := filepath.Dir(exe); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		must(t, os.Chmod(dir, 0o755))
	}
	c := &child{cmd: exec.Command(exe, s.path)}
	c.cmd.Env = append(os.Environ(), childVar+"=connect")
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.err
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	must(t, c.cmd.Start())
	c.finish(t)
	s.wantFault(t, "user 65534")
}

func TestListenRefuses(t *testing.T) {
	tmp := t.TempDir()
	open := filepath.Join(tmp, "open")
	must(t, os.Mkdir(open, 0o755))
	must(t, os.Symlink(tmp, filepath.Join(tmp, "link")))
	file := filepath.Join(tmp, "private")
	must(t, os.Mkdir(file, 0o700))
	must(t, os.WriteFile(filepath.Join(file, "sock"), nil, 0o600))
	for path, text := range map[string]string{
		filepath.Join(open, "sock"):                            "0700",
		filepath.Join(tmp, "link", "sock"):                     "0700",
		filepath.Join(tmp, "none", "below", "sock"):            "no such file",
		filepath.Join(file, "sock"):                            "in use",
		filepath.Join(tmp, strings.Repeat("x", maxSocketPath)): "at most 107",
	} {
		l, err := Listen(path)
		if err == nil {
			l.Close()
		}
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, want something about %q", path, err, text)
		}
	}
}

// A shim that was killed leaves its socket.
func TestListenAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s", "sock")
	l, err := Listen(path)
	must(t, err)
	l.socket.SetUnlinkOnClose(false)
	must(t, l.Close())
	if _, err := os.Lstat(path); err != nil {
		t.Fatal(err)
	}
	l, err = Listen(path)
	must(t, err)
	must(t, l.Close())
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}
