/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ahp/cmd_agent.h"
#include "ahp/cmd_path.h"

#define MEASURE_NS  150000000ll /* each of the two */
#define PATIENCE_NS 5000000000ll
#define SMALL_BYTES 64
#define LARGE_BYTES (1u << 20)
#define IN_FLIGHT   8
#define SAMPLES_MAX 100000

/*
 * Puts this process on a processor of its own, the which-th of those it may
 * use. Where the scheduler leaves both on one, each spins in the other's way,
 * and it is the scheduler that is measured.
 */
static void pin(const cpu_set_t *all, int which)
{
	cpu_set_t one;

	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, all) || which--)
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		sched_setaffinity(0, sizeof(one), &one);
		return;
	}
}

/* ---- the other process -------------------------------------------------- */

static uint64_t read_all(const void *body, uint64_t bytes)
{
	const uint8_t *p = body;
	uint64_t sum = 0, word;

	/* A short body lies in its slot, at any address. */
	for (uint64_t i = 0; i + sizeof(word) <= bytes; i += sizeof(word)) {
		memcpy(&word, p + i, sizeof(word));
		sum += word;
	}
	return sum;
}

/* Answers each TASK when it has read it, until a HEARTBEAT ends it. */
static int echo(struct ahp_agent *agent)
{
	static char answer[SMALL_BYTES];
	struct ahp_outgoing out = {.method = AHP_RESULT,
				   .body = answer,
				   .body_bytes = SMALL_BYTES};
	struct ahp_message m;
	uint64_t sum;

	for (;;) {
		if (ahp_receive(agent, &m, PATIENCE_NS))
			return 1;
		sum = read_all(m.body, m.body_bytes);
		memcpy(answer, &sum, sizeof(sum));
		out.peer = m.peer;
		ahp_release(agent, &m);
		if (m.method == AHP_HEARTBEAT)
			return 0;
		if (ahp_send(agent, &out, PATIENCE_NS, NULL, NULL))
			return 1;
	}
}

static int run_other(const struct ahp_agent_options *like, const cpu_set_t *all)
{
	struct ahp_agent_options options = *like;
	struct ahp_agent *agent;
	int status;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	pin(all, 1);
	options.id = "b";
	if (ahp_agent_open(&agent, &options, NULL))
		return 1;
	status = echo(agent);
	ahp_agent_close(agent);
	return status;
}

/* ---- this one ----------------------------------------------------------- */

static int link_other(struct ahp_agent *agent, struct avp_reason *why)
{
	int64_t end_ns = cmd_end_ns(PATIENCE_NS);
	int err;

	/* It may not have opened its agent yet. */
	do {
		err = ahp_connect(agent, "b", PATIENCE_NS, NULL, why);
		if (err == AVP_AGENT_NOT_FOUND)
			poll(NULL, 0, 1);
	} while (err == AVP_AGENT_NOT_FOUND && cmd_now_ns() < end_ns);
	return err;
}

