// Package checkout tells where this checkout of Stockade lies and where its build puts things.
package checkout

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

const module = "module github.com/stockade-dev/stockade\n"

// Root returns the absolute path of the checkout that holds the current directory: the folder whose go.mod is
// Stockade's own, not that of a module nested in it.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		data, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && bytes.HasPrefix(data, []byte(module)) {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("not inside a checkout of Stockade")
		}
		dir = parent
	}
}

// Bin returns the folder of the built programs, and fails when one of names is missing there.
func Bin(root string, names ...string) (string, error) {
	bin := filepath.Join(root, "bin")
	for _, n := range names {
		if _, err := os.Stat(filepath.Join(bin, n)); err != nil {
			return "", fmt.Errorf("%s is not built, run make build: %w", n, err)
		}
	}
	return bin, nil
}
