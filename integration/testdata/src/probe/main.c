/*
 * probe OPERATION ARGUMENTS...
 * probe seq OPERATION ARGUMENTS... -- OPERATION ARGUMENTS... -- ...
 *
 * Each operation is one attempt. It prints "did OPERATION" or "failed OPERATION ERRNO" on standard output with a single
 * write, and the exit code is 0 when every operation succeeded, 1 when one failed, 2 for a wrong command line. An
 * operation that executes another program prints nothing when it succeeds: that program does. `probe help` lists them.
 */
#include "probe.h"
#include <stdarg.h>
#include <sys/wait.h>

static const struct op *const tables[] = {file_ops, exec_ops, proc_ops, sys_ops, uring_ops, ns_ops, net_ops, attack_ops, batch_ops};

void say(const char *format, ...)
{
	char line[4096];
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(line, sizeof(line) - 1, format, ap);
	va_end(ap);
	if (n > (int)sizeof(line) - 2)
		n = sizeof(line) - 2;
	line[n++] = '\n';
	write_all(1, line, n);
}

int write_all(int fd, const void *data, size_t n)
{
	const char *p = data;

	while (n > 0) {
		ssize_t w = write(fd, p, n);
		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return errno;
		p += w;
		n -= w;
	}
	return 0;
}

int copy_fd(int from, int to)
{
	char buf[65536];
	ssize_t n;

	while ((n = read(from, buf, sizeof(buf))) > 0) {
		int e = write_all(to, buf, n);
		if (e)
			return e;
	}
	return n < 0 ? errno : 0;
}

int wait_child(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) < 0)
		return errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : ECHILD;
}

static const struct op *find(const char *name)
{
	for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++)
		for (const struct op *o = tables[t]; o->name; o++)
			if (strcmp(o->name, name) == 0)
				return o;
	return NULL;
}

static int sequence(int argc, char **argv);

/*
 * What AppArmor refuses is refused at once, and whoever did it is killed when the record of it has been read. A program
 * that ends by itself before that shows nothing of the kill.
 */
static void linger(void)
{
	static int once;

	if (!once++)
		usleep(5000000);
}

int run_op(int argc, char **argv)
{
	const struct op *o;
	int e;

	if (argc > 1 && strcmp(argv[0], "seq") == 0)
		return sequence(argc - 1, argv + 1);
	if (argc < 1 || (o = find(argv[0])) == NULL || argc - 1 < o->least) {
		dprintf(2, "probe: %s: unknown, or arguments are missing\n", argc < 1 ? "" : argv[0]);
		exit(2);
	}
	e = o->run(argc - 1, argv + 1);
	if (e == 0)
		say("did %s", o->name);
	else
		say("failed %s %s", o->name, strerrorname_np(e) ? strerrorname_np(e) : "?");
	if (e == EACCES)
		linger();
	return e;
}

/* Operations go on after one that failed: what happens next is what a scenario is about. */
static int sequence(int argc, char **argv)
{
	int failed = 0;

	for (int from = 0; from < argc;) {
		int to = from;
		while (to < argc && strcmp(argv[to], "--") != 0)
			to++;
		argv[to] = NULL; /* the arguments of a program to execute end here; argv[argc] is NULL anyway */
		if (run_op(to - from, argv + from) != 0)
			failed = 1;
		from = to + 1;
	}
	return failed;
}

static int help(void)
{
	for (size_t t = 0; t < sizeof(tables) / sizeof(tables[0]); t++)
		for (const struct op *o = tables[t]; o->name; o++)
			printf("%s %s\n", o->name, o->usage);
	printf("seq OP.. -- OP.. -- OP..\n");
	return 0;
}

int main(int argc, char **argv)
{
	if (argc < 2 || strcmp(argv[1], "help") == 0)
		return help();
	return run_op(argc - 1, argv + 1) != 0;
}
