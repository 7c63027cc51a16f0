package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// temporary begins the names of files that are not finished; nobody reads them.
const temporary = ".new-"

// makeDir makes a folder for root alone, or looks at the one that is there, and
// takes away what a writer left unfinished.
func makeDir(dir string) (*os.Root, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := openDir(dir)
	if err != nil {
		return nil, err
	}
	left, err := fs.Glob(root.FS(), temporary+"*")
	for _, name := range left {
		err = errors.Join(err, root.Remove(name))
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// writeFile puts a file in place at once and durably: after a power cut there is
// the old one or the new one.
func writeFile(root *os.Root, name string, data []byte) (err error) {
	f, err := root.OpenFile(temporary+name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = root.Remove(temporary + name)
		}
	}()
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = root.Rename(temporary+name, name); err != nil {
		return err
	}
	return syncDir(root)
}

func syncDir(root *os.Root) error {
	d, err := root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// removeFile takes a file away; one that is not there is no error.
func removeFile(root *os.Root, name string) error {
	err := root.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, syncDir(root))
}

// fileName refuses names that lead elsewhere.
func fileName(name string) error {
	if name == "" || strings.HasPrefix(name, ".") || name != filepath.Base(name) {
		return fmt.Errorf("%.200q is not the name of a file", name)
	}
	return nil
}
