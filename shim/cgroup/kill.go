package cgroup

import (
	"errors"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	rounds     = 200  // of the v1 sweep, before ErrAlive
	openRounds = 2    // of these, the first that do without freezing
	batch      = 1024 // pidfds held at once, at most

	// Between two kills of KillUntilEmpty.
	againMin = 10 * time.Millisecond
	againMax = time.Second
)

// Kill sends SIGKILL to every process of the container and thaws it if it was frozen. When it returns nil each of them is
// dead or dying, but for a child that was being forked: in a container without a pid namespace of its own, and on kernels
// before 6.14 without the fix "cgroup: fix race between fork and cgroup.kill", that one may come after. KillUntilEmpty
// covers it; Empty says when the last has gone. Killing what has ended is no error.
// Kill waits for nobody to die, so no process can hold it up by not dying.
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

// KillUntilEmpty kills again and again until the container has ended: whoever came late, or woke from a sleep in the kernel.
// Errors: os.ErrClosed, so that closing ends it; a failing kill is tried again.
func (c *Cgroup) KillUntilEmpty() error {
	for pause := againMin; ; pause = min(2*pause, againMax) {
		empty, err := c.Empty()
		if empty || errors.Is(err, os.ErrClosed) {
			return err
		}
		if err := c.Kill(); errors.Is(err, os.ErrClosed) {
			return err
		}
		time.Sleep(pause)
	}
}

// sweep kills a v1 group: rounds of list and signal until a listing shows only processes that were signalled. A process
// with SIGKILL pending cannot fork (copy_process in kernel/fork.c), so then nothing new can come. Those that fork faster
// than they are listed are frozen meanwhile: each then stops when it next returns to user space.
func (c *Cgroup) sweep() error {
	// Whoever froze it: what is frozen does not die.
	err := c.setFrozen(c.freeze, false)
	var signalled []int // sorted; a number cannot come round again, through all pids there are, in so short a time
	for round := 0; err == nil; round++ {
		var pids []int
		if pids, err = c.list(c.thawBelow); err != nil {
			break
		}
		fresh := without(pids, signalled)
		if len(fresh) == 0 {
			break
		}
		switch round {
		case openRounds:
			err = c.setFrozen(c.freeze, true)
		case rounds:
			err = ErrAlive
		}
		now, errSignal := c.signalAll(fresh)
		signalled = append(signalled, now...)
		slices.Sort(signalled)
		err = errors.Join(err, errSignal)
	}
	return errors.Join(err, c.setFrozen(c.freeze, false))
}

// signalAll sends SIGKILL to those of pids that are in the group, and returns which. Between listing and pidfd_open a pid
// may have got a new owner; one that is listed after its pidfd was opened is either that pidfd's process, or a newer one
// whose predecessor is dead, and then the signal goes to nobody.
func (c *Cgroup) signalAll(pids []int) (signalled []int, err error) {
	held := make([]member, 0, min(len(pids), batch))
	for len(pids) > 0 {
		for held = held[:0]; len(pids) > 0 && len(held) < batch; pids = pids[1:] {
			fd, err := unix.PidfdOpen(pids[0], 0)
			if (errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)) && len(held) > 0 {
				break // as many as we may hold; the others next
			}
			if err == nil {
				held = append(held, member{pids[0], fd})
			} else if !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.EINVAL) { // gone, or going
				return signalled, os.NewSyscallError("pidfd_open", err)
			}
		}
		listed, err := c.list(nil)
		for _, m := range held {
			if _, in := slices.BinarySearch(listed, m.pid); in && signal(m.pidfd) == nil {
				signalled = append(signalled, m.pid)
			}
			_ = unix.Close(m.pidfd)
		}
		if err != nil {
			return signalled, err
		}
	}
	return signalled, nil
}

// member is a process that is about to be killed.
type member struct{ pid, pidfd int }

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

// without gives those of a that are not in b, which is sorted.
func without(a, b []int) (rest []int) {
	for _, n := range a {
		if _, ok := slices.BinarySearch(b, n); !ok {
			rest = append(rest, n)
		}
	}
	return rest
}
