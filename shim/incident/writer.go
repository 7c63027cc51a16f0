package incident

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// queueLength bounds the incidents that wait for the disk.
const queueLength = 1024

// lossRetry is how often a writer with losses that no incident has carried to
// the disk yet tries to write a record of them.
const lossRetry = 5 * time.Second

// Limit bounds the folder; the oldest incidents are deleted. Zero means no bound.
type Limit struct {
	Count int   // files
	Bytes int64 // of all files together
}

// Writer writes incidents into a folder. Safe for concurrent use.
type Writer struct {
	dir   *folder
	warn  func(string)
	queue chan Incident
	wake  chan struct{} // closed by Close
	done  chan struct{} // closed when the goroutine has ended

	mu     sync.Mutex // never held across anything that blocks
	closed bool       // guarded by mu
	lost   uint64     // guarded by mu: not yet carried by a written incident
	total  uint64     // guarded by mu: lost since NewWriter
	until  time.Time  // guarded by mu: when a closed writer stops writing; zero: when it is done
}

// NewWriter prepares dir (created 0700; an existing one must be a real folder
// of this user and is made 0700) and starts the writer.
//
// warn is told, in one line, of losses and of trouble with the folder. It is
// called from a goroutine of its own and may block: what cannot be told then is
// dropped. It may be nil.
func NewWriter(dir string, limit Limit, warn func(string)) (*Writer, error) {
	f, err := openFolder(dir, limit)
	if err != nil {
		return nil, fmt.Errorf("incident folder: %w", err)
	}
	w := &Writer{
		dir: f, queue: make(chan Incident, queueLength),
		wake: make(chan struct{}), done: make(chan struct{}),
	}
	lines := make(chan string, 16)
	w.warn = func(s string) {
		select {
		case lines <- s:
		default:
		}
	}
	go func() {
		for s := range lines {
			if warn != nil {
				warn(s)
			}
		}
	}()
	go func() {
		defer close(w.done)
		defer close(lines)
		w.run()
	}()
	return w, nil
}

// Put queues inc and returns at once with its ID. ok is false when it is lost
// because the queue is full or the writer closed; the loss is counted. The
// caller leaves the slices of inc alone afterwards.
func (w *Writer) Put(inc Incident) (id string, ok bool) {
	if inc.Time.IsZero() {
		inc.Time = time.Now()
	}
	inc.Time = inc.Time.UTC().Round(0)
	if inc.ID == "" {
		inc.ID = NewID(inc.Time)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed {
		select {
		case w.queue <- inc:
			return inc.ID, true
		default:
		}
	}
	w.loseLocked(&inc)
	return inc.ID, false
}

// Dropped returns how many incidents were lost since NewWriter.
func (w *Writer) Dropped() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.total
}

// Close writes what is queued and ends the writer. Shortly before ctx ends, what
// is left counts as lost, and a record says how many. When ctx ends first, it
// returns an error that says how many incidents had not been written; the
// goroutine goes on as long as the disk holds it.
func (w *Writer) Close(ctx context.Context) error {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		if deadline, ok := ctx.Deadline(); ok {
			w.until = deadline.Add(-reserve)
		}
		close(w.wake)
	}
	w.mu.Unlock()
	select {
	case <-w.done:
		if n := w.pending(); n > 0 {
			return fmt.Errorf("%d incidents could not be written to %s", n, w.dir.path)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("incidents: %d wait for %s: %w", len(w.queue)+1, w.dir.path, ctx.Err())
	}
}

func (w *Writer) run() {
	retry := time.NewTicker(lossRetry)
	defer retry.Stop()
	for {
		select {
		case inc := <-w.queue:
			w.write(inc)
		case <-retry.C:
			w.writeLoss()
		case <-w.wake:
			for {
				select {
				case inc := <-w.queue:
					w.finish(inc)
				default:
					w.writeLoss()
					return
				}
			}
		}
	}
}

// loseLocked counts an incident that is not written, with those that it was to
// tell of. mu is held.
func (w *Writer) loseLocked(inc *Incident) {
	w.lost += inc.Lost
	if inc.Action != Lost {
		w.lost++
		w.total++
	}
}

// reserve is the time that the last record, of what was lost, may take.
const reserve = 300 * time.Millisecond

// finish writes one of the last incidents, if there is time for it.
func (w *Writer) finish(inc Incident) {
	w.mu.Lock()
	late := !w.until.IsZero() && time.Now().After(w.until)
	if late {
		w.loseLocked(&inc)
	}
	w.mu.Unlock()
	if !late {
		w.write(inc)
	}
}

// write writes one incident together with the count of those lost before it.
// The count is taken back when the write fails: only a written record may
// carry it away.
func (w *Writer) write(inc Incident) {
	lost := w.takeLost()
	inc.Lost += lost
	err := w.dir.write(inc)
	if err != nil {
		w.mu.Lock()
		w.loseLocked(&inc)
		w.mu.Unlock()
		w.warn(fmt.Sprintf("incident %s could not be written: %v: %s", inc.ID, err, Cause(&inc)))
		return
	}
	if lost > 0 {
		w.warn(fmt.Sprintf("%d incidents were lost before %s", lost, inc.ID))
	}
	if err := w.dir.rotate(); err != nil {
		w.warn(fmt.Sprintf("rotate incidents: %v", err))
	}
}

// writeLoss writes a record of losses that no incident has carried.
func (w *Writer) writeLoss() {
	if w.pending() == 0 {
		return
	}
	now := time.Now().UTC().Round(0)
	w.write(Incident{ID: NewID(now), Time: now, Node: w.dir.node, Action: Lost, Reason: "incidents could not be written"})
}

func (w *Writer) takeLost() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.lost
	w.lost = 0
	return n
}

func (w *Writer) pending() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost
}
