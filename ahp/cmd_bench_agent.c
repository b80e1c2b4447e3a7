/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The measured stages: two agents, and messages that are TASKs and RESULTs with
 * an AVP frame, written, checked and read each time.
 */
#include <stdlib.h>
#include <string.h>

#include "ahp/cmd_bench.h"

#define HIDDEN_DIM 64
#define BATCH	   16 /* messages in a call, one way */

static const char *const names[2] = { "bench-a", "bench-b" };

void bench_template(struct bench_side *me)
{
	struct avp_metadata metadata = {
		.model_id = avp_str_of("bench"),
		.hidden_dim = HIDDEN_DIM,
		.shape_count = 1,
		.shape_inline = { HIDDEN_DIM },
	};
	struct avp_reason why = { 0 };
	int error = avp_frame_template_init(&me->template, &metadata,
					    AVP_DIALECT_0_2, &why);

	if (error)
		bench_fail("metadata", &why);
}

/* The body that is handed over again and again: written once, here. */
static void prepare_handover(struct bench_side *me)
{
	struct avp_reason why = { 0 };
	int error = ahp_loan(me->agent, NULL, me->size, 0, &me->loan,
			     &why);

	if (error)
		bench_fail("loan", &why);
	bench_fill(me->loan.data, me->size, 7);
}

void bench_await_links(struct ahp_agent **agent, unsigned count)
{
	struct ahp_stats stats;
	unsigned linked;

	do {
		linked = 0;
		for (unsigned i = 0; i < count; i++) {
			ahp_agent_run(agent[i], 0);
			ahp_agent_stats(agent[i], &stats);
			linked += stats.links != 0;
		}
	} while (linked < count);
}

uint32_t bench_connect(struct ahp_agent *agent, const char *id)
{
	struct avp_reason why = { 0 };
	int tries = 5000, error;
	uint32_t peer;

	do {
		error = ahp_connect(agent, id, BENCH_WAIT_NS, &peer, &why);
		if (!error)
			return peer;
		ahp_agent_run(agent, 1000000);
	} while (error == AVP_AGENT_NOT_FOUND && --tries);
	bench_fail("connect", &why);
}

struct ahp_agent *bench_agent_new(const struct bench_side *me, const char *id)
{
	struct ahp_agent_options options = {
		.size = sizeof(options),
		.id = id,
		.name_space = "bench",
		.runtime_dir = me->options->runtime_dir,
		.wait = me->options->wait,
		.quota_bytes = 8 * me->size + (256u << 20),
	};
	struct avp_reason why = { 0 };
	struct ahp_agent *agent;

	if (ahp_agent_open(&agent, &options, &why))
		bench_fail("open", &why);
	return agent;
}

void bench_agent_open(struct bench_side *me)
{
	bench_template(me);
	me->agent = bench_agent_new(me, names[me->role]);
	if (me->role)
		bench_await_links(&me->agent, 1);
	else
		me->peer = bench_connect(me->agent, names[1]);
	if (!strcmp(me->options->bench, "handover"))
		prepare_handover(me);
}

/* Both sides' late wakes are told by role 0, which closes last. */
void bench_agent_close(struct bench_side *me)
{
	_Atomic uint64_t *theirs = &me->shared->late_wakes.word;
	struct ahp_stats stats;

	ahp_agent_stats(me->agent, &stats);
	if (me->role) {
		/* relaxed: the end of this process orders it */
		atomic_store_explicit(theirs, stats.late_wakes,
				      memory_order_relaxed);
	} else if (me->options->wait != AHP_WAIT_BUSY) {
		bench_note(me, "late_wakes",
			   (double)(stats.late_wakes +
				    atomic_load_explicit(
					    theirs, memory_order_relaxed)));
		bench_note_text(me, "doorbell",
				ahp_agent_doorbell(me->agent));
	}
	ahp_agent_close(me->agent);
}

/* ---- one message ----------------------------------------------------------------- */

void bench_compose(struct bench_side *me, struct ahp_outgoing *m)
{
	m->peer = me->peer;
	m->method = me->role ? AHP_RESULT : AHP_TASK;
	m->kind = AHP_FRAME;
	m->frame = &me->template;
	m->body_bytes = me->size;
}

static void send_message(struct bench_side *me, struct ahp_outgoing *m)
{
	struct avp_reason why;
	int error;

	bench_compose(me, m);
	error = ahp_send(me->agent, m, BENCH_WAIT_NS, NULL, &why);
	if (error)
		bench_fail("send", &why);
}

static void send_small(struct bench_side *me, uint64_t stamp)
{
	_Alignas(64) uint8_t payload[BENCH_INLINE];
	struct ahp_outgoing m = { .body = payload };

	bench_fill(payload, me->size, stamp);
	send_message(me, &m);
}

static void send_large(struct bench_side *me, uint64_t stamp)
{
	uint64_t size = me->size;
	struct avp_reason why;
	struct ahp_loan loan;
	int error = ahp_loan(me->agent, NULL, size, 0, &loan, &why);
	struct ahp_outgoing m = { .body = loan.data, .loan = &loan };

	if (error)
		bench_fail("loan", &why);
	bench_fill(loan.data, size, stamp);
	send_message(me, &m);
}

void bench_send(struct bench_side *me, uint64_t stamp)
{
	if (me->size <= BENCH_INLINE)
		send_small(me, stamp);
	else
		send_large(me, stamp);
}

