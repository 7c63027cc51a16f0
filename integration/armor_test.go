package integration_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/oci"
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

// TestAppArmorAlone takes all other walls away: a container under plain runc, with every capability and no filter, that
// has nothing of Stockade's but the AppArmor profile. What is refused here AppArmor refuses; the control, without the
// profile, does it all.
func TestAppArmorAlone(t *testing.T) {
	armored(t)
	task, _ := armor(t, "armor-alone", "  onViolation: deny\n") // its text refuses, and kills nobody
	name := worn(t, task)
	for _, op := range []struct {
		try  []string
		once string // what the output has if it was done
	}{
		{[]string{"unlink", "/vol/keep"}, ""},
		{[]string{"rename", "/vol/keep", "/vol/tmp/gone"}, ""},
		{[]string{"rename", "/vol/tmp/own", "/vol/keep"}, ""},
		{[]string{"link", "/vol/keep", "/vol/tmp/alias"}, ""},
		{[]string{"symlink", "/anywhere", "/vol/new"}, ""},
		{[]string{"mkdir", "/vol/new"}, ""},
		{[]string{"mkfifo", "/vol/new"}, ""},
		{[]string{"chmod", "666", "/vol/keep"}, ""},
		{[]string{"fchmod", "666", "/vol/keep"}, ""},
		{[]string{"chown", "7", "/vol/keep"}, ""},
		{[]string{"truncate", "/vol/keep"}, ""},
		{[]string{"append", "/vol/keep", "x"}, ""},
		{[]string{"tmpfs", "/vol/tmp"}, ""},
		{[]string{"bind", "/bin", "/vol/tmp"}, ""},
		{[]string{"spawn", "/bin/hello"}, "hello ran"},
		{[]string{"spawn", "/lib64/ld-linux-x86-64.so.2", "/bin/dynamic"}, "ran as"},
	} {
		t.Run(strings.ReplaceAll(strings.Join(op.try, " "), "/", "|"), func(t *testing.T) {
			for _, profile := range []string{"", name} {
				out, changed := alone(t, profile, op.try)
				done := changed || strings.Contains(out, "did "+op.try[0]) || op.once != "" && strings.Contains(out, op.once)
				if profile == "" && !done {
					t.Fatalf("without AppArmor it does not happen either: %s", out)
				}
				if profile != "" && (done || !strings.Contains(out, "failed "+op.try[0])) {
					t.Errorf("it was not refused: %s", out)
				}
			}
		})
	}
}

// alone runs an operation of the probe under runc, under an AppArmor profile if there is one, and says whether the
// volume is not what it was.
func alone(t *testing.T, profile string, op []string) (output string, changed bool) {
	t.Helper()
	vol := volume(t, 0o777, 0)
	err := errors.Join(os.Mkdir(vol+"/tmp", 0o777), os.WriteFile(vol+"/keep", []byte("good"), 0o600), os.WriteFile(vol+"/tmp/own", nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	opts := []oci.SpecOpts{oci.WithAllCurrentCapabilities}
	if profile != "" {
		opts = append(opts, oci.WithApparmorProfile(profile))
	}
	task, err := shared.Run(t.Context(), node.RunOpts{
		Image: image.Ref("probe"), Runtime: node.Runc, Mounts: []specs.Mount{bind(vol, "/vol")},
		Args: append([]string{"/bin/probe"}, op...), SpecOpts: opts,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := task.Delete(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	if _, err := task.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	entries, err := os.ReadDir(vol)
	serr := unix.Lstat(vol+"/keep", &st)
	same := err == nil && serr == nil && len(entries) == 2 && st.Size == 4 && st.Mode == unix.S_IFREG|0o600 && st.Uid == 0 && st.Nlink == 1
	return task.Output(), !same
}
