package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// tree is a file system in memory, by clean paths without the leading slash.
type tree struct {
	entries map[string]*entry
	merged  bool // /bin, /sbin and /lib* are links into /usr
}

type entry struct {
	tar.Header
	data []byte
}

// epoch is the time of everything that no package dates: an image's digest must not depend on when it was built.
var epoch = time.Unix(1577836800, 0)

func newTree() *tree { return &tree{entries: map[string]*entry{}} }

var usrMerged = []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32"}

// mergeUsr makes the links of a merged /usr, which on a real Debian system the installer makes: its packages still
// hold files in /bin and /lib.
func (t *tree) mergeUsr() {
	t.merged = true
	for _, d := range usrMerged {
		if d != "lib32" && d != "libx32" {
			t.put(&entry{Header: tar.Header{Name: d, Typeflag: tar.TypeSymlink, Linkname: "usr/" + d, Mode: 0o777, ModTime: epoch}})
		}
	}
}

// clean returns the key of a path: links of the merged /usr are followed.
func (t *tree) clean(p string) string {
	p = strings.TrimPrefix(path.Clean("/"+p), "/")
	first, _, nested := strings.Cut(p, "/")
	if t.merged && nested && slices.Contains(usrMerged, first) {
		return "usr/" + p
	}
	return p
}

func (t *tree) put(e *entry) {
	for dir := path.Dir(e.Name); dir != "." && t.entries[dir] == nil; dir = path.Dir(dir) {
		t.entries[dir] = &entry{Header: tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755, ModTime: epoch}}
	}
	t.entries[e.Name] = e
}

// unneeded is what a package brings for people to read.
var unneeded = []string{
	"usr/share/doc/", "usr/share/man/", "usr/share/info/", "usr/share/locale/", "usr/share/lintian/",
	"usr/share/bash-completion/", "usr/share/menu/", "usr/share/bug/", "usr/lib/systemd/", "etc/init.d/",
}

// addTar lays the entries of an archive over the tree.
func (t *tree) addTar(r io.Reader) error {
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			return err
		}
		h.Name = t.clean(h.Name)
		known := t.entries[h.Name]
		keepLink := h.Typeflag == tar.TypeDir && known != nil // as tar --keep-directory-symlink; a directory's first owner wins
		if h.Name == "" || t.merged && slices.Contains(usrMerged, h.Name) || keepLink ||
			slices.ContainsFunc(unneeded, func(d string) bool { return strings.HasPrefix(h.Name+"/", d) }) {
			continue
		}
		if h.Typeflag == tar.TypeLink {
			h.Linkname = t.clean(h.Linkname)
		}
		h.Uname, h.Gname, h.Format = "", "", tar.FormatPAX
		t.put(&entry{Header: *h, data: data})
	}
}

// add lays one entry over the tree.
func (t *tree) add(f File) error {
	name := t.clean(f.Path)
	if f.Move != "" {
		from := t.clean(f.Move)
		e := t.entries[from]
		if e == nil {
			return fmt.Errorf("move %s: no such entry", f.Move)
		}
		delete(t.entries, from)
		e.Name = name
		t.put(e)
		return nil
	}
	h := tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: f.Mode, Uid: f.UID, Gid: f.UID, ModTime: epoch}
	switch {
	case f.Dir:
		h.Typeflag = tar.TypeDir
		if h.Mode == 0 {
			h.Mode = 0o755
		}
	case f.Link != "":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.Link, 0o777
	case f.Hard != "":
		h.Typeflag, h.Linkname = tar.TypeLink, t.clean(f.Hard)
	}
	if h.Mode == 0 {
		h.Mode = 0o644
	}
	t.put(&entry{Header: h, data: []byte(f.Text)})
	return nil
}

func (t *tree) addBinary(p string, data []byte) {
	t.put(&entry{Header: tar.Header{Name: t.clean(p), Typeflag: tar.TypeReg, Mode: 0o755, ModTime: epoch}, data: data})
}

// tar writes the tree in the order of its paths, hard links last: their targets must come before them.
func (t *tree) tar() ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	names := slices.Sorted(maps.Keys(t.entries))
	for _, links := range []bool{false, true} {
		for _, n := range names {
			e := t.entries[n]
			if (e.Typeflag == tar.TypeLink) != links {
				continue
			}
			h := e.Header
			h.Size = int64(len(e.data))
			if h.Typeflag == tar.TypeDir {
				h.Name += "/"
			}
			if err := w.WriteHeader(&h); err != nil {
				return nil, fmt.Errorf("%s: %w", n, err)
			}
			if _, err := w.Write(e.data); err != nil {
				return nil, fmt.Errorf("%s: %w", n, err)
			}
		}
	}
	return buf.Bytes(), w.Close()
}
