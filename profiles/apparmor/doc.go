// Package apparmor writes a profile as AppArmor text, for apparmor_parser to load (apparmor.d(5)).
//
// [Build] is a function of its [Policy]: the rules, and the facts of the plan that decide how they are written. It
// returns the text, the names to attach, and a list of what the text cannot say ([Gap]).
//
// # One meaning
//
// The text never refuses what the profile allows, but for the differences below; where it lets more pass than the
// profile does, a gap says which rule and why, so that the plan leaves that rule to fanotify. The tests ask the
// parser's own automaton and Plan.Decide the same questions on generated profiles and paths.
//
//	profile               text
//	read P                P mrk: a library is a file that is read
//	write P               P{,/} rwkl: writing implies reading; directories may be made, renamed and removed
//	exec P                P mrix: programs are mapped, scripts are read by their interpreters
//	read, exec @image     all but /dev, /proc, /sys: mrk, mix, and a gap (drift)
//	deny read P           audit deny P rwl, directories' listings left out; P/ w
//	deny write, exec P    audit deny P{,/} wl; audit deny P x
//	programs, from        with [Policy.Transitions]: child profiles and px; else a gap
//	sessions              the profile NAME//session: the container's rules and the sessions'
//	capabilities          one rule each
//	listen, connect       families (see below)
//
// The profile's deny rules are audit deny rules: without audit AppArmor refuses in silence, even in complain mode, and a
// refusal is a deviation that must be seen. What is refused in silence all the same is what programs try and mean nothing
// by: to map what is noexec elsewhere (see below), to write to /proc/PID/attr, to read of the supervisors' processes or to
// send these a signal, which is what kill(-1) does while an exec session is set up, and to use a capability that is not
// declared. Nobody sees these; and where a pod has the host's processes in sight, nobody sees that it tried to kill one.
//
// exec @image does not let the image be read. The kernel reads and maps a program by itself; a script's interpreter
// has to be allowed to read it, as everywhere.
//
// Patterns are not passed on as text. They are taken apart (pattern.Pattern.Elements) and written anew: classes so that
// none matches /, stars so that AppArmor's own treatment of a star that is a whole component does not come in, every
// byte that could mean something to the parser as an octal escape. AppArmor's names of directories end in /, so
// whether a rule speaks of directories is decided by rule, not by accident of the pattern's end.
//
// # What every text holds
//
// Directories may be listed. Dynamic loaders (ld-*.so*, ld-musl-*) and the interpreters which the caller found may be
// read and mapped; none may be executed unless a rule of the profile says so: the kernel opens them on behalf of the
// program that was admitted. /proc is what container runtimes' default profiles make of it: free to read but for
// kcore; written below a process's own folder, but for its attr, and in /proc/sys/kernel/shm*. Nothing of /sys is allowed beyond what is
// declared, and /sys/firmware, /sys/kernel/security, /sys/devices/virtual/powercap, which runtimes hide, are no more
// than any other undeclared path. Netlink. No mount, umount and pivot_root unless [Policy.Mounts].
//
// Signals, ptrace and sockets of the unix family are let pass between processes whose profile is one of ours
// (stockade.*), of this container or another: names are chosen when a text is loaded, and a rule with the container's own
// would not hold for it. What keeps containers apart in this is what keeps them apart without AppArmor: their namespaces of
// processes and of the network, and the files that sockets are. Where a pod shares one of these among its containers, or
// the host's with others, AppArmor does not stand between those that are ours. Signals from anybody are taken.
//
// No change_profile: a process cannot choose another profile. In complain mode it can, by lsm_set_self_attr(2) (Linux
// 6.8), which is reported: complain mode lets pass whatever is not refused in silence, and parsers (3.0.8) have no silence
// for change_profile, so that a deny rule changes nothing. By /proc/PID/attr it cannot.
//
// What mmap(2) makes with MAP_HUGETLB, shared as PostgreSQL has it or private and executable as Java has it, is a file of a
// mount that nobody can see, and AppArmor calls it "/". So whoever owns that may write to it and map it, and that is also
// who owns the root directory: its mode and owner can be changed by them. What is in it is called otherwise.
//
// # no_new_privs
//
// A process under no_new_privs may only go on to a profile that includes the one it has (the kernel's
// apparmor_bprm_creds_for_exec, "no new privs"); anything else fails with EPERM. no_new_privs is set by default, so
// child profiles for programs exist only where a profile turns it off. Otherwise one text holds for all programs: what
// any of them may do all may, the gaps name these rules, and fanotify tells the programs apart. The first program of
// a container and of a session is exec'd by the runtime, which is unconfined; there the rule does not apply.
//
// # Network
//
// AppArmor knows address families and socket types, not addresses and ports. Where listen or connect is declared, tcp,
// udp and dns rules allow inet and inet6, stream and dgram both (resolvers probe with sockets of the other type, and
// an inet6 socket reaches IPv4), raw and packet sockets come with NET_RAW, and every other family is refused. Where
// neither is declared every family is allowed, as on a node without AppArmor: the guarantee "network" is none, and a
// profile must not mean more on one node than on another. unix/PATH rules are file rules (w on the socket).
//
// # Differences that remain
//
//   - FIFOs, devices and sockets at undeclared paths: fanotify does not ask about them, AppArmor refuses.
//   - An exclusive lock (flock, fcntl) on a file that may only be read: AppArmor asks for w.
//   - A hard link needs, beside w on both names, that the new name allows nothing that the old does not.
//   - Files below a directory that write rules name, and those of /dev/shm, cannot be mapped executable unless something
//     there may be executed: so it is under the plan's noexec mounts. Programs of the image (@image) count for / alone. The
//     text does not know what is a volume: one that is only read is mapped, where without AppArmor it is noexec.
//   - A file's name, not its identity: after a bind mount or a rename, its own or that of a directory above it, AppArmor
//     goes by the path at the time of the open. So does fanotify about a rename.
//   - With transitions, a #! script that has rules of its own runs under these; the rules of its interpreter as a
//     program are not added. A program that matches only a pattern with wildcards has no child profile (gap).
//   - Reading of the loader's or an interpreter's file is allowed without a rule.
//   - The first program of a session and the first of the container are not asked about: the runtime is unconfined.
//
// None of this list was seen on a kernel by the tests of this package, which ask the compiled automaton; what the
// kernel makes of it is read in its source (security/apparmor, 6.1 to 6.12).
//
// # Parsers
//
// The text names the abi it was written for ([Policy.ABI]): 3.0 for parsers 3.x, and for 4.x too, which ship it. With
// 4.0 user namespaces and io_uring are mediated as well, and are allowed only if the policy says that they are
// declared. Without an abi a 3.x parser falls back to what its configuration pins, and kernels' mediation may be left
// out. unix rules are written for kernels that mediate them (6.17, Ubuntu's); parsers turn them into the family for
// others. Mode Kill needs parser 3.0 or newer.
package apparmor
