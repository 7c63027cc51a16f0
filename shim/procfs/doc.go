// Package procfs tells facts about a thread that waits for an answer: who it
// is, what it runs, and which system call it is in.
//
//	proc, err := procfs.Open()
//	thread, err := proc.Thread(ev.TID)
//	exe, err := proc.Exe(thread.TGID)
//	sys, err := proc.Syscall(ev.TID)
//	flags, known := procfs.OpenFlags(sys)
//
// The facts hold because the thread is blocked in the kernel: its system call,
// its arguments and its stack cannot change before it is answered. Of a thread
// that runs, they are a guess. All of it comes from /proc of this process's
// pid and mount namespace and is written by the kernel; what a program can
// choose (its comm, its path) is parsed so that it cannot pass for a fact.
//
// # Nothing here waits for the container
//
// The answer path must not: the reader of events would wait for a thread that
// waits for the reader. So nothing touches the target's memory (cmdline and
// environ fault it in) but [FS.Cmdline], which is bounded in time, and
// [String]; neither is for that path. stat goes to a file system's cache, not to its server. What
// has to be retried, because the thread has sent its event but is not yet
// asleep, is retried for [SettleTime] at most.
//
// # Limits
//
// Kernel 5.7: before it, reading syscall or stack of a thread in execve
// deadlocked. Stack needs CAP_SYS_ADMIN in the first user namespace,
// CONFIG_STACKTRACE and CONFIG_KALLSYMS. A path is as the mount namespace of
// the thing it names sees it; of something on a detached mount it starts at
// that mount. See proc(5), proc_pid_syscall(5), proc_pid_stat(5), cgroups(7).
package procfs
