package lsm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/shim/procfs"
)

// Loader loads profiles once for all containers of a node, whichever process they belong to.
type Loader struct {
	Parser *Parser
	Kernel Kernel
	Dir    string // its state, under /run: it must not outlive the kernel's. Made if it is missing.
	Prefix string // of the names that are ours, as in "stockade."; others are never touched
}

// Folders of Dir. In refs, each profile has a folder and each holder a file in it.
const (
	refsDir  = "refs"
	textsDir = "texts"
	cacheDir = "cache"
)

const maxCached = 256 // compiled profiles

// names are those that mean nothing special to a parser, a kernel or a file system.
var names = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$`)

// reference is who holds a profile.
type reference struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot: a pid alone may be another's by now
}

// Load makes the kernel have the profile name, which text defines, and notes that holder (a container's key) uses it
// for as long as this process lives or until Release. A name must always come with the same text: the one that is
// loaded already is not loaded again. The parser's complaints are the error's text (*ParserError).
func (l *Loader) Load(name, text, holder string) error {
	if err := l.check(name); err != nil {
		return err
	}
	if err := l.Kernel.Available(); err != nil {
		return err
	}
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	loaded, err := l.Kernel.Loaded()
	if err != nil {
		return err
	}
	// The reference comes first: a crash right after it leaves too much, which a sweep takes away, never too little.
	if err := l.refer(name, holder); err != nil {
		return err
	}
	if err := l.loadLocked(name, text, loaded); err != nil {
		return errors.Join(err, l.releaseLocked(name, holder))
	}
	return nil
}

func (l *Loader) loadLocked(name, text string, loaded map[string]string) error {
	file := filepath.Join(l.Dir, textsDir, name)
	before, err := os.ReadFile(file)
	_, there := loaded[name]
	switch {
	case err == nil && string(before) != text:
		return fmt.Errorf("AppArmor profile %s: another text has this name", name)
	case err == nil && there:
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	// Written under another name first: the text beside the name says that the parser took it.
	fresh := filepath.Join(l.Dir, name)
	if err := os.WriteFile(fresh, []byte(text), 0o600); err != nil {
		return err
	}
	defer os.Remove(fresh)
	if err := l.Parser.load(fresh, filepath.Join(l.Dir, cacheDir)); err != nil {
		return fmt.Errorf("load AppArmor profile %s: %w", name, err)
	}
	if loaded, err = l.Kernel.Loaded(); err != nil {
		return err
	}
	if _, there := loaded[name]; !there {
		return fmt.Errorf("load AppArmor profile %s: the parser reports success, and the kernel does not have it", name)
	}
	return os.Rename(fresh, file)
}

// Release forgets a holder and unloads the profile if it was the last. A profile that processes still have stays: it
// would leave them unconfined; a later Sweep takes it away.
func (l *Loader) Release(name, holder string) error {
	if err := l.check(name); err != nil {
		return err
	}
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return l.releaseLocked(name, holder)
}

func (l *Loader) releaseLocked(name, holder string) error {
	if err := os.Remove(l.refFile(name, holder)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, err := l.sweepLocked([]string{name})
	return err
}

// Sweep drops what processes that are gone have left behind and unloads what nobody holds and no process has. It
// returns the names of what it unloaded. To be called when a shim starts.
func (l *Loader) Sweep() (unloaded []string, err error) {
	if err := l.Kernel.Available(); err != nil {
		return nil, err
	}
	unlock, err := l.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	loaded, err := l.Kernel.Loaded()
	if err != nil {
		return nil, err
	}
	var ours []string
	for name := range loaded {
		if strings.HasPrefix(name, l.Prefix) && names.MatchString(name) { // children go with their parents
			ours = append(ours, name)
		}
	}
	l.prune()
	slices.Sort(ours)
	return l.sweepLocked(ours)
}

func (l *Loader) sweepLocked(candidates []string) (unloaded []string, err error) {
	var errs []error
	var used map[string]bool
	for _, name := range candidates {
		if held, err := l.held(name); held || err != nil {
			errs = append(errs, err)
			continue
		}
		if used == nil {
			if used, err = l.Kernel.inUse(); err != nil {
				return unloaded, errors.Join(append(errs, err)...)
			}
		}
		if used[name] {
			continue
		}
		done, err := l.unloadLocked(name)
		if done {
			unloaded = append(unloaded, name)
		}
		errs = append(errs, err)
	}
	return unloaded, errors.Join(errs...)
}

func (l *Loader) unloadLocked(name string) (done bool, err error) {
	loaded, err := l.Kernel.Loaded()
	if err != nil {
		return false, err
	}
	// Without its text a name is loaded anew: so that what fails half way is not taken for loaded.
	_ = os.Remove(filepath.Join(l.Dir, textsDir, name))
	if _, there := loaded[name]; there {
		if err := l.Parser.unload(name); err != nil {
			return false, fmt.Errorf("unload AppArmor profile %s: %w", name, err)
		}
		done = true
	}
	_ = os.Remove(filepath.Join(l.Dir, refsDir, name)) // empty
	return done, nil
}

func (l *Loader) check(name string) error {
	if !names.MatchString(name) || !strings.HasPrefix(name, l.Prefix) {
		return fmt.Errorf("%q is no name for an AppArmor profile of ours (%s...)", name, l.Prefix)
	}
	return nil
}

// lock keeps other processes out until it is undone. A process that dies lets go of it.
func (l *Loader) lock() (unlock func(), err error) {
	for _, dir := range []string{refsDir, textsDir, cacheDir} {
		if err := os.MkdirAll(filepath.Join(l.Dir, dir), 0o700); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(filepath.Join(l.Dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		switch err = unix.Flock(int(f.Fd()), unix.LOCK_EX); {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			f.Close()
			return nil, os.NewSyscallError("flock", err)
		}
		return func() { f.Close() }, nil
	}
}

func (l *Loader) refFile(name, holder string) string {
	return filepath.Join(l.Dir, refsDir, name, url.PathEscape("h-"+holder))
}

func (l *Loader) refer(name, holder string) error {
	start, err := startTime(os.Getpid())
	if err != nil {
		return err
	}
	data, err := json.Marshal(reference{PID: os.Getpid(), Start: start})
	if err != nil {
		return err
	}
	file := l.refFile(name, holder)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o600)
}

// held reports whether somebody alive holds the profile; references of the dead are dropped on the way.
func (l *Loader) held(name string) (bool, error) {
	dir := filepath.Join(l.Dir, refsDir, name)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	held := false
	for _, e := range entries {
		file := filepath.Join(dir, e.Name())
		data, err := os.ReadFile(file)
		if err != nil {
			return false, err
		}
		var r reference
		if json.Unmarshal(data, &r) == nil { // else: cut short by a crash
			start, err := startTime(r.PID)
			if err == nil && start == r.Start {
				held = true
				continue
			}
			if err != nil && !gone(err) {
				return false, err
			}
		}
		if err := os.Remove(file); err != nil {
			return false, err
		}
	}
	return held, nil
}

func startTime(pid int) (uint64, error) {
	proc, err := procfs.Open()
	if err != nil {
		return 0, err
	}
	defer proc.Close()
	return proc.StartTime(pid)
}

func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) }

// prune empties the cache once it has grown: what is still needed is compiled again.
func (l *Loader) prune() {
	dir := filepath.Join(l.Dir, cacheDir)
	count := 0
	_ = filepath.WalkDir(dir, func(string, fs.DirEntry, error) error { count++; return nil })
	if count > maxCached {
		_ = os.RemoveAll(dir)
		_ = os.Mkdir(dir, 0o700)
	}
}
