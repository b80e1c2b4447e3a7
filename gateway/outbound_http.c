/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to a peer: libcurl's multi interface, driven by the gateway's turns. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway/outbound.h"

#define MS	     INT64_C(1000000)
#define SMALL_BYTES  65536   /* header and body in one write */
#define UPLOAD_BYTES 524288L /* read at once of a large body */
#define FIELD_BYTES  1024    /* of a field's value as it is written */
#define SECRET_BYTES 5000    /* a line with a token of up to 4096 */
#define IDLE_MAX     64	     /* handles kept for the next requests */

/* A socket of libcurl's, watched. */
struct sock {
	struct out_peer *peer;
	struct avp_watch watch;
	struct gw_ready item;
	uint32_t events; /* seen, not yet told */
};

static struct out_peer *peer_of_kick(struct gw_ready *item)
{
	return (struct out_peer *)((char *)item -
				   offsetof(struct out_peer, kick));
}

/* ---- what libcurl tells us -------------------------------------------------------- */

/* From the middle of the agent's loop: noted. */
static void sock_ready(struct avp_watch *watch, uint32_t events)
{
	struct sock *s = watch->arg;

	s->events |= events;
	gw_ready_add(s->peer->gw, &s->item);
}

static void finish_all(struct out_peer *peer);

static void hold_back(int fd, int on)
{
	if (fd >= 0)
		setsockopt(fd, IPPROTO_TCP, TCP_CORK, &on, sizeof(on));
}

/*
 * libcurl writes a request of HTTP/2 in three calls: its header, its body, the end
 * of the stream. They leave together, since the peer would wake for each.
 */
static void act(struct out_peer *peer, curl_socket_t fd, int bits)
{
	int held = bits == CURL_CSELECT_IN ? -1 : peer->newest, running;

	hold_back(held, 1);
	curl_multi_socket_action(peer->multi, fd, bits, &running);
	hold_back(held, 0);
	finish_all(peer);
}

static void sock_run(struct gw_ready *item)
{
	struct sock *s =
		(struct sock *)((char *)item - offsetof(struct sock, item));
	int bits = (s->events & AVP_READABLE ? CURL_CSELECT_IN : 0) |
		   (s->events & AVP_WRITABLE ? CURL_CSELECT_OUT : 0);

	s->events = 0;
	act(s->peer, s->watch.fd, bits); /* may free s */
}

static uint32_t events_of(int what)
{
	return (what & CURL_POLL_IN ? AVP_READABLE : 0) |
	       (what & CURL_POLL_OUT ? AVP_WRITABLE : 0);
}

static int sock_new(struct out_peer *peer, curl_socket_t fd, uint32_t events)
{
	struct sock *s = calloc(1, sizeof(*s));

	if (!s)
		return -1;
	s->peer = peer;
	s->watch = (struct avp_watch){fd, events, sock_ready, s};
	s->item.run = sock_run;
	if (avp_loop_add(peer->gw->loop, &s->watch, NULL)) {
		free(s);
		return -1;
	}
	curl_multi_assign(peer->multi, fd, s);
	return 0;
}

static int socket_changed(CURL *easy, curl_socket_t fd, int what, void *arg,
			  void *sock)
{
	struct out_peer *peer = arg;
	struct sock *s = sock;

	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		if (!s)
			return 0;
		curl_multi_assign(peer->multi, fd, NULL);
		avp_loop_remove(peer->gw->loop, &s->watch);
		gw_ready_remove(peer->gw, &s->item);
		free(s);
		return 0;
	}
	if (!s)
		return sock_new(peer, fd, events_of(what));
	if (s->watch.events == events_of(what))
		return 0;
	s->watch.events = events_of(what);
	return avp_loop_change(peer->gw->loop, &s->watch, NULL) ? -1 : 0;
}

/* Of HTTP/2 there is one connection, as a rule. */
static int sock_opened(void *arg, curl_socket_t fd, curlsocktype type)
{
	struct out_peer *peer = arg;

	(void)type;
	peer->newest = fd;
	return CURL_SOCKOPT_OK;
}

