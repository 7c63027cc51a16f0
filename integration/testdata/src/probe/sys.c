/* System calls by number, through each of the processor's doors. */
#include "probe.h"

/* A number, or @TEXT for a pointer to TEXT. Below 4 GiB, as 32-bit calls need it: this program is linked there. */
static long argument(int i, int n, char **a)
{
	static char text[6][256];

	if (i >= n)
		return 0;
	if (a[i][0] != '@')
		return strtol(a[i], NULL, 0);
	strncpy(text[i], a[i] + 1, sizeof(text[i]) - 1);
	return (long)text[i];
}

static int report(const char *door, char *nr, long result)
{
	if (result < 0 && result > -4096) {
		say("%s %s = -1 %s", door, nr, strerrorname_np(-result) ? strerrorname_np(-result) : "?");
		return -result;
	}
	say("%s %s = %ld", door, nr, result);
	return 0;
}

#define ARG(i) argument(i, n - 1, a + 1)

static int op_syscall(int n, char **a)
{
	long r = syscall(strtol(a[0], NULL, 0), ARG(0), ARG(1), ARG(2), ARG(3), ARG(4), ARG(5));
	return report("syscall", a[0], r < 0 ? -errno : r);
}

#ifdef __x86_64__
static int op_int80(int n, char **a)
{
	long r;

	__asm__ volatile("int $0x80"
			 : "=a"(r)
			 : "a"(strtol(a[0], NULL, 0)), "b"(ARG(0)), "c"(ARG(1)), "d"(ARG(2)), "S"(ARG(3)), "D"(ARG(4))
			 : "memory", "r8", "r9", "r10", "r11");
	return report("int80", a[0], (int)r);
}

static int op_x32(int n, char **a)
{
	long r = syscall(0x40000000 | strtol(a[0], NULL, 0), ARG(0), ARG(1), ARG(2), ARG(3), ARG(4), ARG(5));
	return report("x32", a[0], r < 0 ? -errno : r);
}
#else
static int op_int80(int n, char **a) { return ENOSYS; }
static int op_x32(int n, char **a) { return ENOSYS; }
#endif

const struct op sys_ops[] = {
	{"syscall", 1, op_syscall, "NR ARGS..: a number or @TEXT each"},
	{"int80", 1, op_int80, "NR ARGS..: by the 32-bit entry; NR is i386's"},
	{"x32", 1, op_x32, "NR ARGS..: with the x32 bit"},
	{0},
};
