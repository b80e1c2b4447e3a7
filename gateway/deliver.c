/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a request to a local agent and back: its link, its acknowledgement and its
 * RESULT, none of which is waited for here. A first link is looked for again until
 * it is up; what was sent is found again by its receipt, or by its task.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/serve.h"

#define LINK_NS	    1000000ll	/* between two looks for a link */
#define WATCH_NS    250000000ll /* between two looks at who works on a RESULT */
#define STUCK_NS    3600000000000ll
#define CONVERT_MAX (UINT64_C(64) << 20)

/* ---- who sends ------------------------------------------------------------------------- */

static void unlink_waiting(struct exchange *x)
{
	struct gw_inbound *in = x->in;

	*x->before = x->next;
	if (x->next)
		x->next->before = x->before;
	else
		in->linking_end = x->before;
	x->state = NOT_SENT;
}

void deliver_speak(struct exchange *x, struct avp_str source)
{
	struct gw_agent *speaker = gw_speaker(x->gw, source);

	gw_outbound_heard(speaker);
	if (x->speaker == speaker)
		return;
	if (x->state == LINKING)
		unlink_waiting(x);
	if (x->speaker)
		x->speaker->users--;
	x->peer = 0;
	x->speaker = speaker;
	speaker->users++;
}

/* ---- links ---------------------------------------------------------------------------- */

/* 0, AVP_AGAIN, or why there is none. Does not wait. */
static int try_link(struct exchange *x, struct avp_reason *why)
{
	int code = ahp_connect(x->speaker->agent, x->target, 0, &x->peer, why);

	if (code)
		x->peer = 0;
	if (code == AVP_USAGE) /* its own name */
		return avp__fail(why, AVP_AGENT_NOT_FOUND,
				 "%s is the gateway itself", x->target);
	return code == AVP_TIMEOUT || code == AVP_QUEUE_FULL ? AVP_AGAIN : code;
}

static void linked(struct exchange *x, int code, const struct avp_reason *why)
{
	unlink_waiting(x);
	if (x->endpoint == GW_HANDSHAKE &&
	    (!code || code == AVP_AGENT_NOT_FOUND))
		handshake_linked(x, code);
	else if (code)
		serve_fail(x, serve_status(code), why);
	else if (x->whole && x->endpoint == GW_TEXT)
		text_send(x);
	else if (x->whole)
		transmit_send(x);
}

static void set_link_timer(struct gw_inbound *in)
{
	struct gateway *gw = in->server.gw;

	gw_timer_set(&gw->timers, &in->link_timer, gw_clock_ns() + LINK_NS);
}

/* Those that wait for one agent hear the same answer. */
static void on_link_timer(struct gw_timer *timer)
{
	struct gw_inbound *in =
		(void *)((char *)timer -
			 offsetof(struct gw_inbound, link_timer));
	struct exchange *x = in->linking, *next;

	for (; x; x = next) {
		struct avp_reason why = {0};
		int code = try_link(x, &why);

		next = x->next;
		if (code != AVP_AGAIN)
			linked(x, code, &why);
	}
	if (in->linking)
		set_link_timer(in);
}

int deliver_link(struct exchange *x, struct avp_reason *why)
{
	struct gw_inbound *in = x->in;
	int code;

	if (x->state == LINKING)
		unlink_waiting(x);
	code = try_link(x, why);
	if (code != AVP_AGAIN)
		return code;
	x->state = LINKING;
	x->next = NULL;
	x->before = in->linking_end;
	*in->linking_end = x;
	in->linking_end = &x->next;
	set_link_timer(in);
	return AVP_AGAIN;
}

/* ---- what was sent ---------------------------------------------------------------------- */

static struct exchange **bucket(struct gw_inbound *in,
				const struct ahp_receipt *r)
{
	uint64_t key = r->sequence + r->peer * UINT64_C(0x9e3779b97f4a7c15) +
		       r->generation * UINT64_C(0xbf58476d1ce4e5b9);

	return &in->by_receipt[(key ^ key >> 32) % RECEIPT_BUCKETS];
}

