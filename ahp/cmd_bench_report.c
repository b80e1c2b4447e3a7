/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a bench prints: the command line contract's object, or a table for people,
 * with a histogram if they look at a terminal.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ahp/cmd_bench.h"
#include "gateway/cmd.h"

#define ROWS  12 /* of the histogram */
#define WIDTH 48 /* its longest bar */

static const char *const place_names[PLACES] = {"near", "far", "siblings",
						"moved"};

static const struct {
	const char *name;
	double at;
} percentiles[] = {
	{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}, {"max", -1},
};
#define PERCENTILES (sizeof(percentiles) / sizeof(*percentiles))

static unsigned most_frequent(const struct bench_run *run)
{
	unsigned best = 0;

	for (unsigned p = 1; p < PLACES; p++)
		if (run->batches[p] > run->batches[best])
			best = p;
	return best;
}

/* Ticks of the histogram to a nanosecond. */
static double scale_of(const struct bench_run *run, unsigned part)
{
	bool fine = run->kind->one_way && part != BENCH_FLOOR;

	return bench_ticks_per_ns() * (fine ? BENCH_SIXTEEN : 1);
}

/* A percentile of the placement that counts, in ns; at < 0 is the maximum. */
static double figure(const struct bench_run *run, unsigned part, double at)
{
	const struct bench_hist *hist = run->hist[most_frequent(run)][part];
	double ticks = at < 0 ? (double)hist->max : bench_hist_at(hist, at);

	/* The middle of a bucket may lie over the largest in it. */
	if (ticks > (double)hist->max)
		ticks = (double)hist->max;
	return ticks / scale_of(run, part);
}

static double ratio_to(const struct bench_run *run, unsigned part)
{
	double base = figure(run, part, 0.5);

	return base > 0 ? figure(run, BENCH_MEASURED, 0.5) / base : 0;
}

const char *bench_wait_name(enum ahp_wait wait)
{
	return wait == AHP_WAIT_BUSY	   ? "busy"
	       : wait == AHP_WAIT_ADAPTIVE ? "adaptive"
					   : "block";
}

/* ---- JSON ------------------------------------------------------------------------ */

/* One decimal of ns, three of a ratio: the counter does not tell more. */
static double rounded(double value, double steps)
{
	return floor(value * steps + 0.5) / steps;
}

static void put_number(struct avp_json_writer *w, const char *key, double v)
{
	avp_json_key(w, key);
	avp_json_put_double(w, v);
}

static void put_ns(struct avp_json_writer *w, const char *key, double ns)
{
	put_number(w, key, rounded(ns, 10));
}

static void put_part(struct avp_json_writer *w, const struct bench_run *run,
		     unsigned part)
{
	const char *key = run->kind->part[part].key;

	if (!run->kind->part[part].run)
		return;
	avp_json_key(w, key);
	avp_json_open_object(w);
	avp_json_member_string(w, "name",
			       avp_str_of(run->kind->part[part].name));
	avp_json_member_string(w, "unit", avp_str_of("ns"));
	put_ns(w, "p50", figure(run, part, 0.5));
	avp_json_close_object(w);
}

/* The ratio of what was measured to a part; the baseline's is just "ratio". */
static void put_ratio(struct avp_json_writer *w, const struct bench_run *run,
		      unsigned part)
{
	char key[40] = "ratio";

	if (!run->kind->part[part].run)
		return;
	if (part != BENCH_BASELINE)
		snprintf(key, sizeof(key), "%s_ratio",
			 run->kind->part[part].key);
	put_number(w, key, rounded(ratio_to(run, part), 1000));
}

static void put_note(struct avp_json_writer *w, const struct bench_note *note)
{
	if (note->text)
		avp_json_member_string(w, note->key, avp_str_of(note->text));
	else if (note->value == floor(note->value))
		avp_json_member_uint(w, note->key, (uint64_t)note->value);
	else
		put_ns(w, note->key, note->value);
}

static uint64_t count_of(const struct bench_run *run)
{
	unsigned place = most_frequent(run);

	return run->kind->one_way ? run->messages[place]
				  : run->hist[place][BENCH_MEASURED]->count;
}

static void put_cores(struct avp_json_writer *w, const struct bench_side *side)
{
	avp_json_key(w, "cores");
	avp_json_open_array(w);
	for (unsigned i = 0; i < BENCH_CORES; i++)
		avp_json_put_uint(w, side->core[i]);
	avp_json_close_array(w);
}

static void put_batches(struct avp_json_writer *w, const struct bench_run *run)
{
	avp_json_key(w, "batches");
	avp_json_open_object(w);
	for (unsigned p = 0; p < PLACES; p++)
		avp_json_member_uint(w, place_names[p], run->batches[p]);
	avp_json_close_object(w);
}

