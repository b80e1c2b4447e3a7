/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/1.1 (RFC 9112): one request of a connection at a time, so that answers
 * come in order; those that were sent ahead wait in the connection's input.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/h1.h"

#define DRAIN_BYTES   65536 /* of an unwanted body, to keep the connection */
#define CHUNK_DIGITS  15    /* of a chunk's size: below 2^60 */
#define EXTENSION_MAX 256   /* bytes behind a chunk's size */
#define TRAILER_MAX   8192

enum state {
	IN_HEAD,
	IN_LENGTH,
	IN_CHUNK_SIZE,
	IN_CHUNK_EXTENSION,
	IN_CHUNK_LF, /* of the size's line */
	IN_CHUNK,
	IN_CHUNK_END, /* CR LF behind it */
	IN_TRAILER,
	IN_NOTHING /* the request is whole, and not answered */
};

struct h1 {
	enum state state;
	struct http_request *r; /* from its header on */
	struct h1_head head;
	uint64_t left;	/* of the body or chunk */
	size_t scanned; /* of a header that is not whole */
	uint32_t count; /* digits, or bytes of what has a limit */
	bool last;	/* nothing after this */
};

/* ---- answers ----------------------------------------------------------------------- */

static void say_line(struct http_conn *c, const char *name,
		     struct avp_str value)
{
	http_say(c, name, strlen(name));
	http_say(c, ": ", 2);
	http_say(c, value.data, value.len);
	http_say(c, "\r\n", 2);
}

static void say_head(struct http_conn *c, const struct http_reply *reply,
		     bool closes)
{
	char line[160];

	snprintf(line, sizeof(line),
		 "HTTP/1.1 %d %s\r\ndate: %s\r\nserver: avp-gateway\r\n"
		 "content-length: %llu\r\n",
		 reply->status, http_reason(reply->status), http_date(),
		 (unsigned long long)reply->bytes);
	http_say(c, line, strlen(line));
	if (reply->type)
		say_line(c, "content-type", avp_str_of(reply->type));
	for (unsigned i = 0; i < reply->pairs; i++)
		say_line(c, reply->pair[i].name, reply->pair[i].value);
	if (closes)
		say_line(c, "connection", avp_str_of("close"));
	http_say(c, "\r\n", 2);
}

/* Is what remains of an unwanted body little enough to be read? */
static bool ends_soon(const struct h1 *h, const struct http_request *r)
{
	return h->state == IN_NOTHING ||
	       (r->known && !r->expects && h->left <= DRAIN_BYTES);
}

static void answer(struct http_request *r, const struct http_reply *reply)
{
	struct http_conn *c = r->conn;
	struct h1 *h = c->state;

	h->last |= !h->head.keep || c->eof || c->leaving || !ends_soon(h, r);
	say_head(c, reply, h->last);
	if (r->verb == HTTP_VERB_HEAD || !reply->release) {
		if (r->verb != HTTP_VERB_HEAD)
			http_say(c, reply->body, reply->bytes);
		if (reply->release)
			reply->release(reply->release_arg);
		return;
	}
	r->body = reply->body;
	r->body_bytes = reply->bytes;
	r->release = reply->release;
	r->release_arg = reply->release_arg;
	c->lent = r;
}

/* The answer is written, and the request read: the next may come. */
static void try_finish(struct http_conn *c)
{
	struct h1 *h = c->state;
	struct http_request *r = h->r;

	if (!r || !r->answered || c->lent || (!r->ended && !h->last))
		return;
	http_request_end(r);
	h->r = NULL;
	h->state = IN_HEAD;
	h->scanned = 0;
	if (h->last || c->eof)
		c->ending = true;
}

/* Answers for those above: what came is no request, or no whole one. */
static long fail(struct http_conn *c, int status, const char *why)
{
	struct h1 *h = c->state;
	struct http_request *r = h->r;
	char text[256];
	struct http_reply reply = {
		.status = status,
		.type = "application/json",
		.body = text,
	};

	h->last = true;
	c->in_head = false;
	if (r && r->answered)
		return -1;
	c->server->gw->metrics.protocol_errors += status < 500;
	reply.bytes = (uint64_t)snprintf(
		text, sizeof(text), "{\"success\":false,\"message\":\"%s\"}",
		why);
	say_head(c, &reply, true);
	http_say(c, text, reply.bytes);
	if (r) {
		r->answered = true;
		r->status = status;
	}
	return -1;
}

