/* SPDX-License-Identifier: Apache-2.0 */
/* Where parcels are kept: chunks that never move, a heap, queues, a hash. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "ahp/retry.h"

static void timer_ready(struct avp_watch *watch, uint32_t events)
{
	struct ahp__retry *r = watch->arg;
	uint64_t expirations;

	(void)events;
	r->agent->own_calls++;
	if (read(watch->fd, &expirations, sizeof(expirations)) < 0)
		return;
	r->armed_ns = 0;
	ahp__retry_turn(r->agent, ahp__now_ns());
}

/* A name has appeared: which one does not matter, few are waited for. */
static void names_ready(struct avp_watch *watch, uint32_t events)
{
	struct ahp__retry *r = watch->arg;
	char news[4096];

	(void)events;
	r->agent->own_calls++;
	while (read(watch->fd, news, sizeof(news)) > 0)
		continue;
	if (!r->queued)
		return;
	for (uint32_t i = 0; i < r->agent->peers; i++)
		r->agent->peer[i]->tried_ns = 0;
	ahp__retry_turn(r->agent, ahp__now_ns());
}

/* Without inotify (its instances are few per user) LOOK_NS is the latency. */
static void watch_names(struct ahp__retry *r)
{
	struct avp_reason why;
	char path[32];

	r->names = (struct avp_watch){inotify_init1(IN_CLOEXEC | IN_NONBLOCK),
				      AVP_READABLE, names_ready, r};
	if (r->names.fd < 0)
		return;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", r->agent->dir);
	if (inotify_add_watch(r->names.fd, path, IN_MOVED_TO) >= 0 &&
	    !avp_loop_add(r->agent->loop, &r->names, &why))
		return;
	close(r->names.fd);
	r->names.fd = -1;
}

int ahp__retry_open(struct ahp_agent *agent, struct avp_reason *why)
{
	struct ahp__retry *r;
	int error;

	if (agent->retry)
		return 0;
	r = calloc(1, sizeof(*r));
	if (!r)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for retries");
	r->agent = agent;
	memcpy(&r->random, agent->epoch, sizeof(r->random));
	r->random |= 1;
	r->chunk = calloc(PARCELS_MAX / PARCELS_CHUNK, sizeof(*r->chunk));
	r->timer = (struct avp_watch){
		timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK),
		AVP_READABLE, timer_ready, r};
	if (!r->chunk || r->timer.fd < 0)
		error = avp__fail(why, AVP_NO_MEMORY,
				  "no memory or no fd for retries");
	else
		error = avp_loop_add(agent->loop, &r->timer, why);
	if (error) {
		if (r->timer.fd >= 0)
			close(r->timer.fd);
		free(r->chunk);
		free(r);
		return error;
	}
	watch_names(r);
	agent->retry = r;
	return 0;
}

void ahp__retry_free(struct ahp_agent *agent)
{
	struct ahp__retry *r = agent->retry;

	if (!r)
		return;
	if (r->names.fd >= 0)
		close(r->names.fd);
	close(r->timer.fd);
	for (uint32_t i = 0; i < r->room / PARCELS_CHUNK; i++)
		free(r->chunk[i]);
	free(r->chunk);
	free(r->heap);
	free(r);
	agent->retry = NULL;
}

struct parcel *ahp__parcel_at(const struct ahp__retry *r, uint32_t number)
{
	return &r->chunk[(number - 1) / PARCELS_CHUNK]
			[(number - 1) % PARCELS_CHUNK];
}

/* ---- by origin ---------------------------------------------------------- */

static uint32_t bucket_of(const struct ahp_receipt *origin)
{
	uint64_t key = origin->sequence +
		       origin->peer * UINT64_C(0x9e3779b97f4a7c15) +
		       origin->generation * UINT64_C(0xbf58476d1ce4e5b9);

	return (uint32_t)((key ^ key >> 32) % ORIGIN_BUCKETS);
}

static bool same_origin(const struct ahp_receipt *a,
			const struct ahp_receipt *b)
{
	return a->sequence == b->sequence && a->peer == b->peer &&
	       a->generation == b->generation;
}

struct parcel *ahp__parcel_of(const struct ahp__retry *r,
			      const struct ahp_receipt *origin)
{
	uint32_t number = r->origin[bucket_of(origin)];

	while (number) {
		struct parcel *p = ahp__parcel_at(r, number);

		if (same_origin(&p->origin, origin))
			return p;
		number = p->next_origin;
	}
	return NULL;
}

static void forget_origin(struct ahp__retry *r, const struct parcel *p)
{
	uint32_t *link = &r->origin[bucket_of(&p->origin)];

	while (*link != p->number)
		link = &ahp__parcel_at(r, *link)->next_origin;
	*link = p->next_origin;
}

/* ---- making and forgetting ---------------------------------------------- */

