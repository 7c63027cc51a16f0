package main

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/stockade-dev/stockade/shim/control/api"
)

// reloader tells the shims of the node that profiles have changed. What comes of it is the shims' business: each reads
// the store itself, and touches nothing where it finds what it has. Make it with newReloader.
type reloader struct {
	state       string
	wake        chan struct{}
	least, most time.Duration // between tries with shims that failed: doubled with each

	mu     sync.Mutex
	due    bool                         // every shim is to be asked; guarded by mu
	names  []string                     // that have changed since all were asked; guarded by mu
	failed map[string]map[string]string // by socket: why containers keep an older profile, by id; guarded by mu
}

func newReloader(state string) *reloader {
	return &reloader{state: state, wake: make(chan struct{}, 1), least: time.Second, most: time.Minute}
}

// reloadTime bounds what one shim may take; the others do not wait for it.
const reloadTime = 10 * time.Second

// changed has Run ask every shim to choose again. All of them: a profile that is new may be for a container that has
// another.
func (r *reloader) changed(names []string) {
	r.mu.Lock()
	r.due, r.names = true, append(r.names, names...)
	r.mu.Unlock()
	poke(r.wake)
}

// poke wakes who waits for c, now or next time. c has room for one.
func poke(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run asks until ctx ends: all shims when they are to be asked, and those that failed again and again.
func (r *reloader) Run(ctx context.Context) {
	for wait := r.least; ; {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
			wait = r.least
		case <-time.After(wait):
			wait = min(2*wait, r.most)
		}
		r.round(ctx)
	}
}

// round asks whom there is a reason to ask. Who has failed is asked in any case, so what it finds is all that is known
// of failures: shims and containers that have ended are forgotten.
func (r *reloader) round(ctx context.Context) {
	r.mu.Lock()
	due, names, before := r.due, r.names, r.failed
	r.due, r.names = false, nil
	r.mu.Unlock()
	if !due && len(before) == 0 {
		return
	}
	sockets, err := api.Sockets(r.state)
	if err != nil {
		logrus.WithError(err).Error("stockade-nri: the shims cannot be told that profiles have changed; it is tried again")
		r.mu.Lock()
		r.due, r.names = r.due || due, append(names, r.names...)
		r.mu.Unlock()
		return
	}
	if !due {
		sockets = slices.DeleteFunc(sockets, func(s string) bool { return before[s] == nil })
	}
	reloaded, failed := ask(ctx, sockets)
	if ctx.Err() != nil {
		return // what could not be asked has not failed
	}
	r.mu.Lock()
	r.failed = failed
	r.mu.Unlock()
	if due || reloaded > 0 {
		slices.Sort(names)
		logrus.WithFields(logrus.Fields{
			"profiles": strings.Join(slices.Compact(names), " "), "shims": len(sockets), "reloaded": reloaded,
		}).Info("stockade-nri: shims were told to choose profiles again")
	}
	if due {
		before = nil // what was said of them before was of another set
	}
	sayFailed(flat(before), flat(failed))
}

// sayFailed logs what was not said before.
func sayFailed(before, now map[string]string) {
	for id, why := range now {
		if before[id] != why {
			logrus.WithField("id", id).Error("stockade-nri: not reloaded, it is tried again: " + why)
		}
	}
}

// ask has shims choose again. It returns how many containers have another profile now, and by socket why others do not.
func ask(ctx context.Context, sockets []string) (reloaded int, failed map[string]map[string]string) {
	failed = map[string]map[string]string{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	for _, socket := range sockets {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			resp, err := reload(ctx, socket)
			mu.Lock()
			defer mu.Unlock()
			if api.IsGone(err) {
				return
			}
			if err != nil {
				failed[socket] = map[string]string{socket: err.Error()}
				return
			}
			for _, c := range resp.Containers {
				switch {
				case c.Failed == "" && c.Changed():
					reloaded++
				case c.Failed != "" && failed[socket] == nil:
					failed[socket] = map[string]string{c.ID: c.Failed}
				case c.Failed != "":
					failed[socket][c.ID] = c.Failed
				}
			}
		})
	}
	wg.Wait()
	return reloaded, failed
}

// failures says why containers keep an older profile, by id; by the socket of a shim that does not answer.
func (r *reloader) failures() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return flat(r.failed)
}

func flat(failed map[string]map[string]string) map[string]string {
	all := map[string]string{}
	for _, of := range failed {
		maps.Copy(all, of)
	}
	return all
}

func reload(ctx context.Context, socket string) (*api.ReloadResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, reloadTime)
	defer cancel()
	c, err := api.Dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Reload(ctx, api.ReloadRequest{})
}
