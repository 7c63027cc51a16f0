package nri

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stockade-dev/stockade/profiles/selection"
	"github.com/stockade-dev/stockade/profiles/store"
)

func TestWatcher(t *testing.T) {
	dir := t.TempDir()
	profiles, key := filepath.Join(dir, "p"), filepath.Join(dir, "k", "selection.key")
	put := func(name, text string) {
		t.Helper()
		file := filepath.Join(profiles, name)
		if err := errors.Join(os.WriteFile(file+".new", []byte(text), 0o644), os.Rename(file+".new", file)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(profiles, 0o755); err != nil {
		t.Fatal(err)
	}
	put("a.yaml", profileDoc("a", "allow: {exec: [/a]}"))
	w := NewWatcher(store.Roots{Profiles: profiles}, key, "amd64", "6.18")
	w.Refresh() // the key has come since the first look
	first := w.View()
	if first.Err != nil || first.Set == nil || first.Key == nil {
		t.Fatalf("%+v", first)
	}
	if got := w.Refresh(); got != nil || w.View() != first {
		t.Errorf("nothing has changed: %v", got)
	}
	put("a.yaml", profileDoc("a", "allow: {exec: [/b]}")) // same size, same second
	put("b.yaml", profileDoc("b", ""))
	if got := w.Refresh(); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("changed: %v", got)
	}
	if err := os.Remove(profiles + "/b.yaml"); err != nil {
		t.Fatal(err)
	}
	if got := w.Refresh(); !slices.Equal(got, []string{"b"}) {
		t.Errorf("removed: %v", got)
	}
	if n, since := w.Profiles(); n != 1 || since.IsZero() {
		t.Errorf("%d profiles since %v", n, since)
	}

	// The last set that could be read stays, and it is said.
	if err := os.Chmod(profiles, 0o777); err != nil {
		t.Fatal(err)
	}
	w.Refresh()
	if v := w.View(); v.Err == nil || v.Set == nil || !strings.Contains(v.Err.Error(), "chmod go-w") {
		t.Errorf("an open folder: %+v", v)
	}
	if err := os.Chmod(profiles, 0o755); err != nil {
		t.Fatal(err)
	}
	w.Refresh()
	if v := w.View(); v.Err != nil {
		t.Errorf("mended: %v", v.Err)
	}
	put("bad.yaml", "nonsense: [")
	w.Refresh()
	if v := w.View(); v.Err == nil || v.Set == nil {
		t.Errorf("a bad file: %+v", v)
	} else if _, err := selection.Select(selection.Request{}, v.Set); err == nil || errors.Is(err, selection.ErrNoMatch) {
		t.Errorf("chosen beside a bad file: %v", err)
	}

	// A key that others could have read is not used any more, and one that is gone is made again.
	old := *w.View().Key
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	w.Refresh()
	if v := w.View(); v.Key != nil || v.Err == nil {
		t.Errorf("an open key: %+v", v)
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	w.Refresh()
	if v := w.View(); v.Key == nil || *v.Key == old {
		t.Errorf("a new key: %+v", v)
	}
}
