package contrib

import (
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// TestAlertsSeeTheFirst: increase() of a series that begins with 1 is nothing, so each rule that asks whether a counter grew
// also asks whether it is new. (That every metric is there is for the tests of nri/observe.)
func TestAlertsSeeTheFirst(t *testing.T) {
	var file struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	if err := yaml.Unmarshal(read(t, "observability/alerts.yaml"), &file); err != nil {
		t.Fatal(err)
	}
	grows := regexp.MustCompile(`increase\(([a-z_]+)\[([0-9a-z]+)\]\) > 0`)
	found := 0
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			expr := strings.Join(strings.Fields(r.Expr), " ")
			all := grows.FindAllStringSubmatch(expr, -1)
			if n := strings.Count(expr, "increase("); n != len(all) {
				t.Errorf("%s: %d of %d increase() are compared with 0, each by itself", r.Alert, len(all), n)
			}
			for _, m := range all {
				found++
				if want := "(" + m[1] + " > 0 unless " + m[1] + " offset " + m[2] + ")"; !strings.Contains(expr, want) {
					t.Errorf("%s lacks or %s", r.Alert, want)
				}
			}
		}
	}
	if found < 5 {
		t.Errorf("only %d counters", found)
	}
}
