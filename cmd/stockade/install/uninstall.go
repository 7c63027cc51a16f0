package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Removal says how to take Stockade away.
type Removal struct {
	Root           string
	RestartCommand string
	NoRestart      bool
	Force          bool // although protected containers run
	Purge          bool // incidents, profiles and changed configuration too
	Address        string
	Wait           time.Duration
}

// ErrInUse is what [GatherRemoval] returns while protected containers run.
var ErrInUse = errors.New("protected containers run")

// own are folders that nobody but Stockade uses: its data. Those that an admin may want to keep are not among them.
var own = []string{runDir, stateDir + "/selection.key", stateDir + "/cluster.d", stateDir + "/last-good"}

// evidence are folders whose content stays unless --purge.
var evidence = []string{stateDir + "/incidents", etcDir + "/profiles.d"}

// Data is a folder or file that Stockade itself made while it ran.
const Data Kind = "data"

// GatherRemoval reads the node and returns what Uninstall would do. It changes nothing. A node without a manifest has
// nothing that could be removed: the plan is empty.
func GatherRemoval(ctx context.Context, o Removal) (*Plan, error) {
	r := root(o.Root)
	m, err := r.manifest()
	if err != nil {
		return nil, err
	}
	p := &Plan{Changes: []Change{}, Dirs: []string{}, Notes: []string{}, last: m, next: m.clone(), nri: m.Options.NRI}
	if m.Format == 0 {
		p.Notes = append(p.Notes, "nothing is installed here: there is no "+manifestPath)
		return p, nil
	}
	if err := r.inUse(ctx, o, m, p); err != nil {
		return p, err
	}
	for _, e := range m.Files {
		if err := r.planRemoval(o, m, e, p); err != nil {
			return nil, err
		}
	}
	for _, c := range p.Changes {
		p.Restart = p.Restart || c.Kind == Containerd && c.Action != Keep
		p.unit = p.unit || c.Path == unitFile && c.Action == Remove
	}
	p.stop = p.unit
	p.Restart = p.Restart || m.Restart
	if err := r.planData(o, p); err != nil {
		return nil, err
	}
	if s := m.Sysctl; s != nil && r.groups() == s.After {
		p.Sysctl = &Sysctl{Before: s.After, After: s.Before}
	}
	p.Dirs = append(p.Dirs, m.Dirs...)
	for _, d := range []string{etcDir, etcDir + "/profiles.d", stateDir, backupDir} {
		if !slices.Contains(p.Dirs, d) { // made before the manifest was, or by kubelet for the DaemonSet's volumes
			p.Dirs = append(p.Dirs, d)
		}
	}
	slices.Sort(p.Dirs)
	return p, nil
}

// inUse looks for protected containers. containerd knows; where it does not answer, files of shims are all there is.
func (r root) inUse(ctx context.Context, o Removal, m Manifest, p *Plan) error {
	w := &worker{o: Options{Root: o.Root, Address: o.Address}, r: r, m: m}
	running, err := daemon{address: w.address()}.protected(ctx)
	if err != nil {
		p.Notes = append(p.Notes, fmt.Sprintf("containerd does not answer (%v): the shims' own files are believed", err))
		running, err = r.states()
	}
	if err != nil {
		return err
	}
	if len(running) == 0 {
		return nil
	}
	if o.Force {
		p.Notes = append(p.Notes, fmt.Sprintf("these protected containers go on, and cannot be started again: %s", strings.Join(running, ", ")))
		return nil
	}
	return fmt.Errorf("%w: %s (--force takes Stockade away all the same)", ErrInUse, strings.Join(running, ", "))
}

// states lists what the files of `stockade ps` name.
func (r root) states() ([]string, error) {
	real, err := r.real(runDir)
	if err != nil {
		return nil, err
	}
	names, err := filepath.Glob(filepath.Join(real, "*.json"))
	for i, n := range names {
		names[i] = strings.TrimSuffix(filepath.Base(n), ".json")
	}
	return names, err
}

