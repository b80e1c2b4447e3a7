/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "ahp/agent_internal.h"
#include "ahp/retry.h"
#include "ring/lane_inline.h"
#include "ring/ledger_inline.h"
#include "ring/wake.h"

/* What payload_length can say, with any template's metadata. */
#define FRAME_PAYLOAD_MAX   (UINT32_MAX - AVP_FRAME_TEMPLATE_BYTES)
#define MESSAGE_FLAGS \
	(AHP_KEEP_LOAN | AHP_PROMPT_ACK | AHP_RELIABLE | AHP_NOTIFY)
#define TURN_EVERY	    256 /* messages between two looks at the sockets */

/* ---- the link ------------------------------------------------------------------- */

/* The link is not up, or the target was named: look it up, or make it. */
LANE_COLD static int find_link(struct ahp_agent *agent,
			       const struct ahp_outgoing *m, int64_t timeout_ns,
			       struct ahp__link **link, struct avp_reason *why)
{
	struct ahp__peer *peer = ahp__peer_at(agent, m->peer);
	const char *id = peer ? peer->id : m->target;
	uint32_t number;
	int error;

	if (!peer && id) {
		peer = ahp__peer_at(agent, ahp__peer_find(agent, id));
		if (peer && peer->link && peer->link->state == LINK_UP) {
			*link = peer->link;
			return 0;
		}
	}
	error = ahp_connect(agent, id, timeout_ns, &number, why);
	if (!error)
		*link = ahp__peer_at(agent, number)->link;
	return error;
}

static inline struct ahp__link *link_up(const struct ahp_agent *agent,
					uint32_t number)
{
	const struct ahp__peer *peer = ahp__peer_at(agent, number);

	return peer && peer->link && peer->link->state == LINK_UP ? peer->link :
								    NULL;
}

static inline struct ahp_receipt receipt_of(const struct ahp__link *link,
					    uint64_t sequence)
{
	return (struct ahp_receipt){sequence, link->number, link->generation};
}

/* ---- room ---------------------------------------------------------------------- */

/* Room for one message more, whose body is lent_bytes of an arena. */
static bool has_room(const struct ahp__link *link, uint64_t lent_bytes)
{
	return avp_ledger_has_room(link->ledger) &&
	       link->tx.next - link->tx.consumed <= link->tx.slot_mask &&
	       (!lent_bytes || !link->lent_bytes ||
		link->lent_bytes + lent_bytes <= link->lent_max);
}

/* The same, after what waits to be sent again: a stream must not starve it. */
static bool has_room_now(struct ahp__link *link, uint64_t lent_bytes)
{
	if (LANE_UNLIKELY(link->queued))
		ahp__retry_link_up(link); /* may poison it */
	return has_room(link, lent_bytes) && link->state == LINK_UP;
}

bool ahp__link_room_came(struct ahp__link *link)
{
	return link->state == LINK_UP && ahp__acks_read(link) &&
	       has_room_now(link, link->room_bytes);
}

struct room_wait {
	struct ahp__peer *peer;
	uint64_t lent_bytes;
};

/* Also decided when the link is no longer up. */
static bool room_decided(void *arg)
{
	const struct room_wait *wait = arg;
	struct ahp__link *link = wait->peer->link;

	return !link || link->state != LINK_UP || !ahp__acks_read(link) ||
	       has_room_now(link, wait->lent_bytes);
}

LANE_COLD static int no_room(const struct ahp__link *link, struct avp_reason *why)
{
	uint32_t outstanding = avp_ledger_outstanding(link->ledger);

	if (!avp_ledger_has_room(link->ledger))
		return avp__fail(why, AVP_QUEUE_FULL,
				 "%s has %u messages unacknowledged, the limit",
				 link->peer->id, outstanding);
	if (link->tx.next - link->tx.consumed > link->tx.slot_mask)
		return avp__fail(why, AVP_QUEUE_FULL,
				 "%s has not read the last %llu messages, all "
				 "that the ring holds",
				 link->peer->id,
				 (unsigned long long)link->tx.slot_mask + 1);
	return avp__fail(why, AVP_QUEUE_FULL,
			 "%llu bytes are lent to %s and not released; %llu are "
			 "the limit, a quarter of quota_bytes",
			 (unsigned long long)link->lent_bytes, link->peer->id,
			 (unsigned long long)link->lent_max);
}

