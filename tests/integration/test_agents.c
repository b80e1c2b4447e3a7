/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Agents as programs use them, most of them processes: names, linking, frames
 * of every kind, ways to wait, forks, limits of memory.
 */
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/agents.h"
#include "tests/harness.h"

#define BIG_BYTES (24 * MIB)

struct board {
	_Atomic uint32_t word[4];
};

static struct board *board;

/* ---- names -------------------------------------------------------------- */

static int try_open(const char *id, const char *name_space,
		    struct avp_reason *why)
{
	const struct ahp_agent_options options = {
		.size = sizeof(options), .id = id, .name_space = name_space};
	struct ahp_agent *agent;
	int error = ahp_agent_open(&agent, &options, why);

	if (!error)
		ahp_agent_close(agent);
	return error;
}

static void bad_names(void)
{
	static const char *const bad[] = {
		"",    ".",   "..",   ".a",	  "a/b", "/", "../a",
		"a b", "a\n", "a\\b", "\xc3\xa9", "a:b", "*"};
	char id[67];
	struct ahp_agent *a = agent_open("a", NULL);
	struct avp_reason why;

	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		CU_ASSERT_EQUAL(try_open(bad[i], NULL, &why), AVP_USAGE);
		CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "1-64"));
		if (*bad[i])
			CU_ASSERT_EQUAL(try_open("x", bad[i], &why), AVP_USAGE);
		CU_ASSERT_EQUAL(ahp_connect(a, bad[i], 0, NULL, &why),
				AVP_USAGE);
		CU_ASSERT_EQUAL(agent_say(a, bad[i], "x", NULL), AVP_USAGE);
	}
	CU_ASSERT_EQUAL(try_open(NULL, NULL, &why), AVP_USAGE);
	CU_ASSERT_EQUAL(ahp_connect(a, NULL, 0, NULL, &why), AVP_USAGE);
	CU_ASSERT_EQUAL(ahp_connect(a, "a", 0, NULL, &why), AVP_USAGE);
	memset(id, 'x', sizeof(id));
	id[65] = 0;
	CU_ASSERT_EQUAL(try_open(id, NULL, &why), AVP_USAGE);
	CU_ASSERT_EQUAL(try_open("x", id, &why), AVP_USAGE);
	id[64] = 0;
	CU_ASSERT_EQUAL(try_open(id, NULL, &why), 0);
	CU_ASSERT_EQUAL(try_open("-_.Z9", NULL, &why), 0);
	ahp_agent_close(a);
	CU_ASSERT_EQUAL(agents_names_left(), 0);
}

static void bad_options(void)
{
	const struct ahp_agent_options good = {.size = sizeof(good), .id = "x"};

	for (int i = 0; i < 7; i++) {
		struct ahp_agent_options bad = good;
		struct ahp_agent *agent = NULL;
		struct avp_reason why;

		switch (i) {
		case 0: bad.size = 8; break;
		case 1: bad.flags = 2; break;
		case 2: bad.reserved[2] = 1; break;
		case 3: bad.wait = 3; break;
		case 4: bad.window = 8; break;
		case 5: bad.window = 1000; break;
		case 6: bad.window = 1u << 17; break;
		}
		CU_ASSERT_EQUAL(ahp_agent_open(&agent, &bad, &why), AVP_USAGE);
		CU_ASSERT_PTR_NULL(agent);
	}
}

/* Of a caller that says no size, or is newer than we are. */
static void options_of_other_sizes(void)
{
	struct {
		struct ahp_agent_options known;
		uint64_t unknown;
	} o = {.known = {.id = "x"}};
	struct ahp_agent *agent;

	CU_ASSERT_EQUAL_FATAL(ahp_agent_open(&agent, &o.known, NULL), 0);
	ahp_agent_close(agent);
	o.known.size = sizeof(o);
	CU_ASSERT_EQUAL_FATAL(ahp_agent_open(&agent, &o.known, NULL), 0);
	ahp_agent_close(agent);
	o.unknown = 1;
	CU_ASSERT_EQUAL(ahp_agent_open(&agent, &o.known, NULL), AVP_USAGE);
	CU_ASSERT_EQUAL(ahp_agent_open(&agent, NULL, NULL), AVP_USAGE);
}

