package shim

import (
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stockade-dev/stockade/shim/incident"
)

func TestTerminationMessage(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	const before, after = "what was there before, and is longer than what comes, by far, as long as it may be\n", "stockade: killed:   is not declared (profile )\n"
	for _, tt := range []struct {
		name, destination, source string
		options                   []string
		action, want              string
	}{
		{"written", "/dev/termination-log", file, []string{"rbind", "rw"}, incident.Killed, after},
		{"not killed", "/dev/termination-log", file, nil, incident.Denied, before},
		{"read-only for the pod", "/dev/termination-log", file, []string{"rbind", "ro"}, incident.Killed, before},
		{"another mount", "/data", file, nil, incident.Killed, before},
		{"a link", "/dev/termination-log", link, nil, incident.Killed, before},
		{"a directory", "/dev/termination-log", dir, nil, incident.Killed, before},
	} {
		if err := os.WriteFile(file, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
		spec := &specs.Spec{Mounts: []specs.Mount{{Destination: tt.destination, Source: tt.source, Options: tt.options}}}
		f := &fence{termination: terminationLog(spec, &task{})}
		(&reporter{}).terminationMessage(f, &incident.Incident{Action: tt.action})
		if got, err := os.ReadFile(file); err != nil || string(got) != tt.want {
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
	}
}

// TestTerminationMessageOfAPod: a volume in the place of the termination log is a file of the host's that we must not
// write: the pod's author would have us do what the profile forbids the container.
func TestTerminationMessageOfAPod(t *testing.T) {
	dir := t.TempDir()
	own := filepath.Join(dir, "pods", "u-1", "containers", "app")
	for _, tt := range []struct {
		name, source, container, uid string
		written                      bool
	}{
		{"kubelet's", filepath.Join(own, "5d3f"), "app", "u-1", true},
		{"a file of the host", filepath.Join(dir, "shadow"), "app", "u-1", false},
		{"a volume of the pod", filepath.Join(dir, "pods", "u-1", "volumes", "app"), "app", "u-1", false},
		{"another container's", filepath.Join(own, "5d3f"), "other", "u-1", false},
		{"another pod's", filepath.Join(own, "5d3f"), "app", "u-2", false},
		{"no pod's", filepath.Join(dir, "pods", "containers", "x"), "", "", false},
	} {
		if err := os.MkdirAll(filepath.Dir(tt.source), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(tt.source, []byte("before"), 0o600); err != nil {
			t.Fatal(err)
		}
		spec := &specs.Spec{
			Mounts: []specs.Mount{{Destination: "/dev/termination-log", Source: tt.source, Options: []string{"rbind", "rw"}}},
			Annotations: map[string]string{
				"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.container-name": tt.container, "io.kubernetes.cri.sandbox-uid": tt.uid,
			},
		}
		about := describe("k8s.io", "id", spec)
		f := &fence{termination: terminationLog(spec, &about)}
		(&reporter{}).terminationMessage(f, &incident.Incident{Action: incident.Killed})
		if got, err := os.ReadFile(tt.source); err != nil || (string(got) != "before") != tt.written {
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
	}
}
