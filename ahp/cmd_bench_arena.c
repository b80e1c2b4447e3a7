/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is used for the first time: a block of a new arena, every page of
 * it written, beside the fastest way that is known to get such memory from the
 * kernel (one touch for each 2 MiB, then MADV_COLLAPSE), and beside a block that
 * the arena has lent before.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ahp/cmd_bench.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

#define PAGE 4096u
#define HUGE (2u << 20)

static void touch(volatile uint8_t *p, uint64_t bytes, uint64_t step)
{
	for (uint64_t at = 0; at < bytes; at += step)
		p[at] = 1;
}

void bench_collapse(struct bench_side *me, uint64_t trips,
		    struct bench_hist *hist)
{
	uint64_t bytes = (me->size + HUGE - 1) / HUGE * HUGE;

	for (uint64_t i = 0; i < trips; i++) {
		uint64_t begin = bench_ticks();
		int fd = memfd_create("avp:bench", MFD_CLOEXEC);
		uint8_t *area, *base;

		if (fd < 0 || ftruncate(fd, (off_t)bytes))
			bench_die("memfd: %s", strerror(errno));
		area = mmap(NULL, bytes + HUGE, PROT_NONE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (area == MAP_FAILED)
			bench_die("mmap: %s", strerror(errno));
		base = area + (-(uintptr_t)area % HUGE);
		if (mmap(base, bytes, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
			bench_die("mmap: %s", strerror(errno));
		touch(base, bytes, HUGE);
		/* Without it this is the figure of small pages. */
		(void)madvise(base, bytes, MADV_COLLAPSE);
		touch(base, bytes, PAGE);
		bench_hist_add(hist, bench_ticks() - begin);
		munmap(area, bytes + HUGE);
		close(fd);
	}
}

static struct avp_arena *new_arena(const struct bench_side *me)
{
	struct avp_arena_options options = {
		.size = sizeof(options),
		.quota_bytes = 2 * me->size + (64u << 20),
	};
	struct avp_arena *arena;
	struct avp_reason why;

	if (avp_arena_open(&arena, &options, &why))
		bench_fail("arena", &why);
	return arena;
}

static void use_block(struct bench_side *me, struct avp_arena *arena)
{
	struct avp_block block;
	struct avp_reason why;

	if (avp_arena_alloc(arena, me->size, PAGE, &block, &why))
		bench_fail("arena", &why);
	touch(block.data, me->size, PAGE);
	avp_arena_release(arena, &block);
}

void bench_cold(struct bench_side *me, uint64_t trips, struct bench_hist *hist)
{
	for (uint64_t i = 0; i < trips; i++) {
		uint64_t begin = bench_ticks();
		struct avp_arena *arena = new_arena(me);

		use_block(me, arena);
		bench_hist_add(hist, bench_ticks() - begin);
		avp_arena_close(arena);
	}
}

/* The block that was lent before; its first use is not counted. */
void bench_warm(struct bench_side *me, uint64_t trips, struct bench_hist *hist)
{
	struct avp_arena *arena = new_arena(me);

	use_block(me, arena);
	for (uint64_t i = 0; i < trips; i++) {
		uint64_t begin = bench_ticks();

		use_block(me, arena);
		bench_hist_add(hist, bench_ticks() - begin);
	}
	avp_arena_close(arena);
}
