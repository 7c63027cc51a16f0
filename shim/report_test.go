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
		f := &fence{termination: terminationLog(spec)}
		(&reporter{}).terminationMessage(f, &incident.Incident{Action: tt.action})
		if got, err := os.ReadFile(file); err != nil || string(got) != tt.want {
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
	}
}
