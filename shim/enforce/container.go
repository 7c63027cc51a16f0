package enforce

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/cgroup"
	"github.com/stockade-dev/stockade/shim/procfs"
)

// Image tells which files of the container's root are the image's, unchanged.
type Image interface {
	Unchanged(path string, readOnly bool) bool
	Untouched(dir string, readOnly bool) bool
	Pristine() bool // nothing of it had been changed when it was first looked at
}

// Config is what the enforcement of one container is made of.
type Config struct {
	ID     string
	Init   int // pid of the container's first process, parked before its program
	Plan   *profiles.Plan
	Image  Image
	Tmpfs  []string // destinations of the tmpfs mounts that the runtime made for this container alone
	Report func(Violation)
}

// Container is one container's fence: its plan, what its mounts are, and what its processes run.
type Container struct {
	id      string
	plan    livePlan
	image   Image
	cg      *cgroup.Cgroup
	init    int
	root    int               // O_PATH fd of the container's root, for ignore marks
	ns      int               // fd of mountNS: it and its mounts stay, and so nothing else comes to have their ids
	mounts  map[uint64]*mount // by mount id, each held by an fd; not changed after it was armed
	report  func(Violation)
	proc    *procfs.FS
	uids    []idRange
	mountNS identity
	hashes  hashCache
	uring   atomic.Bool // io_uring is, or was, open to the container
	table   table

	fixed    atomic.Bool // an image may not tell one program from another (procfs.Randomized)
	mounting atomic.Bool // mounts and mount namespaces may be, or could be, made after the start
	refusal  refusal     // the last one; the audit reader's own

	dead  atomic.Bool // killed: whatever still arrives is denied and not told again
	execs setups      // exec sessions that the runtime is setting up right now

	counts counters

	marks    sync.Mutex // serialises what changes the marks of mounts, and their end
	closed   bool       // guarded by marks
	outlived bool       // another plan than the first was to be in force: the image may be changed; guarded by marks once armed

	mu      sync.Mutex
	ignored map[string]bool // directories and files already looked at for an ignore mark; guarded by mu
}

// newContainer takes hold of what killing and marking need.
func newContainer(proc *procfs.FS, cfg Config) (_ *Container, err error) {
	c := &Container{
		id: cfg.ID, image: cfg.Image, init: cfg.Init, root: -1, ns: -1, report: cfg.Report,
		proc:    proc,
		ignored: map[string]bool{},
	}
	c.plan.arm(cfg.Plan)
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	c.uring.Store(opensUring(cfg.Plan))
	c.mounting.Store(cfg.Plan.MountsLater)
	if c.cg, err = cgroup.Open(cfg.Init); err != nil {
		return nil, fmt.Errorf("container's cgroup: %w", err)
	}
	if err = c.hold(cfg.Init); err != nil {
		return nil, err
	}
	if c.uids, err = readIDMap(cfg.Init); err != nil {
		return nil, err
	}
	c.table.proc = proc
	random, err := proc.Randomized(cfg.Init)
	if err != nil {
		return nil, fmt.Errorf("container's first process: %w", err)
	}
	c.fixed.Store(!random || fixes(cfg.Plan))
	start, err := proc.StartTime(cfg.Init)
	if err != nil {
		return nil, fmt.Errorf("container's first process: %w", err)
	}
	c.table.set(cfg.Init, program{start: start, runtime: true})
	return c, nil
}

// hold takes hold of the root and the mount namespace that the container's first process has. It can leave the
// namespace (unshare(2)), as its last process; the kernel would take it apart then, and give the ids of its mounts, and
// its own, to what is made next.
func (c *Container) hold(pid int) (err error) {
	if c.root, err = openPath(fmt.Sprintf("/proc/%d/root", pid)); err != nil {
		return err
	}
	name := fmt.Sprintf("/proc/%d/ns/mnt", pid)
	if c.ns, err = unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(c.ns, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	c.mountNS = identity{st.Dev, st.Ino}
	return nil
}

func (c *Container) close() {
	c.marks.Lock()
	defer c.marks.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, fd := range []*int{&c.root, &c.ns} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
			*fd = -1
		}
	}
	for _, m := range c.mounts {
		m.close()
	}
	if c.cg != nil {
		c.cg.Close()
	}
}

// Cgroup is the container's cgroup, for the guard.
func (c *Container) Cgroup() *cgroup.Cgroup { return c.cg }

// Kill ends every process of the container; nothing of it is let through any more. It is safe to call again.
func (c *Container) Kill() error {
	first := !c.dead.Swap(true)
	err := c.cg.Kill()
	if first {
		go func() { _ = c.cg.KillUntilEmpty() }() // for who is being forked just now; Close ends it
	}
	return err
}

