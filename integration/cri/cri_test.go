package cri

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stockade-dev/stockade/nri/health"
	"github.com/stockade-dev/stockade/profiles/selection"
	"github.com/stockade-dev/stockade/shim/incident"
	"github.com/stockade-dev/stockade/shim/state"
)

// What the tests' containers do: run on as declared, execute what is not declared, call what is not declared.
var (
	sleeps   = []string{"/bin/probe", "sleep", "3600"}
	deviates = []string{"/bin/probe", "exec", "/bin/other"}
	calls    = []string{"/bin/probe", "syscall", "250", "0", "-3"} // keyctl
)

const otherRan = "other ran"

// TestControl: under plain runc, and without the plugin, what the other tests see stopped happens.
func TestControl(t *testing.T) {
	p := shared.pod(t, podSpec{handler: "runc"})
	c := p.mustRun(t, "main", deviates...)
	if code := c.exited(t); code != 0 || !strings.Contains(c.output(), otherRan) {
		t.Errorf("exit code %d\n%s", code, c.output())
	}
	c = p.mustRun(t, "calls", calls...)
	if c.exited(t); strings.Contains(c.output(), "EPERM") {
		t.Errorf("keyctl is refused to everyone: %s", c.output())
	}
}

// protected runs what a pod with any profile of the tests may, and what it may not.
func protected(t *testing.T, p *pod, name, profile string) {
	t.Helper()
	c := p.mustRun(t, name, sleeps...)
	if out, err := c.exec(t, "/bin/hello"); err != nil || !strings.Contains(out, "hello ran") {
		t.Errorf("declared session: %q, %v", out, err)
	}
	if out, err := c.exec(t, "/bin/other"); err == nil || strings.Contains(out, otherRan) || !strings.Contains(err.Error(), "refused by stockade") {
		t.Errorf("undeclared session: %q, %v", out, err)
	}
	if got := profileOf(t, c); got != profile {
		t.Errorf("%s runs under profile %q, want %s", name, got, profile)
	}
}

// profileOf is what the shim says that a container runs under.
func profileOf(t *testing.T, c *container) string {
	t.Helper()
	tasks, damaged, err := state.List(c.node.StateDir())
	if err != nil || len(damaged) > 0 {
		t.Fatal(err, damaged)
	}
	for _, task := range tasks {
		if task.ID == c.id {
			return task.Profile
		}
	}
	return ""
}

func TestPodIsProtected(t *testing.T) {
	for _, with := range []string{"shim alone", "with the plugin"} {
		t.Run(with, func(t *testing.T) {
			if with != "shim alone" {
				shared.plugin(t, "")
			}
			p := shared.pod(t, podSpec{})
			protected(t, p, "main", "main")
			protected(t, p, "init", "init")
			c := shared.pod(t, podSpec{}).mustRun(t, "main", deviates...)
			c.killed(t, otherRan)
			found, _, err := incident.List(shared.node.IncidentsDir(), incident.Filter{Container: c.id})
			if err != nil || len(found) == 0 {
				t.Errorf("no incident: %v", err)
			}
			shared.pod(t, podSpec{annotations: map[string]string{selection.Annotation: "elsewhere"}}).
				refused(t, `the namespace "prod" is not one of match.namespaces`, "main", deviates...)
			chosen := shared.pod(t, podSpec{annotations: map[string]string{selection.Annotation + ".main": "choice"}})
			protected(t, chosen, "main", "choice")
		})
	}
}

func TestPodSelector(t *testing.T) {
	labelled := podSpec{namespace: "labels", labels: map[string]string{"app": "probe"}}
	shared.pod(t, labelled).refused(t, "stockade-nri has not seen this container", "main", deviates...)
	shared.plugin(t, "")
	protected(t, shared.pod(t, labelled), "main", "label")
	protected(t, shared.pod(t, podSpec{namespace: "labels", labels: map[string]string{"app": "else"}}), "main", "main")
}

func TestForgedSelection(t *testing.T) {
	for _, with := range []string{"shim alone", "with the plugin"} {
		t.Run(with, func(t *testing.T) {
			reason := "was not made by this node's stockade-nri"
			if with != "shim alone" {
				shared.plugin(t, "")
				reason = "which only stockade-nri may set"
			}
			for _, annotations := range []map[string]string{
				{selection.Selected: "choice"},
				{selection.Selected: "none:" + strings.Repeat("0", 64), selection.SelectedFacts: "{}"},
				{selection.SelectedFacts: `{"labels":{"app":"probe"}}`},
				replay(t),
			} {
				shared.pod(t, podSpec{annotations: annotations}).refused(t, reason, "main", deviates...)
			}
		})
	}
}

// replay is a real statement, of another container.
func replay(t *testing.T) map[string]string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(shared.node.Dir(), "selection.key"))
	if err != nil || len(data) != 32 {
		t.Fatalf("the plugin has made no key: %v", err)
	}
	key := selection.Key(data)
	a, err := key.Sign(selection.Bearer{Container: "another", Sandbox: "sandbox", Name: "main"}, selection.Statement{Name: "choice"})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestOtherHandler: under plain runc the plugin gives what NRI can, and says what that is not.
