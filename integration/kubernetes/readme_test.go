//go:build kubernetes

package kubernetes_test

import (
	"context"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stockade-dev/stockade/integration/checkout"
	"github.com/stockade-dev/stockade/integration/node"
)

// The heading of the part of the README that is held to what it says.
const walk = "#### From an empty cluster to an enforced pod\n"

// TestReadme does what the README tells to do, as it stands there, and expects what it shows: from `make cluster` on.
// Blocks in which commands follow a "$ " show what these write, sooner or later; "..." stands for any text. The others
// are scripts.
func TestReadme(t *testing.T) {
	root, err := checkout.Root()
	must(t, err)
	if _, up := node.Running(filepath.Join(root, ".cluster")); up {
		t.Fatal("a cluster runs in .cluster, where this test starts one: make cluster-down")
	}
	data, err := os.ReadFile(filepath.Join(root, "README.md"))
	must(t, err)
	_, text, found := strings.Cut(string(data), walk)
	if !found {
		t.Fatalf("README.md has no %q", walk)
	}
	text, _, _ = strings.Cut(text, "\n### ")
	blocks := strings.Split(text, "```")
	if len(blocks) < 12 {
		t.Fatalf("only %d parts", len(blocks))
	}
	t.Cleanup(func() {
		if out, err := readmeShell(context.Background(), root, "make cluster-down"); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	for i := 1; i < len(blocks); i += 2 {
		_, block, _ := strings.Cut(blocks[i], "\n") // the first line names the language
		if !strings.HasPrefix(block, "$ ") {
			if out, err := readmeShell(t.Context(), root, block); err != nil {
				t.Fatalf("%v\n%s%s\n%s", err, block, out, readmeState(root))
			}
			continue
		}
		for _, part := range strings.Split("\n"+block, "\n$ ")[1:] {
			command, want, _ := strings.Cut(part, "\n")
			out := ""
			for end := time.Now().Add(limit); !shows(out, want); time.Sleep(200 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("$ %s\nshould write:\n%s\nbut writes:\n%s\n%s", command, want, out, readmeState(root))
				}
				// Whether it succeeds is to be seen in what it writes.
				out, _ = readmeShell(t.Context(), root, command)
			}
		}
	}
}

// readmeState is what may explain a failure.
func readmeState(root string) string {
	out, _ := readmeShell(context.Background(), root, `kubectl get nodes,pods,daemonsets,profiles -A -o wide; kubectl describe node | grep -A9 ^Conditions
kubectl -n stockade-system logs stockade-node --all-containers --tail=20; tail -n 20 .cluster/containerd.log .cluster/daemons.log`)
	return out
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

// readmeShell runs text in the checkout, in a shell like the one in which ". .cluster/env" was said.
func readmeShell(ctx context.Context, root, text string) (string, error) {
	if _, err := os.Stat(filepath.Join(root, ".cluster/env")); err == nil && !strings.HasPrefix(text, "make ") {
		text = ". .cluster/env\n" + text
	}
	cmd := osexec.CommandContext(ctx, "bash", "-euc", text)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=")
	out, err := cmd.CombinedOutput()
	return string(out), err
}
