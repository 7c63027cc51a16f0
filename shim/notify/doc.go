// Package notify listens to the seccomp notifications of one container's
// processes and has a [Handler] answer them. It knows no policy.
//
// runc loads the filter of each process of a container, exec'd ones too, and
// hands its notification descriptor to the socket that the OCI spec names as
// listenerPath, together with the container process state (runtime-spec
// config-linux.md). What a process starts shares its descriptor. Each
// descriptor is served by a goroutine of its own that waits on the Go poller,
// so that it costs no thread, until the last of its processes has gone.
//
// # Failing closed
//
// A handler that returns an error, or panics, denies: the call fails with
// EPERM, and then Fault hears of it. So it does of whatever runc would never
// send. No listener, no container: runc cannot connect and gives up. When this
// process dies or closes the listener, calls that wait and later ones fail with
// ENOSYS.
//
// # Limits
//
//   - Calls of one descriptor are answered one after the other: a slow handler
//     makes its container wait, no other.
//   - What an argument points to can change while it is read, and after:
//     nothing is read here, and [Continue] is for observing only.
//   - Between reading about the caller in /proc and answering, ask
//     [Call.Valid]: the caller may have been killed and its number used again.
//   - A signal may take the caller out of a call that waits; the answer is then
//     dropped, and the call asked again.
//   - Who connects is checked by user (root) and by the folder's mode, not by
//     program: a process of the host's root can hand over a descriptor.
//   - runc lets a process go on before it hands over its descriptor: see
//     Listener.OnProcess.
//
// A round trip takes some microseconds where the kernel (Linux 6.6) wakes both
// sides on one CPU, ten times as much before.
package notify
