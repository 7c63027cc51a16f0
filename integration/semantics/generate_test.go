package semantics

import (
	"fmt"
	"math/rand/v2"
	"path"
	"strings"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/profiles/pattern"
)

// top is where all of it happens: a volume.
const top = "/t"

// names are few, so that rules and paths meet often; some are awkward.
var names = []string{"a", "b", "ab", "c", "a b", ".a", "é", `a"b`, "[a]", "*"}

// question is one thing to try.
type question struct {
	op   byte
	path string
}

// kinds say what each operation is to a profile.
var kinds = map[byte]profiles.Kind{
	'r': profiles.Read, 'w': profiles.Write, 'c': profiles.Write, 'x': profiles.Exec,
	'u': profiles.Write, 'd': profiles.Write, 'm': profiles.Write, 't': profiles.Write,
}

type generator struct{ *rand.Rand }

func (g generator) pick(list []string) string { return list[g.IntN(len(list))] }

// pattern is below top, mostly; the parser of patterns has the last word.
func (g generator) pattern() string {
	parts := []string{"/a", "/b", "/ab", "/*", "/*", "/**", "/**", "/**", "/?", "/[ab]", "/[^a]", "/{a,b}", "/a*", "/{a,ab}b", `/a\ b`, "/.*", "/é", `/\*`, "/?b", "/**/a", "/**b"}
	for {
		text := top
		for range 1 + g.IntN(3) {
			text += g.pick(parts)
		}
		if _, err := pattern.Compile(text); err == nil {
			return text
		}
	}
}

func (g generator) rules(most int) (list []profiles.Rule) {
	for range g.IntN(most + 1) {
		list = append(list, profiles.Rule{Text: g.pattern()})
	}
	return list
}

// profile allows the probe itself, and something of what it will try. Rules of programs and conditions of execs are
// what AppArmor cannot tell apart under no_new_privs, and fanotify does.
func (g generator) profile(name string) *profiles.Profile {
	p := &profiles.Profile{Name: name, Mode: profiles.ModeEnforce, OnViolation: profiles.Deny, AllowUnenforced: []string{"filesystem"}}
	p.Allow = profiles.Rules{Exec: append(g.rules(4), profiles.Rule{Text: "/bin/probe"}), Read: g.rules(4), Write: g.rules(4)}
	p.Deny = profiles.Rules{Exec: g.rules(1), Read: g.rules(1), Write: g.rules(1)}
	for i := range len(p.Allow.Exec) - 1 {
		switch g.IntN(6) {
		case 0:
			p.Allow.Exec[i].From = []string{g.pick([]string{"/bin/probe", "/bin/*", "/bin/other"})}
		case 1:
			p.Allow.Exec[i].UID = []uint32{uint32(g.IntN(2))}
		}
	}
	if g.IntN(2) == 0 {
		p.Programs = append(p.Programs, profiles.Program{
			Path:  g.pick([]string{"/bin/probe", "/bin/other", "/bin/*"}),
			Allow: profiles.Rules{Exec: g.rules(1), Read: append(g.rules(1), profiles.Rule{Text: g.pattern()}), Write: g.rules(1)},
			Deny:  profiles.Rules{Read: g.rules(1), Write: g.rules(1)},
		})
	}
	if g.IntN(3) == 0 {
		p.Allow.Read = append(p.Allow.Read, profiles.Rule{Text: profiles.Image})
	}
	if g.IntN(3) == 0 { // with @image to be read, and without
		p.Allow.Exec = append(p.Allow.Exec, profiles.Rule{Text: profiles.Image})
	}
	return p
}

// tree is the files that are there, below top.
func tree() (files []string) {
	for _, dir := range []string{"", "/a", "/b", "/a/b", "/a/b/a", "/ab", "/a b"} {
		for _, name := range names {
			if f := top + dir + "/" + name + "f"; true {
				files = append(files, f)
			}
		}
		for _, name := range []string{"c", ".a", "é", "*"} {
			files = append(files, top+dir+"/"+name)
		}
	}
	return files
}

// questions ask about every file in several ways, then about names that are not there, and at the end remove.
func (g generator) questions(n int) (all []question) {
	files := tree()
	for range n {
		all = append(all, question{"rrrwwxxmt"[g.IntN(9)], g.pick(files)})
	}
	made := map[string]bool{}
	for range n / 4 {
		name := path.Join(path.Dir(g.pick(files)), fmt.Sprintf("%s%d", g.pick(names), len(made)%7)+strings.Repeat("b", g.IntN(2)))
		if !made[name] {
			made[name] = true
			all = append(all, question{"cd"[g.IntN(2)], name})
		}
	}
	for _, i := range g.Perm(len(files))[:min(n/4, len(files))] {
		all = append(all, question{'u', files[i]})
	}
	return all
}
