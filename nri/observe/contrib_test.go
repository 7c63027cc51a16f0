package observe

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/stockade-dev/stockade/shim/incident"
)

// TestContrib: every metric that the dashboard and the rules name is one that a plugin exposes.
func TestContrib(t *testing.T) {
	o := newObserver(t)
	o.metrics.violation(&incident.Incident{Profile: "redis", Action: incident.Killed, Access: incident.Access{Kind: "exec"}})
	described := map[string]bool{}
	for line := range strings.Lines(scrape(t, o)) {
		if f := strings.Fields(line); len(f) > 3 && f[0] == "#" && f[1] == "TYPE" {
			described[f[2]] = true
			if f[3] == "histogram" {
				described[f[2]+"_bucket"] = true
			}
		}
	}
	// These have series only when there are containers.
	for _, d := range []string{containers.String(), decisions.String()} {
		described[regexp.MustCompile(`fqName: "([^"]+)"`).FindStringSubmatch(d)[1]] = true
	}
	name := regexp.MustCompile(`\bstockade_[a-z_]+`)
	for _, file := range []string{"alerts.yaml", "dashboard.json"} {
		data, err := os.ReadFile("../../contrib/observability/" + file)
		if err != nil {
			t.Fatal(err)
		}
		var parsed map[string]any
		if strings.HasSuffix(file, ".json") {
			err = json.Unmarshal(data, &parsed)
		} else {
			err = yaml.Unmarshal(data, &parsed)
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		found := name.FindAllString(string(data), -1)
		if len(found) < 10 {
			t.Errorf("%s names %d metrics", file, len(found))
		}
		for _, n := range found {
			if !described[n] {
				t.Errorf("%s: no metric %s", file, n)
			}
		}
	}
}
