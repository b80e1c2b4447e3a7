/* SPDX-License-Identifier: Apache-2.0 */
/* Linking to an agent by its name, and waiting until that is done. */
#include <string.h>

#include "ahp/agent_internal.h"

#define DUPLICATE_PAUSE_NS 10000000ll /* the other's connection is coming */

static bool link_decided(void *arg)
{
	const struct ahp__link *link = ((struct ahp__peer *)arg)->link;

	return !link || link->state == LINK_UP || link->state == LINK_POISONED;
}

static int link_state(const struct ahp__peer *peer, struct avp_reason *why)
{
	if (peer->link && peer->link->state == LINK_UP)
		return 0;
	if (!peer->link && !peer->error)
		return AVP_AGAIN;
	if (peer->link && peer->link->state != LINK_POISONED)
		return AVP_AGAIN;
	if (why)
		*why = peer->why;
	return peer->error;
}

static int64_t left_until(int64_t end_ns)
{
	int64_t left = end_ns == AHP_FOREVER ? end_ns : end_ns - ahp__now_ns();

	return left < 0 ? 0 : left;
}

static int too_late(const struct ahp__peer *peer, struct avp_reason *why)
{
	return avp__fail(why, AVP_TIMEOUT,
			 "%s has not answered in time; it may be computing",
			 peer->id);
}

/* Waits for the link of a peer, making it if there is none. */
static int link_peer(struct ahp_agent *agent, struct ahp__peer *peer,
		     int64_t timeout_ns, struct avp_reason *why)
{
	int64_t end_ns = ahp__now_ns(), left;
	int error;

	if (timeout_ns == AHP_USUAL)
		timeout_ns = agent->options.task_timeout_ns;
	end_ns = timeout_ns < AHP_FOREVER - end_ns ? end_ns + timeout_ns
						   : AHP_FOREVER;
	for (;;) {
		if (!peer->link) {
			error = ahp__link_connect(agent, peer, why);
			if (error)
				return error;
		}
		error = ahp__agent_wait(agent, left_until(end_ns),
					NEWS_MESSAGES, link_decided, peer);
		if (error)
			return too_late(peer, why);
		error = link_state(peer, why);
		if (error != AVP_AGAIN)
			return error;
		/*
		 * Both connected at once: the other's connection stays. Who
		 * does not wait is told to ask again, and comes upon it then.
		 */
		left = left_until(end_ns);
		if (!left)
			return too_late(peer, why);
		ahp__agent_turn(agent, left < DUPLICATE_PAUSE_NS
					       ? left
					       : DUPLICATE_PAUSE_NS);
	}
}

int ahp_connect(struct ahp_agent *agent, const char *id, int64_t timeout_ns,
		uint32_t *number, struct avp_reason *why)
{
	struct ahp__peer *peer;
	int error;

	AHP_GUARD(agent);
	if (!ahp__id_ok(id) || !strcmp(id, agent->id))
		return avp__fail(
			why, AVP_USAGE,
			"\"%.80s\" is not the id of another agent: 1-%d "
			"of [A-Za-z0-9._-], no leading dot",
			id ? id : "", AHP_ID_BYTES);
	peer = ahp__peer_get(agent, id);
	if (!peer)
		return avp__fail(why, AVP_NO_MEMORY,
				 "no room for another name; %u are known and "
				 "in use",
				 PEERS_MAX);
	if (!peer->link || peer->link->state != LINK_UP) {
		error = link_peer(agent, peer, timeout_ns, why);
		if (error)
			return error;
	}
	if (number)
		*number = peer->number;
	return 0;
}
