/* SPDX-License-Identifier: Apache-2.0 */
/* The arena: blocks that never overlap, the warm window, growth and its ends,
 * giving memory back. The white-box parts walk the private state. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <avp/shm.h>

#include "shm/arena_internal.h"
#include "tests/harness.h"

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)

static struct avp_arena *open_arena(uint64_t quota, uint64_t first,
				    uint64_t warm)
{
	struct avp_arena_options o = {
		.quota_bytes = quota,
		.first_segment_bytes = first,
		.warm_bytes = warm,
		.label = "test",
	};
	struct avp_arena *arena = NULL;
	struct avp_reason why = {0};

	if (avp_arena_open(&arena, &o, &why))
		printf("  %s\n", why.text);
	CU_ASSERT_PTR_NOT_NULL_FATAL(arena);
	return arena;
}

static struct avp_block get(struct avp_arena *arena, uint64_t bytes,
			    uint64_t align)
{
	struct avp_block b = {0};
	struct avp_reason why = {0};

	if (avp_arena_alloc(arena, bytes, align, &b, &why))
		printf("  %s\n", why.text);
	CU_ASSERT_PTR_NOT_NULL_FATAL(b.data);
	return b;
}

static struct avp_arena_stats stats_of(const struct avp_arena *arena)
{
	struct avp_arena_stats s;

	avp_arena_stats(arena, &s);
	return s;
}

/* ---- the private state -------------------------------------------------- */

/* The descriptor at offset 0: any block of the segment leads down to it. */
static uint32_t lowest(const struct avp_arena *a, const struct shm_segment *s)
{
	for (uint32_t c = 1; c < a->pool.n_chunks * CHUNK; c++) {
		const struct desc *d = desc_at(&a->pool, c);

		if (d->state != DESC_UNUSED && d->segment == s && !d->off)
			return c;
	}
	return 0;
}

static bool in_bin(const struct avp_arena *a, uint32_t i)
{
	const struct desc *d = desc_at(&a->pool, i);

	for (unsigned row = 0; row < BIN_ROWS; row++)
		for (unsigned step = 0; step < BIN_STEPS; step++)
			for (uint32_t k = d->segment->bins[row][step]; k;
			     k = desc_at(&a->pool, k)->list_next)
				if (k == i)
					return d->segment->rows & 1u << row &&
					       d->segment->steps[row] &
						       1u << step;
	return false;
}

/* Blocks tile each segment, no two free ones touch, the sums add up. */
static bool consistent(const struct avp_arena *a)
{
	struct avp_arena_stats st = stats_of(a);
	uint64_t lent = 0, kept = 0, total = 0;

	for (const struct shm_segment *s = a->newest; s; s = s->older) {
		uint64_t at = 0, here = 0;
		uint32_t before = 0;

		for (uint32_t i = lowest(a, s); i;
		     i = desc_at(&a->pool, i)->above) {
			const struct desc *d = desc_at(&a->pool, i);

			if (d->off != at || !d->bytes || d->bytes % GRAIN ||
			    d->below != before || d->segment != s)
				return false;
			if (d->state == DESC_FREE &&
			    (!in_bin(a, i) ||
			     (before &&
			      desc_at(&a->pool, before)->state == DESC_FREE)))
				return false;
			here += d->state == DESC_LENT ? d->bytes : 0;
			kept += d->state == DESC_KEPT ? d->bytes : 0;
			at += d->bytes;
			before = i;
		}
		if (at != s->memory.bytes || here != s->lent_bytes)
			return false;
		lent += here;
		total += at;
	}
	return lent == st.lent_bytes && kept == st.kept_bytes &&
	       total == st.segment_bytes && kept <= a->window.bytes;
}

/* ---- plain use ---------------------------------------------------------- */