static void names_and_answers(void)
{
	struct ahp_agent *a = agent_open("a", NULL), *b = agent_open("b", NULL);
	struct ahp_receipt receipt;
	struct avp_reason why;
	struct ahp_message m;

	CU_ASSERT_EQUAL(try_open("a", NULL, &why), AVP_NAME_TAKEN);
	CU_ASSERT_EQUAL(try_open("a", "other-space", &why), 0);
	CU_ASSERT_EQUAL(ahp_connect(a, "nobody", LONG_NS, NULL, &why),
			AVP_AGENT_NOT_FOUND);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "nobody"));
	CU_ASSERT_EQUAL(ahp_receive(a, &m, 0), AVP_TIMEOUT);
	CU_ASSERT_EQUAL(ahp_receive(a, &m, 3000000), AVP_TIMEOUT);
	/* b does not answer: it is not being called. */
	CU_ASSERT_EQUAL(ahp_connect(a, "b", 3000000, NULL, &why), AVP_TIMEOUT);
	CU_ASSERT_EQUAL(agent_say(a, "b", "x", NULL), AVP_TIMEOUT);
	ahp_agent_run(b, 0);
	CU_ASSERT_EQUAL(ahp_connect(a, "b", LONG_NS, NULL, &why), 0);
	CU_ASSERT_STRING_EQUAL(ahp_agent_id(a), "a");
	CU_ASSERT_PTR_NULL(ahp_peer_id(a, 0));
	CU_ASSERT_PTR_NULL(ahp_peer_id(a, 99));
	ahp_agent_close(b);
	/* No system call is made to learn that; the answer tells. */
	CU_ASSERT_EQUAL(agent_say(a, "b", "x", &receipt), 0);
	CU_ASSERT_EQUAL(ahp_wait(a, &receipt, LONG_NS), AVP_CLOSED);
	CU_ASSERT_EQUAL(agent_say(a, "b", "x", NULL), AVP_AGENT_NOT_FOUND);
	ahp_agent_close(a);
	CU_ASSERT_EQUAL(agents_names_left(), 0);
}

/*
 * An agent that lives for long meets more names than it keeps: those that are
 * in use stay, the others' numbers never mean another.
 */
static void more_names_than_are_kept(void)
{
	const struct ahp_agent_options reliable = {.flags = AHP_RELIABLE};
	struct ahp_agent *a = agent_open("a", &reliable);
	struct ahp_agent *b = agent_open("b", NULL);
	struct ahp_agent *c = agent_open("c", NULL), *d = agent_open("d", NULL);
	uint32_t number, again, old;
	struct ahp_receipt waiting;
	struct ahp_message m;
	char id[16];

	agents_link(a, b);
	agents_link(a, c);
	agents_link(a, d);
	CU_ASSERT_EQUAL(ahp_connect(a, "b", 0, &number, NULL), 0);
	CU_ASSERT_EQUAL(ahp_connect(a, "c", 0, &old, NULL), 0);
	ahp_agent_close(c);
	agents_settle(a, b);
	CU_ASSERT_EQUAL(agent_say(a, "later", "kept", &waiting), 0);
	CU_ASSERT_EQUAL(agent_say(d, "a", "hello", NULL), 0);
	CU_ASSERT_EQUAL(ahp_receive(a, &m, 0), 0);
	for (unsigned i = 0; i < 68000; i++) {
		/* Two names before it is d's turn. */
		if (i == 65532) {
			CU_ASSERT_STRING_EQUAL(ahp_peer_id(a, old), "c");
			ahp_agent_close(d);
			agents_settle(a, b);
		}
		snprintf(id, sizeof(id), "n%u", i);
		CU_ASSERT_EQUAL_FATAL(ahp_connect(a, id, 0, NULL, NULL),
				      AVP_AGENT_NOT_FOUND);
	}
	CU_ASSERT_STRING_EQUAL(m.source, "d");
	CU_ASSERT_STRING_EQUAL(ahp_peer_id(a, m.peer), "d");
	ahp_release(a, &m);
	CU_ASSERT_PTR_NULL(ahp_peer_id(a, old));
	CU_ASSERT_EQUAL(ahp_send(a,
				 &(struct ahp_outgoing){.peer = old,
							.method = AHP_TASK},
				 0, NULL, NULL),
			AVP_USAGE);
	CU_ASSERT_EQUAL(ahp_connect(a, "b", 0, &again, NULL), 0);
	CU_ASSERT_EQUAL(again, number);
	CU_ASSERT_STRING_EQUAL(ahp_peer_id(a, waiting.peer), "later");
	CU_ASSERT_EQUAL(agent_say(a, "b", "still", NULL), 0);
	CU_ASSERT(agent_hears(b, "still"));
	/* A new one, in somebody's place; and the one that was waited for. */
	c = agent_open("c", NULL);
	agents_link(c, a);
	CU_ASSERT_EQUAL(ahp_connect(a, "c", 0, &again, NULL), 0);
	CU_ASSERT_NOT_EQUAL(again, old);
	ahp_agent_close(c);
	c = agent_open("later", NULL);
	agents_link(c, a);
	agents_settle(a, c);
	CU_ASSERT(agent_hears(c, "kept"));
	agents_settle(c, a);
	CU_ASSERT_EQUAL(ahp_wait(a, &waiting, LONG_NS), 0);
	ahp_agent_close(c);
	ahp_agent_close(b);
	ahp_agent_close(a);
}

