/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Agents with many links: one of which is busy, and one body for all of them. The
 * peers are real agents; those that have nothing to do are in one process, and
 * the readers of a fan-out in another, which asks them in turn.
 */
#include <linux/futex.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ahp/cmd_bench.h"

static pid_t idle_process;

static const char *name_of(const char *kind, unsigned i)
{
	static char name[AHP_ID_BYTES + 1];

	snprintf(name, sizeof(name), "bench-%s%u", kind, i);
	return name;
}

static void open_agents(struct bench_side *me, const char *kind, unsigned count)
{
	me->agents = calloc(count, sizeof(*me->agents));
	if (!me->agents)
		bench_die("no memory for %u agents", count);
	me->agent_count = count;
	for (unsigned i = 0; i < count; i++)
		me->agents[i] = bench_agent_new(me, name_of(kind, i));
}

static void close_agents(struct bench_side *me)
{
	for (unsigned i = 0; i < me->agent_count; i++)
		ahp_agent_close(me->agents[i]);
	free(me->agents);
}

/* ---- one busy link of many --------------------------------------------------------- */

/* Opens them, lets them be linked, and sleeps until the bench is over. */
static void run_idle(struct bench_side *me)
{
	bench_pin(me, 1);
	open_agents(me, "idle", me->options->links - 1);
	bench_await_links(me->agents, me->agent_count);
	/* acquire: pairs with the release of bench_links_close() */
	while (!atomic_load_explicit(&me->shared->over, memory_order_acquire))
		syscall(SYS_futex, &me->shared->over, FUTEX_WAIT, 0, NULL, NULL,
			0);
	close_agents(me);
}

/* agents[0] is one with a single link, to the other side's: for comparison. */
void bench_links_open(struct bench_side *me)
{
	bool measures = !me->role;

	if (measures)
		idle_process = bench_spawn(me, run_idle);
	bench_agent_open(me);
	open_agents(me, measures ? "one-a" : "one-b", 1);
	if (!measures) {
		bench_await_links(me->agents, 1);
		return;
	}
	bench_connect(me->agents[0], "bench-one-b0");
	for (unsigned i = 0; i + 1 < me->options->links; i++)
		bench_connect(me->agent, name_of("idle", i));
	bench_note(me, "links", me->options->links);
}

void bench_links_close(struct bench_side *me)
{
	if (!me->role) {
		/* release: nothing is to be seen but the word itself */
		atomic_store_explicit(&me->shared->over, 1,
				      memory_order_release);
		syscall(SYS_futex, &me->shared->over, FUTEX_WAKE, 1, NULL, NULL,
			0);
		bench_join(idle_process);
	}
	close_agents(me);
	bench_agent_close(me);
}

/* The same round trips by the agents that have one link each. */
void bench_one_link(struct bench_side *me, uint64_t trips,
		    struct bench_hist *hist)
{
	struct ahp_agent *agent = me->agent;
	uint32_t peer = me->peer;

	me->agent = me->agents[0];
	me->peer = 1; /* the only one */
	bench_latency(me, trips, hist);
	me->agent = agent;
	me->peer = peer;
}

/* ---- one body, many readers -------------------------------------------------------- */

void bench_fanout_open(struct bench_side *me)
{
	unsigned links = me->options->links;

	bench_template(me);
	if (me->role) {
		open_agents(me, "reader", links);
		bench_await_links(me->agents, links);
		return;
	}
	me->agent = bench_agent_new(me, "bench-writer");
	me->peers = calloc(links, sizeof(*me->peers));
	if (!me->peers)
		bench_die("no memory for %u links", links);
	for (unsigned i = 0; i < links; i++)
		me->peers[i] = bench_connect(me->agent, name_of("reader", i));
	bench_note(me, "links", links);
}

void bench_fanout_close(struct bench_side *me)
{
	if (!me->role)
		ahp_agent_close(me->agent);
	close_agents(me);
	free(me->peers);
}

/* Hands one block to every reader, and lets go of it. */
static void hand_out(struct bench_side *me, uint64_t stamp,
		     struct ahp_receipt *receipt)
{
	struct ahp_outgoing m = {.flags = AHP_KEEP_LOAN | AHP_PROMPT_ACK};
	struct avp_reason why;
	struct ahp_loan loan;

	if (ahp_loan(me->agent, NULL, me->size, 0, &loan, &why))
		bench_fail("loan", &why);
	bench_fill(loan.data, me->size, stamp);
	bench_compose(me, &m);
	m.body = loan.data;
	m.loan = &loan;
	for (unsigned i = 0; i < me->options->links; i++) {
		m.peer = me->peers[i];
		if (ahp_send(me->agent, &m, BENCH_WAIT_NS, &receipt[i], &why))
			bench_fail("send", &why);
	}
	ahp_loan_release(me->agent, &loan);
}

/* Written once, read by each reader, and acknowledged by all. */
void bench_fanout(struct bench_side *me, uint64_t trips,
		  struct bench_hist *hist)
{
	struct ahp_receipt receipt[BENCH_LINKS];
	uint64_t last = bench_ticks(), now;

	for (uint64_t t = 0; t < trips; t++) {
		uint64_t n = ++me->sequence;

		for (unsigned i = 0; me->role && i < me->agent_count; i++) {
			me->agent = me->agents[i];
			bench_receive(me, n);
		}
		if (me->role)
			continue;
		hand_out(me, n, receipt);
		for (unsigned i = 0; i < me->options->links; i++)
			if (ahp_wait(me->agent, &receipt[i], BENCH_WAIT_NS))
				bench_die("reader %u has not accepted", i);
		now = bench_ticks();
		bench_hist_add(hist, now - last);
		last = now;
	}
}
