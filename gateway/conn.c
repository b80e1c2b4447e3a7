/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections: who may read and write when, and for how long.
 *
 * The loop says that a socket is ready; http_turn() then reads what there is,
 * shows it to the protocol, and writes what the protocol and those above have to
 * say. A protocol takes of its input what it can: the rest waits in c->in, and
 * nothing is read while that is a lot.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "gateway/conn.h"

#define PREFACE	      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define PREFACE_BYTES (sizeof(PREFACE) - 1)

#define LINGER_NS    2000000000ll /* for the peer to read the last answer */
#define LINGER_BYTES (UINT64_C(64) << 20) /* of a body that nobody wants */
#define RETRY_NS     5000000ll /* to write to who cannot be watched */
#define IN_MAX	     131072    /* waiting for the protocol */

/* ---- whose turn it is --------------------------------------------------------- */

void http_ready(struct http_conn *c)
{
	gw_ready_add(c->server->gw, &c->ready);
}

static void on_ready(struct avp_watch *watch, uint32_t events)
{
	struct http_conn *c = watch->arg;

	if (events & AVP_WRITABLE)
		c->stuck = false;
	if (events & AVP_READABLE)
		c->readable = true;
	/* Told without being asked: a hang-up, which would be told for ever. */
	if (events & AVP_READABLE & ~watch->events)
		c->hung_up = true;
	http_ready(c);
}

/* ---- opening and closing ------------------------------------------------------ */

static void on_timer(struct gw_timer *timer);
static void on_retry(struct gw_timer *timer);
static void unwatch(struct http_conn *c);
static void turn(struct gw_ready *item);

void http_accept(struct http_listener *l, int fd, const char *peer)
{
	struct http_server *s = l->server;
	struct http_conn *c = calloc(1, sizeof(*c));

	if (!c) {
		close(fd);
		return;
	}
	c->server = s;
	c->listener = l;
	c->watch = (struct avp_watch){fd, AVP_READABLE, on_ready, c};
	c->timer.fire = on_timer;
	c->retry.fire = on_retry;
	c->ready.run = turn;
	c->readable = true; /* most have sent something by now */
	memcpy(c->peer, peer, strlen(peer) + 1);
	c->next = s->conns;
	c->before = &s->conns;
	if (s->conns)
		s->conns->before = &c->next;
	s->conns = c;
	l->conns++;
	s->gw->metrics.connections_opened++;
	s->gw->metrics.connections_now++;
	if (l->tls && http_tls_begin(c))
		c->broken = true;
	http_ready(c); /* its turn watches it */
}

void http_close(struct http_conn *c)
{
	struct http_server *s = c->server;

	if (c->protocol)
		c->protocol->close(c);
	gw_ready_remove(s->gw, &c->ready);
	gw_timer_clear(&s->gw->timers, &c->timer);
	gw_timer_clear(&s->gw->timers, &c->retry);
	unwatch(c);
	http_tls_end(c);
	close(c->watch.fd);
	*c->before = c->next;
	if (c->next)
		c->next->before = c->before;
	avp_buf_fini(&c->in);
	avp_buf_fini(&c->out);
	s->gw->metrics.connections_now--;
	http_listener_leave(c->listener);
	free(c);
}

/* ---- reading ------------------------------------------------------------------ */

/* Bytes; 0: the end; AVP_AGAIN; AVP_CLOSED. */
static long read_some(struct http_conn *c, void *to, size_t n)
{
	long got;

	if (c->tls)
		got = http_tls_read(c, to, n);
	else
		got = recv(c->watch.fd, to, n, 0);
	if (got > 0)
		c->server->gw->metrics.bytes_received += (uint64_t)got;
	if (got >= 0 || c->tls)
		return got;
	if (errno == EAGAIN || errno == EINTR)
		return AVP_AGAIN;
	return AVP_CLOSED;
}

void http_speaks(struct http_conn *c, const struct http_protocol *protocol)
{
	c->protocol = protocol;
	if (protocol == &http_2)
		c->server->counts.h2++;
	else
		c->server->counts.h1++;
}

