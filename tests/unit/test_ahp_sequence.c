/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The recorded step-by-step behaviour of the reference's queue (ahp_sequence,
 * ahp_receive, ahp_wait_for_task), replayed by agents, retry counts and
 * heartbeats. We differ on purpose where the record is a loss or a mistake:
 *
 *  - is_alive takes only the seconds of a difference: whole days and fractions
 *    are dropped, and a clock that went back counts as a day. Ours is by the
 *    whole, monotonic difference; such steps are counted and left out.
 *  - wait_for_task takes a message that is no TASK, and loses it. Ours puts it
 *    aside, and it is received next.
 *  - the asynchronous receiver never acknowledges. Ours does.
 *  - queue lengths are not asked for: duplicates are told apart by the reader,
 *    not by the sender; that so many are delivered as were queued is replayed.
 *
 *  - clear_dlq records which agents have a list, empty or not, in a table of
 *    the reference's own (agents_with_key). Ours has none: what is replayed is
 *    that the letters of that agent, or of all, are gone.
 */
#include <math.h>
#include <string.h>

#include <avp/dlq.h>
#include <avp/leader.h>

#include "tests/agents.h"
#include "tests/harness.h"
#include "tests/vectors.h"

#define AGENTS 16

/* Agent 0 sends; the others are those that the steps name. */
struct replay {
	struct ahp_agent *agent[AGENTS];
	char name[AGENTS][65];
	int64_t length[AGENTS]; /* of the recorded queue */
	uint64_t queued[AGENTS];
	int agents;
	struct ahp_retries *retries;
	struct ahp_heartbeats *heartbeats;
	struct ahp_dlq *dlq;
	int64_t now_us, seen_us[AGENTS];
	bool heard[AGENTS];
	unsigned sent, alive, different, looks;
};

static int agent_of(struct replay *r, struct avp_str name)
{
	int i = 0;

	while (i < r->agents && !avp_str_equal(name, avp_str_of(r->name[i])))
		i++;
	if (i < r->agents)
		return i;
	CU_ASSERT_FATAL(i < AGENTS && name.len && name.len <= 64);
	memcpy(r->name[i], name.data, name.len);
	r->agent[i] = agent_open(r->name[i], NULL);
	r->agents++;
	if (i)
		agents_link(r->agent[0], r->agent[i]);
	return i;
}

static void id_of(uint8_t id[16], const struct avp_json *step)
{
	CU_ASSERT_EQUAL(ahp_id_read(id, case_str(step, "message_id")), 0);
}

/* The reference's queue is `length` long then: a duplicate leaves it as it was. */
static void send_step(struct replay *r, const struct avp_json *step, int to,
		      int64_t length)
{
	struct avp_str text = case_str(step, "message_id");
	struct ahp_outgoing m = {
		.target = r->name[to], .method = AHP_TASK, .task_id = text};
	uint8_t id[16];

	id_of(id, step);
	m.message_id = id;
	r->sent++;
	r->queued[to] += (uint64_t)(length - r->length[to]);
	r->length[to] = length;
	CU_ASSERT_EQUAL(ahp_send(r->agent[0], &m, 0, NULL, NULL), 0);
}

static void broadcast_step(struct replay *r, const struct avp_json *step)
{
	const struct avp_json *name, *length;
	struct avp_str text;
	int64_t n;

	name = avp_json_first(avp_json_get(step, "agents"));
	length = avp_json_first(avp_json_get(step, "queue_lens"));
	while (name && length && !avp_json_string(name, &text) &&
	       !avp_json_int64(length, &n)) {
		send_step(r, step, agent_of(r, text), n);
		name = avp_json_next(name);
		length = avp_json_next(length);
	}
	CU_ASSERT(!name && !length);
}

static void beat(struct replay *r, int who)
{
	r->seen_us[who] = r->now_us;
	r->heard[who] = true;
	CU_ASSERT_EQUAL(ahp_heartbeat_update(r->heartbeats,
					     avp_str_of(r->name[who]),
					     r->now_us * 1000),
			0);
}

