package api

import "time"

// The service and its methods.
const (
	Service      = "stockade.control.v1"
	MethodStatus = "Status"
	MethodReload = "Reload"
)

// StatusRequest asks what a shim protects, how, and what it has done.
type StatusRequest struct{}

// Status is a shim with its containers.
type Status struct {
	PID     int     `json:"pid"`
	Broken  string  `json:"broken,omitempty"` // why nothing can be protected any more: its containers were killed
	Queue   Queue   `json:"queue"`
	Reports Reports `json:"reports"`

	Containers []Container `json:"containers"` // sorted by namespace and ID
}

// Queue counts what went wrong between the kernel and the shim since it started. Each stands for an access that was
// denied, never for one that was let through.
type Queue struct {
	Undelivered uint64 `json:"undelivered"` // events that the kernel could not deliver
	Overflows   uint64 `json:"overflows"`
	Gone        uint64 `json:"gone"` // answers to threads that no longer waited: killed
}

// Reports counts what the shim has told of violations since it started.
type Reports struct {
	Told uint64 `json:"told"`
	Lost uint64 `json:"lost"` // violations that were acted on, but came too fast to be told of
}

// Container is one container's fence.
type Container struct {
	Namespace    string `json:"namespace"` // containerd's
	ID           string `json:"id"`
	Pod          string `json:"pod,omitempty"`
	PodNamespace string `json:"podNamespace,omitempty"`

	State
	Guarantees []Guarantee `json:"guarantees,omitempty"`
	Waits      []Wait      `json:"waits,omitempty"`    // what of the profile waits for the container's next start
	Reloaded   *time.Time  `json:"reloaded,omitempty"` // when the profile was last changed while it ran
	Failed     string      `json:"failed,omitempty"`   // why the last Reload failed: what holds is older than the store
	Since      time.Time   `json:"since"`              // when it was armed

	Decisions []Decisions `json:"decisions,omitempty"`
	Answers   Histogram   `json:"answers"` // fanotify events, from their being read to their answer
	Calls     Histogram   `json:"calls"`   // system calls that the filter asked about, to the verdict
}

// State is what is in force.
type State struct {
	Profile     string `json:"profile"`
	Digest      string `json:"digest"`
	Mode        string `json:"mode"`
	OnViolation string `json:"onViolation"`
}

// Guarantee is what holds for one kind of access.
type Guarantee struct {
	Kind  string `json:"kind"`
	Level string `json:"level"` // none, detect, deny, kill
	By    string `json:"by,omitempty"`
	Note  string `json:"note,omitempty"`
}

// Wait is something of a profile that takes effect when the container is started again.
type Wait struct {
	Part   string `json:"part"` // mode, syscalls, mounts, capabilities, no_new_privs
	What   string `json:"what"`
	Weaker bool   `json:"weaker"` // until then the container may do more than the profile says
}

// Decisions counts what was decided since the container was armed. Opens that the kernel was told not to ask about
// again are not among them.
type Decisions struct {
	Kind   string `json:"kind"`   // exec, read, write, syscall
	Action string `json:"action"` // allow, report, deny, kill, freeze
	Count  uint64 `json:"count"`
}

// Histogram says how many took how long.
type Histogram struct {
	Count   uint64   `json:"count"`
	Seconds float64  `json:"seconds"` // all together
	Buckets []Bucket `json:"buckets,omitempty"`
}

// Bucket counts those that took at most UpTo seconds, those of smaller buckets included. The last one, which would
// hold all, is left out.
type Bucket struct {
	UpTo  float64 `json:"upTo"`
	Count uint64  `json:"count"`
}

// Violations is how many decisions were not to allow.
func (c *Container) Violations() (n uint64) {
	for _, d := range c.Decisions {
		if d.Action != "allow" {
			n += d.Count
		}
	}
	return n
}

// Total is how many decisions there were.
func (c *Container) Total() (n uint64) {
	for _, d := range c.Decisions {
		n += d.Count
	}
	return n
}

// ReloadRequest asks a shim to choose and compile the profiles of its containers again. Empty fields do not choose.
type ReloadRequest struct {
	Namespace string `json:"namespace,omitempty"` // containerd's
	Container string `json:"container,omitempty"` // its ID
	Profile   string `json:"profile,omitempty"`   // containers that run under it now
	DryRun    bool   `json:"dryRun,omitempty"`    // say what would change, and change nothing
}

// ReloadResponse says what came of it, for each container that was asked for.
type ReloadResponse struct {
	Containers []Reloaded `json:"containers"`
}

// Reloaded is one container after a Reload.
type Reloaded struct {
	Namespace    string `json:"namespace"`
	ID           string `json:"id"`
	Pod          string `json:"pod,omitempty"`
	PodNamespace string `json:"podNamespace,omitempty"`

	Before State  `json:"before"`
	After  State  `json:"after"`            // in force now (with DryRun: would be)
	Waits  []Wait `json:"waits,omitempty"`  // of After
	Failed string `json:"failed,omitempty"` // why nothing changed: Before is in force, whole
}

// Changed reports whether another profile, or another version of it, is in force now.
func (r *Reloaded) Changed() bool { return r.Before != r.After }
