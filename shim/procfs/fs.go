package procfs

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// FS is an open /proc. Safe for concurrent use.
type FS struct {
	proc *os.File // O_PATH
	fds  *os.File // O_PATH, /proc/self/fd

	hierarchy func() (Hierarchy, error)
}

// Open holds /proc open.
func Open() (*FS, error) {
	proc, err := openPath("/proc")
	if err != nil {
		return nil, err
	}
	fds, err := openPath("/proc/self/fd")
	if err != nil {
		proc.Close()
		return nil, err
	}
	return &FS{proc: proc, fds: fds, hierarchy: sync.OnceValues(DetectHierarchy)}, nil
}

func openPath(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Close lets go of /proc.
func (p *FS) Close() error { return errors.Join(p.proc.Close(), p.fds.Close()) }

// name is a NUL-terminated path below /proc, on the stack.
type name [64]byte

// set writes "n" or "n/file".
func (b *name) set(n int, file string) *byte {
	end := len(appendInt(b[:0], n))
	if file != "" {
		b[end] = '/'
		end += 1 + copy(b[end+1:len(b)-1], file)
	}
	b[end] = 0
	return &b[0]
}

func appendInt(b []byte, n int) []byte {
	if n < 0 {
		n = 0 // no such pid: ENOENT
	}
	var digits [20]byte
	i := len(digits)
	for {
		i--
		digits[i] = byte('0' + n%10)
		if n /= 10; n == 0 {
			return append(b, digits[i:]...)
		}
	}
}

// read fills buf with the start of /proc/PID/FILE. The files read here are
// written by the kernel in one piece, so one read(2) is enough.
func (p *FS) read(pid int, file string, buf []byte) ([]byte, error) {
	var path name
	fd, err := openat(int(p.proc.Fd()), path.set(pid, file))
	if err != nil {
		return nil, fmt.Errorf("open /proc/%d/%s: %w", pid, file, err)
	}
	n, err := unix.Read(fd, buf)
	for err == unix.EINTR {
		n, err = unix.Read(fd, buf)
	}
	unix.Close(fd)
	if err != nil {
		return nil, fmt.Errorf("read /proc/%d/%s: %w", pid, file, err)
	}
	return buf[:n], nil
}

// The system calls below take a path as bytes on the stack; those of x/sys
// allocate it.

func openat(dir int, path *byte) (int, error) {
	for {
		fd, _, errno := unix.Syscall6(unix.SYS_OPENAT, uintptr(dir), uintptr(unsafe.Pointer(path)),
			unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
		switch errno {
		case 0:
			return int(fd), nil
		case unix.EINTR:
		default:
			return -1, errno
		}
	}
}

func readlinkat(dir int, path *byte, buf []byte) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_READLINKAT, uintptr(dir), uintptr(unsafe.Pointer(path)),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// statx never asks a file system's server (AT_STATX_DONT_SYNC).
func statx(dir int, path *byte, flags int, mask uint32, st *unix.Statx_t) error {
	_, _, errno := unix.Syscall6(unix.SYS_STATX, uintptr(dir), uintptr(unsafe.Pointer(path)),
		uintptr(flags|unix.AT_STATX_DONT_SYNC), uintptr(mask), uintptr(unsafe.Pointer(st)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// SettleTime bounds the wait for a thread to fall asleep after it has sent its
// event. Nearly always it sleeps already. On a busy machine it may have been
// preempted just there, for longer than anybody else should wait: then the
// caller gets ErrRunning, and asks again.
const SettleTime = 5 * time.Millisecond

// ErrRunning says that the thread did not block within SettleTime. It says
// nothing about the thread: only how busy the machine is.
var ErrRunning = errors.New("thread is running, not blocked")

// settle calls try until it says done or SettleTime is over.
func settle(try func() (done bool, err error)) error {
	start := time.Now()
	pause := time.Microsecond
	for {
		done, err := try()
		if done || err != nil {
			return err
		}
		if time.Since(start) > SettleTime {
			return ErrRunning
		}
		nanosleep(pause)
		pause = min(2*pause, time.Millisecond)
	}
}

// nanosleep lets the thread in question run even on the same processor;
// time.Sleep would take a detour through Go's timers.
func nanosleep(d time.Duration) {
	ts := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&ts, nil)
}