/* HTTP/2 begins with words that no request of HTTP/1.1 does. */
static void recognize(struct http_conn *c, const uint8_t *bytes, size_t n)
{
	size_t same = n < PREFACE_BYTES ? n : PREFACE_BYTES;

	if (!memcmp(bytes, PREFACE, same)) {
		if (same < PREFACE_BYTES)
			return;
		http_speaks(c, &http_2);
	} else {
		http_speaks(c, &http_1);
	}
}

static bool keep(struct http_conn *c, const uint8_t *bytes, size_t n)
{
	if (avp_buf_append(&c->in, bytes, n)) {
		c->broken = true;
		return false;
	}
	return true;
}

/* Shows bytes to the protocol; how many it took. */
static size_t show(struct http_conn *c, const uint8_t *bytes, size_t n)
{
	size_t taken = 0;

	while (taken < n && !c->ending && !c->broken) {
		long now;

		if (!c->protocol)
			recognize(c, bytes, n);
		if (!c->protocol)
			break;
		now = c->protocol->input(c, bytes + taken, n - taken);
		if (now < 0)
			c->ending = true;
		if (now <= 0)
			break;
		taken += (size_t)now;
	}
	/* What comes after the end of what was understood means nothing. */
	return c->ending || c->broken ? n : taken;
}

/* What waits; memory that is empty goes, since most connections are idle. */
static void show_waiting(struct http_conn *c)
{
	size_t taken;

	if (!c->in.len)
		return;
	taken = show(c, (uint8_t *)c->in.data, c->in.len);
	memmove(c->in.data, c->in.data + taken, c->in.len - taken);
	c->in.len -= taken;
	if (!c->in.len)
		avp_buf_fini(&c->in);
}

static void feed(struct http_conn *c, const uint8_t *bytes, size_t n)
{
	size_t taken;

	if (c->lingering) {
		c->lingered += n;
		c->broken |= c->lingered > LINGER_BYTES;
		return;
	}
	if (c->in.len) {
		if (keep(c, bytes, n))
			show_waiting(c);
		return;
	}
	taken = show(c, bytes, n);
	if (taken < n)
		keep(c, bytes + taken, n - taken);
}

static void end_of_input(struct http_conn *c)
{
	c->eof = true;
	if (c->lingering || !c->protocol || !c->protocol->end_of_input(c))
		c->ending = true;
}

/*
 * The socket is read to its end: the loop tells of more. A call that brings less
 * than it asked for has done so; TLS may hold records of its own, and is asked.
 */
static void note_end(struct http_conn *c, long got, size_t asked)
{
	c->readable = c->tls || (got > 0 && (size_t)got == asked);
}

/* Reads once; false when there is nothing more, or nothing more is wanted. */
static bool read_once(struct http_conn *c, size_t *budget)
{
	struct http_server *s = c->server;
	void *at = NULL;
	size_t room = 0;
	long got;

	if (c->protocol && !c->in.len && !c->lingering)
		room = c->protocol->place(c, &at);
	if (room < 4096) { /* not worth a call of its own */
		at = s->read_buffer;
		room = HTTP_READ_BYTES;
	}
	if (room > *budget)
		room = *budget;
	got = read_some(c, at, room);
	note_end(c, got, room);
	if (got == AVP_AGAIN)
		return false;
	if (got == AVP_CLOSED) {
		c->broken = true;
		return false;
	}
	if (!got) {
		end_of_input(c);
		return false;
	}
	*budget -= (size_t)got;
	if (at == s->read_buffer)
		feed(c, at, (size_t)got);
	else if (!c->protocol->placed(c, (size_t)got))
		c->ending = true;
	return !c->broken;
}

static void read_all(struct http_conn *c)
{
	size_t budget = HTTP_TURN_BYTES;

	show_waiting(c);
	for (;;) {
		if (c->eof || c->broken || (c->ending && !c->lingering))
			return;
		c->paused = c->in.len >= IN_MAX;
		if (c->paused || !c->readable)
			return;
		if (!budget) { /* the others' turn */
			http_ready(c);
			return;
		}
		if (!read_once(c, &budget))
			return;
	}
}

