/* SPDX-License-Identifier: Apache-2.0 */
/*
 * avpctl bench: two processes on two cores. Batches of the floor (a bare exchange
 * of two lines, which also tells how near the cores are), of the baseline and of
 * the measurement alternate, so that all three see the same machine; only batches
 * of the most frequent placement count.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ahp/cmd_bench.h"
#include "gateway/cmd.h"
#include "shm/reason.h"

enum { PLACE_NEAR, PLACE_FAR, PLACE_SIBLINGS, PLACE_MOVED, PLACES };
static const char *const place_names[PLACES] = { "near", "far", "siblings",
						 "moved" };
enum { FLOOR, BASELINE, MEASURED, PARTS };

#define STAGE_QUIT   99
#define PROBE_TRIPS  400
#define BATCH_NS     2e6 /* what a batch of each part should take */
#define SIBLINGS_NS  85	 /* below: two threads of one core */
#define NEAR_NS	     260 /* below: one cache between them */
#define WARM_BATCHES 3
#define SIXTEENTHS   16 /* throughput is kept in 1/16 tick a message */

struct bench_kind {
	const char *name, *baseline_name;
	bench_stage *baseline, *measured;
	bool one_way;
};

struct run {
	const struct bench_kind *kind;
	const struct bench_options *options;
	struct bench_side side;
	struct bench_hist *hist[PLACES][PARTS];
	uint64_t batches[PLACES];
	double seconds[PLACES]; /* spent in the measured stage */
	uint64_t messages[PLACES];
	pid_t child;
};

void bench_die(const char *format, ...)
{
	va_list args;

	fputs("avpctl: bench: IO: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	_exit(CMD_SYSTEM);
}

static bench_stage *stage_of(const struct bench_kind *kind, unsigned part)
{
	return part == FLOOR	? bench_two_lines :
	       part == BASELINE ? kind->baseline :
				  kind->measured;
}

/* ---- the two processes -------------------------------------------------------- */

static void pin(unsigned role)
{
	cpu_set_t allowed, set;
	unsigned seen = 0;

	CPU_ZERO(&set);
	if (sched_getaffinity(0, sizeof(allowed), &allowed))
		bench_die("sched_getaffinity: %s", strerror(errno));
	for (unsigned i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET(i, &allowed) && seen++ == role) {
			CPU_SET(i, &set);
			break;
		}
	if (!CPU_COUNT(&set) || sched_setaffinity(0, sizeof(set), &set))
		bench_die("two cores are needed, one for each process");
}

static void answer(struct run *run)
{
	struct bench_shared *shared = run->side.shared;
	struct bench_hist *none = NULL;

	for (uint64_t n = 1;; n++) {
		/* acquire: pairs with begin_stage(); covers stage and trips */
		while (atomic_load_explicit(&shared->go.word,
					    memory_order_acquire) != n)
			__builtin_ia32_pause();
		if (shared->stage == STAGE_QUIT)
			break;
		stage_of(run->kind, shared->stage)(&run->side, shared->trips,
						   none);
		/* release: this side has ended the stage */
		atomic_store_explicit(&shared->done.word, n,
				      memory_order_release);
	}
	bench_agent_close(&run->side);
	_exit(0);
}

static uint64_t begin_stage(struct run *run, unsigned stage, uint64_t trips)
{
	struct bench_shared *shared = run->side.shared;
	/* relaxed: only this process writes it */
	uint64_t n = atomic_load_explicit(&shared->go.word,
					  memory_order_relaxed) +
		     1;

	shared->stage = stage;
	shared->trips = trips;
	/* release: pairs with the acquire in answer() */
	atomic_store_explicit(&shared->go.word, n, memory_order_release);
	return n;
}

static uint64_t run_stage(struct run *run, unsigned stage, uint64_t trips,
			  struct bench_hist *hist)
{
	struct bench_shared *shared = run->side.shared;
	uint64_t n = begin_stage(run, stage, trips), ticks = bench_ticks();

	stage_of(run->kind, stage)(&run->side, trips, hist);
	ticks = bench_ticks() - ticks;
	/* acquire: pairs with the release in answer() */
	while (atomic_load_explicit(&shared->done.word, memory_order_acquire) !=
	       n)
		__builtin_ia32_pause();
	return ticks;
}

static void child_died(int signal_number)
{
	static const char text[] = "avpctl: bench: IO: the other process died\n";
	int status;

	(void)signal_number;
	if (waitpid(-1, &status, WNOHANG) <= 0 ||
	    (WIFEXITED(status) && !WEXITSTATUS(status)))
		return;
	if (write(2, text, sizeof(text) - 1) < 0)
		_exit(CMD_SYSTEM);
	_exit(CMD_SYSTEM);
}

static void *map_shared(uint64_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED)
		bench_die("mmap of %llu bytes: %s", (unsigned long long)bytes,
			  strerror(errno));
	return p;
}

