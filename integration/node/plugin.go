package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/stockade-dev/stockade/nri/health"
)

// Plugin is a running stockade-nri.
type Plugin struct {
	node   *Node
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has ended
}

// StartPlugin starts stockade-nri beside a node with NRI, with further lines of its configuration, and waits until
// containerd has taken it on. bin is where the program lies; its log is PluginLog.
func (n *Node) StartPlugin(ctx context.Context, bin, config string) (*Plugin, error) {
	file := filepath.Join(n.layout.dir, "nri.yaml")
	if err := os.WriteFile(file, []byte("socket: "+n.NRISocket()+"\n"+config), 0o600); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(n.PluginLog(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p := &Plugin{node: n, cmd: exec.Command(filepath.Join(bin, "stockade-nri"), "--config", file), exited: make(chan struct{})}
	p.cmd.Env = n.Environ(os.Getenv("PATH"))
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.cmd.Wait()
		close(p.exited)
	}()
	if err := p.WaitHealth(ctx, func(h health.Health) bool { return h.Connected }); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return p, nil
}

// PluginLog is the log of stockade-nri.
func (n *Node) PluginLog() string { return filepath.Join(n.layout.dir, "stockade-nri.log") }

// WaitHealth waits until this plugin says of itself what is wanted.
func (p *Plugin) WaitHealth(ctx context.Context, want func(health.Health) bool) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		h, err := health.Read(p.node.StateDir())
		if err == nil && h.PID == p.cmd.Process.Pid && want(h) {
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("stockade-nri has ended\n%s", p.node.tail(p.node.PluginLog()))
		case <-ctx.Done():
			return fmt.Errorf("stockade-nri is not as wanted: %+v, %w\n%s", h, err, p.node.tail(p.node.PluginLog()))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Signal sends a signal to the plugin.
func (p *Plugin) Signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// Stop kills the plugin and waits for its end.
func (p *Plugin) Stop() error {
	err := p.cmd.Process.Kill()
	<-p.exited
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// PreInstall puts stockade-nri where containerd starts it by itself, when it is started next. NRI gives a plugin it
// starts no environment, so a script stands before it.
func (n *Node) PreInstall(bin, config string) error {
	file := filepath.Join(n.layout.dir, "nri-preinstalled.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return err
	}
	var script strings.Builder
	script.WriteString("#!/bin/sh\n")
	for _, v := range n.Environ(os.Getenv("PATH")) {
		fmt.Fprintf(&script, "export %q\n", v)
	}
	fmt.Fprintf(&script, "exec %q --config %q\n", filepath.Join(bin, "stockade-nri"), file)
	return os.WriteFile(filepath.Join(n.NRIPlugins(), "10-stockade"), []byte(script.String()), 0o700)
}
