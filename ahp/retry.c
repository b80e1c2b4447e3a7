/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>

#include "ahp/retry.h"

int64_t ahp__backoff_ns(int64_t delay_ns, uint32_t retry, uint32_t random)
{
	uint32_t doublings = retry > BACKOFF_DOUBLINGS ? BACKOFF_DOUBLINGS
			     : retry		       ? retry - 1
						       : 0;
	int64_t step = delay_ns > INT64_MAX >> (BACKOFF_DOUBLINGS + 2)
			       ? INT64_MAX >> 2
			       : delay_ns << doublings;

	/* Never less than was asked for; up to half of it more. */
	return step + (int64_t)((double)(step / 2) * random / UINT32_MAX);
}

static uint32_t next_random(struct ahp__retry *r)
{
	r->random ^= r->random << 13;
	r->random ^= r->random >> 7;
	r->random ^= r->random << 17;
	return (uint32_t)(r->random >> 32);
}

static int64_t saturated(int64_t now_ns, int64_t more_ns)
{
	return more_ns < NO_DEADLINE - now_ns ? now_ns + more_ns : NO_DEADLINE;
}

/* Reads the answers to reliable messages; true when some are still to come. */
static bool read_answers(struct ahp_agent *agent)
{
	bool more = false;

	for (uint32_t i = agent->ups; i-- > 0;) {
		struct ahp__link *link = i < agent->ups ? agent->up[i] : NULL;

		if (!link || link->state != LINK_UP ||
		    !avp_ledger_outstanding(link->ledger))
			continue;
		if (ahp__acks_read(link))
			more |= avp_ledger_outstanding(link->ledger) != 0;
	}
	return more;
}

static void set_timer(struct ahp__retry *r, int64_t now_ns, bool answers)
{
	int64_t due_ns = r->queued ? now_ns + r->tick_ns : NO_DEADLINE;
	struct itimerspec at = {0};

	if (answers && now_ns + ANSWERS_NS < due_ns)
		due_ns = now_ns + ANSWERS_NS;
	if (r->heaped && ahp__parcel_at(r, r->heap[0])->due_ns < due_ns)
		due_ns = ahp__parcel_at(r, r->heap[0])->due_ns;
	/* One that is early is harmless, and moving it is a system call. */
	if (due_ns == NO_DEADLINE || (r->armed_ns && r->armed_ns <= due_ns))
		return;
	at.it_value.tv_sec = due_ns / 1000000000;
	at.it_value.tv_nsec = due_ns % 1000000000;
	if (due_ns <= 0)
		at.it_value.tv_nsec = 1;
	timerfd_settime(r->timer.fd, TFD_TIMER_ABSTIME, &at, NULL);
	r->armed_ns = due_ns;
}

/* ---- the end of a message ----------------------------------------------- */

static const char *words_for(int code)
{
	switch (code) {
	case AVP_RETRY_EXHAUSTED: return "the last permitted delivery failed";
	case AVP_EXPIRED: return "not accepted before its deadline";
	case AVP_SHAPE_MISMATCH:
		return "its tensor does not fit the reader's model";
	case AVP_CLOSED: return "its sender was closed before it was accepted";
	default: return "no room to keep it for another delivery";
	}
}

static struct ahp_event event_of(const struct parcel *p, int code)
{
	return (struct ahp_event){.receipt = p->origin,
				  .code = code,
				  .deliveries = p->deliveries};
}

static void let_go(struct ahp_agent *agent, struct parcel *p)
{
	if (p->body)
		ahp__body_unref(agent, p->body);
	p->body = 0;
}

/* The letter of a parcel, to whoever keeps dead letters. */
static void bury(struct ahp_agent *agent, struct parcel *p, int code)
{
	struct avp_slot_view v = {0};
	struct ahp_dead_letter letter = {
		.target = ahp__peer_at(agent, p->origin.peer)->id,
		.code = code,
		.last = p->last,
		.error = words_for(code),
		.deliveries = p->deliveries,
		.receipt = p->origin,
	};
	struct ahp_event event = event_of(p, code);

	lane_parse(p->slot, &v);
	letter.token_limit = v.token_limit;
	letter.method = v.method;
	letter.kind = v.kind;
	memcpy(letter.message_id, p->id, sizeof(letter.message_id));
	letter.task_id = (struct avp_str){v.task, v.task_bytes};
	letter.session_id = (struct avp_str){v.session, v.session_bytes};
	letter.body = v.inline_data;
	letter.body_bytes = v.body_bytes;
	if (v.in_arena) {
		const struct avp_block *block = &agent->body[p->body].block;

		letter.body =
			(const uint8_t *)block->data + (v.offset - block->off);
	}
	ahp__bury(agent, &letter, p->notify ? &event : NULL);
	p->outcome = code;
	let_go(agent, p);
}

