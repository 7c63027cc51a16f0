package integration_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stockade-dev/stockade/integration/image"
	"github.com/stockade-dev/stockade/integration/node"
	"github.com/stockade-dev/stockade/shim/control/api"
	"github.com/stockade-dev/stockade/shim/incident"
	"github.com/stockade-dev/stockade/shim/state"
)

// changing is a container whose profile changes while it runs. What its processes try is tried by exec sessions.
type changing struct {
	*testing.T
	name string
	task *node.Task
	path string // of its profile
}

// change starts a container under a profile of its own.
func change(t *testing.T, spec string, mounts ...specs.Mount) *changing {
	t.Helper()
	c := &changing{T: t, name: "live-" + strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(t.Name(), "Test"), "/", "-"))}
	c.path = filepath.Join(shared.ProfilesDir(), c.name+".yaml")
	t.Cleanup(func() { os.Remove(c.path) })
	c.put(spec)
	c.task = fenced(t, shared, node.RunOpts{Image: image.Ref("probe"), Profile: c.name, Mounts: mounts})
	return c
}

// put replaces the profile's file.
func (c *changing) put(spec string) {
	c.Helper()
	c.text(fmt.Sprintf("apiVersion: stockade.dev/v1alpha1\nkind: Profile\nmetadata: {name: %s}\nspec:\n%s", c.name, spec))
}

func (c *changing) text(text string) {
	c.Helper()
	temp := filepath.Join(shared.Dir(), c.name+".new")
	if err := os.WriteFile(temp, []byte(text), 0o600); err != nil {
		c.Fatal(err)
	}
	if err := os.Rename(temp, c.path); err != nil {
		c.Fatal(err)
	}
}

// shim connects to the container's shim.
func (c *changing) shim() *api.Client {
	c.Helper()
	record, err := state.Get(shared.StateDir(), shared.Namespace, c.task.ID)
	if err != nil {
		c.Fatal(err)
	}
	client, err := api.Dial(c.Context(), record.Control)
	if err != nil {
		c.Fatal(err)
	}
	return client
}

func (c *changing) status() *api.Container {
	c.Helper()
	client := c.shim()
	defer client.Close()
	s, err := client.Status(c.Context())
	if err != nil || len(s.Containers) != 1 {
		c.Fatalf("status: %+v, %v", s, err)
	}
	return &s.Containers[0]
}

// reload makes the shim read the store again.
func (c *changing) reload() api.Reloaded {
	c.Helper()
	client := c.shim()
	defer client.Close()
	r, err := client.Reload(c.Context(), api.ReloadRequest{Container: c.task.ID})
	if err != nil || len(r.Containers) != 1 {
		c.Fatalf("reload: %+v, %v\n%s", r, err, shared.LogTail())
	}
	return r.Containers[0]
}

// becomes puts a profile in force, of which all or, if waits says so, not all holds at once.
func (c *changing) becomes(spec string, waits ...string) api.Reloaded {
	c.Helper()
	c.put(spec)
	r := c.reload()
	if r.Failed != "" || !r.Changed() {
		c.Fatalf("reloaded: %+v", r)
	}
	var got []string
	for _, w := range r.Waits {
		part := w.Part
		if w.Weaker {
			part += "!"
		}
		got = append(got, part)
	}
	if strings.Join(got, " ") != strings.Join(waits, " ") {
		c.Errorf("waits: %q, want %q\n%+v", got, waits, r.Waits)
	}
	return r
}

// may and mayNot try an operation of the probe.
func (c *changing) may(op ...string) {
	c.Helper()
	out, code, err := trySession(c.Context(), c.task, node.ExecOpts{Args: append([]string{"/bin/probe"}, op...)})
	if err != nil || code != 0 {
		c.Errorf("%q: exit code %d, %v, %s; it is allowed\n%s", op, code, err, out, shared.LogTail())
	}
}

func (c *changing) mayNot(op ...string) {
	c.Helper()
	before := c.status().Violations()
	out, code, err := trySession(c.Context(), c.task, node.ExecOpts{Args: append([]string{"/bin/probe"}, op...)})
	if err == nil && code == 0 {
		c.Errorf("%q: %s; it is not allowed", op, out)
	}
	if now := c.status().Violations(); now == before {
		c.Errorf("%q: no violation was counted", op)
	}
}

