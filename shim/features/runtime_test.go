package features

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stockade-dev/stockade/profiles"
)

// fakeRunc is a program that answers as some runc does.
func fakeRunc(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "runc")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

const newRunc = `case $1 in
--version) echo 'runc version 1.5.2'; echo 'spec: 1.3.0'; echo 'libseccomp: 2.5.4';;
features) echo '{"linux":{"seccomp":{"enabled":true,"actions":["SCMP_ACT_ALLOW","SCMP_ACT_NOTIFY"]}}}';;
esac`

func TestRunc(t *testing.T) {
	for _, tc := range []struct {
		name, script string
		has          profiles.Support
		detail       string
	}{
		{"new", newRunc, profiles.Yes, "version 1.5.2, libseccomp 2.5.4"},
		{"old libseccomp", strings.ReplaceAll(newRunc, "2.5.4", "2.4.9"), profiles.No, "libseccomp 2.4.9"},
		{"libseccomp 3", strings.ReplaceAll(newRunc, "2.5.4", "3.0.0"), profiles.Yes, "libseccomp 3.0.0"},
		{"no notify", strings.ReplaceAll(newRunc, "SCMP_ACT_NOTIFY", "SCMP_ACT_LOG"), profiles.No, "without seccomp notifications"},
		{"without seccomp", strings.ReplaceAll(newRunc, `"enabled":true`, `"enabled":false`), profiles.No, "without seccomp"},
		{"before features", strings.ReplaceAll(newRunc, "features)", "other)") + "\n[ $1 = --version ]", profiles.Yes, "1.5.2"},
		{"says no libseccomp", "echo runc version 1.0", profiles.Unknown, "libseccomp unknown"},
		{"fails", "echo no >&2; exit 3", profiles.Unknown, "exit status 3: no"},
		{"is no runc", "echo hello", profiles.Unknown, "hello"},
		{"hangs", "exec sleep 60", profiles.Unknown, "no answer within"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			// Not in parallel: a child forked elsewhere meanwhile would hold the script open for writing (ETXTBSY).
			c := runc(context.Background(), fakeRunc(t, tc.script))
			if c.Has != tc.has || !strings.Contains(c.Detail, tc.detail) || (c.Fix == "") != (tc.has == profiles.Yes) {
				t.Errorf("%s %q, fix %q; want %s with %q", c.Has, c.Detail, c.Fix, tc.has, tc.detail)
			}
		})
	}
	if c := runc(context.Background(), "/nowhere/runc"); c.Has != profiles.No || c.Fix == "" {
		t.Errorf("no runc: %+v", c)
	}
}

func TestContainerdConfig(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       containerd
	}{
		{"version 3", `version = 3
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = '/usr/bin/runc'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.stockade]
  runtime_type = 'io.containerd.stockade.v1' # ours
  pod_annotations = ["stockade.dev/*"]
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.stockade.options]
  BinaryName = "/opt/runc"
`, containerd{Handler: "stockade", BinaryName: "/opt/runc"}},
		{"version 2", "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.\"fenced\"]\nruntime_type = \"io.containerd.stockade.v1\"\n", containerd{Handler: "fenced"}},
		{"inline", "plugins = {x = {containerd = {runtimes = {s = {runtime_type = 'io.containerd.stockade.v1'}}}}}", containerd{Handler: "s"}},
		{"commented out", "[plugins.x.containerd.runtimes.a]\n# runtime_type = \"io.containerd.stockade.v1\"\n", containerd{}},
		{"other table", "[plugins.x.other.a]\nruntime_type = \"io.containerd.stockade.v1\"\n", containerd{}},
		{"empty", "", containerd{}},
	} {
		file := filepath.Join(t.TempDir(), "config.toml")
		if err := os.WriteFile(file, []byte(tc.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if tc.want.Handler != "" {
			tc.want.file = file
		}
		if got, err := scanContainerd(file); err != nil || got != tc.want {
			t.Errorf("%s: %+v, %v, want %+v", tc.name, got, err, tc.want)
		}
	}
	path := filepath.Join(t.TempDir(), "config.toml")
	if _, c := containerdConfig(path); c.Has != profiles.No || !strings.Contains(c.Detail, "does not exist") {
		t.Errorf("missing: %+v", c)
	}
	if err := os.WriteFile(path, []byte("[plugins.a.containerd.runtimes.s]\nruntime_type = \"io.containerd.stockade.v1\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, c := containerdConfig(path); c.Has != profiles.Yes || c.Fix != "" || c.Needed {
		t.Errorf("there: %+v", c)
	}
}

func TestContainerdConfigImports(t *testing.T) {
	dir := t.TempDir()
	main, dropIn := filepath.Join(dir, "config.toml"), filepath.Join(dir, "conf.d", "stockade.toml")
	err := errors.Join(os.Mkdir(filepath.Dir(dropIn), 0o700),
		os.WriteFile(main, []byte("version = 3\nimports = ['conf.d/*.toml']\n"), 0o600),
		os.WriteFile(dropIn, []byte("[plugins.a.containerd.runtimes.s]\nruntime_type = 'io.containerd.stockade.v1'\n"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := scanContainerd(main); err != nil || got != (containerd{Handler: "s", file: dropIn}) {
		t.Errorf("%+v, %v", got, err)
	}
	if err := os.WriteFile(dropIn, []byte("[plugins"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, c := containerdConfig(main); c.Has != profiles.Unknown || !strings.Contains(c.Detail, dropIn) {
		t.Errorf("not TOML: %+v", c)
	}
}

func TestRuntimeUsesTheRuncOfContainerd(t *testing.T) {
	path := fakeRunc(t, newRunc)
	conf := filepath.Join(t.TempDir(), "config.toml")
	text := "[plugins.a.containerd.runtimes.s]\nruntime_type = \"io.containerd.stockade.v1\"\n[plugins.a.containerd.runtimes.s.options]\nBinaryName = \"" + path + "\"\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got := Runtime(context.Background(), Paths{Shim: path, Guard: "/nowhere", Containerd: conf})
	want := []profiles.Support{profiles.Yes, profiles.Yes, profiles.No, profiles.Yes}
	for i, c := range got {
		if c.Has != want[i] {
			t.Errorf("%+v; want %s", c, want[i])
		}
	}
}
