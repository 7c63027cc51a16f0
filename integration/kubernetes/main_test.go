//go:build kubernetes

// Package kubernetes_test runs pods under Stockade in a private cluster: kubelet, containerd's CRI, the shim.
package kubernetes_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stockade-dev/stockade/integration/checkout"
	"github.com/stockade-dev/stockade/integration/image"
	"github.com/stockade-dev/stockade/integration/kubernetes/cluster"
	"github.com/stockade-dev/stockade/integration/node"
	"github.com/stockade-dev/stockade/integration/suite"
)

// shared is the cluster that all tests use.
var shared *cluster.Cluster

func TestMain(m *testing.M) {
	suite.Main(m, "kubernetes", setUp, func(ctx context.Context) error {
		if shared == nil {
			return nil
		}
		return shared.Stop(ctx)
	})
}

// setUp starts the cluster with our RuntimeClass, imports the images and writes the profiles.
func setUp(ctx context.Context) error {
	root, err := checkout.Root()
	if err != nil {
		return err
	}
	began := time.Now()
	if shared, err = start(ctx, root); err != nil {
		return err
	}
	fmt.Printf("the cluster was up after %v\n", time.Since(began).Round(100*time.Millisecond))
	if err := importImages(ctx, root, "pause", "probe", "redis"); err != nil {
		return err
	}
	if out, err := shared.Kubectl(ctx, "", "apply", "-f", filepath.Join(root, "contrib/kubernetes/runtimeclass.yaml")); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return writeProfiles(profileTexts)
}

func start(ctx context.Context, root string) (*cluster.Cluster, error) {
	bin, err := checkout.Bin(root, "containerd", "runc", "containerd-shim-runc-v2", "containerd-shim-stockade-v1", "stockade-guard")
	if err != nil {
		return nil, err
	}
	k8s, err := cluster.Bin(root)
	if err != nil {
		return nil, err
	}
	return cluster.Start(ctx, cluster.Config{
		Node: node.Config{Dir: filepath.Join(root, ".work/k8s"), Bin: []string{bin}, NRI: true},
		Bin:  k8s,
	})
}

func importImages(ctx context.Context, root string, names ...string) error {
	builder := &image.Builder{Root: root, Log: os.Stderr}
	for _, name := range names {
		img, err := builder.Named(ctx, name)
		if err != nil {
			return err
		}
		if err := shared.Node.ImportInto(ctx, "k8s.io", img.Tar); err != nil {
			return err
		}
	}
	return nil
}

// writeProfiles puts each profile into the node's folder, named after the key.
func writeProfiles(texts map[string]string) error {
	for name, text := range texts {
		if err := writeProfile(name, text); err != nil {
			return err
		}
	}
	return nil
}

// writeProfile puts one profile into the node's folder as an admin should: in one step.
func writeProfile(name, text string) error {
	file := filepath.Join(shared.Node.ProfilesDir(), name+".yaml")
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}
