/* SPDX-License-Identifier: Apache-2.0 */
/* The histogram of avpctl bench, which is no part of the library. */
#include "ahp/cmd_bench_stat.c"
#include "tests/harness.h"

static struct bench_hist hist;

static void fill(uint64_t first, uint64_t last, uint64_t step)
{
	hist = (struct bench_hist){0};
	for (uint64_t v = first; v <= last; v += step)
		bench_hist_add(&hist, v);
}

static void small_values_are_exact(void)
{
	fill(1, 1000, 1);
	CU_ASSERT_EQUAL(hist.count, 1000);
	CU_ASSERT_EQUAL(hist.max, 1000);
	CU_ASSERT_EQUAL(bench_hist_at(&hist, 0.5), 500);
	CU_ASSERT_EQUAL(bench_hist_at(&hist, 0.9), 900);
	CU_ASSERT_EQUAL(bench_hist_at(&hist, 0.999), 999);
	CU_ASSERT_EQUAL(bench_hist_at(&hist, 1), 1000);
	CU_ASSERT_EQUAL(bench_hist_at(&hist, 0), 1);
}

static void large_values_are_near(void)
{
	for (uint64_t scale = 1; scale < UINT64_C(1) << 50; scale *= 7) {
		double at, want = 700.0 * (double)scale;

		fill(scale, 1000 * scale, scale);
		at = bench_hist_at(&hist, 0.7);
		CU_ASSERT(at > want * 0.998 && at < want * 1.002);
	}
}

static void every_bucket_has_its_place(void)
{
	double before = -1;

	for (unsigned i = 0; i < HIST_BUCKETS; i++) {
		CU_ASSERT_FATAL(value_of(i) > before);
		before = value_of(i);
	}
	CU_ASSERT_EQUAL(bucket_of(0), 0);
	CU_ASSERT_EQUAL(bucket_of(1023), 1023);
	CU_ASSERT_EQUAL(bucket_of(1024), 1024);
	CU_ASSERT(bucket_of(UINT64_MAX) < HIST_BUCKETS);
}

static void none_is_zero(void)
{
	hist = (struct bench_hist){0};
	CU_ASSERT_EQUAL(bench_hist_at(&hist, 0.5), 0);
	CU_ASSERT_EQUAL(bench_hist_between(&hist, 0, 1e18), 0);
}

static void histograms_merge(void)
{
	struct bench_hist other = {0};

	fill(1, 100, 1);
	bench_hist_add(&other, 5000);
	bench_hist_merge(&other, &hist);
	CU_ASSERT_EQUAL(other.count, 101);
	CU_ASSERT_EQUAL(other.max, 5000);
	CU_ASSERT_EQUAL(bench_hist_at(&other, 0.5), 51);
	CU_ASSERT_EQUAL(bench_hist_between(&other, 1, 101), 100);
	CU_ASSERT_EQUAL(bench_hist_between(&other, 4900, 5100), 1);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(small_values_are_exact),	  TEST(large_values_are_near),
		TEST(every_bucket_has_its_place), TEST(none_is_zero),
		TEST(histograms_merge),		  {0},
	};

	return test_main("bench_stat", tests);
}