/* ---- frames ------------------------------------------------------------- */

struct sample {
	uint64_t payload;
	size_t extra; /* bytes of one value of `extra` */
	uint32_t type;
};

static int send_frame(struct ahp_agent *agent, const char *to,
		      const struct sample *s, struct ahp_receipt *receipt)
{
	struct avp_pair pair = {{"k", 1}, {NULL, s->extra}};
	struct avp_metadata metadata = {.model_id = {"m", 1},
					.payload_type = s->type};
	struct ahp_outgoing out = {
		.target = to, .method = AHP_TASK, .kind = AHP_FRAME};
	char *value = calloc(1, s->extra + 1);
	uint64_t front = s->extra + 256;
	struct ahp_loan loan;
	void *frame;
	int head, error;

	memset(value, 'v', s->extra);
	pair.value.data = value;
	metadata.extra = &pair;
	metadata.extra_count = s->extra > 0;
	CU_ASSERT_EQUAL_FATAL(ahp_loan(agent, to, s->payload + 1,
				       (uint32_t)front, &loan, NULL),
			      0);
	pattern_fill(loan.data, s->payload, 3);
	head = avp_frame_encode_before(&metadata, AVP_DIALECT_0_2, loan.data,
				       s->payload, front, &frame, NULL);
	CU_ASSERT_FATAL(head > 0);
	out.loan = &loan;
	out.body = frame;
	out.body_bytes = (uint64_t)head + s->payload;
	/* Short ones in the slot. */
	if (out.body_bytes < 200)
		out.loan = NULL;
	error = ahp_send(agent, &out, 0, receipt, NULL);
	ahp_loan_release(agent, &loan);
	free(value);
	return error;
}

static void frames(void)
{
	static const struct sample samples[] = {
		{64, 0, AVP_HIDDEN_STATE},
		{0, 0, AVP_HIDDEN_STATE},
		{3584, 0, AVP_HIDDEN_STATE},
		{17 + 4096, 0, AVP_KV_CACHE},
		{5000, 100, AVP_KV_CACHE},
		{5000, 500, AVP_EMBEDDING},
		{5000, 60000, 0},
		{5000, 65510, 0},
	};
	struct ahp_agent *a = agent_open("a", NULL), *b = agent_open("b", NULL);
	struct ahp_receipt receipt;
	struct ahp_message m;
	struct avp_str value;

	agents_link(a, b);
	for (unsigned i = 0; i < sizeof(samples) / sizeof(*samples); i++) {
		const struct sample *s = &samples[i];

		CU_ASSERT_EQUAL(send_frame(a, "b", s, NULL), 0);
		CU_ASSERT_EQUAL_FATAL(ahp_receive(b, &m, 0), 0);
		CU_ASSERT_EQUAL(m.kind, AHP_FRAME);
		CU_ASSERT_EQUAL(m.frame.metadata.payload_type, s->type);
		CU_ASSERT_EQUAL(m.frame.payload_bytes, s->payload);
		CU_ASSERT(pattern_is(m.frame.payload, s->payload, 3));
		/* In place, the tensor lies as the sender's loan did. */
		CU_ASSERT(!m.in_place || (uintptr_t)m.frame.payload % 64 == 0);
		CU_ASSERT_EQUAL(m.in_place, s->payload > 64);
		if (s->extra) {
			CU_ASSERT_EQUAL(
				avp_metadata_extra_get(&m.frame.metadata,
						       (struct avp_str){"k", 1},
						       &value),
				1);
			CU_ASSERT_EQUAL(value.len, s->extra);
		}
		ahp_release(b, &m);
	}
	/* Metadata over 64 KiB is for remote peers only. */
	CU_ASSERT_EQUAL(
		send_frame(a, "b", &(struct sample){9, 70000, 0}, &receipt),
		AVP_INVALID_MESSAGE);
	CU_ASSERT_EQUAL(ahp_receive(b, &m, 0), AVP_TIMEOUT);
	ahp_agent_run(b, 0);
	agents_settle(b, a);
	CU_ASSERT_EQUAL(agent_lend(a, "b", 1, 1, NULL), 0);
	CU_ASSERT(agent_stats(a).bytes_lent < 3000);
	ahp_agent_close(a);
	ahp_agent_close(b);
}