/* Bare buffers as the arena rotates them: over a quarter of the L3. */
static void map_buffers(struct bench_side *side)
{
	uint64_t size = side->options->size;

	side->buffer_stride = (size + 63) & ~63ull;
	side->buffer_count = (unsigned)(BENCH_ROTATE / side->buffer_stride);
	if (!side->buffer_count)
		side->buffer_count = 1;
	for (unsigned i = 0; i < 2; i++)
		side->buffers[i] =
			map_shared(side->buffer_count * side->buffer_stride);
}

static void start(struct run *run)
{
	signal(SIGCHLD, child_died);
	run->side.options = run->options;
	run->side.shared = map_shared(sizeof(struct bench_shared));
	if (run->kind->baseline == bench_buffers)
		map_buffers(&run->side);
	run->child = fork();
	if (run->child < 0)
		bench_die("fork: %s", strerror(errno));
	if (!run->child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		signal(SIGCHLD, SIG_DFL);
		run->side.role = 1;
	}
	pin(run->side.role);
	bench_agent_open(&run->side);
	if (!run->child)
		answer(run);
}

static void stop(struct run *run)
{
	signal(SIGCHLD, SIG_DFL);
	begin_stage(run, STAGE_QUIT, 0);
	while (waitpid(run->child, NULL, 0) < 0 && errno == EINTR)
		continue;
	bench_agent_close(&run->side);
}

/* ---- batches -------------------------------------------------------------------- */

static unsigned place_of(const struct bench_hist *floor)
{
	double ns = bench_hist_at(floor, 0.5) / bench_ticks_per_ns();

	return ns < SIBLINGS_NS ? PLACE_SIBLINGS :
	       ns < NEAR_NS	? PLACE_NEAR :
				  PLACE_FAR;
}

static struct bench_hist *new_hist(void)
{
	struct bench_hist *hist = calloc(1, sizeof(*hist));

	if (!hist)
		bench_die("no memory");
	return hist;
}

struct batch {
	struct bench_hist *part[PARTS], *after;
	uint64_t trips[PARTS];
};

static void run_batch(struct run *run, struct batch *b, bool counts)
{
	unsigned place;
	uint64_t ticks;

	for (unsigned i = 0; i < PARTS; i++)
		memset(b->part[i], 0, sizeof(*b->part[i]));
	memset(b->after, 0, sizeof(*b->after));
	run_stage(run, FLOOR, PROBE_TRIPS, b->part[FLOOR]);
	run_stage(run, BASELINE, b->trips[BASELINE], b->part[BASELINE]);
	ticks = run_stage(run, MEASURED, b->trips[MEASURED], b->part[MEASURED]);
	run_stage(run, FLOOR, PROBE_TRIPS, b->after);
	if (!counts)
		return;
	place = place_of(b->part[FLOOR]);
	if (place != place_of(b->after))
		place = PLACE_MOVED;
	for (unsigned i = 0; i < PARTS; i++)
		bench_hist_merge(run->hist[place][i], b->part[i]);
	bench_hist_merge(run->hist[place][FLOOR], b->after);
	run->batches[place]++;
	run->messages[place] += b->trips[MEASURED];
	run->seconds[place] += (double)ticks / bench_ticks_per_ns() * 1e-9;
}

