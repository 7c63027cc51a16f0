package enforce

import (
	"errors"
	"path"
	"slices"

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
	changes                // what the name leads to: only its owner may
	changesLink
	writes // what the name leads to, its content
	writesLink
	stamps  // the times of what the name leads to; no name: of what is open
	aliases // makes another name for it
	opens
	executes
)

// errFree: every subject may write there.
var errFree = errors.New("declared for all")

// operand is one path argument of a watched call.
type operand struct {
	dir, path int // argument numbers; dir -1: the current directory; path -1: what dir has open
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
	"link":      {{-1, 0, aliases, -1}, {-1, 1, makes, -1}},
	"linkat":    {{0, 1, aliases, 4}, {2, 3, makes, -1}},
	"symlink":   {{-1, 1, makes, -1}}, "symlinkat": {{1, 2, makes, -1}},
	"mkdir": {{-1, 0, makes, -1}}, "mkdirat": {{0, 1, makes, -1}},
	"mknod": {{-1, 0, makes, -1}}, "mknodat": {{0, 1, makes, -1}},
	"chmod": {{-1, 0, changes, -1}}, "fchmodat": {{0, 1, changes, -1}}, "fchmodat2": {{0, 1, changes, 3}},
	"chown": {{-1, 0, changes, -1}}, "lchown": {{-1, 0, changesLink, -1}}, "fchownat": {{0, 1, changes, 4}},
	"fchmod": {{0, -1, changes, -1}}, "fchown": {{0, -1, changes, -1}},
	"truncate": {{-1, 0, writes, -1}},
	"setxattr": {{-1, 0, writes, -1}}, "lsetxattr": {{-1, 0, writesLink, -1}},
	"setxattrat": {{0, 1, writes, 2}}, "fsetxattr": {{0, -1, writes, -1}},
	"removexattr": {{-1, 0, writes, -1}}, "lremovexattr": {{-1, 0, writesLink, -1}},
	"removexattrat": {{0, 1, writes, 2}}, "fremovexattr": {{0, -1, writes, -1}},
	"utime": {{-1, 0, stamps, -1}}, "utimes": {{-1, 0, stamps, -1}},
	"futimesat": {{0, 1, stamps, -1}}, "utimensat": {{0, 1, stamps, 3}},
	"execve": {{-1, 0, executes, -1}}, "execveat": {{0, 1, executes, 4}},
}

// errUnseen: what the call is about cannot be told, or it will come to nothing. The mechanism that enforces it has
// the last word.
var errUnseen = errors.New("nothing to see")

// attempt is what a watched call is going to do. why is set when no rule can allow it.
type attempt struct {
	profiles.Access
	why profiles.Reason
}

// watch looks at a declared call that the filter tells of before it is made. The sealed mounts (and fanotify, and the
// ordinary permissions) decide what comes of it, whatever the arguments are by then; here an undeclared attempt is
// seen, which they would refuse in silence. So what cannot be told lets the call go on, and nobody is killed for a
// call that would have failed under any runtime.
//
// What another mount namespace executes is an exception: its mounts carry no marks, so that fanotify may see nothing of
// it. It is refused, whatever it is.
func (c *Container) watch(plan *profiles.Plan, call Call) (attempts []attempt) {
	for _, o := range watchedCalls[call.Name] {
		var why profiles.Reason
		a, err := c.attempt(plan, call, o)
		if o.effect == executes && (errors.Is(err, errForeign) || c.elsewhere(call.TID)) {
			a.Kind, why, err = profiles.Exec, profiles.ReasonMount, nil
			if a.Path == "" {
				a.Path, _ = procfs.String(call.TID, call.Args[o.path]) // evidence, as it was given
			}
		}
		if err != nil && !errors.Is(err, errFree) {
			break // of a rename, the first name decides whether it can come to anything
		}
		if err == nil {
			attempts = append(attempts, attempt{a, why})
		}
	}
	return attempts
}

