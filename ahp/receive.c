/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "ahp/agent_internal.h"
#include "codec/frame_memo_inline.h"
#include "ring/lane_inline.h"

#define TURN_EVERY  256 /* messages between two looks at the sockets */
#define PASSED_MOST 1024 /* by who never waits: what a usual link holds */
#define FIRST_SPINS 64	/* an answer that is under way comes within these */

static_assert(SLOT_BYTES <= AHP_SLOT_BYTES, "a message holds its slot");

/* Of the long form: the session's length is then in the slot's first half. */
#define LENT_TASK_BYTES (2 * LINE - SLOT_LONG_BYTES - 2)
static_assert(SLOT_SMALL_BYTES + 2 + AVP_LANE_ID_BYTES <= 2 * LINE,
	      "as it is of the small form");

/* ---- delivering one message -------------------------------------------------- */

/* Where the body lies in the sender's memory; the numbers are the sender's. */
static const uint8_t *locate(struct ahp__link *link, uint32_t number,
			     uint64_t off, uint64_t bytes,
			     struct avp_reason *why)
{
	const struct avp_segment *segment = ahp__link_import(link, number);

	if (!segment) {
		avp__fail(why, AVP_POISONED,
			  "a body lies in segment %u, which was not passed",
			  number);
		return NULL;
	}
	if (off > segment->bytes || bytes > segment->bytes - off) {
		avp__fail(why, AVP_POISONED,
			  "a body of %llu bytes at %llu of a segment of %llu",
			  (unsigned long long)bytes, (unsigned long long)off,
			  (unsigned long long)segment->bytes);
		return NULL;
	}
	return (const uint8_t *)segment->base + off;
}

/*
 * The head of a long frame is not in its slot, or not all of it: it is copied
 * before it is read. First the header, if the slot had none of that either, then
 * all that this copy says; a copy that wants more by then is a lie.
 */
LANE_COLD static int read_long_head(struct ahp_message *m, uint64_t need,
				    struct avp_reason *why)
{
	uint8_t header[AVP_FRAME_HEADER_BYTES];
	uint64_t copied;
	int error;

	if (need == sizeof(header)) {
		memcpy(header, m->body, sizeof(header));
		error = avp_frame_decode_head(header, sizeof(header),
					      m->body_bytes, &m->frame, &need,
					      why);
		if (error && error != AVP_AGAIN)
			return error;
	}
	if (need > FRAME_HEAD_MAX)
		return avp__fail(why, AVP_TOO_LARGE,
				 "metadata of %llu bytes; %u are the limit "
				 "between local agents",
				 (unsigned long long)need -
					 AVP_FRAME_HEADER_BYTES,
				 FRAME_HEAD_MAX - AVP_FRAME_HEADER_BYTES);
	m->head_ = malloc(need);
	if (!m->head_)
		return avp__fail(why, AVP_NO_MEMORY, "no memory");
	copied = need;
	memcpy(m->head_, m->body, copied);
	error = avp_frame_decode_head(m->head_, copied, m->body_bytes,
				      &m->frame, &need, why);
	if (error == AVP_AGAIN)
		return avp__fail(why, AVP_INVALID_MESSAGE,
				 "its metadata was %llu bytes, and is %llu now",
				 (unsigned long long)copied -
					 AVP_FRAME_HEADER_BYTES,
				 (unsigned long long)need -
					 AVP_FRAME_HEADER_BYTES);
	return error;
}

/* Parses header and metadata from a private copy of the frame's first bytes. */
static inline int read_frame(struct ahp__link *link, struct ahp_message *m,
			     const struct avp_slot_view *v,
			     struct avp_reason *why)
{
	uint64_t need = 0;
	int error = avp_frame_decode_again(&link->memo, v->inline_data,
					   v->inline_bytes, m->body_bytes,
					   &m->frame, &need, why);

	if (LANE_UNLIKELY(error == AVP_AGAIN))
		error = read_long_head(m, need, why);
	if (!error)
		m->frame.payload = (const uint8_t *)m->body +
				   m->frame.payload_off;
	return error;
}

