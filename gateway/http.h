/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request and its answer, whichever version of HTTP carries them.
 *
 * Below are the connections: conn.c (sockets, buffers, time-outs), tls.c, h1.c
 * and h2.c. Above is who answers: serve.c. They meet here. Below call above with
 * serve_head() when a request's header is there and good, with serve_place() and
 * serve_placed() for its body, with serve_end() when it is whole, and with
 * serve_done(), exactly once, when nothing more will come of it. Above may call
 * http_answer() at any time between the first and the last of these, once. An
 * answer before the end of the body stops the body: what still comes is dropped.
 *
 * One thread. Nothing here is called from within a callback of the event loop:
 * those only ask for their connection's turn (gw_ready_add()).
 */
#ifndef AVP_GATEWAY_HTTP_H
#define AVP_GATEWAY_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <avp/json.h>
#include <avp/ring.h>

#include "gateway/gateway.h"

/* Limits that no configuration changes, each with its reason. */
enum {
	HTTP_TARGET_MAX =
		2048, /* of a request's path and query: ours are short */
	HTTP_FIELDS_MAX = 100,	  /* header fields; the SDK sends 10 */
	HTTP_READ_BYTES = 262144, /* read at once, into memory that all share */
	/* of one connection before the next one's turn, and before it is told
	 * of its windows: a quarter of what it may send of a stream */
	HTTP_TURN_BYTES = 262144,
	HTTP_OUT_BYTES = 262144, /* kept to be written: more when it is gone */
	HTTP_COPY_BYTES = 16384, /* bodies of answers up to here are copied */
};

/* The methods that differ to us. */
enum http_verb {
	HTTP_VERB_OTHER,
	HTTP_VERB_GET,
	HTTP_VERB_HEAD, /* whose answers have no body */
	HTTP_VERB_POST
};

/* The header fields that we look at. All others are checked and dropped. */
enum http_field {
	HTTP_FIELD_OTHER, /* none of them */
	HTTP_HOST,
	HTTP_CONTENT_TYPE,
	HTTP_CONTENT_ENCODING,
	HTTP_CONTENT_LENGTH,
	HTTP_TRANSFER_ENCODING,
	HTTP_EXPECT,
	HTTP_AUTHORIZATION,
	HTTP_AVP_VERSION,
	HTTP_AVP_AGENT_ID,
	HTTP_AHP_METHOD,
	HTTP_AHP_MESSAGE_ID,
	HTTP_AHP_TASK_ID,
	HTTP_AHP_SESSION_ID,
	HTTP_AHP_SOURCE,
	HTTP_AHP_TARGET,
	HTTP_AHP_TOKEN_LIMIT,
	HTTP_AHP_WAIT,
	HTTP_AHP_ENCODING,
	HTTP_FIELDS
};

struct http_conn;
struct http_server;

/* A part of a request's text. */
struct http_span {
	uint32_t off, len;
};

/*
 * One request. Made by h1.c or h2.c, which own the first part; `above` is for
 * who answers.
 */
struct http_request {
	struct http_conn *conn;
	struct http_request *next, **before; /* of its connection */
	int32_t stream;			     /* of HTTP/2; 0 with HTTP/1.1 */
	enum http_verb verb;
	bool expects;  /* 100-continue is awaited, and was not sent */
	bool begun;    /* serve_head() was called */
	bool ended;    /* the whole of it has come */
	bool answered; /* http_answer() was called */
	bool known;    /* length is: by Content-Length */
	uint64_t length;
	uint64_t received;	     /* of the body, up to now */
	uint32_t fields, head_bytes; /* of the header, seen */
	int refused; /* a status, for a header that is not to be served */
	struct avp_buf text;
	struct http_span path, query;
	struct http_span field[HTTP_FIELDS];
	int status; /* of the answer */
	uint64_t answer_bytes;
	/* When it began, its header was whole, and its body was. */
	int64_t begin_ns, head_ns, end_ns;
	/* The answer's body while it is being written. */
	const uint8_t *body;
	uint64_t body_bytes, body_off;
	void (*release)(void *arg);
	void *release_arg;
	/* In each period enough of a body has to come, or to be taken. */
	struct gw_timer timer;
	uint64_t period_bytes;
	void *above;
};

/* A header field's value: data NULL if it was not sent. */
struct avp_str http_get(const struct http_request *r, enum http_field field);
struct avp_str http_path(const struct http_request *r);
struct avp_str http_query(const struct http_request *r); /* with its '?' */

/* ---- answering ----------------------------------------------------------------- */

struct http_pair {
	const char *name; /* lower case */
	struct avp_str value;
};

struct http_reply {
	int status;
	const char *type;	      /* Content-Type; NULL: none */
	const struct http_pair *pair; /* further fields */
	unsigned pairs;
	const void *body;
	uint64_t bytes;
	/* NULL: the body is copied. Else it is borrowed until this is called. */
	void (*release)(void *arg);
	void *release_arg;
};

/*
 * Sends the answer. The request lives on until serve_done(). Nothing fails: on a
 * connection that is gone the body is released and that is all.
 */
void http_answer(struct http_request *r, const struct http_reply *reply);

/* "Not Found"; "" for a status that is not known. */
const char *http_reason(int status);

/* ---- who answers: serve.c -------------------------------------------------------- */

void serve_head(struct http_request *r);
/*
 * Where the next bytes of the body go, and how many fit there; 0: they are not
 * wanted. serve_placed() tells how many were put there.
 */
size_t serve_place(struct http_request *r, void **at);
void serve_placed(struct http_request *r, size_t bytes);
void serve_end(struct http_request *r);
void serve_done(struct http_request *r);

#endif