/* ---- 24 MiB, read where they lie ---------------------------------------- */

static sigjmp_buf fault;

static void on_fault(int signal_number)
{
	(void)signal_number;
	siglongjmp(fault, 1);
}

static bool write_faults(const void *at)
{
	struct sigaction action = {.sa_handler = on_fault}, before;
	volatile bool faults = true;

	sigaction(SIGSEGV, &action, &before);
	if (!sigsetjmp(fault, 1)) {
		*(volatile char *)at = 1;
		faults = false;
	}
	sigaction(SIGSEGV, &before, NULL);
	return faults;
}

/* Is the address in a shared mapping of a memfd that may only be read? */
static bool is_mapped_for_reading(const void *at)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned long from, to;
	char line[512], rights[5];
	bool found = false;

	while (maps && !found && fgets(line, sizeof(line), maps))
		found = sscanf(line, "%lx-%lx %4s", &from, &to, rights) == 3 &&
			(uintptr_t)at >= from && (uintptr_t)at < to &&
			!strcmp(rights, "r--s") && strstr(line, "memfd:avp");
	if (maps)
		fclose(maps);
	return found;
}

static void solve(void *arg)
{
	struct ahp_agent *agent = agent_open("solver", NULL);
	struct ahp_outgoing out = {
		.method = AHP_RESULT, .body = "{}", .body_bytes = 2};
	struct ahp_message m;

	(void)arg;
	for (uint32_t i = 0; i < 5; i++) {
		CHECK(!ahp_receive(agent, &m, LONG_NS));
		CHECK(m.in_place && m.body_bytes == BIG_BYTES);
		CHECK((uintptr_t)m.body % 4096 == 0);
		CHECK(is_mapped_for_reading(m.body));
		CHECK(pattern_is(m.body, BIG_BYTES, i));
		CHECK(write_faults(m.body));
		CHECK(write_faults((const char *)m.body + BIG_BYTES - 1));
		out.peer = m.peer;
		CHECK(!ahp_send(agent, &out, LONG_NS, NULL, NULL));
		ahp_release(agent, &m);
	}
	ahp_agent_close(agent);
}

static bool is_linked_to(struct ahp_agent *agent, const char *id)
{
	for (int i = 0; i < 20000; i++) {
		if (!ahp_connect(agent, id, LONG_NS, NULL, NULL))
			return true;
		ahp_agent_run(agent, 1000000);
	}
	return false;
}

static void big_body_in_place(void)
{
	struct ahp_agent *agent = agent_open("planner", NULL);
	struct ahp_message m;
	struct ahp_receipt receipt;
	pid_t pid = child_start(solve, NULL);

	CU_ASSERT_FATAL(is_linked_to(agent, "solver"));
	for (uint32_t i = 0; i < 5; i++) {
		CU_ASSERT_EQUAL(
			agent_lend(agent, "solver", BIG_BYTES, i, &receipt), 0);
		CU_ASSERT_EQUAL(ahp_receive(agent, &m, LONG_NS), 0);
		CU_ASSERT_EQUAL(m.method, AHP_RESULT);
		CU_ASSERT_EQUAL(ahp_wait(agent, &receipt, LONG_NS), 0);
		ahp_release(agent, &m);
	}
	child_finish(pid);
	ahp_agent_close(agent);
	CU_ASSERT_EQUAL(agents_names_left(), 0);
}

/* ---- many, and both at once --------------------------------------------- */

#define MANY 40

