// Package node runs a private containerd: a node of one's own for tests, the demo and benchmarks.
//
// Everything of it lies in one folder: containerd's root, state and sockets, Stockade's profiles and incidents. Outside
// of it there are only cgroups (below a top-level group named after the containerd namespace), a folder in /run when
// the path of the folder is too long for sockets, and whatever the shim changes on a node, which Stop puts back
// (fs.fanotify.max_user_groups). A node that was killed together with its owner is cleaned by the next Start in the
// same folder, or by Clean: the folder's record names what was there before.
//
// It needs root, and the programs of `make build`.
package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
)

// The runtimes that a node's containers choose from.
const (
	Runc     = "io.containerd.runc.v2"
	Stockade = "io.containerd.stockade.v1"
)

// ErrRunning is what Start returns when a node that another process owns, or left running on purpose, lives in the
// folder.
var ErrRunning = errors.New("a node runs in this folder already")

// Config says where a node lives and what it runs. The zero value of a field that is not Dir or Bin means its default.
type Config struct {
	Dir        string   // absolute; made by Start, removed by Stop
	Bin        []string // folders searched for programs before PATH
	Namespace  string   // containerd namespace of the node's containers; default: one that only this Dir has
	Env        []string // added to containerd's environment, and so to the shims'
	Stockade   string   // further lines of Stockade's own configuration (YAML)
	Containerd string   // an older containerd's program (2.0 to 2.2), whose configuration is another
	NRI        bool     // containerd asks NRI plugins: NRISocket, and what lies in NRIPlugins when it starts
	Restore    Restore
}

// Restore is what others, who run on the node and with it, change outside of its folder: Stop and Clean put it back.
type Restore struct {
	Sysctls []string // paths below /proc/sys
	Dirs    []string // removed with what is in them, but only if they were not there when the node started
}

// Node is a running containerd and a client of it. Its methods may be called from any goroutine.
type Node struct {
	Client    *containerd.Client
	Namespace string
	Runtime   string // of containers whose RunOpts name none: Runc at first

	layout layout
	lock   *os.File
	record *record
	proc   *exec.Cmd
	exited chan struct{} // closed when containerd has ended
	serial atomic.Uint64
}

// Start cleans what an earlier node left in c.Dir, starts containerd there and waits until it serves.
func Start(ctx context.Context, c Config) (*Node, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("a node needs root")
	}
	l := layoutOf(c.Dir)
	lock, err := lockDir(l.dir)
	if err != nil {
		return nil, err
	}
	if err := l.clean(); err != nil {
		return nil, errors.Join(fmt.Errorf("clean %s: %w", l.dir, err), lock.Close())
	}
	n := &Node{layout: l, lock: lock, Namespace: c.Namespace, Runtime: Runc, exited: make(chan struct{})}
	if n.Namespace == "" {
		n.Namespace = l.uniqueName()
	}
	if err := n.start(ctx, c); err != nil {
		return nil, errors.Join(err, n.Stop(ctx))
	}
	return n, nil
}

func (n *Node) start(ctx context.Context, c Config) error {
	if err := n.layout.write(c); err != nil {
		return err
	}
	n.record = newRecord(c.Restore)
	if err := n.record.save(n.layout); err != nil {
		return err
	}
	if err := n.spawn(c); err != nil {
		return err
	}
	var err error
	n.Client, err = containerd.New(n.Address(), containerd.WithDefaultNamespace(n.Namespace), containerd.WithTimeout(30*time.Second))
	if err != nil {
		return fmt.Errorf("%w\n%s", err, n.LogTail())
	}
	return n.waitReady(ctx)
}

