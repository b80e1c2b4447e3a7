/* SPDX-License-Identifier: Apache-2.0 */
/* Messages with fds: what arrives, what is refused, and that nothing that is
 * refused stays open. The harness counts fds after each test. */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <avp/shm.h>

#include "tests/harness.h"

static void pair(int s[2])
{
	CU_ASSERT_EQUAL_FATAL(
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s), 0);
}

static void close_pair(int s[2])
{
	close(s[0]);
	close(s[1]);
}

static int count(const char *dir)
{
	DIR *d = opendir(dir);
	int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static int open_fds(void)
{
	return count("/proc/self/fd");
}

static bool fds_are(void *n)
{
	return open_fds() == *(int *)n;
}

static bool one_thread(void *arg)
{
	(void)arg;
	return count("/proc/self/task") == 3; /* and "." and ".." */
}

/* n memfds; sent and closed here. */
static void send_memfds(int sock, unsigned n)
{
	int fds[AVP_FD_MAX] = {0};

	for (unsigned i = 0; i < n; i++)
		fds[i] = memfd_create("test", MFD_CLOEXEC);
	CU_ASSERT_EQUAL(avp_fd_send(sock, "hello", 5, fds, n, NULL), AVP_OK);
	for (unsigned i = 0; i < n; i++)
		close(fds[i]);
}

static void there_and_back(void)
{
	struct avp_segment own, peer;
	int s[2], fd[1];
	unsigned n;
	size_t len;
	char msg[16];

	pair(s);
	CU_ASSERT_EQUAL_FATAL(avp_segment_create(&own, NULL, 4096, NULL, NULL),
			      AVP_OK);
	CU_ASSERT_EQUAL(
		avp_fd_receive(s[1], msg, sizeof(msg), &len, fd, 1, &n, NULL),
		AVP_AGAIN);
	CU_ASSERT_EQUAL(avp_fd_send(s[0], "hello", 5, &own.fd, 1, NULL),
			AVP_OK);
	CU_ASSERT_EQUAL_FATAL(
		avp_fd_receive(s[1], msg, sizeof(msg), &len, fd, 1, &n, NULL),
		AVP_OK);
	CU_ASSERT_EQUAL(len, 5);
	CU_ASSERT_EQUAL(n, 1);
	CU_ASSERT_NSTRING_EQUAL(msg, "hello", 5);
	CU_ASSERT_EQUAL(fcntl(fd[0], F_GETFD), FD_CLOEXEC);
	CU_ASSERT_EQUAL(avp_segment_import(&peer, fd[0], 4096, 4096, NULL),
			AVP_OK);
	avp_segment_close(&peer);
	avp_segment_close(&own);
	close_pair(s);
}

static void as_many_as_allowed(void)
{
	int s[2], fds[AVP_FD_MAX];
	unsigned n;
	size_t len;
	char msg[16];

	pair(s);
	for (unsigned sent = 0; sent <= AVP_FD_MAX; sent++) {
		send_memfds(s[0], sent);
		CU_ASSERT_EQUAL_FATAL(avp_fd_receive(s[1], msg, sizeof(msg),
						     &len, fds, AVP_FD_MAX, &n,
						     NULL),
				      AVP_OK);
		CU_ASSERT_EQUAL(n, sent);
		for (unsigned i = 0; i < n; i++)
			close(fds[i]);
	}
	close_pair(s);
}

/* One more than allowed, for each number: padding must not let it in. */
static void too_many(void)
{
	int s[2], fds[AVP_FD_MAX], before;
	struct avp_reason why;
	unsigned n = 99;
	size_t len = 99;
	char msg[16];

	pair(s);
	before = open_fds();
	for (unsigned allowed = 0; allowed < AVP_FD_MAX; allowed++) {
		send_memfds(s[0], allowed + 1);
		CU_ASSERT_EQUAL(avp_fd_receive(s[1], msg, sizeof(msg), &len,
					       fds, allowed, &n, &why),
				AVP_POISONED);
		CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "more fds"));
		CU_ASSERT(test_wait(fds_are, &before, 2));
	}
	CU_ASSERT_EQUAL(n, 99);
	CU_ASSERT_EQUAL(len, 99);
	/* The messages between are whole, the socket goes on. */
	send_memfds(s[0], 0);
	CU_ASSERT_EQUAL(
		avp_fd_receive(s[1], msg, sizeof(msg), &len, fds, 0, &n, &why),
		AVP_OK);
	close_pair(s);
}

static void too_long(void)
{
	int s[2], fd[1], before;
	struct avp_reason why;
	unsigned n;
	size_t len;
	char msg[4];

	pair(s);
	before = open_fds();
	send_memfds(s[0], 1);
	CU_ASSERT_EQUAL(
		avp_fd_receive(s[1], msg, sizeof(msg), &len, fd, 1, &n, &why),
		AVP_POISONED);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "longer"));
	CU_ASSERT(test_wait(fds_are, &before, 2));
	close_pair(s);
}

