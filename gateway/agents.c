/* SPDX-License-Identifier: Apache-2.0 */
/* The agents of this host that are ours, and what comes to them. */
#include <stdlib.h>
#include <string.h>

#include "gateway/gateway.h"

#define MESSAGES_PER_TURN 64

/* ---- messages ----------------------------------------------------------- */

void gw_message_accept(struct gw_message *message)
{
	/* A sender that is gone has nothing to hear. */
	ahp_accept(message->to->agent, &message->m);
	message->answered = true;
}

void gw_message_refuse(struct gw_message *message, int code)
{
	switch (code) {
	case AVP_TIMEOUT: code = AVP_EXPIRED; break;
	case AVP_EXPIRED:
	case AVP_SHAPE_MISMATCH: break;
	default: code = AVP_REJECTED;
	}
	ahp_answer(message->to->agent, &message->m, code);
	message->answered = true;
}

void gw_message_free(struct gw_message *message)
{
	if (!message->answered)
		gw_message_refuse(message, AVP_REJECTED);
	ahp_release(message->to->agent, &message->m);
	free(message);
}

/* ---- opening and closing ------------------------------------------------ */

static void log_agent(void *arg, enum ahp_log_level level, int code,
		      const char *agent, const char *task, const char *text)
{
	static const enum gw_log_level levels[] = {GW_LOG_ERROR, GW_LOG_WARNING,
						   GW_LOG_INFO};
	struct gateway *gw = arg;
	char of[GW_SHOWN_BYTES], shown[GW_SHOWN_BYTES];

	gw_log(&gw->log, levels[level], "agent",
	       "id=%s code=%s task=%s text=%s", agent, avp_error_name(code),
	       *task ? gw_shown(of, avp_str_of(task)) : "-",
	       gw_shown(shown, avp_str_of(text)));
}

static void agent_ready(struct avp_watch *watch, uint32_t events)
{
	struct gw_agent *a = watch->arg;

	(void)events;
	a->due = true;
}

/* Last, so that the gateway's own, the first, stays the first. */
static void enlist(struct gateway *gw, struct gw_agent *a)
{
	struct gw_agent **at = &gw->agents;

	while (*at)
		at = &(*at)->next;
	*at = a;
}

static int watch(struct gateway *gw, struct gw_agent *a, struct avp_reason *why)
{
	int fd = ahp_agent_fd(a->agent);

	if (fd < 0)
		return avp__fail(why, fd, "agent %s has no fd to wait for",
				 ahp_agent_id(a->agent));
	a->watch = (struct avp_watch){fd, AVP_READABLE, agent_ready, a};
	return avp_loop_add(gw->loop, &a->watch, why);
}

int gw_agent_open(struct gateway *gw, const char *id,
		  const struct avp_identity *identity, void *remote,
		  struct gw_agent **out, struct avp_reason *why)
{
	struct ahp_agent_options options = {.id = id,
					    .identity = identity,
					    .name_space = gw->name_space,
					    .log = log_agent,
					    .log_arg = gw};
	struct gw_agent *a = calloc(1, sizeof(*a));
	int err;

	if (!a)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for an agent");
	ahp_config_agent(&gw->conf->ahp, &options);
	/* It answers what it passes on, and repeats, itself; and is never away.
	 * Whom it serves may be on its own processor. */
	options.flags = AHP_EXPLICIT_ACK | AHP_YIELD;
	if (remote) /* memory ahead of need is for one, not for each */
		options.reserve_bytes = 0;
	/* A process that waits for sockets too has to sleep. */
	if (options.wait == AHP_WAIT_BUSY)
		options.wait = AHP_WAIT_ADAPTIVE;
	*a = (struct gw_agent){.gw = gw, .remote = remote, .due = true};
	err = ahp_agent_open(&a->agent, &options, why);
	if (err) {
		free(a);
		return err;
	}
	err = remote ? watch(gw, a, why) : 0;
	if (err) {
		ahp_agent_close(a->agent);
		free(a);
		return err;
	}
	enlist(gw, a);
	*out = a;
	return 0;
}

void gw_agent_close(struct gw_agent *a)
{
	struct gw_agent **at = &a->gw->agents;

	while (*at != a)
		at = &(*at)->next;
	*at = a->next;
	if (a->remote)
		avp_loop_remove(a->gw->loop, &a->watch);
	ahp_agent_close(a->agent);
	free(a);
}

struct gw_agent *gw_speaker(struct gateway *gw, struct avp_str source)
{
	struct gw_agent *a = gw_outbound_agent(gw, source);

	return a && !a->closing ? a : gw->own;
}

/* ---- what comes --------------------------------------------------------- */

/* The gateway itself has no use for messages. */
static void refuse(struct gateway *gw, struct gw_message *message)
{
	char shown[GW_SHOWN_BYTES];

	gw_log(&gw->log, GW_LOG_WARNING, "message_refused",
	       "agent=%s source=%s method=%s reason=\"no request waits for "
	       "it\"",
	       ahp_agent_id(message->to->agent),
	       gw_shown(shown, avp_str_of(message->m.source)),
	       ahp_method_name(message->m.method));
	gw_message_free(message);
}

static void dispatch(struct gateway *gw, struct gw_message *message)
{
	if (gw_inbound_message(gw, message))
		return;
	if (message->to->remote)
		gw_outbound_message(gw, message);
	else
		refuse(gw, message);
}

/* Zeros. A message is at a multiple of 64, which malloc() does not promise. */
static struct gw_message *new_message(void)
{
	struct gw_message *message =
		aligned_alloc(_Alignof(struct gw_message), sizeof(*message));

	return message ? memset(message, 0, sizeof(*message)) : NULL;
}

/* True: there may be more. */
static bool take_messages(struct gateway *gw, struct gw_agent *a)
{
	for (int i = 0; i < MESSAGES_PER_TURN && !a->paused; i++) {
		struct gw_message *message = gw->spare;

		if (!message)
			message = gw->spare = new_message();
		if (!message || ahp_receive(a->agent, &message->m, 0))
			return false;
		gw->spare = NULL;
		message->to = a;
		message->answered = message->m.method != AHP_TASK &&
				    message->m.method != AHP_RESULT &&
				    message->m.method != AHP_PROGRESS;
		dispatch(gw, message);
	}
	return !a->paused;
}

static void take_events(struct gateway *gw, struct gw_agent *a)
{
	struct ahp_event event;

	while (!ahp_next_event(a->agent, &event, 0))
		gw_inbound_event(gw, a, &event);
}

bool gw_agents_turn(struct gateway *gw)
{
	struct gw_agent *a, *next;
	bool more = false;

	for (a = gw->agents; a; a = next) {
		next = a->next;
		if (!a->due && a->remote && !a->users)
			continue;
		a->due = false;
		if (a->remote)
			ahp_agent_run(a->agent, 0);
		if (take_messages(gw, a))
			a->due = more = true;
		take_events(gw, a);
	}
	return more;
}

bool gw_agents_arm(struct gateway *gw)
{
	bool work = false;

	for (struct gw_agent *a = gw->agents; a; a = a->next)
		if (a->remote && !a->paused && ahp_agent_arm(a->agent) > 0)
			a->due = work = true;
	return work;
}