// asks is how many questions about reading an operation causes.
func (c *changing) asks(op ...string) uint64 {
	c.Helper()
	count := func() (n uint64) {
		for _, d := range c.status().Decisions {
			if d.Kind == "read" || d.Kind == "write" {
				n += d.Count
			}
		}
		return n
	}
	before := count()
	c.may(op...)
	return count() - before
}

const (
	sessions = "  sessions: {allow: {exec: [/bin/probe]}}\n  onViolation: deny\n"
	base     = sessions + "  allow: {exec: [/bin/probe], read: [\"@image\"]}\n"
)

// TestReloadRead: a tightened profile bites where the kernel was told not to ask any more.
func TestReloadRead(t *testing.T) {
	t.Parallel()
	c := change(t, base)
	for range 3 {
		c.may("cat", "/etc/app.conf")
	}
	// Nothing but the program itself is asked about: /etc is ignored.
	if plain, cat := c.asks("ids"), c.asks("cat", "/etc/app.conf"); cat > plain {
		t.Fatalf("%d questions for a file of a directory that is ignored, %d without it: this test shows nothing", cat, plain)
	}
	if r := c.reload(); r.Changed() || r.Failed != "" {
		t.Errorf("reloaded without a change: %+v", r)
	}
	if plain, cat := c.asks("ids"), c.asks("cat", "/etc/app.conf"); cat > plain {
		t.Errorf("a reload that changes nothing has made the kernel ask again: %d questions, %d without the file", cat, plain)
	}
	r := c.becomes(base + "  deny: {read: [/etc/app.conf]}\n")
	if s := c.status(); s.Digest != r.After.Digest || s.Digest == r.Before.Digest || s.Reloaded == nil {
		t.Errorf("status: %+v", s)
	}
	if record, err := state.Get(shared.StateDir(), shared.Namespace, c.task.ID); err != nil || record.Digest != r.After.Digest {
		t.Errorf("record: %+v, %v; want digest %s", record, err, r.After.Digest)
	}
	c.mayNot("cat", "/etc/app.conf")
	c.may("cat", "/etc/passwd")
	c.becomes(base)
	c.may("cat", "/etc/app.conf")
	for _, i := range incidentsOf(t, shared, c.task) {
		if i.Digest != r.After.Digest || i.Rule == "" {
			t.Errorf("the incident names another version of the profile: %+v", i)
		}
	}
}

// TestReloadWrite: a mount that nobody was asked about, since everything in it was declared writable, is asked about
// before the new profile holds; and what is mounted stays mounted.
func TestReloadWrite(t *testing.T) {
	t.Parallel()
	vol := volume(t, 0o777, 0)
	c := change(t, sessions+"  allow: {exec: [/bin/probe], read: [\"@image\"], write: [/vol/**]}\n",
		specs.Mount{Destination: "/vol", Type: "bind", Source: vol, Options: []string{"rbind", "rw"}})
	if plain, write := c.asks("ids"), c.asks("write", "/vol/kept", "before"); write > plain {
		t.Fatalf("%d questions for a write to a declared mount, %d without it: this test shows nothing", write, plain)
	}
	r := c.becomes(sessions+"  allow: {exec: [/bin/probe], read: [\"@image\", /vol/**], write: [/opt/x/**]}\n", "mounts!", "mounts")
	if !strings.Contains(r.Waits[0].What, "/vol") || !strings.Contains(r.Waits[1].What, "/opt/x") {
		t.Errorf("waits: %+v", r.Waits)
	}
	c.may("cat", "/vol/kept")
	c.mayNot("overwrite", "/vol/kept", "after")
	c.mayNot("write", "/vol/kept", "after")
	c.mayNot("append", "/vol/kept", "after")
	c.mayNot("unlink", "/vol/kept")
	c.mayNot("rename", "/vol/kept", "/vol/gone")
	c.mayNot("truncate", "/vol/kept")
	if data, err := os.ReadFile(filepath.Join(vol, "kept")); string(data) != "before" {
		t.Errorf("the file is now %q, %v", data, err)
	}
	for _, g := range c.status().Guarantees {
		if g.Kind == "create+unlink+rename" && (g.Level != "detect" || !strings.Contains(g.Note, "until the container is started again")) {
			t.Errorf("guarantee: %+v", g)
		}
	}
	// Declared now, but the mount is read-only: no deviation, and no success.
	before := c.status().Violations()
	if out, code, err := trySession(t.Context(), c.task, node.ExecOpts{Args: []string{"/bin/probe", "mkdir", "/opt"}}); err != nil || code == 0 {
		t.Errorf("mkdir: %s, %d, %v", out, code, err)
	}
	if now := c.status().Violations(); now != before+1 {
		t.Errorf("%d violations, then %d: /opt itself is not declared", before, now)
	}
	c.becomes(sessions + "  allow: {exec: [/bin/probe], read: [\"@image\"], write: [/vol/**]}\n")
	c.may("write", "/vol/kept", "after")
	if plain, write := c.asks("ids"), c.asks("write", "/vol/kept", "after"); write > plain {
		t.Errorf("%d questions for a write to a declared mount, %d without it", write, plain)
	}
}

