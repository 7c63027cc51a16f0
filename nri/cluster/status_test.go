package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/profiles/store"
)

// TestOwnSaysWhatDoesNotHoldHere: a profile that the node cannot hold is an error of the node; a part that only others
// extend need not hold by itself.
func TestOwnSaysWhatDoesNotHoldHere(t *testing.T) {
	dir := t.TempDir()
	folder, err := store.OpenClusterFolder(filepath.Join(dir, "cluster"))
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	if err := os.Mkdir(filepath.Join(dir, "profiles"), 0o700); err != nil {
		t.Fatal(err)
	}
	r := map[string]map[string]any{
		"whole": {"match": map[string]any{"containers": []any{"a"}}, "extends": []any{"part"}, "allowUnenforced": []any{"network"}},
		"part":  {"allow": map[string]any{"listen": []any{"tcp/80"}}},
		"alone": {"allow": map[string]any{"listen": []any{"tcp/80"}}},
		"well":  {"allow": map[string]any{"exec": []any{"/a"}}},
	}
	full := profiles.Target{Arch: "amd64", Fanotify: profiles.Yes, FanotifyStack: profiles.Yes, SeccompNotify: profiles.Yes, MountSeal: profiles.Yes}
	check := func(p *profiles.Profile) error {
		_, err := profiles.Compile(p, full)
		return err
	}
	for name, spec := range r {
		u := resourceOf(spec)
		u.SetName(name)
		p, err := parse(u)
		if err == nil {
			_, err = folder.Put(p)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	st, err := store.OpenRoots(store.Roots{Profiles: filepath.Join(dir, "profiles"), Cluster: filepath.Join(dir, "cluster")})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"whole": "", "part": "", "well": "", "alone": "does not hold on this node"} {
		u := resourceOf(r[name])
		u.SetName(name)
		got := own("n1", u, st, nil, check)
		if want == "" && got.Error != "" || !strings.Contains(got.Error, want) || got.Digest == "" || strings.Contains(got.Error, dir) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