static bool expired(const struct ahp__link *link, uint32_t expiry_ms)
{
	return (int32_t)(ahp__lane_ms(link->rx.start_ns) - expiry_ms) > 0;
}

/* Is this message to be delivered at all? 0, or how it is answered. */
static inline int judge(struct ahp__link *link, struct ahp_message *m,
			const struct avp_slot_view *v, struct avp_reason *why)
{
	if (LANE_UNLIKELY(v->expiry_ms) && expired(link, v->expiry_ms)) {
		avp__fail(why, AVP_EXPIRED, "its deadline has passed");
		return AVP_ACK_EXPIRED;
	}
	if (LANE_UNLIKELY(v->method < AHP_TASK ||
			  v->method > AHP_TOKEN_RESPONSE ||
			  v->kind > AHP_FRAME)) {
		avp__fail(why, AVP_INVALID_MESSAGE,
			  "method %u, kind %u: not known", v->method, v->kind);
		return AVP_ACK_REJECTED;
	}
	if (v->kind != AHP_FRAME)
		return 0;
	if (read_frame(link, m, v, why))
		return AVP_ACK_REJECTED;
	if (LANE_UNLIKELY(link->judges) && !ahp__mode_fits(link, m, why))
		return AVP_ACK_MISFIT;
	return 0;
}

static inline void fill_message(struct ahp_message *m, struct ahp__link *link,
				const struct avp_slot_view *v)
{
	m->source = link->peer->id;
	m->peer = link->peer->number;
	m->method = v->method;
	m->kind = v->kind;
	m->redelivered = v->redelivered;
	m->in_place = v->in_arena;
	m->token_limit = v->token_limit;
	m->task_id = (struct avp_str){ v->task, v->task_bytes };
	m->session_id = (struct avp_str){ v->session, v->session_bytes };
	m->sent_ns = ahp__sent_ns(link, v->sent_ms);
	m->body = v->inline_data;
	m->body_bytes = v->body_bytes;
	m->link_ = link;
	m->head_ = NULL;
	m->held_ = 0;
	memcpy(m->epoch_, link->rx.epoch, sizeof(m->epoch_));
}

LANE_COLD static void refuse(struct ahp__link *link, struct ahp_message *m,
		   enum avp_ack status, const struct avp_reason *why)
{
	ahp__log_task(link->agent, AHP_LOG_WARNING, why->code, m->task_id,
		  "message %llu of %s not delivered: %s",
		  (unsigned long long)m->sequence, link->peer->id, why->text);
	free(m->head_);
	m->head_ = NULL;
	ahp__acks_refuse(link, m->sequence, status, m->in_place);
	ahp__acks_flush(link);
}

static inline bool wants_answer(const struct ahp_agent *agent, uint8_t method)
{
	return agent->explicit_ack &&
	       (method == AHP_TASK || method == AHP_RESULT ||
		method == AHP_PROGRESS);
}

__attribute__((noinline)) static int hold(struct ahp__link *link, struct ahp_message *m, bool accept)
{
	struct avp_reason why;
	int error = ahp__acks_take(link, m->sequence, accept, m->in_place,
				   &m->held_);

	if (error) {
		free(m->head_);
		m->head_ = NULL;
		avp__fail(&why, AVP_POISONED, "more than %u messages held",
			  link->rx.window);
		ahp__link_poison_by(link, m->task_id, &why);
	} else if (m->held_) {
		link->views++;
	}
	return error;
}

/* Long slots have the field, with or without an id. */
static bool is_zero(const uint8_t id[16])
{
	uint64_t word[2];

	memcpy(word, id, sizeof(word));
	return !(word[0] | word[1]);
}

/*
 * A message whose body lies in the arena: found, or the link is poisoned. Takes
 * values: a pointer to the view would keep it out of registers.
 */
