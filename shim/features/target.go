package features

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/shim/record"
)

// targetFile is in the node's state folder, which is empty after a boot: so is what is known of the kernel.
const targetFile = "target"

// targetText is the file. A word that a build does not know means Unknown.
type targetText struct {
	Kernel        string `json:"kernel"`
	Arch          string `json:"arch"`
	Fanotify      string `json:"fanotify"`
	FanotifyStack string `json:"fanotifyStack"`
	SeccompNotify string `json:"seccompNotify"`
	MountSeal     string `json:"mountSeal"`
	AppArmor      string `json:"appArmor"`
	CgroupBPF     string `json:"cgroupBPF"`
	CgroupV2      string `json:"cgroupV2"`
}

// SaveTarget keeps what a shim has found out about the node in the state folder, for those who have not the rights to
// find out themselves. Nothing is decided by it: each shim asks the kernel.
func SaveTarget(state string, t profiles.Target) error {
	if old, err := LoadTarget(state); err == nil && old == t {
		return nil
	}
	if err := os.MkdirAll(state, 0o700); err != nil {
		return err
	}
	return record.Write(filepath.Join(state, targetFile), targetText{
		t.Kernel, t.Arch, t.Fanotify.String(), t.FanotifyStack.String(), t.SeccompNotify.String(), t.MountSeal.String(),
		t.AppArmor.String(), t.CgroupBPF.String(), t.CgroupV2.String(),
	})
}

// LoadTarget reads what the last shim that started has found. errors.Is(err, fs.ErrNotExist) if none has since the node
// booted.
func LoadTarget(state string) (profiles.Target, error) {
	file := filepath.Join(state, targetFile)
	var t targetText
	if err := record.Read(file, &t); err != nil {
		return profiles.Target{}, fmt.Errorf("%s: %w", file, err)
	}
	return profiles.Target{
		Kernel: t.Kernel, Arch: t.Arch, Fanotify: support(t.Fanotify), FanotifyStack: support(t.FanotifyStack),
		SeccompNotify: support(t.SeccompNotify), MountSeal: support(t.MountSeal), AppArmor: support(t.AppArmor),
		CgroupBPF: support(t.CgroupBPF), CgroupV2: support(t.CgroupV2),
	}, nil
}

func support(word string) profiles.Support {
	for _, s := range []profiles.Support{profiles.No, profiles.Yes} {
		if s.String() == word {
			return s
		}
	}
	return profiles.Unknown
}
