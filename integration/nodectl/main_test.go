package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stockade-dev/stockade/integration/checkout"
	"github.com/stockade-dev/stockade/integration/node"
)

// TestNodeWithPods: on a node as `make node` leaves it, with the plugin, a pod that is asked for through the CRI and gets
// its profile by its labels does what is declared, and nothing else.
func TestNodeWithPods(t *testing.T) {
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, ".work/nodectl")
	if err := up(t.Context(), root, dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := node.Clean(dir); err != nil {
			t.Error(err)
		}
	})
	// As README.md has it.
	profile := `{apiVersion: stockade.dev/v1alpha1, kind: Profile, metadata: {name: pod}, spec: {
  match: {podSelector: {matchLabels: {app: probe}}}, allow: {exec: [/bin/probe], read: ["@image"]}}}
`
	if err := os.WriteFile(filepath.Join(dir, "profiles.d/pod.yaml"), []byte(profile), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		what, label, says string
		command           []string
	}{
		{"declared", "app=probe", "exit code 0", []string{"/bin/probe", "cat", "/etc/app.conf"}},
		{"deviating", "app=probe", "exit code 137", []string{"/bin/probe", "exec", "/bin/hello"}},
		{"another label", "app=else", "refused by stockade", []string{"/bin/probe", "exec", "/bin/hello"}},
	} {
		said, err := shown(t, func() error { return pod(t.Context(), dir, append([]string{"probe", tc.label, "--"}, tc.command...)) })
		if err != nil {
			said += err.Error()
		}
		if !strings.Contains(said, tc.says) || strings.Contains(said, "hello ran") {
			t.Errorf("%s: it says %q, want %q", tc.what, said, tc.says)
		}
	}
}

// shown is what do writes.
func shown(t *testing.T, do func() error) (string, error) {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "shown"))
	if err != nil {
		t.Fatal(err)
	}
	out, errw := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = file, file
	err = do()
	os.Stdout, os.Stderr = out, errw
	data, readErr := os.ReadFile(file.Name())
	if readErr = errors.Join(readErr, file.Close()); readErr != nil {
		t.Fatal(readErr)
	}
	return string(data), err
}
