/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kill -9 at any moment: what a sender had published is read, in order,
 * without a gap and without garbage; what a reader had been lent comes back;
 * others are served; the name can be had again at once; nothing is left
 * behind.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/agents.h"
#include "tests/harness.h"

#define ROUNDS 60

/* What the children and we know of each other. */
struct board {
	_Atomic uint32_t ready;
	_Atomic uint32_t published; /* messages whose ahp_send() returned */
	uint32_t round;
};

static struct board *board;

/* Bodies of every form: in small slots, in long ones, lent, of pages. */
static uint64_t length_of(uint32_t n)
{
	static const uint64_t lengths[] = {8, 60, 150, 222, 300, 5000, 9, 20};

	return n % 97 == 96 ? 200000 : lengths[n % 8];
}

/* A number in front, the pattern of it behind. */
static int send_number(struct ahp_agent *agent, const char *to, uint32_t n)
{
	struct ahp_outgoing m = {.target = to, .method = AHP_TASK};
	uint64_t bytes = length_of(n);
	uint8_t small[300];
	struct ahp_loan loan;
	int error;

	m.body_bytes = bytes;
	if (bytes <= sizeof(small)) {
		pattern_fill(small, bytes, n);
		memcpy(small, &n, sizeof(n));
		m.body = small;
		return ahp_send(agent, &m, LONG_NS, NULL, NULL);
	}
	error = ahp_loan(agent, to, bytes, 0, &loan, NULL);
	if (error)
		return error;
	pattern_fill(loan.data, bytes, n);
	memcpy(loan.data, &n, sizeof(n));
	m.body = loan.data;
	m.loan = &loan;
	error = ahp_send(agent, &m, LONG_NS, NULL, NULL);
	if (error)
		ahp_loan_release(agent, &loan);
	return error;
}

static bool is_number(const struct ahp_message *m, uint32_t n)
{
	static uint8_t want[200000];
	uint64_t bytes = length_of(n);

	pattern_fill(want, bytes, n);
	memcpy(want, &n, sizeof(n));
	return m->body_bytes == bytes && !memcmp(m->body, want, bytes);
}

static void await_link(struct ahp_agent *agent, uint64_t links)
{
	for (int i = 0; i < 20000 && agent_stats(agent).links < links; i++)
		ahp_agent_run(agent, 1000000);
	CU_ASSERT_EQUAL(agent_stats(agent).links, links);
}

/* ---- the sender is killed ----------------------------------------------- */

static void send_for_ever(void *arg)
{
	const struct ahp_agent_options options = {
		.wait = board->round % 3,
		.window = 64u << board->round % 5,
	};
	struct ahp_agent *agent = agent_open("sender", &options);

	(void)arg;
	CHECK(!ahp_connect(agent, "reader", LONG_NS, NULL, NULL));
	for (uint32_t n = 0;; n++) {
		CHECK(!send_number(agent, "reader", n));
		/* release: what was sent is sent */
		atomic_store_explicit(&board->published, n + 1,
				      memory_order_release);
	}
}

/* Reads until the link has ended; how many came. */
static uint32_t read_to_the_end(struct ahp_agent *reader, pid_t pid,
				uint32_t kill_at)
{
	struct ahp_message m, held;
	bool holding = false;
	uint32_t n = 0, held_n = 0, wrong = 0;

	for (;;) {
		int error = ahp_receive(reader, &m, 5000000);

		if (error && !agent_stats(reader).links)
			break;
		if (error)
			continue;
		wrong += !is_number(&m, n);
		if (n == kill_at)
			kill(pid, SIGKILL);
		/* One view in a hundred outlives its sender. */
		if (m.in_place && !holding && n > kill_at / 2) {
			holding = true;
			held = m;
			held_n = n;
			m = (struct ahp_message){0};
		} else {
			ahp_release(reader, &m);
		}
		n++;
	}
	CU_ASSERT_EQUAL(wrong, 0);
	if (holding) {
		CU_ASSERT(is_number(&held, held_n));
		ahp_release(reader, &held);
	}
	return n;
}

static void killed_sender(void)
{
	struct ahp_agent *reader = agent_open("reader", NULL);
	uint64_t total = 0;
	uint32_t got, published;
	pid_t pid;

	srand(5);
	for (uint32_t round = 0; round < ROUNDS; round++) {
		board->round = round;
		atomic_store(&board->published, 0);
		pid = child_start(send_for_ever, NULL);
		await_link(reader, 1);
		got = read_to_the_end(reader, pid,
				      100 + (uint32_t)rand() % 3000);
		waitpid(pid, NULL, 0);
		/* Everything that was published, and at most one that was
		 * killed between its publication and our counting. */
		published = atomic_load(&board->published);
		CU_ASSERT(got == published || got == published + 1);
		total += got;
	}
	CU_ASSERT(total > ROUNDS * 100);
	CU_ASSERT_EQUAL(agent_stats(reader).poisoned, 0);
	CU_ASSERT_EQUAL(agent_stats(reader).received, total);
	/* The last one's names are still there; who looks removes them. */
	CU_ASSERT(agents_names_left() > 0);
	ahp_agent_close(reader);
}

