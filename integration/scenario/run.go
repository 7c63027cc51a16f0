package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stockade-dev/stockade/integration/image"
	"github.com/stockade-dev/stockade/integration/node"
	"github.com/stockade-dev/stockade/shim/incident"
)

// Observed is what became of one run.
type Observed struct {
	process
	sessions  []process
	incidents []incident.Incident
	files     hostFiles
	remove    func() error
}

// process is what became of one process.
type process struct {
	refused string // the error, when it was not started
	exit    int
	output  string
}

// Close removes the container and its volumes.
func (o *Observed) Close() error { return o.remove() }

// Run runs the case on n under runtime. The error is one of the harness, not of the case. Close what it returns.
func (s *Scenario) Run(ctx context.Context, n *node.Node, runtime string) (*Observed, error) {
	scratch, err := os.MkdirTemp(n.Dir(), "volumes-")
	if err != nil {
		return nil, err
	}
	o := &Observed{files: hostFiles{volumes: map[string]string{}}}
	o.remove = func() error { return os.RemoveAll(scratch) }
	opts, err := s.options(scratch, runtime, o)
	if err != nil {
		return nil, errors.Join(err, o.remove())
	}
	task, err := n.Create(ctx, opts)
	if err == nil {
		o.remove = func() error {
			return errors.Join(task.Delete(context.WithoutCancel(ctx)), os.RemoveAll(scratch))
		}
		err = task.Start(ctx)
	}
	if err != nil {
		o.refused = err.Error()
		return o, nil
	}
	if err := s.drive(ctx, n, task, o); err != nil {
		return nil, errors.Join(err, o.remove())
	}
	if err := task.DeleteTask(ctx); err != nil {
		return nil, errors.Join(err, o.remove())
	}
	if runtime == node.Runc {
		return o, nil // nobody writes incidents
	}
	err = task.WaitShim(ctx) // it writes the last incident before it ends
	if err == nil {
		o.incidents, err = s.gather(ctx, n.IncidentsDir(), task.ID)
	}
	if err != nil {
		return nil, errors.Join(err, o.remove())
	}
	return o, nil
}

func (s *Scenario) options(scratch, runtime string, o *Observed) (node.RunOpts, error) {
	opts := node.RunOpts{
		Image: image.Ref(s.Image), Args: s.Args, Env: s.Env, User: s.User, Cwd: s.Cwd, TTY: s.TTY,
		Runtime: runtime, Annotations: s.Annotations,
		SpecOpts: []oci.SpecOpts{oci.WithAddedCapabilities(s.Capability)},
		Prepare: func(r node.Rootfs) error {
			o.files.root = r
			return s.writeFiles(&o.files)
		},
	}
	if s.Profile != nil {
		opts.Profile = s.Name
	}
	for i, m := range s.Mounts {
		mount := specs.Mount{Destination: m.Path, Type: "tmpfs", Source: "tmpfs", Options: m.Options}
		if m.Type == "volume" {
			dir := filepath.Join(scratch, fmt.Sprint(i))
			if err := os.Mkdir(dir, 0o777); err != nil {
				return opts, err
			}
			// For a container's user that is not root; the umask took some of the mode.
			if err := os.Chmod(dir, 0o777); err != nil {
				return opts, err
			}
			o.files.volumes[m.Path] = dir
			mount.Type, mount.Source, mount.Options = "bind", dir, append([]string{"rbind"}, m.Options...)
		}
		if len(m.Options) == 0 {
			mount.Options = append(mount.Options, "rw")
		}
		opts.Mounts = append(opts.Mounts, mount)
	}
	return opts, nil
}

// drive starts the sessions one after the other, ends the container as told and waits for it.
func (s *Scenario) drive(ctx context.Context, n *node.Node, task *node.Task, o *Observed) error {
	for _, session := range s.Exec {
		if err := task.WaitOutput(ctx, session.After); err != nil {
			return err
		}
		p, err := runSession(ctx, task, session)
		if err != nil {
			return err
		}
		o.sessions = append(o.sessions, p)
	}
	if err := task.WaitOutput(ctx, s.End.After); err != nil {
		return err
	}
	if s.End.Incident {
		if err := waitIncident(ctx, n, task.ID); err != nil {
			return err
		}
	}
	if s.End.Signal != 0 {
		// One that is dead already cannot be signalled; its exit code tells.
		task.Kill(ctx, syscall.Signal(s.End.Signal))
	}
	code, err := task.Wait(ctx)
	o.exit, o.output = code, task.Output()
	return err
}

