package profiles

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// fieldReaders are what the keys of a mapping are read with.
type fieldReaders = map[string]func(n ast.Node, field string)

// Parse reads the profiles of a file; name is what errors call it. All mistakes of the file are reported, joined, each
// an *Error with its place; then there are no profiles.
func Parse(file string, data []byte) ([]*Profile, error) {
	r := &reader{file: file}
	var all []*Profile
	names := map[string]*Profile{}
	documents := r.documents(data)
	for _, n := range documents {
		p := r.profile(n)
		if first, twice := names[p.Name]; twice && p.Name != "" {
			r.fail(n, "metadata.name", fmt.Sprintf("a second profile is named %s, the first in line %d", p.Name, first.Position.Line), "give each a name of its own")
		}
		names[p.Name] = p
		all = append(all, p)
	}
	if len(documents) == 0 && len(r.errs) == 0 {
		r.add(Position{File: file}, "", "no profile in it", "begin with apiVersion: "+APIVersion)
	}
	if len(r.errs) > 0 {
		return nil, errors.Join(r.errs...)
	}
	return all, nil
}

func (r *reader) profile(n ast.Node) *Profile {
	p := &Profile{Position: r.position(start(n))}
	given := map[string]bool{}
	must := func(want string) func(ast.Node, string) {
		return func(n ast.Node, field string) {
			given[field] = true
			if text, ok := r.text(n, field); ok && text != want {
				r.fail(n, field, quote(text)+" is not known", "write "+want)
			}
		}
	}
	r.fields(n, "", fieldReaders{
		"apiVersion": must(APIVersion),
		"kind":       must(DocumentKind),
		"metadata": func(n ast.Node, field string) {
			given[field] = true
			r.fields(n, field, fieldReaders{"name": func(n ast.Node, field string) { p.Name = r.name(n, field) }})
			if _, isMap := n.(ast.MapNode); isMap && p.Name == "" && !hasKey(n, "name") {
				r.fail(n, "metadata.name", "it is missing", "name the profile")
			}
		},
		"spec": func(n ast.Node, field string) {
			given[field] = true
			r.spec(n, field, p)
		},
	})
	if _, isMap := n.(ast.MapNode); isMap {
		for _, field := range []string{"apiVersion", "kind", "metadata", "spec"} {
			if !given[field] {
				r.add(p.Position, field, "it is missing", map[string]string{
					"apiVersion": "write apiVersion: " + APIVersion, "kind": "write kind: " + DocumentKind,
					"metadata": "write metadata: {name: ...}", "spec": "write what the container may do",
				}[field])
			}
		}
	}
	return p
}

func hasKey(n ast.Node, key string) bool {
	m, ok := n.(ast.MapNode)
	if !ok {
		return false
	}
	for it := m.MapRange(); it.Next(); {
		if it.Key().GetToken().Value == key {
			return true
		}
	}
	return false
}

func (r *reader) name(n ast.Node, field string) string {
	text, ok := r.text(n, field)
	if ok && !dnsLabel(text) {
		r.fail(n, field, quote(text)+" is not a name", "use a-z, 0-9 and -, at most 63 characters, the first and the last not - (DNS-1123)")
	}
	return text
}

