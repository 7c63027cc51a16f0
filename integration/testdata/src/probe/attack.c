/* Attacks that take more than one step. */
#include "probe.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

/*
 * racedexec DECLARED SECONDS LOADER PROGRAM: DECLARED is executed in ways that fail after the kernel has opened it (a
 * bad argv, arguments that are too long), and LOADER right after it by the same thread with the same pointers. What
 * remains of the first must not help the second.
 */
static int op_racedexec(int n, char **a)
{
	static char path[4096], huge[160 << 10];
	char *longest[2048], *argv[] = {a[2], a[3], NULL};
	time_t end = time(NULL) + atoi(a[1]);
	int e = 0;

	memset(huge, 'x', sizeof(huge) - 1);
	for (int i = 0; i < 2047; i++)
		longest[i] = huge;
	longest[2047] = NULL;
	do {
		pid_t pid = fork();
		if (pid == 0) {
			strcpy(path, a[0]);
			syscall(SYS_execve, path, (char **)1, environ);
			execve(path, longest, environ);
			strcpy(path, a[2]);
			execve(path, argv, environ);
			_exit(errno);
		}
		e = wait_child(pid);
	} while (time(NULL) < end);
	return e;
}

static int operands;
static char **operand;
static int result;
static void *run_operands(void *unused)
{
	(void)unused;
	usleep(50000); /* until the leader is gone */
	result = run_op(operands, operand);
	exit(result != 0);
}

/* leaderless OP..: by a thread of a process whose leader has ended. */
static int op_leaderless(int n, char **a)
{
	pthread_t t;

	operands = n;
	operand = a;
	if ((errno = pthread_create(&t, NULL, run_operands, NULL)) != 0)
		return errno;
	syscall(SYS_exit, 0);
	return 0;
}

/*
 * ownlistener NR: a filter of our own with a listener of our own, newer than the container's, that would let NR go on.
 */
static int op_ownlistener(int n, char **a)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)atoi(a[0]), 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {sizeof(code) / sizeof(code[0]), code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return errno;
	return RESULT(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &prog));
}

/* A word in the memory of a child, which says so when somebody else has changed it. */
static volatile int *word_of_child(pid_t *child, int *done)
{
	static volatile int word;
	int p[2];

	if (pipe(p) < 0)
		return NULL;
	if ((*child = fork()) == 0) {
		char c;
		close(p[1]);
		if (read(p[0], &c, 1) < 0 || word == 0)
			_exit(1);
		say("poked");
		_exit(0);
	}
	close(p[0]);
	*done = p[1];
	return &word;
}

static int op_vmpoke(int n, char **a)
{
	int done, one = 1, e;
	pid_t child;
	volatile int *word = word_of_child(&child, &done);
	struct iovec local = {&one, sizeof(one)}, remote = {(void *)word, sizeof(one)};

	if (word == NULL)
		return errno;
	e = RESULT(process_vm_writev(child, &local, 1, &remote, 1, 0));
	close(done);
	return e ? e : wait_child(child);
}

static int op_mempoke(int n, char **a)
{
	int done, one = 1, e, fd;
	pid_t child;
	volatile int *word = word_of_child(&child, &done);
	char mem[64];

	if (word == NULL)
		return errno;
	snprintf(mem, sizeof(mem), "/proc/%d/mem", child);
	if ((fd = open(mem, O_RDWR | O_CLOEXEC)) < 0)
		return errno;
	e = RESULT(pwrite(fd, &one, sizeof(one), (off_t)(long)word));
	close(done);
	return e ? e : wait_child(child);
}

static int op_ids(int n, char **a)
{
	say("uid %d euid %d", getuid(), geteuid());
	return 0;
}

