package shim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/core/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/sirupsen/logrus"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/bundle"
	"github.com/stockade-dev/stockade/shim/enforce"
	"github.com/stockade-dev/stockade/shim/notify"
	"github.com/stockade-dev/stockade/shim/state"
)

// fence is everything that stands around one container.
type fence struct {
	engine *engine
	task   task
	plan   *profiles.Plan // with which the container is made; see now
	spec   *specs.Spec    // as containerd wrote it, then as edited
	bundle string

	reach       string // how it can reach Stockade itself, "" if it cannot
	termination string // the host's file for the termination message, "" if there is none

	mounted   bool // we have mounted the root, so we unmount it
	rootfs    string
	image     *bundle.Image
	sockets   string // folder of the listener's socket
	listener  *notify.Listener
	armed     chan struct{} // closed when container is there
	container *enforce.Container
	armor     *wearer // nil: no AppArmor
	watched   bool
	recorded  bool
	since     time.Time
	pid       int
	live      live
	told      sync.Map // processes of which it was told that they ended with SIGSYS, by their id (an exec's, or the container's)
	sessions  sync.Map // of session, by the exec's id
}

// mountRoot mounts the container's root, as the runc shim would: the plan is held against its files before the
// runtime sees the specification.
func (f *fence) mountRoot(rootfs []*types.Mount) (err error) {
	if f.image, err = bundle.NewImage(rootfs); err != nil {
		return err
	}
	f.rootfs = f.spec.Root.Path
	if !filepath.IsAbs(f.rootfs) {
		f.rootfs = filepath.Join(f.bundle, f.rootfs)
	}
	if len(rootfs) == 0 {
		return nil
	}
	f.rootfs = filepath.Join(f.bundle, "rootfs")
	if err := os.Mkdir(f.rootfs, 0o711); err != nil && !os.IsExist(err) {
		return err
	}
	mounts := make([]mount.Mount, 0, len(rootfs))
	for _, m := range rootfs {
		mounts = append(mounts, mount.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	f.mounted = true
	if err := mount.All(mounts, f.rootfs); err != nil {
		return fmt.Errorf("mount the container's root: %w", err)
	}
	return nil
}

// prepare edits the bundle and opens the socket at which the runtime will hand over its seccomp listener.
func (f *fence) prepare() (err error) {
	f.termination = terminationLog(f.spec, &f.task) // before sealing makes mounts read-only
	if f.sockets, err = socketDir(f.engine.cfg.State, f.task.namespace, f.task.id); err != nil {
		return err
	}
	socket := filepath.Join(f.sockets, "s")
	if f.plan.Seccomp != nil {
		if f.listener, err = notify.Listen(socket); err != nil {
			return err
		}
		f.listener.OnProcess = f.process
		go f.serve()
	}
	if err := bundle.Apply(f.spec, f.plan, f.rootfs, socket, f.task.id); err != nil {
		return fmt.Errorf("%w: profile %s does not fit this container: %w", errRefused, f.plan.Name, err)
	}
	if err := f.apart(); err != nil {
		return err
	}
	if err := f.wear(); err != nil {
		return err
	}
	return bundle.Write(f.bundle, f.spec)
}

// wear loads the container's AppArmor profile, if its plan has one.
func (f *fence) wear() (err error) {
	if f.plan.AppArmor == nil {
		return nil
	}
	if f.armor, err = f.engine.armor.put(f); err != nil {
		return fmt.Errorf("%w: AppArmor: %w", errRefused, err)
	}
	f.spec.Process.ApparmorProfile = f.armor.name
	return nil
}

// serve answers the container's undeclared system calls until the listener is closed.
func (f *fence) serve() {
	if err := f.listener.Serve(f.syscall, f.fault); err != nil {
		logrus.WithError(err).WithField("id", f.task.id).Error("stockade: seccomp listener")
		f.kill()
	}
}

// arm puts the parked container under watch. Nothing of it has run; when arm fails nothing of it will.
func (f *fence) arm(ctx context.Context, pid int) (err error) {
	if f.listener != nil {
		ctx, cancel := context.WithTimeout(ctx, time.Minute) // it was sent already; a busy machine takes its time
		defer cancel()
		select {
		case <-f.listener.Init():
		case <-ctx.Done():
			return errors.New("the runtime has handed over no seccomp listener")
		}
	}
	report := func(v enforce.Violation) { f.engine.report.put(f, v) }
	f.container, err = f.engine.loop.Add(enforce.Config{
		ID: f.task.id, Init: pid, Plan: f.plan, Image: f.image, Tmpfs: f.tmpfs(), Report: report,
	})
	if err != nil {
		return err
	}
	close(f.armed)
	if f.armor != nil {
		if err := f.engine.armor.intact(f.armor); err != nil { // from here on who changes it has the container killed
			return err
		}
	}
	if err := f.engine.guard.Watch(f.key(), f.container.Cgroup().Spec()); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	f.watched = true
	f.since, f.pid = time.Now(), pid
	f.live.Lock()
	f.recordLocked()
	f.live.Unlock()
	return f.engine.healthy()
}

// verify looks after a process that was just started; 0 is none.
func (f *fence) verify(pid int) {
	if f.armor != nil && pid > 0 {
		go f.engine.armor.verify(f.armor, pid)
	}
}

// now is the plan in force.
func (f *fence) now() *profiles.Plan {
	if c := f.enforced(); c != nil {
		return c.Plan()
	}
	return f.plan
}

// key names the container to the guard.
func (f *fence) key() string { return f.task.namespace + "/" + f.task.id }

func (f *fence) tmpfs() []string {
	var dests []string
	for _, m := range f.spec.Mounts {
		if m.Type == "tmpfs" {
			dests = append(dests, filepath.Clean(m.Destination))
		}
	}
	return dests
}

// recordLocked writes what `stockade ps` shows. That it cannot be written stops nothing.
func (f *fence) recordLocked() {
	plan := f.now()
	guarantees := make([]state.Guarantee, 0, len(plan.Guarantees))
	for _, g := range plan.Guarantees {
		guarantees = append(guarantees, state.Guarantee{Kind: g.Kind, Level: g.Level.String(), By: g.By})
	}
	f.recorded = true
	err := state.Write(f.engine.cfg.State, state.Task{
		ID: f.task.id, Namespace: f.task.namespace, Pod: f.task.pod, PodNamespace: f.task.request.Facts.Namespace,
		Image: f.task.request.Facts.Image, Profile: plan.Name, Digest: plan.Digest, Mode: plan.Mode.String(),
		OnViolation: plan.OnViolation.String(), InitPID: f.pid, Cgroup: f.container.Cgroup().Path(),
		Guarantees: guarantees, Since: f.since, Control: f.engine.controlPath(), Waits: len(f.live.waits), Failed: f.live.failed,
	})
	if err != nil {
		logrus.WithError(err).Warn("stockade: `stockade ps` will not show this container")
	}
}

// release takes the fence down, from whatever stage it was put up to. The container has ended or was never started.
func (f *fence) release() {
	if f.armor != nil {
		f.engine.armor.drop(f.armor)
	}
	if f.container != nil {
		f.engine.loop.Remove(f.container)
	}
	if f.watched {
		_ = f.engine.guard.Forget(f.key())
	}
	if f.listener != nil {
		_ = f.listener.Close()
	}
	if f.sockets != "" {
		_ = os.RemoveAll(f.sockets)
	}
	if f.image != nil {
		f.image.Close()
	}
	if f.mounted {
		if err := unmountRoot(f.bundle); err != nil {
			logrus.WithError(err).Warn("stockade: unmount the container's root")
		}
	}
	f.live.Lock()
	defer f.live.Unlock()
	f.live.ended = true
	if f.recorded {
		_ = state.Remove(f.engine.cfg.State, f.task.namespace, f.task.id)
	}
}
