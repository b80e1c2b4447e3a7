/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Large bodies over HTTP/2: however they are cut into frames, and whatever comes in
 * between, the agent reads what was sent.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "tests/gateway.h"

#define BODY_BYTES 700000 /* within the windows that are open from the start */
#define STREAMS	   2

#define CONF                       \
	"gateway:\n  listeners:\n" \
	"    - {address: 127.0.0.1, port: 0, default_agent: reader}\n"

/* How bodies come. */
struct way {
	const char *name;
	unsigned streams;
	size_t size[3]; /* of a stream's frames, by turns */
	unsigned row;	/* frames of a stream before the next stream's */
	unsigned
		every; /* frames from one of the following to the next; 0: none */
	uint8_t between;
	size_t said;  /* bytes at once; 0: all */
	size_t first; /* as many more with the header before that */
};

enum { NO_FRAME, A_PING = H2_PING, PADDING = 100, EMPTY_DATA };

static const struct way ways[] = {
	{"in a row", 1, {16384, 16384, 16384}, 1, 0, NO_FRAME, 0, 0},
	{"in pieces", 1, {16384, 16384, 16384}, 1, 0, NO_FRAME, 10007, 0},
	{"in pieces that end in headers",
	 1,
	 {16384, 16384},
	 1,
	 0,
	 NO_FRAME,
	 3 * 16393 + 4,
	 0},
	{"in small frames", 1, {9000, 9000, 9000}, 1, 0, NO_FRAME, 0, 0},
	{"in tiny frames", 1, {700, 700, 700}, 1, 0, NO_FRAME, 0, 0},
	{"of two sizes", 1, {16384, 16384, 16000}, 1, 0, NO_FRAME, 0, 0},
	{"that grow",
	 1,
	 {9000, 9000, 16384},
	 1,
	 0,
	 NO_FRAME,
	 2 * 9009 + 16393,
	 2 * 9009},
	{"with pings", 1, {16384, 16384, 16384}, 1, 5, A_PING, 0, 0},
	{"with padding", 1, {16384, 16384, 16384}, 1, 5, PADDING, 0, 0},
	{"with empty frames", 1, {16384, 16384, 16384}, 1, 5, EMPTY_DATA, 0, 0},
	{"two by turns", 2, {16384, 16384, 16384}, 1, 0, NO_FRAME, 0, 0},
	{"two, three frames each",
	 2,
	 {16384, 16384, 16384},
	 3,
	 0,
	 NO_FRAME,
	 0,
	 0},
	{"two, twenty each",
	 2,
	 {16384, 16384, 16384},
	 20,
	 0,
	 NO_FRAME,
	 50021,
	 0},
};

/* ---- the agent ------------------------------------------------------------------- */

/* Accepts what it can read as it was written: seeds are 1 and more. */
static void role_read(struct ahp_agent *agent, struct ahp_message *m)
{
	const char *payload = (const char *)m->body + m->frame.payload_off;
	bool good = false;

	for (uint32_t seed = 1; seed <= STREAMS; seed++)
		good |= pattern_is(payload, m->frame.payload_bytes, seed);
	if (good && m->frame.payload_bytes == BODY_BYTES)
		ahp_accept(agent, m);
	else
		ahp_reject(agent, m);
	ahp_release(agent, m);
}

/* ---- the client ------------------------------------------------------------------ */

struct sending {
	uint8_t body[BODY_BYTES + 64];
	size_t bytes, off;
	unsigned frames;
	uint32_t stream;
};

static struct sending sending[STREAMS];
static uint8_t out[2 << 20];
static size_t out_bytes, head_bytes; /* of all, of the requests' headers */

static void put(uint8_t type, uint8_t flags, uint32_t stream, const void *bytes,
		size_t n)
{
	out_bytes += h2_put(out + out_bytes, type, flags, stream, bytes, n);
}

/* POST; only the first of two announces its length. */
static void put_head(const struct sending *s)
{
	char block[80] = "\x83\x86\x44\x10/avp/v2/transmit\x41\x01t",
	     length[16];
	size_t n = strlen(block);
	int digits = snprintf(length, sizeof(length), "%zu", s->bytes);

	if (s->stream == 1)
		n += (size_t)snprintf(block + n, sizeof(block) - n, "\x5c%c%s",
				      digits, length);
	put(H2_HEADERS, 4, s->stream, block, n);
}

static void put_data(struct sending *s, size_t n)
{
	bool last = n >= s->bytes - s->off;

	if (last)
		n = s->bytes - s->off;
	put(H2_DATA, last, s->stream, s->body + s->off, n);
	s->off += n;
}

