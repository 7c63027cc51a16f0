package profiles

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// generator makes random profiles that are right.
type generator struct{ *rand.Rand }

func (g generator) pick(words ...string) string { return words[g.IntN(len(words))] }

func (g generator) some(n int, make func() string) []string {
	var all []string
	for range g.IntN(n + 1) {
		all = append(all, make())
	}
	return all
}

func (g generator) path() string {
	names := []string{"a", "bin", "lib64", "*", "**", "[a-c]x", "{a,b}", "?", `\*`, "é", "with space", "new\nline", "#x", "a: b", "'", `"`, "*.so", "true", "\x01", "\u2028"}
	var b strings.Builder
	for range 1 + g.IntN(4) {
		b.WriteString("/" + names[g.IntN(len(names))])
	}
	return b.String()
}

func (g generator) rules(conditions bool) Rules {
	var r Rules
	for _, k := range []Kind{Exec, Read, Write} {
		for _, text := range g.some(3, g.path) {
			rule := Rule{Text: text}
			if k == Exec && conditions && g.IntN(2) == 0 {
				rule.From = g.some(2, g.path)
				for range g.IntN(3) {
					rule.UID = append(rule.UID, g.Uint32N(3000))
				}
			}
			if k == Exec && conditions && g.IntN(4) == 0 {
				rule.Text, rule.SHA256 = "/pinned", strings.Repeat(g.pick("0", "12e4", "ab")[:1], 64)
			}
			*r.list(k) = append(*r.list(k), rule)
		}
	}
	if g.IntN(3) == 0 {
		r.Read = append(r.Read, Rule{Text: "@image"})
	}
	address := func() string {
		return g.pick("tcp/80", "udp/1-2", "tcp/*", "tcp/10.0.0.0/8:6379", "tcp/[::]/0:443", "unix@x y", "unix/run/*.sock")
	}
	for _, text := range g.some(2, address) {
		r.Listen = append(r.Listen, Rule{Text: text})
		r.Connect = append(r.Connect, Rule{Text: text})
	}
	return r
}

func (g generator) profile() *Profile {
	p := &Profile{
		Name: g.pick("redis", "x", "1", "0x1f", "true", "a-b"), Mode: Mode(g.IntN(4)), OnViolation: []Action{0, Kill, Deny, Freeze}[g.IntN(4)],
		Extends:         g.some(2, func() string { return g.pick("base", "no", "7") }),
		AllowUnenforced: g.some(2, func() string { return unenforceable[g.IntN(len(unenforceable))] }),
		Allow:           g.rules(true), Deny: g.rules(false), Sessions: g.rules(true),
	}
	p.Deny.Read = slices.DeleteFunc(p.Deny.Read, func(r Rule) bool { return r.Text == Image })
	for _, name := range g.some(3, func() string { return capabilityNames[g.IntN(len(capabilityNames))] }) {
		p.Allow.Capabilities = append(p.Allow.Capabilities, Rule{Text: name})
	}
	for _, name := range g.some(3, func() string { return g.pick("@default", "open", "read") }) {
		p.Allow.Syscalls = append(p.Allow.Syscalls, Rule{Text: name})
	}
	if g.IntN(2) == 0 {
		yes := g.IntN(2) == 0
		p.AllowPrivilegeEscalation = &yes
	}
	if g.IntN(2) == 0 {
		p.Match = &Match{Images: []string{"docker.io/*", "x@sha256:ab"}, Namespaces: []string{"on", "12"}}
		p.Match.Labels = map[string]string{g.pick("app", "a.b/c", "y"): g.pick("", "true", "1", "redis")}
	}
	if g.IntN(2) == 0 {
		p.Programs = []Program{{Path: g.path(), Allow: Rules{Read: []Rule{{Text: g.path()}}}}}
	}
	return p
}

// bare removes positions, sorts and removes repetitions: what is left is what the profile says.
func bare(p *Profile) *Profile {
	c := p.clone()
	c.Position = Position{}
	words := func(list []string) []string {
		list = slices.Clone(list)
		slices.Sort(list)
		return slices.Compact(list)
	}
	c.Extends, c.AllowUnenforced = words(c.Extends), words(c.AllowUnenforced)
	if m := c.Match; m != nil {
		c.Match = &Match{Images: words(m.Images), Namespaces: words(m.Namespaces), Containers: words(m.Containers), Labels: m.Labels}
	}
	lists := []*Rules{&c.Allow, &c.Deny, &c.Sessions}
	for i := range c.Programs {
		c.Programs[i].Position, c.Programs[i].Field = Position{}, ""
		lists = append(lists, &c.Programs[i].Allow, &c.Programs[i].Deny)
	}
	for _, rules := range lists {
		for _, k := range kinds {
			list := rules.list(k)
			for i := range *list {
				r := &(*list)[i]
				r.Position, r.Field, r.From = Position{}, "", words(r.From)
				r.UID = slices.Clone(r.UID)
				slices.Sort(r.UID)
				r.UID = slices.Compact(r.UID)
			}
			slices.SortFunc(*list, func(a, b Rule) int { return strings.Compare(a.key(), b.key()) })
			*list = slices.CompactFunc(*list, func(a, b Rule) bool { return a.key() == b.key() })
			if len(*list) == 0 {
				*list = nil
			}
		}
	}
	return c
}

