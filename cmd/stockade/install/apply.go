package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Result says what was done.
type Result struct {
	Restarted  bool   `json:"restarted"`
	Verified   bool   `json:"verified"`
	RolledBack bool   `json:"rolledBack"`
	Pending    bool   `json:"restartPending"` // containerd is still to be restarted, by somebody else
	Containerd string `json:"containerd,omitempty"`
}

// step is called between any two changes of the node: tests end the process there.
var step = func(string) {}

// worker does one plan.
type worker struct {
	o   Options
	r   root
	p   *Plan
	say func(string)
	m   Manifest
}

// Apply does what p says. say is told of each step.
func Apply(ctx context.Context, o Options, p *Plan, say func(string)) (Result, error) {
	w := &worker{o: o, r: root(o.Root), p: p, say: say, m: p.next}
	if p.Empty() {
		return Result{}, nil
	}
	// The manifest's own folder first: what else is made stands in the manifest before it is.
	inState := func(d string) bool { return stateDir == d || strings.HasPrefix(stateDir, d+"/") }
	if err := w.mkdirs(inState); err != nil {
		return Result{}, err
	}
	if err := w.r.mkdir(stateDir, 0o700); err != nil { // kubelet may have made it, less private
		return Result{}, err
	}
	lock, err := w.r.lock(stateDir)
	if err != nil {
		return Result{}, err
	}
	defer lock.Close()
	if err := w.unchanged(); err != nil {
		return Result{}, err
	}
	if err := w.save(); err != nil {
		return Result{}, err
	}
	res, err := w.work(ctx, func(d string) bool { return !inState(d) })
	if err != nil && !res.Restarted {
		res.RolledBack, err = w.takeBack(err)
	}
	return res, err
}

// work does what the manifest says by now.
func (w *worker) work(ctx context.Context, dirs func(string) bool) (Result, error) {
	if err := w.backup(containerdUses); err != nil {
		return Result{}, err
	}
	if err := w.mkdirs(dirs); err != nil {
		return Result{}, err
	}
	if w.p.stop { // while its unit is there: a run that was killed before that is removed does it again
		if err := w.stopPlugin(ctx); err != nil {
			return Result{}, err
		}
	}
	for _, c := range w.p.Changes {
		if err := w.change(c); err != nil {
			return Result{}, err
		}
	}
	if err := w.raise(); err != nil {
		return Result{}, err
	}
	w.settle()
	if err := w.save(); err != nil {
		return Result{}, err
	}
	return w.activate(ctx)
}

func (w *worker) mkdirs(which func(string) bool) error {
	for _, d := range w.p.Dirs {
		if !which(d) {
			continue
		}
		mode := w.p.modes[d]
		if mode == 0 {
			mode = 0o755
		}
		if err := w.r.mkdir(d, mode); err != nil {
			return err
		}
		step("mkdir " + d)
	}
	return nil
}

// unchanged makes sure that the plan was made from what is there: nobody else has installed in between.
func (w *worker) unchanged() error {
	for _, c := range w.p.Changes {
		if c.Kind == Data {
			continue // what Stockade itself writes all the time
		}
		kind := c.Kind
		if c.source != "" {
			kind = Program
		}
		now, err := w.r.read(c.Path, kind)
		if err != nil {
			return err
		}
		if now.Digest != c.before.Digest {
			return fmt.Errorf("%s has changed since the plan was made: nothing was done, run it again", c.Path)
		}
	}
	return nil
}

func (w *worker) save() error {
	if err := w.r.write(manifestPath, bytes.NewReader(w.m.bytes()), 0o600); err != nil {
		return err
	}
	step("manifest")
	return nil
}

// change does one.
func (w *worker) change(c Change) error {
	if c.Action == Keep {
		return nil
	}
	var err error
	switch {
	case c.Action == Remove:
		err = w.r.remove(c.Path, c.Kind)
	case c.Kind == Link:
		err = w.r.link(c.Path, string(c.data))
	case c.source != "":
		err = w.program(c)
	default:
		mode := c.Mode
		if c.before.Exists && c.Kind == Containerd {
			mode = c.before.Mode // containerd's own file stays as private as it was
		}
		err = w.r.write(c.Path, bytes.NewReader(c.data), mode)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", c.Action, c.Path, err)
	}
	w.say(string(c.Action) + "d " + c.Path)
	step(string(c.Action) + " " + c.Path)
	return nil
}

