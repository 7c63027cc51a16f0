package enforce

import (
	"sync"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/procfs"
)

// identity is a file: what a name cannot forge.
type identity struct {
	dev, ino uint64
}

// program is what a process runs, as its exec was admitted.
type program struct {
	start   uint64   // the process's start time, so that a pid used again is another process
	file    identity // the admitted program
	path    string   // the admitted program, as the container sees it
	script  bool     // the kernel took an interpreter for it
	session bool     // it descends from an exec session
	runtime bool     // still the container runtime's own code, before the first exec
	forked  bool     // the record is an ancestor's

	begun *profiles.Plan // of a session: by which it was let in

	// Until it is known whether the exec took place, the process may go on with what it ran before.
	tried     bool
	tid       int    // the thread that tried
	image     uint64 // of the process before (procfs.Process.Image)
	was       string // the script that it ran before, "" if none
	contested bool   // another thread tried to execute something as well: which of them it runs cannot be told
}

// at is the record of a process that has this image now. fixed: another program can have the same image.
func (p program) at(image uint64, fixed bool) program {
	switch {
	case !p.tried:
	case p.image != image:
		p.tried, p.script = false, p.script && !p.contested
	default: // the exec has failed, or is on its way
		p.path, p.script = p.was, p.was != "" && !fixed
	}
	return p
}

// lineal says whether the verdict on a descendant can depend on this record.
func (p program) lineal() bool { return p.script || p.session || p.was != "" }

// pending is an exec that was admitted and has not replaced its caller yet.
type pending struct {
	program
	interpreters int // how many the kernel has opened for it
}

// table remembers what the processes of one container run.
type table struct {
	proc *procfs.FS // set before use

	mu       sync.Mutex
	programs map[int]program       // by process id; guarded by mu
	execs    map[int]pending       // by thread id; guarded by mu
	admitted map[identity]struct{} // every file a process may turn out to run; guarded by mu
	lineages int                   // records that a descendant's verdict can depend on (scripts, sessions); guarded by mu
	inserts  int                   // guarded by mu
}

func (t *table) get(pid int, start uint64) (program, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.programs[pid]
	return p, ok && p.start == start
}

// last is the record of the process that last had this number, for one that has ended.
func (t *table) last(pid int) program {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.programs[pid]
}

func (t *table) set(pid int, p program) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.setLocked(pid, p)
}

func (t *table) setLocked(pid int, p program) {
	if t.programs == nil {
		t.programs = map[int]program{}
		t.execs = map[int]pending{}
		t.admitted = map[identity]struct{}{}
	}
	if t.inserts++; t.inserts%1024 == 0 {
		t.sweepLocked()
	}
	if t.programs[pid].lineal() {
		t.lineages--
	}
	if p.lineal() {
		t.lineages++
	}
	t.programs[pid] = p
}

// begin records a process that has no record yet. One that has is left: it may have been admitted a program since whoever
// asks has looked.
func (t *table) begin(pid int, p program) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if o, ok := t.programs[pid]; !ok || o.start != p.start {
		t.setLocked(pid, p)
	}
}

// settle gives the record as it holds for the process's image, and keeps what that says about an exec.
func (t *table) settle(pid int, start, image uint64, fixed bool) program {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok := t.programs[pid]
	if !ok || p.start != start {
		return program{}
	}
	now := p.at(image, fixed)
	if p.tried && !now.tried {
		now.was = ""
		t.setLocked(pid, now)
	}
	return now
}

// admit notes that thread tid of process pid, which has this image and runs self, was allowed to execute p.
func (t *table) admit(tid, pid int, image uint64, self, p program) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p.tried, p.tid, p.image = true, tid, image
	if self.script {
		p.was = self.path
	}
	p.contested = t.contestedLocked(tid, pid, p)
	t.setLocked(pid, p)
	t.execs[tid] = pending{program: p}
	t.admitted[p.file] = struct{}{}
}

// contestedLocked says whether another thread of the process has tried to execute something since it had this image.
func (t *table) contestedLocked(tid, pid int, p program) bool {
	o, ok := t.programs[pid]
	return ok && o.start == p.start && o.tried && o.image == p.image && (o.contested || o.tid != tid)
}

// pending says whether an exec of tid was admitted, now or earlier.
func (t *table) pending(tid int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.execs[tid]
	return ok
}

// interpreter notes that the kernel opened file as an interpreter of what tid was allowed to execute; script tells
// that of a #! line, which becomes what the process runs. It fails when no exec of tid was admitted.
func (t *table) interpreter(tid, pid int, file identity, script bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.execs[tid]
	if !ok || e.interpreters >= 8 { // the kernel itself gives up after five
		return false
	}
	e.interpreters++
	t.execs[tid] = e
	if script {
		t.admitted[file] = struct{}{}
		p := e.program
		p.script = true
		p.contested = t.contestedLocked(tid, pid, p)
		t.setLocked(pid, p)
	}
	return true
}

// known says whether a process may run file: it was admitted by an exec, or stood behind a script's #!.
func (t *table) known(file identity) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.admitted[file]
	return ok
}

// hasLineages says whether any process's verdict can depend on its ancestors.
func (t *table) hasLineages() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lineages > 0
}

// sweepLocked forgets processes that have ended.
func (t *table) sweepLocked() {
	for pid, p := range t.programs {
		if start, err := t.proc.StartTime(pid); err != nil || start != p.start {
			if p.lineal() {
				t.lineages--
			}
			delete(t.programs, pid)
		}
	}
	for tid := range t.execs {
		if _, err := t.proc.StartTime(tid); err != nil {
			delete(t.execs, tid)
		}
	}
}
