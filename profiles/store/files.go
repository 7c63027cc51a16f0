package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// maxFile bounds one file; ten thousand rules take about half a megabyte.
const maxFile = 16 << 20

// file is one file of the folder, or why it cannot be used.
type file struct {
	path string
	data []byte
	err  error
	time time.Time // of its last change
}

// readDir reads the folder's profile files, sorted by name.
func readDir(dir string) ([]file, error) {
	root, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, err
	}
	var files []file
	for _, e := range entries {
		name := e.Name()
		ext := filepath.Ext(name)
		if e.IsDir() || strings.HasPrefix(name, ".") || ext != ".yaml" && ext != ".yml" {
			continue
		}
		files = append(files, readFile(root, dir, name))
	}
	return files, nil
}

// openDir opens a folder which only root can have written to.
func openDir(dir string) (*os.Root, error) {
	root, err := os.OpenRoot(dir) // a link that leads out of it is refused
	if err != nil {
		return nil, err
	}
	info, err := root.Stat(".")
	if err == nil {
		err = trusted(dir, info)
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// readFile reads one file after a look at who could have written it. A file
// that changes while it is read is read again.
func readFile(root *os.Root, dir, name string) file {
	f := file{path: filepath.Join(dir, name)}
	for range 3 {
		if f.data, f.time, f.err = readOnce(root, dir, name); !errors.Is(f.err, errChanging) {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return f
}

var errChanging = errors.New("it is being written: move finished files here (install, mv)")

// readOnce looks at the opened file, so that it cannot be exchanged in between.
func readOnce(root *os.Root, dir, name string) ([]byte, time.Time, error) {
	if err := trustedLink(root, dir, name); err != nil {
		return nil, time.Time{}, err
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, time.Time{}, err
	}
	if !info.Mode().IsRegular() {
		return nil, time.Time{}, fmt.Errorf("not a regular file (%s)", info.Mode().Type())
	}
	if err := trusted(filepath.Join(dir, name), info); err != nil {
		return nil, time.Time{}, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		return nil, time.Time{}, fmt.Errorf("larger than %d bytes", maxFile)
	}
	if err != nil {
		return nil, time.Time{}, err
	}
	after, err := f.Stat()
	if err == nil && (after.Size() != int64(len(data)) || !after.ModTime().Equal(info.ModTime())) {
		err = errChanging
	}
	return data, info.ModTime(), err
}

// trustedLink looks at the folders that a link leads through: they are within
// the store's folder (os.Root sees to that) and must be as closed as it is.
func trustedLink(root *os.Root, dir, name string) error {
	info, err := root.Lstat(name)
	if err != nil || info.Mode()&fs.ModeSymlink == 0 {
		return err
	}
	for range 40 { // the kernel's own limit: path_resolution(7)
		target, err := root.Readlink(name)
		if err != nil {
			return err
		}
		if filepath.IsAbs(target) {
			return fmt.Errorf("a link to %s: only relative links within the folder are followed", target)
		}
		name = filepath.Join(filepath.Dir(name), target)
		for up := filepath.Dir(name); up != "." && up != "/"; up = filepath.Dir(up) {
			info, err := root.Stat(up)
			if err == nil {
				err = trusted(filepath.Join(dir, up), info)
			}
			if err != nil {
				return err
			}
		}
		info, err := root.Lstat(name)
		if err != nil || info.Mode()&fs.ModeSymlink == 0 {
			return err
		}
	}
	return errors.New("too many links")
}

// trusted refuses what others than root could have written.
func trusted(path string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: its owner cannot be told", path)
	}
	perm := info.Mode().Perm()
	var mend []string
	if st.Uid != 0 {
		mend = append(mend, "chown root "+path)
	}
	if perm&0o022 != 0 {
		mend = append(mend, "chmod go-w "+path)
	}
	if len(mend) == 0 {
		return nil
	}
	return fmt.Errorf("%s can be written by others than root (owner uid %d, mode %04o): %s", path, st.Uid, perm, strings.Join(mend, " && "))
}