static void one_block(void)
{
	struct avp_arena *arena = open_arena(MIB, 64 * KIB, 0);
	struct avp_segment s;
	struct avp_block b;

	CU_ASSERT_EQUAL(stats_of(arena).segments, 0);
	CU_ASSERT_EQUAL(avp_arena_generation(arena), 0);
	b = get(arena, 1000, 0);
	CU_ASSERT_EQUAL(b.bytes, 1000);
	CU_ASSERT_EQUAL(b.segment, 1);
	CU_ASSERT_EQUAL((uintptr_t)b.data % 64, 0);
	CU_ASSERT_EQUAL(avp_arena_segment(arena, b.segment, &s), AVP_OK);
	CU_ASSERT_EQUAL((char *)s.base + b.off, b.data);
	CU_ASSERT(s.fd >= 0);
	CU_ASSERT_EQUAL(avp_arena_segment(arena, 2, &s), AVP_USAGE);
	CU_ASSERT_EQUAL(stats_of(arena).lent_blocks, 1);
	CU_ASSERT_EQUAL(stats_of(arena).lent_bytes, 1024);
	CU_ASSERT_EQUAL(avp_arena_generation(arena), 1);
	memset(b.data, 1, b.bytes);
	avp_arena_release(arena, &b);
	CU_ASSERT_EQUAL(stats_of(arena).lent_bytes, 0);
	CU_ASSERT(consistent(arena));
	avp_arena_close(arena);
	avp_arena_close(NULL);
}

static void alignment(void)
{
	struct avp_arena *arena = open_arena(64 * MIB, 64 * KIB, 0);
	struct avp_block b[2 * 16];
	unsigned n = 0;

	for (uint64_t align = 64; align <= 2 * MIB; align *= 2) {
		b[n] = get(arena, 100, align);
		CU_ASSERT_EQUAL((uintptr_t)b[n++].data % align, 0);
		b[n] = get(arena, align + 64, align);
		CU_ASSERT_EQUAL((uintptr_t)b[n++].data % align, 0);
	}
	CU_ASSERT(consistent(arena));
	while (n)
		avp_arena_release(arena, &b[--n]);
	CU_ASSERT(consistent(arena));
	avp_arena_close(arena);
}

/* Large blocks are at pages, in the window too. */
static void pages_are_warm(void)
{
	struct avp_arena *arena = open_arena(4 * MIB, 4 * MIB, 128 * KIB);
	struct avp_block b = get(arena, 64 * KIB, 4096);

	CU_ASSERT_EQUAL((uintptr_t)b.data % 4096, 0);
	avp_arena_release(arena, &b);
	CU_ASSERT_EQUAL(stats_of(arena).kept_bytes, 64 * KIB);
	avp_arena_close(arena);
}

static void arguments(void)
{
	struct avp_arena_options o = {.quota_bytes = 1};
	struct avp_arena *arena = open_arena(MIB, 0, 0), *none = NULL;
	struct avp_block b = {.bytes = 99};
	struct avp_reason why;

	CU_ASSERT_EQUAL(avp_arena_alloc(arena, 0, 0, &b, &why), AVP_USAGE);
	CU_ASSERT_EQUAL(avp_arena_alloc(arena, 1, 3, &b, &why), AVP_USAGE);
	CU_ASSERT_EQUAL(avp_arena_alloc(arena, 1, 4 * MIB, &b, &why),
			AVP_USAGE);
	CU_ASSERT_EQUAL(
		avp_arena_alloc(arena, AVP_SEGMENT_BYTES_MAX + 1, 0, &b, &why),
		AVP_TOO_LARGE);
	CU_ASSERT_EQUAL(avp_arena_alloc(arena, UINT64_MAX, 0, &b, &why),
			AVP_TOO_LARGE);
	CU_ASSERT_EQUAL(b.bytes, 99);
	avp_arena_close(arena);

	CU_ASSERT_EQUAL(avp_arena_open(&none, &o, &why), AVP_USAGE);
	o = (struct avp_arena_options){.quota_bytes = MIB,
				       .first_segment_bytes = 2 * MIB};
	CU_ASSERT_EQUAL(avp_arena_open(&none, &o, &why), AVP_USAGE);
	o = (struct avp_arena_options){.warm_bytes = UINT64_C(1) << 40};
	CU_ASSERT_EQUAL(avp_arena_open(&none, &o, &why), AVP_USAGE);
	o = (struct avp_arena_options){.flags = 1u << 31};
	CU_ASSERT_EQUAL(avp_arena_open(&none, &o, &why), AVP_USAGE);
	o = (struct avp_arena_options){.reserved = {1}};
	CU_ASSERT_EQUAL(avp_arena_open(&none, &o, &why), AVP_USAGE);
	CU_ASSERT_PTR_NULL(none);
}

