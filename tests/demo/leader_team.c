/* SPDX-License-Identifier: Apache-2.0 */
/*
 * make demo, the second scene: a leader and three sub-agents, each a process.
 * One works as it should, one refuses a task once and gets it again, one
 * refuses it until it is a dead letter, which is then replayed from the queue
 * on disk. Every process says what it does, with the milliseconds since the
 * beginning.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <avp/ahp.h>
#include <avp/dlq.h>
#include <avp/leader.h>

#include "demo.h"

enum { SUBS = 3, DELIVERIES = 3 };

#define MS	    1000000ll
#define PATIENCE_NS (5000 * MS)

/* Who does what, and how often it refuses before. */
static const struct {
	const char *name, *task, *payload, *result;
	int refusals;
} sub[SUBS] = {
	{"head", "t-1", "{\"category\": \"head\", \"wish\": \"a hat\"}",
	 "{\"result\": {\"item\": \"straw hat\"}, \"status\": \"success\"}", 0},
	{"top", "t-2", "{\"category\": \"top\", \"wish\": \"a shirt\"}",
	 "{\"result\": {\"item\": \"linen shirt\"}, \"status\": \"success\"}",
	 1},
	{"shoes", "t-3", "{\"category\": \"shoes\", \"wish\": \"sandals\"}",
	 "{\"result\": {\"item\": \"sandals\"}, \"status\": \"success\"}",
	 DELIVERIES},
};

static struct ahp_agent *open_agent(const char *id, uint32_t flags)
{
	struct ahp_agent_options options = {
		.size = sizeof(options),
		.flags = flags,
		.id = id,
		.max_retries = DELIVERIES - 1,
		.retry_delay_ns = 100 * MS,
	};
	struct ahp_agent *agent;
	struct avp_reason why;

	need(!ahp_agent_open(&agent, &options, &why), "open", &why);
	return agent;
}

/* ---- a sub-agent -------------------------------------------------------- */

static void answer(struct ahp_agent *agent, const struct ahp_message *m,
		   uint8_t method, const char *body)
{
	struct ahp_outgoing out = {.peer = m->peer,
				   .method = method,
				   .task_id = m->task_id,
				   .body = body,
				   .body_bytes = strlen(body)};
	struct avp_reason why;

	need(!ahp_send(agent, &out, PATIENCE_NS, NULL, &why), "answer", &why);
}

static void do_task(struct ahp_agent *agent, struct ahp_message *m, int which)
{
	say("PROGRESS 0.5 of %s", sub[which].task);
	answer(agent, m, AHP_PROGRESS,
	       "{\"progress\": 0.5, \"message\": \"looking\"}");
	say("RESULT of %s", sub[which].task);
	answer(agent, m, AHP_RESULT, sub[which].result);
	say("ACK of %s: accepted, now that the work is done", sub[which].task);
	need(!ahp_accept(agent, m), "accept", NULL);
}

/* Until the leader hangs up. */
static void serve(int which)
{
	struct ahp_agent *agent;
	struct ahp_message m;
	int refused = 0;

	me = sub[which].name;
	agent = open_agent(me, AHP_EXPLICIT_ACK);
	while (ahp_liveness(agent, "leader", AHP_FOREVER) != AHP_DEAD) {
		if (ahp_receive(agent, &m, 50 * MS))
			continue;
		if (refused < sub[which].refusals) {
			say("ACK of %s: rejected%s", sub[which].task,
			    m.redelivered ? ", again" : "");
			need(!ahp_reject(agent, &m), "reject", NULL);
			refused++;
		} else {
			do_task(agent, &m, which);
		}
		ahp_release(agent, &m);
	}
	ahp_agent_close(agent);
}

/* ---- the leader --------------------------------------------------------- */

static void dispatch(struct ahp_leader *leader, int which,
		     const struct ahp_outgoing *task)
{
	struct avp_reason why;

	need(ahp_leader_dispatch(leader, task, &sub[which].name, 1, PATIENCE_NS,
				 NULL, &why) == 1,
	     "dispatch", &why);
}

static void hand_out(struct ahp_leader *leader)
{
	for (int i = 0; i < SUBS; i++) {
		struct ahp_outgoing task = {.task_id = avp_str_of(sub[i].task),
					    .body = sub[i].payload,
					    .body_bytes =
						    strlen(sub[i].payload)};

		say("TASK %s for %s: %s", sub[i].task, sub[i].name,
		    sub[i].payload);
		dispatch(leader, i, &task);
	}
}

