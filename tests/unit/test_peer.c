/* SPDX-License-Identifier: Apache-2.0 */
/* Who the peer is, whether it lives, and whether we are still ourselves. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <avp/shm.h>

#include "shm/guard.h"
#include "tests/harness.h"

static int listener(struct sockaddr_un *a)
{
	int l = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	a->sun_family = AF_UNIX;
	snprintf(a->sun_path, sizeof(a->sun_path), "%.80s/peer.sock",
		 test_dir());
	unlink(a->sun_path);
	CU_ASSERT_EQUAL_FATAL(bind(l, (struct sockaddr *)a, sizeof(*a)), 0);
	CU_ASSERT_EQUAL_FATAL(listen(l, 1), 0);
	return l;
}

/* A child that connects and stays until it is killed. */
static pid_t start_peer(const struct sockaddr_un *a)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		int s = socket(AF_UNIX, SOCK_SEQPACKET, 0);

		if (connect(s, (const struct sockaddr *)a, sizeof(*a)))
			_exit(1);
		for (;;)
			pause();
	}
	return pid;
}

static void identity_and_death(void)
{
	struct sockaddr_un a = {0};
	struct avp_peer_id peer;
	struct avp_reason why;
	struct pollfd p = {.events = POLLIN};
	int l = listener(&a), s;
	pid_t pid = start_peer(&a);

	s = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	CU_ASSERT_EQUAL_FATAL(avp_peer_open(&peer, s, &why), AVP_OK);
	CU_ASSERT_EQUAL(peer.pid, pid);
	CU_ASSERT_EQUAL(peer.uid, geteuid());
	CU_ASSERT_EQUAL(peer.gid, getegid());
	CU_ASSERT(peer.pidfd >= 0);
	CU_ASSERT_EQUAL(fcntl(peer.pidfd, F_GETFD), FD_CLOEXEC);
	CU_ASSERT_EQUAL(avp_pidfd_dead(peer.pidfd), 0);
	kill(pid, SIGKILL);
	p.fd = peer.pidfd;
	CU_ASSERT_EQUAL(poll(&p, 1, 10000), 1);
	CU_ASSERT_EQUAL(avp_pidfd_dead(peer.pidfd), 1);
	waitpid(pid, NULL, 0);
	CU_ASSERT_EQUAL(avp_pidfd_dead(peer.pidfd), 1);
	avp_peer_close(&peer);
	CU_ASSERT_EQUAL(peer.pidfd, -1);
	avp_peer_close(&peer);
	close(s);
	close(l);
	unlink(a.sun_path);
}

/* Gone and waited for before we ask: either told, or a pidfd that is dead. */
static void already_gone(void)
{
	struct sockaddr_un a = {0};
	struct avp_peer_id peer;
	int l = listener(&a), s, code;
	pid_t pid = start_peer(&a);

	s = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	code = avp_peer_open(&peer, s, NULL);
	if (code == AVP_OK) {
		CU_ASSERT_EQUAL(peer.pid, pid);
		CU_ASSERT_EQUAL(avp_pidfd_dead(peer.pidfd), 1);
		avp_peer_close(&peer);
	} else {
		CU_ASSERT_EQUAL(code, AVP_CLOSED);
	}
	close(s);
	close(l);
	unlink(a.sun_path);
}

static void no_peer(void)
{
	struct avp_peer_id peer = {.pid = 99};
	int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	CU_ASSERT_EQUAL(avp_peer_open(&peer, s, NULL), AVP_USAGE);
	close(s);
	s = open("/dev/null", O_RDONLY | O_CLOEXEC);
	CU_ASSERT_EQUAL(avp_peer_open(&peer, s, NULL), AVP_IO);
	close(s);
	CU_ASSERT_EQUAL(peer.pid, 99);
	CU_ASSERT_EQUAL(avp_pidfd_dead(-1), 0);
}

static void guard_knows_a_child(void)
{
	struct avp__fork_guard guard = {0};
	int status;
	pid_t pid;

	avp__fork_guard_fini(&guard);
	CU_ASSERT_EQUAL_FATAL(avp__fork_guard_init(&guard, NULL), AVP_OK);
	CU_ASSERT_FALSE(avp__forked(&guard));
	fflush(stdout);
	pid = fork();
	if (!pid) {
		bool forked = avp__forked(&guard);

		avp__fork_guard_fini(&guard);
		_exit(forked ? 0 : 1);
	}
	waitpid(pid, &status, 0);
	CU_ASSERT_EQUAL(status, 0);
	CU_ASSERT_FALSE(avp__forked(&guard));
	avp__fork_guard_fini(&guard);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(identity_and_death),
		TEST(already_gone),
		TEST(no_peer),
		TEST(guard_knows_a_child),
		{0},
	};

	return test_main("peer", tests);
}
