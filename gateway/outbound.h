/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages of local agents to remote ones: what the files of outbound share.
 *
 *	outbound.c	the peers of the configuration, and their proxies
 *	peer.c		a message's way: queue, retries, the breaker, its end
 *	peer_session.c	handshakes, and what came of them
 *	outbound_beat.c	HEARTBEATs: how remote agents are
 *	outbound_body.c	what a message is as a request
 *	outbound_answer.c	what an answer means
 *	outbound_tell.c	what the local sender hears, and dead letters
 *	outbound_http.c	requests, by libcurl on the gateway's loop
 *
 * libcurl, not nghttp2 by hand: HTTP/1.1 and HTTP/2, TLS with pins, connection
 * reuse and half a dozen time-outs come tested; what it costs is one copy of
 * the body (two on HTTP/2) between the sender's memory and the socket.
 */
#ifndef AVP_GATEWAY_OUTBOUND_H
#define AVP_GATEWAY_OUTBOUND_H

#include <curl/curl.h>

#include <avp/latent.h>

#include "gateway/gateway.h"

struct out_peer;
struct out_remote;
struct out_session;
struct out_message;

/* Messages in order. Zeros are an empty one. */
struct out_list {
	struct out_message *first, **end;
};

/* ---- requests: outbound_http.c ------------------------------------------ */

#define OUT_URL_BYTES 2304

struct out_request {
	struct out_peer *peer;
	struct out_request *next; /* of the peer's: free, or running */
	CURL *easy;
	char error[CURL_ERROR_SIZE];

	/* The body: up to two pieces, borrowed; NULL: a GET. */
	const void *piece[2];
	uint64_t piece_bytes[2], read_off;
	struct curl_slist *fields;
	bool escaped;	    /* one of them holds %XX of ours */
	struct avp_buf own; /* a body of the request's own */

	/* The answer. */
	int64_t begin_ns, timeout_ns; /* 0: as configured */
	CURLcode code;		      /* CURLE_OK: there is one */
	long status;
	int64_t retry_after_ns; /* 0: not said */
	struct avp_buf body;	/* with a NUL behind it */
	char type[64], outcome[16], version[16], location[128];
	bool too_large; /* more than the configuration allows */
	bool kept;	/* it counts on a connection that there is */
	bool again;	/* on a new one, because the old one was closed */

	void (*done)(struct out_request *request); /* then it is freed */
	void *arg;
};

/* The peer's multi handle: 0 or AVP_NO_MEMORY. */
int out_http_open(struct out_peer *peer, struct avp_reason *why);
/* Ends its requests without telling. */
void out_http_close(struct out_peer *peer);

/* One to be filled and started, or NULL without memory. */
struct out_request *out_request_new(struct out_peer *peer);
/*
 * Adds a header field "Name: value", unless that is empty; a failure is
 * remembered until the start. Of the value what a field cannot hold is written
 * as %XX, and AHP-Encoding says so (gateway.h).
 */
void out_request_field(struct out_request *request, const char *name,
		       struct avp_str value);
/* The same of a text that was checked: as it is, and wiped from where it
 * was. */
void out_request_secret(struct out_request *request, const char *name,
			const char *scheme, const char *value);
/* Starts it; done is called later, not from within. On failure it is freed. */
int out_request_start(struct out_request *request, const char *url);
/* One that was not started. */
void out_request_free(struct out_request *request);
/* Without an answer; done is not called. */
void out_request_drop(struct out_request *request);
/* Why there is no answer, in words. */
const char *out_request_error(const struct out_request *request);

/* ---- sessions: peer_session.c ------------------------------------------- */

enum out_state { OUT_NONE, OUT_ASKING, OUT_READY };

#define OUT_SESSIONS  16 /* models of local senders, at once, per remote agent */
#define OUT_KEY_BYTES 448

/* A local model, as a handshake tells it. */
struct out_model {
	char family[64], hash[72], id[256];
	struct avp_identity identity; /* points into the above */
};