static void receive_step(struct replay *r, const struct avp_json *c,
			 const struct avp_json *step)
{
	int who = agent_of(r, case_str(step, "agent"));
	struct avp_str want = case_str(step, "message_id");
	struct ahp_message m;
	int error = ahp_receive(r->agent[who], &m, 0);

	if (!want.len) {
		CASE(c, error == AVP_TIMEOUT);
		return;
	}
	if (!CASE(c, !error))
		return;
	CASE(c, avp_str_equal(m.task_id, want));
	r->length[who]--;
	ahp_release(r->agent[who], &m);
}

static void alive_step(struct replay *r, const struct avp_json *c,
		       const struct avp_json *step)
{
	struct avp_str name = case_str(step, "agent");
	int who = agent_of(r, name);
	double timeout = case_double(step, "timeout");
	int64_t since_us = r->now_us - r->seen_us[who];
	bool ours = ahp_heartbeat_alive(
		r->heartbeats, name, llround(timeout * 1e9), r->now_us * 1000);
	int64_t seconds = since_us / 1000000 - (since_us % 1000000 < 0);
	bool whole = (double)since_us < timeout * 1e6, recorded;

	seconds = (seconds % 86400 + 86400) % 86400;
	recorded = (double)seconds < timeout;
	r->alive++;
	if (r->heard[who] && recorded != whole) {
		CASE(c, case_bool(step, "result") == recorded);
		r->different++;
		return;
	}
	CASE(c, ours == case_bool(step, "result"));
}

/* ---- the dead letter queue, on disk ------------------------------------- */

/* Letters of an agent (empty: all); each has to be the next of ids and
 * counts. */
static int64_t letters(struct replay *r, const struct avp_json *c,
		       struct avp_str agent, const struct avp_json *ids,
		       const struct avp_json *counts)
{
	const struct avp_json *id = ids ? avp_json_first(ids) : NULL;
	const struct avp_json *count = counts ? avp_json_first(counts) : NULL;
	struct ahp_dlq_entry e;
	uint64_t after = 0;
	int64_t n = 0, want;
	struct avp_str text;

	while (ahp_dlq_next(r->dlq, after, &e, NULL) == 1) {
		after = e.number;
		if (!agent.len || avp_str_equal(e.agent, agent)) {
			n++;
			if (ids && CASE(c, id && count)) {
				CASE(c,
				     !avp_json_string(id, &text) &&
					     avp_str_equal(e.message.message_id,
							   text));
				CASE(c, !avp_json_int64(count, &want) &&
						want == e.retry_count);
				id = avp_json_next(id);
				count = avp_json_next(count);
			}
		}
		ahp_dlq_entry_fini(&e);
	}
	CASE(c, !id && !count);
	return n;
}

static void bury(struct replay *r, const struct avp_json *c,
		 const struct avp_json *step, uint32_t retries)
{
	struct ahp_envelope m = {.method = {"TASK", 4},
				 .agent_id = {"sender", 6},
				 .target_agent = case_str(step, "agent"),
				 .message_id = case_str(step, "message_id")};
	struct ahp_dlq_letter letter = {.message = &m,
					.error = case_str(step, "error"),
					.code = AVP_RETRY_EXHAUSTED,
					.retry_count = retries};

	CASE(c, !ahp_dlq_append(r->dlq, &letter, NULL, NULL));
	CASE(c, letters(r, c, m.target_agent, NULL, NULL) ==
			case_int(step, "len"));
}

static void dlq_step(struct replay *r, const struct avp_json *c,
		     const struct avp_json *step)
{
	const struct avp_json *name = avp_json_get(step, "agent");
	struct avp_str agent = {"", 0};

	if (avp_json_type_of(name) == AVP_JSON_STRING)
		agent = case_str(step, "agent");
	if (case_is(step, "op", "get_dlq")) {
		letters(r, c, agent, avp_json_get(step, "message_ids"),
			avp_json_get(step, "retry_counts"));
		r->looks++;
		return;
	}
	CASE(c, !ahp_dlq_clear(r->dlq, agent, NULL, NULL));
	CASE(c, letters(r, c, agent, NULL, NULL) == 0);
}

static void retry_step(struct replay *r, const struct avp_json *c,
		       const struct avp_json *step)
{
	uint8_t id[16];
	uint32_t count;

	id_of(id, step);
	if (case_is(step, "op", "should_retry")) {
		CASE(c, ahp_should_retry(r->retries, id) ==
				case_bool(step, "result"));
	} else if (case_is(step, "op", "increment_retry")) {
		CASE(c, !ahp_increment_retry(r->retries, id, &count) &&
				count == case_int(step, "result"));
	} else if (case_is(step, "op", "reset_retry")) {
		ahp_reset_retry(r->retries, id);
		CASE(c, ahp_retry_count(r->retries, id) == 0);
	} else {
		CASE(c, ahp_retry_count(r->retries, id) ==
				case_int(step, "retry_count"));
		bury(r, c, step, ahp_retry_count(r->retries, id));
	}
}