static void finish(struct ahp__retry *r, struct parcel *p, int code)
{
	struct ahp_event event = event_of(p, 0);

	if (code) {
		bury(r->agent, p, code);
	} else {
		p->outcome = 0;
		if (p->notify)
			ahp__events_add(r->agent, &event);
		let_go(r->agent, p);
	}
	ahp__parcel_done(r, p);
}

/* ---- what happens next -------------------------------------------------- */

/* Waits in its peer's queue, until the deadline at most. */
static void queue(struct ahp__retry *r, struct parcel *p)
{
	ahp__parcel_enqueue(r, p);
	r->tick_ns = TICK_NS;
	p->due_ns = p->deadline_ns;
	ahp__parcel_push(r, p);
}

static void back_off(struct ahp__retry *r, struct parcel *p, int64_t now_ns)
{
	int64_t wait_ns = ahp__backoff_ns(r->agent->options.retry_delay_ns,
					  p->deliveries, next_random(r));

	p->state = PARCEL_BACKOFF;
	p->due_ns = saturated(now_ns, wait_ns);
	if (p->due_ns > p->deadline_ns)
		p->due_ns = p->deadline_ns;
	ahp__parcel_push(r, p);
}

/* A delivery has failed; `counts` unless nobody can have seen it. */
static void after_failure(struct ahp__retry *r, struct parcel *p, int code,
			  bool counts)
{
	int64_t now_ns = ahp__now_ns();

	p->last = code;
	if (!counts)
		p->deliveries--;
	if (code == AVP_SHAPE_MISMATCH) /* another delivery changes nothing */
		finish(r, p, code);
	else if (now_ns >= p->deadline_ns)
		finish(r, p, AVP_EXPIRED);
	else if (p->deliveries > r->agent->options.max_retries)
		finish(r, p, AVP_RETRY_EXHAUSTED);
	else if (code == AVP_CLOSED)
		queue(r, p);
	else
		back_off(r, p, now_ns);
	set_timer(r, now_ns, false);
}

/* ---- parcels from slots ------------------------------------------------- */

static int64_t ns_of_ms(const struct ahp__link *link, uint32_t ms)
{
	int32_t left = (int32_t)(ms - ahp__lane_ms(link->tx.start_ns));

	return ms ? ahp__now_ns() + left * 1000000ll : NO_DEADLINE;
}

static bool is_zero(const uint8_t id[16])
{
	static const uint8_t zero[16];

	return !memcmp(id, zero, sizeof(zero));
}

/* Fills a parcel from the slot of a message that is still in our lane. */
static void fill_parcel(struct parcel *p, const struct ahp__link *link,
			uint64_t sequence, uint64_t cookie)
{
	uint64_t at = sequence & link->tx.slot_mask;
	struct avp_slot_view v = {0};

	memcpy(p->slot, link->tx.slots + at * SLOT_BYTES, SLOT_BYTES);
	lane_parse(p->slot, &v);
	if (v.message_id && !is_zero(v.message_id))
		memcpy(p->id, v.message_id, sizeof(p->id));
	else
		ahp_id_of_sequence(p->id, link->tx.epoch, sequence);
	p->deadline_ns = ns_of_ms(link, link->deadline_ms[at]);
	p->expires_ms = v.expiry_ms ? v.expiry_ms - v.sent_ms : 0;
	p->body = (uint32_t)cookie;
	p->notify = cookie & COOKIE_NOTIFY;
	p->deliveries = 1;
}

static struct parcel *parcel_of(struct ahp__link *link, uint64_t sequence,
				uint64_t cookie)
{
	struct ahp__retry *r = link->agent->retry;
	uint32_t number = cookie >> COOKIE_PARCEL_SHIFT & COOKIE_PARCEL_MASK;
	struct ahp_receipt origin = {sequence, link->peer->number,
				     link->generation};
	struct parcel *p;

	if (number)
		return ahp__parcel_at(r, number);
	p = ahp__parcel_new(r, &origin);
	if (p)
		fill_parcel(p, link, sequence, cookie);
	return p;
}

