package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/types/runc/options"
	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

const snapshotter = "overlayfs"

// ProfileAnnotation names the profile that a container is to run under.
const ProfileAnnotation = "stockade.dev/profile"

// RunOpts describes a container. Only Image is needed.
type RunOpts struct {
	ID             string // default: unique on this node
	Image          string // its reference, imported before
	Args           []string
	Env            []string // added to the image's
	Cwd, User      string
	Runtime        string // default: the node's
	RuntimeOptions any    // default: runc's options, with runc's state inside the node's folder
	Profile        string // short for the annotation
	Annotations    map[string]string
	Mounts         []specs.Mount
	TTY            bool
	Stdin          io.Reader
	HostNetwork    bool // else a network namespace of its own, with nothing but the loopback, which runc brings up
	SpecOpts       []oci.SpecOpts
	Remap          uint32                    // not 0: the root's files belong to users from this one on, for a user namespace
	Prepare        func(rootfs Rootfs) error // called when the root file system exists and the task does not
}

// Task is a container with its task.
type Task struct {
	ID        string
	Container containerd.Container
	Task      containerd.Task
	Process

	node   *Node
	rootfs Rootfs
}

// Run creates a container and starts it.
func (n *Node) Run(ctx context.Context, o RunOpts) (*Task, error) {
	t, err := n.Create(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := t.Start(ctx); err != nil {
		return nil, errors.Join(err, t.Delete(ctx))
	}
	return t, nil
}

// Create makes the container up to where its init waits for Start.
func (n *Node) Create(ctx context.Context, o RunOpts) (*Task, error) {
	ctx = n.Context(ctx)
	if o.ID == "" {
		o.ID = "c" + strconv.FormatUint(n.serial.Add(1), 10)
	}
	t := &Task{ID: o.ID, node: n}
	if err := t.create(ctx, o); err != nil {
		return nil, errors.Join(err, t.Delete(ctx))
	}
	return t, nil
}

func (t *Task) create(ctx context.Context, o RunOpts) error {
	image, err := t.node.Client.GetImage(ctx, o.Image)
	if err != nil {
		return err
	}
	if o.Runtime == "" {
		o.Runtime = t.node.Runtime
	}
	if o.RuntimeOptions == nil {
		o.RuntimeOptions = &options.Options{Root: t.node.layout.runcRoot()}
	}
	var remap []snapshots.Opt
	if o.Remap != 0 {
		remap = append(remap, containerd.WithRemapperLabels(0, o.Remap, 0, o.Remap, 65536))
	}
	t.Container, err = t.node.Client.NewContainer(ctx, t.ID,
		containerd.WithImage(image),
		containerd.WithSnapshotter(snapshotter),
		containerd.WithNewSnapshot(t.ID, image, remap...),
		containerd.WithRuntime(o.Runtime, o.RuntimeOptions),
		containerd.WithNewSpec(specOpts(image, o)...))
	if err != nil {
		return err
	}
	if t.rootfs, err = t.node.rootfs(ctx, t.ID); err != nil {
		return err
	}
	if o.Prepare != nil {
		if err := o.Prepare(t.rootfs); err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
	}
	t.output = &output{}
	t.Task, err = t.Container.NewTask(ctx, t.node.creator(o.Stdin, t.output, o.TTY))
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	t.process = t.Task
	return t.await(ctx)
}

func specOpts(image containerd.Image, o RunOpts) []oci.SpecOpts {
	annotations := map[string]string{}
	for k, v := range o.Annotations {
		annotations[k] = v
	}
	if o.Profile != "" {
		annotations[ProfileAnnotation] = o.Profile
	}
	opts := []oci.SpecOpts{
		oci.WithDefaultPathEnv,
		oci.WithImageConfig(image),
		oci.WithEnv(o.Env),
		oci.WithMounts(o.Mounts),
		oci.WithAnnotations(annotations),
		oci.WithHostname("stockade-test"),
	}
	if len(o.Args) > 0 {
		opts = append(opts, oci.WithProcessArgs(o.Args...))
	}
	if o.Cwd != "" {
		opts = append(opts, oci.WithProcessCwd(o.Cwd))
	}
	if o.User != "" {
		opts = append(opts, oci.WithUser(o.User))
	}
	if o.TTY {
		opts = append(opts, oci.WithTTY)
	}
	if o.HostNetwork {
		opts = append(opts, oci.WithHostNamespace(specs.NetworkNamespace))
	}
	return append(opts, o.SpecOpts...)
}

func (n *Node) creator(stdin io.Reader, out *output, tty bool) cio.Creator {
	opts := []cio.Opt{cio.WithFIFODir(n.layout.fifos()), cio.WithStreams(stdin, out.stream(&out.stdout), out.stream(&out.stderr))}
	if tty {
		opts = append(opts, cio.WithTerminal)
	}
	return cio.NewCreator(opts...)
}

// Start lets the container's program run.
func (t *Task) Start(ctx context.Context) error {
	if err := t.Task.Start(t.node.Context(ctx)); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	return nil
}

// Delete kills what runs and removes the task, the container and its file system.
func (t *Task) Delete(ctx context.Context) error {
	errs := []error{t.DeleteTask(ctx)}
	ctx = t.node.Context(ctx)
	if t.Container != nil {
		if err := t.Container.Delete(ctx, containerd.WithSnapshotCleanup); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// DeleteTask kills what runs and removes the task alone: its shim ends, and Rootfs stays.
func (t *Task) DeleteTask(ctx context.Context) error {
	if t.Task == nil {
		return nil
	}
	_, err := t.Task.Delete(t.node.Context(ctx), containerd.WithProcessKill)
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// Kill sends sig to the container's first process.
func (t *Task) Kill(ctx context.Context, sig syscall.Signal) error {
	return t.Task.Kill(t.node.Context(ctx), sig)
}

// InitPID is the host's pid of the container's first process.
func (t *Task) InitPID() int { return int(t.Task.Pid()) }

// PIDs lists the host's pids of all processes of the container.
func (t *Task) PIDs(ctx context.Context) ([]int, error) {
	infos, err := t.Task.Pids(t.node.Context(ctx))
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, i := range infos {
		pids = append(pids, int(i.Pid))
	}
	return pids, nil
}

// ShimPID finds the process of the task's shim.
func (t *Task) ShimPID() (int, error) {
	for _, pid := range allPIDs() {
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			continue
		}
		args := "\x00" + string(cmdline)
		if strings.Contains(args, "\x00-address\x00"+t.node.Address()+"\x00") && strings.Contains(args, "\x00-id\x00"+t.ID+"\x00") {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("no shim of %s", t.ID)
}

// WaitShim waits until the task's shim has ended.
func (t *Task) WaitShim(ctx context.Context) error {
	for {
		pid, err := t.ShimPID()
		if err != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the shim, process %d, still runs: %w", pid, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Cgroup is the container's path below the root of a cgroup hierarchy.
func (t *Task) Cgroup() string { return "/" + t.node.Namespace + "/" + t.ID }

// CgroupDirs are the folders of Cgroup that exist: one for each v1 hierarchy, or the one of v2.
func (t *Task) CgroupDirs() []string {
	var dirs []string
	for _, h := range hierarchies() {
		dir := filepath.Join(h, t.Cgroup())
		if _, err := os.Stat(dir); err == nil {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// Bundle is the folder of the container's OCI bundle while its task exists.
func (t *Task) Bundle() string {
	return filepath.Join(t.node.layout.bundles(), t.node.Namespace, t.ID)
}

// Rootfs is the container's root file system as it lies on the host, valid until Delete.
func (t *Task) Rootfs() Rootfs { return t.rootfs }

// Rootfs is an overlay root taken apart: what the container changed, above what the image brought.
type Rootfs struct {
	Upper string
	Lower []string // the topmost layer first
}

func (n *Node) rootfs(ctx context.Context, id string) (Rootfs, error) {
	ms, err := n.Client.SnapshotService(snapshotter).Mounts(ctx, id)
	if err != nil {
		return Rootfs{}, err
	}
	return rootfsOf(ms), nil
}

func rootfsOf(ms []mount.Mount) Rootfs {
	var r Rootfs
	for _, m := range ms {
		for _, o := range m.Options {
			if v, ok := strings.CutPrefix(o, "upperdir="); ok {
				r.Upper = v
			}
			if v, ok := strings.CutPrefix(o, "lowerdir="); ok {
				r.Lower = strings.Split(v, ":")
			}
		}
	}
	return r
}

// output gathers what a process writes.
type output struct {
	mu             sync.Mutex
	stdout, stderr strings.Builder // guarded by mu
	all            strings.Builder // both, in the order of arrival; guarded by mu
}

type stream struct {
	o    *output
	into *strings.Builder
}

func (o *output) stream(into *strings.Builder) io.Writer { return stream{o, into} }

func (s stream) Write(p []byte) (int, error) {
	s.o.mu.Lock()
	defer s.o.mu.Unlock()
	s.into.Write(p)
	s.o.all.Write(p)
	return len(p), nil
}

func (o *output) text(of *strings.Builder) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return of.String()
}
