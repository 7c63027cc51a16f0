package profiles

import (
	"fmt"
	"slices"
	"strings"
)

// Resolve returns the named profile with everything it extends merged beneath it: rules are united and keep their
// positions; mode, onViolation and allowPrivilegeEscalation are the profile's own if given, else its parents'; match is
// never inherited. lookup finds a profile by name. It is an error if one is missing, if they extend each other in a
// circle, or if two parents disagree and the child does not choose.
func Resolve(name string, lookup func(string) (*Profile, bool)) (*Profile, error) {
	p, ok := lookup(name)
	if !ok {
		return nil, fmt.Errorf("no profile is named %q", name)
	}
	r := resolver{lookup: lookup, done: map[string]*Profile{}}
	return r.resolve(p, []string{name})
}

// resolver remembers what it has resolved: parents may be shared.
type resolver struct {
	lookup func(string) (*Profile, bool)
	done   map[string]*Profile
}

// resolve merges what p extends; path are the names that led to it, its own last.
func (r *resolver) resolve(p *Profile, path []string) (*Profile, error) {
	merged := p.clone()
	merged.Extends = nil
	base := &Profile{}
	for _, name := range p.Extends {
		parent, err := r.parent(p, name, path)
		if err != nil {
			return nil, err
		}
		if err := p.inherit(base, parent); err != nil {
			return nil, err
		}
	}
	if merged.Mode == ModeUnset {
		merged.Mode = base.Mode
	}
	if merged.OnViolation == 0 {
		merged.OnViolation = base.OnViolation
	}
	if merged.AllowPrivilegeEscalation == nil {
		merged.AllowPrivilegeEscalation = base.AllowPrivilegeEscalation
	}
	merged.unite(base)
	return merged, nil
}

// parent resolves one of those that p extends.
func (r *resolver) parent(p *Profile, name string, path []string) (*Profile, error) {
	if done := r.done[name]; done != nil {
		return done, nil
	}
	path = append(path[:len(path):len(path)], name)
	if slices.Contains(path[:len(path)-1], name) {
		return nil, p.errorf("spec.extends", "profiles extend each other: "+strings.Join(path, " -> "), "break the circle")
	}
	parent, ok := r.lookup(name)
	if !ok {
		return nil, p.errorf("spec.extends", fmt.Sprintf("no profile is named %q", name), "name one that is in the store")
	}
	parent, err := r.resolve(parent, path)
	r.done[name] = parent
	return parent, err
}

// inherit merges one resolved parent into what the parents before it gave.
func (p *Profile) inherit(base, parent *Profile) error {
	conflict := func(field, a, b string) error {
		return p.errorf("spec."+field, fmt.Sprintf("profiles it extends disagree: %s (%s) and %s", a, parent.Name, b), "give "+field+" here")
	}
	switch {
	case parent.Mode == ModeUnset:
	case base.Mode != ModeUnset && base.Mode != parent.Mode && p.Mode == ModeUnset:
		return conflict("mode", parent.Mode.String(), base.Mode.String())
	default:
		base.Mode = parent.Mode
	}
	switch {
	case parent.OnViolation == 0:
	case base.OnViolation != 0 && base.OnViolation != parent.OnViolation && p.OnViolation == 0:
		return conflict("onViolation", parent.OnViolation.String(), base.OnViolation.String())
	default:
		base.OnViolation = parent.OnViolation
	}
	mine, theirs := base.AllowPrivilegeEscalation, parent.AllowPrivilegeEscalation
	switch {
	case theirs == nil:
	case mine != nil && *mine != *theirs && p.AllowPrivilegeEscalation == nil:
		return conflict("allowPrivilegeEscalation", fmt.Sprint(*theirs), fmt.Sprint(*mine))
	default:
		base.AllowPrivilegeEscalation = theirs
	}
	base.unite(parent)
	return nil
}

// unite adds the rules of another profile which are not there yet.
func (p *Profile) unite(other *Profile) {
	for _, word := range other.AllowUnenforced {
		if !slices.Contains(p.AllowUnenforced, word) {
			p.AllowUnenforced = append(p.AllowUnenforced, word)
		}
	}
	p.Allow.unite(&other.Allow)
	p.Deny.unite(&other.Deny)
	p.Sessions.unite(&other.Sessions)
	for _, theirs := range other.Programs {
		i := slices.IndexFunc(p.Programs, func(mine Program) bool { return mine.Path == theirs.Path })
		if i < 0 {
			p.Programs = append(p.Programs, Program{Path: theirs.Path, Field: theirs.Field, Position: theirs.Position})
			i = len(p.Programs) - 1
		}
		p.Programs[i].Allow.unite(&theirs.Allow)
		p.Programs[i].Deny.unite(&theirs.Deny)
	}
}

func (r *Rules) unite(other *Rules) {
	for _, k := range kinds {
		mine := r.list(k)
		have := make(map[string]bool, len(*mine))
		for i := range *mine {
			have[(*mine)[i].key()] = true
		}
		for _, rule := range other.Of(k) {
			if !have[rule.key()] {
				*mine = append(*mine, rule)
			}
		}
	}
}

// clone copies what unite appends to.
func (p *Profile) clone() *Profile {
	c := *p
	c.AllowUnenforced = slices.Clone(p.AllowUnenforced)
	c.Programs = slices.Clone(p.Programs)
	lists := []*Rules{&c.Allow, &c.Deny, &c.Sessions}
	for i := range c.Programs {
		lists = append(lists, &c.Programs[i].Allow, &c.Programs[i].Deny)
	}
	for _, rules := range lists {
		for _, k := range kinds {
			list := rules.list(k)
			*list = slices.Clone(*list)
		}
	}
	return &c
}

func (p *Profile) errorf(field, problem, want string) *Error {
	return &Error{Position: p.Position, Field: field, Problem: problem, Want: want}
}

// fieldName is a field as a rule is called by: without spec and index.
func fieldName(field string) string {
	field = strings.TrimPrefix(field, "spec.")
	if i := strings.LastIndexByte(field, '['); i > 0 && strings.HasSuffix(field, "]") {
		return field[:i]
	}
	return field
}
