package install

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
)

// containerdReads are the changes of what it reads.
func containerdReads(c Change) bool { return c.Kind == Containerd && c.Action != Keep }

// containerdUses are those, and of programs that were there before. One that is new can stay: nothing starts it.
func containerdUses(c Change) bool {
	return containerdReads(c) || c.Kind == Program && c.Action != Keep && c.before.Exists
}

// backup copies what is about to be replaced and may have to come back. Copies are named by their content.
func (w *worker) backup(which func(Change) bool) error {
	for _, c := range w.p.Changes {
		if !which(c) || !c.before.Exists {
			continue
		}
		if err := w.r.mkdir(backupDir, 0o700); err != nil {
			return err
		}
		if err := w.copy(c.Path, backupOf(c.before.Digest), 0o600); err != nil {
			return err
		}
		step("backup " + c.Path)
	}
	return nil
}

// backupOf is where a replaced file's copy lies.
func backupOf(digest string) string {
	return path.Join(backupDir, strings.TrimPrefix(digest, "sha256:"))
}

func (w *worker) copy(from, to string, mode os.FileMode) error {
	real, err := w.r.real(from)
	if err != nil {
		return err
	}
	f, err := os.Open(real)
	if err != nil {
		return err
	}
	defer f.Close()
	return w.r.write(to, f, mode)
}

// takeBack puts back what this run has changed of what containerd reads and starts. containerd was not restarted since.
func (w *worker) takeBack(cause error) (bool, error) {
	if !slices.ContainsFunc(w.p.Changes, containerdUses) {
		return false, cause
	}
	w.say("going back: " + cause.Error())
	err := w.putBack(containerdUses)
	if err == nil {
		w.m.Restart = w.p.last.Restart
		err = errors.Join(w.save(), w.dropBackups())
	}
	return err == nil, errors.Join(cause, err)
}

// putBack makes files what they were when the plan was made. Those that were not there go first: that needs no room on
// a disk that is full.
func (w *worker) putBack(which func(Change) bool) error {
	var errs []error
	for _, there := range []bool{false, true} {
		for _, c := range w.p.Changes {
			if !which(c) || c.before.Exists != there {
				continue
			}
			if err := w.undo(c); err != nil {
				errs = append(errs, fmt.Errorf("put back %s: %w", c.Path, err))
			}
		}
	}
	if len(errs) == 0 && w.p.last.Version != "" {
		w.m.Version = w.p.last.Version
	}
	return errors.Join(errs...)
}

// undo makes one file what it was, and what the manifest says of it.
func (w *worker) undo(c Change) error {
	now, err := w.r.read(c.Path, Program)
	if err != nil {
		return err
	}
	if now.Digest != c.before.Digest {
		if c.before.Exists {
			err = w.copy(backupOf(c.before.Digest), c.Path, c.before.Mode)
		} else {
			err = w.r.remove(c.Path, c.Kind)
		}
		if err != nil {
			return err
		}
		w.say("put back " + c.Path)
		step("put back " + c.Path)
	}
	w.m.restate(c.Path, w.p.last.entry(c.Path))
	return nil
}

// rollBack puts back what containerd read and started when it was last seen to work, and restarts it once more.
func (w *worker) rollBack(ctx context.Context, cause error) error {
	w.say("going back: " + cause.Error())
	err := w.putBack(containerdUses)
	for i := range w.m.Files { // of earlier runs that could not see it work
		e := &w.m.Files[i]
		if e.Kind != Containerd || !e.Unverified {
			continue
		}
		if failed := w.goBack(e); failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		w.say("put back " + e.Path)
		e.Digest, e.Next, e.Previous, e.Unverified = e.Previous, "", "", false
	}
	w.m.Files = slices.DeleteFunc(w.m.Files, func(e Entry) bool { return e.Kind == Containerd && e.Digest == "" })
	w.m.Restart = err != nil
	err = errors.Join(err, w.save())
	if err == nil {
		err = w.dropBackups()
	}
	if _, failed := w.restart(ctx, false); failed != nil {
		err = errors.Join(err, fmt.Errorf("containerd does not come up with its former configuration either: %w", failed))
	} else if err == nil {
		err = errors.New("what containerd reads was put back, and it works again")
	}
	return errors.Join(cause, err)
}

func (w *worker) goBack(e *Entry) error {
	if e.Previous == "" {
		return w.r.remove(e.Path, e.Kind)
	}
	f, err := w.r.read(e.Path, e.Kind)
	if err != nil {
		return err
	}
	return w.copy(backupOf(e.Previous), e.Path, f.Mode)
}

// dropBackups removes the copies that nothing refers to any more.
func (w *worker) dropBackups() error {
	real, err := w.r.real(backupDir)
	if err != nil {
		return err
	}
	names, err := os.ReadDir(real)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	left := 0
	for _, n := range names {
		needed := slices.ContainsFunc(w.m.Files, func(e Entry) bool {
			at := path.Join(backupDir, n.Name())
			return e.Original != "" && backupOf(e.Original) == at || e.Previous != "" && backupOf(e.Previous) == at
		})
		if needed {
			left++
			continue
		}
		if err := w.r.remove(path.Join(backupDir, n.Name()), Config); err != nil {
			return err
		}
	}
	if left > 0 {
		return nil
	}
	return w.r.rmdir(backupDir)
}
