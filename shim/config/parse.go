package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// Error is one mistake in the file. Line and Column count from 1; 0 means the
// file as a whole.
type Error struct {
	File         string
	Line, Column int
	Field        string // "incidentLimit.bytes"
	Problem      string
	Want         string // what would be right
}

func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", e.Line, e.Column)
	}
	b.WriteString(": ")
	if e.Field != "" {
		b.WriteString(e.Field + ": ")
	}
	b.WriteString(e.Problem)
	if e.Want != "" {
		b.WriteString("; want " + e.Want)
	}
	return b.String()
}

// Parse reads a configuration from data; file is used in errors only. The
// errors are joined *[Error] values.
func Parse(file string, data []byte) (Config, error) {
	p := &reader{file: file}
	c := Default()
	tree, err := parser.ParseBytes(data, 0)
	if err != nil {
		return Config{}, p.syntax(err)
	}
	seen := false
	for _, doc := range tree.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.CommentType || doc.Body.Type() == ast.NullType {
			continue
		}
		if seen {
			p.fail(doc.Body, "", "a second document", "one document")
			break
		}
		seen = true
		p.mapping(doc.Body, "", c.fields())
	}
	if len(p.errs) > 0 {
		return Config{}, errors.Join(p.errs...)
	}
	return c, nil
}

// set stores one value, or says what would be right.
type set func(p *reader, field string, n ast.Node)

func (c *Config) fields() map[string]set {
	return map[string]set{
		"profiles":  absolute(&c.Profiles, false),
		"cluster":   absolute(&c.Cluster, false),
		"lastGood":  absolute(&c.LastGood, false),
		"incidents": absolute(&c.Incidents, false),
		"state":     absolute(&c.State, false),
		"guard":     absolute(&c.Guard, true),
		"noProfile": c.setNoProfile,
		"incidentLimit": func(p *reader, field string, n ast.Node) {
			p.mapping(n, field, map[string]set{"count": c.setCount, "bytes": c.setBytes})
		},
		"raiseLimits":   boolean(&c.RaiseLimits),
		"selectionKey":  absolute(&c.SelectionKey, false),
		"requirePlugin": boolean(&c.RequirePlugin),
	}
}

func (c *Config) setNoProfile(p *reader, field string, n ast.Node) {
	const want = "refuse, monitor or run"
	s, ok := p.text(n, field, want)
	if !ok {
		return
	}
	switch v := NoProfile(s); v {
	case Refuse, Monitor, Run:
		c.NoProfile = v
	default:
		p.fail(n, field, fmt.Sprintf("is %q", s), want)
	}
}

func (c *Config) setCount(p *reader, field string, n ast.Node) {
	const want = "a number of files, 1 to 1000000"
	i, ok := integer(n)
	if !ok || i < 1 || i > 1_000_000 {
		p.fail(n, field, "is "+found(n), want)
		return
	}
	c.IncidentLimit.Count = int(i)
}

func (c *Config) setBytes(p *reader, field string, n ast.Node) {
	const want = "a size of at least 64KiB, such as 256MiB"
	size, ok := integer(n)
	if s, isText := n.(*ast.StringNode); isText {
		var err error
		size, err = ParseSize(s.Value)
		ok = err == nil
	}
	if !ok || size < 64<<10 {
		p.fail(n, field, "is "+found(n), want)
		return
	}
	c.IncidentLimit.Bytes = size
}

// absolute stores a clean absolute path.
func absolute(dst *string, emptyOK bool) set {
	return func(p *reader, field string, n ast.Node) {
		s, ok := p.text(n, field, "an absolute path")
		if !ok {
			return
		}
		if s == "" && emptyOK {
			*dst = ""
			return
		}
		if !filepath.IsAbs(s) || strings.ContainsRune(s, 0) {
			p.fail(n, field, fmt.Sprintf("%q is not absolute", s), "an absolute path")
			return
		}
		*dst = filepath.Clean(s)
	}
}

func boolean(dst *bool) set {
	return func(p *reader, field string, n ast.Node) {
		b, ok := n.(*ast.BoolNode)
		if !ok {
			p.fail(n, field, "is "+found(n), "true or false")
			return
		}
		*dst = b.Value
	}
}

// reader collects the mistakes of one file.
type reader struct {
	file string
	errs []error
}

func (p *reader) fail(n ast.Node, field, problem, want string) {
	e := &Error{File: p.file, Field: field, Problem: problem, Want: want}
	if t := n.GetToken(); t != nil && t.Position != nil {
		e.Line, e.Column = t.Position.Line, t.Position.Column
	}
	p.errs = append(p.errs, e)
}

func (p *reader) syntax(err error) error {
	e := &Error{File: p.file, Problem: err.Error()}
	var ye yaml.Error
	if errors.As(err, &ye) {
		e.Problem = ye.GetMessage()
		if t := ye.GetToken(); t != nil && t.Position != nil {
			e.Line, e.Column = t.Position.Line, t.Position.Column
		}
	}
	return e
}

func (p *reader) mapping(n ast.Node, field string, fields map[string]set) {
	m, ok := n.(ast.MapNode)
	if !ok {
		p.fail(n, field, "is "+found(n), "keys and values")
		return
	}
	for it := m.MapRange(); it.Next(); {
		key := it.Key().String()
		name := strings.TrimPrefix(field+"."+key, ".")
		if store, known := fields[key]; known {
			store(p, name, it.Value())
		} else {
			p.fail(it.Key(), name, "unknown key", keys(fields))
		}
	}
}

func (p *reader) text(n ast.Node, field, want string) (string, bool) {
	s, ok := n.(*ast.StringNode)
	if !ok {
		p.fail(n, field, "is "+found(n), want)
		return "", false
	}
	return s.Value, true
}
