package profiles

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"github.com/stockade-dev/stockade/profiles/pattern"
	"github.com/stockade-dev/stockade/profiles/seccomp"
)

// place says which rules make sense in a list of verbs.
type place uint8

const (
	ofContainer place = 1 << iota // else: of programs or sessions
	denied                        // else: allow
)

func (r *reader) rules(n ast.Node, field string, where place) Rules {
	var rules Rules
	known := fieldReaders{}
	for _, k := range kinds {
		known[k.field()] = func(n ast.Node, field string) {
			if where&ofContainer == 0 && (k == Syscall || k == Capability) {
				r.fail(n, field, k.field()+" hold for the whole container", "declare them in spec.allow or spec.deny")
				return
			}
			list := rules.list(k)
			for i, item := range r.list(n, field) {
				if rule, ok := r.rule(item, index(field, i), k, where); ok {
					*list = append(*list, rule)
				}
			}
		}
	}
	r.fields(n, field, known)
	return rules
}

// rule reads one line: a text, or a mapping of path and conditions.
func (r *reader) rule(n ast.Node, field string, k Kind, where place) (Rule, bool) {
	rule := Rule{Field: field, Position: r.position(start(n))}
	before := len(r.errs)
	if _, isMap := n.(ast.MapNode); !isMap {
		rule.Text = r.ruleText(n, field, k, where)
		return rule, len(r.errs) == before
	}
	if k != Exec && k != Read && k != Write {
		r.fail(n, field, "it is a mapping", "write the "+k.String()+" by itself")
		return rule, false
	}
	onlyExec := func(read func(ast.Node, string)) func(ast.Node, string) {
		return func(n ast.Node, field string) {
			if k != Exec {
				r.fail(n, field, "this narrows exec rules only", "for one program's "+k.String()+" rules use spec.programs")
				return
			}
			read(n, field)
		}
	}
	r.fields(n, field, fieldReaders{
		"path":   func(n ast.Node, field string) { rule.Text = r.ruleText(n, field, k, where) },
		"from":   onlyExec(func(n ast.Node, field string) { rule.From = r.from(n, field) }),
		"uid":    onlyExec(func(n ast.Node, field string) { rule.UID = r.uids(n, field) }),
		"sha256": onlyExec(func(n ast.Node, field string) { rule.SHA256 = r.sha256(n, field, where) }),
	})
	if !hasKey(n, "path") {
		r.fail(n, join(field, "path"), "it is missing", "write the path this is about")
	}
	if len(r.errs) > before {
		return rule, false
	}
	if problem, want := rule.checkSHA256(); problem != "" {
		r.fail(n, join(field, "sha256"), problem, want)
	}
	return rule, len(r.errs) == before
}

// checkSHA256 says whether the digest can be meant for what the rule names.
func (r *Rule) checkSHA256() (problem, want string) {
	if r.SHA256 == "" {
		return "", ""
	}
	if r.Text == Image {
		return "one digest cannot be that of every file of the image", "write an exact path"
	}
	if p, err := pattern.Compile(r.Text); err == nil {
		if _, exact := p.Exact(); !exact {
			return "one digest cannot be that of every file a pattern matches", "write an exact path"
		}
	}
	return "", ""
}

func (r *reader) ruleText(n ast.Node, field string, k Kind, where place) string {
	switch k {
	case Exec, Read:
		if s, ok := n.(*ast.StringNode); ok && strings.HasPrefix(s.Value, "@") {
			return r.set(n, field, s.Value, where)
		}
		return r.pattern(n, field)
	case Write:
		if s, ok := n.(*ast.StringNode); ok && s.Value == Image {
			r.fail(n, field, "a file of the image that is written is not unchanged since", "write the paths")
			return ""
		}
		return r.pattern(n, field)
	}
	text, ok := r.text(n, field)
	if !ok {
		return ""
	}
	problem, want := "", ""
	switch k {
	case Syscall:
		problem, want = checkSyscall(text, where)
	case Capability:
		problem, want = checkCapability(text)
		text = capability(text)
	default:
		_, problem, want = parseEndpoint(text, k)
	}
	if problem != "" {
		r.fail(n, field, problem, want)
	}
	return text
}

func (r *reader) set(n ast.Node, field, text string, where place) string {
	switch {
	case text != Image:
		r.fail(n, field, quote(text)+" is not known", "write "+Image+" or an absolute path")
	case where&denied != 0:
		r.fail(n, field, Image+" cannot be denied", "what is not allowed is denied: leave it out of allow")
	}
	return text
}

func checkSyscall(text string, where place) (problem, want string) {
	if where&denied != 0 && strings.HasPrefix(text, "@") {
		return "a set cannot be denied", "what is not allowed is denied: name the syscalls"
	}
	if err := seccomp.Check(text); err != nil {
		return err.Error(), ""
	}
	return "", ""
}

// pattern reads a path or pattern.
func (r *reader) pattern(n ast.Node, field string) string {
	text, ok := r.text(n, field)
	if !ok {
		return ""
	}
	var bad *pattern.Error
	if _, err := pattern.Compile(text); errors.As(err, &bad) {
		problem := bad.Problem
		if bad.Offset > 0 {
			problem = "character " + strconv.Itoa(bad.Offset+1) + " of " + quote(text) + ": " + problem
		}
		at := r.position(n.GetToken())
		if n.GetToken().Type == token.StringType && !strings.Contains(text, "\n") {
			at.Column += bad.Offset
		}
		r.add(at, field, problem, bad.Want)
	}
	return text
}

func (r *reader) from(n ast.Node, field string) []string {
	var all []string
	for i, item := range r.filled(n, field, "name the callers or leave from out") {
		all = append(all, r.pattern(item, index(field, i)))
	}
	return all
}

func (r *reader) uids(n ast.Node, field string) []uint32 {
	var all []uint32
	for i, item := range r.filled(n, field, "name the user ids or leave uid out") {
		if v, ok := item.(*ast.IntegerNode); ok {
			text := v.GetToken().Value // 010 is eight to some readers of YAML and ten to others
			if id, err := strconv.ParseUint(text, 10, 32); err == nil && id != 1<<32-1 && text == strconv.FormatUint(id, 10) {
				all = append(all, uint32(id))
				continue
			}
		}
		r.fail(item, index(field, i), "it is not a user id", "write a decimal number from 0 to 4294967294")
	}
	return all
}

func (r *reader) sha256(n ast.Node, field string, where place) string {
	if where&denied != 0 {
		r.fail(n, field, "bytes cannot be denied by their digest: one changed byte evades it", "deny the path")
		return ""
	}
	text, ok := r.text(n, field)
	if ok && !isSHA256(text) {
		r.fail(n, field, quote(text)+" is not a sha256", "write 64 characters of 0-9 and a-f, as sha256sum prints")
	}
	return text
}

func isSHA256(text string) bool {
	return len(text) == 64 && !slices.ContainsFunc([]byte(text), func(c byte) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'f')
	})
}

// start is the token a node begins with; that of a mapping is its first key, not its colon.
func start(n ast.Node) *token.Token {
	if m, ok := n.(ast.MapNode); ok {
		if mapping, ok := n.(*ast.MappingNode); ok && mapping.IsFlowStyle {
			return mapping.Start
		}
		if it := m.MapRange(); it.Next() {
			return it.Key().GetToken()
		}
	}
	return n.GetToken()
}
