/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An agent's dead letters on their way into a queue on disk. A letter is
 * written to the journal as its message dies: into the page cache, under the
 * queue's lock, since another process may be writing too (some 14 us). What
 * takes milliseconds is to bring it to the disk: for that one fdatasync() is
 * under way at a time, in the agent's loop, and what dies meanwhile waits for
 * the next one. Events of what is not on the disk yet are held back here.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ahp/agent_internal.h"
#include "ahp/dlq_internal.h"
#include "codec/wire.h"

#define PAYLOAD_MAX (1u << 20) /* longer JSON is kept as a body, not parsed */

/* A letter that is not on the disk yet. */
struct waiting {
	struct ahp_event event;
	uint64_t ticket; /* in its queue, which others may write to as well */
	bool notify;
};

struct ahp__keep {
	struct ahp_dlq *dlq;
	struct avp_sync sync;
	bool under_way;	    /* sync is, for: */
	struct ahp_dlq *of; /* NULL: the queue was taken away meanwhile */
	uint64_t upto;	    /* its tickets */
	uint64_t written, told;
	struct waiting *waiting; /* in order of ticket */
	uint32_t first, count, room;
};

/* ---- events ------------------------------------------------------------- */

/* What became of a letter; event may be NULL. */
static void tell(struct ahp_agent *agent, const struct ahp_event *event,
		 bool kept)
{
	struct ahp_event e;

	agent->stats.kept += kept;
	if (!event)
		return;
	e = *event;
	e.kept = kept;
	ahp__events_add(agent, &e);
}

static int make_room(struct ahp__keep *k)
{
	uint32_t room = k->room ? 2 * k->room : 64;
	struct waiting *waiting;

	if (k->first) {
		memmove(k->waiting, k->waiting + k->first,
			k->count * sizeof(*waiting));
		k->first = 0;
		return 0;
	}
	waiting = realloc(k->waiting, room * sizeof(*waiting));
	if (!waiting)
		return AVP_NO_MEMORY;
	k->waiting = waiting;
	k->room = room;
	return 0;
}

/* Until the disk has that ticket; without memory for that it is not
 * promised. */
static void hold_back(struct ahp_agent *agent, const struct ahp_event *event,
		      uint64_t ticket)
{
	struct ahp__keep *k = agent->keep;
	struct waiting *w;

	if (k->first + k->count == k->room && make_room(k))
		return tell(agent, event, false);
	w = &k->waiting[k->first + k->count++];
	*w = (struct waiting){.ticket = ticket, .notify = event != NULL};
	if (event)
		w->event = *event;
}

/* Those up to a ticket are on the disk, or (kept false) will never be. */
static void tell_up_to(struct ahp_agent *agent, uint64_t ticket, bool kept)
{
	struct ahp__keep *k = agent->keep;

	while (k->count && k->waiting[k->first].ticket <= ticket) {
		const struct waiting *w = &k->waiting[k->first++];

		k->count--;
		tell(agent, w->notify ? &w->event : NULL, kept);
	}
	if (!k->count)
		k->first = 0;
	if (ticket > k->told)
		k->told = ticket;
}

/* ---- letters ------------------------------------------------------------ */

struct avp_str avp__dlq_clean(char to[AVP_LANE_ID_BYTES], struct avp_str id)
{
	if (avp__utf8_valid(id.data, id.len) || id.len > AVP_LANE_ID_BYTES)
		return id;
	for (size_t i = 0; i < id.len; i++)
		to[i] = id.data[i] & 0x80 ? '?' : id.data[i];
	return (struct avp_str){to, id.len};
}

static bool is_zero(const uint8_t id[16])
{
	static const uint8_t zero[16];

	return !memcmp(id, zero, sizeof(zero));
}

/* As payload if it is one, else as body, else (too large) without it. */
static int append(struct ahp__keep *k, struct ahp_envelope *m,
		  struct ahp_dlq_letter *l, const struct ahp_dead_letter *dead,
		  uint64_t *ticket, struct avp_reason *why)
{
	struct avp_str text = {dead->body, dead->body_bytes};
	char error[160];
	int err = AVP_INVALID_MESSAGE;

	if (dead->kind == AHP_JSON && text.len <= PAYLOAD_MAX) {
		m->payload_json = text;
		err = ahp_dlq_append(k->dlq, l, ticket, why);
		m->payload_json = (struct avp_str){NULL, 0};
	}
	if (err == AVP_INVALID_MESSAGE || err == AVP_SERIALIZATION_ERROR) {
		l->body = dead->body;
		l->body_bytes = dead->body_bytes;
		err = ahp_dlq_append(k->dlq, l, ticket, why);
	}
	if (err != AVP_TOO_LARGE)
		return err;
	snprintf(error, sizeof(error),
		 "%s; its body of %llu bytes is not kept: too large for the "
		 "queue",
		 dead->error, (unsigned long long)dead->body_bytes);
	l->error = avp_str_of(error);
	l->body_bytes = 0;
	return ahp_dlq_append(k->dlq, l, ticket, why);
}

