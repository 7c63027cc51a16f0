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
)

// mount is one mount of the container as it was before its first instruction. An access through any other mount is
// one that was made later, and not declared.
type mount struct {
	dest     string
	readOnly bool
	noexec   bool
	seen     bool // there are events of it
	image    bool // part of the container's own root filesystem
	private  bool // nobody else has this file system: ignore marks on its inodes concern this container only
	marked   uint64
	whole    bool // marked by filesystem, not by mount
	fd       int  // O_PATH, -1: closed
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

// readMounts lists what is mounted in the container, seen from its parked first process.
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
		if m.seen = !slices.Contains(unwatched, i.FSType); m.seen {
			m.marked = c.mask(m)
		}
		c.mounts[uint64(i.ID)] = m
	}
	return nil
}

func hasOption(options, o string) bool { return slices.Contains(strings.Split(options, ","), o) }

// mask is what has to be asked about on m: nothing that is declared for every program anyway.
func (c *Container) mask(m *mount) uint64 {
	mask := uint64(fanotify.OpenExecPerm)
	if m.noexec && !m.whole {
		mask = 0 // the kernel refuses the exec before it would tell us
	}
	cover := c.plan.CoverTree(m.dest)
	if cover == profiles.CoverWrite || (cover == profiles.CoverRead && m.readOnly) {
		return mask
	}
	return mask | fanotify.OpenPerm
}

// arm marks every mount. After it, no open and no exec of the container goes unasked.
func (c *Container) arm(g *fanotify.Group) error {
	whole := uint64(0) // what the root's file system as a whole is asked about: what any of its mounts needs
	for _, m := range c.mounts {
		if m.image && m.whole {
			whole |= m.marked
		}
	}
	for id, m := range c.mounts {
		if m.image && m.whole {
			m.marked = whole
		}
		if m.marked == 0 {
			continue
		}
		err := c.armMount(g, id, m)
		if errors.Is(err, errHidden) {
			continue
		}
		if err != nil {
			return fmt.Errorf("watch %s: %w", m.dest, err)
		}
	}
	return nil
}

// errHidden: another mount lies over this one, so no name leads to it.
var errHidden = errors.New("hidden by another mount")

func (c *Container) armMount(g *fanotify.Group, id uint64, m *mount) error {
	fd, err := c.open(m.dest, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return errHidden
	}
	if err != nil {
		return err
	}
	m.fd = fd
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_MNT_ID, &st); err != nil {
		return os.NewSyscallError("statx", err)
	}
	if st.Mnt_id != id {
		m.close()
		return errHidden
	}
	if m.whole {
		return g.MarkFilesystem(fd, m.marked)
	}
	return g.MarkMount(fd, m.marked)
}

// disarm takes the marks away again.
func (c *Container) disarm(g *fanotify.Group) {
	for _, m := range c.mounts {
		if m.fd < 0 {
			continue
		}
		if m.whole {
			_ = g.UnmarkFilesystem(m.fd, m.marked)
		} else {
			_ = g.UnmarkMount(m.fd, m.marked)
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
