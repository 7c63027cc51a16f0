/*
 * flood DIR FILES SECONDS GOOD BAD: four threads open DIR/0 .. DIR/FILES-1 as fast as they can while others execute
 * GOOD over and over. After SECONDS, in the middle of it, BAD is executed once. Then it goes on for as long again, says
 * what it did, and ends with the number of failures it has seen, BAD's included.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *dir, *good;
static int files;
static volatile int stop;
static long opens, execs, failed;

static int run(const char *path)
{
	int status;
	pid_t pid = vfork();

	if (pid == 0) {
		execl(path, path, (char *)NULL);
		_exit(126);
	}
	return pid < 0 || waitpid(pid, &status, 0) != pid || status != 0;
}

static void *open_all(void *seed)
{
	char name[256];

	for (int i = (long)seed * files / 4; !stop; i++) {
		snprintf(name, sizeof(name), "%s/%d", dir, i % files);
		int fd = open(name, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			__sync_fetch_and_add(&failed, 1);
		else
			close(fd);
		__sync_fetch_and_add(&opens, 1);
	}
	return NULL;
}

static void *run_good(void *unused)
{
	while (!stop) {
		if (run(good))
			__sync_fetch_and_add(&failed, 1);
		__sync_fetch_and_add(&execs, 1);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[8];

	if (argc < 6)
		return 2;
	dir = argv[1];
	files = atoi(argv[2]);
	good = argv[4];
	for (long i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, open_all, (void *)i);
	for (int i = 4; i < 8; i++)
		pthread_create(&threads[i], NULL, run_good, NULL);
	sleep(atoi(argv[3]));
	dprintf(1, "opened %ld executed %ld failed %ld\n", opens, execs, failed);
	if (run(argv[5]))
		__sync_fetch_and_add(&failed, 1);
	sleep(atoi(argv[3]));
	stop = 1;
	for (int i = 0; i < 8; i++)
		pthread_join(threads[i], NULL);
	dprintf(1, "in all: opened %ld executed %ld failed %ld\n", opens, execs, failed);
	return failed != 0;
}