func dnsLabel(text string) bool {
	if text == "" || len(text) > 63 || text[0] == '-' || text[len(text)-1] == '-' {
		return false
	}
	for i := range len(text) {
		if c := text[i]; c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

func (r *reader) spec(n ast.Node, field string, p *Profile) {
	r.fields(n, field, fieldReaders{
		"match":   func(n ast.Node, field string) { p.Match = r.match(n, field) },
		"extends": func(n ast.Node, field string) { p.Extends = r.names(n, field, "name a profile or leave extends out") },
		"mode": func(n ast.Node, field string) {
			p.Mode = Mode(r.word(n, field, modeNames[1:]...))
		},
		"onViolation": func(n ast.Node, field string) {
			p.OnViolation = []Action{0, Kill, Deny, Freeze}[r.word(n, field, "kill", "deny", "freeze")]
		},
		"allowPrivilegeEscalation": func(n ast.Node, field string) { p.AllowPrivilegeEscalation = r.boolean(n, field) },
		"allowUnenforced": func(n ast.Node, field string) {
			for i, item := range r.list(n, field) {
				if w := r.word(item, index(field, i), unenforceable...); w > 0 {
					p.AllowUnenforced = append(p.AllowUnenforced, unenforceable[w-1])
				}
			}
		},
		"allow":    func(n ast.Node, field string) { p.Allow = r.rules(n, field, ofContainer) },
		"deny":     func(n ast.Node, field string) { p.Deny = r.rules(n, field, ofContainer|denied) },
		"programs": func(n ast.Node, field string) { p.Programs = r.programs(n, field) },
		"sessions": func(n ast.Node, field string) {
			r.fields(n, field, fieldReaders{
				"allow": func(n ast.Node, field string) { p.Sessions = r.rules(n, field, 0) },
			})
		},
	})
}

func (r *reader) names(n ast.Node, field, want string) []string {
	var all []string
	for i, item := range r.filled(n, field, want) {
		all = append(all, r.name(item, index(field, i)))
	}
	return all
}

const emptyMatch = "an empty list holds for nothing: leave it out to hold for anything"

func (r *reader) match(n ast.Node, field string) *Match {
	m := &Match{}
	r.fields(n, field, fieldReaders{
		"images": func(n ast.Node, field string) {
			for i, item := range r.filled(n, field, emptyMatch) {
				m.Images = append(m.Images, r.image(item, index(field, i)))
			}
		},
		"namespaces": func(n ast.Node, field string) { m.Namespaces = r.names(n, field, emptyMatch) },
		"containers": func(n ast.Node, field string) { m.Containers = r.names(n, field, emptyMatch) },
		"podSelector": func(n ast.Node, field string) {
			r.fields(n, field, fieldReaders{
				"matchLabels": func(n ast.Node, field string) { m.Labels = r.labels(n, field) },
			})
		},
	})
	if m.empty() {
		return nil
	}
	return m
}

func (r *reader) image(n ast.Node, field string) string {
	text, ok := r.text(n, field)
	if ok && strings.ContainsAny(text, " \t\n?[]{}\\") {
		r.fail(n, field, quote(text)+" is not an image", "write a reference, as in docker.io/library/redis:7*; * stands for any characters")
	}
	return text
}

func (r *reader) labels(n ast.Node, field string) map[string]string {
	labels := map[string]string{}
	for _, p := range r.mapping(n, field) {
		if p.key == "" || strings.ContainsAny(p.key, " \t\n\"") {
			r.fail(p.at, field, quote(p.key)+" is not a label", "write key: value, as in app: redis")
			continue
		}
		if s, ok := p.value.(*ast.StringNode); ok {
			labels[p.key] = s.Value // a label may be empty
		} else if text, ok := r.text(p.value, join(field, p.key)); ok {
			labels[p.key] = text
		}
	}
	return labels
}

func (r *reader) programs(n ast.Node, field string) []Program {
	var all []Program
	first := map[string]int{}
	for i, item := range r.list(n, field) {
		at := index(field, i)
		p := Program{Field: at, Position: r.position(start(item))}
		r.fields(item, at, fieldReaders{
			"path":  func(n ast.Node, field string) { p.Path = r.pattern(n, field) },
			"allow": func(n ast.Node, field string) { p.Allow = r.rules(n, field, 0) },
			"deny":  func(n ast.Node, field string) { p.Deny = r.rules(n, field, denied) },
		})
		if _, isMap := item.(ast.MapNode); !isMap {
			continue
		}
		line, twice := first[p.Path]
		switch {
		case !hasKey(item, "path"):
			r.fail(item, join(at, "path"), "it is missing", "write the executable's path")
		case twice && p.Path != "":
			r.fail(item, at, fmt.Sprintf("%s is declared twice, first in line %d", p.Path, line), "write its rules in one place")
		case !hasKey(item, "allow") && !hasKey(item, "deny"):
			r.fail(item, at, "a program without rules", "write allow or deny, or leave it out")
		}
		first[p.Path] = p.Line
		all = append(all, p)
	}
	return all
}
