/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a block costs: alloc and release in a loop, by size, with the number of
 * different blocks that such a loop rotates over; and what a segment costs.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include <avp/shm.h>

#include "bench.h"

#define ROUNDS 2000000

static void must(int code, const struct avp_reason *why)
{
	if (code >= 0)
		return;
	fprintf(stderr, "bench_arena: %s: %s\n", avp_error_name(code),
		why->text);
	exit(1);
}

/* How many blocks pass before the first one comes again. */
static unsigned rotation(struct avp_arena *arena, uint64_t bytes)
{
	struct avp_reason why;
	struct avp_block first, b;
	unsigned n = 0;

	must(avp_arena_alloc(arena, bytes, 0, &first, &why), &why);
	avp_arena_release(arena, &first);
	do {
		must(avp_arena_alloc(arena, bytes, 0, &b, &why), &why);
		avp_arena_release(arena, &b);
		n++;
	} while (b.handle != first.handle && n < 10000000);
	return n;
}

static void one_size(uint64_t bytes, unsigned outstanding)
{
	struct avp_block *blocks = calloc(outstanding, sizeof(*blocks));
	struct avp_arena *arena;
	struct avp_reason why;
	unsigned rounds = ROUNDS / outstanding, distinct;
	double start = 0, end;

	must(avp_arena_open(&arena, NULL, &why), &why);
	for (unsigned pass = 0; pass < 2; pass++) {
		start = now_ns();
		for (unsigned r = 0; r < rounds; r++) {
			for (unsigned i = 0; i < outstanding; i++)
				must(avp_arena_alloc(arena, bytes, 0,
						     &blocks[i], &why),
				     &why);
			for (unsigned i = 0; i < outstanding; i++)
				avp_arena_release(arena, &blocks[i]);
		}
	}
	end = now_ns();
	distinct = rotation(arena, bytes);
	printf("{\"bench\":\"arena\",\"size\":%llu,\"outstanding\":%u,"
	       "\"unit\":\"ns\",\"alloc_release\":%.1f,\"rotation\":%u}\n",
	       (unsigned long long)bytes, outstanding,
	       (end - start) / ((double)rounds * outstanding), distinct);
	avp_arena_close(arena);
	free(blocks);
}

/* The best of a few: the first use of memory that the host of a virtual machine
 * has not given it yet takes up to forty times as long. */
static void one_segment(uint64_t bytes, uint32_t flags)
{
	struct avp_segment_options o = {.flags = flags};
	double best = 1e18;
	bool huge = false;

	for (unsigned i = 0; i < 4; i++) {
		struct avp_segment s;
		struct avp_reason why;
		double start = now_ns(), took;

		must(avp_segment_create(&s, "bench", bytes, &o, &why), &why);
		took = now_ns() - start;
		if (took < best)
			best = took;
		huge = s.flags & AVP_SEGMENT_HUGE;
		avp_segment_close(&s);
	}
	printf("{\"bench\":\"segment\",\"size\":%llu,\"huge\":%s,"
	       "\"unit\":\"ms\",\"create\":%.3f}\n",
	       (unsigned long long)bytes, huge ? "true" : "false", best / 1e6);
}

/* The first block of an arena, every page written: what its user waits for, when
 * the memory was made ahead and when it was not; and what the steps took. */
static void first_use(uint64_t bytes, bool ahead)
{
	const struct avp_arena_options o = {.quota_bytes = 2 * bytes};
	double took[3] = {1e18, 0, 1e18}; /* use, longest step, all steps */

	for (unsigned i = 0; i < 4; i++) {
		struct avp_arena *arena;
		struct avp_reason why;
		struct avp_block b;
		double start = now_ns(), step = start, end, longest = 0;

		must(avp_arena_open(&arena, &o, &why), &why);
		while (ahead && avp_arena_prepare(arena, bytes, &why) > 0) {
			end = now_ns();
			longest = end - step > longest ? end - step : longest;
			step = end;
		}
		end = now_ns();
		if (end - start < took[2]) {
			took[1] = longest;
			took[2] = end - start;
		}
		must(avp_arena_alloc(arena, bytes, 4096, &b, &why), &why);
		for (uint64_t at = 0; at < bytes; at += 4096)
			((volatile char *)b.data)[at] = 1;
		if (now_ns() - end < took[0])
			took[0] = now_ns() - end;
		avp_arena_close(arena);
	}
	printf("{\"bench\":\"first_use\",\"size\":%llu,\"ahead\":%s,"
	       "\"unit\":\"ms\",\"use\":%.3f,\"steps\":%.3f,"
	       "\"longest_step\":%.3f}\n",
	       (unsigned long long)bytes, ahead ? "true" : "false",
	       took[0] / 1e6, took[2] / 1e6, took[1] / 1e6);
}

int main(void)
{
	static const uint64_t sizes[] = {64,	  1024,	    16 << 10,
					 1 << 20, 16 << 20, 0};

	for (unsigned i = 0; sizes[i]; i++)
		one_size(sizes[i], 1);
	one_size(16 << 10, 64);
	one_segment(256 << 10, 0);
	one_segment(2 << 20, 0);
	one_segment(64 << 20, 0);
	one_segment(1 << 30, 0);
	one_segment(1 << 30, AVP_MEMORY_SMALL_PAGES);
	first_use(1 << 30, false);
	first_use(1 << 30, true);
	return 0;
}
