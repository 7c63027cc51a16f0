package guard

import (
	"bytes"
	"errors"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stockade-dev/stockade/shim/cgroup"
	"golang.org/x/sys/unix"
)

const (
	every       = 750 * time.Millisecond // between two looks at the shim: what a look costs is the waking up
	again       = 150 * time.Millisecond // after one that found it stopped; so a stop is acted upon within 0.9 s
	stoppedSeen = 2                      // looks in a row that make it stopped
	hungAfter   = 10 * time.Second       // without progress make it hung
	hungAtMost  = 2 * time.Minute        // however many wait for a processor
	hungSeen    = 12                     // looks that this must take, so that a jump of the clock is not 10 s
	retryFirst  = time.Millisecond       // between two attempts to kill
	retryMost   = 100 * time.Millisecond
)

// watcher is the guard's whole state. It has one goroutine.
type watcher struct {
	page       *atomic.Uint64
	containers map[string]*container
	buf        []byte
	dead, deaf bool // the shim has ended; its socket has
	shim       sightings
	looked     time.Time // when we last looked at the shim
	retry      time.Duration
}

// container is one that is watched.
type container struct {
	cgroup *cgroup.Cgroup
	why    string // what it must die of; "" while it may live
	killed bool   // has died of it once, and the log says so
}

// sightings is what the last looks at the shim showed.
type sightings struct {
	stopped int
	same    int // looks that found the page at n, with work to do
	n       uint64
	since   time.Time
}

// loop ends when the shim is dead, or has hung up, and nothing is watched. It is the only place that waits.
func (w *watcher) loop() {
	for {
		w.wait()
		switch {
		case w.dead:
			w.doom("the shim died")
		case len(w.containers) > 0 && w.untilLook() <= 0:
			w.look()
		}
		w.killDoomed()
		if len(w.containers) == 0 && (w.dead || w.deaf) {
			return
		}
	}
}

// wait waits for a message, the end of the shim, or the time to look or to try again.
func (w *watcher) wait() {
	fds := [2]unix.PollFd{{Fd: fdSocket, Events: unix.POLLIN}, {Fd: fdShim, Events: unix.POLLIN}}
	if w.deaf {
		fds[0].Fd = -1
	}
	if w.dead {
		fds[1].Fd = -1
	}
	timeout := -1
	switch {
	case w.retry > 0:
		timeout = int(w.retry / time.Millisecond)
	case len(w.containers) > 0:
		timeout = max(0, int((w.untilLook()+time.Millisecond-1)/time.Millisecond))
	}
	// Not through the runtime's poller and a timer: that wakes twice for each look.
	if n, err := unix.Poll(fds[:], timeout); err != nil || n == 0 {
		return
	}
	// First what it still said, then that it died: a container that it forgot has ended.
	if fds[0].Revents != 0 {
		w.receive(fds[0].Revents)
	} else if fds[1].Revents != 0 {
		w.dead = true
	}
}

// receive handles one message.
func (w *watcher) receive(events int16) {
	n, _, err := unix.Recvfrom(fdSocket, w.buf, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
	switch {
	case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR):
		return
	case err != nil || n == 0 && events&unix.POLLHUP != 0:
		w.deaf = true // what is watched stays watched: the pidfd tells of the end
		return
	case n > len(w.buf):
		w.send(answerTo(0, errTooLong))
		return
	}
	r, err := parseRequest(w.buf[:n])
	if err == nil {
		err = w.handle(r)
	}
	w.send(answerTo(r.seq, err))
}

func (w *watcher) handle(r request) error {
	switch r.op {
	case opWatch:
		return w.watch(r)
	case opForget:
		w.drop(r.id)
		return nil
	}
	return errMalformed
}

func (w *watcher) watch(r request) error {
	var s cgroup.Spec
	if err := s.UnmarshalBinary(r.body); err != nil {
		return err
	}
	c, err := cgroup.FromSpec(s)
	if err != nil {
		return err
	}
	if len(w.containers) == 0 { // begin afresh: nobody looked while nothing was watched
		w.shim, w.looked = sightings{}, time.Now()
	}
	w.drop(r.id)
	w.containers[r.id] = &container{cgroup: c}
	return nil
}

func (w *watcher) drop(id string) {
	if c := w.containers[id]; c != nil {
		c.cgroup.Close()
		delete(w.containers, id)
	}
}

// send never waits: a shim that does not read its answers must not stop its guard.
func (w *watcher) send(a answer) {
	_ = unix.Sendto(fdSocket, a.append(nil), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, nil)
}

