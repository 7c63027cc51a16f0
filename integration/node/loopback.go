package node

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// loopbackUp brings up the loopback interface in the network namespace of process pid: a new one has it down, and a
// network plugin, which a plain containerd has not, would do this (netdevice(7), SIOCSIFFLAGS).
func loopbackUp(pid int) error {
	err := make(chan error)
	go func() {
		// The thread is never unlocked: it ends with the goroutine, and nothing else runs in the other namespace.
		runtime.LockOSThread()
		err <- setLoopbackUp(pid)
	}()
	return <-err
}

func setLoopbackUp(pid int) error {
	ns, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("network namespace of %d: %w", pid, err)
	}
	defer unix.Close(ns)
	if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("setns: %w", err)
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	return nil
}
