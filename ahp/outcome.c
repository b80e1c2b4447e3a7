/* SPDX-License-Identifier: Apache-2.0 */
/* What became of a sent message, by its receipt. */
#include "ahp/agent_internal.h"
#include "ahp/retry.h"

static int as_code(int status, bool ended)
{
	switch (status) {
	case 0: return ended ? AVP_CLOSED : AVP_AGAIN;
	case AVP_ACK_ACCEPTED: return 0;
	case AVP_ACK_REJECTED: return AVP_REJECTED;
	case AVP_ACK_EXPIRED: return AVP_EXPIRED;
	case AVP_ACK_MISFIT: return AVP_SHAPE_MISMATCH;
	default: return AVP_UNKNOWN;
	}
}

/* The link of that generation, if it has not ended; it may be draining. */
static struct ahp__link *link_of(const struct ahp_agent *agent,
				 const struct ahp__peer *peer,
				 uint32_t generation)
{
	for (uint32_t i = 0; i < agent->links; i++)
		if (agent->link[i]->peer == peer && agent->link[i]->ledger &&
		    agent->link[i]->generation == generation)
			return agent->link[i];
	return NULL;
}

/* What the ledger of its link says. */
static int ledger_status(struct ahp_agent *agent,
			 const struct ahp_receipt *receipt)
{
	const struct ahp__peer *peer = ahp__peer_at(agent, receipt->peer);
	struct ahp__link *link;

	if (!peer)
		return AVP_UNKNOWN;
	link = peer->link && peer->link->generation == receipt->generation &&
			       peer->link->ledger ?
		       peer->link :
		       link_of(agent, peer, receipt->generation);
	if (link && link->state == LINK_UP)
		ahp__acks_read(link);
	if (link && link->ledger)
		return as_code(avp_ledger_status(link->ledger,
						 receipt->sequence),
			       link->state != LINK_UP);
	if (peer->ledger && peer->ledger_generation == receipt->generation)
		return as_code(avp_ledger_status(peer->ledger,
						 receipt->sequence),
			       true);
	return AVP_UNKNOWN;
}

int ahp_status(struct ahp_agent *agent, const struct ahp_receipt *receipt)
{
	AHP_GUARD(agent);
	return ahp__retry_status(agent, receipt,
				 ledger_status(agent, receipt));
}

struct status_wait {
	struct ahp_agent *agent;
	const struct ahp_receipt *receipt;
	int status;
};

static bool status_known(void *arg)
{
	struct status_wait *wait = arg;

	wait->status = ahp_status(wait->agent, wait->receipt);
	return wait->status != AVP_AGAIN;
}

int ahp_wait(struct ahp_agent *agent, const struct ahp_receipt *receipt,
	     int64_t timeout_ns)
{
	struct status_wait wait = { agent, receipt, AVP_AGAIN };

	AHP_GUARD(agent);
	if (ahp__agent_wait(agent, timeout_ns, NEWS_ACKS, status_known, &wait))
		return AVP_TIMEOUT;
	return wait.status;
}
