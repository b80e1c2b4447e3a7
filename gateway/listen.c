/* SPDX-License-Identifier: Apache-2.0 */
/* The listeners, and inbound as a whole: opened, reloaded, drained, closed. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gateway/serve.h"

#define ACCEPTS_A_TURN 64
/* nghttp2 takes no larger header, nor http_parser one of over 80 KiB. */
#define HEAD_MAX 65536

#define REST_NS 100000000ll /* while the system has no fds */

/* Of a connection's window, those of its streams: several at full speed. */
#define WINDOW_SHARE 4

/* ---- accepting ---------------------------------------------------------- */

static void text_of(const struct sockaddr_storage *address,
		    char text[INET6_ADDRSTRLEN])
{
	const struct sockaddr_in *v4 = (const void *)address;
	const struct sockaddr_in6 *v6 = (const void *)address;
	const void *bytes = address->ss_family == AF_INET6
				    ? (const void *)&v6->sin6_addr
				    : &v4->sin_addr;

	if (!inet_ntop(address->ss_family, bytes, text, INET6_ADDRSTRLEN))
		memcpy(text, "?", 2);
}

static void watch_for(struct http_listener *l, uint32_t events)
{
	l->watch.events = events;
	avp_loop_change(l->server->gw->loop, &l->watch, NULL);
}

/* There will be fds again; until then accept() would only fail. */
static void take_rest(struct http_listener *l)
{
	struct gateway *gw = l->server->gw;

	gw_log(&gw->log, GW_LOG_WARNING, "accept", "error=%s", strerror(errno));
	watch_for(l, 0);
	gw_timer_set(&gw->timers, &l->rest, gw_clock_ns() + REST_NS);
}

static void on_rested(struct gw_timer *timer)
{
	struct http_listener *l =
		(void *)((char *)timer - offsetof(struct http_listener, rest));

	watch_for(l, AVP_READABLE);
}

static bool accept_one(struct http_listener *l)
{
	struct gw_metrics *m = &l->server->gw->metrics;
	struct sockaddr_storage address;
	socklen_t n = sizeof(address);
	char peer[INET6_ADDRSTRLEN];
	int one = 1, fd;

	fd = accept4(l->watch.fd, (struct sockaddr *)&address, &n,
		     SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0) {
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
		    errno == ENOMEM)
			take_rest(l);
		return errno == EINTR || errno == ECONNABORTED;
	}
	if (m->connections_now >= l->server->limits.connections) {
		m->connections_refused++;
		close(fd);
		return true;
	}
	/* Header and body go in writes of their own. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	text_of(&address, peer);
	http_accept(l, fd, peer);
	return true;
}

static void on_acceptable(struct avp_watch *watch, uint32_t events)
{
	struct http_listener *l = watch->arg;

	(void)events;
	gw_ready_add(l->server->gw, &l->ready);
}

static void accept_some(struct gw_ready *item)
{
	struct http_listener *l =
		(void *)((char *)item - offsetof(struct http_listener, ready));

	for (int i = 0; i < ACCEPTS_A_TURN; i++)
		if (!accept_one(l))
			return;
}

/* ---- one listener ------------------------------------------------------- */

static int address_of(const struct gw_conf_listener *conf,
		      struct sockaddr_storage *address, socklen_t *n,
		      struct avp_reason *why)
{
	struct sockaddr_in *v4 = (void *)address;
	struct sockaddr_in6 *v6 = (void *)address;

	memset(address, 0, sizeof(*address));
	if (inet_pton(AF_INET, conf->address.text, &v4->sin_addr) == 1) {
		v4->sin_family = AF_INET;
		v4->sin_port = htons((uint16_t)conf->port);
		*n = sizeof(*v4);
		return 0;
	}
	if (inet_pton(AF_INET6, conf->address.text, &v6->sin6_addr) == 1) {
		v6->sin6_family = AF_INET6;
		v6->sin6_port = htons((uint16_t)conf->port);
		*n = sizeof(*v6);
		return 0;
	}
	return avp__fail(why, AVP_BAD_CONFIG,
			 "%s is no IP address to listen at",
			 conf->address.text);
}

static int bind_to(int fd, const struct gw_conf_listener *conf,
		   struct avp_reason *why)
{
	struct sockaddr_storage address;
	int one = 1, error;
	socklen_t n = 0;

