package notify

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Listener receives the notification descriptors of one container from runc
// and answers the calls. Close it in any case.
type Listener struct {
	// OnProcess, if it is set before Serve, is told of each process whose
	// descriptor was taken over, before its calls are answered. runc lets the
	// process go on before it hands the descriptor over, so the process may
	// have begun its program, and even ended, unless the filter tells of
	// execve: then it waits there.
	OnProcess func(Process)

	socket *net.UnixListener
	init   chan struct{}
	wait   sync.WaitGroup

	mu        sync.Mutex
	closed    bool                   // guarded by mu
	container string                 // whose processes these are; guarded by mu
	open      map[io.Closer]struct{} // what Close must close; guarded by mu
}

// maxSocketPath is what struct sockaddr_un holds (unix(7)), the closing NUL
// not counted.
const maxSocketPath = 107

// Listen creates the unix socket path. Its folder is made, or must have the
// mode 0700 and belong to this user: whoever may connect hands us processes.
func Listen(path string) (*Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("listen on %s: %d bytes, a unix socket's path has at most %d", path, len(path), maxSocketPath)
	}
	if err := checkSizes(); err != nil {
		return nil, err
	}
	if err := privateFolder(filepath.Dir(path)); err != nil {
		return nil, err
	}
	// What an earlier shim left.
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSocket {
		os.Remove(path)
	}
	socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	return &Listener{socket: socket, init: make(chan struct{}), open: map[io.Closer]struct{}{}}, nil
}

func privateFolder(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || info.Mode().Perm() != 0o700 || !ok || int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%s: want a folder of user %d with mode 0700, it has %v", dir, os.Geteuid(), info.Mode())
	}
	return nil
}

// Init is closed once the container's first process is being listened to.
// Before that the container must not be started.
func (l *Listener) Init() <-chan struct{} { return l.init }

// Serve answers until Close, and then returns nil. Any other end is an error:
// new processes can then not be listened to, so the container must be killed.
func (l *Listener) Serve(handle Handler, fault Fault) error {
	for {
		conn, err := l.socket.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case shortage(err):
			// runc has connected and its process' calls wait meanwhile.
			time.Sleep(10 * time.Millisecond)
			continue
		case err != nil:
			return err
		}
		if !l.adopt(conn, func() { l.receive(conn, handle, fault) }) {
			conn.Close()
		}
	}
}

// shortage of descriptors or memory passes; the container's processes are
// still being answered.
func shortage(err error) bool {
	for _, e := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// receive takes one process' descriptor and serves it to its end.
func (l *Listener) receive(conn *net.UnixConn, handle Handler, fault Fault) {
	p, file, err := handover(conn)
	conn.Close()
	if err == nil {
		err = l.admit(p)
	}
	if err != nil {
		if file != nil {
			file.Close()
		}
		// A runc that was killed is no fault of the container: what that one was
		// about to start has a filter that nobody answers, so each call that
		// would be told of fails (ENOSYS).
		if !l.isClosed() && !errors.Is(err, errNothing) {
			fault(p, fmt.Errorf("take over a process from runc: %w", err))
		}
		return
	}
	if l.OnProcess != nil {
		l.OnProcess(p)
	}
	d := &descriptor{file: file, process: p, handle: handle, fault: fault}
	if !l.adopt(d, d.serve) {
		file.Close()
		return
	}
	if p.Init {
		close(l.init)
	}
}

// admit holds the listener to one container: its first process comes first,
// and once.
func (l *Listener) admit(p Process) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.container == "" && !p.Init:
		return fmt.Errorf("%s comes before the container's first process", p)
	case l.container != "" && p.Init:
		return fmt.Errorf("%s: the container has a first process already", p)
	case l.container != "" && l.container != p.Container:
		return fmt.Errorf("%s: this socket is for container %s", p, l.container)
	}
	l.container = p.Container
	return nil
}

// adopt runs f with c under the care of Close. It says no when there has been
// a Close already.
func (l *Listener) adopt(c io.Closer, f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.open[c] = struct{}{}
	l.wait.Go(func() {
		defer func() {
			l.mu.Lock()
			delete(l.open, c)
			l.mu.Unlock()
		}()
		f()
	})
	return true
}

func (l *Listener) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// Close stops listening, wakes everything and waits for it: not to be called
// by a Handler or a Fault. Calls that wait for an answer, and later ones, fail
// with ENOSYS (seccomp_unotify(2)).
func (l *Listener) Close() error {
	l.mu.Lock()
	l.closed = true
	err := l.socket.Close()
	for c := range l.open {
		c.Close()
	}
	l.mu.Unlock()
	l.wait.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
