/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl bench: what there is to be measured, and what was asked for. */
#include <stdlib.h>
#include <string.h>

#include "ahp/cmd_bench.h"
#include "gateway/cmd.h"

#define BYTES_MIN    16
#define BYTES_MAX    (3ull << 30) /* what one frame can hold, and room for it */
#define SECONDS_MAX  3600
#define RATE_MAX     1e8
#define FANOUT_LINKS 8
#define DEFAULT_SIZE 64

/* What a bench takes, and what it does without being told. */
static const struct bench_default {
	const char *name;
	uint64_t size;
	unsigned links; /* 0: it takes no --links */
	uint32_t wait;
	bool rate, any_wait;
} defaults[] = {
	{"latency", DEFAULT_SIZE, 1, AHP_WAIT_BUSY, true, true},
	{"throughput", DEFAULT_SIZE, 0, AHP_WAIT_BUSY, false, true},
	{"handover", 64u << 20, 0, AHP_WAIT_BUSY, false, true},
	{"wake", DEFAULT_SIZE, 0, AHP_WAIT_BLOCK, false, false},
	{"fanout", 16u << 10, FANOUT_LINKS, AHP_WAIT_BUSY, false, true},
	{"recovery", DEFAULT_SIZE, 0, AHP_WAIT_ADAPTIVE, false, true},
	{"arena", 1u << 30, 0, AHP_WAIT_BUSY, false, false},
};
#define BENCHES (sizeof(defaults) / sizeof(*defaults))

#define FLOOR                                                 \
	{                                                     \
		"floor", "two-line-pingpong", bench_two_lines \
	}
#define SLOTS                                            \
	{                                                \
		"baseline", "slot-exchange", bench_slots \
	}

/* In the order of defaults[]. */
static const struct bench_kind kinds[BENCHES] = {
	{"latency",
	 {FLOOR, SLOTS, {"measured", "latency", bench_latency}},
	 .open = bench_agent_open,
	 .close = bench_agent_close},
	{"throughput",
	 {FLOOR,
	  {"baseline", "bare-ring", bench_ring},
	  {"measured", "throughput", bench_throughput}},
	 .open = bench_agent_open,
	 .close = bench_agent_close,
	 .one_way = true},
	{"handover",
	 {FLOOR,
	  SLOTS,
	  {"measured", "handover", bench_handover},
	  {"short", "latency-64", bench_small}},
	 .open = bench_agent_open,
	 .close = bench_agent_close},
	{"wake",
	 {FLOOR,
	  {"baseline", "futex-pingpong", bench_futex},
	  {"measured", "wake", bench_wake}},
	 .open = bench_agent_open,
	 .close = bench_agent_close},
	{"fanout",
	 {FLOOR,
	  {"baseline", "slot-fanout", bench_fanout_bare},
	  {"measured", "fanout", bench_fanout}},
	 .open = bench_fanout_open,
	 .close = bench_fanout_close},
	{"recovery",
	 {FLOOR,
	  {"baseline", "process-start", bench_process_start},
	  {"measured", "recovery", bench_recovery}},
	 .open = bench_recovery_open,
	 .close = bench_recovery_close,
	 .alone = true},
	{"arena",
	 {FLOOR,
	  {"baseline", "memfd-collapse", bench_collapse},
	  {"measured", "arena", bench_cold},
	  {"warm", "arena-warm", bench_warm}},
	 .alone = true},
};

/* ---- options --------------------------------------------------------------------- */

static int parse_wait(const char *text, enum ahp_wait *wait)
{
	for (unsigned i = 0; i <= AHP_WAIT_BLOCK; i++)
		if (!strcmp(text, bench_wait_name((enum ahp_wait)i))) {
			*wait = (enum ahp_wait)i;
			return 0;
		}
	return cmd_failf("bench", AVP_USAGE,
			 "--wait %s: must be busy, adaptive or block", text);
}

/* Options that another bench takes are mistakes, not to be passed over. */
static int settle(struct bench_options *o, const struct bench_default *d,
		  bool wait_given)
{
	if (o->size == UINT64_MAX)
		o->size = d->size;
	if (o->links && !d->links)
		return cmd_failf("bench", AVP_USAGE,
				 "--links is for latency and fanout, not %s",
				 d->name);
	if (!o->links)
		o->links = d->links;
	if (o->rate > 0 && !d->rate)
		return cmd_failf("bench", AVP_USAGE,
				 "--rate is for latency, not %s", d->name);
	if (wait_given && !d->any_wait && o->wait != d->wait)
		return cmd_failf("bench", AVP_USAGE,
				 "--wait %s: %s is always measured as \"%s\"",
				 bench_wait_name(o->wait), d->name,
				 bench_wait_name((enum ahp_wait)d->wait));
	if (!wait_given)
		o->wait = (enum ahp_wait)d->wait;
	if (o->size < BYTES_MIN || o->size > BYTES_MAX)
		return cmd_failf(
			"bench", AVP_USAGE,
			"--size %llu: must be %d to 3G, what one frame "
			"can hold",
			(unsigned long long)o->size, BYTES_MIN);
	return 0;
}

