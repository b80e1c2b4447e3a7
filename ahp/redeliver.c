/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sending a parcel: the same message in a new slot, with its id, so that it
 * takes the long form; what no longer fits into the slot goes to the arena.
 */
#include <string.h>

#include "ahp/retry.h"
#include "ring/wake.h"

static bool has_room(const struct ahp__link *link, uint64_t lent_bytes)
{
	return avp_ledger_has_room(link->ledger) &&
	       link->tx.next - link->tx.consumed <= link->tx.slot_mask &&
	       (!lent_bytes || !link->lent_bytes ||
		link->lent_bytes + lent_bytes <= link->lent_max);
}

/* The parcel's body becomes a copy, in a pool that the link's peer may read. */
static int copy_body(struct ahp__link *link, struct parcel *p,
		     const void *bytes, uint64_t n, uint64_t *where)
{
	struct ahp_agent *agent = link->agent;
	const struct avp_block *block;
	uint32_t body;
	int error = ahp__body_new(agent, link->pool, n, LINE, &body, NULL);

	if (error)
		return error;
	block = &agent->body[body].block;
	memcpy(block->data, bytes, n);
	if (p->body)
		ahp__body_unref(agent, p->body);
	p->body = body;
	*where = (uint64_t)block->segment << 40 | block->off;
	return 0;
}

/* Where the body lies in our own mapping. */
static const uint8_t *body_at(const struct ahp_agent *agent,
			      const struct parcel *p, uint64_t off)
{
	const struct avp_block *block = &agent->body[p->body].block;

	return (const uint8_t *)block->data + (off - block->off);
}

/*
 * Rewrites the parcel's slot as it has to be for this link. A slot of our own
 * making parses.
 */
static int fit(struct ahp__link *link, struct parcel *p,
	       struct avp_slot_view *v)
{
	struct slot *slot = (struct slot *)(void *)p->slot;
	struct ahp_agent *agent = link->agent;
	uint8_t rest[sizeof(slot->rest)];
	unsigned ids;
	uint64_t where;
	int error;

	lane_parse(p->slot, v);
	ids = 2u + v->task_bytes + v->session_bytes;
	if (v->in_arena) {
		if (agent->body[p->body].pool == link->pool)
			return 0;
		error = copy_body(link, p, body_at(agent, p, v->offset),
				  v->body_bytes, &where);
		if (!error)
			slot->where = where;
		return error;
	}
	if (ids + v->inline_bytes <= AVP_LANE_LONG_BYTES)
		return 0;
	error = copy_body(link, p, v->inline_data, v->inline_bytes, &where);
	if (error)
		return error;
	memcpy(rest, v->task - 1, ids);
	slot->where = where;
	slot->body_bytes = v->inline_bytes;
	slot->inline_bytes = 0;
	slot->flags |= SLOT_LONG | SLOT_ARENA;
	memcpy(slot->rest, rest, ids);
	return 0;
}

static uint32_t expiry_of(const struct parcel *p, uint32_t now_ms,
			  int64_t now_ns)
{
	int64_t left = p->deadline_ns == NO_DEADLINE
			       ? INT32_MAX
			       : (p->deadline_ns - now_ns) / 1000000;
	uint32_t at;

	if (p->expires_ms && p->expires_ms < left)
		left = p->expires_ms;
	if (left >= INT32_MAX)
		return 0;
	at = now_ms + (left < 0 ? 0 : (uint32_t)left) + 1;
	return at ? at : 1;
}

static void write_slot(struct ahp__link *link, const struct parcel *p,
		       const struct avp_slot_view *v)
{
	uint32_t now_ms = ahp__lane_ms(link->tx.start_ns);
	struct avp_slot_put put = {
		.method = v->method,
		.kind = v->kind,
		.redelivered = p->deliveries > 0 || p->seen,
		.prompt = v->prompt,
		.long_form = true,
		.in_arena = v->in_arena,
		.token_limit = v->token_limit,
		.sent_ms = now_ms,
		.expiry_ms = expiry_of(p, now_ms, ahp__now_ns()),
		.task = v->task,
		.session = v->session,
		.task_bytes = v->task_bytes,
		.session_bytes = v->session_bytes,
		.inline_bytes = v->inline_bytes,
		.inline_data = v->inline_data,
		.segment = v->segment,
		.offset = v->offset,
		.body_bytes = v->body_bytes,
	};

	memcpy(put.message_id, p->id, sizeof(put.message_id));
	avp_lane_put(&link->tx, &put, link->peer_sleeps);
}

