// Package pattern matches file paths against the patterns of a profile.
//
// A pattern is an absolute path in which some characters stand for others. The meaning is AppArmor's (apparmor.d(5),
// "Globbing"), so that one rule means one thing in every mechanism:
//
//   - any number of characters of one path component, dotfiles included
//     ?       one character (byte), not /
//     **      any number of characters, / included
//     [a-z]   one character of the class; [^a-z] one that is not of it and not /
//     {a,b}   one of the alternatives, which may hold / and wildcards but no further braces
//     \x      the character x itself
//
// A path component is never empty: where a run of stars is a whole component it stands for one character or more, the
// first of them not /. So /data/** is everything strictly below /data, and /a/**/b matches /a/x/b and /a/x/y/b but
// not /a/b.
//
// Limits. Matching is by bytes, as in AppArmor: ? is one byte of a multi-byte character. Paths must be clean, as the
// kernel's are: absolute, no //, no . or .., no / at the end. A pattern has at most 4095 bytes (PATH_MAX) and its
// braces stand for at most 256 combinations. Two things which AppArmor accepts are refused, because they surprise: a
// class that could match /, and braces within braces.
//
// Matching takes time proportional to the path's length, whatever the pattern; it allocates nothing. Patterns and sets
// are immutable and may be shared.
package pattern

import (
	"fmt"
	"strings"
)

// Error says why a text is not a pattern.
type Error struct {
	Pattern string
	Offset  int    // of the byte in Pattern that is wrong, from 0
	Problem string // what is wrong
	Want    string // what would be right
}

func (e *Error) Error() string {
	return fmt.Sprintf("pattern %q, character %d: %s; %s", e.Pattern, e.Offset+1, e.Problem, e.Want)
}

// Pattern is a compiled pattern.
type Pattern struct {
	text  string
	globs []glob // one for each combination of the braces
}

// Compile parses a pattern. Its errors are of type *Error.
func Compile(text string) (*Pattern, error) {
	sequences, err := parse(text)
	if err != nil {
		return nil, err
	}
	p := &Pattern{text: text, globs: make([]glob, len(sequences))}
	for i, toks := range sequences {
		p.globs[i] = newGlob(toks)
	}
	return p, nil
}

// String returns the text the pattern was compiled from.
func (p *Pattern) String() string { return p.text }

// Match reports whether the pattern matches the whole path.
func (p *Pattern) Match(path string) bool {
	for i := range p.globs {
		if p.globs[i].match(path) {
			return true
		}
	}
	return false
}

// Exact reports whether the pattern matches one path and no other, and returns this path.
func (p *Pattern) Exact() (string, bool) {
	if len(p.globs) == 1 && p.globs[0].shape == exact {
		return p.globs[0].prefix, true
	}
	return "", false
}

// Prefix is the beginning which all paths that match have in common, as far as the pattern's text shows it.
func (p *Pattern) Prefix() string {
	prefix := p.globs[0].prefix
	for i := range p.globs[1:] {
		prefix = commonPrefix(prefix, p.globs[i+1].prefix)
	}
	return prefix
}

// Root is a place in the tree that a pattern reaches: an exact path, or the directory below which its wildcards begin.
type Root struct {
	Path  string
	Exact bool
}

// Roots returns the roots of the pattern, one for each combination of its braces, without repetition.
func (p *Pattern) Roots() []Root {
	var roots []Root
	for i := range p.globs {
		root := p.globs[i].root()
		if !contains(roots, root) {
			roots = append(roots, root)
		}
	}
	return roots
}

// Combinations returns the pattern taken apart by its braces: what one of them matches the pattern matches, and each has
// one root. The text of each is that of the whole.
func (p *Pattern) Combinations() []*Pattern {
	all := make([]*Pattern, len(p.globs))
	for i := range p.globs {
		all[i] = &Pattern{p.text, p.globs[i : i+1]}
	}
	return all
}

// Quote returns a pattern that matches this path only.
func Quote(path string) string {
	if !strings.ContainsAny(path, special) {
		return path
	}
	var b strings.Builder
	for i := range len(path) {
		if strings.IndexByte(special, path[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(path[i])
	}
	return b.String()
}

const special = `*?[]{}\,`

func commonPrefix(a, b string) string {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return a[:i]
		}
	}
	return a[:n]
}

func contains(roots []Root, root Root) bool {
	for _, r := range roots {
		if r == root {
			return true
		}
	}
	return false
}
