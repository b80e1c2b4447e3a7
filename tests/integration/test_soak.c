/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two processes that fall asleep and wake each other, again and again: no
 * wake-up may be late. On lanes and on agents, whose sequences begin just
 * before their low words wrap. Agents' senders wait for room as well; in
 * adaptive mode messages come about when the spin ends. On each loop with each
 * doorbell that it has.
 *
 * In `make check` for a second or two. `make soak` runs it at length, as
 * SOAK_MESSAGES (on lanes) and SOAK_WAKES (of agents) say, for each of them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "ahp/agent_internal.h"
#include "tests/agents.h"
#include "tests/harness.h"
#include "tests/lane_peer.h"

#define WRAP_AHEAD   10000 /* messages before the low words wrap */
#define AGENTS_AHEAD 1001  /* the same for agents */
#define FLOOD	     64	   /* messages in a row, to a window of 16 */
#define PINGS	     16	   /* round trips between two floods */
#define SPINS_NS     4000  /* of an adaptive agent, at most */
#define PAUSE_NS     8192  /* before a message to one, at most */

/* What both processes count; each has its own. */
struct tally {
	uint64_t messages, sleeps, rings, late_wakes;
	const char *wrong; /* same program: valid in both */
};

static struct tally *tally; /* [2], shared */
static bool futex, adaptive;

static uint64_t setting(const char *name, uint64_t usual)
{
	const char *text = getenv(name);

	return text && *text ? strtoull(text, NULL, 10) : usual;
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void report(const char *what, double began)
{
	for (int i = 0; i < 2; i++)
		CU_ASSERT_PTR_NULL(tally[i].wrong);
	CU_ASSERT_EQUAL(tally[0].late_wakes, 0);
	CU_ASSERT_EQUAL(tally[1].late_wakes, 0);
	/* Which side sleeps more is chance; that nobody ever slept is not. */
	CU_ASSERT(tally[0].rings + tally[1].rings > 0);
	printf("%s: %llu messages, %llu sleeps, %llu rings, %llu late, %.1f s"
	       "%s%s\n",
	       what,
	       (unsigned long long)(tally[0].messages + tally[1].messages),
	       (unsigned long long)(tally[0].sleeps + tally[1].sleeps),
	       (unsigned long long)(tally[0].rings + tally[1].rings),
	       (unsigned long long)(tally[0].late_wakes + tally[1].late_wakes),
	       seconds() - began, tally[0].wrong ? tally[0].wrong : "",
	       tally[1].wrong ? tally[1].wrong : "");
}

/* ---- lanes -------------------------------------------------------------- */

static struct lane_peer peer;

struct end {
	int sock[2];
	int number;
};

static const char *open_end(int sock, struct avp_segment *page,
			    struct avp_segment *other)
{
	struct avp_lane_options o = {.size = sizeof(o),
				     .slots = LANE_PEER_WINDOW,
				     .first_sequence = UINT32_MAX - WRAP_AHEAD};
	int fds[2];
	unsigned n = 0;
	size_t len;
	char c;

	if (avp_lane_init(&peer.tx, &o, NULL) ||
	    avp_segment_create(page, "page", sizeof(*peer.page), NULL, NULL))
		return "no segments";
	fds[0] = peer.tx.segment.fd;
	fds[1] = page->fd;
	if (avp_fd_send(sock, "", 1, fds, 2, NULL))
		return "cannot pass the segments";
	while (avp_fd_receive(sock, &c, 1, &len, fds, 2, &n, NULL) == AVP_AGAIN)
		;
	if (n != 2 || avp_lane_attach(&peer.rx, &peer.tx, fds[0], NULL) ||
	    avp_segment_import(other, fds[1], 0, 1 << 20, NULL))
		return "cannot map the other's";
	return NULL;
}

static void run_end(void *arg)
{
	const struct end *end = arg;
	struct tally *t = &tally[end->number];
	struct avp_segment page, other;

	close(end->sock[1 - end->number]);
	memset(&peer, 0, sizeof(peer));
	t->wrong = open_end(end->sock[end->number], &page, &other);
	if (t->wrong)
		return;
	peer.page = page.base;
	peer.peer_page = other.base;
	peer.sock = end->sock[end->number];
	peer.seed = (uint32_t)end->number + 7;
	peer.sleeps = true;
	peer.futex = futex;
	peer.total = setting("SOAK_MESSAGES", 200000) / 2;
	lane_peer_run(&peer);
	t->messages = peer.received;
	t->sleeps = peer.sleeps_made;
	t->rings = peer.rings;
	t->late_wakes = peer.late_wakes;
	t->wrong = peer.wrong;
	avp_lane_detach(&peer.rx);
	avp_lane_fini(&peer.tx);
	avp_segment_close(&page);
	avp_segment_close(&other);
	close(peer.sock);
}

static void soak_lanes(const char *what)
{
	double began = seconds();
	struct end end = {.number = 0}, other;
	pid_t pid;

	memset(tally, 0, 2 * sizeof(*tally));
	CU_ASSERT_FATAL(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0,
				    end.sock));
	other = end;
	other.number = 1;
	pid = child_start(run_end, &other);
	run_end(&end);
	child_finish(pid);
	report(what, began);
}

/* ---- agents ------------------------------------------------------------- */

static struct ahp_agent *open_agent(const char *id)
{
	const struct ahp_agent_options o = {.wait = adaptive ? AHP_WAIT_ADAPTIVE
							     : AHP_WAIT_BLOCK,
					    .spin_ns = SPINS_NS,
					    .window = 16};
	struct ahp_agent *agent = agent_open(id, &o);