static void put_report(struct avp_json_writer *w, const struct bench_run *run)
{
	const char *place = place_names[most_frequent(run)];
	double p50 = figure(run, BENCH_MEASURED, 0.5);
	double rate = p50 > 0 ? 1e9 / p50 : 0;

	avp_json_open_object(w);
	avp_json_member_string(w, "bench", avp_str_of(run->kind->name));
	avp_json_member_uint(w, "size", run->options->size);
	avp_json_member_string(w, "wait",
			       avp_str_of(bench_wait_name(run->options->wait)));
	avp_json_member_string(w, "unit", avp_str_of("ns"));
	for (size_t i = 0; i < PERCENTILES; i++)
		put_ns(w, percentiles[i].name,
		       figure(run, BENCH_MEASURED, percentiles[i].at));
	avp_json_member_uint(w, "count", count_of(run));
	avp_json_member_string(w, "placement", avp_str_of(place));
	for (unsigned part = 0; part < BENCH_PARTS; part++) {
		if (part == BENCH_MEASURED)
			continue;
		put_part(w, run, part);
		put_ratio(w, run, part);
	}
	if (run->kind->one_way) {
		put_ns(w, "messages_per_second", rate);
		put_ns(w, "bytes_per_second",
		       rate * (double)run->options->size);
	}
	for (unsigned i = 0; i < run->side.notes; i++)
		put_note(w, &run->side.note[i]);
	put_cores(w, &run->side);
	put_batches(w, run);
	avp_json_close_object(w);
}

static int print_json(const struct bench_run *run)
{
	struct avp_json_writer w;
	struct avp_buf buf = {0};
	struct avp_reason why;
	int error;

	avp_json_begin(&w, &buf, AVP_JSON_PYTHON);
	put_report(&w, run);
	error = cmd_print_json(&w, &buf, &why);
	avp_buf_fini(&buf);
	return error ? cmd_fail("bench", &why) : CMD_DONE;
}

/* ---- the table ------------------------------------------------------------------- */

/* A time in the unit that reads well. */
static const char *shown(double ns)
{
	static char text[4][32];
	static unsigned next;
	char *s = text[next++ % 4];
	const char *unit = ns < 1e4 ? "ns" : ns < 1e7 ? "us" : "ms";
	double scale = ns < 1e4 ? 1 : ns < 1e7 ? 1e3 : 1e6;

	snprintf(s, sizeof(text[0]), "%9.1f %s", ns / scale, unit);
	return s;
}

static void print_bar(const char *label, uint64_t n, uint64_t most,
		      uint64_t all)
{
	static const char bar[WIDTH + 1] =
		"################################################";
	int length = (int)((n * WIDTH + most - 1) / most);

	printf("  %s |%-*.*s %5.1f %%\n", label, WIDTH, length, bar,
	       100.0 * (double)n / (double)all);
}

/* From the fastest thousandth to the slowest, in steps of one factor. */
static void print_histogram(const struct bench_run *run)
{
	unsigned place = most_frequent(run);
	const struct bench_hist *hist = run->hist[place][BENCH_MEASURED];
	double low = bench_hist_at(hist, 0.001) * 0.999,
	       high = bench_hist_at(hist, 0.999) * 1.001;
	double step = pow(high / low, 1.0 / ROWS), at = low;
	uint64_t n[ROWS], most = 1;

	if (hist->count < ROWS || low <= 0)
		return;
	for (unsigned i = 0; i < ROWS; i++, at *= step) {
		n[i] = bench_hist_between(hist, at, at * step);
		most = n[i] > most ? n[i] : most;
	}
	putchar('\n');
	at = low;
	for (unsigned i = 0; i < ROWS; i++, at *= step)
		print_bar(shown(at / scale_of(run, BENCH_MEASURED)), n[i], most,
			  hist->count);
}

static void print_part(const struct bench_run *run, unsigned part)
{
	if (run->kind->part[part].run)
		printf("  %-24s %s   ratio %.3f\n", run->kind->part[part].name,
		       shown(figure(run, part, 0.5)), ratio_to(run, part));
}

static void print_note(const struct bench_note *note)
{
	if (note->text)
		printf("  %-24s %12s\n", note->key, note->text);
	else
		printf("  %-24s %12.10g\n", note->key, note->value);
}

static void print_table(const struct bench_run *run)
{
	unsigned place = most_frequent(run);
	double p50 = figure(run, BENCH_MEASURED, 0.5);

	printf("%s: %llu bytes, %s, cores %u and %u, %s (%llu of %llu "
	       "batches), %llu times\n",
	       run->kind->name, (unsigned long long)run->options->size,
	       bench_wait_name(run->options->wait), run->side.core[0],
	       run->side.core[1], place_names[place],
	       (unsigned long long)run->batches[place],
	       (unsigned long long)(run->batches[0] + run->batches[1] +
				    run->batches[2] + run->batches[3]),
	       (unsigned long long)count_of(run));
	for (size_t i = 0; i < PERCENTILES; i++)
		printf("  %-24s %s\n", percentiles[i].name,
		       shown(figure(run, BENCH_MEASURED, percentiles[i].at)));
	for (unsigned part = 0; part < BENCH_PARTS; part++)
		if (part != BENCH_MEASURED)
			print_part(run, part);
	if (run->kind->one_way && p50 > 0)
		printf("  %.2f M messages/s, %.2f GB/s\n", 1e3 / p50,
		       (double)run->options->size / p50);
	for (unsigned i = 0; i < run->side.notes; i++)
		print_note(&run->side.note[i]);
	if (isatty(STDOUT_FILENO))
		print_histogram(run);
}

int bench_report(const struct bench_run *run)
{
	if (run->options->json)
		return print_json(run);
	print_table(run);
	if (fflush(stdout) || ferror(stdout))
		return cmd_failf("bench", AVP_IO, "cannot write the report");
	return CMD_DONE;
}
