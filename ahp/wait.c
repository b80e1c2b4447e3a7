/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An agent's turns and sleeps. A wait looks, spins as its mode says, and sleeps in
 * the agent's loop until a bell; ring/wake.h has the protocol and its proof.
 */
#include <sched.h>

#include "ahp/agent_internal.h"
#include "ahp/retry.h"
#include "ring/wake.h"

#define SPINS_PER_CLOCK 32	    /* a look at the clock costs 25 ns */
#define SPINS_PER_TURN	1024	    /* a look at the sockets costs 250 */
#define AWAY_NS		8000	    /* between two looks: others have run */
#define WAKE_NS		25000	    /* from a bell until its sleeper runs */
#define SPIN_MIN_NS	20000	    /* while messages come that soon */
#define SPIN_LEAST_NS	1000	    /* less is none */
#define SENT_REF_NS	(86400 * 1000000000ll)
#define BUSY_IDLE_NS	1000000	    /* of spinning: nothing is under way */
#define BELL_GRACE_NS	100000000ll /* a producer may lose its core that long */

/* ---- turns ------------------------------------------------------------------- */

void ahp__settle_all(struct ahp_agent *agent)
{
	while (agent->unsettled) {
		struct ahp__link *link = agent->unsettled;

		agent->unsettled = link->next_unsettled;
		link->unsettled = false;
		ahp__up_taken(link);
		if (link->unflushed)
			ahp__acks_flush(link);
		if (link->heard)
			ahp__acks_enter(link); /* may end it */
	}
}

/* Links that hung up and have been read to their end. */
static void reap(struct ahp_agent *agent)
{
	for (uint32_t i = agent->ups; agent->draining && i-- > 0;)
		if (i < agent->ups && agent->up[i]->state == LINK_DRAINING &&
		    !avp_lane_ready(&agent->up[i]->rx))
			ahp__link_finish(agent->up[i]);
}

/*
 * A watch's callback may not use the agent: whoever runs the loop is within one
 * of its calls. What AHP_GUARD() looks at is zero meanwhile, as in a child.
 */
static volatile uint32_t barred;

bool ahp__agent_in_callback(const struct ahp_agent *agent)
{
	return agent->entry == &barred;
}

int ahp__agent_barred(const struct ahp_agent *agent)
{
	return avp__forked(&agent->guard) ? AVP_FORKED : AVP_USAGE;
}

static int run_loop(struct ahp_agent *agent, int64_t timeout_ns)
{
	int calls;

	agent->polls = 0;
	agent->own_calls = 0;
	agent->entry = &barred;
	calls = avp_loop_run(agent->loop, timeout_ns);
	agent->entry = agent->guard.cookie;
	agent->foreign |= calls > agent->own_calls;
	return calls;
}

void ahp__link_sent_ref(struct ahp__link *link, int64_t now_ns)
{
	int64_t start_ns = (int64_t)link->rx.start_ns;
	int64_t ms = (now_ns - start_ns) / 1000000;

	link->sent_ref_ns = start_ns + ms * 1000000;
	link->sent_ref_ms = (uint32_t)ms;
}

static void renew_sent_refs(struct ahp_agent *agent, int64_t now_ns)
{
	agent->sent_refs_ns = now_ns;
	for (uint32_t i = 0; i < agent->ups; i++)
		ahp__link_sent_ref(agent->up[i], now_ns);
}

/* What no fd tells. */
static void do_chores(struct ahp_agent *agent)
{
	int64_t now_ns = ahp__now_ns();

	ahp__settle_all(agent); /* a watch's callback may release bodies */
	for (uint32_t i = agent->links; agent->links > agent->ups && i-- > 0;)
		if (i < agent->links)
			ahp__link_age(agent->link[i], now_ns);
	reap(agent);
	if (agent->retry)
		ahp__retry_look(agent);
	ahp__trim_turn(agent, now_ns);
	ahp__page_beat(agent, now_ns);
	if (now_ns - agent->sent_refs_ns >= SENT_REF_NS)
		renew_sent_refs(agent, now_ns);
}

void ahp__agent_turn(struct ahp_agent *agent, int64_t timeout_ns)
{
	if (agent->keep)
		ahp__keep_turn(agent);
	run_loop(agent, timeout_ns);
	do_chores(agent);
}

/* ---- sleeps ------------------------------------------------------------------ */

