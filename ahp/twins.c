/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages that carry an id, at their reader: the application gave it, or they
 * come again. What was accepted is in the window (dedup.h): its like is
 * accepted and not delivered. What is worked on (AHP_EXPLICIT_ACK) is in the
 * table here, by id, with its twins, which are owed the same answer. A message
 * whose id is implied by its place never comes near this.
 *
 * An id leaves the table when its message is rejected, or when its link ends
 * first: then its twins are rejected, and one that comes again is delivered.
 */
#include <stdlib.h>
#include <string.h>

#include "ahp/agent_internal.h"
#include "ahp/dedup.h"

#define DEDUP_IDS 65536 /* the default */

struct twin {
	uint8_t id[16];
	struct ahp__link *link; /* to which the answer is owed */
	uint32_t held;		/* its entry there */
	uint32_t next;	 /* in the bucket, among the twins, or of the free */
	uint32_t twins;	 /* the first of those that came later */
	uint32_t master; /* whose twin it is; 0: it was delivered */
};

struct ahp__twins {
	struct ahp__dedup *window;
	struct twin *twin; /* [room]; 0 is not used */
	uint32_t room, free;
	uint32_t bucket[1024];
};

static struct ahp__twins *open_twins(struct ahp_agent *agent)
{
	uint32_t ids = agent->options.dedup_ids;
	struct ahp__twins *t = agent->twins;

	if (t)
		return t;
	t = calloc(1, sizeof(*t));
	if (t && ahp__dedup_new(&t->window, ids ? ids : DEDUP_IDS)) {
		free(t);
		t = NULL;
	}
	return agent->twins = t;
}

void ahp__twins_free(struct ahp_agent *agent)
{
	if (!agent->twins)
		return;
	ahp__dedup_free(agent->twins->window);
	free(agent->twins->twin);
	free(agent->twins);
	agent->twins = NULL;
}

/* Ids are random where it matters; a peer that makes them collide slows down
 * only as far as its window of outstanding messages goes. */
static uint32_t *bucket_of(struct ahp__twins *t, const uint8_t id[16])
{
	uint64_t word[2];

	memcpy(word, id, sizeof(word));
	word[0] ^= word[1] * UINT64_C(0x9e3779b97f4a7c15);
	return &t->bucket[(word[0] ^ word[0] >> 32) % 1024];
}

static uint32_t find(struct ahp__twins *t, const uint8_t id[16])
{
	uint32_t i = *bucket_of(t, id);

	while (i && memcmp(t->twin[i].id, id, 16) != 0)
		i = t->twin[i].next;
	return i;
}

static uint32_t take_free(struct ahp__twins *t)
{
	uint32_t i = t->free, room = t->room ? 2 * t->room : 64;
	struct twin *twin;

	if (!i) {
		twin = realloc(t->twin, room * sizeof(*twin));
		if (!twin)
			return 0;
		t->twin = twin;
		for (uint32_t n = t->room ? t->room : 1; n < room; n++)
			twin[n].next = n + 1 < room ? n + 1 : 0;
		i = t->room ? t->room : 1;
		t->room = room;
	}
	t->free = t->twin[i].next;
	return i;
}

static void give_back(struct ahp__twins *t, uint32_t i)
{
	t->twin[i].next = t->free;
	t->free = i;
}

/* ---- arriving ----------------------------------------------------------- */

static int poison(struct ahp__link *link, const struct ahp_message *m)
{
	struct avp_reason why;

	avp__fail(&why, AVP_POISONED, "more than %u messages held",
		  link->rx.window);
	ahp__link_poison_by(link, m->task_id, &why);
	return 0;
}

/* Not delivered: its block is given back, and what it is owed is entered. */
static void pass_over(struct ahp__link *link, struct ahp_message *m,
		      uint32_t master)
{
	struct ahp__twins *t = link->agent->twins;
	uint32_t held = 0, i = master ? take_free(t) : 0;

	link->agent->stats.duplicates++;
	free(m->head_);
	m->head_ = NULL;
	if (master && !i)
		return ahp__acks_refuse(link, m->sequence, AVP_ACK_REJECTED,
					m->in_place);
	if (m->in_place && link->held && link->held[0].next[OWED_RELEASE])
		avp_lane_ack_one(&link->tx, m->sequence, AVP_ACK_RELEASED);
	if (ahp__acks_take(link, m->sequence, master != 0, false, &held)) {
		if (i)
			give_back(t, i);
		poison(link, m);
		return;
	}
	if (!master)
		return;
	t->twin[i] = (struct twin){.link = link,
				   .held = held,
				   .master = master,
				   .next = t->twin[master].twins};
	t->twin[master].twins = i;
	link->held[held].twin = i;
}

