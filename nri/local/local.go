// Package local keeps the last good copies of the node's own profiles.
//
// A [Keeper] watches the folder of profiles and lets package store decide what
// is good: it copies each good file, forgets the copies of files that were
// deleted, marks files that came and were bad from the first, and says in the log
// what is bad for as long as it is. It changes nothing in the folder itself, and
// nothing depends on it but what stands in for a bad file.
//
// Files are told apart by their content: an event only means "look". Where
// inotify cannot be had, and where it is silent (a folder that is mounted over,
// or made again), the folder is looked at every ten seconds.
package local

import (
	"context"
	"fmt"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/sirupsen/logrus"

	"github.com/stockade-dev/stockade/profiles/store"
)

// Config is what a Keeper needs.
type Config struct {
	Roots   store.Roots // LastGood is written
	Log     logrus.FieldLogger
	Changed func(files []string) // called with the names of files that are good and new, or gone, or left out; may be nil
}

// Keeper runs until its context ends.
type Keeper struct {
	cfg    Config
	keeper *store.Keeper
	told   map[string]string // what was said of bad files, by path
	failed string            // what was said of the folder
}

// New makes the folder of copies and looks at the profiles for the first time.
func New(cfg Config) (*Keeper, error) {
	keeper, err := store.NewKeeper(cfg.Roots)
	if err != nil {
		return nil, err
	}
	return &Keeper{cfg: cfg, keeper: keeper, told: map[string]string{}}, nil
}

// Run watches until ctx is done.
func (k *Keeper) Run(ctx context.Context) {
	defer k.keeper.Close()
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		k.cfg.Log.WithError(err).Warn("stockade: the profiles are looked at every ten seconds only")
		watcher = &fsnotify.Watcher{} // its channels are nil: nothing ever comes
	} else {
		defer watcher.Close()
	}
	for {
		k.follow(watcher)
		wait := 10 * time.Second
		if k.scan() {
			wait = time.Second
		}
		if !settled(ctx, watcher, wait) {
			return
		}
	}
}

// follow watches the folder, also when it has just been made, or made again.
func (k *Keeper) follow(watcher *fsnotify.Watcher) {
	if watcher.Events == nil {
		return
	}
	if err := watcher.Add(k.cfg.Roots.Profiles); err != nil {
		return // the scan says what is wrong with it
	}
}

// settled waits for an event and then until there have been none for a moment,
// or until the time is up. False: ctx is done.
func settled(ctx context.Context, watcher *fsnotify.Watcher, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	deadline := time.Now().Add(wait)
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-watcher.Errors:
		case <-watcher.Events:
		}
		// A folder that never rests is looked at all the same.
		timer.Reset(min(100*time.Millisecond, time.Until(deadline)))
	}
}

func (k *Keeper) scan() (again bool) {
	s, err := k.keeper.Scan(time.Now())
	k.sayFailure(err)
	k.sayBad(s.Bad)
	for _, name := range s.Saved {
		k.cfg.Log.WithField("file", name).Info("stockade: a profile file is new or changed, and good")
	}
	for _, name := range s.Rejected {
		k.cfg.Log.WithField("file", name).Error("stockade: a new profile file is bad: it is left out, and containers for which no other profile is found do not start")
	}
	for _, name := range s.Removed {
		k.cfg.Log.WithField("file", name).Warn("stockade: a profile file was deleted; its last good copy is gone too")
	}
	names := append(append(s.Saved, s.Rejected...), s.Removed...)
	if len(names) > 0 && k.cfg.Changed != nil {
		k.cfg.Changed(names)
	}
	return s.Again
}

// sayFailure says once that the folder cannot be looked at.
func (k *Keeper) sayFailure(err error) {
	text := fmt.Sprint(err)
	if err != nil && text != k.failed {
		k.cfg.Log.WithError(err).Error("stockade: the profiles cannot be looked at, or their copies not be written")
	}
	k.failed = text
}

// sayBad says of each bad file what is wrong, again when that changes, and that
// it is mended.
func (k *Keeper) sayBad(bad []*store.FileError) {
	now := map[string]string{}
	for _, b := range bad {
		now[b.File] = b.Error()
		if k.told[b.File] != now[b.File] {
			k.cfg.Log.WithError(b).Error("stockade: a profile file is bad")
		}
	}
	for file := range k.told {
		if _, still := now[file]; !still {
			k.cfg.Log.WithField("file", file).Info("stockade: a profile file that was bad is not there any more, or mended")
		}
	}
	k.told = now
}