static int store(struct ahp_agent *agent, const struct ahp_dead_letter *dead,
		 uint64_t *ticket, struct avp_reason *why)
{
	char task[AVP_LANE_ID_BYTES], session[AVP_LANE_ID_BYTES];
	char id[AHP_ID_TEXT_BYTES];
	const char *method = ahp_method_name(dead->method);
	struct ahp_envelope m = {
		.method = avp_str_of(method ? method : "TASK"),
		.agent_id = avp_str_of(agent->id),
		.target_agent = avp_str_of(dead->target),
		.task_id = avp__dlq_clean(task, dead->task_id),
		.session_id = avp__dlq_clean(session, dead->session_id),
		.token_limit = dead->token_limit,
	};
	struct ahp_dlq_letter l = {
		.message = &m,
		.error = avp_str_of(dead->error),
		.code = dead->code,
		.retry_count = dead->deliveries ? dead->deliveries - 1 : 0,
		.kind = dead->kind,
	};
	int error;

	ahp_id_write(dead->message_id, id);
	if (!is_zero(dead->message_id))
		m.message_id = avp_str_of(id);
	error = append(agent->keep, &m, &l, dead, ticket, why);
	if (!error)
		agent->keep->written = *ticket;
	return error;
}

static void log_dead(struct ahp_agent *agent,
		     const struct ahp_dead_letter *letter, const char *but)
{
	ahp__log_task(agent, AHP_LOG_ERROR, letter->code, letter->task_id,
		      "a message to %s is dead after %u deliveries: %s%s",
		      letter->target, letter->deliveries, letter->error, but);
}

void ahp__bury(struct ahp_agent *agent, const struct ahp_dead_letter *letter,
	       const struct ahp_event *event)
{
	bool queue = agent->keep && agent->keep->dlq;
	struct avp_reason why;
	uint64_t ticket = 0;
	int error = AVP_UNKNOWN;

	agent->stats.dead++;
	if (queue) {
		error = store(agent, letter, &ticket, &why);
		if (!error)
			return hold_back(agent, event, ticket);
		ahp__log_task(agent, AHP_LOG_ERROR, error, letter->task_id,
			      "the dead letter queue did not take a message to "
			      "%s: %s",
			      letter->target, why.text);
	}
	if (agent->bury)
		error = agent->bury(agent->bury_arg, letter);
	if (error)
		log_dead(agent, letter,
			 agent->bury ? "; and it could not be kept" : "");
	tell(agent, event, !error);
}

/* ---- to the disk -------------------------------------------------------- */

/* What is not on the disk now never will be: the queue says so from now on. */
static void lost(struct ahp_agent *agent, int code, const char *text)
{
	struct ahp__keep *k = agent->keep;

	ahp__logf(agent, AHP_LOG_ERROR, code,
		  "%u dead letters may not be on the disk: %s", k->count, text);
	tell_up_to(agent, k->written, false);
}

static void synced(struct avp_sync *sync, int error)
{
	struct ahp_agent *agent = sync->arg;
	struct ahp__keep *k = agent->keep;
	struct avp_reason why;

	agent->own_calls++;
	k->under_way = false;
	if (!k->of) {
		close(sync->fd);
		return;
	}
	error = avp__dlq_commit_end(k->of, sync->fd, k->upto, error, &why);
	if (error)
		return lost(agent, error, why.text);
	tell_up_to(agent, k->upto, true);
	ahp__keep_turn(agent);
}

static void commit_here(struct ahp_agent *agent)
{
	struct ahp__keep *k = agent->keep;
	uint64_t upto = k->written;
	struct avp_reason why;
	int error = ahp_dlq_commit(k->dlq, &why);

	if (error)
		lost(agent, error, why.text);
	else
		tell_up_to(agent, upto, true);
}

void ahp__keep_turn(struct ahp_agent *agent)
{
	struct ahp__keep *k = agent->keep;
	struct avp_reason why;
	int fd;

	if (k->under_way || k->told == k->written || !k->dlq)
		return;
	fd = avp__dlq_commit_begin(k->dlq, &k->upto, &why);
	if (fd == AVP_AGAIN) /* somebody else has committed it */
		return tell_up_to(agent, k->written, true);
	if (fd < 0)
		return lost(agent, fd, why.text);
	k->sync = (struct avp_sync){.fd = fd, .done = synced, .arg = agent};
	k->of = k->dlq;
	k->under_way = !avp_loop_sync(agent->loop, &k->sync);
	if (k->under_way)
		return;
	close(fd);
	commit_here(agent);
}

/* ---- which queue -------------------------------------------------------- */

/* All that was written is on the disk, or told not to be; the queue may go. */
static void settle(struct ahp_agent *agent)
{
	struct ahp__keep *k = agent->keep;

	if (k->dlq && k->told != k->written)
		commit_here(agent);
	k->dlq = k->of = NULL;
	k->told = k->written = 0;
}

int ahp_agent_keep_dlq(struct ahp_agent *agent, struct ahp_dlq *dlq,
		       struct avp_reason *why)
{
	AHP_GUARD(agent);
	if (dlq && dlq->flags & AHP_DLQ_READ_ONLY)
		return avp__fail(why, AVP_USAGE,
				 "the dead letter queue was opened to be read: "
				 "nothing can be kept there");
	if (!agent->keep && !dlq)
		return 0;
	if (!agent->keep)
		agent->keep = calloc(1, sizeof(*agent->keep));
	if (!agent->keep)
		return avp__fail(why, AVP_NO_MEMORY,
				 "no memory for a dead letter queue's agent");
	settle(agent);
	agent->keep->dlq = dlq;
	return 0;
}

void ahp_agent_bury(struct ahp_agent *agent, ahp_bury *bury, void *arg)
{
	AHP_ENTER(agent);
	agent->bury = bury;
	agent->bury_arg = arg;
}

void ahp__keep_end(struct ahp_agent *agent)
{
	if (agent->keep)
		settle(agent);
}

void ahp__keep_free(struct ahp_agent *agent)
{
	struct ahp__keep *k = agent->keep;

	if (!k)
		return;
	if (k->under_way)
		close(k->sync.fd);
	free(k->waiting);
	free(k);
	agent->keep = NULL;
}
