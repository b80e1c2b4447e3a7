/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One leader and eight sub-agents, each a process: thousands of tasks, of which
 * some are rejected, some delayed, some sent twice, while one sub-agent is
 * killed and comes back. Every task ends exactly once, with a result or as a
 * dead letter on disk.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <avp/dlq.h>
#include <avp/leader.h>

#include "tests/agents.h"
#include "tests/harness.h"

#define SUBS	 8
#define VICTIM	 3
#define TASKS	 4000
#define LATER	 6  /* messages that a sub-agent works on at once */
#define HOPELESS 97 /* every such task is always rejected */
#define TWICE	 5  /* every such task is sent twice */

struct shared {
	_Atomic uint32_t up, stop, spare;
	_Atomic uint32_t delivered[TASKS], rejected, again;
};
static struct shared *shared;

static const char *const name[SUBS] = {"sub-0", "sub-1", "sub-2", "sub-3",
				       "sub-4", "sub-5", "sub-6", "sub-7"};

/* ---- a sub-agent -------------------------------------------------------- */

struct sub {
	struct ahp_agent *agent;
	struct ahp_message later[LATER];
	unsigned waiting;
	uint64_t random;
};

static uint32_t draw(struct sub *s, uint32_t below)
{
	s->random ^= s->random << 13;
	s->random ^= s->random >> 7;
	s->random ^= s->random << 17;
	return (uint32_t)(s->random >> 33) % below;
}

static uint32_t number_of(struct avp_str task)
{
	char text[16] = {0};

	CHECK(task.len < sizeof(text));
	memcpy(text, task.data, task.len);
	return (uint32_t)strtoul(text + 1, NULL, 10);
}

static void say(struct sub *s, const struct ahp_message *m, uint8_t method,
		const char *text)
{
	struct ahp_outgoing out = {.peer = m->peer,
				   .method = method,
				   .task_id = m->task_id,
				   .body = text,
				   .body_bytes = strlen(text)};

	CHECK(!ahp_send(s->agent, &out, LONG_NS, NULL, NULL));
}

static void answer(struct sub *s, struct ahp_message *m)
{
	uint32_t task = number_of(m->task_id);

	CHECK(pattern_is(m->body, m->body_bytes, task));
	if (task % HOPELESS == 0 || draw(s, 10) == 0) {
		atomic_fetch_add(&shared->rejected, 1);
		CHECK(!ahp_reject(s->agent, m));
	} else {
		if (draw(s, 4) == 0)
			say(s, m, AHP_PROGRESS,
			    "{\"progress\": 0.5, \"message\": \"\"}");
		say(s, m, AHP_RESULT,
		    "{\"result\": {}, \"status\": \"success\"}");
		CHECK(!ahp_accept(s->agent, m));
	}
	ahp_release(s->agent, m);
}

/* Answers one of those that wait; its place is filled by the last. */
static void answer_later(struct sub *s)
{
	unsigned at = draw(s, s->waiting);

	answer(s, &s->later[at]);
	s->waiting--;
	/* Messages must not be moved: those behind are answered too. */
	while (s->waiting > at) {
		answer(s, &s->later[s->waiting]);
		s->waiting--;
	}
}

static void run_sub(void *arg)
{
	const struct ahp_agent_options options = {.flags = AHP_EXPLICIT_ACK,
						  .window = 64};
	uint32_t number = (uint32_t)(uintptr_t)arg;
	static struct sub s;

	if (number >= SUBS) {
		CHECK(shared_await(&shared->spare, 1));
		number -= SUBS;
	}
	s.random = number * 7919 + 12345;
	s.agent = agent_open(name[number], &options);
	atomic_fetch_add(&shared->up, 1);
	while (!atomic_load(&shared->stop)) {
		struct ahp_message *m = &s.later[s.waiting];

		if (ahp_receive(s.agent, m, SECOND_NS / 100)) {
			if (s.waiting)
				answer_later(&s);
			continue;
		}
		CHECK(m->method == AHP_TASK);
		if (draw(&s, 3) == 0) {
			if (++s.waiting == LATER)
				answer_later(&s);
			continue;
		}
		atomic_fetch_add(&shared->delivered[number_of(m->task_id)], 1);
		answer(&s, m);
	}
	ahp_agent_close(s.agent);
}

