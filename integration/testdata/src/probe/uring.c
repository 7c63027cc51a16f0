/* Opens and reads or writes through io_uring, where a worker of the kernel, not this thread, may do the opening. */
#include "probe.h"
#include <linux/io_uring.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>

struct ring {
	int fd;
	unsigned *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
};

static int ring_setup(struct ring *r)
{
	struct io_uring_params p = {0};
	size_t size;
	char *sq, *cq;

	if ((r->fd = syscall(SYS_io_uring_setup, 4, &p)) < 0)
		return errno;
	size = p.sq_off.array + p.sq_entries * sizeof(unsigned);
	sq = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_SQ_RING);
	size = p.cq_off.cqes + p.cq_entries * sizeof(*r->cqes);
	cq = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_CQ_RING);
	r->sqes = mmap(NULL, p.sq_entries * sizeof(*r->sqes), PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, IORING_OFF_SQES);
	if (sq == MAP_FAILED || cq == MAP_FAILED || r->sqes == MAP_FAILED)
		return errno;
	r->sq_tail = (unsigned *)(sq + p.sq_off.tail);
	r->sq_mask = (unsigned *)(sq + p.sq_off.ring_mask);
	r->sq_array = (unsigned *)(sq + p.sq_off.array);
	r->cq_head = (unsigned *)(cq + p.cq_off.head);
	r->cq_tail = (unsigned *)(cq + p.cq_off.tail);
	r->cq_mask = (unsigned *)(cq + p.cq_off.ring_mask);
	r->cqes = (struct io_uring_cqe *)(cq + p.cq_off.cqes);
	return 0;
}

/* Submits one entry, waits, and returns its result: a value, or a negative errno. */
static int ring_call(struct ring *r, const struct io_uring_sqe *e)
{
	unsigned tail = *r->sq_tail, i = tail & *r->sq_mask;
	int res;

	r->sqes[i] = *e;
	r->sq_array[i] = i;
	__atomic_store_n(r->sq_tail, tail + 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, r->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
		return -errno;
	if (*r->cq_head == __atomic_load_n(r->cq_tail, __ATOMIC_ACQUIRE))
		return -EIO;
	res = r->cqes[*r->cq_head & *r->cq_mask].res;
	__atomic_store_n(r->cq_head, *r->cq_head + 1, __ATOMIC_RELEASE);
	return res;
}

static int ring_open(struct ring *r, const char *path, int flags)
{
	/* IOSQE_ASYNC: by a worker. */
	struct io_uring_sqe e = {.opcode = IORING_OP_OPENAT, .fd = AT_FDCWD, .addr = (unsigned long)path, .len = 0644,
				 .open_flags = flags, .flags = IOSQE_ASYNC};
	return ring_call(r, &e);
}

static int transfer(struct ring *r, int op, int fd, void *buf, unsigned len)
{
	struct io_uring_sqe e = {.opcode = op, .fd = fd, .addr = (unsigned long)buf, .len = len};
	return ring_call(r, &e);
}

static int op_read(int n, char **a)
{
	struct ring r;
	static char buf[65536];
	int e = ring_setup(&r), fd, got;

	if (e)
		return e;
	if ((fd = ring_open(&r, a[0], O_RDONLY)) < 0)
		return -fd;
	got = transfer(&r, IORING_OP_READ, fd, buf, sizeof(buf));
	return got < 0 ? -got : write_all(1, buf, got);
}

static int op_write(int n, char **a)
{
	struct ring r;
	int e = ring_setup(&r), fd, put;

	if (e)
		return e;
	if ((fd = ring_open(&r, a[0], O_WRONLY | O_CREAT | O_TRUNC)) < 0)
		return -fd;
	put = transfer(&r, IORING_OP_WRITE, fd, a[1], strlen(a[1]));
	return put < 0 ? -put : 0;
}

/*
 * uring-behind FIFO FILE TEXT: an open for writing that the kernel does for the ring while this very thread is inside an
 * open for reading: the thread waits in openat(FIFO, O_RDONLY) when what the ring's open is linked to comes true, so its
 * own registers say O_RDONLY.
 */
static int op_behind(int n, char **a)
{
	struct ring r;
	struct stat st;
	int e = ring_setup(&r), p[2], fd, fifo;
	unsigned tail, i;

	if (e)
		return e;
	if (pipe(p) < 0 || stat(a[1], &st) < 0) /* the name must be in the kernel's cache */
		return errno;
	tail = *r.sq_tail;
	i = tail & *r.sq_mask;
	r.sqes[i] = (struct io_uring_sqe){.opcode = IORING_OP_POLL_ADD, .fd = p[0], .poll32_events = POLLIN, .flags = IOSQE_IO_LINK};
	r.sq_array[i] = i;
	i = (tail + 1) & *r.sq_mask;
	r.sqes[i] = (struct io_uring_sqe){.opcode = IORING_OP_OPENAT, .fd = AT_FDCWD, .addr = (unsigned long)a[1], .open_flags = O_RDWR};
	r.sq_array[i] = i;
	__atomic_store_n(r.sq_tail, tail + 2, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, r.fd, 2, 0, 0, NULL, 0) < 0)
		return errno;
	if (fork() == 0) {
		usleep(100000);
		write_all(p[1], "x", 1);
		usleep(200000);
		_exit(open(a[0], O_WRONLY | O_CLOEXEC) < 0);
	}
	fifo = open(a[0], O_RDONLY | O_CLOEXEC);
	if (fifo < 0)
		return errno;
	if (__atomic_load_n(r.cq_tail, __ATOMIC_ACQUIRE) - *r.cq_head < 2)
		return EIO;
	fd = r.cqes[(*r.cq_head + 1) & *r.cq_mask].res;
	return fd < 0 ? -fd : write_all(fd, a[2], strlen(a[2]));
}

