package apparmor

// Mode is what AppArmor does about what is not allowed.
type Mode uint8

// The modes.
const (
	Enforce  Mode = iota // refuse with EACCES and tell the audit log
	Complain             // let pass and tell
	Kill                 // refuse, tell, and send SIGKILL to the process
)

var modeNames = [...]string{"enforce", "complain", "kill"}

func (m Mode) String() string { return modeNames[min(int(m), len(modeNames)-1)] }

// Image stands for every file of the image, unchanged since, as in a profile.
const Image = "@image"

// Policy is what is to be written.
type Policy struct {
	Profile string // the profile's name
	Digest  string // the profile's digest; it is shown in a comment
	Mode    Mode
	ABI     string // "3.0" or "4.0"; "": none is named

	Allow, Deny, Sessions Rules // Sessions: added to Allow for processes of an exec session
	Programs              []Program
	Capabilities          []string // with or without CAP_

	Facts
}

// Facts are what a plan and a node know beside the rules.
type Facts struct {
	Transitions bool // processes are not under no_new_privs, so that an exec may change the profile
	Mounts      bool // mounting is declared
	Namespaces  bool // making user namespaces is declared (abi 4.0)
	Uring       bool // io_uring is declared (abi 4.0)

	Interpreters []string // paths of #! and ELF interpreters of declared programs, where known
	Supervisors  []string // labels of the runtime's own processes; nil: unconfined, runc, crun
}

// Rules are the rules of one list of verbs.
type Rules struct{ Exec, Read, Write, Listen, Connect []Rule }

func (r *Rules) empty() bool {
	return len(r.Exec)+len(r.Read)+len(r.Write)+len(r.Listen)+len(r.Connect) == 0
}

// Rule is one line of a profile.
type Rule struct {
	Text   string   // pattern, @image or address
	From   []string // exec: patterns of the caller's executable
	UID    bool     // exec: narrowed to user ids
	SHA256 bool     // exec: narrowed to a digest
	Field  string   // where it stands in its profile; it comes back in gaps
}

// Program holds for processes whose executable matches Path.
type Program struct {
	Path        string // a pattern
	Allow, Deny Rules
}

// Text is a policy written.
type Text struct {
	Name    string // of the container's profile: stockade.PROFILE.DIGEST12.SLOT, the digest being that of the text
	Session string // of the profile for exec sessions; Name if sessions have no rules of their own
	Body    string // for apparmor_parser
	Gaps    []Gap
}

// GapKind says what AppArmor cannot express.
type GapKind uint8

// The kinds of gaps.
const (
	GapDrift      GapKind = iota // @image: whether a file is still the image's
	GapDigest                    // sha256
	GapCaller                    // from
	GapUID                       // uid
	GapProgram                   // a program's own rules, where they hold for all instead, or (deny) for none
	GapSession                   // which program may be a session's first
	GapNetwork                   // addresses and ports
	GapMounts                    // mounts that may be made later: names are all that AppArmor knows
	GapAttributes                // extended attributes and times, which are written without asking
)

var gapNames = [...]string{"drift", "sha256", "from", "uid", "program", "session", "network", "mounts", "attributes"}

func (k GapKind) String() string { return gapNames[min(int(k), len(gapNames)-1)] }

// Gap is a rule of which the text lets more pass than the profile does. Something else has to hold it.
type Gap struct {
	Kind  GapKind
	Verb  string   // exec, read or write, where it is a rule of one of these
	Deny  bool     // it is a deny rule
	Field string   // of the rule; "" if it is no single rule's
	Rule  string   // its text
	Where []string // drift: patterns of files that may be other than the image's and are allowed by this rule alone
	Why   string
}