/* How long a sleep may be: sockets wake it, except for what a timer must do. */
static int64_t longest_sleep(const struct ahp_agent *agent, int64_t until_ns)
{
	int64_t left =
		until_ns == AHP_FOREVER ? SAFETY_NS : until_ns - ahp__now_ns();

	if (left > SAFETY_NS)
		left = SAFETY_NS;
	for (uint32_t i = 0; agent->links > agent->ups && i < agent->links; i++)
		if (agent->link[i]->state == LINK_CONNECTING &&
		    left > RETRY_CONNECT_NS)
			left = RETRY_CONNECT_NS;
	return left < 0 ? 0 : left;
}

/* Nothing is called for ns, though signals and stale completions come. */
static bool nothing_for(struct ahp_agent *agent, int64_t ns)
{
	int64_t end_ns = ahp__now_ns() + ns;

	while (ns > 0) {
		if (run_loop(agent, ns))
			return false;
		ns = end_ns - ahp__now_ns();
	}
	return true;
}

/*
 * The safety time-out has passed. What is found now was published after the word
 * was armed, since nothing was there then; and a bell was due for it. Whoever has
 * just published it, or has lost its core between that and ringing, sees the word
 * armed still, and will ring: only what nobody rings for came late.
 */
static bool is_late(struct ahp_agent *agent, bool (*ready)(void *arg),
		    void *arg)
{
	return ready(arg) && nothing_for(agent, BELL_GRACE_NS);
}

static void arm(struct ahp_agent *agent, enum ahp__news news)
{
	if (news & NEWS_MESSAGES)
		avp__wake_arm(&agent->page->messages);
	if (news & NEWS_ACKS)
		avp__wake_arm(&agent->page->space);
}

static void disarm(struct ahp_agent *agent)
{
	avp__wake_disarm(&agent->page->messages);
	avp__wake_disarm(&agent->page->space);
}

/* Until a bell for such news, or until_ns. */
static void sleep_until(struct ahp_agent *agent, int64_t until_ns,
			enum ahp__news news, bool (*ready)(void *arg),
			void *arg)
{
	int64_t left = longest_sleep(agent, until_ns), begin_ns;

	if (agent->keep)
		ahp__keep_turn(agent); /* before the look: it may be news */
	arm(agent, news);
	if (!ready(arg)) {
		ahp__page_show(agent);
		if (ahp__bodies_prepare(agent))
			left = 0; /* more of it after a look around */
		begin_ns = ahp__now_ns();
		/* A turn may end early without a call, as after a signal. */
		if (!run_loop(agent, left) && left == SAFETY_NS &&
		    ahp__now_ns() - begin_ns >= SAFETY_NS)
			agent->stats.late_wakes += is_late(agent, ready, arg);
	}
	disarm(agent);
	do_chores(agent);
}

/* ---- waits ------------------------------------------------------------------- */

static bool sleeps_now(const struct ahp_agent *agent, int64_t spun_ns)
{
	return agent->wait == AHP_WAIT_BLOCK ||
	       (agent->wait == AHP_WAIT_ADAPTIVE && spun_ns >= agent->spin_ns);
}

int64_t ahp__spin_next(int64_t spin_ns, int64_t longest_ns, int64_t waited_ns,
		       bool slept)
{
	int64_t want = 2 * waited_ns;

	if (waited_ns - (slept ? WAKE_NS : 0) > longest_ns)
		return spin_ns < 2 * SPIN_LEAST_NS ? 0 : spin_ns / 2;
	if (slept)
		return longest_ns;
	if (want < SPIN_MIN_NS)
		want = SPIN_MIN_NS;
	if (want > longest_ns)
		want = longest_ns;
	return spin_ns + (want - spin_ns) / 8;
}

/* One that never sleeps is idle too, when nothing has come for long. */
static void spin_turn(struct ahp_agent *agent, int64_t spun_ns)
{
	ahp__agent_turn(agent, 0);
	if (agent->wait == AHP_WAIT_BUSY && spun_ns >= BUSY_IDLE_NS)
		ahp__bodies_prepare(agent);
}

int ahp__agent_wait(struct ahp_agent *agent, int64_t timeout_ns,
		    enum ahp__news news, bool (*ready)(void *arg), void *arg)
{
	int64_t start_ns = 0, now_ns = 0, last_ns, end_ns = AHP_FOREVER;
	bool slept = false, came;

