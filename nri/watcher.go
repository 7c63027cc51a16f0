package nri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/stockade-dev/stockade/profiles/selection/nodekey"
	"github.com/stockade-dev/stockade/profiles/store"
)

// look is how often a Watcher looks whether anything has changed. Shims read the
// store themselves, so what is older than this is a choice that they correct or
// refuse.
const look = time.Second

// Watcher is a Source that reads the node's store and key whenever they change.
// When the store cannot be read, the last set that could be stays in use and
// View.Err says so.
type Watcher struct {
	roots store.Roots
	key   string
	// OnChange is told the names of profiles that are new, changed or gone; none
	// when nobody knows what has changed: the store can be used for the first
	// time, or again. It must not wait. Set it before Run.
	OnChange func(names []string)

	view atomic.Pointer[View]

	mu      sync.Mutex        // one refresh at a time
	seen    string            // of the files, as they were when read; guarded by mu
	digests map[string]string // by name; guarded by mu
	changed atomic.Pointer[time.Time]
}

// NewWatcher reads the store and the key, which it makes if there is none. arch
// is in Go's words, kernel is the node's release.
func NewWatcher(roots store.Roots, key, arch, kernel string) *Watcher {
	w := &Watcher{roots: roots, key: key, OnChange: func([]string) {}}
	w.view.Store(&View{Arch: arch, Kernel: kernel, Err: errors.New("the profile store has not been read yet")})
	w.Refresh()
	return w
}

// View is what holds now.
func (w *Watcher) View() *View { return w.view.Load() }

// Profiles tells how many profiles the set holds, and since when it is as it is.
func (w *Watcher) Profiles() (int, time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if t := w.changed.Load(); t != nil {
		return len(w.digests), *t
	}
	return len(w.digests), time.Time{}
}

// Run refreshes until ctx ends.
func (w *Watcher) Run(ctx context.Context) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	// What runs may be older than the first set: it may have changed while no
	// Watcher ran.
	before, names := &View{}, []string(nil)
	for {
		now := w.View()
		if len(names) > 0 || now.mends(before) {
			w.OnChange(names)
		}
		before = now
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		names = w.Refresh()
	}
}

// mends says whether v can give containers profiles that before could not. That
// a problem comes, or that one of several stays, is no reason to choose again.
func (v *View) mends(before *View) bool {
	return v != before && v.usable() && (!before.usable() || before.Err != nil && v.Err == nil)
}

// usable says whether profiles can be chosen by their match.
func (v *View) usable() bool {
	if v.Set == nil {
		return false
	}
	_, err := v.Set.Candidates()
	return err == nil
}

// Refresh reads again what has changed and returns the names of the profiles
// that did.
func (w *Watcher) Refresh() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	// The signature is taken first: what changes while it is read is read again.
	seen := w.signature()
	if seen == w.seen {
		return nil
	}
	w.seen = seen
	old := w.view.Load()
	next := &View{Set: old.Set, Arch: old.Arch, Kernel: old.Kernel}
	var errs []error
	st, err := store.OpenRoots(w.roots)
	if err != nil {
		errs = append(errs, err)
	} else {
		next.Set = st
		errs = append(errs, st.Problems()...)
	}
	if next.Key, err = nodekey.LoadOrMake(w.key); err != nil {
		errs = append(errs, err)
	}
	next.Err = errors.Join(errs...)
	w.view.Store(next)
	if next.Err != nil && (old.Err == nil || old.Err.Error() != next.Err.Error()) {
		logrus.WithError(next.Err).Error("stockade-nri: the store or the key is not as it should be")
	}
	if st == nil {
		return nil
	}
	return w.compare(st)
}

// compare returns the names that stand for something else than before.
func (w *Watcher) compare(st *store.Store) []string {
	first := w.digests == nil
	now := map[string]string{}
	for _, name := range st.Names() {
		if p, err := st.Get(name); err == nil {
			now[name] = p.Digest()
		}
	}
	var changed []string
	for name, digest := range now {
		if w.digests[name] != digest {
			changed = append(changed, name)
		}
	}
	for name := range w.digests {
		if _, ok := now[name]; !ok {
			changed = append(changed, name)
		}
	}
	w.digests = now
	if first || len(changed) > 0 {
		t := time.Now()
		w.changed.Store(&t)
	}
	if first {
		return nil // nothing has changed for anybody yet
	}
	slices.Sort(changed)
	return changed
}

// signature tells states of the files apart: names, and what stat(2) says of
// them, links followed. Reading nothing but that, it costs little every second.
func (w *Watcher) signature() string {
	var b strings.Builder
	for _, dir := range []string{w.roots.Profiles, w.roots.Cluster, w.roots.LastGood} {
		if dir == "" {
			continue
		}
		entries, err := os.ReadDir(dir)
		fmt.Fprintf(&b, "%s %v\n", dir, err)
		stat(&b, dir)
		for _, e := range entries {
			stat(&b, filepath.Join(dir, e.Name()))
		}
	}
	stat(&b, w.key)
	stat(&b, filepath.Dir(w.key))
	return b.String()
}

func stat(b *strings.Builder, path string) {
	info, err := os.Stat(path)
	if err != nil {
		fmt.Fprintf(b, "%s %v\n", path, err)
		return
	}
	fmt.Fprintf(b, "%s %s\n", path, identity(info))
}