/* Waits until the link of a peer, which may be another by then, has room. */
LANE_COLD static int wait_for_room(struct ahp_agent *agent, struct ahp__link **link,
			 uint64_t lent_bytes, int64_t timeout_ns,
			 struct avp_reason *why)
{
	struct room_wait wait = { (*link)->peer, lent_bytes };

	if (!room_decided(&wait) &&
	    ahp__agent_wait(agent, timeout_ns, NEWS_ACKS, room_decided,
			    &wait)) {
		/* ahp_agent_arm() covers it from now on. */
		agent->room_wanted = wait.peer->link->room_wanted = true;
		wait.peer->link->room_bytes = lent_bytes;
		return no_room(wait.peer->link, why);
	}
	*link = wait.peer->link;
	if (*link && (*link)->state == LINK_UP)
		return 0;
	if (why)
		*why = wait.peer->why;
	return wait.peer->error ? wait.peer->error : AVP_CLOSED;
}

/* ---- the body ------------------------------------------------------------------ */

/* A message's bytes in an arena, and who holds them. */
struct cargo {
	uint32_t body;
	uint64_t off; /* in the segment */
	uint8_t *bytes;
};

/* Bytes of a frame's head that we write in front of the body. */
static inline uint32_t head_len(const struct ahp_outgoing *m)
{
	return m->frame ? m->frame->len : 0;
}

static int check_loan(const struct ahp_agent *agent,
		      const struct ahp_outgoing *m, struct avp_reason *why)
{
	const struct avp_block *block;
	uint64_t at;

	if (!m->loan->handle || m->loan->handle >= agent->bodies_room ||
	    !agent->body[m->loan->handle].refs)
		return avp__fail(why, AVP_USAGE, "the loan is not held");
	block = &agent->body[m->loan->handle].block;
	at = (uint64_t)((const uint8_t *)m->body - (const uint8_t *)block->data);
	if (at > block->bytes || m->body_bytes > block->bytes - at ||
	    at < head_len(m))
		return avp__fail(why, AVP_USAGE,
				 "a body of %llu bytes and %u in front of it are "
				 "not within their loan",
				 (unsigned long long)m->body_bytes,
				 head_len(m));
	return 0;
}

/* Bytes of the caller's, or of a loan that this peer may not read: a copy. */
static int copy_body(struct ahp_agent *agent, struct ahp__link *link,
		     const struct ahp_outgoing *m, struct cargo *cargo,
		     struct avp_reason *why)
{
	uint64_t front = (head_len(m) + 63) & ~63ull;
	int error = ahp__body_new(agent, link->pool, front + m->body_bytes, 64,
				  &cargo->body, why);
	struct avp_block *block;

	if (error)
		return error;
	block = &agent->body[cargo->body].block;
	memcpy((uint8_t *)block->data + front, m->body, m->body_bytes);
	cargo->off = block->off + front - head_len(m);
	cargo->bytes = (uint8_t *)block->data + front - head_len(m);
	return 0;
}

/* Part of a loan that this peer may read. */
static inline void lend(struct ahp_agent *agent, const struct ahp_outgoing *m,
			struct cargo *cargo)
{
	struct ahp__body *body = &agent->body[m->loan->handle];

	cargo->body = m->loan->handle;
	cargo->bytes = (uint8_t *)(uintptr_t)m->body - head_len(m);
	cargo->off = body->block.off +
		     (uint64_t)(cargo->bytes - (uint8_t *)body->block.data);
	body->refs++;
}

static int load_cargo(struct ahp_agent *agent, struct ahp__link *link,
		      const struct ahp_outgoing *m, struct cargo *cargo,
		      struct avp_reason *why)
{
	if (!m->loan || agent->body[m->loan->handle].pool != link->pool)
		return copy_body(agent, link, m, cargo, why);
	lend(agent, m, cargo);
	return 0;
}

/* ---- sending ------------------------------------------------------------------- */

