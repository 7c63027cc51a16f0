package main

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stockade-dev/stockade/profiles"
)

// large is a profile of 10 000 rules as learning might make it: mostly exact paths, some directories, a few leading
// wildcards, some conditions.
func large() *profiles.Profile {
	p := &profiles.Profile{Name: "large", AllowUnenforced: []string{"network", "mounts", "filesystem"}}
	add := func(list *[]profiles.Rule, rule profiles.Rule) {
		rule.Field = fmt.Sprintf("spec.allow[%d]", len(*list))
		*list = append(*list, rule)
	}
	for i := range 10000 {
		switch i % 20 {
		case 0:
			add(&p.Allow.Write, profiles.Rule{Text: fmt.Sprintf("/srv/shard%d/**", i)})
		case 1:
			add(&p.Allow.Read, profiles.Rule{Text: fmt.Sprintf("/usr/lib/lib%d.so.*", i)})
		case 2:
			add(&p.Allow.Read, profiles.Rule{Text: fmt.Sprintf("/**/index-%d.db", i)})
		case 3:
			add(&p.Deny.Read, profiles.Rule{Text: fmt.Sprintf("/srv/shard%d/*.key", i-3)})
		case 4, 5, 6:
			add(&p.Allow.Exec, profiles.Rule{Text: fmt.Sprintf("/usr/bin/tool%d", i)})
		default:
			add(&p.Allow.Read, profiles.Rule{Text: fmt.Sprintf("/usr/share/module%d/file%d", i%97, i)})
		}
	}
	return p
}

var largeAccesses = []profiles.Access{
	{Kind: profiles.Read, Path: "/usr/share/module46/file9067"},
	{Kind: profiles.Read, Path: "/usr/lib/lib9001.so.6"},
	{Kind: profiles.Read, Path: "/home/user/index-9002.db"},
	{Kind: profiles.Write, Path: "/srv/shard9000/base/16384"},
	{Kind: profiles.Read, Path: "/srv/shard9000/server.key"},
	{Kind: profiles.Read, Path: "/etc/shadow"},
	{Kind: profiles.Exec, Path: "/usr/bin/tool9004"},
}

// measurePure measures what needs no container. Of the accesses the slowest counts.
func (b *bench) measurePure() error {
	target := profiles.Target{
		Kernel: "6.12", Arch: runtime.GOARCH, Fanotify: profiles.Yes, FanotifyStack: profiles.Yes,
		SeccompNotify: profiles.Yes, MountSeal: profiles.Yes,
	}
	var plan *profiles.Plan
	for b.results.round = range 7 {
		p := large()
		begin := time.Now()
		var err error
		if plan, err = profiles.Compile(p, target); err != nil {
			return errors.Join(errors.New("compile 10000 rules"), err)
		}
		b.results.add("Compile, 10000 rules", fenced, milliseconds(time.Since(begin)))
		b.measureDecide(plan)
	}
	return nil
}

func (b *bench) measureDecide(plan *profiles.Plan) {
	slowest, allocations := 0.0, 0.0
	for _, a := range largeAccesses {
		const n = 20000
		begin := time.Now()
		for range n {
			plan.Decide(&a)
		}
		slowest = max(slowest, float64(time.Since(begin).Nanoseconds())/n)
		allocations = max(allocations, testing.AllocsPerRun(100, func() { plan.Decide(&a) }))
	}
	b.results.add("Decide, 10000 rules", fenced, slowest)
	b.results.add("Decide, 10000 rules, allocations", fenced, allocations)
}