static void defaults(void)
{
	struct avp_arena_options o = {.quota_bytes = 4 * MIB,
				      .flags = AVP_MEMORY_PREFAULT};
	struct avp_arena *arena;
	struct avp_arena_stats st;

	CU_ASSERT_EQUAL_FATAL(avp_arena_open(&arena, NULL, NULL), AVP_OK);
	st = stats_of(arena);
	CU_ASSERT(st.quota_bytes > 64 * MIB);
	CU_ASSERT(st.warm_bytes >= MIB && st.warm_bytes <= 64 * MIB);
	CU_ASSERT_EQUAL(st.segment_bytes, 0);
	CU_ASSERT_EQUAL(st.flags, 0);
	avp_arena_close(arena);
	CU_ASSERT_EQUAL_FATAL(avp_arena_open(&arena, &o, NULL), AVP_OK);
	st = stats_of(arena);
	CU_ASSERT_EQUAL(st.segment_bytes, 2 * MIB);
	CU_ASSERT_EQUAL(st.free_bytes, 2 * MIB);
	CU_ASSERT(st.warm_bytes <= 2 * MIB);
	CU_ASSERT(st.flags & AVP_SEGMENT_WRITABLE);
	CU_ASSERT_EQUAL(!(st.flags & AVP_SEGMENT_HUGE),
			st.degraded.text[0] != 0);
	avp_arena_close(arena);
}

/* ---- the warm window ---------------------------------------------------- */

/* How many blocks of bytes a loop of alloc and release goes through. */
static unsigned rotation(struct avp_arena *arena, uint64_t bytes)
{
	struct avp_block first = get(arena, bytes, 0), b;
	unsigned n = 0;

	avp_arena_release(arena, &first);
	do {
		b = get(arena, bytes, 0);
		avp_arena_release(arena, &b);
		n++;
	} while (b.data != first.data && n < 100000);
	return n;
}

static void rotates_over_the_window(void)
{
	struct avp_arena *arena = open_arena(16 * MIB, 256 * KIB, MIB);

	CU_ASSERT_EQUAL(rotation(arena, 16 * KIB), 64);
	CU_ASSERT_EQUAL(rotation(arena, 16 * KIB), 64);
	/* Another size takes the window over from it. */
	CU_ASSERT_EQUAL(rotation(arena, 128 * KIB), 8);
	CU_ASSERT_EQUAL(rotation(arena, 64), 16384);
	CU_ASSERT_EQUAL(rotation(arena, MIB), 1);
	CU_ASSERT(consistent(arena));
	/* Larger than the window: the most recent one again. */
	CU_ASSERT_EQUAL(rotation(arena, 2 * MIB), 1);
	CU_ASSERT_EQUAL(stats_of(arena).segments, stats_of(arena).grown);
	avp_arena_close(arena);
}

/* A window larger than the quota allows settles for what there is. */
static void rotates_within_the_quota(void)
{
	struct avp_arena *arena = open_arena(256 * KIB, 64 * KIB, MIB);
	uint64_t grown;

	CU_ASSERT_EQUAL(rotation(arena, 16 * KIB), 16);
	grown = stats_of(arena).grown;
	CU_ASSERT_EQUAL(rotation(arena, 16 * KIB), 16);
	CU_ASSERT_EQUAL(stats_of(arena).grown, grown);
	CU_ASSERT_EQUAL(stats_of(arena).segment_bytes, 256 * KIB);
	avp_arena_close(arena);
}

