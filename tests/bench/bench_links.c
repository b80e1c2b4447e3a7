/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What idle links cost an agent that goes to sleep: one call of
 * ahp_agent_arm(), and a sleeping round trip, in block mode, with a peer that
 * is always the same and with one that was idle; the peers are agents of one
 * other process. With "arm LINKS TIMES" only that call, for callgrind.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <avp/ahp.h>

#include "bench.h"

#define MOST  256
#define ARMS  20000
#define TRIPS 3000

static void need(bool so, const char *what)
{
	if (so)
		return;
	fprintf(stderr, "bench_links: %s\n", what);
	exit(1);
}

static struct ahp_agent *open_agent(const char *id)
{
	const struct ahp_agent_options o = {.id = id, .wait = AHP_WAIT_BLOCK};
	struct ahp_agent *agent;
	struct avp_reason why;

	need(!ahp_agent_open(&agent, &o, &why), why.text);
	return agent;
}

static struct ahp_agent *peer[MOST];
static uint32_t hub_of[MOST];

/* In the process of the peers, or in the hub's, which then has turns. */
static void open_peers(int links, struct ahp_agent *hub)
{
	char id[16];

	for (int i = 0; i < links; i++) {
		snprintf(id, sizeof(id), "peer-%d", i);
		peer[i] = open_agent(id);
		while (ahp_connect(peer[i], "hub", hub ? 0 : 1000000,
				   &hub_of[i], NULL))
			if (hub)
				ahp_agent_run(hub, 0);
	}
}

/* ---- arming ------------------------------------------------------------- */

static double arm(int links, int times)
{
	struct ahp_agent *hub = open_agent("hub");
	struct ahp_stats stats;
	double start;

	open_peers(links, hub);
	do {
		ahp_agent_run(hub, 0);
		ahp_agent_stats(hub, &stats);
	} while (stats.links < (uint64_t)links);
	start = now_ns();
	for (int i = 0; i < times; i++)
		need(!ahp_agent_arm(hub), "there is something to do");
	start = (now_ns() - start) / times;
	for (int i = 0; i < links; i++)
		ahp_agent_close(peer[i]);
	ahp_agent_close(hub);
	return start;
}

/* ---- round trips -------------------------------------------------------- */

static void echo(int links)
{
	struct ahp_agent *hub = open_agent("hub");
	struct ahp_outgoing m = {
		.method = AHP_TASK, .body = "12345678", .body_bytes = 8};
	struct ahp_message got;

	for (int i = 0; i < 2 * TRIPS + links; i++) {
		need(!ahp_receive(hub, &got, AHP_FOREVER), "no message");
		m.peer = got.peer;
		need(!ahp_send(hub, &m, 0, NULL, NULL), "not sent");
	}
	(void)!pause(); /* until it is killed */
}

static double trip(int i)
{
	const struct ahp_outgoing m = {.peer = hub_of[i],
				       .method = AHP_TASK,
				       .body = "12345678",
				       .body_bytes = 8};
	struct ahp_message got;
	double start = now_ns();

	need(!ahp_send(peer[i], &m, 0, NULL, NULL), "not sent");
	need(!ahp_receive(peer[i], &got, AHP_FOREVER), "no answer");
	return now_ns() - start;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* p50 of both kinds, interleaved. */
static void trips(int links, double out[2])
{
	static double took[2][TRIPS];
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pin(1);
		echo(links);
		_exit(0);
	}
	pin(0);
	open_peers(links, NULL);
	for (int i = 0; i < links; i++)
		trip(i);
	for (int i = 0; i < TRIPS; i++) {
		took[0][i] = trip(0);
		took[1][i] = trip(i * 7 % links);
	}
	for (int k = 0; k < 2; k++) {
		qsort(took[k], TRIPS, sizeof(double), compare);
		out[k] = took[k][TRIPS / 2];
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	for (int i = 0; i < links; i++)
		ahp_agent_close(peer[i]);
}

int main(int argc, char **argv)
{
	static const int links[] = {1, 64, MOST};
	double took[2];

	if (argc == 4 && !strcmp(argv[1], "arm")) {
		arm(atoi(argv[2]), atoi(argv[3]));
		return 0;
	}
	printf("links  to arm   round trip: same peer   another each time\n");
	for (int i = 0; i < 3; i++) {
		double armed = arm(links[i], ARMS);

		trips(links[i], took);
		printf("%5d %5.0f ns  %16.1f us  %16.1f us\n", links[i], armed,
		       took[0] / 1e3, took[1] / 1e3);
		fflush(stdout);
	}
	return 0;
}