// planRemoval decides about one file.
func (r root) planRemoval(o Removal, m Manifest, e Entry, p *Plan) error {
	kind := e.Kind
	if path.Dir(e.Path) == nriPluginDir {
		kind = Program
	}
	f, err := r.read(e.Path, kind)
	if err != nil || !f.Exists {
		return err
	}
	c := Change{Path: e.Path, Action: Remove, Kind: e.Kind, Mode: f.Mode, digest: "", before: f}
	switch {
	case e.Path == m.Options.ContainerdConfig:
		if err := r.restore(m, e, &c); err != nil {
			return err
		}
	case !e.wrote(f.Digest) && !o.Purge:
		c.Action, c.Why = Keep, "changed since it was installed (--purge removes it)"
	case e.Original != "" && kind != Program:
		// Somebody's own file that --overwrite replaced.
		if err := r.restore(m, e, &c); err != nil {
			return err
		}
	}
	if kind != Program && kind != Link && c.Action != Keep {
		c.Diff = unified(c.Path, f, c.data)
	}
	if c.Action == Update && c.digest == f.Digest {
		return nil
	}
	p.Changes = append(p.Changes, c)
	return nil
}

// restore plans a file of containerd to become what it was: the very bytes if nobody else has changed it, else without
// our lines.
func (r root) restore(m Manifest, e Entry, c *Change) error {
	switch {
	case !e.Shared && e.wrote(c.before.Digest) && e.Original == "":
		c.Why = "was not there before"
		return nil
	case !e.Shared && e.wrote(c.before.Digest):
		old, err := r.read(backupOf(e.Original), Config)
		if err != nil {
			return err
		}
		if old.Digest == e.Original {
			c.Action, c.data, c.Why = Update, old.Data, "as it was before"
			break
		}
		fallthrough
	default:
		conf, err := parseConf(e.Path, c.before.Data)
		if err != nil {
			return err
		}
		if c.data, err = undoEdits(conf, m.Options.Import); err != nil {
			return err
		}
		c.Action, c.Why = Update, "others have changed it since: our lines go"
	}
	c.digest = digest(c.data)
	return nil
}

// planData: what Stockade wrote while it ran.
func (r root) planData(o Removal, p *Plan) error {
	for _, d := range append(slices.Clone(own), evidence...) {
		n, err := r.count(d)
		if err != nil {
			return err
		}
		switch {
		case n < 0 || n == 0 && d == etcDir+"/profiles.d":
		case n > 0 && slices.Contains(evidence, d) && !o.Purge:
			p.Changes = append(p.Changes, Change{Path: d, Action: Keep, Kind: Data, Why: fmt.Sprintf("holds %d files (--purge removes them)", n)})
		default:
			p.Changes = append(p.Changes, Change{Path: d, Action: Remove, Kind: Data})
		}
	}
	return nil
}

// count is how many files a folder holds, -1 when it is not there.
func (r root) count(p string) (int, error) {
	real, err := r.real(p)
	if err != nil {
		return 0, err
	}
	n := 0
	err = filepath.WalkDir(real, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			n++
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return -1, nil
	}
	return n, err
}

// Uninstall does what p says: containerd forgets the handler first, the manifest goes last.
func Uninstall(ctx context.Context, o Removal, p *Plan, say func(string)) (Result, error) {
	var res Result
	if p.next.Format == 0 {
		// An install that was killed at its very beginning may have left the folder.
		return res, root(o.Root).rmdir(stateDir)
	}
	m := p.next
	w := &worker{
		o: Options{Root: o.Root, Address: o.Address, RestartCommand: o.RestartCommand, NoRestart: o.NoRestart, Unit: m.Options.Unit, Wait: o.Wait},
		r: root(o.Root), p: p, say: say, m: m,
	}
	lock, err := w.r.lock(stateDir)
	if err != nil {
		return res, err
	}
	defer lock.Close()
	if err := w.unchanged(); err != nil {
		return res, err
	}
	w.m.Restart = p.Restart
	if err := w.save(); err != nil {
		return res, err
	}
	if err := w.forget(ctx, o, &res); err != nil {
		return res, err
	}
	return res, w.takeAllAway(ctx)
}

