/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The links that are polled, and what an agent looks at before it sleeps: of
 * each idle link one word of the peer's memory. Where that word is, and what
 * it will be, stands in an array of its own, so that hundreds of links that
 * say nothing cost a line each and the array, and not their books.
 */
#include <assert.h>

#include "ahp/agent_internal.h"
#include "ring/lane_inline.h"

static void set_look(struct ahp_agent *agent, uint32_t at)
{
	const struct avp_lane_rx *rx = &agent->up[at]->rx;

	agent->look[at] =
		(struct ahp__look){&lane_next(rx)->sequence, rx->next};
}

static void put(struct ahp_agent *agent, uint32_t at, struct ahp__link *link)
{
	agent->up[at] = link;
	link->up_at = at;
	set_look(agent, at);
}

void ahp__up_add(struct ahp__link *link)
{
	put(link->agent, link->agent->ups++, link);
}

bool ahp__up_remove(struct ahp__link *link)
{
	struct ahp_agent *agent = link->agent;
	uint32_t at = link->up_at;

	if (at >= agent->ups || agent->up[at] != link)
		return false;
	put(agent, at, agent->up[--agent->ups]);
	agent->first = agent->turn = 0;
	agent->speaker = NULL;
	agent->budget = BURST_MESSAGES;
	return true;
}

void ahp__up_swap(struct ahp_agent *agent, uint32_t a, uint32_t b)
{
	struct ahp__link *link = agent->up[a];

	put(agent, a, agent->up[b]);
	put(agent, b, link);
}

void ahp__up_taken(struct ahp__link *link)
{
	if (link->agent->up[link->up_at] == link)
		set_look(link->agent, link->up_at);
}

bool ahp__any_ready(struct ahp_agent *agent)
{
	const struct ahp__look *look = agent->look;
	const uint32_t ups = agent->ups;

	for (uint32_t i = 0; i < ups; i++) {
		/* seq_cst: S2 of wake.h, pairs with the ordered
		 * avp_lane_put() */
		if (atomic_load_explicit(look[i].word, memory_order_seq_cst) !=
		    look[i].next)
			continue;
		assert(look[i].next == agent->up[i]->rx.next);
		/* The idle link that is asked next: no search for it again. */
		if (i >= RECENT_LINKS)
			agent->turn = i - RECENT_LINKS;
		return true;
	}
	return false;
}
