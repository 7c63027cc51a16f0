package enforce

import (
	"path"
	"strings"
	"time"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/audit"
	"github.com/stockade-dev/stockade/shim/fanotify"
)

// refusal is the last thing that AppArmor recorded of a container, to tell the records of one call from those of two.
type refusal struct {
	pid       int
	operation string
	access    profiles.Access
}

// Refused takes a record of what AppArmor has refused the container, or in complain mode would have. It is no event
// that waits for an answer: the access did not happen, and in kill mode its process is dead already. What is left to be
// done is to kill the rest, and to tell.
//
// What is not about a file: mount, ptrace, signals to others and sockets of undeclared families are undeclared calls. A
// capability that a process does not have is refused before AppArmor is asked; one that it has, and is refused here, is
// one of a user namespace that it should not have been able to make.
func (c *Container) Refused(r *audit.Event) {
	if c.dead.Load() || r.AppArmor.Verdict == "AUDIT" { // let through, and recorded because the node records everything
		return
	}
	a := c.accessOf(r.AppArmor)
	complained := c.complained(r.AppArmor)
	if complained && c.sees(a, r.AppArmor.Operation) || c.again(r, a) {
		return
	}
	v := Violation{Access: a, Time: time.Now(), PID: r.PID, TID: r.PID, Comm: r.Comm, Call: callOf(r.AppArmor)}
	_, child, _ := strings.Cut(r.AppArmor.Profile, "//")
	v.Access.Subject.Session = strings.HasPrefix(child, "session")
	self := c.witnessGone(&v)
	a = v.Access
	v.Plan = c.Plan()
	v.Verdict, v.Suggest = v.Plan.Decide(&a), v.Plan.Suggest(&a)
	if v.Verdict.Action == profiles.Allow && r.AppArmor.Operation == "link" && r.AppArmor.Target != "" {
		a.Path = path.Clean(r.AppArmor.Target) // the new name is declared, and not what it is for
		v.Access, v.Verdict, v.Suggest = a, v.Plan.Decide(&a), v.Plan.Suggest(&a)
	}
	if v.Verdict.Action == profiles.Allow {
		if complained {
			return // nothing is refused in complain mode, and the profile has nothing against it
		}
		v.Verdict, v.Suggest = v.Plan.Refuse(profiles.ReasonAppArmor), ""
	}
	v.Verdict = self.spared(v.Plan, &v.Access, v.Verdict)
	c.carryOutRefusal(&v, complained)
	c.report(v)
}

// complained says whether a record is of what a text in complain mode has let pass, as it should. Where the text is not
// one, the node's AppArmor has been told to complain only, and what the profile forbids has happened.
func (c *Container) complained(r *audit.AppArmor) bool {
	return r.Verdict == "ALLOWED" && c.plan.complains.Load()
}

func (c *Container) carryOutRefusal(v *Violation, complained bool) {
	defer func() { c.counts.decided(v.Access.Kind, v.Verdict.Action) }()
	switch {
	case complained:
		v.Verdict.Action = profiles.Report
	case v.Verdict.Action == profiles.Kill:
		v.Killed = c.stop(v)
	case v.Verdict.Action == profiles.Freeze:
		v.Err = c.cg.Freeze()
	}
}

// accessOf is a record as an access. AppArmor's names of directories end in /.
func (c *Container) accessOf(r *audit.AppArmor) profiles.Access {
	switch {
	case strings.HasPrefix(r.Name, "/") && r.CapName == "" && !strings.Contains(r.Operation, "mount") && r.Operation != "pivotroot":
		return profiles.Access{Kind: fileKind(r.Denied), Path: path.Clean(r.Name)}
	case r.CapName != "":
		return profiles.Access{Kind: profiles.Capability, Name: strings.ToUpper(r.CapName)}
	case r.Family != "":
		return profiles.Access{Kind: profiles.Connect, Name: r.Family + "/" + r.SockType}
	}
	return profiles.Access{Kind: profiles.Syscall, Name: callOf(r)}
}

// fileKind reads a mask of file permissions (AppArmor's, apparmor.d(5), with c and d for create and delete).
func fileKind(denied string) profiles.Kind {
	switch {
	case strings.ContainsAny(denied, "wacdlk"):
		return profiles.Write
	case strings.ContainsAny(denied, "xm"):
		return profiles.Exec
	}
	return profiles.Read
}

// callOf names what was tried by the system call, where AppArmor's word is another.
func callOf(r *audit.AppArmor) string {
	switch r.Operation {
	case "capable":
		return ""
	case "signal":
		return "kill"
	case "pivotroot":
		return "pivot_root"
	case "umount":
		return "umount2"
	case "rename_src", "rename_dest":
		return "rename"
	}
	return r.Operation
}

// sees says whether fanotify reports the same access: it is asked about execs always, and about opens where AppArmor's
// text does not hold the whole of the profile.
func (c *Container) sees(a profiles.Access, operation string) bool {
	if a.Kind == profiles.Exec {
		return true
	}
	if operation != "open" {
		return false
	}
	var in *mount
	for _, m := range c.mounts {
		if (a.Path == m.dest || m.dest == "/" || strings.HasPrefix(a.Path, m.dest+"/")) && (in == nil || len(m.dest) > len(in.dest)) {
			in = m
		}
	}
	c.marks.Lock()
	defer c.marks.Unlock()
	return in != nil && in.marked&fanotify.OpenPerm != 0
}

// again says whether a record is a further one of the call that the last was of: an open that makes a file asks twice,
// and a rename about both names.
func (c *Container) again(r *audit.Event, a profiles.Access) bool {
	last := c.refusal
	c.refusal = refusal{pid: r.PID, operation: r.AppArmor.Operation, access: a}
	if last.pid != r.PID || r.AppArmor.Verdict != "ALLOWED" {
		return false
	}
	op := r.AppArmor.Operation
	return last.access == a && last.operation != op || op == "rename_dest" && last.operation == "rename_src"
}

// witnessGone gathers what is left of a process that was not made to wait, and returns what it ran.
func (c *Container) witnessGone(v *Violation) (self program) {
	th, err := c.proc.Thread(v.TID)
	if err != nil {
		return c.table.last(v.TID)
	}
	// A number used again is another process's.
	if at, err := c.proc.CgroupPath(v.TID); err != nil || !c.cg.Contains(at) {
		return c.table.last(v.TID)
	}
	call := v.Call
	v.witness(c.proc, th)
	v.Call = call
	a, self, err := c.callAccess(Call{TID: v.TID}, th)
	if err == nil {
		a.Subject.Session = self.session || v.Access.Subject.Session
		v.Access.Subject = a.Subject
		return self
	}
	// Who was killed at once, and is not yet reaped, runs no program any more.
	if self = c.table.last(v.TID); self == (program{}) {
		self = c.lineage(th)
	}
	return self
}