/* As much of a long body's first bytes as its reader has to copy anyway. */
static uint8_t head_bytes(const struct ahp_outgoing *m, const uint8_t *body,
			  uint64_t body_bytes, unsigned room)
{
	uint64_t want = body_bytes < room ? body_bytes : room;
	uint32_t metadata;

	if (m->kind != AHP_FRAME || body_bytes < AVP_FRAME_HEADER_BYTES)
		return 0;
	memcpy(&metadata, body + 8, sizeof(metadata)); /* little-endian */
	if (metadata < want - AVP_FRAME_HEADER_BYTES)
		want = AVP_FRAME_HEADER_BYTES + metadata;
	return (uint8_t)want;
}

/* What is to be done about the message beyond publishing it. */
static inline uint32_t tracked(const struct ahp_agent *agent,
			       const struct ahp_outgoing *m)
{
	return (m->flags | agent->send_flags) & (AHP_RELIABLE | AHP_NOTIFY);
}

/* P2 and P3 of ring/wake.h. */
static inline void ring_if_due(struct ahp__link *link)
{
	if (avp__wake_due(&link->page->messages, &link->rung_messages))
		ahp__link_ring(link);
}

/* Makes a filled slot the peer's. */
static inline void commit(struct ahp__link *link, struct slot *slot)
{
	lane_commit(&link->tx, slot, link->peer_sleeps);
	if (link->peer_sleeps)
		ring_if_due(link);
}

/* Commits a filled slot, and enters what is now outstanding. */
static inline void publish(struct ahp_agent *agent, struct ahp__link *link,
			   struct slot *slot, const struct ahp_outgoing *m,
			   uint32_t body)
{
	uint64_t sequence = link->tx.next, cookie = body;
	uint32_t flags = tracked(agent, m);

	if (LANE_UNLIKELY(flags != 0))
		cookie = ahp__retry_mark(link, slot, m, flags, body);
	commit(link, slot);
	if (cookie)
		avp_ledger_add(link->ledger, sequence, cookie, body != 0);
	else
		avp_ledger_add_plain(link->ledger);
	ahp__acks_room(link);
	agent->stats.in_flight++;
	agent->stats.sent++;
}

/* Beyond 24 days, half of what the slot's word can tell: never, which is 0. */
static uint32_t expiry_of(uint32_t now_ms, int64_t expires_ns)
{
	uint32_t at;

	if (expires_ns > INT32_MAX * 1000000ll)
		return 0;
	at = now_ms + (expires_ns < 0 ? 0 : (uint32_t)(expires_ns / 1000000)) + 1;
	return at ? at : 1;
}

static inline void fill_header(struct slot *slot, const struct ahp__link *link,
			       const struct ahp_outgoing *m)
{
	uint32_t now_ms = ahp__lane_ms(link->tx.start_ns);

	slot->sent_ms = now_ms;
	slot->expiry_ms = 0;
	if (LANE_UNLIKELY(m->expires_ns != 0))
		slot->expiry_ms = expiry_of(now_ms, m->expires_ns);
	slot->token_limit =
		m->token_limit ? m->token_limit : link->token_limit;
	slot->method = m->method;
	slot->kind = m->kind;
}

static inline uint8_t *fill_ids(uint8_t *p, const struct ahp_outgoing *m)
{
	p = lane_put_id(p, m->task_id.data, m->task_id.len);
	return lane_put_id(p, m->session_id.data, m->session_id.len);
}

/* A frame's head, with the length of this payload. */
static inline uint8_t *stamp(uint8_t *p, const struct ahp_outgoing *m)
{
	const struct avp_frame_template *t = m->frame;
	uint32_t length = t->metadata_length + (uint32_t)m->body_bytes;

	lane_copy_short(p, t->bytes, t->len);
	memcpy(p + 4, &length, sizeof(length)); /* little-endian */
	return p + t->len;
}

