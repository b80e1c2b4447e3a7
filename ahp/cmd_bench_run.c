/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two processes on two cores. Batches of the floor (a bare exchange of two lines,
 * which also tells how near the cores are), of the baseline and of the measurement
 * alternate, so that all of them see the same machine; only batches of the most
 * frequent placement count.
 */
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ahp/cmd_bench.h"
#include "gateway/cmd.h"

#define STAGE_QUIT   99
#define PROBE_TRIPS  400
#define FIRST_TRIPS  2
#define TRIPS_MAX    100000
#define BATCH_NS     2e6  /* what a batch of each part should take */
#define RATE_TRIPS   32	  /* and the least of it at a fixed rate, but */
#define RATE_NS	     50e6 /* not longer than that */
#define SIBLINGS_NS  85	  /* below: two threads of one core */
#define NEAR_NS	     260  /* below: one cache between them */
#define WARM_BATCHES 5
#define SPINS	     20000 /* some 0.5 ms, before the other side sleeps */
#define CHILDREN     4

static volatile pid_t children[CHILDREN];
static volatile int child_count;

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

void bench_fail(const char *what, const struct avp_reason *why)
{
	fprintf(stderr, "avpctl: bench: %s: %s: %s\n",
		avp_error_name(cmd_listed(why->code)), what, why->text);
	_exit(CMD_SYSTEM);
}

void bench_note(struct bench_side *me, const char *key, double value)
{
	if (me->notes < BENCH_NOTES)
		me->note[me->notes++] = (struct bench_note){key, NULL, value};
}

void bench_note_text(struct bench_side *me, const char *key, const char *text)
{
	if (me->notes < BENCH_NOTES)
		me->note[me->notes++] = (struct bench_note){key, text, 0};
}

struct bench_hist *bench_hist_new(void)
{
	struct bench_hist *hist = calloc(1, sizeof(*hist));

	if (!hist)
		bench_die("no memory for a histogram");
	return hist;
}

/* ---- cores ---------------------------------------------------------------------- */

/* Are two logical processors threads of one core? */
static bool siblings(unsigned a, unsigned b)
{
	unsigned long low, high;
	bool found = false;
	char path[96], sep;
	FILE *file;
	int n;

	snprintf(path, sizeof(path),
		 "/sys/devices/system/cpu/cpu%u/topology/thread_siblings_list",
		 a);
	file = fopen(path, "re");
	/* "0,4" or "0-1" */
	while (file && fscanf(file, "%lu", &low) == 1) {
		n = fscanf(file, "%c", &sep);
		high = low;
		if (n == 1 && sep == '-' && fscanf(file, "%lu", &high) == 1)
			n = fscanf(file, "%c", &sep);
		found |= low <= b && b <= high;
		if (n != 1 || sep != ',')
			break;
	}
	if (file)
		fclose(file);
	return found;
}

unsigned bench_cores(unsigned core[BENCH_CORES])
{
	cpu_set_t allowed;
	unsigned seen = 0;

	if (sched_getaffinity(0, sizeof(allowed), &allowed))
		bench_die("sched_getaffinity: %s", strerror(errno));
	for (unsigned i = 0; i < CPU_SETSIZE; i++) {
		if (!CPU_ISSET(i, &allowed))
			continue;
		if (seen < BENCH_CORES)
			core[seen] = i;
		else if (siblings(core[0], core[1]))
			core[1] = i;
		seen++;
	}
	return seen;
}

void bench_pin(const struct bench_side *me, unsigned role)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(me->core[role], &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		bench_die("cannot be pinned to core %u: %s", me->core[role],
			  strerror(errno));
}

/* ---- processes ------------------------------------------------------------------ */

/*
 * One of the others ended before its time. Of itself: it has said why. Does not
 * reap it, nor others, for which somebody waits.
 */
static void child_ended(int signal_number)
{
	static const char text[] =
		"avpctl: bench: IO: another process of it was killed\n";

	(void)signal_number;
	for (int i = 0; i < child_count; i++) {
		siginfo_t info = {0};

		if (waitid(P_PID, (id_t)children[i], &info,
			   WEXITED | WNOHANG | WNOWAIT) ||
		    !info.si_pid ||
		    (info.si_code == CLD_EXITED && !info.si_status))
			continue;
		if (info.si_code != CLD_EXITED &&
		    write(2, text, sizeof(text) - 1) < 0)
			_exit(CMD_SYSTEM);
		_exit(CMD_SYSTEM);
	}
}

