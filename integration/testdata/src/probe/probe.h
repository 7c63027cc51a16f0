/* probe: one static program with an operation for each thing that a scenario tries. See main.c. */
#ifndef PROBE_H
#define PROBE_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/*
 * An operation gets its own arguments and returns 0 or an errno value. `least` is how many arguments it needs. One that
 * runs another operation ends its arguments with that one's.
 */
struct op {
	const char *name;
	int least;
	int (*run)(int argc, char **argv);
	const char *usage;
};

extern const struct op file_ops[], exec_ops[], proc_ops[], sys_ops[], uring_ops[], ns_ops[], net_ops[], attack_ops[], batch_ops[];

int run_op(int argc, char **argv); /* argv[0] is the operation; says "did" or "failed" and returns its result */

void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
int write_all(int fd, const void *data, size_t n);
int copy_fd(int from, int to);
int wait_child(pid_t pid); /* 0, or ECHILD when it failed or was killed */

/* The result of a system call as an operation's: 0 or errno. */
#define RESULT(call) ((call) < 0 ? errno : 0)

#endif
