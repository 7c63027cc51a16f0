package profiles

import (
	"slices"
	"strings"

	"github.com/stockade-dev/stockade/profiles/pattern"
)

// table holds the rules on one kind of access to paths, ready to be decided by.
type table struct {
	set     *pattern.Set
	entries []entry // by index in set
	image   []entry // @image

	imageForAll bool               // an @image rule without condition
	wide        []*pattern.Pattern // allow, without condition, more than one path
	holes       []*pattern.Pattern // deny, under whatever condition
	allowExact  []string           // sorted
	allowWide   []*pattern.Pattern // allow, under whatever condition, more than one path
}

// entry is one rule in one table.
type entry struct {
	rule    *Rule
	pattern *pattern.Pattern // nil: @image
	deny    bool
	session bool             // holds in sessions only
	program *pattern.Pattern // holds for this executable only; nil: for all
	from    []*pattern.Pattern
}

// free reports whether an entry holds for every subject.
func (e *entry) free() bool {
	return !e.session && e.program == nil && len(e.from)+len(e.rule.UID) == 0 && e.rule.SHA256 == ""
}

// applies reports whether the rule speaks of this subject at all.
func (e *entry) applies(s *Subject) bool {
	return (!e.session || s.Session || s.SessionRoot) && (e.program == nil || s.runs(e.program.Match))
}

// runs reports whether the subject's executable, or the script that it interprets, is one of match's.
func (s *Subject) runs(match func(string) bool) bool {
	return match(s.Exe) || s.Script != "" && match(s.Script)
}

// free reports whether an allow rule by path, without condition, matches path.
func (t *table) free(path string) (free bool) {
	t.set.Lookup(path, func(i int) bool {
		free = !t.entries[i].deny && t.entries[i].free()
		return !free
	})
	return free
}

// denies reports whether a deny rule, under whatever condition, matches path.
func (t *table) denies(path string) (denied bool) {
	t.set.Lookup(path, func(i int) bool {
		denied = t.entries[i].deny
		return !denied
	})
	return denied
}

// unmet returns the first condition of the rule that does not hold, or 0.
func (e *entry) unmet(a *Access) Reason {
	if len(e.from) > 0 && !a.Subject.runs(func(exe string) bool { return matchesAny(e.from, exe) }) {
		return ReasonFrom
	}
	if len(e.rule.UID) > 0 && !slices.Contains(e.rule.UID, a.Subject.UID) {
		return ReasonUID
	}
	if e.rule.SHA256 != "" && e.rule.SHA256 != a.SHA256 {
		return ReasonSHA256
	}
	return 0
}

func matchesAny(patterns []*pattern.Pattern, path string) bool {
	for _, p := range patterns {
		if p.Match(path) {
			return true
		}
	}
	return false
}

func (t *table) add(e entry) {
	if e.pattern == nil {
		t.image = append(t.image, e)
		t.imageForAll = t.imageForAll || e.free()
		return
	}
	t.entries = append(t.entries, e)
	path, exact := e.pattern.Exact()
	switch {
	case e.deny:
		t.holes = append(t.holes, e.pattern)
	case exact:
		t.allowExact = append(t.allowExact, path)
	default:
		t.allowWide = append(t.allowWide, e.pattern)
		if e.free() {
			t.wide = append(t.wide, e.pattern)
		}
	}
}

// finish makes what lookups need once all entries are there.
func (t *table) finish() {
	patterns := make([]*pattern.Pattern, len(t.entries))
	for i := range t.entries {
		patterns[i] = t.entries[i].pattern
	}
	t.set = pattern.SetOf(patterns)
	slices.Sort(t.allowExact)
	t.allowExact = slices.Compact(t.allowExact)
}

// reaches reports whether an allow rule by path could match dir or something below it.
func (t *table) reaches(dir string) bool {
	if slices.ContainsFunc(t.allowWide, func(p *pattern.Pattern) bool { return p.Match(dir) || p.CouldMatchBelow(dir) }) {
		return true
	}
	if _, found := slices.BinarySearch(t.allowExact, dir); found {
		return true
	}
	below := strings.TrimSuffix(dir, "/") + "/"
	i, _ := slices.BinarySearch(t.allowExact, below)
	return i < len(t.allowExact) && strings.HasPrefix(t.allowExact[i], below)
}

// allows reports whether an allow rule by path, under whatever condition, matches, and which.
func (t *table) allows(path string) *Rule {
	var rule *Rule
	t.set.Lookup(path, func(i int) bool {
		if t.entries[i].deny {
			return true
		}
		rule = t.entries[i].rule
		return false
	})
	return rule
}
