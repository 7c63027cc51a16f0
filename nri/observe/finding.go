package observe

import (
	"context"
	"time"

	"github.com/stockade-dev/stockade/nri"
	"github.com/stockade-dev/stockade/shim/incident"
)

// Finding is one thing to tell: a violation, or a container that was refused or runs unprotected.
type Finding struct {
	Incident *incident.Incident // nil: it is an Event
	Event    *nri.Event
}

// Time is when it happened.
func (f Finding) Time() time.Time {
	if f.Incident != nil {
		return f.Incident.Time
	}
	return f.Event.Time
}

// Sink receives findings, one after the other. An error means that this one is lost.
type Sink interface {
	Name() string
	Put(ctx context.Context, f Finding) error
}

// queueSize bounds what waits for one sink.
const queueSize = 1024

// queue stands before a sink, so that nobody waits for it.
type queue struct {
	sink  Sink
	items chan Finding
}

func newQueue(s Sink) *queue { return &queue{sink: s, items: make(chan Finding, queueSize)} }

// put reports whether there was room.
func (q *queue) put(f Finding) bool {
	select {
	case q.items <- f:
		return true
	default:
		return false
	}
}
