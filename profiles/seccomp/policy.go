package seccomp

import "github.com/opencontainers/runtime-spec/specs-go"

// Policy is what one container may call, and on what it is going to run.
// The zero value of every field but Arch is usable.
type Policy struct {
	// Names declares syscalls by name, or whole sets: "@default",
	// "@runtime" (always implied) and those that [Sets] lists. A plain name
	// declares the syscall with any arguments; a set declares it with the
	// conditions that the set puts on them.
	Names []string

	// Except takes names out of the sets again. A name that also stands in
	// Names by itself stays declared.
	Except []string

	// Errno answers a syscall with an error (an errno number, for example 38
	// for ENOSYS) in place of notifying about it: for those that programs try
	// and can do without. It wins over sets, and a name that is also declared
	// by itself is an error.
	Errno map[string]uint

	// Arch is the node's architecture in Go's words: "amd64" or "arm64".
	Arch string

	// SubArches opens further entries of the same kernel: "x86" and "x32" on
	// amd64, "arm" on arm64. Through an entry that is not listed every
	// syscall kills the process.
	SubArches []string

	// Capabilities are the ones in the bounding set ("CAP_SYS_PTRACE"):
	// @default lets more through with some of them.
	Capabilities []string

	// Kernel is the node's kernel release ("6.1", "6.18.44-amd64"). Empty
	// means the oldest that has notifications, 5.7.
	Kernel string

	// NoNewPrivileges says that runc sets no_new_privs. Without it runc loads
	// the filter before it drops its privileges, and @runtime is larger.
	NoNewPrivileges bool

	// Watch has the listener told, before they are made, of declared calls
	// that change the file system by a path or execute one ([Watched] lists
	// them; opens only if they may write). The listener lets them go on: what they may
	// do is for other mechanisms to enforce, this one sees what those refuse
	// in silence. It needs a single entry: with SubArches it is off,
	// but with Monitor.
	Watch Watch

	// Monitor lets everything pass: what is not declared is told to the
	// listener as far as it can be, and what cannot be told (other entries,
	// arguments, numbers without a name) is allowed. All entries are open.
	// Errno holds here too: what a program falls back to is what it will do
	// when the profile is enforced, and is what should be seen.
	Monitor bool

	// ListenerPath is the unix socket that runc hands notification
	// descriptors to.
	ListenerPath string
}

// Action is what a filter does with a syscall.
type Action uint8

// The actions, the strictest first.
const (
	Kill   Action = iota // the process dies of SIGSYS; through a closed entry the thread
	Notify               // the thread waits for the listener's answer
	Errno                // the syscall fails with Verdict.Errno
	Allow
)

// Verdict is what a filter does with one call, and why.
type Verdict struct {
	Action Action
	Errno  uint   // for Action Errno only
	Why    string // the name or set that declared it, or what stands against it
}

// Call is one syscall as the kernel shows it to a filter.
type Call struct {
	// Arch is the entry it came through: "amd64", "x86", "x32", "arm64" or
	// "arm". Empty means the policy's own Arch.
	Arch string
	Name string
	Nr   int // looked at when Name is empty
	Args [6]uint64
}

func (a Action) String() string {
	switch a {
	case Kill:
		return "kill"
	case Notify:
		return "notify"
	case Errno:
		return "errno"
	case Allow:
		return "allow"
	}
	return "unknown"
}

// Build compiles p to what runc reads from config.json.
func Build(p Policy) (*specs.LinuxSeccomp, error) {
	f, err := Compile(p)
	if err != nil {
		return nil, err
	}
	return f.Spec(), nil
}
