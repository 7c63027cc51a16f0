package node_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stockade-dev/stockade/integration/checkout"
	"github.com/stockade-dev/stockade/integration/node"
)

// What others change because of a node is put back from the node's record, which outlives the process that started it.
// What was there before is left alone.
func TestRestore(t *testing.T) {
	const sysctl = "/proc/sys/fs/inotify/max_queued_events"
	root, err := checkout.Root()
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(sysctl)
	if err != nil {
		t.Fatal(err)
	}
	others := t.TempDir()
	absent, present := filepath.Join(others, "absent"), filepath.Join(others, "present")
	if err := os.Mkdir(present, 0o700); err != nil {
		t.Fatal(err)
	}
	n, err := node.Start(t.Context(), node.Config{
		Dir: filepath.Join(t.TempDir(), "n"), Bin: []string{filepath.Join(root, "bin")},
		Restore: node.Restore{Sysctls: []string{sysctl}, Dirs: []string{absent, present}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{absent + "/a/file", present + "/file"} {
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Error(err)
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Error(err)
		}
	}
	if err := os.WriteFile(sysctl, []byte("16385\n"), 0); err != nil {
		t.Error(err)
	}
	if err := n.Detach(); err != nil {
		t.Error(err)
	}
	if err := node.Clean(n.Dir()); err != nil {
		t.Error(err)
	}
	if now, err := os.ReadFile(sysctl); err != nil || string(now) != string(before) {
		t.Errorf("%s is %q (%v), and was %q", sysctl, now, err, before)
	}
	if _, err := os.Stat(absent); !os.IsNotExist(err) {
		t.Errorf("%s is left (%v)", absent, err)
	}
	if _, err := os.Stat(present + "/file"); err != nil {
		t.Errorf("what was not the node's is gone: %v", err)
	}
}
