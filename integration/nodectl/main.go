// nodectl is what `make node`, `make node-down`, `make cluster`, `make cluster-down` and `make clean` run.
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
	if len(args) == 2 && args[0] == "daemons" {
		return daemons(ctx, args[1])
	}
	root, err := checkout.Root()
	if err != nil {
		return err
	}
	if len(args) == 0 || len(args) > 1 && args[0] != "pod" {
		return errors.New("usage: nodectl up|down|pod|cluster|cluster-down|clean")
	}
	dir, kubernetes := filepath.Join(root, ".node"), filepath.Join(root, ".cluster")
	switch args[0] {
	case "up":
		return up(ctx, root, dir)
	case "down":
		return node.Clean(dir)
	case "pod":
		return pod(ctx, dir, args[1:])
	case "cluster":
		return clusterUp(ctx, root, kubernetes)
	case "cluster-down":
		return node.Clean(kubernetes)
	case "clean":
		return clean(root, dir, kubernetes)
	}
	return fmt.Errorf("unknown command %q", args[0])
}

// clean ends the nodes of `make node` and `make cluster`, and those that killed test runs left below .work.
func clean(root string, dirs ...string) error {
	var errs []error
	for _, d := range dirs {
		errs = append(errs, node.Clean(d))
	}
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
	if _, ok := node.Running(dir); ok {
		fmt.Println("the node is up already")
		usage(dir)
		return nil
	}
	bin, err := checkout.Bin(root, "containerd", "runc", "containerd-shim-stockade-v1", "stockade-guard", "stockade-nri")
	if err != nil {
		return err
	}
	// A namespace of its own: runc keeps the containers of the namespace "default" of every containerd in one folder.
	n, err := node.Start(ctx, node.Config{Dir: dir, Bin: []string{bin}, NRI: true})
	if err != nil {
		return err
	}
	if _, err := n.StartPlugin(ctx, bin, ""); err != nil {
		return errors.Join(err, n.Stop(ctx))
	}
	if err := errors.Join(fill(ctx, root, n), os.WriteFile(filepath.Join(dir, "env"), []byte(environment(n, bin)), 0o600)); err != nil {
		return errors.Join(err, n.Stop(ctx))
	}
	if err := n.Detach(); err != nil {
		return err
	}
	usage(dir)
	return nil
}

// environment is what a shell sources so that ctr and stockade talk to the node without further arguments.
func environment(n *node.Node, bin string) string {
	return fmt.Sprintf(`export CONTAINERD_ADDRESS=%s CONTAINERD_NAMESPACE=%s CONTAINERD_SUPPRESS_DEPRECATION_WARNINGS=1
export STOCKADE_CONFIG=%s
export PATH=%s:$PATH
`, n.Address(), n.Namespace, n.StockadeConfig(), bin)
}

// importSamples gives the node the images of the examples, in containerd's namespaces.
func importSamples(ctx context.Context, root string, n *node.Node, namespaces ...string) error {
	builder := &image.Builder{Root: root, Log: os.Stdout}
	for _, name := range samples {
		img, err := builder.Named(ctx, name)
		if err != nil {
			return err
		}
		for _, namespace := range namespaces {
			if err := n.ImportInto(ctx, namespace, img.Tar); err != nil {
				return err
			}
		}
	}
	return nil
}

func fill(ctx context.Context, root string, n *node.Node) error {
	if err := importSamples(ctx, root, n, n.Namespace, "k8s.io"); err != nil {
		return err
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

func usage(dir string) {
	fmt.Printf(`
A private containerd runs in %[1]s, with images %[2]q.
Profiles are read from %[1]s/profiles.d, a copy of contrib/profiles; incidents go to %[1]s/incidents.

  . %[1]s/env
  ctr run -d --runtime io.containerd.stockade.v1 --annotation stockade.dev/profile=redis %[3]s r1
  ctr task exec --exec-id e1 r1 /usr/bin/redis-cli ping
  ctr task exec --exec-id e2 r1 /bin/sh -c id
  stockade incident ls
  ctr task rm -f r1; ctr container rm r1

The NRI plugin runs too. A pod, asked for as a kubelet asks (containerd's CRI), whose labels choose the profile:

  cat >%[1]s/profiles.d/pod.yaml <<'EOF'
  {apiVersion: stockade.dev/v1alpha1, kind: Profile, metadata: {name: pod}, spec: {
    match: {podSelector: {matchLabels: {app: probe}}}, allow: {exec: [/bin/probe], read: ["@image"]}}}
  EOF
  go run ./integration/nodectl pod probe app=probe -- /bin/probe cat /etc/app.conf
  go run ./integration/nodectl pod probe app=probe -- /bin/probe exec /bin/hello

make node-down ends it and removes %[1]s.
`, dir, samples, image.Ref("redis"))
}