func TestOtherHandler(t *testing.T) {
	plugin := shared.plugin(t, "requireShim: {namespaces: [strict]}\n")
	p := shared.pod(t, podSpec{handler: "runc"})
	c := p.mustRun(t, "main", calls...)
	if code := c.exited(t); code == 137 || !strings.Contains(c.output(), "syscall 250 = -1") && !strings.Contains(c.output(), "EPERM") {
		t.Errorf("exit code %d, want keyctl to fail with EPERM:\n%s", code, c.output())
	}
	unprotected := func(h health.Health, c *container) bool {
		return slices.ContainsFunc(h.Unprotected, func(u health.Container) bool {
			return u.ID == c.id && u.Profile == "main" && strings.Contains(u.Why, "are not enforced")
		})
	}
	runs := p.mustRun(t, "main", sleeps...)
	if err := plugin.WaitHealth(t.Context(), func(h health.Health) bool { return unprotected(h, runs) && !unprotected(h, c) }); err != nil {
		t.Errorf("what runs is not protected, what has ended does not run: %v", err)
	}
	shared.pod(t, podSpec{handler: "runc", namespace: "strict"}).refused(t, "requires a runtime class of Stockade", "main", deviates...)
	exempt := shared.pod(t, podSpec{handler: "runc", namespace: "kube-system"}).mustRun(t, "main", deviates...)
	if code := exempt.exited(t); code != 0 {
		t.Errorf("kube-system was touched: exit code %d\n%s", code, exempt.output())
	}
}

// TestStoreCorrupt: what cannot be read lets nothing start that should be protected, and stops nothing that runs.
func TestStoreCorrupt(t *testing.T) {
	plugin := shared.plugin(t, "")
	p := shared.pod(t, podSpec{})
	running := p.mustRun(t, "main", sleeps...)
	bad := filepath.Join(shared.node.ProfilesDir(), "zz-bad.yaml")
	if err := os.WriteFile(bad, []byte("nonsense: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(bad) })
	if err := plugin.WaitHealth(t.Context(), func(h health.Health) bool { return len(h.Problems) > 0 }); err != nil {
		t.Error(err)
	}
	// Refused, or, once the plugin has left the file out, under the set as it was before.
	if c, err := p.run(t.Context(), "init", deviates...); err == nil {
		c.killed(t, otherRan)
	} else if !strings.Contains(err.Error(), "zz-bad.yaml") {
		t.Errorf("refused with %v", err)
	}
	if out, err := running.exec(t, "/bin/other"); err == nil || strings.Contains(out, otherRan) {
		t.Errorf("what runs is no longer protected: %q %v", out, err)
	}
	if err := os.Remove(bad); err != nil {
		t.Fatal(err)
	}
	well := func() {
		t.Helper()
		if err := plugin.WaitHealth(t.Context(), func(h health.Health) bool { return len(h.Problems) == 0 }); err != nil {
			t.Error(err)
		}
	}
	well()
	// Whether the plugin has noticed by then or not: the shim looks for itself.
	open := func(mode os.FileMode) {
		t.Helper()
		if err := os.Chmod(shared.node.ProfilesDir(), mode); err != nil {
			t.Fatal(err)
		}
	}
	open(0o777)
	t.Cleanup(func() { open(0o700) })
	p.refused(t, "can be written by others than root", "init2", deviates...)
	open(0o700)
	well()
	protected(t, shared.pod(t, podSpec{}), "main", "main")
}

// TestProfileUpdate: a changed profile reaches the pods that run, by what their labels were; if it was changed while the
// plugin was away, when that is back.
func TestProfileUpdate(t *testing.T) {
	t.Cleanup(func() {
		if err := writeProfile(shared.node, "label", profiles["label"]); err != nil {
			t.Error(err)
		}
	})
	plugin := shared.plugin(t, "")
	p := shared.pod(t, podSpec{namespace: "labels", labels: map[string]string{"app": "probe"}})
	c := p.mustRun(t, "main", sleeps...)
	await := func(want bool, what string) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			out, err := c.exec(t, "/bin/other")
			if is := err == nil && strings.Contains(out, otherRan); is == want {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: the profile never arrived: %q %v", what, out, err)
			}
		}
	}
	put := func(text string) {
		t.Helper()
		if err := writeProfile(shared.node, "label", text); err != nil {
			t.Fatal(err)
		}
	}
	await(false, "undeclared at first")
	put(strings.Replace(profiles["label"], "[/bin/hello]", "[/bin/hello, /bin/other]", 1))
	await(true, "declared")
	if err := plugin.Stop(); err != nil {
		t.Fatal(err)
	}
	put(profiles["label"])
	await(true, "there is nobody to tell of it")
	shared.plugin(t, "")
	await(false, "undeclared while the plugin was away")
}

// TestHealthIsTimely: doctor can tell a plugin that is stopped from one that is well.
func TestHealthIsTimely(t *testing.T) {
	shared.plugin(t, "")
	h, err := health.Read(shared.node.StateDir())
	if text, ok := health.Verdict(h, err, time.Now()); !ok || h.Profiles != len(profiles) {
		t.Errorf("%s: %+v", text, h)
	}
	if text, ok := health.Verdict(h, err, time.Now().Add(health.Stale+time.Second)); ok {
		t.Error(text)
	}
}
