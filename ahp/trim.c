/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that lies idle goes back to the system, a segment at a time: nothing is
 * allocated from it any more, who has it mapped is asked to unmap it, and when all
 * have answered, or are gone, it is dropped. As much is kept as was lent at once in
 * the last two periods.
 *
 * Nothing in such a segment is lent, so no honest peer looks into it. One that does
 * not answer keeps it; one that is not believed any more keeps it until it hangs up.
 */
#include "ahp/agent_internal.h"
#include "shm/error.h"

static int say(struct ahp__link *link, enum wire_kind kind, uint32_t number)
{
	struct wire_segment m = {
		.head = {WIRE_MAGIC, WIRE_MAJOR, WIRE_MINOR, kind, sizeof(m)},
		.number = number,
	};

	return avp_fd_send(link->sock, &m, sizeof(m), NULL, 0, NULL);
}

static void not_due(struct ahp__link *link, const char *what, uint32_t number)
{
	struct avp_reason why;

	avp__fail(&why, AVP_POISONED, "%s segment %u, which was not %s", what,
		  number, link->asked ? "asked for" : "passed");
	ahp__link_poison(link, &why);
}

/* ---- theirs ----------------------------------------------------------------- */

/* False: the answer could not be sent yet. What fails otherwise is a hang-up. */
static bool unmap(struct ahp__link *link, unsigned i)
{
	struct ahp__import *import = link->import;

	if (say(link, WIRE_UNMAPPED, import[i].number) == AVP_AGAIN)
		return false;
	avp_segment_close(&import[i].segment);
	for (link->imports--; i < link->imports; i++)
		import[i] = import[i + 1];
	return true;
}

/* While bodies of the peer are held, one of them may be in that segment. */
static void unmap_leaving(struct ahp__link *link)
{
	for (unsigned i = link->imports; i-- > 0;)
		if (link->import[i].leaving && (link->views || !unmap(link, i)))
			link->agent->leaving = true;
}

void ahp__trim_asked(struct ahp__link *link, const struct wire_segment *m)
{
	for (unsigned i = 0; i < link->imports; i++)
		if (link->import[i].number == m->number) {
			link->import[i].leaving = true;
			return unmap_leaving(link);
		}
	not_due(link, "it wants back", m->number);
}

/* ---- ours ------------------------------------------------------------------- */

void ahp__trim_answered(struct ahp__link *link, const struct wire_segment *m)
{
	if (!link->asked || m->number != link->agent->retiring)
		return not_due(link, "it unmapped", m->number);
	link->asked = false;
	link->passed_count--;
}

static void ask(struct ahp__link *link)
{
	link->ask_again =
		say(link, WIRE_UNMAP, link->agent->retiring) == AVP_AGAIN;
}

/* Drops the segment that is retiring if nobody has it any more. */
static void finish(struct ahp_agent *agent)
{
	for (uint32_t i = 0; i < agent->links; i++) {
		struct ahp__link *link = agent->link[i];

		if (link->state == LINK_DRAINING || link->state == LINK_ENDED)
			link->asked = false; /* it hung up, and looks no more */
		if (!link->asked)
			continue;
		if (link->ask_again && link->state == LINK_UP)
			ask(link);
		return;
	}
	avp_arena_segment_drop(agent->pool[agent->retiring_pool].arena,
			       agent->retiring);
	agent->retiring = 0;
}

static void retire(struct ahp_agent *agent, uint32_t pool, uint32_t number)
{
	agent->retiring = number;
	agent->retiring_pool = pool;
	for (uint32_t i = 0; i < agent->links; i++) {
		struct ahp__link *link = agent->link[i];

		link->asked = link->pool == pool && link->passed >= number;
		link->ask_again = false;
		if (link->asked && link->state == LINK_UP)
			ask(link);
	}
	finish(agent);
}

/* The next segment that is not needed, of any pool; false: there is none. */
static bool retire_one(struct ahp_agent *agent)
{
	uint64_t keep = agent->lent_most[0] > agent->lent_most[1]
				? agent->lent_most[0]
				: agent->lent_most[1];
	struct avp_arena_stats stats;
	uint32_t number;

	if (keep < agent->reserve_bytes)
		keep = agent->reserve_bytes;
	for (uint32_t i = 0; i < agent->pools; i++) {
		avp_arena_stats(agent->pool[i].arena, &stats);
		if (!avp_arena_trim(agent->pool[i].arena,
				    keep + stats.warm_bytes, &number, 1))
			continue;
		retire(agent, i, number);
		return true;
	}
	return false;
}

void ahp__trim_turn(struct ahp_agent *agent, int64_t now_ns)
{
	if (agent->leaving) {
		agent->leaving = false;
		for (uint32_t i = 0; i < agent->ups; i++)
			if (agent->up[i]->state == LINK_UP)
				unmap_leaving(agent->up[i]);
	}
	if (agent->retiring)
		finish(agent);
	if (!agent->trimmed_ns)
		agent->trimmed_ns = now_ns;
	if (agent->retiring || now_ns - agent->trimmed_ns < agent->trim_ns ||
	    agent->options.reserve_bytes /* still being made */)
		return;
	while (retire_one(agent))
		if (agent->retiring)
			return; /* it goes on when that one is dropped */
	agent->trimmed_ns = now_ns;
	agent->lent_most[1] = agent->lent_most[0];
	agent->lent_most[0] = agent->stats.bytes_lent;
}
