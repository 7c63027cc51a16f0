package enforce

import (
	"sync/atomic"
	"time"

	"github.com/stockade-dev/stockade/profiles"
)

// Counts is what one container's fence has done since it was put up.
type Counts struct {
	Decisions map[profiles.Kind]map[profiles.Action]uint64
	Answered  Histogram // fanotify events, from their being read to their answer
	Told      Histogram // system calls that the filter asked about, from their being received to the verdict
}

// Bounds are the upper bounds of a histogram's buckets; a last one has none.
var Bounds = [...]time.Duration{
	10 * time.Microsecond, 20 * time.Microsecond, 50 * time.Microsecond,
	100 * time.Microsecond, 200 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond,
	10 * time.Millisecond, 100 * time.Millisecond, time.Second,
}

// Histogram says how many took how long. Buckets[i] counts those of at most Bounds[i] that are in no bucket before it.
type Histogram struct {
	Buckets [len(Bounds) + 1]uint64
	Sum     time.Duration
}

// Count is how many there were.
func (h *Histogram) Count() (n uint64) {
	for _, b := range h.Buckets {
		n += b
	}
	return n
}

// counters are on the path of every answer: they take no lock and allocate nothing.
type counters struct {
	decisions      [profiles.Connect + 1][profiles.Freeze + 1]atomic.Uint64
	answered, told histogram
}

// decided counts a decision. What was let through without one (the runtime's own code, what the kernel opens within an
// exec that was admitted) has no kind.
func (c *counters) decided(k profiles.Kind, a profiles.Action) {
	if k != 0 && int(k) < len(c.decisions) && int(a) < len(c.decisions[k]) {
		c.decisions[k][a].Add(1)
	}
}

type histogram struct {
	buckets [len(Bounds) + 1]atomic.Uint64
	sum     atomic.Int64
}

func (h *histogram) observe(d time.Duration) {
	i := 0
	for i < len(Bounds) && d > Bounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.sum.Add(int64(d))
}

func (h *histogram) read() (out Histogram) {
	for i := range h.buckets {
		out.Buckets[i] = h.buckets[i].Load()
	}
	out.Sum = time.Duration(h.sum.Load())
	return out
}

// Counts reads the counters. They go on meanwhile.
func (c *Container) Counts() Counts {
	out := Counts{
		Decisions: map[profiles.Kind]map[profiles.Action]uint64{},
		Answered:  c.counts.answered.read(), Told: c.counts.told.read(),
	}
	for k := range c.counts.decisions {
		for a := range c.counts.decisions[k] {
			if n := c.counts.decisions[k][a].Load(); n > 0 {
				if out.Decisions[profiles.Kind(k)] == nil {
					out.Decisions[profiles.Kind(k)] = map[profiles.Action]uint64{}
				}
				out.Decisions[profiles.Kind(k)][profiles.Action(a)] = n
			}
		}
	}
	return out
}

// CountEnd counts a violation that was seen only by how a process ended.
func (c *Container) CountEnd(v *Violation) { c.counts.decided(v.Access.Kind, v.Verdict.Action) }
