// Package cgroup kills, freezes and asks about the processes of one container, by its control group.
//
// Open is called while the container's init is parked (created, not started). It keeps descriptors of all that killing
// needs, so that Kill is a handful of system calls that look nothing up by path: not the container's files, which may be
// blocked in a permission event that the caller itself has to answer, and not the hierarchy's.
//
// # What Kill does
//
// Init first, by its pidfd: when the first process of a pid namespace dies, the kernel kills all the others of that
// namespace, those that left the control group included (pid_namespaces(7)). Then the group: cgroup.kill on cgroup v2, which
// the kernel makes safe against fork (cgroups(7), Documentation/admin-guide/cgroup-v2.rst; before 6.14 with a gap, see Kill). Version 1 has no such file:
// there every listed process is sent SIGKILL until a listing shows none that was not, and a group that outruns that is
// frozen while it is listed. A frozen v1 group does not die before it is thawed, so Kill thaws, sub-groups too. Each signal
// goes through a pidfd whose process was seen in the group after the pidfd was opened, so a reused pid is never hit.
//
// # What is refused
//
// A group that holds the caller, init's parent or pid 1, a hierarchy's root, and systemd's slices and services, none of
// which is a container's: ErrRefused. Killing one of those would kill the node.
//
// # Limits
//
// The hierarchies are looked for at /sys/fs/cgroup (pure v2), /sys/fs/cgroup/freezer (v1) and /sys/fs/cgroup/unified, with
// their roots there. On v1 the freezer hierarchy is the one used. cgroup.kill needs Linux 5.14. A group frozen through an
// ancestor on v1 dies only when the ancestor is thawed: Kill does not thaw what belongs to others. A process in
// uninterruptible sleep dies when it wakes. A process of a container without a pid namespace of its own that was able to
// leave its control group is not found.
package cgroup

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrRefused says that a control group cannot be a container's, so nothing here may kill it.
var ErrRefused = errors.New("not a container's control group")

// ErrAlive is Kill's error when new processes kept appearing (v1 only): call Kill again.
var ErrAlive = errors.New("processes keep appearing in the control group")

// Cgroup is one container's control group. Its methods may be called from several goroutines.
type Cgroup struct {
	spec Spec

	mu     sync.RWMutex // held for reading by whoever uses a descriptor, so that Close cannot pull it away
	init   int          // pidfd of the container's init; -1 when it had already ended (FromSpec)
	dir    int
	kill   int // v2: cgroup.kill; v1: -1
	freeze int // v2: cgroup.freeze; v1: freezer.state
	events int // v2: cgroup.events; v1: -1
}

// Open finds the control group of the container whose init is pid, and holds what killing it needs.
// Errors: ErrRefused; fs.ErrNotExist or ESRCH when the process is gone; otherwise what the kernel said.
func Open(pid int) (*Cgroup, error) { return openPID(pid, 0) }

// openPID is Open in a hierarchy of a given version, or with 0 in the one to use on this node.
func openPID(pid, version int) (*Cgroup, error) {
	initfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	spec, err := find(pid, version)
	if err == nil {
		// Only now is it certain that all that was read under /proc/PID was of the process the pidfd holds.
		err = os.NewSyscallError("pidfd_send_signal", unix.PidfdSendSignal(initfd, 0, nil, 0))
	}
	if err != nil {
		_ = unix.Close(initfd)
		return nil, err
	}
	return open(spec, initfd)
}

// FromSpec opens again, in another process, the group that Open found. The directory must be the same object, not just the
// same name. If init has ended the group is opened all the same: others may be left in it.
// Errors: as Open; fs.ErrNotExist when the group has been removed.
func FromSpec(s Spec) (*Cgroup, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	initfd, err := unix.PidfdOpen(s.PID, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return nil, os.NewSyscallError("pidfd_open", err)
	}
	if err != nil {
		return open(s, -1)
	}
	if start, _, err := statOf(s.PID); err != nil || start != s.Start { // the pid has a new owner
		_ = unix.Close(initfd)
		initfd = -1
	}
	return open(s, initfd)
}

