package v1alpha1

import (
	"bytes"
	"encoding/json"
)

// Allow is what every process of the container may do.
type Allow struct {
	FileRules    `json:",inline"`
	NetworkRules `json:",inline"`
	// Names, and the sets @default, @clone, @socket, @personality, @runtime. @default if nothing is given.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1024
	Syscalls []Syscall `json:"syscalls,omitempty"`
	// Names, with or without CAP_.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=128
	Capabilities []Capability `json:"capabilities,omitempty"`
}

// Deny is what none may do.
type Deny struct {
	DeniedFileRules `json:",inline"`
	NetworkRules    `json:",inline"`
	// Names of system calls.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1024
	Syscalls []DeniedSyscall `json:"syscalls,omitempty"`
	// Names, with or without CAP_.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=128
	Capabilities []Capability `json:"capabilities,omitempty"`
}

// Program holds for processes whose executable matches its path.
//
// +kubebuilder:validation:MinProperties=2
type Program struct {
	// The executable.
	// +required
	Path Path `json:"path"`
	// +optional
	Allow *ProgramAllow `json:"allow,omitempty"`
	// +optional
	Deny *ProgramDeny `json:"deny,omitempty"`
}

// ProgramAllow is what a program may do beside what the container may.
type ProgramAllow struct {
	FileRules    `json:",inline"`
	NetworkRules `json:",inline"`
}

// ProgramDeny is what a program may not do.
type ProgramDeny struct {
	DeniedFileRules `json:",inline"`
	NetworkRules    `json:",inline"`
}

// Sessions is what kubectl exec and exec probes may start.
type Sessions struct {
	// +optional
	Allow *ProgramAllow `json:"allow,omitempty"`
}

// FileRules are about files that may be used.
type FileRules struct {
	// Programs: patterns, "@image", or {path, from, uid, sha256}.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10000
	Exec []ExecRule `json:"exec,omitempty"`
	// Files that may be read: patterns, or "@image" for every file of the image that is unchanged since.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10000
	Read []ReadRule `json:"read,omitempty"`
	// Files that may be written, created, removed: patterns. Includes reading.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10000
	Write []Path `json:"write,omitempty"`
}

// DeniedFileRules are about files that may not be used.
type DeniedFileRules struct {
	// Programs: patterns, or {path, from, uid}.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10000
	Exec []DeniedExecRule `json:"exec,omitempty"`
	// Files that may not be read: patterns.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10000
	Read []Path `json:"read,omitempty"`
	// Files that may not be written: patterns.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10000
	Write []Path `json:"write,omitempty"`
}

// NetworkRules are about sockets.
type NetworkRules struct {
	// tcp/6379, tcp/127.0.0.1:6379, udp/8000-8010, unix/run/x.sock, unix@name.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1024
	Listen []Listen `json:"listen,omitempty"`
	// The same, and dns: the name servers of the container.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1024
	Connect []Connect `json:"connect,omitempty"`
}

// Path is a pattern of absolute paths: * and ? stop at /, ** does not, [a-z], {a,b}, \ before one character.
//
// +kubebuilder:validation:MaxLength=4095
// +kubebuilder:validation:Pattern=`^(/|(\\|\{[^/]*)?(/[^/]+)+)$`
type Path string

// ReadRule is a pattern or @image.
//
// +kubebuilder:validation:MaxLength=4095
// +kubebuilder:validation:Pattern=`^(@image|/|(\\|\{[^/]*)?(/[^/]+)+)$`
type ReadRule string

// Syscall is a system call or a named set of them.
//
// +kubebuilder:validation:MaxLength=64
// +kubebuilder:validation:Pattern=`^(@[a-z]+|[a-z_][a-z0-9_]*)$`
type Syscall string

// DeniedSyscall is a system call.
//
// +kubebuilder:validation:MaxLength=64
// +kubebuilder:validation:Pattern=`^[a-z_][a-z0-9_]*$`
type DeniedSyscall string

