/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two ends of a link as two processes, each with the other's lane and page
 * mapped for reading only: a million messages of random form and size, half
 * each way, spinning and sleeping. And a peer that is killed in the midst of
 * it.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/harness.h"
#include "tests/lane_peer.h"

#define MESSAGES 500000

static struct lane_peer peer;

/* One process's end: makes its segments, trades fds, runs. */
static const char *open_end(int end, int sock, struct avp_segment *page,
			    struct avp_segment *other)
{
	struct avp_lane_options o = {.size = sizeof(o),
				     .slots = LANE_PEER_WINDOW,
				     .colour = 3,
				     .first_sequence = UINT32_MAX - 100000};
	uint64_t size = sizeof(struct lane_peer_page);
	int fds[2];
	unsigned n = 0;
	size_t len;
	char c;

	memset(&peer, 0, sizeof(peer));
	if (avp_lane_init(&peer.tx, &o, NULL) ||
	    avp_segment_create(page, "page", size, NULL, NULL))
		return "no segments";
	fds[0] = peer.tx.segment.fd;
	fds[1] = page->fd;
	if (avp_fd_send(sock, "", 1, fds, 2, NULL))
		return "cannot pass the segments";
	while (avp_fd_receive(sock, &c, 1, &len, fds, 2, &n, NULL) == AVP_AGAIN)
		;
	if (n != 2)
		return "no fds came";
	if (avp_lane_attach(&peer.rx, &peer.tx, fds[0], NULL) ||
	    avp_segment_import(other, fds[1], 0, 1 << 20, NULL))
		return "cannot map the other's";
	peer.page = page->base;
	peer.peer_page = other->base;
	peer.sock = sock;
	peer.seed = (uint32_t)end + 7;
	return NULL;
}

static void close_end(struct avp_segment *page, struct avp_segment *other)
{
	avp_lane_detach(&peer.rx);
	avp_lane_fini(&peer.tx);
	avp_segment_close(page);
	avp_segment_close(other);
	close(peer.sock);
}

static const char *run_end(int end, int sock, bool sleeps, bool futex,
			   uint64_t total)
{
	struct avp_segment page, other;
	const char *wrong = open_end(end, sock, &page, &other);

	if (wrong)
		return wrong;
	peer.sleeps = sleeps;
	peer.futex = futex;
	peer.total = total;
	lane_peer_run(&peer);
	close_end(&page, &other);
	return peer.wrong		? peer.wrong
	       : peer.received != total ? "not everything came"
	       : peer.late_wakes	? "a bell was lost"
					: NULL;
}

static void two_processes(bool sleeps, bool futex)
{
	const char *wrong;
	int sock[2], status = 0;
	pid_t pid;

	CU_ASSERT_FATAL(
		!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, sock));
	pid = fork();
	if (!pid) {
		close(sock[0]);
		wrong = run_end(1, sock[1], sleeps, futex, MESSAGES);
		if (wrong)
			printf("child: %s\n", wrong);
		fflush(stdout);
		_exit(wrong != NULL);
	}
	close(sock[1]);
	wrong = run_end(0, sock[0], sleeps, futex, MESSAGES);
	if (wrong)
		printf("parent: %s\n", wrong);
	CU_ASSERT_PTR_NULL(wrong);
	if (sleeps) {
		CU_ASSERT(peer.sleeps_made > 10);
		printf("%llu sleeps, %llu rings\n",
		       (unsigned long long)peer.sleeps_made,
		       (unsigned long long)peer.rings);
	}
	CU_ASSERT_EQUAL(waitpid(pid, &status, 0), pid);
	CU_ASSERT_EQUAL(status, 0);
}

static void busy(void)
{
	two_processes(false, false);
}

static void asleep(void)
{
	two_processes(true, false);
}

static void asleep_on_a_word(void)
{
	if (lane_has_bells())
		two_processes(true, true);
	else
		printf("skip asleep_on_a_word: this loop has no bells\n");
}

/*
 * The other is killed at a random moment. Its lane stays mapped and whole: what
 * it had committed can still be taken, and then there is nothing more.
 */
static void killed_at_any_moment(void)
{
	for (int round = 0; round < 20; round++) {
		struct avp_segment page, other;
		struct avp_slot_view v;
		uint64_t n = 0;
		int sock[2], got;
		pid_t pid;

		CU_ASSERT_FATAL(!socketpair(
			AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, sock));
		pid = fork();
		if (!pid) {
			close(sock[0]);
			run_end(1, sock[1], false, false, UINT64_MAX);
			_exit(1);
		}
		close(sock[1]);
		CU_ASSERT_PTR_NULL_FATAL(open_end(0, sock[0], &page, &other));
		while (n < 20 + (uint64_t)round * 13) {
			got = avp_lane_take(&peer.rx, &v, NULL);
			CU_ASSERT(got >= 0);
			n += got == 1;
			/* as its ledger expects of such a sequence */
			if (got == 1 && v.sequence % 7 == 0)
				avp_lane_ack_one(&peer.tx, v.sequence,
						 AVP_ACK_REJECTED);
			avp_lane_ack_below(&peer.tx, peer.rx.next, peer.rx.next,
					   peer.rx.next);
			avp_lane_ack_flush(&peer.tx);
		}
		kill(pid, SIGKILL);
		CU_ASSERT_EQUAL(waitpid(pid, NULL, 0), pid);
		for (n = 0; (got = avp_lane_take(&peer.rx, &v, NULL)) == 1; n++)
			;
		CU_ASSERT_EQUAL(got, 0);
		CU_ASSERT(n <= LANE_PEER_WINDOW);
		close_end(&page, &other);
	}
}

int main(void)
{
	static const struct test tests[] = {
		TEST(busy),
		TEST(asleep),
		TEST(asleep_on_a_word),
		TEST(killed_at_any_moment),
		{0},
	};

	return test_main("lane_processes", tests);
}
