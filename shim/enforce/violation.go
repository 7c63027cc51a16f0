package enforce

import (
	"context"
	"time"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/procfs"
)

// Violation is an access whose verdict is not allow, with what could be learned of its subject while it was blocked.
type Violation struct {
	Time    time.Time
	Plan    *profiles.Plan // by which the verdict was given
	Access  profiles.Access
	Verdict profiles.Verdict
	Suggest string // the profile line that would have allowed it

	PID, TID int // as the host counts them
	Comm     string
	Call     string    // the syscall, when it was seen there
	Args     [6]uint64 // of it
	Arch     string    // of a syscall
	Flags    uint64    // of an open
	Cmdline  []string
	Parents  []procfs.Process

	Killed time.Duration // how long the kill took; 0: not killed
	Err    error         // what went wrong while it was handled
}

// cmdlineWait bounds how long a deviation waits for the one fact that lies in its own process's memory.
const cmdlineWait = time.Millisecond

// witness gathers the evidence that dies with the process. The thread is blocked, so none of it can change; the time
// it may take is bounded.
func (v *Violation) witness(proc *procfs.FS, th procfs.Thread) {
	v.Time = time.Now()
	v.PID, v.TID, v.Comm = th.TGID, th.TID, th.Comm
	if line := proc.Ancestors(th.TGID, 17); len(line) > 0 {
		v.Parents = line[1:]
	}
	ctx, cancel := context.WithTimeout(context.Background(), cmdlineWait)
	defer cancel()
	v.Cmdline, _ = proc.Cmdline(ctx, th.TGID)
	for len(v.Cmdline) > 0 && v.Cmdline[len(v.Cmdline)-1] == "" {
		v.Cmdline = v.Cmdline[:len(v.Cmdline)-1] // what setproctitle leaves of the old arguments
	}
}