static void put_between(const struct way *w, struct sending *s)
{
	uint8_t padded[1 + 50 + 30] = {30};

	if (w->between == A_PING) {
		put(H2_PING, 0, 0, "12345678", 8);
	} else if (w->between == EMPTY_DATA) {
		put(H2_DATA, 0, s->stream, NULL, 0);
	} else if (s->off + 50 < s->bytes) {
		memcpy(padded + 1, s->body + s->off, 50);
		put(H2_DATA, 8, s->stream, padded, sizeof(padded));
		s->off += 50;
	}
}

static void put_frame(const struct way *w, struct sending *s)
{
	put_data(s, w->size[s->frames++ % 3]);
	if (w->every && s->frames % w->every == 0 && s->off < s->bytes)
		put_between(w, s);
}

static void put_bodies(const struct way *w)
{
	bool more = true;

	out_bytes = 0;
	for (unsigned i = 0; i < w->streams; i++) {
		struct sending *s = &sending[i];

		*s = (struct sending){.stream = 1 + 2 * i};
		s->bytes = frame_make(s->body, "", BODY_BYTES, 1 + i);
		put_head(s);
	}
	head_bytes = out_bytes;
	while (more) {
		more = false;
		for (unsigned i = 0; i < w->streams; i++) {
			struct sending *s = &sending[i];

			for (unsigned k = 0; k < w->row && s->off < s->bytes;
			     k++)
				put_frame(w, s);
			more |= s->off < s->bytes;
		}
	}
}

/* ":status 200" of each stream; false: another, or the connection ended. */
static bool all_accepted(int fd, unsigned streams)
{
	uint8_t head[9], payload[16384];

	while (streams && recv(fd, head, 9, MSG_WAITALL) == 9) {
		size_t n =
			(size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];

		if (n > sizeof(payload) ||
		    (n && recv(fd, payload, n, MSG_WAITALL) != (ssize_t)n))
			return false;
		if (head[3] == H2_RESET ||
		    (head[3] == H2_HEADERS && payload[0] != 0x88))
			return false;
		streams -= head[3] == H2_HEADERS;
	}
	return !streams;
}

/* Its settings are to be known before the windows are as wide as they say. */
static int open_known(unsigned port)
{
	int fd = h2_open(port);
	uint8_t head[9], rest[64], ack[9];
	size_t n;

	CU_ASSERT_FATAL(recv(fd, head, 9, MSG_WAITALL) == 9);
	n = head[2];
	CU_ASSERT_FATAL(head[3] == H2_SETTINGS && n <= sizeof(rest));
	CU_ASSERT_FATAL(recv(fd, rest, n, MSG_WAITALL) == (ssize_t)n);
	client_say(fd, ack, h2_put(ack, H2_SETTINGS, 1, 0, NULL, 0));
	return fd;
}

static void comes(const struct gateway_run *g, const struct way *w)
{
	int fd = open_known(g->port[0]);
	size_t n = w->said ? w->said : sizeof(out), at;

	put_bodies(w);
	at = w->first ? head_bytes + w->first : 0;
	if (at)
		client_say(fd, out, at);
	for (; at < out_bytes; at += n)
		client_say(fd, out + at,
			   out_bytes - at < n ? out_bytes - at : n);
	if (!all_accepted(fd, w->streams)) {
		CU_FAIL("not as it was sent");
		fprintf(stderr, "%s\n", w->name);
	}
	close(fd);
}

static void however_they_are_cut(void)
{
	pid_t reader = gateway_plain_agent("reader", role_read);
	struct gateway_run g;

	gateway_start(&g, CONF);
	for (size_t i = 0; i < sizeof(ways) / sizeof(*ways); i++)
		comes(&g, &ways[i]);
	CU_ASSERT(gateway_lends_nothing(&g));
	gateway_agent_end(reader);
	gateway_stop(&g);
}

/* More than was announced, of frames in a row: the stream is refused, and what
 * lies behind the body's room is not written to. */
static void longer_than_announced(void)
{
	pid_t reader = gateway_plain_agent("reader", role_read);
	struct sending *s = &sending[0];
	struct gateway_run g;
	int fd;

	gateway_start(&g, CONF);
	fd = open_known(g.port[0]);
	out_bytes = 0;
	*s = (struct sending){.stream = 1};
	s->bytes = frame_make(s->body, "", BODY_BYTES, 1);
	put_head(s);
	while (s->off + 16384 < s->bytes)
		put_data(s, 16384);
	for (int i = 0; i < 10; i++)
		put(H2_DATA, 0, 1, s->body, 16384);
	client_say(fd, out, out_bytes);
	CU_ASSERT(!all_accepted(fd, 1));
	close(fd);
	CU_ASSERT(gateway_lends_nothing(&g));
	comes(&g, &ways[0]);
	gateway_agent_end(reader);
	gateway_stop(&g);
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		TEST(however_they_are_cut),
		TEST(longer_than_announced),
		{0},
	};

	(void)argc;
	gateway_begin(argv[0]);
	return test_main("gateway_frames", tests);
}
