package guard

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/shim/cgroup"
)

// shimRole is the tests' shim: it guards dir, answers allow for the file "declared" and deny for the others, reaps all
// children as containerd's shim does, and obeys the commands on its standard input.
func shimRole(dir string) {
	group, err := newGroup(dir)
	if err != nil {
		fatal(err)
	}
	go reap()
	log, err := os.Create(os.Getenv("GUARD_TEST_LOG"))
	if err != nil {
		fatal(err)
	}
	g, err := Start("/proc/self/exe", group, WithLog(log))
	if err != nil {
		fatal(err)
	}
	a := &answerer{g: g, group: group, stop: make(chan struct{})}
	go a.loop()
	fmt.Println(g.PID())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if err := a.obey(in.Text()); err != nil {
			fmt.Println(err)
		} else {
			fmt.Println("ok")
		}
	}
	os.Exit(0)
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// newGroup makes a group that asks for every open in dir's file system.
func newGroup(dir string) (*os.File, error) {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("fanotify_init", err)
	}
	if dir != "" {
		err = unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_OPEN_PERM, unix.AT_FDCWD, dir)
	}
	return os.NewFile(uintptr(fd), "fanotify"), os.NewSyscallError("fanotify_mark", err)
}

func reap() {
	ended := make(chan os.Signal, 16)
	signal.Notify(ended, unix.SIGCHLD)
	for range ended {
		for {
			if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
}

// answerer is the shim's loop.
type answerer struct {
	g           *Guard
	group       *os.File
	hang, quiet atomic.Bool // stop within a batch, or between two
	stop        chan struct{}
}

func (a *answerer) loop() {
	buf := make([]byte, 24*64)
	for {
		if a.quiet.Load() {
			select {}
		}
		n, err := a.group.Read(buf)
		if err != nil {
			fatal(err)
		}
		a.g.Busy()
		if a.hang.Load() {
			select {}
		}
		for b := buf[:n]; len(b) > 0; {
			event := (*unix.FanotifyEventMetadata)(unsafe.Pointer(&b[0]))
			a.answer(int(event.Fd))
			b = b[event.Event_len:]
		}
		a.g.Idle()
	}
}

func (a *answerer) answer(fd int) {
	path, _ := os.Readlink(fmt.Sprint("/proc/self/fd/", fd))
	r := unix.FanotifyResponse{Fd: int32(fd), Response: unix.FAN_DENY}
	if filepath.Base(path) == "declared" {
		r.Response = unix.FAN_ALLOW
	}
	_, _ = a.group.Write((*[unsafe.Sizeof(r)]byte)(unsafe.Pointer(&r))[:])
	_ = unix.Close(fd)
}

func (a *answerer) obey(command string) error {
	verb, rest, _ := strings.Cut(command, " ")
	switch verb {
	case "watch":
		var s cgroup.Spec
		if err := json.Unmarshal([]byte(rest), &s); err != nil {
			return err
		}
		return a.g.Watch("c1", s)
	case "forget":
		return a.g.Forget("c1")
	case "hang":
		a.hang.Store(true)
	case "quiet":
		a.quiet.Store(true)
	case "close":
		return a.g.Close()
	case "restart": // when the guard has ended
		<-a.g.Done()
		return a.g.Restart()
	}
	return nil
}
