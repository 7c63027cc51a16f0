package cri

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stockade-dev/stockade/integration/checkout"
	"github.com/stockade-dev/stockade/integration/image"
	"github.com/stockade-dev/stockade/integration/node"
	"github.com/stockade-dev/stockade/integration/suite"
)

var (
	shared *client
	bin    string
)

func TestMain(m *testing.M) {
	suite.Main(m, "cri", func(ctx context.Context) (err error) {
		shared, err = setUp(ctx, "cri", node.Config{})
		return err
	}, func(ctx context.Context) error {
		if shared == nil {
			return nil
		}
		return shared.node.Stop(ctx)
	})
}

// setUp starts a node with the images and profiles of all tests.
func setUp(ctx context.Context, name string, c node.Config) (_ *client, err error) {
	root, err := checkout.Root()
	if err != nil {
		return nil, err
	}
	bin, err = checkout.Bin(root, "containerd", "runc", "containerd-shim-runc-v2", "containerd-shim-stockade-v1", "stockade-guard", "stockade-nri")
	if err != nil {
		return nil, err
	}
	c.Dir, c.Bin, c.NRI = filepath.Join(root, ".work", name), []string{bin, filepath.Join(root, ".cache/bin")}, true
	n, err := node.Start(ctx, c)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Stop(context.Background()))
		}
	}()
	builder := &image.Builder{Root: root, Log: os.Stderr}
	for _, name := range []string{"pause", "probe"} {
		img, err := builder.Named(ctx, name)
		if err != nil {
			return nil, err
		}
		if err := n.ImportInto(ctx, "k8s.io", img.Tar); err != nil {
			return nil, err
		}
	}
	for name, text := range profiles {
		if err := writeProfile(n, name, text); err != nil {
			return nil, err
		}
	}
	return connect(ctx, n)
}

// profiles of the tests: a container gets the one of its name, and in namespace "labels" by its pod's labels.
var profiles = map[string]string{
	"main":      profile("main", `match: {images: ["docker.io/stockade/probe:test"], containers: [main]}`),
	"init":      profile("init", `match: {images: ["docker.io/stockade/probe:test"], containers: [init]}`),
	"debugger":  profile("debugger", `match: {images: ["docker.io/stockade/probe:test"], containers: [debugger]}`),
	"choice":    profile("choice", `match: {namespaces: [prod]}`),
	"elsewhere": profile("elsewhere", `match: {namespaces: [nowhere]}`),
	"label":     profile("label", `match: {images: ["docker.io/stockade/probe:test"], namespaces: [labels], podSelector: {matchLabels: {app: probe}}}`),
}

func profile(name, match string) string {
	return `apiVersion: stockade.dev/v1alpha1
kind: Profile
metadata: {name: ` + name + `}
spec:
  ` + match + `
  allow: {exec: [/bin/probe], read: ["@image"]}
  sessions: {allow: {exec: [/bin/hello]}}
`
}

// writeProfile puts a profile into the node's folder in one step.
func writeProfile(n *node.Node, name, text string) error {
	file := filepath.Join(n.ProfilesDir(), name+".yaml")
	return errors.Join(os.WriteFile(file+".new", []byte(text), 0o600), os.Rename(file+".new", file))
}

func removeProfiles(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.Remove(filepath.Join(shared.node.ProfilesDir(), name+".yaml")); err != nil {
			t.Error(err)
		}
	}
}

// plugin starts stockade-nri on the node for the time of a test.
func (c *client) plugin(t *testing.T, config string) *node.Plugin {
	t.Helper()
	p, err := c.node.StartPlugin(t.Context(), bin, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}
