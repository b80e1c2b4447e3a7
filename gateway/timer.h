/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Timers, in a pairing heap whose nodes are the callers': setting one allocates
 * nothing and cannot fail, which ten thousand idle connections are glad of.
 */
#ifndef AVP_GATEWAY_TIMER_H
#define AVP_GATEWAY_TIMER_H

#include <stdbool.h>
#include <stdint.h>

/* Zeros, but for fire, before its first use. */
struct gw_timer {
	void (*fire)(struct gw_timer *timer);
	int64_t due_ns; /* CLOCK_MONOTONIC; 0: not set */
	/* Private: where it stands in the heap (at_ns: under which time). */
	int64_t at_ns;
	struct gw_timer *child, *sibling, *before;
};

struct gw_timers {
	struct gw_timer *first;
};

/*
 * Sets or moves a timer; a later time for one that is set costs nothing until
 * its earlier time has come. due_ns above 0.
 */
void gw_timer_set(struct gw_timers *timers, struct gw_timer *timer,
		  int64_t due_ns);
/* Before its memory goes away. One that is not set is left alone. */
void gw_timer_clear(struct gw_timers *timers, struct gw_timer *timer);

/* Calls those that are due at now_ns; each may set itself, or others. */
void gw_timers_run(struct gw_timers *timers, int64_t now_ns);

/* When to look again: a time, INT64_MAX for never. */
int64_t gw_timers_next(const struct gw_timers *timers);

#endif
