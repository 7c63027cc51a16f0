// Package seccomp compiles declared syscalls to a seccomp filter and says,
// without a kernel, what that filter does with a call.
//
// # What a filter does
//
// A declared syscall is allowed and costs what it costs under any seccomp
// filter. Every other syscall that libseccomp can name waits for the listener
// at ListenerPath (seccomp_unotify(2)), which learns its name and arguments
// and answers. What has no name in the table kills the process. In detail, the
// first that applies:
//
//   - a name in Policy.Names is allowed, whatever its arguments;
//   - a name in Policy.Errno fails with that error;
//   - a name in a set of Policy.Names (and not in Policy.Except), or in
//     @runtime, is allowed under the conditions of the set;
//   - clone3 fails with ENOSYS, for its flags stand in memory where a filter
//     cannot see them: C libraries go on with clone;
//   - without no_new_privs open_tree fails with EPERM, because `runc exec`
//     tries it (see quiet);
//   - the listener is told.
//
// # Sets
//
// @default is moby's default profile (github.com/moby/profiles/seccomp), with
// its conditions on arguments, architecture, capabilities and kernel. Where
// moby allows a call only with some arguments, the filter also holds rules for
// the opposite, so that clone(CLONE_NEWUSER), socket(AF_VSOCK) or an odd
// personality(2) reach the listener by name and do not just kill the process.
//
// @clone, @personality and @socket are those conditional parts by themselves.
// A profile that lists names one by one should hold "@clone" rather than
// "clone", which would allow new namespaces as well.
//
// @runtime is what runc init still does between loading the filter and execve;
// it is part of every filter.
//
// # Entries
//
// A filter holds for one entry to the kernel unless Policy.SubArches opens
// more: int 0x80 and x32 on amd64, and 32-bit arm on arm64, kill. Where further
// entries are open, conditional calls fall to the default action when their
// conditions do not hold, because libseccomp compares 32 bits there.
//
// # Limits
//
//   - A call through a closed entry kills the calling thread (libseccomp's
//     action for a foreign architecture, which the OCI spec cannot change),
//     and nobody is told; the kernel's audit log has it.
//   - A number without a name below the table's end kills the process, and
//     nobody is told. uretprobe (335 on amd64) is one for libseccomp before
//     2.6: on Linux 6.11 to 6.13 a uretprobe that is set from outside kills the
//     process that it is set on.
//   - A number above libseccomp's table fails with ENOSYS, by a stub that runc
//     puts before the filter, even when it is declared: [Verdict] says so. The
//     table that counts is that of runc's libseccomp; this package's own may
//     be older or newer by some names (see newer).
//   - A filter sees numbers only, never what pointers point to. So where the
//     x86 entry is open, socketcall(2) lets every address family through for a
//     declared "@socket"; @default lets socketcall itself through.
//   - @runtime cannot be told apart from the program's own calls: the program
//     may make them too. With no_new_privs the list is shorter.
//   - StartContainer hooks run under the filter; what they need beyond it must
//     be declared.
package seccomp
