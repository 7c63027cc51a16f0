package features

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/fanotify"
)

// minKernel is where each ability came to Linux. "No" or "unknown" from root on
// a kernel that has it is a fault of the probe, not of the node.
var minKernel = map[string][2]int{
	"fanotify permission events":       {6, 0},
	"kernel stack of a blocked thread": {6, 0},
	"seccomp user notification":        {5, 7},
	"mount seal":                       {5, 2},
}

func TestRootOnANewKernelHasWhatItHas(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	k := Probe()
	if k.Target.Arch != runtime.GOARCH || k.Target.Kernel == "" {
		t.Errorf("kernel %q, arch %q", k.Target.Kernel, k.Target.Arch)
	}
	for _, c := range k.Checks {
		min, ok := minKernel[c.Name]
		if ok && atLeast(k.Target.Kernel, min[0], min[1]) && c.Has != profiles.Yes {
			t.Errorf("%s: %s on Linux %s: %s", c.Name, c.Has, k.Target.Kernel, c.Detail)
		}
		if c.Has == profiles.Yes && c.Fix != "" || c.Has != profiles.Yes && c.Fix == "" {
			t.Errorf("%s is %s with fix %q", c.Name, c.Has, c.Fix)
		}
	}
}

// Without privileges nothing can be tried, and nothing is claimed.
func TestWithoutPrivilegesNothingIsYes(t *testing.T) {
	if os.Getenv("FEATURES_CHILD") == "1" {
		k := Probe()
		if k.Target.Fanotify != profiles.Unknown || k.Target.FanotifyStack != profiles.Unknown || k.Target.MountSeal != profiles.Unknown {
			t.Errorf("%+v\n%+v", k.Target, k.Checks)
		}
		if groups, marks := fanotifyUse(); groups != -1 || marks != -1 {
			t.Errorf("groups %d, marks %d", groups, marks)
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root to drop")
	}
	// The test binary stands in a folder that only root can enter.
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/tmp", "features")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(dir+"/test", self, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(dir+"/test", "-test.run", "^TestWithoutPrivilegesNothingIsYes$", "-test.count=1")
	cmd.Env, cmd.Dir = append(os.Environ(), "FEATURES_CHILD=1"), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// What the probe makes is gone afterwards: descriptors, groups, mounts.
func TestProbeLeavesNothing(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	fds := func() string {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, e := range entries {
			to, _ := os.Readlink("/proc/self/fd/" + e.Name())
			if strings.Contains(to, "fanotify") || strings.Contains(to, "bpf") || strings.Contains(to, "fscontext") || to == "/" {
				b.WriteString(to + " ")
			}
		}
		return b.String()
	}
	before := fds()
	for range 20 {
		Probe()
	}
	for range 1000 { // groups are closed in the background
		if fds() == before {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if after := fds(); after != before {
		t.Errorf("descriptors before %q, after %q", before, after)
	}
	// Other programs mount and unmount too: what the probe left would show every time.
	for range 50 {
		before, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		Probe()
		if now, _ := os.ReadFile("/proc/self/mountinfo"); string(now) == string(before) {
			return
		}
	}
	t.Error("the mount table changed")
}

func TestGroupsAreCountedOnce(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	g, err := fanotify.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	root, err := privateTmpfs(0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	if err := g.MarkFilesystem(root, fanotify.OpenPerm); err != nil {
		t.Fatal(err)
	}
	again, err := unix.Dup(int(g.File().Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(again)
	var mine []groupFile
	fds := fanotifyFDs("/proc/self/fd") // once: another test's group may still be on its way out
	for _, fd := range fds {
		if f := (groupFile{os.Getpid(), fd}); !known(mine, f) {
			mine = append(mine, f)
		}
	}
	if n := len(fds); n < 2 || len(mine) != n-1 {
		t.Errorf("%d descriptors, %d groups; want one group fewer", n, len(mine))
	}
	groups, marks := fanotifyUse()
	if groups < 1 || marks < 1 {
		t.Errorf("%d groups, %d marks on the node; there is one of each at least", groups, marks)
	}
}

func TestLimitsAreRead(t *testing.T) {
	for _, l := range Limits() {
		if l.Max <= 0 && l.Name != "fs.fanotify.max_user_groups" && l.Name != "fs.fanotify.max_user_marks" {
			t.Errorf("%+v", l)
		}
		if l.Low != (l.Fix != "") {
			t.Errorf("%s: low %v, fix %q", l.Name, l.Low, l.Fix)
		}
	}
}

func BenchmarkProbe(b *testing.B) {
	for b.Loop() {
		Probe()
	}
}
