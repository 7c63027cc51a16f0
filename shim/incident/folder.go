package incident

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	suffix     = ".json"
	tempPrefix = ".tmp-"
	usageName  = ".usage"
	// maxFile bounds what is read of one file; bounded() keeps those written
	// here far below it.
	maxFile = 8 << 20
	// staleTemp is the age at which a temporary file has surely lost its writer.
	staleTemp = time.Hour
)

// folder is the effect: files in a folder. Used by one goroutine.
type folder struct {
	path  string
	node  string
	limit Limit

	// before, if set, is called before every write; tests block there.
	before func()

	// pending is what this writer added and could not yet count in .usage.
	pending usage
	trims   int // how often the folder was listed
}

func openFolder(path string, limit Limit) (*folder, error) {
	node, _ := os.Hostname()
	f := &folder{path: path, limit: limit, node: node}
	return f, f.prepare()
}

// prepare makes sure of the folder: there, ours, closed to others.
func (f *folder) prepare() error {
	if err := os.MkdirAll(filepath.Dir(f.path), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(f.path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(f.path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a folder (%s)", f.path, info.Mode().Type())
	}
	if st := info.Sys().(*syscall.Stat_t); int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to uid %d, not to %d: evidence could be forged there", f.path, st.Uid, os.Geteuid())
	}
	if info.Mode().Perm() != 0o700 {
		return os.Chmod(f.path, 0o700)
	}
	return nil
}

// write makes the file of inc appear, complete and durable.
func (f *folder) write(inc Incident) error {
	if f.before != nil {
		f.before()
	}
	data, err := json.Marshal(bounded(inc))
	if err != nil {
		return err
	}
	data = append(data, '\n')
	err = f.create(inc.ID, data)
	if errors.Is(err, fs.ErrNotExist) { // somebody removed the folder
		if err = f.prepare(); err == nil {
			err = f.create(inc.ID, data)
		}
	}
	if err == nil {
		f.pending.count++
		f.pending.bytes += int64(len(data))
	}
	return err
}

func (f *folder) create(id string, data []byte) error {
	if _, ok := validID(id); !ok {
		return fmt.Errorf("%q is not an incident ID", id)
	}
	temp := filepath.Join(f.path, tempPrefix+id)
	if err := writeSynced(temp, data); err != nil {
		_ = os.Remove(temp)
		return err
	}
	if err := os.Rename(temp, filepath.Join(f.path, id+suffix)); err != nil {
		_ = os.Remove(temp)
		return err
	}
	return syncDir(f.path)
}

func writeSynced(path string, data []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) { // EINVAL: file system without it
		return err
	}
	return nil
}

// names returns the IDs in the folder, oldest first.
func names(path string) ([]string, error) {
	entries, err := os.ReadDir(path) // sorted by name, and so by time
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), suffix); ok {
			if _, ok := validID(id); ok {
				ids = append(ids, id)
			}
		}
	}
	return ids, nil
}
