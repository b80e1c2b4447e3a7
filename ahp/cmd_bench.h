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
#include <sys/types.h>

#include <avp/ahp.h>

/* ---- cmd_bench_stat.c: times and their percentiles ------------------------- */

#define HIST_SUB_BITS 9 /* 512 steps per power of two: 0.2 % */
#define HIST_BUCKETS  ((65 - HIST_SUB_BITS) << HIST_SUB_BITS)

/* Counts of values, with the relative error of a bucket. */
struct bench_hist {
	uint64_t count, max;
	uint32_t bucket[HIST_BUCKETS];
};

void bench_hist_add(struct bench_hist *hist, uint64_t value);
void bench_hist_merge(struct bench_hist *to, const struct bench_hist *from);
/* How many lie at low or above, and below high. */
uint64_t bench_hist_between(const struct bench_hist *hist, double low,
			    double high);
/* The value below which `part` of all lie; 0 when there are none. */
double bench_hist_at(const struct bench_hist *hist, double part);

/* The time stamp counter, and its ticks per nanosecond, measured once. */
static inline uint64_t bench_ticks(void)
{
	return __builtin_ia32_rdtsc();
}
double bench_ticks_per_ns(void);

/* ---- cmd_bench_run.c: two processes, and the batches that they run --------------- */

#define BENCH_SLOTS	   1024 /* as a lane's: slots, and bytes of each */
#define BENCH_SLOT	   512
#define BENCH_SLOT_PAYLOAD 256	      /* payloads up to here are in slots */
#define BENCH_ROTATE	   (8u << 20) /* bytes over which buffers are rotated */
#define BENCH_LINKS	   1000 /* at most: the bare fan-out has a slot for each */
#define BENCH_CORES	   2
#define BENCH_PARTS	   4 /* floor, baseline, measured, and one more */
#define BENCH_NOTES	   16
#define BENCH_STEPS	   4
#define BENCH_SIXTEEN	   16 /* one way is kept in 1/16 tick a message */

struct bench_kind;

struct bench_line {
	_Alignas(64) _Atomic uint64_t word;
};

/* Shared by the processes; the memory of the bare baselines is behind it. */
struct bench_shared {
	_Alignas(64) _Atomic uint32_t go; /* stages begun: a futex */
	struct bench_line done; /* how often the other side ended one */
	uint32_t stage;
	uint64_t trips;
	struct bench_line ping[2];
	struct bench_line taken;	       /* of the bare ring */
	struct bench_line late_wakes;	       /* of the other side's agents */
	_Alignas(64) _Atomic uint32_t over;    /* the idle may go: a futex */
	_Alignas(64) _Atomic uint32_t bell[2]; /* of the bare sleepers */
	_Alignas(64) uint8_t slots[2][BENCH_SLOTS * BENCH_SLOT];
};

struct bench_options {
	const char *bench;
	uint64_t size;
	double seconds;
	double rate; /* messages a second, at fixed times; 0: back to back */
	enum ahp_wait wait;
	unsigned links;
	bool json;
	const char *runtime_dir; /* a fresh one, for this run */
};

/* More to be reported than times. */
struct bench_note {
	const char *key, *text; /* text, or a value */
	double value;
};

struct bench_side {
	const struct bench_kind *kind;
	const struct bench_options *options;
	struct bench_shared *shared;
	uint8_t *buffers[2]; /* [rotate_bytes] each */
	unsigned buffer_count;
	uint64_t buffer_stride;
	unsigned role; /* 0 measures, 1 answers */
	unsigned core[BENCH_CORES];
	uint64_t size;	   /* of a payload */
	uint64_t sequence; /* of the bare stages; equal on both sides */
	struct ahp_agent *agent;
	uint32_t peer;
	struct avp_frame_template template;
	struct ahp_loan loan;	   /* handover: the body that is handed over */
	struct ahp_agent **agents; /* fanout: role 1's; links: another one */
	uint32_t *peers;
	unsigned agent_count;
	struct bench_hist *step[BENCH_STEPS]; /* recovery: its steps */
	struct bench_note note[BENCH_NOTES];
	unsigned notes;
};

/* Runs `trips` of a stage; role 0 adds each one's ticks to the histogram. */
typedef void bench_stage(struct bench_side *me, uint64_t trips,
			 struct bench_hist *hist);

enum { BENCH_FLOOR, BENCH_BASELINE, BENCH_MEASURED, BENCH_EXTRA };

/* What a bench is made of. */
struct bench_kind {
	const char *name;
	struct {
		const char *key, *name; /* in the report */
		bench_stage *run;
	} part[BENCH_PARTS];
	/* Each in both processes, before and after all stages; or NULL. */
	void (*open)(struct bench_side *me);
	void (*close)(struct bench_side *me);
	bool one_way;
	bool alone; /* role 1 serves the floor only */
};

enum { PLACE_NEAR, PLACE_FAR, PLACE_SIBLINGS, PLACE_MOVED, PLACES };

struct bench_run {
	const struct bench_kind *kind;
	const struct bench_options *options;
	struct bench_side side;
	struct bench_hist *hist[PLACES][BENCH_PARTS];
	uint64_t batches[PLACES];
	uint64_t messages[PLACES];
};

/* Starts the other process, and opens both sides; this one is role 0. */
void bench_start(struct bench_run *run);
/* Runs batches for as long as the options say. */
void bench_measure(struct bench_run *run);
/* Ends the other process, closes this side, and frees all but the report. */
void bench_stop(struct bench_run *run);
void bench_free(struct bench_run *run);

/*
 * Another process that runs a function and ends; it goes with this one, and this
 * one with it if it fails. Only role 0 calls it.
 */