static void replay_step(struct replay *r, const struct avp_json *c,
			const struct avp_json *step)
{
	if (case_is(step, "op", "send")) {
		send_step(r, step, agent_of(r, case_str(step, "agent")),
			  case_int(step, "queue_len"));
	} else if (case_is(step, "op", "broadcast")) {
		broadcast_step(r, step);
	} else if (case_is(step, "op", "receive")) {
		receive_step(r, c, step);
	} else if (case_is(step, "op", "update_heartbeat")) {
		beat(r, agent_of(r, case_str(step, "agent")));
	} else if (case_is(step, "op", "is_alive")) {
		alive_step(r, c, step);
	} else if (case_is(step, "op", "advance")) {
		r->now_us += llround(case_double(step, "seconds") * 1e6);
	} else if (case_is(step, "op", "get_dlq") ||
		   case_is(step, "op", "clear_dlq")) {
		dlq_step(r, c, step);
	} else if (!case_is(step, "op", "queue")) {
		retry_step(r, c, step);
	}
}

static void open_replay(struct replay *r, const struct avp_json *queue)
{
	const struct ahp_dlq_options dlq = {
		.size = sizeof(dlq), .dir = test_dir(), .name_space = "dlq"};

	*r = (struct replay){.now_us = 1000000000000};
	CU_ASSERT_EQUAL_FATAL(ahp_dlq_open(&r->dlq, &dlq, NULL), 0);
	agent_of(r, avp_str_of("sender"));
	CU_ASSERT_EQUAL_FATAL(
		ahp_retries_new(&r->retries,
				(uint32_t)case_int(queue, "max_retries")),
		0);
	CU_ASSERT_EQUAL_FATAL(ahp_heartbeats_new(&r->heartbeats), 0);
}

/* What is left is read: every message once, however often it was sent. */
static void close_replay(struct replay *r, const struct avp_json *c)
{
	uint64_t received = 0, duplicates = 0;
	struct ahp_message m;

	for (int i = 1; i < r->agents; i++) {
		while (!ahp_receive(r->agent[i], &m, 0))
			ahp_release(r->agent[i], &m);
		CASE(c, agent_stats(r->agent[i]).received == r->queued[i]);
		received += agent_stats(r->agent[i]).received;
		duplicates += agent_stats(r->agent[i]).duplicates;
	}
	CASE(c, received + duplicates == r->sent);
	for (int i = 0; i < r->agents; i++)
		ahp_agent_close(r->agent[i]);
	CASE(c, !ahp_dlq_clear(r->dlq, avp_str_of(""), NULL, NULL));
	ahp_dlq_close(r->dlq);
	ahp_retries_free(r->retries);
	ahp_heartbeats_free(r->heartbeats);
}

static void sequences(void)
{
	unsigned alive = 0, different = 0, looks = 0;

	VECTORS("ahp_sequence", 12);
	for (const struct avp_json *c = vectors_first("ahp_sequence"); c;
	     c = avp_json_next(c)) {
		const struct avp_json *steps = avp_json_get(c, "steps");
		struct replay r;

		open_replay(&r, avp_json_first(steps));
		for (const struct avp_json *step = avp_json_first(steps); step;
		     step = avp_json_next(step))
			replay_step(&r, c, step);
		alive += r.alive;
		different += r.different;
		looks += r.looks;
		close_replay(&r, c);
	}
	CU_ASSERT(!vectors_are_ours() || (alive > different && looks > 0));
}

