// Package guard keeps a container fenced when its shim dies, stops or hangs.
//
// The kernel allows every pending open of a fanotify group as soon as the last holder of the group lets go of it. So a
// second, very small process, the guard (cmd/stockade-guard), holds the group as well. It answers nothing. It watches the
// shim, and when the shim can no longer decide it kills the containers, and keeps the group, and with it every pending
// open, until their control groups are empty. Then it lets go.
//
// # What it takes for failure
//
//   - dead: the shim's pidfd says so; at once. An orderly end with a container still watched is the same.
//   - stopped: state T or t in /proc/PID/stat at two looks in a row, so within 0.9 s.
//   - hung: for 10 s no progress in the shared page (Busy, Idle) although the loop is busy or events wait in the group;
//     longer, up to 2 minutes, on a node where many threads wait for each processor.
//
// It looks every 750 ms, and after a stop was seen at once again, while it watches something, and not at all otherwise. When
// the shim dies with nothing watched it ends.
//
// # What it survives
//
// The end of the shim's process group and session, every signal that can be ignored, a log that nobody reads. It takes
// nothing from the shim but the group, a socket, the shared page, and what watching the shim needs, and never reads or opens
// a container's file. If it is killed itself, Done is closed and the shim calls Restart; containers are not affected.
//
// # Limits
//
// Shim and guard killed at the same instant (or the node's cgroup with both in it): nobody is left, pending opens are
// allowed. A guard that is stopped, and then the shim killed: pending opens stay blocked, but the containers live on until
// it continues. A debugger that holds the shim stopped is a stop. A shim that is frozen by a control group looks alive:
// opens wait, and after 10 s with an open waiting it counts as hung.
package guard

import (
	"errors"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/stockade-dev/stockade/shim/cgroup"
)

// answerWithin bounds every wait for the guard. One that takes longer is killed, so that Restart can mend it.
const answerWithin = 30 * time.Second

// ErrDead says that the guard is not running, or did not answer and was killed.
var ErrDead = errors.New("the guard is not running")

// Guard is the shim's side. Its methods may be called from several goroutines, except Busy and Idle, which belong to the
// one loop that answers.
type Guard struct {
	binary string
	group  *os.File
	log    *os.File
	page   *page

	mu      sync.Mutex // guards what follows, and makes requests one at a time
	proc    *process
	watches map[string]cgroup.Spec
}

// Option is a choice of the caller of Start.
type Option func(*Guard)

// WithLog gives the guard a file to which it writes one line when it has killed. It never waits for it.
func WithLog(f *os.File) Option { return func(g *Guard) { g.log = f } }

// Start runs the guard's program with the fanotify group, and returns when it is ready. The caller keeps owning group.
func Start(binary string, group *os.File, options ...Option) (*Guard, error) {
	page, err := newPage()
	if err != nil {
		return nil, err
	}
	g := &Guard{binary: binary, group: group, page: page, watches: map[string]cgroup.Spec{}}
	for _, option := range options {
		option(g)
	}
	if g.proc, err = g.spawn(); err != nil {
		return nil, errors.Join(err, page.file.Close())
	}
	return g, nil
}

// Watch hands a container to the guard and returns when the guard holds its control group. The container must not start
// when it fails. Watching the same id again replaces its spec.
// Errors: cgroup.ErrRefused; fs.ErrNotExist when the group has been removed; ErrDead.
func (g *Guard) Watch(id string, s cgroup.Spec) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.proc.watch(id, s); err != nil {
		return err
	}
	g.watches[id] = s
	return nil
}

// Forget takes a container that has ended away from the guard. An unknown id is no error.
// Errors: ErrDead; a Restart then does not watch the container again.
func (g *Guard) Forget(id string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.watches, id)
	return g.proc.forget(id)
}

// Busy says that the loop has begun a batch of events. It costs no system call.
func (g *Guard) Busy() { g.page.busy() }

// Idle says that the loop has answered its batch.
func (g *Guard) Idle() { g.page.idle() }

// Done is closed when the guard process, the one of the latest Start or Restart, has ended, and by Close.
func (g *Guard) Done() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.proc.done
}

// PID is the guard's process id.
func (g *Guard) PID() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.proc.pid
}

// restarts bounds how often a guard is started that dies again before it watches, and the first pause after one, which
// doubles: what kills it, or a shortage, may pass. Until then the shim's own death would let pending opens through.
const (
	restarts     = 8
	restartPause = 10 * time.Millisecond
)

// Restart replaces the guard process by a new one that watches the same containers, except those whose control group has
// been removed. One that does not come to that is replaced as well, a few times. With an error the containers are not
// guarded: kill them.
func (g *Guard) Restart() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for n := 0; ; n++ {
		err := g.restart()
		if err == nil || n == restarts-1 {
			return err
		}
		time.Sleep(restartPause << n)
	}
}

// restart is called with g.mu held.
func (g *Guard) restart() error {
	g.proc.end()
	proc, err := g.spawn()
	if err != nil {
		return err
	}
	g.proc = proc
	for _, id := range slices.Sorted(maps.Keys(g.watches)) {
		switch err := proc.watch(id, g.watches[id]); {
		case errors.Is(err, os.ErrNotExist):
			delete(g.watches, id)
		case err != nil:
			return err
		}
	}
	return nil
}

// Close is the orderly end: a guard that watches nothing ends; one that does stays until the shim is dead, and then kills.
func (g *Guard) Close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return errors.Join(g.proc.hangUp(), g.page.file.Close())
}