/* What a handshake told, for local senders of one model. */
struct out_session {
	enum out_state state;
	struct out_remote *remote;
	char key[OUT_KEY_BYTES]; /* of the local model */
	char id[129];
	bool json; /* go on in JSON: a peer has asked, or the models do not fit */
	enum avp_dialect dialect;
	bool kv_compatible;
	char reason[184]; /* of the mode */
	int64_t expires_ns, used_ns;
	uint32_t last_sender; /* peer number: who is told of a fallback */
	char asked_by[AHP_ID_BYTES + 1]; /* in whose name */
	struct out_model asked;
	struct out_list waiting; /* for the handshake that is under way */
	struct out_request *request;
};

/* A remote agent and its proxy. */
struct out_remote {
	struct out_remote *next;
	struct out_peer *peer;
	struct gw_agent *agent; /* NULL: not open yet */
	char id[AHP_ID_BYTES + 1];
	struct gw_timer timer; /* to open it again */
	bool probed;	       /* its first handshake is over, well or badly */
	/* outbound_beat.c: enum ahp_liveness. */
	uint8_t is;   /* what was heard last; AHP_NEVER_SEEN: nothing */
	uint8_t told; /* what the log was told last */
	bool beating; /* a HEARTBEAT is under way */
	int64_t seen_ns;
	uint32_t messages; /* taken and not done */
	struct out_session session[OUT_SESSIONS];
};

/* The session for a message's sender; not OUT_READY: put the message there. */
struct out_session *out_session_for(struct out_remote *remote,
				    const struct gw_message *message);
/* Begins the handshake of a session that is OUT_NONE. */
void out_session_ask(struct out_session *session, const char *agent_id,
		     const struct avp_identity *identity);
/* A first handshake, for the remote's identity, in nobody's name. */
void out_remote_probe(struct out_remote *remote);
/* After a connection was lost: the next message asks anew. */
void out_sessions_forget(struct out_peer *peer);
/* A peer has asked for JSON. */
void out_session_fall(struct out_session *session,
		      const struct avp_fallback *fallback);
/* outbound.c: a remote's first handshake is over; identity may be NULL. */
void out_remote_answered(struct out_remote *remote,
			 const struct avp_identity *identity);

/* ---- peers and messages: peer.c ----------------------------------------- */

/* What came of an attempt. */
struct out_verdict {
	int code; /* 0: accepted */
	bool retry;
	int64_t after_ns; /* not before; 0: as the back-off says */
	char text[252];
	/* A RESULT for the sender: of the answer's body. */
	bool result;
	uint8_t kind; /* enum ahp_kind of it */
	struct avp_buf payload;
};

struct out_message {
	struct out_message *next, **link; /* in `list`, or NULL */
	struct out_list *list;
	struct out_message *all_next, **all_link; /* of the peer's */
	struct gw_message *message;
	struct out_remote *remote;
	struct out_session *session; /* of the attempt under way */
	struct out_request *request; /* under way */
	struct gw_timer timer;
	uint8_t id[16];
	uint64_t bytes;
	uint32_t attempts;
	int64_t deadline_ns;
	bool waits; /* for its next attempt */
	bool ended; /* there is a verdict, and the sender is being told */
	struct out_verdict verdict;
	/* What the request's pieces point to. */
	struct avp_buf head;
	void *copy;
	bool latent; /* of the attempt: a frame was sent, not text */
};

struct out_peer {
	struct out_peer *next;
	struct gw_outbound *out;
	struct gateway *gw;
	struct out_remote *remotes;
	/* A reload replaces both, or the peer. */
	const struct gw_conf_peer *conf;
	struct gw_conf *whole; /* which conf is a part of: held */
	bool leaving;	       /* no more in the configuration */

	/* outbound_http.c */
	CURLM *multi;
	struct out_request *idle, *running;
	struct gw_timer timer;
	struct gw_ready kick;
	bool http2; /* spoken with it last */
	int newest; /* of its sockets; -1: none */

	/* peer.c */
	struct out_list queue;
	struct out_message *all;
	struct gw_ready pump;
	struct gw_timer wake;
	uint32_t messages; /* taken and not done */
	uint64_t bytes;
	uint32_t active;       /* requests of messages and handshakes */
	uint32_t failures;     /* of the connection, in a row */
	int64_t open_until_ns; /* the breaker; 0: closed */
	int64_t heard_ns;

