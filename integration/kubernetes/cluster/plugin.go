package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/stockade-dev/stockade/nri/health"
)

// StartPlugin starts Stockade's NRI plugin, again after Kill, and waits until containerd has taken it on. more are
// further lines of its configuration. It needs Config.Node.NRI.
func (c *Cluster) StartPlugin(ctx context.Context, more string) error {
	file := c.files.path("nri.yaml")
	yaml := fmt.Sprintf("node: %s\nsocket: %s\n%s", c.Node.StockadeConfig(), c.Node.NRISocket(), more)
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		return err
	}
	bin, err := c.programDir("stockade-nri")
	if err != nil {
		return err
	}
	if err := c.spawnFrom(bin, "stockade-nri", []string{"--config", file}); err != nil {
		return err
	}
	return c.WaitPlugin(ctx)
}

// WaitPlugin waits until the plugin, which must run, is connected to containerd.
func (c *Cluster) WaitPlugin(ctx context.Context) error {
	pid, began := c.processes["stockade-nri"].cmd.Process.Pid, time.Now()
	return c.poll(ctx, "stockade-nri", func(context.Context) error {
		h, err := health.Read(c.Node.StateDir())
		if err != nil {
			return err
		}
		if h.PID != pid || !h.Connected || h.Time.Before(began) {
			return errors.New("the plugin is not connected")
		}
		return nil
	})
}

// programDir is the node's folder that has the program.
func (c *Cluster) programDir(name string) (string, error) {
	for _, dir := range c.config.Node.Bin {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("%s is not in %q, run make build", name, c.config.Node.Bin)
}
