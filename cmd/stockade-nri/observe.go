package main

import (
	"context"

	"github.com/sirupsen/logrus"
	"k8s.io/client-go/kubernetes"

	"github.com/stockade-dev/stockade/nri"
	"github.com/stockade-dev/stockade/nri/health"
	"github.com/stockade-dev/stockade/nri/observe"
	"github.com/stockade-dev/stockade/profiles/store"
	"github.com/stockade-dev/stockade/shim/config"
)

// outlets is who is told of the node. What they lack is no reason not to run:
// they protect nothing.
type outlets struct {
	*observe.Observer
	condition *observe.Condition // nil: of no cluster
}

func newOutlets(ctx context.Context, c nri.Config, node config.Config, p *nri.Plugin, w *nri.Watcher, r *reloader) outlets {
	o, name := outlets{}, nodeName(c)
	of := observe.Config{
		Containerd: c.Containerd, Incidents: node.Incidents, State: node.State, Version: version,
		Health: func() health.Health { return healthOf(p, w, r) },
		Bad:    func() int { return bad(w.View()) },
		Log:    logrus.StandardLogger(),
	}
	lacks := func(what string, err error) {
		logrus.WithError(err).Error("stockade-nri: " + what)
	}
	if api, err := reach(c.Kubernetes); err != nil {
		lacks("no events on pods, no condition of the node", err)
	} else if api != nil {
		if client, err := kubernetes.NewForConfig(api); err != nil {
			lacks("no events on pods, no condition of the node", err)
		} else {
			of.Sinks = append(of.Sinks, observe.NewEvents(client, name))
			o.condition = &observe.Condition{Client: client, Node: name, Health: of.Health, Log: of.Log}
		}
	}
	if c.JSONLog != "" {
		of.Sinks = append(of.Sinks, observe.NewLines(c.JSONLog, name, version))
	}
	if c.OTLP != "" {
		if sink, err := observe.NewOTLP(ctx, c.OTLP, name, version); err != nil {
			lacks("no OTLP logs", err)
		} else {
			of.Sinks = append(of.Sinks, sink)
		}
	}
	o.Observer = observe.New(of)
	if o.condition != nil {
		o.condition.Wrote = o.Heartbeat
	}
	return o
}

// report writes the node's condition until ctx ends.
func (o outlets) report(ctx context.Context) {
	if o.condition != nil {
		o.condition.Run(ctx)
	}
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
