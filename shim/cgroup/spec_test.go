package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParsePaths(t *testing.T) {
	tests := []struct {
		text    string
		want    paths
		version int
	}{
		{"0::/a/b\n", paths{unified: "/a/b"}, 2},
		{"0::/a:b\n", paths{unified: "/a:b"}, 2},
		{"6:freezer:/x\n1:name=systemd:/y\n0::/\n", paths{freezer: "/x", unified: "/", v1: true}, 1},
		{"3:cpu,freezer,cpuacct:/x:y\n", paths{freezer: "/x:y", v1: true}, 1},
		{"3:cpu:/x\n0::/z\n", paths{unified: "/z", v1: true}, 1}, // no freezer: refused later
		{"3:notfreezer:/x\n", paths{v1: true}, 1},
		{"", paths{}, 2},
		{"nonsense\n0:\n", paths{}, 2},
	}
	for _, tt := range tests {
		if got := parsePaths(tt.text); got != tt.want || got.version() != tt.version {
			t.Errorf("parsePaths(%q) = %+v version %d", tt.text, got, got.version())
		}
	}
}

func TestContains(t *testing.T) {
	c := &Cgroup{spec: Spec{Path: "/kubepods/pod1/c1"}}
	for path, want := range map[string]bool{
		"/kubepods/pod1/c1":     true,
		"/kubepods/pod1/c1/a/b": true,
		"/kubepods/pod1/c10":    false,
		"/kubepods/pod1/c":      false,
		"/kubepods/pod1":        false,
		"/":                     false,
		"":                      false,
		"kubepods/pod1/c1":      false,
	} {
		if got := c.Contains(path); got != want {
			t.Errorf("Contains(%q) = %v", path, got)
		}
	}
}

func TestSpecCheck(t *testing.T) {
	good := Spec{Version: 1, Path: "/pod/c", Dir: "/sys/fs/cgroup/freezer/pod/c", PID: 1 << 30, Start: 1}
	if err := good.check(); err != nil {
		t.Errorf("a good one: %v", err)
	}
	tests := map[string]func(*Spec){
		"root":           func(s *Spec) { s.Path, s.Dir = "/", "/sys/fs/cgroup/freezer" },
		"none":           func(s *Spec) { s.Path = "" },
		"outside":        func(s *Spec) { s.Path, s.Dir = "/../x", "/sys/fs/cgroup/freezer/../x" },
		"unclean":        func(s *Spec) { s.Path, s.Dir = "/a/../..", "/sys/fs/cgroup/freezer/a/../.." },
		"relative":       func(s *Spec) { s.Path = "pod/c" },
		"elsewhere":      func(s *Spec) { s.Dir = "/sys/fs/cgroup/freezer/pod" },
		"version":        func(s *Spec) { s.Version = 3 },
		"init of a node": func(s *Spec) { s.PID = 1 },
		"no init":        func(s *Spec) { s.PID = 0 },
		"slice":          func(s *Spec) { s.Path, s.Dir = "/user.slice", "/sys/fs/cgroup/freezer/user.slice" },
		"service":        func(s *Spec) { s.Path, s.Dir = "/a/c.service", "/sys/fs/cgroup/freezer/a/c.service" },
		"node's init":    func(s *Spec) { s.Path, s.Dir = "/init.scope", "/sys/fs/cgroup/freezer/init.scope" },
	}
	for name, spoil := range tests {
		s := good
		spoil(&s)
		if err := s.check(); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, pid := range map[string]int{"self": os.Getpid(), "pid 1": 1} {
		if c, err := Open(pid); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: %v %v", name, c, err)
		}
	}
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(gone.Process.Pid); !errors.Is(err, unix.ESRCH) && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("gone: %v", err)
	}
	if _, err := Open(-1); err == nil {
		t.Error("pid -1: no error")
	}
}