	/* outbound_beat.c */
	struct gw_timer beat;
	bool deaf; /* knows no HEARTBEAT: GET /health tells of its agents */

	/* peer_session.c: how it wants to be addressed. */
	bool plain; /* /avp/v2/..., not /agents/<id>/avp/v2/... */
};

struct gw_outbound {
	struct gateway *gw;
	struct out_peer *peers;
	bool draining;
	struct gw_timer reap;
	uint8_t buried[256][16]; /* ids of the last dead letters */
	unsigned buried_at;
	struct ahp_heartbeats *beats; /* when remote agents were heard */
	struct avp_zstd *zstd;
};

int out_peer_open(struct out_peer *peer, struct avp_reason *why);
/* Everything that it has is refused. */
void out_peer_close(struct out_peer *peer);

void out_peer_take(struct out_peer *peer, struct out_remote *remote,
		   struct gw_message *message);
/* An attempt has ended: settles it, or lets it wait for the next. */
void out_message_judge(struct out_message *m, struct out_verdict *verdict);
/* Back into the queue: its session is ready. */
void out_message_queue(struct out_message *m);
/* A request begins or has ended that counts against `connections`. */
void out_peer_count(struct out_peer *peer, int more);

/* Nothing more is tried: what waits ends now. */
void out_peer_drain(struct out_peer *peer);

/* For the breaker: a request has had an answer, or no connection. */
void out_peer_heard(struct out_peer *peer, const struct out_request *request);

/* ---- how remote agents are: outbound_beat.c ----------------------------- */

void out_beat_open(struct out_peer *peer);
void out_beat_close(struct out_peer *peer);
/* Something came from it: it lives. */
void out_remote_heard(struct out_remote *remote);
/* Lets its agent's heart beat, or not, as was told last. */
void out_remote_beats(struct out_remote *remote);
/* The peer has answered a request, or (code not 0) has not. */
void out_beat_answered(struct out_peer *peer, const struct out_request *r);
enum ahp_liveness out_remote_state(const struct out_remote *remote);
/* "alive", ... */
const char *out_state_name(enum ahp_liveness state);

/* The URL of an endpoint ("transmit") for a remote agent. */
void out_url(char url[OUT_URL_BYTES], const struct out_remote *remote,
	     const char *endpoint);

/* Out of the list that it is in, if any. */
void out_unlist(struct out_message *m);

/* ---- bodies, answers, news ---------------------------------------------- */

/*
 * Fills request with what the message is for this session. *url: which
 * endpoint. 0, or a code with the reason: it cannot be sent so.
 */
int out_body(struct out_message *m, struct out_request *request,
	     const char **endpoint, struct avp_reason *why);
void out_body_free(struct out_message *m);

/* The fields that every request has: version, who, token. */
void out_fields(struct out_request *request, const char *agent_id,
		enum avp_dialect dialect);

/* What AHP tells of a message beside its payload. */
struct out_about {
	uint32_t method; /* enum ahp_method */
	struct avp_str source, target, task_id, session_id;
	uint32_t token_limit;
	struct ahp_time time;
	uint8_t id[16];
};

/* As header fields. */
void out_about_fields(const struct out_about *about, struct out_request *r);
/* A text message with it in extra.ahp: the request's body. */
int out_about_text(const struct out_about *about, enum avp_dialect dialect,
		   struct avp_str session_id, struct avp_str content,
		   struct out_request *request);

/* HELLO of the dialect that a peer is known, or said, to speak. */
const char *out_version(enum avp_dialect dialect);

/* Of a request with an answer or none. */
void out_judge(struct out_message *m, struct out_request *request,
	       struct out_verdict *verdict);
/* The same for what is not a message's: code 0, or what is wrong. */
void out_judge_status(const struct out_request *request,
		      struct out_verdict *verdict);

/*
 * Tells the sender: the RESULT, or for a refused TASK one of status "error".
 * AVP_QUEUE_FULL: it has no room, try again.
 */
int out_tell(struct out_message *m);
/* A PROGRESS to a local agent: its session goes on in JSON. */
void out_tell_fallback(struct out_session *session,
		       const struct avp_fallback *fallback);
void out_bury(struct out_message *m);

#endif
