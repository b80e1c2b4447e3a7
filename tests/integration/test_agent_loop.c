/* SPDX-License-Identifier: Apache-2.0 */
/* A program's own fds in an agent's loop, and what their callbacks may call. */
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <avp/ring.h>

#include "tests/agents.h"
#include "tests/harness.h"

static struct ahp_agent *a, *b;

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * SECOND_NS + t.tv_nsec;
}

struct guest {
	struct avp_watch watch;
	int calls;
	void (*then)(struct guest *guest);
	struct ahp_message *message;
};

static void guest_ready(struct avp_watch *watch, uint32_t events)
{
	struct guest *guest = watch->arg;
	uint64_t count;

	CU_ASSERT_EQUAL(events, AVP_READABLE);
	CU_ASSERT_EQUAL(read(watch->fd, &count, 8), 8);
	guest->calls++;
	if (guest->then)
		guest->then(guest);
}

static void ring_guest(const struct guest *guest)
{
	const uint64_t one = 1;

	CU_ASSERT_EQUAL(write(guest->watch.fd, &one, 8), 8);
}

static void open_guest(struct guest *guest, enum ahp_wait wait)
{
	const struct ahp_agent_options options = {.wait = wait};

	a = agent_open("a", &options);
	b = agent_open("b", NULL);
	agents_link(a, b);
	*guest =
		(struct guest){.watch = {eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
					 AVP_READABLE, guest_ready, guest}};
	CU_ASSERT_EQUAL_FATAL(
		avp_loop_add(ahp_agent_loop(a), &guest->watch, NULL), 0);
}

static void close_guest(struct guest *guest)
{
	avp_loop_remove(ahp_agent_loop(a), &guest->watch);
	close(guest->watch.fd);
	ahp_agent_close(a);
	ahp_agent_close(b);
}

/* A wait of 20 s ends when a guest was called, and only then. */
static void ends_the_wait(void)
{
	for (int wait = AHP_WAIT_ADAPTIVE; wait <= AHP_WAIT_BLOCK; wait++) {
		struct guest guest;

		open_guest(&guest, (enum ahp_wait)wait);
		CU_ASSERT_EQUAL(ahp_agent_run(a, 1000000), 0);
		CU_ASSERT_EQUAL(guest.calls, 0);
		ring_guest(&guest);
		CU_ASSERT_EQUAL(ahp_agent_run(a, AHP_FOREVER), 0);
		CU_ASSERT_EQUAL(guest.calls, 1);
		CU_ASSERT_EQUAL(agent_say(b, "a", "x", NULL), 0);
		CU_ASSERT_EQUAL(ahp_agent_run(a, AHP_FOREVER), 1);
		CU_ASSERT(agent_hears(a, "x"));
		close_guest(&guest);
	}
}

/* The agent's own fds do not end it: here, b hangs up. */
static void own_calls_do_not(void)
{
	struct guest guest;
	int64_t start_ns;

	open_guest(&guest, AHP_WAIT_BLOCK);
	ahp_agent_close(b);
	start_ns = now_ns();
	CU_ASSERT_EQUAL(ahp_agent_run(a, 30000000), 0);
	CU_ASSERT(now_ns() - start_ns >= 30000000);
	CU_ASSERT_EQUAL(agent_stats(a).links, 0);
	b = agent_open("b", NULL);
	close_guest(&guest);
}

static void use_the_agent(struct guest *guest)
{
	const struct avp_identity none = {.hidden_dim = 1};
	struct ahp_receipt receipt = {1, 1, 1};
	struct ahp_event event;
	struct ahp_message m;
	struct ahp_mode mode;
	struct ahp_loan loan;

	CU_ASSERT_EQUAL(ahp_agent_run(a, 0), AVP_USAGE);
	CU_ASSERT_EQUAL(ahp_receive(a, &m, 0), AVP_USAGE);
	CU_ASSERT_EQUAL(agent_say(a, "b", "no", NULL), AVP_USAGE);
	CU_ASSERT_EQUAL(ahp_connect(a, "b", 0, NULL, NULL), AVP_USAGE);
	CU_ASSERT_EQUAL(ahp_loan(a, NULL, 1, 0, &loan, NULL), AVP_USAGE);
	CU_ASSERT_EQUAL(ahp_status(a, &receipt), AVP_USAGE);
	CU_ASSERT_EQUAL(ahp_wait(a, &receipt, 0), AVP_USAGE);
	CU_ASSERT_EQUAL(ahp_next_event(a, &event, 0), AVP_USAGE);
	CU_ASSERT_EQUAL(ahp_agent_arm(a), AVP_USAGE);
	CU_ASSERT_EQUAL(ahp_accept(a, guest->message), AVP_USAGE);
	CU_ASSERT_EQUAL(ahp_reject(a, guest->message), AVP_USAGE);
	CU_ASSERT_EQUAL(ahp_agent_set_identity(a, &none, NULL), AVP_USAGE);
	CU_ASSERT_EQUAL(avp_loop_run(ahp_agent_loop(a), 0), AVP_USAGE);
	ahp_agent_close(a); /* refused */

	CU_ASSERT_STRING_EQUAL(ahp_agent_id(a), "a");
	CU_ASSERT_STRING_EQUAL(ahp_peer_id(a, 1), "b");
	CU_ASSERT_EQUAL(ahp_peer_mode(a, 1, &mode), 0);
	CU_ASSERT(pattern_is(guest->message->body, 5000, 3));
	ahp_release(a, guest->message);
	CU_ASSERT_EQUAL(agent_say(b, "a", "from within", NULL), 0);
}

