/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include <avp/error.h>

#include "ahp/dedup.h"
#include "tests/harness.h"

static void make_id(uint8_t id[16], uint64_t n)
{
	uint64_t z = (n + 1) * UINT64_C(0x9e3779b97f4a7c15);

	memcpy(id, &n, 8);
	z ^= z >> 31;
	memcpy(id + 8, &z, 8);
}

static bool has(const struct ahp__dedup *d, uint64_t n)
{
	uint8_t id[16];

	make_id(id, n);
	return ahp__dedup_has(d, id);
}

static void add(struct ahp__dedup *d, uint64_t n)
{
	uint8_t id[16];

	make_id(id, n);
	ahp__dedup_add(d, id);
}

/* After each entry exactly the last `size` are known. */
static void first_in_first_out(void)
{
	for (uint32_t size = 16; size <= 1024; size *= 4) {
		struct ahp__dedup *d;

		CU_ASSERT_EQUAL_FATAL(ahp__dedup_new(&d, size), 0);
		CU_ASSERT_FALSE(has(d, 0));
		for (uint64_t n = 0; n < 5 * size; n++) {
			uint64_t oldest = n >= size ? n - size + 1 : 0;

			CU_ASSERT_FALSE(has(d, n));
			add(d, n);
			CU_ASSERT_TRUE(has(d, n));
			CU_ASSERT_TRUE(has(d, oldest));
			if (oldest)
				CU_ASSERT_FALSE(has(d, oldest - 1));
		}
		for (uint64_t n = 0; n < 6 * size; n++)
			if (has(d, n) != (n >= 4 * size && n < 5 * size))
				CU_FAIL("an id too many or too few");
		ahp__dedup_free(d);
	}
}

/* Ids that differ in one bit each, and the ones of all zeros and all ones. */
static void near_ids(void)
{
	struct ahp__dedup *d;
	uint8_t id[16] = {0};

	CU_ASSERT_EQUAL_FATAL(ahp__dedup_new(&d, 256), 0);
	CU_ASSERT_FALSE(ahp__dedup_has(d, id));
	ahp__dedup_add(d, id);
	for (int bit = 0; bit < 128; bit++) {
		memset(id, 0, sizeof(id));
		id[bit / 8] = (uint8_t)(1 << bit % 8);
		CU_ASSERT_FALSE(ahp__dedup_has(d, id));
		ahp__dedup_add(d, id);
		CU_ASSERT_TRUE(ahp__dedup_has(d, id));
	}
	memset(id, 0xff, sizeof(id));
	CU_ASSERT_FALSE(ahp__dedup_has(d, id));
	memset(id, 0, sizeof(id));
	CU_ASSERT_TRUE(ahp__dedup_has(d, id));
	ahp__dedup_free(d);
}

/*
 * Against a plain memory of what the last ids were, in a window whose buckets
 * overflow now and then: one in a hundred is full.
 */
static void overflowing(void)
{
	enum { SIZE = 4096 };
	struct ahp__dedup *d;
	unsigned wrong = 0;

	CU_ASSERT_EQUAL_FATAL(ahp__dedup_new(&d, SIZE), 0);
	for (uint64_t n = 0; n < 60 * SIZE; n++) {
		uint64_t back = n * UINT64_C(0x9e3779b97f4a7c15) >> 51;

		add(d, n);
		if (back <= n)
			wrong += has(d, n - back) != (back < SIZE);
	}
	CU_ASSERT_EQUAL(wrong, 0);
	for (uint64_t n = 59 * SIZE; n < 60 * SIZE; n++)
		wrong += !has(d, n);
	CU_ASSERT_EQUAL(wrong, 0);
	ahp__dedup_free(d);
}

static void bounds(void)
{
	struct ahp__dedup *d;

	CU_ASSERT_EQUAL(ahp__dedup_new(&d, AHP__DEDUP_MAX + 1), AVP_USAGE);
	CU_ASSERT(ahp__dedup_bytes(1000000) <= 40000000);
	CU_ASSERT_EQUAL_FATAL(ahp__dedup_new(&d, 17), 0);
	for (uint64_t n = 0; n < 32; n++)
		add(d, n);
	CU_ASSERT_TRUE(has(d, 0)); /* rounded up */
	ahp__dedup_free(d);
	ahp__dedup_free(NULL);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(first_in_first_out),
		TEST(near_ids),
		TEST(overflowing),
		TEST(bounds),
		{0},
	};

	return test_main("dedup", tests);
}
