package audit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// ErrLost says that records were lost: the socket's buffer was full. Reading goes on.
var ErrLost = errors.New("audit records were lost")

const (
	readLog    = 1 << (unix.AUDIT_NLGRP_READLOG - 1)
	bufferSize = 8 << 20 // bytes of records that wait; the kernel counts about a kilobyte for each
)

// Reader receives records. One goroutine reads; Close may come from any.
type Reader struct {
	file *os.File // non-blocking, so that Close wakes readers
	over atomic.Bool
	buf  []byte
	lost sync.Mutex // one question at a time
}

// Open joins the multicast group. It takes CAP_AUDIT_READ in the initial user namespace, and CAP_NET_ADMIN for a buffer
// beyond the node's limit; without the latter the buffer is smaller.
func Open() (*Reader, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_AUDIT)
	if err != nil {
		return nil, fmt.Errorf("audit netlink: %w", os.NewSyscallError("socket", err))
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bufferSize) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bufferSize)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: readLog}); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("audit netlink, join AUDIT_NLGRP_READLOG: %w", os.NewSyscallError("bind", err))
	}
	return &Reader{file: os.NewFile(uintptr(fd), "audit"), buf: make([]byte, 64<<10)}, nil
}

// Close wakes a Read.
func (r *Reader) Close() error {
	r.over.Store(true)
	return r.file.Close()
}

// Read waits for the next record that [Parse] knows. ErrLost: some were lost before it, and the next call goes on.
// os.ErrClosed after Close.
func (r *Reader) Read() (Event, error) {
	for {
		n, from, err := r.receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			return Event{}, ErrLost
		case r.over.Load():
			return Event{}, fmt.Errorf("audit netlink: %w", os.ErrClosed)
		case err != nil:
			return Event{}, fmt.Errorf("audit netlink: %w", err)
		}
		if a, ok := from.(*unix.SockaddrNetlink); !ok || a.Pid != 0 {
			continue // another process's, not the kernel's
		}
		if t, payload, ok := message(r.buf[:n]); ok {
			if e, ok := Parse(t, payload); ok {
				return e, nil
			}
		}
	}
}

func (r *Reader) receive() (n int, from unix.Sockaddr, err error) {
	raw, err := r.file.SyscallConn()
	if err != nil {
		return 0, nil, err
	}
	rerr := raw.Read(func(fd uintptr) bool {
		n, from, err = unix.Recvfrom(int(fd), r.buf, 0)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	if rerr != nil {
		return 0, nil, rerr
	}
	return n, from, err
}

// message takes a netlink message apart. The length that audit writes into the header of a multicast leaves the header
// out on some kernels, so the datagram's own length counts.
func message(data []byte) (t Type, payload []byte, ok bool) {
	if len(data) < unix.NLMSG_HDRLEN {
		return 0, nil, false
	}
	return Type(binary.NativeEndian.Uint16(data[4:])), data[unix.NLMSG_HDRLEN:], true
}

// Lost is how many records the kernel itself has lost since it started: its backlog was full, its rate limit reached or
// memory short (AUDIT_GET, audit_status.lost). It takes CAP_AUDIT_CONTROL.
func (r *Reader) Lost() (uint32, error) {
	r.lost.Lock()
	defer r.lost.Unlock()
	s, err := status()
	if err != nil {
		return 0, fmt.Errorf("audit status: %w", err)
	}
	return s.lost, nil
}

// kernelStatus is struct audit_status as far as it is of use here.
type kernelStatus struct{ enabled, lost uint32 }

func status() (kernelStatus, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_AUDIT)
	if err != nil {
		return kernelStatus{}, os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2})
	request := make([]byte, unix.NLMSG_HDRLEN)
	binary.NativeEndian.PutUint32(request, unix.NLMSG_HDRLEN)
	binary.NativeEndian.PutUint16(request[4:], unix.AUDIT_GET)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return kernelStatus{}, os.NewSyscallError("sendto", err)
	}
	buf := make([]byte, 4096)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return kernelStatus{}, os.NewSyscallError("recvfrom", err)
		}
		t, payload, ok := message(buf[:n])
		switch {
		case ok && t == unix.NLMSG_ERROR && len(payload) >= 4:
			if errno := int32(binary.NativeEndian.Uint32(payload)); errno != 0 {
				return kernelStatus{}, unix.Errno(-errno)
			}
		case ok && t == unix.AUDIT_GET && len(payload) >= 28: // mask, enabled, failure, pid, rate_limit, backlog_limit, lost
			return kernelStatus{binary.NativeEndian.Uint32(payload[4:]), binary.NativeEndian.Uint32(payload[24:])}, nil
		}
	}
}
