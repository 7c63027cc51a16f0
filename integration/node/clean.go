package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Clean ends by force whatever a node in dir left behind, detached or killed, and removes dir. It returns ErrRunning
// when another process owns the node.
func Clean(dir string) error {
	l := layoutOf(dir)
	if !exists(l.dir) && !exists(l.run) {
		return nil
	}
	lock, err := lockDir(l.dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	return l.remove()
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, os.ErrNotExist)
}

// Running reports whether a node that was left running on purpose lives in dir, and its address.
func Running(dir string) (address string, ok bool) {
	l := layoutOf(dir)
	r, err := loadRecord(l)
	return l.socket(), err == nil && r.Detached && r.alive()
}

// clean empties the folder for a new node. A node that was left running on purpose is not touched.
func (l layout) clean() error {
	if _, ok := Running(l.dir); ok {
		return ErrRunning
	}
	return l.end()
}

// remove ends everything and removes the folder itself.
func (l layout) remove() error {
	return errors.Join(l.end(), os.RemoveAll(l.dir))
}

// end kills, unmounts, restores and empties, in the order in which each step makes the next possible: first containerd,
// which would start things again, then the containers, then the shims and guards, whose death alone lets nobody go.
func (l layout) end() error {
	r, err := loadRecord(l)
	if err != nil {
		return err
	}
	if r.alive() {
		if err := killProcess(r.PID, func() bool { return r.alive() }); err != nil {
			return fmt.Errorf("kill containerd: %w", err)
		}
	}
	groups := l.cgroups()
	if err := l.killAll(groups); err != nil {
		return err
	}
	if err := unmountBelow(l.dir, l.run); err != nil {
		return err
	}
	for _, g := range groups {
		if err := removeCgroup(g); err != nil {
			return err
		}
	}
	if err := r.restore(); err != nil {
		return err
	}
	if l.run != l.dir {
		if err := os.RemoveAll(l.run); err != nil {
			return err
		}
	}
	return emptyDir(l.dir)
}

func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// killAll kills the containers' processes and everything with the node's marker until none is left.
func (l layout) killAll(groups []string) error {
	for range 500 {
		left := 0
		for _, g := range groups {
			left += killCgroup(g)
		}
		left += l.killMarked()
		if left == 0 {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("processes of the node in %s do not die", l.dir)
}

// killMarked kills every process whose environment says that this node started it, and returns how many there were.
func (l layout) killMarked() int {
	want := []byte(marker + l.dir)
	marked := func(pid int) bool {
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		return err == nil && slices.ContainsFunc(bytes.Split(env, []byte{0}), func(v []byte) bool { return bytes.Equal(v, want) })
	}
	n := 0
	for _, pid := range allPIDs() {
		// The owner that is just cleaning may itself have been started with the node's environment.
		if pid != os.Getpid() && marked(pid) {
			n++
			killProcess(pid, func() bool { return marked(pid) })
		}
	}
	return n
}

func allPIDs() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// killProcess kills pid if it still is the process that was meant: the pidfd is opened first, so that the pid cannot
// pass to another process between the question and the signal.
func killProcess(pid int, still func() bool) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if !still() {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	return nil
}

// cgroups lists the folders, in every hierarchy, of the containers whose bundles are here and of the namespace that
// only this node has. Other namespaces' top-level groups may be shared with another containerd of this machine.
func (l layout) cgroups() []string {
	paths := []string{"/" + l.uniqueName()}
	configs, _ := filepath.Glob(l.bundles() + "/*/*/config.json")
	for _, c := range configs {
		var spec struct {
			Linux struct {
				CgroupsPath string `json:"cgroupsPath"`
			} `json:"linux"`
		}
		if data, err := os.ReadFile(c); err == nil && json.Unmarshal(data, &spec) == nil && len(spec.Linux.CgroupsPath) > 1 {
			paths = append(paths, spec.Linux.CgroupsPath)
		}
	}
	var dirs []string
	for _, h := range hierarchies() {
		for _, p := range paths {
			dirs = append(dirs, filepath.Join(h, p))
		}
	}
	return dirs
}

// hierarchies returns where cgroup file systems are mounted, v1 and v2.
func hierarchies() []string {
	var dirs []string
	for _, m := range mounts() {
		if m.fstype == "cgroup" || m.fstype == "cgroup2" {
			dirs = append(dirs, m.point)
		}
	}
	return dirs
}

// killCgroup kills every process in the cgroup and below it and returns how many there were.
func killCgroup(dir string) int {
	os.WriteFile(filepath.Join(dir, "freezer.state"), []byte("THAWED"), 0)
	os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte("0"), 0)
	n := 0
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Name() != "cgroup.procs" {
			return nil
		}
		for _, pid := range readPIDs(path) {
			n++
			killProcess(pid, func() bool { return slices.Contains(readPIDs(path), pid) })
		}
		return nil
	})
	return n
}

func readPIDs(file string) []int {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	var pids []int
	for _, f := range strings.Fields(string(data)) {
		// 0 stands for a process of another pid namespace.
		if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// removeCgroup removes a cgroup without processes and everything below it. A task that is dead but not yet reaped
// keeps its cgroup busy for a moment.
func removeCgroup(dir string) error {
	var dirs []string
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for _, d := range slices.Backward(dirs) {
		var err error
		for range 200 {
			if err = syscall.Rmdir(d); !errors.Is(err, syscall.EBUSY) {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove cgroup %s: %w", d, err)
		}
	}
	return nil
}