/* With many lent at a time the window counts these too: no cutting, no freeing
 * in a steady state. */
static void steady_with_many_lent(void)
{
	struct avp_arena *arena = open_arena(4 * MIB, 4 * MIB, MIB);
	struct avp_block b[40];
	uint32_t unused = 0;

	for (unsigned round = 0; round < 50; round++) {
		if (round == 40)
			unused = arena->pool.n_unused;
		for (unsigned i = 0; i < 40; i++)
			b[i] = get(arena, 16 * KIB, 0);
		if (round > 40)
			CU_ASSERT_EQUAL(arena->pool.n_unused, unused);
		for (unsigned i = 0; i < 40; i++)
			avp_arena_release(arena, &b[i]);
	}
	CU_ASSERT_EQUAL(stats_of(arena).kept_bytes, MIB);
	avp_arena_close(arena);
}

/* What the window keeps is there for a block of another size. */
static void window_gives_way(void)
{
	struct avp_arena *arena = open_arena(MIB, MIB, MIB);
	struct avp_block b;

	CU_ASSERT_EQUAL(rotation(arena, 4 * KIB), 256);
	CU_ASSERT_EQUAL(stats_of(arena).free_bytes, 0);
	b = get(arena, MIB, 0);
	CU_ASSERT_EQUAL(stats_of(arena).segments, 1);
	avp_arena_release(arena, &b);
	CU_ASSERT(consistent(arena));
	avp_arena_close(arena);
}

/* ---- growth and its ends ------------------------------------------------ */

static void doubles_up_to_the_quota(void)
{
	static const uint64_t sizes[] = {64, 128, 256, 512, 64};
	struct avp_arena *arena = open_arena(MIB, 64 * KIB, 64);
	struct avp_reason why;
	struct avp_segment s;
	struct avp_block b[16], none = {.bytes = 99};
	uint32_t numbers[8];
	unsigned n = 0;

	for (; n < 16; n++)
		b[n] = get(arena, 64 * KIB, 0);
	CU_ASSERT_EQUAL_FATAL(avp_arena_segments(arena, 0, numbers, 8), 5);
	for (unsigned i = 0; i < 5; i++) {
		CU_ASSERT_EQUAL(numbers[i], i + 1);
		avp_arena_segment(arena, numbers[i], &s);
		CU_ASSERT_EQUAL(s.bytes, sizes[i] * KIB);
	}
	CU_ASSERT_EQUAL(avp_arena_segments(arena, 3, numbers, 8), 2);
	CU_ASSERT_EQUAL(numbers[0], 4);
	CU_ASSERT_EQUAL(avp_arena_segments(arena, 1, numbers, 2), 2);
	CU_ASSERT_EQUAL(numbers[1], 3);
	CU_ASSERT_EQUAL(avp_arena_segments(arena, 5, numbers, 8), 0);
	CU_ASSERT_EQUAL(avp_arena_generation(arena), 5);

	CU_ASSERT_EQUAL(avp_arena_alloc(arena, 1, 0, &none, &why),
			AVP_NO_MEMORY);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "quota_bytes"));
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "1048576"));
	CU_ASSERT_EQUAL(none.bytes, 99);
	CU_ASSERT(consistent(arena));
	while (n)
		avp_arena_release(arena, &b[--n]);
	CU_ASSERT_EQUAL(stats_of(arena).free_bytes, MIB);
	CU_ASSERT(consistent(arena));
	avp_arena_close(arena);
}

