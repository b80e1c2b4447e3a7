/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/gateway.h"
#include "tests/h2_liar.h"

#define CONNS	  16
#define PREFACE	  24 /* bytes of the client's */
#define IN_BYTES  (1 << 20)
#define OUT_BYTES (1 << 20)
#define JSON	  "{\"success\":true,\"session_id\":\"s-1\",\"answer\":42}"

/* Frames of HTTP/2 (RFC 9113, 6). */
enum {
	DATA,
	HEADERS,
	PRIORITY,
	RST_STREAM,
	SETTINGS,
	PUSH_PROMISE,
	PING,
	GOAWAY,
	WINDOW_UPDATE,
	CONTINUATION
};
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4 };

struct conn {
	int fd; /* 0: none */
	bool greeted;
	uint8_t *in;
	size_t len;
};

struct h2_liar {
	int fd;
	unsigned port;
	struct conn conn[CONNS];
	int lie; /* -1: none */
	int cut; /* -1: no */
	uint8_t out[OUT_BYTES];
	size_t n; /* of out */
	uint32_t stream;
	bool hang_up, reset;
};

static void die(const char *what)
{
	perror(what);
	exit(1);
}

/* ---- writing ------------------------------------------------------------ */

static void put(struct h2_liar *l, const void *bytes, size_t n)
{
	if (n > OUT_BYTES - l->n)
		die("h2_liar: a lie is too long");
	if (n)
		memcpy(l->out + l->n, bytes, n);
	l->n += n;
}

static void put_head(struct h2_liar *l, uint32_t length, uint8_t type,
		     uint8_t flags, uint32_t stream)
{
	uint8_t head[H2_HEAD];

	h2_head(head, length, type, flags, stream);
	put(l, head, sizeof(head));
}

static void frame(struct h2_liar *l, uint8_t type, uint8_t flags,
		  uint32_t stream, const void *payload, size_t n)
{
	put_head(l, (uint32_t)n, type, flags, stream);
	put(l, payload, n);
}

/* A payload of one number, and perhaps another. */
static void frame_of(struct h2_liar *l, uint8_t type, uint32_t stream,
		     uint32_t a, const uint32_t *b)
{
	uint32_t words[2] = {htonl(a), htonl(b ? *b : 0)};

	frame(l, type, 0, stream, words, b ? 8 : 4);
}

/* HPACK: ":status: 200" is 0x88, of the static table. */
static void headers(struct h2_liar *l, const char *block, size_t n,
		    uint8_t flags)
{
	frame(l, HEADERS, END_HEADERS | flags, l->stream, block, n);
}

static void data(struct h2_liar *l, const char *text, uint8_t flags)
{
	frame(l, DATA, flags, l->stream, text, strlen(text));
}

static void answer(struct h2_liar *l)
{
	headers(l, "\x88", 1, 0);
	data(l, JSON, END_STREAM);
}

static void goaway(struct h2_liar *l, uint32_t last, uint32_t error)
{
	frame_of(l, GOAWAY, 0, last, &error);
}

unsigned h2_liar_answer_bytes(void)
{
	return 9 + 1 + 9 + sizeof(JSON) - 1;
}

/* ---- the lies ----------------------------------------------------------- */

static void is_gone(struct h2_liar *l)
{
	l->hang_up = true;
}

static void is_reset(struct h2_liar *l)
{
	l->hang_up = l->reset = true;
}

static void goes_away(struct h2_liar *l)
{
	goaway(l, 0, 2);
	l->hang_up = true;
}

static void goes_away_midway(struct h2_liar *l)
{
	headers(l, "\x88", 1, 0);
	goaway(l, l->stream, 0);
	data(l, "{", 0);
	l->hang_up = true;
}

/* As a server does that ends in good order. */
static void goes_away_after_it(struct h2_liar *l)
{
	goaway(l, l->stream, 0);
	answer(l);
}

static void resets_the_stream(struct h2_liar *l)
{
	frame_of(l, RST_STREAM, l->stream, 2, NULL);
}

static void cancels_midway(struct h2_liar *l)
{
	headers(l, "\x88", 1, 0);
	data(l, "{\"success\":", 0);
	frame_of(l, RST_STREAM, l->stream, 8, NULL);
}

static void has_no_body(struct h2_liar *l)
{
	headers(l, "\x88", 1, END_STREAM);
}

static void has_half_a_body(struct h2_liar *l)
{
	headers(l, "\x88", 1, 0);
	data(l, "{\"success\":true", END_STREAM);
}

static void data_first(struct h2_liar *l)
{
	data(l, JSON, END_STREAM);
}

static void data_of_no_stream(struct h2_liar *l)
{
	frame(l, DATA, END_STREAM, 9999, JSON, sizeof(JSON) - 1);
}

