/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bodies: blocks of an arena with a private count of who still needs them.
 * There is an arena for each user whose agents we talk to: what is lent to one
 * user's agents, another's cannot map.
 */
#include <stdlib.h>
#include <string.h>

#include "ahp/agent_internal.h"

#define TENSOR_ALIGN	   64
#define LARGE_BYTES	   (2u << 20) /* from here on the data is page-aligned */
#define LARGE_TENSOR_ALIGN 4096
#define COLLECT_BYTES	   (1u << 20) /* of the window's several MiB */

int ahp__pool_for(struct ahp_agent *agent, uint32_t uid, struct avp_reason *why)
{
	struct avp_arena_options options = {
		.size = sizeof(options),
		.flags = agent->options.memory_flags,
		.quota_bytes = agent->options.quota_bytes,
		.first_segment_bytes = agent->options.first_segment_bytes,
		.label = agent->id,
	};
	struct ahp__pool *pool;
	int error;

	for (uint32_t i = 0; i < agent->pools; i++)
		if (agent->pool[i].uid == uid)
			return (int)i;
	pool = realloc(agent->pool, (agent->pools + 1) * sizeof(*pool));
	if (!pool)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for an arena");
	agent->pool = pool;
	error = avp_arena_open(&pool[agent->pools].arena, &options, why);
	if (error)
		return error;
	pool[agent->pools].uid = uid;
	return (int)agent->pools++;
}

static int more_bodies(struct ahp_agent *agent)
{
	uint32_t room = agent->bodies_room ? 2 * agent->bodies_room : 64;
	struct ahp__body *body = realloc(agent->body, room * sizeof(*body));

	if (!body)
		return AVP_NO_MEMORY;
	for (uint32_t i = agent->bodies_room ? agent->bodies_room : 1; i < room;
	     i++)
		body[i] = (struct ahp__body){
			.next_free = i + 1 < room ? i + 1 : 0,
		};
	agent->body_free = agent->bodies_room ? agent->bodies_room : 1;
	agent->body = body;
	agent->bodies_room = room;
	return 0;
}

void ahp__bodies_collect(struct ahp_agent *agent)
{
	for (uint32_t i = agent->ups; i-- > 0;)
		if (i < agent->ups && agent->up[i]->state == LINK_UP &&
		    agent->up[i]->lent_bytes)
			ahp__acks_read(agent->up[i]);
}

/*
 * Before each loan: what came with the peers' messages is here already. Their
 * ack lines are asked only when there is much to be had: to read one that its
 * owner has just written takes as long as the rest of a loan.
 */
static void collect_cheaply(struct ahp_agent *agent)
{
	for (struct ahp__link *l = agent->unsettled, *next; l; l = next) {
		next = l->next_unsettled; /* a poisoned one leaves the list */
		if (l->state == LINK_UP)
			ahp__acks_enter(l);
	}
	if (agent->stats.bytes_lent >= COLLECT_BYTES)
		ahp__bodies_collect(agent);
}

int ahp__body_new(struct ahp_agent *agent, uint32_t pool, uint64_t bytes,
		  uint64_t align, uint32_t *out, struct avp_reason *why)
{
	struct ahp__body *body;
	int error;

	collect_cheaply(agent);
	if (!agent->body_free && more_bodies(agent))
		return avp__fail(why, AVP_NO_MEMORY, "no memory for a loan");
	body = &agent->body[agent->body_free];
	error = avp_arena_alloc(agent->pool[pool].arena, bytes, align,
				&body->block, why);
	if (error) {
		ahp__bodies_collect(agent);
		error = avp_arena_alloc(agent->pool[pool].arena, bytes, align,
					&body->block, why);
	}
	if (error)
		return error;
	*out = agent->body_free;
	agent->body_free = body->next_free;
	body->refs = 1;
	body->pool = pool;
	agent->stats.bytes_lent += body->block.bytes;
	if (agent->stats.bytes_lent > agent->lent_most[0])
		agent->lent_most[0] = agent->stats.bytes_lent;
	return 0;
}

