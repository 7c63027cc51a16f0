package enforce

import (
	"runtime"
	"time"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/procfs"
)

// Call is a system call that the container's filter has stopped to ask about.
type Call struct {
	TID   int
	Name  string
	Arch  string
	Args  [6]uint64
	Valid func() error // whether the caller still waits
}

// Syscall judges a call and carries the verdict out, but for the answer itself: allow says which it is. The calling
// thread waits meanwhile; Config.Report only takes note.
func (c *Container) Syscall(call Call) (allow bool, err error) {
	begin := time.Now()
	defer func() { c.counts.told.observe(time.Since(begin)) }()
	for {
		if c.dead.Load() {
			return false, nil
		}
		plan := c.Plan()
		allow, err = c.judgeCall(plan, call)
		// Looking at a call's memory can take as long as the container likes: what was allowed is allowed by the plan
		// that holds now.
		if !allow || err != nil || plan == c.Plan() {
			return allow, err
		}
	}
}

func (c *Container) judgeCall(plan *profiles.Plan, call Call) (allow bool, err error) {
	var attempts []attempt
	watched := c.plan.armed.Watches(call.Name) && declares(plan, call.Name)
	if watched {
		if attempts = c.watch(plan, call); len(attempts) == 0 || call.Valid() != nil {
			return true, nil
		}
	}
	th, err := c.proc.Thread(call.TID)
	if err != nil {
		return false, err
	}
	a, self, err := c.callAccess(call, th)
	if err != nil {
		return false, err
	}
	if !watched {
		attempts = []attempt{{Access: a}}
	} else if self.runtime && !self.forked {
		return true, nil // the runtime's own code on its way to the program
	}
	for _, attempt := range attempts {
		attempt.Subject = a.Subject
		v := Violation{Plan: plan, Access: attempt.Access, Call: call.Name, Args: call.Args, Arch: call.Arch}
		if attempt.why != 0 {
			v.Verdict = plan.Refuse(attempt.why)
		} else if v.Verdict = self.spared(plan, &v.Access, plan.Decide(&v.Access)); v.Verdict.Action != profiles.Allow {
			v.Suggest = plan.Suggest(&v.Access)
		}
		c.counts.decided(attempt.Kind, v.Verdict.Action)
		if v.Verdict.Action != profiles.Allow {
			c.carryOut(v, th)
			return v.Verdict.Allowed(), nil
		}
	}
	return true, nil
}

// declares says whether plan lets everybody make a call, whatever its arguments.
func declares(plan *profiles.Plan, name string) bool {
	return plan.Decide(&profiles.Access{Kind: profiles.Syscall, Name: name}).Action == profiles.Allow
}

func (c *Container) carryOut(v Violation, th procfs.Thread) {
	v.witness(c.proc, th)
	switch v.Verdict.Action {
	case profiles.Kill:
		v.Killed = c.stop(&v)
	case profiles.Freeze:
		v.Err = c.cg.Freeze()
	}
	c.report(v)
}

// callAccess is a call as an access, with what is known of its subject.
func (c *Container) callAccess(call Call, th procfs.Thread) (a profiles.Access, self program, err error) {
	// What the filter refused for its name alone may have been declared since: filters cannot be changed. What it
	// refused though the name was declared came with other arguments, or through another architecture's entry.
	since := call.Arch == runtime.GOARCH && !declares(c.plan.armed, call.Name)
	a = profiles.Access{Kind: profiles.Syscall, Name: call.Name, Notified: !since}
	exe, err := c.proc.Exe(th.TID) // the leader may have ended
	if err != nil {
		return a, self, err
	}
	a.Subject = profiles.Subject{Exe: exe.Path, UID: c.uid(th.UID)}
	_, _, self, known, err := c.own(th)
	if err != nil {
		return a, self, err
	}
	if !known && c.table.hasLineages() {
		self = c.lineage(th)
	}
	a.Subject.Session = self.session
	if self.script {
		a.Subject.Script = self.path
	}
	return a, self, nil
}