// TestReloadSealed: what the write-open watch sees of a read-only mount follows the profile.
func TestReloadSealed(t *testing.T) {
	t.Parallel()
	c := change(t, base)
	c.mayNot("overwrite", "/etc/app.conf", "x")
	c.becomes(sessions+"  allow: {exec: [/bin/probe], read: [\"@image\"], write: [/etc/app.conf]}\n", "mounts")
	before := c.status().Violations()
	if _, code, err := trySession(t.Context(), c.task, node.ExecOpts{Args: []string{"/bin/probe", "overwrite", "/etc/app.conf", "x"}}); err != nil || code == 0 {
		t.Errorf("written through a read-only mount: %d, %v", code, err)
	}
	if now := c.status().Violations(); now != before {
		t.Errorf("%d violations for a declared write", now-before)
	}
	c.becomes(base)
	c.mayNot("overwrite", "/etc/app.conf", "x")
}

// TestReloadExec: programs, sessions and what a deviation leads to.
func TestReloadExec(t *testing.T) {
	t.Parallel()
	c := change(t, base)
	c.mayNot("spawn", "/bin/hello")
	c.becomes(sessions + "  allow: {exec: [/bin/probe, /bin/hello], read: [\"@image\"]}\n")
	c.may("spawn", "/bin/hello")
	c.becomes(base)
	c.mayNot("spawn", "/bin/hello")
	if out, code, err := trySession(t.Context(), c.task, node.ExecOpts{Args: []string{"/bin/hello"}}); err == nil {
		t.Errorf("an undeclared session: %s, %d", out, code)
	}
	c.becomes(strings.Replace(base, "[/bin/probe]", "[/bin/probe, /bin/hello]", 1))
	if out := session(t, c.task, "/bin/hello"); !strings.Contains(out, "hello ran") {
		t.Errorf("a declared session: %q", out)
	}
	c.becomes(strings.Replace(base, "deny", "kill", 1))
	_, _, _ = trySession(t.Context(), c.task, node.ExecOpts{Args: []string{"/bin/probe", "spawn", "/bin/hello"}})
	if code, err := c.task.Wait(t.Context()); err != nil || code != 137 {
		t.Errorf("exit code %d, %v; want 137", code, err)
	}
}

// TestReloadSyscalls: what the filter asks about follows the profile; what it lets pass waits.
func TestReloadSyscalls(t *testing.T) {
	t.Parallel()
	const keyctl = "250"
	getKeyring := []string{"syscall", keyctl, "0", "-3", "1"} // KEYCTL_GET_KEYRING_ID, of the session
	declared := sessions + "  allow: {exec: [/bin/probe], read: [\"@image\"], syscalls: [\"@default\", keyctl]}\n"
	c := change(t, base)
	c.mayNot(getKeyring...)
	c.becomes(declared, "syscalls")
	c.may(getKeyring...)
	c.becomes(base)
	c.mayNot(getKeyring...)
	c.becomes(base + "  deny: {syscalls: [unlink]}\n")
	c.mayNot("unlink", "/etc/nothing")

	d := change(t, declared)
	d.becomes(base, "syscalls!")
	d.may(getKeyring...) // as it says
}

