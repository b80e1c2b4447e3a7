/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arena's segments as the message layer sees them: which there are, so that
 * peers are told in time, and how idle ones are given back in two steps.
 */
#include <stdlib.h>

#include "shm/arena_internal.h"

uint64_t avp_arena_generation(const struct avp_arena *arena)
{
	return arena->generation;
}

uint32_t avp_arena_segments(const struct avp_arena *arena, uint32_t after,
			    uint32_t *numbers, uint32_t max)
{
	const struct shm_segment *s;
	uint32_t count = 0, i;

	for (s = arena->newest; s && s->number > after; s = s->older)
		count += !s->retiring;
	/* The list descends: fill from the back what is within max. */
	for (s = arena->newest, i = count; i; s = s->older)
		if (!s->retiring && --i < max)
			numbers[i] = s->number;
	return count < max ? count : max;
}

static struct shm_segment *by_number(const struct avp_arena *arena,
				     uint32_t number)
{
	struct shm_segment *s = arena->newest;

	while (s && s->number != number)
		s = s->older;
	return s;
}

int avp_arena_segment(const struct avp_arena *arena, uint32_t number,
		      struct avp_segment *segment)
{
	const struct shm_segment *s = by_number(arena, number);

	if (!s)
		return AVP_USAGE;
	*segment = s->memory;
	return AVP_OK;
}

/* The oldest segment that can go while keep bytes of others stay, or NULL. */
static struct shm_segment *oldest_idle(const struct avp_arena *arena,
				       uint64_t keep)
{
	struct shm_segment *found = NULL;
	uint64_t live = 0;

	for (struct shm_segment *s = arena->newest; s; s = s->older)
		live += s->retiring ? 0 : s->memory.bytes;
	for (struct shm_segment *s = arena->newest; s; s = s->older)
		if (!s->retiring && !s->lent_bytes &&
		    live - s->memory.bytes >= keep)
			found = s;
	return found;
}

uint32_t avp_arena_trim(struct avp_arena *arena, uint64_t keep_bytes,
			uint32_t *numbers, uint32_t max)
{
	struct shm_segment *s;
	uint32_t n = 0;

	if (avp__forked(&arena->guard))
		return 0;
	while (n < max && (s = oldest_idle(arena, keep_bytes))) {
		/* Kept blocks would hold on to what is going. */
		avp__window_flush(arena);
		s->retiring = true;
		numbers[n++] = s->number;
	}
	return n;
}

int avp_arena_segment_drop(struct avp_arena *arena, uint32_t number)
{
	struct shm_segment *s = by_number(arena, number), **link;

	if (avp__forked(&arena->guard))
		return AVP_FORKED;
	if (!s || !s->retiring)
		return AVP_USAGE;
	for (link = &arena->newest; *link != s; link = &(*link)->older)
		;
	*link = s->older;
	arena->segment_bytes -= s->memory.bytes;
	arena->generation++;
	/* There is room again, perhaps, for the rotation to grow into. */
	arena->window.full_growth = false;
	avp__free_fini(&arena->pool, s);
	avp_segment_close(&s->memory);
	free(s);
	return AVP_OK;
}

void avp_arena_stats(const struct avp_arena *arena,
		     struct avp_arena_stats *stats)
{
	uint64_t retiring = 0;

	*stats = (struct avp_arena_stats){
		.quota_bytes = arena->quota_bytes,
		.warm_bytes = arena->window.bytes,
		.segment_bytes = arena->segment_bytes,
		.lent_bytes = arena->lent_bytes,
		.kept_bytes = arena->window.kept_bytes,
		.lent_blocks = arena->lent_blocks,
		.grown = arena->grown,
		.flags = arena->newest ? UINT32_MAX : 0,
		.degraded = arena->degraded,
	};
	for (const struct shm_segment *s = arena->newest; s; s = s->older) {
		stats->segments++;
		stats->retiring += s->retiring;
		stats->flags &= s->memory.flags;
		retiring += s->retiring ? s->memory.bytes : 0;
	}
	stats->free_bytes = stats->segment_bytes - retiring -
			    stats->lent_bytes - stats->kept_bytes;
}