// open takes ownership of initfd, also when it fails.
func open(s Spec, initfd int) (_ *Cgroup, err error) {
	c := &Cgroup{spec: s, init: initfd, dir: -1, kill: -1, freeze: -1, events: -1}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if c.dir, err = openDir(s.Dir); err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(c.dir, &st); err != nil {
		return nil, &fs.PathError{Op: "fstat", Path: s.Dir, Err: err}
	}
	if s.Inode == 0 {
		c.spec.Inode = st.Ino
	} else if s.Inode != st.Ino {
		return nil, &fs.PathError{Op: "open the same control group", Path: s.Dir, Err: fs.ErrNotExist}
	}
	if s.Version == 1 {
		c.freeze, err = openAt(c.dir, "freezer.state", unix.O_RDWR)
		return c, err
	}
	if c.kill, err = openAt(c.dir, "cgroup.kill", unix.O_WRONLY); err != nil {
		return nil, err
	}
	if c.freeze, err = openAt(c.dir, "cgroup.freeze", unix.O_RDWR); err != nil {
		return nil, err
	}
	c.events, err = openAt(c.dir, "cgroup.events", unix.O_RDONLY)
	return c, err
}

// Close lets go of the descriptors. The processes are left as they are. A second Close does nothing.
func (c *Cgroup) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, fd := range []*int{&c.init, &c.dir, &c.kill, &c.freeze, &c.events} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
		}
		*fd = -1
	}
}

// use holds the descriptors; the caller must call done.
func (c *Cgroup) use() (done func(), err error) {
	c.mu.RLock()
	if c.dir < 0 {
		c.mu.RUnlock()
		return nil, os.ErrClosed
	}
	return c.mu.RUnlock, nil
}

// Spec is what another process needs to open the same group with FromSpec.
func (c *Cgroup) Spec() Spec { return c.spec }

// Path is the group's path in its hierarchy, as /proc/PID/cgroup gives it.
func (c *Cgroup) Path() string { return c.spec.Path }

// Contains says whether a path read from /proc/PID/cgroup, of the same hierarchy, is this group or one below it.
func (c *Cgroup) Contains(cgroupPath string) bool { return within(cgroupPath, c.spec.Path) }

// ContainsProcess says whether the process or thread is in this group or below it.
// Errors: fs.ErrNotExist or ESRCH when it is gone.
func (c *Cgroup) ContainsProcess(tid int) (bool, error) {
	paths, err := pathsOf(tid)
	if err != nil {
		return false, err
	}
	return within(paths.of(c.spec.Version), c.spec.Path), nil
}

// within says whether path is parent or below it.
func within(path, parent string) bool {
	rest, ok := strings.CutPrefix(path, parent)
	return ok && (rest == "" || rest[0] == '/' || parent == "/")
}

// Empty says whether the container has ended: no process in the group or below it, and init with its pid namespace dead.
// A zombie counts as dead: it has let go of its memory and files. A group that has been removed is empty.
func (c *Cgroup) Empty() (bool, error) {
	done, err := c.use()
	if err != nil {
		return false, err
	}
	defer done()
	// An ending process leaves its control group before it waits for the rest of its pid namespace to die (do_exit in
	// kernel/exit.c), but its pidfd says that it ended only afterwards. So this, and not the group alone, covers those
	// that left the group.
	if c.init >= 0 && !exited(c.init) {
		return false, nil
	}
	if c.spec.Version == 2 {
		return c.unpopulated()
	}
	pids, err := c.list(nil)
	return len(pids) == 0 && err == nil, err
}

// Freeze stops every process of the group. It returns at once: a thread stops where it next returns to user space, one that
// is blocked in a permission event at the latest when it is answered.
func (c *Cgroup) Freeze() error { return c.writeFreeze(true) }

// Thaw lets a frozen group run again.
func (c *Cgroup) Thaw() error { return c.writeFreeze(false) }

func (c *Cgroup) writeFreeze(on bool) error {
	done, err := c.use()
	if err != nil {
		return err
	}
	defer done()
	return c.setFrozen(c.freeze, on)
}
