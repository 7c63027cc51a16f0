package enforce

import (
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/procfs"
)

// lookup resolves one name as the kernel will for the thread that used it: from its root and its directory, through
// links, those of /proc (/proc/self/cwd, /proc/PID/root, /proc/self/fd/N) among them. It opens nothing but O_PATH
// descriptors, which are no events.
type lookup struct {
	c    *Container
	plan *profiles.Plan
	tid  int
	at   int // the thread's descriptor of the directory that a relative name starts from, or AT_FDCWD
	name string
}

// found is what a name leads to.
type found struct {
	path  string
	mount *mount
	st    unix.Statx_t
}

// place is a name in its directory.
type place struct {
	dir  int    // O_PATH
	last string // "" when the name ends in "." or ".."
	fd   int    // O_PATH, of what is there; -1: nothing
}

func (p *place) close() {
	_ = unix.Close(p.dir)
	if p.fd >= 0 {
		_ = unix.Close(p.fd)
	}
}

// find looks at what the name leads to.
func (l *lookup) find(follow bool) (*found, error) {
	if fd, ok := l.short(follow); ok {
		defer unix.Close(fd)
		return l.look(fd)
	}
	p, err := l.place(follow)
	if err != nil {
		return nil, err
	}
	defer p.close()
	if p.fd < 0 {
		return nil, unix.ENOENT
	}
	return l.look(p.fd)
}

// errForeign: the mount was not there when the container was started.
var errForeign = fmt.Errorf("%w: on a mount that was made after the start", errUnseen)

// look tells what fd is. What lies on no mount that is watched is nothing to see. With errForeign there is a result,
// without its mount.
func (l *lookup) look(fd int) (*found, error) {
	f := &found{}
	const want = unix.STATX_MNT_ID | unix.STATX_TYPE | unix.STATX_MODE | unix.STATX_UID | unix.STATX_GID | unix.STATX_NLINK
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, want, &f.st); err != nil {
		return nil, os.NewSyscallError("statx", err)
	}
	var err error
	if f.path, err = l.c.proc.FDPath(fd); err != nil {
		return nil, err
	}
	if f.mount = l.c.mountOf(f.st.Mnt_id, f.path); f.mount == nil {
		return f, errForeign
	}
	if !f.mount.seen {
		return nil, errUnseen
	}
	return f, nil
}

// short is the way of nearly all names, in one system call: an absolute one, of a thread with the container's root and
// mounts, that leads through no link of /proc.
func (l *lookup) short(follow bool) (fd int, ok bool) {
	if !strings.HasPrefix(l.name, "/") || l.c.elsewhere(l.tid) {
		return -1, false
	}
	if root, err := os.Readlink(fmt.Sprintf("/proc/%d/root", l.tid)); err != nil || root != "/" {
		return -1, false
	}
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	if !follow {
		how.Flags |= unix.O_NOFOLLOW
	}
	fd, err := unix.Openat2(l.c.root, l.name, how)
	return fd, err == nil
}

// base opens the directory that a relative name starts from.
func (l *lookup) base() (int, error) {
	if l.at == unix.AT_FDCWD {
		return openPath(fmt.Sprintf("/proc/%d/cwd", l.tid))
	}
	return openPath(fmt.Sprintf("/proc/%d/fd/%d", l.tid, l.at))
}

func openPath(name string) (int, error) {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return fd, nil
}

// maxLinks is the kernel's own limit (path_resolution(7)).
const maxLinks = 40

// walk is a lookup under way.
type walk struct {
	*lookup
	root, cur int // O_PATH, owned
	rest      []string
	links     int
}

// place resolves the name part by part, as path_resolution(7) has it. Close what it returns.
func (l *lookup) place(follow bool) (_ *place, err error) {
	w := &walk{lookup: l, root: -1, cur: -1, rest: strings.Split(l.name, "/")}
	defer func() {
		w.moveTo(-1)
		if w.root >= 0 {
			_ = unix.Close(w.root)
		}
	}()
	if w.root, err = openPath(fmt.Sprintf("/proc/%d/root", l.tid)); err != nil {
		return nil, err
	}
	if strings.HasPrefix(l.name, "/") {
		err = w.toRoot()
	} else {
		w.cur, err = l.base()
	}
	for err == nil {
		for len(w.rest) > 0 && (w.rest[0] == "" || w.rest[0] == ".") {
			w.rest = w.rest[1:]
		}
		if len(w.rest) == 0 {
			return w.here()
		}
		part := w.rest[0]
		w.rest = w.rest[1:]
		last := strings.Join(w.rest, "") == "" // nothing, or slashes
		if part == ".." {
			err = w.up()
			continue
		}
		var p *place
		if p, err = w.into(part, last, follow || len(w.rest) > 0); p != nil || err != nil {
			return p, err
		}
	}
	return nil, err
}

