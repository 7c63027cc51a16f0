/* Sockets. */
#include "probe.h"
#include <sys/un.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

static struct sockaddr_in address(const char *host, const char *port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
	inet_pton(AF_INET, host, &a.sin_addr);
	return a;
}

static int listen_on(const char *port)
{
	struct sockaddr_in a = address("127.0.0.1", port);
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	if (s < 0)
		return -1;
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	return bind(s, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(s, 16) < 0 ? -1 : s;
}

/* listen PORT: on the loopback; says so and goes on with nothing. */
static int op_listen(int n, char **a) { return RESULT(listen_on(a[0])); }

/* serve PORT: answers every connection with one line, for ever. */
static int op_serve(int n, char **a)
{
	int s = listen_on(a[0]), c;

	if (s < 0)
		return errno;
	say("listening");
	while ((c = accept4(s, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		write_all(c, "served\n", 7);
		close(c);
	}
	return errno;
}

static int connect_to(char **a)
{
	struct sockaddr_in to = address(a[0], a[1]);
	int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return s < 0 || connect(s, (struct sockaddr *)&to, sizeof(to)) < 0 ? -1 : s;
}

static int op_connect(int n, char **a)
{
	int s = connect_to(a);
	return s < 0 ? errno : copy_fd(s, 1);
}

/* send ADDRESS PORT LINE: what a simple HTTP or Redis request needs. */
static int op_send(int n, char **a)
{
	int s = connect_to(a), e;

	if (s < 0)
		return errno;
	if ((e = write_all(s, a[2], strlen(a[2]))) != 0 || (e = write_all(s, "\r\n\r\n", 4)) != 0)
		return e;
	shutdown(s, SHUT_WR);
	return copy_fd(s, 1);
}

static int op_socket(int n, char **a) { return RESULT(socket(atoi(a[0]), atoi(a[1]), atoi(a[2]))); }

/* bind-unix FILE: makes it */
static int op_bind_unix(int n, char **a)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strncpy(at.sun_path, a[0], sizeof(at.sun_path) - 1);
	return fd < 0 ? errno : RESULT(bind(fd, (struct sockaddr *)&at, sizeof(at)));
}

const struct op net_ops[] = {
	{"listen", 1, op_listen, "PORT: on 127.0.0.1"},
	{"serve", 1, op_serve, "PORT: answer every connection"},
	{"connect", 2, op_connect, "ADDRESS PORT: print what comes"},
	{"send", 3, op_send, "ADDRESS PORT LINE: send it, print what comes"},
	{"bind-unix", 1, op_bind_unix, "FILE: a socket there"},
	{"socket", 3, op_socket, "FAMILY TYPE PROTOCOL"},
	{0},
};