/* Exactly the quota, at odd sizes: the class's rounding must not forbid it. */
static void whole_quota_in_one_block(void)
{
	static const uint64_t sizes[] = {4096, 1000 * KIB, 900 * KIB + 4096};

	for (unsigned i = 0; i < 3; i++) {
		struct avp_arena *arena = open_arena(sizes[i], 0, MIB);
		struct avp_block b = get(arena, sizes[i], 0);

		avp_arena_release(arena, &b);
		b = get(arena, sizes[i] - 1, 4096);
		avp_arena_release(arena, &b);
		CU_ASSERT_EQUAL(stats_of(arena).grown, 1);
		CU_ASSERT(consistent(arena));
		avp_arena_close(arena);
	}
}

static void larger_than_the_next_step(void)
{
	struct avp_arena *arena = open_arena(64 * MIB, 64 * KIB, 64);
	struct avp_block a = get(arena, 5 * MIB, 2 * MIB), b;

	CU_ASSERT_EQUAL(stats_of(arena).segment_bytes, 6 * MIB);
	b = get(arena, 6 * MIB, 2 * MIB);
	CU_ASSERT_EQUAL(stats_of(arena).segment_bytes, 12 * MIB);
	avp_arena_release(arena, &a);
	avp_arena_release(arena, &b);
	b = get(arena, 6 * MIB, 0);
	CU_ASSERT_EQUAL(stats_of(arena).grown, 2);
	avp_arena_release(arena, &b);
	avp_arena_close(arena);
}

static void numbers_run_out(void)
{
	struct avp_arena *arena = open_arena(MIB, 64 * KIB, 64);
	struct avp_block a, b;
	struct avp_reason why;

	arena->next_number = AVP_SEGMENT_NUMBER_MAX;
	a = get(arena, 64 * KIB, 0);
	CU_ASSERT_EQUAL(a.segment, AVP_SEGMENT_NUMBER_MAX);
	CU_ASSERT_EQUAL(avp_arena_alloc(arena, 64 * KIB, 0, &b, &why),
			AVP_NO_MEMORY);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "numbers"));
	avp_arena_release(arena, &a);
	avp_arena_close(arena);
}

/* ---- giving back -------------------------------------------------------- */

static void idle_segments_go_in_two_steps(void)
{
	struct avp_arena *arena = open_arena(MIB, 64 * KIB, 64 * KIB);
	struct avp_block b[7], c;
	struct avp_segment s;
	uint32_t numbers[4];

	for (unsigned i = 0; i < 7; i++)
		b[i] = get(arena, 64 * KIB, 0);
	CU_ASSERT_EQUAL(stats_of(arena).segments, 3);
	CU_ASSERT_EQUAL(avp_arena_trim(arena, 0, numbers, 4), 0);
	/* Of 64, 128 and 256 KiB the middle one stays lent. */
	for (unsigned i = 0; i < 7; i++)
		if (b[i].segment != 2)
			avp_arena_release(arena, &b[i]);
	CU_ASSERT_EQUAL(avp_arena_trim(arena, 384 * KIB, numbers, 4), 1);
	CU_ASSERT_EQUAL(numbers[0], 1);
	CU_ASSERT_EQUAL(stats_of(arena).retiring, 1);
	CU_ASSERT_EQUAL(avp_arena_segments(arena, 0, numbers, 4), 2);
	CU_ASSERT_EQUAL(avp_arena_segment_drop(arena, 3), AVP_USAGE);
	CU_ASSERT_EQUAL(avp_arena_trim(arena, 0, numbers, 4), 1);
	CU_ASSERT_EQUAL(numbers[0], 3);
	/* Nothing comes from what retires: a new one is made. */
	CU_ASSERT_EQUAL(avp_arena_segment(arena, 1, &s), AVP_OK);
	c = get(arena, 64 * KIB, 0);
	CU_ASSERT_EQUAL(c.segment, 4);
	CU_ASSERT_EQUAL(avp_arena_segment_drop(arena, 1), AVP_OK);
	CU_ASSERT_EQUAL(avp_arena_segment_drop(arena, 1), AVP_USAGE);
	CU_ASSERT_EQUAL(avp_arena_segment(arena, 1, &s), AVP_USAGE);
	CU_ASSERT_EQUAL(avp_arena_segment_drop(arena, 3), AVP_OK);
	CU_ASSERT_EQUAL(avp_arena_generation(arena), 6);
	CU_ASSERT_EQUAL(stats_of(arena).segments, 2);
	CU_ASSERT(consistent(arena));
	avp_arena_release(arena, &c);
	for (unsigned i = 0; i < 7; i++)
		if (b[i].segment == 2)
			avp_arena_release(arena, &b[i]);
	CU_ASSERT_EQUAL(avp_arena_trim(arena, 0, numbers, 4), 2);
	CU_ASSERT_EQUAL(avp_arena_segment_drop(arena, 4), AVP_OK);
	CU_ASSERT_EQUAL(avp_arena_segment_drop(arena, 2), AVP_OK);
	CU_ASSERT_EQUAL(stats_of(arena).segment_bytes, 0);
	c = get(arena, 64, 0);
	CU_ASSERT_EQUAL(c.segment, 5);
	avp_arena_close(arena);
}