static void speak_to_hub(void *arg)
{
	const int *number = arg;
	struct ahp_message m;
	char id[16];
	struct ahp_agent *agent;

	snprintf(id, sizeof(id), "m%d", *number);
	agent = agent_open(id, NULL);
	for (int i = 0; i < 50; i++) {
		uint64_t bytes = i % 5 == 4 ? 20000 : 100;

		if (i % 5 == 4) {
			int error;

			while ((error = agent_lend(agent, "hub", bytes,
						   (uint32_t)*number, NULL)))
				CHECK(error == AVP_TIMEOUT);
		} else {
			struct ahp_outgoing out = {.target = "hub",
						   .method = AHP_TASK,
						   .body_bytes = bytes};
			uint8_t body[100];

			pattern_fill(body, bytes, (uint32_t)*number);
			out.body = body;
			CHECK(!ahp_send(agent, &out, LONG_NS, NULL, NULL));
		}
		CHECK(!ahp_receive(agent, &m, LONG_NS));
		CHECK(m.body_bytes == bytes);
		CHECK(pattern_is(m.body, bytes, (uint32_t)*number));
		ahp_release(agent, &m);
	}
	ahp_agent_close(agent);
}

static void many_peers(void)
{
	struct ahp_agent *hub = agent_open("hub", NULL);
	int number[MANY];
	pid_t pid[MANY];

	for (int i = 0; i < MANY; i++) {
		number[i] = i;
		pid[i] = child_start(speak_to_hub, &number[i]);
	}
	for (int i = 0; i < MANY * 50; i++) {
		struct ahp_outgoing out = {.method = AHP_RESULT};
		struct ahp_message m;

		CU_ASSERT_EQUAL_FATAL(ahp_receive(hub, &m, LONG_NS), 0);
		out.peer = m.peer;
		out.body = m.body;
		out.body_bytes = m.body_bytes;
		CU_ASSERT_EQUAL(ahp_send(hub, &out, LONG_NS, NULL, NULL), 0);
		ahp_release(hub, &m);
	}
	for (int i = 0; i < MANY; i++)
		child_finish(pid[i]);
	for (int i = 0; i < 1000 && agent_stats(hub).links; i++)
		ahp_agent_run(hub, 1000000);
	CU_ASSERT_EQUAL(agent_stats(hub).received, MANY * 50);
	CU_ASSERT_EQUAL(agent_stats(hub).sent, MANY * 50);
	CU_ASSERT_EQUAL(agent_stats(hub).acked, MANY * 50);
	CU_ASSERT_EQUAL(agent_stats(hub).links, 0);
	CU_ASSERT_EQUAL(agent_stats(hub).bytes_lent, 0);
	CU_ASSERT_EQUAL(agent_stats(hub).poisoned, 0);
	ahp_agent_close(hub);
}

#define RACES 300

/* Two of these meet: nobody goes on before the other has come as far. */
static void meet(int me, uint32_t step)
{
	atomic_store(&board->word[me], step);
	CHECK(shared_await(&board->word[!me], step));
}

static void race(void *arg)
{
	static const char *const id[] = {"left", "right"};
	int me = *(int *)arg;

	for (uint32_t round = 0; round < RACES; round++) {
		const struct ahp_agent_options options = {
			.wait = (round + (uint32_t)me) % 3,
		};
		struct ahp_agent *agent = agent_open(id[me], &options);
		struct ahp_message m;
		int error;

		meet(me, 3 * round + 1);
		error = ahp_connect(agent, id[!me], LONG_NS, NULL, NULL);
		CHECK(!error);
		CHECK(!agent_say(agent, id[!me], id[me], NULL));
		CHECK(!ahp_receive(agent, &m, LONG_NS));
		CHECK(!memcmp(m.body, id[!me], m.body_bytes));
		ahp_release(agent, &m);
		CHECK(agent_stats(agent).links == 1);
		meet(me, 3 * round + 2);
		ahp_agent_close(agent);
		meet(me, 3 * round + 3);
	}
}

static void both_connect_at_once(void)
{
	int me[2] = {0, 1};
	pid_t pid[2];

	memset(board, 0, sizeof(*board));
	for (int i = 0; i < 2; i++)
		pid[i] = child_start(race, &me[i]);
	for (int i = 0; i < 2; i++)
		child_finish(pid[i]);
	CU_ASSERT_EQUAL(agents_names_left(), 0);
}

/* ---- waiting ------------------------------------------------------------ */

#define TRIPS 200

