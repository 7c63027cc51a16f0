// Package state keeps one JSON file for each protected task of this node, for
// `stockade ps`: which container, under which profile, guarded by which shim.
//
// The files are a convenience: nothing is decided from them, and deleting them
// changes nothing. A shim that is killed leaves its files behind, so a reader
// asks [Task.ShimAlive]. The folder (/run/stockade) is 0700, files 0600, and a file
// appears complete or not at all.
//
// IDs are containerd's, and a caller could pass any text: what is not a letter,
// a digit, '-', '_' or '.' is escaped in the file name, so that an ID can never
// name a file outside the folder.
package state

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/stockade-dev/stockade/shim/procfs"
	"github.com/stockade-dev/stockade/shim/record"
)

// Task is one protected task.
type Task struct {
	ID           string      `json:"id"`        // containerd's
	Namespace    string      `json:"namespace"` // containerd's
	Pod          string      `json:"pod,omitempty"`
	PodNamespace string      `json:"podNamespace,omitempty"`
	Image        string      `json:"image,omitempty"`
	Profile      string      `json:"profile"`
	Digest       string      `json:"digest"`
	Mode         string      `json:"mode"`
	OnViolation  string      `json:"onViolation"`
	ShimPID      int         `json:"shimPid"`
	ShimStart    uint64      `json:"shimStart"` // clock ticks since boot; Write fills it and ShimPID when both are 0
	InitPID      int         `json:"initPid"`
	Cgroup       string      `json:"cgroup,omitempty"`
	Guarantees   []Guarantee `json:"guarantees,omitempty"`
	Control      string      `json:"control,omitempty"` // its shim's control socket
	Waits        int         `json:"waits,omitempty"`   // how much of the profile waits for the container's next start
	Failed       string      `json:"failed,omitempty"`  // why the profile that holds is older than the store
	Since        time.Time   `json:"since"`
}

// Guarantee is what the task's plan gives for one kind of access.
type Guarantee struct {
	Kind  string `json:"kind"`
	Level string `json:"level"` // none, detect, deny, kill
	By    string `json:"by,omitempty"`
	Note  string `json:"note,omitempty"`
}

// Damaged is a file that should be a task and cannot be read as one.
type Damaged struct {
	File string
	Err  error
}

func (d *Damaged) Error() string { return fmt.Sprintf("%s: %v", d.File, d.Err) }
func (d *Damaged) Unwrap() error { return d.Err }

const (
	suffix  = ".json"
	maxFile = 1 << 20
)

// Write makes or replaces the file of t. The folder is made if it is missing.
// A task without shim gets this process as its shim.
func Write(dir string, t Task) error {
	if t.ShimPID == 0 && t.ShimStart == 0 {
		t.ShimPID = os.Getpid()
		start, err := startTime(t.ShimPID)
		if err != nil {
			return fmt.Errorf("state of %s: %w", t.ID, err)
		}
		t.ShimStart = start
	}
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		err = record.Write(path(dir, t.Namespace, t.ID), t)
	}
	if err != nil {
		return fmt.Errorf("state of %s: %w", t.ID, err)
	}
	return nil
}

// Remove deletes the file of a task. One that is not there is no error.
func Remove(dir, namespace, id string) error {
	err := os.Remove(path(dir, namespace, id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// List returns the tasks in dir, sorted by namespace and ID, and the files
// that are damaged. A folder that does not exist holds none.
func List(dir string) ([]Task, []*Damaged, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("list tasks: %w", err)
	}
	var tasks []Task
	var damaged []*Damaged
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || !strings.HasSuffix(e.Name(), suffix) {
			continue
		}
		t, err := read(dir, e.Name())
		switch {
		case errors.Is(err, fs.ErrNotExist): // ended meanwhile
		case err != nil:
			damaged = append(damaged, &Damaged{File: filepath.Join(dir, e.Name()), Err: err})
		default:
			tasks = append(tasks, t)
		}
	}
	return tasks, damaged, nil
}

// Get reads the file of one task.
func Get(dir, namespace, id string) (Task, error) { return read(dir, fileName(namespace, id)) }

func read(dir, name string) (t Task, err error) {
	if err := record.Read(filepath.Join(dir, name), &t); err != nil {
		return Task{}, err
	}
	if fileName(t.Namespace, t.ID) != name {
		return Task{}, fmt.Errorf("holds the task %q of namespace %q", t.ID, t.Namespace)
	}
	return t, nil
}

// ShimAlive tells whether the shim that wrote t still runs: its pid with its
// start time, since pids are used again.
func (t Task) ShimAlive() bool {
	start, err := startTime(t.ShimPID)
	return err == nil && start == t.ShimStart
}

func startTime(pid int) (uint64, error) {
	proc, err := procfs.Open()
	if err != nil {
		return 0, err
	}
	defer proc.Close()
	return proc.StartTime(pid)
}

func path(dir, namespace, id string) string { return filepath.Join(dir, fileName(namespace, id)) }

// fileName is the same for the same task and different for different ones:
// '~' parts the escaped namespace from the escaped ID, and is itself escaped.
func fileName(namespace, id string) string {
	name := escape(namespace) + "~" + escape(id)
	if len(name) > 200 { // NAME_MAX is 255
		sum := sha256.Sum256([]byte(name))
		name = name[:100] + "~" + hex.EncodeToString(sum[:])
	}
	return name + suffix
}

func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	return b.String()
}
