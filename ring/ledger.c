/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger of outstanding messages: what the sender knows, against which the
 * peer's acknowledgements are checked.
 *
 * Entries lie in a ring, by sequence. A message that is still outstanding when
 * its place is needed again (its reader works on it for minutes while thousands
 * of others pass) moves to the list of stragglers; there are at most `window` of
 * both together. In order, which is the rule, a message costs one store when it
 * is added and one look at the same line when it is acknowledged.
 */
#include <stdlib.h>

#include <avp/ring.h>

#include "ring/slot.h"

enum {
	LIVE = 0x10, /* not yet both settled and released */
	FREED = 0x20, /* released */
	GONE = 0x40, /* was outstanding when its link ended */
	STATUS = 0x0f, /* enum avp_ack once settled */
};

struct entry {
	uint64_t sequence;
	uint64_t cookie;
	uint64_t state;
};

#define LATE 64 /* stragglers whose outcome is still known */

struct avp_ledger {
	uint64_t next; /* sequence that is added next */
	uint64_t first;
	uint64_t accepted, released; /* the peer's cumulative words */
	uint64_t mask;
	uint32_t window, live;
	uint32_t stragglers;
	avp_ledger_news *news;
	void *arg;
	struct entry *straggler; /* [window], in order of sequence */
	struct entry late[LATE]; /* those that were finished last */
	uint32_t late_count;
	struct entry ring[];
};

int avp_ledger_new(struct avp_ledger **out, uint32_t window,
		   uint64_t first_sequence, avp_ledger_news *news, void *arg)
{
	struct avp_ledger *l;
	uint64_t size = 16;

	if (!window || window > LANE_MAX_SLOTS || !first_sequence ||
	    first_sequence > LANE_MAX_FIRST)
		return AVP_USAGE;
	while (size < 2ull * window)
		size *= 2;
	l = calloc(1, sizeof(*l) + size * sizeof(*l->ring));
	if (!l)
		return AVP_NO_MEMORY;
	l->straggler = calloc(window, sizeof(*l->straggler));
	if (!l->straggler) {
		free(l);
		return AVP_NO_MEMORY;
	}
	l->mask = size - 1;
	l->window = window;
	l->first = l->next = l->accepted = l->released = first_sequence;
	l->news = news;
	l->arg = arg;
	*out = l;
	return 0;
}

void avp_ledger_free(struct avp_ledger *l)
{
	if (l)
		free(l->straggler);
	free(l);
}

bool avp_ledger_has_room(const struct avp_ledger *l)
{
	return l->live < l->window;
}

uint32_t avp_ledger_outstanding(const struct avp_ledger *l)
{
	return l->live;
}

uint64_t avp_ledger_accepted(const struct avp_ledger *l)
{
	return l->accepted;
}

void avp_ledger_add(struct avp_ledger *l, uint64_t sequence, uint64_t cookie,
		    bool lent)
{
	struct entry *e = &l->ring[sequence & l->mask];

	if (e->state & LIVE)
		l->straggler[l->stragglers++] = *e;
	*e = (struct entry){sequence, cookie, lent ? LIVE : LIVE | FREED};
	l->next = sequence + 1;
	l->live++;
}

static struct entry *find(const struct avp_ledger *l, uint64_t sequence)
{
	const struct entry *e = &l->ring[sequence & l->mask];

	if (e->sequence == sequence && e->state)
		return (struct entry *)e;
	for (uint32_t i = 0; i < l->stragglers; i++)
		if (l->straggler[i].sequence == sequence)
			return &l->straggler[i];
	return NULL;
}

uint64_t *avp_ledger_cookie(struct avp_ledger *l, uint64_t sequence)
{
	struct entry *e = find(l, sequence);

	return e && e->state & LIVE && !(e->state & STATUS) ? &e->cookie : NULL;
}

static bool is_straggler(const struct avp_ledger *l, const struct entry *e)
{
	return e >= l->straggler && e < l->straggler + l->window;
}

static void finish(struct avp_ledger *l, struct entry *e)
{
	l->live--;
	e->state &= ~(uint64_t)LIVE;
	if (is_straggler(l, e)) {
		struct entry *end = l->straggler + --l->stragglers;

		l->late[l->late_count++ % LATE] = *e;
		for (; e < end; e++)
			*e = e[1];
	}
}

static void settle(struct avp_ledger *l, struct entry *e, enum avp_ack status)
{
	if (e->state & STATUS)
		return;
	e->state |= status;
	l->news(l->arg, e->sequence, e->cookie, status);
	if (e->state & FREED)
		finish(l, e);
}

