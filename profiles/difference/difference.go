// Package difference compares profiles by what they mean: order, comments and the
// way rules are spread over files do not count. It says what one lets a container
// do that the other did not.
//
// A rule counts as widened when every path of the old one is surely matched by
// the new one; where that cannot be told, the one is removed and the other added.
// The cost is the product of the rules that came and those that went.
package difference

import (
	"fmt"
	"slices"
	"strings"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/profiles/pattern"
)

// Change is one difference between two profiles.
type Change struct {
	Sign   string `json:"sign"`             // + - > < ~
	Effect string `json:"effect,omitempty"` // Looser, Stricter; empty: neither, or both
	Field  string `json:"field"`            // allow.exec, mode ...
	Text   string `json:"text"`
	Was    string `json:"was,omitempty"`
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
}

// The effects of a change: what lets a container do more than before is looser.
const (
	Looser   = "looser"
	Stricter = "stricter"
)

// Of lists the differences of two resolved profiles, fields first, then
// rules in the order of the canonical form.
func Of(a, b *profiles.Profile) []Change {
	changes := compareFields(a, b)
	before, after := lists(a), lists(b)
	for _, l := range before {
		changes = append(changes, compareRules(l, find(after, l))...)
	}
	for _, l := range after {
		if len(find(before, l).rules) == 0 && !slices.ContainsFunc(before, l.same) {
			changes = append(changes, compareRules(ruleList{field: l.field, deny: l.deny, kind: l.kind}, l)...)
		}
	}
	return changes
}

func compareFields(a, b *profiles.Profile) []Change {
	var out []Change
	field := func(name, from, to, effect string) {
		if from != to {
			out = append(out, Change{Sign: "~", Effect: effect, Field: name, Text: to, Was: from})
		}
	}
	either := func(isLooser bool) string {
		if isLooser {
			return Looser
		}
		return Stricter
	}
	modeA, modeB := orEnforce(a.Mode), orEnforce(b.Mode)
	actionA, actionB := orKill(a.OnViolation), orKill(b.OnViolation)
	escalateA, escalateB := a.AllowPrivilegeEscalation != nil && *a.AllowPrivilegeEscalation, b.AllowPrivilegeEscalation != nil && *b.AllowPrivilegeEscalation
	field("name", a.Name, b.Name, "")
	field("match", matchText(a.Match), matchText(b.Match), "")
	field("mode", modeA.String(), modeB.String(), either(modeB < modeA))
	field("onViolation", actionA.String(), actionB.String(), either(actionB == profiles.Deny))
	field("allowPrivilegeEscalation", fmt.Sprint(escalateA), fmt.Sprint(escalateB), either(escalateB))
	for _, word := range b.AllowUnenforced {
		if !slices.Contains(a.AllowUnenforced, word) {
			out = append(out, Change{Sign: "+", Effect: Looser, Field: "allowUnenforced", Text: word})
		}
	}
	for _, word := range a.AllowUnenforced {
		if !slices.Contains(b.AllowUnenforced, word) {
			out = append(out, Change{Sign: "-", Effect: Stricter, Field: "allowUnenforced", Text: word})
		}
	}
	return out
}

func orEnforce(m profiles.Mode) profiles.Mode {
	if m == profiles.ModeUnset {
		return profiles.ModeEnforce
	}
	return m
}

func orKill(a profiles.Action) profiles.Action {
	if a == 0 {
		return profiles.Kill
	}
	return a
}

func matchText(m *profiles.Match) string {
	if m == nil {
		return "none"
	}
	var parts []string
	for _, p := range []struct {
		name   string
		values []string
	}{{"images", m.Images}, {"namespaces", m.Namespaces}, {"containers", m.Containers}} {
		if len(p.values) > 0 {
			parts = append(parts, p.name+" ["+strings.Join(slices.Sorted(slices.Values(p.values)), ", ")+"]")
		}
	}
	var labels []string
	for k, v := range m.Labels {
		labels = append(labels, k+"="+v)
	}
	if len(labels) > 0 {
		slices.Sort(labels)
		parts = append(parts, "labels ["+strings.Join(labels, ", ")+"]")
	}
	return strings.Join(parts, ", ")
}

// ruleList is one list of rules with the place it stands at.
type ruleList struct {
	field string // allow.exec, sessions.allow.exec, programs /bin/x allow.read
	deny  bool
	kind  profiles.Kind
	rules []profiles.Rule
}

func (l ruleList) same(o ruleList) bool { return l.field == o.field }

func find(all []ruleList, l ruleList) ruleList {
	if i := slices.IndexFunc(all, l.same); i >= 0 {
		return all[i]
	}
	return ruleList{field: l.field, deny: l.deny, kind: l.kind}
}

var allKinds = []profiles.Kind{
	profiles.Exec, profiles.Read, profiles.Write, profiles.Syscall, profiles.Capability, profiles.Listen, profiles.Connect,
}