// spawn starts containerd in a session of its own: a ^C in the terminal is for whoever owns the node, who then stops it
// in order.
func (n *Node) spawn(c Config) error {
	log, err := os.OpenFile(n.layout.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	path := strings.Join(append(append([]string{}, c.Bin...), os.Getenv("PATH")), ":")
	program, err := lookPath(cmp.Or(c.Containerd, "containerd"), path)
	if err != nil {
		return err
	}
	n.proc = exec.Command(program, "--config", n.layout.containerdConfig())
	n.proc.Env = append(n.layout.env(path), c.Env...)
	n.proc.Stdout, n.proc.Stderr = log, log
	n.proc.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := n.proc.Start(); err != nil {
		n.proc = nil
		return fmt.Errorf("start containerd: %w", err)
	}
	go func() {
		n.proc.Wait() // reaps it; how it ended is in the log
		close(n.exited)
	}()
	n.record.PID = n.PID()
	if n.record.StartTime, err = startTime(n.record.PID); err != nil {
		return err
	}
	return n.record.save(n.layout)
}

func lookPath(name, path string) (string, error) {
	for _, dir := range filepath.SplitList(path) {
		p := filepath.Join(dir, name)
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s is not in %s", name, path)
}

func (n *Node) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(n.Context(ctx), time.Minute)
	defer cancel()
	for {
		if ok, err := n.Client.IsServing(ctx); err == nil && ok {
			return nil
		}
		select {
		case <-n.exited:
			return fmt.Errorf("containerd ended while starting\n%s", n.LogTail())
		case <-ctx.Done():
			return fmt.Errorf("containerd is not ready: %w\n%s", ctx.Err(), n.LogTail())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Stop ends every task, containerd and whatever it started, puts the machine back as it was and removes the folder.
func (n *Node) Stop(ctx context.Context) error {
	if n.Client != nil {
		// Best effort: what this leaves is ended by force below.
		n.deleteAll(ctx)
		n.Client.Close()
	}
	if n.proc != nil {
		n.proc.Process.Signal(syscall.SIGTERM)
		select {
		case <-n.exited:
		case <-time.After(5 * time.Second):
		}
	}
	return errors.Join(n.layout.remove(), n.lock.Close())
}

// Detach lets go of a node and leaves it running: Clean ends it.
func (n *Node) Detach() error {
	n.record.Detached = true
	if err := n.record.save(n.layout); err != nil {
		return err
	}
	return errors.Join(n.Client.Close(), n.lock.Close())
}

// Context returns ctx with the node's containerd namespace.
func (n *Node) Context(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, n.Namespace)
}

// Address is the path of containerd's socket.
func (n *Node) Address() string { return n.layout.socket() }

// Dir is the node's folder.
func (n *Node) Dir() string { return n.layout.dir }

// ProfilesDir is where the node's profiles are read from.
func (n *Node) ProfilesDir() string { return n.layout.profiles() }

// IncidentsDir is where the node's incidents are kept.
func (n *Node) IncidentsDir() string { return n.layout.incidents() }

// StateDir is where the shim keeps one file for each task that it protects.
func (n *Node) StateDir() string { return n.layout.stockadeState() }

// StockadeConfig is the path of the node's configuration of Stockade: the value of STOCKADE_CONFIG.
func (n *Node) StockadeConfig() string { return n.layout.stockadeConfig() }

// NRISocket is where NRI plugins connect to, on a node that was configured for them.
func (n *Node) NRISocket() string { return n.layout.nriSocket() }

// NRIPlugins is the folder of the plugins that containerd starts by itself.
func (n *Node) NRIPlugins() string { return n.layout.nriPlugins() }

// DropIns is the folder from which containerd takes further configuration, files *.toml, when it starts.
func (n *Node) DropIns() string { return n.layout.dropIns() }

// CNIDir is where the CRI looks for CNI plugins and their configuration. It is empty at first: pods of the host's
// network need none, but a kubelet calls a node without any configuration not ready.
func (n *Node) CNIDir() string { return n.layout.cni() }

// Environ is the environment of processes that belong to the node: Stop and Clean end them as they end containerd.
func (n *Node) Environ(path string) []string { return n.layout.env(path) }

// CgroupRoot makes a cgroup in each hierarchy that belongs to the node and returns its path: Stop and Clean end and
// remove what is in it.
func (n *Node) CgroupRoot() (string, error) {
	path := "/" + n.layout.uniqueName()
	for _, h := range hierarchies() {
		if err := os.MkdirAll(filepath.Join(h, path), 0o755); err != nil {
			return "", err
		}
	}
	return path, nil
}

// Log is the path of containerd's log, in which the shims' are.
func (n *Node) Log() string { return n.layout.log() }

// PID is containerd's process.
func (n *Node) PID() int { return n.proc.Process.Pid }

// LogTail returns the last lines of the log: what to show when something failed.
func (n *Node) LogTail() string { return n.tail(n.layout.log()) }

func (n *Node) tail(log string) string {
	data, err := os.ReadFile(log)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-4000):])
}
