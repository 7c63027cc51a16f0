package nodekey

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stockade-dev/stockade/profiles/selection"
)

func TestAllMakersGetOneKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "selection.key")
	if _, err := Load(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("no key yet: %v", err)
	}
	keys := make([]*selection.Key, 16)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			key, err := LoadOrMake(path)
			if err != nil {
				t.Error(err)
				return
			}
			keys[i] = key
		})
	}
	wg.Wait()
	for _, key := range keys {
		if key == nil || *key != *keys[0] || *key == (selection.Key{}) {
			t.Fatal("the keys differ, or are empty")
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if left, err := filepath.Glob(filepath.Dir(path) + "/.selection*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestKeysThatOthersCouldKnowAreRefused(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(path string) error
		want   string
	}{
		{"readable by the group", func(p string) error { return os.Chmod(p, 0o640) }, "others than root can have read"},
		{"readable by all", func(p string) error { return os.Chmod(p, 0o604) }, "others than root can have read"},
		{"of a user", func(p string) error { return os.Chown(p, 1000, 0) }, "owner uid 1000"},
		{"short", func(p string) error { return os.Truncate(p, 31) }, "holds 31 bytes"},
		{"empty", func(p string) error { return os.Truncate(p, 0) }, "holds 0 bytes"},
		{"long", func(p string) error { return os.Truncate(p, 33) }, "holds 33 bytes"},
		{"a link", func(p string) error { return errors.Join(os.Rename(p, p+"x"), os.Symlink(p+"x", p)) }, "too many levels"},
		{"a folder", func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o600)) }, "not a regular file"},
		{"in an open folder", func(p string) error { return os.Chmod(filepath.Dir(p), 0o777) }, "written by others than root"},
		{"in a user's folder", func(p string) error { return os.Chown(filepath.Dir(p), 1000, 0) }, "written by others than root"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "selection.key")
			if err := os.Chmod(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if _, err := LoadOrMake(path); err != nil {
				t.Fatal(err)
			}
			if err := tc.change(path); err != nil {
				t.Fatal(err)
			}
			for _, load := range []func(string) (*selection.Key, error){Load, LoadOrMake} {
				if _, err := load(path); err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("%v, want %q", err, tc.want)
				}
			}
		})
	}
}