static void too_long_a_frame(struct h2_liar *l)
{
	put_head(l, 0xffffff, DATA, 0, l->stream);
}

static void continues_nothing(struct h2_liar *l)
{
	frame(l, CONTINUATION, END_HEADERS, l->stream, "\x88", 1);
}

static void never_continues(struct h2_liar *l)
{
	frame(l, HEADERS, 0, l->stream, "\x88", 1);
	data(l, JSON, END_STREAM);
}

static void promises(struct h2_liar *l)
{
	frame(l, PUSH_PROMISE, END_HEADERS, l->stream, "\0\0\0\2\x88", 5);
}

static void opens_no_window(struct h2_liar *l)
{
	frame_of(l, WINDOW_UPDATE, 0, 0, NULL);
}

static void opens_too_wide(struct h2_liar *l)
{
	frame_of(l, WINDOW_UPDATE, 0, 0x7fffffff, NULL);
	frame_of(l, WINDOW_UPDATE, 0, 0x7fffffff, NULL);
}

static void sets_nonsense(struct h2_liar *l)
{
	frame(l, SETTINGS, 0, 0, "\0\4\xff\xff\xff\xff", 6);
}

static void settings_cut(struct h2_liar *l)
{
	frame(l, SETTINGS, 0, 0, "\0\4\0", 3);
}

static void bad_hpack(struct h2_liar *l)
{
	headers(l, "\xff\xff\xff\xff\xff\xff\x7f", 7, 0);
}

static void length_lies(struct h2_liar *l)
{
	headers(l,
		"\x88\x5c\2"
		"99",
		5, 0);
	data(l, JSON, END_STREAM);
}

static void no_status(struct h2_liar *l)
{
	headers(l,
		"\x5c\2"
		"49",
		4, 0);
	data(l, JSON, END_STREAM);
}

static void odd_status(struct h2_liar *l)
{
	headers(l,
		"\x08\3"
		"abc",
		5, 0);
	data(l, JSON, END_STREAM);
}

static void upper_case(struct h2_liar *l)
{
	headers(l, "\x88\0\1X\1y", 6, 0);
	data(l, JSON, END_STREAM);
}

static void only_informs(struct h2_liar *l)
{
	for (int i = 0; i < 50; i++)
		headers(l,
			"\x08\3"
			"103",
			5, 0);
}

static void endless_headers(struct h2_liar *l)
{
	static char block[16000];

	/* A name of one byte and a value of 15,990. */
	memcpy(block, "\0\1x\x7f\xf7\x7b", 6);
	memset(block + 6, 'y', sizeof(block) - 6);
	frame(l, HEADERS, 0, l->stream, "\x88", 1);
	for (int i = 0; i < 40; i++)
		frame(l, CONTINUATION, 0, l->stream, block, sizeof(block));
	l->hang_up = true;
}

static void pings(struct h2_liar *l)
{
	for (int i = 0; i < 5000; i++)
		frame(l, PING, 0, 0, "12345678", 8);
	l->hang_up = true;
}

static void speaks_http1(struct h2_liar *l)
{
	static const char text[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
				   "\r\n{}";

	put(l, text, sizeof(text) - 1);
}

static void talks_garbage(struct h2_liar *l)
{
	uint8_t bytes[4096];

	srand(11);
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)rand();
	put(l, bytes, sizeof(bytes));
}

static void is_silent(struct h2_liar *l)
{
	(void)l;
}

static const struct {
	const char *name;
	void (*tell)(struct h2_liar *l);
	bool honest;
} lies[] = {
#define LIE(f)               \
	{                    \
#f, f, false \
	}
	{"goes_away_after_it", goes_away_after_it, true},
	LIE(is_gone),
	LIE(is_reset),
	LIE(goes_away),
	LIE(goes_away_midway),
	LIE(resets_the_stream),
	LIE(cancels_midway),
	LIE(has_no_body),
	LIE(has_half_a_body),
	LIE(data_first),
	LIE(data_of_no_stream),
	LIE(too_long_a_frame),
	LIE(continues_nothing),
	LIE(never_continues),
	LIE(promises),
	LIE(opens_no_window),
	LIE(opens_too_wide),
	LIE(sets_nonsense),
	LIE(settings_cut),
	LIE(bad_hpack),
	LIE(length_lies),
	LIE(no_status),
	LIE(odd_status),
	LIE(upper_case),
	LIE(only_informs),
	LIE(endless_headers),
	LIE(pings),
	LIE(speaks_http1),
	LIE(talks_garbage),
	LIE(is_silent),
};
#define LIES (sizeof(lies) / sizeof(*lies))

const char *h2_lie_name(unsigned lie)
{
	return lie < LIES ? lies[lie].name : NULL;
}

