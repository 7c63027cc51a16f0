/* Namespaces and mounts. */
#include "probe.h"
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>

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

static int op_move(int n, char **a) { return RESULT(mount(a[0], a[1], NULL, MS_MOVE, NULL)); }
static int op_pivot(int n, char **a) { return RESULT(syscall(SYS_pivot_root, a[0], a[1]) < 0 ? -1 : chdir("/")); }

static int op_overlay(int n, char **a)
{
	char options[4096];

	snprintf(options, sizeof(options), "lowerdir=%s:%s", a[0], a[1]);
	return RESULT(mount("overlay", a[2], "overlay", MS_RDONLY, options));
}

/* New user and mount namespaces, in which nothing that is mounted shows elsewhere. */
static int new_user_mount(void)
{
	int e = new_user(CLONE_NEWNS);
	return e ? e : RESULT(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
}

static int op_unshare_user_mount(int n, char **a)
{
	int e = new_user_mount();
	return e ? e : run_op(n, a);
}

static int op_userns_mount(int n, char **a)
{
	int e = new_user_mount();

	if (e)
		return e;
	if (mount(a[0], a[1], NULL, MS_BIND, NULL) < 0)
		return errno;
	return RESULT(execve(a[1], a + 1, environ));
}

static int mount_ids(unsigned *ids, int max)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[4096];
	int n = 0;

	while (f && n < max && fgets(line, sizeof(line), f))
		ids[n++] = strtoul(line, NULL, 10);
	if (f)
		fclose(f);
	return n;
}

/* The kernel uses the number of a mount that is gone again: mounts go on being made until one has an old number. */
static int op_reused_mount(int n, char **a)
{
	unsigned old[256];
	int known = mount_ids(old, 256), e = new_user_mount();

	if (e)
		return e;
	for (int i = 0, found = 0; i < 300 && !found; i++) {
		struct statx st;
		if (mount(a[0], a[1], NULL, MS_BIND, NULL) < 0 || statx(AT_FDCWD, a[1], 0, STATX_MNT_ID, &st) < 0)
			return errno;
		for (int k = 0; k < known; k++)
			found |= old[k] == st.stx_mnt_id;
	}
	return RESULT(execve(a[1], a + 1, environ));
}

/* A child that has namespaces of its own, in which it has done an operation, and sleeps. */
static pid_t resident(int n, char **a)
{
	int ready[2];
	char c = 1;
	pid_t pid;

	if (pipe2(ready, O_CLOEXEC) < 0)
		return -1;
	if ((pid = fork()) == 0) {
		c = new_user_mount() != 0 || (n > 0 && run_op(n, a) != 0);
		write_all(ready[1], &c, 1);
		for (;;)
			pause();
	}
	if (pid < 0 || read(ready[0], &c, 1) != 1 || c != 0) {
		errno = ECHILD;
		return -1;
	}
	return pid;
}

static int op_setns_mount(int n, char **a)
{
	char name[64];
	pid_t pid = resident(0, NULL);
	int user, mnt;

	if (pid < 0)
		return errno;
	snprintf(name, sizeof(name), "/proc/%d/ns/user", pid);
	user = open(name, O_RDONLY | O_CLOEXEC);
	snprintf(name, sizeof(name), "/proc/%d/ns/mnt", pid);
	mnt = open(name, O_RDONLY | O_CLOEXEC);
	if (user < 0 || mnt < 0 || setns(user, CLONE_NEWUSER) < 0 || setns(mnt, CLONE_NEWNS) < 0)
		return errno;
	return run_op(n, a);
}

static int op_foreign_exec(int n, char **a)
{
	char name[4096];
	pid_t pid = resident(n - 1, a + 1);

	if (pid < 0)
		return errno;
	snprintf(name, sizeof(name), "/proc/%d/root%s", pid, a[0]);
	execve(name, (char *[]){name, NULL}, environ);
	return errno;
}

static int op_tree(int n, char **a)
{
	int fd = syscall(SYS_open_tree, AT_FDCWD, a[0], OPEN_TREE_CLONE | O_CLOEXEC);
	return RESULT(fd < 0 ? -1 : syscall(SYS_move_mount, fd, "", AT_FDCWD, a[1], MOVE_MOUNT_F_EMPTY_PATH));
}

static int op_tree_exec(int n, char **a)
{
	int fd = syscall(SYS_open_tree, AT_FDCWD, a[0], OPEN_TREE_CLONE | O_CLOEXEC);
	return RESULT(fd < 0 ? -1 : syscall(SYS_execveat, fd, a[1], a + 1, environ, 0));
}

static int detached_tmpfs(void)
{
	int fs = syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);

	if (fs < 0 || syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
		return -1;
	return syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, 0);
}

static int op_fsmount(int n, char **a)
{
	int fd = detached_tmpfs();
	return RESULT(fd < 0 ? -1 : syscall(SYS_move_mount, fd, "", AT_FDCWD, a[0], MOVE_MOUNT_F_EMPTY_PATH));
}

static int op_fsmount_exec(int n, char **a)
{
	int fd = detached_tmpfs(), from = open(a[0], O_RDONLY | O_CLOEXEC), to, e;

	if (fd < 0 || from < 0 || (to = openat(fd, "x", O_WRONLY | O_CREAT | O_CLOEXEC, 0755)) < 0)
		return errno;
	e = copy_fd(from, to);
	close(to);
	return e ? e : RESULT(syscall(SYS_execveat, fd, "x", a, environ, 0));
}

const struct op ns_ops[] = {
	{"unshare-user", 1, op_unshare_user, "OP..: as root of a new user namespace"},
	{"unshare-mount", 1, op_unshare_mount, "OP..: in a new mount namespace"},
	{"unshare-user-mount", 1, op_unshare_user_mount, "OP..: as root of new user and mount namespaces"},
	{"setns-mount", 1, op_setns_mount, "OP..: in the user and mount namespaces of a child"},
	{"foreign-exec", 2, op_foreign_exec, "PATH OP..: OP by a child in new user and mount namespaces, whose PATH is executed"},
	{"reused-mount", 2, op_reused_mount, "A B ARGS..: userns-mount, until the mount has the number of one that is gone"},
	{"userns-mount", 2, op_userns_mount, "A B ARGS..: in new user and mount namespaces, A bound over B, B executed"},
	{"bind", 2, op_bind, "A B: bind mount"},
	{"tmpfs", 1, op_tmpfs, "DIR: a new tmpfs there"},
	{"umount", 1, op_umount, "DIR"},
	{"move", 2, op_move, "A B: the mount on A goes to B"},
	{"pivot", 2, op_pivot, "NEW OLD: pivot_root"},
	{"overlay", 3, op_overlay, "A B DIR: both, read-only, as an overlay there"},
	{"tree", 2, op_tree, "A B: open_tree and move_mount"},
	{"tree-exec", 2, op_tree_exec, "DIR NAME ARGS..: executed in a copy of the mount that lies nowhere"},
	{"fsmount", 1, op_fsmount, "DIR: a new tmpfs there, by fsopen"},
	{"fsmount-exec", 1, op_fsmount_exec, "PATH ARGS..: copied to a new tmpfs that lies nowhere, and executed"},
	{0},
};
