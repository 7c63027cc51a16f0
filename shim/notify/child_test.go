package notify

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	lib "github.com/seccomp/libseccomp-golang"
	"golang.org/x/sys/unix"
)

// A filter stays for a process' life, so the one under test is this test
// binary run again: it puts a filter on itself, hands the descriptor over as
// runc does and makes calls.
const childVar = "STOCKADE_NOTIFY_CHILD"

func TestMain(m *testing.M) {
	if what := os.Getenv(childVar); what != "" {
		if err := childMain(what, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// notified are what the child's filter asks about.
var notified = []string{"keyctl", "swapoff", "syslog"}

func childMain(what string, args []string) error {
	if what == "connect" { // as another user
		conn, err := net.Dial("unix", args[0])
		if err != nil {
			return err
		}
		_, err = conn.Read(make([]byte, 1)) // until it is closed
		fmt.Println(err)
		return nil
	}
	runtime.LockOSThread()
	fd, err := loadFilter()
	if err != nil {
		return err
	}
	state := testState("c1", os.Getpid(), os.Getpid())
	if err := handOver(args[0], state, fd); err != nil {
		return err
	}
	unix.Close(fd)
	n, _ := strconv.Atoi(args[1])
	switch what {
	case "keyctl":
		for range n {
			_, _, errno := unix.Syscall6(unix.SYS_KEYCTL, 1, 2, 3, 4, 5, 0)
			fmt.Println(uint(errno))
		}
	case "threads":
		callFromThreads(16, n)
	case "interrupted":
		return callInterrupted()
	case "speed":
		return measure(n)
	}
	return nil
}

func loadFilter() (int, error) {
	filter, err := lib.NewFilter(lib.ActAllow)
	if err != nil {
		return -1, err
	}
	for _, name := range notified {
		nr, err := lib.GetSyscallFromName(name)
		if err != nil {
			return -1, err
		}
		if err := filter.AddRule(nr, lib.ActNotify); err != nil {
			return -1, err
		}
	}
	if err := filter.Load(); err != nil {
		return -1, err
	}
	fd, err := filter.GetNotifFd()
	return int(fd), err
}

func testState(container string, pid, init int) specs.ContainerProcessState {
	return specs.ContainerProcessState{
		Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: pid, Metadata: "m",
		State: specs.State{Version: specs.Version, ID: container, Status: specs.StateCreating, Pid: init, Bundle: "/bundle"},
	}
}

func handOver(path string, state any, fds ...int) error {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	defer conn.Close()
	data, err := json.Marshal(state)
	if err != nil {
		return err
	}
	n, _, err := conn.WriteMsgUnix(data, unix.UnixRights(fds...), nil)
	if err == nil {
		_, err = conn.Write(data[n:])
	}
	return err
}

func callFromThreads(threads, n int) {
	var wait sync.WaitGroup
	for i := range threads {
		wait.Go(func() {
			runtime.LockOSThread()
			for j := range n {
				_, _, errno := unix.Syscall(unix.SYS_KEYCTL, uintptr(i), uintptr(j), 0)
				if int(errno) != 1+(i*n+j)%100 {
					fmt.Printf("thread %d call %d: %v\n", i, j, errno)
				}
			}
		})
	}
	wait.Wait()
	fmt.Println("done")
}

// callInterrupted has a signal with SA_RESTART arrive while the call waits.
func callInterrupted() error {
	tid := unix.Gettid()
	go func() {
		time.Sleep(50 * time.Millisecond)
		unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
	}()
	_, _, errno := unix.Syscall(unix.SYS_KEYCTL, 7, 0, 0)
	fmt.Println(uint(errno))
	return nil
}

// child is one run of the child; its calls are on the listener's socket.
type child struct {
	cmd *exec.Cmd
	out strings.Builder
	err strings.Builder
}

func startChild(t testing.TB, what string, args ...string) *child {
	t.Helper()
	c := &child{cmd: exec.Command("/proc/self/exe", args...)}
	c.cmd.Env = append(os.Environ(), childVar+"="+what)
	c.cmd.Stdout, c.cmd.Stderr = &c.out, &c.err
	must(t, c.cmd.Start())
	t.Cleanup(func() {
		c.cmd.Process.Kill()
		c.cmd.Wait()
	})
	return c
}

// finish waits and gives what the child printed, by lines.
func (c *child) finish(t *testing.T) []string {
	t.Helper()
	if err := c.cmd.Wait(); err != nil {
		t.Fatalf("child: %v: %s", err, c.err.String())
	}
	return strings.Fields(c.out.String())
}

// served is a listener at work.
type served struct {
	*Listener
	path   string
	faults chan error
	done   chan error
}

func serve(t *testing.T, handle Handler) *served {
	t.Helper()
	s := &served{path: filepath.Join(t.TempDir(), "s", "notify.sock"), faults: make(chan error, 100), done: make(chan error, 1)}
	l, err := Listen(s.path)
	must(t, err)
	s.Listener = l
	go func() { s.done <- l.Serve(handle, func(_ Process, err error) { s.faults <- err }) }()
	t.Cleanup(func() { l.Close() })
	return s
}

// stop waits for the handlers and lets no fault pass.
func (s *served) stop(t *testing.T) {
	t.Helper()
	must(t, s.Close())
	must(t, <-s.done)
	s.noFault(t)
}

func (s *served) noFault(t *testing.T) {
	t.Helper()
	select {
	case err := <-s.faults:
		t.Errorf("fault: %v", err)
	default:
	}
}

func (s *served) wantFault(t *testing.T, text string) {
	t.Helper()
	select {
	case err := <-s.faults:
		if !strings.Contains(err.Error(), text) {
			t.Errorf("fault %q, want one about %q", err, text)
		}
	case <-time.After(patience):
		t.Errorf("no fault, want one about %q", text)
	}
}

// patience only bounds how long a failing test hangs.
const patience = 20 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func openFDs(t *testing.T, link string) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	n := 0
	for _, e := range entries {
		if l, _ := os.Readlink("/proc/self/fd/" + e.Name()); l == link {
			n++
		}
	}
	return n
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}