// program copies one, and checks on the way that it still is the one that was planned.
func (w *worker) program(c Change) error {
	f, err := os.Open(c.source)
	if err != nil {
		return err
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	if digest(data) != c.digest {
		return fmt.Errorf("%s has changed meanwhile", c.source)
	}
	return w.r.write(c.Path, bytes.NewReader(data), c.Mode)
}

// raise sets the sysctl now; the file sets it at boot.
func (w *worker) raise() error {
	if w.p.Sysctl == nil {
		return nil
	}
	if err := w.r.sysctl(w.p.Sysctl.After); err != nil {
		w.say(fmt.Sprintf("fs.fanotify.max_user_groups stays at %d: %v", w.p.Sysctl.Before, err))
		return nil // the shim raises it as well, and /etc/sysctl.d at the next boot
	}
	w.say(fmt.Sprintf("fs.fanotify.max_user_groups = %d (was %d)", w.p.Sysctl.After, w.p.Sysctl.Before))
	step("sysctl")
	return nil
}

// sysctl writes the value in place: it is no file that could be renamed over.
func (r root) sysctl(v int) error {
	real, err := r.real(sysctlValue)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(real, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strconv.Itoa(v) + "\n")
	return errors.Join(err, f.Close())
}

// settle writes down that everything has been put where it belongs.
func (w *worker) settle() {
	removed := func(e Entry) bool {
		return slices.ContainsFunc(w.p.Changes, func(c Change) bool { return c.Path == e.Path && c.Action == Remove })
	}
	w.m.Files = slices.DeleteFunc(w.m.Files, removed)
	for i := range w.m.Files {
		if e := &w.m.Files[i]; e.Next != "" {
			e.Digest, e.Next = e.Next, ""
		}
	}
}

// activate makes containerd and systemd take notice, and goes back where containerd does not like it.
func (w *worker) activate(ctx context.Context) (Result, error) {
	var res Result
	if w.p.unit {
		if err := w.systemctl(ctx, "daemon-reload"); err != nil {
			return res, err
		}
	}
	if !w.p.Restart {
		return w.carryOn(ctx)
	}
	if w.o.NoRestart {
		res.Pending = true
		w.say("containerd has to be restarted before pods can use the runtime class (--no-restart)")
		return res, nil
	}
	var err error
	res.Containerd, err = w.restart(ctx, true)
	res.Restarted = true
	if err != nil {
		err = fmt.Errorf("containerd does not work with the new configuration: %w", err)
	} else {
		err = w.restartPlugin(ctx)
	}
	if err != nil {
		res.RolledBack = true
		return res, w.rollBack(ctx, err)
	}
	res.Verified = true
	w.verified()
	return res, nil
}

// carryOn leaves containerd running. It starts the shim anew for each pod: what was put in its place must work.
func (w *worker) carryOn(ctx context.Context) (Result, error) {
	var res Result
	if slices.ContainsFunc(w.p.Changes, startsWithPods) && !w.o.NoRestart {
		var err error
		if res.Containerd, err = w.daemon().ready(ctx, true); err != nil {
			return res, fmt.Errorf("containerd does not work with the new programs: %w", err)
		}
		res.Verified = true
	}
	if err := w.restartPlugin(ctx); err != nil {
		return res, err
	}
	w.verified()
	return res, nil
}

// startsWithPods are the changes of the programs that a new pod starts.
func startsWithPods(c Change) bool {
	return c.Kind == Program && c.Action != Keep && slices.Contains([]string{shimProgram, guardProgram}, path.Base(c.Path))
}

// verified writes down that containerd works with what is installed. Where that cannot be written all is done
// nevertheless: the next run restarts containerd once more, to see it.
func (w *worker) verified() {
	w.m.Restart, w.m.Reload = false, false
	for i := range w.m.Files {
		w.m.Files[i].Unverified, w.m.Files[i].Previous = false, ""
	}
	if err := errors.Join(w.save(), w.dropBackups()); err != nil {
		w.say("all is done, but this could not be written down: " + err.Error())
	}
}

func (w *worker) restartPlugin(ctx context.Context) error {
	if !w.p.unit || w.p.nri != NRIUnit {
		return nil
	}
	return w.systemctl(ctx, "restart", path.Base(unitFile))
}

// stopPlugin ends the plugin that systemd runs, now and at boot: it holds a lock that the next plugin waits for.
func (w *worker) stopPlugin(ctx context.Context) error {
	return w.systemctl(ctx, "disable", "--now", path.Base(unitFile))
}