/* The whole body in the slot, which has the small form and room for it. */
static inline void fill_plain(struct slot *slot, const struct ahp__link *link,
			      const struct ahp_outgoing *m, uint32_t now_ms)
{
	uint8_t *p = (uint8_t *)slot + SLOT_SMALL_BYTES;

	slot->sent_ms = now_ms;
	slot->expiry_ms = 0;
	slot->token_limit =
		m->token_limit ? m->token_limit : link->token_limit;
	slot->method = m->method;
	slot->kind = m->kind;
	slot->flags = m->flags & AHP_PROMPT_ACK ? SLOT_PROMPT : 0;
	slot->inline_bytes = (uint8_t)(head_len(m) + m->body_bytes);
	p = fill_ids(p, m);
	if (m->frame)
		p = stamp(p, m);
	lane_copy_short(p, m->body, m->body_bytes);
}

/* The whole body in the slot. */
static inline void fill_short(struct slot *slot, const struct ahp__link *link,
			      const struct ahp_outgoing *m)
{
	uint8_t *p = (uint8_t *)slot + SLOT_SMALL_BYTES;

	fill_header(slot, link, m);
	slot->flags = m->flags & AHP_PROMPT_ACK ? SLOT_PROMPT : 0;
	slot->inline_bytes = (uint8_t)(head_len(m) + m->body_bytes);
	if (LANE_UNLIKELY(m->message_id != NULL)) {
		slot->flags |= SLOT_LONG;
		memcpy(slot->message_id, m->message_id,
		       sizeof(slot->message_id));
		slot->where = 0;
		slot->body_bytes = slot->inline_bytes;
		p = slot->rest;
	}
	p = fill_ids(p, m);
	if (m->frame)
		p = stamp(p, m);
	lane_copy_short(p, m->body, m->body_bytes);
}

/* The body in the arena; its first bytes in the slot too. */
static void fill_long(struct slot *slot, const struct ahp__link *link,
		      const struct ahp_outgoing *m, const struct cargo *cargo)
{
	const struct avp_block *block = &link->agent->body[cargo->body].block;
	unsigned room = AVP_LANE_LONG_BYTES - 2u - (unsigned)m->task_id.len -
			(unsigned)m->session_id.len;

	fill_header(slot, link, m);
	slot->flags = SLOT_LONG | SLOT_ARENA;
	if (m->flags & AHP_PROMPT_ACK)
		slot->flags |= SLOT_PROMPT;
	if (m->message_id)
		memcpy(slot->message_id, m->message_id,
		       sizeof(slot->message_id));
	else
		memset(slot->message_id, 0, sizeof(slot->message_id));
	slot->where = (uint64_t)block->segment << 40 | cargo->off;
	slot->body_bytes = head_len(m) + m->body_bytes;
	if (m->frame)
		stamp(cargo->bytes, m);
	slot->inline_bytes = head_bytes(m, cargo->bytes, slot->body_bytes,
					room);
	lane_copy_short(fill_ids(slot->rest, m), cargo->bytes,
			slot->inline_bytes);
}

__attribute__((noinline)) static int publish_long(struct ahp_agent *agent, struct ahp__link *link,
			const struct ahp_outgoing *m, struct avp_reason *why)
{
	struct cargo cargo = { 0 };
	struct slot *slot;
	int error = load_cargo(agent, link, m, &cargo, why);

	if (error)
		return error;
	error = ahp__link_pass_segments(link, why);
	if (error) {
		ahp__body_unref(agent, cargo.body);
		return error;
	}
	slot = lane_claim(&link->tx); /* has_room() has seen it */
	fill_long(slot, link, m, &cargo);
	link->lent_bytes += agent->body[cargo.body].block.bytes;
	publish(agent, link, slot, m, cargo.body);
	return 0;
}

/*
 * The beginning of a frame whose head a local reader takes. Twelve bytes that were
 * just written, by whoever wrote the body, are looked at; the rest, by its reader.
 */
static inline bool like_frame(const uint8_t *body, uint64_t bytes)
{
	uint32_t begin, length, metadata; /* little-endian */

	if (bytes < AVP_FRAME_HEADER_BYTES)
		return false;
	memcpy(&begin, body, sizeof(begin));
	memcpy(&length, body + 4, sizeof(length));
	memcpy(&metadata, body + 8, sizeof(metadata));
	return (begin & 0xffffff) == 0x015641 /* "AV", version 1 */ &&
	       metadata <= FRAME_HEAD_MAX - AVP_FRAME_HEADER_BYTES &&
	       metadata <= length && length <= bytes - AVP_FRAME_HEADER_BYTES;
}

