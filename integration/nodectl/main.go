// nodectl is what `make node`, `make node-down` and `make clean` run.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/stockade-dev/stockade/integration/checkout"
	"github.com/stockade-dev/stockade/integration/image"
	"github.com/stockade-dev/stockade/integration/node"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "nodectl:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	root, err := checkout.Root()
	if err != nil {
		return err
	}
	if len(args) != 1 {
		return errors.New("usage: nodectl up|down|clean")
	}
	dir := filepath.Join(root, ".node")
	switch args[0] {
	case "up":
		return up(ctx, root, dir)
	case "down":
		return node.Clean(dir)
	case "clean":
		return clean(root, dir)
	}
	return fmt.Errorf("unknown command %q", args[0])
}

// clean ends the node of `make node` and those that killed test runs left below .work.
func clean(root, dir string) error {
	errs := []error{node.Clean(dir)}
	left, err := filepath.Glob(filepath.Join(root, ".work/*"))
	errs = append(errs, err)
	for _, d := range left {
		if st, err := os.Stat(d); err == nil && st.IsDir() {
			errs = append(errs, node.Clean(d))
		}
	}
	return errors.Join(errs...)
}

// samples are the images that the example commands run.
var samples = []string{"pause", "redis", "nginx", "tools", "probe"}

func up(ctx context.Context, root, dir string) error {
	if address, ok := node.Running(dir); ok {
		fmt.Println("the node is up already")
		usage(root, dir, address)
		return nil
	}
	bin, err := checkout.Bin(root, "containerd", "runc", "containerd-shim-stockade-v1", "stockade-guard")
	if err != nil {
		return err
	}
	// ctr's own namespace, so that no command needs -n.
	n, err := node.Start(ctx, node.Config{Dir: dir, Bin: []string{bin}, Namespace: "default"})
	if err != nil {
		return err
	}
	if err := fill(ctx, root, n); err != nil {
		return errors.Join(err, n.Stop(ctx))
	}
	if err := n.Detach(); err != nil {
		return err
	}
	usage(root, dir, n.Address())
	return nil
}

func fill(ctx context.Context, root string, n *node.Node) error {
	builder := &image.Builder{Root: root, Log: os.Stdout}
	for _, name := range samples {
		img, err := builder.Named(ctx, name)
		if err != nil {
			return err
		}
		for _, namespace := range []string{n.Namespace, "k8s.io"} {
			if err := n.ImportInto(ctx, namespace, img.Tar); err != nil {
				return err
			}
		}
	}
	profiles, err := filepath.Glob(filepath.Join(root, "contrib/profiles/*.yaml"))
	if err != nil {
		return err
	}
	for _, p := range profiles {
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(n.ProfilesDir(), filepath.Base(p)), data, fs.FileMode(0o600)); err != nil {
			return err
		}
	}
	return nil
}

func usage(root, dir, address string) {
	fmt.Printf(`
A private containerd runs in %[2]s, with images %[4]q.
Profiles are read from %[2]s/profiles.d, a copy of contrib/profiles; incidents go to %[2]s/incidents.

  export STOCKADE_CONFIG=%[2]s/config.yaml
  alias ctr='%[1]s/bin/ctr -a %[3]s'
  ctr run -d --runtime io.containerd.stockade.v1 --annotation stockade.dev/profile=redis %[5]s r1
  ctr task exec --exec-id e1 r1 /usr/bin/redis-cli ping
  ctr task exec --exec-id e2 r1 /bin/sh -c id
  %[1]s/bin/stockade incident ls
  ctr task rm -f r1; ctr container rm r1

make node-down ends it and removes %[2]s.
`, root, dir, address, samples, image.Ref("redis"))
}
