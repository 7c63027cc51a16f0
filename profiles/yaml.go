package profiles

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// Digest is "sha256:" and the hex sha256 of the canonical form.
func (p *Profile) Digest() string {
	sum := sha256.Sum256(p.YAML())
	return "sha256:" + hex.EncodeToString(sum[:])
}

// YAML returns the canonical form: fields in a fixed order, rules sorted and given once, what is not given left out.
// Parse gives the same profile back.
func (p *Profile) YAML() []byte {
	w := &writer{}
	w.line(0, "apiVersion: "+APIVersion)
	w.line(0, "kind: "+DocumentKind)
	w.line(0, "metadata:")
	w.line(1, "name: "+scalar(p.Name))
	w.line(0, "spec:")
	before := w.b.Len()
	w.match(p.Match)
	w.flow(1, "extends", p.Extends)
	if p.Mode != ModeUnset {
		w.line(1, "mode: "+p.Mode.String())
	}
	if p.OnViolation != 0 {
		w.line(1, "onViolation: "+p.OnViolation.String())
	}
	if p.AllowPrivilegeEscalation != nil {
		w.line(1, fmt.Sprintf("allowPrivilegeEscalation: %t", *p.AllowPrivilegeEscalation))
	}
	w.flow(1, "allowUnenforced", p.AllowUnenforced)
	w.rules(1, "allow:", &p.Allow)
	w.rules(1, "deny:", &p.Deny)
	w.programs(p.Programs)
	if !p.Sessions.empty() {
		w.line(1, "sessions:")
		w.rules(2, "allow:", &p.Sessions)
	}
	if w.b.Len() == before {
		return []byte(strings.TrimSuffix(w.b.String(), "spec:\n") + "spec: {}\n")
	}
	return []byte(w.b.String())
}

// writer writes YAML blocks, two spaces a level.
type writer struct{ b strings.Builder }

func (w *writer) line(level int, text string) {
	for range level {
		w.b.WriteString("  ")
	}
	w.b.WriteString(text)
	w.b.WriteByte('\n')
}

// flow writes a sorted list on one line, if there is anything in it.
func (w *writer) flow(level int, key string, list []string) {
	if len(list) > 0 {
		w.line(level, key+": "+flowList(list))
	}
}

func flowList(list []string) string {
	list = slices.Clone(list)
	slices.Sort(list)
	list = slices.Compact(list)
	for i := range list {
		list[i] = scalar(list[i])
	}
	return "[" + strings.Join(list, ", ") + "]"
}

func (w *writer) match(m *Match) {
	if m.empty() {
		return
	}
	w.line(1, "match:")
	w.flow(2, "images", m.Images)
	w.flow(2, "namespaces", m.Namespaces)
	if len(m.Labels) > 0 {
		w.line(2, "podSelector:")
		w.line(3, "matchLabels:")
		for _, key := range sortedKeys(m.Labels) {
			w.line(4, scalar(key)+": "+scalar(m.Labels[key]))
		}
	}
	w.flow(2, "containers", m.Containers)
}

func (m *Match) empty() bool {
	return m == nil || len(m.Images)+len(m.Namespaces)+len(m.Labels)+len(m.Containers) == 0
}

func (w *writer) rules(level int, key string, r *Rules) {
	if r.empty() {
		return
	}
	w.line(level, key)
	for _, k := range kinds {
		list := r.Of(k)
		if len(list) == 0 {
			continue
		}
		w.line(level+1, k.field()+":")
		keys := make([]string, len(list))
		for i := range list {
			keys[i] = list[i].key()
		}
		slices.Sort(keys)
		for _, key := range slices.Compact(keys) {
			for i, text := range strings.Split(key, "\n") {
				if i == 0 {
					w.line(level+2, "- "+text)
				} else {
					w.line(level+3, text)
				}
			}
		}
	}
}

// key is the rule as it stands in the canonical form; rules with the same key say the same.
func (r *Rule) key() string {
	text := scalar(r.Text)
	if len(r.From)+len(r.UID) == 0 && r.SHA256 == "" {
		return text
	}
	var b strings.Builder
	b.WriteString("path: " + text)
	if r.SHA256 != "" {
		b.WriteString("\nsha256: " + scalar(r.SHA256))
	}
	if len(r.From) > 0 {
		b.WriteString("\nfrom: " + flowList(r.From))
	}
	if len(r.UID) > 0 {
		ids := slices.Clone(r.UID)
		slices.Sort(ids)
		b.WriteString("\nuid: " + strings.ReplaceAll(fmt.Sprint(slices.Compact(ids)), " ", ", "))
	}
	return b.String()
}

func (w *writer) programs(programs []Program) {
	if len(programs) == 0 {
		return
	}
	sorted := slices.Clone(programs)
	slices.SortStableFunc(sorted, func(a, b Program) int { return strings.Compare(a.Path, b.Path) })
	w.line(1, "programs:")
	for i := range sorted {
		w.line(2, "- path: "+scalar(sorted[i].Path))
		w.rules(3, "allow:", &sorted[i].Allow)
		w.rules(3, "deny:", &sorted[i].Deny)
	}
}

// scalar writes a string plainly where YAML surely reads it as that string, else in double quotes.
func scalar(text string) string {
	if plain(text) {
		return text
	}
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < 0x20 || r == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0x7f:
			b.WriteRune(r)
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// reserved are the words which some YAML reader takes for something else than a string.
var reserved = []string{"true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf"}

func plain(text string) bool {
	if text == "" || slices.Contains(reserved, strings.ToLower(text)) {
		return false
	}
	if c := text[0]; c != '/' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
		return false
	}
	for i := range len(text) {
		c := text[i]
		if c != '/' && c != '.' && c != '_' && c != '-' && c != '+' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return true
}
