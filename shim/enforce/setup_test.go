package enforce

import (
	"errors"
	"os/exec"
	"sync"
	"testing"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/fanotify"
	"github.com/stockade-dev/stockade/shim/procfs"
)

// stranger starts a process that nobody was admitted to, as the runtime's own code is.
func stranger(t *testing.T, proc *procfs.FS) (procfs.Thread, *Container) {
	t.Helper()
	cmd := exec.Command("/bin/sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it says that it was killed
	})
	th, err := proc.Thread(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	c := &Container{proc: proc}
	c.table.proc = proc
	c.plan.arm(&profiles.Plan{})
	return th, c
}

// judging is the judgement of an exec of th, as far as its own record.
func judging(t *testing.T, c *Container, th procfs.Thread, setup uint64) (j *judgement, known bool) {
	t.Helper()
	j = &judgement{c: c, proc: c.proc, ev: fanotify.Event{TID: th.TID, Mask: fanotify.OpenExecPerm}, setup: setup}
	known, err := j.who()
	if err != nil {
		t.Fatal(err)
	}
	return j, known
}

// The runtime's word about a session's process can come at any moment while an event of it is judged. It is a session's
// first process then, or not known yet: never the child of one, which would have to run what was admitted.
func TestSessionIsNamedWhileItIsJudged(t *testing.T) {
	th, c := stranger(t, openProc(t))
	end := c.ExecBegin()
	j, known := judging(t, c, th, 0)
	if known {
		t.Fatal("it is known before it was named")
	}
	if err := c.Session(th.TGID); err != nil {
		t.Fatal(err)
	}
	end(th.TGID) // and even the setting up has ended meanwhile
	if _, err := j.unknown(); !errors.Is(err, errNotYet) {
		t.Errorf("%v, as %+v, want that it is looked at again", err, j.self)
	}
	if j, known = judging(t, c, th, j.setup); !known || !j.self.session || !j.self.runtime || j.self.forked {
		t.Errorf("then it is known: %t, as %+v", known, j.self)
	}
}

// Whoever is not known waits for the sessions that had begun before it came, however long they take, and for no other.
func TestUnknownWaitsForItsSession(t *testing.T) {
	th, c := stranger(t, openProc(t))
	end := c.ExecBegin()
	setup := uint64(0)
	for range 5000 { // far more often than in the half minute that was the limit once
		j, _ := judging(t, c, th, setup)
		if _, err := j.unknown(); !errors.Is(err, errNotYet) {
			t.Fatalf("%v, want that it waits", err)
		}
		setup = j.setup
	}
	later := c.ExecBegin()
	defer later(0)
	end(0)
	j, _ := judging(t, c, th, setup)
	if _, err := j.unknown(); err != nil {
		t.Errorf("the session that it can be of has ended without it: %v", err)
	}
	if err := j.subject(); err != nil || j.why != profiles.ReasonProgram {
		t.Errorf("%v, %v, want that it runs what was never admitted", err, j.why)
	}
}

func runtimes(start uint64) program { return program{start: start, runtime: true, session: true} }

// The runtime's word comes twice, by the listener and by the end of the setting up, and the program can be admitted at
// any moment between. What was admitted stays.
func TestSessionIsNamedOnce(t *testing.T) {
	proc := openProc(t)
	th, c := stranger(t, proc)
	start, err := proc.StartTime(th.TGID)
	if err != nil {
		t.Fatal(err)
	}
	program := program{start: start, file: identity{1, 2}, path: "/bin/program", session: true}
	c.table.admit(th.TID, th.TGID, 1, c.table.last(th.TGID), program)
	c.table.begin(th.TGID, runtimes(start)) // by whoever had looked before that
	if p := c.table.last(th.TGID); p.runtime {
		t.Errorf("a program that was admitted is the runtime's code again: %+v", p)
	}
	for range 3000 {
		c.table = table{proc: proc}
		end := c.ExecBegin()
		var told sync.WaitGroup
		told.Go(func() { _ = c.Session(th.TGID) })
		told.Go(func() { end(th.TGID) })
		told.Go(func() { c.table.admit(th.TID, th.TGID, 1, c.table.last(th.TGID), program) })
		told.Wait()
		if p := c.table.last(th.TGID); p.runtime || p.path != program.path {
			t.Fatalf("a program that was admitted is the runtime's code again: %+v", p)
		}
	}
}

func TestSetups(t *testing.T) {
	var s setups
	if s.underWay(s.latest()) {
		t.Error("there is one before the first")
	}
	first, second := &profiles.Plan{}, &profiles.Plan{}
	a, b := s.begin(first), s.begin(second)
	if !s.underWay(a) || !s.underWay(b) || s.plan(nil) != first {
		t.Error("two are under way, and the first counts")
	}
	s.end(a)
	if s.underWay(a) || !s.underWay(b) {
		t.Error("one is under way: the second")
	}
	s.end(b)
	if s.underWay(b) || s.plan(second) != second {
		t.Error("all have ended")
	}
}
