package cluster

import (
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	"k8s.io/apimachinery/pkg/types"

	"github.com/stockade-dev/stockade/profiles/store"
)

// TestADeletedResourceStandsInForNone: what was deleted while nobody watched, and made again under its name, is known by
// its uid.
func TestADeletedResourceStandsInForNone(t *testing.T) {
	dir := t.TempDir()
	folder, err := store.OpenClusterFolder(filepath.Join(dir, "cluster"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { folder.Close() })
	log := logrus.New()
	log.SetOutput(io.Discard)
	cfg := Config{Log: log}
	w := &Watcher{cfg: cfg, folder: folder, handled: map[string]string{}, reporter: newReporter(cfg, nil, nil)}
	write := func(uid, path string) {
		u := resourceOf(map[string]any{"allow": map[string]any{"read": []any{path}}})
		u.SetUID(types.UID(uid))
		if err := w.write("x", u); err != nil {
			t.Fatal(err)
		}
	}
	reads := func() string {
		p := folder.Get("x")
		if p == nil {
			return ""
		}
		return p.Allow.Read[0].Text
	}
	write("first", "/loose/**")
	if write("first", "bad"); reads() != "/loose/**" {
		t.Errorf("the last good version is gone: %q", reads())
	}
	if write("second", "bad"); reads() != "" {
		t.Errorf("what was deleted stands in for what was made since: %q", reads())
	}
	if write("second", "/strict"); reads() != "/strict" {
		t.Errorf("the good version is not there: %q", reads())
	}
	if first := folder.About("x"); !strings.Contains(first, "uid second") {
		t.Error(first)
	}
}
