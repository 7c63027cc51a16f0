//go:build kubernetes

package kubernetes_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A changed profile reaches pods that run, both ways, without a restart.
func TestProfileUpdate(t *testing.T) {
	const name = "updated"
	put := func(allow, sessions string) {
		t.Helper()
		if err := writeProfile(name, probeProfile(name, allow, sessions)); err != nil {
			t.Fatal(err)
		}
	}
	put("{exec: [/bin/probe, /bin/hello]}", "{}")
	startPlugin(t, "")
	pod := newPod("updated", name, "seq", "spawn", "/bin/hello", "--", "waitfile", "/effects-go/update", "--", "spawn", "/bin/hello")
	pod = awaitRunning(t, create(t, heldBy(t, pod)), name)
	eventually(t, "the declared program runs", func() bool { return strings.Contains(logs(t, pod, name), "hello ran") })
	session := func() string {
		out, _ := shared.Kubectl(t.Context(), "", "exec", pod.Name, "--", "/bin/other")
		return out
	}
	if out := session(); !strings.Contains(out, "refused by stockade") {
		t.Fatalf("an undeclared session: %s", out)
	}
	put("{exec: [/bin/probe, /bin/hello]}", "{exec: [/bin/other]}")
	eventually(t, "the session that is declared now works", func() bool { return strings.Contains(session(), "other ran") })

	put("{exec: [/bin/probe]}", "{}")
	eventually(t, "the session is refused again", func() bool { return strings.Contains(session(), "refused by stockade") })
	if now := awaitRunning(t, pod, name); status(now, name).RestartCount != 0 {
		t.Errorf("the update has ended the container:\n%s", describe(t, pod.Name))
	}
	if err := os.WriteFile(filepath.Join(shared.Node.Dir(), "go", "update"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	awaitKilled(t, pod, name, "exec /bin/hello is not declared")
	if n := strings.Count(logs(t, pod, name), "hello ran"); n != 1 {
		t.Errorf("/bin/hello ran %d times, want once, before the update", n)
	}
}
