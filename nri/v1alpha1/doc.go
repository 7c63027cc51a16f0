// Package v1alpha1 is the Profile resource of the Kubernetes API, as Go types.
//
// A resource is the same text as a file of the node's store: what `kubectl
// apply` sends and what stands in /etc/stockade/profiles.d may be one file. The
// CustomResourceDefinition in contrib/kubernetes/crd is generated from the types
// here (`make generate`), and a test holds types, definition and
// profiles.Parse together. profiles.Parse remains the judge: the schema refuses
// early what a schema can say, and nothing that Parse takes, but for two things
// which no profile needs: read and write rules are plain strings here (Parse also
// takes {path: ...}), and lists have limits.
//
// What a schema cannot say: an exec rule is a string or an object, and such a
// field has no type, so neither the string's pattern nor unknown keys of the
// object can be checked by it. The admission policy in contrib/kubernetes/policy
// refuses them; without it each node does, in the resource's status, and keeps
// the last good version.
//
// Nothing has a default: a field that was not given stays so, and the digest is
// that of what was written.
//
// +kubebuilder:object:generate=true
// +groupName=stockade.dev
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is that of the resource.
var GroupVersion = schema.GroupVersion{Group: "stockade.dev", Version: "v1alpha1"}

// Kind and Resource name it.
const (
	Kind     = "Profile"
	Resource = "profiles"
)

// AddToScheme makes a scheme know the types.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &Profile{}, &ProfileList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
