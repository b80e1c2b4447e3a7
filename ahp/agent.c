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
#include "shm/options.h"

#define ACCEPTS_PER_TURN 64

int64_t ahp__now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

/* ---- opening and closing ------------------------------------------------ */

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

static int check_options(const struct ahp_agent_options *o,
			 struct avp_reason *why)
{
	int error = avp__options_reserved(o->reserved, 3, why);

	if (error)
		return error;
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
	if (o->quota_bytes && o->reserve_bytes > o->quota_bytes)
		return avp__fail(why, AVP_USAGE,
				 "reserve_bytes %llu is over quota_bytes %llu; "
				 "raise the quota or lower the reserve",
				 (unsigned long long)o->reserve_bytes,
				 (unsigned long long)o->quota_bytes);
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
	if (!o->spin_ns)
		o->spin_ns = SPIN_NS;
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
	agent->reserve_bytes = o->reserve_bytes;
	agent->trim_ns = TRIM_NS;
	agent->yields = o->flags & AHP_YIELD && o->wait == AHP_WAIT_ADAPTIVE;
	agent->spin_ns = agent->spin_max_ns = agent->options.spin_ns;
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

/* A word wakes sooner; AVP_BELL chooses for tests (ring/README.md). */
static int choose_doorbell(struct ahp_agent *agent, struct avp_reason *why)
{
	const char *name = secure_getenv("AVP_BELL");
	bool can = avp__loop_has_bells(agent->loop);

	agent->hears_words = can && agent->wait != AHP_WAIT_BUSY;
	if (!name || !*name)
		return 0;
	if (!strcmp(name, "socket")) {
		agent->hears_words = false;
		return 0;
	}
	if (strcmp(name, "futex"))
		return avp__fail(
			why, AVP_USAGE,
			"AVP_BELL is \"%.40s\"; it may be futex or "
			"socket, or unset for the better one that this "
			"system has",
			name);
	if (!can)
		return avp__fail(why, AVP_UNSUPPORTED,
				 "AVP_BELL=futex: that needs io_uring of Linux "
				 "6.7 or later, this loop is %s; use "
				 "AVP_BELL=socket",
				 avp_loop_backend(agent->loop));
	return 0;
}

static int open_parts(struct ahp_agent *agent,
		      const struct ahp_agent_options *o, struct avp_reason *why)
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
		error = choose_doorbell(agent, why);
	if (!error)
		error = ahp__page_open(agent, why);
	if (!error)
		error = ahp__names_open(agent, o->runtime_dir, o->name_space,
					why);
	if (error)
		return error;
	agent->listen_watch = (struct avp_watch){agent->listener, AVP_READABLE,
						 listen_ready, agent};
	error = avp_loop_add(agent->loop, &agent->listen_watch, why);
	if (!error)
		ahp__page_beat(agent, ahp__now_ns());
	if (!error && o->flags & AHP_PROGRESS_THREAD)
		error = ahp__progress_start(agent, why);
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
	struct ahp_agent_options o;
	struct ahp_agent *agent;
	int error = avp__options_copy(&o, sizeof(o), sizeof(o), options,
				      AHP_EXPLICIT_ACK | AHP_RELIABLE |
					      AHP_PROGRESS_THREAD | AHP_YIELD,
				      why);

	if (!error)
		error = check_options(&o, why);
	if (error)
		return error;
	agent = calloc(1, sizeof(*agent));
	if (!agent)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for an agent");
	agent->dir = agent->lock = agent->listener = agent->page_file = -1;
	error = open_parts(agent, &o, why);
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
	if (!ahp__progress_forget(agent))
		return; /* what it was changing is not to be trusted */
	for (uint32_t i = 0; i < agent->links; i++)
		ahp__link_forget(agent->link[i]);
	avp_segment_forget(&agent->page_segment);
	ahp__names_forget(agent);
	free_agent(agent);
}

void ahp_agent_close(struct ahp_agent *agent)
{
	struct ahp__progress *inside;

	if (!agent)
		return;
	if (agent->guard.cookie && avp__forked(&agent->guard))
		return close_in_child(agent);
	inside = ahp__enter(agent->progress); /* until it is freed */
	if (ahp__agent_in_callback(agent)) {
		ahp__leave(&inside);
		ahp__logf(agent, AHP_LOG_ERROR, AVP_USAGE,
			  "not closed: called from within a callback of its "
			  "own loop");
		return;
	}
	ahp__progress_stop(agent);
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

const char *ahp_agent_doorbell(const struct ahp_agent *agent)
{
	return agent->wait == AHP_WAIT_BUSY ? "none"
	       : agent->hears_words	    ? "futex"
					    : "socket";
}

void ahp_agent_stats(const struct ahp_agent *agent, struct ahp_stats *stats)
{
	AHP_ENTER(agent);
	ahp__stats_fill(agent, stats);
}

void ahp__stats_fill(const struct ahp_agent *agent, struct ahp_stats *stats)
{
	*stats = agent->stats;
	stats->links = agent->ups;
}