__attribute__((noinline)) static bool find_body(struct ahp__link *link,
						struct ahp_message *m,
						uint32_t segment, uint64_t off)
{
	struct avp_reason why;

	m->body = locate(link, segment, off, m->body_bytes, &why);
	if (m->body && link->state < LINK_POISONED)
		return true;
	ahp__link_poison_by(link, m->task_id, &why);
	return false;
}

/* Where a body lies, if that segment is mapped already; or NULL. */
static inline const uint8_t *locate_known(const struct ahp__link *link,
					  uint64_t where, uint64_t bytes)
{
	uint64_t off = where & AVP_LANE_OFFSET_MAX;

	for (unsigned i = link->imports; i-- > 0;) {
		const struct avp_segment *segment = &link->import[i].segment;

		if (link->import[i].number == where >> 40)
			return off <= segment->bytes &&
					       bytes <= segment->bytes - off
				       ? (const uint8_t *)segment->base + off
				       : NULL;
	}
	return NULL;
}

/* Takes, and enters what is owed for it: its body, if that is lent. */
static inline void take_accepted(struct ahp__link *link, struct ahp_message *m,
				 bool lent)
{
	m->sequence = link->rx.next++;
	if (lent) {
		m->held_ = ahp__acks_lent(link, m->sequence);
		link->views++;
	}
	link->tx.accepted = link->tx.taken = link->rx.next;
	if (!link->owed[OWED_RELEASE])
		link->tx.released = link->rx.next;
	link->unflushed++;
	link->heard = true;
	ahp__unsettle(link);
}

/* What does not depend on the message, if it is one as most are. */
static inline void fill_source(struct ahp_message *m, struct ahp__link *link)
{
	m->source = link->source;
	m->peer = link->number;
	m->redelivered = false;
	m->link_ = link;
	m->head_ = NULL;
	m->held_ = 0;
	memcpy(m->epoch_, link->rx.epoch, sizeof(m->epoch_));
}

/*
 * While nothing is there: the next message of the last speaker is likely to be as
 * its last one was, and what can be filled in before it comes delays nobody.
 */
static void expect(struct ahp__link *link, struct ahp_message *m)
{
	fill_source(m, link);
	if (link->memo.len)
		memo_copy(&link->memo, m->slot_ + link->head_at, &m->frame);
}

/* A frame whose head is that of the last one: its numbers, but for the payload. */
static inline bool apply_known(struct ahp__link *link, struct ahp_message *m,
			       const uint8_t *head, uint8_t head_bytes,
			       uint64_t body_bytes, bool expected)
{
	if (!memo_fits(&link->memo, head, head_bytes, body_bytes))
		return false;
	if (!expected || head != m->slot_ + link->head_at) {
		memo_copy(&link->memo, head, &m->frame);
		link->head_at = (uint32_t)(head - m->slot_);
	}
	memo_lengths(&link->memo, head, body_bytes, &m->frame);
	return !LANE_UNLIKELY(link->judges) ||
	       ahp__mode_fitted(link, m->frame.payload_bytes);
}

static inline void fill_usual(struct ahp_message *m, struct ahp__link *link,
			      const struct slot *slot)
{
	m->method = slot->method;
	m->kind = slot->kind;
	m->token_limit = slot->token_limit;
	m->sent_ns = ahp__sent_ns(link, slot->sent_ms);
	if (slot->kind == AHP_FRAME)
		m->frame.payload =
			(const uint8_t *)m->body + m->frame.payload_off;
}

/*
 * A message as most are: in the small form, or with its body lent; without an id,
 * of a method that is known, acknowledged by being taken, and, if it is a frame,
 * with the head of the one before. Everything is checked before anything is done;
 * what is not quite so takes the long way.
 */
static __attribute__((always_inline)) inline bool deliver_usual(
	struct ahp__link *link, struct ahp_message *m, bool lent, bool expected)
{
	const struct slot *slot = (const void *)m->slot_;
	const uint8_t *task =
		m->slot_ + 1 + (lent ? SLOT_LONG_BYTES : SLOT_SMALL_BYTES);
	unsigned task_bytes = task[-1], session_bytes, used;
	struct ahp_agent *agent = link->agent;
	const uint8_t *session, *head, *body;
	uint64_t body_bytes = lent ? slot->body_bytes : slot->inline_bytes;

