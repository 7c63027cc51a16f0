package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

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
	c, err := cluster.StartBare(ctx, root, dir)
	if err != nil {
		return err
	}
	var env strings.Builder
	for _, v := range c.Environ() {
		name, value, _ := strings.Cut(v, "=")
		fmt.Fprintf(&env, "export %s='%s'\n", name, value)
	}
	if err := errors.Join(
		importSamples(ctx, root, c.Node, "k8s.io"),
		c.Node.ImportInto(ctx, "k8s.io", filepath.Join(root, "bin/stockade-image.tar")),
		os.WriteFile(filepath.Join(dir, "env"), []byte(env.String()), 0o600),
		startDaemons(c),
	); err != nil {
		return errors.Join(err, c.Stop(ctx))
	}
	if err := c.Detach(); err != nil {
		return err
	}
	clusterUsage(dir)
	return nil
}

// startDaemons leaves a process of this program running, as a part of the node, that makes the DaemonSets' pods.
func startDaemons(c *cluster.Cluster) error {
	what, err := json.Marshal(c.Daemons())
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(c.Node.Dir(), "daemons.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(self, "daemons", string(what))
	cmd.Env = c.Node.Environ(os.Getenv("PATH"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd.Start()
}

// daemons is that process.
func daemons(ctx context.Context, text string) error {
	var d cluster.Daemons
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		return err
	}
	return d.Run(ctx, func(err error) { fmt.Fprintln(os.Stderr, err) })
}

func clusterUsage(dir string) {
	fmt.Printf(`
A private Kubernetes of one node runs in %[1]s, with images %[2]q.
It has no Stockade yet. Pods must have hostNetwork: true.

  . %[1]s/env
  kubectl apply -k contrib/kubernetes

make cluster-down ends it and removes %[1]s.
`, dir, samples)
}