static int sock_closed(void *arg, curl_socket_t fd)
{
	struct out_peer *peer = arg;

	if (peer->newest == fd)
		peer->newest = -1;
	return close(fd);
}

static int timer_changed(CURLM *multi, long timeout_ms, void *arg)
{
	struct out_peer *peer = arg;

	(void)multi;
	gw_timer_clear(&peer->gw->timers, &peer->timer);
	if (!timeout_ms)
		gw_ready_add(peer->gw, &peer->kick);
	else if (timeout_ms > 0)
		gw_timer_set(&peer->gw->timers, &peer->timer,
			     gw_clock_ns() + timeout_ms * MS);
	return 0;
}

static void kick_run(struct gw_ready *item)
{
	act(peer_of_kick(item), CURL_SOCKET_TIMEOUT, 0);
}

static void timer_fired(struct gw_timer *timer)
{
	struct out_peer *peer =
		(struct out_peer *)((char *)timer -
				    offsetof(struct out_peer, timer));

	gw_ready_add(peer->gw, &peer->kick);
}

/* ---- bodies ------------------------------------------------------------------------ */

static uint64_t body_bytes(const struct out_request *r)
{
	return r->piece_bytes[0] + r->piece_bytes[1];
}

static size_t read_body(char *to, size_t size, size_t count, void *arg)
{
	struct out_request *r = arg;
	uint64_t room = size * count, off = r->read_off, n;
	int i = off >= r->piece_bytes[0];

	if (i)
		off -= r->piece_bytes[0];
	n = r->piece_bytes[i] - off;
	n = n < room ? n : room;
	/* Of the sender's memory, which may change meanwhile: only copied. */
	memcpy(to, (const char *)r->piece[i] + off, n);
	r->read_off += n;
	return n;
}

static int seek_body(void *arg, curl_off_t off, int origin)
{
	struct out_request *r = arg;

	if (origin != SEEK_SET || off < 0 || (uint64_t)off > body_bytes(r))
		return CURL_SEEKFUNC_FAIL;
	r->read_off = (uint64_t)off;
	return CURL_SEEKFUNC_OK;
}

static size_t write_answer(char *bytes, size_t size, size_t count, void *arg)
{
	struct out_request *r = arg;

	count *= size;
	if (count > r->peer->conf->answer_bytes - r->body.len) {
		r->too_large = true;
		return 0;
	}
	return avp_buf_append(&r->body, bytes, count) ? 0 : count;
}

static void copy_field(char *to, size_t cap, const char *value, size_t len)
{
	while (len && (*value == ' ' || *value == '\t'))
		value++, len--;
	while (len && (uint8_t)value[len - 1] <= ' ')
		len--;
	len = len < cap ? len : cap - 1;
	memcpy(to, value, len);
	to[len] = 0;
}

static size_t header_line(char *line, size_t size, size_t count, void *arg)
{
	static const struct {
		const char *name;
		size_t off, cap;
	} fields[] = {
#define F(name, member)                              \
	{name, offsetof(struct out_request, member), \
	 sizeof(((struct out_request *)0)->member)}
		F("content-type:", type),
		F(GW_OUTCOME_HEADER ":", outcome),
		F("avp-version:", version),
		F("location:", location),
#undef F
	};
	struct out_request *r = arg;
	size_t n;

	count *= size;
	for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
		n = strlen(fields[i].name);
		if (count > n && !strncasecmp(line, fields[i].name, n))
			copy_field((char *)r + fields[i].off, fields[i].cap,
				   line + n, count - n);
	}
	return count;
}

/* ---- handles ------------------------------------------------------------------------ */

static long http_version(const struct gw_conf_peer *conf)
{
	bool tls = !strncmp(conf->url.text, "https:", 6);

	if (conf->http == GW_HTTP_1_1 || (conf->http == GW_HTTP_AUTO && !tls))
		return CURL_HTTP_VERSION_1_1;
	return tls ? CURL_HTTP_VERSION_2TLS
		   : CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE;
}

