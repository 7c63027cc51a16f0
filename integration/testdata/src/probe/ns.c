/* Namespaces and mounts. */
#include "probe.h"
#include <sched.h>
#include <sys/mount.h>

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), e;

	if (fd < 0)
		return errno;
	e = write_all(fd, text, strlen(text));
	close(fd);
	return e;
}

/* Becomes root of a user namespace of its own, which needs no privilege (user_namespaces(7)). */
static int new_user(int flags)
{
	char map[64];
	int uid = geteuid(), gid = getegid(), e;

	if (unshare(CLONE_NEWUSER | flags) < 0)
		return errno;
	snprintf(map, sizeof(map), "0 %d 1\n", uid);
	if ((e = write_file("/proc/self/uid_map", map)) != 0)
		return e;
	if ((e = write_file("/proc/self/setgroups", "deny")) != 0)
		return e;
	snprintf(map, sizeof(map), "0 %d 1\n", gid);
	return write_file("/proc/self/gid_map", map);
}

static int op_unshare_user(int n, char **a)
{
	int e = new_user(0);
	return e ? e : run_op(n, a);
}

static int op_unshare_mount(int n, char **a)
{
	return unshare(CLONE_NEWNS) < 0 ? errno : run_op(n, a);
}

static int op_bind(int n, char **a) { return RESULT(mount(a[0], a[1], NULL, MS_BIND, NULL)); }
static int op_tmpfs(int n, char **a) { return RESULT(mount("tmpfs", a[0], "tmpfs", 0, NULL)); }
static int op_umount(int n, char **a) { return RESULT(umount2(a[0], MNT_DETACH)); }

static int op_userns_mount(int n, char **a)
{
	int e = new_user(CLONE_NEWNS);

	if (e)
		return e;
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mount(a[0], a[1], NULL, MS_BIND, NULL) < 0)
		return errno;
	return RESULT(execve(a[1], a + 1, environ));
}

const struct op ns_ops[] = {
	{"unshare-user", 1, op_unshare_user, "OP..: as root of a new user namespace"},
	{"unshare-mount", 1, op_unshare_mount, "OP..: in a new mount namespace"},
	{"userns-mount", 2, op_userns_mount, "A B ARGS..: in new user and mount namespaces, A bound over B, B executed"},
	{"bind", 2, op_bind, "A B: bind mount"},
	{"tmpfs", 1, op_tmpfs, "DIR: a new tmpfs there"},
	{"umount", 1, op_umount, "DIR"},
	{0},
};
