package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The node's label is a change too: nothing is asked of the API server before the admin has agreed. Here it cannot be
// reached, which is what a run says that tries.
func TestUninstallAsksBeforeItLabels(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	conf, root := node(t)
	manifest := filepath.Join(root, "var/lib/stockade/install.json")
	if err := os.MkdirAll(filepath.Dir(manifest), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(manifest, []byte(`{"format": 1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for agreed, labels := range map[string]bool{"": false, "--dry-run": false, "--yes": true} {
		args := []string{"uninstall", "--root", root, "--label-node", "n1", "--no-restart"}
		if agreed != "" {
			args = append(args, agreed)
		}
		r := stockade(t, conf, args...)
		if got := strings.Contains(r.err, "label node n1"); got != labels || r.code == exitOK {
			t.Errorf("%q: exit code %d, labels %v, want %v\n%s", agreed, r.code, got, labels, r.err)
		}
		if _, err := os.Stat(manifest); err != nil {
			t.Fatal(err)
		}
	}
}
