package vm

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// archive writes an initramfs: a cpio archive of the format "newc" (the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst). It is not compressed: the guest would be slower at
// unpacking than QEMU is at loading.
type archive struct {
	w     *bufio.Writer
	inode int
	dirs  map[string]bool
	err   error // the first; what follows does nothing
}

func newArchive(w io.Writer) *archive {
	return &archive{w: bufio.NewWriterSize(w, 1<<20), dirs: map[string]bool{".": true}}
}

// File types of cpio, as in stat(2).
const (
	typeDir  = 0o040000
	typeFile = 0o100000
	typeLink = 0o120000
	typeChar = 0o020000
)

// header writes what stands before the data of an entry, folders above it first. Names have no slash before them.
func (a *archive) header(name string, mode, size int64, device [2]int) {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if a.err != nil || a.dirs[name] {
		return
	}
	if parent := path.Dir(name); !a.dirs[parent] {
		a.header(parent, typeDir|0o755, 0, [2]int{})
	}
	if mode&0o170000 == typeDir {
		a.dirs[name] = true
	}
	a.inode++
	// ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
	h := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.inode, mode, 0, 0, 1, 0, size, 0, 0, device[0], device[1], len(name)+1, 0, name)
	_, a.err = io.WriteString(a.w, h+padding(len(h)))
}

// padding fills up to a multiple of four.
func padding(n int) string { return "\x00\x00\x00"[:(4-n%4)%4] }

func (a *archive) dir(name string, perm int64) { a.header(name, typeDir|perm, 0, [2]int{}) }

func (a *archive) device(name string, perm int64, major, minor int) {
	a.header(name, typeChar|perm, 0, [2]int{major, minor})
}

func (a *archive) link(name, target string) {
	a.header(name, typeLink|0o777, int64(len(target)), [2]int{})
	a.data(strings.NewReader(target), int64(len(target)))
}

func (a *archive) text(name string, perm int64, text string) {
	a.copy(name, perm, strings.NewReader(text), int64(len(text)))
}

func (a *archive) copy(name string, perm int64, r io.Reader, size int64) {
	a.header(name, typeFile|perm, size, [2]int{})
	a.data(r, size)
}

func (a *archive) data(r io.Reader, size int64) {
	if a.err != nil {
		return
	}
	if _, a.err = io.CopyN(a.w, r, size); a.err == nil {
		_, a.err = io.WriteString(a.w, padding(int(size)))
	}
}

// file adds one of this machine, links followed.
func (a *archive) file(name, from string) {
	if a.err != nil {
		return
	}
	f, err := os.Open(from)
	if err != nil {
		a.err = err
		return
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		a.err = err
		return
	}
	a.copy(name, int64(st.Mode().Perm()), f, st.Size())
}

// tree adds a folder of this machine. One that does not exist is empty.
func (a *archive) tree(name, from string) {
	err := filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && p == from {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		switch {
		case err != nil:
			return err
		case d.IsDir():
			a.dir(path.Join(name, rel), 0o755)
		case d.Type().IsRegular():
			a.file(path.Join(name, rel), p)
		}
		return a.err
	})
	if a.err == nil {
		a.err = err
	}
}

// tar adds the entries of a tar archive. A hard link becomes a symbolic one.
func (a *archive) tar(r io.Reader) {
	for tr := tar.NewReader(r); a.err == nil; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			a.err = err
			return
		}
		switch h.Typeflag {
		case tar.TypeDir:
			a.dir(h.Name, h.Mode&0o7777)
		case tar.TypeReg:
			a.copy(h.Name, h.Mode&0o7777, tr, h.Size)
		case tar.TypeSymlink:
			a.link(h.Name, h.Linkname)
		case tar.TypeLink:
			a.link(h.Name, "/"+h.Linkname)
		}
	}
}

// close writes the end of the archive.
func (a *archive) close() error {
	if a.err == nil {
		a.header("TRAILER!!!", 0, 0, [2]int{})
	}
	return errors.Join(a.err, a.w.Flush())
}