static void echo(void *arg)
{
	const struct ahp_agent_options options = {.wait = *(uint32_t *)arg};
	struct ahp_agent *agent = agent_open("echo", &options);
	struct ahp_message m;

	for (int i = 0; i < TRIPS; i++) {
		CHECK(!ahp_receive(agent, &m, LONG_NS));
		CHECK(!agent_say(agent, m.source, "back", NULL));
		ahp_release(agent, &m);
	}
	ahp_agent_close(agent);
}

static void ways_to_wait(void)
{
	for (uint32_t i = 0; i < 9; i++) {
		const struct ahp_agent_options options = {.wait = i / 3};
		struct ahp_agent *agent = agent_open("asker", &options);
		struct ahp_message m;
		uint32_t other = i % 3;
		pid_t pid = child_start(echo, &other);

		CU_ASSERT_FATAL(is_linked_to(agent, "echo"));
		for (int n = 0; n < TRIPS; n++) {
			CU_ASSERT_EQUAL(agent_say(agent, "echo", "x", NULL), 0);
			CU_ASSERT_EQUAL_FATAL(ahp_receive(agent, &m, LONG_NS),
					      0);
			ahp_release(agent, &m);
		}
		child_finish(pid);
		CU_ASSERT_EQUAL(agent_stats(agent).late_wakes, 0);
		ahp_agent_close(agent);
	}
}

/* ---- forks -------------------------------------------------------------- */

static void in_a_child(struct ahp_agent *agent, struct ahp_message *m,
		       struct ahp_loan *loan)
{
	struct ahp_receipt receipt = {1, 1, 1};
	struct ahp_loan another;
	struct ahp_message more;

	CHECK(ahp_connect(agent, "b", 0, NULL, NULL) == AVP_FORKED);
	CHECK(agent_say(agent, "b", "x", NULL) == AVP_FORKED);
	CHECK(ahp_loan(agent, NULL, 1, 0, &another, NULL) == AVP_FORKED);
	CHECK(ahp_receive(agent, &more, 0) == AVP_FORKED);
	CHECK(ahp_accept(agent, m) == AVP_FORKED);
	CHECK(ahp_reject(agent, m) == AVP_FORKED);
	CHECK(ahp_status(agent, &receipt) == AVP_FORKED);
	CHECK(ahp_wait(agent, &receipt, 0) == AVP_FORKED);
	CHECK(ahp_agent_run(agent, 0) == AVP_FORKED);
	CHECK(ahp_agent_fd(agent) == AVP_FORKED);
	CHECK(ahp_agent_arm(agent) == AVP_FORKED);
	ahp_release(agent, m);
	ahp_loan_release(agent, loan);
	ahp_agent_close(agent);
	/* The child may have agents of its own. */
	agent = agent_open("childs-own", NULL);
	ahp_agent_close(agent);
}