// lists takes a profile apart. No syscalls declared means @default, so that is
// what stands there.
func lists(p *profiles.Profile) []ruleList {
	var all []ruleList
	add := func(prefix string, deny bool, r *profiles.Rules) {
		for _, k := range allKinds {
			rules := r.Of(k)
			if prefix == "allow" && k == profiles.Syscall && len(rules) == 0 {
				rules = []profiles.Rule{{Text: "@default"}}
			}
			if len(rules) > 0 {
				all = append(all, ruleList{prefix + "." + kindField(k), deny, k, rules})
			}
		}
	}
	add("allow", false, &p.Allow)
	add("deny", true, &p.Deny)
	for i := range p.Programs {
		prog := &p.Programs[i]
		add("programs["+prog.Path+"].allow", false, &prog.Allow)
		add("programs["+prog.Path+"].deny", true, &prog.Deny)
	}
	add("sessions.allow", false, &p.Sessions)
	return all
}

func kindField(k profiles.Kind) string {
	switch k {
	case profiles.Syscall:
		return "syscalls"
	case profiles.Capability:
		return "capabilities"
	}
	return k.String()
}

// compareRules compares two lists of the same place.
func compareRules(a, b ruleList) []Change {
	gone := without(a.rules, b.rules)
	come := without(b.rules, a.rules)
	var out []Change
	emit := func(sign string, r *profiles.Rule, was string) {
		wider := sign == "+" || sign == ">"
		effect := Stricter
		if wider != b.deny {
			effect = Looser
		}
		if sign == "~" {
			effect = ""
		}
		out = append(out, Change{sign, effect, b.field, ruleLine(r), was, r.File, r.Line})
	}
	for i := range come {
		n := &come[i]
		var wider, narrower, other []string
		gone = slices.DeleteFunc(gone, func(o profiles.Rule) bool {
			to := relate(&o, n, b.kind)
			switch to {
			case ">":
				wider = append(wider, ruleLine(&o))
			case "<":
				narrower = append(narrower, ruleLine(&o))
			case "~":
				other = append(other, ruleLine(&o))
			}
			return to != ""
		})
		switch {
		case len(other) > 0 || len(wider) > 0 && len(narrower) > 0:
			emit("~", n, strings.Join(slices.Concat(other, wider, narrower), ", "))
		case len(wider) > 0:
			emit(">", n, strings.Join(wider, ", "))
		case len(narrower) > 0:
			emit("<", n, strings.Join(narrower, ", "))
		default:
			emit("+", n, "")
		}
	}
	for i := range gone {
		emit("-", &gone[i], "")
	}
	return out
}

// without returns the rules of a that b does not have.
func without(a, b []profiles.Rule) []profiles.Rule {
	have := map[string]bool{}
	for i := range b {
		have[ruleLine(&b[i])] = true
	}
	var rest []profiles.Rule
	for _, r := range a {
		if !have[ruleLine(&r)] {
			rest = append(rest, r)
		}
	}
	return rest
}

// ruleLine is all that a rule says. It is the same for rules that mean the same.
func ruleLine(r *profiles.Rule) string {
	s := r.Text
	if len(r.From) > 0 {
		s += fmt.Sprintf(" from %v", slices.Sorted(slices.Values(r.From)))
	}
	if len(r.UID) > 0 {
		s += fmt.Sprintf(" uid %v", slices.Sorted(slices.Values(r.UID)))
	}
	if r.SHA256 != "" {
		s += " sha256 " + strings.ToLower(r.SHA256)
	}
	return s
}

// relate says what became of rule o in n: ">" it is wider, "<" narrower, "~"
// both or neither, "" they have nothing to do with each other.
func relate(o, n *profiles.Rule, kind profiles.Kind) string {
	wider, narrower := true, true
	if o.Text != n.Text {
		wider, narrower = covers(n.Text, o.Text, kind), covers(o.Text, n.Text, kind)
		if !wider && !narrower {
			return ""
		}
	}
	for _, c := range []struct{ wider, narrower bool }{
		{holdsAll(n.From, o.From), holdsAll(o.From, n.From)},
		{holdsAll(n.UID, o.UID), holdsAll(o.UID, n.UID)},
		{n.SHA256 == "" || n.SHA256 == o.SHA256, o.SHA256 == "" || n.SHA256 == o.SHA256},
	} {
		wider, narrower = wider && c.wider, narrower && c.narrower
	}
	switch {
	case wider:
		return ">"
	case narrower:
		return "<"
	case o.Text == n.Text:
		return "~"
	}
	return ""
}

// holdsAll: does condition a let through all that b does? None given is any.
func holdsAll[T comparable](a, b []T) bool {
	if len(a) == 0 {
		return true
	}
	return len(b) > 0 && !slices.ContainsFunc(b, func(v T) bool { return !slices.Contains(a, v) })
}

// covers tells whether pattern a surely matches all that b matches.
func covers(a, b string, kind profiles.Kind) bool {
	if kind != profiles.Exec && kind != profiles.Read && kind != profiles.Write {
		return false
	}
	if a == profiles.Image || b == profiles.Image {
		return false
	}
	pa, errA := pattern.Compile(a)
	pb, errB := pattern.Compile(b)
	if errA != nil || errB != nil {
		return false
	}
	if path, ok := pb.Exact(); ok {
		return pa.Match(path)
	}
	roots := pb.Roots()
	if len(roots) != 1 {
		return false
	}
	dir := strings.TrimSuffix(roots[0].Path, "/")
	switch b {
	case dir + "/**":
		return pa.CoversTree(roots[0].Path)
	case dir + "/*":
		return pa.CoversChildren(roots[0].Path)
	}
	// Whatever b is, it lies below its root.
	return pa.CoversTree(roots[0].Path)
}
