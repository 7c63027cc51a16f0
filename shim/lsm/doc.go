// Package lsm loads AppArmor profiles into the kernel and takes them away again. It knows no policy: texts come from
// elsewhere.
//
// A text is compiled once for a node (by apparmor_parser) and kept under [Loader].Dir, which belongs on a tmpfs that ends
// with the kernel (/run). Each holder gets a copy of it under a name of its own: a refusal is recorded with the profile's
// name and a process that may be gone when the record is read, so the name has to say whose it was. Copying is a matter
// of writing the compiled policy with another name of the same length to the kernel; it takes no parser.
//
// [Loader.Load] notes a reference for each copy, a file that names the shim by pid and start time, under a lock that all
// shims of the node share (flock in Dir). [Loader.Release] and [Loader.Sweep] unload what nobody holds. A shim that is
// killed leaves references behind; they are dropped when they are next looked at. A profile that a process still has is
// never unloaded, because the kernel would leave the process unconfined.
//
// A name must always come with the same text; give it a digest of the text.
//
// # Limits
//
//   - It takes securityfs on /sys/kernel/security, apparmor_parser, CAP_MAC_ADMIN, and the host's own policy namespace.
//   - References count for as long as the process that made them lives, not the container.
//   - The parser's configuration of the node holds (/etc/apparmor/parser.conf), with what features it pins.
//   - Whoever is root on the host may change profiles behind our back. Nothing here notices; the kernel's audit records
//     tell (package audit, operations profile_replace and profile_remove).
//
// # Landlock
//
// Would a Landlock ruleset (landlock(7)), applied before the container's program starts, give nodes without AppArmor
// the kinds that they lack: unlink, rename and create, inside writable trees, refused and seen path by path? It would
// not, so there is none.
//
//   - Rules are about what lies beneath open files, not about patterns: /data/*.db and [a-z] cannot be said, nor can a
//     file that does not exist yet, and a rule on a directory holds for all below it. There is no deny: a hole in an
//     allowed tree takes rules for each of its neighbours, as they were when the ruleset was made. What a directory can
//     say (MAKE_*, REMOVE_*, REFER) the mount seal says already, at no cost; what is finer is what was wanted.
//   - chmod, chown and extended attributes are not covered at all, nor is stat.
//   - A ruleset is taken by the thread itself. runc has no place for that, so a program of ours would have to stand
//     before the container's, in its root, in every exec session too, and be admitted by fanotify as a program.
//   - Refusals are seen since Linux 6.15 only (ABI 7, audit records LANDLOCK_ACCESS), so on the long-term kernels 6.1
//     and 6.12 they would be silent.
//
// Read in landlock(7) and the kernel's userspace-api/landlock, and seen (TestLandlockRefuses, on 6.18 with ABI 7): unlink,
// rename and create are refused by directory, a neighbour of an allowed name is not, chmod and chown are nobody's. What it
// costs (BenchmarkLandlock, same machine, tmpfs, medians of five): open and close of a warm file 3.1 us under none, 4.1 us
// under a ruleset of 10 rules, 5.4 us under one of 1000; create and unlink 19 us, 26 us, 28 us. A declared open is to
// cost at most 1.05 times what it costs under runc: a ruleset alone would be past that.
package lsm
