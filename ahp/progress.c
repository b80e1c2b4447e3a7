/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread for agents whose owners compute for long: it does what is due, every
 * 10 ms, while the owner is in no call. It delivers nothing.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "ahp/agent_internal.h"

#define AWAY_NS 10000000ll

/* ---- the thread --------------------------------------------------------- */

/*
 * A foreign loop that sleeps on the agent's fd must hear of what was taken from
 * under it: the nudge stays readable until a call of the owner's reads it.
 */
static void act(struct ahp__progress *p)
{
	static const uint64_t one = 1;
	struct ahp_agent *agent = p->agent;

	p->acting = true;
	ahp__agent_turn(agent, 0);
	p->acting = false;
	ahp__settle_all(agent);
	ahp__bodies_prepare(agent);
	ahp__page_show(agent);
	if (agent->own_calls && p->fd_asked &&
	    write(p->nudge.fd, &one, sizeof(one)) < 0)
		return; /* its count is full: it is readable */
}

static void look(struct ahp__progress *p)
{
	/* relaxed: a guess, to be confirmed */
	uint32_t word = atomic_load_explicit(&p->word, memory_order_relaxed);

	if (word == PROGRESS_FREE) {
		atomic_compare_exchange_strong_explicit(
			&p->word, &word, PROGRESS_IDLE, memory_order_relaxed,
			memory_order_relaxed);
		return;
	}
	/* acquire: pairs with the release in ahp__leave() */
	if (word != PROGRESS_IDLE ||
	    !atomic_compare_exchange_strong_explicit(
		    &p->word, &word, PROGRESS_ACTING, memory_order_acquire,
		    memory_order_relaxed))
		return;
	act(p);
	word = PROGRESS_ACTING;
	/* release: pairs with the acquire in ahp__enter() */
	if (!atomic_compare_exchange_strong_explicit(
		    &p->word, &word, PROGRESS_IDLE, memory_order_release,
		    memory_order_relaxed))
		sem_post(&p->done);
}

static struct timespec after(int64_t ns)
{
	int64_t at_ns = ahp__now_ns() + ns;

	return (struct timespec){at_ns / 1000000000, at_ns % 1000000000};
}

static void *run(void *arg)
{
	struct ahp__progress *p = arg;

	for (;;) {
		struct timespec next = after(AWAY_NS);
		int error;

		do /* io_uring's work for this thread interrupts it */
			error = sem_clockwait(&p->stop, CLOCK_MONOTONIC, &next);
		while (error && errno == EINTR);
		if (!error)
			return NULL;
		look(p);
	}
}

static void nudged(struct avp_watch *watch, uint32_t events)
{
	struct ahp__progress *p = watch->arg;
	uint64_t count;

	(void)events;
	p->agent->own_calls++;
	if (!p->acting && read(watch->fd, &count, sizeof(count)) < 0)
		return; /* read already */
}

/* ---- the owner ---------------------------------------------------------- */

void ahp__progress_await(struct ahp__progress *p)
{
	while (sem_wait(&p->done) && errno == EINTR)
		continue;
}

/* The application's signals are for its own threads. */
static int start_thread(struct ahp__progress *p)
{
	sigset_t all, before;
	int error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&p->thread, NULL, run, p);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return error;
}

static void free_progress(struct ahp__progress *p)
{
	if (p->nudge.fd >= 0)
		close(p->nudge.fd);
	sem_destroy(&p->done);
	sem_destroy(&p->stop);
	free(p);
}

int ahp__progress_start(struct ahp_agent *agent, struct avp_reason *why)
{
	struct ahp__progress *p = aligned_alloc(64, sizeof(*p));
	int error;

	if (!p)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for a thread");
	*p = (struct ahp__progress){
		.word = PROGRESS_FREE,
		.cookie = agent->guard.cookie,
		.agent = agent,
		.nudge = {eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), AVP_READABLE,
			  nudged, p},
	};
	sem_init(&p->done, 0, 0);
	sem_init(&p->stop, 0, 0);
	error = p->nudge.fd < 0 ? avp__fail(why, AVP_IO, "no eventfd")
				: avp_loop_add(agent->loop, &p->nudge, why);
	if (error) {
		free_progress(p);
		return error;
	}
	if (start_thread(p)) {
		avp_loop_remove(agent->loop, &p->nudge);
		free_progress(p);
		return avp__fail(why, AVP_NO_MEMORY,
				 "no thread can be started; see ulimit -u, or "
				 "open the agent without AHP_PROGRESS_THREAD");
	}
	agent->progress = p;
	return 0;
}

void ahp__progress_stop(struct ahp_agent *agent)
{
	struct ahp__progress *p = agent->progress;

	if (!p)
		return;
	sem_post(&p->stop);
	pthread_join(p->thread, NULL);
	agent->progress = NULL;
	avp_loop_remove(agent->loop, &p->nudge);
	free_progress(p);
}

bool ahp__progress_forget(struct ahp_agent *agent)
{
	struct ahp__progress *p = agent->progress;

	if (!p)
		return true;
	/* relaxed: nobody else is here; the word is as it was at the fork */
	if (atomic_load_explicit(&p->word, memory_order_relaxed) ==
	    PROGRESS_ACTING)
		return false;
	agent->progress = NULL;
	close(p->nudge.fd);
	free(p);
	return true;
}