int ahp__twins_take(struct ahp__link *link, struct ahp_message *m,
		    const struct avp_slot_view *v, bool accept)
{
	struct ahp__twins *t = open_twins(link->agent);
	uint32_t i = 0, *bucket, known;

	/* Without memory it is delivered, as often as it comes. */
	if (t && ahp__dedup_has(t->window, v->message_id)) {
		pass_over(link, m, 0);
		ahp__acks_flush(link);
		return 0;
	}
	known = t ? find(t, v->message_id) : 0;
	if (known) {
		pass_over(link, m, known);
		return 0;
	}
	if (ahp__acks_take(link, m->sequence, accept, m->in_place, &m->held_)) {
		free(m->head_);
		m->head_ = NULL;
		return poison(link, m);
	}
	if (m->held_)
		link->views++;
	if (t && !accept)
		ahp__dedup_add(t->window, v->message_id);
	if (t && accept)
		i = take_free(t);
	if (!i)
		return 1;
	bucket = bucket_of(t, v->message_id);
	t->twin[i] =
		(struct twin){.link = link, .held = m->held_, .next = *bucket};
	memcpy(t->twin[i].id, v->message_id, 16);
	*bucket = i;
	link->held[m->held_].twin = i;
	return 1;
}

/* ---- answering ---------------------------------------------------------- */

static void pay_twins(struct ahp__twins *t, uint32_t i, enum avp_ack status)
{
	uint32_t next;

	for (i = t->twin[i].twins; i; i = next) {
		struct ahp__link *link = t->twin[i].link;

		next = t->twin[i].next;
		link->held[t->twin[i].held].twin = 0;
		ahp__acks_pay(link, t->twin[i].held, OWED_ACCEPT, status);
		if (link->state == LINK_UP)
			ahp__acks_flush(link);
		give_back(t, i);
	}
}

static void drop(struct ahp__twins *t, uint32_t i)
{
	uint32_t *link = bucket_of(t, t->twin[i].id);

	while (*link != i)
		link = &t->twin[*link].next;
	*link = t->twin[i].next;
	give_back(t, i);
}

void ahp__twins_settle(struct ahp__link *link, uint32_t held,
		       enum avp_ack status, bool up)
{
	struct ahp__twins *t = link->agent->twins;
	uint32_t i = link->held[held].twin;

	link->held[held].twin = 0;
	if (!up)
		status = AVP_ACK_REJECTED;
	if (status == AVP_ACK_ACCEPTED)
		ahp__dedup_add(t->window, t->twin[i].id);
	pay_twins(t, i, status);
	drop(t, i);
}

static void leave_master(struct ahp__twins *t, uint32_t i)
{
	uint32_t *link = &t->twin[t->twin[i].master].twins;

	while (*link != i)
		link = &t->twin[*link].next;
	*link = t->twin[i].next;
	give_back(t, i);
}

void ahp__twins_end_link(struct ahp__link *link)
{
	struct ahp__twins *t = link->agent->twins;
	uint32_t at, i, next;

	if (!t || !link->held)
		return;
	/* The twins first, so that none of them is paid on this link. */
	for (at = link->held[0].next[OWED_ACCEPT]; at; at = next) {
		next = link->held[at].next[OWED_ACCEPT];
		i = link->held[at].twin;
		if (!i || !t->twin[i].master)
			continue;
		link->held[at].twin = 0;
		leave_master(t, i);
	}
	for (at = link->held[0].next[OWED_ACCEPT]; at;
	     at = link->held[at].next[OWED_ACCEPT])
		if (link->held[at].twin)
			ahp__twins_settle(link, at, AVP_ACK_REJECTED, false);
}
