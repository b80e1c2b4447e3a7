/* SPDX-License-Identifier: Apache-2.0 */
/* What the benchmarks of two processes share: a clock, a core for each. */
#ifndef AVP_TESTS_BENCH_H
#define AVP_TESTS_BENCH_H

#include <sched.h>
#include <time.h>

static inline double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static inline void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

#endif