// Capability is one of capabilities(7).
//
// +kubebuilder:validation:MaxLength=64
// +kubebuilder:validation:Pattern=`^(CAP_)?(AUDIT_CONTROL|AUDIT_READ|AUDIT_WRITE|BLOCK_SUSPEND|BPF|CHECKPOINT_RESTORE|CHOWN|DAC_OVERRIDE|DAC_READ_SEARCH|FOWNER|FSETID|IPC_LOCK|IPC_OWNER|KILL|LEASE|LINUX_IMMUTABLE|MAC_ADMIN|MAC_OVERRIDE|MKNOD|NET_ADMIN|NET_BIND_SERVICE|NET_BROADCAST|NET_RAW|PERFMON|SETFCAP|SETGID|SETPCAP|SETUID|SYSLOG|SYS_ADMIN|SYS_BOOT|SYS_CHROOT|SYS_MODULE|SYS_NICE|SYS_PACCT|SYS_PTRACE|SYS_RAWIO|SYS_RESOURCE|SYS_TIME|SYS_TTY_CONFIG|WAKE_ALARM)$`
type Capability string

// Listen is an address to listen on.
//
// +kubebuilder:validation:MaxLength=4200
// +kubebuilder:validation:Pattern=`^((tcp|udp)/(([0-9.]+|\[[0-9A-Fa-f:.]+\])(/[0-9]{1,3})?:)?(\*|[1-9][0-9]{0,4}(-[1-9][0-9]{0,4})?)|unix(/[^/]+)+|unix@[\s\S]+)$`
type Listen string

// Connect is an address to connect to.
//
// +kubebuilder:validation:MaxLength=4200
// +kubebuilder:validation:Pattern=`^(dns|(tcp|udp)/(([0-9.]+|\[[0-9A-Fa-f:.]+\])(/[0-9]{1,3})?:)?(\*|[1-9][0-9]{0,4}(-[1-9][0-9]{0,4})?)|unix(/[^/]+)+|unix@[\s\S]+)$`
type Connect string

// ExecRule is a program that may be executed: a pattern or @image, or an object that narrows it. A field
// that may be a string or an object has no type: the admission policy checks it, and each node.
//
// +kubebuilder:validation:Type=""
// +kubebuilder:pruning:PreserveUnknownFields
type ExecRule struct {
	// +required
	Path ReadRule `json:"path"`
	// Patterns: which program calls. For a script, the script.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	From []Path `json:"from,omitempty"`
	// Real user ids.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	UID []UID `json:"uid,omitempty"`
	// Of these bytes and no others. The path must be exact.
	// +optional
	SHA256 SHA256 `json:"sha256,omitempty"`
}

// DeniedExecRule is a program that may not be executed.
//
// +kubebuilder:validation:Type=""
// +kubebuilder:pruning:PreserveUnknownFields
type DeniedExecRule struct {
	// +required
	Path Path `json:"path"`
	// Patterns: which program calls.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	From []Path `json:"from,omitempty"`
	// Real user ids.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	UID []UID `json:"uid,omitempty"`
}

// UID is a user id.
//
// +kubebuilder:validation:Minimum=0
// +kubebuilder:validation:Maximum=4294967294
type UID int64

// SHA256 is a digest as sha256sum prints it.
//
// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
type SHA256 string

// The plain forms have the fields without the methods.
type (
	plainExecRule       ExecRule
	plainDeniedExecRule DeniedExecRule
)

// UnmarshalJSON takes a string or an object.
func (r *ExecRule) UnmarshalJSON(data []byte) error {
	if isString(data) {
		*r = ExecRule{}
		return json.Unmarshal(data, &r.Path)
	}
	return strict(data, (*plainExecRule)(r))
}

// MarshalJSON gives a string where there is only a path.
func (r ExecRule) MarshalJSON() ([]byte, error) {
	if len(r.From)+len(r.UID) == 0 && r.SHA256 == "" {
		return json.Marshal(r.Path)
	}
	return json.Marshal(plainExecRule(r))
}

// UnmarshalJSON takes a string or an object.
func (r *DeniedExecRule) UnmarshalJSON(data []byte) error {
	if isString(data) {
		*r = DeniedExecRule{}
		return json.Unmarshal(data, &r.Path)
	}
	return strict(data, (*plainDeniedExecRule)(r))
}

// MarshalJSON gives a string where there is only a path.
func (r DeniedExecRule) MarshalJSON() ([]byte, error) {
	if len(r.From)+len(r.UID) == 0 {
		return json.Marshal(r.Path)
	}
	return json.Marshal(plainDeniedExecRule(r))
}

func isString(data []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(data), []byte{'"'}) }

// strict refuses fields that the rule does not have, as profiles.Parse does: a condition that is misspelt would
// otherwise be one that is not there.
func strict(data []byte, rule any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(rule)
}