// TestReloadMode: a container that was made in monitor mode is not called enforced; one that was made in enforce mode
// goes to monitor mode and back.
func TestReloadMode(t *testing.T) {
	t.Parallel()
	monitor := "  mode: monitor\n" + base
	c := change(t, monitor)
	c.may("spawn", "/bin/hello")
	r := c.becomes(base, "mode!")
	if r.After.Mode != "monitor" || c.status().Mode != "monitor" {
		t.Errorf("mode: %+v", r.After)
	}
	c.may("spawn", "/bin/hello")

	d := change(t, base)
	d.mayNot("spawn", "/bin/hello")
	if r := d.becomes(monitor, "syscalls", "mounts", "capabilities"); r.After.Mode != "monitor" {
		t.Errorf("mode: %+v", r.After)
	}
	before := d.status().Violations()
	d.may("spawn", "/bin/hello")
	if d.status().Violations() == before {
		t.Error("what monitor mode lets pass is not counted")
	}
	if r := d.becomes(base); r.After.Mode != "enforce" {
		t.Errorf("mode: %+v", r.After)
	}
	d.mayNot("spawn", "/bin/hello")
}

// TestReloadBroken: what cannot be put in force leaves the old profile in force, and is said.
func TestReloadBroken(t *testing.T) {
	c := change(t, base)
	before := c.status().Digest
	failures, last := map[string]int{}, ""
	for name, text := range map[string]string{
		"no YAML":          "spec: [",
		"an unknown field": "apiVersion: stockade.dev/v1alpha1\nkind: Profile\nmetadata: {name: " + c.name + "}\nspec: {alow: {}}\n",
		"another name":     "apiVersion: stockade.dev/v1alpha1\nkind: Profile\nmetadata: {name: another}\nspec: {}\n",
		"not on this node": "apiVersion: stockade.dev/v1alpha1\nkind: Profile\nmetadata: {name: " + c.name + "}\nspec: {allow: {listen: [tcp/80]}}\n",
		"gone":             "",
	} {
		if text == "" {
			if err := os.Remove(c.path); err != nil {
				t.Fatal(err)
			}
		} else {
			c.text(text)
		}
		r := c.reload()
		if r.Failed == "" || r.Changed() {
			t.Errorf("%s: %+v", name, r)
		}
		if s := c.status(); s.Failed == "" || s.Digest != before {
			t.Errorf("%s: status %+v", name, s)
		}
		if record, err := state.Get(shared.StateDir(), shared.Namespace, c.task.ID); err != nil || record.Failed == "" || record.Digest != before {
			t.Errorf("%s: record %+v, %v", name, record, err)
		}
		c.mayNot("spawn", "/bin/hello")
		c.may("cat", "/etc/app.conf")
		if again := c.reload(); again.Failed != r.Failed {
			t.Errorf("%s, again: %+v", name, again)
		}
		if r.Failed != last { // two of them can fail for the same reason
			failures[r.Failed]++
		}
		last = r.Failed
	}
	c.put(base)
	if r := c.reload(); r.Failed != "" || r.Changed() {
		t.Errorf("mended: %+v", r)
	}
	if s := c.status(); s.Failed != "" {
		t.Errorf("mended: %+v", s)
	}
	// Each is an incident, once as long as it lasts.
	told := map[string]int{}
	for _, i := range incidentsOf(t, shared, c.task) {
		if i.Action == incident.NotReloaded {
			told[i.Reason]++
			if i.Digest != before || !strings.Contains(incident.Cause(&i), "keeps profile "+c.name+" as it was") {
				t.Errorf("%+v", i)
			}
		}
	}
	if !maps.Equal(told, failures) {
		t.Errorf("incidents: %v, want %v", told, failures)
	}
}