/* ---- the reader is killed ----------------------------------------------- */

static void read_for_ever(void *arg)
{
	const struct ahp_agent_options options = {
		.flags = board->round % 2 ? AHP_EXPLICIT_ACK : 0,
		.wait = board->round % 3,
	};
	struct ahp_agent *agent = agent_open("reader", &options);
	struct ahp_message m[8];
	int held = 0;

	(void)arg;
	atomic_store(&board->ready, 1);
	for (;;) {
		if (held == 8) { /* the last first */
			while (held--) {
				ahp_accept(agent, &m[held]);
				ahp_release(agent, &m[held]);
			}
			held = 0;
		}
		if (!ahp_receive(agent, &m[held], LONG_NS))
			held++;
	}
}

static void killed_reader(void)
{
	const struct ahp_agent_options options = {.quota_bytes = 64 * MIB};
	struct ahp_agent *sender = agent_open("sender", &options);
	struct ahp_agent *other = agent_open("other", NULL);
	uint64_t sent = 0;

	agents_link(sender, other);
	srand(6);
	for (uint32_t round = 0; round < ROUNDS; round++) {
		uint32_t kill_at = 50 + (uint32_t)rand() % 2000, n = 0;
		pid_t pid;
		int error;

		board->round = round;
		atomic_store(&board->ready, 0);
		pid = child_start(read_for_ever, NULL);
		CU_ASSERT(shared_await(&board->ready, 1));
		while (!(error = send_number(sender, "reader", n)))
			if (++n == kill_at)
				kill(pid, SIGKILL);
		CU_ASSERT(error == AVP_CLOSED || error == AVP_AGENT_NOT_FOUND);
		CU_ASSERT(n >= kill_at);
		sent += n;
		waitpid(pid, NULL, 0);
		ahp_agent_run(sender, 0);
		CU_ASSERT_EQUAL(agent_stats(sender).bytes_lent, 0);
		CU_ASSERT_EQUAL(agent_stats(sender).links, 1);
		CU_ASSERT_EQUAL(agent_say(sender, "other", "on", NULL), 0);
		CU_ASSERT(agent_hears(other, "on"));
		agents_settle(other, sender);
	}
	CU_ASSERT_EQUAL(agent_stats(sender).poisoned, 0);
	CU_ASSERT(agent_stats(sender).in_flight <= 64);
	CU_ASSERT(agent_stats(sender).sent == sent + ROUNDS);
	ahp_agent_close(other);
	ahp_agent_close(sender);
}

/* ---- names that are left ------------------------------------------------ */

static void open_and_wait(void *id)
{
	struct ahp_agent *agent = agent_open(id, NULL);

	atomic_fetch_add(&board->ready, 1);
	for (;;)
		ahp_agent_run(agent, LONG_NS);
}

struct sight {
	int dead, alive, stuck;
};

static void look(void *arg, const struct ahp_observation *seen)
{
	struct sight *sight = arg;

	sight->dead += !strcmp(seen->state, "dead");
	sight->alive += !strcmp(seen->state, "alive");
	sight->stuck += !strcmp(seen->state, "stuck");
}

static struct sight observe(void)
{
	struct sight sight = {0};

	CU_ASSERT_EQUAL(ahp_observe(NULL, NULL, look, &sight, NULL), 0);
	return sight;
}

static void leftovers_are_removed(void)
{
	static char id[5][8] = {"l1", "l2", "l3", "l4", "l5"};
	struct ahp_agent *agent;
	struct sight sight;
	pid_t pid[5];

	observe(); /* what other tests have left */
	CU_ASSERT_EQUAL(agents_names_left(), 0);
	atomic_store(&board->ready, 0);
	for (int i = 0; i < 5; i++)
		pid[i] = child_start(open_and_wait, id[i]);
	CU_ASSERT(shared_await(&board->ready, 5));
	sight = observe();
	CU_ASSERT_EQUAL(sight.alive, 5);
	for (int i = 0; i < 3; i++)
		child_kill(pid[i]);
	/* The name of one is had again at once, the others are removed. */
	agent = agent_open("l1", NULL);
	sight = observe();
	CU_ASSERT_EQUAL(sight.dead, 2);
	CU_ASSERT_EQUAL(sight.alive, 3);
	CU_ASSERT_EQUAL(agents_names_left(), 3 * 3 + 1);
	ahp_agent_close(agent);
	child_kill(pid[3]);
	child_kill(pid[4]);
	sight = observe();
	CU_ASSERT_EQUAL(sight.dead, 2);
	CU_ASSERT_EQUAL(agents_names_left(), 0);
}

/* ---- a forked child keeps socket and lock ------------------------------- */

