package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/stockade-dev/stockade/nri"
)

// logs puts a queue before what is logged to, so that NRI's handlers do not wait for who reads it; flush writes out what
// waits. Where containerd has started the plugin that is a file: it gives it no standard error.
func logs(state string) (flush func(), err error) {
	log := logrus.StandardLogger()
	to := log.Out
	if nri.PreInstalled() {
		dir := filepath.Join(state, "nri")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		if to, err = os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600); err != nil {
			return nil, err
		}
	}
	q := newQueued(to)
	log.SetOutput(q)
	return func() {
		log.SetOutput(to)
		q.close()
	}, nil
}

// Bounds of a log that is not read: how many lines wait, and how long the end of the program does.
const (
	linesWait = 1024
	endWaits  = 2 * time.Second
)

// queued is a writer that never waits. logrus holds a lock while it writes: one line that does not get out would hold up
// every handler that has something to say, and one that takes 2 s costs the plugin its connection.
type queued struct {
	to    io.Writer
	lines chan []byte
	lost  atomic.Uint64 // lines that did not fit, and that was not said of yet
	ended chan struct{} // closed when no more comes
	done  chan struct{} // closed when all is written
}

func newQueued(to io.Writer) *queued {
	q := &queued{to: to, lines: make(chan []byte, linesWait), ended: make(chan struct{}), done: make(chan struct{})}
	go q.run()
	return q
}

func (q *queued) Write(line []byte) (int, error) {
	select {
	case q.lines <- bytes.Clone(line): // logrus uses its buffer again
	default:
		q.lost.Add(1)
	}
	return len(line), nil
}

// close writes out what waits, as far as somebody reads it.
func (q *queued) close() {
	close(q.ended)
	select {
	case <-q.done:
	case <-time.After(endWaits):
	}
}

func (q *queued) run() {
	defer close(q.done)
	for {
		select {
		case line := <-q.lines:
			q.put(line)
		case <-q.ended:
			for {
				select {
				case line := <-q.lines:
					q.put(line)
				default:
					return
				}
			}
		}
	}
}

// put writes a line. Whatever was lost before is said first: the queue was full then, so a line that comes here after it
// there always is.
func (q *queued) put(line []byte) {
	if n := q.lost.Swap(0); n > 0 {
		own := logrus.New()
		own.SetOutput(q.to)
		own.Warnf("stockade-nri: nobody read the log for a while: %d lines are lost", n)
	}
	_, _ = q.to.Write(line) // there is nowhere to say that it failed
}