/* What comes of the tasks, until all have ended; how many had a result. */
static int collect(struct ahp_leader *leader)
{
	struct avp_reason why = {0};
	struct ahp_news news;
	int results = 0;

	while (ahp_leader_open_tasks(leader)) {
		why.code = ahp_leader_next(leader, &news, PATIENCE_NS);
		need(!why.code, avp_error_text(why.code), NULL);
		if (news.kind == AHP_NEWS_RESULT) {
			say("has %.*s from %s: %.*s", (int)news.task_id.len,
			    news.task_id.data, news.source,
			    (int)news.message->body_bytes,
			    (const char *)news.message->body);
			results++;
		} else if (news.kind == AHP_NEWS_DEAD) {
			say("%.*s of %s is dead: %s; its letter is on disk",
			    (int)news.task_id.len, news.task_id.data,
			    news.source, avp_error_name(news.code));
		}
		ahp_leader_done(leader, &news);
	}
	return results;
}

/* The only letter there is goes to its agent again, as a new message. */
static void replay(struct ahp_leader *leader, struct ahp_dlq *dlq)
{
	struct ahp_dlq_entry letter;
	struct ahp_dlq_replay again;
	struct avp_reason why;
	char body[500];
	struct ahp_outgoing task = {.body = body};

	need(ahp_dlq_next(dlq, 0, &letter, &why) == 1, "no letter", &why);
	say("dead letter %llu: for %.*s, %s, after %u retries",
	    (unsigned long long)letter.number, (int)letter.agent.len,
	    letter.agent.data, avp_error_name(letter.code), letter.retry_count);
	need(ahp_dlq_replay_begin(dlq, letter.number, &again, &why) == 1,
	     "replay", &why);
	need(again.body_bytes <= sizeof(body), "the letter's length", NULL);
	need(!ahp_dlq_replay_read(dlq, &again, body, &why), "read", &why);
	task.body_bytes = again.body_bytes;
	task.task_id = letter.message.task_id;
	task.message_id = again.id;
	say("replays it as a new message: %.*s", (int)again.body_bytes, body);
	dispatch(leader, SUBS - 1, &task);
	need(collect(leader) == 1, "the replay had no result", NULL);
	need(!ahp_dlq_replay_end(dlq, &again, true, &why), "end", &why);
	ahp_dlq_entry_fini(&letter);
}

static void lead(void)
{
	struct ahp_agent *agent = open_agent("leader", AHP_RELIABLE);
	struct ahp_dlq_info info;
	struct ahp_leader *leader;
	struct ahp_stats stats;
	struct avp_reason why;
	struct ahp_dlq *dlq;

	need(!ahp_dlq_open(&dlq, NULL, &why), "dead letter queue", &why);
	need(!ahp_agent_keep_dlq(agent, dlq, &why), "keep", &why);
	need(!ahp_leader_open(&leader, agent, NULL, &why), "leader", &why);
	hand_out(leader);
	need(collect(leader) == SUBS - 1, "two results and a letter", NULL);
	replay(leader, dlq);
	need(!ahp_dlq_info(dlq, &info, &why) && !info.entries,
	     "a letter is left", NULL);
	do { /* the last answer follows its result */
		ahp_agent_run(agent, 0);
		ahp_agent_stats(agent, &stats);
	} while (stats.in_flight && now_ns() - start_ns < PATIENCE_NS);
	say("%llu messages sent, %llu of them retries; %llu accepted, %llu "
	    "rejected, %llu dead; no letter left",
	    (unsigned long long)stats.sent, (unsigned long long)stats.retried,
	    (unsigned long long)stats.acked, (unsigned long long)stats.rejected,
	    (unsigned long long)stats.dead);
	ahp_leader_close(leader);
	ahp_agent_close(agent);
	ahp_dlq_close(dlq);
}

int main(void)
{
	pid_t child[SUBS];

	printf("\nA leader and three sub-agents, four processes of this host. "
	       "A refused task comes\nagain after 100 ms and more, at most %d "
	       "times; then it is a dead letter.\n\n       ms\n",
	       DELIVERIES - 1);
	fflush(stdout);
	me = "leader";
	start_ns = now_ns();
	for (int i = 0; i < SUBS; i++) {
		child[i] = fork();
		need(child[i] >= 0, "fork", NULL);
		if (child[i])
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		serve(i);
		exit(0);
	}
	lead();
	for (int i = 0; i < SUBS; i++) {
		int status = 1;

		while (waitpid(child[i], &status, 0) < 0 && errno == EINTR)
			;
		need(!status, "a sub-agent failed", NULL);
	}
	return 0;
}
