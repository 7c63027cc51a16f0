package enforce

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/procfs"
)

// How a watched system call uses a path.
type effect int

const (
	makes    effect = iota // a name that must not be there yet
	removes                // a name that is there; a link in its place is not followed
	replaces               // a name, there or not
	changes                // what the name leads to
	changesLink
	opens
	executes
)

// errFree: every subject may write there.
var errFree = errors.New("declared for all")

// operand is one path argument of a watched call.
type operand struct {
	dir, path int // argument numbers; dir -1: the current directory
	effect    effect
	flags     int // argument with AT_ flags or open flags, -1: none
}

// watchedCalls says where the paths of each watched call stand (the manual page of each, section 2).
var watchedCalls = map[string][]operand{
	"open": {{-1, 0, opens, 1}}, "openat": {{0, 1, opens, 2}}, "creat": {{-1, 0, opens, -1}},
	"unlink": {{-1, 0, removes, -1}}, "unlinkat": {{0, 1, removes, -1}}, "rmdir": {{-1, 0, removes, -1}},
	"rename":    {{-1, 0, removes, -1}, {-1, 1, replaces, -1}},
	"renameat":  {{0, 1, removes, -1}, {2, 3, replaces, -1}},
	"renameat2": {{0, 1, removes, -1}, {2, 3, replaces, -1}},
	"link":      {{-1, 1, makes, -1}}, "linkat": {{2, 3, makes, -1}},
	"symlink": {{-1, 1, makes, -1}}, "symlinkat": {{1, 2, makes, -1}},
	"mkdir": {{-1, 0, makes, -1}}, "mkdirat": {{0, 1, makes, -1}},
	"mknod": {{-1, 0, makes, -1}}, "mknodat": {{0, 1, makes, -1}},
	"chmod": {{-1, 0, changes, -1}}, "fchmodat": {{0, 1, changes, -1}}, "fchmodat2": {{0, 1, changes, 3}},
	"chown": {{-1, 0, changes, -1}}, "lchown": {{-1, 0, changesLink, -1}}, "fchownat": {{0, 1, changes, 4}},
	"truncate": {{-1, 0, changes, -1}},
	"setxattr": {{-1, 0, changes, -1}}, "lsetxattr": {{-1, 0, changesLink, -1}},
	"removexattr": {{-1, 0, changes, -1}}, "lremovexattr": {{-1, 0, changesLink, -1}},
	"execve": {{-1, 0, executes, -1}}, "execveat": {{0, 1, executes, 4}},
}

// errUnseen: what the call is about cannot be told, or it will come to nothing. The mechanism that enforces it has
// the last word.
var errUnseen = errors.New("nothing to see")

// watch looks at a declared call that the filter tells of before it is made. The sealed mounts (and fanotify, and the
// ordinary permissions) decide what comes of it, whatever the arguments are by then; here an undeclared attempt is
// seen, which they would refuse in silence. So what cannot be told lets the call go on, and nobody is killed for a
// call that would have failed under any runtime.
func (c *Container) watch(call Call) (attempts []profiles.Access) {
	for _, o := range watchedCalls[call.Name] {
		a, err := c.attempt(call, o)
		if err != nil && !errors.Is(err, errFree) {
			break // of a rename, the first name decides whether it can come to anything
		}
		if err == nil {
			attempts = append(attempts, a)
		}
	}
	return attempts
}

// attempt finds what a call is going to do to which path.
func (c *Container) attempt(call Call, o operand) (profiles.Access, error) {
	var a profiles.Access
	name, err := procfs.String(call.TID, call.Args[o.path])
	if err != nil || name == "/dev/null" {
		return a, errUnseen
	}
	flags := 0
	if o.flags >= 0 {
		flags = int(int32(call.Args[o.flags]))
	}
	if name == "" {
		return c.attemptByFD(call, o, flags)
	}
	if o.effect == opens && call.Name == "creat" {
		flags = unix.O_CREAT | unix.O_WRONLY | unix.O_TRUNC
	}
	base, err := c.base(call, o, name)
	if err != nil {
		return a, err
	}
	l := lookup{c: c, tid: call.TID, name: path.Join("/", base) + "/" + name}
	if strings.HasPrefix(name, "/") {
		l.name = name
	}
	return l.judge(o.effect, flags)
}