	if (link->owed[OWED_ACCEPT] || agent->explicit_ack ||
	    task_bytes > (lent ? LENT_TASK_BYTES : AVP_LANE_ID_BYTES) ||
	    slot->method < AHP_TASK || slot->method > AHP_TOKEN_RESPONSE ||
	    slot->kind > AHP_FRAME ||
	    (slot->expiry_ms && expired(link, slot->expiry_ms)))
		return false;
	session = task + task_bytes + 1;
	session_bytes = session[-1];
	head = session + session_bytes;
	used = (unsigned)(head - m->slot_) + slot->inline_bytes;
	if (session_bytes > AVP_LANE_ID_BYTES || used > SLOT_BYTES)
		return false;
	if (used > 2 * LINE)
		lane_copy_rest(&link->rx, m->slot_);
	body = head;
	if (lent) {
		body = locate_known(link, slot->where, body_bytes);
		if (!body || !link->held_free || !is_zero(slot->message_id) ||
		    slot->inline_bytes > body_bytes)
			return false;
	}
	if (slot->kind == AHP_FRAME &&
	    !apply_known(link, m, head, slot->inline_bytes, body_bytes,
			 expected))
		return false;
	if (!expected)
		fill_source(m, link);
	m->task_id = (struct avp_str){(const char *)task, task_bytes};
	m->session_id = (struct avp_str){(const char *)session, session_bytes};
	m->body = body;
	m->body_bytes = body_bytes;
	m->in_place = lent;
	fill_usual(m, link, slot);
	link->heard_accepted = slot->accepted;
	link->heard_released = slot->released;
	take_accepted(link, m, lent);
	agent->stats.received++;
	agent->stats.bytes_received += body_bytes;
	if (LANE_UNLIKELY(slot->flags & SLOT_PROMPT ||
			  link->unflushed >= link->flush_every))
		ahp__acks_flush(link);
	return true;
}

/* Kept out of the path of the small form: each has the registers to itself. */
__attribute__((noinline)) static bool deliver_lent(struct ahp__link *link,
						   struct ahp_message *m,
						   bool expected)
{
	return deliver_usual(link, m, true, expected);
}

/* A copied slot says which way is the short one. False: none. */
static inline bool deliver_short(struct ahp__link *link, struct ahp_message *m,
				 bool expected)
{
	const struct slot *slot = (const void *)m->slot_;
	unsigned flags = slot->flags & ~SLOT_PROMPT;

	if (LANE_LIKELY(!flags))
		return deliver_usual(link, m, false, expected);
	return flags == (SLOT_LONG | SLOT_ARENA) &&
	       deliver_lent(link, m, expected);
}

/* 1: delivered; 0: answered or poisoned, look for the next. */
static inline int deliver(struct ahp__link *link, struct ahp_message *m,
			  const struct avp_slot_view *v)
{
	struct ahp_agent *agent = link->agent;
	struct avp_reason why;
	bool accept;
	int status;

	fill_message(m, link, v);
	link->heard = true;
	ahp__unsettle(link);
	link->heard_accepted = v->accepted;
	link->heard_released = v->released;
	if (v->in_arena && !find_body(link, m, v->segment, v->offset))
		return 0;
	status = judge(link, m, v, &why);
	if (LANE_UNLIKELY(status)) {
		refuse(link, m, (enum avp_ack)status, &why);
		return 0;
	}
	accept = wants_answer(agent, v->method);
	if (LANE_UNLIKELY(v->message_id && !is_zero(v->message_id))) {
		if (!ahp__twins_take(link, m, v, accept))
			return 0;
	} else if (hold(link, m, accept)) {
		return 0;
	}
	if (LANE_UNLIKELY(v->prompt || link->unflushed >= link->flush_every))
		ahp__acks_flush(link);
	agent->stats.received++;
	agent->stats.redelivered += v->redelivered;
	agent->stats.bytes_received += v->body_bytes;
	return 1;
}

