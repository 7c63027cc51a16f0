// Package enforce answers what a container's processes try: it takes a mechanism's event, gathers the facts, asks the
// plan and gives the answer. It is the one place where policy (profiles) and mechanisms (fanotify, notify, cgroup)
// meet.
//
// # Order
//
// The thread that tries is blocked while its event is handled. On a deviation the container is killed first, then the
// event is answered with a denial, and only then is anything told to anybody (Config.Report, which must not block).
//
// # Who and what
//
// A subject is identified by its control group, its process record (an exec that this package itself admitted) and
// the file it runs; never by a name it chose. An object is the opened file: the path is the one the kernel gives for
// the event's own descriptor, and it counts only when the mount it was reached through is one that the container had
// before its first instruction.
//
// # Limits
//
// No events: what opens no file (unlink, rename, chmod, truncate by path: seen through the seccomp listener, see
// watch.go), directories, devices, FIFOs, /proc (the kernel refuses permission marks there), memfd_create'd programs (seccomp closes memfd_create unless it is declared), mounts made
// after start (an access through one on a watched file system is a deviation; one on a file system of its own is not
// seen, but for execs, and these not for certain: seccomp closes mount and unshare unless they are declared).
package enforce

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/fanotify"
	"github.com/stockade-dev/stockade/shim/procfs"
)

// Beat is told when the loop takes up a batch of events and when it is done: a watchdog's view of it.
type Beat interface {
	Busy()
	Idle()
}

// Loop answers the events of one fanotify group, for all containers of one shim.
type Loop struct {
	group *fanotify.Group
	proc  *procfs.FS
	beat  Beat
	clock time.Time // of its monotonic reading alone

	mu         sync.Mutex                   // serialises changes of containers
	containers atomic.Pointer[[]*Container] // replaced, never changed
	retries    sync.WaitGroup
	ended      chan struct{} // closed when Run ends
	said       time.Time     // when it was last told that events were not delivered; Run's alone
}

// NewLoop makes a loop over g. Run must be called for anything to be answered.
func NewLoop(g *fanotify.Group, beat Beat) (*Loop, error) {
	proc, err := procfs.Open()
	if err != nil {
		return nil, err
	}
	l := &Loop{group: g, proc: proc, beat: beat, clock: time.Now(), ended: make(chan struct{})}
	l.containers.Store(&[]*Container{})
	return l, nil
}

// Add arms a container: when it returns without an error, no open and no exec of the container goes unasked.
// The container's first process must be parked before its program.
func (l *Loop) Add(cfg Config) (*Container, error) {
	c, err := newContainer(l.proc, cfg)
	if err != nil {
		return nil, err
	}
	if err := c.takeMounts(cfg.Tmpfs); err != nil {
		c.close()
		return nil, err
	}
	l.change(func(cs []*Container) []*Container { return append(cs, c) })
	if err := c.arm(l.group); err != nil {
		l.Remove(c)
		return nil, err
	}
	return c, nil
}

// Remove ends the watch over a container that has ended (or never started).
func (l *Loop) Remove(c *Container) {
	c.disarm(l.group)
	l.change(func(cs []*Container) []*Container {
		out := []*Container{}
		for _, o := range cs {
			if o != c {
				out = append(out, o)
			}
		}
		return out
	})
	c.close()
}

func (l *Loop) change(f func([]*Container) []*Container) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := *l.containers.Load()
	next := f(append([]*Container{}, now...))
	l.containers.Store(&next)
}

// All returns the containers now watched.
func (l *Loop) All() []*Container { return *l.containers.Load() }

// Run answers events until the group is closed. An error is one after which nothing more can be answered: the caller
// must kill every container.
func (l *Loop) Run() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer l.retries.Wait()
	defer close(l.ended)
	evs := make([]fanotify.Event, fanotify.Batch)
	for {
		n, err := l.group.Read(evs)
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		l.beat.Busy()
		since := time.Since(l.clock)
		for _, ev := range evs[:n] {
			l.handle(asked{Event: ev, since: since})
		}
		l.beat.Idle()
	}
}

// asked is an event on its way to its answer.
type asked struct {
	fanotify.Event
	since time.Duration // when it was read, on the loop's clock
	sum   string        // the object's sha256 when it was gathered already
	tries int           // how often it was put off
	setup uint64        // see judgement
}

// handle answers one event.
func (l *Loop) handle(ev asked) {
	if ev.Undelivered() != nil {
		l.undelivered(ev)
		return
	}
	c, err := l.owner(ev.TID)
	if err != nil && passes(err) {
		l.again(ev)
		return
	}
	if err != nil {
		l.answer(nil, ev, false) // the thread is gone, or cannot be told: nobody, or nobody known, is let through
		return
	}
	if c == nil {
		l.answer(nil, ev, true) // not of a container of ours: the host, the runtime, the snapshotter
		return
	}
	if c.dead.Load() {
		l.answer(c, ev, false)
		return
	}
	j := judgement{c: c, proc: l.proc, ev: ev.Event, sum: ev.sum, setup: ev.setup}
	err = j.judge()
	ev.setup = j.setup
	switch {
	case errors.Is(err, errNeedsHash):
		l.later(func() { l.withHash(ev, c) })
	case errors.Is(err, errNotYet), passes(err):
		l.again(ev)
	case err != nil:
		l.fail(c, ev, &j, err)
	default:
		l.act(c, ev, &j)
	}
}

