package seccomp

// need is why runc still makes a syscall after it has loaded the filter.
type need struct {
	name string
	why  string
	// privileged: only without no_new_privs, where runc drops its privileges
	// after loading the filter.
	privileged bool
	// optional: runc, Go or glibc go on without it when it fails with ENOSYS,
	// so that Policy.Errno may take it away.
	optional bool
}

// runtimeNeeds is what runc 1.5 (standard_init_linux.go, setns_init_linux.go)
// does between loading the filter and execve, traced with strace for run and
// exec, as root and as another user, in a user namespace and without, and what
// its Go and C runtimes may do in the meantime at any time.
var runtimeNeeds = []need{
	// Hand the notification descriptor to the parent, close the pipes.
	{name: "write", why: "tells the parent, releases the exec fifo"},
	{name: "read", why: "answers of the parent, files of /proc"},
	{name: "recvfrom", why: "answers of the parent (a seqpacket socket)"},
	{name: "close", why: "closes what the container must not inherit"},
	{name: "execve", why: "starts the container's program"},
	{name: "exit_group", why: "ends runc init when execve fails"},
	{name: "exit", why: "ends a thread of the Go runtime"},

	// Reopen the exec fifo and list /proc/thread-self/fd safely.
	{name: "openat", why: "exec fifo, /proc/thread-self/fd"},
	{name: "openat2", why: "safe look-up in /proc", optional: true},
	{name: "fstat", why: "is it procfs?"},
	{name: "newfstatat", why: "stat of the program and of /proc"},
	{name: "fstatfs", why: "is it procfs?"},
	{name: "statx", why: "mount id of a /proc entry", optional: true},
	{name: "readlinkat", why: "look-up in /proc without openat2"},
	{name: "fcntl", why: "close-on-exec and status flags"},
	{name: "getdents64", why: "lists /proc/thread-self/fd"},
	{name: "faccessat", why: "is there /proc/thread-self?"},
	{name: "faccessat2", why: "may the program be executed?", optional: true},
	{name: "getpid", why: "is the parent still the same?"},
	{name: "getppid", why: "is the parent still the same?"},
	{name: "gettid", why: "thread's own /proc folder"},
	{name: "kill", why: "kills itself when the parent has died"},
	{name: "tgkill", why: "glibc and Go signal their own threads"},
	{name: "prlimit64", why: "gives back the limit on descriptors that Go raised"},

	// The Go scheduler and memory, glibc's threads.
	{name: "futex", why: "Go: sleeping and waking threads"},
	{name: "nanosleep", why: "Go: sysmon"},
	{name: "clock_nanosleep", why: "glibc: sleeping"},
	{name: "clock_gettime", why: "Go: where there is no vDSO clock"},
	{name: "gettimeofday", why: "where there is no vDSO clock"},
	{name: "sched_yield", why: "Go: scheduler"},
	{name: "sched_getaffinity", why: "glibc: a new thread"},
	{name: "getcpu", why: "glibc: where there is no rseq"},
	{name: "getrandom", why: "Go: hash seeds; glibc: malloc"},
	{name: "epoll_pwait", why: "Go: network poller"},
	{name: "epoll_ctl", why: "Go: network poller"},
	{name: "epoll_create1", why: "Go: network poller"},
	{name: "eventfd2", why: "Go: wakes the network poller"},
	{name: "mmap", why: "Go: heap; glibc: stack of a new thread"},
	{name: "munmap", why: "Go, glibc: memory"},
	{name: "mprotect", why: "glibc: guard page of a new thread"},
	{name: "madvise", why: "Go: gives memory back"},
	{name: "brk", why: "glibc: malloc"},
	{name: "prctl", why: "Go names its memory; privileges and the parent's death signal"},
	{name: "clone", why: "Go: a new thread"},
	{name: "clone3", why: "glibc: a new thread", optional: true},
	{name: "set_robust_list", why: "glibc: a new thread"},
	{name: "rseq", why: "glibc: a new thread", optional: true},
	{name: "rt_sigaction", why: "Go: signals"},
	{name: "rt_sigprocmask", why: "Go: signals around a new thread"},
	{name: "rt_sigreturn", why: "returns from a signal"},
	{name: "sigaltstack", why: "Go: stack for signals of a new thread"},
	{name: "restart_syscall", why: "the kernel restarts what a signal interrupted"},

	// Dropping privileges (finalizeNamespace, pdeath.Restore, the program's
	// look-up).
	{name: "capget", why: "drops capabilities", privileged: true},
	{name: "capset", why: "drops capabilities", privileged: true},
	{name: "setgroups", why: "becomes the container's user", privileged: true},
	{name: "setgid", why: "becomes the container's user", privileged: true},
	{name: "setuid", why: "becomes the container's user", privileged: true},
	{name: "fchown", why: "gives stdin, stdout, stderr to the container's user", privileged: true},
	{name: "chdir", why: "goes to the working directory", privileged: true},
	{name: "getcwd", why: "is the working directory inside the container?", privileged: true},
	{name: "close_range", why: "marks descriptors close-on-exec", privileged: true, optional: true},
	{name: "uname", why: "asks for the kernel's version", privileged: true},
	{name: "geteuid", why: "may the program be executed?", privileged: true},
	{name: "getuid", why: "may the program be executed?", privileged: true},
	{name: "getegid", why: "may the program be executed?", privileged: true},
	{name: "getgid", why: "may the program be executed?", privileged: true},
	{name: "getgroups", why: "may the program be executed?", privileged: true},
}

// quiet is what runc tries before it falls back, when it drops privileges
// under the filter (`runc exec` without no_new_privs looks whether it can
// mount a procfs of its own): it is denied with EPERM and not notified, or
// every exec would look like an attack.
var quiet = []string{"open_tree"}

func runtimeNames(noNewPrivileges bool) map[string]need {
	m := map[string]need{}
	for _, n := range runtimeNeeds {
		if !n.privileged || !noNewPrivileges {
			m[n.name] = n
		}
	}
	return m
}
