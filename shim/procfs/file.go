package procfs

import (
	"bytes"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Exe is the program that a process runs.
type Exe struct {
	Path     string // as the process's own mount namespace sees it
	Dev, Ino uint64 // of the file; Dev as in unix.Mkdev
	Deleted  bool   // the file has no name left; Path is the last it had
}

// Exe reads /proc/PID/exe. During execve it is still the program that calls.
func (p *FS) Exe(pid int) (Exe, error) {
	var path name
	f, err := p.file(int(p.proc.Fd()), path.set(pid, "exe"))
	if err != nil {
		return Exe{}, fmt.Errorf("/proc/%d/exe: %w", pid, err)
	}
	return Exe{Path: f.Path, Dev: f.Dev, Ino: f.Ino, Deleted: f.Deleted}, nil
}

// File is an open file of this process.
type File struct {
	Path     string // as the mount namespace that it was opened in sees it
	Dev, Ino uint64
	Mount    uint64 // as in mountinfo, unless the kernel has none (before 5.8): 0
	Mode     uint32 // type and permissions, as in stat(2)
	Links    uint32
	Size     uint64 // bytes
	Deleted  bool   // the file has no name left; Path is the last it had
}

// FD describes an fd of this process.
func (p *FS) FD(fd int) (File, error) {
	var path name
	f, err := p.file(int(p.fds.Fd()), path.set(fd, ""))
	if err != nil {
		return File{}, fmt.Errorf("/proc/self/fd/%d: %w", fd, err)
	}
	return f, nil
}

// FDPath is the Path of FD.
func (p *FS) FDPath(fd int) (string, error) {
	f, err := p.FD(fd)
	return f.Path, err
}

// FDFlags are the flags of what a thread has open, as in open(2).
func (p *FS) FDFlags(tid, fd int) (int, error) {
	file := fmt.Sprintf("fdinfo/%d", fd)
	b, err := p.read(tid, file, make([]byte, 256)) // they stand in the second line (proc_pid_fdinfo(5))
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(b, []byte("flags:\t"))
	octal, _, _ := bytes.Cut(rest, []byte("\n"))
	flags, ok := parseUint(octal, 8)
	if !ok {
		return 0, fmt.Errorf("/proc/%d/%s: %w", tid, file, errParse)
	}
	return int(flags), nil
}

// MountID is the id, as in mountinfo, of the mount that fd was opened on.
func MountID(fd int) (uint64, error) {
	var st unix.Statx_t
	empty := [1]byte{}
	if err := statx(fd, &empty[0], unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return 0, fmt.Errorf("statx: %w", err)
	}
	if st.Mask&unix.STATX_MNT_ID == 0 {
		return 0, fmt.Errorf("statx: no mount id: %w", unix.ENOTSUP)
	}
	return st.Mnt_id, nil
}

const deletedSuffix = " (deleted)"

// file reads a magic link of /proc and what it leads to.
func (p *FS) file(dir int, path *byte) (File, error) {
	var buf [unix.PathMax]byte
	n, err := readlinkat(dir, path, buf[:])
	if err != nil {
		return File{}, err
	}
	var st unix.Statx_t
	if err := statx(dir, path, 0, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, &st); err != nil {
		return File{}, err
	}
	f := File{
		Dev: unix.Mkdev(st.Dev_major, st.Dev_minor), Ino: st.Ino,
		Mode: uint32(st.Mode), Links: st.Nlink, Size: st.Size,
	}
	if st.Mask&unix.STATX_MNT_ID != 0 {
		f.Mount = st.Mnt_id
	}
	f.Path, f.Deleted = undelete(string(buf[:n]), f.Links)
	return f, nil
}

// undelete takes off the kernel's mark of a removed name. A file that is
// really named so still has a link. A removed name of a file that has another
// one keeps the mark: no rule will match it, which is the safe side.
func undelete(path string, links uint32) (string, bool) {
	if links > 0 {
		return path, false
	}
	return strings.TrimSuffix(path, deletedSuffix), true
}
