/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dead letters of agents in a queue on disk: what an event says is kept can be
 * read there by somebody else, whatever happens to the agent afterwards.
 */
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <avp/dlq.h>
#include <avp/leader.h>

#include "tests/agents.h"
#include "tests/harness.h"

#define DEAD 200

static const struct ahp_agent_options hasty = {
	.flags = AHP_RELIABLE,
	.max_retries = AHP_NO_RETRY,
};
static const struct ahp_agent_options careful = {.flags = AHP_EXPLICIT_ACK};
static struct ahp_agent *a, *b;
static struct agent_log said;

static struct ahp_dlq *open_queue(const char *name, uint32_t flags,
				  uint64_t max_bytes)
{
	char dir[400];
	struct ahp_dlq_options o = {.size = sizeof(o),
				    .flags = flags,
				    .dir = dir,
				    .name_space = name,
				    .max_bytes = max_bytes};
	struct avp_reason why;
	struct ahp_dlq *q = NULL;

	snprintf(dir, sizeof(dir), "%s/dlq", test_dir());
	CU_ASSERT_EQUAL_FATAL(ahp_dlq_open(&q, &o, &why), 0);
	return q;
}

static uint64_t entries(struct ahp_dlq *q)
{
	struct ahp_dlq_info info = {0};

	CU_ASSERT_EQUAL(ahp_dlq_info(q, &info, NULL), 0);
	return info.entries;
}

static void open_pair(struct ahp_dlq *q)
{
	struct ahp_agent_options options = hasty;

	memset(&said, 0, sizeof(said));
	options.log = agent_log;
	options.log_arg = &said;
	a = agent_open("a", &options);
	b = agent_open("b", &careful);
	agents_link(a, b);
	CU_ASSERT_EQUAL(ahp_agent_keep_dlq(a, q, NULL), 0);
}

static void close_pair(void)
{
	ahp_agent_close(b);
	ahp_agent_close(a);
}

/* Sends what b rejects; its event comes later. */
static void send_rejected(struct ahp_outgoing *out)
{
	struct ahp_message m;

	out->target = "b";
	out->method = AHP_TASK;
	out->flags |= AHP_NOTIFY;
	CU_ASSERT_EQUAL_FATAL(ahp_send(a, out, LONG_NS, NULL, NULL), 0);
	CU_ASSERT_EQUAL_FATAL(ahp_receive(b, &m, LONG_NS), 0);
	CU_ASSERT_EQUAL(ahp_reject(b, &m), 0);
	ahp_release(b, &m);
	ahp_agent_run(b, 0);
}

static struct ahp_event next_event(void)
{
	struct ahp_event event = {.code = AVP_UNKNOWN};

	CU_ASSERT_EQUAL(ahp_next_event(a, &event, LONG_NS), 0);
	return event;
}

/* ---- what a letter says ------------------------------------------------- */

static void says_what_died(void)
{
	static const char payload[] = "{\"number\": 7}";
	const uint8_t id[16] = {0x12, 0x34, [15] = 0x56};
	struct ahp_outgoing out = {.task_id = {"t-1", 3},
				   .session_id = {"s-1", 3},
				   .token_limit = 321,
				   .message_id = id,
				   .body = payload,
				   .body_bytes = sizeof(payload) - 1};
	struct ahp_dlq *q = open_queue("says", 0, 0), *other;
	struct ahp_dlq_entry e = {0};
	struct ahp_event event;
	int64_t number = 0;

	open_pair(q);
	send_rejected(&out);
	event = next_event();
	CU_ASSERT_EQUAL(event.code, AVP_RETRY_EXHAUSTED);
	CU_ASSERT_EQUAL(event.kept, 1);
	CU_ASSERT_EQUAL(agent_stats(a).kept, 1);
	CU_ASSERT_EQUAL(agent_stats(a).dead, 1);
	other = open_queue("says", AHP_DLQ_READ_ONLY, 0);
	CU_ASSERT_EQUAL_FATAL(ahp_dlq_next(other, 0, &e, NULL), 1);
	CU_ASSERT(avp_str_equal(e.agent, avp_str_of("b")));
	CU_ASSERT_EQUAL(e.code, AVP_RETRY_EXHAUSTED);
	CU_ASSERT_EQUAL(e.retry_count, 0);
	CU_ASSERT_EQUAL(e.body_bytes, 0);
	CU_ASSERT(avp_str_equal(e.message.method, avp_str_of("TASK")));
	CU_ASSERT(avp_str_equal(e.message.agent_id, avp_str_of("a")));
	CU_ASSERT(avp_str_equal(e.message.target_agent, avp_str_of("b")));
	CU_ASSERT(avp_str_equal(e.message.task_id, avp_str_of("t-1")));
	CU_ASSERT(avp_str_equal(e.message.session_id, avp_str_of("s-1")));
	CU_ASSERT_EQUAL(e.message.token_limit, 321);
	CU_ASSERT(avp_str_equal(
		e.message.message_id,
		avp_str_of("12340000-0000-0000-0000-000000000056")));
	CU_ASSERT_EQUAL(
		avp_json_int64(avp_json_get(e.message.payload, "number"),
			       &number),
		0);
	CU_ASSERT_EQUAL(number, 7);
	ahp_dlq_entry_fini(&e);
	ahp_dlq_close(other);
	close_pair();
	ahp_dlq_close(q);
}

