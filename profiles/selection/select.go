package selection

import (
	"errors"
	"fmt"
	"strings"

	"github.com/stockade-dev/stockade/profiles"
)

// ErrNoMatch: no profile is for that container. ErrLabels: it cannot be told
// without the pod's labels.
var (
	ErrNoMatch = errors.New("no profile matches")
	ErrLabels  = errors.New("the pod's labels are not known here: stockade-nri has not seen this container")
)

// Request is what is known of a container, and the profile that is asked for.
type Request struct {
	Facts profiles.MatchFacts
	Asked string // the annotation's value: NAME or NAME@sha256:DIGEST; empty: none
}

// Set is the profiles of a node.
type Set interface {
	// Candidates returns every profile as it is declared, sorted by name. The
	// error says why the set may not be whole: what is missing might be what
	// should be chosen.
	Candidates() ([]*profiles.Profile, error)
	// Get returns the resolved profile of a name, or of NAME@sha256:DIGEST.
	Get(ref string) (*profiles.Profile, error)
	// Doubt says why it is not to be believed that nothing matches.
	Doubt() error
}

// Select returns the resolved profile that is for this container. errors.Is(err,
// ErrNoMatch) if there is none; the error says why each is not. ErrLabels if
// that depends on labels which are not known.
func Select(r Request, s Set) (*profiles.Profile, error) {
	if r.Asked != "" {
		return asked(r, s)
	}
	all, err := s.Candidates()
	if err != nil {
		return nil, fmt.Errorf("cannot tell which profile is for this container: %w", err)
	}
	b := best{facts: r.Facts}
	for _, p := range all {
		b.look(p)
	}
	name, err := b.decide()
	if doubt := s.Doubt(); errors.Is(err, ErrNoMatch) && doubt != nil {
		return nil, fmt.Errorf("no profile matches, and %w", doubt)
	}
	if err != nil {
		return nil, err
	}
	return s.Get(name)
}

// asked gives the profile that an annotation names, if its match lets the
// container have it.
func asked(r Request, s Set) (*profiles.Profile, error) {
	p, err := s.Get(r.Asked)
	if err != nil {
		return nil, fmt.Errorf("annotation %s: %w", Annotation, err)
	}
	if !r.Facts.CRI {
		return p, nil // it is root who sets annotations there, and nothing of what a match asks is known
	}
	if p.Match == nil {
		return nil, fmt.Errorf("annotation %s: profile %s gives no match, so no pod may choose it", Annotation, p.Name)
	}
	switch v, why := judge(p.Match, r.Facts); v {
	case holds:
		return p, nil
	case unknown:
		return nil, fmt.Errorf("annotation %s: profile %s gives match.podSelector: %w", Annotation, p.Name, ErrLabels)
	default:
		return nil, fmt.Errorf("annotation %s: profile %s is not for this container: %s", Annotation, p.Name, why)
	}
}

// verdict is whether a match holds.
type verdict uint8

const (
	fails verdict = iota
	holds
	unknown // all but the labels hold, and these are not known
)

func judge(m *profiles.Match, f profiles.MatchFacts) (verdict, string) {
	ok, why := m.Holds(f)
	if ok {
		return holds, ""
	}
	if !f.CRI || f.LabelsKnown || len(m.Labels) == 0 {
		return fails, why
	}
	rest := *m
	rest.Labels = nil
	if ok, why := rest.Holds(f); !ok {
		return fails, why
	}
	return unknown, why
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

// best gathers the profiles that ask for the most.
type best struct {
	facts   profiles.MatchFacts
	most    int
	holding []*profiles.Profile // whose match holds, each with most keys
	unknown *profiles.Profile   // the one with the most keys of those that need labels
	needs   int                 // its keys
	whyNot  []string
}

func (b *best) look(p *profiles.Profile) {
	if p.Match == nil {
		b.whyNot = append(b.whyNot, p.Name+": it gives no match")
		return
	}
	n := keysGiven(p.Match)
	switch v, why := judge(p.Match, b.facts); {
	case v == fails:
		b.whyNot = append(b.whyNot, p.Name+": "+why)
	case v == unknown && (b.unknown == nil || n > b.needs):
		b.unknown, b.needs = p, n
	case v == holds && n > b.most:
		b.holding, b.most = []*profiles.Profile{p}, n
	case v == holds && n == b.most:
		b.holding = append(b.holding, p)
	}
}

func (b *best) decide() (string, error) {
	// With as many keys it would make a tie, with more it would win.
	if b.unknown != nil && b.needs >= b.most {
		return "", fmt.Errorf("profile %s gives match.podSelector: %w", b.unknown.Name, ErrLabels)
	}
	switch len(b.holding) {
	case 0:
		return "", b.noMatch()
	case 1:
		return b.holding[0].Name, nil
	}
	var places []string
	for _, p := range b.holding {
		places = append(places, fmt.Sprintf("%s (%s:%d)", p.Name, p.Position.File, p.Position.Line))
	}
	return "", errors.New("several profiles match equally well: " + strings.Join(places, ", ") +
		"; let one of them ask for more in match")
}

func (b *best) noMatch() error {
	const most = 10
	why := b.whyNot
	switch n := len(why) - most; {
	case len(why) == 0:
		return fmt.Errorf("%w: there is none", ErrNoMatch)
	case n > 0:
		why = append(why[:most:most], fmt.Sprintf("and %d more", n))
	}
	return fmt.Errorf("%w: %s", ErrNoMatch, strings.Join(why, "; "))
}
