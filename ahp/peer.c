/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peers by name and by number. What is known of a name is kept as long as
 * there is room: an agent that lives for months meets any number of names,
 * each avpctl for one. Beyond PEERS_MAX the place of one is taken that was not
 * used for long and that nothing needs; its number never means another name.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ahp/agent_internal.h"
#include "ahp/retry.h"

#define NEXT_ROUND (PEER_PLACE_MASK + 1)
#define PEER_REST  (PEERS_MAX / 2)

static uint32_t *bucket_of(struct ahp_agent *agent, const char *id)
{
	unsigned hash = 5381;

	while (*id)
		hash = hash * 33 + (uint8_t)*id++;
	return &agent->peer_hash[hash % PEER_BUCKETS];
}

uint32_t ahp__peer_find(const struct ahp_agent *agent, const char *id)
{
	uint32_t number = *bucket_of((struct ahp_agent *)agent, id);
	const struct ahp__peer *peer;

	while ((peer = ahp__peer_at(agent, number)) && strcmp(peer->id, id))
		number = peer->next_same_hash;
	return number;
}

/* ---- room --------------------------------------------------------------- */

static bool needed(const struct ahp_agent *agent, const struct ahp__peer *peer)
{
	if (peer->link || peer->retry_first ||
	    (agent->retry && ahp__retry_needs(agent->retry, peer->number)))
		return true;
	/* Draining, or ended with its messages held. */
	for (uint32_t i = 0; i < agent->links; i++)
		if (agent->link[i]->peer == peer)
			return true;
	return false;
}

static void unhash(struct ahp_agent *agent, const struct ahp__peer *peer)
{
	uint32_t *number = bucket_of(agent, peer->id);

	while (*number != peer->number)
		number = &ahp__peer_at(agent, *number)->next_same_hash;
	*number = peer->next_same_hash;
}

/*
 * Each use of a name moves the clock, so at most half of all names were used
 * within the last PEER_REST uses: there are always others, unless they are
 * needed.
 */
static struct ahp__peer *take_place(struct ahp_agent *agent)
{
	for (uint32_t i = 0; i < PEERS_MAX; i++) {
		struct ahp__peer *peer =
			agent->peer[agent->peer_hand++ % PEERS_MAX];
		uint32_t number = peer->number + NEXT_ROUND;

		if (agent->peer_clock - peer->used < PEER_REST ||
		    needed(agent, peer))
			continue;
		unhash(agent, peer);
		avp_ledger_free(peer->ledger);
		*peer = (struct ahp__peer){.number = number};
		return peer;
	}
	return NULL;
}

void ahp__peer_used(struct ahp_agent *agent, struct ahp__peer *peer)
{
	peer->used = ++agent->peer_clock;
}

static struct ahp__peer *new_place(struct ahp_agent *agent)
{
	uint32_t room = agent->peers_room ? 2 * agent->peers_room : 16;
	struct ahp__peer *peer, **more;

	if (agent->peers == agent->peers_room) {
		more = realloc(agent->peer, room * sizeof(*more));
		if (!more)
			return NULL;
		agent->peer = more;
		agent->peers_room = room;
	}
	peer = calloc(1, sizeof(*peer));
	if (!peer)
		return NULL;
	agent->peer[agent->peers++] = peer;
	peer->number = agent->peers;
	return peer;
}

struct ahp__peer *ahp__peer_get(struct ahp_agent *agent, const char *id)
{
	struct ahp__peer *peer = ahp__peer_at(agent, ahp__peer_find(agent, id));
	uint32_t *first = bucket_of(agent, id);

	if (!peer) {
		peer = agent->peers == PEERS_MAX ? take_place(agent)
						 : new_place(agent);
		if (!peer)
			return NULL;
		snprintf(peer->id, sizeof(peer->id), "%s", id);
		peer->next_same_hash = *first;
		*first = peer->number;
	}
	ahp__peer_used(agent, peer);
	return peer;
}

const char *ahp_peer_id(const struct ahp_agent *agent, uint32_t number)
{
	const struct ahp__peer *peer;

	AHP_ENTER(agent);
	peer = ahp__peer_at(agent, number);
	return peer ? peer->id : NULL;
}