static void fork_and_wait(void *arg)
{
	struct ahp_agent *agent = agent_open("parent", NULL);
	struct ahp_message m;

	(void)arg;
	CHECK(!ahp_connect(agent, "friend", LONG_NS, NULL, NULL));
	CHECK(!ahp_receive(agent, &m, LONG_NS));
	if (!fork()) {
		alarm(60); /* it outlives its parent, not the test */
		atomic_store(&board->published, (uint32_t)getpid());
		for (;;)
			pause();
	}
	for (;;)
		ahp_agent_run(agent, LONG_NS);
}

static bool is_unlinked(void *agent)
{
	ahp_agent_run(agent, 0);
	return !agent_stats(agent).links;
}

static void forked_child_of_a_killed_agent(void)
{
	struct ahp_agent *friend = agent_open("friend", NULL), *again;
	struct ahp_receipt receipt;
	struct avp_reason why;
	struct sight sight;
	pid_t pid, child;

	atomic_store(&board->published, 0);
	pid = child_start(fork_and_wait, NULL);
	await_link(friend, 1);
	CU_ASSERT_EQUAL(agent_lend(friend, "parent", 9999, 1, &receipt), 0);
	CU_ASSERT(shared_await(&board->published, 1));
	CU_ASSERT_EQUAL(
		ahp_agent_open(&again,
			       &(struct ahp_agent_options){
				       .size = sizeof(struct ahp_agent_options),
				       .id = "parent"},
			       &why),
		AVP_NAME_TAKEN);
	child_kill(pid);
	child = (pid_t)atomic_load(&board->published);
	CU_ASSERT_EQUAL(kill(child, 0), 0);
	/* The socket is open, but the process is dead: memory comes back. */
	CU_ASSERT(test_wait(is_unlinked, friend, 10));
	CU_ASSERT_EQUAL(agent_stats(friend).bytes_lent, 0);
	/* Observers see it, whoever holds the lock. */
	sight = observe();
	CU_ASSERT_EQUAL(sight.dead, 1);
	CU_ASSERT_EQUAL(sight.alive, 1);
	sight = observe();
	CU_ASSERT_EQUAL(sight.dead, 0);
	/* And its name can be taken over, and linked to. */
	again = agent_open("parent", NULL);
	agents_link(friend, again);
	CU_ASSERT_EQUAL(agent_say(friend, "parent", "new", NULL), 0);
	CU_ASSERT(agent_hears(again, "new"));
	kill(child, SIGKILL);
	ahp_agent_close(again);
	ahp_agent_close(friend);
	CU_ASSERT_EQUAL(agents_names_left(), 0);
}

/* ---- killed while opening, linking, closing ----------------------------- */

static void open_link_close(void *arg)
{
	(void)arg;
	for (;;) {
		struct ahp_agent *agent = agent_open("busy", NULL);

		if (!ahp_connect(agent, "hub", LONG_NS, NULL, NULL)) {
			agent_say(agent, "hub", "x", NULL);
			agent_lend(agent, "hub", 5000, 1, NULL);
		}
		atomic_fetch_add(&board->ready, 1);
		ahp_agent_close(agent);
	}
}

static bool enough(void *hub)
{
	struct ahp_message m;

	while (!ahp_receive(hub, &m, 100000))
		ahp_release(hub, &m);
	return atomic_load(&board->ready) >= board->round;
}

/* A moment, which is not a condition: to kill at a place of its choice. */
static void spin_ns(long ns)
{
	struct timespec t, now;

	clock_gettime(CLOCK_MONOTONIC, &t);
	do
		clock_gettime(CLOCK_MONOTONIC, &now);
	while ((now.tv_sec - t.tv_sec) * 1000000000 + now.tv_nsec - t.tv_nsec <
	       ns);
}

static void killed_anywhere(void)
{
	struct ahp_agent *hub = agent_open("hub", NULL);
	struct ahp_message m;

	srand(8);
	for (uint32_t round = 0; round < ROUNDS; round++) {
		pid_t pid;

		atomic_store(&board->ready, 0);
		board->round = 1 + round % 3;
		pid = child_start(open_link_close, NULL);
		CU_ASSERT(test_wait(enough, hub, 20));
		spin_ns(rand() % 2000000);
		child_kill(pid);
	}
	while (!ahp_receive(hub, &m, 0) || agent_stats(hub).links)
		ahp_release(hub, &m);
	CU_ASSERT_EQUAL(agent_stats(hub).poisoned, 0);
	ahp_agent_close(hub);
	observe();
	/* A temporary name may be left of one that was killed while opening. */
	CU_ASSERT_EQUAL(agents_names_left(), 0);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(killed_sender),
		TEST(killed_reader),
		TEST(leftovers_are_removed),
		TEST(forked_child_of_a_killed_agent),
		TEST(killed_anywhere),
		{0},
	};
	int status;

	agents_begin();
	board = shared_new(sizeof(*board));
	status = test_main("killed", tests);
	shared_free(board, sizeof(*board));
	return status;
}