static void set_tls(CURL *easy, const struct gw_conf_tls *tls)
{
	curl_easy_setopt(easy, CURLOPT_SSLVERSION,
			 (long)CURL_SSLVERSION_TLSv1_2);
	/* Files that are replaced count from the next connection on. */
	curl_easy_setopt(easy, CURLOPT_CA_CACHE_TIMEOUT, 0L);
	if (tls->ca.text) {
		curl_easy_setopt(easy, CURLOPT_CAINFO, tls->ca.text);
		curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
	}
	if (tls->cert.text) {
		curl_easy_setopt(easy, CURLOPT_SSLCERT, tls->cert.text);
		curl_easy_setopt(easy, CURLOPT_SSLKEY, tls->key.text);
	}
	if (tls->pinned.text)
		curl_easy_setopt(easy, CURLOPT_PINNEDPUBLICKEY,
				 tls->pinned.text);
}

/* What is the same for each request. */
static CURL *easy_new(struct out_request *r, const struct gw_conf_peer *conf)
{
	CURL *easy = curl_easy_init();

	if (!easy)
		return NULL;
	curl_easy_setopt(easy, CURLOPT_PRIVATE, r);
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, r->error);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
	/* What surrounds the process must not send bodies elsewhere. */
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, http_version(conf));
	curl_easy_setopt(easy, CURLOPT_PIPEWAIT, 1L);
	curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 131072L);
	curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, UPLOAD_BYTES);
	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
			 (long)(conf->connect_ns / MS));
	curl_easy_setopt(easy, CURLOPT_READFUNCTION, read_body);
	curl_easy_setopt(easy, CURLOPT_READDATA, r);
	curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, seek_body);
	curl_easy_setopt(easy, CURLOPT_SEEKDATA, r);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, write_answer);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, r);
	curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, header_line);
	curl_easy_setopt(easy, CURLOPT_HEADERDATA, r);
	curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, sock_opened);
	curl_easy_setopt(easy, CURLOPT_SOCKOPTDATA, r->peer);
	curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, sock_closed);
	curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, r->peer);
	set_tls(easy, &conf->tls);
	return easy;
}

void out_request_free(struct out_request *r)
{
	if (r->easy)
		curl_easy_cleanup(r->easy);
	curl_slist_free_all(r->fields);
	avp_buf_fini(&r->body);
	avp_buf_fini(&r->own);
	free(r);
}

/* Ready for the next one; its handle keeps nothing of the last. */
static void request_recycle(struct out_request *r)
{
	struct out_peer *peer = r->peer;
	CURL *easy = r->easy;
	unsigned idle = 0;

	for (struct out_request *i = peer->idle; i; i = i->next)
		idle++;
	if (idle >= IDLE_MAX)
		return out_request_free(r);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, NULL);
	curl_slist_free_all(r->fields);
	avp_buf_fini(&r->body);
	avp_buf_fini(&r->own);
	*r = (struct out_request){
		.peer = peer, .easy = easy, .next = peer->idle};
	peer->idle = r;
}

struct out_request *out_request_new(struct out_peer *peer)
{
	struct out_request *r = peer->idle;

	if (r) {
		peer->idle = r->next;
		r->next = NULL;
		return r;
	}
	r = calloc(1, sizeof(*r));
	if (!r)
		return NULL;
	r->peer = peer;
	r->easy = easy_new(r, peer->conf);
	if (!r->easy) {
		free(r);
		return NULL;
	}
	return r;
}

static void add_line(struct out_request *r, const char *line)
{
	struct curl_slist *more = curl_slist_append(r->fields, line);

	if (more)
		r->fields = more;
	else
		r->code = CURLE_OUT_OF_MEMORY;
}

void out_request_field(struct out_request *r, const char *name,
		       struct avp_str value)
{
	static const char hex[] = "0123456789ABCDEF";
	char line[FIELD_BYTES + 64];
	size_t n = (size_t)snprintf(line, 64, "%s: ", name);

