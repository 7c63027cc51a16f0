package profiles

import (
	"fmt"
	"testing"

	"github.com/stockade-dev/stockade/profiles/pattern"
)

func compiled(t testing.TB, text string) *pattern.Pattern {
	t.Helper()
	p, err := pattern.Compile(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// large is a profile of 10 000 rules as learning might make it: mostly exact paths, some literal beginnings, a few
// leading wildcards, some conditions.
func large() *Profile {
	p := &Profile{Name: "large", AllowUnenforced: unenforceable}
	add := func(list *[]Rule, rule Rule) {
		rule.Field, rule.Position = fmt.Sprintf("spec.x[%d]", len(*list)), Position{File: "large.yaml", Line: len(*list) + 1, Column: 9}
		*list = append(*list, rule)
	}
	for i := range 10000 {
		switch i % 20 {
		case 0:
			add(&p.Allow.Write, Rule{Text: fmt.Sprintf("/var/lib/app/shard%d/**", i)})
		case 1:
			add(&p.Allow.Read, Rule{Text: fmt.Sprintf("/usr/lib/x86_64-linux-gnu/lib%d.so.*", i)})
		case 2:
			add(&p.Allow.Read, Rule{Text: fmt.Sprintf("/**/cache-%d.db", i)})
		case 3:
			add(&p.Deny.Read, Rule{Text: fmt.Sprintf("/var/lib/app/shard%d/*.key", i-3)})
		case 4, 5:
			add(&p.Allow.Exec, Rule{Text: fmt.Sprintf("/usr/bin/tool%d", i)})
		case 6:
			add(&p.Allow.Exec, Rule{Text: fmt.Sprintf("/usr/libexec/tool%d", i), From: []string{"/usr/bin/tool4", "/opt/**"}, UID: []uint32{0}})
		default:
			add(&p.Allow.Read, Rule{Text: fmt.Sprintf("/usr/share/app/module%d/file%d.dat", i%97, i)})
		}
	}
	return p
}

var largeAccesses = map[string]Access{
	"exact":        {Kind: Read, Path: "/usr/share/app/module46/file9067.dat"},
	"prefix":       {Kind: Read, Path: "/usr/lib/x86_64-linux-gnu/lib9001.so.6"},
	"wildcard":     {Kind: Read, Path: "/home/user/.cache/cache-9002.db"},
	"written":      {Kind: Write, Path: "/var/lib/app/shard9000/base/16384/2619"},
	"denied":       {Kind: Read, Path: "/var/lib/app/shard9000/server.key"},
	"undeclared":   {Kind: Read, Path: "/etc/shadow"},
	"exec":         {Kind: Exec, Path: "/usr/bin/tool9004"},
	"exec by from": {Kind: Exec, Path: "/usr/libexec/tool9006", Subject: Subject{Exe: "/opt/x/y"}},
	"syscall":      {Kind: Syscall, Name: "keyctl"},
}

func TestDecideLargeAllocatesNothing(t *testing.T) {
	plan := mustCompile(t, large(), full)
	for name, a := range largeAccesses {
		v := plan.Decide(&a)
		if want := name != "denied" && name != "undeclared" && name != "syscall"; v.Allowed() != want {
			t.Errorf("%s: %s, %s", name, v.Action, v.Reason)
		}
		if n := testing.AllocsPerRun(100, func() { plan.Decide(&a) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkDecide10000(b *testing.B) {
	plan := mustCompile(b, large(), full)
	for name, a := range largeAccesses {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				plan.Decide(&a)
			}
		})
	}
}

func BenchmarkCompile10000(b *testing.B) {
	p := large()
	for b.Loop() {
		mustCompile(b, p, full)
	}
}

func BenchmarkParse10000(b *testing.B) {
	text := large().YAML()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := Parse("x.yaml", text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCoverDir10000(b *testing.B) {
	plan := mustCompile(b, large(), full)
	for b.Loop() {
		plan.CoverDir("/var/lib/app/shard9000/base")
	}
}
