package cri

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stockade-dev/stockade/nri/health"
	"github.com/stockade-dev/stockade/shim/incident"
)

// TestReloadManyContainers: one shim holds all containers of a pod. A changed profile reaches each that runs under it, a
// container whose profile cannot be put in force keeps its old one, alone, and that is told.
func TestReloadManyContainers(t *testing.T) {
	put := func(name, text string) {
		t.Helper()
		if err := writeProfile(shared.node, name, text); err != nil {
			t.Fatal(err)
		}
	}
	many, solo := profile("many", "match: {namespaces: [many]}"), profile("solo", "match: {namespaces: [many], containers: [solo]}")
	put("many", many)
	put("solo", solo)
	t.Cleanup(func() { removeProfiles(t, "many", "solo") })
	plugin := shared.plugin(t, "")
	p := shared.pod(t, podSpec{namespace: "many"})
	var all []*container
	for i := range 12 {
		all = append(all, p.mustRun(t, fmt.Sprintf("c%d", i), sleeps...))
	}
	alone := p.mustRun(t, "solo", sleeps...)
	session := func(c *container) bool {
		out, err := c.exec(t, "/bin/other")
		return err == nil && strings.Contains(out, otherRan)
	}
	await := func(want bool, what string) {
		t.Helper()
		for _, c := range all {
			for end := time.Now().Add(20 * time.Second); session(c) != want; time.Sleep(50 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("%s: it never came to that in %s", what, c.id)
				}
			}
		}
	}
	wider := strings.NewReplacer("[/bin/hello]", "[/bin/hello, /bin/other]")
	await(false, "undeclared at first")
	put("many", wider.Replace(many))
	await(true, "declared by the change")
	if session(alone) {
		t.Error("a container of another profile has got it as well")
	}
	put("many", many)
	await(false, "undeclared again")

	put("solo", strings.Replace(wider.Replace(solo), "read: [", "listen: [tcp/80], read: [", 1)) // not to be held here
	put("many", wider.Replace(many))
	await(true, "declared, beside one that fails")
	if session(alone) {
		t.Error("a profile that does not hold was put in force")
	}
	if err := plugin.WaitHealth(t.Context(), func(h health.Health) bool { return strings.Contains(h.Reloads[alone.id], "allowUnenforced") }); err != nil {
		t.Error(err)
	}
	awaitText(t, func() (string, error) {
		found, _, err := incident.List(shared.node.IncidentsDir(), incident.Filter{Container: alone.id})
		text := ""
		for i := range found {
			text += found[i].Pod.Container + " " + incident.Cause(&found[i]) + "\n"
		}
		return text, err
	}, "solo stockade: not reloaded: the container keeps profile solo as it was")
	for _, c := range append(all, alone) {
		if out, err := c.exec(t, "/bin/hello"); err != nil || !strings.Contains(out, "hello ran") {
			t.Errorf("%s did not come through it: %q, %v", c.id, out, err)
		}
	}
}
