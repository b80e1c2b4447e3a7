/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that an arena makes ahead of need, in steps, and what comes
 * between. */
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <avp/shm.h>

#include "tests/harness.h"

#define MIB (UINT64_C(1) << 20)

static struct avp_arena *arena;
static struct avp_reason why;

static void open_arena(uint64_t quota)
{
	const struct avp_arena_options o = {.quota_bytes = quota};

	CU_ASSERT_EQUAL_FATAL(avp_arena_open(&arena, &o, &why), 0);
}

static struct avp_arena_stats stats(void)
{
	struct avp_arena_stats s;

	avp_arena_stats(arena, &s);
	return s;
}

/* So many steps, or until there is nothing left to do; the last answer. */
static int steps(uint64_t bytes, int most)
{
	int more = 1;

	while (most-- && more > 0)
		more = avp_arena_prepare(arena, bytes, &why);
	return more;
}

static void *lent(uint64_t bytes)
{
	struct avp_block b = {0};

	CU_ASSERT_EQUAL(avp_arena_alloc(arena, bytes, 0, &b, &why), 0);
	if (b.data)
		memset(b.data, 0xa5, bytes);
	return b.data;
}

static void made_ahead(void)
{
	struct avp_segment own, seen;
	uint32_t number;

	open_arena(64 * MIB);
	CU_ASSERT_EQUAL(steps(0, 5), 0);
	CU_ASSERT_EQUAL(stats().grown, 0);
	CU_ASSERT_EQUAL(steps(15 * MIB, 100), 0);
	CU_ASSERT_EQUAL(stats().segment_bytes, 16 * MIB);
	CU_ASSERT_EQUAL(stats().grown, 1);
	/* Whole and sealed as any other: a peer takes it. */
	CU_ASSERT_EQUAL_FATAL(avp_arena_segments(arena, 0, &number, 1), 1);
	CU_ASSERT_EQUAL_FATAL(avp_arena_segment(arena, number, &own), 0);
	CU_ASSERT_EQUAL_FATAL(avp_segment_import(&seen, dup(own.fd), 16 * MIB,
						 16 * MIB, &why),
			      0);
	CU_ASSERT_PTR_NOT_NULL(lent(16 * MIB));
	CU_ASSERT_EQUAL(stats().grown, 1);
	CU_ASSERT_EQUAL(((uint8_t *)seen.base)[16 * MIB - 1], 0xa5);
	avp_segment_close(&seen);
	/* What there is counts; no more is made than is asked for. */
	CU_ASSERT_EQUAL(steps(16 * MIB, 5), 0);
	CU_ASSERT_EQUAL(steps(20 * MIB, 100), 0);
	CU_ASSERT_EQUAL(stats().segment_bytes, 20 * MIB);
	avp_arena_close(arena);
}

static void never_over_the_quota(void)
{
	open_arena(10 * MIB);
	CU_ASSERT_EQUAL(steps(1024 * MIB, 1000), 0);
	CU_ASSERT_EQUAL(stats().segment_bytes, 10 * MIB);
	avp_arena_close(arena);
	open_arena(10 * MIB + 4096);
	CU_ASSERT_EQUAL(steps(1024 * MIB, 1000), 0);
	CU_ASSERT_EQUAL(stats().segment_bytes, 10 * MIB + 4096);
	avp_arena_close(arena);
}

/* A short loan does not wait for a large segment, nor is that one forgotten. */
static void short_loan_between(void)
{
	open_arena(64 * MIB);
	CU_ASSERT_EQUAL(steps(32 * MIB, 3), 1);
	CU_ASSERT_PTR_NOT_NULL(lent(100));
	CU_ASSERT_EQUAL(stats().grown, 1);
	CU_ASSERT(stats().segment_bytes < 4 * MIB);
	CU_ASSERT_EQUAL(steps(32 * MIB, 100), 0);
	CU_ASSERT_EQUAL(stats().grown, 2);
	avp_arena_close(arena);
}

/* What is missing is less than what would be made for it. */
static void long_loan_finishes_it(void)
{
	open_arena(64 * MIB);
	CU_ASSERT_EQUAL(steps(32 * MIB, 8), 1);
	CU_ASSERT_PTR_NOT_NULL(lent(24 * MIB));
	CU_ASSERT_EQUAL(stats().grown, 1);
	CU_ASSERT_EQUAL(stats().segment_bytes, 32 * MIB);
	CU_ASSERT_EQUAL(steps(32 * MIB, 1), 0);
	avp_arena_close(arena);
}

static void loan_takes_its_place(void)
{
	open_arena(64 * MIB);
	CU_ASSERT_EQUAL(steps(32 * MIB, 3), 1);
	CU_ASSERT_PTR_NOT_NULL(lent(48 * MIB));
	CU_ASSERT_EQUAL(stats().segment_bytes, 48 * MIB);
	CU_ASSERT_EQUAL(steps(32 * MIB, 1), 0);
	avp_arena_close(arena);
}

/* Closed in the middle: the harness sees what is left of fds and mappings. */
static void closed_in_the_middle(void)
{
	open_arena(64 * MIB);
	CU_ASSERT_EQUAL(steps(32 * MIB, 3), 1);
	avp_arena_close(arena);
}

static int at_a_limit(void *arg)
{
	struct rlimit limit = {16 * MIB, 16 * MIB};

	(void)arg;
	open_arena(64 * MIB);
	if (steps(64 * MIB, 3) != 1)
		return 1;
	/* From now on another segment cannot be made, nor this one ended. */
	if (setrlimit(RLIMIT_FSIZE, &limit) || !lent(100))
		return 2;
	if (steps(64 * MIB, 1) != AVP_NO_MEMORY ||
	    !strstr(why.text, "RLIMIT_FSIZE"))
		return 3;
	if (stats().grown != 1 || steps(64 * MIB, 1) != AVP_NO_MEMORY)
		return 4;
	avp_arena_close(arena);
	return 0;
}

static void limits(void)
{
	CU_ASSERT_EQUAL(test_in_child(at_a_limit, NULL), 0);
}

static int in_child(void *arg)
{
	(void)arg;
	if (steps(32 * MIB, 1) != AVP_FORKED)
		return 1;
	avp_arena_close(arena);
	return 0;
}

static void forked(void)
{
	open_arena(64 * MIB);
	CU_ASSERT_EQUAL(steps(32 * MIB, 3), 1);
	CU_ASSERT_EQUAL(test_in_child(in_child, NULL), 0);
	CU_ASSERT_EQUAL(steps(32 * MIB, 100), 0);
	CU_ASSERT_PTR_NOT_NULL(lent(32 * MIB));
	CU_ASSERT_EQUAL(stats().grown, 1);
	avp_arena_close(arena);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(made_ahead),
		TEST(never_over_the_quota),
		TEST(short_loan_between),
		TEST(long_loan_finishes_it),
		TEST(loan_takes_its_place),
		TEST(closed_in_the_middle),
		TEST(limits),
		TEST(forked),
		{0},
	};

	return test_main("prepare", tests);
}
