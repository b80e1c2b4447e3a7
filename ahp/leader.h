/* SPDX-License-Identifier: Apache-2.0 */
/*
 * <avp/leader.h>: what leaders and sub-agents do all day, made of <avp/ahp.h>:
 * hand a task to many and collect what comes of it; ask and wait for the
 * answer; ask for tokens, and grant them.
 *
 * Both objects here belong to an agent, which they borrow and which must
 * outlive them; they are used by its thread. While one is open it alone
 * receives for the agent, and a leader alone takes its events. Time-outs as in
 * <avp/ahp.h>.
 */
#ifndef AVP_LEADER_H
#define AVP_LEADER_H

#include <avp/ahp.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* ---- an inbox: messages that wait while one of them is waited for ------- */

struct ahp_inbox;

#define AHP_INBOX_MAX 1024 /* messages that an inbox puts aside */

/* AVP_NO_MEMORY. */
int ahp_inbox_open(struct ahp_inbox **inbox, struct ahp_agent *agent,
		   struct avp_reason *why);
/* Releases, unanswered, what is still put aside. NULL is allowed. */
void ahp_inbox_close(struct ahp_inbox *inbox);

/*
 * The next message, those that were put aside first; as ahp_receive(). It is
 * the inbox's and goes back by ahp_inbox_done(), which releases it; accept or
 * reject it before, as with any other.
 */
int ahp_inbox_receive(struct ahp_inbox *inbox, struct ahp_message **message,
		      int64_t timeout_ns);
void ahp_inbox_done(struct ahp_inbox *inbox, struct ahp_message *message);

/*
 * Sends a message and waits for its answer: the RESULT (to TOKEN_REQUEST, the
 * TOKEN_RESPONSE) of the same task id from its target. Other messages are put
 * aside: none is lost. Errors of ahp_send(); AVP_TIMEOUT; AVP_USAGE without a
 * task id; AVP_QUEUE_FULL when AHP_INBOX_MAX have been put aside.
 */
int ahp_request(struct ahp_inbox *inbox, const struct ahp_outgoing *request,
		int64_t timeout_ns, struct ahp_message **answer,
		struct avp_reason *why);

/*
 * Asks a leader for tokens. *granted: from 0 to what was asked; *remaining (may
 * be NULL): what the leader has left for us. AVP_INVALID_MESSAGE when the
 * answer is none, or grants more than was asked.
 */
int ahp_request_tokens(struct ahp_inbox *inbox, const char *leader,
		       uint64_t tokens, int64_t timeout_ns, uint64_t *granted,
		       uint64_t *remaining, struct avp_reason *why);

/* ---- one body, many readers --------------------------------------------- */

/*
 * Sends a message to each of the targets (NULL: to all agents that we are
 * linked to), its body lying in one place for all. Returns how many took it;
 * code[i] (may be NULL) is what ahp_send() said of target i, or of the i-th
 * link.
 */
int ahp_broadcast(struct ahp_agent *agent, const struct ahp_outgoing *message,
		  const char *const *target, uint32_t targets,
		  int64_t timeout_ns, int *code, struct avp_reason *why);

/* ---- a leader: tasks and what comes of them ----------------------------- */

struct ahp_leader;

#define AHP_LEADER_TASKS 65536 /* tasks that are open, each with each agent */

struct ahp_leader_options {
	uint32_t size;	/* sizeof(struct ahp_leader_options), or 0 */
	uint32_t flags; /* none yet: 0 */
	/* Borrowed: TOKEN_REQUESTs are answered out of it and not delivered.
	 * NULL: they are news of the kind MESSAGE. */
	struct ahp_tokens *tokens;
	uint64_t reserved[4]; /* 0 */
};

/* options may be NULL. AVP_USAGE for options, AVP_NO_MEMORY. */
int ahp_leader_open(struct ahp_leader **leader, struct ahp_agent *agent,
		    const struct ahp_leader_options *options,
		    struct avp_reason *why);
/* Forgets all open tasks. NULL is allowed. */
void ahp_leader_close(struct ahp_leader *leader);

/*
 * Hands a TASK with a task id to each target, reliably, as ahp_broadcast(). For
 * each of those that took it there will be one end: RESULT or DEAD. The task's
 * deadline is its deadline_ns (0: the agent's task_timeout_ns). AVP_USAGE
 * without a task id; a target that has this task already: AVP_USAGE in
 * code[i].
 */
int ahp_leader_dispatch(struct ahp_leader *leader,
			const struct ahp_outgoing *task,
			const char *const *target, uint32_t targets,
			int64_t timeout_ns, int *code, struct avp_reason *why);

/* Tasks that have not ended. */
uint32_t ahp_leader_open_tasks(const struct ahp_leader *leader);

enum ahp_news_kind {
	AHP_NEWS_MESSAGE =
		0, /* of no open task: whatever else was sent to us */
	AHP_NEWS_PROGRESS = 1, /* of an open task */
	AHP_NEWS_RESULT = 2,   /* its end */
	/*
	 * Its end, too: it could not be delivered, or was accepted and no
	 * RESULT had come at its deadline. In the second case this call has
	 * made it a dead letter, with AVP_TIMEOUT.
	 */
	AHP_NEWS_DEAD = 3,
	/* Its deadline has passed while it is being worked on, not yet accepted;
	 * told once. It ends when it is settled, or its reader does. */
	AHP_NEWS_LATE = 4
};

struct ahp_news {
	uint8_t kind; /* enum ahp_news_kind */
	int code;     /* of DEAD */
	uint32_t peer;
	const char *source;	     /* the agent's id */
	struct avp_str task_id;	     /* valid until the next call */
	struct ahp_message *message; /* NULL for DEAD and LATE */
};

/*
 * The next news, waiting for at most timeout_ns: AVP_TIMEOUT. A message goes
 * back by ahp_leader_done(), which accepts it if that is owed, and releases
 * it. A RESULT of a task that is not open (it has ended, or was never ours) is
 * MESSAGE.
 */
int ahp_leader_next(struct ahp_leader *leader, struct ahp_news *news,
		    int64_t timeout_ns);
void ahp_leader_done(struct ahp_leader *leader, struct ahp_news *news);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