func TestParseOfYAMLIsIdentity(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(1, 2))}
	for range 2000 {
		p := g.profile()
		text := p.YAML()
		all, err := Parse("x.yaml", text)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if len(all) != 1 || !reflect.DeepEqual(bare(all[0]), bare(p)) {
			t.Fatalf("got %+v\nwanted %+v\nfrom\n%s", bare(all[0]), bare(p), text)
		}
		if again := all[0].YAML(); !bytes.Equal(again, text) {
			t.Fatalf("got\n%s\nwanted\n%s", again, text)
		}
	}
}

func TestDigestIgnoresOrder(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(3, 4))}
	for range 200 {
		p := g.profile()
		q := p.clone()
		for _, rules := range []*Rules{&q.Allow, &q.Deny, &q.Sessions} {
			for _, k := range kinds {
				list := *rules.list(k)
				g.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
				if len(list) > 0 {
					*rules.list(k) = append(list, list[0])
				}
			}
		}
		if p.Digest() != q.Digest() {
			t.Fatalf("digests differ:\n%s\n%s", p.YAML(), q.YAML())
		}
	}
}

func TestDigestSeesEveryField(t *testing.T) {
	yes := true
	seen := map[string]string{}
	for name, p := range map[string]*Profile{
		"nothing":     {},
		"name":        {Name: "x"},
		"mode":        {Mode: ModeEnforce},
		"violation":   {OnViolation: Deny},
		"escalation":  {AllowPrivilegeEscalation: &yes},
		"unenforced":  {AllowUnenforced: []string{"network"}},
		"extends":     {Extends: []string{"a"}},
		"images":      {Match: &Match{Images: []string{"a"}}},
		"namespaces":  {Match: &Match{Namespaces: []string{"a"}}},
		"containers":  {Match: &Match{Containers: []string{"a"}}},
		"labels":      {Match: &Match{Labels: map[string]string{"a": "b"}}},
		"allow exec":  {Allow: Rules{Exec: []Rule{{Text: "/a"}}}},
		"allow read":  {Allow: Rules{Read: []Rule{{Text: "/a"}}}},
		"deny exec":   {Deny: Rules{Exec: []Rule{{Text: "/a"}}}},
		"session":     {Sessions: Rules{Exec: []Rule{{Text: "/a"}}}},
		"from":        {Allow: Rules{Exec: []Rule{{Text: "/a", From: []string{"/b"}}}}},
		"uid":         {Allow: Rules{Exec: []Rule{{Text: "/a", UID: []uint32{0}}}}},
		"sha256":      {Allow: Rules{Exec: []Rule{{Text: "/a", SHA256: strings.Repeat("0", 64)}}}},
		"program":     {Programs: []Program{{Path: "/a", Allow: Rules{Read: []Rule{{Text: "/b"}}}}}},
		"program not": {Programs: []Program{{Path: "/a", Deny: Rules{Read: []Rule{{Text: "/b"}}}}}},
	} {
		d := p.Digest()
		if other, twice := seen[d]; twice {
			t.Errorf("%s and %s have the same digest", name, other)
		}
		seen[d] = name
	}
}

func FuzzParse(f *testing.F) {
	g := generator{rand.New(rand.NewPCG(5, 6))}
	for range 20 {
		f.Add(g.profile().YAML())
	}
	f.Add([]byte(document("  allow: {exec: [{path: /a, uid: [0x1]}]}\n")))
	f.Add([]byte("a: 1\n---\n---\nb"))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := Parse("x.yaml", data)
		if err != nil {
			if all != nil || len(mistakes(t, err)) == 0 {
				t.Fatalf("%v with %d profiles", err, len(all))
			}
			return
		}
		for _, p := range all {
			text := p.YAML()
			again, err := Parse("x.yaml", text)
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			if !reflect.DeepEqual(bare(again[0]), bare(p)) || !bytes.Equal(again[0].YAML(), text) {
				t.Fatalf("not the same again:\n%s\n%s", text, again[0].YAML())
			}
			if _, err := Compile(p, full); err != nil && fmt.Sprint(err) == "" {
				t.Fatal("an error without text")
			}
		}
	})
}
