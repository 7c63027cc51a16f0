package cgroup

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

func openDir(dir string) (int, error) {
	return openAt(unix.AT_FDCWD, dir, unix.O_RDONLY|unix.O_DIRECTORY)
}

// openAt returns -1 with an error, so that a caller may keep the result and close it later.
func openAt(dir int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return -1, &fs.PathError{Op: "open", Path: name, Err: err}
		}
		return fd, nil
	}
}

func read(fd int, buf []byte) (int, error) {
	for {
		n, err := unix.Read(fd, buf)
		if err != unix.EINTR {
			return n, err
		}
	}
}

func pread(fd int, buf []byte) (int, error) {
	for {
		n, err := unix.Pread(fd, buf, 0)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// write writes at the start: a kernfs file takes each write whole, wherever it stands.
func write(fd int, text string) error {
	for {
		_, err := unix.Pwrite(fd, []byte(text), 0)
		if err != unix.EINTR {
			return err
		}
	}
}

// signal sends SIGKILL to the process of a pidfd.
func signal(pidfd int) error { return unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0) }

// exited says whether the process of a pidfd, with all its threads, has ended.
func exited(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if err != unix.EINTR {
			return err == nil && n == 1
		}
	}
}

// ignore turns one expected error into none.
func ignore(err error, expected unix.Errno) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}