	error = address_of(conf, &address, &n, why);
	if (error)
		return error;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (address.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (bind(fd, (struct sockaddr *)&address, n) || listen(fd, SOMAXCONN))
		return avp__fail(why, errno == EACCES ? AVP_PERMISSION : AVP_IO,
				 "cannot listen at %s port %u: %s",
				 conf->address.text, conf->port,
				 strerror(errno));
	return 0;
}

static uint16_t port_of(int fd)
{
	struct sockaddr_storage address;
	socklen_t n = sizeof(address);

	if (getsockname(fd, (struct sockaddr *)&address, &n))
		return 0;
	return ntohs(address.ss_family == AF_INET6
			     ? ((struct sockaddr_in6 *)&address)->sin6_port
			     : ((struct sockaddr_in *)&address)->sin_port);
}

static int open_tls(SSL_CTX **tls, const struct gw_conf_listener *conf,
		    struct avp_reason *why)
{
	struct http_tls_files files = {
		.certificate = conf->tls.cert.text,
		.key = conf->tls.key.text,
		.client_ca = conf->tls.client_ca.text,
		.client_required = conf->tls.client_ca.text != NULL,
	};

	*tls = NULL;
	return conf->tls.given ? http_tls_open(tls, &files, why) : 0;
}

static int open_socket(struct http_listener *l,
		       const struct gw_conf_listener *conf,
		       struct avp_reason *why)
{
	bool v6 = strchr(conf->address.text, ':');
	int error;

	l->watch.fd = socket(v6 ? AF_INET6 : AF_INET,
			     SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (l->watch.fd < 0)
		return avp__fail(why, AVP_IO, "socket: %s", strerror(errno));
	error = bind_to(l->watch.fd, conf, why);
	if (error)
		return error;
	l->port = port_of(l->watch.fd);
	return avp_loop_add(l->server->gw->loop, &l->watch, why);
}

static void close_listener(struct http_listener *l)
{
	struct gateway *gw = l->server->gw;

	gw_ready_remove(gw, &l->ready);
	gw_timer_clear(&gw->timers, &l->rest);
	if (l->watch.fd >= 0) {
		avp_loop_remove(gw->loop, &l->watch);
		close(l->watch.fd);
	}
	l->watch.fd = -1;
	http_tls_close(l->tls);
	l->tls = NULL;
	if (!l->conns)
		free(l);
}

void http_listener_leave(struct http_listener *l)
{
	if (!--l->conns && l->watch.fd < 0)
		free(l);
}

static int open_listener(struct http_server *s,
			 const struct gw_conf_listener *conf,
			 struct http_listener **out, struct avp_reason *why)
{
	struct http_listener *l = calloc(1, sizeof(*l));
	int error;

	if (!l)
		return avp__fail(why, AVP_NO_MEMORY, "no memory to listen");
	l->server = s;
	l->watch = (struct avp_watch){-1, AVP_READABLE, on_acceptable, l};
	l->ready.run = accept_some;
	l->rest.fire = on_rested;
	l->wanted_port = conf->port;
	snprintf(l->address, sizeof(l->address), "%s", conf->address.text);
	error = open_tls(&l->tls, conf, why);
	if (!error)
		error = open_socket(l, conf, why);
	if (error)
		close_listener(l);
	else
		*out = l;
	return error;
}

/* What the configuration says of a listener beside where it is. */
static void tune(struct http_listener *l, const struct gw_conf_listener *conf)
{
	l->auth = conf->auth;
	snprintf(l->default_agent, sizeof(l->default_agent), "%s",
		 conf->default_agent.text ? conf->default_agent.text : "");
}

/* ---- all of them -------------------------------------------------------- */

/* What is about to become of a listener of the new configuration. */
struct change {
	struct http_listener *l;
	SSL_CTX *tls; /* of one that is there already */
	bool fresh;
};

static struct http_listener *existing(struct gw_inbound *in,
				      const struct gw_conf_listener *conf)
{
	for (struct http_listener *l = in->listeners; l; l = l->next)
		if (!l->kept && l->wanted_port == conf->port &&
		    !strcmp(l->address, conf->address.text) &&
		    !l->tls == !conf->tls.given)
			return l;
	return NULL;
}

static int prepare(struct gw_inbound *in, const struct gw_conf_listener *conf,
		   struct change *change, struct avp_reason *why)
{
	change->l = existing(in, conf);
	if (change->l) {
		change->l->kept = true;
		return open_tls(&change->tls, conf, why);
	}
	change->fresh = true;
	return open_listener(&in->server, conf, &change->l, why);
}

static void undo(struct change *change)
{
	if (change->fresh && change->l)
		close_listener(change->l);
	http_tls_close(change->tls);
}

static void commit(struct gw_inbound *in, struct change *change,
		   const struct gw_conf_listener *conf)
{
	struct http_listener *l = change->l;

	if (change->fresh) {
		struct http_listener **end = &in->listeners;

		while (*end)
			end = &(*end)->next;
		*end = l;
	} else if (change->tls) {
		http_tls_close(l->tls); /* connections have their own hold */
		l->tls = change->tls;
	}
	l->kept = true;
	tune(l, conf);
}

static void close_others(struct gw_inbound *in)
{
	struct http_listener **at = &in->listeners, *l;

	while ((l = *at)) {
		if (l->kept) {
			l->kept = false;
			at = &l->next;
			continue;
		}
		*at = l->next;
		http_drain(&in->server, l);
		close_listener(l);
	}
}

static void set_limits(struct http_limits *to,
		       const struct gw_conf_limits *from)
{
	uint64_t window = from->window_bytes;

	*to = (struct http_limits){
		.connections = from->connections,
		.streams = from->streams,
		.window_bytes =
			(uint32_t)(window < INT32_MAX ? window : INT32_MAX),
		.conn_window_bytes =
			(uint32_t)(window < INT32_MAX / WINDOW_SHARE
					   ? window * WINDOW_SHARE
					   : INT32_MAX),
		.head_bytes = from->header_bytes < HEAD_MAX
				      ? (uint32_t)from->header_bytes
				      : HEAD_MAX,
		.body_min_bytes = from->body_min_bytes,
		.idle_ns = from->idle_ns,
		.head_ns = from->header_ns,
		.body_ns = from->body_ns,
		.write_ns = from->body_ns,
	};
}

int gw_inbound_reload(struct gateway *gw, const struct gw_conf *next,
		      struct avp_reason *why)
{
	struct gw_inbound *in = gw->in;
	struct change *change = calloc(next->listeners + 1, sizeof(*change));
	uint32_t n = 0;
	int error = 0;