static struct exchange **task_bucket(struct gw_inbound *in, struct avp_str task)
{
	uint32_t hash = 2166136261u;

	for (size_t i = 0; i < task.len; i++)
		hash = (hash ^ (uint8_t)task.data[i]) * 16777619u;
	return &in->by_task[hash % RECEIPT_BUCKETS];
}

static void remember(struct exchange *x)
{
	struct exchange **first = bucket(x->in, &x->receipt);

	x->same_receipt = *first;
	*first = x;
	x->hashed = true;
	if (!x->wants_result)
		return;
	first = task_bucket(x->in, x->task_id);
	x->same_task = *first;
	*first = x;
	x->tasked = true;
	if (!x->in->with_task++)
		gw_timer_set(&x->gw->timers, &x->in->watch_timer,
			     gw_clock_ns() + WATCH_NS);
}

static void forget_receipt(struct exchange *x)
{
	struct exchange **at = bucket(x->in, &x->receipt);

	if (!x->hashed)
		return;
	while (*at != x)
		at = &(*at)->same_receipt;
	*at = x->same_receipt;
	x->hashed = false;
}

static void forget_task(struct exchange *x)
{
	struct exchange **at = task_bucket(x->in, x->task_id);

	if (!x->tasked)
		return;
	while (*at != x)
		at = &(*at)->same_task;
	*at = x->same_task;
	x->tasked = false;
	x->in->with_task--;
}

void deliver_forget(struct exchange *x)
{
	if (x->state == LINKING)
		unlink_waiting(x);
	forget_receipt(x);
	forget_task(x);
	gw_timer_clear(&x->gw->timers, &x->timer);
	transmit_free(x);
	if (x->speaker)
		x->speaker->users--;
	x->speaker = NULL;
}

void deliver_send(struct exchange *x, struct ahp_outgoing *m)
{
	struct avp_reason why;
	int64_t now_ns = gw_clock_ns();
	int code;

	m->peer = x->peer;
	m->flags = AHP_NOTIFY | AHP_PROMPT_ACK;
	m->expires_ns = x->timer.due_ns > now_ns ? x->timer.due_ns - now_ns : 1;
	code = ahp_send(x->speaker->agent, m, 0, &x->receipt, &why);
	if (code) {
		serve_fail(x, code == AVP_TIMEOUT ? 503 : serve_status(code),
			   &why);
		return;
	}
	x->state = SENT;
	x->sent_ns = gw_clock_ns();
	remember(x);
}

/* ---- acknowledgements ---------------------------------------------------------------------- */

static void answer_accepted(struct exchange *x)
{
	char id[AHP_ID_TEXT_BYTES], text[128];
	struct http_pair pairs[] = {
		{"ahp-outcome", avp_str_of(GW_OUTCOME_ACCEPTED)},
		{"ahp-message-id", {id, AHP_ID_TEXT_BYTES - 1}},
	};
	struct http_reply reply = {.status = 200,
				   .type = "application/json",
				   .pair = pairs,
				   .pairs = 2,
				   .body = text};

	ahp_id_write(x->message_id, id);
	reply.bytes = (uint64_t)snprintf(
		text, sizeof(text), "{\"success\":true,\"message_id\":\"%s\"}",
		id);
	deliver_forget(x);
	http_answer(x->r, &reply);
}

static void answer_refused(struct exchange *x, int code)
{
	/* It has no such handler, which is 501; or the handler failed. */
	if (code == AVP_REJECTED && x->endpoint == GW_TEXT)
		serve_failf(x, 501, code, "Text handler not configured");
	else if (code == AVP_REJECTED)
		serve_failf(x, 500, code, "%s has refused the message",
			    x->target);
	else if (code == AVP_CLOSED)
		serve_failf(x, 503, code,
			    "%s has ended before it acknowledged the message",
			    x->target);
	else
		serve_failf(x, serve_status(code), code, "%s: %s", x->target,
			    avp_error_text(code));
}

