package features

import (
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/stockade-dev/stockade/profiles"
)

// Check is the answer to one question about the node.
type Check struct {
	Name   string           `json:"name"`
	Has    profiles.Support `json:"-"`
	Detail string           `json:"detail,omitempty"` // what was seen
	Fix    string           `json:"fix,omitempty"`    // what to do when it is not yes
	// Needed: enforce mode cannot do without.
	Needed bool `json:"needed"`
}

// Kernel is what [Probe] found.
type Kernel struct {
	Target profiles.Target
	Checks []Check // in the order in which doctor prints them
}

// answer is a probe's result before it has a name.
type answer struct {
	has    profiles.Support
	detail string
}

func yes(detail string) answer     { return answer{profiles.Yes, detail} }
func no(detail string) answer      { return answer{profiles.No, detail} }
func unknown(detail string) answer { return answer{profiles.Unknown, detail} }

// Probe asks the kernel, by doing, what it can. It never fails: what could not
// be found out is Unknown, with the reason.
func Probe() Kernel {
	release := kernelRelease()
	events, stack := fanotifyWorks()
	cgroups := cgroupMode()
	k := Kernel{Target: profiles.Target{Kernel: release, Arch: runtime.GOARCH}}
	add := func(dst *profiles.Support, name string, needed bool, a answer, fix string) {
		if dst != nil {
			*dst = a.has
		}
		if a.has == profiles.Yes {
			fix = ""
		}
		k.Checks = append(k.Checks, Check{Name: name, Has: a.has, Detail: a.detail, Fix: fix, Needed: needed})
	}
	t := &k.Target
	add(&t.Fanotify, "fanotify permission events", true, events,
		"Linux 6.0 or newer with CONFIG_FANOTIFY_ACCESS_PERMISSIONS=y; run as root in the host's namespaces")
	add(&t.FanotifyStack, "kernel stack of a blocked thread", false, stack,
		"CONFIG_STACKTRACE=y and CAP_SYS_ADMIN; without it, loaders and script interpreters need exec rules of their own")
	add(&t.SeccompNotify, "seccomp user notification", true, seccompNotify(), "Linux 5.7 or newer with CONFIG_SECCOMP_FILTER=y")
	add(&t.MountSeal, "mount seal", true, mountSeal(), "Linux 5.2 or newer; run as root in the host's namespaces")
	add(nil, "overlayfs", false, overlay(),
		"CONFIG_OVERLAY_FS; with another snapshotter the container's root shares its file system and is watched mount by mount")
	add(nil, "cgroups to kill", true, cgroups.kill, "a cgroup v2 with cgroup.kill (Linux 5.14) or the v1 freezer, mounted under /sys/fs/cgroup")
	add(&t.CgroupV2, "cgroup v2 only", false, cgroups.unified, "nothing: both versions serve")
	add(&t.AppArmor, "AppArmor", false, appArmor(), "where the kernel has AppArmor: apparmor=1 on its command line, securityfs mounted, the package apparmor installed; without it fanotify, sealed mounts and seccomp do its part")
	add(&t.CgroupBPF, "cgroup BPF", false, cgroupBPF(), "nothing yet: this build does not use it")
	return k
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	release, _, _ := strings.Cut(string(u.Release[:]), "\x00")
	return release
}
