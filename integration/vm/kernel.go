package vm

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Kernel is one of Debian's, and what it is known to have.
type Kernel struct {
	Name    string // of the test: the version's first numbers, or "newest"
	Release string // how its uname -r begins; "" is not checked
	// On the oldest, each scenario runs under plain runc too, which takes almost as long again.
	oldest bool
	// realTime: its clock is this machine's. Linux 6.1 hangs in starting its second processor when QEMU counts
	// instructions, where processors take turns; here they run at once.
	realTime bool
	suites   []string
	target   string            // the suite that the kernel is to come from
	has      map[string]string // answer of each check of shim/features
}

// common is what every kernel here has, by the names that `stockade doctor` prints.
var common = map[string]string{
	"fanotify permission events":       "yes",
	"kernel stack of a blocked thread": "yes",
	"seccomp user notification":        "yes",
	"mount seal":                       "yes",
	"overlayfs":                        "yes",
	"cgroups to kill":                  "yes",
	"cgroup v2 only":                   "yes",
	"AppArmor":                         "yes",
	"cgroup BPF":                       "yes",
}

// Kernels lists the matrix: what the oldest supported Debian boots, what its backports and the current Debian boot, and
// the newest that the archive gives to either.
func Kernels() []Kernel {
	return []Kernel{
		{
			Name: "6.1", Release: "6.1.", oldest: true, realTime: true, target: "bookworm-security", has: common,
			suites: []string{"bookworm", "bookworm-updates", "bookworm-security"},
		},
		{
			Name: "6.12", Release: "6.12.", target: "bookworm-backports", has: common,
			suites: []string{"bookworm", "bookworm-backports"},
		},
		{
			Name: "newest", target: "trixie-backports", has: common,
			suites: []string{"trixie", "trixie-backports"},
		},
	}
}

// Differences compares the answers of shim/features in the guest with what the kernel is known to have. A check that the
// table does not know is a difference too: the table must say what a new probe has to find.
func (k Kernel) Differences(d Doctor) []string {
	var bad []string
	if !strings.HasPrefix(d.Kernel, k.Release) {
		bad = append(bad, fmt.Sprintf("the guest runs %q, want %s", d.Kernel, k.Release))
	}
	asked := map[string]bool{}
	for _, m := range d.Mechanisms {
		asked[m.Name] = true
		want, ok := k.has[m.Name]
		switch {
		case !ok:
			bad = append(bad, fmt.Sprintf("%s: %s (%s); integration/vm has no answer to compare it with", m.Name, m.Has, m.Detail))
		case m.Has != want:
			bad = append(bad, fmt.Sprintf("%s: %s (%s); this kernel is known for %q", m.Name, m.Has, m.Detail, want))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(k.has)) {
		if !asked[name] {
			bad = append(bad, name+": not asked")
		}
	}
	return bad
}

// Doctor is the part of `stockade doctor --json` that matters here.
type Doctor struct {
	Kernel     string
	Mechanisms []Mechanism
	Programs   []Mechanism
}

// Mechanism is the answer to one of doctor's checks.
type Mechanism struct{ Name, Has, Detail string }

// Excuses reports whether doctor, too, gives the reason of a skip: the answer to a check, or which Linux this is.
func (d Doctor) Excuses(reason string) bool {
	if strings.Contains(reason, "Linux "+d.Kernel+": ") {
		return true
	}
	return slices.ContainsFunc(append(slices.Clone(d.Mechanisms), d.Programs...), func(m Mechanism) bool {
		return strings.Contains(reason, m.Name+": "+m.Has)
	})
}