func (w *watcher) untilLook() time.Duration {
	pause := every
	if w.shim.stopped > 0 && w.shim.stopped < stoppedSeen {
		pause = again
	}
	return pause - time.Since(w.looked)
}

// look finds out whether the shim is stopped or hung.
func (w *watcher) look() {
	w.looked = time.Now()
	var buf [512]byte
	n, err := unix.Pread(fdStat, buf[:], 0)
	if err == nil && stopped(buf[:n]) {
		w.shim.stopped++
	} else {
		w.shim.stopped = 0
	}
	work := 0
	at := w.page.Load()
	if at&1 == 0 { // not busy: then nothing may be waiting to be read either, or not for long
		work, _ = pending()
	}
	w.shim.progress(at, at&1 == 1 || work > 0, w.looked)
	switch {
	case w.shim.stopped >= stoppedSeen:
		w.doom("the shim is stopped")
	case w.shim.hung(w.looked, hungAfter) && w.shim.hung(w.looked, patience()):
		w.doom("the shim hangs")
	}
}

// progress notes what the page showed, and whether there was work to do.
func (s *sightings) progress(n uint64, work bool, now time.Time) {
	if !work || s.same == 0 || n != s.n {
		s.n, s.same, s.since = n, 0, now
	}
	if work {
		s.same++
	}
}

func (s *sightings) hung(now time.Time, after time.Duration) bool {
	return s.same >= hungSeen && now.Sub(s.since) >= after
}

// patience is how long no progress is no proof: on a node where many wait for each processor, a shim that makes none may
// just be waiting its turn. Nothing gets through meanwhile: what is pending stays blocked.
func patience() time.Duration {
	fd, err := unix.Open("/proc/loadavg", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return hungAfter
	}
	defer func() { _ = unix.Close(fd) }()
	var buf [64]byte
	n, _ := unix.Read(fd, buf[:])
	return patienceAt(string(buf[:max(n, 0)]), runtime.NumCPU())
}

// patienceAt reads how many threads run or wait to run: "0.20 0.18 0.12 RUNNING/ALL LAST" (proc_loadavg(5)).
func patienceAt(loadavg string, processors int) time.Duration {
	fields := strings.Fields(loadavg)
	if len(fields) < 4 {
		return hungAfter
	}
	running, _, _ := strings.Cut(fields[3], "/")
	n, err := strconv.Atoi(running)
	if err != nil {
		return hungAfter
	}
	return min(hungAfter*time.Duration(1+n/(4*processors)), hungAtMost)
}

// stopped reads the state in /proc/PID/stat: the letter after the name, which may itself hold parentheses.
func stopped(stat []byte) bool {
	i := bytes.LastIndexByte(stat, ')')
	return i >= 0 && len(stat) > i+2 && (stat[i+2] == 'T' || stat[i+2] == 't')
}

// doom says that every container must die.
func (w *watcher) doom(why string) {
	for _, c := range w.containers {
		c.why = why
	}
}

// killDoomed tries once, all of them before it looks at any: the second must not wait for the first to die. What is not yet
// empty is tried again, for ever; meanwhile we hold the group, and messages are still answered.
func (w *watcher) killDoomed() {
	doomed := 0
	for _, c := range w.containers {
		if c.why != "" {
			_ = c.cgroup.Kill() // what failed shows in Empty
			doomed++
		}
	}
	if doomed == 0 {
		w.retry = 0
		return
	}
	for id, c := range w.containers {
		if c.why == "" {
			continue
		}
		if empty, err := c.cgroup.Empty(); err != nil || !empty {
			continue
		}
		doomed--
		if !c.killed {
			note("killed " + strconv.Quote(id) + ": " + c.why)
		}
		c.why, c.killed = "", true
		if w.dead {
			w.drop(id)
		}
	}
	switch {
	case doomed == 0:
		w.retry = 0
	case w.retry == 0:
		w.retry = retryFirst
	default:
		w.retry = min(2*w.retry, retryMost)
	}
}

// note writes a line to the log if that can be done without waiting. A line is shorter than PIPE_BUF, so it is whole.
func note(text string) {
	fds := [1]unix.PollFd{{Fd: fdLog, Events: unix.POLLOUT}}
	if n, err := unix.Poll(fds[:], 0); err == nil && n == 1 && fds[0].Revents&unix.POLLOUT != 0 {
		_, _ = unix.Write(fdLog, []byte(comm+": "+text+"\n"))
	}
}