pid_t bench_spawn(struct bench_side *me, void (*run)(struct bench_side *me))
{
	pid_t parent = getpid(), pid;

	if (child_count == CHILDREN)
		bench_die("more than %d processes", CHILDREN);
	signal(SIGCHLD, child_ended);
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		bench_die("fork: %s", strerror(errno));
	if (pid) {
		children[child_count++] = pid;
		child_ended(0); /* it may have ended by now */
		return pid;
	}
	signal(SIGCHLD, SIG_DFL);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(CMD_SYSTEM);
	run(me);
	_exit(0);
}

void bench_join(pid_t pid)
{
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		continue;
	for (int i = 0; i < child_count; i++)
		if (children[i] == pid)
			children[i] = children[--child_count];
}

static bench_stage *stage_of(const struct bench_kind *kind, unsigned part)
{
	return kind->part[part].run;
}

/* Spins for the next stage, then sleeps: another process may need the core. */
static void await_stage(struct bench_shared *shared, uint32_t n)
{
	for (unsigned spins = 0;; spins++) {
		/* acquire: pairs with begin_stage(); covers stage and trips */
		uint32_t go =
			atomic_load_explicit(&shared->go, memory_order_acquire);

		if (go == n)
			return;
		__builtin_ia32_pause();
		if (spins >= SPINS)
			syscall(SYS_futex, &shared->go, FUTEX_WAIT, go, NULL,
				NULL, 0);
	}
}

static void answer(struct bench_side *me)
{
	const struct bench_kind *kind = me->kind;
	struct bench_shared *shared = me->shared;

	me->role = 1;
	bench_pin(me, 1);
	if (kind->open)
		kind->open(me);
	for (uint32_t n = 1;; n++) {
		await_stage(shared, n);
		if (shared->stage == STAGE_QUIT)
			break;
		if (shared->stage == BENCH_FLOOR || !kind->alone)
			stage_of(kind, shared->stage)(me, shared->trips, NULL);
		/* release: this side has ended the stage */
		atomic_store_explicit(&shared->done.word, n,
				      memory_order_release);
	}
	if (kind->close)
		kind->close(me);
}

static uint32_t begin_stage(struct bench_run *run, unsigned stage,
			    uint64_t trips)
{
	struct bench_shared *shared = run->side.shared;
	/* relaxed: only this process writes it */
	uint32_t n =
		atomic_load_explicit(&shared->go, memory_order_relaxed) + 1;

	shared->stage = stage;
	shared->trips = trips;
	/* release: pairs with the acquire in await_stage() */
	atomic_store_explicit(&shared->go, n, memory_order_release);
	syscall(SYS_futex, &shared->go, FUTEX_WAKE, 1, NULL, NULL, 0);
	return n;
}

static void run_stage(struct bench_run *run, unsigned stage, uint64_t trips,
		      struct bench_hist *hist)
{
	struct bench_shared *shared = run->side.shared;
	uint32_t n = begin_stage(run, stage, trips);

	stage_of(run->kind, stage)(&run->side, trips, hist);
	/* acquire: pairs with the release in answer() */
	while (atomic_load_explicit(&shared->done.word, memory_order_acquire) !=
	       n)
		__builtin_ia32_pause();
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
	side->buffer_stride = (side->size + 63) & ~63ull;
	side->buffer_count = (unsigned)(BENCH_ROTATE / side->buffer_stride);
	if (!side->buffer_count)
		side->buffer_count = 1;
	for (unsigned i = 0; i < 2; i++)
		side->buffers[i] =
			map_shared(side->buffer_count * side->buffer_stride);
}

static pid_t other;

void bench_start(struct bench_run *run)
{
	bench_stage *baseline = run->kind->part[BENCH_BASELINE].run;

	run->side.kind = run->kind;
	run->side.options = run->options;
	run->side.size = run->options->size;
	run->side.shared = map_shared(sizeof(struct bench_shared));
	if (baseline == bench_buffers || baseline == bench_fanout_bare ||
	    baseline == bench_ring)
		map_buffers(&run->side);
	other = bench_spawn(&run->side, answer);
	bench_pin(&run->side, 0);
	if (run->kind->open)
		run->kind->open(&run->side);
}

void bench_stop(struct bench_run *run)
{
	begin_stage(run, STAGE_QUIT, 0);
	bench_join(other);
	if (run->kind->close)
		run->kind->close(&run->side);
}

