/* SPDX-License-Identifier: Apache-2.0 */
/*
 * avp-gateway: what its parts share, and how they call each other.
 *
 *	main (avp-gateway.c)	options, signals, the turns
 *	conf, log, metrics, timer, agents, letters, reframe	below; used by all
 *	inbound (listen conn tls h1 h2 serve deliver)	HTTP in, messages to local agents
 *	outbound (outbound peer)	messages of local agents out, by HTTP
 *
 * One process, one thread, one event loop: that of the gateway's own agent. A
 * callback of the loop runs in the middle of a call of that agent, so it only
 * notes what is to be done (gw_ready_add()); the work is done by the turn:
 *
 *	sleep (ahp_agent_run)  ->  ready items  ->  messages and events of the
 *	local agents  ->  timers that are due  ->  ready items again
 *
 * Remote agents are proxies: for each agent behind a configured peer the
 * gateway opens an agent of that id in the local namespace. What a local agent
 * sends to it goes out by HTTP; what comes in over HTTP from it is sent by it.
 * Sources that are not configured speak through the gateway's own agent.
 */
#ifndef AVP_GATEWAY_GATEWAY_H
#define AVP_GATEWAY_GATEWAY_H

#include <stdbool.h>
#include <stdint.h>

#include <avp/ahp.h>
#include <avp/dlq.h>
#include <avp/ring.h>

#include "gateway/conf.h"
#include "gateway/log.h"
#include "gateway/metrics.h"
#include "gateway/timer.h"

struct gateway;
struct gw_inbound;
struct gw_outbound;

/* ---- what is to be done in this turn ------------------------------------ */

/*
 * An item of the ready list: part of whatever is to be looked at. Zeros, but
 * for run, before its first use. run() is called once for each time that the
 * item was added; added twice before that is once.
 */
struct gw_ready {
	void (*run)(struct gw_ready *item);
	/* Private; link NULL: not in the list. */
	struct gw_ready *next, **link;
};

void gw_ready_add(struct gateway *gw, struct gw_ready *item);
/* Before the item's memory goes away. */
void gw_ready_remove(struct gateway *gw, struct gw_ready *item);

/* ---- local agents ------------------------------------------------------- */

/*
 * An agent of this host that is ours: the gateway's own, or the proxy of a
 * remote one. All have explicit acknowledgements.
 */
struct gw_agent {
	struct ahp_agent *agent;
	struct gateway *gw;
	struct gw_agent *next;
	void *remote; /* outbound's; NULL: the gateway's own */
	/*
	 * Who counts on its events or loans: it is not closed while this is not
	 * 0. Inbound adds one for each loan or delivery through it.
	 */
	uint32_t users;
	bool closing; /* no new deliveries through it */
	/* Nothing is received through it: what is sent to it waits in its ring,
	 * until that is full and its senders are told so. */
	bool paused;
	bool due; /* private: its fd was readable */
	struct avp_watch watch;
};

/*
 * A received message and the agent that received it. The message is explicitly
 * acknowledged: whoever took it calls ahp_accept() or ahp_answer() as soon as
 * it is known which, and at the end gw_message_free(), which rejects what was
 * not answered, and releases the body.
 */
struct gw_message {
	struct ahp_message m;
	struct gw_agent *to;
	bool answered;		 /* ahp_accept() or ahp_answer() was called */
	struct gw_message *next; /* the holder's */
};

void gw_message_accept(struct gw_message *message);
/* Its sender sees AVP_EXPIRED for a TIMEOUT, AVP_SHAPE_MISMATCH, or
 * REJECTED. */
void gw_message_refuse(struct gw_message *message, int code);
void gw_message_free(struct gw_message *message);

/*
 * Opens an agent with the options of the configuration and watches it. identity
 * may be NULL. Added to gw->agents.
 */
int gw_agent_open(struct gateway *gw, const char *id,
		  const struct avp_identity *identity, void *remote,
		  struct gw_agent **agent, struct avp_reason *why);
/* Closes it: nobody may count on it any more. */
void gw_agent_close(struct gw_agent *agent);

/*
 * One look at all agents: what came is handed to inbound or outbound. At most
 * 64 messages of each; true if there may be more.
 */