/* The answer as a message, which it is where it leaves the host. */
static void acknowledge(const struct avp_json *c, const struct ahp_message *m)
{
	const struct avp_json *ack = avp_json_get(c, "ack");
	struct avp_buf payload = {0}, got = {0}, want = {0};
	struct ahp_ack_payload fields = {
		.original_message_id =
			case_str(avp_json_get(c, "sent"), "message_id")};
	struct ahp_envelope e = {.method = avp_str_of(ahp_method_name(AHP_ACK)),
				 .agent_id = {"head", 4},
				 .target_agent = avp_str_of(m->source),
				 .task_id = m->task_id,
				 .session_id = m->session_id,
				 .token_limit = AHP_DEFAULT_TOKEN_LIMIT,
				 .message_id = case_str(ack, "message_id")};
	struct avp_json_writer w;

	CASE(c, !ahp_time_read(&e.timestamp, case_str(ack, "timestamp"), NULL));
	fields.timestamp = e.timestamp;
	avp_json_begin(&w, &payload, AVP_JSON_PYTHON);
	ahp_ack_put(&w, &fields);
	CASE(c, !avp_json_finish(&w));
	e.payload_json = avp_buf_str(&payload);
	CASE(c, !ahp_envelope_write(&got, &e, AVP_JSON_PYTHON));
	CASE(c, !avp_json_write(&want, ack, AVP_JSON_PYTHON));
	CASE(c, avp_str_equal(avp_buf_str(&got), avp_buf_str(&want)));
	avp_buf_fini(&payload);
	avp_buf_fini(&got);
	avp_buf_fini(&want);
}

/* What was sent is what came, but for its time, which is the lane's. */
static void same_message(const struct avp_json *c, const struct ahp_message *m,
			 struct avp_str payload)
{
	const struct avp_json *sent = avp_json_get(c, "sent");
	uint8_t id[16], want[16];

	CASE(c, m->method == ahp_method_of(case_str(sent, "method")));
	CASE(c,
	     avp_str_equal(avp_str_of(m->source), case_str(sent, "agent_id")));
	CASE(c, avp_str_equal(m->task_id, case_str(sent, "task_id")));
	CASE(c, avp_str_equal(m->session_id, case_str(sent, "session_id")));
	CASE(c, m->token_limit == case_int(sent, "token_limit"));
	CASE(c, m->body_bytes == payload.len &&
			!memcmp(m->body, payload.data, payload.len));
	ahp_message_id(m, id);
	id_of(want, sent);
	CASE(c, !memcmp(id, want, 16));
}

/* TASK, RESULT and PROGRESS are acknowledged; the answer goes to the source. */
static void receive_case(const struct avp_json *c, const struct avp_json *sent)
{
	const bool automatic = case_bool(c, "auto_ack");
	const struct ahp_agent_options options = {
		.flags = automatic ? 0 : AHP_EXPLICIT_ACK};
	struct ahp_agent *head = agent_open("head", &options),
			 *from = agent_open(case_str(sent, "agent_id").data,
					    NULL);
	struct ahp_outgoing out = {
		.target = "head",
		.method = (uint8_t)ahp_method_of(case_str(sent, "method")),
		.kind = AHP_JSON,
		.task_id = case_str(sent, "task_id"),
		.session_id = case_str(sent, "session_id"),
		.token_limit = (uint32_t)case_int(sent, "token_limit")};
	bool answered = out.method == AHP_TASK || out.method == AHP_RESULT ||
			out.method == AHP_PROGRESS;
	struct ahp_receipt receipt;
	struct avp_buf payload = {0};
	struct ahp_message m;
	uint8_t id[16];

	id_of(id, sent);
	out.message_id = id;
	avp_json_write(&payload, avp_json_get(sent, "payload"),
		       AVP_JSON_PYTHON);
	out.body = payload.data;
	out.body_bytes = payload.len;
	agents_link(from, head);
	CASE(c, !ahp_send(from, &out, 0, &receipt, NULL));
	CASE(c, !ahp_receive(head, &m, 0));
	same_message(c, &m, avp_buf_str(&payload));
	agents_settle(head, from);
	/* What is never answered in the record is, as a fact in memory, always
	 * acknowledged here. */
	CASE(c, (ahp_status(from, &receipt) == 0) == (!answered || automatic));
	if (avp_json_type_of(avp_json_get(c, "ack")) == AVP_JSON_OBJECT)
		acknowledge(c, &m);
	ahp_release(head, &m);
	avp_buf_fini(&payload);
	ahp_agent_close(head);
	ahp_agent_close(from);
}

