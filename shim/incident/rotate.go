package incident

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// usage is how much the folder holds, as far as the writers know.
type usage struct{ count, bytes int64 }

func (u usage) over(l Limit) bool {
	return l.Count > 0 && u.count > int64(l.Count) || l.Bytes > 0 && u.bytes > l.Bytes
}

// rotate adds what this writer wrote to the shared count and deletes the
// oldest incidents when the folder is over its limit. When another process
// holds the count it is left for the next time: rotation waits for nobody, a
// stopped shim included.
func (f *folder) rotate() error {
	file, err := os.OpenFile(filepath.Join(f.path, usageName), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
			return nil
		}
		return err
	}
	u, known := readUsage(file)
	u.count += f.pending.count
	u.bytes += f.pending.bytes
	f.pending = usage{}
	if !known || u.over(f.limit) {
		if u, err = f.trim(); err != nil {
			return err
		}
	}
	return writeUsage(file, u)
}

// readUsage reads the shared count; known is false for a new or damaged file.
func readUsage(file *os.File) (u usage, known bool) {
	var b [17]byte
	n, _ := file.ReadAt(b[:], 0)
	u.count = int64(binary.LittleEndian.Uint64(b[0:]))
	u.bytes = int64(binary.LittleEndian.Uint64(b[8:]))
	if n != 16 || u.count < 0 || u.bytes < 0 {
		return usage{}, false
	}
	return u, true
}

func writeUsage(file *os.File, u usage) error {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[0:], uint64(u.count))
	binary.LittleEndian.PutUint64(b[8:], uint64(u.bytes))
	_, err := file.WriteAt(b[:], 0)
	return errors.Join(err, file.Truncate(int64(len(b))))
}

// trim lists the folder, deletes incidents down to nine tenths of the limit if
// it is over, and returns what is left. Files that another process deletes
// meanwhile are as good as deleted here.
func (f *folder) trim() (usage, error) {
	f.trims++
	items, u, err := f.list()
	if err != nil || !u.over(f.limit) {
		return u, err
	}
	target := Limit{Count: f.limit.Count - f.limit.Count/10, Bytes: f.limit.Bytes - f.limit.Bytes/10}
	var errs []error
	q := f.queues(items[:max(0, len(items)-1)]) // the newest always stays
	for u.over(target) {
		it, ok := q.next()
		if !ok {
			break
		}
		if err := os.Remove(filepath.Join(f.path, it.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
			continue
		}
		u.count--
		u.bytes -= it.size
	}
	return u, errors.Join(errs...)
}

// item is one incident's file.
type item struct {
	name string
	size int64
}

// list is the folder's incidents, oldest first. Forgotten temporary files go.
func (f *folder) list() ([]item, usage, error) {
	entries, err := os.ReadDir(f.path)
	if err != nil {
		return nil, usage{}, err
	}
	var items []item
	var u usage
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue
		}
		if strings.HasPrefix(e.Name(), tempPrefix) && time.Since(info.ModTime()) > staleTemp {
			_ = os.Remove(filepath.Join(f.path, e.Name()))
		}
		if !strings.HasSuffix(e.Name(), suffix) {
			continue
		}
		items = append(items, item{e.Name(), info.Size()})
		u.count++
		u.bytes += info.Size()
	}
	return items, u, nil
}

// queues are incidents by container, oldest first. The one who has most goes
// first: a container that is not killed at its first violation could otherwise
// make so many that those of the others are deleted.
type queues map[string][]item

func (f *folder) queues(items []item) queues {
	q := queues{}
	for _, it := range items {
		of := f.containerOf(it.name)
		q[of] = append(q[of], it)
	}
	return q
}

// next takes the oldest of those who have most.
func (q queues) next() (item, bool) {
	most := ""
	for of, items := range q {
		if best := q[most]; len(items) > len(best) || len(items) == len(best) && items[0].name < best[0].name {
			most = of
		}
	}
	items := q[most]
	if len(items) == 0 {
		return item{}, false
	}
	if q[most] = items[1:]; len(items) == 1 {
		delete(q, most)
	}
	return items[0], true
}

// containerOf reads whose incident a file holds. What cannot be read is nobody's.
func (f *folder) containerOf(name string) string {
	data, err := os.ReadFile(filepath.Join(f.path, name))
	if err != nil {
		return ""
	}
	var inc struct {
		Namespace string `json:"namespace"`
		Container string `json:"container"`
	}
	if json.Unmarshal(data, &inc) != nil {
		return ""
	}
	return inc.Namespace + "/" + inc.Container
}
