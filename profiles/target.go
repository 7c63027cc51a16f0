package profiles

import "slices"

// Target is what a node's kernel and runtime can do. Package shim/features finds out.
type Target struct {
	Kernel string // release, for example "6.18.5"
	Arch   string // in Go's words: "amd64", "arm64"

	Fanotify      Support // permission events, on opens and on execs, and ignore marks on directories
	FanotifyStack Support // /proc/TID/stack shows whether a blocked open is the kernel's own, in execve
	SeccompNotify Support // seccomp user notification
	MountSeal     Support // read-only root with writable binds
	AppArmor      Support
	CgroupBPF     Support
	CgroupV2      Support
}

// Guarantee is what a plan gives for one kind of access on its target.
type Guarantee struct {
	Kind  string // one of GuaranteeKinds
	Level Level
	By    string // the mechanism
	Note  string // what is not covered, or what would cover it
}

// The kinds of guarantees. They are finer than the kinds of access: one access may need two mechanisms, and some
// things that a container can do are no access of their own. Those that allowUnenforced names are "filesystem" for
// GuaranteeTree and the kinds' own names for the others.
const (
	GuaranteeExec       = "exec"
	GuaranteeRead       = "read"
	GuaranteeWrite      = "write"
	GuaranteeTree       = "create+unlink+rename"
	GuaranteeFileless   = "fileless"
	GuaranteeSyscall    = "syscall"
	GuaranteeCapability = "capability"
	GuaranteeNetwork    = "network"
	GuaranteeMounts     = "mounts"
)

// unenforceable are the words of allowUnenforced.
var unenforceable = []string{"filesystem", "fileless", UnenforcedHost, "mounts", "network"}

// UnenforcedHost is the word of allowUnenforced for containers that share so much of the host that they can reach Stockade
// itself: the host's processes, or the folders that Stockade believes. What a container shares is no matter of its
// profile, so it is looked at where the container is made.
const UnenforcedHost = "host"

// Accepts reports whether a word is in the profile's allowUnenforced.
func (p *Plan) Accepts(word string) bool { return slices.Contains(p.Unenforced, word) }
