package profiles

// Kind is a kind of access.
type Kind uint8

// The kinds.
const (
	_ Kind = iota
	Exec
	Read
	Write
	Syscall
	Capability
	Listen
	Connect
)

var kindNames = [...]string{"", "exec", "read", "write", "syscall", "capability", "listen", "connect"}

func (k Kind) String() string { return name(kindNames[:], int(k)) }

// field is the kind's key in a profile.
func (k Kind) field() string {
	switch k {
	case Syscall:
		return "syscalls"
	case Capability:
		return "capabilities"
	default:
		return k.String()
	}
}

// kinds are all kinds, in the order of the canonical form.
var kinds = [...]Kind{Exec, Read, Write, Syscall, Capability, Listen, Connect}

// Action is what is to be done about an access. The zero value is no action: it must not be taken for Allow.
type Action uint8

// The actions.
const (
	_      Action = iota
	Allow         // let it pass
	Report        // let it pass and record it: a violation in monitor mode
	Deny          // refuse it
	Kill          // kill every process of the container, then refuse it
	Freeze        // pause the container for forensics
)

var actionNames = [...]string{"", "allow", "report", "deny", "kill", "freeze"}

func (a Action) String() string { return name(actionNames[:], int(a)) }

// Mode says what a profile is used for.
type Mode uint8

// The modes. ModeUnset is a profile that leaves the choice to those it extends; if none chooses, it is ModeEnforce.
const (
	ModeUnset Mode = iota
	ModeLearn
	ModeMonitor
	ModeEnforce
)

var modeNames = [...]string{"", "learn", "monitor", "enforce"}

func (m Mode) String() string { return name(modeNames[:], int(m)) }

// Reason says why a verdict is what it is.
type Reason uint8

// The reasons.
const (
	_ Reason = iota
	ReasonDeclared
	ReasonRuntime
	ReasonInterpreter
	ReasonNotDeclared
	ReasonDenyRule
	ReasonSHA256
	ReasonFrom
	ReasonUID
	ReasonSession
	ReasonNotImage
	ReasonArguments
	ReasonMount
	ReasonProgram
	ReasonUnlinked
	ReasonFilter
	ReasonAppArmor
	ReasonLost
)

var reasonNames = [...]string{
	"",
	"declared",
	"runtime default",
	"interpreter of a declared program",
	"not declared",
	"denied by a deny rule",
	"sha256 differs",
	"caller not in from",
	"uid not in uid",
	"session programs are declared under sessions",
	"not a file of the image, or changed since",
	"declared, but not with these arguments or through this architecture's entry",
	"through a mount that was made after the container started",
	"by a program that was never admitted",
	"a file that has no name any more",
	"through an entry of another architecture, or with arguments, that the filter closes (SIGSYS)",
	"refused by AppArmor, which is stricter here than the profile: see go doc profiles/apparmor",
	"records of what AppArmor refused were lost: something may have been refused that is not told",
}

func (r Reason) String() string { return name(reasonNames[:], int(r)) }

// Support says whether a node can do something.
type Support uint8

// Unknown means that it could not be told.
const (
	Unknown Support = iota
	No
	Yes
)

var supportNames = [...]string{"unknown", "no", "yes"}

func (s Support) String() string { return name(supportNames[:], int(s)) }

// Level is how strong a guarantee is. Higher is stronger.
type Level uint8

// The levels.
const (
	LevelNone   Level = iota // nothing notices
	LevelDetect              // it happens and is recorded
	LevelDeny                // it does not happen
	LevelKill                // it does not happen, and the container dies
)

var levelNames = [...]string{"none", "detect", "deny", "kill"}

func (l Level) String() string { return name(levelNames[:], int(l)) }

func name(names []string, i int) string {
	if i >= len(names) || names[i] == "" {
		return "unset"
	}
	return names[i]
}
