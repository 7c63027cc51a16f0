// Package store finds profiles in folders of this node.
//
// [Open] reads every *.yaml and *.yml file directly in the folder; files in
// folders below it and names that begin with a dot are left alone. What stands
// there decides what containers may do, so the folder and every file must
// belong to root and be writable by nobody else, and a link must stay within
// the folder (as those do with which Kubernetes lays out a ConfigMap). All
// documents of all files are one set: extends works across files, and a name
// that is given twice is an error.
//
// [OpenRoots] adds the profiles of the cluster (see [ClusterFolder]) to the
// same set, where a name that the node's folder and the cluster both give is
// given twice as well; neither wins. It also knows last good copies, below.
//
// A bad file, or a name that is given twice, does not spoil the others for
// [Store.Get]: it works as long as the profile and all that it extends are good
// and stand there once. [Store.Candidates], from which package selection
// chooses, fails as a whole, so that whoever is to get a profile by its match is
// refused, on that node: the bad file, or the second of a name, might be what
// should have been chosen.
//
// # Last good copies
//
// A [Keeper], which stockade-nri runs, copies each good file to a folder of its
// own. A file that has become bad is then replaced by its copy, and
// [Store.Problems] and [Store.StandIn] say so with the copy's time. What the
// copy does not do:
//   - It does not bring back what was deleted: the file must be there, and must
//     not be empty. A missing file's copy is never read, and soon removed.
//   - It is not newer than the Keeper: a version that was put there and spoilt
//     again while no Keeper ran is not known. So a copy may allow what has been
//     forbidden since, and its use is an error to be mended, not a mode.
//
// A file that a Keeper saw come into the folder and that was bad from the first
// is left out: the set is then as it was before, but a container for which
// nothing is found in it is refused, as that file might have been for it.
//
// Limits: the folders above the store's are not looked at. The set is what was
// there when Open read it; changes are seen by opening again. A file that is
// written in place may be read half written, and half a profile may be right:
// move finished files into the folder (install, mv), as Kubernetes does.
package store

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/stockade-dev/stockade/profiles"
)

// ErrNotFound: no profile has that name. ErrDigest: the profile is not the one
// that was asked for.
var (
	ErrNotFound = errors.New("no such profile")
	ErrDigest   = errors.New("another digest")
)

// FileError says why a file cannot be used. Err may join several errors, each
// with its place.
type FileError struct {
	File string
	Err  error
}

func (e *FileError) Error() string {
	text := e.Err.Error()
	if strings.HasPrefix(text, e.File) {
		return text // the parser's errors name the file themselves
	}
	return e.File + ": " + text
}

func (e *FileError) Unwrap() error { return e.Err }

// Store is a set of profiles as it was read. It is immutable and may be shared.
type Store struct {
	roots    Roots
	profiles map[string]*profiles.Profile // unresolved
	twice    map[string]error             // names that are given more than once
	bad      []*FileError
	leftOut  []*FileError        // bad from the first: the set is as it was before
	standIns map[string]*StandIn // by the names of the profiles that come from a copy
	other    []error             // what else is wrong
}

// Open reads the profiles in dir alone. The error is of the folder itself:
// missing (errors.Is fs.ErrNotExist), unreadable, or writable by others than
// root. What is wrong with single files is in [Store.Problems].
func Open(dir string) (*Store, error) { return OpenRoots(Roots{Profiles: dir}) }

func (s *Store) add(p *profiles.Profile) {
	first, ok := s.profiles[p.Name]
	if !ok {
		s.profiles[p.Name] = p
		return
	}
	s.twice[p.Name] = errors.Join(s.twice[p.Name], &profiles.Error{
		Position: p.Position, Field: "metadata.name",
		Problem: fmt.Sprintf("a second profile is named %s, the first is at %s:%d", p.Name, first.Position.File, first.Position.Line),
		Want:    "give each a name of its own",
	})
}

// Names returns the names of the profiles that could be read, sorted.
func (s *Store) Names() []string { return slices.Sorted(maps.Keys(s.profiles)) }

// Declared returns a profile as it stands in its file, without what it extends;
// of a name that is given twice, the first; nil if there is none.
func (s *Store) Declared(name string) *profiles.Profile { return s.profiles[name] }

// Problems returns all that is wrong: bad files, what stands in for them, names
// given twice, and profiles that cannot be resolved. Nil means that the store is
// sound.
func (s *Store) Problems() []error {
	var errs []error
	for _, b := range slices.Concat(s.bad, s.leftOut) {
		errs = append(errs, b)
	}
	errs = append(errs, s.other...)
	for _, name := range slices.Sorted(maps.Keys(s.twice)) {
		errs = append(errs, s.twice[name])
	}
	for _, name := range s.Names() {
		if _, err := s.resolve(name); err != nil && s.twice[name] == nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// Get returns the resolved profile of a name, or of name@sha256:DIGEST, where
// the digest is that of the resolved profile. errors.Is(err, ErrNotFound) or
// ErrDigest.
func (s *Store) Get(ref string) (*profiles.Profile, error) {
	name, digest, pinned := strings.Cut(ref, "@")
	if pinned && !isDigest(digest) {
		return nil, fmt.Errorf("profile %.200q: after @ comes sha256: and 64 hexadecimal digits", ref)
	}
	p, err := s.resolve(name)
	if err != nil {
		return nil, err
	}
	if got := p.Digest(); pinned && got != digest {
		return nil, fmt.Errorf("profile %s has %w: asked for is %s, in %s stands %s", name, ErrDigest, digest, p.Position.File, got)
	}
	return p, nil
}

func isDigest(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == ""
}

func (s *Store) resolve(name string) (*profiles.Profile, error) {
	if s.profiles[name] == nil {
		return nil, s.notFound(name)
	}
	// Names given twice are as good as bad, wherever in the chain they stand.
	var ambiguous error
	p, err := profiles.Resolve(name, func(n string) (*profiles.Profile, bool) {
		if err := s.twice[n]; err != nil && ambiguous == nil {
			ambiguous = err
		}
		p, ok := s.profiles[n]
		return p, ok
	})
	if ambiguous != nil {
		return nil, ambiguous
	}
	if err != nil && len(s.bad)+len(s.leftOut) > 0 {
		return nil, fmt.Errorf("%w (%s)", err, s.badFiles())
	}
	return p, err
}

func (s *Store) notFound(name string) error {
	err := fmt.Errorf("%w: %.200q is not in %s", ErrNotFound, name, s.roots)
	if len(s.bad)+len(s.leftOut) > 0 {
		err = fmt.Errorf("%w (%s)", err, s.badFiles())
	}
	return err
}

// badFiles says which files might have held what is missing, and what is wrong
// with the first.
func (s *Store) badFiles() string {
	all := slices.Concat(s.bad, s.leftOut)
	if len(all) == 1 {
		return "one file could not be read: " + all[0].Error()
	}
	return fmt.Sprintf("%d files could not be read, the first: %s", len(all), all[0].Error())
}
