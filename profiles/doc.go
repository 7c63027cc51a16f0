// Package profiles is the language in which is declared what a container may do, and the decision whether it may.
//
// A [Profile] is read from YAML by [Parse], completed by [Resolve] (extends) and turned by [Compile] into a [Plan] for
// one [Target]: what the mechanisms need, what they guarantee, and [Plan.Decide], which gives the [Verdict] on one
// [Access]. Everything here is a function of its arguments: no file, no clock, no kernel. The node is an argument.
//
// # Rules
//
// Order means nothing; what is not allowed is denied; a deny rule wins over every allow rule, the built-in ones too.
// Paths are those of the object that was opened, as the container sees it; package pattern has their language.
//
//   - exec P: P may be executed. Its ELF interpreter or #! interpreter is admitted as interpreter, not by itself, even
//     where a deny rule forbids to run it. P may also be read: a script is read by its interpreter. from, uid and
//     sha256 narrow the rule.
//   - read P: P may be opened for reading. Listing directories and stat are free.
//   - write P: P may be opened for writing and for reading. Deny read P forbids both, deny write P writing only.
//   - "@image" in exec and read: a file of the image, unchanged since.
//   - syscalls: names and sets; empty means "@default". memfd_create has to be named: what is executed from such a file
//     is not seen by fanotify. Syscalls and capabilities hold for the whole container.
//   - programs: rules for processes that run this executable, beside what holds for all. Deny there binds these only.
//   - sessions: what `kubectl exec` and exec probes may start. The first program of a session must be declared here;
//     the processes it starts may do what is declared here and what is declared for the container.
//
// # Canonical form
//
// [Profile.YAML] is the same for profiles that mean the same line by line: rules are sorted and given once, fields that
// are not given are left out. Its sha256 is [Profile.Digest], the identity that travels in annotations, events and
// incidents. Where profiles extend others it is the digest of the resolved profile that says what is enforced.
//
// # Limits
//
// Names of files that are not UTF-8 can be matched by wildcards only. Rules for programs are found by the path of the
// executable: what a declared interpreter reads and does is the interpreter's doing. Listen and connect rules are
// parsed and checked, but no mechanism of this build enforces them.
package profiles
