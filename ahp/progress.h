/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may use an agent that has a progress thread: its owner, within a call, or
 * the thread, when the owner has been away for 10 ms. One word tells.
 *
 *	FREE	the owner is in no call
 *	IDLE	nor has it been since the thread looked last, 10 ms ago
 *	INSIDE	the owner is in a call
 *	ACTING	the thread is
 *
 * The owner enters by an exchange and leaves by a store; the thread goes from
 * FREE to IDLE, from there to ACTING and back to IDLE by compare-and-swap. An
 * owner that finds ACTING has put INSIDE there by that: the thread sees it
 * when it is done, and posts `done`, for which the owner waits. Entering is an
 * acquire and leaving a release, on both sides; they cover the agent.
 */
#ifndef AVP_AHP_PROGRESS_H
#define AVP_AHP_PROGRESS_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <avp/ring.h>

enum { PROGRESS_FREE, PROGRESS_IDLE, PROGRESS_INSIDE, PROGRESS_ACTING };

struct ahp__progress {
	_Alignas(64) _Atomic uint32_t word;
	const volatile uint32_t *cookie; /* 0 in a forked child */
	struct ahp_agent *agent;
	sem_t done; /* acting, when the owner waits */
	sem_t stop;
	pthread_t thread;
	struct avp_watch nudge; /* an eventfd: see act() */
	bool acting;		/* who is in runs the loop as the thread */
	bool fd_asked;		/* ahp_agent_fd() was called */
};

void ahp__progress_await(struct ahp__progress *p);

/* What ahp__leave() needs: NULL if the owner is in a call already. */
static inline struct ahp__progress *ahp__enter(struct ahp__progress *p)
{
	uint32_t was;

	if (__builtin_expect(!p, 1) || !*p->cookie)
		return NULL;
	/* acquire: pairs with the thread's CAS to IDLE */
	was = atomic_exchange_explicit(&p->word, PROGRESS_INSIDE,
				       memory_order_acquire);
	if (__builtin_expect(was == PROGRESS_INSIDE, 0))
		return NULL;
	if (__builtin_expect(was == PROGRESS_ACTING, 0))
		ahp__progress_await(p);
	return p;
}

static inline void ahp__leave(struct ahp__progress **p)
{
	if (__builtin_expect(*p != NULL, 0))
		/* release: pairs with the thread's CAS to ACTING */
		atomic_store_explicit(&(*p)->word, PROGRESS_FREE,
				      memory_order_release);
}

#endif