/* deep DIR LEVELS PROGRAM: a copy of PROGRAM so deep that no path names it, executed by a relative one. */
static int op_deep(int n, char **a)
{
	char name[201];
	int from = open(a[2], O_RDONLY | O_CLOEXEC), to, e;

	memset(name, 'd', sizeof(name) - 1);
	name[200] = 0;
	if (from < 0 || chdir(a[0]) < 0)
		return errno;
	for (int i = atoi(a[1]); i > 0; i--)
		if (mkdir(name, 0755) < 0 || chdir(name) < 0)
			return errno;
	if ((to = open("x", O_WRONLY | O_CREAT | O_CLOEXEC, 0755)) < 0)
		return errno;
	if ((e = copy_fd(from, to)) != 0)
		return e;
	close(to);
	return RESULT(execl("x", "x", NULL));
}

/* maprun PATH: maps the file executable, as the loader does with a library. */
static int op_maprun(int n, char **a)
{
	int fd = open(a[0], O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return errno;
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED ? errno : 0;
}

/* linkfd NAME FILE: the open file FILE gets the name NAME, by way of /proc. */
static int op_linkfd(int n, char **a)
{
	char proc[64];
	int fd = open(a[1], O_PATH | O_CLOEXEC);

	if (fd < 0)
		return errno;
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	return RESULT(linkat(AT_FDCWD, proc, AT_FDCWD, a[0], AT_SYMLINK_FOLLOW));
}

static int op_exchange(int n, char **a) { return RESULT(renameat2(AT_FDCWD, a[0], AT_FDCWD, a[1], RENAME_EXCHANGE)); }

/* unlinkat DIR NAME: by a descriptor of the directory. */
static int op_unlinkat(int n, char **a)
{
	int dir = open(a[0], O_PATH | O_DIRECTORY | O_CLOEXEC);
	return dir < 0 ? errno : RESULT(unlinkat(dir, a[1], 0));
}

static int op_cp(int n, char **a)
{
	int from = open(a[0], O_RDONLY | O_CLOEXEC), to, e;

	if (from < 0)
		return errno;
	to = open(a[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
	if (to < 0)
		return errno;
	e = copy_fd(from, to);
	close(from);
	close(to);
	return e;
}

static int op_chroot(int n, char **a) { return RESULT(chroot(a[0])); }

static int op_tmpfilelink(int n, char **a)
{
	char proc[64];
	int fd = open(a[0], O_TMPFILE | O_RDWR | O_CLOEXEC, 0644);

	if (fd < 0)
		return errno;
	write_all(fd, a[2], strlen(a[2]));
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	return RESULT(linkat(AT_FDCWD, proc, AT_FDCWD, a[1], AT_SYMLINK_FOLLOW));
}

const struct op attack_ops[] = {
	{"racedexec", 4, op_racedexec, "DECLARED SECONDS LOADER PROGRAM: fail to execute DECLARED, then LOADER, in a loop"},
	{"leaderless", 1, op_leaderless, "OP..: by a thread whose leader has ended"},
	{"ownlistener", 1, op_ownlistener, "NR: a seccomp listener of our own for this call"},
	{"vmpoke", 0, op_vmpoke, "change a child's memory with process_vm_writev"},
	{"mempoke", 0, op_mempoke, "change a child's memory through /proc/PID/mem"},
	{"ids", 0, op_ids, "print uid and euid"},
	{"deep", 3, op_deep, "DIR LEVELS PROGRAM: executed from deeper than a path can name"},
	{"maprun", 1, op_maprun, "FILE: map it executable"},
	{"linkfd", 2, op_linkfd, "NAME FILE: link an open file"},
	{"tmpfilelink", 3, op_tmpfilelink, "DIR NAME TEXT: a file without a name gets one"},
	{"exchange", 2, op_exchange, "A B: swap two names"},
	{"unlinkat", 2, op_unlinkat, "DIR NAME"},
	{"cp", 2, op_cp, "FROM TO: read and write, mode 0755"},
	{"chroot", 1, op_chroot, "DIR"},
	{0},
};
