package node

import (
	"context"
	"syscall"
)

// Crash ends containerd as a crash does: with SIGKILL. The containers, their shims and guards go on.
func (n *Node) Crash() error {
	if err := n.proc.Process.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-n.exited
	return nil
}

// Restart starts containerd again after Crash, with the configuration it had, and waits until it serves. Client finds it
// by itself. c needs the Bin and Env that Start was given.
func (n *Node) Restart(ctx context.Context, c Config) error {
	n.exited = make(chan struct{})
	if err := n.spawn(c); err != nil {
		close(n.exited)
		return err
	}
	return n.waitReady(ctx)
}
