package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/stockade-dev/stockade/integration/checkout"
	"github.com/stockade-dev/stockade/integration/kubernetes/cluster"
	"github.com/stockade-dev/stockade/integration/node"
)

// clusterUp starts a cluster of one node and leaves it running. It is empty: what makes it Stockade's is what the
// README tells to apply.
func clusterUp(ctx context.Context, root, dir string) error {
	if _, ok := node.Running(dir); ok {
		fmt.Println("the cluster is up already")
		clusterUsage(dir)
		return nil
	}
	bin, err := checkout.Bin(root, "containerd", "runc", "containerd-shim-stockade-v1", "stockade-guard", "stockade-nri")
	if err != nil {
		return err
	}
	k8s, err := cluster.Bin(root)
	if err != nil {
		return err
	}
	c, err := cluster.Start(ctx, cluster.Config{Node: node.Config{Dir: dir, Bin: []string{bin}, NRI: true}, Bin: k8s})
	if err != nil {
		return err
	}
	var env strings.Builder
	for _, v := range c.Environ() {
		name, value, _ := strings.Cut(v, "=")
		fmt.Fprintf(&env, "export %s='%s'\n", name, value)
	}
	if err := errors.Join(
		startPlugin(ctx, c.Node, bin), importSamples(ctx, root, c.Node, "k8s.io"),
		os.WriteFile(filepath.Join(dir, "env"), []byte(env.String()), 0o600),
	); err != nil {
		return errors.Join(err, c.Stop(ctx))
	}
	if err := c.Detach(); err != nil {
		return err
	}
	clusterUsage(dir)
	return nil
}

// startPlugin leaves the plugin running, as a part of the node.
func startPlugin(ctx context.Context, n *node.Node, bin string) error {
	_, err := n.StartPlugin(ctx, bin, "")
	return err
}

func clusterUsage(dir string) {
	fmt.Printf(`
A private Kubernetes of one node runs in %[1]s, with images %[2]q.
Profiles are read from %[1]s/profiles.d, which is empty. Pods must have hostNetwork: true.

  . %[1]s/env
  kubectl get nodes

make cluster-down ends it and removes %[1]s.
`, dir, samples)
}
