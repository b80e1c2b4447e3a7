/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Round trips that do not just follow one another.
 *
 * Messages at fixed times, whether or not the last answer has come. Each counts
 * from the time at which it was due, not from when it was sent: what stalls is
 * then seen by all that was due meanwhile, and not by one message alone.
 */
#include "ahp/cmd_bench.h"

#define SMALL	  64
#define AWAKE_NS  2500	 /* nobody wakes, and is answered, in less */
#define DROWSY_NS 100000 /* after which the other side does sleep */

struct schedule {
	double begin, interval; /* ticks */
	uint64_t base;		/* the stamp before the first */
	uint64_t trips, sent, got;
};

static double due(const struct schedule *s, uint64_t n)
{
	return s->begin + s->interval * (double)n;
}

/* False when there is no room: answers have to be read first. */
static bool try_send(struct bench_side *me, uint64_t stamp)
{
	_Alignas(64) uint8_t payload[BENCH_INLINE];
	struct ahp_loan loan = {.data = payload};
	struct ahp_outgoing m = {0};
	struct avp_reason why;
	int error;

	if (me->size > BENCH_INLINE) {
		if (ahp_loan(me->agent, NULL, me->size, 0, &loan, &why))
			bench_fail("loan", &why);
		m.loan = &loan;
	}
	m.body = loan.data;
	bench_fill(loan.data, me->size, stamp);
	bench_compose(me, &m);
	error = ahp_send(me->agent, &m, 0, NULL, &why);
	if (error && error != AVP_QUEUE_FULL)
		bench_fail("send", &why);
	if (error)
		ahp_loan_release(me->agent, &loan);
	return !error;
}

/* How long an answer may be waited for. */
static int64_t patience(const struct bench_side *me, const struct schedule *s,
			bool full)
{
	double ns = (due(s, s->sent) - (double)bench_ticks()) /
		    bench_ticks_per_ns();

	if (me->options->wait == AHP_WAIT_BUSY)
		return 0;
	if (s->sent == s->trips || full)
		return BENCH_WAIT_NS;
	return ns > 0 ? (int64_t)ns : 0;
}

static void run_schedule(struct bench_side *me, struct schedule *s,
			 struct bench_hist *hist)
{
	struct ahp_message m;
	double late;
	bool full;

	while (s->got < s->trips) {
		full = false;
		if (s->sent < s->trips &&
		    (double)bench_ticks() >= due(s, s->sent)) {
			full = !try_send(me, s->base + s->sent + 1);
			s->sent += !full;
		}
		if (ahp_receive(me->agent, &m, patience(me, s, full)))
			continue;
		bench_judge(me, &m);
		bench_read(me, &m, s->base + s->got + 1);
		late = (double)bench_ticks() - due(s, s->got++);
		bench_hist_add(hist, (uint64_t)late);
	}
}

void bench_rate(struct bench_side *me, uint64_t trips, struct bench_hist *hist)
{
	struct schedule s = {
		.begin = (double)bench_ticks(),
		.interval = bench_ticks_per_ns() * 1e9 / me->options->rate,
		.base = me->sequence,
		.trips = trips,
	};

	if (me->role) { /* answers as in any round trip */
		bench_latency(me, trips, hist);
		return;
	}
	me->sequence += trips;
	run_schedule(me, &s, hist);
}

/* The round trip of a short message, beside that of a long one. */
void bench_small(struct bench_side *me, uint64_t trips, struct bench_hist *hist)
{
	uint64_t size = me->size;

	me->size = SMALL;
	bench_latency(me, trips, hist);
	me->size = size;
}

/* ---- asleep ---------------------------------------------------------------------- */

/*
 * Two sides that once found each other awake would go on so: what is there before
 * one has begun to sleep is no wake-up. Such a trip does not count, and the next
 * waits until the other side sleeps again.
 */
void bench_add_asleep(struct bench_hist *hist, uint64_t ticks)
{
	uint64_t begin = bench_ticks();
	double rate = bench_ticks_per_ns();

	if ((double)ticks >= AWAKE_NS * rate) {
		bench_hist_add(hist, ticks);
		return;
	}
	while ((double)(bench_ticks() - begin) < DROWSY_NS * rate)
		__builtin_ia32_pause();
}

void bench_wake(struct bench_side *me, uint64_t trips, struct bench_hist *hist)
{
	if (me->role) { /* answers as in any round trip */
		bench_latency(me, trips, hist);
		return;
	}
	for (uint64_t i = 0; i < trips; i++) {
		uint64_t begin = bench_ticks(), n = ++me->sequence;

		bench_send(me, n);
		bench_receive(me, n);
		bench_add_asleep(hist, bench_ticks() - begin);
	}
}
