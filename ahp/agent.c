/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "ahp/agent_internal.h"
#include "ahp/dedup.h"
#include "ahp/retry.h"
#include "ring/wake.h"
#include "shm/reason.h"

#define SPINS_PER_CLOCK 32   /* a look at the clock costs 25 ns */
#define SPINS_PER_TURN	1024 /* a look at the sockets costs 250 */
#define ACCEPTS_PER_TURN 64

int64_t ahp__now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

uint32_t ahp__lane_ms(uint64_t start_ns)
{
	struct timespec t;
	int64_t ns;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	ns = t.tv_sec * 1000000000ll + t.tv_nsec - (int64_t)start_ns;
	return ns < 0 ? 0 : (uint32_t)((uint64_t)ns / 1000000);
}

/* ---- peers by name ----------------------------------------------------------- */

static unsigned hash_of(const char *id)
{
	unsigned hash = 5381;

	while (*id)
		hash = hash * 33 + (uint8_t)*id++;
	return hash;
}

uint32_t ahp__peer_find(const struct ahp_agent *agent, const char *id)
{
	uint32_t number = agent->peer_hash[hash_of(id) % 256];

	while (number && strcmp(agent->peer[number - 1]->id, id))
		number = agent->peer[number - 1]->next_same_hash;
	return number;
}

static int more_peers(struct ahp_agent *agent)
{
	uint32_t room = agent->peers_room ? 2 * agent->peers_room : 16;
	void *peer;

	if (agent->peers == PEERS_MAX)
		return AVP_QUEUE_FULL;
	peer = realloc(agent->peer, room * sizeof(*agent->peer));
	if (!peer)
		return AVP_NO_MEMORY;
	agent->peer = peer;
	agent->peers_room = room;
	return 0;
}

struct ahp__peer *ahp__peer_get(struct ahp_agent *agent, const char *id)
{
	struct ahp__peer *peer = ahp__peer_at(agent, ahp__peer_find(agent, id));
	uint32_t *first = &agent->peer_hash[hash_of(id) % 256];

	if (peer || (agent->peers == agent->peers_room && more_peers(agent)))
		return peer;
	peer = calloc(1, sizeof(*peer));
	if (!peer)
		return NULL;
	snprintf(peer->id, sizeof(peer->id), "%s", id);
	agent->peer[agent->peers++] = peer;
	peer->number = agent->peers;
	peer->next_same_hash = *first;
	*first = peer->number;
	return peer;
}

const char *ahp_peer_id(const struct ahp_agent *agent, uint32_t number)
{
	const struct ahp__peer *peer = ahp__peer_at(agent, number);

	return peer ? peer->id : NULL;
}

/* ---- turns and sleeps ---------------------------------------------------------- */

static void listen_ready(struct avp_watch *watch, uint32_t events)
{
	struct ahp_agent *agent = watch->arg;
	int sock;

	(void)events;
	agent->own_calls++;
	for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
		sock = accept4(agent->listener, NULL, NULL,
			       SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (sock < 0)
			return;
		ahp__link_accept(agent, sock);
	}
}

bool ahp__any_ready(const struct ahp_agent *agent)
{
	for (uint32_t i = 0; i < agent->ups; i++)
		if (avp_lane_ready(&agent->up[i]->rx))
			return true;
	return false;
}

void ahp__settle_all(struct ahp_agent *agent)
{
	for (uint32_t i = agent->ups; i-- > 0;) {
		struct ahp__link *link = agent->up[i];

		if (link->unflushed)
			ahp__acks_flush(link);
		if (link->heard)
			ahp__acks_enter(link); /* may take it out of up[] */
	}
}

/* Links that hung up and have been read to their end. */
static void reap(struct ahp_agent *agent)
{
	for (uint32_t i = agent->ups; i-- > 0;)
		if (i < agent->ups && agent->up[i]->state == LINK_DRAINING &&
		    !avp_lane_ready(&agent->up[i]->rx))
			ahp__link_finish(agent->up[i]);
}

/*
 * A watch's callback may not use the agent: whoever runs the loop is within one
 * of its calls. What AHP_GUARD() looks at is zero meanwhile, as in a child.
 */
static volatile uint32_t barred;

int ahp__agent_barred(const struct ahp_agent *agent)
{
	return avp__forked(&agent->guard) ? AVP_FORKED : AVP_USAGE;
}

