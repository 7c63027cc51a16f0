package fanotify

import (
	"encoding/binary"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/shim/procfs"
)

// Respond answers an event and closes its FD. An event without FD needs no
// answer: nil. A thread that was killed meanwhile is no error either. It does
// not allocate, except for a FIFO.
func (g *Group) Respond(ev Event, allow bool) error {
	if ev.FD < 0 {
		return nil
	}
	if !g.enter() {
		unix.Close(ev.FD)
		return os.ErrClosed
	}
	defer g.leave()
	if !ev.Exec() && isFIFO(ev.FD) {
		return g.respondFIFO(ev, allow)
	}
	err := g.answer(ev.FD, allow)
	unix.Close(ev.FD)
	return err
}

// answer writes struct fanotify_response (fanotify(7)).
func (g *Group) answer(fd int, allow bool) error {
	response := uint32(unix.FAN_DENY)
	if allow {
		response = unix.FAN_ALLOW
	}
	var b [8]byte
	binary.NativeEndian.PutUint32(b[:], uint32(int32(fd)))
	binary.NativeEndian.PutUint32(b[4:], response)
	for {
		_, err := unix.Write(g.fd, b[:])
		switch err {
		case nil:
			return nil
		case unix.EINTR:
		case unix.ENOENT:
			// The thread was killed while it waited.
			g.stats.gone.Add(1)
			return nil
		default:
			return os.NewSyscallError("write fanotify", err)
		}
	}
}

// respondFIFO keeps the meaning of a FIFO although the event's fd is one of
// its readers (fifo(7)).
//
// The opener only writes: it must block until somebody reads, and our fd
// would pass for that somebody. So the fd is closed first. Its number still
// names the event for the kernel, and no other event can take it meanwhile:
// reading is held.
//
// The opener reads: our fd may already have let a writer through. It stays
// open until the opener has certainly taken its place, or the writer would
// get SIGPIPE.
func (g *Group) respondFIFO(ev Event, allow bool) error {
	if allow && onlyWrites(ev.TID) {
		g.reading.Lock()
		defer g.reading.Unlock()
		unix.Close(ev.FD)
		return g.answer(ev.FD, true)
	}
	err := g.answer(ev.FD, allow)
	g.held.add(ev.FD)
	return err
}

func isFIFO(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO
}

func onlyWrites(tid int) bool {
	proc, err := procfs.Open()
	if err != nil {
		return false
	}
	defer proc.Close()
	sys, err := proc.Syscall(tid)
	if err != nil {
		return false
	}
	flags, known := procfs.OpenFlags(sys)
	return known && flags&unix.O_ACCMODE == unix.O_WRONLY
}

const (
	holdTime = 100 * time.Millisecond
	holdMax  = 64
)

// held keeps FIFOs open for holdTime, at most holdMax of them.
type held struct {
	mu    sync.Mutex
	fds   []heldFD // guarded by mu; oldest first
	timer *time.Timer
	done  bool
}

type heldFD struct {
	fd    int
	since time.Time
}

func (h *held) add(fd int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.done {
		unix.Close(fd)
		return
	}
	if len(h.fds) == holdMax {
		h.dropLocked(1)
	}
	h.fds = append(h.fds, heldFD{fd, time.Now()})
	switch {
	case h.timer == nil:
		h.timer = time.AfterFunc(holdTime, h.expire)
	case len(h.fds) == 1:
		h.timer.Reset(holdTime)
	}
}

func (h *held) expire() {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for n < len(h.fds) && time.Since(h.fds[n].since) >= holdTime {
		n++
	}
	h.dropLocked(n)
	if len(h.fds) > 0 {
		h.timer.Reset(holdTime - time.Since(h.fds[0].since))
	}
}

func (h *held) closeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.done = true
	if h.timer != nil {
		h.timer.Stop()
	}
	h.dropLocked(len(h.fds))
}

// dropLocked closes the n oldest.
func (h *held) dropLocked(n int) {
	for _, f := range h.fds[:n] {
		unix.Close(f.fd)
	}
	h.fds = h.fds[:copy(h.fds, h.fds[n:])]
}
