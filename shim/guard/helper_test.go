package guard

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/shim/cgroup"
)

// TestMain is also the guard, by the name under which Start runs it, and the shim of the tests.
func TestMain(m *testing.M) {
	if os.Args[0] == comm {
		dieFirst()
		Main()
	}
	if dir := os.Getenv("GUARD_TEST_SHIM"); dir != "" {
		shimRole(dir)
	}
	os.Exit(m.Run())
}

// deaths is between the name of a guard's program and the number of a death that it is to die.
const deaths = ".dies."

// dieFirst kills this guard if one of its program's deaths is left.
func dieFirst() {
	exe, _ := os.Executable()
	if left, _ := filepath.Glob(exe + deaths + "*"); len(left) > 0 {
		_ = os.Remove(left[0])
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
		select {}
	}
}

// fence is a directory of its own file system with a declared and an undeclared file, and a container that goes on opening
// both. Each open of the undeclared one that succeeds leaves a trace.
type fence struct {
	dir, trace string
	container  *cgroup.Cgroup
	group      string // the control group's directory
}

func newFence(t testing.TB) *fence { return newFenceIn(t, freezer(t)) }

// newFenceIn has its container's group in the hierarchy that is mounted there.
func newFenceIn(t testing.TB, hierarchy string) *fence {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Skip("needs root: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	for _, name := range []string{"declared", "undeclared"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("text\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := &fence{dir: dir, trace: filepath.Join(t.TempDir(), "trace")}
	f.container, f.group = hammerIn(t, hierarchy, fmt.Sprintf(`h() { while :; do
		read x < %[1]s/undeclared && echo open >> %[2]s
		read x < %[1]s/declared
	done; }; for i in 1 2 3 4 5 6; do h & done; wait`, dir, f.trace))
	return f
}

// hammer parks a container that will run the script when it is continued.
func hammer(t testing.TB, script string) (*cgroup.Cgroup, string) {
	return hammerIn(t, freezer(t), script)
}

func hammerIn(t testing.TB, hierarchy, script string) (*cgroup.Cgroup, string) {
	t.Helper()
	group, err := os.MkdirTemp(hierarchy, "stockade-guard-test-")
	if err != nil {
		t.Skip("needs root: ", err)
	}
	cmd := exec.Command("/bin/sh", "-c", "kill -STOP $$; "+script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeGroup(t, group, cmd) })
	if err := os.WriteFile(group+"/cgroup.procs", []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "parked", func() bool { return processState(cmd.Process.Pid) == 'T' })
	c, err := open(cmd.Process.Pid, hierarchy, group)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, group
}