// elsewhere says whether a thread is in another mount namespace than the container's. It cannot change that while it
// waits: nobody does it for another (namespaces(7)).
func (c *Container) elsewhere(tid int) bool {
	if !c.mounting.Load() {
		return false
	}
	ns, err := mountNamespace(tid)
	return err == nil && ns != c.mountNS
}

// attempt finds what a call is going to do to which path.
func (c *Container) attempt(plan *profiles.Plan, call Call, o operand) (profiles.Access, error) {
	var a profiles.Access
	flags := 0
	if o.flags >= 0 {
		flags = int(int32(call.Args[o.flags]))
	}
	if o.path < 0 || o.effect == stamps && call.Args[o.path] == 0 {
		return c.attemptByFD(plan, call, o)
	}
	name, err := procfs.String(call.TID, call.Args[o.path])
	switch {
	case err != nil || name == "/dev/null":
		return a, errUnseen
	case name == "" && flags&unix.AT_EMPTY_PATH != 0:
		return c.attemptByFD(plan, call, o)
	case name == "":
		return a, errUnseen
	}
	if o.effect == opens && call.Name == "creat" {
		flags = unix.O_CREAT | unix.O_WRONLY | unix.O_TRUNC
	}
	l := lookup{c: c, plan: plan, tid: call.TID, name: name, at: unix.AT_FDCWD}
	if o.dir >= 0 {
		l.at = int(int32(call.Args[o.dir]))
	}
	return l.judge(o.effect, flags)
}

// attemptByFD is about an open file: fchmod(fd), execveat(fd, "", AT_EMPTY_PATH), utimensat(fd, NULL) and the like.
func (c *Container) attemptByFD(plan *profiles.Plan, call Call, o operand) (profiles.Access, error) {
	if o.dir < 0 {
		return profiles.Access{}, errUnseen
	}
	l := lookup{c: c, plan: plan, tid: call.TID, at: int(int32(call.Args[o.dir]))}
	if l.at == unix.AT_FDCWD && o.effect == stamps {
		return profiles.Access{}, errUnseen // EFAULT
	}
	fd, err := l.base()
	if err != nil {
		return profiles.Access{}, err
	}
	defer unix.Close(fd)
	f, err := l.look(fd)
	if o.effect == executes {
		return l.execFound(f, err)
	}
	if err != nil {
		return profiles.Access{}, err
	}
	switch o.effect {
	case aliases:
		return l.aliasFound(f)
	case changes, writes, stamps:
		return l.changeOpen(f, o.path < 0 || o.effect == stamps, o.effect != changes)
	}
	return profiles.Access{}, errUnseen
}

// changeOpen is a change of what is open. What has no name any more is its opener's own. handle: the call takes no
// descriptor that was made with O_PATH.
func (l *lookup) changeOpen(f *found, handle, content bool) (profiles.Access, error) {
	if f.st.Nlink == 0 {
		return profiles.Access{}, errFree
	}
	return l.write(f.path, func() bool {
		return (l.owns(f) || content && l.may(f, 2)) && !(handle && l.handleOnly())
	})
}

// handleOnly says whether the lookup's descriptor was made with O_PATH (open(2)).
func (l *lookup) handleOnly() bool {
	flags, err := l.c.proc.FDFlags(l.tid, l.at)
	return err == nil && flags&unix.O_PATH != 0
}

func (l *lookup) judge(e effect, flags int) (profiles.Access, error) {
	follow := flags&unix.AT_SYMLINK_NOFOLLOW == 0
	switch e {
	case opens:
		return l.open(flags)
	case executes:
		return l.exec(follow)
	case aliases:
		return l.alias(flags&unix.AT_SYMLINK_FOLLOW != 0)
	case changesLink, writesLink:
		return l.change(false, e == writesLink)
	case changes, writes, stamps:
		return l.change(follow, e != changes)
	}
	p, err := l.place(false)
	if err != nil {
		return profiles.Access{}, err
	}
	defer p.close()
	if e == makes && p.fd >= 0 || e == removes && p.fd < 0 {
		return profiles.Access{}, errUnseen // EEXIST, ENOENT
	}
	return l.entry(p)
}

