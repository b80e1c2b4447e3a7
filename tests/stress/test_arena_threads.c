/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One arena is one thread's; two arenas in two threads share nothing. Run under
 * TSan: hidden global state would show as a race. A block that is handed from
 * one thread to the other is read there and given back by its owner.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include <avp/shm.h>

#include "tests/harness.h"

#define ROUNDS 20000

struct side {
	pthread_t thread;
	struct side *other;
	_Atomic(const unsigned char *) lent; /* by this side, NULL when read */
	_Atomic unsigned *done;		     /* sides that lend no more */
	uint64_t wrong;
};

/* Looks at what the other side lends, if it lends anything. */
static void read_other(struct side *s)
{
	/* acquire: pairs with the release in lend(); covers the block. */
	const unsigned char *p =
		atomic_load_explicit(&s->other->lent, memory_order_acquire);

	if (!p)
		return;
	s->wrong += memcmp(p, p + 1, 255) != 0;
	/* release: the owner reuses the block when it sees this. */
	atomic_store_explicit(&s->other->lent, NULL, memory_order_release);
}

static void lend(struct side *s, struct avp_arena *arena, unsigned round)
{
	struct avp_block b;

	if (avp_arena_alloc(arena, 256 + round % 1000 * 64, 0, &b, NULL)) {
		s->wrong++;
		return;
	}
	memset(b.data, (int)(round & 255), 256);
	/* release: pairs with the acquire in read_other(). */
	atomic_store_explicit(&s->lent, b.data, memory_order_release);
	/* acquire: the other has done with it. */
	while (atomic_load_explicit(&s->lent, memory_order_acquire))
		read_other(s);
	avp_arena_release(arena, &b);
}

static void *run(void *arg)
{
	const struct avp_arena_options o = {.quota_bytes = 4 << 20,
					    .first_segment_bytes = 65536,
					    .warm_bytes = 256 << 10};
	struct avp_arena *arena;
	struct side *s = arg;

	if (avp_arena_open(&arena, &o, NULL)) {
		s->wrong++;
		return NULL;
	}
	for (unsigned round = 0; round < ROUNDS; round++)
		lend(s, arena, round);
	/* The other may still wait for its last ones to be read. */
	atomic_fetch_add_explicit(s->done, 1, memory_order_release);
	while (atomic_load_explicit(s->done, memory_order_acquire) < 2)
		read_other(s);
	avp_arena_close(arena);
	return NULL;
}

static void two_arenas(void)
{
	struct side a = {0}, b = {0};
	_Atomic unsigned done = 0;

	a.done = b.done = &done;
	a.other = &b;
	b.other = &a;
	pthread_create(&a.thread, NULL, run, &a);
	pthread_create(&b.thread, NULL, run, &b);
	pthread_join(a.thread, NULL);
	pthread_join(b.thread, NULL);
	CU_ASSERT_EQUAL(a.wrong, 0);
	CU_ASSERT_EQUAL(b.wrong, 0);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(two_arenas),
		{0},
	};

	return test_main("arena_threads", tests);
}