// Session tells that the process pid, still the runtime's own code, is about to become the first program of an exec
// session (or the container's first program, which is known already).
func (c *Container) Session(pid int) error {
	if pid == c.init {
		return nil
	}
	start, err := c.proc.StartTime(pid)
	if err != nil {
		return err
	}
	if _, known := c.table.get(pid, start); known {
		return nil // told before; it may have gone on to its program
	}
	own, err := c.Runs(pid)
	if err != nil {
		return err
	}
	if own {
		return nil // not the runtime's code: a process of the container's own that was given the number since
	}
	c.table.begin(pid, program{start: start, runtime: true, session: true, begun: c.execs.plan(c.Plan())})
	return nil
}

// Runs reports whether a process runs a program of the container's, and no more the code of the runtime that started it.
func (c *Container) Runs(pid int) (bool, error) {
	exe, err := c.proc.Exe(pid)
	if err != nil {
		return false, err
	}
	return c.table.known(identity{exe.Dev, exe.Ino}), nil
}

// ExecBegin stands before the runtime's setting up of an exec session, and what it returns after it: meanwhile the
// runtime's own processes are in the container's cgroup, and events of processes that nobody knows wait for Session to
// name them. pid is the session's process, 0 if there is none.
func (c *Container) ExecBegin() (end func(pid int)) {
	number := c.execs.begin(c.Plan())
	return func(pid int) {
		defer c.execs.end(number)
		for pid > 0 && passes(c.Session(pid)) && !c.dead.Load() { // any other error: it may have ended already
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// own returns when a thread's process started, its image, and its record if it has one.
func (c *Container) own(th procfs.Thread) (start, image uint64, p program, known bool, err error) {
	st, err := c.proc.Stat(th.TGID)
	if err != nil {
		return 0, 0, p, false, err
	}
	start, image = st.StartTime, st.Image
	p, known = c.table.get(th.TGID, start)
	if th.TID != th.TGID && (p.tried || image == 0) { // a leader that has ended has none
		if st, err = c.proc.Stat(th.TID); err != nil {
			return 0, 0, p, false, err
		}
		image = st.Image
	}
	if known && p.tried {
		p = c.table.settle(th.TGID, start, image, c.fixed.Load())
	}
	return start, image, p, known, nil
}

// lineage returns the record of the nearest ancestor that has one: a forked child runs its parent's program. It is for a
// process without a record of its own. One that has come to it since is a session's first: it is nobody's child.
func (c *Container) lineage(th procfs.Thread) program {
	line := c.proc.Ancestors(th.TGID, 32)
	if len(line) == 0 {
		return program{}
	}
	for _, a := range line[1:] {
		if p, ok := c.table.get(a.PID, a.StartTime); ok {
			p = p.at(a.Image, c.fixed.Load())
			p.forked = true
			// An orphan is handed to an ancestor whose program it does not run.
			p.script = p.script && a.Image == line[0].Image
			return p
		}
	}
	return program{}
}

// isRuntime says whether a process of the container's cgroup is still the runtime's own code: a child of a process
// that is outside the container and was started by this shim. Orphans of a container never come to have such a
// parent: they are handed to their namespace's init, or to the shim itself.
func (c *Container) isRuntime(th procfs.Thread) bool {
	if th.PPID == os.Getpid() {
		return false
	}
	parent, err := c.proc.Thread(th.PPID)
	if err != nil || parent.PPID != os.Getpid() {
		return false
	}
	path, err := c.proc.CgroupPath(th.PPID)
	return err == nil && !c.cg.Contains(path)
}

// idRange is one line of a user namespace's uid_map (user_namespaces(7)).
type idRange struct{ inside, outside, count uint32 }

func readIDMap(pid int) ([]idRange, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/uid_map", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var ranges []idRange
	for {
		var r idRange
		n, err := fmt.Fscan(f, &r.inside, &r.outside, &r.count)
		if n == 0 {
			return ranges, nil
		}
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", f.Name(), err)
		}
		ranges = append(ranges, r)
	}
}

// uid turns the host's number of a user into the container's: rules are written in the container's.
func (c *Container) uid(host uint32) uint32 {
	for _, r := range c.uids {
		if host >= r.outside && host-r.outside < r.count {
			return host - r.outside + r.inside
		}
	}
	return overflowUID
}

// overflowUID is what the kernel shows for a user that a namespace does not map: /proc/sys/kernel/overflowuid.
const overflowUID = 65534
