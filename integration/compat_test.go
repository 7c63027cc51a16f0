package integration_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/integration/image"
	"github.com/stockade-dev/stockade/integration/node"
)

// What people do with containers must work as with runc, and be enforced as anywhere.

func probe(t *testing.T, o node.RunOpts, profile string, args ...string) *node.Task {
	t.Helper()
	o.Image, o.Profile, o.Args = image.Ref("probe"), profile, append([]string{"/bin/probe"}, args...)
	return fenced(t, shared, o)
}

func waiting(t *testing.T, task *node.Task) {
	t.Helper()
	if err := task.WaitOutput(t.Context(), "waiting"); err != nil {
		t.Fatal(err)
	}
}

// violate makes a container that waits for it try what is not declared.
func violate(t *testing.T, task *node.Task) {
	t.Helper()
	waiting(t, task)
	if err := task.Kill(t.Context(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	stoppedBy(t, shared, task, "/bin/hello", "ran as /bin/hello")
}

func TestUserNamespace(t *testing.T) {
	// Rules are in the container's user ids.
	profile(t, shared, "userns", `
  allow: {exec: [/bin/probe, {path: /bin/dynamic, uid: [0]}, {path: /bin/other, uid: [7]}], read: ["@image"], write: [/var/lib/app/**], capabilities: [SETUID, SETGID]}
`)
	// The container's users must get through to its root, as on a node they do: through the folders of the checkout, and
	// those above it where it lies in somebody's own (/root, mktemp -d), for as long as this test takes.
	for dir := shared.Dir(); dir != "/"; dir = filepath.Dir(dir) {
		st, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if st.Mode()&0o011 == 0o011 {
			continue
		}
		if err := os.Chmod(dir, st.Mode()|0o011); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Chmod(dir, st.Mode()) })
	}
	for name, args := range map[string][]string{
		"declared for root":        {"spawn", "/bin/dynamic"},
		"declared for another":     {"spawn", "/bin/other"},
		"written where declared":   {"write", "/var/lib/app/new", "text"},
		"undeclared for anybody":   {"onterm", "exec", "/bin/hello"},
		"not for another but root": {"setuid", "7", "spawn", "/bin/dynamic"},
	} {
		t.Run(name, func(t *testing.T) {
			ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
			task := probe(t, node.RunOpts{
				Remap:    100000,
				SpecOpts: []oci.SpecOpts{oci.WithUserNamespace(ids, ids)},
			}, "userns", args...)
			if got, err := os.ReadFile(fmt.Sprintf("/proc/%d/uid_map", task.InitPID())); err == nil && !strings.Contains(string(got), "100000") {
				t.Fatalf("no user namespace: %s", got)
			}
			if name == "undeclared for anybody" {
				violate(t, task)
				return
			}
			code, err := task.Wait(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			incs := incidentsOf(t, shared, task)
			if name == "declared for root" || name == "written where declared" {
				if code != 0 || len(incs) > 0 {
					t.Errorf("exit code %d, incidents %+v\n%s", code, incs, task.Output())
				}
				return
			}
			if code != 137 || len(incs) != 1 || strings.Contains(task.Output(), " ran as ") {
				t.Errorf("exit code %d, incidents %+v\n%s", code, incs, task.Output())
			}
		})
	}
}

// A bind mount brings the mounts below it along: they are watched, and read-only, as it is.
func TestSubmounts(t *testing.T) {
	dir := volume(t, 0o755, 0)
	sub := filepath.Join(dir, "sub")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", sub, "tmpfs", 0, "size=1m,mode=0777"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(sub, 0); err != nil {
			t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(sub, "file"), []byte("old"), 0o666); err != nil {
		t.Fatal(err)
	}
	profile(t, shared, "submounts", "  allow: {exec: [/bin/probe], read: [\"@image\", /vol/sub/file]}\n")
	o := node.RunOpts{Mounts: []specs.Mount{bind(dir, "/vol")}}
	task := probe(t, o, "submounts", "cat", "/vol/sub/file")
	if code, err := task.Wait(t.Context()); code != 0 || err != nil || !strings.HasPrefix(task.Output(), "old") {
		t.Errorf("exit code %d, %v\n%s", code, err, task.Output())
	}
	noIncident(t, shared, task)
	if err := os.WriteFile(filepath.Join(sub, "other"), []byte("secret"), 0o666); err != nil {
		t.Fatal(err)
	}
	for what, args := range map[string][]string{
		"read": {"cat", "/vol/sub/other"}, "write": {"overwrite", "/vol/sub/file", "new"},
	} {
		task = probe(t, o, "submounts", args...)
		code, err := task.Wait(t.Context())
		if incs := incidentsOf(t, shared, task); code != 137 || err != nil || len(incs) != 1 || incs[0].Access.Kind != what || strings.Contains(task.Output(), "secret") {
			t.Errorf("%s: exit code %d, %v, incidents %+v\n%s", what, code, err, incs, task.Output())
		}
	}
	if data, err := os.ReadFile(filepath.Join(sub, "file")); err != nil || string(data) != "old" {
		t.Errorf("%q, %v", data, err)
	}
}