pid_t bench_spawn(struct bench_side *me, void (*run)(struct bench_side *me));
/* Waits for the end of a process of bench_spawn(). */
void bench_join(pid_t pid);
/* Moves this process to the core of a role. */
void bench_pin(const struct bench_side *me, unsigned role);
/* The two cores to use, of those that we may; of two physical ones if possible. */
unsigned bench_cores(unsigned core[BENCH_CORES]);

struct bench_hist *bench_hist_new(void);
void bench_note(struct bench_side *me, const char *key, double value);
void bench_note_text(struct bench_side *me, const char *key, const char *text);

/* ---- cmd_bench_report.c ---------------------------------------------------------- */

/* Prints what was measured; the exit status. */
int bench_report(const struct bench_run *run);
const char *bench_wait_name(enum ahp_wait wait);

/* ---- stages ---------------------------------------------------------------------- */

/* cmd_bench_bare.c: no library code, the same cache lines. */
bench_stage bench_two_lines, bench_slots, bench_buffers, bench_ring,
	bench_futex, bench_fanout_bare;

/* cmd_bench_agent.c: through the library. */
bench_stage bench_latency, bench_handover, bench_throughput;
void bench_agent_open(struct bench_side *me);
void bench_agent_close(struct bench_side *me);
/* An agent of that name, with the options of the run. */
struct ahp_agent *bench_agent_new(const struct bench_side *me, const char *id);
/* Links me->agent to that one, which may not have been opened yet. */
uint32_t bench_connect(struct ahp_agent *agent, const char *id);
/* Until every one of these agents has a link. */
void bench_await_links(struct ahp_agent **agent, unsigned count);
void bench_template(struct bench_side *me);
/* All of a message but its body. */
void bench_compose(struct bench_side *me, struct ahp_outgoing *m);
/* It is the bench's, with the metadata that it has to have. */
void bench_judge(struct bench_side *me, const struct ahp_message *m);
/* The payload of that stamp: a message in a slot, or out of a loan. */
void bench_send(struct bench_side *me, uint64_t stamp);
/* Its payload has that stamp; releases it. */
void bench_read(struct bench_side *me, struct ahp_message *m, uint64_t stamp);
/* All three, with the next message. */
void bench_receive(struct bench_side *me, uint64_t stamp);

#define BENCH_WAIT_NS 10000000000ll
#define BENCH_INLINE  128 /* payloads up to here are sent from private memory */

/* cmd_bench_rate.c: at fixed times; and round trips beside other stages. */
bench_stage bench_rate, bench_small, bench_wake;
/* A round trip, unless nobody slept in it. */
void bench_add_asleep(struct bench_hist *hist, uint64_t ticks);

/* cmd_bench_many.c: agents with many links. */
bench_stage bench_one_link, bench_fanout;
void bench_links_open(struct bench_side *me);
void bench_links_close(struct bench_side *me);
void bench_fanout_open(struct bench_side *me);
void bench_fanout_close(struct bench_side *me);

/* cmd_bench_recovery.c: a receiver that is killed and started again. */
bench_stage bench_process_start, bench_recovery;
void bench_recovery_open(struct bench_side *me);
void bench_recovery_close(struct bench_side *me);
/* What the started process runs: avpctl bench --reader ... */
int bench_reader(int argc, char **argv);

/* cmd_bench_arena.c: memory that is used for the first time. */
bench_stage bench_collapse, bench_cold, bench_warm;

/* cmd_bench_dir.c: the runtime directory, removed however the bench ends. */
int bench_dir_make(char *path, size_t cap, struct avp_reason *why);
void bench_dir_remove(void);

/* Ends the process with a message: the pair is of no use any more. */
__attribute__((noreturn, format(printf, 1, 2))) void bench_die(
	const char *format, ...);
__attribute__((noreturn)) void bench_fail(const char *what,
					  const struct avp_reason *why);

/* ---- payloads ------------------------------------------------------------------ */

/*
 * Every word of a payload says the same, so that reading is one sum. Long ones by
 * one function for all: two copies of the same loop, inlined here and there, were
 * seen to differ by half, which is more than what is to be compared.
 */
#define BENCH_LONG 512
void bench_fill_long(uint8_t *p, uint64_t bytes, uint64_t stamp);
uint64_t bench_sum_long(const uint8_t *p, uint64_t bytes);

static inline void bench_fill_words(uint8_t *p, uint64_t bytes, uint64_t stamp)
{
	uint64_t i = 0;

	for (; i + 8 <= bytes; i += 8)
		__builtin_memcpy(p + i, &stamp, 8);
	for (; i < bytes; i++)
		p[i] = (uint8_t)stamp;
}

static inline uint64_t bench_sum_words(const uint8_t *p, uint64_t bytes)
{
	uint64_t sum = 0, word, i = 0;

	for (; i + 8 <= bytes; i += 8) {
		__builtin_memcpy(&word, p + i, 8);
		sum += word;
	}
	for (; i < bytes; i++)
		sum += p[i];
	return sum;
}

static inline void bench_fill(uint8_t *p, uint64_t bytes, uint64_t stamp)
{
	if (bytes > BENCH_LONG)
		bench_fill_long(p, bytes, stamp);
	else
		bench_fill_words(p, bytes, stamp);
}

static inline bool bench_check(const uint8_t *p, uint64_t bytes, uint64_t stamp)
{
	uint64_t sum = bytes > BENCH_LONG ? bench_sum_long(p, bytes)
					  : bench_sum_words(p, bytes);

	return sum == bytes / 8 * stamp + bytes % 8 * (uint8_t)stamp;
}

#endif
