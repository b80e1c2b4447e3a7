/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of `avpctl bench` share: two processes pinned to two cores that
 * run the same stage at the same time, one measuring, the other answering.
 */
#ifndef AVP_AHP_CMD_BENCH_H
#define AVP_AHP_CMD_BENCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <avp/ahp.h>

/* ---- cmd_bench_stat.c: times and their percentiles ------------------------- */

#define HIST_SUB_BITS 9 /* 512 steps per power of two: 0.2 % */
#define HIST_BUCKETS  ((64 - HIST_SUB_BITS) << HIST_SUB_BITS)

/* Counts of values, with the relative error of a bucket. */
struct bench_hist {
	uint64_t count, max;
	uint32_t bucket[HIST_BUCKETS];
};

void bench_hist_add(struct bench_hist *hist, uint64_t value);
void bench_hist_merge(struct bench_hist *to, const struct bench_hist *from);
/* The value below which `part` of all lie; 0 when there are none. */
double bench_hist_at(const struct bench_hist *hist, double part);

/* The time stamp counter, and its ticks per nanosecond, measured once. */
static inline uint64_t bench_ticks(void)
{
	return __builtin_ia32_rdtsc();
}
double bench_ticks_per_ns(void);

/* ---- the two sides ----------------------------------------------------------- */

#define BENCH_SLOTS	1024 /* as a lane's: slots, and bytes of each */
#define BENCH_SLOT	512
#define BENCH_ROTATE	(8u << 20) /* bytes over which buffers are rotated */

struct bench_line {
	_Alignas(64) _Atomic uint64_t word;
};

/* Shared by both processes; the memory of the bare baselines is behind it. */
struct bench_shared {
	struct bench_line go;	/* how often a stage was begun */
	struct bench_line done; /* how often the other side ended one */
	uint32_t stage;
	uint64_t trips;
	struct bench_line ping[2];
	struct bench_line taken; /* of the bare ring */
	_Alignas(64) uint8_t slots[2][BENCH_SLOTS * BENCH_SLOT];
};

struct bench_options {
	const char *bench;
	uint64_t size;
	double seconds;
	enum ahp_wait wait;
	bool json;
	const char *runtime_dir; /* a fresh one, for this run */
};

struct bench_side {
	const struct bench_options *options;
	struct bench_shared *shared;
	uint8_t *buffers[2]; /* [rotate_bytes] each */
	unsigned buffer_count;
	uint64_t buffer_stride;
	unsigned role; /* 0 measures, 1 answers */
	uint64_t sequence; /* of the bare stages; equal on both sides */
	uint64_t buffer_next;
	struct ahp_agent *agent;
	uint32_t peer;
	struct avp_frame_template template;
	struct ahp_loan loan; /* handover: the body that is handed over */
};

/* Runs `trips` of a stage; role 0 adds each one's ticks to the histogram. */
typedef void bench_stage(struct bench_side *me, uint64_t trips,
			 struct bench_hist *hist);

/* cmd_bench_bare.c: no library code, the same cache lines. */
bench_stage bench_two_lines, bench_slots, bench_buffers, bench_ring;

/* cmd_bench_agent.c: through the library. */
bench_stage bench_latency, bench_handover, bench_throughput;
void bench_agent_open(struct bench_side *me);
void bench_agent_close(struct bench_side *me);

/* Lines of a slot that a message of the bench's takes, and what is behind. */
unsigned bench_slot_lines(const struct bench_side *me);

/* Ends the process with a message: the pair is of no use any more. */
__attribute__((noreturn, format(printf, 1, 2))) void
bench_die(const char *format, ...);

/* ---- payloads ------------------------------------------------------------------ */

/* Every word of the payload says the same, so that reading is one sum. */
static inline void bench_fill(uint8_t *p, uint64_t bytes, uint64_t stamp)
{
	uint64_t i = 0;

	for (; i + 8 <= bytes; i += 8)
		__builtin_memcpy(p + i, &stamp, 8);
	for (; i < bytes; i++)
		p[i] = (uint8_t)stamp;
}

static inline bool bench_check(const uint8_t *p, uint64_t bytes,
			       uint64_t stamp)
{
	uint64_t sum = 0, word, i = 0;

	for (; i + 8 <= bytes; i += 8) {
		__builtin_memcpy(&word, p + i, 8);
		sum += word;
	}
	for (; i < bytes; i++)
		sum += p[i];
	return sum == bytes / 8 * stamp + bytes % 8 * (uint8_t)stamp;
}

#endif