/* At the fd limit of this process, which is no fault of the peer. */
static int at_the_limit(int sock)
{
	struct rlimit limit;
	struct avp_reason why;
	int fds[2], last = dup(sock);
	unsigned n;
	size_t len;
	char msg[16];

	limit.rlim_cur = limit.rlim_max = (rlim_t)last + 1;
	if (setrlimit(RLIMIT_NOFILE, &limit))
		return 1;
	if (avp_fd_receive(sock, msg, sizeof(msg), &len, fds, 2, &n, &why) !=
	    AVP_NO_MEMORY)
		return 2;
	return strstr(why.text, "ulimit -n") ? 0 : 3;
}

static void at_the_fd_limit(void)
{
	int s[2], status;
	pid_t pid;

	pair(s);
	send_memfds(s[0], 2);
	fflush(stdout);
	pid = fork();
	if (!pid)
		_exit(at_the_limit(s[1]));
	CU_ASSERT_EQUAL(waitpid(pid, &status, 0), pid);
	CU_ASSERT_EQUAL(status, 0);
	close_pair(s);
}

static void hang_up(void)
{
	int s[2];
	size_t len;
	char msg[16];

	pair(s);
	/* What we never read makes the kernel report a reset to the peer. */
	CU_ASSERT_EQUAL(avp_fd_send(s[1], "unread", 6, NULL, 0, NULL), AVP_OK);
	CU_ASSERT_EQUAL(avp_fd_send(s[0], "one", 3, NULL, 0, NULL), AVP_OK);
	CU_ASSERT_EQUAL(avp_fd_send(s[0], "three", 5, NULL, 0, NULL), AVP_OK);
	close(s[0]);
	CU_ASSERT_EQUAL(avp_fd_receive(s[1], msg, sizeof(msg), &len, NULL, 0,
				       NULL, NULL),
			AVP_OK);
	CU_ASSERT_EQUAL(len, 3);
	CU_ASSERT_EQUAL(avp_fd_receive(s[1], msg, sizeof(msg), &len, NULL, 0,
				       NULL, NULL),
			AVP_OK);
	CU_ASSERT_EQUAL(len, 5);
	for (unsigned i = 0; i < 2; i++)
		CU_ASSERT_EQUAL(avp_fd_receive(s[1], msg, sizeof(msg), &len,
					       NULL, 0, NULL, NULL),
				AVP_CLOSED);
	/* No SIGPIPE. */
	CU_ASSERT_EQUAL(avp_fd_send(s[1], "x", 1, NULL, 0, NULL), AVP_CLOSED);
	close(s[1]);
}

static void send_answers(void)
{
	static char large[1 << 20];
	struct avp_reason why;
	int s[2], code, fds[AVP_FD_MAX + 1] = {0};
	unsigned sent = 0;

	pair(s);
	CU_ASSERT_EQUAL(avp_fd_send(s[0], "x", 0, NULL, 0, &why), AVP_USAGE);
	CU_ASSERT_EQUAL(avp_fd_send(s[0], "x", 1, fds, AVP_FD_MAX + 1, &why),
			AVP_USAGE);
	CU_ASSERT_EQUAL(avp_fd_send(s[0], large, sizeof(large), NULL, 0, &why),
			AVP_TOO_LARGE);
	fds[0] = -1;
	CU_ASSERT_EQUAL(avp_fd_send(s[0], "x", 1, fds, 1, &why), AVP_IO);
	while (!(code = avp_fd_send(s[0], "x", 1, NULL, 0, &why)) &&
	       sent < 1000000)
		sent++;
	CU_ASSERT_EQUAL(code, AVP_AGAIN);
	close_pair(s);
}

/*
 * A socket whose close waits until its peer has read (SO_LINGER) stands for a
 * file whose server never answers. Disposing of it must return at once.
 */
static void slow_to_close(int *ours, int *theirs)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	struct linger linger = {.l_onoff = 1, .l_linger = 20};
	socklen_t length = sizeof(a);
	static char block[65536];
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	CU_ASSERT_EQUAL_FATAL(bind(l, (struct sockaddr *)&a, length), 0);
	CU_ASSERT_EQUAL_FATAL(listen(l, 1), 0);
	getsockname(l, (struct sockaddr *)&a, &length);
	*ours = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CU_ASSERT_EQUAL_FATAL(connect(*ours, (struct sockaddr *)&a, length), 0);
	*theirs = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	close(l);
	while (send(*ours, block, sizeof(block), MSG_DONTWAIT) > 0)
		;
	setsockopt(*ours, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

static void disposal_does_not_wait(void)
{
	int ours, theirs;

	CU_ASSERT(one_thread(NULL));
	slow_to_close(&ours, &theirs);
	avp_fd_dispose(ours);
	/* Still at it: so it was not done here. */
	CU_ASSERT_FALSE(one_thread(NULL));
	close(theirs);
	CU_ASSERT(test_wait(one_thread, NULL, 10));
	CU_ASSERT_EQUAL(fcntl(ours, F_GETFD), -1);
	avp_fd_dispose(-1);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(there_and_back),
		TEST(as_many_as_allowed),
		TEST(too_many),
		TEST(too_long),
		TEST(at_the_fd_limit),
		TEST(hang_up),
		TEST(send_answers),
		TEST(disposal_does_not_wait),
		{0},
	};

	return test_main("fdpass", tests);
}
