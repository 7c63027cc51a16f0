package incident

import (
	"crypto/rand"
	"encoding/hex"
	"time"
)

// Actions that Stockade took.
const (
	Killed   = "killed"   // the whole container
	Denied   = "denied"   // this access; the container goes on
	Frozen   = "frozen"   // the container is paused for forensics
	Reported = "reported" // nothing was stopped: monitor mode
	// NotReloaded stands in a record that says that a running container keeps
	// an older profile than the store has, and in Reason why. It is no
	// violation.
	NotReloaded = "not reloaded"
	// Lost stands in a record that says only how many incidents could not be
	// written.
	Lost = "lost"
)

// Incident is a violation with its evidence. Only ID and Time are always
// there; the zero value of every other field means "not known".
type Incident struct {
	ID   string    `json:"id"`   // filled by Put when empty; sorts by time
	Time time.Time `json:"time"` // UTC, filled by Put when zero

	Node      string `json:"node,omitempty"`
	Namespace string `json:"namespace,omitempty"` // containerd's: k8s.io, default
	Container string `json:"container,omitempty"` // containerd's ID
	Pod       Pod    `json:"pod,omitzero"`
	Image     string `json:"image,omitempty"`
	Profile   string `json:"profile,omitempty"`
	Digest    string `json:"digest,omitempty"` // of the profile: sha256:...
	Mode      string `json:"mode,omitempty"`   // enforce, monitor
	Session   bool   `json:"session"`          // by a process of an exec session

	Action     string   `json:"action"` // killed, denied, frozen, reported, not reloaded, lost
	Access     Access   `json:"access,omitzero"`
	Subject    Subject  `json:"subject,omitzero"`
	Parents    []Parent `json:"parents,omitempty"` // nearest first
	Rule       string   `json:"rule,omitempty"`    // the rule that denied, with file:line; empty: nothing declares it
	Reason     string   `json:"reason,omitempty"`
	Suggestion string   `json:"suggestion,omitempty"` // the profile line that would have allowed it

	KillLatency KillLatency `json:"killLatency,omitzero"`
	// Lost counts the incidents of this shim that could not be written
	// since the one before.
	Lost uint64 `json:"lost,omitempty"`
}

// Pod is the Kubernetes pod of the container, if it has one.
type Pod struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	UID       string `json:"uid,omitempty"`
	Container string `json:"container,omitempty"` // its name in the pod
}

// Access is what was tried.
type Access struct {
	Kind     string   `json:"kind"`               // exec, read, write, syscall ...
	Path     string   `json:"path,omitempty"`     // as the container sees it
	Syscall  string   `json:"syscall,omitempty"`  // name, or number when it has none; also the one that opened Path
	Args     []string `json:"args,omitempty"`     // raw arguments of the syscall, hexadecimal
	Flags    string   `json:"flags,omitempty"`    // of the open, e.g. O_WRONLY|O_CREAT
	ViaMount string   `json:"viaMount,omitempty"` // destination of the mount whose mark saw it; empty: the root
}

// Subject is the process that tried. UID is that of the real user in the
// host's numbering.
type Subject struct {
	PID     int      `json:"pid"` // the host's numbers
	TID     int      `json:"tid,omitempty"`
	UID     uint32   `json:"uid"`
	Comm    string   `json:"comm,omitempty"` // the process's own claim
	Exe     string   `json:"exe,omitempty"`
	Cmdline []string `json:"cmdline,omitempty"` // the process's own claim
	Cwd     string   `json:"cwd,omitempty"`
}

// Parent is one ancestor of the subject.
type Parent struct {
	PID  int    `json:"pid"`
	Comm string `json:"comm,omitempty"`
	Exe  string `json:"exe,omitempty"`
}

// KillLatency holds times from the arrival of the event, in nanoseconds.
type KillLatency struct {
	Signalled time.Duration `json:"signalledNanoseconds,omitempty"` // SIGKILL sent to every process
	Answered  time.Duration `json:"answeredNanoseconds,omitempty"`  // the blocked thread got its answer
	Dead      time.Duration `json:"deadNanoseconds,omitempty"`      // the container's cgroup was empty
}

// idTime is the first part of an ID: UTC, microseconds, sortable as text.
const idTime = "20060102-150405.000000"

// NewID returns an ID for an incident of time t. IDs sort by time to the
// microsecond; 32 random bits keep those of several shims apart.
func NewID(t time.Time) string {
	var r [4]byte
	_, _ = rand.Read(r[:]) // never fails (crypto/rand, since Go 1.24)
	return t.UTC().Format(idTime) + "-" + hex.EncodeToString(r[:])
}

// validID tells whether a file name's stem is an ID, and of which time.
func validID(s string) (time.Time, bool) {
	if len(s) != len(idTime)+1+8 || s[len(idTime)] != '-' {
		return time.Time{}, false
	}
	if _, err := hex.DecodeString(s[len(idTime)+1:]); err != nil {
		return time.Time{}, false
	}
	t, err := time.Parse(idTime, s[:len(idTime)])
	return t, err == nil
}