void ahp__body_ref(struct ahp_agent *agent, uint32_t i)
{
	agent->body[i].refs++;
}

void ahp__body_unref(struct ahp_agent *agent, uint32_t i)
{
	struct ahp__body *body = &agent->body[i];

	if (--body->refs)
		return;
	agent->stats.bytes_lent -= body->block.bytes;
	avp_arena_release(agent->pool[body->pool].arena, &body->block);
	body->next_free = agent->body_free;
	agent->body_free = i;
}

bool ahp__bodies_prepare(struct ahp_agent *agent)
{
	uint64_t bytes = agent->options.reserve_bytes;
	struct avp_reason why;
	int more;

	if (!bytes)
		return false;
	more = ahp__pool_for(agent, agent->own_uid, &why);
	if (more >= 0)
		more = avp_arena_prepare(agent->pool[more].arena, bytes, &why);
	if (more > 0)
		return true;
	agent->options.reserve_bytes = 0; /* it is there, or cannot be had */
	if (more < 0)
		ahp__logf(agent, AHP_LOG_WARNING, more,
			  "not all of %llu bytes are there ahead of need: %s",
			  (unsigned long long)bytes, why.text);
	return false;
}

void ahp__bodies_free(struct ahp_agent *agent)
{
	for (uint32_t i = 0; i < agent->pools; i++)
		avp_arena_close(agent->pool[i].arena);
	free(agent->pool);
	free(agent->body);
}

static int loan_pool(struct ahp_agent *agent, const char *target,
		     struct avp_reason *why)
{
	struct ahp__peer *peer;

	if (!target)
		return ahp__pool_for(agent, agent->own_uid, why);
	peer = ahp__peer_at(agent, ahp__peer_find(agent, target));
	if (!peer || !peer->link || peer->link->state != LINK_UP)
		return avp__fail(why, AVP_AGENT_NOT_FOUND,
				 "%s is not linked; call ahp_connect() first",
				 target);
	return (int)peer->link->pool;
}

int ahp_loan(struct ahp_agent *agent, const char *target, uint64_t bytes,
	     uint32_t headroom, struct ahp_loan *loan, struct avp_reason *why)
{
	uint64_t align =
		bytes >= LARGE_BYTES ? LARGE_TENSOR_ALIGN : TENSOR_ALIGN;
	uint64_t front = headroom ? headroom : AHP_HEADROOM;
	uint32_t body;
	int pool, error;

	AHP_GUARD(agent);
	front = (front + align - 1) & ~(align - 1);
	if (front > UINT32_MAX)
		return avp__fail(
			why, AVP_TOO_LARGE,
			"headroom of %u bytes; it must stay below 4 GiB "
			"when it is rounded up",
			headroom);
	if (bytes > SEGMENT_CAP - front)
		return avp__fail(why, AVP_TOO_LARGE,
				 "a loan of %llu bytes; one block has at most "
				 "%llu",
				 (unsigned long long)bytes, SEGMENT_CAP);
	pool = loan_pool(agent, target, why);
	if (pool < 0)
		return pool;
	error = ahp__body_new(agent, (uint32_t)pool, front + bytes, align,
			      &body, why);
	if (error)
		return error;
	*loan = (struct ahp_loan){
		.data = (uint8_t *)agent->body[body].block.data + front,
		.bytes = bytes,
		.headroom = (uint32_t)front,
		.handle = body,
	};
	return 0;
}

void ahp_loan_release(struct ahp_agent *agent, struct ahp_loan *loan)
{
	AHP_ENTER(agent);
	if (avp__forked(&agent->guard) || !loan->handle)
		return;
	ahp__body_unref(agent, loan->handle);
	memset(loan, 0, sizeof(*loan));
}