/* What is no JSON object, no UTF-8, or no JSON at all is kept as it was. */
static void keeps_what_is_no_payload(void)
{
	static const struct avp_str body[] = {
		{"not JSON", 8},  {"[1, 2]", 6}, {"{\"a\": \"\xff\"}", 10},
		{"{\"a\": 1", 7}, {"\0\0\0", 3},
	};
	const unsigned bodies = sizeof(body) / sizeof(*body);
	struct ahp_dlq *q = open_queue("bodies", 0, 0);
	struct ahp_dlq_entry e;
	uint64_t after = 0;
	char got[64];

	open_pair(q);
	for (unsigned i = 0; i < bodies; i++) {
		struct ahp_outgoing out = {.task_id = {"t\xff", 2},
					   .body = body[i].data,
					   .body_bytes = body[i].len};

		send_rejected(&out);
		CU_ASSERT_EQUAL(next_event().kept, 1);
	}
	for (unsigned i = 0; i < bodies; i++) {
		CU_ASSERT_EQUAL_FATAL(ahp_dlq_next(q, after, &e, NULL), 1);
		after = e.number;
		CU_ASSERT_EQUAL_FATAL(e.body_bytes, body[i].len);
		CU_ASSERT_EQUAL(ahp_dlq_body(q, &e, got, NULL), 0);
		CU_ASSERT(!memcmp(got, body[i].data, body[i].len));
		CU_ASSERT(avp_str_equal(e.message.task_id, avp_str_of("t?")));
		ahp_dlq_entry_fini(&e);
	}
	close_pair();
	ahp_dlq_close(q);
}

static void too_large_a_body(void)
{
	const uint64_t bytes = AHP_DLQ_MIN_BYTES * 2;
	struct ahp_dlq *q = open_queue("large", 0, AHP_DLQ_MIN_BYTES);
	struct ahp_outgoing out = {.kind = AHP_JSON, .body_bytes = bytes};
	char *body = malloc(bytes);
	struct ahp_dlq_entry e;

	memset(body, 'x', bytes);
	out.body = body;
	open_pair(q);
	send_rejected(&out);
	CU_ASSERT_EQUAL(next_event().kept, 1);
	CU_ASSERT_EQUAL_FATAL(ahp_dlq_next(q, 0, &e, NULL), 1);
	CU_ASSERT_EQUAL(e.body_bytes, 0);
	CU_ASSERT_PTR_NOT_NULL(
		memmem(e.error.data, e.error.len, "131072 bytes", 12));
	ahp_dlq_entry_fini(&e);
	close_pair();
	ahp_dlq_close(q);
	free(body);
}

/* ---- when it is told ---------------------------------------------------- */

/*
 * Many die at once, and are stored in few groups: the journal has each before
 * its event comes.
 */
static void told_once_stored(void)
{
	struct ahp_dlq *q = open_queue("many", 0, 0);
	struct ahp_dlq *other = open_queue("many", AHP_DLQ_READ_ONLY, 0);

	open_pair(q);
	for (unsigned i = 0; i < DEAD; i++)
		send_rejected(&(struct ahp_outgoing){.body = NULL});
	for (unsigned i = 0; i < DEAD; i++) {
		CU_ASSERT_EQUAL(next_event().kept, 1);
		CU_ASSERT(ahp_dlq_stored(q, i + 1));
	}
	CU_ASSERT_EQUAL(agent_stats(a).kept, DEAD);
	CU_ASSERT_EQUAL(agent_stats(a).dead, DEAD);
	CU_ASSERT_EQUAL(entries(other), DEAD);
	CU_ASSERT_EQUAL(said.count, 1); /* "linked to b" */
	ahp_dlq_close(other);
	close_pair();
	ahp_dlq_close(q);
}