// In the host's pid namespace no init takes the others along: the control group does.
func TestHostPIDNamespace(t *testing.T) {
	profile(t, shared, "hostpid", onlyProbe+"  allowUnenforced: [host]\n")
	task := probe(t, node.RunOpts{SpecOpts: []oci.SpecOpts{oci.WithHostNamespace(specs.PIDNamespace)}},
		"hostpid", "seq", "daemon", "sleep", "3600", "--", "daemon", "fork", "5", "3600", "--", "onterm", "exec", "/bin/hello")
	waiting(t, task)
	var pids []int
	eventually(t, task, "all processes are there", func() (err error) {
		if pids, err = task.PIDs(t.Context()); err == nil && len(pids) < 8 {
			err = fmt.Errorf("%d processes", len(pids))
		}
		return err
	})
	violate(t, task)
	if left := slices.DeleteFunc(pids, gone); len(left) > 0 {
		t.Errorf("%v live on", left)
	}
}

// TestHostProcessesAreOutOfReach: root needs no capability to kill root's processes, the shim and the guard among them.
func TestHostProcessesAreOutOfReach(t *testing.T) {
	victim := exec.Command("sleep", "3600")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { victim.Process.Kill(); victim.Wait() })
	profile(t, shared, "reach", onlyProbe+"  onViolation: deny\n")
	for name, opt := range map[string]oci.SpecOpts{
		"no namespace": oci.WithHostNamespace(specs.PIDNamespace),
		"the host's":   oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.PIDNamespace, Path: "/proc/1/ns/pid"}),
	} {
		task, err := shared.Run(t.Context(), node.RunOpts{
			Image: image.Ref("probe"), Profile: "reach", Runtime: node.Stockade, SpecOpts: []oci.SpecOpts{opt},
			Args: []string{"/bin/probe", "kill", strconv.Itoa(victim.Process.Pid), "9"},
		})
		if err == nil {
			code, err := task.Wait(t.Context())
			t.Errorf("%s: it ran: %d, %v, %s", name, code, err, task.Output())
			if err := task.Delete(t.Context()); err != nil {
				t.Error(err)
			}
		} else if !strings.Contains(err.Error(), "allowUnenforced: [host]") {
			t.Errorf("%s: %v", name, err)
		}
		if gone(victim.Process.Pid) {
			t.Fatalf("%s: the container has killed a process of the host", name)
		}
	}
}

// TestStoreIsOutOfReach: who makes a pod says what is mounted at a path that its profile declares writable.
func TestStoreIsOutOfReach(t *testing.T) {
	profile(t, shared, "victim", onlyProbe)
	profile(t, shared, "writer", "  allow: {exec: [/bin/probe], read: [\"@image\"], write: [/data/**]}\n")
	file := filepath.Join(shared.ProfilesDir(), "victim.yaml")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(shared.ProfilesDir(), link); err != nil {
		t.Fatal(err)
	}
	below, err := filepath.Rel(shared.Dir(), file)
	if err != nil {
		t.Fatal(err)
	}
	for source, name := range map[string]string{shared.ProfilesDir(): "victim.yaml", shared.Dir(): below, link: "victim.yaml"} {
		task, err := shared.Run(t.Context(), node.RunOpts{
			Image: image.Ref("probe"), Profile: "writer", Runtime: node.Stockade, Args: []string{"/bin/probe", "write", "/data/" + name, "loose"},
			Mounts: []specs.Mount{{Destination: "/data", Type: "bind", Source: source, Options: []string{"rbind", "rw"}}},
		})
		if err == nil {
			code, err := task.Wait(t.Context())
			t.Errorf("%s: it ran: %d, %v, %s", source, code, err, task.Output())
			if err := task.Delete(t.Context()); err != nil {
				t.Error(err)
			}
		} else if !strings.Contains(err.Error(), "allowUnenforced: [host]") {
			t.Errorf("%s: %v", source, err)
		}
		if after, err := os.ReadFile(file); err != nil || string(after) != string(before) {
			t.Fatalf("%s: the container has changed a profile: %q, %v", source, after, err)
		}
	}
}

