package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/stockade-dev/stockade/nri"
	"github.com/stockade-dev/stockade/nri/health"
	"github.com/stockade-dev/stockade/nri/observe"
	"github.com/stockade-dev/stockade/profiles/store"
	"github.com/stockade-dev/stockade/shim/config"
)

// observer is whoever tells of the node. What it lacks is no reason not to run:
// it protects nothing.
func observer(c nri.Config, node config.Config, p *nri.Plugin, w *nri.Watcher, r *reloader) *observe.Observer {
	return observe.New(observe.Config{
		Containerd: c.Containerd, Incidents: node.Incidents, State: node.State, Version: version,
		Health: func() health.Health { return healthOf(p, w, r) },
		Bad:    func() int { return bad(w.View()) },
		Log:    logrus.StandardLogger(),
	})
}

// healthOf is the plugin's health, with what others in it know.
func healthOf(p *nri.Plugin, w *nri.Watcher, r *reloader) health.Health {
	h := p.Health()
	h.Version = version
	h.Profiles, h.Changed = w.Profiles()
	h.Reloads = r.failures()
	return h
}

// bad counts what is wrong in the store; a store that cannot be read at all is
// one.
func bad(v *nri.View) int {
	st, ok := v.Set.(*store.Store)
	if !ok {
		return 1
	}
	return len(st.Problems())
}

// expose serves metrics until ctx ends. An address that is taken is tried again.
func expose(ctx context.Context, address string, handler http.Handler) {
	if address == "none" {
		return
	}
	server := &http.Server{
		Handler: handler, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 5 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	for said := false; ; said = true {
		l, err := net.Listen("tcp", address)
		if err == nil {
			err = server.Serve(l)
		}
		if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
			return
		}
		if !said {
			logrus.WithError(err).Error("stockade-nri: metrics are not served; it is tried again")
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(10 * time.Second):
		}
	}
}
