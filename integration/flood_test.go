package integration_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stockade-dev/stockade/integration/node"
	"github.com/stockade-dev/stockade/shim/incident"
)

// TestFloodIsCounted: a container that goes on after each denial, or is only watched, makes more violations than can be
// told of one by one. Each is told of or counted: none is passed over in silence.
func TestFloodIsCounted(t *testing.T) {
	for name, spec := range map[string]string{
		"deny":    base + "  deny: {read: [/etc/app.conf]}\n",
		"monitor": "  mode: monitor\n" + base + "  deny: {read: [/etc/app.conf]}\n",
	} {
		t.Run(name, func(t *testing.T) {
			// The folder is bounded: what earlier tests left there must not push out what is counted here.
			earlier, err := filepath.Glob(filepath.Join(shared.IncidentsDir(), "*.json"))
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range earlier {
				if err := os.Remove(file); err != nil {
					t.Fatal(err)
				}
			}
			began := time.Now()
			c := change(t, spec)
			const sessions, each = 4, 2000
			args := append([]string{"/bin/probe", "batch"}, slices.Repeat([]string{"r/etc/app.conf"}, each)...)
			var load []*node.Exec
			for range sessions {
				e, err := c.task.Exec(t.Context(), node.ExecOpts{Args: args})
				if err != nil {
					t.Fatal(err)
				}
				load = append(load, e)
			}
			for _, e := range load {
				if _, err := e.Wait(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			violations := c.status().Violations()
			if violations < sessions*each {
				t.Fatalf("%d violations of %d tries: this shows nothing", violations, sessions*each)
			}
			told, lost := uint64(0), uint64(0)
			for _, i := range incidentsOf(t, shared, c.task) {
				told++
				lost += i.Lost
			}
			// Those that nothing of this container came after.
			all, _, err := incident.List(shared.IncidentsDir(), incident.Filter{Since: began})
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range all {
				if i.Action == incident.Lost {
					lost += i.Lost
				}
			}
			t.Logf("%d violations: %d told of, %d counted as lost", violations, told, lost)
			if told+lost != violations {
				t.Errorf("%d violations were passed over in silence", int64(violations-told-lost))
			}
		})
	}
}
