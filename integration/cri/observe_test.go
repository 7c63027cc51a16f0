package cri

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stockade-dev/stockade/shim/incident"
)

// freeAddress is one that nobody listens at just now.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func get(url string) (string, error) {
	resp, err := http.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.Status + "\n" + string(data), err
}

// awaitText waits until what is read says all that is wanted.
func awaitText(t *testing.T, read func() (string, error), wanted ...string) {
	t.Helper()
	var text string
	var err error
	missing := ""
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		text, err = read()
		missing = ""
		for _, w := range wanted {
			if !strings.Contains(text, w) {
				missing = w
			}
		}
		if err == nil && missing == "" {
			return
		}
	}
	t.Errorf("lacks %s, %v:\n%s", missing, err, text)
}

// newest is the ID of a container's last incident.
func newest(t *testing.T, container string) string {
	t.Helper()
	found, _, err := incident.List(shared.node.IncidentsDir(), incident.Filter{Container: container})
	if err != nil || len(found) == 0 {
		t.Fatalf("no incident: %v", err)
	}
	return found[0].ID
}

// TestMetrics kills a container and scrapes: over the event bus, and, with a plugin that has none or was away, from the
// incident folder.
func TestMetrics(t *testing.T) {
	incidents := func(id string) string {
		t.Helper()
		newest(t, id) // there is one
		found, _, err := incident.List(shared.node.IncidentsDir(), incident.Filter{Container: id})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(len(found))
	}
	for name, socket := range map[string]string{"bus": shared.node.Address(), "folder": ""} {
		t.Run(name, func(t *testing.T) {
			address := freeAddress(t)
			lines := filepath.Join(t.TempDir(), "violations.json")
			config := fmt.Sprintf("metrics: %s\ncontainerd: %q\njsonLog: %s\n", address, socket, lines)
			plugin := shared.plugin(t, config)
			metrics := func() (string, error) { return get("http://" + address + "/metrics") }
			up := 0
			if socket != "" {
				up = 1
			}
			awaitText(t, metrics, fmt.Sprintf("stockade_event_bus_connected %d\n", up), "stockade_plugin_connected 1\n")
			p := shared.pod(t, podSpec{})
			p.mustRun(t, "init", sleeps...)
			awaitText(t, metrics, `stockade_containers{mode="enforce",profile="init"} 1`, `stockade_decisions_total{action="allow",kind="exec"}`,
				"stockade_answer_duration_seconds_count", "stockade_shims 1\n", "stockade_shims_silent 0\n")
			c := shared.pod(t, podSpec{}).mustRun(t, "main", deviates...)
			c.killed(t, otherRan)
			n := incidents(c.id)
			awaitText(t, metrics, `stockade_violations_total{action="killed",kind="exec",profile="main"} `+n+"\n",
				`stockade_plugin_judgements_total{action="deliver"}`, "stockade_profiles_bad 0\n")
			shared.pod(t, podSpec{annotations: map[string]string{"stockade.dev/selection": "x"}}).refused(t, "selection", "main", deviates...)
			awaitText(t, metrics, `stockade_plugin_judgements_total{action="refuse"} 1`)
			awaitText(t, func() (string, error) { return get("http://" + address + "/readyz") }, "200 OK")
			awaitText(t, func() (string, error) {
				data, err := os.ReadFile(lines)
				return string(data), err
			}, `"class_uid":2004`, c.id, "/bin/other")

			kept := func() (string, error) {
				data, err := os.ReadFile(filepath.Join(shared.node.IncidentsDir(), ".told"))
				return string(data), err
			}
			awaitText(t, kept, newest(t, c.id))

			// What happens while it is away is told when it is back, once.
			if err := plugin.Stop(); err != nil {
				t.Fatal(err)
			}
			away := shared.pod(t, podSpec{}).mustRun(t, "main", deviates...)
			away.killed(t, otherRan)
			shared.plugin(t, config)
			awaitText(t, metrics, `stockade_violations_total{action="killed",kind="exec",profile="main"} `+incidents(away.id)+"\n")
			awaitText(t, kept, newest(t, away.id))
		})
	}
}
