package fanotify

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Marks take an open fd and no path: what is marked is what the caller has
// looked at. An O_PATH fd will do.

// MarkFilesystem asks for mask on every object of the file system that dirfd
// is on, in whatever mount and mount namespace. Never for one that the host
// uses too: see [Group.MarkMount].
func (g *Group) MarkFilesystem(dirfd int, mask uint64) error {
	return g.mark("mark filesystem", unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, mask, dirfd)
}

// MarkMount asks for mask on every object reached through the mount that
// dirfd is on. A copy of the mount, as a new mount namespace makes one, has no
// mark.
func (g *Group) MarkMount(dirfd int, mask uint64) error {
	return g.mark("mark mount", unix.FAN_MARK_ADD|unix.FAN_MARK_MOUNT, mask, dirfd)
}

// UnmarkFilesystem takes back MarkFilesystem.
func (g *Group) UnmarkFilesystem(dirfd int, mask uint64) error {
	return g.mark("unmark filesystem", unix.FAN_MARK_REMOVE|unix.FAN_MARK_FILESYSTEM, mask, dirfd)
}

// UnmarkMount takes back MarkMount.
func (g *Group) UnmarkMount(dirfd int, mask uint64) error {
	return g.mark("unmark mount", unix.FAN_MARK_REMOVE|unix.FAN_MARK_MOUNT, mask, dirfd)
}

// IgnoreChildren silences OpenPerm, for reading and for writing, of every file
// directly in the directory dirfd, whatever happens to them. Execs and what
// lies in subdirectories are still seen.
func (g *Group) IgnoreChildren(dirfd int) error {
	const flags = unix.FAN_MARK_ADD | unix.FAN_MARK_IGNORE | unix.FAN_MARK_IGNORED_SURV_MODIFY
	return g.mark("ignore children", flags, OpenPerm|unix.FAN_EVENT_ON_CHILD, dirfd)
}

// IgnoreFile silences OpenPerm of one file until the file is modified by
// write(2) or truncation, or until the kernel needs the memory. It silences an
// open for writing too, and a change through a shared writable mapping does
// not end it: use it where writing is allowed or impossible.
func (g *Group) IgnoreFile(fd int) error {
	const flags = unix.FAN_MARK_ADD | unix.FAN_MARK_IGNORE | unix.FAN_MARK_EVICTABLE
	return g.mark("ignore file", flags, OpenPerm, fd)
}

// IgnoreNode silences OpenPerm of one file for good, whatever is written to
// it. (Device nodes cause no events to begin with.)
func (g *Group) IgnoreNode(fd int) error {
	const flags = unix.FAN_MARK_ADD | unix.FAN_MARK_IGNORE | unix.FAN_MARK_IGNORED_SURV_MODIFY
	return g.mark("ignore node", flags, OpenPerm, fd)
}

// Unignore ends every IgnoreChildren, IgnoreFile and IgnoreNode of the group.
func (g *Group) Unignore() error {
	if !g.enter() {
		return fmt.Errorf("fanotify: unignore: %w", os.ErrClosed)
	}
	defer g.leave()
	if err := unix.FanotifyMark(g.fd, unix.FAN_MARK_FLUSH, 0, unix.AT_FDCWD, "/"); err != nil {
		return fmt.Errorf("fanotify: unignore: %w", err)
	}
	return nil
}

// mark calls fanotify_mark(2). It takes no O_PATH fd (EBADF); the link of the
// fd in /proc leads to the same object, and following it opens nothing, so it
// can cause no event.
func (g *Group) mark(op string, flags uint, mask uint64, fd int) error {
	if !g.enter() {
		return fmt.Errorf("fanotify: %s: %w", op, os.ErrClosed)
	}
	defer g.leave()
	err := unix.FanotifyMark(g.fd, flags, mask, fd, "")
	if errors.Is(err, unix.EBADF) {
		err = unix.FanotifyMark(g.fd, flags, mask, unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd))
	}
	if err != nil {
		return fmt.Errorf("fanotify: %s: %w", op, err)
	}
	return nil
}