/* ---- whose turn it is ---------------------------------------------------------- */

static int take_nothing(struct ahp__link *link, uint64_t found)
{
	struct avp_reason why;

	link->streak = 0;
	if (avp__lane_not_ready(&link->rx, found, &why))
		ahp__link_poison(link, &why);
	else if (link->state == LINK_DRAINING)
		ahp__link_finish(link);
	return 0;
}

/* A message, the first half of whose slot was copied, the long way. */
__attribute__((noinline)) static int take_any_kind(struct ahp__link *link,
						   struct ahp_message *m)
{
	struct avp_slot_view view;
	enum lane_fault fault;
	struct avp_reason why;

	if (lane_reach(m->slot_) > 2 * LINE)
		lane_copy_rest(&link->rx, m->slot_);
	memset(&view, 0, offsetof(struct avp_slot_view, copy));
	fault = lane_parse(m->slot_, &view);
	if (LANE_UNLIKELY(fault)) {
		avp__lane_fault(&link->rx, fault, m->slot_, &why);
		ahp__link_poison(link, &why);
		return 0;
	}
	m->sequence = link->rx.next++;
	return deliver(link, m, &view);
}

/* In a stream the slots ahead are filled already: fetch them early. A slot that
 * is only awaited must not be: its writer would lose it. */
static inline void note_stream(struct ahp__link *link)
{
	if (++link->streak >= STREAM_AFTER)
		lane_prefetch_ahead(&link->rx);
}

static inline int take_from(struct ahp__link *link, struct ahp_message *m)
{
	uint64_t found = lane_arrived(&link->rx);

	if (found != link->rx.next)
		return take_nothing(link, found);
	lane_copy_half(&link->rx, m->slot_);
	note_stream(link);
	if (deliver_short(link, m, false) || take_any_kind(link, m))
		return 1;
	m->link_ = NULL; /* it is not what expect() made of it */
	return 0;
}

/* One link of those that have been idle; what speaks becomes a recent one. */
__attribute__((noinline)) static int take_idle(struct ahp_agent *agent, struct ahp_message *m)
{
	uint32_t at = RECENT_LINKS +
		      agent->turn++ % (agent->ups - RECENT_LINKS);
	struct ahp__link *link = agent->up[at];
	uint32_t to = agent->turn % RECENT_LINKS;

	if (!avp_lane_ready(&link->rx) && link->state == LINK_UP)
		return 0;
	ahp__up_swap(agent, at, to);
	return take_from(link, m);
}

/* What a message takes of its link's budget. */
static inline int64_t cost_of(uint64_t bytes)
{
	return 1 + (int64_t)(bytes / (BURST_BYTES / BURST_MESSAGES));
}

/* The budget of up[at] is spent: the next one is asked first. */
static inline void next_speaker(struct ahp_agent *agent, uint32_t at)
{
	agent->speaker = NULL;
	agent->first = at + 1;
	agent->idle_due = true;
}

/* A link speaks until its budget is spent. */
static inline void count_burst(struct ahp_agent *agent, uint32_t at,
			       uint64_t bytes)
{
	if (at != agent->first)
		agent->budget = BURST_MESSAGES;
	agent->budget -= cost_of(bytes);
	agent->first = at;
	agent->speaker = agent->up[at];
	if (agent->budget <= 0)
		next_speaker(agent, at);
}

static int take_any(struct ahp_agent *agent, struct ahp_message *m)
{
	uint32_t recent = agent->ups < RECENT_LINKS ? agent->ups : RECENT_LINKS;
	uint32_t at = agent->first;

	/* Recent links that never fall silent must not keep the others out. */
	if (LANE_UNLIKELY(agent->idle_due)) {
		agent->idle_due = false;
		if (agent->ups > RECENT_LINKS && take_idle(agent, m))
			return 1;
	}
	for (uint32_t i = 0; i < recent; i++, at++) {
		if (at >= recent)
			at = 0;
		if (at < agent->ups && take_from(agent->up[at], m)) {
			count_burst(agent, at, m->body_bytes);
			return 1;
		}
	}
	return agent->ups > RECENT_LINKS ? take_idle(agent, m) : 0;
}

