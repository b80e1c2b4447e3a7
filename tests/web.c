/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/web.h"

#define CONNS	  64
#define MAX_BYTES ((size_t)64 << 20)

struct conn {
	int fd; /* 0: none */
	char *in;
	size_t len, room;
};

struct web {
	int fd;
	unsigned port;
	web_answer *answer;
	void *arg;
	bool resets;
	struct conn conn[CONNS];
	char out[WEB_ANSWER_BYTES];
};

static void die(const char *what)
{
	perror(what);
	exit(1);
}

struct web *web_open(web_answer *answer, void *arg)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t n = sizeof(to);
	struct web *web = calloc(1, sizeof(*web));

	if (!web)
		die("calloc");
	web->answer = answer;
	web->arg = arg;
	web->fd =
		socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (web->fd < 0 || bind(web->fd, (struct sockaddr *)&to, n) ||
	    listen(web->fd, 64) ||
	    getsockname(web->fd, (struct sockaddr *)&to, &n))
		die("web_open");
	web->port = ntohs(to.sin_port);
	return web;
}

unsigned web_port(const struct web *web)
{
	return web->port;
}

static void conn_close(struct conn *c)
{
	close(c->fd);
	free(c->in);
	*c = (struct conn){0};
}

void web_resets(struct web *web, bool resets)
{
	web->resets = resets;
}

void web_hang_up(struct web *web)
{
	for (int i = 0; i < CONNS; i++)
		if (web->conn[i].fd)
			conn_close(&web->conn[i]);
}

void web_close(struct web *web)
{
	web_hang_up(web);
	close(web->fd);
	free(web);
}

const char *web_field(const struct web_request *r, const char *name)
{
	static char value[512];
	size_t n = strlen(name), len;

	for (const char *p = strstr(r->text, "\r\n"); p && p < r->body - 2;
	     p = strstr(p + 2, "\r\n")) {
		if (strncasecmp(p + 2, name, n) || p[2 + n] != ':')
			continue;
		p += 2 + n + 1;
		p += *p == ' ';
		len = strcspn(p, "\r");
		len = len < sizeof(value) ? len : sizeof(value) - 1;
		memcpy(value, p, len);
		value[len] = 0;
		return value;
	}
	return "";
}

int web_json(char *to, size_t cap, int status, const char *more_fields,
	     const char *body)
{
	return snprintf(to, cap,
			"HTTP/1.1 %d X\r\nContent-Type: application/json\r\n"
			"Content-Length: %zu\r\n%s\r\n%s",
			status, strlen(body), more_fields, body);
}

static void say(int fd, const char *bytes, size_t n)
{
	while (n) {
		ssize_t put = send(fd, bytes, n, MSG_NOSIGNAL);

		if (put < 0 && errno != EAGAIN)
			return;
		if (put > 0) {
			bytes += put;
			n -= (size_t)put;
		}
	}
}

/* The request at the begin of c->in, if it is whole. */
static bool take(struct conn *c, struct web_request *r)
{
	char *end = c->in ? strstr(c->in, "\r\n\r\n") : NULL;

	if (!end)
		return false;
	*r = (struct web_request){.text = c->in, .body = end + 4};
	sscanf(c->in, "%*s %255s", r->path);
	r->body_len = strtoul(web_field(r, "Content-Length"), NULL, 10);
	r->len = (size_t)(r->body - r->text) + r->body_len;
	return c->len >= r->len;
}

static void serve(struct web *web, struct conn *c)
{
	struct web_request r;
	int n;

	while (take(c, &r)) {
		n = web->answer(web->arg, &r, web->out, sizeof(web->out));
		if (n)
			say(c->fd, web->out, (size_t)(n > 0 ? n : -n - 1));
		if (n < 0) {
			if (web->resets)
				setsockopt(c->fd, SOL_SOCKET, SO_LINGER,
					   &(struct linger){1, 0},
					   sizeof(struct linger));
			conn_close(c);
			return;
		}
		memmove(c->in, c->in + r.len, c->len - r.len + 1);
		c->len -= r.len;
	}
}

static bool make_room(struct conn *c)
{
	size_t room = c->room ? 2 * c->room : 8192;
	char *in;

	if (c->len + 1 < c->room)
		return true;
	in = room <= MAX_BYTES ? realloc(c->in, room) : NULL;
	if (!in)
		return false;
	c->in = in;
	c->room = room;
	return true;
}

static void read_conn(struct web *web, struct conn *c)
{
	ssize_t n = 0;

	while (make_room(c) &&
	       (n = recv(c->fd, c->in + c->len, c->room - c->len - 1,
			 MSG_DONTWAIT)) > 0) {
		c->len += (size_t)n;
		c->in[c->len] = 0;
	}
	if (n < 0 && errno == EAGAIN)
		serve(web, c);
	else
		conn_close(c);
}

void web_turn(struct web *web)
{
	for (int i = 0; i < CONNS; i++) {
		struct conn *c = &web->conn[i];

		if (!c->fd) {
			c->fd = accept4(web->fd, NULL, NULL,
					SOCK_NONBLOCK | SOCK_CLOEXEC);
			if (c->fd < 0)
				c->fd = 0;
		}
		if (c->fd)
			read_conn(web, c);
	}
}