/* As many trips as take the time of a batch, by the last one's median. */
static uint64_t adapt(const struct run *run, const struct bench_hist *hist,
		      uint64_t trips)
{
	double ns = bench_hist_at(hist, 0.5) / bench_ticks_per_ns(), want;

	if (run->kind->one_way)
		ns /= SIXTEENTHS;
	want = ns > 0 ? BATCH_NS / ns : (double)trips;
	if (run->kind->one_way)
		want *= 4; /* so that filling and draining do not show */
	return want < 4 ? 4 : want > 100000 ? 100000 : (uint64_t)want;
}

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void measure(struct run *run)
{
	struct batch b = { .trips = { PROBE_TRIPS, 16, 16 } };
	double end;

	for (unsigned i = 0; i < PARTS; i++)
		b.part[i] = new_hist();
	b.after = new_hist();
	for (unsigned p = 0; p < PLACES; p++)
		for (unsigned i = 0; i < PARTS; i++)
			run->hist[p][i] = new_hist();
	for (unsigned i = 0; i < WARM_BATCHES; i++) {
		run_batch(run, &b, false);
		for (unsigned part = BASELINE; part < PARTS; part++)
			b.trips[part] = adapt(run, b.part[part],
					      b.trips[part]);
	}
	end = now_s() + run->options->seconds;
	do
		run_batch(run, &b, true);
	while (now_s() < end);
	for (unsigned i = 0; i < PARTS; i++)
		free(b.part[i]);
	free(b.after);
}

/* ---- the report ------------------------------------------------------------------ */

static unsigned most_frequent(const struct run *run)
{
	unsigned best = 0;

	for (unsigned p = 1; p < PLACES; p++)
		if (run->batches[p] > run->batches[best])
			best = p;
	return best;
}

static double scaled(const struct run *run, const struct bench_hist *hist,
		     unsigned part, double at)
{
	double ticks = at < 0 ? (double)hist->max : bench_hist_at(hist, at);

	if (run->kind->one_way && part != FLOOR)
		ticks /= SIXTEENTHS;
	return ticks / bench_ticks_per_ns();
}

static const struct {
	const char *name;
	double at;
} percentiles[] = {
	{ "p50", 0.5 },	  { "p90", 0.9 }, { "p99", 0.99 },
	{ "p999", 0.999 }, { "max", -1 },
};

/* One decimal: the counter does not tell more. */
static double round1(double value)
{
	return (double)(int64_t)(value * 10 + 0.5) / 10;
}

static double ratio3(double value)
{
	return (double)(int64_t)(value * 1000 + 0.5) / 1000;
}

static void put_number(struct avp_json_writer *w, const char *key, double v)
{
	avp_json_key(w, key);
	avp_json_put_double(w, v);
}

static void put_part(struct avp_json_writer *w, const struct run *run,
		     unsigned place, unsigned part, const char *key,
		     const char *name)
{
	avp_json_key(w, key);
	avp_json_open_object(w);
	avp_json_member_string(w, "name", avp_str_of(name));
	avp_json_member_string(w, "unit", avp_str_of("ns"));
	put_number(w, "p50",
		   round1(scaled(run, run->hist[place][part], part, 0.5)));
	avp_json_close_object(w);
}

static const char *wait_name(enum ahp_wait wait)
{
	return wait == AHP_WAIT_BUSY	 ? "busy" :
	       wait == AHP_WAIT_ADAPTIVE ? "adaptive" :
					   "block";
}

