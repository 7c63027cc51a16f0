package observe

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/stockade-dev/stockade/nri"
	"github.com/stockade-dev/stockade/nri/health"
	"github.com/stockade-dev/stockade/shim/incident"
)

// Config is what an Observer needs to know.
type Config struct {
	Containerd string               // containerd's socket; empty: the bus is not read, the folder is
	Incidents  string               // the folder of the shims' incidents
	State      string               // the node's state folder: the shims' sockets, and what was seen
	Version    string               // of the plugin
	Health     func() health.Health // of the plugin
	Bad        func() int           // files and resources that are no profiles, or not the newest
	Sinks      []Sink
	Log        logrus.FieldLogger
}

// Observer gathers and tells. Make it with New.
type Observer struct {
	cfg     Config
	metrics *metrics
	queues  []*queue
	seen    *seen
	unsaved bool          // was said; used by Run's loop
	ended   chan struct{} // closed when no more is queued

	lookEvery time.Duration // at the incident folder, if nothing is heard of it
}

// New makes an Observer. It does nothing until Run.
func New(c Config) *Observer {
	o := &Observer{cfg: c, metrics: newMetrics(c), seen: newSeen(c.Incidents), ended: make(chan struct{}), lookEvery: lookEvery}
	for _, s := range c.Sinks {
		o.queues = append(o.queues, newQueue(s))
		if e, ok := s.(*Events); ok {
			e.Lost = func(n int) { o.metrics.gone.WithLabelValues(e.Name()).Add(float64(n)) }
		}
	}
	return o
}

// Run reads the bus and the folder, and feeds the sinks, until ctx ends; what is
// queued then is given out, for a few seconds at most.
func (o *Observer) Run(ctx context.Context) {
	late, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var sinks, sources sync.WaitGroup
	for _, q := range o.queues {
		sinks.Go(func() { o.serve(late, q) })
	}
	o.seen.load()
	o.keep() // so that what happens while the plugin is away is known to be new
	incidents := make(chan *incident.Incident)
	saves := time.NewTicker(every)
	defer saves.Stop()
	if o.cfg.Containerd != "" {
		sources.Go(func() { o.listen(ctx, incidents) })
	}
	sources.Go(func() { o.look(ctx, incidents) })
	for done := false; !done; {
		select {
		case <-ctx.Done():
			done = true
		case inc := <-incidents:
			o.incident(inc)
		case <-saves.C:
			o.keep()
		}
	}
	sources.Wait()
	o.keep()
	close(o.ended)
	time.AfterFunc(closing, cancel)
	sinks.Wait()
}

// keep saves what was told.
func (o *Observer) keep() {
	if err := o.seen.save(); err != nil && !errors.Is(err, fs.ErrNotExist) && !o.unsaved {
		o.unsaved = true
		o.cfg.Log.WithError(err).Warn("stockade-nri: after a restart some violations will be told again, or not at all")
	}
}

// closing bounds what the sinks may take when the plugin ends.
const closing = 3 * time.Second

// every is how often a sink that waits for something is called.
const every = time.Second

func (o *Observer) serve(ctx context.Context, q *queue) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	waits, _ := q.sink.(interface{ Tick(context.Context) })
	ended := false
serving:
	for {
		select {
		case f := <-q.items:
			o.put(ctx, q.sink, f)
			continue
		default:
		}
		if ended {
			break serving
		}
		select {
		case f := <-q.items:
			o.put(ctx, q.sink, f)
		case <-tick.C:
			if waits != nil {
				waits.Tick(ctx)
			}
		case <-o.ended:
			ended = true
		}
	}
	if c, ok := q.sink.(interface{ Close(context.Context) }); ok {
		c.Close(ctx)
	}
}

func (o *Observer) put(ctx context.Context, s Sink, f Finding) {
	if err := s.Put(ctx, f); err != nil {
		o.metrics.lose(s.Name())
		o.cfg.Log.WithError(err).WithField("sink", s.Name()).Warn("stockade-nri: a finding could not be told; the incident folder has it")
		return
	}
	o.metrics.told.WithLabelValues(s.Name()).Inc()
}

// incident tells of one, unless it was told of before. It is called by Run's
// loop alone.
func (o *Observer) incident(inc *incident.Incident) {
	if !o.seen.add(inc.ID) {
		return
	}
	o.metrics.violation(inc)
	if inc.Action != incident.Lost {
		o.tell(Finding{Incident: inc})
	}
}

// Event tells of what the plugin itself refused or could not protect. It never
// waits; call it while Run runs, or before.
func (o *Observer) Event(e nri.Event) {
	if e.Action != nri.Pass && e.Action != nri.Deliver {
		o.tell(Finding{Event: &e})
	}
}

func (o *Observer) tell(f Finding) {
	for _, q := range o.queues {
		if !q.put(f) {
			o.metrics.lose(q.sink.Name())
		}
	}
}
