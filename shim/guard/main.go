package guard

import (
	"errors"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Main is the guard's program. It does not return.
func Main() {
	w, err := inherit()
	if err != nil {
		_, _ = os.Stderr.WriteString(comm + ": is started by the shim, not by hand: " + err.Error() + "\n")
		os.Exit(2)
	}
	settle()
	w.send(answer{})
	w.loop()
	os.Exit(0)
}

// inherit takes over the descriptors from the shim.
func inherit() (*watcher, error) {
	kind, err := unix.GetsockoptInt(fdSocket, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_SEQPACKET {
		return nil, errors.Join(errors.New("no socket to the shim"), err)
	}
	if err := unix.PidfdSendSignal(fdShim, 0, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return nil, os.NewSyscallError("pidfd_send_signal", err)
	}
	if _, err := pending(); err != nil {
		return nil, os.NewSyscallError("ioctl FIONREAD", err)
	}
	n, err := mapPage(fdPage, unix.PROT_READ)
	if err != nil {
		return nil, err
	}
	return &watcher{page: n, containers: map[string]*container{}, buf: make([]byte, maxMessage)}, nil
}

// settle makes the process small and hard to kill by accident. What the node does not permit is left.
func settle() {
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(10)
	debug.SetMemoryLimit(8 << 20)
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGPIPE, unix.SIGUSR1, unix.SIGUSR2,
		unix.SIGALRM, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU)
	_ = os.Chdir("/")
	_ = os.WriteFile("/proc/self/comm", []byte(comm), 0)
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("-999"), 0)
	if null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0); err == nil {
		for fd := range 3 {
			_ = unix.Dup3(null, fd, 0)
		}
		_ = unix.Close(null)
	}
	closeStrays()
}

// closeStrays closes what the shim holds without close-on-exec, if anything: a pipe that somebody reads to its end must not
// live as long as we do. The runtime's own descriptors stay.
func closeStrays() {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, entry := range entries {
		fd, err := strconv.Atoi(entry.Name())
		if err != nil || fd <= fdLog {
			continue
		}
		target, err := os.Readlink("/proc/self/fd/" + entry.Name())
		if err == nil && !strings.HasPrefix(target, "anon_inode:[event") {
			_ = unix.Close(fd)
		}
	}
}

// pending is how many bytes of events wait in the group, read by nobody: fanotify(7), FIONREAD, which x/sys
// knows by its other name.
func pending() (int, error) { return unix.IoctlGetInt(fdGroup, unix.TIOCINQ) }