static void put_report(struct avp_json_writer *w, const struct run *run)
{
	unsigned place = most_frequent(run);
	struct bench_hist *const *hist = run->hist[place];
	double p50 = scaled(run, hist[MEASURED], MEASURED, 0.5);
	double rate = p50 > 0 ? 1e9 / p50 : 0;

	avp_json_open_object(w);
	avp_json_member_string(w, "bench", avp_str_of(run->kind->name));
	avp_json_member_uint(w, "size", run->options->size);
	avp_json_member_string(w, "wait",
			       avp_str_of(wait_name(run->options->wait)));
	avp_json_member_string(w, "unit", avp_str_of("ns"));
	for (size_t i = 0; i < sizeof(percentiles) / sizeof(*percentiles); i++)
		put_number(w, percentiles[i].name,
			   round1(scaled(run, hist[MEASURED], MEASURED,
					 percentiles[i].at)));
	avp_json_member_uint(w, "count",
			     run->kind->one_way ? run->messages[place] :
						  hist[MEASURED]->count);
	avp_json_member_string(w, "placement", avp_str_of(place_names[place]));
	put_part(w, run, place, BASELINE, "baseline", run->kind->baseline_name);
	put_number(w, "ratio",
		   ratio3(p50 / scaled(run, hist[BASELINE], BASELINE, 0.5)));
	put_part(w, run, place, FLOOR, "floor", "two-line-pingpong");
	put_number(w, "floor_ratio",
		   ratio3(p50 / scaled(run, hist[FLOOR], FLOOR, 0.5)));
	if (run->kind->one_way) {
		put_number(w, "messages_per_second", round1(rate));
		put_number(w, "bytes_per_second",
			   round1(rate * (double)run->options->size));
	}
	avp_json_close_object(w);
}

static void print_table(const struct run *run)
{
	unsigned place = most_frequent(run);
	struct bench_hist *const *hist = run->hist[place];
	double p50 = scaled(run, hist[MEASURED], MEASURED, 0.5);

	printf("%s, %llu bytes, %s, placement %s (%llu of %llu batches)\n",
	       run->kind->name, (unsigned long long)run->options->size,
	       wait_name(run->options->wait), place_names[place],
	       (unsigned long long)run->batches[place],
	       (unsigned long long)(run->batches[0] + run->batches[1] +
				    run->batches[2] + run->batches[3]));
	for (size_t i = 0; i < sizeof(percentiles) / sizeof(*percentiles); i++)
		printf("  %-5s %12.1f ns\n", percentiles[i].name,
		       scaled(run, hist[MEASURED], MEASURED,
			      percentiles[i].at));
	printf("  %-24s %10.1f ns   ratio %.3f\n", run->kind->baseline_name,
	       scaled(run, hist[BASELINE], BASELINE, 0.5),
	       p50 / scaled(run, hist[BASELINE], BASELINE, 0.5));
	printf("  %-24s %10.1f ns   ratio %.3f\n", "two-line-pingpong",
	       scaled(run, hist[FLOOR], FLOOR, 0.5),
	       p50 / scaled(run, hist[FLOOR], FLOOR, 0.5));
	if (run->kind->one_way)
		printf("  %.2f M messages/s, %.2f GB/s\n", 1e3 / p50,
		       (double)run->options->size / p50);
}

static int report(const struct run *run)
{
	struct avp_json_writer w;
	struct avp_buf buf = { 0 };
	struct avp_reason why;
	int error;

	if (!run->options->json) {
		print_table(run);
		return CMD_DONE;
	}
	avp_json_begin(&w, &buf, AVP_JSON_PYTHON);
	put_report(&w, run);
	error = avp_json_finish(&w);
	if (!error)
		error = avp_buf_append(&buf, "\n", 1);
	if (error)
		return cmd_failf("bench", error, "cannot write the report");
	error = cmd_print(&buf, &why);
	avp_buf_fini(&buf);
	return error ? cmd_fail("bench", &why) : CMD_DONE;
}

/* ---- the command ----------------------------------------------------------------- */

