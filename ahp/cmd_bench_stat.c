/* SPDX-License-Identifier: Apache-2.0 */
#include <time.h>

#include "ahp/cmd_bench.h"

static unsigned bucket_of(uint64_t value)
{
	unsigned shift = 0;

	if (value >> (HIST_SUB_BITS + 1))
		shift = 63 - HIST_SUB_BITS - (unsigned)__builtin_clzll(value);
	return (shift << HIST_SUB_BITS) + (unsigned)(value >> shift);
}

static double value_of(unsigned bucket)
{
	unsigned shift = bucket >> HIST_SUB_BITS;
	uint64_t low;

	if (shift)
		shift--;
	low = (uint64_t)(bucket - (shift << HIST_SUB_BITS)) << shift;
	return (double)low + (double)((1ull << shift) - 1) / 2;
}

void bench_hist_add(struct bench_hist *hist, uint64_t value)
{
	hist->bucket[bucket_of(value)]++;
	hist->count++;
	if (value > hist->max)
		hist->max = value;
}

void bench_hist_merge(struct bench_hist *to, const struct bench_hist *from)
{
	for (unsigned i = 0; i < HIST_BUCKETS; i++)
		to->bucket[i] += from->bucket[i];
	to->count += from->count;
	if (from->max > to->max)
		to->max = from->max;
}

uint64_t bench_hist_between(const struct bench_hist *hist, double low,
			    double high)
{
	uint64_t count = 0;

	for (unsigned i = 0; i < HIST_BUCKETS; i++)
		if (value_of(i) >= low && value_of(i) < high)
			count += hist->bucket[i];
	return count;
}

double bench_hist_at(const struct bench_hist *hist, double part)
{
	double rank = part * (double)hist->count;
	uint64_t below = 0;

	for (unsigned i = 0; i < HIST_BUCKETS && hist->count; i++) {
		below += hist->bucket[i];
		if ((double)below >= rank && below)
			return value_of(i);
	}
	return 0;
}

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

double bench_ticks_per_ns(void)
{
	static double rate;

	if (rate == 0) {
		double begin = now_ns(), end;
		uint64_t ticks = bench_ticks();

		do
			end = now_ns();
		while (end - begin < 20e6);
		rate = (double)(bench_ticks() - ticks) / (end - begin);
	}
	return rate;
}

void bench_fill_long(uint8_t *p, uint64_t bytes, uint64_t stamp)
{
	bench_fill_words(p, bytes, stamp);
}

uint64_t bench_sum_long(const uint8_t *p, uint64_t bytes)
{
	return bench_sum_words(p, bytes);
}
