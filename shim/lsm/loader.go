package lsm

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
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

// Loader loads profiles: each text is compiled once for a node, whichever processes ask for it.
type Loader struct {
	Parser *Parser
	Kernel Kernel
	Dir    string // its state, under /run: it must not outlive the kernel's. Made if it is missing.
	Prefix string // of the names that are ours, as in "stockade."; others are never touched

	// The kernel's, but for tests.
	replace func(policy []byte) error
	remove  func(name string) error
}

// Profile is a text to be loaded.
type Profile struct {
	Name string // as the text has it
	Text string
	Slot string // the end of Name, for which each holder's copy has something of the same length
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

// Load makes the kernel have a copy of the profile under a name of the same length (as Copy gives) for one holder, a
// container's key. The holder has it for as long as this process lives or until Release; what the kernel has under the
// name is replaced, for the processes too that have it. A name of a text must always come with the same text. The
// parser's complaints are the error's text (*ParserError).
func (l *Loader) Load(p Profile, name, holder string) error {
	if err := errors.Join(l.check(p.Name), l.check(name)); err != nil {
		return err
	}
	if len(name) != len(p.Name) {
		return fmt.Errorf("AppArmor profile %s: a copy of the name %s is not of its length", p.Name, name)
	}
	if err := l.Kernel.Available(); err != nil {
		return err
	}
	unlock, err := l.lock()
	if err != nil {
		return err
	}
	defer unlock()
	policy, err := l.compiledLocked(p)
	if err != nil {
		return err
	}
	_, errBefore := os.Stat(l.refFile(name, holder))
	// The reference comes first: a crash right after it leaves too much, which a sweep takes away, never too little.
	if err := l.refer(name, holder); err != nil {
		return err
	}
	err = l.loadLocked(name, bytes.ReplaceAll(policy, []byte(p.Name), []byte(name)))
	if err != nil && errBefore != nil { // who had it before keeps what the kernel has
		err = errors.Join(err, l.releaseLocked(name, holder))
	}
	return err
}

// Copy is a name for a holder's copy.
func (p Profile) Copy(holder string) string {
	sum := sha256.Sum256([]byte(holder))
	return strings.TrimSuffix(p.Name, p.Slot) + hex.EncodeToString(sum[:])[:min(len(p.Slot), 2*len(sum))]
}

// compiledLocked runs the parser over a text that has not been compiled yet. The text beside what was made of it says
// that the parser took it.
func (l *Loader) compiledLocked(p Profile) ([]byte, error) {
	text, compiled := filepath.Join(l.Dir, textsDir, p.Name), filepath.Join(l.Dir, cacheDir, p.Name)
	before, err := os.ReadFile(text)
	switch {
	case err == nil && string(before) != p.Text:
		return nil, fmt.Errorf("AppArmor profile %s: another text has this name", p.Name)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case err == nil:
		if policy, err := os.ReadFile(compiled); err == nil {
			return policy, nil
		}
	}
	fresh := filepath.Join(l.Dir, p.Name)
	if err := os.WriteFile(fresh, []byte(p.Text), 0o600); err != nil {
		return nil, err
	}
	defer os.Remove(fresh)
	_ = os.Remove(compiled) // an older kernel's, or cut short
	said, err := l.Parser.compile(fresh, compiled)
	if err != nil {
		return nil, fmt.Errorf("AppArmor profile %s: %w", p.Name, err)
	}
	policy, err := os.ReadFile(compiled)
	if err != nil {
		return nil, fmt.Errorf("AppArmor profile %s: apparmor_parser made nothing: %w\n%s", p.Name, err, said)
	}
	if !bytes.Contains(policy, append([]byte(p.Name), 0)) {
		return nil, fmt.Errorf("AppArmor profile %s: the parser reports success, and its output does not name it\n%s", p.Name, said)
	}
	return policy, os.Rename(fresh, text)
}

func (l *Loader) loadLocked(name string, policy []byte) error {
	replace := l.replace
	if replace == nil {
		replace = l.Kernel.replace
	}
	if err := replace(policy); err != nil {
		return fmt.Errorf("load AppArmor profile %s: %w", name, err)
	}
	loaded, err := l.Kernel.Loaded()
	if err != nil {
		return err
	}
	if _, there := loaded[name]; !there {
		return fmt.Errorf("load AppArmor profile %s: the kernel reports success, and does not have it", name)
	}
	return nil
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
	if _, there := loaded[name]; there {
		remove := l.remove
		if remove == nil {
			remove = l.Kernel.remove
		}
		if err := remove(name); err != nil {
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
	entries, err := os.ReadDir(filepath.Join(l.Dir, textsDir))
	if err != nil || len(entries) <= maxCached {
		return
	}
	for _, dir := range []string{textsDir, cacheDir} {
		_ = os.RemoveAll(filepath.Join(l.Dir, dir))
		_ = os.Mkdir(filepath.Join(l.Dir, dir), 0o700)
	}
}