void gw_inbound_event(struct gateway *gw, struct gw_agent *agent,
		      const struct ahp_event *event)
{
	struct exchange *x = *bucket(gw->in, &event->receipt);

	while (x && (x->speaker != agent ||
		     x->receipt.sequence != event->receipt.sequence ||
		     x->receipt.peer != event->receipt.peer ||
		     x->receipt.generation != event->receipt.generation))
		x = x->same_receipt;
	if (!x)
		return; /* whoever asked has gone, or has an answer */
	forget_receipt(x);
	x->acked = !event->code;
	if (event->code)
		answer_refused(x, event->code);
	else if (!x->tasked)
		answer_accepted(x);
}

/* ---- results ------------------------------------------------------------------------------- */

/* Somebody else's text, as a header field's value; NULL if it cannot be one. */
static const char *visible(struct avp_str text)
{
	for (size_t i = 0; i < text.len; i++)
		if (text.data[i] <= ' ' || text.data[i] >= 0x7f)
			return NULL;
	return text.len ? text.data : NULL;
}

static unsigned result_pairs(struct http_pair pairs[5], struct exchange *x,
			     const struct ahp_message *m,
			     char id[AHP_ID_TEXT_BYTES])
{
	uint8_t bytes[16];
	unsigned n = 0;

	ahp_message_id(m, bytes);
	ahp_id_write(bytes, id);
	pairs[n++] = (struct http_pair){"ahp-outcome",
					avp_str_of(GW_OUTCOME_RESULT)};
	pairs[n++] = (struct http_pair){"ahp-method", avp_str_of("RESULT")};
	pairs[n++] = (struct http_pair){"ahp-message-id", avp_str_of(id)};
	pairs[n++] = (struct http_pair){"ahp-source", avp_str_of(x->target)};
	if (visible(m->task_id))
		pairs[n++] = (struct http_pair){"ahp-task-id", m->task_id};
	return n;
}

static void free_message(void *arg)
{
	struct gw_message *message = arg;

	message->to->users--;
	gw_message_free(message);
}

/* AVP.md, dialects: as the request's header says, else its frame. */
static enum avp_dialect dialect_of(const struct exchange *x)
{
	struct avp_str version = http_get(x->r, HTTP_AVP_VERSION);

	if (version.len)
		return gw_dialect_of(version);
	return x->framed ? x->frame.dialect : AVP_DIALECT_0_2;
}

/*
 * In the dialect of whoever asked. A copy: of what is larger than CONVERT_MAX it
 * would hold up others, and of latent states only hints in the flags differ.
 */
static bool is_for(const struct exchange *x, const struct ahp_message *m)
{
	return gw_frame_is_for(&m->frame, dialect_of(x)) ||
	       (m->body_bytes > CONVERT_MAX &&
		m->frame.metadata.mode == AVP_MODE_LATENT &&
		m->frame.metadata.payload_type != AVP_EMBEDDING);
}

static void answer_converted(struct exchange *x, struct gw_message *message,
			     struct http_reply *reply)
{
	struct avp_buf buf = {0};
	struct avp_reason why;

	if (gw_frame_convert(&buf, &message->m, dialect_of(x), "the client",
			     &why)) {
		serve_failf(x, 502, why.code, "the RESULT of %s: %s", x->target,
			    why.text);
		avp_buf_fini(&buf);
	} else {
		reply->type = "application/avp+binary";
		reply->body = buf.data;
		reply->bytes = buf.len;
		reply->release = free;
		reply->release_arg = buf.data;
		http_answer(x->r, reply);
	}
	gw_message_free(message);
}

static void answer_frame(struct exchange *x, struct gw_message *message,
			 struct http_reply *reply)
{
	reply->type = "application/avp+binary";
	reply->body = message->m.body;
	reply->bytes = message->m.body_bytes;
	reply->release = free_message;
	reply->release_arg = message;
	message->to->users++;
	http_answer(x->r, reply);
}

static bool succeeded(const struct avp_json *payload)
{
	struct avp_str status = avp_str_of("success");

	if (avp_json_string(avp_json_get(payload, "status"), &status))
		return true;
	return avp_str_equal(status, avp_str_of("success"));
}

/* {"success":..,"result":THE PAYLOAD}, of a copy that nobody can change. */
static int write_result(struct avp_buf *buf, const struct ahp_message *m,
			struct avp_reason *why)
{
	struct avp_json_doc *doc = NULL;
	struct avp_json_writer w;
	char *copy;
	int code;

