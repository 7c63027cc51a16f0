package cgroup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain is also the program of the tests' child processes.
func TestMain(m *testing.M) {
	if role := os.Getenv("CGROUP_TEST_ROLE"); role != "" {
		os.Exit(roles[role]())
	}
	os.Exit(m.Run())
}

var roles = map[string]func() int{
	"open-parent": roleOpenParent,
	"notified":    roleNotified,
	"bomb":        roleBomb,
}

var mounts = map[int]string{1: "/sys/fs/cgroup/freezer", 2: "/sys/fs/cgroup/unified"}

// forVersions runs a test in a group of each hierarchy that this machine has.
func forVersions(t *testing.T, f func(t *testing.T, version int)) {
	for version := 1; version <= 2; version++ {
		t.Run(fmt.Sprintf("v%d", version), func(t *testing.T) {
			if version == 2 && !isCgroup2(mounts[2]) && isCgroup2("/sys/fs/cgroup") {
				mounts[2] = "/sys/fs/cgroup"
			}
			if os.Getuid() != 0 {
				t.Skip("needs root")
			}
			if _, err := os.Stat(mounts[version] + "/cgroup.procs"); version == 1 && err != nil {
				t.Skip("no freezer of version 1 (cgroup v2 only: yes)") // as stockade doctor says it
			} else if err != nil {
				t.Skip("needs ", mounts[version])
			}
			f(t, version)
		})
	}
}

func isCgroup2(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && int64(st.Type) == unix.CGROUP2_SUPER_MAGIC
}

// group makes a control group that is gone, with all in it, when the test ends.
func group(t testing.TB, version int) string {
	t.Helper()
	dir, err := os.MkdirTemp(mounts[version], "stockade-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeGroup(t, dir) })
	return dir
}

func removeGroup(t testing.TB, dir string) {
	for range 2000 {
		_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				_ = os.WriteFile(path+"/freezer.state", []byte("THAWED"), 0)
				_ = os.WriteFile(path+"/cgroup.freeze", []byte("0"), 0)
				for _, pid := range pidsIn(path) {
					_ = unix.Kill(pid, unix.SIGKILL)
				}
			}
			return nil
		})
		var dirs []string
		_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for i := len(dirs) - 1; i >= 0; i-- {
			_ = unix.Rmdir(dirs[i])
		}
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("%s is still there", dir)
}

func pidsIn(dir string) (pids []int) {
	data, _ := os.ReadFile(dir + "/cgroup.procs")
	for field := range strings.FieldsSeq(string(data)) {
		pid, _ := strconv.Atoi(field)
		pids = append(pids, pid)
	}
	return pids
}

// parked is a container before its start: its init is in the group and waits.
type parked struct {
	*exec.Cmd
	start io.WriteCloser
}

// park starts a shell in the group, in a pid namespace of its own if asked for, that will run the script.
func park(t testing.TB, dir, script string, namespace bool, env ...string) parked {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "read go; "+script)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if namespace {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if err := os.WriteFile(dir+"/cgroup.procs", []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	return parked{cmd, stdin}
}

func (p parked) run(t testing.TB) {
	t.Helper()
	if _, err := io.WriteString(p.start, "\n"); err != nil {
		t.Fatal(err)
	}
}

// open is Open in the hierarchy under test.
func (p parked) open(t testing.TB, version int) *Cgroup {
	t.Helper()
	c, err := openPID(p.Process.Pid, version)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// limit bounds the number of processes that a container has, as every node does: in the group itself on a pure v2 node,
// elsewhere in version 1's hierarchy of its own.
func limit(t testing.TB, group string, pid, n int) {
	t.Helper()
	if os.WriteFile(filepath.Join(group, "pids.max"), []byte(strconv.Itoa(n)), 0) == nil {
		return
	}
	dir, err := os.MkdirTemp("/sys/fs/cgroup/pids", "stockade-test-")
	if err != nil {
		t.Skip("needs the pids controller: ", err)
	}
	t.Cleanup(func() { removeGroup(t, dir) })
	for file, value := range map[string]int{"pids.max": n, "cgroup.procs": pid} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(strconv.Itoa(value)), 0); err != nil {
			t.Fatal(err)
		}
	}
}

// eventually fails the test when cond does not come true in a time that only a hang would take.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

// atLeast waits until n processes are in the group.
func atLeast(t testing.TB, c *Cgroup, n int) {
	t.Helper()
	eventually(t, fmt.Sprint(n, " processes"), func() bool {
		pids, err := c.list(nil)
		if err != nil {
			t.Fatal(err)
		}
		return len(pids) >= n
	})
}

// dies kills as a caller would, again while there is somebody, and waits until the container has ended.
func dies(t testing.TB, c *Cgroup) {
	t.Helper()
	if err := c.Kill(); err != nil && !errors.Is(err, ErrAlive) {
		t.Fatal(err)
	}
	go func() { _ = c.KillUntilEmpty() }() // ends with Close at the latest
	eventually(t, "empty", func() bool {
		empty, err := c.Empty()
		if err != nil {
			t.Fatal(err)
		}
		return empty
	})
}
