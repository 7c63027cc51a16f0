package profiles

import (
	"math/rand/v2"
	"strings"
	"testing"
)

func TestCover(t *testing.T) {
	plan := mustCompile(t, mustParse(t, document(`  allowUnenforced: [filesystem]
  allow:
    exec: ["/usr/bin/*"]
    read: ["/lib/**", "/etc/*", "/opt/*/x", "/srv/**"]
    write: ["/data/**", "/tmp/*"]
  deny:
    read: [/etc/shadow, /data/a/secret]
    write: ["/data/b/*.conf", "/srv/x"]
  programs:
    - path: /p
      allow: {read: ["/prog/**"]}
      deny: {read: [/lib/private/key]}
  sessions: {allow: {read: ["/home/**"]}}
`)), full)
	tests := []struct {
		dir       string
		dirCover  Cover
		treeCover Cover
	}{
		{"/lib", CoverRead, CoverNone}, // a program may not read /lib/private/key
		{"/lib/x", CoverRead, CoverRead},
		{"/lib/private", CoverNone, CoverNone},
		{"/etc", CoverNone, CoverNone},
		{"/etc/ssl", CoverNone, CoverNone},
		{"/usr/bin", CoverRead, CoverNone},
		{"/data", CoverWrite, CoverNone},
		{"/data/a", CoverNone, CoverNone},
		{"/data/b", CoverRead, CoverRead},
		{"/data/c", CoverWrite, CoverWrite},
		{"/tmp", CoverWrite, CoverNone},
		{"/tmp/x", CoverNone, CoverNone},
		{"/srv", CoverRead, CoverRead},
		{"/prog", CoverNone, CoverNone},
		{"/home", CoverNone, CoverNone},
		{"/dev/pts", CoverWrite, CoverNone},
		{"/", CoverNone, CoverNone},
	}
	for _, tt := range tests {
		if got := plan.CoverDir(tt.dir); got != tt.dirCover {
			t.Errorf("children of %s: got %s, want %s", tt.dir, got, tt.dirCover)
		}
		if got := plan.CoverTree(tt.dir); got != tt.treeCover {
			t.Errorf("tree of %s: got %s, want %s", tt.dir, got, tt.treeCover)
		}
	}
	image := mustCompile(t, mustParse(t, document("  allow: {read: [\"@image\", \"/proc/**\"]}\n  deny: {read: [/etc/shadow]}\n")), full)
	for dir, want := range map[string]Cover{"/usr": CoverImage, "/etc": CoverNone, "/proc": CoverRead} {
		if got := image.CoverDir(dir); got != want {
			t.Errorf("with @image, children of %s: got %s, want %s", dir, got, want)
		}
	}
}

// TestCoverAgainstDecide: what is covered is silenced in the kernel, so a cover must never promise more than Decide
// gives to every subject.
func TestCoverAgainstDecide(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	path := func(names ...string) string {
		var b strings.Builder
		for range 1 + r.IntN(3) {
			b.WriteString("/" + names[r.IntN(len(names))])
		}
		return b.String()
	}
	rules := func(most int) Rules {
		var all Rules
		for _, k := range []Kind{Exec, Read, Write} {
			for range r.IntN(most) {
				*all.list(k) = append(*all.list(k), Rule{Text: path("a", "b", "*", "**", "a*", "?", "{a,b}")})
			}
		}
		return all
	}
	subjects := []Subject{{}, {Exe: "/a"}, {Exe: "/b", UID: 1}, {Session: true}}
	covered := 0
	for range 500 {
		p := &Profile{Name: "x", AllowUnenforced: unenforceable, Allow: rules(4), Deny: rules(2), Sessions: rules(2)}
		if r.IntN(3) == 0 {
			p.Allow.Read = append(p.Allow.Read, Rule{Text: Image})
		}
		p.Programs = []Program{{Path: "/a", Allow: rules(2), Deny: rules(2)}}
		plan := mustCompile(t, p, full)
		for range 60 {
			dir := path("a", "b", "c")
			below := dir + path("a", "b", "c", "ab")
			tree, children, own := plan.CoverTree(dir), CoverNone, plan.CoverPath(below)
			if strings.Count(below, "/") == strings.Count(dir, "/")+1 {
				children = plan.CoverDir(dir)
			}
			cover := max(tree, children, own)
			if cover > CoverNone {
				covered++
			}
			for _, s := range subjects {
				read := plan.Decide(&Access{Kind: Read, Path: below, Subject: s, Image: cover == CoverImage})
				write := plan.Decide(&Access{Kind: Write, Path: below, Subject: s})
				if cover > CoverNone && read.Action != Allow || cover == CoverWrite && write.Action != Allow {
					t.Fatalf("%s: cover %s (tree %s, children %s, path %s) but %+v gets %s, %s\n%s", below, cover, tree, children, own, s, read.Reason, write.Reason, p.YAML())
				}
			}
		}
	}
	if covered < 1000 {
		t.Errorf("the test is too weak: %d covers", covered)
	}
}

// TestDecideAgainstRules compares Decide with the rules applied one after the other, as their text says.
func TestDecideAgainstRules(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	path := func(names ...string) string {
		var b strings.Builder
		for range 1 + r.IntN(3) {
			b.WriteString("/" + names[r.IntN(len(names))])
		}
		return b.String()
	}
	list := func(most int) []Rule {
		var all []Rule
		for range r.IntN(most) {
			all = append(all, Rule{Text: path("a", "b", "*", "**", "a*", "?", "{a,b}")})
		}
		return all
	}
	for range 500 {
		p := &Profile{Name: "x", AllowUnenforced: unenforceable}
		p.Allow = Rules{Exec: list(3), Read: list(4), Write: list(3)}
		p.Deny = Rules{Exec: list(2), Read: list(2), Write: list(2)}
		plan := mustCompile(t, p, full)
		for range 60 {
			a := Access{Path: path("a", "b", "c", "ab")}
			matches := func(lists ...[]Rule) bool {
				for _, rules := range lists {
					for _, rule := range rules {
						if compiled(t, rule.Text).Match(a.Path) {
							return true
						}
					}
				}
				return false
			}
			for kind, want := range map[Kind]bool{
				Exec:  matches(p.Allow.Exec) && !matches(p.Deny.Exec),
				Read:  matches(p.Allow.Exec, p.Allow.Read, p.Allow.Write) && !matches(p.Deny.Read),
				Write: matches(p.Allow.Write) && !matches(p.Deny.Read, p.Deny.Write),
			} {
				a.Kind = kind
				if got := plan.Decide(&a); got.Allowed() != want {
					t.Fatalf("%s %s: got %s (%s)\n%s", kind, a.Path, got.Action, got.Reason, p.YAML())
				}
			}
		}
	}
}