	ahp__settle_all(agent);
	if (timeout_ns == AHP_USUAL)
		timeout_ns = agent->options.task_timeout_ns;
	for (unsigned spins = 1; !ready(arg); spins++) {
		if (timeout_ns && spins % SPINS_PER_CLOCK &&
		    agent->wait != AHP_WAIT_BLOCK) {
			__builtin_ia32_pause();
			continue;
		}
		last_ns = now_ns;
		now_ns = ahp__now_ns();
		if (!start_ns) {
			start_ns = last_ns = now_ns;
			if (timeout_ns < AHP_FOREVER - now_ns)
				end_ns = now_ns + timeout_ns;
		}
		slept |= sleeps_now(agent, now_ns - start_ns) && timeout_ns;
		if (slept)
			sleep_until(agent, end_ns, news, ready, arg);
		/* Who has just run here may have written to a socket. */
		else if (spins % SPINS_PER_TURN == 0 || now_ns >= end_ns ||
			 now_ns - last_ns > AWAY_NS)
			spin_turn(agent, now_ns - start_ns);
		/* Each time: whom it is offered to may be owed less. */
		else if (agent->yields)
			sched_yield();
		if (now_ns >= end_ns)
			break;
	}
	came = now_ns < end_ns || ready(arg);
	if (start_ns && timeout_ns && (came || timeout_ns > agent->spin_max_ns))
		agent->spin_ns =
			ahp__spin_next(agent->spin_ns, agent->spin_max_ns,
				       ahp__now_ns() - start_ns, slept);
	return came ? 0 : AVP_TIMEOUT;
}

/* ---- waiting elsewhere ------------------------------------------------------- */

/* Or a callback was made that may have left something to do. */
static bool run_ready(void *arg)
{
	struct ahp_agent *agent = arg;

	return agent->foreign || ahp__any_ready(agent) ||
	       ahp__event_ready(agent);
}

static enum ahp__news run_news(const struct ahp_agent *agent)
{
	return ahp__events_to_come(agent) ? NEWS_MESSAGES | NEWS_ACKS
					  : NEWS_MESSAGES;
}

int ahp_agent_run(struct ahp_agent *agent, int64_t timeout_ns)
{
	AHP_GUARD(agent);
	agent->foreign = false;
	ahp__agent_turn(agent, 0);
	ahp__bodies_collect(agent);
	disarm(agent);
	ahp__agent_wait(agent, timeout_ns, run_news(agent), run_ready, agent);
	return ahp__any_ready(agent);
}

struct avp_loop *ahp_agent_loop(const struct ahp_agent *agent)
{
	return agent->progress ? NULL : agent->loop;
}

int ahp_agent_fd(const struct ahp_agent *agent)
{
	AHP_GUARD(agent);
	if (agent->wait == AHP_WAIT_BUSY)
		return AVP_UNSUPPORTED;
	if (agent->progress)
		agent->progress->fd_asked = true;
	return avp_loop_fd(agent->loop);
}

/* Has one of those come that were too many? Each is told once. */
static bool room_came(struct ahp_agent *agent)
{
	bool came = false;

	agent->room_wanted = false;
	for (uint32_t i = agent->ups; i-- > 0;) {
		struct ahp__link *link = i < agent->ups ? agent->up[i] : NULL;

		if (!link || !link->room_wanted)
			continue;
		link->room_wanted = !ahp__link_room_came(link);
		agent->room_wanted |= link->room_wanted;
		came |= !link->room_wanted;
	}
	return came;
}

/* Arms for what the program may hear of: is some of it there? */
static bool arm_and_look(struct ahp_agent *agent)
{
	if (!agent->room_wanted) {
		arm(agent, run_news(agent));
		return ahp__any_ready(agent) || ahp__event_ready(agent);
	}
	arm(agent, NEWS_MESSAGES | NEWS_ACKS);
	return room_came(agent) || ahp__any_ready(agent) ||
	       ahp__event_ready(agent);
}

int ahp_agent_arm(struct ahp_agent *agent)
{
	bool is_there;

	AHP_GUARD(agent);
	if (agent->wait == AHP_WAIT_BUSY)
		return AVP_UNSUPPORTED;
	ahp__settle_all(agent);
	if (agent->keep)
		ahp__keep_turn(agent);
	/* A new value each time: the bell for the last one may have been taken
	 * by a call in between. */
	disarm(agent);
	is_there = arm_and_look(agent);
	if (!is_there)
		ahp__page_show(agent);
	return is_there;
}
