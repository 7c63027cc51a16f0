// Package record reads and writes the small JSON files that Stockade keeps on a node.
package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/containerd/containerd/v2/pkg/atomicfile"
)

// MaxSize is how many bytes a file may have: more is no file of ours.
const MaxSize = 8 << 20

// Read decodes the file into v. A file that is empty, too large or no regular file is an error; nothing is waited for,
// and no link is followed. errors.Is(err, fs.ErrNotExist) if there is none.
func Read(path string, v any) error {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return errors.Join(errors.New("not a regular file"), err)
	}
	data, err := io.ReadAll(io.LimitReader(file, MaxSize+1))
	switch {
	case err != nil:
		return err
	case len(data) == 0:
		return errors.New("empty")
	case len(data) > MaxSize:
		return fmt.Errorf("larger than %d bytes", MaxSize)
	}
	return json.Unmarshal(data, v)
}

// Write replaces the file, atomically and durably, by v as JSON that only its owner may read.
func Write(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	file, err := atomicfile.New(path, 0o600)
	if err != nil {
		return err
	}
	if _, err := file.Write(append(data, '\n')); err != nil {
		return errors.Join(err, file.Cancel())
	}
	return file.Close()
}