int ahp__retry_deliver(struct ahp__link *link, struct parcel *p)
{
	struct ahp_agent *agent = link->agent;
	struct avp_slot_view v = {0};
	uint64_t lent, sequence;
	uint32_t flags = 0;
	int error = ahp__retry_before(link, 0, NULL);

	if (!error)
		error = fit(link, p, &v);
	if (error)
		return error;
	lane_parse(p->slot, &v);
	if (link->keeps_out && v.kind == AHP_FRAME &&
	    !ahp__mode_takes(link,
			     v.in_arena ? body_at(agent, p, v.offset)
					: v.inline_data,
			     v.body_bytes, NULL))
		return AVP_SHAPE_MISMATCH;
	lent = v.in_arena ? agent->body[p->body].block.bytes : 0;
	/* Looked at last: making room in the arena reads acknowledgements. */
	if (link->state != LINK_UP || !has_room(link, lent))
		return AVP_QUEUE_FULL;
	if (v.in_arena && ahp__link_pass_segments(link, NULL))
		return AVP_QUEUE_FULL;
	sequence = link->tx.next;
	write_slot(link, p, &v);
	if (link->peer_sleeps &&
	    avp__wake_due(&link->page->messages, &link->rung_messages))
		ahp__link_ring(link);
	if (v.in_arena) {
		ahp__body_ref(agent, p->body);
		link->lent_bytes += lent;
		flags = p->body;
	}
	avp_ledger_add(link->ledger, sequence,
		       flags | (uint64_t)p->number << COOKIE_PARCEL_SHIFT |
			       COOKIE_RELIABLE,
		       v.in_arena);
	ahp__acks_room(link);
	agent->stats.in_flight++;
	agent->stats.sent++;
	agent->stats.retried += p->deliveries > 0;
	agent->stats.bytes_sent += v.body_bytes;
	p->deliveries++;
	return 0;
}

/* ---- what was never in a lane ------------------------------------------- */

static uint32_t head_len(const struct ahp_outgoing *m)
{
	return m->frame ? m->frame->len : 0;
}

static void put_head(uint8_t *to, const struct ahp_outgoing *m)
{
	const struct avp_frame_template *t = m->frame;
	uint32_t length;

	if (!t)
		return;
	memcpy(to, t->bytes, t->len);
	length = t->metadata_length + (uint32_t)m->body_bytes;
	memcpy(to + 4, &length, sizeof(length)); /* little-endian */
}

/* A loan is held as it is; other bytes are copied. */
static int pack_body(struct ahp_agent *agent, struct parcel *p,
		     const struct ahp_outgoing *m, struct slot *slot,
		     struct avp_reason *why)
{
	uint64_t front = (head_len(m) + LINE - 1) & ~(uint64_t)(LINE - 1);
	const struct avp_block *block;
	uint8_t *at;
	int pool, error;

	if (m->loan) {
		p->body = m->loan->handle;
		ahp__body_ref(agent, p->body);
		block = &agent->body[p->body].block;
		at = (uint8_t *)block->data +
		     ((const uint8_t *)m->body - (const uint8_t *)block->data) -
		     head_len(m);
	} else {
		pool = ahp__pool_for(agent, agent->own_uid, why);
		if (pool < 0)
			return pool;
		error = ahp__body_new(agent, (uint32_t)pool,
				      front + m->body_bytes, LINE, &p->body,
				      why);
		if (error)
			return error;
		block = &agent->body[p->body].block;
		at = (uint8_t *)block->data + front - head_len(m);
		memcpy(at + head_len(m), m->body, m->body_bytes);
	}
	put_head(at, m);
	slot->flags |= SLOT_ARENA;
	slot->where = (uint64_t)block->segment << 40 |
		      (block->off + (uint64_t)(at - (uint8_t *)block->data));
	slot->body_bytes = head_len(m) + m->body_bytes;
	return 0;
}

int ahp__retry_pack(struct ahp_agent *agent, struct parcel *p,
		    const struct ahp_outgoing *m, struct avp_reason *why)
{
	struct slot *slot = (struct slot *)(void *)p->slot;
	uint64_t bytes = head_len(m) + m->body_bytes;
	uint8_t *at = slot->rest;

	slot->flags = SLOT_LONG;
	if (m->flags & AHP_PROMPT_ACK)
		slot->flags |= SLOT_PROMPT;
	slot->method = m->method;
	slot->kind = m->kind;
	slot->token_limit =
		m->token_limit ? m->token_limit : agent->options.token_limit;
	at = lane_put_id(at, m->task_id.data, m->task_id.len);
	at = lane_put_id(at, m->session_id.data, m->session_id.len);
	memcpy(slot->message_id, p->id, sizeof(slot->message_id));
	if (m->loan || bytes > (uint64_t)(slot->rest + sizeof(slot->rest) - at))
		return pack_body(agent, p, m, slot, why);
	put_head(at, m);
	if (m->body_bytes)
		memcpy(at + head_len(m), m->body, m->body_bytes);
	slot->inline_bytes = (uint8_t)bytes;
	slot->body_bytes = bytes;
	return 0;
}
