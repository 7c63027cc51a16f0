package enforce

import (
	"path"

	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/fanotify"
)

// silence looks, once per directory and per file, whether opens there need asking again after one was allowed.
// It is called after the answer. An ignore mark stands on the inode and hides writes as well as reads, for every
// process and every mount of the file system, so it is set only
//   - on file systems that are this container's alone,
//   - for what every subject may do, whatever it is, and
//   - where writing is declared in the whole mount (files can be moved about in it), or impossible.
func (c *Container) silence(g *fanotify.Group, m *mount, name string) {
	if !m.private {
		return
	}
	// Held until the mark is set: a plan that replaces this one must find it (see Loop.Replace).
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.root < 0 {
		return // it has ended
	}
	plan, dir := c.Plan(), path.Dir(name)
	if c.firstLookLocked(dir + "/") {
		if c.dirIsFree(plan, m, dir) {
			c.ignore(g, dir, true)
			return
		}
	}
	if c.firstLookLocked(name) && !c.dirIsFree(plan, m, dir) && c.fileIsFree(plan, m, name) {
		c.ignore(g, name, false)
	}
}

// firstLookLocked says whether key is looked at for the first time. The memory is bounded: when it is full it starts
// anew, which costs repeated marks and nothing else.
func (c *Container) firstLookLocked(key string) bool {
	if c.ignored[key] {
		return false
	}
	if len(c.ignored) > 1<<16 {
		clear(c.ignored)
	}
	c.ignored[key] = true
	return true
}

func (c *Container) dirIsFree(plan *profiles.Plan, m *mount, dir string) bool {
	switch plan.CoverDir(dir) {
	case profiles.CoverWrite:
		return m.readOnly || plan.CoverTree(m.dest) == profiles.CoverWrite
	case profiles.CoverRead:
		return m.readOnly
	case profiles.CoverImage:
		return m.readOnly && m.image && c.image.Untouched(dir, m.readOnly)
	}
	return false
}

func (c *Container) fileIsFree(plan *profiles.Plan, m *mount, name string) bool {
	switch plan.CoverPath(name) {
	case profiles.CoverWrite, profiles.CoverRead:
		return m.readOnly
	case profiles.CoverImage:
		return m.readOnly && m.image && c.image.Unchanged(name, m.readOnly)
	}
	return false
}

// ignore sets the mark. It may fail (a name that has gone): then opens go on being asked about.
func (c *Container) ignore(g *fanotify.Group, name string, children bool) {
	fd, err := c.open(name, unix.O_NOFOLLOW)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	if children {
		_ = g.IgnoreChildren(fd)
	} else {
		_ = g.IgnoreFile(fd)
	}
}
