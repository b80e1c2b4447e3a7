/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A pairing heap (Fredman, Sedgewick, Sleator, Tarjan 1986): meld is one
 * compare, taking the first is log n amortised. `before` is the sibling to the
 * left, or the parent of a leftmost child.
 */
#include <stddef.h>

#include "gateway/timer.h"

static struct gw_timer *meld(struct gw_timer *a, struct gw_timer *b)
{
	struct gw_timer *t;

	if (!a || !b)
		return a ? a : b;
	if (b->at_ns < a->at_ns) {
		t = a;
		a = b;
		b = t;
	}
	b->before = a;
	b->sibling = a->child;
	if (a->child)
		a->child->before = b;
	a->child = b;
	return a;
}

/* Melds siblings by pairs, left to right, then all of them, right to left. */
static struct gw_timer *meld_all(struct gw_timer *t)
{
	struct gw_timer *pairs = NULL, *a, *b, *next;

	for (; t; t = next) {
		a = t;
		b = a->sibling;
		next = b ? b->sibling : NULL;
		a->sibling = a->before = NULL;
		if (b)
			b->sibling = b->before = NULL;
		a = meld(a, b);
		a->sibling = pairs;
		pairs = a;
	}
	for (t = NULL; pairs; pairs = next) {
		next = pairs->sibling;
		pairs->sibling = NULL;
		t = meld(t, pairs);
	}
	return t;
}

/* Takes it out, wherever it stands. */
static void take_out(struct gw_timers *timers, struct gw_timer *t)
{
	struct gw_timer *below = meld_all(t->child);

	if (timers->first == t) {
		timers->first = below;
	} else {
		if (t->before->child == t)
			t->before->child = t->sibling;
		else
			t->before->sibling = t->sibling;
		if (t->sibling)
			t->sibling->before = t->before;
		timers->first = meld(timers->first, below);
	}
	t->child = t->sibling = t->before = NULL;
	t->at_ns = 0;
}

static void put_in(struct gw_timers *timers, struct gw_timer *t)
{
	t->at_ns = t->due_ns;
	timers->first = meld(timers->first, t);
}

void gw_timer_set(struct gw_timers *timers, struct gw_timer *timer,
		  int64_t due_ns)
{
	timer->due_ns = due_ns;
	if (timer->at_ns && timer->at_ns <= due_ns)
		return; /* it is looked at again when that time has come */
	if (timer->at_ns)
		take_out(timers, timer);
	put_in(timers, timer);
}

void gw_timer_clear(struct gw_timers *timers, struct gw_timer *timer)
{
	if (timer->at_ns)
		take_out(timers, timer);
	timer->due_ns = 0;
}

void gw_timers_run(struct gw_timers *timers, int64_t now_ns)
{
	struct gw_timer *t;
	bool moved;

	while ((t = timers->first) && t->at_ns <= now_ns) {
		moved = t->due_ns > t->at_ns;
		take_out(timers, t);
		if (moved) {
			put_in(timers, t);
			continue;
		}
		t->due_ns = 0;
		t->fire(t);
	}
}

int64_t gw_timers_next(const struct gw_timers *timers)
{
	return timers->first ? timers->first->at_ns : INT64_MAX;
}