static int take_answer(struct ahp_agent *agent, struct avp_reason *why)
{
	struct ahp_message m;
	int err = ahp_receive(agent, &m, PATIENCE_NS);

	if (err)
		return avp__fail(why, err, "no answer: %s",
				 avp_error_text(err));
	ahp_release(agent, &m);
	return 0;
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static int measure_trips(struct ahp_agent *agent, struct cmd_path *path,
			 struct avp_reason *why)
{
	static uint32_t sample[SAMPLES_MAX];
	static const uint64_t body[SMALL_BYTES / 8];
	struct ahp_outgoing out = {.target = "b",
				   .method = AHP_TASK,
				   .body = body,
				   .body_bytes = SMALL_BYTES};
	int64_t end_ns = cmd_end_ns(MEASURE_NS), then, now = cmd_now_ns();
	unsigned n = 0;
	int err = 0;

	while (!err && now < end_ns && n < SAMPLES_MAX) {
		then = now;
		err = ahp_send(agent, &out, PATIENCE_NS, NULL, why);
		if (!err)
			err = take_answer(agent, why);
		now = cmd_now_ns();
		sample[n++] = (uint32_t)(now - then);
	}
	if (err)
		return err;
	qsort(sample, n, sizeof(*sample), by_value);
	path->round_trip_ns = sample[n / 2];
	return 0;
}

static int send_large(struct ahp_agent *agent, int mark, struct avp_reason *why)
{
	struct ahp_outgoing out = {.target = "b", .method = AHP_TASK};
	struct ahp_loan loan;
	int err = ahp_loan(agent, "b", LARGE_BYTES, 0, &loan, why);

	if (err)
		return err;
	memset(loan.data, mark, LARGE_BYTES);
	out.loan = &loan;
	out.body = loan.data;
	out.body_bytes = LARGE_BYTES;
	return ahp_send(agent, &out, PATIENCE_NS, NULL, why);
}

static int measure_bytes(struct ahp_agent *agent, struct cmd_path *path,
			 struct avp_reason *why)
{
	int64_t start_ns = 0, end_ns = AHP_FOREVER;
	int sent = 0, answered = 0, err = 0;

	while (!err && cmd_now_ns() < end_ns) {
		if (sent - answered < IN_FLIGHT) {
			err = send_large(agent, sent++, why);
			continue;
		}
		err = take_answer(agent, why);
		/* The first ones have mapped the memory. */
		if (++answered == IN_FLIGHT) {
			start_ns = cmd_now_ns();
			end_ns = start_ns + MEASURE_NS;
		}
	}
	path->bytes_per_s = (double)(answered - IN_FLIGHT) * LARGE_BYTES * 1e9 /
			    (double)(cmd_now_ns() - start_ns);
	while (!err && answered++ < sent)
		err = take_answer(agent, why);
	return err;
}

static int measure(const struct ahp_agent_options *like, struct cmd_path *path,
		   struct avp_reason *why)
{
	struct ahp_agent_options options = *like;
	struct ahp_outgoing end = {.target = "b", .method = AHP_HEARTBEAT};
	struct ahp_agent *agent;
	int err;

	options.id = "a";
	err = ahp_agent_open(&agent, &options, why);
	if (err)
		return err;
	err = link_other(agent, why);
	if (!err)
		err = measure_trips(agent, path, why);
	if (!err)
		err = measure_bytes(agent, path, why);
	if (!err)
		err = ahp_send(agent, &end, PATIENCE_NS, NULL, why);
	ahp_agent_close(agent);
	return err;
}

static void ignore(void *arg, const struct ahp_observation *seen)
{
	(void)arg, (void)seen;
}

static void remove_namespace(const char *name)
{
	char path[4096 + 32];
	int n = ahp_runtime_dir(path, 4096, NULL);

	if (n < 0)
		return;
	snprintf(path + n, sizeof(path) - (size_t)n, "/%s", name);
	rmdir(path);
}

int cmd_path_measure(struct cmd_path *path, struct avp_reason *why)
{
	char name[32];
	struct ahp_agent_options like = {.size = sizeof(like),
					 .name_space = name};
	int err, status = 0;
	cpu_set_t all;
	pid_t child;

	CPU_ZERO(&all);
	sched_getaffinity(0, sizeof(all), &all);
	snprintf(name, sizeof(name), "doctor-%d", (int)getpid());
	child = fork();
	if (child < 0)
		return avp__fail(why, AVP_NO_MEMORY, "fork: %s",
				 strerror(errno));
	if (!child)
		_exit(run_other(&like, &all));
	pin(&all, 0);
	err = measure(&like, path, why);
	sched_setaffinity(0, sizeof(all), &all);
	if (err)
		kill(child, SIGTERM);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (!err && status)
		err = avp__fail(why, AVP_UNKNOWN, "the second agent failed");
	/* A killed one leaves its names to whoever looks next. */
	if (err)
		ahp_observe(NULL, name, ignore, NULL, NULL);
	remove_namespace(name);
	return err;
}