static void too_slow(struct http_request *r)
{
	fail(r->conn, 408, "the body comes too slowly");
	try_finish(r->conn);
}

/* ---- the header ---------------------------------------------------------------------- */

static long begin(struct http_conn *c, const uint8_t *p, size_t n)
{
	struct h1 *h = c->state;
	struct http_request *r = http_request_new(c);
	const char *why;
	int status;

	if (!r)
		return fail(c, 503, "no memory");
	h->head = (struct h1_head){0};
	h->r = r;
	status = h1_head_read(&h->head, r, p, n, &why);
	if (status)
		return fail(c, status, why);
	h->left = r->length;
	h->count = 0;
	h->state = h->head.chunked ? IN_CHUNK_SIZE
		   : h->left	   ? IN_LENGTH
				   : IN_NOTHING;
	r->expects &= h->state != IN_NOTHING;
	http_begin(r);
	if (h->state == IN_NOTHING) {
		http_end(r);
	} else if (r->expects && !r->answered) {
		r->expects = false;
		http_say(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
	}
	return (long)n;
}

static long in_head(struct http_conn *c, const uint8_t *p, size_t n)
{
	struct h1 *h = c->state;
	long end;

	/* An empty line before a request is forgiven (RFC 9112, 2.2). */
	if (n >= 2 && p[0] == '\r' && p[1] == '\n') {
		h->scanned = 0;
		return 2;
	}
	end = h1_head_end(p, n, h->scanned);
	c->in_head = !end;
	if (end < 0)
		return fail(c, 400,
			    "a line of the header does not end with "
			    "CR LF, or holds a NUL");
	if ((end ? (size_t)end : n) > c->server->limits.head_bytes)
		return fail(c, 431, "the header is too long");
	h->scanned = end ? 0 : n;
	return end ? begin(c, p, (size_t)end) : 0;
}

/* ---- the body -------------------------------------------------------------------------- */

static void whole(struct http_conn *c)
{
	struct h1 *h = c->state;

	h->state = IN_NOTHING;
	http_end(h->r);
}

/* A piece of the body was read. */
static void advance(struct http_conn *c, size_t n)
{
	struct h1 *h = c->state;

	h->left -= n;
	if (h->left)
		return;
	h->count = 0;
	if (h->state == IN_CHUNK)
		h->state = IN_CHUNK_END;
	else
		whole(c);
}

static long in_body(struct http_conn *c, const uint8_t *p, size_t n)
{
	struct h1 *h = c->state;

	if (n > h->left)
		n = (size_t)h->left;
	http_body(h->r, p, n);
	advance(c, n);
	return (long)n;
}

static int hex_digit(uint8_t c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool chunk_size(struct h1 *h, uint8_t c)
{
	int digit = hex_digit(c);

	if (digit >= 0) {
		h->left = 16 * (h->count ? h->left : 0) + (unsigned)digit;
		return ++h->count <= CHUNK_DIGITS;
	}
	if (!h->count || (c != '\r' && c != ';'))
		return false;
	h->state = c == ';' ? IN_CHUNK_EXTENSION : IN_CHUNK_LF;
	h->count = 0;
	return true;
}

static bool chunk_line_end(struct h1 *h, uint8_t c)
{
	h->count = 0;
	h->state = h->left ? IN_CHUNK : IN_TRAILER;
	return c == '\n';
}

static bool chunk_extension(struct h1 *h, uint8_t c)
{
	if (c == '\r')
		h->state = IN_CHUNK_LF;
	else if ((c < ' ' && c != '\t') || ++h->count > EXTENSION_MAX)
		return false;
	return true;
}

static bool chunk_end(struct h1 *h, uint8_t c)
{
	if (c != "\r\n"[h->count])
		return false;
	if (++h->count < 2)
		return true;
	h->count = 0;
	h->state = IN_CHUNK_SIZE;
	return true;
}

/* Fields behind the body mean nothing to us, and have to be lines. */
static long in_trailer(struct http_conn *c, const uint8_t *p, size_t n)
{
	const uint8_t *lf = memchr(p, '\n', n);
	size_t line = lf ? (size_t)(lf - p) + 1 : n;
	struct h1 *h = c->state;

	if (memchr(p, 0, line) || h->count + line > TRAILER_MAX ||
	    (lf && (line < 2 || p[line - 2] != '\r')))
		return fail(c, 400, "what follows the last chunk is no line");
	if (!lf)
		return 0;
	h->count += (uint32_t)line;
	if (line == 2)
		whole(c);
	return (long)line;
}

/* The octets between chunks, one by one. */
static long in_framing(struct http_conn *c, uint8_t byte)
{
	struct h1 *h = c->state;
	bool ok;

	switch (h->state) {
	case IN_CHUNK_SIZE: ok = chunk_size(h, byte); break;
	case IN_CHUNK_EXTENSION: ok = chunk_extension(h, byte); break;
	case IN_CHUNK_LF: ok = chunk_line_end(h, byte); break;
	default: ok = chunk_end(h, byte); break;
	}
	return ok ? 1 : fail(c, 400, "a chunk's size or end is not one");
}

static long take(struct http_conn *c, const uint8_t *p, size_t n)
{
	struct h1 *h = c->state;

	switch (h->state) {
	case IN_HEAD: return in_head(c, p, n);
	case IN_LENGTH:
	case IN_CHUNK: return in_body(c, p, n);
	case IN_TRAILER: return in_trailer(c, p, n);
	case IN_NOTHING: return 0;
	default: return in_framing(c, *p);
	}
}

/* ---- as a protocol ----------------------------------------------------------------------- */

static long input(struct http_conn *c, const uint8_t *bytes, size_t n)
{
	struct h1 *h = c->state;
	size_t taken = 0;
	long now;

	if (!h)
		h = c->state = calloc(1, sizeof(*h));
	if (!h)
		return -1;
	while (taken < n) {
		try_finish(c);
		if (c->ending || h->last || c->out.len > HTTP_OUT_BYTES)
			break;
		now = take(c, bytes + taken, n - taken);
		if (now < 0) {
			try_finish(c);
			return now;
		}
		if (!now)
			break;
		taken += (size_t)now;
	}
	return (long)taken;
}

static bool end_of_input(struct http_conn *c)
{
	struct h1 *h = c->state;

	if (!h || !h->r)
		return false;
	if (!h->r->ended)
		fail(c, 400, "the body is shorter than was announced");
	try_finish(c);
	return h->r;
}

static size_t place(struct http_conn *c, void **at)
{
	struct h1 *h = c->state;
	size_t room;

	if (!h || (h->state != IN_LENGTH && h->state != IN_CHUNK) ||
	    h->r->answered)
		return 0;
	room = serve_place(h->r, at);
	return room < h->left ? room : (size_t)h->left;
}

static bool placed(struct http_conn *c, size_t n)
{
	struct h1 *h = c->state;

	h->r->received += n;
	serve_placed(h->r, n);
	advance(c, n);
	return true;
}

static void output(struct http_conn *c)
{
	if (c->state)
		try_finish(c);
}

/* An answer that is under way will say that it is the last. */
static void drain(struct http_conn *c)
{
	struct h1 *h = c->state;

	c->leaving = true;
	if (!h || !h->r)
		c->ending = true;
}

static void close_h1(struct http_conn *c)
{
	struct h1 *h = c->state;

	if (h && h->r)
		http_request_end(h->r);
	free(h);
}

const struct http_protocol http_1 = {
	.name = "1.1",
	.input = input,
	.end_of_input = end_of_input,
	.place = place,
	.placed = placed,
	.output = output,
	.answer = answer,
	.drain = drain,
	.too_slow = too_slow,
	.close = close_h1,
};
