// Package shim is containerd's runc shim with a fence around every container.
//
// It decorates containerd's own task service: Create, Start, Exec and Delete are wrapped, everything else is
// containerd's. Create picks the container's profile, compiles it for this node, edits the bundle, lets runc create the
// container, and arms every mechanism while the container's first process is still parked before its program; when one
// cannot be armed the container is not created and the error says why. A pod's containers share one shim process, and
// so one fanotify group and one guard. The pod's pause container is left alone.
//
// The annotation stockade.dev/profile (or stockade.dev/profile.CONTAINER in a pod) names a profile, optionally pinned
// as NAME@sha256:DIGEST. In a pod it chooses only among the profiles whose match holds for the container; without it
// the most specific of these is taken.
package shim
