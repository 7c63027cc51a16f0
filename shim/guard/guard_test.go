package guard

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/shim/cgroup"
)

// Without this one the others could pass for the wrong reason: with nobody watching, the shim's death does let the
// undeclared open through.
func TestUnwatchedIsOpen(t *testing.T) {
	f := newFence(t)
	s := runShim(t, f, false)
	f.start(t)
	time.Sleep(50 * time.Millisecond)
	if _, err := os.Stat(f.trace); err == nil {
		t.Fatal("open although the shim lives")
	}
	_ = s.Process.Kill()
	s.guardEnds(t)
	eventually(t, "the fence is open", func() bool {
		_, err := os.Stat(f.trace)
		return err == nil
	})
}

func TestShimKilled(t *testing.T) {
	f := newFence(t)
	s := runShim(t, f, true)
	f.start(t)
	time.Sleep(100 * time.Millisecond)
	f.alive(t)
	_ = s.Process.Kill()
	f.ends(t)
	s.guardEnds(t)
	s.logs(t, comm+": killed \"c1\": the shim died\n")
}

func TestShimKilledV2(t *testing.T) {
	if _, err := os.Stat(unified); err != nil {
		t.Skip("the other tests are of v2 (cgroup v2 only: yes)") // as stockade doctor says it
	}
	f := newFenceIn(t, unified)
	s := runShim(t, f, true)
	f.start(t)
	time.Sleep(50 * time.Millisecond)
	f.alive(t)
	_ = s.Process.Kill()
	f.ends(t)
	s.guardEnds(t)
}

// The end of all that the shim started from, by every signal that a session's or a service's end sends.
func TestSignalsToAll(t *testing.T) {
	f := newFence(t)
	s := runShim(t, f, true)
	f.start(t)
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGPIPE, unix.SIGUSR1, unix.SIGTSTP, unix.SIGTTOU} {
		if err := unix.PidfdSendSignal(s.pidfd, sig, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(50 * time.Millisecond)
	s.guardLives(t)
	f.alive(t)
	if err := unix.Kill(-s.Process.Pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	f.ends(t)
	s.guardEnds(t)
}

func TestShimKilledContainerFrozen(t *testing.T) {
	f := newFence(t)
	s := runShim(t, f, true)
	f.start(t)
	time.Sleep(20 * time.Millisecond)
	if err := f.container.Freeze(); err != nil {
		t.Fatal(err)
	}
	_ = s.Process.Kill()
	f.ends(t)
	s.guardEnds(t)
}

// Killed right after Watch, with the container's start and the hammering in the same instant.
func TestShimKilledAtAnyMoment(t *testing.T) {
	for i := range 20 {
		f := newFence(t)
		s := runShim(t, f, true)
		f.start(t)
		time.Sleep(time.Duration(i) * time.Millisecond)
		_ = s.Process.Kill()
		f.ends(t)
		s.guardEnds(t)
	}
}

func TestShimStopped(t *testing.T) {
	f := newFence(t)
	s := runShim(t, f, true)
	f.start(t)
	if err := unix.Kill(s.Process.Pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	f.ends(t)
	s.guardLives(t)
	if err := unix.Kill(s.Process.Pid, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	s.tell(t, "forget")
}

func TestShimHangs(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 10 s")
	}
	for _, how := range []string{"hang", "quiet"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			f := newFence(t)
			s := runShim(t, f, true)
			f.start(t)
			s.tell(t, how)
			f.ends(t)
			s.guardLives(t)
			s.logs(t, comm+": killed \"c1\": the shim hangs\n")
		})
	}
}

// A shim with nothing to do, or with work all the time, does not hang.
func TestShimIdleOrBusy(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 13 s")
	}
	for _, busy := range []bool{false, true} {
		t.Run(fmt.Sprintf("busy=%v", busy), func(t *testing.T) {
			t.Parallel()
			f := newFence(t)
			s := runShim(t, f, true)
			if busy {
				f.start(t)
			}
			time.Sleep(hungAfter + 10*every)
			s.guardLives(t)
			f.alive(t)
		})
	}
}

