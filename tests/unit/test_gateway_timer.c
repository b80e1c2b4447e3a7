/* SPDX-License-Identifier: Apache-2.0 */
/* Timers: in order, moved, cleared, from within each other. */
#include <stdlib.h>
#include <string.h>

#include "gateway/timer.h"
#include "tests/harness.h"

#define MANY 2000

struct probe {
	struct gw_timer timer;
	int64_t want_ns; /* 0: must not fire */
	unsigned fired;
};

static struct gw_timers timers;
static struct probe probe[MANY];
static int64_t now_ns, last_ns;

static void fired(struct gw_timer *timer)
{
	struct probe *p = (struct probe *)timer;

	p->fired++;
	CU_ASSERT(p->want_ns && p->want_ns <= now_ns);
	CU_ASSERT(p->want_ns >= last_ns);
	CU_ASSERT_EQUAL(timer->due_ns, 0);
	last_ns = p->want_ns;
}

static void begin(void)
{
	memset(&timers, 0, sizeof(timers));
	memset(probe, 0, sizeof(probe));
	for (int i = 0; i < MANY; i++)
		probe[i].timer.fire = fired;
	now_ns = last_ns = 0;
	CU_ASSERT_EQUAL(gw_timers_next(&timers), INT64_MAX);
}

static void set(struct probe *p, int64_t due_ns)
{
	p->want_ns = due_ns;
	if (due_ns)
		gw_timer_set(&timers, &p->timer, due_ns);
	else
		gw_timer_clear(&timers, &p->timer);
}

/* Each step: some are set, moved earlier or later, cleared; then time
 * passes. */
static void at_random(void)
{
	unsigned expected = 0, count = 0;

	begin();
	srand(1);
	for (int round = 0; round < 200; round++) {
		for (int i = 0; i < 300; i++) {
			struct probe *p = &probe[rand() % MANY];

			set(p, rand() % 4 ? now_ns + 1 + rand() % 5000 : 0);
		}
		now_ns += rand() % 500;
		last_ns = 0;
		for (int i = 0; i < MANY; i++)
			expected +=
				probe[i].want_ns && probe[i].want_ns <= now_ns;
		gw_timers_run(&timers, now_ns);
		count = 0;
		for (int i = 0; i < MANY; i++) {
			count += probe[i].fired;
			if (probe[i].want_ns <= now_ns)
				probe[i].want_ns = 0;
		}
		CU_ASSERT_EQUAL(count, expected);
		CU_ASSERT(gw_timers_next(&timers) > now_ns);
	}
}

static void again(struct gw_timer *timer)
{
	struct probe *p = (struct probe *)timer;

	if (++p->fired < 5)
		gw_timer_set(&timers, timer, now_ns - 10);
	/* One that is due as well, and is not to fire any more. */
	gw_timer_clear(&timers, &probe[1].timer);
}

static void from_within(void)
{
	begin();
	now_ns = 100;
	probe[0].timer.fire = again;
	gw_timer_set(&timers, &probe[0].timer, 50);
	gw_timer_set(&timers, &probe[1].timer, 60);
	gw_timers_run(&timers, now_ns);
	CU_ASSERT_EQUAL(probe[0].fired, 5);
	CU_ASSERT_EQUAL(probe[1].fired, 0);
	CU_ASSERT_EQUAL(gw_timers_next(&timers), INT64_MAX);
	gw_timer_clear(&timers, &probe[1].timer);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(at_random), TEST(from_within), {0}};

	return test_main("gateway_timer", tests);
}
