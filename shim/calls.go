package shim

import (
	"errors"
	"syscall"

	"github.com/sirupsen/logrus"

	"github.com/stockade-dev/stockade/shim/enforce"
	"github.com/stockade-dev/stockade/shim/notify"
)

var errNotArmed = errors.New("a system call before the container was armed")

// syscall answers a system call that the filter has stopped.
func (f *fence) syscall(call *notify.Call) (notify.Answer, error) {
	c := f.enforced()
	switch {
	case c == nil && f.plan.Watches(call.Name):
		// Nothing but the runtime's own code, on its way to being parked, runs before the container is armed.
		return notify.Continue(), nil
	case c == nil:
		return notify.Deny(0), errNotArmed
	}
	allow, err := c.Syscall(enforce.Call{TID: call.PID, Name: call.Name, Arch: call.Arch, Args: call.Args, Valid: call.Valid})
	if err != nil || !allow {
		return notify.Deny(syscall.EPERM), err
	}
	return notify.Continue(), nil
}

// process is told of each process that the runtime is about to turn into a program of the container.
func (f *fence) process(p notify.Process) {
	if p.Init {
		return // before the container is armed, and known by then
	}
	if c := f.enforced(); c != nil {
		_ = c.Session(p.PID) // it may have ended already
	}
}

// fault: calls of the container cannot be answered as they should. It must not go on.
func (f *fence) fault(p notify.Process, err error) {
	if errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.ENOENT) {
		return // the process is gone, and with it the question
	}
	logrus.WithError(err).WithField("id", f.task.id).Error("stockade: seccomp listener: the container is killed")
	f.kill()
}

func (f *fence) kill() {
	if c := f.enforced(); c != nil {
		if err := c.Kill(); err != nil {
			logrus.WithError(err).WithField("id", f.task.id).Error("stockade: kill")
		}
	}
}

// enforced is the container once it is armed, else nil.
func (f *fence) enforced() *enforce.Container {
	select {
	case <-f.armed:
		return f.container
	default:
		return nil
	}
}
