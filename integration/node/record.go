package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// record is what a later process must know to put the machine back: written before the node changes anything.
type record struct {
	PID       int               `json:"pid"`       // containerd's
	StartTime uint64            `json:"startTime"` // of that process, in clock ticks since boot: a pid alone may be reused
	Detached  bool              `json:"detached"`  // left running on purpose
	Sysctls   map[string]string `json:"sysctls"`   // as they were
	Absent    []string          `json:"absent"`    // folders that did not exist
	Owned     []string          `json:"owned"`     // folders that did not exist and whose content is the node's
}

// sysctls that the shim may change on a node.
var sysctls = []string{"/proc/sys/fs/fanotify/max_user_groups", "/proc/sys/fs/fanotify/max_user_marks"}

// hostDirs are made by containerd, runc and ctr whatever their configuration says. Deepest first: that is the order in
// which they are removed.
var hostDirs = []string{
	"/run/containerd/runc/default", "/run/containerd/runc/k8s.io", "/run/containerd/runc", "/run/containerd/fifo",
	"/run/containerd/s", "/run/containerd/io.containerd.runtime.v2.task", "/run/containerd", "/run/stockade",
	"/var/lib/cni/results", "/var/lib/cni", "/opt/containerd", "/etc/containerd", "/var/lib/containerd",
}

func newRecord(extra Restore) *record {
	r := &record{Sysctls: map[string]string{}}
	for _, path := range append(slices.Clone(sysctls), extra.Sysctls...) {
		if v, err := os.ReadFile(path); err == nil {
			r.Sysctls[path] = string(v)
		}
	}
	dirs := append([]string{}, hostDirs...)
	for _, h := range hierarchies() {
		dirs = append(dirs, h+"/default", h+"/k8s.io")
	}
	for _, d := range dirs {
		if !exists(d) {
			r.Absent = append(r.Absent, d)
		}
	}
	for _, d := range extra.Dirs {
		if !exists(d) {
			r.Owned = append(r.Owned, d)
		}
	}
	return r
}

func (r *record) save(l layout) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	tmp := l.record() + ".new"
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, l.record())
}

// loadRecord returns an empty record when there is none.
func loadRecord(l layout) (*record, error) {
	r := &record{}
	data, err := os.ReadFile(l.record())
	if errors.Is(err, os.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	return r, json.Unmarshal(data, r)
}

// alive reports whether the recorded containerd still runs.
func (r *record) alive() bool {
	if r.PID == 0 {
		return false
	}
	t, err := startTime(r.PID)
	return err == nil && t == r.StartTime
}

// restore puts sysctls back and removes the folders that were not there before and are empty again.
func (r *record) restore() error {
	var errs []error
	for path, v := range r.Sysctls {
		if now, err := os.ReadFile(path); err == nil && string(now) != v {
			errs = append(errs, os.WriteFile(path, []byte(v), 0))
		}
	}
	for _, d := range r.Owned {
		errs = append(errs, os.RemoveAll(d))
	}
	for _, d := range r.Absent {
		os.Remove(d) // fails on purpose where somebody else uses it
	}
	return errors.Join(errs...)
}

// startTime is field 22 of /proc/PID/stat (proc(5)): clock ticks since boot.
func startTime(pid int) (uint64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is the name, in parentheses, and may itself hold spaces and parentheses.
	rest := data[strings.LastIndexByte(string(data), ')')+1:]
	fields := strings.Fields(string(rest))
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields)+2)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}
