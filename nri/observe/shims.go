package observe

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/stockade-dev/stockade/shim/control/api"
)

// Bounds of what asking the shims may take: all together, each, and how many at
// a time.
const (
	gatherTime = 5 * time.Second
	askTime    = 2 * time.Second
	askers     = 8
)

// asked is what the shims of a node say.
type asked struct {
	shims, silent int
	answers       []*api.Status
}

// ask asks all shims of the node.
func ask(ctx context.Context, state string) (asked, error) {
	sockets, err := api.Sockets(state)
	if err != nil {
		return asked{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, gatherTime)
	defer cancel()
	var a asked
	var mu sync.Mutex
	var wg sync.WaitGroup
	slots := make(chan struct{}, askers)
	for _, socket := range sockets {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			s, err := askOne(ctx, socket)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case api.IsGone(err):
			case err != nil:
				a.shims++
				a.silent++
			default:
				a.shims++
				a.answers = append(a.answers, s)
			}
		})
	}
	wg.Wait()
	return a, nil
}

func askOne(ctx context.Context, socket string) (*api.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	c, err := api.Dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.Status(ctx)
}

// bounds of the histograms' buckets that are exposed, in seconds: whatever the
// shims of other builds have, the sum of all must have the same ones.
var bounds = [...]float64{10e-6, 20e-6, 50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 100e-3, 1}

// histogram is a sum of histograms.
type histogram struct {
	count   uint64
	seconds float64
	upTo    [len(bounds)]uint64 // cumulative
}

// of takes each of the bounds' counts from the largest bucket of h that is not
// above it: too few rather than too many are said to have been quick.
func of(h api.Histogram) histogram {
	out := histogram{count: h.Count, seconds: h.Seconds}
	for i, bound := range bounds {
		for _, b := range h.Buckets {
			if b.UpTo <= bound*(1+1e-9) {
				out.upTo[i] = max(out.upTo[i], b.Count)
			}
		}
	}
	return out
}

// add adds what has come between two looks at the same container.
func (h *histogram) add(before, now histogram) {
	if now.count < before.count {
		return
	}
	h.count += now.count - before.count
	h.seconds += max(0, now.seconds-before.seconds)
	for i := range h.upTo {
		if now.upTo[i] > before.upTo[i] {
			h.upTo[i] += now.upTo[i] - before.upTo[i]
		}
	}
}

func (h *histogram) buckets() map[float64]uint64 {
	out := map[float64]uint64{}
	for i, b := range bounds {
		out[b] = h.upTo[i]
	}
	return out
}

// key is a label set: two words.
type key struct{ a, b string }

// look is what a container or a shim had when it was seen last.
type look struct {
	decisions      map[key]uint64
	answers, calls histogram
	queue          api.Queue
	reports        api.Reports
}

// totals are sums over all that was ever seen, so that they never go down when a
// container goes.
type totals struct {
	began          time.Time
	last           map[string]look // by container or shim
	decisions      map[key]uint64
	answers, calls histogram
	queue          api.Queue
	lost           uint64
}

func newTotals() *totals {
	return &totals{began: time.Now(), last: map[string]look{}, decisions: map[key]uint64{}}
}

// add takes in what the shims said. What was counted before the plugin began is
// no part of the totals: a counter that starts again must start at nothing.
func (t *totals) add(a asked) {
	next := map[string]look{}
	for _, s := range a.answers {
		var since time.Time
		for i := range s.Containers {
			c := &s.Containers[i]
			if since.IsZero() || c.Since.Before(since) {
				since = c.Since
			}
			id := c.Namespace + "/" + c.ID + "@" + c.Since.Format(time.RFC3339Nano)
			now := look{decisions: map[key]uint64{}, answers: of(c.Answers), calls: of(c.Calls)}
			for _, d := range c.Decisions {
				now.decisions[key{kindWord(d.Kind), actionWord(d.Action)}] += d.Count
			}
			next[id] = now
			before, known := t.last[id]
			if !known && c.Since.Before(t.began) {
				before = now
			}
			for k, n := range now.decisions {
				if n > before.decisions[k] {
					t.decisions[k] += n - before.decisions[k]
				}
			}
			t.answers.add(before.answers, now.answers)
			t.calls.add(before.calls, now.calls)
		}
		t.shim(s, since, next)
	}
	if a.silent > 0 { // one that is silent now may answer again
		for id, l := range t.last {
			if _, ok := next[id]; !ok {
				next[id] = l
			}
		}
	}
	t.last = next
}

func (t *totals) shim(s *api.Status, since time.Time, next map[string]look) {
	id := "shim " + strconv.Itoa(s.PID)
	now := look{queue: s.Queue, reports: s.Reports}
	before, known := t.last[id]
	if !known && since.Before(t.began) {
		before = now
	}
	next[id] = now
	t.queue.Undelivered += sub(now.queue.Undelivered, before.queue.Undelivered)
	t.queue.Overflows += sub(now.queue.Overflows, before.queue.Overflows)
	t.queue.Gone += sub(now.queue.Gone, before.queue.Gone)
	t.lost += sub(now.reports.Lost, before.reports.Lost)
}

func sub(now, before uint64) uint64 {
	if now < before {
		return now
	}
	return now - before
}