/* ---- the leader --------------------------------------------------------- */

struct score {
	uint32_t result[TASKS], dead[TASKS], letter[TASKS];
	uint32_t results, deads, letters, progress, again;
};

static bool collect(struct ahp_leader *leader, struct score *score,
		    int64_t timeout_ns)
{
	struct ahp_news news;

	if (ahp_leader_next(leader, &news, timeout_ns))
		return false;
	switch (news.kind) {
	case AHP_NEWS_RESULT:
		score->results++;
		score->result[number_of(news.task_id)]++;
		break;
	case AHP_NEWS_DEAD:
		score->deads++;
		score->dead[number_of(news.task_id)]++;
		break;
	case AHP_NEWS_PROGRESS: score->progress++; break;
	default:
		/* Only who was killed may have worked twice. */
		CU_ASSERT_STRING_EQUAL(news.source, name[VICTIM]);
		score->again++;
	}
	ahp_leader_done(leader, &news);
	return true;
}

static void dispatch(struct ahp_agent *agent, struct ahp_leader *leader,
		     uint32_t task, struct score *score)
{
	static uint8_t body[3000];
	uint8_t id[16] = {0xaa};
	char text[16];
	const char *target = name[task % SUBS];
	struct ahp_outgoing out = {.target = target,
				   .method = AHP_TASK,
				   .flags = AHP_RELIABLE,
				   .task_id = {text, 0},
				   .body = body,
				   .body_bytes = task % 7 ? 40 : 3000};

	out.task_id.len = (size_t)snprintf(text, sizeof(text), "t%u", task);
	pattern_fill(body, out.body_bytes, task);
	memcpy(id + 4, &task, sizeof(task));
	if (task % 3 == 0)
		out.message_id = id;
	while (ahp_leader_dispatch(leader, &out, &target, 1, 0, NULL, NULL) < 1)
		collect(leader, score, SECOND_NS / 100);
	if (task % 3 == 0 && task % TWICE == 0 && task % HOPELESS)
		while (ahp_send(agent, &out, 0, NULL, NULL))
			collect(leader, score, SECOND_NS / 100);
}

static bool quiet(const struct ahp_agent *agent)
{
	struct ahp_stats stats = agent_stats(agent);

	return !stats.in_flight && !stats.waiting && !stats.bytes_lent;
}

static struct ahp_dlq *open_queue(uint32_t flags)
{
	struct ahp_dlq_options o = {.size = sizeof(o),
				    .flags = flags,
				    .dir = test_dir(),
				    .name_space = "dlq"};
	struct ahp_dlq *q = NULL;

	CU_ASSERT_EQUAL_FATAL(ahp_dlq_open(&q, &o, NULL), 0);
	return q;
}

/* The letters as somebody else sees them. */
static void read_letters(struct score *score)
{
	static uint8_t body[3000];
	struct ahp_dlq *q = open_queue(AHP_DLQ_READ_ONLY);
	struct ahp_dlq_entry e;
	uint64_t after = 0;

	while (ahp_dlq_next(q, after, &e, NULL) == 1) {
		uint32_t task = number_of(e.message.task_id);

		after = e.number;
		CU_ASSERT_EQUAL(e.code, AVP_RETRY_EXHAUSTED);
		CU_ASSERT_EQUAL(e.retry_count, 3);
		CU_ASSERT(
			avp_str_equal(e.agent, avp_str_of(name[task % SUBS])));
		CU_ASSERT_FATAL(e.body_bytes <= sizeof(body));
		CU_ASSERT_EQUAL(ahp_dlq_body(q, &e, body, NULL), 0);
		CU_ASSERT(pattern_is(body, e.body_bytes, task));
		score->letter[task]++;
		score->letters++;
		ahp_dlq_entry_fini(&e);
	}
	ahp_dlq_close(q);
}