func TestOrderlyEnd(t *testing.T) {
	f := newFence(t)
	s := runShim(t, f, true)
	s.tell(t, "forget")
	s.tell(t, "close")
	s.guardEnds(t)
	f.alive(t)
}

// A shim that ends with a container still watched has not ended in order.
func TestEndWithWatched(t *testing.T) {
	f := newFence(t)
	s := runShim(t, f, true)
	f.start(t)
	s.tell(t, "close")
	time.Sleep(50 * time.Millisecond)
	s.guardLives(t)
	f.alive(t)
	_ = s.in.Close()
	f.ends(t)
	s.guardEnds(t)
}

func TestGuardKilled(t *testing.T) {
	f := newFence(t)
	s := runShim(t, f, true)
	f.start(t)
	if err := unix.PidfdSendSignal(s.pidfd, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	s.tell(t, "restart")
	f.alive(t)
	_ = s.Process.Kill()
	f.ends(t)
}

// own is a guard of the test process itself, over a group without marks.
func own(t testing.TB) *Guard {
	t.Helper()
	group, err := newGroup("")
	if err != nil {
		t.Skip("needs root: ", err)
	}
	t.Cleanup(func() { _ = group.Close() })
	g, err := Start("/proc/self/exe", group)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.mu.Lock()
		g.proc.end()
		g.mu.Unlock()
	})
	return g
}

func TestDoneAndRestart(t *testing.T) {
	g := own(t)
	alive, _ := hammer(t, "sleep 100")
	ended, group := hammer(t, "sleep 100")
	for id, c := range map[string]*cgroup.Cgroup{"alive": alive, "ended": ended} {
		if err := g.Watch(id, c.Spec()); err != nil {
			t.Fatal(err)
		}
	}
	pid := g.PID()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-g.Done()
	for _, err := range []error{g.Watch("alive", alive.Spec()), g.Forget("none")} {
		if !errors.Is(err, ErrDead) {
			t.Errorf("of a dead guard: %v", err)
		}
	}
	_ = ended.Kill()
	_, _ = unix.Wait4(ended.Spec().PID, nil, 0, nil)
	eventually(t, "removed", func() bool { return unix.Rmdir(group) == nil })
	if err := g.Restart(); err != nil {
		t.Fatal(err)
	}
	if len(g.watches) != 1 || g.PID() == pid {
		t.Errorf("after Restart: watches %v, pid %d", g.watches, g.PID())
	}
	select {
	case <-g.Done():
		t.Error("Done is that of the old process")
	default:
	}
}

// A guard that is killed while it starts is replaced as well: its containers are not to die of that. One that never comes
// up is given up.
func TestRestartAgain(t *testing.T) {
	for _, tt := range []struct {
		name  string
		dies  int
		works bool
	}{
		{"dies once", 1, true},
		{"dies often", restarts - 1, true},
		{"dies always", restarts, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := own(t)
			c, _ := hammer(t, "sleep 100")
			if err := g.Watch("container", c.Spec()); err != nil {
				t.Fatal(err)
			}
			g.binary = dying(t, tt.dies)
			if err := unix.Kill(g.PID(), unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			<-g.Done()
			if err := g.Restart(); (err == nil) != tt.works || err != nil && !errors.Is(err, ErrDead) {
				t.Fatal(err)
			}
			if !tt.works {
				return
			}
			if err := g.Watch("container", c.Spec()); err != nil || len(g.watches) != 1 {
				t.Errorf("the new one: %v, watches %v", err, g.watches)
			}
		})
	}
}

