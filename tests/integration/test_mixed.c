/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A stream of messages of every kind between two processes that poll: whichever
 * way a message takes through send.c and receive.c, short or long, it arrives
 * as it was sent and where its turn is, and what is not to be delivered is
 * not.
 *
 * Both sides draw the same numbers: what a message is follows from its place.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <avp/ahp.h>
#include <avp/ring.h>

#include "tests/agents.h"
#include "tests/harness.h"

#define MESSAGES   20000
#define HELD	   8 /* at once, by the receiver */
#define MOST_BYTES 6000

enum kind { JSON, FRAME, COPIED_FRAME, LENT_FRAME, LENT_JSON, BAD, KINDS };

/* What the nth message is. */
struct drawn {
	enum kind kind;
	unsigned model, bytes, task, session, flags;
	bool id, expires, asks;
};

static const char *const model[] = {"m", "qwen2.5-0.5b", "another model"};
static char text[AVP_LANE_ID_BYTES];
static _Atomic uint32_t *ready; /* the receiver has its name */

static uint32_t mix(uint64_t n)
{
	n *= UINT64_C(0x9e3779b97f4a7c15);
	n ^= n >> 29;
	n *= UINT64_C(0xbf58476d1ce4e5b9);
	return (uint32_t)(n >> 32);
}

static struct drawn draw(uint64_t n)
{
	/* Mostly one kind after another: the short ways are for those. */
	uint32_t r = mix(n), run = mix(n / 16 + 77);
	struct drawn d = {
		.kind = r % 4 ? run % KINDS : r / 4 % KINDS,
		.model = r % 8 ? run / 8 % 3 : r / 64 % 3,
		.bytes = r / 8 % 3 ? 64 : r / 32 % 200,
		.asks = r / 1024 % 4 != 0,
	};

	if (d.kind == LENT_FRAME || d.kind == LENT_JSON)
		d.bytes = 1 + r / 32 % MOST_BYTES;
	if (r / 4096 % 8 == 0) {
		d.task = r / 16 % 81;
		d.session = r / 128 % 81;
	}
	if (r / 32768 % 4 == 0)
		d.flags = (r / 131072 % 2 ? AHP_RELIABLE : 0) |
			  (r / 262144 % 2 ? AHP_PROMPT_ACK : 0);
	if (d.kind == BAD) /* it would come back a second later */
		d.flags &= ~(unsigned)AHP_RELIABLE;
	d.id = r / 524288 % 16 == 0;
	d.expires = r / 8388608 % 16 == 0;
	return d;
}

/* ---- the sender --------------------------------------------------------- */

static struct avp_frame_template frame[3];

static void open_frames(void)
{
	for (unsigned i = 0; i < 3; i++) {
		struct avp_metadata metadata = {
			.model_id = avp_str_of(model[i]),
			.hidden_dim = 64 + i,
			.shape_count = 1,
			.shape_inline = {64},
		};

		CHECK(!avp_frame_template_init(&frame[i], &metadata,
					       AVP_DIALECT_0_2, NULL));
	}
}

static void fill(uint8_t *body, const struct drawn *d, uint64_t n)
{
	const struct avp_frame_template *t = &frame[d->model];

	if (d->kind == COPIED_FRAME || d->kind == BAD) {
		avp_frame_template_stamp(t, d->bytes, body);
		body += t->len;
	}
	pattern_fill(body, d->bytes, (uint32_t)n);
	if (d->kind == BAD)
		body[-1] |=
			0x80; /* the last number of the metadata has no end */
}

static void send_nth(struct ahp_agent *agent, uint32_t peer, uint64_t n)
{
	static uint8_t copied[AVP_FRAME_TEMPLATE_BYTES + MOST_BYTES];
	struct drawn d = draw(n);
	bool lent = d.kind == LENT_FRAME || d.kind == LENT_JSON;
	bool json = d.kind == JSON || d.kind == LENT_JSON;
	uint8_t id[16] = {[15] = 1}, *body = copied;
	struct ahp_outgoing out = {
		.peer = peer,
		.method = AHP_TASK + n % 7,
		.kind = json ? AHP_JSON : AHP_FRAME,
		.flags = d.flags,
		.token_limit = (uint32_t)n + 1,
		.task_id = {text, d.task},
		.session_id = {text, d.session},
		.message_id = d.id ? id : NULL,
		.expires_ns = d.expires ? LONG_NS : 0,
		.body_bytes = d.bytes,
	};
	struct ahp_loan loan;

	memcpy(id, &n, sizeof(n));
	if (lent) {
		CHECK(!ahp_loan(agent, NULL, d.bytes, 0, &loan, NULL));
		out.loan = &loan;
		body = loan.data;
	}
	if (d.kind == FRAME || d.kind == LENT_FRAME)
		out.frame = &frame[d.model];
	else if (!json)
		out.body_bytes += frame[d.model].len;
	fill(body, &d, n);
	out.body = body;
	CHECK(!ahp_send(agent, &out, LONG_NS, NULL, NULL));
}

