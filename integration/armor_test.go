package integration_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
	vol = keeping(t)
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

// TestAppArmorReload: the text follows the profile at once, in both directions, where mounts would have to wait.
func TestAppArmorReload(t *testing.T) {
	armored(t)
	vol := volume(t, 0o777, 0)
	writable := sessions + "  allow: {exec: [/bin/probe], read: [\"@image\"], write: [/vol/**]}\n"
	c := change(t, writable, bind(vol, "/vol"))
	c.may("write", "/vol/kept", "before")
	c.becomes(sessions + "  allow: {exec: [/bin/probe], read: [\"@image\", /vol/**]}\n")
	c.may("cat", "/vol/kept")
	for _, op := range [][]string{
		{"overwrite", "/vol/kept", "after"},
		{"append", "/vol/kept", "after"},
		{"unlink", "/vol/kept"},
		{"rename", "/vol/kept", "/vol/gone"},
		{"truncate", "/vol/kept"},
		{"chmod", "600", "/vol/kept"},
		{"mkdir", "/vol/new"},
	} {
		c.mayNot(op...)
	}
	if data, err := os.ReadFile(vol + "/kept"); string(data) != "before" {
		t.Errorf("the file is now %q, %v", data, err)
	}
	c.becomes(writable)
	c.may("write", "/vol/kept", "after")
	c.becomes("  mode: monitor\n"+base, "syscalls", "capabilities")
	c.may("write", "/vol/kept", "in monitor mode") // and is reported, by a text that complains
	c.becomes(base)
	c.mayNot("write", "/vol/kept", "after")
	if data, err := os.ReadFile(vol + "/kept"); string(data) != "in monitor mode" {
		t.Errorf("the file is now %q, %v", data, err)
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
	ops := strings.Split(`unlink /vol/unlink
rename /vol/from /vol/tmp/to
rename /vol/tmp/own /vol/over
link /vol/keep /vol/tmp/alias
symlink /anywhere /vol/symlink
mkdir /vol/mkdir
mkfifo /vol/mkfifo
chmod 666 /vol/chmod
fchmod 666 /vol/fchmod
chown 7 /vol/chown
truncate /vol/truncate
append /vol/append x
spawn /bin/hello
spawn /lib64/ld-linux-x86-64.so.2 /bin/dynamic
bind /bin /vol/tmp
tmpfs /vol/tmp`, "\n")
	for profile, verb := range map[string]string{"": "did", worn(t, task): "failed"} {
		vol := volume(t, 0o777, 0)
		for _, name := range strings.Fields("tmp/own unlink from over keep chmod fchmod chown truncate append") {
			name = filepath.Join(vol, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o777), os.WriteFile(name, []byte("good"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		before := tree(t, vol)
		output := alone(t, profile, vol, ops)
		var said []string
		for line := range strings.Lines(output) {
			verb, name, _ := strings.Cut(strings.TrimSpace(line), " ")
			if (verb == "did" || verb == "failed") && !strings.HasPrefix(name, "child") { // a spawn's, before its own
				said = append(said, strings.TrimSpace(line))
			}
		}
		for i, op := range ops {
			if name, _, _ := strings.Cut(op, " "); len(said) != len(ops) || !strings.HasPrefix(said[i], verb+" "+name) {
				t.Fatalf("AppArmor profile %q: %s: want %q; of all: %q", profile, op, verb, said)
			}
		}
		if after := tree(t, vol); profile != "" && (after != before || strings.Contains(output, "hello ran") || strings.Contains(output, "ran as")) {
			t.Errorf("something was done:\n%s\nbefore:\n%s\noutput:\n%s", after, before, output)
		}
	}
}

// alone runs operations of the probe under runc, under an AppArmor profile if there is one.
func alone(t *testing.T, profile, vol string, ops []string) (output string) {
	t.Helper()
	opts := []oci.SpecOpts{oci.WithAllCurrentCapabilities}
	if profile != "" {
		opts = append(opts, oci.WithApparmorProfile(profile))
	}
	task, err := shared.Run(t.Context(), node.RunOpts{
		Image: image.Ref("probe"), Runtime: node.Runc, Mounts: []specs.Mount{bind(vol, "/vol")},
		Args: append([]string{"/bin/probe", "seq"}, strings.Fields(strings.Join(ops, " -- "))...), SpecOpts: opts,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := task.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if err := task.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	return task.Output()
}

// tree tells what is below dir: names, types, modes, owners, sizes, links.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var list strings.Builder
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		var st unix.Stat_t
		if err = errors.Join(err, unix.Lstat(path, &st)); err == nil {
			fmt.Fprintf(&list, "%s %o %d %d %d\n", strings.TrimPrefix(path, dir), st.Mode, st.Uid, st.Size, st.Nlink)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list.String()
}
