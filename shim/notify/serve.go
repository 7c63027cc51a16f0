package notify

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync/atomic"
)

// Handler answers one call. It runs while the caller is blocked: nothing that
// can wait for the disk, a log or another process belongs into it. An error
// or a panic is answered with EPERM and told to Fault.
type Handler func(*Call) (Answer, error)

// Fault is told what went wrong, after the answer has been given: a container
// whose owner hears of a fault must be killed. It is called from several
// goroutines. The Process is empty when it is not known whose fault it was.
type Fault func(Process, error)

// descriptor is the notification descriptor of one process and of what
// descends from it.
type descriptor struct {
	file    *os.File // owned
	closed  atomic.Bool
	process Process
	handle  Handler
	fault   Fault
}

// Close wakes serve. It can come from any goroutine.
func (d *descriptor) Close() error {
	d.closed.Store(true)
	return d.file.Close()
}

// use keeps the descriptor from being closed, and its number from being
// reused, meanwhile.
func (d *descriptor) use(f func(fd int) error) error {
	conn, err := d.file.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = conn.Control(func(fd uintptr) { result = f(int(fd)) })
	return d.orClosed(errors.Join(err, result))
}

// orClosed names the error that os.File gives after Close, which package os
// keeps to itself here.
func (d *descriptor) orClosed(err error) error {
	if err != nil && d.closed.Load() {
		return os.ErrClosed
	}
	return err
}

// serve answers until the last process has gone or the descriptor is closed.
func (d *descriptor) serve() {
	defer d.Close()
	d.use(wakeHere) // what it fails with on older kernels is no loss
	var n notification
	for {
		err := d.next(&n)
		switch {
		case errors.Is(err, ErrGone):
			continue
		case errors.Is(err, errNobodyLeft), errors.Is(err, os.ErrClosed):
			return
		case err != nil:
			d.fault(d.process, fmt.Errorf("receive a notification: %w", err))
			return
		}
		d.answer(newCall(&n, d))
	}
}

var errNobodyLeft = errors.New("no process has the filter any more")

// next waits on the Go poller, so that a waiting descriptor costs no thread,
// and receives only what is there.
func (d *descriptor) next(n *notification) error {
	conn, err := d.file.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = conn.Read(func(fd uintptr) (done bool) {
		call, gone, err := readiness(int(fd))
		switch {
		case err != nil:
			result = err
		case call:
			result = receive(int(fd), n)
		case gone:
			result = errNobodyLeft
		default:
			return false
		}
		return true
	})
	return d.orClosed(errors.Join(err, result))
}

func (d *descriptor) answer(c *Call) {
	a, fault := d.ask(c)
	r := a.response(c.id)
	err := d.use(func(fd int) error { return send(fd, &r) })
	if errors.Is(err, ErrGone) || errors.Is(err, os.ErrClosed) {
		err = nil // killed while it waited, which is what we do to violators
	} else if err != nil {
		err = fmt.Errorf("answer %s of %s: %w", c.Name, d.process, err)
	}
	if fault = errors.Join(fault, err); fault != nil {
		d.fault(d.process, fault)
	}
}

// ask turns whatever goes wrong in the handler into a denial.
func (d *descriptor) ask(c *Call) (a Answer, err error) {
	defer func() {
		if r := recover(); r != nil {
			a, err = Answer{}, fmt.Errorf("decide %s of %s: panic: %v\n%s", c.Name, d.process, r, debug.Stack())
		}
	}()
	a, err = d.handle(c)
	if err != nil {
		return Answer{}, fmt.Errorf("decide %s of %s: %w", c.Name, d.process, err)
	}
	return a, nil
}
