package store

import (
	"errors"
	"fmt"
	"strings"

	"github.com/stockade-dev/stockade/profiles"
)

// Match returns the resolved profile that is for this container: of all whose
// match holds, the one that gives the most keys. errors.Is(err, ErrNoMatch) if
// there is none; the error says why each is not. Any bad file is an error, and
// so are two profiles that fit equally well.
func (s *Store) Match(f profiles.MatchFacts) (*profiles.Profile, error) {
	if len(s.bad) > 0 {
		return nil, fmt.Errorf("cannot tell which profile is for this container: %s", s.badFiles())
	}
	var best []string
	var whyNot []string
	most := 0
	for _, name := range s.Names() {
		p := s.profiles[name]
		if err := s.twice[name]; err != nil {
			return nil, fmt.Errorf("cannot tell which profile is for this container: %w", err)
		}
		if p.Match == nil {
			whyNot = append(whyNot, name+": it gives no match")
			continue
		}
		if ok, why := p.Match.Holds(f); !ok {
			whyNot = append(whyNot, name+": "+why)
			continue
		}
		switch n := keysGiven(p.Match); {
		case n > most:
			best, most = []string{name}, n
		case n == most:
			best = append(best, name)
		}
	}
	switch len(best) {
	case 0:
		if len(s.leftOut) > 0 {
			return nil, fmt.Errorf("no profile matches, and what is left out might: %s", s.badFiles())
		}
		return nil, s.noMatch(whyNot)
	case 1:
		return s.resolve(best[0])
	}
	return nil, s.tie(best)
}

// keysGiven is how much a match asks for.
func keysGiven(m *profiles.Match) int {
	n := 0
	for _, given := range []bool{len(m.Images) > 0, len(m.Namespaces) > 0, len(m.Labels) > 0, len(m.Containers) > 0} {
		if given {
			n++
		}
	}
	return n
}

func (s *Store) noMatch(whyNot []string) error {
	const most = 10
	switch n := len(whyNot) - most; {
	case len(whyNot) == 0:
		return fmt.Errorf("%w: there is none in %s", ErrNoMatch, s.roots)
	case n > 0:
		whyNot = append(whyNot[:most:most], fmt.Sprintf("and %d more", n))
	}
	return fmt.Errorf("%w: %s", ErrNoMatch, strings.Join(whyNot, "; "))
}

func (s *Store) tie(names []string) error {
	var places []string
	for _, name := range names {
		p := s.profiles[name]
		places = append(places, fmt.Sprintf("%s (%s:%d)", name, p.Position.File, p.Position.Line))
	}
	return errors.New("several profiles match equally well: " + strings.Join(places, ", ") +
		"; let one of them ask for more in match")
}