func waitIncident(ctx context.Context, n *node.Node, container string) error {
	for {
		found, _, err := incident.List(n.IncidentsDir(), incident.Filter{Container: container})
		if err != nil || len(found) > 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no incident of %s: %w", container, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func runSession(ctx context.Context, task *node.Task, s Session) (process, error) {
	e, err := task.Exec(ctx, node.ExecOpts{Args: s.Args, Env: s.Env, TTY: s.TTY})
	if err != nil {
		return process{refused: err.Error()}, nil
	}
	code, err := e.Wait(ctx)
	return process{exit: code, output: e.Output()}, err
}

// writeFiles lays the case's files into volumes or the container's writable layer.
func (s *Scenario) writeFiles(h *hostFiles) error {
	for _, f := range s.Files {
		data, mode := []byte(f.Text), os.FileMode(0o644)
		if f.From != "" {
			from, _, ok := h.root.Find(f.From)
			if !ok {
				return fmt.Errorf("file %s: the image has no %s", f.Path, f.From)
			}
			var err error
			if data, err = os.ReadFile(from); err != nil {
				return err
			}
			mode = 0o755
		}
		if f.Mode != 0 {
			mode = os.FileMode(f.Mode)
		}
		if err := h.mkdirs(filepath.Dir(f.Path)); err != nil {
			return err
		}
		path := h.writable(f.Path)
		if err := os.WriteFile(path, data, mode); err != nil {
			return err
		}
		if err := os.Chmod(path, mode); err != nil { // the umask took some
			return err
		}
	}
	return nil
}

// mkdirs makes a directory of the writable layer or a volume. One that the image has too keeps its mode: the upper
// layer's is the one that counts.
func (h *hostFiles) mkdirs(dir string) error {
	if dir == "/" {
		return nil
	}
	if err := h.mkdirs(filepath.Dir(dir)); err != nil {
		return err
	}
	mode := os.FileMode(0o755)
	if host, _, ok := h.root.Find(dir); ok {
		st, err := os.Stat(host)
		if err != nil {
			return err
		}
		mode = st.Mode()
	}
	path := h.writable(dir)
	if err := os.Mkdir(path, 0o700); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil
		}
		return err
	}
	return os.Chmod(path, mode&(os.ModePerm|os.ModeSticky))
}

// hostFiles finds a container's files on the host.
type hostFiles struct {
	root    node.Rootfs
	volumes map[string]string // host directory by destination
}

func (h *hostFiles) writable(path string) string {
	if dir, rest, ok := h.volume(path); ok {
		return filepath.Join(dir, rest)
	}
	return filepath.Join(h.root.Upper, path)
}

func (h *hostFiles) volume(path string) (dir, rest string, ok bool) {
	for destination, dir := range h.volumes {
		if rest, ok := strings.CutPrefix(path+"/", destination+"/"); ok {
			return dir, rest, true
		}
	}
	return "", "", false
}

// find tells where a path lies, and whether the container changed it. What lies in a volume counts as changed.
func (h *hostFiles) find(path string) (host string, changed, ok bool) {
	if dir, rest, inVolume := h.volume(path); inVolume {
		_, err := os.Lstat(filepath.Join(dir, rest))
		return filepath.Join(dir, rest), true, err == nil
	}
	return h.root.Find(path)
}

// String shows all of it, for a test that failed.
func (o *Observed) String() string {
	var b strings.Builder
	show := func(what string, p process) {
		if p.refused != "" {
			fmt.Fprintf(&b, "%s refused: %s\n", what, p.refused)
			return
		}
		fmt.Fprintf(&b, "%s exit code %d, output:\n%s\n", what, p.exit, strings.TrimRight(p.output, "\n"))
	}
	show("container:", o.process)
	for i, p := range o.sessions {
		show(fmt.Sprintf("exec %d:", i+1), p)
	}
	for _, i := range o.incidents {
		fmt.Fprintf(&b, "incident: %s\n", incident.Cause(&i))
	}
	return b.String()
}