/* Sent twice, or worked on when its sub-agent was killed: more may be seen. */
static bool once_only(uint32_t task)
{
	return task % SUBS != VICTIM && (task % 3 || task % TWICE);
}

static void check_ends(const struct score *score)
{
	for (uint32_t task = 0; task < TASKS; task++) {
		if (score->result[task] + score->dead[task] != 1)
			CU_FAIL("a task did not end exactly once");
		if (score->dead[task] && !score->letter[task])
			CU_FAIL("a dead task is not in the queue on disk");
		if (once_only(task) && score->letter[task] != score->dead[task])
			CU_FAIL("a letter more than the task died");
	}
	CU_ASSERT_EQUAL(score->results + score->deads, TASKS);
	CU_ASSERT(score->deads >= TASKS / HOPELESS);
	CU_ASSERT(score->progress > 0);
}

static void check_counts(const struct ahp_stats *stats,
			 const struct score *score)
{
	CU_ASSERT_EQUAL(score->letters, stats->dead);
	CU_ASSERT_EQUAL(stats->kept, stats->dead);
	CU_ASSERT(score->letters >= score->deads);
	CU_ASSERT_EQUAL(stats->in_flight, 0);
	CU_ASSERT_EQUAL(stats->waiting, 0);
	CU_ASSERT_EQUAL(stats->bytes_lent, 0);
	CU_ASSERT(stats->retried > 0);
	/* Whatever was published was answered, or was with the victim. */
	CU_ASSERT(stats->sent >= stats->acked + stats->rejected);
	CU_ASSERT(stats->sent - stats->acked - stats->rejected <= 64);
}

static void lead(pid_t *victim)
{
	static const struct ahp_agent_options options = {
		.window = 64,
		.retry_delay_ns = SECOND_NS / 500,
	};
	static struct score score;
	struct ahp_agent *agent;
	struct ahp_leader *leader;
	struct ahp_stats stats;
	struct ahp_dlq *q;

	CU_ASSERT_FATAL(shared_await(&shared->up, SUBS));
	q = open_queue(0);
	agent = agent_open("leader", &options);
	CU_ASSERT_EQUAL(ahp_agent_keep_dlq(agent, q, NULL), 0);
	CU_ASSERT_EQUAL_FATAL(ahp_leader_open(&leader, agent, NULL, NULL), 0);
	for (uint32_t task = 0; task < TASKS; task++) {
		dispatch(agent, leader, task, &score);
		if (task == TASKS / 3) {
			child_kill(*victim);
			*victim = 0;
		}
		if (task == TASKS / 2)
			atomic_store(&shared->spare, 1);
	}
	while (ahp_leader_open_tasks(leader) &&
	       collect(leader, &score, LONG_NS))
		continue;
	for (int i = 0; i < 2000 && !quiet(agent); i++)
		collect(leader, &score, SECOND_NS / 100);
	CU_ASSERT_EQUAL(ahp_dlq_commit(q, NULL), 0);
	read_letters(&score);
	ahp_agent_run(agent, 0);
	stats = agent_stats(agent);
	check_ends(&score);
	check_counts(&stats, &score);
	ahp_leader_close(leader);
	ahp_agent_close(agent);
	ahp_dlq_close(q);
	/* Descriptors and memfds the harness counts, the heap LeakSanitizer. */
}

static void every_task_ends_once(void)
{
	pid_t pid[SUBS + 1];

	shared = shared_new(sizeof(*shared));
	for (uintptr_t i = 0; i < SUBS; i++)
		pid[i] = child_start(run_sub, (void *)i);
	pid[SUBS] = child_start(run_sub, (void *)(uintptr_t)(SUBS + VICTIM));
	lead(&pid[VICTIM]);
	atomic_store(&shared->stop, 1);
	for (int i = 0; i <= SUBS; i++)
		if (pid[i])
			child_finish(pid[i]);
	shared_free(shared, sizeof(*shared));
	CU_ASSERT(agents_names_left() <= 3);
}

