package incident

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxField bounds each text of an incident, and the sum of a command line, in
// bytes. Linux lets a process have two megabytes of arguments.
const MaxField = 16 << 10

// maxCause keeps Cause well below the 4096 bytes that Kubernetes keeps of a
// termination message.
const maxCause = 1024

// Safe returns s with everything that a terminal might act on, or that looks
// like something else, written as an escape: control characters, bytes that are
// not UTF-8, invisible and direction-changing characters, and the backslash
// itself, so that the result is unambiguous.
func Safe(s string) string {
	if isSafe(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\\':
			b.WriteString(`\\`)
		case strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
		i += n
	}
	return b.String()
}

func isSafe(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '\\' {
			return false
		}
	}
	return true
}

// Cause says in one line what happened, for the container's termination
// message and the log:
//
//	stockade: killed: exec /bin/sh is not declared (profile redis, to allow it: spec.allow.exec: ["/bin/sh"])
//
// The line is safe for a terminal and at most about a kilobyte long.
func Cause(inc *Incident) string {
	if inc.Action == Lost {
		return fmt.Sprintf("stockade: %d incidents could not be written", inc.Lost)
	}
	if inc.Action == NotReloaded {
		return shorten(fmt.Sprintf("stockade: not reloaded: the container keeps profile %s as it was: %s", Safe(inc.Profile), Safe(inc.Reason)), maxCause)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "stockade: %s: %s %s", Safe(inc.Action), Safe(inc.Access.Kind), shorten(Safe(inc.Access.Object()), 400))
	switch {
	case inc.Rule == "" && (inc.Reason == "" || inc.Reason == "not declared"):
		b.WriteString(" is not declared")
	default:
		b.WriteString(": " + Safe(inc.Reason))
	}
	if inc.Session {
		b.WriteString(" in an exec session")
	}
	fmt.Fprintf(&b, " (profile %s", Safe(inc.Profile))
	if inc.Rule != "" {
		b.WriteString(", rule " + shorten(Safe(inc.Rule), 200))
	}
	if inc.Suggestion != "" && inc.Suggestion != "without "+inc.Rule { // which says no more than the rule itself
		if s := Safe(inc.Suggestion); len(s) <= 400 {
			b.WriteString(", to allow it: " + s)
		}
	}
	b.WriteString(")")
	return shorten(b.String(), maxCause)
}

// Object is what the access was about: a path, a syscall, or nothing.
func (a Access) Object() string {
	if a.Path != "" {
		return a.Path
	}
	return a.Syscall
}

// shorten cuts s to about limit bytes, at a character, and says so.
func shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	cut := limit
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return fmt.Sprintf("%s...(%d bytes more)", s[:cut], len(s)-cut)
}

// bounded returns inc as it is written: valid UTF-8, nothing longer than
// MaxField. The slices are copied, never changed: they may be the caller's.
func bounded(inc Incident) Incident {
	for _, s := range []*string{
		&inc.Node, &inc.Namespace, &inc.Container, &inc.Image, &inc.Profile, &inc.Digest, &inc.Mode, &inc.Action,
		&inc.Pod.Namespace, &inc.Pod.Name, &inc.Pod.UID, &inc.Pod.Container, &inc.Rule, &inc.Reason, &inc.Suggestion,
		&inc.Access.Kind, &inc.Access.Path, &inc.Access.Syscall, &inc.Access.Flags, &inc.Access.ViaMount,
		&inc.Subject.Comm, &inc.Subject.Exe, &inc.Subject.Cwd,
	} {
		*s = field(*s, MaxField)
	}
	inc.Access.Args = fields(inc.Access.Args)
	inc.Subject.Cmdline = fields(inc.Subject.Cmdline)
	parents := make([]Parent, 0, min(len(inc.Parents), 64))
	for _, p := range inc.Parents[:min(len(inc.Parents), 64)] {
		parents = append(parents, Parent{PID: p.PID, Comm: field(p.Comm, 4096), Exe: field(p.Exe, 4096)})
	}
	inc.Parents = parents
	return inc
}

func fields(in []string) []string {
	var out []string
	left := MaxField
	for i, s := range in {
		if left <= 0 {
			return append(out, fmt.Sprintf("...(%d more)", len(in)-i))
		}
		s = field(s, left)
		left -= len(s) + 1
		out = append(out, s)
	}
	return out
}

func field(s string, limit int) string {
	s = shorten(s, limit)
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			fmt.Fprintf(&b, `\x%02x`, s[i])
		} else {
			b.WriteRune(r)
		}
		i += n
	}
	return b.String()
}
