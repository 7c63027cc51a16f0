package main

import (
	"context"
	"errors"
	"os"
	"runtime"
	"time"

	"github.com/sirupsen/logrus"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/stockade-dev/stockade/nri"
	"github.com/stockade-dev/stockade/nri/cluster"
	"github.com/stockade-dev/stockade/nri/local"
	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/profiles/store"
	"github.com/stockade-dev/stockade/shim/config"
	"github.com/stockade-dev/stockade/shim/features"
)

func roots(node config.Config) store.Roots {
	return store.Roots{Profiles: node.Profiles, Cluster: node.Cluster, LastGood: node.LastGood}
}

// keep keeps last good copies until ctx ends. Without them a bad file is refused,
// which is no reason not to run.
func keep(ctx context.Context, node config.Config) {
	k, err := local.New(local.Config{Roots: roots(node), Log: logrus.StandardLogger()})
	if err != nil {
		logrus.WithError(err).Error("stockade-nri: no last good copies are kept")
		return
	}
	k.Run(ctx)
}

// follow brings the cluster's profiles to the node until ctx ends. It is tried
// again when it cannot begin; the folder is used as it is meanwhile.
func follow(ctx context.Context, c nri.Config, node config.Config, changed <-chan struct{}) {
	for {
		err := followOnce(ctx, c, node, changed)
		if err == nil || ctx.Err() != nil {
			return
		}
		logrus.WithError(err).Error("stockade-nri: the cluster's profiles are not followed; it is tried again in a minute")
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Minute):
		}
	}
}

func followOnce(ctx context.Context, c nri.Config, node config.Config, changed <-chan struct{}) error {
	api, err := reach(c.Kubernetes)
	if err != nil || api == nil {
		return err
	}
	h := holds{state: node.State}
	w, err := cluster.New(cluster.Config{REST: api, Roots: roots(node), Node: nodeName(c), Log: logrus.StandardLogger(), Check: h.check})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go h.again(ctx, w.Refresh, changed)
	return w.Run(ctx)
}

// holds tells whether profiles hold on this node: whether a shim could compile
// them. What the node can do is known from the last shim that started; before
// the first, a node that can do everything is assumed, on which what no node can
// hold is found.
type holds struct{ state string }

func (h holds) target() profiles.Target {
	t, err := features.LoadTarget(h.state)
	if err == nil {
		return t
	}
	return profiles.Target{
		Kernel: kernel(), Arch: runtime.GOARCH, Fanotify: profiles.Yes, FanotifyStack: profiles.Yes, SeccompNotify: profiles.Yes,
		MountSeal: profiles.Yes, AppArmor: profiles.No, CgroupBPF: profiles.No, CgroupV2: profiles.Yes,
	}
}

func (h holds) check(p *profiles.Profile) error {
	_, err := profiles.Compile(p, h.target())
	return err
}

// again has the statuses looked at again when the node is known better, or its
// own profiles, which those of the cluster may extend, have changed.
func (h holds) again(ctx context.Context, look func(), changed <-chan struct{}) {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for before := h.target(); ; {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			look()
		case <-tick.C:
			if now := h.target(); now != before {
				before = now
				look()
			}
		}
	}
}

// reach says how the API server is reached; nil: not at all, and that is meant.
func reach(how string) (*rest.Config, error) {
	switch how {
	case "none":
		return nil, nil
	case "auto":
		api, err := rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			return nil, nil
		}
		return api, err
	}
	return clientcmd.BuildConfigFromFlags("", how)
}

// nodeName is the node's name in the cluster: what the configuration or the
// DaemonSet says, else the host's.
func nodeName(c nri.Config) string {
	if c.NodeName != "" {
		return c.NodeName
	}
	if name := os.Getenv("NODE_NAME"); name != "" {
		return name
	}
	name, _ := os.Hostname()
	return name
}
