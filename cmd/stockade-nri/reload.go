package main

import (
	"context"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/stockade-dev/stockade/shim/control/api"
)

// reloader tells the shims of the node that profiles have changed. What comes of it is the shims' business: each reads
// the store itself.
type reloader struct {
	state string

	mu     sync.Mutex
	failed map[string]string // why containers keep an older profile, by id; guarded by mu
}

// reloadTime bounds what one shim may take; the others do not wait for it.
const reloadTime = 10 * time.Second

// changed asks every shim to choose again. All of them: a profile that is new may be for a container that has another.
func (r *reloader) changed(ctx context.Context, names []string) {
	log := logrus.WithField("profiles", strings.Join(names, " "))
	sockets, err := api.Sockets(r.state)
	if err != nil {
		log.WithError(err).Error("stockade-nri: profiles have changed, and the shims cannot be told")
		return
	}
	var mu sync.Mutex
	reloaded, failed := 0, map[string]string{}
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	for _, socket := range sockets {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			resp, err := reload(ctx, socket)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case api.IsGone(err):
			case err != nil:
				failed[socket] = err.Error()
			default:
				for _, c := range resp.Containers {
					if c.Failed != "" {
						failed[c.ID] = c.Failed
					} else if c.Changed() {
						reloaded++
					}
				}
			}
		})
	}
	wg.Wait()
	r.mu.Lock()
	r.failed = failed
	r.mu.Unlock()
	log = log.WithFields(logrus.Fields{"shims": len(sockets), "reloaded": reloaded, "failed": len(failed)})
	if len(failed) == 0 {
		log.Info("stockade-nri: profiles have changed")
		return
	}
	for id, why := range failed {
		log.WithField("id", id).Error("stockade-nri: not reloaded: " + why)
	}
}

// failures are those of the last time.
func (r *reloader) failures() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.failed)
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