// TestReloadStorm: a thousand changes under load. What both profiles declare is never denied, and after each change
// what the new one does not declare is.
func TestReloadStorm(t *testing.T) {
	wide := sessions + "  allow: {exec: [/bin/probe, /bin/hello, /bin/other], read: [\"@image\"]}\n"
	narrow := sessions + "  allow: {exec: [/bin/probe, /bin/hello], read: [\"@image\"]}\n  deny: {read: [/etc/app.conf]}\n"
	c := change(t, wide)
	var load []*node.Exec
	for _, args := range [][]string{
		{"/bin/probe", "loop", "1000000", "spawn", "/bin/probe", "cat", "/etc/passwd"},
		{"/bin/probe", "loop", "1000000", "spawn", "/bin/hello"},
	} {
		e, err := c.task.Exec(t.Context(), node.ExecOpts{Args: args})
		if err != nil {
			t.Fatal(err)
		}
		load = append(load, e)
	}
	client := c.shim()
	defer client.Close()
	for i := range 1000 {
		spec := wide
		if i%2 == 0 {
			spec = narrow
		}
		c.put(spec)
		r, err := client.Reload(t.Context(), api.ReloadRequest{Container: c.task.ID})
		if err != nil || len(r.Containers) != 1 || r.Containers[0].Failed != "" || !r.Containers[0].Changed() {
			t.Fatalf("reload %d: %+v, %v", i, r, err)
		}
		switch i % 50 {
		case 0:
			if i%100 == 0 {
				c.mayNot("cat", "/etc/app.conf")
			} else {
				c.mayNot("spawn", "/bin/other")
			}
		case 1:
			c.may("cat", "/etc/app.conf")
			c.may("spawn", "/bin/other")
		}
	}
	for _, e := range load {
		if err := e.Kill(t.Context(), 9); err != nil {
			out := e.Output()
			t.Errorf("the load has ended: %v\n%s", err, out[max(0, len(out)-1000):])
		}
		_, _ = e.Wait(t.Context())
		_ = e.Delete(t.Context())
	}
	s := c.status()
	want := map[string]bool{"/etc/app.conf": true, "/bin/other": true}
	incs := incidentsOf(t, shared, c.task)
	if len(incs) != 20 || s.Violations() != 20 {
		t.Errorf("%d incidents and %d violations; want 20", len(incs), s.Violations())
	}
	for _, i := range incs {
		if !want[i.Access.Path] {
			t.Errorf("wrongly denied: %+v", i)
		}
	}
	t.Logf("%d decisions, answers %d in %.1fs, calls %d in %.1fs", s.Total(), s.Answers.Count, s.Answers.Seconds, s.Calls.Count, s.Calls.Seconds)
}

// TestControlFromContainer: root of a container that has the state folder mounted is not answered by its own shim.
func TestControlFromContainer(t *testing.T) {
	profile(t, shared, "control-client", "  allow: {exec: [\"@image\"], read: [\"@image\", /proc/**, /run/stockade/**]}\n")
	const try = `use Socket; $| = 1; alarm 10; socket(S, AF_UNIX, SOCK_STREAM, 0) or die "socket: $!"; my @s = glob("/run/stockade/c/*.sock"); ` +
		`@s == 1 or die "sockets: @s"; connect(S, sockaddr_un($s[0])) or die "connect: $!"; ` +
		`my $n = sysread(S, my $b, 1); print defined $n ? "read $n\n" : "error $!\n"; sleep 100`
	// Of all sockets the container is given its own shim's alone.
	dir := t.TempDir()
	task := fenced(t, shared, node.RunOpts{
		Image: image.Ref("tools"), Profile: "control-client",
		Args:   []string{"/usr/bin/perl", "-e", "sleep 1 until -e '/run/stockade/c/go';" + try},
		Mounts: []specs.Mount{{Destination: "/run/stockade/c", Type: "bind", Source: dir, Options: []string{"rbind", "ro"}}},
	})
	record, err := state.Get(shared.StateDir(), shared.Namespace, task.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Link(record.Control, filepath.Join(dir, "own.sock")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, task, "the container's client is sent away", func() error {
		if out := task.Output(); !strings.Contains(out, "read 0") && !strings.Contains(out, "error") {
			return fmt.Errorf("it says %q", out)
		}
		return nil
	})
}
