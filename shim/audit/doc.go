// Package audit reads the kernel's audit records, as they are made, by netlink multicast: what AppArmor refused or would
// have refused, and what a seccomp filter killed. It knows no policy.
//
// The group AUDIT_NLGRP_READLOG (audit(7), linux/audit.h; Linux 3.16) goes to everybody who has CAP_AUDIT_READ, beside
// auditd and without it; records that auditd takes are not taken from it. [Open] joins, [Reader.Read] returns one
// [Event] after the other, Close wakes it.
//
// # Limits
//
//   - The kernel makes records of refusals whether audit is enabled or not, and limits their rate only if told to
//     (auditctl -r). What its backlog loses it counts; [Reader.Lost] asks for that count. What this socket's own buffer
//     loses is a gap: Read returns [ErrLost] once and then goes on. Either way: something happened that was not seen.
//   - A record may be of any process of the node. Its pid is the thread's, in the initial pid namespace. By the time the
//     record is read the process may have ended: who wants to know whose it was keeps a table of his own, or goes by the
//     AppArmor profile, which only the container's processes have.
//   - A record comes after the refusal. It stops nothing.
//   - Multicast is for the initial user namespace; in a container of its own a shim would hear nothing.
//   - The same refusal repeated makes one record each time: a loop in a container is a flood here.
//   - Seccomp makes records of kills, with audit enabled or not (seen on 6.18); which other actions leave one says
//     /proc/sys/kernel/seccomp/actions_logged. User notifications leave none.
//   - With audit=0 on the kernel's command line there are none at all.
//   - A rule of the node that leaves records out (auditctl -a always,exclude) takes them away uncounted. One by type is
//     noticed when a profile is loaded, as that is recorded too; one by user is not.
package audit
