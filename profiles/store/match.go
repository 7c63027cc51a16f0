package store

import (
	"errors"
	"fmt"

	"github.com/stockade-dev/stockade/profiles"
)

// Candidates returns every profile as it is declared, sorted by name. Any bad
// file is an error, and so is a name that is given twice: it might hold the
// profile that should be chosen. With [Store.Get] and [Store.Doubt] this makes a
// selection.Set.
func (s *Store) Candidates() ([]*profiles.Profile, error) {
	if len(s.bad) > 0 {
		return nil, fmt.Errorf("in %s %s", s.roots, s.badFiles())
	}
	names := s.Names()
	all := make([]*profiles.Profile, 0, len(names))
	for _, name := range names {
		if err := s.twice[name]; err != nil {
			return nil, err
		}
		all = append(all, s.profiles[name])
	}
	return all, nil
}

// Doubt says why it is not to be believed that no profile is for a container:
// one that is left out might be. Nil: there is no doubt.
func (s *Store) Doubt() error {
	if len(s.leftOut) == 0 {
		return nil
	}
	return errors.New("what is left out might: " + s.badFiles())
}
