package cluster

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/stockade-dev/stockade/nri/v1alpha1"
	"github.com/stockade-dev/stockade/profiles"
	"github.com/stockade-dev/stockade/profiles/store"
)

// HealthyNodes is how many nodes say in a status that all is well.
const HealthyNodes = 32

// current is the status that the resource has now.
func current(u *unstructured.Unstructured) (v1alpha1.ProfileStatus, error) {
	var s v1alpha1.ProfileStatus
	raw, found, err := unstructured.NestedMap(u.Object, "status")
	if err != nil || !found {
		return s, err
	}
	return s, runtime.DefaultUnstructuredConverter.FromUnstructured(raw, &s)
}

// shared is what every node says of a resource: nothing in it depends on the node.
func shared(u *unstructured.Unstructured, now v1alpha1.ProfileStatus) v1alpha1.ProfileStatus {
	p, bad := parse(u)
	s := v1alpha1.ProfileStatus{ObservedGeneration: u.GetGeneration(), Changed: change(u)}
	accepted := metav1.Condition{
		Type: v1alpha1.Accepted, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonValid, Message: "it is right",
		ObservedGeneration: u.GetGeneration(), LastTransitionTime: metav1.Now(),
	}
	if bad != nil {
		accepted.Status, accepted.Reason, accepted.Message = metav1.ConditionFalse, v1alpha1.ReasonInvalid, short(bad)
	} else {
		s.Digest = p.Digest()
	}
	for _, c := range now.Conditions {
		if c.Type == accepted.Type && c.Status == accepted.Status {
			accepted.LastTransitionTime = c.LastTransitionTime
		}
	}
	s.Conditions = []metav1.Condition{accepted}
	return s
}

// sameShared: has somebody said it already?
func sameShared(a, b v1alpha1.ProfileStatus) bool {
	if a.ObservedGeneration != b.ObservedGeneration || a.Digest != b.Digest || len(a.Conditions) != len(b.Conditions) || (a.Changed == nil) != (b.Changed == nil) {
		return false
	}
	if a.Changed != nil && (a.Changed.By != b.Changed.By || a.Changed.Operation != b.Changed.Operation || !a.Changed.Time.Equal(b.Changed.Time)) {
		return false
	}
	for i, c := range a.Conditions {
		d := b.Conditions[i]
		if c.Type != d.Type || c.Status != d.Status || c.Message != d.Message || c.ObservedGeneration != d.ObservedGeneration {
			return false
		}
	}
	return true
}

// own is what this node makes of a resource.
func own(node string, u *unstructured.Unstructured, st *store.Store, storeErr error, check func(*profiles.Profile) error) v1alpha1.NodeStatus {
	n := v1alpha1.NodeStatus{Name: node, Generation: u.GetGeneration()}
	if storeErr != nil {
		n.Error = short(storeErr)
		return n
	}
	p, err := st.Get(u.GetName())
	if err == nil {
		n.Digest = p.Digest()
		if in := st.StandIn(u.GetName()); in != nil {
			err = in
		} else if check != nil && !part(st, p) {
			if bad := check(p); bad != nil {
				err = fmt.Errorf("it does not hold on this node, and containers that get it do not start: %w", withoutPlaces(bad))
			}
		}
	}
	if _, bad := parse(u); bad != nil {
		err = bad
		if n.Digest != "" {
			err = errors.New("its last good version is in use: " + short(bad))
		}
	}
	n.Error = short(err)
	return n
}

// part: it gives no match and others extend it, so it need not hold by itself.
func part(st *store.Store, p *profiles.Profile) bool {
	if p.Match != nil {
		return false
	}
	for _, name := range st.Names() {
		if slices.Contains(st.Declared(name).Extends, p.Name) {
			return true
		}
	}
	return false
}

// says tells whether a node writes its entry, given those that are there.
func says(mine v1alpha1.NodeStatus, there []v1alpha1.NodeStatus) bool {
	for _, n := range there {
		if n.Name == mine.Name {
			return n != mine
		}
	}
	if mine.Error != "" {
		return len(there) < v1alpha1.MaxNodes
	}
	return len(there) < HealthyNodes
}

// room finds an entry that may go for mine: of a node that has not looked at
// this generation, and so is gone, or says nothing that is still true; for an
// error also one of those that say that all is well, where there are more of
// them than need be, since many nodes that start at once overtake each other.
// -1 if there is none.
func room(mine v1alpha1.NodeStatus, there []v1alpha1.NodeStatus) int {
	var well []int
	for i, n := range there {
		if n.Generation < mine.Generation {
			return i
		}
		if n.Error == "" {
			well = append(well, i)
		}
	}
	if mine.Error == "" || len(well) <= HealthyNodes {
		return -1
	}
	return well[rand.IntN(len(well))] // not the one that the others take
}