// attemptByFD is the execution of an open file, execveat(fd, "", AT_EMPTY_PATH).
func (c *Container) attemptByFD(call Call, o operand, flags int) (profiles.Access, error) {
	if o.effect != executes || flags&unix.AT_EMPTY_PATH == 0 || o.dir < 0 {
		return profiles.Access{}, errUnseen
	}
	link := fmt.Sprintf("/proc/%d/fd/%d", call.TID, int32(call.Args[o.dir]))
	fd, err := unix.Open(link, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return profiles.Access{}, err
	}
	l := lookup{c: c, tid: call.TID}
	f, err := l.found(fd)
	if err != nil {
		return profiles.Access{}, err
	}
	return l.execFound(f)
}

// base is the directory that a relative name starts from, as the container sees it.
func (c *Container) base(call Call, o operand, name string) (string, error) {
	if strings.HasPrefix(name, "/") {
		return "", nil
	}
	link := fmt.Sprintf("/proc/%d/cwd", call.TID)
	if o.dir >= 0 && int32(call.Args[o.dir]) != unix.AT_FDCWD {
		link = fmt.Sprintf("/proc/%d/fd/%d", call.TID, int32(call.Args[o.dir]))
	}
	dir, err := os.Readlink(link)
	if err != nil || !path.IsAbs(dir) {
		return "", errUnseen
	}
	return dir, nil
}

// lookup resolves one name in the container, for the thread that used it.
type lookup struct {
	c    *Container
	tid  int
	name string
}

// found is what a name leads to.
type found struct {
	path  string
	mount *mount
	st    unix.Statx_t
}

func (l *lookup) find(name string, flags uint64) (*found, error) {
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC | flags, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	fd, err := unix.Openat2(l.c.root, name, how)
	if err != nil {
		return nil, err
	}
	return l.found(fd)
}

// found looks at what fd is, and closes it.
func (l *lookup) found(fd int) (_ *found, err error) {
	defer unix.Close(fd)
	f := &found{}
	const want = unix.STATX_MNT_ID | unix.STATX_TYPE | unix.STATX_MODE | unix.STATX_UID | unix.STATX_GID
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, want, &f.st); err != nil {
		return nil, err
	}
	if f.mount = l.c.mounts[f.st.Mnt_id]; f.mount == nil || !f.mount.seen {
		return nil, errUnseen
	}
	f.path, err = l.c.proc.FDPath(fd)
	return f, err
}

func (l *lookup) judge(e effect, flags int) (profiles.Access, error) {
	switch e {
	case opens:
		return l.open(flags)
	case executes:
		return l.exec(flags)
	case makes:
		if _, err := l.find(l.name, unix.O_NOFOLLOW); !errors.Is(err, unix.ENOENT) {
			return profiles.Access{}, errUnseen // EEXIST
		}
		return l.entry()
	case removes:
		if _, err := l.find(l.name, unix.O_NOFOLLOW); err != nil {
			return profiles.Access{}, err // ENOENT
		}
		return l.entry()
	case replaces:
		return l.entry()
	case changesLink:
		return l.change(unix.O_NOFOLLOW)
	}
	if flags&unix.AT_SYMLINK_NOFOLLOW != 0 {
		return l.change(unix.O_NOFOLLOW)
	}
	return l.change(0)
}

// entry is a change of a directory: of the name in it.
func (l *lookup) entry() (profiles.Access, error) {
	name := strings.TrimRight(l.name, "/")
	dir, err := l.find(path.Dir(name)+"/", unix.O_DIRECTORY)
	if err != nil {
		return profiles.Access{}, err
	}
	last := name[strings.LastIndexByte(name, '/')+1:]
	if last == "" || last == "." || last == ".." {
		return profiles.Access{}, errUnseen
	}
	return l.write(path.Join(dir.path, last), func() bool { return l.may(dir, 2) })
}