	if (!change)
		return avp__fail(why, AVP_NO_MEMORY, "no memory to reload");
	for (; !error && n < next->listeners; n++)
		error = prepare(in, &next->listener[n], &change[n], why);
	if (error) {
		while (n--)
			undo(&change[n]);
		for (struct http_listener *l = in->listeners; l; l = l->next)
			l->kept = false;
	} else {
		for (uint32_t i = 0; i < n; i++)
			commit(in, &change[i], &next->listener[i]);
		close_others(in);
		set_limits(&in->server.limits, &next->limits);
	}
	free(change);
	return error;
}

int gw_inbound_open(struct gateway *gw, struct avp_reason *why)
{
	struct gw_inbound *in = calloc(1, sizeof(*in));
	int error = AVP_NO_MEMORY;

	gw->in = in;
	if (!in)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for inbound");
	in->server.gw = gw;
	deliver_open(in);
	in->server.read_buffer = malloc(HTTP_READ_BYTES);
	in->zstd = avp_zstd_new();
	if (in->server.read_buffer && in->zstd)
		error = ahp_sessions_new(&in->sessions, AHP_SESSION_TTL);
	if (error)
		avp__fail(why, AVP_NO_MEMORY, "no memory for inbound");
	else
		error = gw_inbound_reload(gw, gw->conf, why);
	if (error)
		gw_inbound_close(gw);
	return error;
}

void gw_inbound_visit(struct gateway *gw,
		      void (*visit)(void *arg, const char *address,
				    unsigned port, bool tls),
		      void *arg)
{
	for (struct http_listener *l = gw->in->listeners; l; l = l->next)
		visit(arg, l->address, l->port, l->tls);
}

void gw_inbound_close(struct gateway *gw)
{
	struct gw_inbound *in = gw->in;

	if (!in)
		return;
	while (in->server.conns)
		http_close(in->server.conns);
	close_others(in);
	deliver_close(in);
	ahp_sessions_free(in->sessions);
	avp_zstd_free(in->zstd);
	free(in->server.read_buffer);
	free(in);
	gw->in = NULL;
}

void gw_inbound_drain(struct gateway *gw)
{
	close_others(gw->in);
	http_drain(&gw->in->server, NULL);
}

bool gw_inbound_idle(const struct gateway *gw)
{
	return !gw->in || !gw->in->server.conns;
}

void gw_inbound_metrics(struct gateway *gw, struct avp_buf *to)
{
	const struct gw_inbound *in = gw->in;

	gw_metric_head(to, "http_connections_total", "counter",
		       "Connections, by the version of HTTP that they spoke.");
	gw_metric(to, "http_connections_total", "version=\"1.1\"",
		  (double)in->server.counts.h1);
	gw_metric(to, "http_connections_total", "version=\"2\"",
		  (double)in->server.counts.h2);
	gw_metric_head(to, "http_floods_total", "counter",
		       "HTTP/2 connections that were told to be calm.");
	gw_metric(to, "http_floods_total", "",
		  (double)in->server.counts.floods);
	gw_metric_head(to, "requests_in_flight", "gauge",
		       "Requests that are not answered.");
	gw_metric(to, "requests_in_flight", "", (double)in->server.in_flight);
	gw_metric_head(to, "sessions", "gauge",
		       "Sessions that handshakes have opened.");
	gw_metric(to, "sessions", "",
		  (double)ahp_session_count(in->sessions,
					    (double)gw_clock_ns() / 1e9));
}