/* There is no room for a parcel: the message is dead as it lies there. */
static void bury_in_place(struct ahp__link *link, uint64_t sequence,
			  uint64_t cookie, int last)
{
	struct parcel p = {
		.origin = {sequence, link->peer->number, link->generation}};

	fill_parcel(&p, link, sequence, cookie);
	p.last = last;
	bury(link->agent, &p, AVP_QUEUE_FULL);
}

static int64_t timeout_of(const struct ahp_agent *agent,
			  const struct ahp_outgoing *m)
{
	return m && m->deadline_ns ? m->deadline_ns
				   : agent->options.task_timeout_ns;
}

/* Half of what a word can tell is 24 days: what is later is never. */
static uint32_t ms_after(uint32_t now_ms, int64_t ns)
{
	uint32_t at;

	if (ns > INT32_MAX * 1000000ll)
		return 0;
	at = now_ms + (ns < 0 ? 0 : (uint32_t)(ns / 1000000)) + 1;
	return at ? at : 1;
}

int ahp__retry_before(struct ahp__link *link, uint32_t flags,
		      struct avp_reason *why)
{
	uint64_t sequence = link->tx.next - link->tx.slot_mask - 1;
	uint64_t *cookie;
	struct parcel *p;
	int error = 0;

	if (flags && !link->deadline_ms) {
		error = ahp__retry_open(link->agent, why);
		if (error)
			return error;
		link->deadline_ms = calloc(link->tx.slot_mask + 1,
					   sizeof(*link->deadline_ms));
		if (!link->deadline_ms)
			error = avp__fail(why, AVP_NO_MEMORY,
					  "no memory for deadlines");
		/* Far from the word's ends: added without a look. */
		link->usual_ms = ms_after(0, timeout_of(link->agent, NULL));
	}
	if (flags & AHP_NOTIFY && !error)
		error = ahp__events_reserve(link->agent, why);
	if (error || !link->deadline_ms)
		return error;
	link->settled_below = avp_ledger_accepted(link->ledger);
	if (link->settled_below > sequence)
		return 0;
	cookie = avp_ledger_cookie(link->ledger, sequence);
	if (!cookie || !(*cookie & COOKIE_RELIABLE) ||
	    *cookie >> COOKIE_PARCEL_SHIFT & COOKIE_PARCEL_MASK)
		return 0;
	p = parcel_of(link, sequence, *cookie);
	if (p) {
		*cookie |= (uint64_t)p->number << COOKIE_PARCEL_SHIFT;
		return 0;
	}
	if (flags & AHP_NOTIFY)
		ahp__events_cancel(link->agent);
	return avp__fail(why, AVP_QUEUE_FULL,
			 "%u reliable messages wait or are worked on for long, "
			 "the limit",
			 PARCELS_MAX);
}

uint64_t ahp__retry_mark(struct ahp__link *link, struct slot *slot,
			 const struct ahp_outgoing *m, uint32_t flags,
			 uint32_t body)
{
	uint64_t at = link->tx.next & link->tx.slot_mask;
	uint64_t cookie = body | (flags & AHP_NOTIFY ? COOKIE_NOTIFY : 0);
	uint32_t deadline;

	if (!(flags & AHP_RELIABLE))
		return cookie;
	deadline = m->deadline_ns || !link->usual_ms
			   ? ms_after(slot->sent_ms, timeout_of(link->agent, m))
			   : slot->sent_ms + link->usual_ms;
	deadline += link->usual_ms && !deadline; /* 0 is never */
	link->deadline_ms[at] = deadline;
	if (deadline &&
	    (!slot->expiry_ms || (int32_t)(slot->expiry_ms - deadline) > 0))
		slot->expiry_ms = deadline;
	if (!link->agent->retry->armed_ns)
		set_timer(link->agent->retry, ahp__now_ns(), true);
	/* The reader may release the block before it accepts or rejects. */
	if (body)
		ahp__body_ref(link->agent, body);
	return cookie | COOKIE_RELIABLE;
}

/* ---- news of messages --------------------------------------------------- */

static void tell_plain(struct ahp__link *link, uint64_t sequence,
		       uint64_t cookie, int code)
{
	struct ahp_event event = {
		.receipt = {sequence, link->peer->number, link->generation},
		.code = code,
		.deliveries = 1};

	if (cookie & COOKIE_NOTIFY)
		ahp__events_add(link->agent, &event);
}

