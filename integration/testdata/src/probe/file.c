/* Operations on files. Those that open name the system call whose flags matter. */
#include "probe.h"
#include <dirent.h>
#include <linux/openat2.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>

static int print_and_close(int fd)
{
	int e;

	if (fd < 0)
		return errno;
	e = copy_fd(fd, 1);
	close(fd);
	return e;
}

static int text_and_close(int fd, const char *text)
{
	int e;

	if (fd < 0)
		return errno;
	e = write_all(fd, text, strlen(text));
	close(fd);
	return e;
}

static int openat2(const char *path, unsigned long flags, unsigned long mode)
{
	struct open_how how = {.flags = flags, .mode = mode};
	return syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
}

/* Opens by way of a descriptor that was got with O_PATH, which no permission event announces. */
static int open_by_fd(const char *path, int flags)
{
	char proc[64];
	int fd = open(path, O_PATH | O_CLOEXEC);

	if (fd < 0)
		return -1;
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	return open(proc, flags | O_CLOEXEC);
}

static int op_cat(int n, char **a) { return print_and_close(open(a[0], O_RDONLY | O_CLOEXEC)); }
static int op_write(int n, char **a) { return text_and_close(open(a[0], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644), a[1]); }
static int op_overwrite(int n, char **a) { return text_and_close(open(a[0], O_WRONLY | O_CLOEXEC), a[1]); }
static int op_append(int n, char **a) { return text_and_close(open(a[0], O_WRONLY | O_APPEND | O_CLOEXEC), a[1]); }
static int op_rdwr(int n, char **a) { return text_and_close(open(a[0], O_RDWR | O_CLOEXEC), a[1]); }
static int op_openat2_read(int n, char **a) { return print_and_close(openat2(a[0], O_RDONLY, 0)); }
static int op_openat2_write(int n, char **a) { return text_and_close(openat2(a[0], O_WRONLY | O_CREAT | O_TRUNC, 0644), a[1]); }
static int op_openbyfd(int n, char **a) { return print_and_close(open_by_fd(a[0], O_RDONLY)); }
static int op_openbyfd_write(int n, char **a) { return text_and_close(open_by_fd(a[0], O_WRONLY), a[1]); }

static int op_openat(int n, char **a)
{
	int dir = open(a[0], O_PATH | O_DIRECTORY | O_CLOEXEC);
	return dir < 0 ? errno : print_and_close(openat(dir, a[1], O_RDONLY | O_CLOEXEC));
}

static int op_chdir(int n, char **a) { return RESULT(chdir(a[0])); }
static int op_truncate(int n, char **a) { return RESULT(truncate(a[0], 0)); }
static int op_unlink(int n, char **a) { return RESULT(unlink(a[0])); }
static int op_rename(int n, char **a) { return RESULT(rename(a[0], a[1])); }
static int op_link(int n, char **a) { return RESULT(link(a[0], a[1])); }
static int op_symlink(int n, char **a) { return RESULT(symlink(a[0], a[1])); }
static int op_mkdir(int n, char **a) { return RESULT(mkdir(a[0], 0755)); }
static int op_rmdir(int n, char **a) { return RESULT(rmdir(a[0])); }
static int op_mkfifo(int n, char **a) { return RESULT(mkfifo(a[0], 0666)); }
static int op_chmod(int n, char **a) { return RESULT(chmod(a[1], strtol(a[0], NULL, 8))); }
static int op_chown(int n, char **a) { return RESULT(chown(a[1], atoi(a[0]), atoi(a[0]))); }
static int op_setxattr(int n, char **a) { return RESULT(setxattr(a[0], "user.probe", "x", 1, 0)); }
static int op_utime(int n, char **a) { return RESULT(utimensat(AT_FDCWD, a[0], NULL, 0)); }

/* The same by a descriptor of a file that is open for reading. */
static int op_fsetxattr(int n, char **a)
{
	int fd = open(a[0], O_RDONLY | O_CLOEXEC);

	return fd < 0 ? errno : RESULT(fsetxattr(fd, "user.probe", "x", 1, 0));
}

static int op_futime(int n, char **a)
{
	int fd = open(a[0], O_RDONLY | O_CLOEXEC);

	return fd < 0 ? errno : RESULT(futimens(fd, NULL));
}

static int op_stat(int n, char **a)
{
	struct stat st;
	if (stat(a[0], &st) < 0)
		return errno;
	say("mode %o size %lld", st.st_mode, (long long)st.st_size);
	return 0;
}

static int op_list(int n, char **a)
{
	DIR *d = opendir(a[0]);
	struct dirent *e;

	if (d == NULL)
		return errno;
	while ((e = readdir(d)) != NULL)
		say("entry %s", e->d_name);
	closedir(d);
	return 0;
}

/* waitfile PATH: until it exists. It asks without opening anything. */
static int op_waitfile(int n, char **a)
{
	while (access(a[0], F_OK) < 0) {
		if (errno != ENOENT)
			return errno;
		usleep(2000);
	}
	return 0;
}

