package apparmor_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/profiles/apparmor"
	"github.com/stockade-dev/stockade/profiles/pattern"
)

var target = profiles.Target{
	Kernel: "6.12", Arch: "amd64", Fanotify: profiles.Yes, FanotifyStack: profiles.Yes, SeccompNotify: profiles.Yes,
	MountSeal: profiles.Yes, AppArmor: profiles.Yes,
}

// generator makes profiles of few names, so that rules and paths meet often.
type generator struct{ *rand.Rand }

func (g generator) pick(list ...string) string { return list[g.IntN(len(list))] }

func (g generator) pattern() string {
	parts := []string{
		"a", "b", "c", "/", "/", "*", "**", "?", "[ab]", "[^a]", "[^a-c]", "{a,b}", "{,a}", "{a/,}", "{*,b}", "{b?,**}", `\*`, "ab/", "/b",
		" ", `"`, "'", "#", ",", "é", "\x01", "\n", `\\`, `\{`, `\[`, "^", "-", "+", "(", ".", "|", "$", "@", "[\\^-]", "[^\\^]", "@{x}", "%", "=", "[é]", "~", "\xff", "[-+]",
	}
	for {
		text := "/"
		for range 1 + g.IntN(7) {
			if g.IntN(3) == 0 {
				text += g.pick(parts...)
			} else {
				text += parts[g.IntN(19)]
			}
		}
		if _, err := pattern.Compile(text); err == nil {
			return text
		}
	}
}

