package fanotify

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ErrGroupLimit says that fs.fanotify.max_user_groups is reached.
var ErrGroupLimit = errors.New("fs.fanotify.max_user_groups is reached")

// Group is one fanotify group. Read belongs to one goroutine; everything else
// may be called from any.
type Group struct {
	file *os.File // owner of fd
	fd   int
	wake int // eventfd: written once, by Close

	// life is held for reading by whoever uses fd, so that Close cannot free
	// the number while it is in use.
	life   sync.RWMutex
	closed atomic.Bool

	buf   [Batch * metadataSize]byte // the reader's
	stats counters
}

// Open makes a group of class content, with unlimited queue and marks. Events
// carry thread ids. It needs CAP_SYS_ADMIN.
//
// errors.Is(err, ErrGroupLimit) when the user has no group left.
func Open() (*Group, error) {
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	fd, err := initGroup()
	if err != nil {
		err = explainInit(err, wake)
		unix.Close(wake)
		return nil, err
	}
	// The os.File is made while the fd still blocks, so that it stays out of
	// Go's poller: there, each event would wake a second thread.
	file := os.NewFile(uintptr(fd), "fanotify")
	if err := unix.SetNonblock(fd, true); err != nil {
		file.Close()
		unix.Close(wake)
		return nil, os.NewSyscallError("fcntl F_SETFL", err)
	}
	return &Group{file: file, fd: fd, wake: wake}, nil
}

// initGroup asks for errors in place of fds where the kernel can (6.13). The
// flags are those of fanotify_init(2); FAN_NONBLOCK is set later by Open.
// O_NONBLOCK on the events' fds keeps a file with a lease (fcntl(2)) from
// holding up the reader.
func initGroup() (int, error) {
	const flags = unix.FAN_CLASS_CONTENT | unix.FAN_UNLIMITED_QUEUE |
		unix.FAN_UNLIMITED_MARKS | unix.FAN_REPORT_TID | unix.FAN_CLOEXEC
	const eventFlags = unix.O_RDONLY | unix.O_LARGEFILE | unix.O_CLOEXEC | unix.O_NONBLOCK
	fd, err := unix.FanotifyInit(flags|unix.FAN_REPORT_FD_ERROR, eventFlags)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.FanotifyInit(flags, eventFlags)
	}
	return fd, err
}

// explainInit tells the group limit from a process without free fds: the
// kernel says EMFILE for both. A process that can still duplicate an fd is not
// out of them.
func explainInit(err error, anyFD int) error {
	if errors.Is(err, unix.EMFILE) {
		fd, dupErr := unix.FcntlInt(uintptr(anyFD), unix.F_DUPFD_CLOEXEC, 0)
		if dupErr == nil {
			unix.Close(fd)
			return fmt.Errorf("fanotify_init: %w: %w", ErrGroupLimit, err)
		}
	}
	return os.NewSyscallError("fanotify_init", err)
}

// File is the group itself, to be inherited by a process that holds it too.
// It stays the Group's: do not close it, and do not read from it.
func (g *Group) File() *os.File { return g.file }

// Close wakes Read and lets go of the group. Events without an answer, and
// all later opens, are allowed by the kernel if nobody else holds the group.
func (g *Group) Close() error {
	if g.closed.Swap(true) {
		return nil
	}
	one := [8]byte{0: 1}
	_, werr := unix.Write(g.wake, one[:])
	g.life.Lock()
	defer g.life.Unlock()
	err := errors.Join(os.NewSyscallError("write eventfd", werr), g.file.Close())
	unix.Close(g.wake)
	return err
}

// enter holds the group open until leave; false after Close.
func (g *Group) enter() bool {
	g.life.RLock()
	if g.closed.Load() {
		g.life.RUnlock()
		return false
	}
	return true
}

func (g *Group) leave() { g.life.RUnlock() }
