/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory ahead of need: a segment that is filled in small steps, while its
 * owner has nothing else to do. Until the last of them it is neither sealed
 * nor one of the arena's; but its bytes count in the quota, and an alloc that
 * needs just such a segment finishes it, or, if the quota has no room for
 * both, drops it.
 */
#include <string.h>

#include "shm/arena_internal.h"

#define STEP_BYTES \
	AVP__HUGE_BYTES /* some 0.13 ms, and as fast as all at once */
#define CHECK_BYTES \
	(UINT64_C(64) << 20) /* to look at the limits takes 0.3 ms */

void avp__prepare_drop(struct avp_arena *a)
{
	avp_segment_close(&a->coming.memory);
	memset(&a->coming, 0, sizeof(a->coming));
}

/* How large the next segment is on the way to bytes; 0: there are enough. */
static uint64_t next_size(const struct avp_arena *a, uint64_t bytes)
{
	uint64_t left = a->quota_bytes > a->segment_bytes
				? a->quota_bytes - a->segment_bytes
				: 0;
	uint64_t want;

	if (a->segment_bytes >= bytes)
		return 0;
	want = avp__segment_round(bytes - a->segment_bytes);
	if (want > AVP__STEP_BYTES_MAX)
		want = AVP__STEP_BYTES_MAX;
	return want > left ? avp__segment_round_down(left) : want;
}

static int begin(struct avp_arena *a, uint64_t bytes, struct avp_reason *why)
{
	uint64_t size = next_size(a, bytes);
	int code;

	if (!size || a->next_number > AVP_SEGMENT_NUMBER_MAX)
		return 0;
	code = avp__segment_begin(&a->coming.memory, a->label, size, a->flags,
				  why);
	a->coming.grown = a->grown;
	return code ? code : 1;
}

/* Since the last look others, or we, may have taken what was there. */
static int check_again(struct avp_arena *a, struct avp_reason *why)
{
	struct coming *c = &a->coming;

	if (!c->filled || (c->filled % CHECK_BYTES && c->grown == a->grown))
		return 0;
	c->grown = a->grown;
	return avp__limits_check(c->memory.bytes - c->filled, why);
}

static int fill_some(struct avp_arena *a, struct avp_reason *why)
{
	struct coming *c = &a->coming;
	uint64_t step = c->memory.bytes - c->filled;
	int code = check_again(a, why);

	if (code)
		return code;
	if (step > STEP_BYTES)
		step = STEP_BYTES;
	code = avp__segment_fill(&c->memory, c->filled, step, &c->note);
	c->filled += step;
	if (code && why)
		*why = c->note;
	return code;
}

/* It is full: one of the arena's from now on. */
static int take_over(struct avp_arena *a, struct avp_reason *why)
{
	struct coming *c = &a->coming;
	int code = avp__segment_seal(&c->memory, a->flags, &c->note);

	if (code) {
		if (why)
			*why = c->note;
		return code;
	}
	code = avp__arena_adopt(a, &c->memory, &c->note, why);
	if (!code)
		memset(c, 0, sizeof(*c));
	return code;
}

static int go_on(struct avp_arena *a, struct avp_reason *why)
{
	int code = fill_some(a, why);

	if (!code && a->coming.filled == a->coming.memory.bytes)
		code = take_over(a, why);
	if (code)
		avp__prepare_drop(a);
	return code;
}

bool avp__prepare_suits(const struct avp_arena *a, uint64_t bytes)
{
	const struct coming *c = &a->coming;
	uint64_t instead = bytes > a->next_bytes ? bytes : a->next_bytes;

	return c->memory.bytes >= bytes &&
	       c->memory.bytes - c->filled <= instead;
}

int avp__prepare_finish(struct avp_arena *a, struct avp_reason *why)
{
	int code = 0;

	while (!code && a->coming.memory.base)
		code = go_on(a, why);
	return code;
}

int avp_arena_prepare(struct avp_arena *a, uint64_t bytes,
		      struct avp_reason *why)
{
	int code;

	if (avp__forked(&a->guard))
		return avp__fail(why, AVP_FORKED,
				 "the arena belongs to the parent process");
	if (!a->coming.memory.base)
		return begin(a, bytes, why);
	code = go_on(a, why);
	return code ? code : 1;
}
