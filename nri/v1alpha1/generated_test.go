package v1alpha1

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stockade-dev/stockade/integration/checkout"
)

// TestGenerated writes again what `make generate` writes, and compares.
func TestGenerated(t *testing.T) {
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	generator := filepath.Join(root, ".cache/bin/controller-gen")
	if _, err := os.Stat(generator); err != nil {
		generator = filepath.Join(t.TempDir(), "controller-gen")
		build := exec.CommandContext(t.Context(), "go", "build", "-o", generator, "sigs.k8s.io/controller-tools/cmd/controller-gen")
		build.Dir = filepath.Join(root, "integration/thirdparty/crd")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build the pinned controller-gen: %v\n%s", err, out)
		}
	}
	dir := t.TempDir()
	run := exec.CommandContext(t.Context(), generator, "object", "crd", "paths=./nri/v1alpha1", "output:dir="+dir)
	run.Dir = root
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("controller-gen: %v\n%s", err, out)
	}
	for fresh, kept := range map[string]string{
		"zz_generated.deepcopy.go":   "nri/v1alpha1/zz_generated.deepcopy.go",
		"stockade.dev_profiles.yaml": "contrib/kubernetes/crd/stockade.dev_profiles.yaml",
	} {
		want, err := os.ReadFile(filepath.Join(dir, fresh))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(root, kept)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the types say: make generate (%v)", kept, err)
		}
	}
}
