package shim

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/sirupsen/logrus"

	"github.com/stockade-dev/stockade/shim/control"
	"github.com/stockade-dev/stockade/shim/control/api"
	"github.com/stockade-dev/stockade/shim/enforce"
)

// listen opens the control socket. What the shim protects does not depend on it.
func (e *engine) listen() {
	var err error
	name := fmt.Sprintf("%s %d", e.cfg.State, os.Getpid()) // pids are used again, and then the name is free
	if e.control, err = control.Listen(e.cfg.State, name, e); err != nil {
		logrus.WithError(err).Error("stockade: no control socket: `stockade ps` has no counters, and profiles of running containers cannot be changed")
	}
}

func (e *engine) controlPath() string {
	if e.control == nil {
		return ""
	}
	return e.control.Path()
}

// Own reports whether a process is of a container that this shim protects.
func (e *engine) Own(pid int) bool { return e.loop.Owns(pid) }

// Status tells what the shim protects and what it has done.
func (e *engine) Status(context.Context) (*api.Status, error) {
	stats := e.group.Stats()
	s := &api.Status{
		PID:        os.Getpid(),
		Queue:      api.Queue{Undelivered: stats.Undelivered, Overflows: stats.Overflows, Gone: stats.Gone},
		Reports:    api.Reports{Told: e.report.told.Load(), Lost: e.report.missed.Load()},
		Containers: []api.Container{},
	}
	if err := e.healthy(); err != nil {
		s.Broken = err.Error()
	}
	for _, f := range e.sorted() {
		s.Containers = append(s.Containers, f.status())
	}
	return s, nil
}

func (f *fence) status() api.Container {
	f.live.Lock()
	defer f.live.Unlock()
	plan, counts := f.now(), f.container.Counts()
	c := api.Container{
		Namespace: f.task.namespace, ID: f.task.id, Pod: f.task.pod, PodNamespace: f.task.request.Facts.Namespace,
		State: stateOf(plan), Waits: waitsOf(f.live.waits), Failed: f.live.failed, Since: f.since,
		Answers: histogramOf(&counts.Answered), Calls: histogramOf(&counts.Told), Decisions: decisionsOf(counts),
	}
	if when := f.live.when; !when.IsZero() {
		c.Reloaded = &when
	}
	for _, g := range plan.Guarantees {
		c.Guarantees = append(c.Guarantees, api.Guarantee{Kind: g.Kind, Level: g.Level.String(), By: g.By, Note: g.Note})
	}
	return c
}

func decisionsOf(counts enforce.Counts) []api.Decisions {
	out := []api.Decisions{}
	for kind, actions := range counts.Decisions {
		for action, n := range actions {
			out = append(out, api.Decisions{Kind: kind.String(), Action: action.String(), Count: n})
		}
	}
	slices.SortFunc(out, func(a, b api.Decisions) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Action, b.Action))
	})
	return out
}

func histogramOf(h *enforce.Histogram) api.Histogram {
	out := api.Histogram{Seconds: h.Sum.Seconds(), Count: h.Count()}
	sum := uint64(0)
	for i, bound := range enforce.Bounds {
		sum += h.Buckets[i]
		out.Buckets = append(out.Buckets, api.Bucket{UpTo: bound.Seconds(), Count: sum})
	}
	return out
}

var _ control.Handler = (*engine)(nil)