	for (size_t i = 0; i < value.len && n < FIELD_BYTES; i++) {
		uint8_t c = (uint8_t)value.data[i];

		if (c < ' ' || c >= 0x7f || c == '%' ||
		    (c == ' ' && (!i || i + 1 == value.len))) {
			line[n++] = '%';
			line[n++] = hex[c >> 4];
			line[n++] = hex[c & 15];
			r->escaped = true;
		} else {
			line[n++] = (char)c;
		}
	}
	line[n] = 0;
	if (value.len)
		add_line(r, line);
}

void out_request_secret(struct out_request *r, const char *name,
			const char *scheme, const char *value)
{
	char line[SECRET_BYTES];

	snprintf(line, sizeof(line), "%s: %s %s", name, scheme, value);
	add_line(r, line);
	explicit_bzero(line, sizeof(line));
}

/*
 * HTTP/2 without TLS: libcurl 7.88.1, Debian 12's, cannot use a connection again by
 * CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE (curl/curl#10634, mended in 8.0). So only what
 * makes a connection says so, and the others take one that is there.
 */
static void set_version(struct out_request *r)
{
	const struct out_peer *peer = r->peer;
	long version = http_version(peer->conf);
	bool first =
		version == CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE && !peer->http2;

	if (version != CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE)
		return;
	r->kept = !first;
	curl_easy_setopt(r->easy, CURLOPT_FRESH_CONNECT, (long)first);
	curl_easy_setopt(r->easy, CURLOPT_HTTP_VERSION,
			 first ? version : CURL_HTTP_VERSION_2_0);
}

static void set_body(struct out_request *r)
{
	uint64_t bytes = body_bytes(r);
	bool small = bytes <= SMALL_BYTES && !r->piece_bytes[1];

	if (!r->piece[0]) {
		curl_easy_setopt(r->easy, CURLOPT_HTTPGET, 1L);
		return;
	}
	curl_easy_setopt(r->easy, CURLOPT_POST, 1L);
	curl_easy_setopt(r->easy, CURLOPT_POSTFIELDS,
			 small ? r->piece[0] : NULL);
	curl_easy_setopt(r->easy, CURLOPT_POSTFIELDSIZE_LARGE,
			 (curl_off_t)bytes);
}

int out_request_start(struct out_request *r, const char *url)
{
	struct out_peer *peer = r->peer;
	int64_t timeout_ns;

	/* libcurl would wait a second for permission to send large bodies. */
	add_line(r, "Expect:");
	if (r->escaped)
		add_line(r, "AHP-Encoding: percent");
	if (r->code) {
		out_request_free(r);
		return AVP_NO_MEMORY;
	}
	set_version(r);
	set_body(r);
	timeout_ns = r->timeout_ns ? r->timeout_ns : peer->conf->request_ns;
	curl_easy_setopt(r->easy, CURLOPT_TIMEOUT_MS, (long)(timeout_ns / MS));
	r->begin_ns = gw_clock_ns();
	if (curl_easy_setopt(r->easy, CURLOPT_URL, url) ||
	    curl_easy_setopt(r->easy, CURLOPT_HTTPHEADER, r->fields) ||
	    curl_multi_add_handle(peer->multi, r->easy)) {
		out_request_free(r);
		return AVP_NO_MEMORY;
	}
	r->next = peer->running;
	peer->running = r;
	return 0;
}

static void unlist(struct out_request *r)
{
	struct out_request **at = &r->peer->running;

	while (*at != r)
		at = &(*at)->next;
	*at = r->next;
}

void out_request_drop(struct out_request *r)
{
	curl_multi_remove_handle(r->peer->multi, r->easy);
	unlist(r);
	out_request_free(r);
}

const char *out_request_error(const struct out_request *r)
{
	if (r->too_large)
		return "its answer is larger than the configured limit";
	return r->error[0] ? r->error : curl_easy_strerror(r->code);
}

/* ---- ends ----------------------------------------------------------------------------- */

/*
 * A connection that was kept, and that its peer has closed meanwhile: libcurl sees
 * that before it uses one of HTTP/1.1 again. One of HTTP/2 it uses, and, where it
 * does see it, makes a new one that does not begin by prior knowledge. A request
 * that had no answer may be repeated: its message's id is the same.
 */
