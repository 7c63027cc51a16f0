package fanotify

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// What a mark may ask for.
const (
	OpenPerm     uint64 = unix.FAN_OPEN_PERM
	OpenExecPerm uint64 = unix.FAN_OPEN_EXEC_PERM
)

// Batch is the most events that one Read returns.
const Batch = 64

const metadataSize = unix.FAN_EVENT_METADATA_LEN

// Event is one access that waits for an answer.
type Event struct {
	// FD is the object, opened to read and exempt from events; negative if
	// the event could not be delivered.
	FD int
	// TID is the thread, in the reader's pid namespace; 0 if it is not known.
	TID int
	// Mask has OpenPerm or OpenExecPerm, or what [Event.Undelivered] explains.
	Mask uint64
}

// Exec reports whether the kernel opens the object in order to execute it: as
// program, as ELF interpreter or as the interpreter of a script.
func (e Event) Exec() bool { return e.Mask&OpenExecPerm != 0 }

// Undelivered is not nil if there is no FD to decide on. The kernel has denied
// the access; no answer is due.
func (e Event) Undelivered() error {
	if e.FD >= 0 {
		return nil
	}
	if e.Mask&unix.FAN_Q_OVERFLOW != 0 {
		return ErrOverflow
	}
	return unix.Errno(-e.FD)
}

// Close closes FD without an answer. For an event that waits for one, use
// [Group.Respond].
func (e Event) Close() {
	if e.FD >= 0 {
		unix.Close(e.FD)
	}
}

// ErrOverflow says that the queue overflowed. The kernel denies permission
// events that it cannot queue, so none was let through.
var ErrOverflow = fmt.Errorf("fanotify queue overflow")

// Stats counts what went wrong since Open.
type Stats struct {
	Undelivered uint64 // events denied by the kernel because they had no fd
	Overflows   uint64 // FAN_Q_OVERFLOW
	Gone        uint64 // answers to threads that no longer waited
}

type counters struct{ undelivered, overflows, gone atomic.Uint64 }

// Stats returns the counters.
func (g *Group) Stats() Stats {
	return Stats{
		Undelivered: g.stats.undelivered.Load(),
		Overflows:   g.stats.overflows.Load(),
		Gone:        g.stats.gone.Load(),
	}
}

// Read waits for events and fills evs with at most [Batch] of them. The
// caller answers each with Respond. It returns os.ErrClosed after Close. It
// does not allocate. Only one goroutine may read.
func (g *Group) Read(evs []Event) (int, error) {
	if len(evs) == 0 {
		return 0, nil
	}
	if !g.enter() {
		return 0, os.ErrClosed
	}
	defer g.leave()
	for !g.closed.Load() {
		n, err := g.readNow(evs)
		if n > 0 || err != nil {
			return n, err
		}
		if err := g.wait(); err != nil {
			return 0, err
		}
	}
	return 0, os.ErrClosed
}

// wait sleeps in poll(2) until there is an event or Close. A plain poll, not
// Go's poller: there, an event would first wake the thread that polls for
// everybody.
func (g *Group) wait() error {
	fds := [2]unix.PollFd{
		{Fd: int32(g.fd), Events: unix.POLLIN},
		{Fd: int32(g.wake), Events: unix.POLLIN},
	}
	if _, err := unix.Poll(fds[:], -1); err != nil && err != unix.EINTR {
		return os.NewSyscallError("poll", err)
	}
	return nil
}

// readNow reads what is queued; 0, nil if nothing is.
func (g *Group) readNow(evs []Event) (int, error) {
	size := min(len(evs), Batch) * metadataSize
	n, err := unix.Read(g.fd, g.buf[:size])
	switch err {
	case nil:
		return g.decode(evs, g.buf[:n])
	case unix.EAGAIN, unix.EINTR:
		return 0, nil
	case unix.EBADF, unix.EINVAL, unix.EFAULT:
		return 0, os.NewSyscallError("read fanotify", err)
	}
	// Kernels before 6.13: the read fails with the reason why an event had no
	// fd, and that event is denied and gone.
	g.stats.undelivered.Add(1)
	evs[0] = Event{FD: -int(err.(unix.Errno))}
	return 1, nil
}

// decode reads struct fanotify_event_metadata (fanotify(7)).
func (g *Group) decode(evs []Event, b []byte) (int, error) {
	n := 0
	for len(b) >= metadataSize && n < len(evs) {
		size := int(binary.NativeEndian.Uint32(b))
		if version := b[4]; version != unix.FANOTIFY_METADATA_VERSION {
			return n, fmt.Errorf("read fanotify: metadata version %d, not %d", version, unix.FANOTIFY_METADATA_VERSION)
		}
		if size < metadataSize || size > len(b) {
			return n, fmt.Errorf("read fanotify: event of %d bytes in %d", size, len(b))
		}
		ev := Event{
			Mask: binary.NativeEndian.Uint64(b[8:]),
			FD:   int(int32(binary.NativeEndian.Uint32(b[16:]))),
			TID:  int(int32(binary.NativeEndian.Uint32(b[20:]))),
		}
		g.count(ev)
		evs[n] = ev
		n++
		b = b[size:]
	}
	return n, nil
}

func (g *Group) count(ev Event) {
	switch {
	case ev.Mask&unix.FAN_Q_OVERFLOW != 0:
		g.stats.overflows.Add(1)
	case ev.FD < 0:
		g.stats.undelivered.Add(1)
	}
}