/* ---- the collector ------------------------------------------------------ */

/* Accepted as soon as it is received, and nothing comes of it. */
static void no_result(void)
{
	struct ahp_agent *agent = agent_open("leader", NULL);
	struct ahp_agent *sub = agent_open("sub", NULL);
	struct ahp_outgoing task = {.method = AHP_TASK,
				    .task_id = {"t1", 2},
				    .deadline_ns = SECOND_NS / 20};
	const struct ahp_leader_options none = {0}, unknown = {.flags = 1};
	const char *target = "sub";
	struct ahp_leader *leader;
	struct ahp_message m;
	struct ahp_news news;
	int code;

	agents_link(agent, sub);
	CU_ASSERT_EQUAL(ahp_leader_open(&leader, agent, &unknown, NULL),
			AVP_USAGE);
	CU_ASSERT_EQUAL_FATAL(ahp_leader_open(&leader, agent, &none, NULL), 0);
	CU_ASSERT_EQUAL(
		ahp_leader_dispatch(leader, &task, &target, 1, 0, &code, NULL),
		1);
	CU_ASSERT_EQUAL(
		ahp_leader_dispatch(leader, &task, &target, 1, 0, &code, NULL),
		0);
	CU_ASSERT_EQUAL(code, AVP_USAGE);
	CU_ASSERT_EQUAL(ahp_receive(sub, &m, 0), 0);
	ahp_release(sub, &m);
	ahp_agent_run(sub, 0);
	CU_ASSERT_EQUAL_FATAL(ahp_leader_next(leader, &news, LONG_NS), 0);
	CU_ASSERT_EQUAL(news.kind, AHP_NEWS_DEAD);
	CU_ASSERT_EQUAL(news.code, AVP_TIMEOUT);
	CU_ASSERT_STRING_EQUAL(news.source, "sub");
	CU_ASSERT_EQUAL(ahp_leader_open_tasks(leader), 0);
	CU_ASSERT_EQUAL(agent_stats(agent).dead, 1);
	/* What comes afterwards is of no task any more, and not lost. */
	m.task_id = task.task_id;
	CU_ASSERT_EQUAL(
		ahp_send(sub,
			 &(struct ahp_outgoing){.target = "leader",
						.method = AHP_RESULT,
						.task_id = task.task_id},
			 0, NULL, NULL),
		0);
	CU_ASSERT_EQUAL_FATAL(ahp_leader_next(leader, &news, LONG_NS), 0);
	CU_ASSERT_EQUAL(news.kind, AHP_NEWS_MESSAGE);
	ahp_leader_done(leader, &news);
	ahp_leader_close(leader);
	ahp_agent_close(sub);
	ahp_agent_close(agent);
}

/* One block for all readers; it is given back when the last has. */
static void one_body_many_readers(void)
{
	struct ahp_agent *agent = agent_open("leader", NULL), *sub[4];
	struct ahp_outgoing out = {.method = AHP_TASK, .body_bytes = MIB};
	struct ahp_message m[4];
	struct ahp_loan loan;
	int code[4];

	for (int i = 0; i < 4; i++) {
		sub[i] = agent_open(name[i], NULL);
		agents_link(agent, sub[i]);
	}
	CU_ASSERT_EQUAL(ahp_loan(agent, NULL, MIB, 0, &loan, NULL), 0);
	pattern_fill(loan.data, MIB, 9);
	out.loan = &loan;
	out.body = loan.data;
	CU_ASSERT_EQUAL(ahp_broadcast(agent, &out, NULL, 0, 0, code, NULL), 4);
	CU_ASSERT_EQUAL(loan.handle, 0);
	CU_ASSERT(agent_stats(agent).bytes_lent < 2 * MIB);
	for (int i = 0; i < 4; i++) {
		CU_ASSERT_EQUAL(code[i], 0);
		CU_ASSERT_EQUAL(ahp_receive(sub[i], &m[i], 0), 0);
	}
	for (int i = 0; i < 4; i++) {
		CU_ASSERT(agent_stats(agent).bytes_lent);
		CU_ASSERT(pattern_is(m[i].body, MIB, 9));
		ahp_release(sub[i], &m[i]);
		agents_settle(sub[i], agent);
		ahp_status(agent, &(struct ahp_receipt){1, m[i].peer, 1});
	}
	for (uint32_t i = 0; i < 4; i++)
		ahp_status(agent, &(struct ahp_receipt){1, i + 1, 1});
	CU_ASSERT_EQUAL(agent_stats(agent).bytes_lent, 0);
	for (int i = 0; i < 4; i++)
		ahp_agent_close(sub[i]);
	ahp_agent_close(agent);
}

