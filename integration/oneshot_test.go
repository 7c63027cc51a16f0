package integration_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stockade-dev/stockade/integration/node"
	"github.com/stockade-dev/stockade/integration/scenario"
)

// TestOneShot starts a hundred containers, one after the other, whose first act is undeclared: none is ever early enough.
func TestOneShot(t *testing.T) {
	all, err := scenario.Load("testdata/scenarios")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		if s.Name != "exec-undeclared" {
			continue
		}
		profile, err := s.ProfileYAML()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(shared.ProfilesDir(), s.Name+".yaml"), profile, 0o600); err != nil {
			t.Fatal(err)
		}
		for range 100 {
			o := observe(t, s, node.Stockade)
			if bad := s.Check(o); len(bad) > 0 {
				t.Fatalf("%s\n%s", strings.Join(bad, "\n"), o)
			}
		}
	}
}