// dying is a guard's program that is killed the first times.
func dying(t *testing.T, times int) string {
	t.Helper()
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "guard")
	if err := os.WriteFile(file, exe, 0o700); err != nil {
		t.Fatal(err)
	}
	for n := range times {
		if err := os.WriteFile(fmt.Sprint(file, deaths, n), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

// A guard that is stopped does not answer. It is killed, so that it can be replaced.
func TestGuardStopped(t *testing.T) {
	g := own(t)
	c, _ := hammer(t, "sleep 100")
	if err := unix.Kill(g.PID(), unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := g.Watch("c", c.Spec()); !errors.Is(err, ErrDead) {
		t.Fatal(err)
	}
	<-g.Done()
	if err := g.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := g.Watch("c", c.Spec()); err != nil {
		t.Fatal(err)
	}
}

func TestWatchRefused(t *testing.T) {
	g := own(t)
	c, _ := hammer(t, "sleep 100")
	good := c.Spec()
	tests := []struct {
		name  string
		spoil func(*cgroup.Spec)
		want  error
	}{
		{"root", func(s *cgroup.Spec) { s.Path, s.Dir = "/", "/sys/fs/cgroup/freezer" }, cgroup.ErrRefused},
		{"gone", func(s *cgroup.Spec) { s.Path += "x"; s.Dir += "x" }, fs.ErrNotExist},
		{"another object", func(s *cgroup.Spec) { s.Inode++ }, fs.ErrNotExist},
		{"no version", func(s *cgroup.Spec) { s.Version = 0 }, cgroup.ErrRefused},
		{"elsewhere", func(s *cgroup.Spec) { s.Dir = "/tmp" }, cgroup.ErrRefused},
	}
	for _, tt := range tests {
		s := good
		tt.spoil(&s)
		if err := g.Watch("c", s); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if len(g.watches) != 0 {
		t.Errorf("watches %v", g.watches)
	}
	if err := g.Watch(strings.Repeat("x", maxMessage), good); !errors.Is(err, errTooLong) {
		t.Errorf("long id: %v", err)
	}
	if err := g.Watch("c", good); err != nil {
		t.Error(err)
	}
	if err := g.Forget("unknown"); err != nil {
		t.Error(err)
	}
}

func TestMalformedMessages(t *testing.T) {
	g := own(t)
	c, _ := hammer(t, "sleep 100")
	if err := g.Watch("c", c.Spec()); err != nil {
		t.Fatal(err)
	}
	watch := request{op: opWatch, seq: 99, id: "d", body: []byte("not a spec")}
	for _, msg := range [][]byte{
		{},
		{0},
		[]byte("hello"),
		{opWatch, 1, 0, 0, 0},
		{opWatch, 1, 0, 0, 0, 0},
		{opForget, 1, 0, 0, 0, 200, 'x'},
		{'?', 1, 0, 0, 0, 1, 'x'},
		watch.append(nil), slices.Repeat([]byte{opWatch}, 4*maxMessage),
	} {
		err := control(g.proc.conn, func(fd int) error { return unix.Sendto(fd, msg, 0, nil) })
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Watch("e", c.Spec()); err != nil {
			t.Fatalf("after %q: %v", msg[:min(len(msg), 20)], err)
		}
	}
}

// The guard holds what it was given and nothing else, and speaks to nobody.
func TestInheritsLittle(t *testing.T) {
	stray, err := unix.Dup(int(os.Stdin.Fd())) // without close-on-exec
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(stray) }()
	g := own(t)
	proc := fmt.Sprint("/proc/", g.PID())
	if name, _ := os.ReadFile(proc + "/comm"); string(name) != comm+"\n" {
		t.Errorf("comm %q", name)
	}
	if cwd, _ := os.Readlink(proc + "/cwd"); cwd != "/" {
		t.Errorf("cwd %q", cwd)
	}
	if sid, err := unix.Getsid(g.PID()); sid != g.PID() || err != nil {
		t.Errorf("session %d %v", sid, err)
	}
	entries, err := os.ReadDir(proc + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		var fd int
		_, _ = fmt.Sscan(entry.Name(), &fd)
		target, _ := os.Readlink(filepath.Join(proc, "fd", entry.Name()))
		if fd < 3 && target != os.DevNull || fd > fdLog && !strings.HasPrefix(target, "anon_inode:[event") {
			t.Errorf("fd %d is %s", fd, target)
		}
	}
}

func TestStartFails(t *testing.T) {
	group, err := newGroup("")
	if err != nil {
		t.Skip("needs root: ", err)
	}
	defer func() { _ = group.Close() }()
	if _, err := Start("/nowhere/stockade-guard", group); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no program: %v", err)
	}
	other, err := exec.LookPath("true")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Start(other, group); !errors.Is(err, ErrDead) {
		t.Errorf("another program: %v", err)
	}
}
