// Package cluster brings the Profile resources of the API server to the node.
//
// A [Watcher] writes each resource to the cluster folder of the node's store, as
// canonical text, and that folder is all that containers are started from. So
// they start with the API server down, and after a restart of the plugin before
// it has reached the API server.
//
// # What must hold
//   - A resource that is bad does not replace its last good version: package
//     store marks it, and everything that reads the store says so.
//   - A file goes only when the API server, in a completed list or a watch after
//     one, says that the resource is gone. No answer, an error, a list that was
//     not finished: nothing is removed.
//   - Files come first. Reporting waits, is limited, and may fail.
//
// # Status
//
// What is the same on each node (digest, condition Accepted, who changed it) is
// written by whichever node comes first, with one field manager for all of them.
// What one node makes of it is one entry in nodes, server-side applied with a
// field manager of the node's own, so that nodes neither fight nor overwrite
// each other. A thousand nodes must not write a thousand entries that each of the
// thousand watches: an entry that says nothing but "all is well" is written only
// while there are fewer than [HealthyNodes]; errors are written up to
// v1alpha1.MaxNodes, beyond which the API server refuses more.
//
// # Who changed it
//
// Each new generation is logged, and said in status.changed, with the field
// manager and time that metadata.managedFields has for spec. When it lets pass
// what the generation before did not, there is also an Event on the resource,
// one for all nodes, that lists it. A field manager is a name that the client
// gives itself, and it may clear the list: who it really was stands in the API
// server's audit log.
//
// Limits: who may write profiles/status can write nonsense there; nothing is
// decided by it. A node that was not running when a generation came cannot
// compare it with the one before.
package cluster
