package enforce

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/fanotify"
	"github.com/stockade-dev/stockade/shim/procfs"
)

// mount is one mount of the container as it was before its first instruction. An access through any other mount is
// one that was made later, and not declared.
type mount struct {
	dest     string
	readOnly bool
	noexec   bool
	seen     bool   // there are events of it
	image    bool   // part of the container's own root filesystem
	private  bool   // nobody else has this file system: ignore marks on its inodes concern this container only
	marked   uint64 // what is asked about; guarded by Container.marks once armed
	whole    bool   // marked by filesystem, not by mount
	fd       int    // O_PATH, -1: closed. While it is open no other mount has this one's id
	err      error  // why it could not be opened
}

func (m *mount) close() {
	if m.fd >= 0 {
		_ = unix.Close(m.fd)
		m.fd = -1
	}
}

// unwatched are file systems without marks. The kernel refuses permission events on proc; and of a terminal, the
// listener's own open could make it the listener's controlling terminal.
var unwatched = []string{"proc", "devpts"}

func mountsOf(pid int) ([]*mountinfo.Info, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return mountinfo.GetMountsFromReader(f, nil)
}

// takeMounts lists what is mounted in the container, seen from its parked first process, and takes hold of each. The
// kernel gives a free id to the next mount: one that is not held could be unmounted and its id pass for it.
func (c *Container) takeMounts(tmpfs []string) error {
	if err := c.readMounts(tmpfs); err != nil {
		return err
	}
	for id, m := range c.mounts {
		// Those that need no mark under this plan too: another plan may need one, and by then their names are the
		// container's to change.
		if m.err = c.take(id, m); errors.Is(m.err, errHidden) {
			delete(c.mounts, id) // who comes to see it has taken away what lies over it
		}
	}
	return nil
}

func (c *Container) readMounts(tmpfs []string) error {
	infos, err := mountsOf(c.init)
	if err != nil {
		return fmt.Errorf("mounts of the container: %w", err)
	}
	var rootDev [2]int
	on := map[string]int{} // how many mounts lie on a place
	for _, i := range infos {
		on[path.Clean(i.Mountpoint)]++
		if i.Mountpoint == "/" { // the last one is on top
			rootDev = [2]int{i.Major, i.Minor}
		}
	}
	c.mounts = make(map[uint64]*mount, len(infos))
	for _, i := range infos {
		m := &mount{dest: path.Clean(i.Mountpoint), fd: -1}
		m.readOnly = hasOption(i.Options, "ro") || hasOption(i.VFSOptions, "ro")
		m.image = [2]int{i.Major, i.Minor} == rootDev
		ownOverlay := m.image && i.FSType == "overlay"
		// With links in the image another tmpfs, the host's, could have come to lie on the place of one of ours.
		ownTmpfs := i.FSType == "tmpfs" && i.Root == "/" && on[m.dest] == 1 && slices.Contains(tmpfs, m.dest)
		m.private, m.whole = ownOverlay || ownTmpfs, ownOverlay || ownTmpfs
		m.noexec = hasOption(i.Options, "noexec")
		m.seen = !slices.Contains(unwatched, i.FSType)
		c.mounts[uint64(i.ID)] = m
	}
	return nil
}

func hasOption(options, o string) bool { return slices.Contains(strings.Split(options, ","), o) }

// mask is what has to be asked about on m under plan: nothing that is declared for every program anyway, nor what
// AppArmor holds if the kernel has plan's text.
func (c *Container) mask(plan *profiles.Plan, m *mount) uint64 {
	mask := uint64(fanotify.OpenExecPerm)
	if m.noexec && !m.whole {
		mask = 0 // the kernel refuses the exec before it would tell us
	}
	if plan == c.plan.text.Load() && !plan.AsksOpens(m.dest, m.image && !c.outlived && c.image.Pristine()) {
		return mask
	}
	cover := plan.CoverTree(m.dest)
	if cover == profiles.CoverWrite || (cover == profiles.CoverRead && m.readOnly) {
		return mask
	}
	return mask | fanotify.OpenPerm
}

