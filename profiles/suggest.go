package profiles

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/stockade-dev/stockade/profiles/pattern"
)

// Suggest says which line of the profile would have let this access pass, for example
//
//	spec.allow.exec: ["/bin/sh"]
//
// or which one would have to go. It says what would be enough, not that it would be wise.
func (p *Plan) Suggest(a *Access) string {
	v := p.Decide(a)
	if v.Allowed() && v.Action != Report {
		return "nothing: it is allowed"
	}
	field := "spec.allow." + a.Kind.field()
	if a.Kind == Exec && a.Subject.SessionRoot {
		field = "spec.sessions.allow.exec"
	}
	switch v.Reason {
	case ReasonDenyRule:
		return "without " + v.Rule.String()
	case ReasonSHA256:
		digest := a.SHA256
		if digest == "" {
			digest = "<the file's sha256>"
		}
		return fmt.Sprintf("%s: [{path: %s, sha256: %s}] in place of %s", field, doubleQuoted(v.Rule.Text), digest, v.Rule)
	case ReasonFrom:
		if a.Subject.Exe == "" { // the container's or session's first program: the runtime called it
			return fmt.Sprintf("%s: [%s], without from: no program of the container called it", field, doubleQuoted(v.Rule.Text))
		}
		return fmt.Sprintf("from: [%s] in %s", doubleQuoted(asPattern(a.Subject.Exe)), v.Rule)
	case ReasonUID:
		return fmt.Sprintf("uid: [%d] in %s", a.Subject.UID, v.Rule)
	case ReasonArguments:
		return fmt.Sprintf("%s: [%s] (with any arguments)", field, doubleQuoted(a.Name))
	}
	switch a.Kind {
	case Exec, Read, Write:
		return fmt.Sprintf("%s: [%s]", field, doubleQuoted(asPattern(a.Path)))
	default:
		return fmt.Sprintf("%s: [%s]", field, doubleQuoted(a.Name))
	}
}

// asPattern is a pattern for this path. Bytes that are not UTF-8 cannot be written in YAML; ? stands for each.
func asPattern(path string) string {
	var b strings.Builder
	for len(path) > 0 {
		r, n := utf8.DecodeRuneInString(path)
		if r == utf8.RuneError && n == 1 {
			b.WriteByte('?')
		} else {
			b.WriteString(pattern.Quote(path[:n]))
		}
		path = path[n:]
	}
	return b.String()
}

func doubleQuoted(text string) string {
	s := scalar(text)
	if !strings.HasPrefix(s, `"`) {
		s = `"` + s + `"`
	}
	return s
}