static int code_of(enum avp_ack status)
{
	switch (status) {
	case AVP_ACK_ACCEPTED: return 0;
	case AVP_ACK_EXPIRED: return AVP_EXPIRED;
	case AVP_ACK_MISFIT: return AVP_SHAPE_MISMATCH;
	default: return AVP_REJECTED;
	}
}

void ahp__retry_settled(struct ahp__link *link, uint64_t sequence,
			uint64_t cookie, enum avp_ack status)
{
	struct ahp__retry *r = link->agent->retry;
	uint32_t number = cookie >> COOKIE_PARCEL_SHIFT & COOKIE_PARCEL_MASK;
	int code = code_of(status);
	struct parcel *p;

	if (!(cookie & COOKIE_RELIABLE))
		return tell_plain(link, sequence, cookie, code);
	if (!code && number)
		return finish(r, ahp__parcel_at(r, number), 0);
	if (!code) {
		if ((uint32_t)cookie)
			ahp__body_unref(link->agent, (uint32_t)cookie);
		return tell_plain(link, sequence, cookie, 0);
	}
	p = parcel_of(link, sequence, cookie);
	if (p)
		after_failure(r, p, code, true);
	else
		bury_in_place(link, sequence, cookie, code);
}

/*
 * What its reader had not taken out of the slot, nobody has seen: that is not
 * counted as a delivery. The first one is, always: what kills its reader before
 * it can say anything must not come back for ever.
 */
void ahp__retry_lost(struct ahp__link *link, uint64_t sequence, uint64_t cookie)
{
	bool counts = !link->lost || sequence < link->tx.consumed;
	uint32_t number = cookie >> COOKIE_PARCEL_SHIFT & COOKIE_PARCEL_MASK;
	struct ahp_agent *agent = link->agent;
	struct parcel *p;

	link->lost = true;
	if (!(cookie & COOKIE_RELIABLE))
		return tell_plain(link, sequence, cookie, AVP_CLOSED);
	if (agent->closing) { /* it stays with its reader, or in its lane */
		if (number)
			let_go(agent, ahp__parcel_at(agent->retry, number));
		else if ((uint32_t)cookie)
			ahp__body_unref(agent, (uint32_t)cookie);
		return;
	}
	/* It may be back already: its name was seen before its end was. */
	link->peer->tried_ns = 0;
	p = parcel_of(link, sequence, cookie);
	if (p) {
		/* How far it had read it told every so often only. */
		p->seen |= sequence < link->tx.consumed + FLUSH_EVERY;
		after_failure(agent->retry, p, AVP_CLOSED, counts);
	} else {
		bury_in_place(link, sequence, cookie, AVP_CLOSED);
	}
}

void ahp__receipt_id(const struct ahp_agent *agent,
		     const struct ahp_receipt *receipt, uint8_t id[16])
{
	const struct ahp__peer *peer = ahp__peer_at(agent, receipt->peer);

	if (!receipt->generation)
		ahp_id_of_sequence(id, agent->epoch, receipt->sequence);
	else if (peer && peer->link &&
		 peer->link->generation == receipt->generation)
		ahp_id_of_sequence(id, peer->link->tx.epoch, receipt->sequence);
	else
		memset(id, 0, 16);
}

int ahp__retry_status(struct ahp_agent *agent,
		      const struct ahp_receipt *receipt, int code)
{
	const struct ahp__peer *peer = ahp__peer_at(agent, receipt->peer);
	const struct parcel *p;

	if (!agent->retry || !code || code == AVP_AGAIN)
		return code;
	p = ahp__parcel_of(agent->retry, receipt);
	if (!p)
		return code;
	if (p->state == PARCEL_SENT && peer->link &&
	    peer->link->state == LINK_UP)
		ahp__acks_read(peer->link);
	return p->state == PARCEL_DONE ? p->outcome : AVP_AGAIN;
}

/* ---- turns -------------------------------------------------------------- */

/* What waits for a peer goes, in order, while there is room. */
static void flush(struct ahp__retry *r, struct ahp__peer *peer)
{
	while (peer->retry_first && peer->link &&
	       peer->link->state == LINK_UP) {
		struct parcel *p = ahp__parcel_at(r, peer->retry_first);
		int error = ahp__retry_deliver(peer->link, p);

		if (error && error != AVP_SHAPE_MISMATCH)
			break;
		ahp__parcel_dequeue(r, p);
		ahp__parcel_pull(r, p);
		p->state = PARCEL_SENT;
		if (error) /* it was posted before the peer's model was known */
			finish(r, p, error);
	}
	if (peer->link)
		peer->link->queued = peer->retry_first != 0;
}

