//go:build kubernetes

package kubernetes_test

import (
	"context"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stockade-dev/stockade/integration/checkout"
)

// The heading of the part of the README that is held to what it says.
const walk = "#### From an empty cluster to an enforced pod\n"

// TestReadme does what the README tells to do, as it stands there, and expects what it shows. Blocks in which commands
// follow a "$ " show what these write; "..." stands for any text. The others are scripts. The first one, which starts
// the cluster, is left out: this test's own is up.
func TestReadme(t *testing.T) {
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(string(data), walk)
	if !found {
		t.Fatalf("README.md has no %q", walk)
	}
	text, _, _ = strings.Cut(text, "\n#")
	blocks := strings.Split(text, "```")
	if len(blocks) < 6 || !strings.Contains(blocks[1], "make cluster") {
		t.Fatalf("%d parts, the first block is %q", len(blocks), blocks[1])
	}
	startPlugin(t, "")
	sh := readmeShell(t, root)
	if out, err := sh(t.Context(), "kubectl delete runtimeclass stockade"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() {
		sh(context.Background(), "kubectl delete --now pod redis intruder; rm .cluster/profiles.d/redis.yaml; kubectl apply -f contrib/kubernetes/runtimeclass.yaml")
	})
	for i := 3; i < len(blocks); i += 2 {
		_, block, _ := strings.Cut(blocks[i], "\n") // the first line names the language
		if !strings.HasPrefix(block, "$ ") {
			if out, err := sh(t.Context(), block); err != nil {
				t.Fatalf("%v\n%s%s", err, block, out)
			}
			continue
		}
		for _, part := range strings.Split("\n"+block, "\n$ ")[1:] {
			command, want, _ := strings.Cut(part, "\n")
			// Whether it succeeds is to be seen in what it writes.
			if out, _ := sh(t.Context(), command); !shows(out, want) {
				t.Fatalf("$ %s\nshould write:\n%s\nbut writes:\n%s", command, want, out)
			}
		}
	}
}

// shows reports whether the lines of want are in out, in that order. How wide a table's columns are does not count.
func shows(out, want string) bool {
	var lines []string
	for line := range strings.Lines(strings.TrimSpace(want)) {
		words := strings.Fields(line)
		for i, w := range words {
			words[i] = strings.ReplaceAll(regexp.QuoteMeta(w), `\.\.\.`, ".*")
		}
		lines = append(lines, strings.Join(words, `\s+`))
	}
	return regexp.MustCompile(`(?s)` + strings.Join(lines, ".*")).MatchString(out)
}

// readmeShell runs text in a folder that looks like the checkout after `make cluster`.
func readmeShell(t *testing.T, root string) func(context.Context, string) (string, error) {
	dir := t.TempDir()
	for name, to := range map[string]string{".cluster": shared.Node.Dir(), "contrib": filepath.Join(root, "contrib")} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return func(ctx context.Context, text string) (string, error) {
		cmd := osexec.CommandContext(ctx, "bash", "-euc", text)
		cmd.Dir = dir
		cmd.Env = append(shared.Environ(), fmt.Sprintf("HOME=%s", dir))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
}
