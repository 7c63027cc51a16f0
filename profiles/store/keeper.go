package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// settle is how long a file must have been left alone before it is taken for
	// finished: half a profile may be right, and must not become the good copy.
	settle = time.Second
	// grace is how long a file must be away before its copy goes: editors move
	// the old file out of the way before the new one is there.
	grace = 2 * time.Second
)

// Keeper keeps last good copies of the files in Roots.Profiles. Only one may
// run for a folder. It is not safe for concurrent use.
type Keeper struct {
	dir  string
	root *os.Root // of the copies

	judged   map[string]bool // files that were there in the scan before; nil before the first
	rejected map[string]bool // those of them that were bad from the first
	gone     map[string]time.Time
}

// Scan is what one look at the folder found and did. All are names of files.
type Scan struct {
	Saved    []string     // new or changed, and good
	Rejected []string     // new and bad: left out
	Removed  []string     // deleted, and their copies with them
	Bad      []*FileError // all that are bad now
	Again    bool         // something was not finished: scan again in a second
}

// NewKeeper makes the folder of copies, for root alone.
func NewKeeper(r Roots) (*Keeper, error) {
	root, err := makeDir(r.LastGood)
	if err != nil {
		return nil, fmt.Errorf("last good copies: %w", err)
	}
	return &Keeper{dir: r.Profiles, root: root, rejected: map[string]bool{}, gone: map[string]time.Time{}}, nil
}

// Close ends the keeper; the copies stay.
func (k *Keeper) Close() error { return k.root.Close() }

// Scan brings the copies up to date. When the folder cannot be listed nothing
// is done. now is compared with the files' times.
func (k *Keeper) Scan(now time.Time) (Scan, error) {
	files, err := readDir(k.dir)
	if err != nil {
		return Scan{}, fmt.Errorf("profile store: %w", err)
	}
	var s Scan
	present := map[string]bool{}
	for _, f := range files {
		name := filepath.Base(f.path)
		present[name] = true
		delete(k.gone, name)
		_, parseErr := f.parse()
		if parseErr != nil {
			s.Bad = append(s.Bad, &FileError{f.path, parseErr})
		}
		if f.err == nil && now.Sub(f.time).Abs() < settle || errors.Is(f.err, errChanging) {
			s.Again = true
			continue
		}
		err = errors.Join(err, k.judge(&s, name, f, parseErr == nil, now))
	}
	first := k.judged == nil
	if first {
		k.judged = present // what came before this keeper did: nobody knows whether it was good
	}
	return s, errors.Join(err, k.forget(&s, present, now))
}

func (k *Keeper) judge(s *Scan, name string, f file, good bool, now time.Time) error {
	known := k.judged == nil || k.judged[name]
	if k.judged != nil {
		k.judged[name] = true
	}
	if good {
		delete(k.rejected, name)
		changed, err := k.save(name, f.data)
		if changed {
			s.Saved = append(s.Saved, name)
		}
		return errors.Join(err, removeFile(k.root, name+markExtension))
	}
	if f.err != nil || blank(f.data) {
		return nil
	}
	if _, err := k.root.Lstat(name); err == nil {
		return nil // its copy stands in
	}
	if known && !k.rejected[name] {
		return k.recall(name, f)
	}
	if !k.rejected[name] {
		s.Rejected = append(s.Rejected, name)
	}
	k.rejected[name] = true
	data, err := json.Marshal(mark{Error: "bad from the first", Since: now.UTC().Truncate(time.Second), SHA256: sum(f.data)})
	if err != nil {
		return err
	}
	return k.write(name+markExtension, data)
}

// recall takes over what a keeper before this one rejected, if it still is that.
func (k *Keeper) recall(name string, f file) error {
	if (&copies{dir: k.root.Name(), root: k.root}).rejected(f) {
		k.rejected[name] = true
	}
	return nil
}

func (k *Keeper) save(name string, data []byte) (changed bool, err error) {
	old := readFile(k.root, k.root.Name(), name)
	if old.err == nil && string(old.data) == string(data) {
		return false, nil
	}
	return true, k.write(name, data)
}

func (k *Keeper) write(name string, data []byte) error {
	if err := writeFile(k.root, name, data); err != nil {
		return fmt.Errorf("last good copy: %w", err)
	}
	return nil
}

// forget removes the copies and marks of files that are gone for good.
func (k *Keeper) forget(s *Scan, present map[string]bool, now time.Time) error {
	entries, err := fs.ReadDir(k.root.FS(), ".")
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), markExtension)
		if present[name] || strings.HasPrefix(name, ".") {
			continue
		}
		since, waiting := k.gone[name]
		if !waiting {
			k.gone[name], since = now, now
		}
		if now.Sub(since) < grace {
			s.Again = true
			continue
		}
		err = errors.Join(err, removeFile(k.root, e.Name()))
		if !slices.Contains(s.Removed, name) {
			s.Removed = append(s.Removed, name)
		}
		delete(k.judged, name)
		delete(k.rejected, name)
	}
	for name := range k.judged {
		if !present[name] && k.gone[name].IsZero() {
			delete(k.judged, name) // it left neither copy nor mark
		}
	}
	return err
}
