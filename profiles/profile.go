package profiles

import "fmt"

// What a document must say of itself.
const (
	APIVersion   = "stockade.dev/v1alpha1"
	DocumentKind = "Profile"
)

// Image is the rule that stands for every file of the image, unchanged since.
const Image = "@image"

// Profile is one declaration. Fields that were not given have their zero value.
type Profile struct {
	Name                     string
	Match                    *Match // nil: any container
	Extends                  []string
	Mode                     Mode
	OnViolation              Action // Kill, Deny or Freeze; Kill if nobody chooses
	AllowPrivilegeEscalation *bool  // false if nobody chooses
	AllowUnenforced          []string
	Allow, Deny              Rules
	Programs                 []Program
	Sessions                 Rules // sessions.allow
	Position                 Position
}

// Rules are the rules of one list of verbs.
type Rules struct {
	Exec, Read, Write, Syscalls, Capabilities, Listen, Connect []Rule
}

// Of returns the rules of a kind.
func (r *Rules) Of(k Kind) []Rule {
	if list := r.list(k); list != nil {
		return *list
	}
	return nil
}

func (r *Rules) list(k Kind) *[]Rule {
	switch k {
	case Exec:
		return &r.Exec
	case Read:
		return &r.Read
	case Write:
		return &r.Write
	case Syscall:
		return &r.Syscalls
	case Capability:
		return &r.Capabilities
	case Listen:
		return &r.Listen
	case Connect:
		return &r.Connect
	}
	return nil
}

func (r *Rules) empty() bool {
	for _, k := range kinds {
		if len(r.Of(k)) > 0 {
			return false
		}
	}
	return true
}

// Rule is one line of a profile.
type Rule struct {
	Text   string   // pattern, "@image", syscall, set, capability (without CAP_) or address
	From   []string // exec: patterns of the caller's executable; empty: any
	UID    []uint32 // exec: real user ids; empty: any
	SHA256 string   // exec: hex digest of the file's bytes; empty: any
	Field  string   // where it stands in its profile, for example spec.allow.exec[2]
	Position
}

// Position is a place in a file. Line and Column count from 1; 0 means not known.
type Position struct {
	File         string
	Line, Column int
}

// String is what a person is shown, for example "redis.yaml:14: allow.exec /bin/x".
func (r *Rule) String() string {
	if r.File == "" {
		return fmt.Sprintf("%s %s", fieldName(r.Field), r.Text)
	}
	return fmt.Sprintf("%s:%d: %s %s", r.File, r.Line, fieldName(r.Field), r.Text)
}

// Program holds for processes whose executable matches Path.
type Program struct {
	Path        string // a pattern
	Allow, Deny Rules
	Field       string
	Position
}

// Error is one mistake in a profile.
type Error struct {
	Position
	Field   string // for example spec.allow.exec[2].sha256; empty if it is the document
	Problem string // what is wrong
	Want    string // what would be right
}

func (e *Error) Error() string {
	text := e.Problem
	if e.Want != "" {
		text += "; " + e.Want
	}
	if e.Field != "" {
		text = e.Field + ": " + text
	}
	switch {
	case e.File == "":
		return text
	case e.Line == 0:
		return e.File + ": " + text
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, text)
}