static void sender(void *arg)
{
	struct ahp_agent *agent = agent_open("a", NULL);
	struct ahp_message m;
	uint32_t peer;
	uint64_t bad = 0;

	(void)arg;
	open_frames();
	CHECK(shared_await(ready, 1));
	CHECK(!ahp_connect(agent, "b", LONG_NS, &peer, NULL));
	for (uint64_t n = 0; n < MESSAGES; n++) {
		struct drawn d = draw(n);

		send_nth(agent, peer, n);
		bad += d.kind == BAD;
		if (!d.asks || d.kind == BAD)
			continue;
		CHECK(!ahp_receive(agent, &m, LONG_NS));
		CHECK(m.token_limit == n + 1);
		ahp_release(agent, &m);
	}
	while (agent_stats(agent).in_flight)
		ahp_agent_run(agent, SECOND_NS / 100);
	CHECK(agent_stats(agent).rejected == bad);
	CHECK(agent_stats(agent).bytes_lent == 0);
	ahp_agent_close(agent);
}

/* ---- the receiver ------------------------------------------------------- */

static bool str_is(struct avp_str s, const char *data, size_t len)
{
	return s.len == len && !memcmp(s.data, data, len);
}

static void check_nth(const struct ahp_message *m, uint64_t n)
{
	struct drawn d = draw(n);
	const struct avp_metadata *metadata = &m->frame.metadata;
	bool json = d.kind == JSON || d.kind == LENT_JSON;

	CHECK(m->token_limit == n + 1 && m->method == AHP_TASK + n % 7);
	CHECK(m->kind == (json ? AHP_JSON : AHP_FRAME) && !m->redelivered);
	CHECK(str_is(m->task_id, text, d.task));
	CHECK(str_is(m->session_id, text, d.session));
	if (json) {
		CHECK(m->body_bytes == d.bytes);
		CHECK(pattern_is(m->body, d.bytes, (uint32_t)n));
		return;
	}
	CHECK(m->body_bytes == frame[d.model].len + d.bytes);
	CHECK(str_is(metadata->model_id, model[d.model],
		     strlen(model[d.model])));
	CHECK(metadata->hidden_dim == 64 + d.model);
	CHECK(m->frame.payload_bytes == d.bytes);
	CHECK(m->frame.raw_size == m->body_bytes);
	CHECK(pattern_is(m->frame.payload, d.bytes, (uint32_t)n));
}

static void done_with(struct ahp_agent *agent, struct ahp_message *m, bool ask)
{
	if (ask && m->method != AHP_ACK && m->method <= AHP_PROGRESS)
		CHECK(!ahp_accept(agent, m));
	ahp_release(agent, m);
}

/* Holds a few, which are let go of in any order, and looks at them then. */
static void receiver(void *flags)
{
	const struct ahp_agent_options options = {
		.flags = *(const uint32_t *)flags, .window = 256};
	struct ahp_agent *agent = agent_open("b", &options);
	bool explicit = options.flags & AHP_EXPLICIT_ACK, full[HELD] = {0};
	struct ahp_outgoing answer = {.method = AHP_ACK};
	static struct ahp_message held[HELD];
	uint64_t at[HELD];

	open_frames();
	*ready = 1;
	for (uint64_t n = 0; n < MESSAGES; n++) {
		struct drawn d = draw(n);
		unsigned i = mix(n + 1) % HELD;

		if (d.kind == BAD)
			continue;
		if (full[i]) {
			check_nth(&held[i], at[i]);
			done_with(agent, &held[i], explicit);
		}
		CHECK(!ahp_receive(agent, &held[i], LONG_NS));
		check_nth(&held[i], n);
		answer.peer = held[i].peer;
		answer.token_limit = (uint32_t)n + 1;
		if (d.asks)
			CHECK(!ahp_send(agent, &answer, LONG_NS, NULL, NULL));
		at[i] = n;
		full[i] = mix(n + 2) % 4 == 0;
		if (!full[i])
			done_with(agent, &held[i], explicit);
	}
	for (unsigned i = 0; i < HELD; i++)
		if (full[i])
			done_with(agent, &held[i], explicit);
	/* Until the sender has heard all of it, and is gone. */
	while (agent_stats(agent).links)
		ahp_agent_run(agent, SECOND_NS / 10);
	ahp_agent_close(agent);
}

static void between(uint32_t flags)
{
	pid_t a, b;

	ready = shared_new(sizeof(*ready));
	b = child_start(receiver, &flags);
	a = child_start(sender, NULL);
	child_finish(a);
	child_finish(b);
	shared_free((void *)ready, sizeof(*ready));
	CU_ASSERT_EQUAL(agents_names_left(), 0);
}

static void accepted_when_taken(void)
{
	between(0);
}

static void accepted_by_hand(void)
{
	between(AHP_EXPLICIT_ACK);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(accepted_when_taken),
		TEST(accepted_by_hand),
		{0},
	};

	agents_begin();
	memset(text, 'i', sizeof(text));
	return test_main("mixed", tests);
}