func (g generator) path() string {
	names := []string{"a", "b", "ab", "ba", "c", "*", "a b", `"`, "é", "a\x01", `\`, "{", "[", "^", "-", "+", "(", ".a", "a,b", "#", "\n", "\xff", "$", "@{x}", "|", "a."}
	var b strings.Builder
	for range 1 + g.IntN(4) {
		b.WriteByte('/')
		n := 7
		if g.IntN(3) == 0 {
			n = len(names)
		}
		b.WriteString(names[g.IntN(n)])
		if g.IntN(3) == 0 {
			b.WriteString(names[g.IntN(n)])
		}
	}
	return b.String()
}

func (g generator) rules(most int) (list []profiles.Rule) {
	for range g.IntN(most + 1) {
		list = append(list, profiles.Rule{Text: g.pattern(), Field: "f" + strconv.Itoa(g.IntN(1000))})
	}
	return list
}

func (g generator) profile(extras bool) *profiles.Profile {
	p := &profiles.Profile{Name: "generated", Mode: profiles.ModeEnforce}
	p.Allow = profiles.Rules{Exec: g.rules(3), Read: g.rules(3), Write: g.rules(3)}
	p.Deny = profiles.Rules{Exec: g.rules(1), Read: g.rules(1), Write: g.rules(1)}
	p.AllowUnenforced = []string{"filesystem", "network", "mounts", "fileless"}
	if g.IntN(2) == 0 {
		p.Sessions = profiles.Rules{Exec: g.rules(2), Read: g.rules(1), Write: g.rules(1)}
	}
	if !extras {
		return p
	}
	escalation := g.IntN(2) == 0
	p.AllowPrivilegeEscalation = &escalation
	for range g.IntN(3) {
		path := g.pattern()
		if g.IntN(2) == 0 {
			path = pattern.Quote(g.path())
		}
		p.Programs = append(p.Programs, profiles.Program{
			Path: path, Allow: profiles.Rules{Exec: g.rules(1), Read: g.rules(2), Write: g.rules(1)},
			Deny: profiles.Rules{Read: g.rules(1)},
		})
	}
	for i := range p.Allow.Exec {
		if g.IntN(3) == 0 {
			p.Allow.Exec[i].From = []string{g.pick(pattern.Quote(g.path()), g.pattern())}
		}
		if g.IntN(5) == 0 {
			p.Allow.Exec[i].UID = []uint32{0}
		}
	}
	if g.IntN(4) == 0 {
		p.Allow.Read = append(p.Allow.Read, profiles.Rule{Text: profiles.Image})
	}
	if g.IntN(4) == 0 { // with @image to be read, and without
		p.Allow.Exec = append(p.Allow.Exec, profiles.Rule{Text: profiles.Image})
	}
	return p
}

func seed(t *testing.T) uint64 {
	if text := os.Getenv("STOCKADE_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return 1
}

// paths are those asked about: random ones, and some that patterns were made from.
func (g generator) paths(n int) (all []string) {
	for range n {
		all = append(all, g.path())
	}
	return all
}

// TestPlainProfilesMeanTheSame: without what AppArmor cannot say, the parser's automaton and Decide agree on every path,
// for the container's processes and for sessions.
func TestPlainProfilesMeanTheSame(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(seed(t), 1))}
	rounds := 60
	if testing.Short() {
		rounds = 15
	}
	asked, allowed := 0, 0
	for range rounds {
		p := g.profile(false)
		c := build(t, p)
		for _, session := range []bool{false, true} {
			name := c.text.Name
			if session {
				name = c.text.Session
			}
			for _, path := range g.paths(60) {
				for _, k := range []profiles.Kind{profiles.Exec, profiles.Read, profiles.Write} {
					a := profiles.Access{Kind: k, Path: path, Subject: profiles.Subject{Exe: "/zz", Session: session}}
					want := c.plan.Decide(&a).Allowed()
					got := c.allows(name, k, path)
					if got != want {
						t.Fatalf("%s %q (session %v): AppArmor %v, profile %v\n%s\n%s", k, path, session, got, want, p.YAML(), c.text.Body)
					}
					asked++
					if want {
						allowed++
					}
				}
			}
		}
	}
	t.Logf("%d questions, %d allowed", asked, allowed)
	if allowed < asked/50 {
		t.Error("the test is too weak")
	}
}

// TestNeverNarrower: whatever the profile allows passes AppArmor too; and where there is no gap they agree. Drift is no gap
// here: what is asked about is the image's, all of it.
func TestNeverNarrower(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(seed(t), 2))}
	rounds := 60
	if testing.Short() {
		rounds = 15
	}
	wider, allowed, agreed := 0, 0, 0
	for range rounds {
		p := g.profile(true)
		c := build(t, p)
		closed := true
		for _, gap := range c.text.Gaps {
			switch gap.Kind {
			case apparmor.GapNetwork, apparmor.GapSession, apparmor.GapAttributes, apparmor.GapDrift:
			default:
				closed = false
			}
		}
		paths := g.paths(40)
		exes := []string{"/zz"}
		for i := range p.Programs {
			if exe, ok := exact(t, p.Programs[i].Path); ok {
				exes = append(exes, exe)
			}
		}
		paths = append(paths, exes...)
		for _, exe := range exes {
			for _, session := range []bool{false, true} {
				name := c.profileOf(exe, session)
				for _, path := range paths {
					for _, k := range []profiles.Kind{profiles.Exec, profiles.Read, profiles.Write} {
						a := profiles.Access{Kind: k, Path: path, Image: true, Subject: profiles.Subject{Exe: exe, Session: session}}
						want := c.plan.Decide(&a).Allowed()
						got := c.allows(name, k, path)
						if want && !got || got && !want && closed {
							t.Fatalf("%s %q by %s (session %v, %s): AppArmor %v, profile %v\n%s\n%s\n%v", k, path, exe, session, name, got, want, p.YAML(), c.text.Body, c.text.Gaps)
						}
						if got && !want {
							wider++
						}
						if closed {
							agreed++
						}
						if want {
							allowed++
						}
					}
				}
			}
		}
	}
	t.Logf("%d allowed, %d asked without a gap, AppArmor wider in %d, each with one", allowed, agreed, wider)
	if allowed < 1000 || agreed < 500 {
		t.Error("the test is too weak")
	}
}

func exact(t *testing.T, text string) (string, bool) {
	p, err := pattern.Compile(text)
	if err != nil {
		t.Fatal(err)
	}
	return p.Exact()
}

// confined is a profile as both sides have it.
type confined struct {
	plan *profiles.Plan
	text *apparmor.Text
	dfas map[string]*automaton
}

func build(t *testing.T, p *profiles.Profile) *confined {
	t.Helper()
	plan, err := profiles.Compile(p, target)
	if err != nil {
		t.Fatalf("%v\n%s", err, p.YAML())
	}
	policy := profiles.AppArmor(p, plan)
	policy.ABI = "3.0"
	text, err := apparmor.Build(policy)
	if err != nil {
		t.Fatal(err)
	}
	out, err := parse(t, text.Body)
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, p.YAML(), text.Body)
	}
	dfas, err := automata(out)
	if err != nil {
		t.Fatal(err)
	}
	if dfas[text.Name] == nil || dfas[text.Session] == nil {
		t.Fatalf("no profile %s or %s among %d", text.Name, text.Session, len(dfas))
	}
	return &confined{plan, text, dfas}
}

// profileOf is the profile that a process of exe has.
func (c *confined) profileOf(exe string, session bool) string {
	home, kind := c.text.Name, "//p"
	if session && c.text.Session != c.text.Name {
		home, kind = c.text.Session, "//session-p"
	}
	comment := "# processes of " + strconv.QuoteToASCII(exe) + "\n"
	for rest := c.text.Body; ; {
		i := strings.Index(rest, comment)
		if i < 0 {
			return home
		}
		rest = rest[i+len(comment):]
		var name string
		fmt.Sscanf(rest, "  profile %s", &name)
		if strings.HasPrefix("//"+name, kind) {
			return c.text.Name + "//" + name
		}
	}
}

func (c *confined) allows(name string, k profiles.Kind, path string) bool {
	perms := c.dfas[name].perms(path)
	switch k {
	case profiles.Exec:
		return perms&mayExec != 0
	case profiles.Read:
		return perms&mayRead != 0
	default:
		return perms&(mayRead|mayWrite|mayLink) == mayRead|mayWrite|mayLink
	}
}
