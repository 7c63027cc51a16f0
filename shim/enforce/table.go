package enforce

import (
	"sync"

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
}

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
	if old, ok := t.programs[pid]; ok && (old.script || old.session) {
		t.lineages--
	}
	if p.script || p.session {
		t.lineages++
	}
	t.programs[pid] = p
}

// admit notes that thread tid of process pid was allowed to execute p.
func (t *table) admit(tid, pid int, p program) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.setLocked(pid, p)
	t.execs[tid] = pending{program: p}
	t.admitted[p.file] = struct{}{}
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
			if p.script || p.session {
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