/* ---- tokens ------------------------------------------------------------- */

static void ask_for_tokens(void *arg)
{
	uint32_t number = (uint32_t)(uintptr_t)arg;
	struct ahp_agent *agent = agent_open(name[number], NULL);
	uint64_t granted, left = 1, sum = 0;
	struct ahp_inbox *inbox;

	CHECK(shared_await(&shared->up, 1));
	CHECK(!ahp_inbox_open(&inbox, agent, NULL));
	while (left) {
		CHECK(!ahp_request_tokens(inbox, "leader", 7 + number, LONG_NS,
					  &granted, &left, NULL));
		CHECK(granted == 7 + number || !left);
		sum += granted;
	}
	CHECK(sum == 500 + number);
	CHECK(!ahp_request_tokens(inbox, "leader", 1, LONG_NS, &granted, NULL,
				  NULL));
	CHECK(granted == 0);
	atomic_fetch_add(&shared->again, (uint32_t)sum);
	atomic_fetch_add(&shared->spare, 1);
	ahp_inbox_close(inbox);
	ahp_agent_close(agent);
}

static void tokens_run_out(void)
{
	struct ahp_leader_options options = {.size = sizeof(options)};
	struct ahp_agent *agent;
	struct ahp_leader *leader;
	struct ahp_news news;
	pid_t pid[SUBS];

	shared = shared_new(sizeof(*shared));
	for (uintptr_t i = 0; i < SUBS; i++)
		pid[i] = child_start(ask_for_tokens, (void *)i);
	CU_ASSERT_EQUAL_FATAL(ahp_tokens_new(&options.tokens, 500, NULL), 0);
	for (uint32_t i = 1; i < SUBS; i++)
		CU_ASSERT_EQUAL(ahp_tokens_set_limit(options.tokens,
						     avp_str_of(name[i]),
						     500 + i, NULL),
				0);
	agent = agent_open("leader", NULL);
	CU_ASSERT_EQUAL_FATAL(ahp_leader_open(&leader, agent, &options, NULL),
			      0);
	atomic_store(&shared->up, 1);
	for (int i = 0; i < 2000 && atomic_load(&shared->spare) < SUBS; i++)
		CU_ASSERT_EQUAL(ahp_leader_next(leader, &news, SECOND_NS / 100),
				AVP_TIMEOUT);
	CU_ASSERT_EQUAL(atomic_load(&shared->again), 500 * SUBS + 28);
	for (uint32_t i = 0; i < SUBS; i++) {
		child_finish(pid[i]);
		CU_ASSERT_EQUAL(ahp_tokens_remaining(options.tokens,
						     avp_str_of(name[i])),
				0);
	}
	ahp_leader_close(leader);
	ahp_agent_close(agent);
	ahp_tokens_free(options.tokens);
	shared_free(shared, sizeof(*shared));
}

int main(void)
{
	static const struct test tests[] = {
		TEST(every_task_ends_once),
		TEST(no_result),
		TEST(one_body_many_readers),
		TEST(tokens_run_out),
		{0},
	};

	agents_begin();
	return test_main("reliable", tests);
}
