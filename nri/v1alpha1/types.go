package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Profile declares what containers may do. What is not declared does not happen.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,categories=stockade
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=".spec.mode"
// +kubebuilder:printcolumn:name="Accepted",type=string,JSONPath=".status.conditions[?(@.type=='Accepted')].status"
// +kubebuilder:printcolumn:name="Changed by",type=string,JSONPath=".status.changed.by"
// +kubebuilder:printcolumn:name="Changed",type=date,JSONPath=".status.changed.time"
// +kubebuilder:printcolumn:name="Digest",type=string,priority=1,JSONPath=".status.digest"
// +kubebuilder:printcolumn:name="Error",type=string,priority=1,JSONPath=".status.conditions[?(@.type=='Accepted')].message"
// +kubebuilder:validation:XValidation:rule="self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$')",message="metadata.name: use a-z, 0-9 and -, at most 63 characters, the first and the last not -"
type Profile struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// What a container may do, and which containers it is for.
	// +required
	Spec ProfileSpec `json:"spec"`
	// What the nodes made of it. Written by stockade-nri.
	// +optional
	Status ProfileStatus `json:"status,omitzero"`
}

// ProfileList is a list of profiles.
//
// +kubebuilder:object:root=true
type ProfileList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Profile `json:"items"`
}

// ProfileSpec is the declaration.
type ProfileSpec struct {
	// Which containers get it; all that is given must hold. Without it the profile is there to be extended.
	// +optional
	Match *Match `json:"match,omitempty"`
	// Names of profiles whose rules are added. Their match is not inherited.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	Extends []Name `json:"extends,omitempty"`
	// enforce if nobody chooses.
	// +optional
	Mode Mode `json:"mode,omitempty"`
	// What happens at the first thing that is not declared; kill if nobody chooses.
	// +optional
	OnViolation OnViolation `json:"onViolation,omitempty"`
	// true leaves no_new_privs as it is; false, if nobody chooses, sets it.
	// +optional
	AllowPrivilegeEscalation *bool `json:"allowPrivilegeEscalation,omitempty"`
	// What may stay unenforced on a node that cannot enforce it.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	AllowUnenforced []Unenforced `json:"allowUnenforced,omitempty"`
	// What every process of the container may do.
	// +optional
	Allow *Allow `json:"allow,omitempty"`
	// What none may do, whatever allows it.
	// +optional
	Deny *Deny `json:"deny,omitempty"`
	// Rules for processes that run one program. Each path once: a rule that compares them all costs the API server more
	// than it lets a rule cost.
	// +optional
	// +listType=map
	// +listMapKey=path
	// +kubebuilder:validation:MaxItems=256
	Programs []Program `json:"programs,omitempty"`
	// What kubectl exec and exec probes may start. Without it they are refused.
	// +optional
	Sessions *Sessions `json:"sessions,omitempty"`
}

// Mode is how far a profile is enforced.
//
// +kubebuilder:validation:Enum=learn;monitor;enforce
type Mode string

// OnViolation is what happens at the first thing that is not declared.
//
// +kubebuilder:validation:Enum=kill;deny;freeze
type OnViolation string

// Unenforced is something that may stay unenforced.
//
// +kubebuilder:validation:Enum=filesystem;fileless;host;mounts;network
type Unenforced string

// Match says which containers a profile is for.
type Match struct {
	// Full references, as docker.io/library/redis:7*; * is any text.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	Images []Image `json:"images,omitempty"`
	// Namespaces of the pod.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1024
	Namespaces []Name `json:"namespaces,omitempty"`
	// Labels of the pod.
	// +optional
	PodSelector *PodSelector `json:"podSelector,omitempty"`
	// Names of the container in its pod.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	Containers []Name `json:"containers,omitempty"`
}

// PodSelector selects pods.
type PodSelector struct {
	// All of these the pod must have.
	// +optional
	// +kubebuilder:validation:MaxProperties=64
	MatchLabels map[string]LabelValue `json:"matchLabels,omitempty"`
}

// LabelValue is the value of a label.
//
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:Pattern=`^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$`
type LabelValue string

// Name is that of a profile, namespace or container.
//
// +kubebuilder:validation:MaxLength=63
// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
type Name string

// Image is a reference in which * is any text.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=1024
// +kubebuilder:validation:Pattern=`^[^ \t\n?\[\]{}\\]+$`
type Image string