	if (m->body_bytes > AVP_JSON_MAX_BYTES)
		return avp__fail(why, AVP_TOO_LARGE,
				 "a RESULT of %llu bytes of JSON; at most %u",
				 (unsigned long long)m->body_bytes,
				 AVP_JSON_MAX_BYTES);
	copy = malloc(m->body_bytes + 1);
	if (!copy)
		return avp__fail(why, AVP_NO_MEMORY, "no memory");
	ahp_message_copy(m, 0, copy, m->body_bytes);
	code = avp_json_parse(&doc, copy, m->body_bytes, NULL, why);
	free(copy);
	if (code)
		return code;
	avp_json_begin(&w, buf, AVP_JSON_HTTP);
	avp_json_open_object(&w);
	avp_json_member_bool(&w, "success", succeeded(avp_json_root(doc)));
	avp_json_key(&w, "result");
	avp_json_put(&w, avp_json_root(doc));
	avp_json_close_object(&w);
	avp_json_free(doc);
	return avp_json_finish(&w) ? avp__fail(why, AVP_NO_MEMORY, "no memory")
				   : 0;
}

static void answer_text(struct exchange *x, struct gw_message *message,
			struct http_reply *reply)
{
	struct avp_buf buf = {0};
	struct avp_reason why;

	if (write_result(&buf, &message->m, &why)) {
		serve_failf(x, 502, why.code, "the RESULT of %s: %s", x->target,
			    why.text);
	} else {
		reply->type = "application/json";
		reply->body = buf.data;
		reply->bytes = buf.len;
		http_answer(x->r, reply);
	}
	avp_buf_fini(&buf);
	gw_message_free(message);
}

bool gw_inbound_message(struct gateway *gw, struct gw_message *message)
{
	const struct ahp_message *m = &message->m;
	struct http_pair pairs[5];
	struct http_reply reply = {.status = 200, .pair = pairs};
	char id[AHP_ID_TEXT_BYTES];
	struct exchange *x;

	if (m->method != AHP_RESULT || !m->task_id.len)
		return false;
	x = *task_bucket(gw->in, m->task_id);
	while (x && (x->speaker != message->to ||
		     !avp_str_equal(x->task_id, m->task_id) ||
		     strcmp(x->target, m->source)))
		x = x->same_task;
	if (!x)
		return false;
	gw_message_accept(message);
	reply.pairs = result_pairs(pairs, x, m, id);
	deliver_forget(x);
	if (m->kind == AHP_FRAME && is_for(x, m))
		answer_frame(x, message, &reply);
	else if (m->kind == AHP_FRAME)
		answer_converted(x, message, &reply);
	else
		answer_text(x, message, &reply);
	return true;
}

/* Who is gone will give no RESULT: no need to wait for the deadline. */
static void on_watch_timer(struct gw_timer *timer)
{
	struct gw_inbound *in =
		(void *)((char *)timer -
			 offsetof(struct gw_inbound, watch_timer));
	struct gateway *gw = in->server.gw;

	for (unsigned i = 0; in->with_task && i < RECEIPT_BUCKETS; i++) {
		struct exchange *x = in->by_task[i], *next;

		for (; x; x = next) {
			next = x->same_task;
			if (x->acked &&
			    ahp_liveness(x->speaker->agent, x->target,
					 STUCK_NS) == AHP_DEAD)
				answer_refused(x, AVP_CLOSED);
		}
	}
	if (in->with_task)
		gw_timer_set(&gw->timers, timer, gw_clock_ns() + WATCH_NS);
}

void deliver_open(struct gw_inbound *in)
{
	in->linking_end = &in->linking;
	in->link_timer.fire = on_link_timer;
	in->watch_timer.fire = on_watch_timer;
}

void deliver_close(struct gw_inbound *in)
{
	struct gateway *gw = in->server.gw;

	gw_timer_clear(&gw->timers, &in->link_timer);
	gw_timer_clear(&gw->timers, &in->watch_timer);
}
