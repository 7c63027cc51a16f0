package notify

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrGone: the caller no longer waits. It was killed, or a signal took it out
// of the call, and then it may call again.
var ErrGone = errors.New("the call no longer waits")

// ioctlIDValid is SECCOMP_IOCTL_NOTIF_ID_VALID of linux/seccomp.h since 5.17;
// the kernel goes on taking the older number too, and we run on both: older
// ones know 0x80082102 only.
const (
	ioctlIDValid    = 0x40082102
	ioctlIDValidOld = 0x80082102
	ioctlSetFlags   = 0x40082104 // SECCOMP_IOCTL_NOTIF_SET_FLAGS
)

// notification is struct seccomp_notif, response struct seccomp_notif_resp
// (linux/seccomp.h, seccomp_unotify(2)).
type notification struct {
	id    uint64
	pid   uint32
	flags uint32
	data  struct {
		nr   int32
		arch uint32
		ip   uint64
		args [6]uint64
	}
}

type response struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

// checkSizes refuses a kernel whose structures have grown beyond ours: it
// would write past them.
func checkSizes() error {
	var sizes struct{ notif, resp, data uint16 }
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_NOTIF_SIZES, 0, uintptr(unsafe.Pointer(&sizes)))
	if errno != 0 {
		return fmt.Errorf("this kernel has no seccomp notifications (Linux 5.7 has): %w", os.NewSyscallError("seccomp", errno))
	}
	if uintptr(sizes.notif) > unsafe.Sizeof(notification{}) || uintptr(sizes.resp) > unsafe.Sizeof(response{}) {
		return fmt.Errorf("the kernel's seccomp notifications have %d and %d bytes, this version knows %d and %d",
			sizes.notif, sizes.resp, unsafe.Sizeof(notification{}), unsafe.Sizeof(response{}))
	}
	return nil
}

// readiness asks without waiting: is there a notification, and are all
// processes of the filter gone? To receive without asking would block when
// the only notification has been withdrawn.
func readiness(fd int) (call, gone bool, err error) {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(p, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return false, false, os.NewSyscallError("poll", err)
		}
		re := p[0].Revents
		if re&unix.POLLNVAL != 0 {
			return false, false, os.NewSyscallError("poll", unix.EBADF)
		}
		return re&unix.POLLIN != 0, re&(unix.POLLHUP|unix.POLLERR) != 0, nil
	}
}

// receive takes the next notification. ErrGone: it was withdrawn.
func receive(fd int, n *notification) error {
	*n = notification{} // the kernel wants zeroes (seccomp_unotify(2), EINVAL)
	return control(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(n))
}

// send answers. ErrGone: nobody waits for it.
func send(fd int, r *response) error {
	return control(fd, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(r))
}

// valid is nil while the call with this id waits.
func valid(fd int, id uint64) error {
	err := control(fd, ioctlIDValid, unsafe.Pointer(&id))
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY) {
		err = control(fd, ioctlIDValidOld, unsafe.Pointer(&id))
	}
	return err
}

// wakeHere has the caller and its listener wake each other on one CPU, which
// saves most of a round trip (SECCOMP_IOCTL_NOTIF_SET_FLAGS, Linux 6.6).
func wakeHere(fd int) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlSetFlags, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	if errno != 0 {
		return os.NewSyscallError("ioctl", errno)
	}
	return nil
}

func control(fd int, request uintptr, arg unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
			continue
		case unix.ENOENT:
			return ErrGone
		}
		return os.NewSyscallError("ioctl", errno)
	}
}
