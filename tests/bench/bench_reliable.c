/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What AHP_RELIABLE costs: the round trip of 64-byte messages between two
 * pinned processes that poll, each accepting what it gets, plain and reliable
 * batches by turns; and reliable ones with ids of the application's. Medians
 * of the batches' means, in ns.
 */
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <avp/ahp.h>

#include "bench.h"

enum { BATCH = 2000, ROUNDS = 400, BYTES = 64, KINDS = 3 };

static const char *const kind_name[KINDS] = {"plain", "reliable",
					     "reliable, with ids"};

static struct ahp_agent *open_agent(const char *id)
{
	struct ahp_agent_options o = {
		.size = sizeof(o), .id = id, .wait = AHP_WAIT_BUSY};
	struct ahp_agent *agent;
	struct avp_reason why;

	if (!ahp_agent_open(&agent, &o, &why))
		return agent;
	fprintf(stderr, "bench_reliable: %s\n", why.text);
	exit(1);
}

/* token_limit says which kind a message is: the answer is of the same. */
static void send_one(struct ahp_agent *agent, uint32_t peer, unsigned kind)
{
	static const char body[BYTES];
	static uint64_t id[2];
	struct ahp_outgoing out = {.peer = peer,
				   .method = AHP_TASK,
				   .flags = kind ? AHP_RELIABLE : 0,
				   .token_limit = kind + 1,
				   .body = body,
				   .body_bytes = BYTES};

	if (kind == 2) {
		id[0]++;
		id[1] = (uint64_t)getpid();
		out.message_id = (const uint8_t *)id;
	}
	if (ahp_send(agent, &out, AHP_FOREVER, NULL, NULL))
		exit(1);
}

static void answer(void)
{
	struct ahp_agent *agent = open_agent("bench-answers");
	struct ahp_message m;

	for (;;) {
		if (ahp_receive(agent, &m, AHP_FOREVER))
			exit(1);
		send_one(agent, m.peer, m.token_limit - 1);
		ahp_release(agent, &m);
	}
}

static double batch(struct ahp_agent *agent, uint32_t peer, unsigned kind)
{
	double start = now_ns();
	struct ahp_message m;

	for (int i = 0; i < BATCH; i++) {
		send_one(agent, peer, kind);
		if (ahp_receive(agent, &m, AHP_FOREVER))
			exit(1);
		ahp_release(agent, &m);
	}
	return (now_ns() - start) / BATCH;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(void)
{
	static double ns[KINDS][ROUNDS];
	struct ahp_agent *agent;
	pid_t child = fork();
	uint32_t peer = 0;

	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pin(1);
		answer();
	}
	pin(0);
	agent = open_agent("bench-asks");
	while (ahp_connect(agent, "bench-answers", AHP_FOREVER, &peer, NULL))
		sched_yield();
	for (int round = 0; round < ROUNDS; round++)
		for (unsigned kind = 0; kind < KINDS; kind++)
			ns[kind][round] = batch(agent, peer, kind);
	for (unsigned kind = 0; kind < KINDS; kind++) {
		qsort(ns[kind], ROUNDS, sizeof(double), compare);
		printf("{\"bench\":\"reliable\",\"kind\":\"%s\",\"unit\":"
		       "\"ns\",\"p50\":%.1f,\"ratio\":%.3f}\n",
		       kind_name[kind], ns[kind][ROUNDS / 2],
		       ns[kind][ROUNDS / 2] / ns[0][ROUNDS / 2]);
	}
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	ahp_agent_close(agent);
	return 0;
}
