/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The measured stages: two agents, and messages that are TASKs and RESULTs with
 * an AVP frame, written, checked and read each time.
 */
#include <stdlib.h>
#include <string.h>

#include "ahp/cmd_bench.h"

#define WAIT_NS	    10000000000ll
#define HIDDEN_DIM  64
#define INLINE_MAX  128 /* payloads up to here are sent from private memory */

static const char *const names[2] = { "bench-a", "bench-b" };

static void fail(const char *what, int code, const struct avp_reason *why)
{
	bench_die("%s: %s: %s", what, avp_error_name(code), why->text);
}

static void prepare_template(struct bench_side *me)
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
		fail("metadata", error, &why);
}

/* The body that is handed over again and again: written once, here. */
static void prepare_handover(struct bench_side *me)
{
	struct avp_reason why = { 0 };
	int error = ahp_loan(me->agent, NULL, me->options->size, 0, &me->loan,
			     &why);

	if (error)
		fail("loan", error, &why);
	bench_fill(me->loan.data, me->options->size, 7);
}

static void await_link(struct bench_side *me)
{
	struct ahp_stats stats;

	do {
		ahp_agent_run(me->agent, 1000000);
		ahp_agent_stats(me->agent, &stats);
	} while (!stats.links);
}

/* The other process may not have opened its agent yet. */
static void connect_other(struct bench_side *me)
{
	struct avp_reason why = { 0 };
	int tries = 5000, error;

	do {
		error = ahp_connect(me->agent, names[1], WAIT_NS, &me->peer,
				    &why);
		if (!error)
			return;
		ahp_agent_run(me->agent, 1000000);
	} while (error == AVP_AGENT_NOT_FOUND && --tries);
	fail("connect", error, &why);
}

void bench_agent_open(struct bench_side *me)
{
	struct ahp_agent_options options = {
		.size = sizeof(options),
		.id = names[me->role],
		.name_space = "bench",
		.runtime_dir = me->options->runtime_dir,
		.wait = me->options->wait,
		.quota_bytes = 8 * me->options->size + (256u << 20),
	};
	struct avp_reason why = { 0 };
	int error = ahp_agent_open(&me->agent, &options, &why);

	if (error)
		fail("open", error, &why);
	prepare_template(me);
	if (me->role)
		await_link(me);
	else
		connect_other(me);
	if (!strcmp(me->options->bench, "handover"))
		prepare_handover(me);
}

void bench_agent_close(struct bench_side *me)
{
	ahp_agent_close(me->agent);
}

/* ---- one message ----------------------------------------------------------------- */

static void send_message(struct bench_side *me, struct ahp_outgoing *m)
{
	struct avp_reason why;
	int error;

	m->peer = me->peer;
	m->method = me->role ? AHP_RESULT : AHP_TASK;
	m->kind = AHP_FRAME;
	m->frame = &me->template;
	m->body_bytes = me->options->size;
	error = ahp_send(me->agent, m, WAIT_NS, NULL, &why);
	if (error)
		fail("send", error, &why);
}

static void send_small(struct bench_side *me, uint64_t stamp)
{
	_Alignas(64) uint8_t payload[INLINE_MAX];
	struct ahp_outgoing m = { .body = payload };

	bench_fill(payload, me->options->size, stamp);
	send_message(me, &m);
}

static void send_large(struct bench_side *me, uint64_t stamp)
{
	uint64_t size = me->options->size;
	struct avp_reason why;
	struct ahp_loan loan;
	int error = ahp_loan(me->agent, NULL, size, 0, &loan, &why);
	struct ahp_outgoing m = { .body = loan.data, .loan = &loan };

	if (error)
		fail("loan", error, &why);
	bench_fill(loan.data, size, stamp);
	send_message(me, &m);
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

/* The next message, with its metadata checked; release it. */
static void receive(struct bench_side *me, struct ahp_message *m)
{
	const struct avp_metadata *metadata = &m->frame.metadata;
	int error = ahp_receive(me->agent, m, AHP_FOREVER);

	if (error)
		bench_die("receive: %s", avp_error_name(error));
	if (m->kind != AHP_FRAME || metadata->hidden_dim != HIDDEN_DIM ||
	    metadata->model_id.len != 5 ||
	    memcmp(metadata->model_id.data, "bench", 5) ||
	    m->frame.payload_bytes != me->options->size)
		bench_die("a message that is not the bench's");
	me->peer = m->peer;
}

static void receive_all(struct bench_side *me, uint64_t stamp)
{
	struct ahp_message m;

	receive(me, &m);
	if (!bench_check(m.frame.payload, me->options->size, stamp))
		bench_die("payload %llu is damaged", (unsigned long long)stamp);
	ahp_release(me->agent, &m);
}

static void receive_ends(struct bench_side *me)
{
	struct ahp_message m;
	const uint8_t *p;

	receive(me, &m);
	p = m.frame.payload;
	if (!bench_check(p, 8, 7) ||
	    !bench_check(p + (me->options->size / 8 - 1) * 8, 8, 7))
		bench_die("the body that was handed over is damaged");
	ahp_release(me->agent, &m);
}

/* ---- stages ------------------------------------------------------------------------ */

void bench_latency(struct bench_side *me, uint64_t trips,
		   struct bench_hist *hist)
{
	void (*send)(struct bench_side *, uint64_t) =
		me->options->size <= INLINE_MAX ? send_small : send_large;
	uint64_t last = bench_ticks(), now;

	for (uint64_t i = 0; i < trips; i++) {
		uint64_t n = ++me->sequence;

		if (me->role)
			receive_all(me, n);
		send(me, n);
		if (me->role)
			continue;
		receive_all(me, n);
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
	void (*send)(struct bench_side *, uint64_t) =
		me->options->size <= INLINE_MAX ? send_small : send_large;
	uint64_t begin = bench_ticks();

	for (uint64_t i = 0; i < trips; i++) {
		uint64_t n = ++me->sequence;

		if (me->role)
			receive_all(me, n);
		else
			send(me, n);
	}
	if (me->role) {
		send(me, me->sequence);
		return;
	}
	receive_all(me, me->sequence);
	/* Sixteenths of a tick a message: a histogram holds whole numbers. */
	bench_hist_add(hist, (bench_ticks() - begin) * 16 / trips);
}
