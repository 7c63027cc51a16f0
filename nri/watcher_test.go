package nri

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

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

// TestWatcherTells: who runs may have an older profile than the first set has, and may have been refused by a set that
// was not whole.
func TestWatcherTells(t *testing.T) {
	profiles := t.TempDir()
	if err := os.Chmod(profiles, 0o755); err != nil {
		t.Fatal(err)
	}
	put := func(name, text string) {
		t.Helper()
		file := filepath.Join(profiles, name)
		if err := errors.Join(os.WriteFile(file+".new", []byte(text), 0o644), os.Rename(file+".new", file)); err != nil {
			t.Fatal(err)
		}
	}
	put("a.yaml", profileDoc("a", ""))
	put("bad.yaml", "nonsense: [")
	w := NewWatcher(store.Roots{Profiles: profiles}, filepath.Join(t.TempDir(), "selection.key"), "amd64", "6.18")
	told := make(chan []string, 16)
	w.OnChange = func(names []string) { told <- names }
	go w.Run(t.Context())
	expect := func(what string, want ...string) {
		t.Helper()
		select {
		case got := <-told:
			if !slices.Equal(got, want) {
				t.Errorf("%s: told of %q, want %q", what, got, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s: nobody was told", what)
		}
	}
	put("b.yaml", profileDoc("b", ""))
	expect("a set that is not whole is not told of, its changes are", "b")
	mend := func() {
		t.Helper()
		if err := os.Remove(filepath.Join(profiles, "bad.yaml")); err != nil {
			t.Fatal(err)
		}
	}
	mend()
	expect("usable for the first time")
	put("bad.yaml", "nonsense: [")
	for w.View().Err == nil {
		time.Sleep(10 * time.Millisecond)
	}
	mend()
	expect("usable again")
	put("a.yaml", profileDoc("a", "allow: {exec: [/a]}"))
	expect("a change", "a")

	w = NewWatcher(store.Roots{Profiles: profiles}, filepath.Join(t.TempDir(), "selection.key"), "amd64", "6.18")
	w.OnChange = func(names []string) { told <- names }
	go w.Run(t.Context())
	expect("the first set")
}