func TestTTY(t *testing.T) {
	profile(t, shared, "tty", "  allow: {exec: [/bin/probe, /bin/dynamic], read: [\"@image\"]}\n  sessions: {allow: {exec: [/bin/probe]}}\n")
	task := probe(t, node.RunOpts{TTY: true}, "tty", "seq", "cat", "/etc/app.conf", "--", "spawn", "/bin/dynamic", "--", "append", "/dev/console", "to the console", "--", "onterm", "exec", "/bin/hello")
	waiting(t, task)
	for _, want := range []string{"configuration of the image", "ran as /bin/dynamic", "to the console"} {
		if !strings.Contains(task.Output(), want) {
			t.Errorf("%q is not in %q", want, task.Output())
		}
	}
	if err := task.Task.Resize(shared.Context(t.Context()), 100, 40); err != nil {
		t.Error(err)
	}
	out, code, err := trySession(t.Context(), task, node.ExecOpts{Args: []string{"/bin/probe", "append", "/dev/tty", "hello, terminal"}, TTY: true})
	if code != 0 || err != nil || !strings.Contains(out, "hello, terminal") {
		t.Errorf("session: %d, %v, %q", code, err, out)
	}
	violate(t, task)
}

// TestClientOperations: pids, metrics, pause, resume, update, through containerd's own client.
func TestClientOperations(t *testing.T) {
	profile(t, shared, "ops", "  allow: {exec: [/bin/probe, /bin/dynamic], read: [\"@image\"]}\n  sessions: {allow: {exec: [/bin/probe]}}\n")
	ctx := shared.Context(t.Context())
	task := probe(t, node.RunOpts{}, "ops", "seq", "daemon", "fork", "3", "3600", "--", "onterm", "exec", "/bin/hello")
	waiting(t, task)
	if pids, err := task.PIDs(t.Context()); err != nil || len(pids) < 2 {
		t.Errorf("pids %v, %v", pids, err)
	}
	if m, err := task.Task.Metrics(ctx); err != nil || len(m.Data.GetValue()) == 0 {
		t.Errorf("metrics %v, %v", m, err)
	}
	limit := int64(50)
	if err := task.Task.Update(ctx, containerd.WithResources(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &limit}})); err != nil {
		t.Error(err)
	}
	for range 3 {
		if err := task.Task.Pause(ctx); err != nil {
			t.Fatal(err)
		}
		if s, err := task.Task.Status(ctx); err != nil || s.Status != containerd.Paused {
			t.Errorf("status %v, %v", s, err)
		}
		if err := task.Task.Resume(ctx); err != nil {
			t.Fatal(err)
		}
		session(t, task, "/bin/probe", "cat", "/etc/app.conf")
	}
	if err := task.Kill(t.Context(), unix.SIGWINCH); err != nil { // any signal goes through
		t.Error(err)
	}
	// A session that is killed; one whose program is not there; one in a directory that is not there.
	e, err := task.Exec(t.Context(), node.ExecOpts{Args: []string{"/bin/probe", "sleep", "3600"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Kill(t.Context(), unix.SIGKILL); err != nil {
		t.Error(err)
	}
	if code, err := e.Wait(t.Context()); code != 137 || err != nil {
		t.Errorf("session: %d, %v", code, err)
	}
	if err := e.Delete(t.Context()); err != nil {
		t.Error(err)
	}
	for _, o := range []node.ExecOpts{{Args: []string{"/bin/nothing"}}, {Args: []string{"/bin/probe", "list", "/"}, Cwd: "/nothing"}} {
		if e, err := task.Exec(t.Context(), o); err == nil {
			_, _ = e.Wait(t.Context())
			_ = e.Delete(t.Context())
		}
		if gone(task.InitPID()) {
			t.Fatalf("%v killed the container: %+v", o, incidentsNow(t, shared, task.ID))
		}
	}
	// Violations of a paused container come when it goes on.
	if err := task.Task.Pause(ctx); err != nil {
		t.Fatal(err)
	}
	if err := task.Kill(context.Background(), unix.SIGTERM); err != nil {
		t.Error(err)
	}
	if err := task.Task.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	stoppedBy(t, shared, task, "/bin/hello", "ran as /bin/hello")
}
