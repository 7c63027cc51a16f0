package bundle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/api/types"
	"golang.org/x/sys/unix"
)

// Image tells which files of a container's root are the image's, unchanged since it was unpacked. On an overlay it
// looks at the layers themselves, on the host's file systems: what is in the upper layer was written by the
// container, or for it. It never opens a file of the container by name (that would be an event for its own listener).
type Image struct {
	upper  int   // O_PATH, -1: the root has no upper layer
	lowers []int // O_PATH

	pristine bool
}

// NewImage opens the layers named in the mounts that make up a container's root filesystem. For a root that is no
// overlay (the native snapshotter's, say) it knows no layers.
func NewImage(mounts []*types.Mount) (_ *Image, err error) {
	im := &Image{upper: -1}
	defer func() {
		if err != nil {
			im.Close()
		}
	}()
	for _, m := range mounts {
		if m.Type != "overlay" {
			continue
		}
		for _, o := range m.Options {
			key, value, _ := strings.Cut(o, "=")
			switch key {
			case "upperdir":
				if im.upper, err = openPath(value); err != nil {
					return nil, err
				}
				im.pristine = empty(value)
			case "lowerdir":
				for dir := range strings.SplitSeq(value, ":") {
					fd, err := openPath(dir)
					if err != nil {
						return nil, err
					}
					im.lowers = append(im.lowers, fd)
				}
			}
		}
	}
	return im, nil
}

// Pristine says whether nothing of the image had been changed when NewImage looked: a container's layer may have been
// another one's before. What runtimes make in it are places to mount something on.
func (im *Image) Pristine() bool { return im.pristine }

// empty says whether there is nothing but directories below dir.
func empty(dir string) bool {
	return filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			err = fs.ErrExist
		}
		return err
	}) == nil
}

func openPath(dir string) (int, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &os.PathError{Op: "open layer", Path: dir, Err: err}
	}
	return fd, nil
}

// Close releases the layers.
func (im *Image) Close() {
	for _, fd := range append(im.lowers, im.upper) {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	im.upper, im.lowers = -1, nil
}

// Unchanged says whether the file at p (absolute, links resolved) is the image's own. Without layers to look at, a
// file is the image's where nothing can be written: readOnly says so of the mount it was reached through.
func (im *Image) Unchanged(p string, readOnly bool) bool {
	if len(im.lowers) == 0 {
		return readOnly
	}
	if im.upper >= 0 && exists(im.upper, p) != no {
		return false
	}
	// A directory renamed with its content keeps the content in a lower layer, under another name: it is looked for
	// under this one.
	for _, fd := range im.lowers {
		if exists(fd, p) == yes {
			return true
		}
	}
	return false
}

// Untouched says whether nothing below the directory dir was changed, so that every file in it is the image's.
func (im *Image) Untouched(dir string, readOnly bool) bool {
	if len(im.lowers) == 0 {
		return readOnly
	}
	return im.upper < 0 || exists(im.upper, dir) == no
}

type answer int

const (
	no answer = iota
	yes
	unsure
)

func exists(dirfd int, p string) answer {
	how := &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	rel := strings.TrimPrefix(p, "/")
	if rel == "" {
		rel = "."
	}
	for {
		fd, err := unix.Openat2(dirfd, rel, how)
		switch {
		case err == nil:
			_ = unix.Close(fd)
			return yes
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
			return no
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue
		default:
			return unsure
		}
	}
}

// String names what the image is made of, for logs.
func (im *Image) String() string {
	return fmt.Sprintf("%d lower layers, upper %t", len(im.lowers), im.upper >= 0)
}
