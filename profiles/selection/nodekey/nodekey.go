// Package nodekey keeps the key with which a node's plugin signs what it tells the node's shims.
//
// The file holds 32 random bytes, belongs to root and can be read by nobody else; so must its folder be closed to
// writers. A key that others could have read is worth nothing, so it is refused, not repaired: remove it, and the plugin
// makes another.
package nodekey

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/stockade-dev/stockade/profiles/selection"
)

// DefaultPath is where the key lies if the node's configuration names no other place.
const DefaultPath = "/var/lib/stockade/selection.key"

// Load reads the key. errors.Is(err, fs.ErrNotExist) if there is none.
func Load(path string) (*selection.Key, error) {
	if err := closed(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("selection key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("selection key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("selection key: %w", err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular() || !ok:
		return nil, fmt.Errorf("selection key: %s is not a regular file", path)
	case st.Uid != 0 || info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("selection key: others than root can have read %s (owner uid %d, mode %04o): remove it, and stockade-nri makes "+
			"another", path, st.Uid, info.Mode().Perm())
	case info.Size() != int64(len(selection.Key{})):
		return nil, fmt.Errorf("selection key: %s holds %d bytes, not %d: remove it, and stockade-nri makes another",
			path, info.Size(), len(selection.Key{}))
	}
	key := &selection.Key{}
	if _, err := io.ReadFull(f, key[:]); err != nil {
		return nil, fmt.Errorf("selection key: read %s: %w", path, err)
	}
	return key, nil
}

// closed refuses a folder in which others than root could exchange the file.
func closed(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Uid != 0 || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s can be written by others than root (mode %04o): chown root %[1]s && chmod go-w %[1]s", dir, info.Mode().Perm())
	}
	return nil
}

// LoadOrMake reads the key, and makes it if there is none. However many do so at once, all get the same key: it is
// written to a file of its own and then linked to its name, which succeeds for one of them (link(2)).
func LoadOrMake(path string) (*selection.Key, error) {
	key, err := Load(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := make32(path); err != nil {
		return nil, fmt.Errorf("make the selection key: %w", err)
	}
	return Load(path)
}

func make32(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".selection-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	var key selection.Key
	if _, err := rand.Read(key[:]); err != nil {
		return err
	}
	if _, err := tmp.Write(key[:]); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
