/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The warm window: what came back lately, by age.
 *
 * A block that a peer has just read lies in the peer's cache, and to write it
 * means to fetch its lines back; a block that has not been used for long is in
 * no cache. In between, after about a quarter of the L3's worth of other
 * traffic, lines are in the L3 and nobody's: 16 KiB written and read take 3.0
 * instead of 4.8 us (MEASURED). So a block is used again when `bytes` of others
 * have come back after it or are lent, and until then another one is cut from
 * free memory. What has more than `bytes` of younger ones above it is freed:
 * a class that is no longer asked for drains away.
 *
 * All kept blocks are in one list by age, and in one queue for each class. The
 * oldest of all is always the oldest of its class, so a queue needs only one
 * direction.
 */
#include "shm/arena_internal.h"

static const struct desc *oldest_of(const struct avp_arena *arena,
				    uint16_t class)
{
	uint32_t i = arena->window.classes[class].oldest;

	return i ? desc_at(&arena->pool, i) : NULL;
}

uint64_t avp__class_align(uint64_t size)
{
	return size >= PAGED_BYTES ? PAGE_BYTES : GRAIN;
}

/* Eight steps to a power of two, as the bins have sixteen. */
uint16_t avp__class_of(const struct window *window, uint64_t bytes,
		       uint64_t align, uint64_t *size)
{
	uint64_t grains = (bytes + GRAIN - 1) / GRAIN;
	uint32_t log, class;

	if (grains <= 8) {
		class = (uint32_t)grains - 1;
	} else {
		/* The class below holds grains - 1: round up in grains - 1. */
		log = 63 - (uint32_t)__builtin_clzll(grains - 1);
		class = (log - 3) * 8 +
			((uint32_t)((grains - 1) >> (log - 3)) & 7) + 8;
		grains = (((grains - 1) >> (log - 3)) + 1) << (log - 3);
	}
	*size = grains * GRAIN;
	if (*size > window->bytes || class >= CLASSES ||
	    align > avp__class_align(*size))
		return CLASS_NONE;
	return (uint16_t) class;
}

bool avp__window_ripe(const struct avp_arena *arena, uint16_t class)
{
	const struct desc *d = oldest_of(arena, class);
	const struct window *w = &arena->window;

	return d && w->clock - d->kept_at + w->lent_bytes >= w->bytes;
}

static void unlink_kept(struct avp_arena *arena, struct desc *d)
{
	struct window *w = &arena->window;
	struct class_queue *q = &w->classes[d->class];

	q->oldest = d->class_next;
	if (!q->oldest)
		q->youngest = 0;
	if (d->list_prev)
		desc_at(&arena->pool, d->list_prev)->list_next = d->list_next;
	else
		w->oldest = d->list_next;
	if (d->list_next)
		desc_at(&arena->pool, d->list_next)->list_prev = d->list_prev;
	else
		w->youngest = d->list_prev;
	w->kept_bytes -= d->bytes;
}

uint32_t avp__window_take(struct avp_arena *arena, uint16_t class)
{
	uint32_t i = arena->window.classes[class].oldest;

	if (i) {
		struct desc *d = desc_at(&arena->pool, i);

		unlink_kept(arena, d);
		d->state = DESC_LENT;
	}
	return i;
}

static void free_oldest(struct avp_arena *arena)
{
	uint32_t i = arena->window.oldest;

	unlink_kept(arena, desc_at(&arena->pool, i));
	avp__free_put(&arena->pool, i);
}

void avp__window_keep(struct avp_arena *arena, uint32_t i)
{
	struct window *w = &arena->window;
	struct desc *d = desc_at(&arena->pool, i);
	struct class_queue *q = &w->classes[d->class];

	d->state = DESC_KEPT;
	d->kept_at = w->clock;
	w->clock += d->bytes;
	w->kept_bytes += d->bytes;
	d->class_next = 0;
	if (q->youngest)
		desc_at(&arena->pool, q->youngest)->class_next = i;
	else
		q->oldest = i;
	q->youngest = i;
	d->list_next = 0;
	d->list_prev = w->youngest;
	if (w->youngest)
		desc_at(&arena->pool, w->youngest)->list_next = i;
	else
		w->oldest = i;
	w->youngest = i;
	while (w->kept_bytes > w->bytes)
		free_oldest(arena);
}

void avp__window_flush(struct avp_arena *arena)
{
	while (arena->window.oldest)
		free_oldest(arena);
}
