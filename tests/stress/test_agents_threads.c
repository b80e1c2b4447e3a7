/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Agents in the threads of one process, for TSan: what they share is the
 * library, which has no state, and their lanes. Two with progress threads,
 * whose owners are now in calls, now away for about as long as it takes the
 * thread to act; and many that come and go at once.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/agents.h"
#include "tests/harness.h"

#define AWAY_NS 10000000 /* the thread acts when its owner was, for as long */
#define THREADS 4
#define COMINGS 6

static pthread_barrier_t together;

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * SECOND_NS + t.tv_nsec;
}

/* Between nothing and three times that, as an owner that computes. */
static void be_away(uint32_t *seed)
{
	int64_t end_ns;

	*seed = *seed * 1664525u + 1013904223u;
	end_ns = now_ns() + (*seed >> 8) % (3 * AWAY_NS);
	while (now_ns() < end_ns)
		continue;
}

static void link_to(struct ahp_agent *agent, const char *peer)
{
	while (ahp_connect(agent, peer, LONG_NS, NULL, NULL) ==
	       AVP_AGENT_NOT_FOUND)
		ahp_agent_run(agent, 1000000);
}

/* ---- owners and their threads ------------------------------------------- */

struct owner {
	const char *name, *other;
	uint32_t wait, rounds;
	struct agent_log log;
	const char *wrong;
};

/* Short ones, a long one, one that is told of; then as many of the other's. */
static const char *talk(struct ahp_agent *agent, struct owner *o, uint32_t i)
{
	struct ahp_outgoing m = {.target = o->other,
				 .method = AHP_TASK,
				 .flags = AHP_NOTIFY,
				 .body = "noted",
				 .body_bytes = 5};
	struct ahp_event event;
	struct ahp_message got;

	for (uint32_t k = 0; k < 3; k++)
		if (agent_say(agent, o->other, "short", NULL))
			return "a short one was not sent";
	if (agent_lend(agent, o->other, 20000, i, NULL))
		return "a long one was not sent";
	if (ahp_send(agent, &m, 0, NULL, NULL))
		return "one to be noted was not sent";
	for (int k = 0; k < 5; k++) {
		if (ahp_receive(agent, &got, LONG_NS))
			return "nothing came";
		if (k == 3 && !pattern_is(got.body, 20000, i))
			return "another body";
		if (ahp_accept(agent, &got))
			return "not accepted";
		ahp_release(agent, &got);
	}
	return ahp_next_event(agent, &event, LONG_NS) ? "no news" : NULL;
}

static void *own(void *arg)
{
	struct owner *o = arg;
	const struct ahp_agent_options options = {.flags = AHP_PROGRESS_THREAD |
							   AHP_EXPLICIT_ACK,
						  .wait = o->wait,
						  .reserve_bytes = 32 * MIB,
						  .log = agent_log,
						  .log_arg = &o->log};
	struct ahp_agent *agent = agent_open(o->name, &options);
	uint32_t seed = o->wait + 5;

	link_to(agent, o->other);
	for (uint32_t i = 0; i < o->rounds && !o->wrong; i++) {
		o->wrong = talk(agent, o, i);
		if (i % 3 == 0)
			be_away(&seed);
		if (ahp_agent_arm(agent) == AVP_USAGE)
			o->wrong = "not armed";
	}
	if (agent_stats(agent).late_wakes)
		o->wrong = "a late wake";
	/* Both have what they wait for. */
	pthread_barrier_wait(&together);
	ahp_agent_close(agent);
	return NULL;
}

static void owners_and_their_threads(void)
{
	struct owner o[2] = {{.name = "left",
			      .other = "right",
			      .wait = AHP_WAIT_ADAPTIVE,
			      .rounds = 120},
			     {.name = "right",
			      .other = "left",
			      .wait = AHP_WAIT_BLOCK,
			      .rounds = 120}};
	pthread_t thread;

	pthread_barrier_init(&together, NULL, 2);
	CU_ASSERT_FATAL(!pthread_create(&thread, NULL, own, &o[0]));
	own(&o[1]);
	pthread_join(thread, NULL);
	pthread_barrier_destroy(&together);
	for (int i = 0; i < 2; i++) {
		if (o[i].wrong)
			printf("%s: %s\n", o[i].name, o[i].wrong);
		CU_ASSERT_PTR_NULL(o[i].wrong);
		CU_ASSERT_EQUAL(o[i].log.warnings, 0);
	}
	CU_ASSERT_EQUAL(agents_names_left(), 0);
}

/* ---- coming and going --------------------------------------------------- */

static _Atomic unsigned failures;
static bool in_step;

static void pass_over(void *arg, const struct ahp_observation *agent)
{
	(void)arg;
	(void)agent;
}

static void *come_and_go(void *arg)
{
	const unsigned number = *(unsigned *)arg;
	char name[16], next[16];
	struct ahp_agent *agent;
	struct ahp_message m;

	snprintf(name, sizeof(name), "a%u", number);
	snprintf(next, sizeof(next), "a%u", (number + 1) % THREADS);
	for (int i = 0; i < COMINGS; i++) {
		agent = agent_open(name, NULL);
		pthread_barrier_wait(&together);
		link_to(agent, next);
		failures += agent_say(agent, next, "hello", NULL) != 0;
		failures += ahp_receive(agent, &m, LONG_NS) != 0;
		ahp_release(agent, &m);
		failures += ahp_observe(NULL, NULL, pass_over, NULL, NULL) != 0;
		pthread_barrier_wait(&together);
		ahp_agent_close(agent);
		if (in_step)
			pthread_barrier_wait(&together);
	}
	return NULL;
}

static void come_and_go_on(const char *loop)
{
	unsigned number[THREADS];
	pthread_t thread[THREADS];

	setenv("AVP_LOOP", loop, 1);
	pthread_barrier_init(&together, NULL, THREADS);
	for (unsigned i = 0; i < THREADS; i++) {
		number[i] = i;
		CU_ASSERT_FATAL(!pthread_create(&thread[i], NULL, come_and_go,
						&number[i]));
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	pthread_barrier_destroy(&together);
	unsetenv("AVP_LOOP");
	CU_ASSERT_EQUAL(failures, 0);
	CU_ASSERT_EQUAL(agents_names_left(), 0);
}

/*
 * liburing maps and unmaps rings by system calls of its own, which TSan does
 * not see: a ring where another thread had one before would be a race to it,
 * so no agent is opened while another is closed.
 */
static void coming_and_going(void)
{
	struct avp_loop *loop;

	setenv("AVP_LOOP", "io_uring", 1);
	if (avp_loop_open(&loop, NULL)) {
		unsetenv("AVP_LOOP");
		printf("skip agents_threads: io_uring is forbidden here\n");
		return;
	}
	avp_loop_close(loop);
	in_step = true;
	come_and_go_on("io_uring");
	in_step = false;
}

static void coming_and_going_epoll(void)
{
	come_and_go_on("epoll");
}

int main(void)
{
	static const struct test tests[] = {
		TEST(owners_and_their_threads),
		TEST(coming_and_going),
		TEST(coming_and_going_epoll),
		{0},
	};

	agents_begin();
	return test_main("agents_threads", tests);
}
