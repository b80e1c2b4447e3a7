/* SPDX-License-Identifier: Apache-2.0 */
/* Completion events: a ring with a place reserved for each that may come. */
#include <stdlib.h>

#include "ahp/agent_internal.h"
#include "ahp/leader_internal.h"

#define EVENTS_MAX 65536

struct ahp__events {
	uint32_t reserved; /* to come, or not taken */
	uint32_t first, count, room;
	struct ahp_event *ring; /* [room], at least `reserved` */
};

static int grow(struct ahp__events *e)
{
	uint32_t room = e->room ? 2 * e->room : 64;
	struct ahp_event *ring = calloc(room, sizeof(*ring));

	if (!ring)
		return AVP_NO_MEMORY;
	for (uint32_t i = 0; i < e->count; i++)
		ring[i] = e->ring[(e->first + i) % e->room];
	free(e->ring);
	e->ring = ring;
	e->room = room;
	e->first = 0;
	return 0;
}

int ahp__events_reserve(struct ahp_agent *agent, struct avp_reason *why)
{
	struct ahp__events *e = agent->events;

	if (!e)
		e = agent->events = calloc(1, sizeof(*e));
	if (e && e->reserved == EVENTS_MAX)
		return avp__fail(why, AVP_QUEUE_FULL,
				 "%u events are to come or were not taken, the "
				 "limit; call ahp_next_event()",
				 EVENTS_MAX);
	if (!e || (e->reserved == e->room && grow(e)))
		return avp__fail(why, AVP_NO_MEMORY, "no memory for events");
	e->reserved++;
	return 0;
}

void ahp__events_cancel(struct ahp_agent *agent)
{
	agent->events->reserved--;
}

void ahp__events_add(struct ahp_agent *agent, const struct ahp_event *event)
{
	struct ahp__events *e = agent->events;

	e->ring[(e->first + e->count++) % e->room] = *event;
}

void ahp__events_free(struct ahp_agent *agent)
{
	if (agent->events)
		free(agent->events->ring);
	free(agent->events);
	agent->events = NULL;
}

bool ahp__events_to_come(const struct ahp_agent *agent)
{
	return agent->events && agent->events->reserved;
}

/* Reads what the peers' lanes say, until there is one. */
bool ahp__event_ready(struct ahp_agent *agent)
{
	const struct ahp__events *e = agent->events;

	if (!e || !e->reserved)
		return false;

	for (uint32_t i = agent->ups; !e->count && i-- > 0;)
		if (i < agent->ups && agent->up[i]->state == LINK_UP &&
		    avp_ledger_outstanding(agent->up[i]->ledger))
			ahp__acks_read(agent->up[i]);
	return e->count;
}

static bool event_ready(void *agent)
{
	return ahp__event_ready(agent);
}

bool ahp__events_pop(struct ahp_agent *agent, struct ahp_event *event)
{
	struct ahp__events *e = agent->events;

	if (!e || !e->count)
		return false;
	*event = e->ring[e->first];
	e->first = (e->first + 1) % e->room;
	e->count--;
	e->reserved--;
	return true;
}

int ahp_next_event(struct ahp_agent *agent, struct ahp_event *event,
		   int64_t timeout_ns)
{
	struct ahp__events *e = agent->events;

	AHP_GUARD(agent);
	if (!e || !e->reserved)
		return AVP_TIMEOUT; /* none will ever come */
	if (!e->count &&
	    ahp__agent_wait(agent, timeout_ns, NEWS_ACKS, event_ready, agent))
		return AVP_TIMEOUT;
	return ahp__events_pop(agent, event) ? 0 : AVP_TIMEOUT;
}
