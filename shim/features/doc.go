// Package features finds out what this node can do, as the profiles.Target
// that plans are compiled for.
//
// Nothing is read from a list of versions: every probe does, on objects of its
// own, what a mechanism will do, and answers yes, no or unknown. "Unknown"
// means that the probe itself could not be carried out (no privileges, no file
// descriptors), and never passes for yes.
//
// [Probe] asks the kernel; it takes a few milliseconds, needs root, starts no
// process and leaves nothing behind: a tmpfs that no path leads to, marks on
// that tmpfs alone, a BPF program that is attached nowhere. The shim calls it
// when it starts. [Limits] and [Runtime] look at the rest of the node for
// `stockade doctor`; they walk /proc and run runc.
//
// Limits: what the kernel can do may still be forbidden to the shim by an LSM's
// policy of the host, or lack in the runc that containerd uses. Cgroup BPF is
// reported for a mechanism that this build does not have.
package features