static void receive(void)
{
	VECTORS("ahp_receive", 16);
	for (const struct avp_json *c = vectors_first("ahp_receive"); c;
	     c = avp_json_next(c)) {
		const struct avp_json *sent = avp_json_get(c, "sent");

		if (avp_json_type_of(sent) == AVP_JSON_OBJECT)
			receive_case(c, sent); /* else a time-out */
	}
}

/* However many are passed over, what lies behind them is there now. */
static void behind_duplicates(void)
{
	struct ahp_agent *from = agent_open("from", NULL);
	struct ahp_agent *head = agent_open("head", NULL);
	uint8_t id[16] = {1};
	struct ahp_outgoing out = {
		.target = "head", .method = AHP_TASK, .message_id = id};
	struct ahp_message m;

	agents_link(from, head);
	for (int i = 0; i < 200; i++)
		CU_ASSERT_EQUAL(ahp_send(from, &out, 0, NULL, NULL), 0);
	id[0] = 2;
	CU_ASSERT_EQUAL(ahp_send(from, &out, 0, NULL, NULL), 0);
	for (int i = 0; i < 2; i++) {
		CU_ASSERT_EQUAL_FATAL(ahp_receive(head, &m, 0), 0);
		ahp_release(head, &m);
	}
	CU_ASSERT_EQUAL(ahp_receive(head, &m, 0), AVP_TIMEOUT);
	CU_ASSERT_EQUAL(agent_stats(head).duplicates, 199);
	ahp_agent_close(head);
	ahp_agent_close(from);
}

/* Recorded: what is no TASK is lost. Ours: it waits in the inbox. */
static void wait_for_task(void)
{
	VECTORS("ahp_wait_for_task", 3);
	for (const struct avp_json *c = vectors_first("ahp_wait_for_task"); c;
	     c = avp_json_next(c)) {
		struct ahp_outgoing out = {
			.target = "head",
			.method = (uint8_t)ahp_method_of(
				case_str(c, "sent_method")),
		};
		struct ahp_outgoing ask = {.target = "from",
					   .method = AHP_TASK,
					   .task_id = {"t", 1}};
		struct ahp_agent *from = agent_open("from", NULL);
		struct ahp_agent *head = agent_open("head", NULL);
		struct ahp_inbox *inbox;
		struct ahp_message *m;

		agents_link(from, head);
		CASE(c, !ahp_inbox_open(&inbox, head, NULL));
		CASE(c, !ahp_send(from, &out, 0, NULL, NULL));
		CASE(c, ahp_request(inbox, &ask, 0, &m, NULL) == AVP_TIMEOUT);
		if (CASE(c, !ahp_inbox_receive(inbox, &m, 0))) {
			CASE(c, m->method == out.method);
			ahp_inbox_done(inbox, m);
		}
		ahp_inbox_close(inbox);
		ahp_agent_close(head);
		ahp_agent_close(from);
	}
}

static void liveness(void)
{
	struct ahp_agent *a = agent_open("a", NULL), *b = agent_open("b", NULL);
	struct ahp_event event;

	CU_ASSERT_EQUAL(ahp_liveness(a, "b", SECOND_NS), AHP_NEVER_SEEN);
	agents_link(a, b);
	CU_ASSERT_EQUAL(ahp_liveness(a, "b", LONG_NS), AHP_ALIVE);
	CU_ASSERT_EQUAL(ahp_agent_run(a, SECOND_NS / 100), 0);
	CU_ASSERT_EQUAL(ahp_liveness(a, "b", SECOND_NS / 200), AHP_STUCK);
	CU_ASSERT_EQUAL(ahp_liveness(a, "b", AHP_USUAL), AHP_ALIVE);
	ahp_agent_run(b, 0);
	CU_ASSERT_EQUAL(ahp_liveness(a, "b", LONG_NS), AHP_ALIVE);
	CU_ASSERT_EQUAL(ahp_next_event(a, &event, 0), AVP_TIMEOUT);
	ahp_agent_close(b);
	ahp_agent_run(a, 0);
	CU_ASSERT_EQUAL(ahp_liveness(a, "b", LONG_NS), AHP_DEAD);
	ahp_agent_close(a);
}

