/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two ends of a link as two threads, for TSan. It tells addresses apart, not
 * memory: seen through two mappings no race would show. So each end reads the
 * other's lane where its owner has it mapped; how a peer maps it is tested by
 * processes.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/harness.h"
#include "tests/lane_peer.h"

#define MESSAGES 60000

static struct lane_peer_page page[2];
static struct lane_peer peer[2];

/* peer[i] reads peer[1 - i]'s lane. */
static bool attach(int i)
{
	const struct avp_lane_tx *of = &peer[1 - i].tx;
	struct avp_lane_rx *rx = &peer[i].rx;

	if (avp_lane_attach(rx, &peer[i].tx, dup(of->segment.fd), NULL))
		return false;
	rx->slots = of->slots;
	rx->acks = (const void *)((const uint8_t *)of->segment.base +
				  ((const uint8_t *)rx->acks -
				   (const uint8_t *)rx->segment.base));
	avp_segment_close(&rx->segment);
	rx->segment.base = of->segment.base;
	return true;
}

static void *run(void *arg)
{
	struct lane_peer *p = arg;

	lane_peer_run(p);
	return NULL;
}

static void two_threads(bool sleep, bool futex, uint64_t first)
{
	struct avp_lane_options o = {.size = sizeof(o),
				     .slots = LANE_PEER_WINDOW,
				     .first_sequence = first};
	pthread_t thread;
	int sock[2];

	memset(peer, 0, sizeof(peer));
	memset(page, 0, sizeof(page));
	CU_ASSERT_FATAL(
		!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sock));
	for (int i = 0; i < 2; i++) {
		peer[i].page = &page[i];
		peer[i].peer_page = &page[1 - i];
		peer[i].sock = sock[i];
		peer[i].total = MESSAGES;
		peer[i].seed = (uint32_t)i + 1;
		CU_ASSERT_FATAL(!avp_lane_init(&peer[i].tx, &o, NULL));
	}
	peer[0].sleeps = peer[1].sleeps = sleep;
	peer[0].futex = peer[1].futex = futex;
	CU_ASSERT_FATAL(attach(0) && attach(1));
	CU_ASSERT_FATAL(!pthread_create(&thread, NULL, run, &peer[1]));
	run(&peer[0]);
	pthread_join(thread, NULL);
	for (int i = 0; i < 2; i++) {
		CU_ASSERT_PTR_NULL(peer[i].wrong);
		if (peer[i].wrong)
			printf("%d: %s\n", i, peer[i].wrong);
		CU_ASSERT_EQUAL(peer[i].received, MESSAGES);
		CU_ASSERT_EQUAL(peer[i].late_wakes, 0);
		if (peer[i].sleeps)
			printf("%d: %llu sleeps, %llu rings\n", i,
			       (unsigned long long)peer[i].sleeps_made,
			       (unsigned long long)peer[i].rings);
		avp_lane_fini(&peer[i].tx);
		close(sock[i]);
	}
}

/* Each starts just before the low words wrap. */
static void busy(void)
{
	two_threads(false, false, UINT32_MAX - 20000);
}

static void asleep(void)
{
	two_threads(true, false, UINT32_MAX - 20000);
}

static void asleep_on_a_word(void)
{
	if (lane_has_bells())
		two_threads(true, true, UINT32_MAX - 20000);
	else
		printf("skip asleep_on_a_word: this loop has no bells\n");
}

int main(void)
{
	static const struct test tests[] = {
		TEST(busy),
		TEST(asleep),
		TEST(asleep_on_a_word),
		{0},
	};

	return test_main("lane_threads", tests);
}