/* By a foreign loop: its fd tells when the disk has it. */
static void in_a_foreign_loop(void)
{
	struct ahp_dlq *q = open_queue("foreign", 0, 0);
	struct ahp_event event;

	open_pair(q);
	CU_ASSERT(ahp_agent_fd(a) >= 0);
	send_rejected(&(struct ahp_outgoing){.body = NULL});
	for (int i = 0; i < 2000 && ahp_next_event(a, &event, 0); i++) {
		ahp_agent_arm(a);
		CU_ASSERT_FATAL(i < 1999);
		poll(&(struct pollfd){ahp_agent_fd(a), POLLIN, 0}, 1, 10);
		ahp_agent_run(a, 0);
	}
	CU_ASSERT_EQUAL(event.kept, 1);
	close_pair();
	ahp_dlq_close(q);
}

/* Closing an agent stores what is still under way, and what dies with it. */
static void stored_at_the_end(void)
{
	struct ahp_dlq *q = open_queue("end", 0, 0), *other;
	struct ahp_outgoing out = {.target = "nobody", .method = AHP_TASK};

	open_pair(q);
	for (int i = 0; i < 5; i++)
		CU_ASSERT_EQUAL(ahp_send(a, &out, 0, NULL, NULL), 0);
	send_rejected(&(struct ahp_outgoing){.body = NULL});
	ahp_agent_run(a, 0);
	close_pair();
	CU_ASSERT(ahp_dlq_stored(q, 6));
	ahp_dlq_close(q);
	other = open_queue("end", AHP_DLQ_READ_ONLY, 0);
	CU_ASSERT_EQUAL(entries(other), 6);
	ahp_dlq_close(other);
}

/* Another queue, then none: each has what died in its time. */
static void another_queue(void)
{
	struct ahp_dlq *q[2] = {open_queue("one", 0, 0),
				open_queue("two", 0, 0)};
	struct ahp_dlq *look = open_queue("two", AHP_DLQ_READ_ONLY, 0);
	struct avp_reason why;

	open_pair(q[0]);
	CU_ASSERT_EQUAL(ahp_agent_keep_dlq(a, look, &why), AVP_USAGE);
	ahp_dlq_close(look);
	send_rejected(&(struct ahp_outgoing){.body = NULL});
	ahp_agent_run(a, 0); /* which begins to store it */
	CU_ASSERT_EQUAL(ahp_agent_keep_dlq(a, q[1], NULL), 0);
	CU_ASSERT(ahp_dlq_stored(q[0], 1));
	ahp_dlq_close(q[0]);
	send_rejected(&(struct ahp_outgoing){.body = NULL});
	CU_ASSERT_EQUAL(next_event().kept, 1);
	CU_ASSERT_EQUAL(next_event().kept, 1);
	CU_ASSERT(ahp_dlq_stored(q[1], 1));
	CU_ASSERT_EQUAL(ahp_agent_keep_dlq(a, NULL, NULL), 0);
	ahp_dlq_close(q[1]);
	send_rejected(&(struct ahp_outgoing){.body = NULL});
	CU_ASSERT_EQUAL(next_event().kept, 0);
	CU_ASSERT_EQUAL(agent_stats(a).kept, 2);
	CU_ASSERT_EQUAL(agent_stats(a).dead, 3);
	close_pair();
}

/* ---- what cannot be kept ------------------------------------------------ */

static int count_letter(void *arg, const struct ahp_dead_letter *letter)
{
	CU_ASSERT_STRING_EQUAL(letter->target, "b");
	++*(unsigned *)arg;
	return 0;
}

/* A full disk: it is logged, told, and the program may have the letter. */
static void full_disk(void)
{
	struct ahp_dlq *q = open_queue("full", 0, 0);
	struct ahp_outgoing out = {.task_id = {"t-9", 3}};
	struct rlimit old, small;
	unsigned buried = 0;

	open_pair(q);
	getrlimit(RLIMIT_FSIZE, &old);
	small = old;
	small.rlim_cur = 100;
	setrlimit(RLIMIT_FSIZE, &small);
	send_rejected(&out);
	CU_ASSERT_EQUAL(next_event().kept, 0);
	CU_ASSERT_EQUAL(said.last, AVP_RETRY_EXHAUSTED);
	CU_ASSERT_STRING_EQUAL(said.task, "t-9");
	ahp_agent_bury(a, count_letter, &buried);
	send_rejected(&out);
	CU_ASSERT_EQUAL(next_event().kept, 1);
	CU_ASSERT_EQUAL(buried, 1);
	CU_ASSERT_EQUAL(said.last, AVP_IO);
	setrlimit(RLIMIT_FSIZE, &old);
	send_rejected(&out);
	CU_ASSERT_EQUAL(next_event().kept, 1);
	CU_ASSERT_EQUAL(buried, 1);
	CU_ASSERT_EQUAL(entries(q), 1);
	close_pair();
	ahp_dlq_close(q);
}

