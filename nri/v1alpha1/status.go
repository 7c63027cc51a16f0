package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// MaxNodes is how many nodes a status lists. A profile on a thousand nodes must not become a thousand times as large:
// of those where all is well only the first few write themselves down, see package cluster.
const MaxNodes = 64

// Accepted is the condition that says whether the declaration is right. Its status is the same wherever it is asked;
// what one node makes of it is in nodes.
const Accepted = "Accepted"

// Reasons of the condition Accepted.
const (
	ReasonValid   = "Valid"
	ReasonInvalid = "Invalid"
)

// ProfileStatus is what the nodes made of a profile.
type ProfileStatus struct {
	// The generation that digest, changed and conditions are of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// sha256 of the declaration's canonical form, as stockade profile check prints it. What it extends is not in it.
	// +optional
	// +kubebuilder:validation:MaxLength=71
	Digest string `json:"digest,omitempty"`
	// Who changed the declaration last, as far as the API server tells.
	// +optional
	Changed *Change `json:"changed,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Nodes that have it: all that have something to say against it, and the first of the others.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=64
	Nodes []NodeStatus `json:"nodes,omitempty"`
}

// Change is an entry of metadata.managedFields that is about the declaration.
type Change struct {
	// The field manager: a program's name, which the client chooses. Who it was stands in the API server's audit log.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	By string `json:"by,omitempty"`
	// Apply or Update.
	// +optional
	// +kubebuilder:validation:MaxLength=16
	Operation string `json:"operation,omitempty"`
	// +optional
	Time *metav1.Time `json:"time,omitempty"`
}

// NodeStatus is what one node made of a profile.
type NodeStatus struct {
	// +required
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// The generation that the node has looked at.
	// +optional
	Generation int64 `json:"generation,omitempty"`
	// Of the profile that containers get here, with all that it extends: what stands in events and incidents.
	// +optional
	// +kubebuilder:validation:MaxLength=71
	Digest string `json:"digest,omitempty"`
	// Why this generation is not used here. With a digest, an earlier one is used instead.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Error string `json:"error,omitempty"`
}
