package features

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/shim/fanotify"
	"github.com/stockade-dev/stockade/shim/procfs"
)

// probeTime ends a probe that hangs: closing the group lets everybody go on. It is long, for a busy machine that takes its
// time must not look like one that cannot: its containers would be refused.
const probeTime = 30 * time.Second

// fanotifyWorks opens and executes a file on a tmpfs of its own under a group
// of its own, and looks whether the kernel asked, heeded the answer, and kept
// quiet where it was told to. The second answer is whether the stack of the
// thread that waited in execve could be read.
func fanotifyWorks() (events, stack answer) {
	stack = unknown("no exec event to look at")
	root, err := privateTmpfs(0)
	if err != nil {
		return unknown("no private tmpfs to try on: " + err.Error()), stack
	}
	defer unix.Close(root)
	if err := writeAt(root, "f", []byte("stockade\n")); err != nil {
		return unknown("private tmpfs: " + err.Error()), stack
	}
	g, err := fanotify.Open()
	if errors.Is(err, fanotify.ErrGroupLimit) {
		return unknown(err.Error() + ": no group left to try with"), stack
	}
	if err != nil {
		return refused(err), stack
	}
	// The kernel waits 10 to 20 ms for readers of the marks (SRCU) when a group
	// ends, and nobody needs to wait with it.
	defer func() { go g.Close() }()
	if err := g.MarkFilesystem(root, fanotify.OpenPerm|fanotify.OpenExecPerm); err != nil {
		return refused(err), stack
	}
	l := listen(g)
	events = l.try(root)
	if s := l.stack.Load(); s != nil {
		stack = *s
	}
	return events, stack
}

// listener answers the probe's events: opens are allowed, execs denied.
type listener struct {
	group *fanotify.Group
	opens atomic.Int32
	execs atomic.Int32
	stack atomic.Pointer[answer]
}

func listen(g *fanotify.Group) *listener {
	l := &listener{group: g}
	deadline := time.AfterFunc(probeTime, func() { g.Close() })
	go func() {
		defer deadline.Stop()
		var evs [8]fanotify.Event
		for {
			n, err := g.Read(evs[:])
			if err != nil {
				return
			}
			for _, ev := range evs[:n] {
				l.answer(ev)
			}
		}
	}()
	return l
}

func (l *listener) answer(ev fanotify.Event) {
	if !ev.Exec() {
		l.opens.Add(1)
		_ = l.group.Respond(ev, true)
		return
	}
	s := stackShows(ev.TID)
	l.stack.Store(&s)
	l.execs.Add(1)
	_ = l.group.Respond(ev, false)
}

func (l *listener) try(root int) answer {
	if err := openAt(root, "f"); err != nil {
		return no("an allowed open fails: " + err.Error())
	}
	if n := l.opens.Load(); n != 1 {
		return no(fmt.Sprintf("one open gave %d events", n))
	}
	err := execAt(root, "f")
	switch {
	case l.execs.Load() == 0:
		return no("an exec gave no event")
	case !errors.Is(err, unix.EPERM):
		return no(fmt.Sprintf("a denied exec was not refused: %v", err))
	}
	if err := l.group.IgnoreChildren(root); err != nil {
		return no("no ignore marks on directories (Linux 6.0): " + err.Error())
	}
	if err := openAt(root, "f"); err != nil || l.opens.Load() != 1 {
		return no(fmt.Sprintf("an ignore mark on a directory does not silence it: %v", err))
	}
	return yes("open, exec and ignore marks tried on a private tmpfs")
}

// stackShows tells whether the kernel's stack of the blocked thread can be
// read and has names in it.
func stackShows(tid int) answer {
	proc, err := procfs.Open()
	if err != nil {
		return unknown(err.Error())
	}
	defer proc.Close()
	_, err = proc.InExec(tid)
	for range 2000 { // 10 s: it does wait in execve, however busy the machine is
		if !errors.Is(err, procfs.ErrRunning) {
			break
		}
		_, err = proc.InExec(tid)
	}
	if err == nil {
		return yes("seen for a thread that waited in execve")
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stack", tid))
	if err != nil {
		return no(err.Error())
	}
	return no(fmt.Sprintf("/proc/TID/stack shows %.40q", text))
}

// execAt executes a file that is denied, or else no program, so that it always
// fails. The attempt is made by this process itself: a child that waits in
// execve would hold up the runtime that has to answer it.
//
// While a thread waits in execve, kernels before 6.8 refuse CLONE_FS clones of
// its fs_struct with EAGAIN, which is how Go makes threads. So the thread has an
// fs_struct of its own.
func execAt(dir int, name string) error {
	path, err := unix.BytePtrFromString(name)
	if err != nil {
		return err
	}
	result := make(chan error, 1)
	apart() <- func(unshared error) {
		if unshared != nil {
			result <- os.NewSyscallError("unshare", unshared)
			return
		}
		argv := [...]*byte{path, nil}
		envv := [...]*byte{nil}
		_, _, errno := unix.Syscall6(unix.SYS_EXECVEAT, uintptr(dir), uintptr(unsafe.Pointer(path)),
			uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&envv[0])), 0, 0)
		result <- errno
	}
	return <-result
}

// apart gives the one thread that shares no fs_struct with the others, and tells
// what it runs whether that is so. The thread never ends: the shim's runc has a
// parent-death signal, and the parent is the thread that started it (prctl(2)),
// which may have been this one before.
var apart = sync.OnceValue(func() chan<- func(unshared error) {
	work := make(chan func(error))
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_FS)
		for f := range work {
			f(err)
		}
	}()
	return work
})

// refused tells a kernel that lacks something from a probe that was not let.
func refused(err error) answer {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM) {
		return unknown(err.Error())
	}
	return no(err.Error())
}
