/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The endpoints: what serve*.c and deliver.c share. An exchange is a request as
 * the endpoints see it: who asks, for which agent, and what is done about it.
 */
#ifndef AVP_GATEWAY_SERVE_H
#define AVP_GATEWAY_SERVE_H

#include <stdarg.h>

#include <avp/ahp.h>
#include <avp/codec.h>
#include <avp/hello.h>

#include "gateway/conn.h"
#include "gateway/gateway.h"

/* Bytes of a frame's head that need no memory of their own. */
#define STAGE_BYTES 1024

struct gw_inbound;

/* Where a message is on its way to a local agent: deliver.c. */
enum delivery_state {
	NOT_SENT,
	LINKING, /* in the list of those that wait for a link */
	SENT	 /* known by its receipt, or by its task, or both */
};

struct exchange {
	struct gateway *gw;
	struct gw_inbound *in;
	struct http_request *r;
	enum gw_endpoint endpoint;
	bool known;	   /* a token was shown, of this SHA-256 */
	uint8_t token[32]; /* in the configuration it may be another by now */
	char url_agent[AHP_ID_BYTES + 1]; /* of /agents/<id>/...; "" */
	char target[AHP_ID_BYTES + 1];	  /* the local agent; "": not known */
	struct gw_timer timer;		  /* the end of waiting */

	/* The body: of a frame its head, until that is whole; of JSON all. */
	struct avp_buf stage;
	uint8_t small[STAGE_BYTES];
	size_t staged, stage_need;
	struct ahp_loan loan;
	uint8_t *at; /* the body's first byte in the loan */
	uint64_t filled, room;
	struct avp_frame frame; /* its strings lie in the stage */
	bool framed;		/* frame is filled */
	struct avp_json_doc *doc;
	struct avp_str payload, session; /* of a text message */

	/* Delivery. */
	enum delivery_state state;
	bool whole; /* the body is there */
	bool acked; /* the agent has accepted it */
	bool wants_result, wants_liveness;
	bool hashed, tasked;
	struct gw_agent *speaker; /* ours that sends; counts us as its user */
	uint32_t peer;		  /* the local agent's number there */
	struct ahp_receipt receipt;
	uint8_t message_id[16];
	uint8_t method; /* enum ahp_method */
	uint32_t token_limit;
	struct avp_str task_id, session_id; /* any bytes, in ids */
	char ids[2][AVP_LANE_ID_BYTES];
	struct exchange *next, **before;	   /* of those that link */
	struct exchange *same_receipt, *same_task; /* of a bucket */
	int64_t sent_ns;
};

/* ---- serve.c: answers --------------------------------------------------- */

/* {"success":false,"message":..} and, unless it is a frame's, "code". */
void serve_fail(struct exchange *x, int status, const struct avp_reason *why);
__attribute__((format(printf, 4, 5))) void serve_failf(struct exchange *x,
						       int status, int code,
						       const char *format, ...);
/* The same with a header field of its own; pair may be NULL. */
void serve_refuse(struct exchange *x, int status, int code,
		  const struct http_pair *pair, const char *text);
/* The status that belongs to a code of a refusal. */
int serve_status(int code);
/* Sends a JSON text, which is copied. */
void serve_json(struct exchange *x, int status, struct avp_str json);
/*
 * Settles which agent is meant: named (may be empty), else the URL's, else the
 * default one. False: answered.
 */
bool serve_address(struct exchange *x, struct avp_str named);
/* The value of a header field, else the other. */
struct avp_str serve_either(const struct exchange *x, enum http_field field,
			    struct avp_str other);

/* ---- fields.c: AHP's fields of a message -------------------------------- */

/* From the header; what is absent gets its default. False: answered. */
bool fields_read(struct exchange *x);
/* From a text message's extra.ahp, which outranks the header; may be NULL. */
bool fields_read_json(struct exchange *x, const struct avp_json *ahp);
/* Bytes of %XX, in place. False: one is not of two hex digits. */
bool fields_unescape(char *text, size_t *len);
/* Into a message; session is AVP's, used when AHP's is not given. */
void fields_fill(struct exchange *x, struct ahp_outgoing *m,
		 struct avp_str session);

/* ---- auth.c: who asks, and how often ------------------------------------ */

/* Finds out; false: answered. */
bool auth_check(struct exchange *x);
/* May whoever asks reach that agent? False: answered. */
bool auth_permits(struct exchange *x, const char *agent);
/* The default agent of whoever asks; "" if there is none. */
const char *auth_default_agent(const struct exchange *x);

/* Room for requests of one second each, by whoever makes them. */
#define RATES 4096
struct rates {
	struct {
		uint64_t who;
		int64_t paid_ns; /* up to when requests are paid for */
	} rate[RATES];
};

/* ---- each endpoint ------------------------------------------------------ */

void transmit_head(struct exchange *x);
size_t transmit_place(struct exchange *x, void **at);
void transmit_placed(struct exchange *x, size_t n);
void transmit_end(struct exchange *x);
/* Gives the loan back. */
void transmit_free(struct exchange *x);

void json_head(struct exchange *x);
size_t json_place(struct exchange *x, void **at);
void text_end(struct exchange *x);
void handshake_end(struct exchange *x);
/* The link of the agent that a handshake is for was looked for. */
void handshake_linked(struct exchange *x, int code);
/* The body that text_end() or transmit_end() left is sent. */
void transmit_send(struct exchange *x);
void text_send(struct exchange *x);

/* ---- deliver.c ---------------------------------------------------------- */

void deliver_open(struct gw_inbound *in);
void deliver_close(struct gw_inbound *in);
/* Chooses who of ours sends, for a source of that id. */
void deliver_speak(struct exchange *x, struct avp_str source);
/*
 * Looks for the link to x->target: 0; AVP_AGAIN, and one of transmit_send(),
 * text_send() and handshake_linked() follows, or an answer; or why there is
 * none.
 */
int deliver_link(struct exchange *x, struct avp_reason *why);
/* Sends it; x is answered when it is acknowledged, or its RESULT is there. */
void deliver_send(struct exchange *x, struct ahp_outgoing *m);
/* Nothing more is to be done for it. */
void deliver_forget(struct exchange *x);

/* ---- what inbound is ---------------------------------------------------- */

#define RECEIPT_BUCKETS 4096

struct gw_inbound {
	struct http_server server;
	struct http_listener *listeners; /* that are open */
	struct rates rates;
	struct ahp_sessions *sessions;
	struct avp_zstd *zstd;
	struct exchange *linking, **linking_end; /* in order */
	struct gw_timer link_timer, watch_timer;
	struct exchange *by_receipt[RECEIPT_BUCKETS];
	struct exchange *by_task[RECEIPT_BUCKETS];
	uint32_t with_task;
	uint64_t lent_bytes; /* to bodies that come, or are not answered */
};

#endif