static void send_again(struct bench_side *me)
{
	struct ahp_outgoing m = {
		.flags = AHP_KEEP_LOAN,
		.body = me->loan.data,
		.loan = &me->loan,
	};

	send_message(me, &m);
}

void bench_judge(struct bench_side *me, const struct ahp_message *m)
{
	const struct avp_metadata *metadata = &m->frame.metadata;

	if (m->kind != AHP_FRAME || metadata->hidden_dim != HIDDEN_DIM ||
	    metadata->model_id.len != 5 ||
	    memcmp(metadata->model_id.data, "bench", 5) ||
	    m->frame.payload_bytes != me->size)
		bench_die("a message that is not the bench's");
	me->peer = m->peer;
}

/* The next message, with its metadata checked; release it. */
static void receive(struct bench_side *me, struct ahp_message *m)
{
	int error = ahp_receive(me->agent, m, AHP_FOREVER);

	if (error)
		bench_die("receive: %s", avp_error_name(error));
	bench_judge(me, m);
}

void bench_read(struct bench_side *me, struct ahp_message *m, uint64_t stamp)
{
	if (!bench_check(m->frame.payload, me->size, stamp))
		bench_die("payload %llu is damaged", (unsigned long long)stamp);
	ahp_release(me->agent, m);
}

void bench_receive(struct bench_side *me, uint64_t stamp)
{
	struct ahp_message m;

	receive(me, &m);
	bench_read(me, &m, stamp);
}

/* Up to `most` messages that follow `stamp`; how many. */
static uint64_t receive_batch(struct bench_side *me, uint64_t stamp,
			      uint64_t most)
{
	static struct ahp_message m[BATCH];
	int n = ahp_receive_many(me->agent, m,
				 most < BATCH ? (uint32_t)most : BATCH,
				 AHP_FOREVER);

	if (n < 0)
		bench_die("receive: %s", avp_error_name(n));
	for (int i = 0; i < n; i++) {
		bench_judge(me, &m[i]);
		bench_read(me, &m[i], stamp + 1 + (uint64_t)i);
	}
	return (uint64_t)n;
}

/* As many messages, each with a payload of its own, in one call. */
static uint64_t send_batch(struct bench_side *me, uint64_t stamp, uint64_t most)
{
	_Alignas(64) static uint8_t payload[BATCH][BENCH_INLINE];
	static struct ahp_outgoing m[BATCH];
	uint32_t count = most < BATCH ? (uint32_t)most : BATCH;
	struct avp_reason why;
	int sent;

	for (uint32_t i = 0; i < count; i++) {
		bench_fill(payload[i], me->size, stamp + 1 + i);
		m[i].body = payload[i];
		bench_compose(me, &m[i]);
	}
	sent = ahp_send_many(me->agent, m, count, BENCH_WAIT_NS, NULL, &why);
	if (sent < (int)count)
		bench_fail("send", &why);
	return count;
}

static void receive_ends(struct bench_side *me)
{
	struct ahp_message m;
	const uint8_t *p;

	receive(me, &m);
	p = m.frame.payload;
	if (!bench_check(p, 8, 7) ||
	    !bench_check(p + (me->size / 8 - 1) * 8, 8, 7))
		bench_die("the body that was handed over is damaged");
	ahp_release(me->agent, &m);
}

/* ---- stages ------------------------------------------------------------------------ */

void bench_latency(struct bench_side *me, uint64_t trips,
		   struct bench_hist *hist)
{
	void (*send)(struct bench_side *, uint64_t) =
		me->size <= BENCH_INLINE ? send_small : send_large;
	uint64_t last = bench_ticks(), now;

	for (uint64_t i = 0; i < trips; i++) {
		uint64_t n = ++me->sequence;

		if (me->role)
			bench_receive(me, n);
		send(me, n);
		if (me->role)
			continue;
		bench_receive(me, n);
		now = bench_ticks();
		bench_hist_add(hist, now - last);
		last = now;
	}
}

void bench_handover(struct bench_side *me, uint64_t trips,
		    struct bench_hist *hist)
{
	uint64_t last = bench_ticks(), now;

	for (uint64_t i = 0; i < trips; i++) {
		if (me->role)
			receive_ends(me);
		send_again(me);
		if (me->role)
			continue;
		receive_ends(me);
		now = bench_ticks();
		bench_hist_add(hist, now - last);
		last = now;
	}
}

/* One way; ends when the last message was answered. */
void bench_throughput(struct bench_side *me, uint64_t trips,
		      struct bench_hist *hist)
{
	bool small = me->size <= BENCH_INLINE;
	uint64_t begin = bench_ticks(), left = trips, n;

	for (; left; left -= n, me->sequence += n) {
		n = 1;
		if (me->role)
			n = receive_batch(me, me->sequence, left);
		else if (small)
			n = send_batch(me, me->sequence, left);
		else
			send_large(me, me->sequence + 1);
	}
	if (me->role) {
		(small ? send_small : send_large)(me, me->sequence);
		return;
	}
	bench_receive(me, me->sequence);
	/* Sixteenths of a tick a message: a histogram holds whole numbers. */
	bench_hist_add(hist, (bench_ticks() - begin) * BENCH_SIXTEEN / trips);
}
