// Package api is what a shim says over its control socket, and how to ask.
//
// Each shim that protects a container listens at a socket of its own under the node's state folder ([Sockets] lists
// them). It speaks ttrpc: service [Service], methods [MethodStatus] and [MethodReload], whose request and response are
// each a google.protobuf.BytesValue with one of this package's types as JSON. Unknown fields are ignored, so that a
// client and a shim of different builds understand each other; a shim runs as long as its pod.
//
// Nothing that is asked here loosens anything: Reload makes a shim read the root-owned store again, and what it finds
// there decides. Both ends must be root: the folder is 0700, the server looks at its peer (SO_PEERCRED, unix(7)), the
// client at the folder, the socket and the server.
//
// What this cannot stop: a container that has the state folder mounted writable, as the host's root, can take a
// socket's place and give wrong answers. The same folder holds the sockets at which the runtime hands over seccomp
// listeners: such a mount gives the node away, as one of containerd's own folder does.
package api
