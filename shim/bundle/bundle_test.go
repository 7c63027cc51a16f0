package bundle

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"syscall"
	"testing"

	"github.com/containerd/containerd/api/types"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func stat(t *testing.T, name string) *syscall.Stat_t {
	t.Helper()
	info, err := os.Lstat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t)
}

func TestReadWrite(t *testing.T) {
	dir := t.TempDir()
	want := newSpec(specs.Mount{Destination: "/x"})
	if err := Write(dir, want); err != nil {
		t.Fatal(err)
	}
	got, err := Read(dir)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, %v", got, err)
	}
	files, _ := os.ReadDir(dir)
	if len(files) != 1 || stat(t, filepath.Join(dir, Config)).Mode&0o777 != 0o600 {
		t.Errorf("files %v: want %s alone, for root alone", files, Config)
	}
	for _, bad := range []string{"", "{}", `{"process": {}, "root": {}}`, "[]"} {
		if err := os.WriteFile(filepath.Join(dir, Config), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(dir); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func TestApply(t *testing.T) {
	all := []string{"CAP_CHOWN", "CAP_SETUID", "CAP_SYS_ADMIN"}
	process := func() *specs.Spec {
		s := newSpec()
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all, Inheritable: all, Ambient: all}
		return s
	}
	rootfs := tree(t, "etc/")

	s := process()
	if err := Apply(s, compile(t, "{allow: {capabilities: [SETUID, NET_ADMIN]}}"), rootfs, "/run/s", "id"); err != nil {
		t.Fatal(err)
	}
	c := s.Process.Capabilities
	for name, set := range map[string][]string{
		"bounding": c.Bounding, "effective": c.Effective, "permitted": c.Permitted, "inheritable": c.Inheritable, "ambient": c.Ambient,
	} {
		if !slices.Equal(set, []string{"CAP_SETUID"}) {
			t.Errorf("%s: %q; what is declared is not given to who does not have it", name, set)
		}
	}
	if !s.Process.NoNewPrivileges || s.Linux.Seccomp.ListenerPath != "/run/s" || s.Linux.Seccomp.ListenerMetadata != "id" || !s.Root.Readonly {
		t.Errorf("not applied: %+v", s)
	}
	if len(all) != 3 || all[2] != "CAP_SYS_ADMIN" {
		t.Error("the specification's own list was changed in place")
	}

	s = process()
	if err := Apply(s, compile(t, "{mode: monitor}"), rootfs, "/run/s", "id"); err != nil {
		t.Fatal(err)
	}
	if s.Process.NoNewPrivileges || s.Root.Readonly || len(s.Process.Capabilities.Bounding) != 3 {
		t.Errorf("monitor mode changes what the container may do: %+v", s)
	}
}

// overlay mounts one, with two lower layers, and returns where and its upper folder.
func overlay(t *testing.T, lower, upper []string) (merged string, im *Image) {
	t.Helper()
	low, low2, up := tree(t, lower...), tree(t, "second"), tree(t, upper...)
	merged = t.TempDir()
	options := []string{"lowerdir=" + low + ":" + low2, "upperdir=" + up, "workdir=" + t.TempDir()}
	if err := unix.Mount("overlay", merged, "overlay", 0, options[0]+","+options[1]+","+options[2]); err != nil {
		t.Skipf("no overlay here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(merged, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	im, err := NewImage([]*types.Mount{{Type: "overlay", Options: options}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(im.Close)
	return merged, im
}

func TestImage(t *testing.T) {
	merged, im := overlay(t, []string{"a/x", "a/y", "a/moved", "a/removed", "a/replaced", "b/x", "c/x", "l -> a"}, []string{"b/new", "b/x"})
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(merged, name) }
	do(os.Chmod(at("a/y"), 0o600))
	do(os.Rename(at("a/moved"), at("a/elsewhere")))
	do(os.Remove(at("a/removed")))
	do(os.Remove(at("a/replaced")))
	do(os.WriteFile(at("a/replaced"), []byte("a/replaced"), 0o644))
	for name, want := range map[string]bool{
		"/a/x": true, "/second": true, "/c/x": true,
		"/a/y":     false, // its permissions were changed
		"/a/moved": false, "/a/elsewhere": false, "/a/removed": false, "/a/replaced": false,
		"/b/x": false, "/b/new": false,
		"/l/x":     false, // paths have no links
		"/nothing": false, "/a/x/under": false, "/../a/x": false,
	} {
		if got := im.Unchanged(name, true); got != want {
			t.Errorf("%s: unchanged %t, want %t", name, got, want)
		}
	}
	for dir, want := range map[string]bool{"/a": false, "/b": false, "/c": true} {
		if got := im.Untouched(dir, true); got != want {
			t.Errorf("%s: untouched %t, want %t", dir, got, want)
		}
	}
}

func TestImageWithoutLayers(t *testing.T) {
	im, err := NewImage([]*types.Mount{{Type: "bind", Source: "/x"}})
	if err != nil {
		t.Fatal(err)
	}
	defer im.Close()
	if !im.Unchanged("/x", true) || im.Unchanged("/x", false) || im.Untouched("/x", false) {
		t.Error("without layers a file is the image's where nothing can be written, and there alone")
	}
	if _, err := NewImage([]*types.Mount{{Type: "overlay", Options: []string{"lowerdir=/nowhere"}}}); err == nil {
		t.Error("a layer that is not there: no error")
	}
}
