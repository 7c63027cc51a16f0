package cri

import (
	"testing"

	"github.com/stockade-dev/stockade/integration/node"
)

// TestOlderContainerd: what nodes with containerd 2.0 see, which starts shims in another way (as 2.1 and 2.2 do) and
// whose NRI knows less.
func TestOlderContainerd(t *testing.T) {
	newest := shared
	older, err := setUp(t.Context(), "cri-2.0", node.Config{Containerd: "containerd-2.0"})
	if err != nil {
		t.Fatal(err)
	}
	shared = older
	defer func() {
		shared = newest
		if err := older.node.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	t.Run("PodIsProtected", TestPodIsProtected)
	t.Run("ForgedSelection", TestForgedSelection)
	t.Run("ProfileUpdate", TestProfileUpdate)
	t.Run("PluginFails", TestPluginFails)
}
