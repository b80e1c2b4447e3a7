/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a window of a million foreign ids costs: look-up and entry of a new one,
 * the oldest evicted, in ns a message; and a look-up of one that is there.
 *
 *	cc -O2 -I. -Ibuild/include tests/bench/bench_dedup.c build/libavp.a
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ahp/dedup.h"

#include "bench.h"

#define IDS    1000000u
#define BATCH  1000u
#define ROUNDS 3000u

static uint64_t state = 1;

static uint64_t next_word(void)
{
	uint64_t z = state += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static void fill(uint8_t (*id)[16])
{
	for (unsigned i = 0; i < BATCH; i++)
		for (unsigned half = 0; half < 2; half++) {
			uint64_t word = next_word();

			memcpy(id[i] + 8 * half, &word, 8);
		}
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(void)
{
	static uint8_t id[BATCH][16];
	static double ns[2][ROUNDS];
	struct ahp__dedup *d;
	unsigned wrong = 0;

	if (ahp__dedup_new(&d, IDS))
		return 1;
	for (unsigned i = 0; i < 2 * IDS / BATCH; i++) {
		fill(id);
		for (unsigned k = 0; k < BATCH; k++)
			ahp__dedup_add(d, id[k]);
	}
	for (unsigned r = 0; r < ROUNDS; r++) {
		double start;

		fill(id);
		start = now_ns();
		for (unsigned k = 0; k < BATCH; k++) {
			wrong += ahp__dedup_has(d, id[k]);
			ahp__dedup_add(d, id[k]);
		}
		ns[0][r] = (now_ns() - start) / BATCH;
		start = now_ns();
		for (unsigned k = 0; k < BATCH; k++)
			wrong += !ahp__dedup_has(d, id[k]);
		ns[1][r] = (now_ns() - start) / BATCH;
	}
	printf("window of %u ids: %.1f MB\n", IDS,
	       (double)ahp__dedup_bytes(IDS) / 1e6);
	for (unsigned i = 0; i < 2; i++) {
		qsort(ns[i], ROUNDS, sizeof(double), compare);
		printf("%s: p50 %.1f ns, p99 %.1f ns\n",
		       i ? "known id" : "new id", ns[i][ROUNDS / 2],
		       ns[i][ROUNDS / 100 * 99]);
	}
	return wrong != 0;
}