static int more_parcels(struct ahp__retry *r)
{
	uint32_t room = r->room + PARCELS_CHUNK;
	struct parcel *chunk;
	uint32_t *heap;

	if (r->room == PARCELS_MAX)
		return AVP_QUEUE_FULL;
	heap = realloc(r->heap, room * sizeof(*heap));
	if (!heap)
		return AVP_NO_MEMORY;
	r->heap = heap;
	chunk = aligned_alloc(LINE, PARCELS_CHUNK * sizeof(*chunk));
	if (!chunk)
		return AVP_NO_MEMORY;
	memset(chunk, 0, PARCELS_CHUNK * sizeof(*chunk));
	r->chunk[r->room / PARCELS_CHUNK] = chunk;
	for (uint32_t i = 0; i < PARCELS_CHUNK; i++) {
		chunk[i].number = r->room + i + 1;
		chunk[i].next = i + 1 < PARCELS_CHUNK ? r->room + i + 2 : 0;
	}
	r->free_first = r->room + 1;
	r->room = room;
	return 0;
}

/* The one that has been done for longest makes room. */
static void forget_done(struct ahp__retry *r)
{
	struct parcel *p = ahp__parcel_at(r, r->done_first);

	r->done_first = p->next;
	if (!r->done_first)
		r->done_last = 0;
	r->done--;
	forget_origin(r, p);
	p->state = PARCEL_FREE;
	p->next = r->free_first;
	r->free_first = p->number;
}

struct parcel *ahp__parcel_new(struct ahp__retry *r,
			       const struct ahp_receipt *origin)
{
	uint32_t bucket = bucket_of(origin), number;
	struct parcel *p;

	if (!r->free_first && more_parcels(r)) {
		if (!r->done)
			return NULL;
		forget_done(r);
	}
	p = ahp__parcel_at(r, r->free_first);
	r->free_first = p->next;
	number = p->number;
	memset(p, 0, sizeof(*p));
	p->number = number;
	p->origin = *origin;
	p->state = PARCEL_SENT;
	p->next_origin = r->origin[bucket];
	r->origin[bucket] = number;
	return p;
}

void ahp__parcel_done(struct ahp__retry *r, struct parcel *p)
{
	p->state = PARCEL_DONE;
	p->next = 0;
	if (r->done_last)
		ahp__parcel_at(r, r->done_last)->next = p->number;
	else
		r->done_first = p->number;
	r->done_last = p->number;
	if (++r->done > OUTCOMES_KEPT)
		forget_done(r);
}

/* ---- by time ------------------------------------------------------------ */

static bool earlier(const struct ahp__retry *r, uint32_t a, uint32_t b)
{
	return ahp__parcel_at(r, r->heap[a])->due_ns <
	       ahp__parcel_at(r, r->heap[b])->due_ns;
}

static void swap(struct ahp__retry *r, uint32_t a, uint32_t b)
{
	uint32_t number = r->heap[a];

	r->heap[a] = r->heap[b];
	r->heap[b] = number;
	ahp__parcel_at(r, r->heap[a])->heap_at = a;
	ahp__parcel_at(r, r->heap[b])->heap_at = b;
}

static void sift(struct ahp__retry *r, uint32_t at)
{
	uint32_t child;

	for (; at && earlier(r, at, (at - 1) / 2); at = (at - 1) / 2)
		swap(r, at, (at - 1) / 2);
	for (; (child = 2 * at + 1) < r->heaped; at = child) {
		if (child + 1 < r->heaped && earlier(r, child + 1, child))
			child++;
		if (!earlier(r, child, at))
			break;
		swap(r, at, child);
	}
}

void ahp__parcel_push(struct ahp__retry *r, struct parcel *p)
{
	p->heap_at = r->heaped;
	r->heap[r->heaped++] = p->number;
	sift(r, p->heap_at);
	r->agent->stats.waiting++;
}

void ahp__parcel_pull(struct ahp__retry *r, struct parcel *p)
{
	uint32_t at = p->heap_at;

	swap(r, at, --r->heaped);
	if (at < r->heaped)
		sift(r, at);
	r->agent->stats.waiting--;
}

/* ---- by peer ------------------------------------------------------------ */

/* Those that are with their reader have a link. */
bool ahp__retry_needs(const struct ahp__retry *r, uint32_t peer)
{
	for (uint32_t i = 0; i < r->heaped; i++)
		if (ahp__parcel_at(r, r->heap[i])->origin.peer == peer)
			return true;
	return false;
}

void ahp__parcel_enqueue(struct ahp__retry *r, struct parcel *p)
{
	struct ahp__peer *peer = ahp__peer_at(r->agent, p->origin.peer);

	p->state = PARCEL_QUEUED;
	p->next = 0;
	p->before = peer->retry_last;
	if (peer->retry_last)
		ahp__parcel_at(r, peer->retry_last)->next = p->number;
	else
		peer->retry_first = p->number;
	peer->retry_last = p->number;
	r->queued++;
	if (peer->link) {
		peer->link->queued = true;
		peer->link->plain_room = 0;
	}
}

void ahp__parcel_dequeue(struct ahp__retry *r, struct parcel *p)
{
	struct ahp__peer *peer = ahp__peer_at(r->agent, p->origin.peer);

	if (p->before)
		ahp__parcel_at(r, p->before)->next = p->next;
	else
		peer->retry_first = p->next;
	if (p->next)
		ahp__parcel_at(r, p->next)->before = p->before;
	else
		peer->retry_last = p->before;
	r->queued--;
}
