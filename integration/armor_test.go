package integration_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/integration/image"
	"github.com/stockade-dev/stockade/integration/node"
	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/features"
	"github.com/stockade-dev/stockade/shim/lsm"
)

// kernel is where AppArmor's state is looked at, apart from the shim.
var kernel lsm.Kernel

// armored skips on a node without AppArmor, with doctor's answer.
func armored(t *testing.T) {
	t.Helper()
	for _, check := range features.Probe().Checks {
		if check.Name == "AppArmor" && check.Has != profiles.Yes {
			t.Skipf("AppArmor: %s (%s)", check.Has, check.Detail)
		}
	}
}

// armor starts a container with a volume in which one folder may be written.
func armor(t *testing.T, name, more string) (task *node.Task, vol string) {
	t.Helper()
	profile(t, shared, name, "  allow: {exec: [/bin/probe], read: [\"@image\", /vol/**], write: [/vol/tmp/**]}\n"+
		"  sessions: {allow: {exec: [/bin/probe]}}\n"+more)
	vol = volume(t, 0o777, 0)
	if err := errors.Join(os.Mkdir(vol+"/tmp", 0o777), os.WriteFile(vol+"/keep", nil, 0o666)); err != nil {
		t.Fatal(err)
	}
	task = fenced(t, shared, node.RunOpts{Image: image.Ref("probe"), Profile: name, Mounts: []specs.Mount{bind(vol, "/vol")}})
	return task, vol
}

// worn waits until the container's first process runs its program, and returns the AppArmor profile that it has.
func worn(t *testing.T, task *node.Task) (name string) {
	t.Helper()
	eventually(t, task, "the first process has its AppArmor profile", func() (err error) {
		if name, err = kernel.Label(task.InitPID()); err == nil && name == "unconfined" {
			err = errors.New(name)
		}
		return err
	})
	return name
}

// TestAppArmorLabels: the first program and every session are confined, and what was loaded goes with the container,
// also when its shim was killed.
func TestAppArmorLabels(t *testing.T) {
	armored(t)
	for _, killed := range []bool{false, true} {
		task, _ := armor(t, "armor-labels", "")
		name := worn(t, task)
		if !strings.HasPrefix(name, "stockade.armor-labels.") {
			t.Errorf("the first process has the AppArmor profile %q", name)
		}
		if own := session(t, task, "/bin/probe", "cat", "/proc/self/attr/current"); !strings.HasPrefix(own, name+"//session ") {
			t.Errorf("a session has the AppArmor profile %q, want %s//session", own, name)
		}
		if killed {
			signalled(t, parent(task.InitPID()), unix.SIGKILL)
		}
		came := false
		for range 1200 {
			err := task.Delete(t.Context()) // while containerd cleans up after a dead shim it fails
			loaded, lerr := kernel.Loaded()
			if _, there := loaded[name]; errors.Join(err, lerr) == nil && !there {
				came = true
				break
			}
			time.Sleep(25 * time.Millisecond)
		}
		if !came {
			t.Errorf("the container is gone (shim killed: %v), the kernel still has %s", killed, name)
		}
	}
}

// TestAppArmorTampered: who takes away or replaces the profile of a running container, as aa-remove-unknown would, ends
// the container with it.
func TestAppArmorTampered(t *testing.T) {
	armored(t)
	parser, err := lsm.FindParser()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		how    string
		change func(name string) error
	}{
		{"removed", func(name string) error {
			return os.WriteFile("/sys/kernel/security/apparmor/.remove", []byte(name), 0)
		}},
		{"replaced", func(name string) error {
			l := lsm.Loader{Parser: parser, Dir: t.TempDir(), Prefix: "stockade."}
			return l.Load(lsm.Profile{Name: name, Text: "profile " + name + " { file, }\n"}, name, "somebody")
		}},
	} {
		t.Run(c.how, func(t *testing.T) {
			task, _ := armor(t, "armor-"+c.how, "")
			if err := c.change(worn(t, task)); err != nil {
				t.Fatal(err)
			}
			if code, err := task.Wait(t.Context()); code != 137 || err != nil {
				t.Errorf("exit code %d, %v; it is to be killed", code, err)
			}
		})
	}
}

// TestAppArmorNodeComplains: a node whose AppArmor is told to complain only does not hold its containers any more. The
// first thing that a container does then which it may not, it has done; it does no second.
func TestAppArmorNodeComplains(t *testing.T) {
	armored(t)
	const mode = "/sys/module/apparmor/parameters/mode"
	for _, c := range []struct {
		name string
		act  []string // of a session, "" : none is needed
	}{
		{"and a container deviates", []string{"/bin/probe", "unlink", "/vol/keep"}},
		{"and nothing happens", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			task, _ := armor(t, "armor-complains", "")
			spared, _ := armor(t, "armor-monitored", "  mode: monitor\n")
			worn(t, task)
			worn(t, spared)
			t.Cleanup(func() {
				if err := os.WriteFile(mode, []byte("enforce"), 0); err != nil {
					t.Fatal(err)
				}
			})
			if err := os.WriteFile(mode, []byte("complain"), 0); err != nil {
				t.Fatal(err)
			}
			if c.act != nil {
				_, _, _ = trySession(t.Context(), task, node.ExecOpts{Args: c.act}) // it may die with the container
			}
			if code, err := task.Wait(t.Context()); code != 137 || err != nil {
				t.Errorf("exit code %d, %v; it is to be killed", code, err)
			}
			if c.act != nil && len(incidentsOf(t, shared, task)) == 0 {
				t.Error("the deviation is not told")
			}
			if out := session(t, spared, "/bin/probe", "cat", "/etc/app.conf"); out == "" {
				t.Error("a container that is only monitored does not go on")
			}
		})
	}
}