static void look_for(struct ahp__retry *r, struct ahp__peer *peer,
		     int64_t now_ns)
{
	struct avp_reason why;

	if (peer->link) {
		r->tick_ns = TICK_NS;
		if (peer->link->state != LINK_UP)
			return;
		ahp__acks_read(peer->link);
		return flush(r, peer);
	}
	if (peer->tried_ns && now_ns - peer->tried_ns < LOOK_NS)
		return;
	peer->tried_ns = now_ns;
	ahp__link_connect(r->agent, peer, &why);
}

static void wake_due(struct ahp__retry *r, int64_t now_ns)
{
	while (r->heaped) {
		struct parcel *p = ahp__parcel_at(r, r->heap[0]);

		if (p->due_ns > now_ns)
			return;
		ahp__parcel_pull(r, p);
		if (p->state == PARCEL_QUEUED)
			ahp__parcel_dequeue(r, p);
		if (now_ns >= p->deadline_ns)
			finish(r, p, AVP_EXPIRED);
		else
			queue(r, p);
	}
}

void ahp__retry_turn(struct ahp_agent *agent, int64_t now_ns)
{
	struct ahp__retry *r = agent->retry;

	wake_due(r, now_ns);
	r->tick_ns = LOOK_NS;
	for (uint32_t i = 0; r->queued && i < agent->peers; i++)
		if (agent->peer[i]->retry_first)
			look_for(r, agent->peer[i], now_ns);
	set_timer(r, now_ns, read_answers(agent));
}

void ahp__retry_look(struct ahp_agent *agent)
{
	read_answers(agent);
}

void ahp__retry_link_up(struct ahp__link *link)
{
	if (link->agent->retry)
		flush(link->agent->retry, link->peer);
}

int ahp__retry_post(struct ahp_agent *agent, const struct ahp_outgoing *m,
		    struct ahp_receipt *receipt, struct avp_reason *why)
{
	struct ahp__peer *peer = ahp__peer_at(agent, m->peer);
	struct ahp_receipt origin = {0};
	uint32_t flags = m->flags | agent->send_flags;
	int64_t now_ns = ahp__now_ns();
	struct ahp__retry *r;
	struct parcel *p;
	int error;

	if (!peer)
		peer = ahp__peer_get(agent, m->target);
	error = ahp__retry_open(agent, why);
	if (error || !peer)
		return error ? error : AVP_NO_MEMORY;
	r = agent->retry;
	if (flags & AHP_NOTIFY && (error = ahp__events_reserve(agent, why)))
		return error;
	/* Generation 0 is no link's. */
	origin.sequence = ++r->posted;
	origin.peer = peer->number;
	p = ahp__parcel_new(r, &origin);
	if (p) {
		if (m->message_id)
			memcpy(p->id, m->message_id, sizeof(p->id));
		else
			ahp_id_of_sequence(p->id, agent->epoch, r->posted);
		error = ahp__retry_pack(agent, p, m, why);
	} else {
		error = avp__fail(why, AVP_QUEUE_FULL,
				  "%u messages wait for their readers, the "
				  "limit",
				  PARCELS_MAX);
	}
	if (error) {
		if (flags & AHP_NOTIFY)
			ahp__events_cancel(agent);
		if (p)
			ahp__parcel_done(r, p);
		return error;
	}
	p->notify = flags & AHP_NOTIFY;
	p->deadline_ns = saturated(now_ns, timeout_of(agent, m));
	p->expires_ms = m->expires_ns > 0 ? ms_after(0, m->expires_ns) : 0;
	queue(r, p);
	set_timer(r, now_ns, false);
	if (receipt)
		*receipt = origin;
	return 0;
}

void ahp__retry_give_up(struct ahp_agent *agent)
{
	struct ahp__retry *r = agent->retry;

	agent->closing = true;
	while (r && r->heaped) {
		struct parcel *p = ahp__parcel_at(r, r->heap[0]);

		ahp__parcel_pull(r, p);
		if (p->state == PARCEL_QUEUED)
			ahp__parcel_dequeue(r, p);
		finish(r, p, AVP_CLOSED);
	}
}
