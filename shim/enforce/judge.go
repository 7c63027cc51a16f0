package enforce

import (
	"errors"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/fanotify"
	"github.com/stockade-dev/stockade/shim/procfs"
)

var (
	errNeedsHash = errors.New("the object's sha256 is needed")
	errNotYet    = errors.New("the process is not known yet")
)

// judgement is one fanotify event on its way from the kernel's facts to a verdict.
type judgement struct {
	c    *Container
	proc *procfs.FS
	ev   fanotify.Event
	sum  string

	setup    uint64 // the exec session that had begun last when the event came; 0: not looked at yet
	starting bool   // it, or an earlier one, is still being set up

	th      procfs.Thread
	start   uint64      // of the process
	image   uint64      // of the process (procfs.Process)
	self    program     // what it runs, as far as that is recorded
	exe     procfs.Exe  // the file it runs
	file    procfs.File // the object
	mount   *mount
	flags   uint64
	plan    *profiles.Plan // by which the verdict is given
	access  profiles.Access
	verdict profiles.Verdict
	why     profiles.Reason // set when it is not for the plan to say no: how the access was made
	quiet   bool            // an ignore mark may follow
}

// judge gathers the facts and asks the plan. Nothing in it waits for another process.
func (j *judgement) judge() error {
	known, err := j.who()
	if err != nil {
		return err
	}
	if !known {
		if done, err := j.unknown(); done || err != nil {
			return err
		}
	}
	if !j.ev.Exec() {
		if j.self.runtime && !j.self.forked {
			j.verdict = profiles.Verdict{Action: profiles.Allow}
			return nil
		}
		return j.open()
	}
	return j.exec()
}

// who looks for the process's own record. First at the sessions: whoever has no record afterwards, and was brought by
// one of them, belongs to one that is still being set up.
func (j *judgement) who() (known bool, err error) {
	if j.setup == 0 {
		j.setup = j.c.execs.latest()
	}
	j.starting = j.c.execs.underWay(j.setup)
	if j.th, err = j.proc.Thread(j.ev.TID); err != nil {
		return false, err
	}
	j.start, j.image, j.self, known, err = j.c.own(j.th)
	return known, err
}

// unknown looks at a process without a record of its own: a forked child, or the runtime's own code on its way into
// an exec session. done: it may go on.
func (j *judgement) unknown() (done bool, err error) {
	stranger := false // runs what nobody was admitted to
	if j.starting {
		if stranger, err = j.stranger(); err != nil {
			return false, err
		}
	}
	if stranger && !j.ev.Exec() && j.c.isRuntime(j.th) {
		j.verdict = profiles.Verdict{Action: profiles.Allow}
		return true, nil
	}
	if stranger || j.c.table.hasLineages() {
		j.self = j.c.lineage(j.th)
	}
	// An orphan that was handed to somebody outside the container runs a program that was admitted. What does not is the
	// runtime on its way to an exec session. Its word about that is on the way, and comes before the setting up ends:
	// however long that takes, nobody is to die of a busy machine.
	if stranger && j.self.start == 0 {
		err = errNotYet
	}
	return false, err
}

// stranger says whether the thread runs a file that no process was admitted to.
func (j *judgement) stranger() (bool, error) {
	own, err := j.c.Runs(j.th.TID)
	return err == nil && !own, err
}

// object looks at the opened file itself.
func (j *judgement) object() error {
	var err error
	if j.file, err = j.proc.FD(j.ev.FD); err != nil {
		return err
	}
	j.access.Path = j.file.Path
	if j.mount = j.c.mountOf(j.file.Mount, j.file.Path); j.mount == nil {
		j.why = profiles.ReasonMount
	}
	return nil
}

// subject looks at the program that tries. A process that runs a file nobody admitted became it behind our back.
func (j *judgement) subject() error {
	var err error
	if j.exe, err = j.proc.Exe(j.th.TID); err != nil {
		return err
	}
	s := profiles.Subject{Exe: j.exe.Path, UID: j.c.uid(j.th.UID), Session: j.self.session}
	if j.self.script && j.self.path != "" {
		s.Script = j.self.path
	}
	if j.self.runtime && !j.self.forked {
		s.Exe = "" // the runtime's own code is no program of the container
	} else if !j.c.table.known(identity{j.exe.Dev, j.exe.Ino}) {
		j.why = profiles.ReasonProgram
	}
	j.access.Subject = s
	return nil
}

