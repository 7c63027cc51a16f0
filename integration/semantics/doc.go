// Package semantics asks one question of everything that answers it: generated profiles, and what processes try under
// them, put to Plan.Decide and to the kernel. On a node without AppArmor the kernel's answer is fanotify's, the sealed
// mounts' and the filter's; on one with AppArmor it is AppArmor's too: the VM matrix runs the same program there.
//
// Each profile is a container with onViolation deny, in which one program tries everything in turn; a verdict counts by
// whether the call succeeded. STOCKADE_SEED=N takes another seed than the fixed one; a run with a fresh one prints it.
//
// # Differences that are known
//
//   - None in verdicts on regular files and directories, by the calls tried here: open for reading, for writing and
//     with O_CREAT, execve, unlink, mkdir, chmod, truncate.
//   - Without AppArmor an undeclared open with O_CREAT in a writable directory fails, and may leave an empty file: its
//     path is asked about first by the filter, and by fanotify when the file is there.
//   - The error differs: EPERM from us, EROFS from sealed mounts, EACCES from AppArmor.
//   - Not asked here, since the mechanisms differ by their nature: FIFOs, devices and sockets (AppArmor alone refuses
//     them), locks, hard links, mounts, what is in /proc. See the documentation of profiles/apparmor.
package semantics