/* uring-unlink FILE: no system call of ours names it. */
static int op_unlink(int n, char **a)
{
	struct ring r;
	int e = ring_setup(&r), res;
	struct io_uring_sqe s = {.opcode = IORING_OP_UNLINKAT, .fd = AT_FDCWD, .addr = (unsigned long)a[0]};

	if (e)
		return e;
	res = ring_call(&r, &s);
	return res < 0 ? -res : 0;
}

static int op_two(int op, char **a)
{
	struct ring r;
	int e = ring_setup(&r), res;
	struct io_uring_sqe s = {.opcode = op, .fd = AT_FDCWD, .addr = (unsigned long)a[0], .addr2 = (unsigned long)a[1], .len = (unsigned)AT_FDCWD};

	if (e)
		return e;
	res = ring_call(&r, &s);
	return res < 0 ? -res : 0;
}

static int op_rename(int n, char **a)
{
	return op_two(IORING_OP_RENAMEAT, a);
}

static int op_link(int n, char **a)
{
	return op_two(IORING_OP_LINKAT, a);
}

static int op_mkdir(int n, char **a)
{
	struct ring r;
	int e = ring_setup(&r), res;
	struct io_uring_sqe s = {.opcode = IORING_OP_MKDIRAT, .fd = AT_FDCWD, .addr = (unsigned long)a[0], .len = 0755};

	if (e)
		return e;
	res = ring_call(&r, &s);
	return res < 0 ? -res : 0;
}

const struct op uring_ops[] = {
	{"uring-behind", 3, op_behind, "FIFO FILE TEXT: opened for writing behind an open for reading"},
	{"uring-unlink", 1, op_unlink, "FILE"},
	{"uring-rename", 2, op_rename, "FROM TO"},
	{"uring-link", 2, op_link, "TARGET NAME"},
	{"uring-mkdir", 1, op_mkdir, "DIR"},
	{"uring-read", 1, op_read, "FILE"},
	{"uring-write", 2, op_write, "FILE TEXT"},
	{0},
};
