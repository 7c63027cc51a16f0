package profiles

import (
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/stockade-dev/stockade/profiles/apparmor"
	"github.com/stockade-dev/stockade/profiles/pattern"
)

// Plan is a profile compiled for a target. It is immutable and may be shared.
type Plan struct {
	Name        string
	Digest      string // of the profile it was compiled from
	Mode        Mode   // ModeMonitor or ModeEnforce
	OnViolation Action // Kill, Deny or Freeze

	Guarantees []Guarantee // in a fixed order, one for each kind
	Notes      []string    // what an admin should know beside the guarantees

	// Seccomp is for the bundle; its ListenerPath is still to be set.
	Seccomp *specs.LinuxSeccomp

	// NoNewPrivileges says to set no_new_privs; false says to leave it as it is.
	NoNewPrivileges bool

	// Capabilities ("CAP_SETUID", sorted) are to be all that any of the container's sets holds. In monitor mode it is
	// what the profile declares and is not to be applied: the container must behave as it would without us.
	Capabilities []string

	// Seal says to make the root read-only but for WriteRoots.
	Seal bool

	// MountsLater says that the container may make mounts, or mount namespaces, after its start.
	MountsLater bool

	// Unenforced are the words of allowUnenforced: what the admin accepts.
	Unenforced []string

	// AppArmor is what to load for the container, nil where the node has none. Its Mode, ABI and Interpreters are for
	// who loads it to complete. Gaps are what its text cannot say, and what other mechanisms therefore hold.
	AppArmor *apparmor.Policy
	Gaps     []apparmor.Gap

	exec, read, write table
	syscalls          map[string]*Rule // that the filter lets pass with any arguments
	conditional       map[string]*Rule // that it lets pass with some
	watched           map[string]bool  // declared calls that the filter tells of all the same
	capabilities      map[string]*Rule
	network           []networkRule
	hashed            map[string]bool // paths of exec rules with a digest
	roots             []WriteRoot
	armor             *armor // nil: no AppArmor
}

// Subject is who tries.
type Subject struct {
	Exe         string // container path of the process's current executable; "" if there is none
	Script      string // container path of the #! script that the process runs, its executable being the interpreter; "" if none
	UID         uint32 // real
	Session     bool   // the process belongs to an exec session
	SessionRoot bool   // it is about to become the session's first program
}

// Access is one thing a process tries.
type Access struct {
	Kind        Kind
	Path        string // exec, read, write: container path of the opened file
	Name        string // syscall or capability; listen, connect: the address, as in tcp/10.0.0.1:6379
	Subject     Subject
	Image       bool   // the file is one of the image's, unchanged since
	Interpreter bool   // exec: opened by the kernel as interpreter of an admitted program
	SHA256      string // exec: hex; needed only if Plan.NeedsHash(Path)
	Notified    bool   // syscall: the kernel's filter has refused it already, whatever is declared by its name
}

// Verdict is what is to be done about an access, and why.
type Verdict struct {
	Action Action
	Rule   *Rule // what allowed it, what denied it, or what nearly allowed it; nil: nothing speaks of it
	Reason Reason
}

// Allowed reports whether the access is to be let pass.
func (v Verdict) Allowed() bool { return v.Action == Allow || v.Action == Report }

// Cover says what every subject may do with every file of a directory.
type Cover uint8

// The covers, weakest first.
const (
	CoverNone  Cover = iota
	CoverImage       // those that are unchanged files of the image may be read
	CoverRead        // all may be read
	CoverWrite       // all may be read and written
)

var coverNames = [...]string{"none", "image", "read", "write"}

func (c Cover) String() string { return coverNames[min(int(c), len(coverNames)-1)] }

// WriteRoot is where writing is declared.
type WriteRoot struct {
	Path    string // Exact: the declared path itself; else the longest directory which the pattern names literally
	Exact   bool
	Pattern string // of the first rule that has this root
}

// WriteRoots returns where writing is declared, each place once, parents first.
func (p *Plan) WriteRoots() []WriteRoot { return append([]WriteRoot(nil), p.roots...) }

// NeedsHash reports whether a rule asks for the digest of the file at this path.
func (p *Plan) NeedsHash(path string) bool { return p.hashed[path] }

// CoverDir says what all subjects may do with all direct children of dir. It is never more than what Decide allows.
func (p *Plan) CoverDir(dir string) Cover {
	return p.cover(dir, (*pattern.Pattern).CoversChildren, (*pattern.Pattern).CouldMatchChild)
}

// CoverTree says what all subjects may do with everything strictly below dir. It is never more than what Decide allows.
func (p *Plan) CoverTree(dir string) Cover {
	return p.cover(dir, (*pattern.Pattern).CoversTree, (*pattern.Pattern).CouldMatchBelow)
}

func (p *Plan) cover(dir string, covers, couldMatch func(*pattern.Pattern, string) bool) Cover {
	any := func(list []*pattern.Pattern, test func(*pattern.Pattern, string) bool) bool {
		for _, pat := range list {
			if test(pat, dir) {
				return true
			}
		}
		return false
	}
	switch {
	case any(p.read.holes, couldMatch):
		return CoverNone
	case any(p.write.wide, covers) && !any(p.write.holes, couldMatch):
		return CoverWrite
	case any(p.read.wide, covers):
		return CoverRead
	case p.read.imageForAll:
		return CoverImage
	}
	return CoverNone
}

// CoverPath says what all subjects may do with the file at path itself. It is never more than what Decide allows.
func (p *Plan) CoverPath(path string) Cover {
	switch {
	case p.read.denies(path):
		return CoverNone
	case p.write.free(path) && !p.write.denies(path):
		return CoverWrite
	case p.read.free(path):
		return CoverRead
	case p.read.imageForAll:
		return CoverImage
	}
	return CoverNone
}

// Watches reports whether the filter tells of this declared syscall before it is made, so that what the sealed mounts
// would refuse in silence can be seen. The call itself is allowed.
func (p *Plan) Watches(syscall string) bool { return p.watched[syscall] && p.syscalls[syscall] != nil }

// Refuse is the verdict on an access that no rule can allow, for a reason that lies in how it was made.
func (p *Plan) Refuse(why Reason) Verdict { return Verdict{Action: p.violation(), Reason: why} }

// ExecBelow reports whether a rule could let dir itself or something below it be executed, by anyone. With an @image
// rule it is true for every dir, since any may hold files of the image; for a mount that holds none ask ExecNamedBelow.
func (p *Plan) ExecBelow(dir string) bool {
	return len(p.exec.image) > 0 || p.ExecNamedBelow(dir)
}

// ExecNamedBelow is ExecBelow without regard to @image.
func (p *Plan) ExecNamedBelow(dir string) bool {
	return p.exec.reaches(dir)
}