/* A trim that cannot give anything back leaves the window alone. */
static void trim_without_effect(void)
{
	struct avp_arena *arena = open_arena(MIB, MIB, 64 * KIB);
	struct avp_block lent = get(arena, 64, 0), b = get(arena, 4096, 0);
	uint32_t number;

	avp_arena_release(arena, &b);
	CU_ASSERT_EQUAL(avp_arena_trim(arena, 0, &number, 1), 0);
	CU_ASSERT_EQUAL(stats_of(arena).kept_bytes, 4096);
	avp_arena_release(arena, &lent);
	CU_ASSERT_EQUAL(avp_arena_trim(arena, MIB, &number, 1), 0);
	CU_ASSERT_EQUAL(avp_arena_trim(arena, 0, &number, 0), 0);
	CU_ASSERT_EQUAL(stats_of(arena).kept_bytes, 4096 + 64);
	avp_arena_close(arena);
}

/* ---- random use --------------------------------------------------------- */

static uint64_t next(uint64_t *state)
{
	uint64_t z = *state += 0x9E3779B97F4A7C15;

	z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
	z = (z ^ z >> 27) * 0x94D049BB133111EB;
	return z ^ z >> 31;
}

#define SLOTS 300

struct slot {
	struct avp_block block;
	unsigned char mark; /* fills the block while it is lent */
};

static bool is_filled(const struct slot *s)
{
	const unsigned char *p = s->block.data;

	return p[0] == s->mark &&
	       (s->block.bytes == 1 || !memcmp(p, p + 1, s->block.bytes - 1));
}

static void trim_and_drop(struct avp_arena *arena)
{
	uint32_t numbers[4], n = avp_arena_trim(arena, 0, numbers, 4);

	for (uint32_t i = 0; i < n; i++)
		CU_ASSERT_EQUAL(avp_arena_segment_drop(arena, numbers[i]),
				AVP_OK);
}

/* Every block is filled with its mark and checked when it is released: two that
 * overlap would spoil each other. */
