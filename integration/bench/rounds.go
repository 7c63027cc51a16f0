package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// What a measurement is made under.
type variant int

const (
	plain variant = iota
	fenced
	peered // plain, and fapolicyd watches
	variants
)

const undeclared = "/bin/undeclared"

// group is measurements that are made together, once a round for each variant.
type group struct {
	name    string // what BENCH_ONLY asks for
	peer    bool   // makes sense under fapolicyd
	measure func(context.Context, *bench, *host, variant) error
}

var groups = []group{
	{"opens", true, command("open", "open /etc/app.conf", 1)},
	{"opens", true, command("write-open", "wopen /var/lib/app/state", 1)},
	{"opens", true, command("getppid", "getppid", 1)},
	{"opens", true, measureFirsts},
	{"exec", true, command("exec static", "exec /bin/nothing 10", 1000)},
	{"exec", true, command("exec dynamic", "exec /bin/dynamic 10", 1000)},
	{"redis", true, measureRedis("", "40000", "1")},
	{"redis", true, measureRedis(", pipeline of 16", "240000", "16")},
	{"nginx", true, measureNginx},
	{"memory", false, measureMemory},
	{"start", false, measureStarts},
	{"kill", false, measureKills},
}

// rounds measures everything in turns: each group under every variant before the next group. The first round warms up
// and does not count.
func (b *bench) rounds(ctx context.Context, n int) error {
	for round := range n + 1 {
		b.results.begin(round > 0)
		begin := time.Now()
		for _, g := range groups {
			if !asked(g.name) || (round == 0 && !g.peer) {
				continue
			}
			for v := range variants {
				if !chosen(v) {
					continue
				}
				if err := b.turn(ctx, g, v); err != nil {
					return fmt.Errorf("round %d, %s, %s: %w\n%s", round, g.name, v, err, b.node.LogTail())
				}
			}
		}
		fmt.Fprintf(os.Stderr, "round %d of %d: %s\n", round, n, time.Since(begin).Round(100*time.Millisecond))
	}
	if asked("pure") {
		return b.measurePure()
	}
	return nil
}

// turn makes one group's measurements under one variant.
func (b *bench) turn(ctx context.Context, g group, v variant) (err error) {
	switch {
	case v == fenced:
		return g.measure(ctx, b, b.hosts[fenced], v)
	case v == plain:
		return g.measure(ctx, b, b.hosts[plain], v)
	case b.peer == nil || !g.peer:
		return nil
	}
	if err := b.peer.start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.peer.stop()) }()
	return g.measure(ctx, b, b.hosts[plain], v)
}

func (v variant) String() string { return [...]string{"runc", "stockade", "fapolicyd"}[v] }

// command is one command of /bin/bench; ns is how many nanoseconds the row's unit has.
func command(row, line string, ns float64) func(context.Context, *bench, *host, variant) error {
	return func(ctx context.Context, b *bench, h *host, v variant) error {
		took, err := h.micro.do(ctx, "%s", line)
		b.results.add(row, v, took/ns)
		return err
	}
}

const firstDirs = 50 // of /tree, each time

// measureFirsts opens one file in each of many directories, and then another in each.
func measureFirsts(ctx context.Context, b *bench, h *host, v variant) error {
	from := h.used
	if h.used += firstDirs; h.used > trees {
		return fmt.Errorf("the image has only %d directories to open first: ask for fewer rounds", trees)
	}
	for _, m := range []struct{ row, file string }{{"first open in a directory", "a"}, {"open of another file there", "b"}} {
		ns, err := h.micro.do(ctx, "first %d %d %s", from, h.used, m.file)
		if err != nil {
			return err
		}
		b.results.add(m.row, v, ns)
	}
	return nil
}