/* Its kind and what it is made of belong together. */
static inline bool kind_ok(const struct ahp_outgoing *m)
{
	return m->frame ? m->kind == AHP_FRAME :
			  m->kind == AHP_JSON ||
				  (m->kind == AHP_FRAME &&
				   like_frame(m->body, m->body_bytes));
}

static inline bool message_ok(const struct ahp_outgoing *m)
{
	return m->method >= AHP_TASK && m->method <= AHP_TOKEN_RESPONSE &&
	       !m->reserved[0] && !m->reserved[1] &&
	       !(m->flags & ~MESSAGE_FLAGS) &&
	       m->task_id.len <= AVP_LANE_ID_BYTES &&
	       m->session_id.len <= AVP_LANE_ID_BYTES &&
	       m->body_bytes <= SEGMENT_CAP && !m->loan &&
	       (!m->frame || m->body_bytes <= FRAME_PAYLOAD_MAX) &&
	       kind_ok(m);
}

/* Says what is wrong with a body that kind_ok() refused. */
LANE_COLD static int no_frame(const struct ahp_outgoing *m,
			      struct avp_reason *why)
{
	uint64_t need = 0, head = m->body_bytes;
	struct avp_reason what = { 0 };
	struct avp_frame frame;

	if (head > FRAME_HEAD_MAX)
		head = FRAME_HEAD_MAX;
	if (avp_frame_decode_head(m->body, head, m->body_bytes, &frame, &need,
				  &what) == AVP_AGAIN)
		return avp__fail(why, AVP_INVALID_MESSAGE,
				 "metadata of %llu bytes; %u are the limit "
				 "between local agents",
				 (unsigned long long)need -
					 AVP_FRAME_HEADER_BYTES,
				 FRAME_HEAD_MAX - AVP_FRAME_HEADER_BYTES);
	return avp__fail(why, AVP_INVALID_MESSAGE,
			 "its kind is AHP_FRAME, but the body is none: %.180s",
			 what.text);
}

LANE_COLD static int check_message(const struct ahp_agent *agent,
			 const struct ahp_outgoing *m, struct avp_reason *why)
{
	if (m->method < AHP_TASK || m->method > AHP_TOKEN_RESPONSE ||
	    m->kind > AHP_FRAME || m->reserved[0] || m->reserved[1] ||
	    m->flags & ~MESSAGE_FLAGS)
		return avp__fail(why, AVP_INVALID_MESSAGE,
				 "method %u, kind %u, flags %#x: not known",
				 m->method, m->kind, m->flags);
	if (m->task_id.len > AVP_LANE_ID_BYTES ||
	    m->session_id.len > AVP_LANE_ID_BYTES)
		return avp__fail(why, AVP_INVALID_MESSAGE,
				 "task id of %zu bytes, session id of %zu: at "
				 "most %d each",
				 m->task_id.len, m->session_id.len,
				 AVP_LANE_ID_BYTES);
	if (m->frame && (m->kind != AHP_FRAME ||
			 m->body_bytes > FRAME_PAYLOAD_MAX))
		return avp__fail(why, AVP_INVALID_MESSAGE,
				 "a frame of %llu bytes: at most %u, and kind "
				 "AHP_FRAME",
				 (unsigned long long)m->body_bytes,
				 FRAME_PAYLOAD_MAX);
	if (m->body_bytes > SEGMENT_CAP)
		return avp__fail(why, AVP_INVALID_MESSAGE,
				 "a body of %llu bytes; one has at most %llu",
				 (unsigned long long)m->body_bytes,
				 SEGMENT_CAP);
	if (m->loan) {
		int error = check_loan(agent, m, why);

		if (error)
			return error;
	}
	return kind_ok(m) ? 0 : no_frame(m, why);
}

static bool fits_slot(const struct ahp_outgoing *m)
{
	uint64_t room = m->message_id ? AVP_LANE_LONG_BYTES :
					AVP_LANE_SMALL_BYTES;

	return !m->loan && head_len(m) + m->body_bytes + m->task_id.len +
				   m->session_id.len + 2 <= room;
}