static void calls_from_within(void)
{
	struct ahp_message m;
	struct guest guest;

	open_guest(&guest, AHP_WAIT_ADAPTIVE);
	CU_ASSERT_EQUAL(agent_lend(b, "a", 5000, 3, NULL), 0);
	CU_ASSERT_EQUAL_FATAL(ahp_receive(a, &m, 0), 0);
	guest.then = use_the_agent;
	guest.message = &m;
	ring_guest(&guest);
	CU_ASSERT_EQUAL(ahp_agent_run(a, AHP_FOREVER), 1);
	CU_ASSERT_EQUAL(guest.calls, 1);
	/* Everything works again, and nothing was sent. */
	CU_ASSERT(agent_hears(a, "from within"));
	CU_ASSERT_EQUAL(agent_stats(a).sent, 0);
	CU_ASSERT_EQUAL(agent_say(a, "b", "yes", NULL), 0);
	CU_ASSERT(agent_hears(b, "yes"));
	agents_settle(a, b);
	CU_ASSERT_EQUAL(agent_stats(b).bytes_lent, 0);
	close_guest(&guest);
}

/* Once it is released, looks whether b has heard; a is in ahp_receive(). */
static void release_and_look(struct guest *guest)
{
	if (guest->calls == 1)
		ahp_release(a, guest->message);
	ahp_agent_run(b, 0);
	if (agent_stats(b).bytes_lent && guest->calls < 1000)
		ring_guest(guest);
	else
		CU_ASSERT_EQUAL(agent_say(b, "a", "done", NULL), 0);
}

/* Its sender may wait for the memory, and must not wait for our next message. */
static void released_from_within(void)
{
	for (int wait = AHP_WAIT_ADAPTIVE; wait <= AHP_WAIT_BLOCK; wait++) {
		struct ahp_message m, done;
		struct guest guest;

		open_guest(&guest, (enum ahp_wait)wait);
		CU_ASSERT_EQUAL(agent_lend(b, "a", 5000, 3, NULL), 0);
		CU_ASSERT_EQUAL_FATAL(ahp_receive(a, &m, 0), 0);
		guest.then = release_and_look;
		guest.message = &m;
		ring_guest(&guest);
		CU_ASSERT_EQUAL_FATAL(ahp_receive(a, &done, AHP_FOREVER), 0);
		CU_ASSERT(guest.calls < 1000);
		CU_ASSERT_EQUAL(agent_stats(b).bytes_lent, 0);
		ahp_release(a, &done);
		close_guest(&guest);
	}
}

/* An acknowledgement that was asked about ends it, as a message does. */
static void events_end_it(void)
{
	const struct ahp_outgoing m = {.target = "b",
				       .method = AHP_TASK,
				       .flags = AHP_NOTIFY,
				       .body = "{}",
				       .body_bytes = 2};
	struct ahp_event event;

	a = agent_open("a", NULL);
	b = agent_open("b", NULL);
	agents_link(a, b);
	CU_ASSERT_EQUAL(ahp_send(a, &m, 0, NULL, NULL), 0);
	CU_ASSERT_EQUAL(ahp_agent_arm(a), 0);
	CU_ASSERT(agent_hears(b, "{}"));
	ahp_agent_run(b, 0);
	CU_ASSERT_EQUAL(ahp_agent_arm(a), 1);
	CU_ASSERT_EQUAL(ahp_agent_run(a, AHP_FOREVER), 0);
	CU_ASSERT_EQUAL(ahp_next_event(a, &event, 0), 0);
	CU_ASSERT_EQUAL(event.code, 0);
	CU_ASSERT_EQUAL(ahp_agent_arm(a), 0);
	ahp_agent_close(a);
	ahp_agent_close(b);
}

#define ROUNDS 20

static void hear_all(void *arg)
{
	const struct ahp_agent_options options = {.wait = AHP_WAIT_BLOCK};
	struct ahp_agent *reader = agent_open("b", &options);
	struct ahp_message m;

	(void)arg;
	for (int i = 0; i < ROUNDS; i++) {
		CHECK(!ahp_receive(reader, &m, LONG_NS));
		ahp_release(reader, &m);
	}
	ahp_agent_run(reader, 0);
	ahp_agent_close(reader);
}

static bool has_linked(void *agent)
{
	return !ahp_connect(agent, "b", 0, NULL, NULL);
}

/* Who sleeps is woken by it, and does not find it when it looks by itself. */
static void events_wake(void)
{
	const struct ahp_agent_options options = {.wait = AHP_WAIT_BLOCK};
	const struct ahp_outgoing m = {.target = "b",
				       .method = AHP_TASK,
				       .flags = AHP_NOTIFY | AHP_PROMPT_ACK,
				       .body = "{}",
				       .body_bytes = 2};
	pid_t child = child_start(hear_all, NULL);
	struct ahp_event event;

	a = agent_open("a", &options);
	CU_ASSERT_FATAL(test_wait(has_linked, a, 20));
	for (int i = 0; i < ROUNDS; i++) {
		CU_ASSERT_EQUAL(ahp_send(a, &m, LONG_NS, NULL, NULL), 0);
		while (ahp_next_event(a, &event, 0))
			ahp_agent_run(a, LONG_NS);
		CU_ASSERT_EQUAL(event.code, 0);
	}
	CU_ASSERT_EQUAL(agent_stats(a).late_wakes, 0);
	child_finish(child);
	ahp_agent_close(a);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(ends_the_wait),
		TEST(own_calls_do_not),
		TEST(calls_from_within),
		TEST(released_from_within),
		TEST(events_end_it),
		TEST(events_wake),
		{0},
	};

	agents_begin();
	return test_main("agent_loop", tests);
}
