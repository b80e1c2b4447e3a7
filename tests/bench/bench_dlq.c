/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dead letters a second: appended alone, and stored, by the size of the group
 * that one commit brings to the disk; and through an agent, whose messages are
 * all rejected, until the event of each says that it is kept. The directory is
 * the first argument (a disk, not a tmpfs), else the current one.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <avp/ahp.h>
#include <avp/dlq.h>

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void must(int code, const struct avp_reason *why)
{
	if (code >= 0)
		return;
	fprintf(stderr, "bench_dlq: %s: %s\n", avp_error_name(code), why->text);
	exit(1);
}

static void append(struct ahp_dlq *q, unsigned n)
{
	static const char payload[] =
		"{\"user_info\":{\"mood\":\"calm\"},\"category\":\"search\","
		"\"instruction\":\"find what was lost\"}";
	char id[40];
	struct ahp_envelope m = {
		.method = {"TASK", 4},
		.agent_id = {"leader", 6},
		.target_agent = {"solver", 6},
		.task_id = {"task-1", 6},
		.payload_json = {payload, sizeof(payload) - 1},
		.token_limit = 500,
	};
	struct ahp_dlq_letter l = {.message = &m,
				   .error = {"three deliveries failed", 23},
				   .code = AVP_RETRY_EXHAUSTED,
				   .retry_count = 3};
	struct avp_reason why;

	snprintf(id, sizeof(id), "message-%u", n);
	m.message_id = avp_str_of(id);
	must(ahp_dlq_append(q, &l, NULL, &why), &why);
}

static void measure(const char *dir, unsigned group)
{
	struct ahp_dlq_options o = {
		.size = sizeof(o), .dir = dir, .name_space = "bench"};
	struct avp_reason why;
	struct ahp_dlq *q;
	double start, end;
	unsigned n = 0;

	must(ahp_dlq_open(&q, &o, &why), &why);
	start = now_s();
	do {
		for (unsigned i = 0; i < (group ? group : 64); i++)
			append(q, n++);
		if (group)
			must(ahp_dlq_commit(q, &why), &why);
		end = now_s();
	} while (end - start < 1.5);
	printf("{\"bench\":\"dlq\",\"group\":%u,\"unit\":\"entries/s\","
	       "\"rate\":%.0f}\n",
	       group, n / (end - start));
	must(ahp_dlq_clear(q, (struct avp_str){"", 0}, NULL, &why), &why);
	ahp_dlq_close(q);
}

/* ---- through an agent --------------------------------------------------- */

static struct ahp_agent *open_agent(const char *id, uint32_t flags)
{
	struct ahp_agent_options o = {.size = sizeof(o),
				      .flags = flags,
				      .id = id,
				      .window = 4096,
				      .max_retries = AHP_NO_RETRY};
	struct ahp_agent *agent;
	struct avp_reason why;

	must(ahp_agent_open(&agent, &o, &why), &why);
	return agent;
}

/* Takes and rejects what there is. */
static void reject_all(struct ahp_agent *agent)
{
	struct ahp_message m;

	while (!ahp_receive(agent, &m, 0)) {
		ahp_reject(agent, &m);
		ahp_release(agent, &m);
	}
	ahp_agent_run(agent, 0);
}

static void measure_agent(const char *dir)
{
	static const char body[] = "{\"category\":\"search\"}";
	struct ahp_dlq_options o = {
		.size = sizeof(o), .dir = dir, .name_space = "bench"};
	struct ahp_agent *a = open_agent("bench-dlq-a", AHP_RELIABLE);
	struct ahp_agent *b = open_agent("bench-dlq-b", AHP_EXPLICIT_ACK);
	struct ahp_outgoing out = {.target = "bench-dlq-b",
				   .method = AHP_TASK,
				   .flags = AHP_NOTIFY,
				   .task_id = {"task-1", 6},
				   .body = body,
				   .body_bytes = sizeof(body) - 1};
	unsigned sent = 0, kept = 0;
	struct ahp_event event;
	struct avp_reason why;
	struct ahp_dlq *q;
	double start, end;

	must(ahp_dlq_open(&q, &o, &why), &why);
	must(ahp_agent_keep_dlq(a, q, &why), &why);
	while (ahp_connect(a, out.target, 0, &out.peer, NULL))
		ahp_agent_run(b, 0);
	start = now_s();
	do {
		while (sent - kept < 2048 && !ahp_send(a, &out, 0, NULL, NULL))
			sent++;
		reject_all(b);
		while (!ahp_next_event(a, &event, 0))
			kept += event.kept;
		end = now_s();
	} while (end - start < 1.5);
	printf("{\"bench\":\"dlq\",\"group\":\"agent\",\"unit\":"
	       "\"entries/s\",\"rate\":%.0f}\n",
	       kept / (end - start));
	ahp_agent_close(b);
	ahp_agent_close(a);
	must(ahp_dlq_clear(q, (struct avp_str){"", 0}, NULL, &why), &why);
	ahp_dlq_close(q);
}

int main(int argc, char **argv)
{
	static const unsigned groups[] = {0, 1, 16, 64, 256, 1024};
	char dir[] = "./dlq-bench-XXXXXX";
	char path[400];

	if (argc > 1 && chdir(argv[1])) {
		perror(argv[1]);
		return 1;
	}
	if (!mkdtemp(dir)) {
		perror(dir);
		return 1;
	}
	for (size_t i = 0; i < sizeof(groups) / sizeof(*groups); i++)
		measure(dir, groups[i]);
	measure_agent(dir);
	snprintf(path, sizeof(path), "%s/bench/journal", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/bench/.lock", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/bench", dir);
	rmdir(path);
	rmdir(dir);
	return 0;
}