static uint64_t lent_by(const struct ahp_agent *agent,
			const struct ahp_outgoing *m)
{
	return m->loan ? agent->body[m->loan->handle].block.bytes :
			 m->body_bytes + head_len(m);
}

/* Is there more to do than to publish it: see ahp__retry_before()? */
static inline bool needs_place(const struct ahp__link *link, uint32_t flags)
{
	if (!link->deadline_ms)
		return flags != 0;
	return flags & AHP_NOTIFY ||
	       link->tx.next - link->settled_below > link->tx.slot_mask;
}

/* A reliable message to an agent that is not there is taken all the same. */
__attribute__((cold)) static int
send_later(struct ahp_agent *agent, const struct ahp_outgoing *m, int error,
	   struct ahp_receipt *receipt, struct avp_reason *why)
{
	if (!(tracked(agent, m) & AHP_RELIABLE) ||
	    (error != AVP_AGENT_NOT_FOUND && error != AVP_TIMEOUT &&
	     error != AVP_CLOSED))
		return error;
	error = ahp__retry_post(agent, m, receipt, why);
	if (!error && m->loan && !(m->flags & AHP_KEEP_LOAN))
		ahp_loan_release(agent, m->loan);
	return error;
}

/* Any message, with all that it may ask for, over any link. */
static __attribute__((noinline)) int send_any(struct ahp_agent *agent,
					      const struct ahp_outgoing *m,
					      int64_t timeout_ns,
					      struct ahp_receipt *receipt,
					      struct avp_reason *why)
{
	struct ahp__link *link;
	struct slot *slot;
	uint64_t lent_bytes;
	bool in_slot;
	int error;

	if (LANE_UNLIKELY(!message_ok(m))) {
		error = check_message(agent, m, why);
		if (error)
			return error;
	}
	if (LANE_UNLIKELY(++agent->polls >= TURN_EVERY))
		ahp__agent_turn(agent, 0);
	link = link_up(agent, m->peer);
	if (LANE_UNLIKELY(!link)) {
		error = find_link(agent, m, timeout_ns, &link, why);
		if (error)
			return send_later(agent, m, error, receipt, why);
	}
	in_slot = fits_slot(m);
	lent_bytes = in_slot ? 0 : lent_by(agent, m);
	if (LANE_UNLIKELY(!has_room_now(link, lent_bytes))) {
		error = wait_for_room(agent, &link, lent_bytes, timeout_ns,
				      why);
		if (error)
			return send_later(agent, m, error, receipt, why);
	}
	if (LANE_UNLIKELY(link->keeps_out) && m->kind == AHP_FRAME) {
		error = ahp__mode_admits(link, m, why);
		if (error)
			return error;
	}
	if (LANE_UNLIKELY(needs_place(link, tracked(agent, m)))) {
		error = ahp__retry_before(link, tracked(agent, m), why);
		if (error)
			return error;
	}
	if (in_slot) {
		slot = lane_claim(&link->tx); /* has_room() has seen it */
		fill_short(slot, link, m);
		publish(agent, link, slot, m, 0);
	} else {
		error = publish_long(agent, link, m, why);
		if (error) {
			if (tracked(agent, m) & AHP_NOTIFY)
				ahp__events_cancel(agent);
			return error;
		}
	}
	agent->stats.bytes_sent += head_len(m) + m->body_bytes;
	if (receipt)
		*receipt = receipt_of(link, link->tx.next - 1);
	if (m->loan && !(m->flags & AHP_KEEP_LOAN))
		ahp_loan_release(agent, m->loan);
	return 0;
}

/* Well-formed but for its body, with neither an id nor an expiry of its own. */
static inline bool is_usual(const struct ahp_outgoing *m)
{
	return m->method >= AHP_TASK && m->method <= AHP_TOKEN_RESPONSE &&
	       !m->reserved[0] && !m->reserved[1] && !m->message_id &&
	       !m->expires_ns && m->task_id.len <= AVP_LANE_ID_BYTES &&
	       m->session_id.len <= AVP_LANE_ID_BYTES;
}

/*
 * A message that fits a slot and asks for nothing else, but perhaps to be reliable:
 * there is nothing to do for it but to write the slot and to count it.
 */
