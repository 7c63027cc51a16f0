package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"

	"github.com/stockade-dev/stockade/integration/node"
)

// StartBare starts a cluster whose node has nothing of Stockade but its handler in containerd's configuration: the rest
// comes by contrib/kubernetes. The node's folder stands for the root of its host. root is the checkout. See [Daemons],
// which must run as well.
func StartBare(ctx context.Context, root, dir string) (*Cluster, error) {
	k8s, err := Bin(root)
	if err != nil {
		return nil, err
	}
	conf := node.Config{Dir: dir, Bin: []string{filepath.Join(dir, "usr/local/bin"), filepath.Join(root, ".cache/bin")}, NRI: true}
	c, err := Start(ctx, Config{Node: conf, Bin: k8s})
	if err != nil {
		return nil, err
	}
	if err := c.makeHost(ctx, root); err != nil {
		return nil, fmt.Errorf("%w (%v)", err, c.Stop(context.WithoutCancel(ctx)))
	}
	return c, nil
}

// makeHost makes the node's folder a root that looks like a host's.
func (c *Cluster) makeHost(ctx context.Context, root string) error {
	at := func(path string) string { return filepath.Join(c.Node.Dir(), path) }
	for _, d := range []string{"bin", "usr/local/bin", "etc/sysctl.d", "var/lib", "proc/sys/fs/fanotify", "run"} {
		if err := os.MkdirAll(at(d), 0o755); err != nil {
			return err
		}
	}
	sh := exec.CommandContext(ctx, "go", "build", "-o", at("bin/sh"), "./integration/install/testdata/sh")
	sh.Dir, sh.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := sh.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	// The shims read this one: the same places as /etc/stockade/config.yaml has inside that root.
	conf := fmt.Sprintf("profiles: %[1]s/etc/stockade/profiles.d\ncluster: %[1]s/var/lib/stockade/cluster.d\nlastGood: %[1]s/var/lib/stockade/last-good\n"+
		"incidents: %[1]s/var/lib/stockade/incidents\nselectionKey: %[1]s/var/lib/stockade/selection.key\nstate: %[1]s/run/stockade\n", c.Node.Dir())
	file := at("containerd.toml")
	toml, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	// What it imports by its absolute path is not inside the root that is installed into.
	toml = regexp.MustCompile(`(?m)^imports = .*$`).ReplaceAll(toml, []byte("imports = []"))
	for name, data := range map[string][]byte{
		at("proc/sys/fs/fanotify/max_user_groups"): []byte("128\n"), c.Node.StockadeConfig(): []byte(conf), file: toml,
	} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			return err
		}
	}
	return nil
}
