// Package install puts Stockade on a node and takes it away again: programs,
// configuration, containerd's runtime handler, the NRI plugin.
//
// The work has three parts that know little of each other. Gather reads what is
// there. Plan, which touches nothing, says what differs from what should be,
// and why: the admin sees it as a diff before anything happens. Apply does it.
//
// # What an admin can rely on
//
// A file is complete or not there: each is written beside its place, synced and
// renamed. What is going to be done is written down first, in
// /var/lib/stockade/install.json, so that a run that was killed at any point is
// finished, or undone, by the next one.
//
// Configuration that somebody else wrote or changed is kept and named; only
// --overwrite replaces it. Programs are ours by name and are replaced. A
// replaced program does not disturb the shims that run: they keep the old file.
// containerd must be able to start the new shim, or the old programs are put back.
//
// containerd's own file is edited as text, so that comments and order stay: in a
// configuration of version 3 or later an import is added where none leads to our
// drop-in. Up to version 2 (containerd 1.x) a drop-in would replace the whole
// table of the CRI plugin, so the handler's table is appended instead. The
// result is parsed and compared with the original before it replaces it: nothing
// but our keys may differ.
//
// containerd is restarted only when what it reads has changed, and must answer
// afterwards, know the handler and be able to start the shim. If not, what it
// reads is put back and it is restarted once more. Whatever else fails, what
// containerd reads, and programs that were there before, are put back too.
// Containers live on through restarts: their shims are no children of containerd.
//
// [Uninstall] refuses while protected containers run: it looks before it begins,
// and again when containerd has forgotten the handler; what containerd reads is
// put back if one was started in between. It restores containerd's file
// (byte for byte if nobody else changed it since) and removes what the manifest
// names, as far as it is still what was installed.
//
// # Another root
//
// With a root other than "/", paths are those of a host whose root is mounted
// there, as a DaemonSet's pod sees it. Symbolic links are followed as the host
// would follow them. Commands (systemctl, --restart-command) run inside that
// root by chroot(2); systemd answers them through its socket in /run.
package install