// takeAllAway removes the rest. What systemd cannot do is said: there may be none any more.
func (w *worker) takeAllAway(ctx context.Context) error {
	if w.p.stop {
		if err := w.stopPlugin(ctx); err != nil {
			w.say(err.Error())
		}
	}
	for _, c := range w.p.Changes {
		if c.Kind == Containerd || c.Path == w.m.Options.ContainerdConfig {
			continue
		}
		if err := w.takeAway(c); err != nil {
			return err
		}
	}
	if w.p.unit {
		if err := w.systemctl(ctx, "daemon-reload"); err != nil {
			w.say(err.Error())
		}
	}
	return w.finish()
}

// forget makes containerd know nothing of Stockade. If it does not come up then, or protected containers run after all,
// its files are put back: nothing else has been removed yet.
func (w *worker) forget(ctx context.Context, o Removal, res *Result) error {
	err := w.dropHandler(ctx, res)
	if err == nil {
		err = w.unused(ctx, o)
	}
	if err != nil {
		err = errors.Join(err, w.remember(ctx, res, err))
	}
	return err
}

func (w *worker) dropHandler(ctx context.Context, res *Result) error {
	if err := w.backup(containerdReads); err != nil {
		return err
	}
	for _, c := range w.p.Changes {
		if !containerdReads(c) {
			continue
		}
		if err := w.change(c); err != nil {
			return err
		}
	}
	if !w.p.Restart {
		return nil
	}
	if w.o.NoRestart {
		res.Pending = true
		w.say("containerd has to be restarted (--no-restart): until then pods of the runtime class fail to start")
		return nil
	}
	var err error
	res.Containerd, err = w.restart(ctx, false)
	res.Restarted, res.Verified = true, err == nil
	if err != nil {
		return fmt.Errorf("containerd does not come up without Stockade: %w", err)
	}
	return nil
}

// unused looks once more, now that no pod can start any more: one may have been started since the plan was made. (ctr
// needs no handler: until the shim is removed, root can start a container with it.)
func (w *worker) unused(ctx context.Context, o Removal) error {
	if o.Force {
		return nil
	}
	var late Plan
	err := w.r.inUse(ctx, o, w.m, &late)
	for _, n := range late.Notes {
		w.say(n)
	}
	return err
}

// remember undoes what forget has done.
func (w *worker) remember(ctx context.Context, res *Result, cause error) error {
	w.say("going back: " + cause.Error())
	err := w.putBack(containerdReads)
	w.m.Restart = w.p.last.Restart
	if res.Restarted {
		if _, failed := w.restart(ctx, false); failed != nil {
			w.m.Restart = true
			err = errors.Join(err, fmt.Errorf("containerd does not come up with Stockade either: %w", failed))
		}
	}
	res.Pending, res.Verified, res.RolledBack = false, false, err == nil
	if err == nil {
		err = w.dropBackups()
	}
	return errors.Join(err, w.save())
}

// takeAway removes a file, or a folder of Stockade's own data.
func (w *worker) takeAway(c Change) error {
	if c.Kind != Data || c.Action == Keep {
		return w.change(c)
	}
	real, err := w.r.real(c.Path)
	if err != nil {
		return err
	}
	if err := os.RemoveAll(real); err != nil {
		return err
	}
	w.say("removed " + c.Path)
	step("remove " + c.Path)
	return nil
}

// finish removes the manifest and the folders that are empty then.
func (w *worker) finish() error {
	if s := w.p.Sysctl; s != nil {
		if err := w.r.sysctl(s.After); err != nil {
			w.say(fmt.Sprintf("fs.fanotify.max_user_groups stays at %d: %v", s.Before, err))
		}
	}
	for i := range w.m.Files {
		w.m.Files[i].Original, w.m.Files[i].Previous = "", ""
	}
	if err := w.dropBackups(); err != nil {
		return err
	}
	step("manifest")
	if err := w.r.remove(manifestPath, Config); err != nil {
		return err
	}
	for _, d := range slices.Backward(w.p.Dirs) {
		if err := w.r.rmdir(d); err != nil {
			return err
		}
	}
	return nil
}
