package pattern

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	tests := []struct {
		pattern string
		yes, no []string
	}{
		{"/usr/bin/env", []string{"/usr/bin/env"}, []string{"/usr/bin/env2", "/usr/bin/en", "/usr/bin", "/usr/bin/env/x", ""}},
		{"/data/**", []string{"/data/a", "/data/a/b", "/data/.a", "/data/...", "/data/\n"}, []string{"/data", "/database", "/dat/a"}},
		{"/data**", []string{"/data", "/data/a", "/database/x"}, []string{"/dat"}},
		{"/a/**/b", []string{"/a/x/b", "/a/x/y/b", "/a/b/b"}, []string{"/a/b", "/a/xb", "/a/x/b/c"}},
		{"/a/**b", []string{"/a/b", "/a/x/b", "/a/xb"}, []string{"/a/x", "/a"}},
		{"/a/*", []string{"/a/b", "/a/.b", "/a/b c"}, []string{"/a", "/a/b/c", "/ab"}},
		{"/a/*/c", []string{"/a/b/c"}, []string{"/a/c", "/a/b/b/c"}},
		{"/a/b*", []string{"/a/b", "/a/bc"}, []string{"/a/b/c", "/a/c"}},
		{"/a/*b", []string{"/a/b", "/a/cb", "/a/bb"}, []string{"/a/b/b", "/a/bc"}},
		{"/a/*.so*", []string{"/a/x.so", "/a/.so", "/a/x.so.1"}, []string{"/a/so", "/a/x/y.so"}},
		{"/a/***", []string{"/a/b", "/a/b/c"}, []string{"/a"}},
		{"/a/b**c*d", []string{"/a/bcd", "/a/b/c/cxd", "/a/bxcyd"}, []string{"/a/bc/d", "/a/bd"}},
		{"/**", []string{"/a", "/a/b"}, []string{"", "/"}},
		{"/*", []string{"/a"}, []string{"/", "/a/b"}},
		{"/**/x", []string{"/a/x", "/a/b/x"}, []string{"/x", "/a/xx"}},
		{"/a?c", []string{"/abc", "/a.c"}, []string{"/ac", "/a/c", "/abbc"}},
		{"/a/?", []string{"/a/b"}, []string{"/a", "/a/bc"}},
		{"/tty[0-9]", []string{"/tty0", "/tty9"}, []string{"/ttya", "/tty", "/tty10"}},
		{"/tty[^0-9]", []string{"/ttya", "/tty-"}, []string{"/tty0", "/tty/"}},
		{"/a[^x]b", []string{"/ayb"}, []string{"/a/b", "/axb"}},
		{"/[a-]x", []string{"/ax", "/-x"}, []string{"/bx"}},
		{`/[\]]x`, []string{"/]x"}, []string{`/\x`}},
		{`/[a\-c]x`, []string{"/-x", "/ax", "/cx"}, []string{"/bx"}},
		{"/{a,b}/c", []string{"/a/c", "/b/c"}, []string{"/c", "/ab/c"}},
		{"/{usr/,}bin/*", []string{"/usr/bin/a", "/bin/a"}, []string{"/usr/a"}},
		{"/lib{,64}/x", []string{"/lib/x", "/lib64/x"}, []string{"/lib32/x"}},
		{"/a{*.so,/**}", []string{"/ab.so", "/a/b/c"}, []string{"/a", "/ab"}},
		{`/a\*b`, []string{"/a*b"}, []string{"/axb"}},
		{`/a\{b,c\}`, []string{"/a{b,c}"}, []string{"/ab"}},
		{"/a,b", []string{"/a,b"}, nil},
		{"/a/{**,b}/c", []string{"/a/x/y/c", "/a/b/c"}, []string{"/a/c"}},
		{"/é?", []string{"/éx"}, []string{"/éé"}},
	}
	for _, tt := range tests {
		p, err := Compile(tt.pattern)
		if err != nil {
			t.Errorf("%s: %v", tt.pattern, err)
			continue
		}
		s := SetOf([]*Pattern{p})
		for _, path := range tt.yes {
			if !p.Match(path) || !s.MatchAny(path) {
				t.Errorf("%s should match %q", tt.pattern, path)
			}
		}
		for _, path := range tt.no {
			if p.Match(path) || s.MatchAny(path) {
				t.Errorf("%s should not match %q", tt.pattern, path)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	tests := []struct {
		pattern string
		offset  int
		problem string
	}{
		{"", 0, "empty"},
		{"usr/bin", 0, "not absolute"},
		{"*", 0, "not absolute"},
		{"**/x", 0, "not absolute"},
		{"/", 0, "root directory"},
		{"/a/", 2, "/ at the end"},
		{"/a//b", 2, "empty component"},
		{"/a/../b", 3, "component .."},
		{"/a/./b", 3, "component ."},
		{"/a/..", 3, "component .."},
		{"/a[b", 2, "[ without"},
		{"/a[", 2, "[ without"},
		{"/a[]", 2, "empty class"},
		{"/a[^]", 2, "empty class"},
		{"/a[!b]", 3, "! at the start"},
		{"/a[z-a]", 3, "backwards"},
		{"/a[+-9]", 3, "holds /"},
		{"/a[/]", 3, "holds /"},
		{"/a[é]", 3, "ASCII"},
		{"/a]", 2, "closes nothing"},
		{"/a}", 2, "closes nothing"},
		{"/a{b", 2, "{ without"},
		{"/a{b}", 2, "one alternative"},
		{"/a{b,{c,d}}", 5, "braces within"},
		{`/a\`, 2, "nothing after"},
		{`/a[\`, 3, "nothing after"},
		{"/a\x00", 2, "NUL"},
		{"/a/{,.}/b", 2, "empty component"},
		{"/" + strings.Repeat("{a,b}", 9), 45, "512 combinations"},
		{"/" + strings.Repeat("a", 256), 1, "name of 256"},
		{"/" + strings.Repeat("a/", 2047) + "a", 4095, "4096 bytes"},
	}
	for _, tt := range tests {
		_, err := Compile(tt.pattern)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%q: got %v, want an error about %q", tt.pattern, err, tt.problem)
			continue
		}
		if e.Offset != tt.offset || !strings.Contains(e.Problem, tt.problem) || e.Want == "" {
			t.Errorf("%q: got %q at %d, wanted %q at %d", tt.pattern, e.Problem, e.Offset, tt.problem, tt.offset)
		}
	}
}

func TestRoots(t *testing.T) {
	tests := []struct {
		pattern string
		roots   []Root
		prefix  string
	}{
		{"/data/**", []Root{{"/data", false}}, "/data/"},
		{"/data*", []Root{{"/", false}}, "/data"},
		{"/run/redis.pid", []Root{{"/run/redis.pid", true}}, "/run/redis.pid"},
		{"/{a,b}/c/*", []Root{{"/a/c", false}, {"/b/c", false}}, "/"},
		{"/a/{b*,c*}", []Root{{"/a", false}}, "/a/"},
		{`/a\*/b?`, []Root{{"/a*", false}}, "/a*/b"},
	}
	for _, tt := range tests {
		p, err := Compile(tt.pattern)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Roots(); !slices.Equal(got, tt.roots) {
			t.Errorf("%s: roots %v, want %v", tt.pattern, got, tt.roots)
		}
		if got := p.Prefix(); got != tt.prefix {
			t.Errorf("%s: prefix %q, want %q", tt.pattern, got, tt.prefix)
		}
		var apart []Root
		for _, one := range p.Combinations() {
			if r := one.Roots(); len(r) != 1 {
				t.Errorf("%s: a combination with the roots %v", tt.pattern, r)
			} else if !slices.Contains(apart, r[0]) {
				apart = append(apart, r[0])
			}
		}
		if !slices.Equal(apart, tt.roots) {
			t.Errorf("%s: roots of its combinations %v, want %v", tt.pattern, apart, tt.roots)
		}
	}
}

func TestCover(t *testing.T) {
	tests := []struct {
		pattern, dir                           string
		children, tree, couldChild, couldBelow bool
	}{
		{"/data/**", "/data", true, true, true, true},
		{"/data/**", "/data/x", true, true, true, true},
		{"/data/**", "/", false, false, false, true},
		{"/data/**", "/database", false, false, false, false},
		{"/data/*", "/data", true, false, true, true},
		{"/data/*", "/data/x", false, false, false, false},
		{"/data/*.so", "/data", false, false, true, true},
		{"/data/?*", "/data", true, false, true, true},
		{"/data/**/x", "/data", false, false, false, true},
		{"/data/**/x", "/data/y", false, false, true, true},
		{"/data**", "/data", true, true, true, true},
		{"/**", "/", true, true, true, true},
		{"/*", "/", true, false, true, true},
		{"/etc/shadow", "/etc", false, false, true, true},
		{"/etc/shadow", "/", false, false, false, true},
		{"/etc/shadow", "/etc/shadow", false, false, false, false},
		{"/etc/ssl/key", "/etc", false, false, false, true},
		{"/{a,b}/**", "/b", true, true, true, true},
		{"/a/[^x]*", "/a", false, false, true, true},
	}
	for _, tt := range tests {
		p, err := Compile(tt.pattern)
		if err != nil {
			t.Fatal(err)
		}
		got := [4]bool{p.CoversChildren(tt.dir), p.CoversTree(tt.dir), p.CouldMatchChild(tt.dir), p.CouldMatchBelow(tt.dir)}
		if want := [4]bool{tt.children, tt.tree, tt.couldChild, tt.couldBelow}; got != want {
			t.Errorf("%s on %s: got %v, want %v", tt.pattern, tt.dir, got, want)
		}
	}
}

func TestQuote(t *testing.T) {
	for _, path := range []string{"/bin/sh", "/a*b", `/a\b`, "/[x]", "/{a,b}", "/a?", "/ä\n"} {
		p, err := Compile(Quote(path))
		if err != nil {
			t.Errorf("%q: %v", path, err)
			continue
		}
		if got, ok := p.Exact(); !ok || got != path {
			t.Errorf("%q: quoted it matches %q (%v)", path, got, ok)
		}
	}
}

func TestSetFindsEveryIndex(t *testing.T) {
	texts := []string{"/a/b", "/a/*", "/**/b", "/a/b", "/x", "/a/?", "/**", "/{a,c}/b"}
	s, err := NewSet(texts)
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	s.Lookup("/a/b", func(i int) bool { got = append(got, i); return true })
	slices.Sort(got)
	if want := []int{0, 1, 2, 3, 5, 6, 7}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if _, err := NewSet([]string{"/a", "b"}); err == nil {
		t.Error("a wrong pattern was taken")
	}
	empty := SetOf(nil)
	if empty.MatchAny("/a") {
		t.Error("an empty set matches")
	}
}
