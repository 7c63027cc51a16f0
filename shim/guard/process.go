package guard

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/stockade-dev/stockade/shim/cgroup"
	"golang.org/x/sys/unix"
)

// process is one running guard, seen from the shim. Its requests are made one at a time.
type process struct {
	pid     int
	pidfd   *os.File // closed by await
	conn    *os.File
	seq     uint32
	answers chan answer
	done    chan struct{}
}

// spawn starts the program and waits until it says that it is ready.
func (g *Guard) spawn() (*process, error) {
	ours, theirs, err := socketpair()
	if err != nil {
		return nil, err
	}
	p := &process{conn: ours, answers: make(chan answer, 1), done: make(chan struct{})}
	err = g.exec(p, theirs)
	_ = theirs.Close()
	if err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	go p.await()
	if _, err := p.answer(); err != nil {
		return nil, &fs.PathError{Op: "start", Path: g.binary, Err: err}
	}
	return p, nil
}

// exec runs the program. Not by os/exec: containerd's shim reaps every child, so Wait would fail; the pidfd does not care.
func (g *Guard) exec(p *process, sock *os.File) error {
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	pidfd := os.NewFile(uintptr(self), "pidfd")
	defer func() { _ = pidfd.Close() }()
	// Opened here, by the process it speaks of: the guard could open that of a successor in the same pid.
	stat, err := os.Open("/proc/" + strconv.Itoa(os.Getpid()) + "/stat")
	if err != nil {
		return err
	}
	defer func() { _ = stat.Close() }()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = null.Close() }()

	files := []*os.File{fdGroup: g.group, fdSocket: sock, fdShim: pidfd, fdPage: g.page.file, fdStat: stat, fdLog: null}
	files[0], files[1], files[2] = null, null, null
	if g.log != nil {
		files[fdLog] = g.log
	}
	child := -1
	err = withFds(files, nil, func(fds []uintptr) (err error) {
		p.pid, err = syscall.ForkExec(g.binary, []string{comm}, &syscall.ProcAttr{
			Dir:   "/",
			Env:   []string{"GOMAXPROCS=1", "GOTRACEBACK=none"},
			Files: fds,
			Sys:   &syscall.SysProcAttr{Setsid: true, PidFD: &child},
		})
		return err
	})
	if err != nil {
		return &fs.PathError{Op: "exec", Path: g.binary, Err: err}
	}
	p.pidfd = os.NewFile(uintptr(child), "pidfd")
	return nil
}

// withFds calls f with the files' descriptors, held open meanwhile. File.Fd would switch a file that the runtime polls, as
// the group is, to blocking mode.
func withFds(files []*os.File, fds []uintptr, f func([]uintptr) error) error {
	if len(files) == 0 {
		return f(fds)
	}
	raw, err := files[0].SyscallConn()
	if err != nil {
		return err
	}
	var errF error
	err = raw.Control(func(fd uintptr) { errF = withFds(files[1:], append(fds, fd), f) })
	return errors.Join(err, errF)
}

// await passes the answers on until the guard has ended, then reaps it if nobody else did.
func (p *process) await() {
	buf := make([]byte, maxMessage)
	for {
		n, err := p.conn.Read(buf)
		if err != nil || n == 0 {
			break
		}
		if a, err := parseAnswer(buf[:n]); err == nil {
			p.put(a)
		}
	}
	close(p.done)
	// The socket ends a little before the process does. After hangUp the guard may well live on.
	_ = control(p.pidfd, func(fd int) error {
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(answerWithin/time.Millisecond))
		return unix.Waitid(unix.P_PIDFD, fd, nil, unix.WEXITED|unix.WNOHANG, nil)
	})
	_ = p.pidfd.Close()
}

// put keeps the newest answer only: one that nobody takes, because nobody asked or waits any more, must not displace the one
// that somebody waits for. Only await calls it.
func (p *process) put(a answer) {
	select {
	case <-p.answers:
	default:
	}
	p.answers <- a
}

// control calls f with the file's descriptor, which nobody can close meanwhile.
func control(file *os.File, f func(fd int) error) error {
	return withFds([]*os.File{file}, nil, func(fds []uintptr) error { return f(int(fds[0])) })
}

func (p *process) watch(id string, s cgroup.Spec) error {
	body, err := s.AppendBinary(nil)
	if err != nil {
		return err
	}
	return p.request(opWatch, id, body)
}

func (p *process) forget(id string) error { return p.request(opForget, id, nil) }

func (p *process) request(op byte, id string, body []byte) error {
	p.seq++
	msg := request{op: op, seq: p.seq, id: id, body: body}.append(nil)
	if len(msg) > maxMessage {
		return errTooLong
	}
	_ = p.conn.SetWriteDeadline(time.Now().Add(answerWithin))
	if _, err := p.conn.Write(msg); err != nil {
		p.end()
		return errors.Join(ErrDead, err)
	}
	for {
		a, err := p.answer()
		if err != nil || a.seq == p.seq {
			return errors.Join(err, a.err())
		}
	}
}

// answer waits for the next one.
func (p *process) answer() (answer, error) {
	timer := time.NewTimer(answerWithin)
	defer timer.Stop()
	select {
	case a := <-p.answers:
		return a, nil
	case <-p.done:
	case <-timer.C:
	}
	p.end()
	return answer{}, ErrDead
}

// end kills the guard, which leaves the containers as they are as long as the shim lives, and waits until it has gone.
func (p *process) end() {
	select {
	case <-p.done:
	default:
		_ = control(p.pidfd, func(fd int) error { return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) })
		<-p.done
	}
	_ = p.conn.Close()
}

func (p *process) hangUp() error { return p.conn.Close() }

// socketpair makes two ends that keep messages apart; ours is polled by the runtime, the guard's blocks.
func socketpair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		_, _ = unix.Close(fds[0]), unix.Close(fds[1])
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fds[0]), "guard"), os.NewFile(uintptr(fds[1]), "shim"), nil
}
