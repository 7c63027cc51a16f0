package cgroup

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	ossignal "os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// to is a shell function that moves the caller into a sub-group of $G, made if need be.
const to = `to() { mkdir -p $G/$1; sh -c 'echo $PPID' > $G/$1/cgroup.procs; }; `

func TestKillLeavesNobody(t *testing.T) {
	tests := []struct {
		name, script string
		n            int // processes to wait for
	}{
		{"one", "sleep 100", 2},
		{"hundred", "for i in $(seq 100); do sleep 100 & done; wait", 101},
		{"more than a batch", "for i in $(seq 400); do sleep 100 & done; wait", 401},
		{"stopped", "for i in 1 2 3; do sh -c 'kill -STOP $$; sleep 100' & done; wait", 4},
		{"signals ignored", "trap '' TERM INT HUP QUIT PIPE; sleep 100; sleep 100", 2},
		{"busy", "for i in $(seq 20); do sh -c 'while :; do :; done' & done; wait", 21},
		{"forks", "f() { while :; do /bin/true & /bin/true; done; }; for i in $(seq 8); do f & done; wait", 9},
		{"sessions of their own", "for i in 1 2 3; do setsid sleep 100 & done; wait", 4},
		{"orphans", "for i in 1 2 3; do (sleep 100 &) ; done; sleep 100", 5},
	}
	forVersions(t, func(t *testing.T, version int) {
		for _, tt := range tests {
			for _, namespace := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s namespace=%v", tt.name, namespace), func(t *testing.T) {
					dir := group(t, version)
					p := park(t, dir, tt.script, namespace)
					c := p.open(t, version)
					p.run(t)
					atLeast(t, c, tt.n)
					dies(t, c)
					if pids := pidsIn(dir); len(pids) > 0 {
						t.Errorf("Empty said yes with %d left", len(pids))
					}
				})
			}
		}
	})
}

// roleBomb forks without end, as its children do. It is no shell's, which ends when it may not fork any more: the bomb
// would go out at the limit.
func roleBomb() int {
	ossignal.Ignore(unix.SIGCHLD) // nobody becomes a zombie
	for {
		// Nothing but this loop runs in a child: it has none of the Go runtime's other threads.
		_, _, _ = unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	}
}

// A bomb whose processes all fork as fast as they can, without end and without parents to kill first.
func TestKillForkBomb(t *testing.T) {
	forVersions(t, func(t *testing.T, version int) {
		dir := group(t, version)
		p := park(t, dir, "exec "+os.Args[0], false, "CGROUP_TEST_ROLE=bomb")
		c := p.open(t, version)
		limit(t, dir, p.Process.Pid, 600)
		p.run(t)
		atLeast(t, c, 300)
		begin := time.Now()
		dies(t, c)
		t.Log("dead after", time.Since(begin))
	})
}

func TestKillBelow(t *testing.T) {
	forVersions(t, func(t *testing.T, version int) {
		dir := group(t, version)
		script := to + `to a/b/c; sleep 100 & to a; sleep 100 & to d; sleep 100 & wait`
		p := park(t, dir, script, false, "G="+dir)
		c := p.open(t, version)
		p.run(t)
		atLeast(t, c, 4)
		dies(t, c)
	})
}

// A v1 group that is frozen does not die; a container that may write to its control group could count on that.
func TestKillFrozen(t *testing.T) {
	forVersions(t, func(t *testing.T, version int) {
		state, on, off := "freezer.state", "FROZEN", "THAWED"
		if version == 2 {
			state, on, off = "cgroup.freeze", "1", "0"
		}
		for _, where := range []string{".", "a", "a/b"} {
			t.Run(where, func(t *testing.T) {
				dir := group(t, version)
				p := park(t, dir, to+"to "+where+"; for i in 1 2 3; do sleep 100 & done; wait", true, "G="+dir)
				c := p.open(t, version)
				p.run(t)
				atLeast(t, c, 4)
				if err := os.WriteFile(filepath.Join(dir, where, state), []byte(on), 0); err != nil {
					t.Fatal(err)
				}
				dies(t, c)
				if data, _ := os.ReadFile(filepath.Join(dir, where, state)); version == 1 && strings.TrimSpace(string(data)) != off {
					t.Errorf("state %q", data)
				}
			})
		}
	})
}

func TestFreezeThaw(t *testing.T) {
	forVersions(t, func(t *testing.T, version int) {
		dir := group(t, version)
		file := filepath.Join(t.TempDir(), "n")
		p := park(t, dir, "while :; do echo x >> "+file+"; done", false)
		c := p.open(t, version)
		p.run(t)
		size := func() int64 {
			info, err := os.Stat(file)
			if err != nil {
				return 0
			}
			return info.Size()
		}
		eventually(t, "it runs", func() bool { return size() > 0 })
		if err := c.Freeze(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "frozen", func() bool {
			data, _ := os.ReadFile(dir + "/freezer.state")
			events, _ := os.ReadFile(dir + "/cgroup.events")
			return string(data) == "FROZEN\n" || strings.Contains(string(events), "frozen 1")
		})
		before := size()
		time.Sleep(50 * time.Millisecond)
		if size() != before {
			t.Error("it runs although it is frozen")
		}
		if err := c.Thaw(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it runs on", func() bool { return size() > before })
		if err := c.Freeze(); err != nil {
			t.Fatal(err)
		}
		dies(t, c)
	})
}

// A pid that is not in the group when its pidfd is open is left alone.
func TestSignalOnlyMembers(t *testing.T) {
	forVersions(t, func(t *testing.T, version int) {
		p := park(t, group(t, version), "sleep 100", false)
		c := p.open(t, version)
		outsider := exec.Command("sleep", "100")
		if err := outsider.Start(); err != nil {
			t.Fatal(err)
		}
		defer func() { _, _ = outsider.Process.Kill(), outsider.Wait() }()
		pids := []int{p.Process.Pid, outsider.Process.Pid}
		slices.Sort(pids)
		got, err := c.signalAll(pids)
		if err != nil || !slices.Equal(got, []int{p.Process.Pid}) {
			t.Errorf("signalAll = %v, %v", got, err)
		}
		_ = p.Wait()
		if err := unix.Kill(outsider.Process.Pid, 0); err != nil || state(outsider.Process.Pid) == 'Z' {
			t.Errorf("the outsider: %v", err)
		}
	})
}

func state(pid int) byte {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if i := strings.LastIndexByte(string(data), ')'); i >= 0 {
		return data[i+2]
	}
	return 0
}

// Killing again what has ended, and a group that is gone, is no error.
func TestKillEnded(t *testing.T) {
	forVersions(t, func(t *testing.T, version int) {
		dir := group(t, version)
		p := park(t, dir, "sleep 100", true)
		c := p.open(t, version)
		dies(t, c)
		_ = p.Wait()
		eventually(t, "removed", func() bool { return unix.Rmdir(dir) == nil })
		dies(t, c)
		for _, f := range []func() error{c.Freeze, c.Thaw} {
			if err := f(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestClose(t *testing.T) {
	forVersions(t, func(t *testing.T, version int) {
		p := park(t, group(t, version), "sleep 100", false)
		c := p.open(t, version)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 20 {
					if _, err := c.Empty(); err != nil && !errors.Is(err, os.ErrClosed) {
						t.Error(err)
					}
				}
			})
		}
		c.Close()
		c.Close()
		wg.Wait()
		if err := c.Kill(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Kill after Close: %v", err)
		}
		if unix.Kill(p.Process.Pid, 0) != nil {
			t.Error("Close killed")
		}
	})
}
