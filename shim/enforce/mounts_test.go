package enforce

import (
	"bufio"
	"errors"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/fanotify"
)

// mounter is a process in a mount namespace of its own. tell has it do what it was made for; it returns when that is
// done.
type mounter struct {
	pid  int
	tell func()
}

// newMounter starts one. then is shell text with arguments $0, $1 ...
func newMounter(t *testing.T, then string, args ...string) *mounter {
	t.Helper()
	cmd := exec.Command("unshare", append([]string{
		"--mount", "--propagation", "private", "sh", "-c",
		"echo parked; read x; " + then,
	}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
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
	lines := bufio.NewScanner(out)
	expect := func(want string) {
		t.Helper()
		if !lines.Scan() || strings.TrimSpace(lines.Text()) != want {
			t.Fatalf("the process says %q, want %q", lines.Text(), want)
		}
	}
	expect("parked")
	return &mounter{pid: cmd.Process.Pid, tell: func() {
		t.Helper()
		if _, err := in.Write([]byte("\n")); err != nil {
			t.Fatal(err)
		}
		expect("done")
	}}
}

const many = `i=0; while [ $i -lt 200 ]; do mount -t tmpfs x "$0" || exit 1; i=$((i+1)); done; echo done; read x`

// mounting is a profile that lets mounts be made.
const mounting = "{allowUnenforced: [mounts], allow: {syscalls: ['@default', unshare]}}"

// held is a container as far as its mounts go: those of a process.
func held(t *testing.T, pid int, spec string) *Container {
	t.Helper()
	c := &Container{init: pid, proc: openProc(t), root: -1, ns: -1}
	t.Cleanup(c.close)
	c.plan.arm(compile(t, spec))
	c.mounting.Store(c.Plan().MountsLater)
	if err := errors.Join(c.hold(pid), c.takeMounts(nil)); err != nil {
		t.Fatal(err)
	}
	return c
}

// The kernel gives a mount's id to the next mount as soon as it is free. When the container's first process leaves the
// mount namespace that it was started in, that one's mounts are gone, unless somebody holds them: then what is mounted
// next could pass for one of the mounts that were there before the first instruction.
func TestNoLaterMountHasTheIDOfAnEarlierOne(t *testing.T) {
	for what, then := range map[string]string{
		"left":      `exec unshare --mount --propagation private sh -c "$1" "$0"`,
		"unmounted": `umount -l /proc && ` + many,
	} {
		t.Run(what, func(t *testing.T) {
			p := newMounter(t, then, t.TempDir(), many)
			c := held(t, p.pid, mounting)
			before, err := mountsOf(p.pid)
			if err != nil {
				t.Fatal(err)
			}
			p.tell()
			// The process may have no /proc left, but it is in the host's.
			after, err := mountsOf(p.pid)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range after {
				old := c.mounts[uint64(m.ID)]
				if old != nil && !slices.ContainsFunc(before, func(b *mountinfo.Info) bool { return *b == *m }) {
					t.Errorf("mount %d on %s was made later and passes for the one on %s", m.ID, m.Mountpoint, old.dest)
				}
			}
			if left := c.elsewhere(p.pid); left != (what == "left") {
				t.Errorf("in another mount namespace: %v", left)
			}
		})
	}
}

// A mount that has been moved keeps its id. What lies on it has other names then, and these are somebody else's.
func TestAMovedMountIsNoneOfTheContainers(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	p := newMounter(t, `mount --move "$0" "$1" && echo done; read x`, from, to)
	run := exec.Command("nsenter", "--mount=/proc/"+strconv.Itoa(p.pid)+"/ns/mnt", "mount", "-t", "tmpfs", "x", from)
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	c := held(t, p.pid, mounting)
	var id uint64
	for n, m := range c.mounts {
		if m.dest == from {
			id = n
		}
	}
	if c.mountOf(id, from+"/file") == nil {
		t.Errorf("%s is not known in its place", from)
	}
	p.tell()
	for _, name := range []string{from + "/file", to + "/file"} {
		if c.mountOf(id, name) != nil {
			t.Errorf("%s passes for a file of the mount that was on %s", name, from)
		}
	}
}

// pristine is an image of which nothing had been changed when the container was made.
type pristine struct{}

func (pristine) Unchanged(string, bool) bool { return true }
func (pristine) Untouched(string, bool) bool { return true }
func (pristine) Pristine() bool              { return true }

// Where AppArmor holds the plan, opens in the image are not asked about for as long as none of it was changed. What was
// written under one plan is no file of the image to the next, whichever that is.
func TestDriftIsAskedAboutAfterAReload(t *testing.T) {
	plan := func(mode string) *profiles.Plan {
		text := "apiVersion: stockade.dev/v1alpha1\nkind: Profile\nmetadata: {name: x}\n" +
			"spec: {mode: " + mode + ", allow: {exec: ['@image'], read: ['@image'], write: [/srv/**]}}\n"
		ps, err := profiles.Parse("x.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		plan, err := profiles.Compile(ps[0], profiles.Target{
			Kernel: "6.12", Arch: "amd64", AppArmor: profiles.Yes,
			Fanotify: profiles.Yes, FanotifyStack: profiles.Yes, SeccompNotify: profiles.Yes, MountSeal: profiles.Yes,
		})
		if err != nil {
			t.Fatal(err)
		}
		return plan
	}
	root := &mount{dest: "/", fd: -1, seen: true, image: true, private: true, whole: true}
	c := &Container{image: pristine{}, mounts: map[uint64]*mount{1: root}}
	first := plan("enforce")
	c.plan.arm(first)
	asks := func(plan *profiles.Plan) bool {
		c.Confined(plan)
		defer c.plan.now.Store(plan)
		return c.masks(plan)[root]&fanotify.OpenPerm != 0
	}
	if asks(first) {
		t.Error("opens are asked about before anything was changed")
	}
	for what, next := range map[string]*profiles.Plan{"monitor": plan("monitor"), "enforce": plan("enforce")} {
		if !asks(next) {
			t.Errorf("opens are not asked about after a reload: %s", what)
		}
	}
	if !asks(first) {
		t.Error("opens are not asked about when the first plan is back")
	}
}

func TestBelow(t *testing.T) {
	for _, tt := range []struct {
		name, dir string
		want      bool
	}{
		{"/", "/", true},
		{"/a", "/", true},
		{"/a", "/a", true},
		{"/a/b", "/a", true},
		{"/ab", "/a", false},
		{"/b", "/a", false},
		{"", "/", false},
	} {
		if got := below(tt.name, tt.dir); got != tt.want {
			t.Errorf("below(%q, %q) = %v", tt.name, tt.dir, got)
		}
	}
}
