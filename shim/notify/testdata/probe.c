// Makes the calls that its arguments name, one after the other, and prints
// each with its errno (0: it worked). "pause" waits to be killed.
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long many(long n) {
	struct timespec a, b;
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (long i = 0; i < n; i++) syscall(SYS_getppid);
	clock_gettime(CLOCK_MONOTONIC, &b);
	return ((b.tv_sec - a.tv_sec) * 1000000000L + b.tv_nsec - a.tv_nsec) * 100 / n;
}

static long probe(const char *what) {
	long arg = 0;
	const char *equals = strchr(what, '=');
	if (equals) arg = strtol(equals + 1, 0, 0);
	if (!strcmp(what, "keyctl")) return syscall(SYS_keyctl, 1, 2, 3, 4, 5);
	if (!strcmp(what, "getppid")) return syscall(SYS_getppid);
	if (!strcmp(what, "pause")) return pause();
	if (!strncmp(what, "number=", 7)) return syscall(arg, 0, 0, 0, 0, 0, 0);
	if (!strncmp(what, "socket=", 7)) {
		long fd = syscall(SYS_socket, arg, 5 /* SEQPACKET */, 0);
		if (fd >= 0) close(fd);
		return fd;
	}
	if (!strncmp(what, "clone=", 6)) {
		long pid = syscall(SYS_clone, arg | SIGCHLD, 0, 0, 0, 0);
		if (pid == 0) _exit(0);
		return pid;
	}
	if (!strncmp(what, "personality=", 12)) return syscall(SYS_personality, arg);
	if (!strncmp(what, "many=", 5)) {
		printf("%s %ld\n", what, many(arg));
		return 0;
	}
#ifdef __x86_64__
	if (!strcmp(what, "int80")) {
		long r;
		__asm__ volatile("int $0x80" : "=a"(r) : "a"(20) : "memory", "r8", "r9", "r10", "r11");
		return r;
	}
	if (!strcmp(what, "x32")) return syscall(0x40000000 | SYS_getpid);
#endif
	printf("unknown %s\n", what);
	exit(2);
}

int main(int argc, char **argv) {
	setvbuf(stdout, 0, _IONBF, 0);
	for (int i = 1; i < argc; i++) {
		errno = 0;
		long r = probe(argv[i]);
		printf("%s %d\n", argv[i], r < 0 ? errno : 0);
	}
	_exit(0);
}
