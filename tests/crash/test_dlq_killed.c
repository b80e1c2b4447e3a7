/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that stores dead letters, killed at any moment, again and again:
 * what it had reported as stored is there, whole, and nothing that it never
 * wrote. Another one rewrites the journal meanwhile and is killed too.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <avp/dlq.h>

#include "tests/agents.h"
#include "tests/harness.h"

#define ROUNDS	   40
#define BODY_BYTES 3000

/* What the writer says before it dies. */
struct told {
	_Atomic uint32_t begun;	 /* letters up to here may be there */
	_Atomic uint32_t stored; /* letters up to here are there */
	_Atomic uint32_t rewrites;
};

static struct told *told;

static struct ahp_dlq *open_queue(void)
{
	struct ahp_dlq_options o = {
		.size = sizeof(o), .dir = test_dir(), .name_space = "killed"};
	struct ahp_dlq *q;
	struct avp_reason why;

	if (ahp_dlq_open(&q, &o, &why)) {
		fprintf(stderr, "%s\n", why.text);
		_exit(1);
	}
	return q;
}

static void store(void *arg)
{
	struct ahp_dlq *q = open_queue();
	static uint8_t body[BODY_BYTES];
	uint64_t ticket = 0;
	uint32_t n = told->begun;
	char error[32];

	(void)arg;
	for (;;) {
		for (int i = 0; i < 8; i++) {
			struct ahp_dlq_letter l = {.agent = {"a", 1},
						   .kind = AHP_FRAME,
						   .body = body,
						   .body_bytes = BODY_BYTES};

			told->begun = ++n;
			pattern_fill(body, BODY_BYTES, n);
			snprintf(error, sizeof(error), "%u", n);
			l.error = avp_str_of(error);
			CHECK(!ahp_dlq_append(q, &l, &ticket, NULL));
		}
		CHECK(!ahp_dlq_commit(q, NULL));
		CHECK(ahp_dlq_stored(q, ticket));
		told->stored = n;
	}
}

static void rewrite(void *arg)
{
	struct ahp_dlq *q = open_queue();

	(void)arg;
	for (;;) {
		CHECK(!ahp_dlq_compact(q, NULL));
		told->rewrites++;
	}
}

/* The letters from the first of this round to the last stored, and maybe on. */
static void check(uint32_t first, uint32_t stored, uint32_t begun)
{
	struct ahp_dlq *q = open_queue();
	struct ahp_dlq_entry e;
	uint8_t body[BODY_BYTES];
	uint32_t want = first, n;
	uint64_t after = 0;

	while (ahp_dlq_next(q, after, &e, NULL) == 1) {
		after = e.number;
		n = (uint32_t)strtoul(e.error.data, NULL, 10);
		CU_ASSERT_EQUAL(n, want);
		CU_ASSERT_EQUAL_FATAL(e.body_bytes, BODY_BYTES);
		CU_ASSERT_EQUAL(ahp_dlq_body(q, &e, body, NULL), 0);
		CU_ASSERT(pattern_is(body, BODY_BYTES, n));
		want = n + 1;
		ahp_dlq_entry_fini(&e);
	}
	CU_ASSERT(want > stored && want <= begun + 1);
	CU_ASSERT_EQUAL(ahp_dlq_clear(q, (struct avp_str){"", 0}, NULL, NULL),
			0);
	ahp_dlq_close(q);
}

static void everything_stored_is_there(void)
{
	unsigned seed = 7;

	told = shared_new(sizeof(*told));
	for (int round = 0; round < ROUNDS; round++) {
		uint32_t first = told->begun + 1, rewrites = told->rewrites;
		pid_t writer = child_start(store, NULL);
		pid_t other = round % 2 ? child_start(rewrite, NULL) : 0;

		/* Some commits in; then after some more instructions. */
		CU_ASSERT(shared_await(&told->stored, first + 8));
		if (other)
			CU_ASSERT(shared_await(&told->rewrites, rewrites + 1));
		for (unsigned i = rand_r(&seed) % 300000; i; i--)
			__asm__ volatile("");
		child_kill(writer);
		if (other)
			child_kill(other);
		check(first, told->stored, told->begun);
	}
	shared_free(told, sizeof(*told));
}

int main(void)
{
	static const struct test tests[] = {
		TEST(everything_stored_is_there),
		{0},
	};

	test_dir(); /* before there are children */
	return test_main("dlq_killed", tests);
}