void bench_free(struct bench_run *run)
{
	for (unsigned p = 0; p < PLACES; p++)
		for (unsigned i = 0; i < BENCH_PARTS; i++)
			free(run->hist[p][i]);
	for (unsigned i = 0; i < BENCH_STEPS; i++)
		free(run->side.step[i]);
}

/* ---- batches -------------------------------------------------------------------- */

static unsigned place_of(const struct bench_hist *floor)
{
	double ns = bench_hist_at(floor, 0.5) / bench_ticks_per_ns();

	return ns < SIBLINGS_NS ? PLACE_SIBLINGS
	       : ns < NEAR_NS	? PLACE_NEAR
				: PLACE_FAR;
}

struct batch {
	struct bench_hist *part[BENCH_PARTS], *after;
	uint64_t trips[BENCH_PARTS];
};

static void run_batch(struct bench_run *run, struct batch *b, bool counts)
{
	unsigned place;

	for (unsigned i = 0; i < BENCH_PARTS; i++)
		memset(b->part[i], 0, sizeof(*b->part[i]));
	memset(b->after, 0, sizeof(*b->after));
	for (unsigned i = 0; i < BENCH_PARTS; i++)
		if (stage_of(run->kind, i))
			run_stage(run, i, b->trips[i], b->part[i]);
	run_stage(run, BENCH_FLOOR, PROBE_TRIPS, b->after);
	if (!counts)
		return;
	place = place_of(b->part[BENCH_FLOOR]);
	if (place != place_of(b->after))
		place = PLACE_MOVED;
	for (unsigned i = 0; i < BENCH_PARTS; i++)
		bench_hist_merge(run->hist[place][i], b->part[i]);
	bench_hist_merge(run->hist[place][BENCH_FLOOR], b->after);
	run->batches[place]++;
	run->messages[place] += b->trips[BENCH_MEASURED];
}

/* As many trips as take the time of a batch, by the last one's median. */
static uint64_t adapt(const struct bench_run *run,
		      const struct bench_hist *hist, uint64_t trips)
{
	double ns = bench_hist_at(hist, 0.5) / bench_ticks_per_ns(), want;

	if (run->kind->one_way)
		ns /= BENCH_SIXTEEN;
	want = ns > 0 ? BATCH_NS / ns : (double)trips;
	if (run->kind->one_way)
		want *= 4; /* so that filling and draining do not show */
	return want < 1 ? 1 : want > TRIPS_MAX ? TRIPS_MAX : (uint64_t)want;
}

/* At a fixed rate a batch lasts as long as its messages are due. */
static uint64_t adapt_rate(double rate)
{
	double want = rate * BATCH_NS * 1e-9, most = rate * RATE_NS * 1e-9;

	if (want < RATE_TRIPS)
		want = RATE_TRIPS < most ? RATE_TRIPS : most;
	return want < 1 ? 1 : want > TRIPS_MAX ? TRIPS_MAX : (uint64_t)want;
}

static void adapt_all(const struct bench_run *run, struct batch *b)
{
	for (unsigned part = BENCH_BASELINE; part < BENCH_PARTS; part++)
		b->trips[part] = adapt(run, b->part[part], b->trips[part]);
	if (run->options->rate > 0)
		b->trips[BENCH_MEASURED] = adapt_rate(run->options->rate);
}

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void bench_measure(struct bench_run *run)
{
	struct batch b = {
		.trips = {PROBE_TRIPS, FIRST_TRIPS, FIRST_TRIPS, FIRST_TRIPS}};
	double end;

	for (unsigned i = 0; i < BENCH_PARTS; i++)
		b.part[i] = bench_hist_new();
	b.after = bench_hist_new();
	for (unsigned p = 0; p < PLACES; p++)
		for (unsigned i = 0; i < BENCH_PARTS; i++)
			run->hist[p][i] = bench_hist_new();
	end = now_s() + run->options->seconds;
	for (unsigned i = 0; i < WARM_BATCHES; i++) {
		run_batch(run, &b, false);
		adapt_all(run, &b);
		/* What is slow needs no more warming, and its user no wait. */
		if (i && now_s() > end)
			break;
	}
	for (unsigned i = 0; i < BENCH_STEPS; i++)
		if (run->side.step[i])
			memset(run->side.step[i], 0, sizeof(struct bench_hist));
	end = now_s() + run->options->seconds;
	do
		run_batch(run, &b, true);
	while (now_s() < end);
	for (unsigned i = 0; i < BENCH_PARTS; i++)
		free(b.part[i]);
	free(b.after);
}