func (w *walk) moveTo(fd int) {
	if w.cur >= 0 {
		_ = unix.Close(w.cur)
	}
	w.cur = fd
}

func (w *walk) toRoot() error {
	fd, err := unix.FcntlInt(uintptr(w.root), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		w.moveTo(fd)
	}
	return err
}

// here ends a walk at a directory that was not named by a last part.
func (w *walk) here() (*place, error) {
	fd, err := unix.FcntlInt(uintptr(w.cur), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	p := &place{dir: w.cur, fd: fd}
	w.cur = -1
	return p, nil
}

// up goes to the parent directory, but never above the thread's root.
func (w *walk) up() error {
	if sameFile(w.cur, w.root) {
		return nil
	}
	fd, err := unix.Openat(w.cur, "..", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err == nil {
		w.moveTo(fd)
	}
	return err
}

// into goes on to part. It returns the place when that is where the walk ends.
func (w *walk) into(part string, last, follow bool) (*place, error) {
	fd, err := unix.Openat(w.cur, part, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT && last {
		fd, err = -1, nil
	}
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if fd >= 0 {
		if err := unix.Fstat(fd, &st); err != nil {
			_ = unix.Close(fd)
			return nil, err
		}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK && (!last || follow) {
		return nil, w.through(part, fd)
	}
	if last {
		p := &place{dir: w.cur, last: part, fd: fd}
		w.cur = -1
		return p, nil
	}
	w.moveTo(fd)
	return nil, nil
}

// through follows the link fd, which is part of the current directory. It closes fd.
func (w *walk) through(part string, fd int) error {
	defer unix.Close(fd)
	if w.links++; w.links > maxLinks {
		return unix.ELOOP
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return err
	}
	if fs.Type == unix.PROC_SUPER_MAGIC {
		return w.throughProc(part, fd)
	}
	return w.throughText(fd)
}

func (w *walk) throughText(fd int) error {
	var buf [unix.PathMax]byte
	n, err := unix.Readlinkat(fd, "", buf[:])
	if err != nil {
		return err
	}
	target := string(buf[:n])
	w.rest = append(strings.Split(target, "/"), w.rest...)
	if strings.HasPrefix(target, "/") {
		return w.toRoot()
	}
	return nil
}

// procRoot is the inode number of a /proc's root directory (PROC_ROOT_INO, include/linux/proc_ns.h).
const procRoot = 1

// throughProc follows a link of /proc. Those in its root are text, but for two, which name whoever reads them; all
// others lead straight to what a process has open.
func (w *walk) throughProc(part string, fd int) error {
	var dir unix.Stat_t
	if err := unix.Fstat(w.cur, &dir); err != nil {
		return err
	}
	var next int
	var err error
	switch {
	case dir.Ino == procRoot && (part == "self" || part == "thread-self"):
		var th procfs.Thread
		if th, err = w.c.proc.Thread(w.tid); err != nil {
			return err
		}
		name := fmt.Sprintf("/proc/%d", th.TGID)
		if part == "thread-self" {
			name = path.Join(name, "task", fmt.Sprint(th.TID))
		}
		next, err = openPath(name)
	case dir.Ino == procRoot:
		return w.throughText(fd)
	default:
		next, err = unix.Openat(w.cur, part, unix.O_PATH|unix.O_CLOEXEC, 0)
	}
	if err == nil {
		w.moveTo(next)
	}
	return err
}

// sameFile says whether two descriptors are of the same directory of the same mount.
func sameFile(a, b int) bool {
	const want = unix.STATX_INO | unix.STATX_MNT_ID
	var x, y unix.Statx_t
	if unix.Statx(a, "", unix.AT_EMPTY_PATH, want, &x) != nil || unix.Statx(b, "", unix.AT_EMPTY_PATH, want, &y) != nil {
		return false
	}
	return x.Ino == y.Ino && x.Mnt_id == y.Mnt_id && x.Dev_major == y.Dev_major && x.Dev_minor == y.Dev_minor
}