	agent->first_sequence = UINT32_MAX - AGENTS_AHEAD;
	/* Even: awake. Each sleep adds 2. */
	atomic_store(&agent->page->messages, UINT32_MAX - AGENTS_AHEAD);
	atomic_store(&agent->page->space, UINT32_MAX - AGENTS_AHEAD);
	return agent;
}

/* Any time from now on: before, while or after the other falls asleep. */
static void pause_some(void)
{
	static uint32_t seed = 3;
	double end = seconds();

	seed = seed * 1664525u + 1013904223u;
	end += (seed >> 16) % PAUSE_NS / 1e9;
	while (seconds() < end)
		continue;
}

static const char *hear(struct ahp_agent *agent, uint32_t *next)
{
	struct ahp_message m;
	uint32_t number;

	if (ahp_receive(agent, &m, AHP_FOREVER))
		return "nothing came";
	if (m.body_bytes != sizeof(number))
		return "another length";
	memcpy(&number, m.body, sizeof(number));
	return number == (*next)++ ? NULL : "out of order";
}

static const char *say(struct ahp_agent *agent, const char *to, uint32_t number)
{
	const struct ahp_outgoing m = {.target = to,
				       .method = AHP_TASK,
				       .body = &number,
				       .body_bytes = sizeof(number)};

	if (adaptive)
		pause_some();
	return ahp_send(agent, &m, AHP_FOREVER, NULL, NULL) ? "not sent" : NULL;
}

/* Floods of one, which waits for room in between; then round trips. */
static const char *talk(struct ahp_agent *agent, const char *to, bool first,
			uint32_t rounds)
{
	const char *wrong = NULL;
	uint32_t heard = 0, said = 0;

	for (uint32_t round = 0; round < rounds && !wrong; round++) {
		for (int i = 0; i < FLOOD && !wrong; i++)
			wrong = first ? say(agent, to, said++)
				      : hear(agent, &heard);
		for (int i = 0; i < PINGS && !wrong; i++) {
			if (first)
				wrong = say(agent, to, said++);
			if (!wrong)
				wrong = hear(agent, &heard);
			if (!wrong && !first)
				wrong = say(agent, to, said++);
		}
	}
	return wrong;
}

static void run_agent(void *arg)
{
	const bool first = *(const bool *)arg;
	struct tally *t = &tally[first];
	struct ahp_agent *agent = open_agent(first ? "first" : "second");
	/* Each round trip is two wakes, of a flood some four more. */
	uint64_t rounds = setting("SOAK_WAKES", 4000) / (2 * PINGS + 4);
	struct ahp_stats stats;

	for (int i = 0; first && i < 20000; i++)
		if (!ahp_connect(agent, "second", LONG_NS, NULL, NULL))
			break;
		else
			ahp_agent_run(agent, 1000000);
	t->wrong = talk(agent, first ? "second" : "first", first,
			(uint32_t)rounds);
	ahp_agent_stats(agent, &stats);
	t->messages = stats.received;
	t->rings = stats.wakes;
	t->late_wakes = stats.late_wakes;
	CHECK(!strcmp(ahp_agent_doorbell(agent), futex ? "futex" : "socket"));
	ahp_agent_close(agent);
}

static void soak_agents(const char *what)
{
	double began = seconds();
	bool first = true, second = false;
	pid_t pid;

	memset(tally, 0, 2 * sizeof(*tally));
	pid = child_start(run_agent, &second);
	run_agent(&first);
	child_finish(pid);
	CU_ASSERT_EQUAL(agents_names_left(), 0);
	report(what, began);
}

/* ---- each loop, each doorbell ------------------------------------------- */

static void with(const char *loop, bool word, void (*soak)(const char *what))
{
	char what[64];

	snprintf(what, sizeof(what), "%s, %s%s", loop,
		 word ? "futex" : "socket", adaptive ? ", adaptive" : "");
	setenv("AVP_LOOP", loop, 1);
	setenv("AVP_BELL", word ? "futex" : "socket", 1);
	futex = word;
	if (word && !lane_has_bells())
		printf("skip soak: %s: this kernel has none\n", what);
	else
		soak(what);
	unsetenv("AVP_LOOP");
	unsetenv("AVP_BELL");
}

static bool forbidden(void)
{
	struct avp_loop *loop;
	int error;

	setenv("AVP_LOOP", "io_uring", 1);
	error = avp_loop_open(&loop, NULL);
	if (!error)
		avp_loop_close(loop);
	unsetenv("AVP_LOOP");
	if (error)
		printf("skip soak: io_uring is forbidden here\n");
	return error;
}

static void lanes_io_uring(void)
{
	if (forbidden())
		return;
	with("io_uring", true, soak_lanes);
	with("io_uring", false, soak_lanes);
}

static void lanes_epoll(void)
{
	with("epoll", false, soak_lanes);
}

static void agents_io_uring(void)
{
	if (forbidden())
		return;
	with("io_uring", true, soak_agents);
	with("io_uring", false, soak_agents);
}

static void agents_epoll(void)
{
	with("epoll", false, soak_agents);
}

static void adaptive_io_uring(void)
{
	adaptive = true;
	agents_io_uring();
	adaptive = false;
}

static void adaptive_epoll(void)
{
	adaptive = true;
	agents_epoll();
	adaptive = false;
}

int main(void)
{
	static const struct test tests[] = {
		TEST(lanes_io_uring),
		TEST(lanes_epoll),
		TEST(agents_io_uring),
		TEST(agents_epoll),
		TEST(adaptive_io_uring),
		TEST(adaptive_epoll),
		{0},
	};

	agents_begin();
	tally = shared_new(2 * sizeof(*tally));
	return test_main("soak", tests);
}