static void release(struct avp_ledger *l, struct entry *e)
{
	if (e->state & FREED)
		return;
	e->state |= FREED;
	l->news(l->arg, e->sequence, e->cookie, AVP_ACK_RELEASED);
	if (e->state & STATUS)
		finish(l, e);
}

/*
 * Everything from `from` to below `upto` has happened. What is older than the
 * ring can only be a straggler, so the walk is bounded by ring and stragglers,
 * whatever a peer claims.
 */
static void sweep(struct avp_ledger *l, uint64_t from, uint64_t upto,
		  bool released)
{
	for (uint32_t i = 0; i < l->stragglers;) {
		struct entry *e = &l->straggler[i];
		uint32_t before = l->stragglers;

		if (e->sequence - from < upto - from) {
			if (released)
				release(l, e);
			else
				settle(l, e, AVP_ACK_ACCEPTED);
		}
		i += before == l->stragglers;
	}
	if (upto - from > l->mask)
		from = upto - l->mask - 1;
	for (; from != upto; from++) {
		struct entry *e = &l->ring[from & l->mask];

		if (e->sequence != from || !(e->state & LIVE))
			continue;
		if (released)
			release(l, e);
		else
			settle(l, e, AVP_ACK_ACCEPTED);
	}
}

int avp_ledger_acks(struct avp_ledger *l, uint64_t accepted, uint64_t released)
{
	int64_t accepts = (int64_t)(accepted - l->accepted);
	int64_t releases = (int64_t)(released - l->released);

	if (accepts > (int64_t)(l->next - l->accepted) ||
	    releases > (int64_t)(l->next - l->released))
		return AVP_POISONED;
	if (accepts > 0) {
		l->accepted = accepted;
		sweep(l, accepted - (uint64_t)accepts, accepted, false);
	}
	if (releases > 0) {
		l->released = released;
		sweep(l, released - (uint64_t)releases, released, true);
	}
	return 0;
}

/*
 * A low word is a distance of less than 2^31 ahead of what we know, or nothing:
 * when a straggler has held the word back for longer, the ack line tells.
 */
static uint64_t widen(uint64_t known, uint32_t low)
{
	uint32_t ahead = low - (uint32_t)known;

	return ahead < 1u << 31 ? known + ahead : known;
}

int avp_ledger_acks_low(struct avp_ledger *l, uint32_t accepted,
			uint32_t released)
{
	return avp_ledger_acks(l, widen(l->accepted, accepted),
			       widen(l->released, released));
}

int avp_ledger_ack_one(struct avp_ledger *l, uint64_t sequence_low,
		       enum avp_ack status)
{
	uint64_t back = (l->next - 1 - sequence_low) & ACK_SEQUENCE_MASK;
	uint64_t sequence = l->next - 1 - back;
	struct entry *e;

	if (back >= l->next - l->first)
		return AVP_POISONED;
	e = find(l, sequence);
	if (!e || !(e->state & LIVE))
		return 0; /* overtaken by a cumulative word */
	if (status == AVP_ACK_RELEASED)
		release(l, e);
	else
		settle(l, e, status);
	return 0;
}

int avp_ledger_status(const struct avp_ledger *l, uint64_t sequence)
{
	const struct entry *e = find(l, sequence);

	for (uint32_t i = 0; !e && i < LATE; i++)
		if (l->late[i].state && l->late[i].sequence == sequence)
			e = &l->late[i];
	return e ? (int)(e->state & STATUS) : AVP_UNKNOWN;
}

static void visit_one(struct avp_ledger *l, struct entry *e,
		      avp_ledger_visit *visit, void *arg)
{
	visit(arg, e->sequence, e->cookie, e->state & STATUS,
	      e->state & FREED);
	/* Still there to be asked for, by ahp_status() for one. */
	e->state = (e->state & ~(uint64_t)LIVE) | GONE;
	l->live--;
}

void avp_ledger_drain(struct avp_ledger *l, avp_ledger_visit *visit, void *arg)
{
	uint64_t count = l->next - l->first, at;

	for (uint32_t i = 0; i < l->stragglers; i++)
		if (l->straggler[i].state & LIVE)
			visit_one(l, &l->straggler[i], visit, arg);
	at = l->next - (count < l->mask + 1 ? count : l->mask + 1);
	for (; at != l->next; at++) {
		struct entry *e = &l->ring[at & l->mask];

		if (e->state & LIVE && e->sequence == at)
			visit_one(l, e, visit, arg);
	}
}
