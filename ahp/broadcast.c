/* SPDX-License-Identifier: Apache-2.0 */
/* One body, many readers: as many descriptors, one block. */
#include <string.h>

#include "ahp/agent_internal.h"
#include "ahp/leader_internal.h"

/* Longer bodies never fit a slot beside their ids. */
#define IN_SLOT_BYTES 64

int ahp__share_open(struct ahp_agent *agent, const struct ahp_outgoing *m,
		    struct ahp__shared *shared, struct avp_reason *why)
{
	int error;

	*shared = (struct ahp__shared){.message = *m};
	shared->message.flags |= AHP_KEEP_LOAN;
	if (m->loan || (!m->frame && m->body_bytes <= IN_SLOT_BYTES))
		return 0;
	error = ahp_loan(agent, NULL, m->body_bytes, 0, &shared->loan, why);
	if (error)
		return error;
	memcpy(shared->loan.data, m->body, m->body_bytes);
	shared->message.loan = &shared->loan;
	shared->message.body = shared->loan.data;
	return 0;
}

void ahp__share_close(struct ahp_agent *agent, const struct ahp_outgoing *m,
		      struct ahp__shared *shared, bool taken)
{
	ahp_loan_release(agent, &shared->loan);
	if (taken && m->loan && !(m->flags & AHP_KEEP_LOAN))
		ahp_loan_release(agent, m->loan);
}

static uint32_t linked(const struct ahp_agent *agent, const char **id)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < agent->peers; i++)
		if (agent->peer[i]->link &&
		    agent->peer[i]->link->state == LINK_UP)
			id[count++] = agent->peer[i]->id;
	return count;
}

static int send_each(struct ahp_agent *agent, struct ahp__shared *shared,
		     const char *const *target, uint32_t targets,
		     int64_t timeout_ns, int *code, struct avp_reason *why)
{
	int sent = 0;

	shared->message.peer = 0;
	for (uint32_t i = 0; i < targets; i++) {
		int error;

		shared->message.target = target[i];
		error = ahp_send(agent, &shared->message, timeout_ns, NULL,
				 why);
		if (code)
			code[i] = error;
		sent += !error;
	}
	return sent;
}

int ahp_broadcast(struct ahp_agent *agent, const struct ahp_outgoing *message,
		  const char *const *target, uint32_t targets,
		  int64_t timeout_ns, int *code, struct avp_reason *why)
{
	const char *all[LINKS_MAX];
	struct ahp__shared shared;
	int sent;

	AHP_GUARD(agent);
	sent = ahp__share_open(agent, message, &shared, why);
	if (sent)
		return sent;
	if (!target) {
		targets = linked(agent, all);
		target = all;
	}
	sent = send_each(agent, &shared, target, targets, timeout_ns, code,
			 why);
	ahp__share_close(agent, message, &shared, sent > 0);
	return sent;
}
