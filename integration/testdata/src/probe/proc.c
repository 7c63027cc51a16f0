/* What a process can be: many, renamed, in another session, somebody else. */
#include "probe.h"
#include <signal.h>
#include <time.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static int op_sleep(int n, char **a)
{
	say("sleeping");
	sleep(atoi(a[0]));
	return 0;
}

/* kill PID SIGNAL */
static int op_kill(int n, char **a) { return RESULT(kill(atoi(a[0]), atoi(a[1]))); }

static int op_usleep(int n, char **a) { return RESULT(usleep(atoi(a[0]))); }

/* fork N SECONDS: N children that sleep; this process waits for them. */
static int op_fork(int n, char **a)
{
	int count = atoi(a[0]);

	for (int i = 0; i < count; i++) {
		pid_t pid = fork();
		if (pid < 0)
			return errno;
		if (pid == 0) {
			sleep(atoi(a[1]));
			_exit(0);
		}
	}
	say("forked %d", count);
	while (wait(NULL) > 0)
		;
	return 0;
}

/* forkbomb N: every process forks until N have been made, counted in shared memory; then all sleep. N is a must. */
static int op_forkbomb(int n, char **a)
{
	int limit = atoi(a[0]);
	int pipefd[2];
	char token = 0;

	/* The pipe holds one token for each process that may still be made. */
	if (limit > 4096 || pipe2(pipefd, O_NONBLOCK | O_CLOEXEC) < 0)
		return limit > 4096 ? EINVAL : errno;
	for (int i = 0; i < limit; i++)
		if (write(pipefd[1], &token, 1) != 1)
			return errno;
	say("forkbomb starts");
	while (read(pipefd[0], &token, 1) == 1)
		if (fork() < 0)
			break;
	sleep(60);
	return 0;
}

/* then: gives the rest of the arguments to another operation. */
static int then(int error, int n, char **a) { return error ? error : run_op(n, a); }

static int op_prctlname(int n, char **a) { return then(RESULT(prctl(PR_SET_NAME, a[0])), n - 1, a + 1); }
static int op_setsid(int n, char **a) { return then(RESULT(setsid()), n, a); }
static int op_setpgid(int n, char **a) { return then(RESULT(setpgid(0, 0)), n, a); }

static int op_setuid(int n, char **a)
{
	int id = atoi(a[0]);
	return then(RESULT(setgid(id)) ?: RESULT(setuid(id)), n - 1, a + 1);
}

/* child OP..: in a child, which is waited for. */
static int op_child(int n, char **a)
{
	pid_t pid = fork();

	if (pid < 0)
		return errno;
	if (pid == 0)
		_exit(run_op(n, a) != 0);
	return wait_child(pid);
}

/* daemon OP..: in a grandchild whose parent is gone; nobody waits. */
static int op_daemon(int n, char **a)
{
	pid_t pid = fork();

	if (pid < 0)
		return errno;
	if (pid > 0)
		return wait_child(pid);
	setsid();
	if (fork() == 0)
		_exit(run_op(n, a) != 0);
	_exit(0);
}

static int op_loop(int n, char **a)
{
	for (int i = atoi(a[0]), e; i > 0; i--)
		if ((e = run_op(n - 1, a + 1)) != 0)
			return e;
	return 0;
}

static volatile sig_atomic_t terminated;
static void on_term(int sig) { terminated = sig; }

/* stamp OP..: says the time, of the clock that never goes back, right before. */
static int op_stamp(int n, char **a)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	say("at %lld ns", now.tv_sec * 1000000000LL + now.tv_nsec);
	return run_op(n, a);
}

/* onterm OP..: at SIGTERM, which is when a container is asked to stop. */
static int op_onterm(int n, char **a)
{
	struct sigaction act = {.sa_handler = on_term};

	sigaction(SIGTERM, &act, NULL);
	say("waiting for SIGTERM");
	while (!terminated)
		usleep(2000);
	return run_op(n, a);
}

/* ignoreterm OP..: with SIGTERM ignored. */
static int op_ignoreterm(int n, char **a)
{
	signal(SIGTERM, SIG_IGN);
	return run_op(n, a);
}

const struct op proc_ops[] = {
	{"sleep", 1, op_sleep, "SECONDS"},
	{"kill", 2, op_kill, "PID SIGNAL"},
	{"usleep", 1, op_usleep, "MICROSECONDS"},
	{"fork", 2, op_fork, "N SECONDS: N sleeping children"},
	{"forkbomb", 1, op_forkbomb, "N: forks until N processes were made, at most 4096"},
	{"prctlname", 2, op_prctlname, "NAME OP..: under another comm"},
	{"setsid", 1, op_setsid, "OP..: in a session of its own (not as process group leader)"},
	{"setpgid", 1, op_setpgid, "OP..: in a process group of its own"},
	{"setuid", 2, op_setuid, "ID OP..: as user and group ID"},
	{"child", 1, op_child, "OP..: in a child"},
	{"daemon", 1, op_daemon, "OP..: in an orphan of a session of its own"},
	{"loop", 2, op_loop, "N OP.."},
	{"stamp", 1, op_stamp, "OP..: after saying the time"},
	{"onterm", 1, op_onterm, "OP..: at SIGTERM"},
	{"ignoreterm", 1, op_ignoreterm, "OP..: with SIGTERM ignored"},
	{0},
};
