package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/stockade-dev/stockade/profiles"
)

// Roots are the folders that a store is read from.
type Roots struct {
	Profiles string // the admin's; must be there
	Cluster  string // of Profile resources, written by a [ClusterFolder]; "" or missing: none
	LastGood string // of copies of Profiles' files, written by a [Keeper]; "" or missing: none
}

func (r Roots) String() string {
	if r.Cluster == "" {
		return r.Profiles
	}
	return r.Profiles + " and " + r.Cluster
}

// StandIn says that profiles come from the last good copy of something that has
// become bad. The copy may be older than what was last declared.
type StandIn struct {
	Bad  string    // the file, or resource, that is bad
	Copy string    // what is used instead
	Time time.Time // when the copy was made; zero: not known
	Err  error     // what is wrong with Bad
}

func (e *StandIn) Error() string {
	made := ""
	if !e.Time.IsZero() {
		made = ", made " + e.Time.UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("%s is bad, and its last good copy is in use (%s%s): it may allow what has been forbidden since; mend or delete %[1]s", e.Bad, e.Copy, made)
}

// OpenRoots reads the profiles of all roots as one set. The error is of the
// folder Profiles or Cluster itself, as in [Open].
func OpenRoots(r Roots) (*Store, error) {
	s := &Store{roots: r, profiles: map[string]*profiles.Profile{}, twice: map[string]error{}, standIns: map[string]*StandIn{}}
	files, err := readDir(r.Profiles)
	if err != nil {
		return nil, fmt.Errorf("profile store: %w", err)
	}
	c, err := openCopies(r.LastGood)
	if err != nil {
		s.other = append(s.other, fmt.Errorf("last good copies are not used: %w", err))
	}
	defer c.close()
	for _, f := range files {
		s.load(f, c)
	}
	if err := s.loadCluster(); err != nil {
		return nil, fmt.Errorf("profile store: %w", err)
	}
	return s, nil
}

// StandIn tells that a profile, or one that it extends, comes from a last good
// copy; nil: it is what is declared.
func (s *Store) StandIn(name string) *StandIn {
	return s.standIn(name, map[string]bool{})
}

func (s *Store) standIn(name string, seen map[string]bool) *StandIn {
	p := s.profiles[name]
	if seen[name] || p == nil {
		return nil
	}
	seen[name] = true
	if found := s.standIns[name]; found != nil {
		return found
	}
	for _, parent := range p.Extends {
		if found := s.standIn(parent, seen); found != nil {
			return found
		}
	}
	return nil
}

// load adds a file's profiles, or those of the copy that stands in for it.
func (s *Store) load(f file, c *copies) {
	parsed, err := f.parse()
	if err == nil {
		for _, p := range parsed {
			s.add(p)
		}
		return
	}
	bad := &FileError{f.path, err}
	if f.err == nil && blank(f.data) {
		s.bad = append(s.bad, bad) // emptied on purpose, perhaps: nothing stands in for it
		return
	}
	parsed, standIn := c.standIn(bad)
	switch {
	case standIn != nil:
		s.other = append(s.other, bad, standIn)
		for _, p := range parsed {
			s.standIns[p.Name] = standIn
			s.add(p)
		}
	case c.rejected(f):
		s.leftOut = append(s.leftOut, bad)
	default:
		s.bad = append(s.bad, bad)
	}
}

func (f file) parse() ([]*profiles.Profile, error) {
	if f.err != nil {
		return nil, f.err
	}
	return profiles.Parse(f.path, f.data)
}

// blank: there is nothing in it but comments.
func blank(data []byte) bool {
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" && line != "---" && !strings.HasPrefix(line, "#") {
			return false
		}
	}
	return true
}

// loadCluster adds the cluster's profiles: one in each file, which has its name.
func (s *Store) loadCluster() error {
	if s.roots.Cluster == "" {
		return nil
	}
	files, err := readDir(s.roots.Cluster)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	marks, err := readMarks(s.roots.Cluster)
	if err != nil {
		return err
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f.path), extension)
		parsed, err := f.parse()
		if err == nil && (len(parsed) != 1 || parsed[0].Name != name) {
			err = errors.New("it must hold one profile, named as the file is: it is not stockade-nri's")
		}
		if err != nil {
			s.bad = append(s.bad, &FileError{f.path, err})
			continue
		}
		s.add(parsed[0])
		if m, marked := marks[name]; marked {
			delete(marks, name)
			bad := &FileError{Resource(name), errors.New(m.Error)}
			s.standIns[name] = &StandIn{Bad: bad.File, Copy: f.path, Time: f.time, Err: bad}
			s.other = append(s.other, bad, s.standIns[name])
		}
	}
	for _, name := range sortedKeys(marks) {
		s.leftOut = append(s.leftOut, &FileError{Resource(name), errors.New(marks[name].Error)})
	}
	return nil
}

// Resource is how a Profile resource is called in errors.
func Resource(name string) string { return "profiles.stockade.dev/" + name }

// mark says why something was rejected that never was good, or is not any more.
type mark struct {
	Error  string    `json:"error"`
	Since  time.Time `json:"since"`
	SHA256 string    `json:"sha256,omitempty"` // of the rejected bytes
}

const (
	extension     = ".yaml"
	markExtension = ".rejected"
)

// readMarks reads the marks of a cluster folder, by the names of the resources.
func readMarks(dir string) (map[string]mark, error) {
	root, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	names, err := fs.Glob(root.FS(), "*"+markExtension)
	if err != nil {
		return nil, err
	}
	marks := map[string]mark{}
	for _, name := range names {
		f := readFile(root, dir, name)
		if errors.Is(f.err, fs.ErrNotExist) {
			continue // taken away since the folder was listed
		}
		var m mark
		if f.err == nil {
			f.err = json.Unmarshal(f.data, &m)
		}
		if f.err != nil {
			m.Error = f.err.Error()
		}
		marks[strings.TrimSuffix(name, markExtension)] = m
	}
	return marks, nil
}