static int run_loop(struct ahp_agent *agent, int64_t timeout_ns)
{
	int calls;

	agent->own_calls = 0;
	agent->entry = &barred;
	calls = avp_loop_run(agent->loop, timeout_ns);
	agent->entry = agent->guard.cookie;
	agent->foreign |= calls > agent->own_calls;
	return calls;
}

int ahp__agent_turn(struct ahp_agent *agent, int64_t timeout_ns)
{
	int64_t now_ns;
	int calls;

	agent->polls = 0;
	if (agent->keep)
		ahp__keep_turn(agent);
	calls = run_loop(agent, timeout_ns);
	now_ns = ahp__now_ns();
	for (uint32_t i = agent->links; agent->links > agent->ups && i-- > 0;)
		if (i < agent->links)
			ahp__link_age(agent->link[i], now_ns);
	reap(agent);
	if (agent->retry)
		ahp__retry_look(agent);
	ahp__page_beat(agent, now_ns);
	return calls;
}

/* How long a sleep may be: sockets wake it, except for what a timer must do. */
static int64_t longest_sleep(const struct ahp_agent *agent, int64_t until_ns)
{
	int64_t left = until_ns == AHP_FOREVER ? SAFETY_NS :
						 until_ns - ahp__now_ns();

	if (left > SAFETY_NS)
		left = SAFETY_NS;
	for (uint32_t i = 0; agent->links > agent->ups && i < agent->links; i++)
		if (agent->link[i]->state == LINK_CONNECTING &&
		    left > RETRY_CONNECT_NS)
			left = RETRY_CONNECT_NS;
	return left < 0 ? 0 : left;
}

void ahp__agent_sleep(struct ahp_agent *agent, int64_t until_ns, bool for_space,
		      bool (*ready)(void *arg), void *arg)
{
	int64_t left = longest_sleep(agent, until_ns), begin_ns = 0;
	int calls = 1;

	avp__wake_arm(&agent->page->messages);
	if (for_space)
		avp__wake_arm(&agent->page->space);
	if (!ready(arg)) {
		begin_ns = ahp__now_ns();
		calls = ahp__agent_turn(agent, left);
	}
	avp__wake_disarm(&agent->page->messages);
	avp__wake_disarm(&agent->page->space);
	/* Found after the whole safety time, and no bell is there for it. (A
	 * turn may end early without a call, as after a signal.) */
	if (!calls && left == SAFETY_NS &&
	    ahp__now_ns() - begin_ns >= SAFETY_NS && ready(arg) &&
	    !run_loop(agent, 0))
		agent->stats.late_wakes++;
}

/* What a waiter does once, before it spins. */
static bool sleeps_now(const struct ahp_agent *agent, int64_t spun_ns)
{
	return agent->wait == AHP_WAIT_BLOCK ||
	       (agent->wait == AHP_WAIT_ADAPTIVE && spun_ns > SPIN_NS);
}

int ahp__agent_wait(struct ahp_agent *agent, int64_t timeout_ns, bool for_space,
		    bool (*ready)(void *arg), void *arg)
{
	int64_t start_ns = 0, now_ns = 0, end_ns = AHP_FOREVER;

	ahp__settle_all(agent);
	if (timeout_ns == AHP_USUAL)
		timeout_ns = agent->options.task_timeout_ns;
	for (unsigned spins = 1; !ready(arg); spins++) {
		if (timeout_ns && spins % SPINS_PER_CLOCK &&
		    agent->wait != AHP_WAIT_BLOCK) {
			__builtin_ia32_pause();
			continue;
		}
		now_ns = ahp__now_ns();
		if (!start_ns) {
			start_ns = now_ns;
			if (timeout_ns < AHP_FOREVER - now_ns)
				end_ns = now_ns + timeout_ns;
		}
		if (sleeps_now(agent, now_ns - start_ns) && timeout_ns)
			ahp__agent_sleep(agent, end_ns, for_space, ready, arg);
		else if (spins % SPINS_PER_TURN == 0 || now_ns >= end_ns)
			ahp__agent_turn(agent, 0);
		if (now_ns >= end_ns)
			return ready(arg) ? 0 : AVP_TIMEOUT;
	}
	return 0;
}

/* Or a callback was made that may have left something to do. */
static bool run_ready(void *arg)
{
	const struct ahp_agent *agent = arg;

	return agent->foreign || ahp__any_ready(agent);
}