static int parse_wait(const char *text, enum ahp_wait *wait)
{
	for (unsigned i = 0; i <= AHP_WAIT_BLOCK; i++)
		if (!strcmp(text, wait_name((enum ahp_wait)i))) {
			*wait = (enum ahp_wait)i;
			return 0;
		}
	return cmd_failf("bench", AVP_USAGE,
			 "--wait %s: must be busy, adaptive or block", text);
}

static int parse(int argc, char **argv, struct bench_options *o)
{
	static const struct cmd_page page = {
		"bench", "latency|throughput|handover", 1, 1,
		"Measures the library between two processes pinned to two "
		"cores, and in the same\n"
		"run what the bare machine does with the same cache "
		"lines.\n\n"
		"  latency     a message there and an equal one back, written "
		"and read\n"
		"  throughput  one way, acknowledged\n"
		"  handover    there and back with a body that is already "
		"written\n"};
	const char *wait = NULL;
	const struct cmd_option options[] = {
		{"size", CMD_BYTES, &o->size, "N",
		 "payload bytes, K, M, G allowed\n(64; handover 64M)"},
		{"seconds", CMD_NUMBER, &o->seconds, "S", "to measure (2)"},
		{"wait", CMD_TEXT, &wait, "MODE",
		 "busy (the default), adaptive or block"},
		{"json", CMD_FLAG, &o->json, NULL,
		 "one JSON object instead of a table"},
		{0},
	};
	int status = cmd_arguments(&page, options, &argc, argv);

	if (status != CMD_GO_ON)
		return status;
	if (o->seconds >= 3600)
		return cmd_failf("bench", AVP_USAGE,
				 "--seconds %g: must be under 3600",
				 o->seconds);
	if (wait && parse_wait(wait, &o->wait))
		return CMD_USAGE;
	o->bench = argv[1];
	return CMD_GO_ON;
}

static struct bench_kind kind_of(const struct bench_options *o)
{
	bool small = o->size <= 256;

	if (!strcmp(o->bench, "latency"))
		return (struct bench_kind){
			"latency",
			small ? "slot-exchange" : "fill-read-pingpong",
			small ? bench_slots : bench_buffers, bench_latency,
			false
		};
	if (!strcmp(o->bench, "handover"))
		return (struct bench_kind){ "handover", "slot-exchange",
					    bench_slots, bench_handover,
					    false };
	if (!strcmp(o->bench, "throughput"))
		return (struct bench_kind){ "throughput", "bare-ring",
					    bench_ring, bench_throughput,
					    true };
	return (struct bench_kind){ 0 };
}

static int run_bench(struct bench_options *o, const struct bench_kind *kind)
{
	char dir[] = "/tmp/avp-bench-XXXXXX", path[64];
	struct run run = { .kind = kind, .options = o };
	int status;

	if (!mkdtemp(dir))
		return cmd_failf("bench", AVP_IO, "%s: %s", dir,
				 strerror(errno));
	o->runtime_dir = dir;
	start(&run);
	measure(&run);
	stop(&run);
	status = report(&run);
	for (unsigned p = 0; p < PLACES; p++)
		for (unsigned i = 0; i < PARTS; i++)
			free(run.hist[p][i]);
	snprintf(path, sizeof(path), "%s/bench", dir);
	rmdir(path);
	rmdir(dir);
	return status;
}

int cmd_bench(int argc, char **argv)
{
	struct bench_options options = { .seconds = 2, .wait = AHP_WAIT_BUSY };
	struct bench_kind kind;
	int status = parse(argc, argv, &options);

	if (status != CMD_GO_ON)
		return status;
	if (!options.size)
		options.size = strcmp(options.bench, "handover") ? 64 :
								   64u << 20;
	kind = kind_of(&options);
	if (!kind.name)
		return cmd_failf("bench", AVP_USAGE,
				 "%s: must be latency, throughput or handover",
				 options.bench);
	if (options.size < 16 || options.size > 3u << 30)
		return cmd_failf("bench", AVP_USAGE,
				 "--size %llu: must be 16 to 3G, what one frame "
				 "can hold",
				 (unsigned long long)options.size);
	return run_bench(&options, &kind);
}
