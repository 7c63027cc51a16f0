package install

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	securejoin "github.com/cyphar/filepath-securejoin"
)

// unfinished ends the name of a file that is being written; a run that was killed may leave one.
const unfinished = ".stockade-new"

// root reads and changes the host's files. Symbolic links are followed as the host would.
type root string

// real is the path of a file of the host as this process sees it, links resolved.
func (r root) real(p string) (string, error) {
	real, err := securejoin.SecureJoin(string(r), p)
	if err != nil {
		return "", fmt.Errorf("%s: %w", p, err)
	}
	return real, nil
}

// entry is where the directory entry itself lies: its folder resolved, its last element not.
func (r root) entry(p string) (string, error) {
	dir, err := r.real(path.Dir(p))
	return filepath.Join(dir, path.Base(p)), err
}

// read gives a file with its data; a program's is only digested.
func (r root) read(p string, kind Kind) (File, error) {
	at := r.real
	if kind == Link {
		at = r.entry
	}
	real, err := at(p)
	if err != nil {
		return File{}, err
	}
	info, err := os.Lstat(real)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return File{}, nil
	}
	if err != nil {
		return File{}, err
	}
	f := File{Exists: true, Dir: info.IsDir(), Mode: info.Mode().Perm()}
	switch {
	case f.Dir:
	case info.Mode()&fs.ModeSymlink != 0:
		f.Link, err = os.Readlink(real)
		f.Digest = digest([]byte(f.Link))
	case !info.Mode().IsRegular():
		return f, fmt.Errorf("%s is not a regular file (%s)", p, info.Mode().Type())
	default:
		f.Data, err = os.ReadFile(real)
		f.Digest = digest(f.Data)
		if kind == Program {
			f.Data = nil
		}
	}
	return f, err
}

// write makes or replaces a file: it is complete, or as it was.
func (r root) write(p string, data io.Reader, mode fs.FileMode) error {
	real, err := r.real(p)
	if err != nil {
		return err
	}
	tmp := filepath.Join(filepath.Dir(real), "."+filepath.Base(real)+unfinished)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, real)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return syncDir(filepath.Dir(real))
}

// link makes or replaces a symbolic link.
func (r root) link(p, target string) error {
	real, err := r.entry(p)
	if err != nil {
		return err
	}
	tmp := filepath.Join(filepath.Dir(real), "."+filepath.Base(real)+unfinished)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(os.Symlink(target, tmp), os.Rename(tmp, real))
}

// remove takes a file away, and what an unfinished write of it left. None is fine.
func (r root) remove(p string, kind Kind) error {
	at := r.real
	if kind == Link {
		at = r.entry
	}
	real, err := at(p)
	if err != nil {
		return err
	}
	for _, f := range []string{real, filepath.Join(filepath.Dir(real), "."+filepath.Base(real)+unfinished)} {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return err
		}
	}
	return nil
}

// rmdir removes a folder if it is empty.
func (r root) rmdir(p string) error {
	real, err := r.real(p)
	if err != nil {
		return err
	}
	err = os.Remove(real)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EBUSY) {
		return nil
	}
	return err
}

// mkdir makes a folder; its parents are there.
func (r root) mkdir(p string, mode fs.FileMode) error {
	real, err := r.real(p)
	if err != nil {
		return err
	}
	if err := os.Mkdir(real, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Chmod(real, mode)
}

// trusted makes sure that nobody but root can exchange what is put into a folder: what lies there runs as root.
func (r root) trusted(dir string) error {
	real, err := r.real(dir)
	if err != nil {
		return err
	}
	info, err := os.Stat(real)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if ok && (st.Uid != 0 || info.Mode().Perm()&0o002 != 0) {
		return fmt.Errorf("%s belongs to uid %d and has mode %04o: others than root could exchange programs that run as root", dir, st.Uid, info.Mode().Perm())
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// lock keeps a second run out until the file is closed. The folder is made if it is missing; it stays then.
func (r root) lock(dir string) (*os.File, error) {
	real, err := r.real(dir)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(real)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another stockade install or uninstall runs (%s is locked): %w", dir, err), f.Close())
	}
	return f, nil
}
