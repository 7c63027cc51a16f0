package features

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// privateTmpfs returns the root of a new tmpfs that is mounted nowhere: only
// this file descriptor leads to it, and it is gone when that is closed. attr
// are mount attributes (MOUNT_ATTR_RDONLY). See fsopen(2), fsmount(2).
func privateTmpfs(attr int) (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("fsopen", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "size", "64k"); err != nil {
		return -1, os.NewSyscallError("fsconfig", err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, os.NewSyscallError("fsconfig", err)
	}
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attr)
	return root, os.NewSyscallError("fsmount", err)
}

func writeAt(dir int, name string, data []byte) error {
	fd, err := unix.Openat(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o700)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	_, err = unix.Write(fd, data)
	return errors.Join(os.NewSyscallError("write", err), unix.Close(fd))
}

// openAt opens a file for reading on a thread that may block.
func openAt(dir int, name string) error {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	return unix.Close(fd)
}

// mountSeal tries a mount that is read-only by itself, which is what refuses
// writes outside of declared directories.
func mountSeal() answer {
	root, err := privateTmpfs(unix.MOUNT_ATTR_RDONLY)
	if errors.Is(err, unix.ENOSYS) {
		return unknown(err.Error())
	}
	if err != nil {
		return refused(err)
	}
	defer unix.Close(root)
	if err := writeAt(root, "f", nil); !errors.Is(err, unix.EROFS) {
		return no("a write to a read-only mount is not refused")
	}
	return yes("a read-only mount refuses writes")
}

// overlay asks for overlayfs without mounting one. The kernel loads its module.
func overlay() answer {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	switch {
	case errors.Is(err, unix.ENODEV):
		return no("the kernel has no overlay file system")
	case err != nil:
		return unknown("fsopen overlay: " + err.Error())
	}
	unix.Close(fs)
	return yes("")
}