/* Also true when a link has to be finished: there is something to do. */
static bool take_ready(void *arg)
{
	return ahp__any_ready(arg);
}

static int64_t end_of(int64_t timeout_ns)
{
	int64_t now_ns = ahp__now_ns();

	return timeout_ns < AHP_FOREVER - now_ns ? now_ns + timeout_ns :
						   AHP_FOREVER;
}

static inline bool has_spoken(const struct ahp__link *link)
{
	return link && lane_arrived(&link->rx) == link->rx.next;
}

/*
 * All links, then waiting. AVP_AGAIN if the last speaker speaks again within the
 * first spins, and the message is what expect() made of it: ahp_receive() has the
 * short way for that.
 */
__attribute__((noinline)) static int wait_and_take(struct ahp_agent *agent,
						   struct ahp_message *message,
						   int64_t timeout_ns,
						   bool spin)
{
	bool timed = timeout_ns && timeout_ns != AHP_FOREVER;
	int64_t end_ns = 0, left = timeout_ns;
	int refused = 0, error;

	spin = spin && agent->wait != AHP_WAIT_BLOCK && timeout_ns;
	/* More than one round only if what was ready was not delivered. */
	for (;; refused++) {
		if (++agent->polls >= TURN_EVERY)
			ahp__agent_turn(agent, 0);
		if (take_any(agent, message))
			return 0;
		ahp__settle_all(agent);
		if (spin && agent->speaker)
			expect(agent->speaker, message);
		for (int i = 0; spin && i < FIRST_SPINS; i++) {
			__builtin_ia32_pause();
			if (has_spoken(agent->speaker)) {
				lane_prefetch_rest(&agent->speaker->rx);
				return AVP_AGAIN;
			}
			if (take_any(agent, message))
				return 0;
		}
		if (timed && !end_ns) {
			if (timeout_ns == AHP_USUAL)
				left = agent->options.receive_timeout_ns;
			end_ns = end_of(left);
		} else if (timed)
			left = end_ns - ahp__now_ns();
		if (left < 0 || (!timeout_ns && refused > PASSED_MOST))
			return AVP_TIMEOUT;
		error = ahp__agent_wait(agent, left, NEWS_MESSAGES,
					take_ready, agent);
		if (error)
			return error;
	}
}

/* The next message of the link that spoke last, if there is one. */
static inline bool take_from_speaker(struct ahp_agent *agent,
				     struct ahp_message *m, bool expected)
{
	struct ahp__link *link = agent->speaker;

	if (LANE_UNLIKELY(!has_spoken(link)))
		return false;
	lane_copy_half(&link->rx, m->slot_);
	note_stream(link);
	if (LANE_LIKELY(deliver_short(link, m, expected && m->link_ == link)) ||
	    take_any_kind(link, m))
		agent->budget -= cost_of(m->body_bytes);
	else
		return false;
	if (LANE_UNLIKELY(agent->budget <= 0))
		next_speaker(agent, agent->first);
	return true;
}

int ahp_receive(struct ahp_agent *agent, struct ahp_message *message,
		int64_t timeout_ns)
{
	int error = AVP_AGAIN;

	AHP_GUARD(agent);
	for (bool spin = true; error == AVP_AGAIN; spin = false) {
		if (LANE_LIKELY(agent->polls + 1 < TURN_EVERY) &&
		    take_from_speaker(agent, message, !spin)) {
			agent->polls++;
			return 0;
		}
		error = wait_and_take(agent, message, timeout_ns, spin);
	}
	return error;
}