static void fork_after_open(void)
{
	struct ahp_agent *a = agent_open("a", NULL), *b = agent_open("b", NULL);
	struct ahp_message m;
	struct ahp_loan loan;
	int status;
	pid_t pid;

	agents_link(a, b);
	CU_ASSERT_EQUAL(ahp_loan(a, NULL, 5000, 0, &loan, NULL), 0);
	CU_ASSERT_EQUAL(agent_lend(b, "a", 5000, 2, NULL), 0);
	CU_ASSERT_EQUAL_FATAL(ahp_receive(a, &m, 0), 0);
	fflush(NULL);
	pid = fork();
	if (!pid) {
		in_a_child(a, &m, &loan);
		ahp_agent_close(b);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	CU_ASSERT_EQUAL(status, 0);
	/* The parent has noticed nothing. */
	CU_ASSERT(pattern_is(m.body, 5000, 2));
	ahp_release(a, &m);
	ahp_loan_release(a, &loan);
	CU_ASSERT_EQUAL(agent_say(a, "b", "x", NULL), 0);
	CU_ASSERT(agent_hears(b, "x"));
	CU_ASSERT_EQUAL(agent_say(b, "a", "y", NULL), 0);
	CU_ASSERT(agent_hears(a, "y"));
	CU_ASSERT_EQUAL(try_open("a", NULL, NULL), AVP_NAME_TAKEN);
	ahp_agent_close(a);
	ahp_agent_close(b);
	CU_ASSERT_EQUAL(agents_names_left(), 0);
}

/* ---- limits of memory --------------------------------------------------- */

static void set_limit(int resource, rlim_t bytes)
{
	struct rlimit limit;

	CHECK(!getrlimit(resource, &limit));
	limit.rlim_cur = bytes;
	CHECK(!setrlimit(resource, &limit));
}

/* What is mapped now, and some room for malloc. */
static rlim_t mapped_and(rlim_t room)
{
	FILE *file = fopen("/proc/self/statm", "re");
	unsigned long pages = 0;

	CHECK(file && fscanf(file, "%lu", &pages) == 1);
	fclose(file);
	return pages * 4096 + room;
}

static void under_a_limit(int resource, rlim_t tight)
{
	struct ahp_agent *a = agent_open("a", NULL), *b = agent_open("b", NULL);
	struct avp_reason why = {0};
	struct ahp_loan loan;

	agents_link(a, b);
	set_limit(resource, tight);
	CHECK(ahp_loan(a, NULL, 64 * MIB, 0, &loan, &why) == AVP_NO_MEMORY);
	CHECK(strstr(why.text, "RLIMIT_"));
	CHECK(!agent_say(a, "b", "x", NULL) && agent_hears(b, "x"));
	for (int i = 0; i < 3; i++)
		CHECK(ahp_agent_run(a, 150000000) ==
		      0); /* the page is written */
	CHECK(try_open("c", NULL, &why) == (tight ? 0 : AVP_NO_MEMORY));
	CHECK(tight || strstr(why.text, "RLIMIT_"));
	set_limit(resource, RLIM_INFINITY);
	CHECK(!ahp_loan(a, NULL, 64 * MIB, 0, &loan, &why));
	ahp_agent_close(a);
	ahp_agent_close(b);
}

static void no_file_size(void *arg)
{
	(void)arg;
	under_a_limit(RLIMIT_FSIZE, 0);
}

static void some_file_size(void *arg)
{
	(void)arg;
	under_a_limit(RLIMIT_FSIZE, MIB);
}

static void some_addresses(void *arg)
{
	(void)arg;
	under_a_limit(RLIMIT_AS, mapped_and(32 * MIB));
}

/* The reader cannot map what the sender passes: that link ends, it does not. */
static void reader_without_addresses(void *arg)
{
	const struct ahp_agent_options options = {.first_segment_bytes =
							  64 * MIB};
	struct ahp_agent *a = agent_open("a", &options);
	struct ahp_agent *b = agent_open("b", NULL);
	struct ahp_agent *c = agent_open("c", NULL);
	struct ahp_message m;
	struct ahp_loan loan;

	(void)arg;
	agents_link(a, b);
	agents_link(c, b);
	CHECK(!ahp_loan(a, "b", 100000, 0, &loan, NULL));
	set_limit(RLIMIT_AS, mapped_and(32 * MIB));
	CHECK(!agent_lend(a, "b", 100000, 1, NULL));
	CHECK(ahp_receive(b, &m, 0) == AVP_TIMEOUT);
	CHECK(!agent_say(c, "b", "x", NULL) && agent_hears(b, "x"));
	set_limit(RLIMIT_AS, RLIM_INFINITY);
	ahp_agent_run(a, 0);
	agents_settle(a, b);
	agents_link(a, b);
	CHECK(!agent_lend(a, "b", 100000, 1, NULL));
	CHECK(!ahp_receive(b, &m, 0) && pattern_is(m.body, 100000, 1));
	ahp_agent_close(a);
	ahp_agent_close(b);
	ahp_agent_close(c);
}

static void limits_of_memory(void)
{
	child_finish(child_start(no_file_size, NULL));
	child_finish(child_start(some_file_size, NULL));
#ifndef __SANITIZE_ADDRESS__ /* which maps more than any limit */
	child_finish(child_start(some_addresses, NULL));
	child_finish(child_start(reader_without_addresses, NULL));
#else
	(void)some_addresses, (void)reader_without_addresses;
#endif
	CU_ASSERT_EQUAL(agents_names_left(), 0);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(bad_names),
		TEST(bad_options),
		TEST(options_of_other_sizes),
		TEST(names_and_answers),
		TEST(more_names_than_are_kept),
		TEST(frames),
		TEST(big_body_in_place),
		TEST(many_peers),
		TEST(both_connect_at_once),
		TEST(ways_to_wait),
		TEST(fork_after_open),
		TEST(limits_of_memory),
		{0},
	};
	int status;

	agents_begin();
	board = shared_new(sizeof(*board));
	status = test_main("agents", tests);
	shared_free(board, sizeof(*board));
	return status;
}
