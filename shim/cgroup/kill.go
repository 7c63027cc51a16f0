package cgroup

import (
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	rounds     = 100                   // of the v1 sweep, before ErrAlive
	openRounds = 2                     // of these, the first that do without freezing
	freezeWait = 2 * time.Millisecond  // how long a sweep waits for the group to be all frozen before it lists it anyway
	freezePoll = 50 * time.Microsecond // how often it looks
	batch      = 256                   // pidfds held at once: a shim may have a limit of 1024
)

// Kill sends SIGKILL to every process of the container and thaws it if it was frozen. When it returns nil each of them is
// dead or dying and none can start another; Empty says when the last has gone. Killing what has ended is no error.
// It waits for nobody to die, so its time is bounded whatever the processes do: some 200 ms on v1 under a fork bomb, a few
// hundred microseconds otherwise.
// Errors: ErrAlive; os.ErrClosed; otherwise what the kernel said, after trying everything.
func (c *Cgroup) Kill() error {
	done, err := c.use()
	if err != nil {
		return err
	}
	defer done()
	var errInit error
	if c.init >= 0 {
		errInit = ignore(signal(c.init), unix.ESRCH)
	}
	if c.spec.Version == 2 {
		// A frozen v2 group dies without being thawed.
		err = os.NewSyscallError("write cgroup.kill", ignore(write(c.kill, "1"), unix.ENODEV))
	} else {
		err = c.sweep()
	}
	return errors.Join(os.NewSyscallError("pidfd_send_signal", errInit), err)
}

// sweep kills a v1 group: rounds of list and signal until a listing shows only processes that were signalled. A process
// with SIGKILL pending cannot fork (copy_process in kernel/fork.c), so then nothing new can come.
func (c *Cgroup) sweep() error {
	if err := c.setFrozen(c.freeze, false); err != nil {
		return err
	}
	var signalled []int // sorted
	for round := range rounds {
		if round >= openRounds {
			if err := c.setFrozen(c.freeze, true); err != nil {
				return err
			}
			c.awaitFrozen()
		}
		pids, err := c.list(c.thawBelow)
		if err == nil && !subset(pids, signalled) {
			signalled, err = c.signalAll(pids)
		} else if err == nil {
			return c.setFrozen(c.freeze, false)
		}
		if errThaw := c.setFrozen(c.freeze, false); err != nil || errThaw != nil {
			return errors.Join(err, errThaw)
		}
	}
	return ErrAlive
}

// signalAll sends SIGKILL to those of pids that are in the group, and returns which, sorted. Between listing and pidfd_open
// a pid may have got a new owner; one that is listed after its pidfd was opened is either that pidfd's process, or a newer
// one whose predecessor is dead, and then the signal goes to nobody.
func (c *Cgroup) signalAll(pids []int) (signalled []int, err error) {
	var fds [batch]int
	for part := range slices.Chunk(pids, batch) {
		for i, pid := range part {
			if fds[i], err = unix.PidfdOpen(pid, 0); err != nil {
				fds[i] = -1
			}
		}
		now, errList := c.list(nil)
		for i, pid := range part {
			if fds[i] < 0 {
				continue
			}
			if _, listed := slices.BinarySearch(now, pid); listed && signal(fds[i]) == nil {
				signalled = append(signalled, pid)
			}
			_ = unix.Close(fds[i])
		}
		if errList != nil {
			return signalled, errList
		}
	}
	slices.Sort(signalled)
	// Out of descriptors is the one failure to open that more rounds do not mend. Init's pidfd was held all along.
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
		return signalled, os.NewSyscallError("pidfd_open", err)
	}
	return signalled, nil
}

// awaitFrozen waits a little for the group to be all frozen. Not for long: a thread blocked in a permission event cannot be
// frozen on kernels before 6.1.
func (c *Cgroup) awaitFrozen() {
	for range freezeWait / freezePoll {
		var buf [16]byte
		if n, err := pread(c.freeze, buf[:]); err != nil || string(buf[:n]) == "FROZEN\n" {
			return
		}
		time.Sleep(freezePoll)
	}
}

// thawBelow thaws a sub-group that the container froze itself.
func (c *Cgroup) thawBelow(dir int) error {
	fd, err := openAt(dir, "freezer.state", unix.O_RDWR)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return c.setFrozen(fd, false)
}

// setFrozen writes a group's state. A group that has been removed is no error.
func (c *Cgroup) setFrozen(fd int, on bool) error {
	state := "THAWED"
	switch {
	case c.spec.Version == 1 && on:
		state = "FROZEN"
	case c.spec.Version == 2 && on:
		state = "1"
	case c.spec.Version == 2:
		state = "0"
	}
	return os.NewSyscallError("write "+state, ignore(write(fd, state), unix.ENODEV))
}

// unpopulated reads cgroup.events, which speaks for the groups below as well.
func (c *Cgroup) unpopulated() (bool, error) {
	var buf [128]byte
	n, err := pread(c.events, buf[:])
	if errors.Is(err, unix.ENODEV) {
		return true, nil
	}
	if err != nil {
		return false, os.NewSyscallError("read cgroup.events", err)
	}
	return hasLine(buf[:n], "populated 0"), nil
}

// subset says whether all of a are in b; both are sorted.
func subset(a, b []int) bool {
	for _, n := range a {
		if _, ok := slices.BinarySearch(b, n); !ok {
			return false
		}
	}
	return true
}
