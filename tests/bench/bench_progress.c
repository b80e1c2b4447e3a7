/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the progress thread costs the owner's calls: messages between two agents
 * of one thread, which go to and fro in its caches, so that nothing hides the
 * calls; with the thread and without, interleaved.
 */
#include <stdio.h>
#include <stdlib.h>

#include <avp/ahp.h>

#include "bench.h"

#define TRIPS	200000
#define BATCHES 15

static struct ahp_agent *open_agent(const char *id, uint32_t flags)
{
	const struct ahp_agent_options o = {
		.size = sizeof(o), .id = id, .flags = flags};
	struct ahp_agent *agent;
	struct avp_reason why;

	if (!ahp_agent_open(&agent, &o, &why))
		return agent;
	fprintf(stderr, "bench_progress: %s\n", why.text);
	exit(1);
}

static void send(struct ahp_agent *from, const char *to)
{
	const struct ahp_outgoing m = {.target = to,
				       .method = AHP_TASK,
				       .body = "0123456789abcdef",
				       .body_bytes = 16};

	if (ahp_send(from, &m, 0, NULL, NULL))
		exit(1);
}

static void take(struct ahp_agent *agent)
{
	struct ahp_message m;

	if (ahp_receive(agent, &m, 0))
		exit(1);
	ahp_release(agent, &m);
}

/* ns of a message there and back: six calls. */
static double batch(uint32_t flags)
{
	struct ahp_agent *a = open_agent("a", flags);
	struct ahp_agent *b = open_agent("b", flags);
	double start;

	while (ahp_connect(a, "b", 1000000, NULL, NULL))
		ahp_agent_run(b, 0);
	ahp_agent_run(b, 0);
	start = now_ns();
	for (int i = 0; i < TRIPS; i++) {
		send(a, "b");
		take(b);
		send(b, "a");
		take(a);
	}
	start = (now_ns() - start) / TRIPS;
	ahp_agent_close(a);
	ahp_agent_close(b);
	return start;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(void)
{
	static double ns[2][BATCHES];

	for (int b = 0; b < BATCHES; b++)
		for (int k = 0; k < 2; k++)
			ns[k][b] = batch(k ? AHP_PROGRESS_THREAD : 0);
	for (int k = 0; k < 2; k++)
		qsort(ns[k], BATCHES, sizeof(double), compare);
	printf("there and back, 6 calls: %.1f ns without, %.1f with the "
	       "progress thread: %.3f x (least: %.1f, %.1f)\n",
	       ns[0][BATCHES / 2], ns[1][BATCHES / 2],
	       ns[1][BATCHES / 2] / ns[0][BATCHES / 2], ns[0][0], ns[1][0]);
	return 0;
}