// open judges an open that is not part of an exec.
func (j *judgement) open() error {
	sys, err := j.syscall()
	if err != nil {
		return err
	}
	if procfs.IsExec(sys) {
		// Within one execve the kernel opens the program and its interpreters, each of which was asked about as such.
		j.verdict = profiles.Verdict{Action: profiles.Allow}
		return nil
	}
	if err := errors.Join(j.object(), j.subject()); err != nil {
		return err
	}
	flags, known := procfs.OpenFlags(sys)
	j.flags = uint64(flags)
	j.access.Kind = j.openKind(flags, known)
	return j.decide()
}

// syscall is what the thread is blocked in. What io_uring opens says nothing about that: the kernel does it beside, or
// by a thread that has the registers of the one that it was made for.
func (j *judgement) syscall() (procfs.Syscall, error) {
	sys, err := j.proc.Syscall(j.ev.TID)
	if err == nil && j.c.uring.Load() {
		if own, ok := j.proc.OpensItself(j.ev.TID); !own || !ok {
			return procfs.Syscall{}, nil
		}
	}
	return sys, err
}

// openKind tells reading from writing by the flags in the blocked thread's own registers. Where they are not there
// (openat2, io_uring, a 32-bit entry) it is writing, unless the mount makes that impossible.
func (j *judgement) openKind(flags int, known bool) profiles.Kind {
	if j.mount != nil && j.mount.readOnly {
		return profiles.Read
	}
	if !known || procfs.OpensToWrite(flags) {
		return profiles.Write
	}
	return profiles.Read
}

// exec judges an OPEN_EXEC_PERM event: a program, or an interpreter that the kernel opens for one.
func (j *judgement) exec() error {
	j.access.Kind = profiles.Exec
	if err := j.object(); err != nil {
		return err
	}
	file := identity{j.file.Dev, j.file.Ino}
	interpreter, err := j.interpreter(file)
	if err != nil {
		return err
	}
	if j.why == 0 && interpreter {
		// The process still shows the program that called execve, which was judged when its exec began.
		j.access.Interpreter = true
		return j.decide()
	}
	if err := j.subject(); err != nil {
		return err
	}
	return j.program(file)
}

// interpreter says whether the kernel opens file for a program of this thread that was admitted: as its ELF
// interpreter, or for its #! line.
func (j *judgement) interpreter(file identity) (bool, error) {
	if !j.c.table.pending(j.ev.TID) {
		return false, nil
	}
	loader, err := j.proc.InExec(j.ev.TID)
	if errors.Is(err, procfs.ErrNoStack) {
		return false, nil
	}
	if err != nil || loader == procfs.LoaderNone {
		return false, err
	}
	return j.c.table.interpreter(j.ev.TID, j.th.TGID, file, loader == procfs.LoaderScript), nil
}

// program judges what execve named.
func (j *judgement) program(file identity) error {
	j.access.Subject.SessionRoot = j.self.session && j.self.runtime && !j.self.forked
	j.plan = j.c.Plan()
	if j.plan.NeedsHash(j.access.Path) && !j.hash() {
		return errNeedsHash
	}
	if err := j.decide(); err != nil {
		return err
	}
	if a := j.verdict.Action; a == profiles.Allow || a == profiles.Report {
		j.c.table.admit(j.ev.TID, j.th.TGID, j.image, j.self, program{
			start: j.start, file: file, path: j.access.Path, session: j.self.session, begun: j.self.begun,
		})
	}
	return nil
}

// hash sets the object's sha256 if it is known.
func (j *judgement) hash() bool {
	if j.access.SHA256 = j.sum; j.sum == "" {
		j.access.SHA256, _ = j.c.hashes.get(j.ev.FD)
	}
	return j.access.SHA256 != ""
}

// decide asks the plan.
func (j *judgement) decide() error {
	a := &j.access
	if j.mount != nil && j.mount.image && a.Kind != profiles.Write && !j.file.Deleted {
		a.Image = j.c.image.Unchanged(a.Path, j.mount.readOnly)
	}
	if j.why == 0 && a.Kind == profiles.Exec && j.file.Deleted {
		j.why = profiles.ReasonUnlinked
	}
	if j.plan == nil {
		j.plan = j.c.Plan()
	}
	if j.why != 0 {
		j.verdict = j.plan.Refuse(j.why)
		return nil
	}
	j.verdict = j.self.spared(j.plan, a, j.plan.Decide(a))
	j.quiet = true // an exec too: the kernel opens what it executes, and asks about that open as well
	return nil
}

// violation is the judgement as evidence.
func (j *judgement) violation() Violation {
	if j.plan == nil {
		j.plan = j.c.Plan()
	}
	v := Violation{Plan: j.plan, Access: j.access, Verdict: j.verdict, Flags: j.flags}
	if j.why == 0 {
		v.Suggest = j.plan.Suggest(&j.access)
	}
	v.witness(j.proc, j.th)
	return v
}