/* The agent's own interval and time-outs stand where AHP_USUAL is said. */
static void usual_times(void)
{
	const struct ahp_agent_options options = {
		.heartbeat_interval_ns = 1,
		.receive_timeout_ns = SECOND_NS / 1000,
		.task_timeout_ns = SECOND_NS / 500,
		.token_limit = 77,
	};
	struct ahp_agent *a = agent_open("a", &options);
	struct ahp_agent *b = agent_open("b", NULL);
	struct ahp_outgoing out = {.target = "b", .method = AHP_TASK};
	struct ahp_receipt receipt;
	struct ahp_message m;

	agents_link(a, b);
	CU_ASSERT_EQUAL(ahp_liveness(a, "b", AHP_USUAL), AHP_ALIVE);
	CU_ASSERT_EQUAL(ahp_receive(a, &m, AHP_USUAL), AVP_TIMEOUT);
	CU_ASSERT_EQUAL(ahp_liveness(a, "b", AHP_USUAL), AHP_STUCK);
	CU_ASSERT_EQUAL(ahp_send(a, &out, AHP_USUAL, &receipt, NULL), 0);
	CU_ASSERT_EQUAL(ahp_wait(a, &receipt, AHP_USUAL), AVP_TIMEOUT);
	CU_ASSERT_EQUAL(ahp_receive(b, &m, AHP_USUAL), 0);
	CU_ASSERT_EQUAL(m.token_limit, 77);
	ahp_release(b, &m);
	ahp_agent_close(b);
	ahp_agent_close(a);
}

/* Agents of other hosts: silence alone tells. */
static void remote_heartbeats(void)
{
	const struct avp_str far = {"far", 3};
	struct ahp_heartbeats *h;
	struct ahp_heartbeat_payload payload;
	struct ahp_envelope m;
	struct avp_buf text = {0};
	struct avp_json_doc *doc;

	CU_ASSERT_EQUAL_FATAL(ahp_heartbeats_new(&h), 0);
	CU_ASSERT_EQUAL(ahp_heartbeat_liveness(h, far, 10, 100),
			AHP_NEVER_SEEN);
	CU_ASSERT_EQUAL(ahp_heartbeat_update(h, far, 100), 0);
	CU_ASSERT_EQUAL(ahp_heartbeat_liveness(h, far, 10, 119), AHP_ALIVE);
	CU_ASSERT_EQUAL(ahp_heartbeat_liveness(h, far, 10, 120), AHP_STUCK);
	CU_ASSERT_EQUAL(ahp_heartbeat_liveness(h, far, 10, 149), AHP_STUCK);
	CU_ASSERT_EQUAL(ahp_heartbeat_liveness(h, far, 10, 150), AHP_DEAD);
	CU_ASSERT_EQUAL(ahp_heartbeat_update(h, far, 151), 0);
	CU_ASSERT_EQUAL(ahp_heartbeat_liveness(h, far, 10, 152), AHP_ALIVE);
	CU_ASSERT(ahp_heartbeat_due(h, far, 10, 3));
	CU_ASSERT_FALSE(ahp_heartbeat_due(h, far, 10, 12));
	CU_ASSERT(ahp_heartbeat_due(h, far, 10, 13));
	CU_ASSERT_FALSE(ahp_heartbeat_due(h, far, 10, 22));
	CU_ASSERT_EQUAL(
		ahp_heartbeat_write(&text, (struct avp_str){"near", 4}, far),
		0);
	CU_ASSERT_EQUAL_FATAL(
		avp_json_parse(&doc, text.data, text.len, NULL, NULL), 0);
	CU_ASSERT_EQUAL(ahp_envelope_read(&m, avp_json_root(doc), NULL), 0);
	CU_ASSERT_EQUAL(ahp_method_of(m.method), AHP_HEARTBEAT);
	CU_ASSERT(avp_str_equal(m.agent_id, (struct avp_str){"near", 4}));
	CU_ASSERT(avp_str_equal(m.target_agent, far));
	CU_ASSERT_EQUAL(ahp_heartbeat_read(&payload, m.payload, NULL), 0);
	CU_ASSERT(payload.timestamp.year >= 2024);
	CU_ASSERT(m.message_id.len == AHP_ID_TEXT_BYTES - 1);
	avp_json_free(doc);
	avp_buf_fini(&text);
	ahp_heartbeats_free(h);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(sequences),
		TEST(receive),
		TEST(behind_duplicates),
		TEST(wait_for_task),
		TEST(liveness),
		TEST(usual_times),
		TEST(remote_heartbeats),
		{0},
	};

	agents_begin();
	return test_main("ahp_sequence", tests);
}