/* ---- the collector ------------------------------------------------------ */

/* The news of a task without result comes when its letter is on the disk. */
static void collected_late(void)
{
	struct ahp_dlq *q = open_queue("late", 0, 0);
	const char *target = "sub";
	struct ahp_agent *sub;
	struct ahp_leader *leader;
	struct ahp_dlq_entry e;
	struct ahp_message m;
	struct ahp_news news;

	a = agent_open("leader", NULL);
	sub = agent_open("sub", NULL);
	agents_link(a, sub);
	CU_ASSERT_EQUAL(ahp_agent_keep_dlq(a, q, NULL), 0);
	CU_ASSERT_EQUAL_FATAL(ahp_leader_open(&leader, a, NULL, NULL), 0);
	for (unsigned i = 0; i < 3; i++) {
		char text[8];
		struct ahp_outgoing task = {.task_id = {text, 2},
					    .deadline_ns = SECOND_NS / 20};

		snprintf(text, sizeof(text), "t%u", i);
		CU_ASSERT_EQUAL(ahp_leader_dispatch(leader, &task, &target, 1,
						    0, NULL, NULL),
				1);
		CU_ASSERT_EQUAL(ahp_receive(sub, &m, 0), 0);
		ahp_release(sub, &m);
	}
	ahp_agent_run(sub, 0);
	for (unsigned i = 0; i < 3; i++) {
		CU_ASSERT_EQUAL_FATAL(ahp_leader_next(leader, &news, LONG_NS),
				      0);
		CU_ASSERT_EQUAL(news.kind, AHP_NEWS_DEAD);
		CU_ASSERT_EQUAL(news.code, AVP_TIMEOUT);
		CU_ASSERT(ahp_dlq_stored(q, i + 1));
	}
	CU_ASSERT_EQUAL(ahp_leader_open_tasks(leader), 0);
	CU_ASSERT_EQUAL_FATAL(ahp_dlq_next(q, 0, &e, NULL), 1);
	CU_ASSERT_EQUAL(e.code, AVP_TIMEOUT);
	CU_ASSERT_EQUAL(e.message.message_id.len, AHP_ID_TEXT_BYTES - 1);
	ahp_dlq_entry_fini(&e);
	ahp_leader_close(leader);
	ahp_agent_close(sub);
	ahp_agent_close(a);
	ahp_dlq_close(q);
}

/* ---- kills -------------------------------------------------------------- */

struct shared {
	_Atomic uint32_t told;
};
static struct shared *shared;

static void die_telling(void *arg)
{
	struct ahp_dlq *q = open_queue("killed", 0, 0);
	struct ahp_event event;

	(void)arg;
	open_pair(q);
	for (;;) {
		send_rejected(&(struct ahp_outgoing){.body = NULL});
		while (!ahp_next_event(a, &event, 0)) {
			CHECK(event.kept);
			shared->told++;
		}
	}
}

static void pass_over(void *arg, const struct ahp_observation *agent)
{
	(void)arg, (void)agent;
}

/* Killed at any moment: what was told is there, and little more. */
static void killed(void)
{
	struct ahp_dlq *look;
	pid_t pid;

	shared = shared_new(sizeof(*shared));
	for (uint32_t round = 1; round <= 4; round++) {
		uint32_t told = shared->told;

		pid = child_start(die_telling, NULL);
		CU_ASSERT(shared_await(&shared->told, told + 5 * round));
		child_kill(pid);
		look = open_queue("killed", AHP_DLQ_READ_ONLY, 0);
		CU_ASSERT(entries(look) >= shared->told);
		ahp_dlq_close(look);
	}
	shared_free(shared, sizeof(*shared));
	CU_ASSERT_EQUAL(ahp_observe(NULL, NULL, pass_over, NULL, NULL), 0);
	CU_ASSERT_EQUAL(agents_names_left(), 0);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(says_what_died),
		TEST(keeps_what_is_no_payload),
		TEST(too_large_a_body),
		TEST(told_once_stored),
		TEST(in_a_foreign_loop),
		TEST(stored_at_the_end),
		TEST(another_queue),
		TEST(full_disk),
		TEST(collected_late),
		TEST(killed),
		{0},
	};

	agents_begin();
	return test_main("keep", tests);
}