static int op_copy(int n, char **a)
{
	int from = open(a[0], O_RDONLY | O_CLOEXEC), to, e = 0;
	ssize_t w;

	if (from < 0)
		return errno;
	to = open(a[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
	if (to < 0)
		return errno;
	while ((w = copy_file_range(from, NULL, to, NULL, 1 << 20, 0)) > 0)
		;
	if (w < 0)
		e = errno;
	close(from);
	close(to);
	return e;
}

static int op_mmapwrite(int n, char **a)
{
	int fd = open(a[0], O_RDWR | O_CLOEXEC);
	struct stat st;
	char *p;

	if (fd < 0 || fstat(fd, &st) < 0)
		return errno;
	p = mmap(NULL, st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (p == MAP_FAILED)
		return errno;
	memcpy(p, a[1], strnlen(a[1], st.st_size));
	return RESULT(msync(p, st.st_size, MS_SYNC));
}

/* flipbyte PATH OFFSET: one bit of one byte, counted from the end when OFFSET is negative. */
static int op_flipbyte(int n, char **a)
{
	int fd = open(a[0], O_RDWR | O_CLOEXEC);
	off_t at = atol(a[1]);
	char c;

	if (fd < 0)
		return errno;
	at = lseek(fd, at, at < 0 ? SEEK_END : SEEK_SET);
	if (at < 0 || pread(fd, &c, 1, at) != 1)
		return errno ? errno : EIO;
	c ^= 1;
	if (pwrite(fd, &c, 1, at) != 1)
		return errno ? errno : EIO;
	return RESULT(close(fd));
}

/* rendezvous FIFO: a child writes, this process reads; each open waits for the other. */
static int op_rendezvous(int n, char **a)
{
	pid_t pid = fork();
	int e;

	if (pid < 0)
		return errno;
	if (pid == 0)
		_exit(text_and_close(open(a[0], O_WRONLY | O_CLOEXEC), "through the fifo\n") != 0);
	e = print_and_close(open(a[0], O_RDONLY | O_CLOEXEC));
	return e ? e : wait_child(pid);
}

/* fchmod MODE FILE: of a file that is open for reading */
static int op_fchmod(int n, char **a)
{
	int fd = open(a[1], O_RDONLY | O_CLOEXEC);

	return fd < 0 ? errno : RESULT(fchmod(fd, strtol(a[0], NULL, 8)));
}

/* fchown ID FILE */
static int op_fchown(int n, char **a)
{
	int fd = open(a[1], O_RDONLY | O_CLOEXEC);

	return fd < 0 ? errno : RESULT(fchown(fd, atoi(a[0]), -1));
}

const struct op file_ops[] = {
	{"cat", 1, op_cat, "FILE: open to read, print"},
	{"write", 2, op_write, "FILE TEXT: open O_WRONLY|O_CREAT|O_TRUNC"},
	{"overwrite", 2, op_overwrite, "FILE TEXT: open O_WRONLY"},
	{"append", 2, op_append, "FILE TEXT: open O_WRONLY|O_APPEND"},
	{"rdwr", 2, op_rdwr, "FILE TEXT: open O_RDWR"},
	{"openat2-read", 1, op_openat2_read, "FILE"},
	{"openat2-write", 2, op_openat2_write, "FILE TEXT"},
	{"openbyfd", 1, op_openbyfd, "FILE: O_PATH, then read by /proc/self/fd"},
	{"openbyfd-write", 2, op_openbyfd_write, "FILE TEXT"},
	{"openat", 2, op_openat, "DIR NAME: read by a descriptor of the directory"},
	{"chdir", 1, op_chdir, "DIR"},
	{"truncate", 1, op_truncate, "FILE: by path, without opening"},
	{"unlink", 1, op_unlink, "FILE"},
	{"rename", 2, op_rename, "FROM TO"},
	{"link", 2, op_link, "TARGET NAME"},
	{"symlink", 2, op_symlink, "TARGET NAME"},
	{"mkdir", 1, op_mkdir, "DIR"},
	{"rmdir", 1, op_rmdir, "DIR"},
	{"mkfifo", 1, op_mkfifo, "FILE"},
	{"chmod", 2, op_chmod, "MODE FILE"},
	{"chown", 2, op_chown, "ID FILE"},
	{"fchmod", 2, op_fchmod, "MODE FILE: of a file that is open for reading"},
	{"fchown", 2, op_fchown, "ID FILE: the same"},
	{"setxattr", 1, op_setxattr, "FILE"},
	{"fsetxattr", 1, op_fsetxattr, "FILE: open for reading"},
	{"utime", 1, op_utime, "FILE"},
	{"futime", 1, op_futime, "FILE: open for reading"},
	{"stat", 1, op_stat, "FILE"},
	{"list", 1, op_list, "DIR"},
	{"waitfile", 1, op_waitfile, "FILE: until it exists"},
	{"copy", 2, op_copy, "FROM TO: copy_file_range, mode 0755"},
	{"mmapwrite", 2, op_mmapwrite, "FILE TEXT: through a shared mapping"},
	{"flipbyte", 2, op_flipbyte, "FILE OFFSET"},
	{"rendezvous", 1, op_rendezvous, "FIFO: child writes, parent reads"},
	{0},
};