bool gw_agents_turn(struct gateway *gw);
/* Before a sleep: true if there is work, do not sleep. */
bool gw_agents_arm(struct gateway *gw);

/* The one that speaks for a source: its proxy, or the gateway's own agent. */
struct gw_agent *gw_speaker(struct gateway *gw, struct avp_str source);

/* ---- dialects ----------------------------------------------------------- */

/* Which one an AVP-Version, or HELLO's avp_version, means; empty: 0.2. */
enum avp_dialect gw_dialect_of(struct avp_str version);
/* Is the frame, as it is, one of that dialect? */
bool gw_frame_is_for(const struct avp_frame *frame, enum avp_dialect dialect);
/*
 * Appends to an empty buffer a head for the frame's payload, which lies at
 * payload, with that metadata; for 0.4 with its checksum. who speaks it, for
 * the reason: AVP_UNSUPPORTED or so when the dialect has no such frames.
 */
int gw_frame_head(struct avp_buf *to, const struct avp_frame *frame,
		  const struct avp_metadata *meta, const void *payload,
		  enum avp_dialect dialect, const char *who,
		  struct avp_reason *why);
/* The whole frame of a message, copied. The buffer is the caller's to free. */
int gw_frame_convert(struct avp_buf *to, const struct ahp_message *message,
		     enum avp_dialect dialect, const char *who,
		     struct avp_reason *why);

/* ---- dead letters ------------------------------------------------------- */

struct gw_letters {
	struct gw_timer gather; /* set: some are not on their way to the disk */
	struct avp_sync sync;
	bool under_way; /* sync is, for: */
	uint64_t upto;	/* its tickets */
	bool more;	/* others were written meanwhile */
};

/* Opens gw->dlq, or logs why there is none. */
void gw_letters_open(struct gateway *gw);
/* A letter was appended: it will be brought to the disk, in the loop. */
void gw_letters_written(struct gateway *gw);
/* Are all on the disk? */
bool gw_letters_idle(const struct gateway *gw);
/* Brings all there, and waits. Before the loop is closed. */
void gw_letters_settle(struct gateway *gw);
/* When the loop is closed. */
void gw_letters_close(struct gateway *gw);

/* ---- the gateway -------------------------------------------------------- */

struct gateway {
	/*
	 * Replaced by a reload, between two turns, by one of the same listeners
	 * or others: do not keep pointers into it but those that reload()
	 * renews.
	 */
	struct gw_conf *conf;
	struct gw_agent *own;	 /* the gateway's own agent */
	struct gw_agent *agents; /* all, own first */
	struct avp_loop *loop;	 /* of own->agent */
	struct gw_timers timers;
	struct gw_ready *ready; /* to be done */
	struct gw_ready **ready_end;
	struct gw_log log;
	struct gw_metrics metrics;
	struct ahp_dlq *dlq; /* NULL: none could be opened */
	struct gw_letters letters;
	struct gw_inbound *in;
	struct gw_outbound *out;
	const char *name_space;	  /* --namespace; NULL: as configured */
	struct gw_message *spare; /* the next one to be filled */
	int64_t now_ns;		  /* CLOCK_MONOTONIC, at the turn's begin */
	bool draining;
};

int64_t gw_clock_ns(void);

/* ---- inbound ------------------------------------------------------------ */

/*
 * Opens the listeners of gw->conf into gw->in; they serve from the next turn
 * on. AVP_IO, AVP_PERMISSION (a port or a key file), AVP_NO_MEMORY.
 */
int gw_inbound_open(struct gateway *gw, struct avp_reason *why);
/* Calls visit for each listener, with the port that it really has. */
void gw_inbound_visit(struct gateway *gw,
		      void (*visit)(void *arg, const char *address,
				    unsigned port, bool tls),
		      void *arg);
/* Ends everything at once. gw->in may be NULL. */
void gw_inbound_close(struct gateway *gw);

/*
 * gw->conf is `next` when this returns 0: tokens, limits, default agents and
 * certificates are replaced for new requests and connections, listeners that
 * are gone are closed, new ones opened; requests that are under way are
 * finished. On failure everything stays as it was. Pointers into the old
 * configuration are gone afterwards.
 */