// arm marks every mount. After it, no open and no exec of the container goes unasked.
func (c *Container) arm(g *fanotify.Group) error {
	want := c.masks(c.Plan())
	for _, m := range c.mounts {
		if want[m] == 0 {
			continue
		}
		err := m.err
		if err == nil {
			err = m.mark(g, want[m])
		}
		if err != nil {
			return fmt.Errorf("watch %s: %w", m.dest, err)
		}
	}
	return nil
}

// masks is what has to be asked about under plan, by mount. That nothing of the image was changed before the start says
// something of the plan that held then: what another has let be written is drift to those that come after it.
func (c *Container) masks(plan *profiles.Plan) map[*mount]uint64 {
	c.outlived = c.outlived || plan != c.plan.armed
	want := make(map[*mount]uint64, len(c.mounts))
	whole := uint64(0) // what the root's file system as a whole is asked about: what any of its mounts needs
	for _, m := range c.mounts {
		if !m.seen {
			continue
		}
		want[m] = c.mask(plan, m)
		if m.image && m.whole {
			whole |= want[m]
		}
	}
	for m := range want {
		if m.image && m.whole {
			want[m] = whole
		}
	}
	return want
}

// mark asks about more on m.
func (m *mount) mark(g *fanotify.Group, more uint64) error {
	add := g.MarkMount
	if m.whole {
		add = g.MarkFilesystem
	}
	if err := add(m.fd, more); err != nil {
		return err
	}
	m.marked |= more
	return nil
}

// unmark asks about less on m. What cannot be taken away goes on being asked about, and may be marked again.
func (m *mount) unmark(g *fanotify.Group, less uint64) {
	remove := g.UnmarkMount
	if m.whole {
		remove = g.UnmarkFilesystem
	}
	_ = remove(m.fd, less)
	m.marked &^= less
}

// errHidden: another mount lies over this one, so no name leads to it.
var errHidden = errors.New("hidden by another mount")

// take opens the mount with this id where it is mounted.
func (c *Container) take(id uint64, m *mount) error {
	fd, err := c.open(m.dest, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return errHidden
	}
	if err != nil {
		return err
	}
	m.fd = fd
	found, err := procfs.MountID(fd)
	if err == nil && found != id {
		err = errHidden
	}
	if err != nil {
		m.close()
	}
	return err
}

// mountOf is the mount with this id, if name is a place on it: nil when it was made after the container's start, or
// lies somewhere else now, so that the names of its files are not those that the profile is about.
func (c *Container) mountOf(id uint64, name string) *mount {
	m := c.mounts[id]
	if m == nil || !below(name, m.dest) {
		return nil
	}
	if c.mounting.Load() {
		if at, err := c.proc.FDPath(m.fd); err != nil || at != m.dest {
			return nil
		}
	}
	return m
}

// below says whether name is dir or lies below it.
func below(name, dir string) bool {
	rest, ok := strings.CutPrefix(name, dir)
	return ok && (rest == "" || rest[0] == '/' || dir == "/")
}

// disarm takes the marks away again.
func (c *Container) disarm(g *fanotify.Group) {
	c.marks.Lock()
	defer c.marks.Unlock()
	for _, m := range c.mounts {
		if m.fd >= 0 && m.marked != 0 {
			m.unmark(g, m.marked)
		}
	}
}

// open returns an O_PATH descriptor of name in the container's root. O_PATH opens no file, so it is never an event
// for our own listener. flags are added.
func (c *Container) open(name string, flags uint64) (int, error) {
	how := &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC | flags,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_SYMLINKS,
	}
	for {
		fd, err := unix.Openat2(c.root, name, how)
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if err != nil {
			return -1, &os.PathError{Op: "open in container", Path: name, Err: err}
		}
		return fd, nil
	}
}
