package fanotifytest

import (
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/stockade-dev/stockade/shim/fanotify"
	"github.com/stockade-dev/stockade/shim/procfs"
)

// Seen is an event with its path below the root.
type Seen struct {
	fanotify.Event
	Path string // "" if undelivered
}

// String is "exec /bin/true" or "open /etc/passwd".
func (s Seen) String() string {
	switch {
	case s.Undelivered() != nil:
		return "undelivered: " + s.Undelivered().Error()
	case s.Exec():
		return "exec " + s.Path
	}
	return "open " + s.Path
}

// Log is what a listener has seen.
type Log struct {
	mu   sync.Mutex
	seen []Seen
}

// Take returns what was seen since the last Take.
func (l *Log) Take() []Seen {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := l.seen
	l.seen = nil
	return seen
}

// Strings is Take, as text, of those events whose path starts with prefix.
func (l *Log) Strings(prefix string) []string {
	out := []string{}
	for _, s := range l.Take() {
		if strings.HasPrefix(s.Path, prefix) {
			out = append(out, s.String())
		}
	}
	return out
}

// Open makes a group that is closed with the test.
func Open(t testing.TB) *fanotify.Group {
	t.Helper()
	g, err := fanotify.Open()
	must(t, err)
	t.Cleanup(func() { must(t, g.Close()) })
	return g
}

// Listen answers the group's events until the test ends; decide may be nil:
// allow.
func Listen(t testing.TB, g *fanotify.Group, root string, decide func(Seen) bool) *Log {
	t.Helper()
	proc, err := procfs.Open()
	must(t, err)
	l := &Log{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		evs := make([]fanotify.Event, fanotify.Batch)
		for {
			n, err := g.Read(evs)
			if errors.Is(err, os.ErrClosed) {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			for _, ev := range evs[:n] {
				l.answer(t, g, proc, root, ev, decide)
			}
		}
	}()
	t.Cleanup(func() {
		must(t, g.Close())
		<-done
		proc.Close()
	})
	return l
}

func (l *Log) answer(t testing.TB, g *fanotify.Group, proc *procfs.FS, root string, ev fanotify.Event, decide func(Seen) bool) {
	s := Seen{Event: ev}
	if ev.Undelivered() == nil {
		path, err := proc.FDPath(ev.FD)
		if err != nil {
			t.Error(err)
		}
		s.Path = strings.TrimPrefix(path, root)
	}
	allow := decide == nil || decide(s)
	l.mu.Lock()
	l.seen = append(l.seen, s)
	l.mu.Unlock()
	if err := g.Respond(ev, allow); err != nil && !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}