// change is a change of what is there: its owner's alone, but for its content.
func (l *lookup) change(flags uint64) (profiles.Access, error) {
	f, err := l.find(l.name, flags)
	if err != nil {
		return profiles.Access{}, err
	}
	return l.write(f.path, func() bool { return l.owns(f) })
}

func (l *lookup) open(flags int) (profiles.Access, error) {
	follow := uint64(0)
	if flags&unix.O_NOFOLLOW != 0 || flags&(unix.O_CREAT|unix.O_EXCL) == unix.O_CREAT|unix.O_EXCL {
		follow = unix.O_NOFOLLOW
	}
	f, err := l.find(l.name, follow)
	switch {
	case errors.Is(err, unix.ENOENT) && flags&unix.O_CREAT != 0:
		return l.entry()
	case err != nil:
		return profiles.Access{}, err
	case flags&unix.O_TMPFILE == unix.O_TMPFILE && f.st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return l.write(path.Join(f.path, "#tmpfile"), func() bool { return l.may(f, 2) })
	case f.st.Mode&unix.S_IFMT != unix.S_IFREG:
		return profiles.Access{}, errUnseen
	case flags&(unix.O_ACCMODE|unix.O_TRUNC) == 0, flags&(unix.O_CREAT|unix.O_EXCL) == unix.O_CREAT|unix.O_EXCL:
		return profiles.Access{}, errUnseen // it only reads what is there, or fails because it is there
	}
	return l.write(f.path, func() bool { return l.may(f, 2) })
}

// write is a write to name, if it is not declared for everybody and the thread has the permission it takes.
func (l *lookup) write(name string, permitted func() bool) (profiles.Access, error) {
	if l.c.plan.CoverPath(name) == profiles.CoverWrite {
		return profiles.Access{}, errFree
	}
	if !permitted() {
		return profiles.Access{}, errUnseen
	}
	return profiles.Access{Kind: profiles.Write, Path: name}, nil
}

// exec is an exec that a noexec mount refuses; any other is an event for fanotify.
func (l *lookup) exec(flags int) (profiles.Access, error) {
	follow := uint64(0)
	if flags&unix.AT_SYMLINK_NOFOLLOW != 0 {
		follow = unix.O_NOFOLLOW
	}
	f, err := l.find(l.name, follow)
	if err != nil {
		return profiles.Access{}, err
	}
	return l.execFound(f)
}

func (l *lookup) execFound(f *found) (profiles.Access, error) {
	if !f.mount.noexec || f.st.Mode&unix.S_IFMT != unix.S_IFREG || f.st.Mode&0o111 == 0 || !l.may(f, 1) {
		return profiles.Access{}, errUnseen
	}
	image := f.mount.image && l.c.image.Unchanged(f.path, f.mount.readOnly)
	return profiles.Access{Kind: profiles.Exec, Path: f.path, Image: image}, nil
}

// may says whether the thread's credentials give it the permission (1 execute, 2 write) on f, as far as mode bits and
// capabilities tell (path_resolution(7)).
func (l *lookup) may(f *found, want uint16) bool {
	cred, err := l.c.proc.Credentials(l.tid)
	if err != nil {
		return false
	}
	mode := f.st.Mode
	switch {
	case cred.Caps&(1<<unix.CAP_DAC_OVERRIDE) != 0:
		return want != 1 || mode&0o111 != 0
	case cred.UID == f.st.Uid:
		mode >>= 6
	case cred.GID == f.st.Gid || slices.Contains(cred.Groups, f.st.Gid):
		mode >>= 3
	}
	return mode&want != 0
}

func (l *lookup) owns(f *found) bool {
	cred, err := l.c.proc.Credentials(l.tid)
	return err == nil && (cred.UID == f.st.Uid || cred.Caps&(1<<unix.CAP_FOWNER|1<<unix.CAP_CHOWN|1<<unix.CAP_DAC_OVERRIDE) != 0)
}