bool h2_lie_is_honest(unsigned lie)
{
	return lies[lie].honest;
}

/* ---- connections -------------------------------------------------------- */

struct h2_liar *h2_liar_open(void)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(to);
	struct h2_liar *l = calloc(1, sizeof(*l));

	if (!l)
		die("calloc");
	l->lie = l->cut = -1;
	l->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (l->fd < 0 || bind(l->fd, (struct sockaddr *)&to, n) ||
	    listen(l->fd, 16) || getsockname(l->fd, (struct sockaddr *)&to, &n))
		die("h2_liar_open");
	l->port = ntohs(to.sin_port);
	return l;
}

unsigned h2_liar_port(const struct h2_liar *l)
{
	return l->port;
}

static void conn_close(struct h2_liar *l, struct conn *c)
{
	if (l->reset)
		setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0},
			   sizeof(struct linger));
	l->reset = false;
	close(c->fd);
	free(c->in);
	*c = (struct conn){0};
}

static void close_all(struct h2_liar *l)
{
	for (int i = 0; i < CONNS; i++)
		if (l->conn[i].fd)
			conn_close(l, &l->conn[i]);
}

void h2_liar_close(struct h2_liar *l)
{
	close_all(l);
	close(l->fd);
	free(l);
}

void h2_liar_hang_up(struct h2_liar *l)
{
	close_all(l);
}

void h2_liar_lie(struct h2_liar *l, unsigned lie)
{
	l->lie = (int)lie;
}

void h2_liar_cut(struct h2_liar *l, unsigned bytes)
{
	l->cut = (int)bytes;
}

void h2_liar_repent(struct h2_liar *l)
{
	l->lie = l->cut = -1;
}

/* What cannot be said to who has hung up is lost. */
static void flush(struct h2_liar *l, struct conn *c)
{
	size_t at = 0;

	while (at < l->n) {
		ssize_t put = send(c->fd, l->out + at, l->n - at, MSG_NOSIGNAL);

		if (put < 0 && errno != EAGAIN)
			break;
		at += put > 0 ? (size_t)put : 0;
	}
	l->n = 0;
	if (l->hang_up)
		conn_close(l, c);
	l->hang_up = false;
}

static void respond(struct h2_liar *l, uint32_t stream)
{
	l->stream = stream;
	if (l->lie >= 0) {
		lies[l->lie].tell(l);
		return;
	}
	answer(l);
	if (l->cut < 0)
		return;
	l->n = (size_t)l->cut;
	l->hang_up = true;
}

/* One frame of the client's, whole. */
static void hear(struct h2_liar *l, struct conn *c, const uint8_t *f)
{
	uint32_t stream = (uint32_t)(f[5] & 0x7f) << 24 | (uint32_t)f[6] << 16 |
			  (uint32_t)f[7] << 8 | f[8];

	if (f[3] == SETTINGS && !(f[4] & ACK))
		frame(l, SETTINGS, ACK, 0, NULL, 0);
	else if (f[3] == PING && !(f[4] & ACK))
		frame(l, PING, ACK, 0, f + 9, 8);
	else if ((f[3] == HEADERS || f[3] == DATA) && f[4] & END_STREAM)
		respond(l, stream);
	flush(l, c);
}

static void hear_all(struct h2_liar *l, struct conn *c)
{
	size_t at = 0, n;

	if (!c->greeted && c->len >= PREFACE) {
		c->greeted = true;
		at = PREFACE;
		frame(l, SETTINGS, 0, 0, NULL, 0);
		flush(l, c);
	}
	while (c->greeted && c->len - at >= 9) {
		n = 9 + ((size_t)c->in[at] << 16 | (size_t)c->in[at + 1] << 8 |
			 c->in[at + 2]);
		if (c->len - at < n)
			break;
		hear(l, c, c->in + at);
		if (!c->fd)
			return;
		at += n;
	}
	c->len -= at;
	memmove(c->in, c->in + at, c->len);
}

static void conn_turn(struct h2_liar *l, struct conn *c)
{
	ssize_t n;

	if (!c->fd) {
		c->fd = accept4(l->fd, NULL, NULL,
				SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (c->fd < 0) {
			c->fd = 0;
			return;
		}
		c->in = malloc(IN_BYTES);
		if (!c->in)
			die("malloc");
	}
	n = recv(c->fd, c->in + c->len, IN_BYTES - c->len, MSG_DONTWAIT);
	if (n > 0) {
		c->len += (size_t)n;
		hear_all(l, c);
	} else if (!n || errno != EAGAIN) {
		conn_close(l, c);
	}
}

void h2_liar_turn(struct h2_liar *l)
{
	for (int i = 0; i < CONNS; i++)
		conn_turn(l, &l->conn[i]);
}