/* ---- writing ------------------------------------------------------------------- */

void http_say(struct http_conn *c, const void *bytes, size_t n)
{
	if (avp_buf_append(&c->out, bytes, n))
		c->broken = true;
}

static long write_some(struct http_conn *c, const void *from, size_t n)
{
	long put;

	if (c->tls)
		return http_tls_write(c, from, n);
	put = send(c->watch.fd, from, n, MSG_NOSIGNAL);
	if (put >= 0)
		return put;
	return errno == EAGAIN || errno == EINTR ? AVP_AGAIN : AVP_CLOSED;
}

static bool wrote(struct http_conn *c, long put)
{
	if (put == AVP_AGAIN)
		c->stuck = !c->tls_reads;
	else if (put < 0)
		c->broken = true;
	if (put <= 0)
		return false;
	c->written += (uint64_t)put;
	c->server->gw->metrics.bytes_sent += (uint64_t)put;
	return true;
}

/* Writes c->out; false if not all of it. */
static bool write_out(struct http_conn *c)
{
	while (c->out_off < c->out.len) {
		long put = write_some(c, c->out.data + c->out_off,
				      c->out.len - c->out_off);

		if (!wrote(c, put))
			return false;
		c->out_off += (size_t)put;
	}
	c->out_off = c->out.len = 0;
	if (c->out.capacity > HTTP_COPY_BYTES)
		avp_buf_fini(&c->out);
	return true;
}

/* Writes a body from where it lies; false if not all of it. */
static bool write_lent(struct http_conn *c)
{
	struct http_request *r = c->lent;

	while (r && r->body_off < r->body_bytes) {
		long put = write_some(c, r->body + r->body_off,
				      r->body_bytes - r->body_off);

		if (!wrote(c, put))
			return false;
		r->body_off += (size_t)put;
	}
	c->lent = NULL;
	return true;
}

static bool has_output(const struct http_conn *c)
{
	return c->out_off < c->out.len || c->lent;
}

/* Writes until the socket is full or nothing is left to be said. */
static void write_all(struct http_conn *c)
{
	while (!c->stuck && !c->broken) {
		if (c->protocol)
			c->protocol->output(c);
		if (!has_output(c))
			return;
		if (!write_out(c) || !write_lent(c))
			return;
	}
}

/* ---- a turn ------------------------------------------------------------------- */

static void shake(struct http_conn *c)
{
	int code = http_tls_shake(c);

	if (code == AVP_AGAIN)
		return;
	c->shaking = false;
	if (code < 0) {
		c->server->gw->metrics.tls_failures++;
		c->broken = true;
	}
}

/* All that was to be said is written, and it is the end. */
static void finish(struct http_conn *c)
{
	if (c->eof)
		c->broken = true;
	if (c->lingering || c->eof)
		return;
	/* An answer is lost if its socket is closed with input unread. */
	c->lingering = true;
	if (c->tls)
		http_tls_end(c);
	shutdown(c->watch.fd, SHUT_WR);
	avp_buf_fini(&c->in);
}

static uint32_t wanted_events(const struct http_conn *c)
{
	uint32_t events = 0;

	if (!c->eof && !c->paused && !(c->ending && !c->lingering))
		events |= AVP_READABLE;
	if (c->stuck || c->tls_writes)
		events |= AVP_WRITABLE;
	return events;
}

static void unwatch(struct http_conn *c)
{
	if (c->watched)
		avp_loop_remove(c->server->gw->loop, &c->watch);
	c->watched = false;
}

/*
 * io_uring tells of a peer that sends no more whatever was asked for, again and
 * again. Who is read from is found out by reading; else it is not watched, and
 * what is to be written is tried from time to time.
 */
