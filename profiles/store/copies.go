package store

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/stockade-dev/stockade/profiles"
)

// copies is the folder of last good copies, open for reading. A nil one has none.
type copies struct {
	dir  string
	root *os.Root
}

func openCopies(dir string) (*copies, error) {
	if dir == "" {
		return nil, nil
	}
	root, err := openDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &copies{dir: dir, root: root}, nil
}

func (c *copies) close() {
	if c != nil {
		c.root.Close()
	}
}

// standIn gives the profiles of a bad file's last good copy.
func (c *copies) standIn(bad *FileError) ([]*profiles.Profile, *StandIn) {
	if c == nil {
		return nil, nil
	}
	f := readFile(c.root, c.dir, filepath.Base(bad.File))
	parsed, err := f.parse()
	if err != nil {
		return nil, nil
	}
	return parsed, &StandIn{Bad: bad.File, Copy: f.path, Time: f.time, Err: bad.Err}
}

// rejected: a Keeper saw just these bytes come, and there was no file before.
func (c *copies) rejected(f file) bool {
	if c == nil || f.err != nil {
		return false
	}
	m := readFile(c.root, c.dir, filepath.Base(f.path)+markExtension)
	var known mark
	return m.err == nil && json.Unmarshal(m.data, &known) == nil && known.SHA256 == sum(f.data)
}

func sum(data []byte) string {
	digest := sha256.Sum256(data)
	return hex.EncodeToString(digest[:])
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