// open is cgroup.Open, also for the v2 hierarchy of a hybrid node, which Open would not use.
func open(pid int, hierarchy, group string) (*cgroup.Cgroup, error) {
	if hierarchy != unified {
		return cgroup.Open(pid)
	}
	s := cgroup.Spec{Version: 2, Path: strings.TrimPrefix(group, hierarchy), Dir: group, PID: pid}
	var st unix.Stat_t
	if err := unix.Stat(group, &st); err != nil {
		return nil, err
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	s.Inode = st.Ino
	if s.Start, err = strconv.ParseUint(strings.Fields(rest)[19], 10, 64); err != nil {
		return nil, err
	}
	return cgroup.FromSpec(s)
}

const unified = "/sys/fs/cgroup/unified"

// freezer is where the node's containers are killed: the v1 freezer hierarchy, or v2 where that is all there is.
func freezer(t testing.TB) string {
	for _, dir := range []string{"/sys/fs/cgroup/freezer", "/sys/fs/cgroup"} {
		if _, err := os.Stat(dir + "/cgroup.procs"); err == nil {
			return dir
		}
	}
	t.Skip("no cgroup hierarchy")
	return ""
}

func removeGroup(t testing.TB, group string, init *exec.Cmd) {
	_ = os.WriteFile(group+"/freezer.state", []byte("THAWED"), 0)
	for range 2000 {
		data, _ := os.ReadFile(group + "/cgroup.procs")
		for field := range strings.FieldsSeq(string(data)) {
			pid, _ := strconv.Atoi(field)
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if err := unix.Rmdir(group); err == nil || errors.Is(err, unix.ENOENT) {
			_ = init.Process.Kill()
			_ = init.Wait()
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("%s is still there", group)
}

func (f *fence) start(t testing.TB) {
	t.Helper()
	if err := unix.Kill(f.container.Spec().PID, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// ends waits until the container is dead, and then says whether an undeclared open succeeded.
func (f *fence) ends(t testing.TB) {
	t.Helper()
	begin := time.Now()
	eventually(t, "the container is dead", func() bool {
		empty, err := f.container.Empty()
		if err != nil {
			t.Fatal(err)
		}
		return empty
	})
	t.Logf("dead after %v", time.Since(begin))
	if data, err := os.ReadFile(f.trace); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("undeclared opens succeeded: %q %v", data, err)
	}
}

func (f *fence) alive(t testing.TB) {
	t.Helper()
	if empty, err := f.container.Empty(); empty || err != nil {
		t.Fatalf("the container is dead, or cannot be told: %v %v", empty, err)
	}
}

// shim is the process under test: it answers the fence's events, and has a guard.
type shim struct {
	*exec.Cmd
	in    io.WriteCloser
	out   *bufio.Scanner
	guard int // pid
	pidfd int // of the guard
	log   string
}

// runShim starts it for this fence; with watch, its guard watches the container.
func runShim(t testing.TB, f *fence, watch bool) *shim {
	t.Helper()
	spec, err := json.Marshal(f.container.Spec())
	if err != nil {
		t.Fatal(err)
	}
	s := &shim{Cmd: exec.Command("/proc/self/exe"), log: filepath.Join(t.TempDir(), "log")}
	s.Env = append(os.Environ(), "GUARD_TEST_SHIM="+f.dir, "GUARD_TEST_LOG="+s.log)
	s.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.Stderr = os.Stderr
	out, errOut := s.StdoutPipe()
	in, errIn := s.StdinPipe()
	if err := errors.Join(errOut, errIn, s.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = s.Process.Kill(), s.Wait() })
	s.in, s.out = in, bufio.NewScanner(out)
	if s.guard, err = strconv.Atoi(s.read(t)); err != nil {
		t.Fatal(err)
	}
	if s.pidfd, err = unix.PidfdOpen(s.guard, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.PidfdSendSignal(s.pidfd, unix.SIGKILL, nil, 0)
		_ = unix.Close(s.pidfd)
	})
	if watch {
		s.tell(t, "watch "+string(spec))
	}
	return s
}

func (s *shim) read(t testing.TB) string {
	t.Helper()
	if !s.out.Scan() {
		t.Fatal("the shim has ended: ", s.out.Err())
	}
	return s.out.Text()
}

// tell gives the shim a command, and waits until it has obeyed.
func (s *shim) tell(t testing.TB, command string) {
	t.Helper()
	if _, err := fmt.Fprintln(s.in, command); err != nil {
		t.Fatal(err)
	}
	if answer := s.read(t); answer != "ok" {
		t.Fatalf("%s: %s", command, answer)
	}
}

func (s *shim) guardEnds(t testing.TB) {
	t.Helper()
	eventually(t, "the guard has ended", func() bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.pidfd), Events: unix.POLLIN}}, 0)
		return err == nil && n == 1
	})
}

func (s *shim) guardLives(t testing.TB) {
	t.Helper()
	if err := unix.PidfdSendSignal(s.pidfd, 0, nil, 0); err != nil {
		t.Fatal("the guard: ", err)
	}
}

// logs waits for what the guard writes, which is after the container's death.
func (s *shim) logs(t testing.TB, want string) {
	t.Helper()
	eventually(t, "log "+want, func() bool {
		data, _ := os.ReadFile(s.log)
		return string(data) == want
	})
}

func processState(pid int) byte {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if i := strings.LastIndexByte(string(data), ')'); i >= 0 {
		return data[i+2]
	}
	return 0
}

// eventually fails the test when cond does not come true in a time that only a hang would take.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(40 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}