static inline bool is_plain(const struct ahp_outgoing *m)
{
	return is_usual(m) && !m->loan &&
	       m->body_bytes <= AVP_LANE_SMALL_BYTES &&
	       head_len(m) + m->body_bytes + m->task_id.len +
			       m->session_id.len + 2 <=
		       AVP_LANE_SMALL_BYTES &&
	       kind_ok(m);
}

/* Can it be marked as reliable here and now: see ahp__retry_mark()? */
static inline bool marks_at_once(const struct ahp__link *link,
				 const struct ahp_outgoing *m)
{
	return link->deadline_ms && link->usual_ms && !m->deadline_ns &&
	       link->agent->retry->armed_ns;
}

/* A body lent to this peer before: its loan is sound, and its segment known. */
static inline bool is_lent(const struct ahp_agent *agent,
			   const struct ahp__link *link,
			   const struct ahp_outgoing *m)
{
	const struct ahp__body *body;
	uint64_t at, head = head_len(m);

	if (!m->loan->handle || m->loan->handle >= agent->bodies_room ||
	    !is_usual(m))
		return false;
	body = &agent->body[m->loan->handle];
	at = (uint64_t)((const uint8_t *)m->body -
			(const uint8_t *)body->block.data);
	return body->refs && body->pool == link->pool && at >= head &&
	       at <= body->block.bytes &&
	       m->body_bytes <= body->block.bytes - at &&
	       body->block.segment <= link->passed &&
	       (!link->lent_bytes ||
		link->lent_bytes + body->block.bytes <= link->lent_max) &&
	       (!m->frame || m->body_bytes <= FRAME_PAYLOAD_MAX) && kind_ok(m);
}

/* Enters messages that were published, and whose entries were added. */
static inline void count_usual(struct ahp_agent *agent, struct ahp__link *link,
			       uint32_t messages, uint64_t bytes)
{
	link->plain_room -= messages;
	ledger_add_plain(link->ledger, messages);
	agent->polls += messages;
	agent->stats.in_flight += messages;
	agent->stats.sent += messages;
	agent->stats.bytes_sent += bytes;
}

static inline struct ahp__link *link_of_peer(const struct ahp_agent *agent,
					     uint32_t number)
{
	const struct ahp__peer *peer = ahp__peer_at(agent, number);

	return peer ? peer->link : NULL;
}

/* Its deadline and its mark, in the slot and in the ledger. */
static inline void mark_reliable(struct ahp__link *link, struct slot *slot)
{
	uint32_t deadline = slot->sent_ms + link->usual_ms;

	deadline += !deadline; /* 0 is never */
	slot->expiry_ms = deadline;
	link->deadline_ms[link->tx.next & link->tx.slot_mask] = deadline;
	ledger_put(link->ledger, COOKIE_RELIABLE, false);
}

/* Noinline: the path of plain messages shall not save its registers. */
__attribute__((noinline)) static int send_lent(struct ahp_agent *agent,
					       struct ahp__link *link,
					       const struct ahp_outgoing *m,
					       struct ahp_receipt *receipt)
{
	struct slot *slot = lane_slot(&link->tx);
	struct cargo cargo;

	lend(agent, m, &cargo);
	fill_long(slot, link, m, &cargo);
	link->lent_bytes += agent->body[cargo.body].block.bytes;
	ledger_put(link->ledger, cargo.body, true);
	commit(link, slot);
	count_usual(agent, link, 1, head_len(m) + m->body_bytes);
	if (receipt)
		*receipt = receipt_of(link, link->tx.next - 1);
	if (!(m->flags & AHP_KEEP_LOAN))
		ahp_loan_release(agent, m->loan);
	return 0;
}

int ahp_send(struct ahp_agent *agent, const struct ahp_outgoing *m,
	     int64_t timeout_ns, struct ahp_receipt *receipt,
	     struct avp_reason *why)
{
	struct ahp__link *link;
	struct slot *slot;
	uint32_t flags;