int gw_inbound_reload(struct gateway *gw, const struct gw_conf *next,
		      struct avp_reason *why);

/* No new connections or requests; GOAWAY and Connection: close. */
void gw_inbound_drain(struct gateway *gw);
/* Is nothing under way any more? */
bool gw_inbound_idle(const struct gateway *gw);

/*
 * A message came to one of our agents. True: inbound has taken it, because a
 * request waits for it (a RESULT, for AHP-Wait: result).
 */
bool gw_inbound_message(struct gateway *gw, struct gw_message *message);

/* What became of a message that inbound sent with AHP_NOTIFY. */
void gw_inbound_event(struct gateway *gw, struct gw_agent *agent,
		      const struct ahp_event *event);

/* Appends its lines to the text of GET /metrics. */
void gw_inbound_metrics(struct gateway *gw, struct avp_buf *to);

/* ---- outbound ----------------------------------------------------------- */

/* Opens the peers of gw->conf into gw->out, and begins their handshakes. */
int gw_outbound_open(struct gateway *gw, struct avp_reason *why);
void gw_outbound_close(struct gateway *gw);
/* As gw_inbound_reload(); peers that are gone end what they have begun. What one
 * of them cannot do is logged and tried again. */
void gw_outbound_reload(struct gateway *gw, struct gw_conf *next);
/* Takes no more messages; what it has is sent, or is a dead letter. */
void gw_outbound_drain(struct gateway *gw);
bool gw_outbound_idle(const struct gateway *gw);
/* Has every proxy its first answer, so that local agents can find it? */
bool gw_outbound_ready(const struct gateway *gw);

/* A message to a remote agent, which outbound takes; always. */
void gw_outbound_message(struct gateway *gw, struct gw_message *message);

/* Something came from whom an agent of ours speaks for. */
void gw_outbound_heard(struct gw_agent *agent);

/* The proxy of that id, or NULL. */
struct gw_agent *gw_outbound_agent(struct gateway *gw, struct avp_str id);

/*
 * A peer asks to go on in JSON (a FallbackRequest that came in): switches the
 * session and tells its local sender. False: no session of ours has that id.
 */
bool gw_outbound_fallback(struct gateway *gw,
			  const struct avp_fallback *fallback);

void gw_outbound_metrics(struct gateway *gw, struct avp_buf *to);

/* ---- between gateways --------------------------------------------------- */

/*
 * What a gateway tells another beside AVP's own, so that both ends are written
 * against the same words. Requests carry AHP-Method, AHP-Message-ID,
 * AHP-Task-ID, AHP-Session-ID, AHP-Source, AHP-Target, AHP-Token-Limit,
 * AHP-Timestamp, and AHP-Wait: result if the answer shall be the RESULT; a
 * text message has the same in extra.ahp. Task and session ids may be any
 * bytes: where a header field cannot hold them, or could be misread, they are
 * written as %XX, and AHP-Encoding: percent says that those two are; without
 * it what they hold is meant as it is.
 *
 * AHP-Wait: liveness asks how an agent is. It is for a HEARTBEAT as text,
 * which is not handed over: the gateway answers it, by the counter in the
 * agent's page, with "alive" or "stuck"; with 404 and AGENT_NOT_FOUND when
 * there is no such agent. A HEARTBEAT without it is a message as any other.
 *
 * A successful answer says in AHP-Outcome what it is:
 *
 *	accepted	the agent has acknowledged the message
 *	result		its RESULT: the body is an AVP frame (application/
 *			avp+binary), or JSON whose key "result" is the RESULT's
 *			whole payload, {"result": ..., "status": ...}
 *	alive, stuck	how the agent is
 *
 * An error's JSON is {"success":false,"code":"QUEUE_FULL","message":"..."}.
 */
#define GW_OUTCOME_HEADER   "AHP-Outcome"
#define GW_OUTCOME_ACCEPTED "accepted"
#define GW_OUTCOME_RESULT   "result"
#define GW_OUTCOME_ALIVE    "alive"
#define GW_OUTCOME_STUCK    "stuck"
#define GW_WAIT_LIVENESS    "liveness"

#endif