/* The numbers that have no kind of their own. */
static int check_numbers(const struct bench_options *o, uint64_t links)
{
	if (o->seconds > SECONDS_MAX)
		return cmd_failf("bench", AVP_USAGE,
				 "--seconds %g: must be at most %d", o->seconds,
				 SECONDS_MAX);
	if (o->rate > RATE_MAX)
		return cmd_failf("bench", AVP_USAGE,
				 "--rate %g: must be at most %g", o->rate,
				 RATE_MAX);
	if (links < 1 || links > BENCH_LINKS)
		return cmd_failf("bench", AVP_USAGE,
				 "--links %llu: must be 1 to %d",
				 (unsigned long long)links, BENCH_LINKS);
	return 0;
}

static const struct bench_default *find(const char *name)
{
	for (unsigned i = 0; i < BENCHES; i++)
		if (!strcmp(name, defaults[i].name))
			return &defaults[i];
	cmd_failf("bench", AVP_USAGE,
		  "%s: must be latency, throughput, handover, wake, fanout, "
		  "recovery or arena",
		  name);
	return NULL;
}

static int parse(int argc, char **argv, struct bench_options *o)
{
	static const struct cmd_page page = {
		"bench", "BENCH", 1, 1,
		"Measures the library between two processes pinned to two "
		"cores, and in the same\n"
		"run what the bare machine does with the same cache "
		"lines.\n\n"
		"  latency     a message there and an equal one back, written "
		"and read\n"
		"  throughput  one way, acknowledged\n"
		"  handover    there and back with a body that is already "
		"written\n"
		"  wake        there and back between sides that sleep\n"
		"  fanout      one body to many readers, until all have "
		"acknowledged\n"
		"  recovery    a receiver killed and started again, until the "
		"message that it\n"
		"              held is in its hands again\n"
		"  arena       the first use of memory, every page written\n"};
	const char *wait = NULL;
	uint64_t links = UINT64_MAX;
	const struct cmd_option options[] = {
		{"size", CMD_BYTES, &o->size, "N",
		 "payload bytes, K, M, G allowed (64;\n"
		 "handover 64M, fanout 16K, arena 1G)"},
		{"seconds", CMD_NUMBER, &o->seconds, "S", "to measure (2)"},
		{"wait", CMD_TEXT, &wait, "MODE",
		 "busy (the default), adaptive or block"},
		{"links", CMD_COUNT, &links, "N",
		 "latency: of the measuring agent, all\n"
		 "but one idle (1); fanout: readers (8)"},
		{"rate", CMD_NUMBER, &o->rate, "N",
		 "latency: messages a second, at fixed\n"
		 "times and counted from when each was\n"
		 "due, instead of one after the other"},
		{"json", CMD_FLAG, &o->json, NULL,
		 "one JSON object instead of a table"},
		{0},
	};
	int status = cmd_arguments(&page, options, &argc, argv);
	const struct bench_default *d;

	if (status != CMD_GO_ON)
		return status;
	d = find(argv[1]);
	if (!d || check_numbers(o, links == UINT64_MAX ? 1 : links) ||
	    (wait && parse_wait(wait, &o->wait)))
		return CMD_USAGE;
	o->bench = d->name;
	o->links = links == UINT64_MAX ? 0 : (unsigned)links;
	return settle(o, d, wait != NULL) ? CMD_USAGE : CMD_GO_ON;
}

/* ---- the command ----------------------------------------------------------------- */

/* Latency has variants: long payloads, many links, fixed times. */
static void refine(struct bench_kind *kind, const struct bench_options *o)
{
	if (strcmp(kind->name, "latency"))
		return;
	if (o->size > BENCH_SLOT_PAYLOAD) {
		kind->part[BENCH_BASELINE].name = "fill-read-pingpong";
		kind->part[BENCH_BASELINE].run = bench_buffers;
	}
	if (o->rate > 0)
		kind->part[BENCH_MEASURED].run = bench_rate;
	if (o->links > 1) {
		kind->part[BENCH_EXTRA].key = "one_link";
		kind->part[BENCH_EXTRA].name = "latency-one-link";
		kind->part[BENCH_EXTRA].run = bench_one_link;
		kind->open = bench_links_open;
		kind->close = bench_links_close;
	}
}

static int run_bench(struct bench_options *o, const struct bench_kind *kind)
{
	struct bench_run run = {.kind = kind, .options = o};
	unsigned cores = bench_cores(run.side.core);
	struct avp_reason why;
	char dir[256];
	int status;

	if (cores < BENCH_CORES)
		return cmd_failf("bench", AVP_IO,
				 "this process may use %u core, and two are "
				 "needed, one for each side; see taskset and "
				 "the cgroup's cpuset",
				 cores);
	if (bench_dir_make(dir, sizeof(dir), &why))
		return cmd_fail("bench", &why);
	o->runtime_dir = dir;
	if (o->rate > 0)
		bench_note(&run.side, "rate", o->rate);
	bench_start(&run);
	bench_measure(&run);
	bench_stop(&run);
	bench_dir_remove();
	status = bench_report(&run);
	bench_free(&run);
	return status;
}

int cmd_bench(int argc, char **argv)
{
	struct bench_options options = {.size = UINT64_MAX,
					.seconds = 2};
	struct bench_kind kind;
	int status;

	if (argc > 1 && !strcmp(argv[1], "--reader"))
		return bench_reader(argc - 1, argv + 1);
	status = parse(argc, argv, &options);
	if (status != CMD_GO_ON)
		return status;
	kind = kinds[find(options.bench) - defaults];
	refine(&kind, &options);
	return run_bench(&options, &kind);
}
