// Package selection answers which profile is for a container.
//
// [Select] is the whole answer: a pure function of what is known of the
// container and of the set of profiles on its node. The shim and the plugin
// both call it, so that they cannot differ.
//
// # By match
//
// A profile is chosen by its match only if it gives one; without one it is
// there to be extended or to be named. Of those that hold, the one wins that
// asks for the most: the number of keys given among images, namespaces,
// podSelector and containers. Two that ask for equally many are an error, never
// a coin toss.
//
// # By annotation
//
// stockade.dev/profile, or stockade.dev/profile.CONTAINER for one container of a
// pod, names the profile, or pins it as NAME@sha256:DIGEST. Annotations are the
// pod author's: they choose only among profiles whose match holds, and a profile
// that gives no match cannot be chosen by a pod. Outside Kubernetes whoever sets
// annotations is root on the node, and what is asked for is what holds.
//
// # Labels
//
// A shim does not know a pod's labels; the plugin does. Where they are not known
// and could change the answer, [Select] says [ErrLabels] and nothing else: a
// profile with a podSelector is never passed over in silence. Where they cannot
// change it, because a profile that needs no label asks for more, the answer is
// the same as with them.
//
// # What the plugin tells the shim
//
// A [Statement]: the profile that it chose, and what the choice was made from
// and the shim cannot see. It travels in the container's annotations
// stockade.dev/selection and stockade.dev/selection.facts, where pods can write
// too; so it is signed with a key that only root of this node can read, for one
// container of one sandbox: HMAC-SHA256 over version, container id, sandbox id,
// container name, profile name, digest and facts, each with its length before
// it. A statement that is not right refuses the container.
//
// Limits: labels are those that the pod had when its sandbox was made; later
// changes reach neither the plugin nor the shim.
package selection