	AHP_GUARD(agent);
	flags = m->flags | agent->send_flags;
	link = link_of_peer(agent, m->peer);
	if (LANE_UNLIKELY(!link || !link->plain_room ||
			  agent->polls + 1 >= TURN_EVERY))
		return send_any(agent, m, timeout_ns, receipt, why);
	if (m->loan && !(flags & ~(AHP_PROMPT_ACK | AHP_KEEP_LOAN)) &&
	    is_lent(agent, link, m))
		return send_lent(agent, link, m, receipt);
	if (LANE_UNLIKELY(flags & ~(AHP_PROMPT_ACK | AHP_RELIABLE) ||
			  !is_plain(m) ||
			  (flags & AHP_RELIABLE && !marks_at_once(link, m))))
		return send_any(agent, m, timeout_ns, receipt, why);
	slot = lane_slot(&link->tx);
	fill_plain(slot, link, m, ahp__lane_ms(link->tx.start_ns));
	if (flags & AHP_RELIABLE)
		mark_reliable(link, slot);
	commit(link, slot);
	count_usual(agent, link, 1, head_len(m) + m->body_bytes);
	if (receipt)
		*receipt = receipt_of(link, link->tx.next - 1);
	return 0;
}

/*
 * The plain messages for one peer, none of them reliable, that m begins with, as
 * far as there is room: how many. They have one time stamp, and one edge for a
 * peer that sleeps: each is committed with release, and the last one's word is
 * then stored again, seq_cst, which is P1 of ring/wake.h for all of them.
 */
static uint32_t send_run(struct ahp_agent *agent, const struct ahp_outgoing *m,
			 uint32_t count, struct ahp_receipt *receipts)
{
	struct ahp__link *link = link_of_peer(agent, m->peer);
	struct slot *slot = NULL;
	uint64_t bytes = 0;
	uint32_t now_ms, n;

	if (!link)
		return 0;
	if (count > link->plain_room)
		count = link->plain_room;
	now_ms = ahp__lane_ms(link->tx.start_ns);
	for (n = 0; n < count && m[n].peer == m->peer &&
		    !((m[n].flags | agent->send_flags) & ~AHP_PROMPT_ACK) &&
		    is_plain(&m[n]);
	     n++) {
		slot = lane_slot(&link->tx);
		if (receipts)
			receipts[n] = receipt_of(link, link->tx.next);
		fill_plain(slot, link, &m[n], now_ms);
		lane_commit(&link->tx, slot, false);
		bytes += head_len(&m[n]) + m[n].body_bytes;
	}
	if (slot && link->peer_sleeps) {
		atomic_store_explicit(&slot->sequence, link->tx.next - 1,
				      memory_order_seq_cst);
		ring_if_due(link);
	}
	count_usual(agent, link, n, bytes);
	return n;
}

/* What is left of a time-out; *end_ns is 0 until it was first asked for. */
static int64_t time_left(int64_t timeout_ns, int64_t *end_ns)
{
	int64_t now_ns;

	if (timeout_ns <= 0 || timeout_ns == AHP_FOREVER)
		return timeout_ns; /* AHP_USUAL among them */
	now_ns = ahp__now_ns();
	if (!*end_ns)
		*end_ns = timeout_ns < AHP_FOREVER - now_ns
				  ? now_ns + timeout_ns
				  : AHP_FOREVER;
	return *end_ns > now_ns ? *end_ns - now_ns : 0;
}

int ahp_send_many(struct ahp_agent *agent, const struct ahp_outgoing *messages,
		  uint32_t count, int64_t timeout_ns,
		  struct ahp_receipt *receipts, struct avp_reason *why)
{
	int64_t end_ns = 0;
	uint32_t n = 0;
	int error = 0;

	AHP_GUARD(agent);
	if (count > INT32_MAX)
		count = INT32_MAX;
	/* Before the run and not within it: a peer that is woken in the middle
	 * may sleep again before the end. */
	if (agent->polls + (uint64_t)count >= TURN_EVERY)
		ahp__agent_turn(agent, 0);
	while (n < count && !error) {
		n += send_run(agent, messages + n, count - n,
			      receipts ? receipts + n : NULL);
		if (n == count)
			break;
		/* The next is not plain, or there is no room. */
		error = send_any(agent, messages + n,
				 time_left(timeout_ns, &end_ns),
				 receipts ? receipts + n : NULL, why);
		n += !error;
	}
	return n ? (int)n : error;
}
