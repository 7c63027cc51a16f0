/*
 * bench: measures from inside a container. It reads one command a line from standard input and answers each with one
 * line "= N VALUE": the command's number, counted from 1, and what it took, in nanoseconds for one operation. Each
 * measurement is cut into pieces, and the value is the lower quartile of the pieces: what else ran on the machine for
 * a while does not count.
 *
 *   open PATH           open to read and close
 *   wopen PATH          open to write and close
 *   getppid             the system call
 *   exec PATH COUNT     fork, execve, wait; COUNT for each piece
 *   first A B NAME      open /tree/A/NAME, .. /tree/B-1/NAME once each
 *   crowd N             make N children that sleep
 *   deviate PATH        answer with the monotonic clock, and execute PATH
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PIECES = 24, MOST = 4096 };

static const double piece_ns = 4e6;

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void die(const char *what)
{
	dprintf(2, "bench: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double lower_quartile(double *v, int n)
{
	qsort(v, n, sizeof(*v), compare);
	return v[n / 4];
}

static void open_once(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);
	if (fd < 0)
		die(path);
	close(fd);
}

static void exec_once(const char *path)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		execl(path, path, (char *)NULL);
		_exit(126);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0)
		die(path);
}

/* One operation of the command op. */
static void once(const char *op, const char *path)
{
	switch (op[0]) {
	case 'o': open_once(path, O_RDONLY); break;
	case 'w': open_once(path, O_WRONLY); break;
	case 'g': syscall(SYS_getppid); break;
	case 'e': exec_once(path); break;
	}
}

/* Pieces of count operations; when count is 0, of as many as take about piece_ns. */
static double measure(const char *op, const char *path, long count)
{
	double v[PIECES];

	once(op, path);
	for (long n = 16; count == 0; n *= 2) {
		double begin = now();
		for (long i = 0; i < n; i++)
			once(op, path);
		if (now() - begin > piece_ns / 2)
			count = n;
	}
	for (int p = 0; p < PIECES; p++) {
		double begin = now();
		for (long i = 0; i < count; i++)
			once(op, path);
		v[p] = (now() - begin) / count;
	}
	return lower_quartile(v, PIECES);
}

/* The names are looked up before, so that the disk and the directory cache take no part. */
static double first(int from, int to, const char *name)
{
	static double v[MOST];
	char path[256];
	struct stat st;
	int n = 0;

	for (int i = from; i < to && n < MOST; i++, n++) {
		snprintf(path, sizeof(path), "/tree/%d/%s", i, name);
		if (stat(path, &st) < 0)
			die(path);
		double begin = now();
		open_once(path, O_RDONLY);
		v[n] = now() - begin;
	}
	return lower_quartile(v, n);
}

static void crowd(int n)
{
	while (n-- > 0) {
		pid_t pid = fork();
		if (pid < 0)
			die("fork");
		if (pid == 0) {
			close(0);
			close(1);
			close(2);
			for (;;)
				pause();
		}
	}
}

static double run(int number, char *line)
{
	char op[16] = "", path[256] = "", name[64] = "";
	int a = 0, b = 0;

	if (sscanf(line, "first %d %d %63s", &a, &b, name) == 3)
		return first(a, b, name);
	if (sscanf(line, "crowd %d", &a) == 1) {
		crowd(a);
		return 0;
	}
	if (sscanf(line, "%15s %255s %d", op, path, &a) < 1)
		die("empty command");
	if (strcmp(op, "deviate") == 0) {
		dprintf(1, "= %d %.0f\n", number, now());
		execl(path, path, (char *)NULL);
		die(path);
	}
	return measure(op, path, a);
}

int main(void)
{
	char line[512];

	for (int number = 1; fgets(line, sizeof(line), stdin) != NULL; number++)
		dprintf(1, "= %d %.1f\n", number, run(number, line));
	return 0;
}