// entry is a change of a directory: of the name in it.
func (l *lookup) entry(p *place) (profiles.Access, error) {
	if p.last == "" {
		return profiles.Access{}, errUnseen // a directory by "." or "..": EINVAL, EBUSY, ENOTEMPTY
	}
	dir, err := l.look(p.dir)
	if err != nil {
		return profiles.Access{}, err
	}
	return l.write(path.Join(dir.path, p.last), func() bool { return l.may(dir, 2) })
}

// change is a change of what is there: its owner's alone, but for its content.
func (l *lookup) change(follow, content bool) (profiles.Access, error) {
	f, err := l.find(follow)
	if err != nil {
		return profiles.Access{}, err
	}
	return l.write(f.path, func() bool { return l.owns(f) || content && l.may(f, 2) })
}

// alias is a further name for what is there: what may be done under the new name may be done to it. A link from one
// mount to another fails, so what lies on a read-only one gets no name where it could be written.
func (l *lookup) alias(follow bool) (profiles.Access, error) {
	f, err := l.find(follow)
	if err != nil {
		return profiles.Access{}, err
	}
	return l.aliasFound(f)
}

func (l *lookup) aliasFound(f *found) (profiles.Access, error) {
	switch {
	case f.st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return profiles.Access{}, errUnseen // EPERM
	case f.mount.readOnly, f.st.Nlink == 0:
		return profiles.Access{}, errFree
	}
	return l.write(f.path, func() bool { return true })
}

func (l *lookup) open(flags int) (profiles.Access, error) {
	const exclusive = unix.O_CREAT | unix.O_EXCL
	follow := flags&unix.O_NOFOLLOW == 0 && flags&exclusive != exclusive
	f, err := l.find(follow)
	if errors.Is(err, unix.ENOENT) && flags&unix.O_CREAT != 0 {
		return l.create(follow)
	}
	switch {
	case err != nil:
		return profiles.Access{}, err
	case flags&unix.O_TMPFILE == unix.O_TMPFILE && f.st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return l.write(path.Join(f.path, "#tmpfile"), func() bool { return l.may(f, 2) })
	case f.st.Mode&unix.S_IFMT != unix.S_IFREG:
		return profiles.Access{}, errUnseen
	case flags&(unix.O_ACCMODE|unix.O_TRUNC) == 0, flags&exclusive == exclusive:
		return profiles.Access{}, errUnseen // it only reads what is there, or fails because it is there
	}
	return l.write(f.path, func() bool { return l.may(f, 2) })
}

func (l *lookup) create(follow bool) (profiles.Access, error) {
	p, err := l.place(follow)
	if err != nil {
		return profiles.Access{}, err
	}
	defer p.close()
	return l.entry(p)
}

// write is a write to name, if it is not declared for everybody and the thread has the permission it takes.
func (l *lookup) write(name string, permitted func() bool) (profiles.Access, error) {
	if l.plan.CoverPath(name) == profiles.CoverWrite {
		return profiles.Access{}, errFree
	}
	if !permitted() {
		return profiles.Access{}, errUnseen
	}
	return profiles.Access{Kind: profiles.Write, Path: name}, nil
}

// exec is an exec that a noexec mount refuses, or one from a mount that was made later (errForeign); any other is an
// event for fanotify.
func (l *lookup) exec(follow bool) (profiles.Access, error) { return l.execFound(l.find(follow)) }

func (l *lookup) execFound(f *found, err error) (profiles.Access, error) {
	if f == nil {
		return profiles.Access{}, err
	}
	if f.st.Mode&unix.S_IFMT != unix.S_IFREG || f.st.Mode&0o111 == 0 || !l.may(f, 1) {
		return profiles.Access{}, errUnseen
	}
	a := profiles.Access{Kind: profiles.Exec, Path: f.path}
	switch {
	case err != nil:
		return a, err
	case !f.mount.noexec:
		return a, errUnseen
	}
	a.Image = f.mount.image && l.c.image.Unchanged(f.path, f.mount.readOnly)
	return a, nil
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