int ahp_agent_run(struct ahp_agent *agent, int64_t timeout_ns)
{
	AHP_GUARD(agent);
	agent->foreign = false;
	ahp__agent_turn(agent, 0);
	avp__wake_disarm(&agent->page->messages);
	ahp__agent_wait(agent, timeout_ns, false, run_ready, agent);
	return ahp__any_ready(agent);
}

struct avp_loop *ahp_agent_loop(const struct ahp_agent *agent)
{
	return agent->loop;
}

int ahp_agent_fd(const struct ahp_agent *agent)
{
	AHP_GUARD(agent);
	if (agent->wait == AHP_WAIT_BUSY)
		return AVP_UNSUPPORTED;
	return avp_loop_fd(agent->loop);
}

int ahp_agent_arm(struct ahp_agent *agent)
{
	AHP_GUARD(agent);
	if (agent->wait == AHP_WAIT_BUSY)
		return AVP_UNSUPPORTED;
	ahp__settle_all(agent);
	if (agent->keep)
		ahp__keep_turn(agent);
	/* A new value each time: the bell for the last one may have been taken
	 * by a call in between. */
	avp__wake_arm(&agent->page->messages);
	return ahp__any_ready(agent);
}

/* ---- opening and closing ------------------------------------------------------- */

static int check_options(const struct ahp_agent_options *o,
			 struct avp_reason *why)
{
	if (o->size < sizeof(*o) || o->flags & ~(AHP_EXPLICIT_ACK | AHP_RELIABLE) ||
	    o->reserved32 || o->reserved[0] || o->reserved[1] || o->reserved[2] ||
	    o->reserved[3])
		return avp__fail(why, AVP_USAGE,
				 "agent options: wrong size or unknown flags");
	if (!ahp__id_ok(o->id))
		return avp__fail(why, AVP_USAGE,
				 "agent id \"%.80s\": must be 1-%d of "
				 "[A-Za-z0-9._-], no leading dot",
				 o->id ? o->id : "", AHP_ID_BYTES);
	if (o->window && (o->window & (o->window - 1) || o->window < 16 ||
			  o->window > 65536))
		return avp__fail(why, AVP_USAGE,
				 "a window of %u: must be a power of two from "
				 "16 to 65536",
				 o->window);
	if (o->retry_delay_ns < 0 || o->task_timeout_ns < 0 ||
	    o->receive_timeout_ns < 0 || o->heartbeat_interval_ns < 0 ||
	    o->dedup_ids > AHP__DEDUP_MAX)
		return avp__fail(why, AVP_USAGE,
				 "retry delay %lld ns, task timeout %lld, "
				 "receive timeout %lld, heartbeat interval "
				 "%lld, dedup ids %u: not below 0, at most %u "
				 "ids",
				 (long long)o->retry_delay_ns,
				 (long long)o->task_timeout_ns,
				 (long long)o->receive_timeout_ns,
				 (long long)o->heartbeat_interval_ns,
				 o->dedup_ids, AHP__DEDUP_MAX);
	if (o->wait > AHP_WAIT_BLOCK)
		return avp__fail(why, AVP_USAGE, "wait mode %u is unknown",
				 o->wait);
	return 0;
}

/* What 0 means. */
static void fill_defaults(struct ahp_agent_options *o)
{
	if (!o->task_timeout_ns)
		o->task_timeout_ns = TASK_TIMEOUT_NS;
	if (!o->retry_delay_ns)
		o->retry_delay_ns = RETRY_DELAY_NS;
	if (!o->receive_timeout_ns)
		o->receive_timeout_ns = RECEIVE_TIMEOUT_NS;
	if (!o->heartbeat_interval_ns)
		o->heartbeat_interval_ns = HEARTBEAT_INTERVAL_NS;
	if (!o->token_limit)
		o->token_limit = AHP_DEFAULT_TOKEN_LIMIT;
	if (!o->max_retries)
		o->max_retries = MAX_RETRIES;
	else if (o->max_retries == AHP_NO_RETRY)
		o->max_retries = 0;
}