int ahp_receive_many(struct ahp_agent *agent, struct ahp_message *messages,
		     uint32_t count, int64_t timeout_ns)
{
	uint32_t n = 1;
	int error;

	AHP_GUARD(agent);
	if (!count)
		return AVP_USAGE;
	error = ahp_receive(agent, messages, timeout_ns);
	if (error)
		return error;
	if (count > INT32_MAX)
		count = INT32_MAX;
	/* What is there; but sockets have their turn in the next call. */
	while (n < count && agent->polls < TURN_EVERY &&
	       (take_from_speaker(agent, &messages[n], false) ||
		take_any(agent, &messages[n]))) {
		agent->polls++;
		n++;
	}
	return (int)n;
}

/* ---- dealing with it ------------------------------------------------------------- */

static int pay(struct ahp_message *m, unsigned owed, enum avp_ack status)
{
	struct ahp__link *link = m->link_;
	struct ahp__held *held;
	bool up;

	if (!m->held_)
		return AVP_USAGE;
	held = &link->held[m->held_];
	if (!(owed == OWED_ACCEPT ? held->accept : held->release))
		return AVP_USAGE;
	up = link->state == LINK_UP;
	if (LANE_UNLIKELY(held->twin && owed == OWED_ACCEPT))
		ahp__twins_settle(link, m->held_, status, up);
	ahp__acks_pay(link, m->held_, owed, status);
	if (up && (owed == OWED_ACCEPT || link->unflushed >= link->flush_every))
		ahp__acks_flush(link);
	if (!held->accept && !held->release) {
		m->held_ = 0;
		ahp__link_unview(link);
	}
	return up ? 0 : AVP_CLOSED;
}

int ahp_accept(struct ahp_agent *agent, struct ahp_message *message)
{
	AHP_GUARD(agent);
	return pay(message, OWED_ACCEPT, AVP_ACK_ACCEPTED);
}

int ahp_reject(struct ahp_agent *agent, struct ahp_message *message)
{
	AHP_GUARD(agent);
	return pay(message, OWED_ACCEPT, AVP_ACK_REJECTED);
}

int ahp_answer(struct ahp_agent *agent, struct ahp_message *message, int code)
{
	AHP_GUARD(agent);
	switch (code) {
	case 0: return pay(message, OWED_ACCEPT, AVP_ACK_ACCEPTED);
	case AVP_REJECTED: return pay(message, OWED_ACCEPT, AVP_ACK_REJECTED);
	case AVP_EXPIRED: return pay(message, OWED_ACCEPT, AVP_ACK_EXPIRED);
	case AVP_SHAPE_MISMATCH:
		return pay(message, OWED_ACCEPT, AVP_ACK_MISFIT);
	default: return AVP_USAGE;
	}
}

void ahp_release(struct ahp_agent *agent, struct ahp_message *message)
{
	AHP_ENTER(agent);
	if (avp__forked(&agent->guard))
		return;
	if (message->in_place) {
		if (message->held_ &&
		    ahp__acks_return(message->link_, message->held_))
			message->held_ = 0;
		else
			pay(message, OWED_RELEASE, AVP_ACK_RELEASED);
	}
	message->in_place = false;
	message->body = NULL;
	if (LANE_UNLIKELY(message->head_ != NULL)) {
		free(message->head_);
		message->head_ = NULL;
	}
}

int ahp_message_copy(const struct ahp_message *m, uint64_t off, void *to,
		     uint64_t bytes)
{
	const struct ahp__link *link = m->link_;

	if (!m->body || off > m->body_bytes || bytes > m->body_bytes - off)
		return AVP_USAGE;
	/* A body in place keeps its link; in a child it is not mapped. */
	if (m->in_place && avp__forked(&link->agent->guard))
		return AVP_FORKED;
	memcpy(to, (const uint8_t *)m->body + off, bytes);
	return 0;
}

void ahp_message_id(const struct ahp_message *m, uint8_t id[16])
{
	struct avp_slot_view view;

	/* It was found good when it was taken. */
	if (lane_parse(m->slot_, &view) == LANE_OK && view.message_id &&
	    !is_zero(view.message_id))
		memcpy(id, view.message_id, 16);
	else
		ahp_id_of_sequence(id, m->epoch_, m->sequence);
}