static void random_use(uint64_t seed, uint64_t warm)
{
	struct avp_arena *arena = open_arena(6 * MIB, 64 * KIB, warm);
	struct slot *slots = calloc(SLOTS, sizeof(*slots));
	unsigned refused = 0, spoiled = 0, misplaced = 0;

	for (unsigned step = 0; step < 20000; step++) {
		struct slot *s = &slots[next(&seed) % SLOTS];
		uint64_t bytes = 1 + (next(&seed) >> (44 + next(&seed) % 20));
		uint64_t align = next(&seed) % 4 ? 0 : 64u << next(&seed) % 8;

		if (s->block.data) {
			spoiled += !is_filled(s);
			avp_arena_release(arena, &s->block);
			s->block.data = NULL;
		} else if (avp_arena_alloc(arena, bytes, align, &s->block,
					   NULL)) {
			refused++;
		} else {
			s->mark = (unsigned char)next(&seed);
			memset(s->block.data, s->mark, s->block.bytes);
			misplaced += align && (uintptr_t)s->block.data % align;
		}
		if (step % 1000 == 0) {
			CU_ASSERT(consistent(arena));
			trim_and_drop(arena);
		}
	}
	CU_ASSERT_EQUAL(spoiled, 0);
	CU_ASSERT_EQUAL(misplaced, 0);
	CU_ASSERT(refused > 0);
	for (unsigned i = 0; i < SLOTS; i++)
		if (slots[i].block.data)
			avp_arena_release(arena, &slots[i].block);
	CU_ASSERT(consistent(arena));
	CU_ASSERT_EQUAL(stats_of(arena).lent_bytes, 0);
	for (unsigned i = 0; i < 8; i++)
		trim_and_drop(arena);
	CU_ASSERT_EQUAL(stats_of(arena).segment_bytes, 0);
	CU_ASSERT_EQUAL(arena->pool.n_unused, arena->pool.n_chunks * CHUNK - 1);
	free(slots);
	avp_arena_close(arena);
}

static void random_with_a_window(void)
{
	for (uint64_t seed = 1; seed <= 4; seed++)
		random_use(seed, 512 * KIB);
}

static void random_without(void)
{
	for (uint64_t seed = 5; seed <= 8; seed++)
		random_use(seed, 1);
}

/* ---- misuse ------------------------------------------------------------- */

static int forked_use(struct avp_arena *arena, const struct avp_block *lent)
{
	struct avp_block b;
	uint32_t number;

	if (avp_arena_alloc(arena, 64, 0, &b, NULL) != AVP_FORKED)
		return 1;
	avp_arena_release(arena, lent);
	if (avp_arena_trim(arena, 0, &number, 1) ||
	    avp_arena_segment_drop(arena, 1) != AVP_FORKED)
		return 2;
	avp_arena_close(arena);
	return 0;
}

static void forked_child(void)
{
	struct avp_arena *arena = open_arena(MIB, MIB, 0);
	struct avp_block b = get(arena, 64, 0);
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid)
		_exit(forked_use(arena, &b));
	CU_ASSERT_EQUAL(waitpid(pid, &status, 0), pid);
	CU_ASSERT_EQUAL(status, 0);
	memset(b.data, 1, 64);
	avp_arena_release(arena, &b);
	CU_ASSERT(consistent(arena));
	avp_arena_close(arena);
}

static int release_twice(struct avp_block b, struct avp_arena *arena)
{
	FILE *quiet = freopen("/dev/null", "w", stderr);

	(void)quiet;
	avp_arena_release(arena, &b);
	avp_arena_release(arena, &b);
	/* Only with NDEBUG: and then it was ignored. */
	return consistent(arena) ? 0 : 1;
}

/* Asserted, or, with NDEBUG in force, without effect. */
static void released_twice(void)
{
	struct avp_arena *arena;
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		arena = open_arena(MIB, MIB, 0);
		_exit(release_twice(get(arena, 64, 0), arena));
	}
	CU_ASSERT_EQUAL(waitpid(pid, &status, 0), pid);
	CU_ASSERT(WIFSIGNALED(status) ? WTERMSIG(status) == SIGABRT
				      : status == 0);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(one_block),
		TEST(alignment),
		TEST(pages_are_warm),
		TEST(arguments),
		TEST(defaults),
		TEST(rotates_over_the_window),
		TEST(rotates_within_the_quota),
		TEST(steady_with_many_lent),
		TEST(window_gives_way),
		TEST(doubles_up_to_the_quota),
		TEST(whole_quota_in_one_block),
		TEST(larger_than_the_next_step),
		TEST(numbers_run_out),
		TEST(idle_segments_go_in_two_steps),
		TEST(trim_without_effect),
		TEST(random_with_a_window),
		TEST(random_without),
		TEST(forked_child),
		TEST(released_twice),
		{0},
	};

	return test_main("arena", tests);
}
