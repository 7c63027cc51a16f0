package features

import (
	"errors"
	"io/fs"
	"os"
	"testing"

	"github.com/stockade-dev/stockade/profiles"
)

func TestTargetIsKept(t *testing.T) {
	dir := t.TempDir() + "/state"
	if _, err := LoadTarget(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none yet: %v", err)
	}
	for _, want := range []profiles.Target{
		{Kernel: "6.1.0", Arch: "amd64", Fanotify: profiles.Yes, FanotifyStack: profiles.No, AppArmor: profiles.Yes},
		{Kernel: "6.18", Arch: "arm64", SeccompNotify: profiles.Yes, MountSeal: profiles.No, CgroupBPF: profiles.Yes, CgroupV2: profiles.Yes},
	} {
		if err := SaveTarget(dir, want); err != nil {
			t.Fatal(err)
		}
		if got, err := LoadTarget(dir); err != nil || got != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
	if err := os.WriteFile(dir+"/"+targetFile, []byte(`{"fanotify":"perhaps"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := LoadTarget(dir); err != nil || got != (profiles.Target{}) {
		t.Errorf("words of another build: %+v, %v", got, err)
	}
}
