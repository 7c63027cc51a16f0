package notify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const (
	// handoverTime bounds how long a peer that sends nothing is kept. runc
	// sends at once, but a machine can be busy, and to hang up on runc is to
	// make it fail.
	handoverTime = 5 * time.Minute
	// maxState bounds runc's JSON, which holds the container's annotations;
	// Kubernetes allows 256 KiB of them.
	maxState = 4 << 20
	// controlSpace is more than runc's one descriptor needs, so that extra
	// ones arrive, are seen and are closed.
	controlSpace = 1024
	// notifyLink is what /proc/self/fd shows for a notification descriptor
	// (kernel/seccomp.c, init_listener).
	notifyLink = "anon_inode:seccomp notify"
)

// errNothing: the peer hung up before it had sent anything.
var errNothing = errors.New("nothing was handed over")

// handover reads what runc sends for each process: the OCI container process
// state (runtime-spec config-linux.md) and one descriptor (SCM_RIGHTS).
func handover(conn *net.UnixConn) (Process, *os.File, error) {
	if err := conn.SetDeadline(time.Now().Add(handoverTime)); err != nil {
		return Process{}, nil, err
	}
	if err := checkPeer(conn); err != nil {
		return Process{}, nil, err
	}
	first := make([]byte, 64<<10)
	oob := make([]byte, controlSpace)
	n, oobn, flags, _, err := conn.ReadMsgUnix(first, oob)
	if n == 0 && oobn == 0 && (err == nil || errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET)) {
		return Process{}, nil, errNothing
	}
	if err != nil {
		return Process{}, nil, err
	}
	fds, err := descriptors(oob[:oobn])
	if err == nil && flags&unix.MSG_CTRUNC != 0 {
		err = errors.New("too many descriptors")
	}
	if err == nil && len(fds) != 1 {
		err = fmt.Errorf("%d descriptors, want one", len(fds))
	}
	var p Process
	if err == nil {
		p, err = readState(io.MultiReader(bytes.NewReader(first[:n]), conn))
	}
	var file *os.File
	if err == nil {
		file, err = notifyFile(fds[0])
	}
	if err != nil {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
	return p, file, err
}

// checkPeer lets root in only, runc's user. The socket's folder keeps others
// out already.
func checkPeer(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, credErr); err != nil {
		return fmt.Errorf("ask who connected: %w", err)
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return fmt.Errorf("process %d of user %d connected, want root", cred.Pid, cred.Uid)
	}
	return nil
}

// readState reads to the end, because the state can be longer than what came
// with the descriptor.
func readState(r io.Reader) (Process, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxState+1))
	if err != nil {
		return Process{}, err
	}
	if len(data) > maxState {
		return Process{}, fmt.Errorf("container process state of more than %d bytes", maxState)
	}
	var s specs.ContainerProcessState
	if err := json.Unmarshal(data, &s); err != nil {
		return Process{}, fmt.Errorf("container process state: %w", err)
	}
	p := Process{
		Container: s.State.ID, Bundle: s.State.Bundle, PID: s.Pid,
		Init: s.Pid == s.State.Pid, Metadata: s.Metadata,
	}
	if p.Container == "" || p.PID <= 0 || !slices.Equal(s.Fds, []string{specs.SeccompFdName}) {
		return p, fmt.Errorf("container process state of %s: container %q, descriptors %q", p, p.Container, s.Fds)
	}
	return p, nil
}

// descriptors takes what came with a message; all of them are the caller's,
// whatever the error.
func descriptors(oob []byte) ([]int, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("control message: %w", err)
	}
	var fds []int
	var errs []error
	for _, m := range messages {
		rights, err := unix.ParseUnixRights(&m)
		fds, errs = append(fds, rights...), append(errs, err)
	}
	return fds, errors.Join(errs...)
}

// notifyFile owns fd when there is no error.
func notifyFile(fd int) (*os.File, error) {
	link, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return nil, err
	}
	if link != notifyLink {
		return nil, fmt.Errorf("a descriptor of %s, want %s", link, notifyLink)
	}
	// Only a non-blocking one is given to the Go poller.
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), link), nil
}
