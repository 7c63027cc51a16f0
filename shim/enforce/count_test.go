package enforce

import (
	"testing"
	"time"

	"github.com/stockade-dev/stockade/profiles"
)

func TestCounts(t *testing.T) {
	c := &Container{}
	c.counts.decided(profiles.Exec, profiles.Allow)
	c.counts.decided(profiles.Exec, profiles.Allow)
	c.counts.decided(profiles.Write, profiles.Kill)
	c.counts.decided(0, profiles.Allow) // no decision
	for _, d := range []time.Duration{0, Bounds[0], Bounds[0] + 1, time.Second, time.Hour} {
		c.counts.answered.observe(d)
	}
	got := c.Counts()
	if n := got.Decisions[profiles.Exec][profiles.Allow]; n != 2 || len(got.Decisions) != 2 || got.Decisions[profiles.Write][profiles.Kill] != 1 {
		t.Errorf("%v", got.Decisions)
	}
	h := got.Answered
	last := len(Bounds)
	if h.Count() != 5 || h.Buckets[0] != 2 || h.Buckets[1] != 1 || h.Buckets[last-1] != 1 || h.Buckets[last] != 1 || h.Sum < time.Hour {
		t.Errorf("%+v", h)
	}
	if n := testing.AllocsPerRun(100, func() {
		c.counts.decided(profiles.Read, profiles.Allow)
		c.counts.answered.observe(time.Microsecond)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkCount is what counting adds to an answer: one reading of the clock, a decision, a latency.
func BenchmarkCount(b *testing.B) {
	c := &Container{}
	clock := time.Now()
	for b.Loop() {
		c.counts.decided(profiles.Read, profiles.Allow)
		c.counts.answered.observe(time.Since(clock) - 40*time.Microsecond)
	}
}
