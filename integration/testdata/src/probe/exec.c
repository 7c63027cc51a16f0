/* Ways to execute a program. */
#include "probe.h"
#include <pthread.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

static int exec_fd(int fd, char **argv)
{
	return RESULT(syscall(SYS_execveat, fd, "", argv, environ, AT_EMPTY_PATH));
}

/* A file that is open for writing cannot be executed (ETXTBSY): it is opened again, read-only. */
static int reopen_and_exec(int fd, char **argv)
{
	char proc[64];
	int again;

	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	again = open(proc, O_RDONLY | O_CLOEXEC);
	if (again < 0)
		return errno;
	close(fd);
	return exec_fd(again, argv);
}

static int copy_path(const char *from, int to)
{
	int fd = open(from, O_RDONLY | O_CLOEXEC), e;

	if (fd < 0)
		return errno;
	e = copy_fd(fd, to);
	close(fd);
	return e;
}

static int op_exec(int n, char **a) { return RESULT(execve(a[0], a, environ)); }
static int op_argv0(int n, char **a) { char *path = a[1]; a[1] = a[0]; return RESULT(execve(path, a + 1, environ)); }

static int op_execat(int n, char **a)
{
	int fd = open(a[0], O_PATH | O_CLOEXEC);
	return fd < 0 ? errno : exec_fd(fd, a);
}

static int op_envexec(int n, char **a)
{
	char *env[] = {a[0], NULL};
	return RESULT(execve(a[1], a + 1, env));
}

static void *exec_in_thread(void *argv)
{
	char **a = argv;
	execve(a[0], a, environ);
	return (void *)(long)errno;
}

/* The kernel ends the other threads and gives the leader's id to the one that executes. */
static int op_threadexec(int n, char **a)
{
	pthread_t t;
	void *e;

	if ((errno = pthread_create(&t, NULL, exec_in_thread, a)) != 0)
		return errno;
	pthread_join(t, &e);
	return (int)(long)e;
}

static int op_memfd(int n, char **a)
{
	int fd = syscall(SYS_memfd_create, n > 1 ? a[1] : "probe", MFD_CLOEXEC), e;

	if (fd < 0)
		return errno;
	if ((e = copy_path(a[0], fd)) != 0)
		return e;
	return exec_fd(fd, (char *[]){a[0], NULL});
}

static int op_otmpfile(int n, char **a)
{
	int fd = open(a[0], O_TMPFILE | O_RDWR | O_CLOEXEC, 0755), e;

	if (fd < 0)
		return errno;
	if ((e = copy_path(a[1], fd)) != 0)
		return e;
	return reopen_and_exec(fd, a + 1);
}

static int copy_to(const char *from, const char *to, int *fd)
{
	*fd = open(to, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
	return *fd < 0 ? errno : copy_path(from, *fd);
}

static int op_copyexec(int n, char **a)
{
	int fd, e = copy_to(a[0], a[1], &fd);

	if (e)
		return e;
	close(fd);
	return RESULT(execve(a[1], a + 1, environ));
}

static int op_unlinkexec(int n, char **a)
{
	int fd, e = copy_to(a[0], a[1], &fd);

	if (e)
		return e;
	if (unlink(a[1]) < 0)
		return errno;
	return reopen_and_exec(fd, a + 1);
}

static pid_t child(char **argv)
{
	pid_t pid = fork();

	if (pid == 0) {
		execve(argv[0], argv, environ);
		say("failed child %s", strerrorname_np(errno));
		_exit(126);
	}
	return pid;
}

static int op_spawn(int n, char **a)
{
	pid_t pid = child(a);
	return pid < 0 ? errno : wait_child(pid);
}

/* forkexec N SECONDS PATH..: N children at once, again and again; each must exit with 0. */
static int op_forkexec(int n, char **a)
{
	int width = atoi(a[0]), runs = 0, bad = 0;
	time_t end = time(NULL) + atoi(a[1]);
	pid_t *pids = calloc(width, sizeof(*pids));

	do {
		for (int i = 0; i < width; i++)
			if ((pids[i] = child(a + 2)) < 0)
				return errno;
		for (int i = 0; i < width; i++, runs++)
			bad += wait_child(pids[i]) != 0;
	} while (time(NULL) < end);
	free(pids);
	say("ran %d bad %d", runs, bad);
	return bad ? ECHILD : 0;
}

const struct op exec_ops[] = {
	{"exec", 1, op_exec, "PATH ARGS..: execve"},
	{"argv0", 2, op_argv0, "NAME PATH ARGS..: execve under another name"},
	{"execat", 1, op_execat, "PATH ARGS..: execveat by descriptor"},
	{"envexec", 2, op_envexec, "NAME=VALUE PATH ARGS..: execve with just this environment"},
	{"threadexec", 1, op_threadexec, "PATH ARGS..: execve from a thread that is not the leader"},
	{"memfd", 1, op_memfd, "PATH [NAME]: copied to a memfd and executed"},
	{"otmpfile", 2, op_otmpfile, "DIR PATH ARGS..: copied to a file without a name"},
	{"copyexec", 2, op_copyexec, "PATH TO ARGS..: copied and executed there"},
	{"unlinkexec", 2, op_unlinkexec, "PATH TO ARGS..: copied, removed, executed by descriptor"},
	{"spawn", 1, op_spawn, "PATH ARGS..: fork, execve, wait"},
	{"forkexec", 3, op_forkexec, "N SECONDS PATH ARGS..: N children at once, again and again"},
	{0},
};