static int copy_options(struct ahp_agent *agent,
			const struct ahp_agent_options *o)
{
	size_t bytes = o->allowed_uid_count * sizeof(*o->allowed_uids);

	snprintf(agent->id, sizeof(agent->id), "%s", o->id);
	agent->options = *o;
	fill_defaults(&agent->options);
	agent->explicit_ack = o->flags & AHP_EXPLICIT_ACK;
	agent->send_flags = o->flags & AHP_RELIABLE;
	agent->wait = o->wait;
	agent->own_uid = geteuid();
	agent->options.id = agent->options.name_space = NULL;
	agent->options.runtime_dir = NULL;
	agent->options.identity = NULL;
	agent->options.allowed_uids = NULL;
	if (!bytes)
		return 0;
	agent->allowed_uids = malloc(bytes);
	if (!agent->allowed_uids)
		return AVP_NO_MEMORY;
	memcpy(agent->allowed_uids, o->allowed_uids, bytes);
	return 0;
}

/* Two fds a link: the usual soft limit of 1024 is for select(), not for us. */
static void raise_fd_limit(void)
{
	struct rlimit limit;

	if (!getrlimit(RLIMIT_NOFILE, &limit) &&
	    limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static int open_parts(struct ahp_agent *agent,
		      const struct ahp_agent_options *o,
		      struct avp_reason *why)
{
	int error = avp__fork_guard_init(&agent->guard, why);

	if (error)
		return error;
	agent->entry = agent->guard.cookie;
	error = ahp__identity_set(&agent->identity, o->identity, why);
	if (error)
		return error;
	if (copy_options(agent, o))
		return avp__fail(why, AVP_NO_MEMORY, "no memory for an agent");
	if (getrandom(agent->epoch, sizeof(agent->epoch), 0) !=
	    sizeof(agent->epoch))
		return avp__fail(why, AVP_IO, "getrandom: no random epoch");
	raise_fd_limit();
	error = avp_loop_open(&agent->loop, why);
	if (!error)
		error = ahp__page_open(agent, why);
	if (!error)
		error = ahp__names_open(agent, o->runtime_dir, o->name_space,
					why);
	if (error)
		return error;
	agent->listen_watch = (struct avp_watch){
		agent->listener, AVP_READABLE, listen_ready, agent
	};
	error = avp_loop_add(agent->loop, &agent->listen_watch, why);
	if (!error)
		ahp__page_beat(agent, ahp__now_ns());
	return error;
}

static void free_agent(struct ahp_agent *agent)
{
	for (uint32_t i = 0; i < agent->peers; i++) {
		avp_ledger_free(agent->peer[i]->ledger);
		free(agent->peer[i]);
	}
	free(agent->peer);
	ahp__retry_free(agent);
	ahp__events_free(agent);
	ahp__twins_free(agent);
	ahp__bodies_free(agent);
	avp_loop_close(agent->loop);
	ahp__keep_free(agent);
	free(agent->allowed_uids);
	avp__fork_guard_fini(&agent->guard);
	free(agent);
}

int ahp_agent_open(struct ahp_agent **out,
		   const struct ahp_agent_options *options,
		   struct avp_reason *why)
{
	struct ahp_agent *agent;
	int error = check_options(options, why);

	if (error)
		return error;
	agent = calloc(1, sizeof(*agent));
	if (!agent)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for an agent");
	agent->dir = agent->lock = agent->listener = agent->page_file = -1;
	error = open_parts(agent, options, why);
	if (error) {
		ahp_agent_close(agent);
		return error;
	}
	*out = agent;
	return 0;
}

/* A child shares fds with its parent and has none of the mappings. */
static void close_in_child(struct ahp_agent *agent)
{
	for (uint32_t i = 0; i < agent->links; i++)
		ahp__link_forget(agent->link[i]);
	avp_segment_forget(&agent->page_segment);
	ahp__names_forget(agent);
	free_agent(agent);
}

void ahp_agent_close(struct ahp_agent *agent)
{
	if (!agent)
		return;
	if (agent->guard.cookie && avp__forked(&agent->guard))
		return close_in_child(agent);
	if (agent->entry == &barred) {
		ahp__logf(agent, AHP_LOG_ERROR, AVP_USAGE,
			  "not closed: called from within a callback of its "
			  "own loop");
		return;
	}
	if (agent->page)
		ahp__settle_all(agent);
	ahp__retry_give_up(agent);
	ahp__names_close(agent);
	while (agent->links)
		ahp__link_free(agent->link[agent->links - 1]);
	ahp__page_close(agent);
	ahp__keep_end(agent);
	free_agent(agent);
}

const char *ahp_agent_id(const struct ahp_agent *agent)
{
	return agent->id;
}

void ahp_agent_stats(const struct ahp_agent *agent, struct ahp_stats *stats)
{
	*stats = agent->stats;
	stats->links = agent->ups;
}