// passes says whether an error is none of the container's: its thread has not fallen asleep in the kernel yet, which
// takes as long as the scheduler likes, or this process is short of descriptors or memory. The thread is not let
// through meanwhile. To kill for it would be to kill for the machine's load.
func passes(err error) bool {
	for _, e := range []error{procfs.ErrRunning, unix.EMFILE, unix.ENFILE, unix.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// again puts an event off for a while that grows.
func (l *Loop) again(ev asked) {
	l.later(func() {
		select {
		case <-l.ended:
			ev.Close()
		case <-time.After(min(time.Millisecond<<min(ev.tries, 6), 50*time.Millisecond)):
			ev.tries++
			l.handle(ev)
		}
	})
}

// later runs f beside the loop: something in it can take time, and no other event may wait for it.
func (l *Loop) later(f func()) {
	l.retries.Add(1)
	go func() {
		defer l.retries.Done()
		f()
	}()
}

func (l *Loop) withHash(ev asked, c *Container) {
	var err error
	if ev.sum, err = c.hashes.read(ev.FD); err != nil {
		ev.sum = "unreadable"
	}
	ev.tries = 0
	l.handle(ev)
}

// owner finds the container that a thread belongs to: nil, nil for a thread of none of ours. It goes by control group,
// and by mount namespace for one that has left its control group, or was brought in from the host past the runtime
// (nsenter): what runs among a container's files is judged by the container's plan.
func (l *Loop) owner(tid int) (*Container, error) {
	path, err := l.proc.CgroupPath(tid)
	if err != nil {
		return nil, err
	}
	for _, c := range l.All() {
		if c.cg.Contains(path) {
			return c, nil
		}
	}
	ns, err := mountNamespace(tid)
	if err != nil {
		return nil, err
	}
	for _, c := range l.All() {
		if c.mountNS == ns {
			return c, nil
		}
	}
	return nil, nil
}

// Owns reports whether a thread belongs to a container that is watched, or cannot be said to belong to none.
func (l *Loop) Owns(tid int) bool {
	c, err := l.owner(tid)
	return err != nil || c != nil
}

// mountNamespace identifies the mount namespace of a thread (namespaces(7)).
func mountNamespace(tid int) (identity, error) {
	var st unix.Stat_t
	if err := unix.Stat("/proc/"+strconv.Itoa(tid)+"/ns/mnt", &st); err != nil {
		return identity{}, err
	}
	return identity{st.Dev, st.Ino}, nil
}

// act carries out a verdict: kill, answer, tell; in this order.
func (l *Loop) act(c *Container, ev asked, j *judgement) {
	c.counts.decided(j.access.Kind, j.verdict.Action)
	if j.verdict.Action == profiles.Allow {
		l.answer(c, ev, true)
		if j.quiet {
			c.silence(l.group, j.mount, j.access.Path)
		}
		return
	}
	v := j.violation()
	switch j.verdict.Action {
	case profiles.Report:
		l.answer(c, ev, true)
	case profiles.Kill:
		v.Killed = c.stop(&v)
		l.answer(c, ev, false)
	case profiles.Freeze:
		v.Err = c.cg.Freeze()
		l.answer(c, ev, false)
	default:
		l.answer(c, ev, false)
	}
	c.report(v)
}

// fail is for facts that could not be gathered while their thread waits: nobody is let through on a guess.
func (l *Loop) fail(c *Container, ev asked, j *judgement, err error) {
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) {
		l.answer(c, ev, false) // the thread was killed while it waited
		return
	}
	if j.access.Kind == 0 {
		j.access.Kind = profiles.Read
		if ev.Exec() {
			j.access.Kind = profiles.Exec
		}
	}
	v := j.violation()
	v.Err = err
	if v.Plan.Mode == profiles.ModeEnforce {
		v.Verdict.Action = profiles.Kill
		v.Killed = c.stop(&v)
		l.answer(c, ev, false)
	} else {
		v.Verdict.Action = profiles.Report
		l.answer(c, ev, true)
	}
	c.counts.decided(v.Access.Kind, v.Verdict.Action)
	c.report(v)
}

// answer answers, for c if it is known.
func (l *Loop) answer(c *Container, ev asked, allow bool) {
	// An answer that cannot be written leaves the thread blocked, never let through.
	_ = l.group.Respond(ev.Event, allow)
	if c != nil {
		c.counts.answered.observe(time.Since(l.clock) - ev.since)
	}
}

// stop kills the container and says how long that took.
func (c *Container) stop(v *Violation) time.Duration {
	begin := time.Now()
	if err := c.Kill(); err != nil {
		v.Err = err
	}
	return time.Since(begin)
}
