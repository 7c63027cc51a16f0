package shim

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stockade-dev/stockade/shim/config"
)

func TestReach(t *testing.T) {
	dir := t.TempDir()
	state := filepath.Join(dir, "run")
	store, link, late := filepath.Join(dir, "etc", "profiles.d"), filepath.Join(dir, "link"), filepath.Join(dir, "var", "cluster.d")
	for _, d := range []string{store, filepath.Join(store, "below"), filepath.Join(dir, "etc-evil"), filepath.Join(dir, "var")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(dir, "etc"), link); err != nil {
		t.Fatal(err)
	}
	own := ownFolders(config.Config{Profiles: filepath.Join(link, "profiles.d"), Cluster: late, State: state})
	private := specs.LinuxNamespace{Type: specs.PIDNamespace}
	bind := func(source string, options ...string) []specs.Mount {
		return []specs.Mount{{Destination: "/data", Type: "bind", Source: source, Options: options}}
	}
	for _, tt := range []struct {
		name   string
		spaces []specs.LinuxNamespace
		mounts []specs.Mount
		want   string
	}{
		{"nothing shared", []specs.LinuxNamespace{{Type: specs.MountNamespace}, private}, nil, ""},
		{"no pid namespace", []specs.LinuxNamespace{{Type: specs.MountNamespace}}, nil, "pid namespace"},
		{"the host's", []specs.LinuxNamespace{{Type: specs.PIDNamespace, Path: "/proc/self/ns/pid"}}, nil, "pid namespace"},
		{"another", []specs.LinuxNamespace{{Type: specs.PIDNamespace, Path: "/proc/self/ns/net"}}, nil, ""},
		{"gone", []specs.LinuxNamespace{{Type: specs.PIDNamespace, Path: filepath.Join(dir, "none")}}, nil, "pid namespace"},
		{"the store", nil, bind(store, "rbind", "rw"), store},
		{"below it", nil, bind(filepath.Join(store, "below"), "bind"), store},
		{"above it", nil, bind(dir, "rbind"), store},
		{"the host's root", nil, bind("/", "rbind"), "/"},
		{"through a link", nil, bind(filepath.Join(link, "profiles.d"), "rbind"), store},
		{"what is not there yet", nil, bind(filepath.Join(dir, "var"), "rbind"), late},
		{"no type", nil, []specs.Mount{{Destination: "/data", Source: store, Options: []string{"rbind"}}}, store},
		{"read-only", nil, bind(store, "bind", "ro"), ""},
		{"read-only, all of it", nil, bind(store, "rbind", "rro"), ""},
		{"read-only but for what is mounted below", nil, bind(store, "rbind", "ro"), store},
		{"read-only, and then not", nil, bind(store, "bind", "ro", "rw"), store},
		{"sockets, read-only", nil, bind(dir, "rbind", "rro"), state},
		{"a neighbour", nil, bind(filepath.Join(dir, "etc-evil"), "rbind"), ""},
		{"no bind", nil, []specs.Mount{{Destination: "/run", Type: "tmpfs", Source: "tmpfs"}}, ""},
	} {
		if tt.spaces == nil {
			tt.spaces = []specs.LinuxNamespace{private}
		}
		got := reach(&specs.Spec{Mounts: tt.mounts, Linux: &specs.Linux{Namespaces: tt.spaces}}, own, state)
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
