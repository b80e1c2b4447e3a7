/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger's memory, for ahp/ to enter plain messages without a call. Private
 * to libavp; the rest is in ledger.c.
 */
#ifndef AVP_RING_LEDGER_INLINE_H
#define AVP_RING_LEDGER_INLINE_H

#include <avp/ring.h>

#define LEDGER_LATE 64 /* stragglers whose outcome is still known */

struct avp__ledger_entry {
	uint64_t sequence;
	uint64_t cookie;
	uint64_t state;
};

struct avp_ledger {
	uint64_t next;		     /* sequence that is added next */
	uint64_t accepted, released; /* the peer's cumulative words */
	uint64_t entries_end;	     /* from here on there are no entries */
	uint64_t mask;
	uint32_t window, live;
	uint32_t stragglers, late_count;
	bool drained;
	uint64_t first;
	avp_ledger_news *news;
	void *arg;
	struct avp__ledger_entry *straggler;	    /* [window], by sequence */
	struct avp__ledger_entry late[LEDGER_LATE]; /* finished last */
	struct avp__ledger_entry ring[];
};

/* Everything below is over, but for stragglers. */
static inline uint64_t ledger_low(const struct avp_ledger *l)
{
	return l->accepted < l->released ? l->accepted : l->released;
}

/*
 * So many plain messages may be added with ledger_add_plain(): there is room, and
 * their places in the ring are free. Acknowledgements make it more.
 */
static inline uint64_t ledger_plain_room(const struct avp_ledger *l)
{
	uint64_t window = l->window - l->live, used = l->next - ledger_low(l);
	uint64_t ring = used <= l->mask ? l->mask + 1 - used : 0;

	return window < ring ? window : ring;
}

static inline void ledger_add_plain(struct avp_ledger *l, uint32_t messages)
{
	l->next += messages;
	l->live += messages;
}

/* LIVE and FREED of an entry's state; the rest are ledger.c's. */
enum {
	LEDGER_LIVE = 0x10,  /* not yet both settled and released */
	LEDGER_FREED = 0x20, /* released */
};

/*
 * The entry of the message that ledger_add_plain() adds next, while there is
 * ledger_plain_room().
 */
static inline void ledger_put(struct avp_ledger *l, uint64_t cookie, bool lent)
{
	l->ring[l->next & l->mask] = (struct avp__ledger_entry){
		l->next, cookie,
		lent ? LEDGER_LIVE : LEDGER_LIVE | LEDGER_FREED};
	l->entries_end = l->next + 1;
}

#endif
