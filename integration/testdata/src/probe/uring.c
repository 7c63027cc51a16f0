/* Opens and reads or writes through io_uring, where a worker of the kernel, not this thread, may do the opening. */
#include "probe.h"
#include <linux/io_uring.h>
#include <sys/mman.h>

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

const struct op uring_ops[] = {
	{"uring-read", 1, op_read, "FILE"},
	{"uring-write", 2, op_write, "FILE TEXT"},
	{0},
};
