package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/sirupsen/logrus"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/stockade-dev/stockade/nri"
	"github.com/stockade-dev/stockade/nri/cluster"
	"github.com/stockade-dev/stockade/nri/local"
	"github.com/stockade-dev/stockade/profiles/store"
	"github.com/stockade-dev/stockade/shim/config"
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
func follow(ctx context.Context, c nri.Config, node config.Config) {
	for {
		err := followOnce(ctx, c, node)
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

func followOnce(ctx context.Context, c nri.Config, node config.Config) error {
	api, err := reach(c.Kubernetes)
	if err != nil || api == nil {
		return err
	}
	w, err := cluster.New(cluster.Config{REST: api, Roots: roots(node), Node: nodeName(c), Log: logrus.StandardLogger()})
	if err != nil {
		return err
	}
	return w.Run(ctx)
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
