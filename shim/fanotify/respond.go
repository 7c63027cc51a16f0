package fanotify

import (
	"encoding/binary"
	"os"

	"golang.org/x/sys/unix"
)

// Respond answers an event and closes its FD. An event without FD needs no
// answer: nil. A thread that was killed meanwhile is no error either. It does
// not allocate.
func (g *Group) Respond(ev Event, allow bool) error {
	if ev.FD < 0 {
		return nil
	}
	if !g.enter() {
		unix.Close(ev.FD)
		return os.ErrClosed
	}
	defer g.leave()
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