static bool was_stale(const struct out_request *r)
{
	long made = 1;

	curl_easy_getinfo(r->easy, CURLINFO_NUM_CONNECTS, &made);
	if (r->again || r->status || r->too_large || (made && !r->kept))
		return false;
	switch ((int)r->code) {
	case CURLE_PARTIAL_FILE:
	case CURLE_HTTP2:
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
	case CURLE_GOT_NOTHING:
	case CURLE_WEIRD_SERVER_REPLY:
	case CURLE_UNSUPPORTED_PROTOCOL: return true;
	default: return false;
	}
}

/* Once more, at once, by a new connection. */
static bool start_again(struct out_request *r)
{
	struct out_peer *peer = r->peer;

	r->again = true;
	r->read_off = 0;
	r->error[0] = 0;
	peer->http2 = false;
	set_version(r);
	curl_easy_setopt(r->easy, CURLOPT_FRESH_CONNECT, 1L);
	curl_multi_remove_handle(peer->multi, r->easy);
	return !curl_multi_add_handle(peer->multi, r->easy);
}

static void finish(struct out_request *r, CURLcode code)
{
	struct out_peer *peer = r->peer;
	curl_off_t after_s = 0;
	long version = 0;

	r->code = code;
	curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &r->status);
	if (was_stale(r) && start_again(r))
		return;
	curl_easy_getinfo(r->easy, CURLINFO_RETRY_AFTER, &after_s);
	curl_easy_getinfo(r->easy, CURLINFO_HTTP_VERSION, &version);
	if (after_s > 0)
		r->retry_after_ns =
			(after_s < 86400 ? after_s : 86400) * 1000 * MS;
	if (version)
		peer->http2 = version == CURL_HTTP_VERSION_2_0;
	if (r->again)
		curl_easy_setopt(r->easy, CURLOPT_FRESH_CONNECT, 0L);
	curl_multi_remove_handle(peer->multi, r->easy);
	unlist(r);
	gw_histogram_add(&peer->gw->metrics.out_request,
			 gw_clock_ns() - r->begin_ns);
	out_peer_heard(peer, r);
	r->done(r);
	request_recycle(r);
}

static void finish_all(struct out_peer *peer)
{
	struct CURLMsg *message;
	struct out_request *r;
	int left;

	while ((message = curl_multi_info_read(peer->multi, &left))) {
		if (message->msg != CURLMSG_DONE)
			continue;
		curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE,
				  (char **)&r);
		finish(r, message->data.result);
	}
}

int out_http_open(struct out_peer *peer, struct avp_reason *why)
{
	const struct gw_conf_peer *conf = peer->conf;

	peer->timer.fire = timer_fired;
	peer->kick.run = kick_run;
	peer->newest = -1;
	peer->multi = curl_multi_init();
	if (!peer->multi)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for a peer");
	curl_multi_setopt(peer->multi, CURLMOPT_SOCKETFUNCTION, socket_changed);
	curl_multi_setopt(peer->multi, CURLMOPT_SOCKETDATA, peer);
	curl_multi_setopt(peer->multi, CURLMOPT_TIMERFUNCTION, timer_changed);
	curl_multi_setopt(peer->multi, CURLMOPT_TIMERDATA, peer);
	curl_multi_setopt(peer->multi, CURLMOPT_MAX_HOST_CONNECTIONS,
			  (long)conf->connections);
	curl_multi_setopt(peer->multi, CURLMOPT_MAXCONNECTS,
			  (long)conf->connections);
	curl_multi_setopt(peer->multi, CURLMOPT_MAX_CONCURRENT_STREAMS,
			  (long)conf->in_flight);
	return 0;
}

void out_http_close(struct out_peer *peer)
{
	struct out_request *r;

	if (!peer->multi)
		return;
	while (peer->running)
		out_request_drop(peer->running);
	while ((r = peer->idle)) {
		peer->idle = r->next;
		out_request_free(r);
	}
	curl_multi_cleanup(peer->multi);
	peer->multi = NULL;
	gw_timer_clear(&peer->gw->timers, &peer->timer);
	gw_ready_remove(peer->gw, &peer->kick);
}