static void rewatch(struct http_conn *c)
{
	struct gateway *gw = c->server->gw;
	uint32_t events = wanted_events(c);
	int error = 0;

	c->hung_up &= !(events & AVP_READABLE);
	if (c->eof || c->hung_up || !events) {
		unwatch(c);
		if (events)
			gw_timer_set(&gw->timers, &c->retry,
				     gw_clock_ns() + RETRY_NS);
		return;
	}
	if (c->watched && events == c->watch.events)
		return;
	c->watch.events = events;
	error = c->watched ? avp_loop_change(gw->loop, &c->watch, NULL)
			   : avp_loop_add(gw->loop, &c->watch, NULL);
	c->watched = true;
	c->broken |= error != 0;
}

static void on_retry(struct gw_timer *timer)
{
	struct http_conn *c =
		(void *)((char *)timer - offsetof(struct http_conn, retry));

	c->stuck = false;
	http_ready(c);
}

static enum http_waits waits_for(const struct http_conn *c)
{
	if (c->lingering)
		return WAITS_END;
	if (has_output(c))
		return WAITS_WRITE;
	if (c->shaking || !c->protocol || c->in_head)
		return WAITS_HEAD;
	return c->requests ? WAITS_NOT : WAITS_IDLE;
}

static int64_t patience(const struct http_conn *c)
{
	const struct http_limits *l = &c->server->limits;

	switch (c->waits) {
	case WAITS_HEAD: return l->head_ns;
	case WAITS_WRITE: return l->write_ns;
	case WAITS_IDLE: return l->idle_ns;
	case WAITS_END: return LINGER_NS;
	default: return 0;
	}
}

static void set_timer(struct http_conn *c)
{
	struct gateway *gw = c->server->gw;

	if (c->waits == WAITS_NOT)
		gw_timer_clear(&gw->timers, &c->timer);
	else
		gw_timer_set(&gw->timers, &c->timer,
			     gw_clock_ns() + patience(c));
	c->written_before = c->written;
}

/* Sets the clock for what is waited for now, if that is something else. */
static void mind_time(struct http_conn *c)
{
	enum http_waits now = waits_for(c);

	/* Idle times count from the last request, others from their start. */
	if (now == c->waits && now != WAITS_IDLE && c->begun == c->begun_before)
		return;
	c->waits = now;
	c->begun_before = c->begun;
	set_timer(c);
}

static void on_timer(struct gw_timer *timer)
{
	struct http_conn *c =
		(void *)((char *)timer - offsetof(struct http_conn, timer));

	if (c->waits == WAITS_WRITE && c->written != c->written_before) {
		set_timer(c);
		return;
	}
	if (c->waits == WAITS_HEAD || c->waits == WAITS_WRITE)
		c->server->gw->metrics.timed_out++;
	if (c->waits == WAITS_IDLE && c->protocol)
		c->protocol->drain(c); /* HTTP/2 says goodbye */
	else
		c->broken = true;
	http_ready(c);
}

static void turn(struct gw_ready *item)
{
	struct http_conn *c =
		(void *)((char *)item - offsetof(struct http_conn, ready));

	c->tls_writes = c->tls_reads = false;
	if (c->shaking)
		shake(c);
	if (!c->shaking && !c->broken) {
		read_all(c);
		write_all(c);
		/* An answer that is written lets the next request begin. */
		while (c->in.len && !c->broken && !c->ending && !c->stuck) {
			size_t before = c->in.len;

			show_waiting(c);
			write_all(c);
			if (c->in.len == before)
				break;
		}
	}
	if (c->ending && !c->broken && !c->requests && !has_output(c))
		finish(c);
	if (c->broken) {
		http_close(c);
		return;
	}
	if (c->paused && c->in.len < IN_MAX)
		http_ready(c);
	rewatch(c);
	if (c->broken)
		http_close(c);
	else
		mind_time(c);
}

void http_drain(struct http_server *server, const struct http_listener *l)
{
	server->draining |= !l;
	for (struct http_conn *c = server->conns; c; c = c->next) {
		if (l && c->listener != l)
			continue;
		if (c->protocol)
			c->protocol->drain(c);
		else
			c->broken = true;
		http_ready(c);
	}
}