// A group that holds the caller, or the caller's relation, is not the container's alone.
func TestOpenRefusesOwnGroup(t *testing.T) {
	forVersions(t, func(t *testing.T, version int) {
		for _, child := range []string{"", "below"} {
			dir := group(t, version)
			if child != "" {
				if err := os.Mkdir(filepath.Join(dir, child), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			// The role opens its parent, the shell, which is in dir; the role itself is in dir/child.
			script := fmt.Sprintf(`( sh -c 'echo $PPID' > %s/cgroup.procs; exec %s ); true`, filepath.Join(dir, child), os.Args[0])
			out := output(t, dir, script, fmt.Sprint("CGROUP_TEST_VERSION=", version), "CGROUP_TEST_ROLE=open-parent")
			if !strings.HasPrefix(out, "refused") {
				t.Errorf("%q: %s", child, out)
			}
		}
	})
}

// output runs a script in the group and returns what it wrote.
func output(t *testing.T, dir, script string, env ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "out")
	p := park(t, dir, "exec >"+file+"; "+script, false, env...)
	p.run(t)
	_ = p.Wait()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func roleOpenParent() int {
	var version int
	_, _ = fmt.Sscan(os.Getenv("CGROUP_TEST_VERSION"), &version)
	_, err := openPID(os.Getppid(), version)
	if errors.Is(err, ErrRefused) {
		fmt.Println("refused", err)
		return 0
	}
	fmt.Println("not refused", err)
	return 1
}

func TestFromSpec(t *testing.T) {
	forVersions(t, func(t *testing.T, version int) {
		dir := group(t, version)
		p := park(t, dir, "sleep 100 & sleep 100", false)
		c := p.open(t, version)
		p.run(t)
		atLeast(t, c, 3)
		s := c.Spec()

		again, err := FromSpec(s)
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		if again.init < 0 || again.Spec() != s {
			t.Errorf("opened again: %+v", again.Spec())
		}

		_ = p.Process.Kill() // init alone
		_ = p.Wait()
		orphans, err := FromSpec(s)
		if err != nil {
			t.Fatal(err)
		}
		defer orphans.Close()
		if empty, err := orphans.Empty(); empty || err != nil {
			t.Errorf("with orphans: empty %v, %v", empty, err)
		}
		dies(t, orphans)

		eventually(t, "removed", func() bool { return unix.Rmdir(dir) == nil })
		if _, err := FromSpec(s); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("removed: %v", err)
		}
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := FromSpec(s); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("made again: %v", err)
		}
	})
}

// A pid that has a new owner is not init.
func TestFromSpecReusedPID(t *testing.T) {
	forVersions(t, func(t *testing.T, version int) {
		p := park(t, group(t, version), "sleep 100", false)
		s := p.open(t, version).Spec()
		s.Start--
		c, err := FromSpec(s)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if c.init != -1 {
			t.Error("took another process for init")
		}
	})
}

func TestContainsProcess(t *testing.T) {
	forVersions(t, func(t *testing.T, version int) {
		p := park(t, group(t, version), "sleep 100", false)
		c := p.open(t, version)
		if in, err := c.ContainsProcess(p.Process.Pid); !in || err != nil {
			t.Errorf("init: %v %v", in, err)
		}
		if in, err := c.ContainsProcess(os.Getpid()); in || err != nil {
			t.Errorf("the test: %v %v", in, err)
		}
	})
}

func FuzzSpecBinary(f *testing.F) {
	b, _ := Spec{Version: 1, Path: "/p", Dir: "/d/p", Inode: 1 << 40, PID: 1 << 20, Start: 99}.AppendBinary(nil)
	f.Add(b)
	f.Add([]byte{})
	f.Add([]byte{1, 2, 3, 4, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		var s, again Spec
		if s.UnmarshalBinary(data) != nil {
			if s != (Spec{}) {
				t.Errorf("half a spec: %+v", s)
			}
			return
		}
		b, err := s.AppendBinary(nil)
		if err != nil || again.UnmarshalBinary(b) != nil || again != s {
			t.Errorf("%+v came back as %+v", s, again)
		}
	})
}
