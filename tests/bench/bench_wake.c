/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sleeping round trip: two agents in block mode, each on a core of its own,
 * with each doorbell and loop, beside two processes with a bare futex. Batches
 * are interleaved, since what a wake costs changes with the host.
 */
#include <limits.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <avp/ahp.h>

#include "bench.h"

#define TRIPS	2000 /* of a batch */
#define BATCHES 8    /* of each kind */

struct kind {
	const char *name, *loop, *bell;
};

static const struct kind kind[] = {
	{"bare futex", NULL, NULL},
	{"io_uring, futex", "io_uring", "futex"},
	{"io_uring, socket", "io_uring", "socket"},
	{"epoll, socket", "epoll", "socket"},
};
#define KINDS (sizeof(kind) / sizeof(*kind))

static uint64_t late_wakes;

/* ---- futex -------------------------------------------------------------- */

static void count_up(_Atomic uint32_t *word)
{
	atomic_fetch_add(word, 1);
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static void await(_Atomic uint32_t *word, uint32_t before)
{
	while (atomic_load(word) == before)
		syscall(SYS_futex, word, FUTEX_WAIT, before, NULL, NULL, 0);
}

static void futex_batch(_Atomic uint32_t *words, bool echoes, double *out)
{
	_Atomic uint32_t *mine = &words[echoes ? 16 : 0];
	_Atomic uint32_t *theirs = &words[echoes ? 0 : 16];

	for (int i = -100; i < TRIPS; i++) {
		double start = now_ns();

		if (!echoes)
			count_up(mine);
		await(theirs, (uint32_t)(i + 100));
		if (echoes)
			count_up(mine);
		else if (i >= 0)
			out[i] = now_ns() - start;
	}
}

/* ---- agents ------------------------------------------------------------- */

static void need(bool so, const char *what)
{
	if (so)
		return;
	fprintf(stderr, "bench_wake: %s\n", what);
	exit(1);
}

static void agent_batch(const struct kind *k, bool echoes, double *out)
{
	const struct ahp_agent_options o = {.size = sizeof(o),
					    .id = echoes ? "echo" : "ping",
					    .wait = AHP_WAIT_BLOCK};
	struct ahp_outgoing m = {.target = "echo",
				 .method = AHP_TASK,
				 .body = "12345678",
				 .body_bytes = 8};
	struct ahp_message got;
	struct ahp_agent *agent;
	struct ahp_stats stats;
	struct avp_reason why;
	int tries = 5000;

	setenv("AVP_LOOP", k->loop, 1);
	setenv("AVP_BELL", k->bell, 1);
	need(!ahp_agent_open(&agent, &o, &why), why.text);
	while (!echoes && tries-- &&
	       ahp_connect(agent, "echo", AHP_FOREVER, NULL, &why))
		ahp_agent_run(agent, 1000000);
	for (int i = -100; i < TRIPS; i++) {
		double start = now_ns();

		if (!echoes)
			need(!ahp_send(agent, &m, 0, NULL, &why), why.text);
		need(!ahp_receive(agent, &got, AHP_FOREVER), "no message");
		m.peer = got.peer;
		if (echoes)
			need(!ahp_send(agent, &m, 0, NULL, &why), why.text);
		else if (i >= 0)
			out[i] = now_ns() - start;
	}
	ahp_agent_stats(agent, &stats);
	late_wakes += stats.late_wakes;
	ahp_agent_close(agent);
}

static void batch(const struct kind *k, double *out)
{
	_Atomic uint32_t *words = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
				       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid)
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	pin(!pid);
	if (k->loop)
		agent_batch(k, !pid, out);
	else
		futex_batch(words, !pid, out);
	if (!pid)
		_exit(0);
	waitpid(pid, NULL, 0);
	munmap(words, 4096);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(void)
{
	static double trip[KINDS][BATCHES * TRIPS];
	const int n = BATCHES * TRIPS;

	for (int b = 0; b < BATCHES; b++)
		for (unsigned k = 0; k < KINDS; k++)
			batch(&kind[k], trip[k] + b * TRIPS);
	for (unsigned k = 0; k < KINDS; k++) {
		qsort(trip[k], (size_t)n, sizeof(double), compare);
		printf("%-17s p50 %5.1f us, p90 %5.1f, p99 %6.1f; %.2f x\n",
		       kind[k].name, trip[k][n / 2] / 1e3,
		       trip[k][n * 9 / 10] / 1e3, trip[k][n * 99 / 100] / 1e3,
		       trip[k][n / 2] / trip[0][n / 2]);
	}
	printf("%llu late wakes\n", (unsigned long long)late_wakes);
	return 0;
}
