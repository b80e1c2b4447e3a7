/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections: what conn.c, tls.c, h1.c, h2.c and listen.c share. Nobody above
 * includes this; see http.h.
 */
#ifndef AVP_GATEWAY_CONN_H
#define AVP_GATEWAY_CONN_H

#include <netinet/in.h>

#include "gateway/http.h"

typedef struct ssl_st SSL;
typedef struct ssl_ctx_st SSL_CTX;

struct http_limits {
	uint32_t connections;
	uint32_t streams;	    /* at once, of an HTTP/2 connection */
	uint32_t window_bytes;	    /* of HTTP/2, for a stream */
	uint32_t conn_window_bytes; /* and for all of a connection */
	uint32_t head_bytes;	    /* of a request's line and header */
	int64_t idle_ns;	    /* without a request */
	int64_t head_ns;	    /* from a header's first byte to its last */
	int64_t body_ns;	    /* in which a body has to make: */
	uint64_t body_min_bytes;
	int64_t write_ns; /* in which some of an answer has to be taken */
};

/* What the gateway's metrics do not count. */
struct http_counts {
	uint64_t floods;
	uint64_t h1, h2; /* connections that turned out to speak it */
};

/* Lives until it is closed and the last of its connections is. */
struct http_listener {
	struct http_listener *next;
	struct http_server *server;
	struct avp_watch watch; /* fd -1: closed */
	struct gw_ready ready;
	struct gw_timer rest; /* the system had no more fds */
	SSL_CTX *tls;	      /* NULL: plain */
	uint32_t conns;
	uint32_t auth;	      /* enum gw_auth */
	uint32_t wanted_port; /* as configured */
	uint16_t port;	      /* as it is */
	bool kept;	      /* by the reload that is under way */
	char default_agent[AHP_ID_BYTES + 1];
	char address[INET6_ADDRSTRLEN];
};

struct http_server {
	struct gateway *gw;
	struct http_limits limits;
	struct http_counts counts;
	struct http_conn *conns; /* all of them */
	uint32_t in_flight;	 /* requests */
	bool draining;
	uint8_t *read_buffer; /* [HTTP_READ_BYTES], of whoever reads now */
};

/* How a connection speaks. Each takes what it can of its input. */
struct http_protocol {
	const char *name; /* "1.1", "2" */
	/* Bytes taken; what is left is shown again with what follows. A
	 * negative number ends the connection when all is written. */
	long (*input)(struct http_conn *c, const uint8_t *bytes, size_t n);
	/* No more will come. False: nothing remains to be said. */
	bool (*end_of_input)(struct http_conn *c);
	/* Room for body bytes that may be read to their place; 0: none. */
	size_t (*place)(struct http_conn *c, void **at);
	bool (*placed)(struct http_conn *c, size_t n);
	/* Adds to c->out what is to be said, until there is enough. */
	void (*output)(struct http_conn *c);
	void (*answer)(struct http_request *r, const struct http_reply *reply);
	/* No new requests; it ends when those that there are are answered. */
	void (*drain)(struct http_conn *c);
	/* A body comes too slowly, or an answer's is not taken. */
	void (*too_slow)(struct http_request *r);
	/* Frees what it knows; requests are done. */
	void (*close)(struct http_conn *c);
};
extern const struct http_protocol http_1, http_2;

/* What a connection waits for, and is not given for ever. */
enum http_waits {
	WAITS_NOT,
	WAITS_HEAD,  /* for TLS, for a preface, for the rest of a header */
	WAITS_WRITE, /* for the peer to take what is to be written */
	WAITS_IDLE,  /* for a request */
	WAITS_END    /* for the peer to have read the last answer */
};

