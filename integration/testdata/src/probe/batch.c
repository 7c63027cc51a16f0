/* Many small accesses, each of which only asks: what is allowed leaves no more than it must. */
#include "probe.h"
#include <sys/stat.h>
#include <sys/wait.h>

static int opens(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC, 0644);

	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

/* The result of an exec comes back through a pipe that a program which runs closes. */
static int executes(char *path)
{
	int fds[2], e = 0, status;
	char *argv[] = {path, NULL};
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return errno;
	pid = fork();
	if (pid == 0) {
		dup2(open("/dev/null", O_WRONLY), 1);
		execv(path, argv);
		e = errno;
		write_all(fds[1], &e, sizeof(e));
		_exit(1);
	}
	close(fds[1]);
	if (read(fds[0], &e, sizeof(e)) < 0)
		e = errno;
	close(fds[0]);
	waitpid(pid, &status, 0);
	return e;
}

static int ask(char op, char *path)
{
	switch (op) {
	case 'r':
		return opens(path, O_RDONLY);
	case 'w':
		return opens(path, O_WRONLY);
	case 'c':
		return opens(path, O_WRONLY | O_CREAT | O_EXCL);
	case 'x':
		return executes(path);
	case 'u':
		return RESULT(unlink(path));
	case 'd':
		return RESULT(mkdir(path, 0755));
	case 'm':
		return RESULT(chmod(path, 0755));
	case 't':
		return RESULT(truncate(path, 100000000));
	}
	return EINVAL;
}

/* batch OPPATH..: r/etc/hosts reads, and so on. Says for each what came of it, by number: names may hold anything. */
static int batch(int argc, char **argv)
{
	for (int i = 0; i < argc; i++)
		say("%d %s", i, strerrorname_np(ask(argv[i][0], argv[i] + 1)));
	return 0;
}

const struct op batch_ops[] = {
	{"batch", 0, batch, "[rwcxudmt]PATH.."},
	{0},
};
