package pattern

import (
	"errors"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/bmatcuk/doublestar/v4"
)

// asRegexp writes a pattern as apparmor_parser does for its own automaton. It shares nothing with the matcher.
func asRegexp(text string) *regexp.Regexp {
	var b strings.Builder
	b.WriteString(`(?s)^`)
	depth := 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '\\':
			i++
			b.WriteString(regexp.QuoteMeta(text[i : i+1]))
		case '*':
			j := i
			for j < len(text) && text[j] == '*' {
				j++
			}
			if text[i-1] == '/' && (j == len(text) || text[j] == '/') {
				b.WriteString(`[^/]`)
			}
			if j-i > 1 {
				b.WriteString(`.*`)
			} else {
				b.WriteString(`[^/]*`)
			}
			i = j - 1
		case '?':
			b.WriteString(`[^/]`)
		case '[':
			end := i + strings.IndexByte(text[i:], ']')
			b.WriteString(strings.Replace(text[i:end], "[^", "[^/", 1) + "]")
			i = end
		case '{':
			depth++
			b.WriteString(`(?:`)
		case '}':
			depth--
			b.WriteString(`)`)
		case ',':
			if depth > 0 {
				b.WriteString(`|`)
			} else {
				b.WriteString(`,`)
			}
		default:
			b.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	return regexp.MustCompile(b.String() + `$`)
}

// randomPattern makes patterns of few characters, so that random paths meet them often.
func randomPattern(r *rand.Rand) string {
	parts := []string{"a", "b", "a", "b", "/", "/", "*", "*", "**", "?", "[ab]", "[^a]", "{a,b}", "{,a}", "{a/,}", "{*,b}", "{b?,**}", `\*`, "ab/", "/b"}
	var b strings.Builder
	b.WriteByte('/')
	for range 1 + r.IntN(8) {
		b.WriteString(parts[r.IntN(len(parts))])
	}
	return b.String()
}

func randomPath(r *rand.Rand) string {
	names := []string{"a", "b", "ab", "ba", "aa", "c", "*", "abab", "."}
	var b strings.Builder
	for range 1 + r.IntN(5) {
		b.WriteByte('/')
		b.WriteString(names[r.IntN(len(names)-1)])
		if r.IntN(3) == 0 {
			b.WriteString(names[r.IntN(len(names))])
		}
	}
	return b.String()
}

// TestAgainstReference compares with regular expressions on everything, and with doublestar where it means the same:
// without **, which there stands for whole components, and without braces, after which it loses some matches.
func TestAgainstReference(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	paths := make([]string, 300)
	for i := range paths {
		paths[i] = randomPath(r)
	}
	compiled, matched := 0, 0
	for range 20000 {
		text := randomPattern(r)
		p, err := Compile(text)
		if err != nil {
			if e := (*Error)(nil); !errors.As(err, &e) {
				t.Fatalf("%s: %v", text, err)
			}
			continue
		}
		compiled++
		reference := asRegexp(text)
		single := !strings.Contains(text, "**") && !strings.Contains(text, "{")
		for range 40 {
			path := paths[r.IntN(len(paths))]
			got := p.Match(path)
			if want := reference.MatchString(path); got != want {
				t.Fatalf("%s on %s: %v, reference says %v", text, path, got, want)
			}
			if want := doublestar.MatchUnvalidated(strings.ReplaceAll(text, "[^", "[^/"), path); single && got != want {
				t.Fatalf("%s on %s: %v, doublestar says %v", text, path, got, want)
			}
			if got {
				matched++
			}
		}
	}
	if compiled < 5000 || matched < 10000 {
		t.Errorf("the test is too weak: %d patterns, %d matches", compiled, matched)
	}
}

// TestRefusedMatchNothing: what is refused for its path, and not for its form, must not match any path.
func TestRefusedMatchNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	refused := 0
	for range 20000 {
		text := randomPattern(r)
		if _, err := Compile(text); err == nil {
			continue
		}
		refused++
		reference := asRegexp(text)
		for range 20 {
			if path := randomPath(r); reference.MatchString(path) {
				t.Fatalf("%s is refused, but matches %s", text, path)
			}
		}
	}
	if refused < 1000 {
		t.Errorf("the test is too weak: %d refused", refused)
	}
}

func TestSetAgainstPatterns(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 200 {
		var patterns []*Pattern
		for len(patterns) < 1+r.IntN(60) {
			if p, err := Compile(randomPattern(r)); err == nil {
				patterns = append(patterns, p)
			}
		}
		s := SetOf(patterns)
		for range 100 {
			path := randomPath(r)
			found := map[int]bool{}
			s.Lookup(path, func(i int) bool { found[i] = true; return true })
			for i, p := range patterns {
				if p.Match(path) != found[i] {
					t.Fatalf("%s on %s: pattern says %v, set says %v", p, path, p.Match(path), found[i])
				}
			}
			if s.MatchAny(path) != (len(found) > 0) {
				t.Fatalf("MatchAny on %s disagrees with Lookup", path)
			}
		}
	}
}

// TestCoverAgainstMatch holds the cover functions to their safe side, and asks that they be of some use.
func TestCoverAgainstMatch(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	covered := 0
	for range 50000 {
		p, err := Compile(randomPattern(r))
		if err != nil {
			continue
		}
		dir := randomPath(r)
		if r.IntN(10) == 0 {
			dir = "/"
		}
		children, tree := p.CoversChildren(dir), p.CoversTree(dir)
		couldChild, couldBelow := p.CouldMatchChild(dir), p.CouldMatchBelow(dir)
		if children {
			covered++
		}
		for range 10 {
			below := strings.TrimSuffix(dir, "/") + randomPath(r)
			child := strings.Count(below, "/") == strings.Count(strings.TrimSuffix(dir, "/"), "/")+1
			switch matches := p.Match(below); {
			case tree && !matches:
				t.Fatalf("%s is said to cover the tree of %s, but not %s", p, dir, below)
			case children && child && !matches:
				t.Fatalf("%s is said to cover the children of %s, but not %s", p, dir, below)
			case matches && !couldBelow:
				t.Fatalf("%s is said not to match below %s, but matches %s", p, dir, below)
			case matches && child && !couldChild:
				t.Fatalf("%s is said not to match children of %s, but matches %s", p, dir, below)
			}
		}
	}
	if covered < 100 {
		t.Errorf("the test is too weak: %d covers", covered)
	}
}

func FuzzCompile(f *testing.F) {
	for _, seed := range []string{"/a/**/b", "/{a,b}[^c-d]?*", `/\*`, "/**/**/**", "/a{,b", "/[", "/é/*"} {
		f.Add(seed, "/a/b")
	}
	f.Fuzz(func(t *testing.T, text, path string) {
		p, err := Compile(text)
		if err != nil {
			if e := (*Error)(nil); !errors.As(err, &e) || e.Offset < 0 || e.Offset > len(text) {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if got := SetOf([]*Pattern{p}).MatchAny(path); got != p.Match(path) {
			t.Fatalf("%q on %q: set %v, pattern %v", text, path, got, !got)
		}
		if exact, ok := p.Exact(); ok && !p.Match(exact) {
			t.Fatalf("%q does not match its own path %q", text, exact)
		}
		dir := path
		if i := strings.LastIndexByte(path, '/'); i > 0 {
			dir = path[:i]
		}
		if len(path) > len(dir)+1 && path[0] == '/' && p.Match(path) && !strings.Contains(path, "//") && !p.CouldMatchChild(dir) && dir != path {
			t.Fatalf("%q matches %q, but not said to below %q", text, path, dir)
		}
	})
}