struct http_conn {
	struct http_server *server;
	struct http_listener *listener;
	struct http_conn *next, **before; /* all of the server's */
	struct gw_ready ready;		  /* for its turn */
	struct avp_watch watch;
	const struct http_protocol *protocol; /* NULL: not known yet */
	void *state;			      /* the protocol's */
	SSL *tls;
	struct avp_buf in;  /* read, and not taken by the protocol */
	struct avp_buf out; /* to be written, from out_off on */
	size_t out_off;
	/* An answer's body that is written from where it lies, behind out. */
	struct http_request *lent;
	bool watched;	   /* by the loop */
	bool hung_up;	   /* as the loop says; not read yet */
	bool readable;	   /* there may be something to be read */
	bool shaking;	   /* TLS is being agreed on */
	bool tls_writes;   /* TLS waits for room before it can read */
	bool tls_reads;	   /* TLS waits for input before it can write */
	bool eof;	   /* the peer will send no more */
	bool leaving;	   /* no request after the one that there is */
	bool ending;	   /* close it when all is written */
	bool lingering;	   /* all is written: what comes is thrown away */
	bool broken;	   /* close it now */
	bool in_head;	   /* a header has begun and is not whole */
	bool stuck;	   /* the socket takes no more */
	bool paused;	   /* what it sent has to be dealt with first */
	uint32_t requests; /* that are not done */
	uint32_t begun;	   /* requests, in all */
	uint32_t begun_before;
	enum http_waits waits;
	uint64_t written; /* bytes, in all */
	uint64_t written_before;
	uint64_t lingered;
	struct gw_timer timer, retry;
	char peer[INET6_ADDRSTRLEN];
};

/* ---- conn.c --------------------------------------------------------------------- */

/* It is looked at in this turn of the gateway. */
void http_ready(struct http_conn *c);
/* Takes the socket in every case. */
void http_accept(struct http_listener *l, int fd, const char *peer);
void http_close(struct http_conn *c);
/* All of a listener's, or all there are (NULL). */
void http_drain(struct http_server *server, const struct http_listener *l);
/* It is known what it speaks. */
void http_speaks(struct http_conn *c, const struct http_protocol *protocol);
/* Adds to what is to be written; without memory the connection is broken. */
void http_say(struct http_conn *c, const void *bytes, size_t n);

/* ---- listen.c ---------------------------------------------------------------------- */

/* One of its connections is gone. */
void http_listener_leave(struct http_listener *l);

/* ---- request.c ------------------------------------------------------------------- */

struct http_request *http_request_new(struct http_conn *c);
/* Says that it is done, and frees it. */
void http_request_end(struct http_request *r);
/* Which field that is; HTTP_FIELD_OTHER for any other. In either case. */
enum http_field http_field_of(const void *name, size_t n);
/* False: no memory. */
bool http_span_set(struct http_request *r, struct http_span *span,
		   const void *bytes, size_t n);
/* The target of the request's line. False: not one that can be served. */
bool http_target_set(struct http_request *r, const void *bytes, size_t n);
/* "Content-Length: 12": 1 to 18 digits. */
bool http_length_set(struct http_request *r, struct avp_str value);
/* Copies a piece of the body to where it is wanted. */
void http_body(struct http_request *r, const void *bytes, size_t n);
/* The header is whole: calls serve_head(), and minds the time from now on. */
void http_begin(struct http_request *r);
void http_end(struct http_request *r);
/* Begins a period in which enough of its body, or its answer's, has to move. */
void http_mind(struct http_request *r);
/* "Sun, 06 Nov 1994 08:49:37 GMT" of this second. */
const char *http_date(void);

/* ---- tls.c ------------------------------------------------------------------------- */

struct http_tls_files {
	const char *certificate, *key; /* PEM */
	const char *client_ca;	       /* NULL or "": clients are not asked */
	bool client_required;
};
int http_tls_open(SSL_CTX **tls, const struct http_tls_files *files,
		  struct avp_reason *why);
void http_tls_close(SSL_CTX *tls);
int http_tls_begin(struct http_conn *c);
/* 1: agreed; AVP_AGAIN; else it has failed. */
int http_tls_shake(struct http_conn *c);
/* Bytes; 0: the end; AVP_AGAIN; AVP_CLOSED. */
long http_tls_read(struct http_conn *c, void *to, size_t n);
long http_tls_write(struct http_conn *c, const void *from, size_t n);
void http_tls_end(struct http_conn *c);

#endif
