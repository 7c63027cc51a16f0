package cgroup

import (
	"bytes"
	"errors"
	"io/fs"
	"slices"

	"golang.org/x/sys/unix"
)

// maxDepth bounds how deep below a container's group its own sub-groups are looked for.
const maxDepth = 128

// list gives the pids in the group and below it, sorted. below, if given, is called for each sub-group.
func (c *Cgroup) list(below func(dir int) error) ([]int, error) {
	pids, err := listTree(c.dir, nil, below, maxDepth)
	slices.Sort(pids)
	return slices.Compact(pids), err
}

func listTree(dir int, pids []int, below func(dir int) error, depth int) ([]int, error) {
	pids, err := listDir(dir, pids)
	if err != nil {
		return pids, err
	}
	names, err := subdirs(dir)
	if err != nil {
		return pids, err
	}
	if len(names) > 0 && depth == 0 {
		return pids, &fs.PathError{Op: "list", Path: names[0], Err: unix.ELOOP}
	}
	for _, name := range names {
		sub, err := openAt(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return pids, err
		}
		if below != nil {
			err = ignore(below(sub), unix.ENOENT)
		}
		if err == nil {
			pids, err = listTree(sub, pids, below, depth-1)
		}
		_ = unix.Close(sub)
		if err != nil {
			return pids, err
		}
	}
	return pids, nil
}

// listDir appends the pids of one group. On v1 the kernel keeps one listing for a second for all reads of one open file
// (cgroup_pidlist_start in kernel/cgroup/cgroup-v1.c), so the file is opened anew each time. A group that has been removed
// has none.
func listDir(dir int, pids []int) ([]int, error) {
	fd, err := openAt(dir, "cgroup.procs", unix.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return pids, nil
	}
	if err != nil {
		return pids, err
	}
	defer func() { _ = unix.Close(fd) }()
	var buf [4096]byte
	pid := 0
	for {
		n, err := read(fd, buf[:])
		if errors.Is(err, unix.ENODEV) {
			return pids, nil
		}
		if err != nil {
			return pids, &fs.PathError{Op: "read", Path: "cgroup.procs", Err: err}
		}
		if n == 0 {
			return pids, nil
		}
		for _, b := range buf[:n] {
			switch {
			case b >= '0' && b <= '9':
				pid = pid*10 + int(b-'0')
			case pid > 0: // 0 is a process that our pid namespace does not see
				pids, pid = append(pids, pid), 0
			}
		}
	}
}

// subdirs gives the names of a group's sub-groups.
func subdirs(dir int) ([]string, error) {
	var st unix.Stat_t
	if err := unix.Fstat(dir, &st); err != nil {
		return nil, &fs.PathError{Op: "fstat", Path: "control group", Err: err}
	}
	if st.Nlink <= 2 { // kernfs counts sub-directories in the link count: the usual case costs one call
		return nil, nil
	}
	fd, err := openAt(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY) // its own position, for concurrent callers
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	var names, found []string
	buf := make([]byte, 8192)
	for {
		n, err := unix.ReadDirent(fd, buf)
		if err != nil {
			return nil, &fs.PathError{Op: "getdents", Path: "control group", Err: err}
		}
		if n == 0 {
			break
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
	for _, name := range names {
		var st unix.Stat_t
		if unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
			found = append(found, name)
		}
	}
	return found, nil
}

func hasLine(data []byte, line string) bool {
	for l := range bytes.Lines(data) {
		if string(bytes.TrimSuffix(l, []byte("\n"))) == line {
			return true
		}
	}
	return false
}
