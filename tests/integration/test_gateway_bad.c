/* SPDX-License-Identifier: Apache-2.0 */
/* avp-gateway among clients and agents that are slow, rude, or gone. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "tests/gateway.h"

#define ECHO_ONLY                  \
	"gateway:\n  listeners:\n" \
	"    - {address: 127.0.0.1, port: 0, default_agent: echo}\n"
#define TRANSMIT "POST /avp/v2/transmit HTTP/1.1\r\nHost: t\r\n"

static struct answer a;

static bool is_well(const struct gateway_run *g)
{
	return client_asks(g->port[0], "GET", "/health", "", "", 0, &a) == 200;
}

static bool nothing_open(void *arg)
{
	const struct gateway_run *g = arg;

	/* The one that asks is one. */
	return gateway_metric(g->port[0], "avp_connections") == 1;
}

/* ---- slow ones -------------------------------------------------------------------- */

static void too_slow(void)
{
	static uint8_t frame[9000];
	size_t n = frame_make(frame, "", 8192, 1);
	pid_t echo = gateway_plain_agent("echo", role_echo);
	struct gateway_run g;
	int nothing, head, body, idle;

	gateway_start(&g, ECHO_ONLY "  limits:\n    header_time: 100ms\n"
				    "    body_time: 100ms\n    idle: 1s\n");
	nothing = client_open(g.port[0]);
	head = client_open(g.port[0]);
	client_says(head, "GET /health HT");
	body = client_open(g.port[0]);
	client_says(body, TRANSMIT "Content-Length: 8000\r\n\r\n");
	client_say(body, frame, 100);
	idle = client_open(g.port[0]);
	client_says(idle, "GET /health HTTP/1.1\r\nHost: t\r\n\r\n");
	CU_ASSERT(client_hears(idle, &a) && a.status == 200 && !a.closes);
	CU_ASSERT(client_closed(nothing));
	CU_ASSERT(client_closed(head));
	(void)n;
	CU_ASSERT(client_closed(body));
	CU_ASSERT(client_closed(idle));
	close(nothing);
	close(head);
	close(body);
	close(idle);
	CU_ASSERT(gateway_metric(g.port[0], "avp_timed_out_total") >= 2);
	CU_ASSERT(gateway_lends_nothing(&g));
	gateway_agent_end(echo);
	gateway_stop(&g);
}

/* The 408 of a slow body is said, not only done. */
static void slow_body_is_told(void)
{
	pid_t echo = gateway_plain_agent("echo", role_echo);
	struct gateway_run g;
	int fd;

	gateway_start(&g, ECHO_ONLY "  limits:\n    body_time: 100ms\n");
	fd = client_open(g.port[0]);
	client_says(fd, "POST /avp/v2/text HTTP/1.1\r\nHost: t\r\n"
			"Content-Length: 10\r\n\r\n{");
	CU_ASSERT(client_hears(fd, &a) && a.status == 408 && a.closes);
	CU_ASSERT(client_closed(fd));
	close(fd);
	gateway_agent_end(echo);
	gateway_stop(&g);
}

/* ---- cut off ------------------------------------------------------------------------ */

static void reset_at_every_byte(void)
{
	static uint8_t request[4096];
	pid_t echo = gateway_plain_agent("echo", role_echo);
	struct gateway_run g;
	size_t head, n;

	head = (size_t)snprintf((char *)request, sizeof(request),
				TRANSMIT "Content-Length: %zu\r\n\r\n",
				frame_make(request + 1024, "", 1500, 1));
	n = frame_make(request + head, "", 1500, 1) + head;
	gateway_start(&g, ECHO_ONLY);
	for (size_t i = 0; i <= n; i += i < head + 60 ? 1 : 97) {
		int fd = client_open(g.port[0]);

		client_say(fd, request, i);
		if (i % 2)
			client_reset(fd);
		else
			close(fd);
	}
	CU_ASSERT(is_well(&g));
	CU_ASSERT(test_wait(nothing_open, &g, 20));
	CU_ASSERT(gateway_lends_nothing(&g));
	CU_ASSERT_EQUAL(gateway_metric(g.port[0], "avp_requests_in_flight"), 1);
	gateway_agent_end(echo);
	gateway_stop(&g);
}

static void lengths_that_lie(void)
{
	static uint8_t frame[3000];
	size_t n = frame_make(frame, "", 2048, 1);
	pid_t echo = gateway_plain_agent("echo", role_echo);
	struct gateway_run g;
	char head[256];
	int fd;

	gateway_start(&g, ECHO_ONLY);
	/* Shorter than announced. */
	fd = client_open(g.port[0]);
	snprintf(head, sizeof(head), TRANSMIT "Content-Length: %zu\r\n\r\n",
		 n + 1);
	client_says(fd, head);
	client_say(fd, frame, n);
	shutdown(fd, SHUT_WR);
	CU_ASSERT(client_hears(fd, &a) && a.status == 400 && a.closes);
	close(fd);
	/* Announced as too short for the frame: known from its header. */
	fd = client_open(g.port[0]);
	snprintf(head, sizeof(head), TRANSMIT "Content-Length: %zu\r\n\r\n",
		 n - 1);
	client_says(fd, head);
	client_say(fd, frame, 20);
	CU_ASSERT(client_hears(fd, &a) && a.status == 400);
	CU_ASSERT(answer_has(&a, "Message truncated"));
	close(fd);
	/* More than announced is another request, and no good one. */
	fd = client_open(g.port[0]);
	snprintf(head, sizeof(head), TRANSMIT "Content-Length: %zu\r\n\r\n", n);
	client_says(fd, head);
	client_say(fd, frame, n);
	client_says(fd, "more\r\n\r\n");
	CU_ASSERT(client_hears(fd, &a) && a.status == 200);
	CU_ASSERT(client_hears(fd, &a) && a.status == 400 && a.closes);
	close(fd);
	CU_ASSERT(gateway_lends_nothing(&g));
	gateway_agent_end(echo);
	gateway_stop(&g);
}

/* ---- agents that end ------------------------------------------------------------------ */

#define IN_FLIGHT 100

static bool all_in_flight(void *arg)
{
	const struct gateway_run *g = arg;

	return gateway_metric(g->port[0], "avp_local_in_flight") == IN_FLIGHT;
}

/* A hundred wait for it; each gets an answer, and the next agent serves. */
static void agent_dies(void)
{
	static uint8_t frame[9000];
	size_t n = frame_make(frame, "", 8192, 1);
	pid_t echo = gateway_plain_agent("echo", role_deaf);
	struct gateway_run g;
	int fd[IN_FLIGHT];
	char head[256];

	gateway_start(&g, ECHO_ONLY);
	snprintf(head, sizeof(head), TRANSMIT "Content-Length: %zu\r\n\r\n", n);
	for (int i = 0; i < IN_FLIGHT; i++) {
		fd[i] = client_open(g.port[0]);
		client_says(fd[i], head);
		client_say(fd[i], frame, n);
	}
	CU_ASSERT(test_wait(all_in_flight, &g, 20));
	/* Some have gone by then. */
	for (int i = 0; i < 10; i++)
		client_reset(fd[i]);
	gateway_agent_end(echo);
	for (int i = 10; i < IN_FLIGHT; i++) {
		CU_ASSERT(client_hears(fd[i], &a) && a.status == 503);
		close(fd[i]);
	}
	CU_ASSERT(answer_has(&a, "\"code\":\"CLOSED\""));
	CU_ASSERT(answer_has(&a, "retry-after: 1"));
	CU_ASSERT_EQUAL(client_asks(g.port[0], "POST", "/avp/v2/transmit", "",
				    frame, n, &a),
			404);
	echo = gateway_plain_agent("echo", role_echo);
	CU_ASSERT_EQUAL(client_asks(g.port[0], "POST", "/avp/v2/transmit", "",
				    frame, n, &a),
			200);
	CU_ASSERT(gateway_lends_nothing(&g));
	gateway_agent_end(echo);
	gateway_stop(&g);
}

/* It has accepted, owes a RESULT, and ends: known before the deadline. */
static void agent_owes_a_result(void)
{
	pid_t echo = gateway_plain_agent("echo", role_silent);
	struct gateway_run g;
	int fd;

	gateway_start(&g, ECHO_ONLY "  limits:\n    ack_time: 1h\n");
	fd = client_open(g.port[0]);
	client_says(fd, "POST /avp/v2/text HTTP/1.1\r\nHost: t\r\n"
			"AHP-Wait: result\r\nContent-Length: 2\r\n\r\n{}");
	CU_ASSERT(client_asks(g.port[0], "POST", "/avp/v2/text", "", "{}", 2,
			      &a) == 200);
	gateway_agent_end(echo);
	CU_ASSERT(client_hears(fd, &a) && a.status == 503);
	close(fd);
	gateway_stop(&g);
}

/* More than a link holds is refused at once, and with advice. */
static void too_much_at_once(void)
{
	pid_t echo = gateway_plain_agent("echo", role_deaf);
	struct gateway_run g;
	int fd[40], refused = 0;

	gateway_start(&g, "ring:\n  window: 16\n" ECHO_ONLY
			  "  limits:\n    ack_time: 500ms\n");
	for (int i = 0; i < 40; i++) {
		fd[i] = client_open(g.port[0]);
		client_says(fd[i], "POST /avp/v2/text HTTP/1.1\r\nHost: t\r\n"
				   "Content-Length: 2\r\n\r\n{}");
	}
	for (int i = 0; i < 40; i++) {
		CU_ASSERT(client_hears(fd[i], &a));
		CU_ASSERT(a.status == 503 || a.status == 504);
		if (a.status == 503 && answer_has(&a, "QUEUE_FULL") &&
		    answer_has(&a, "retry-after: 1"))
			refused++;
		close(fd[i]);
	}
	CU_ASSERT_EQUAL(refused, 40 - 16);
	gateway_agent_end(echo);
	gateway_stop(&g);
}

/* A request that is under way when SIGTERM comes is finished. */
static void drains(void)
{
	pid_t echo = gateway_plain_agent("echo", role_deaf);
	struct gateway_run g;
	int busy, idle;

	gateway_start(&g, ECHO_ONLY "  limits:\n    ack_time: 300ms\n");
	idle = client_open(g.port[0]);
	client_says(idle, "GET /health HTTP/1.1\r\nHost: t\r\n\r\n");
	CU_ASSERT(client_hears(idle, &a) && a.status == 200);
	busy = client_open(g.port[0]);
	client_says(busy, "POST /avp/v2/text HTTP/1.1\r\nHost: t\r\n"
			  "Content-Length: 2\r\n\r\n{}");
	while (gateway_metric(g.port[0], "avp_local_in_flight") != 1)
		continue;
	kill(g.pid, SIGTERM);
	CU_ASSERT(client_closed(idle));
	CU_ASSERT(client_hears(busy, &a) && a.status == 504 && a.closes);
	close(idle);
	close(busy);
	gateway_agent_end(echo);
	gateway_stop(&g);
}

/* ---- HTTP/2 that is none ---------------------------------------------------------------- */

/* The code of the GOAWAY that ends it; -1: none came. */
static int h2_ending(int fd)
{
	uint8_t head[9], payload[16384];
	int code = -1;

	while (recv(fd, head, 9, MSG_WAITALL) == 9) {
		size_t n =
			(size_t)head[0] << 16 | (size_t)head[1] << 8 | head[2];

		if (n > sizeof(payload) ||
		    (n && recv(fd, payload, n, MSG_WAITALL) != (ssize_t)n))
			break;
		if (head[3] == H2_GOAWAY)
			code = payload[7];
	}
	return code;
}

/* ":method POST", ":scheme http", ":path /avp/v2/text", ":authority t". */
static const uint8_t h2_request[] = "\x83\x86\x44\x0c/avp/v2/text\x41\x01t";

static const struct flood {
	const char *name;
	uint8_t type, flags;
	const void *payload;
	size_t bytes;
	bool opens; /* a stream, before each */
	bool one;   /* stream, of which the header is not whole */
} floods[] = {
	{"ping", H2_PING, 0, "12345678", 8, false, false},
	{"settings", H2_SETTINGS, 0, "\0\4\0\0\1\0", 6, false, false},
	{"rapid reset", H2_RESET, 0, "\0\0\0\x8", 4, true, false},
	{"window of the connection", H2_WINDOW, 0, "\0\0\0\1", 4, false, false},
	{"priority", H2_PRIORITY, 0, "\0\0\0\0\1", 5, false, false},
	{"continuation", H2_CONTINUATION, 0, "\x40\1a\1b", 5, false, true},
};

static void flood(const struct gateway_run *g, const struct flood *f)
{
	static uint8_t out[1 << 20];
	int fd = h2_open(g->port[0]), code;
	uint32_t stream = 1;
	size_t n = 0;

	if (f->one)
		n = h2_put(out, H2_HEADERS, 0, 1, h2_request,
			   sizeof(h2_request) - 1);
	for (int i = 0; i < 10000 && n < sizeof(out) - 256; i++, stream += 2) {
		if (f->opens)
			n += h2_put(out + n, H2_HEADERS, 4, stream, h2_request,
				    sizeof(h2_request) - 1);
		n += h2_put(out + n, f->type, f->flags,
			    f->one		     ? 1
			    : f->opens		     ? stream
			    : f->type == H2_PRIORITY ? stream
						     : 0,
			    f->payload, f->bytes);
	}
	client_say(fd, out, n);
	code = h2_ending(fd);
	if (code < 1) {
		CU_FAIL("not stopped");
		fprintf(stderr, "%s: GOAWAY %d\n", f->name, code);
	}
	close(fd);
}

static void floods_are_stopped(void)
{
	pid_t echo = gateway_plain_agent("echo", role_echo);
	struct gateway_run g;

	gateway_start(&g, ECHO_ONLY);
	for (size_t i = 0; i < sizeof(floods) / sizeof(*floods); i++)
		flood(&g, &floods[i]);
	CU_ASSERT(is_well(&g));
	CU_ASSERT(gateway_metric(g.port[0], "avp_http_floods_total") >= 4);
	CU_ASSERT(test_wait(nothing_open, &g, 20));
	gateway_agent_end(echo);
	gateway_stop(&g);
}

/* An answer's window stays at 0: the stream is not held for ever. */
static void window_never_opens(void)
{
	static const uint8_t none[] = {0, 4, 0, 0, 0, 0};
	static const uint8_t request[] = "\x82\x86\x44\x08/metrics\x41\x01t";
	uint8_t out[128], in[4096];
	struct gateway_run g;
	bool reset = false;
	int fd;

	gateway_start(&g, ECHO_ONLY "  limits:\n    body_time: 100ms\n"
				    "    idle: 1s\n");
	fd = h2_open(g.port[0]);
	client_say(fd, out, h2_put(out, H2_SETTINGS, 0, 0, none, 6));
	client_say(fd, out,
		   h2_put(out, H2_HEADERS, 5, 1, request, sizeof(request) - 1));
	while (recv(fd, in, 9, MSG_WAITALL) == 9) {
		size_t n = (size_t)in[0] << 16 | (size_t)in[1] << 8 | in[2];

		reset |= in[3] == H2_RESET;
		CU_ASSERT_NOT_EQUAL(in[3], H2_DATA);
		if (n && recv(fd, in, n, MSG_WAITALL) != (ssize_t)n)
			break;
	}
	CU_ASSERT(reset);
	close(fd);
	CU_ASSERT(test_wait(nothing_open, &g, 20));
	gateway_stop(&g);
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		TEST(too_slow),
		TEST(slow_body_is_told),
		TEST(reset_at_every_byte),
		TEST(lengths_that_lie),
		TEST(agent_dies),
		TEST(agent_owes_a_result),
		TEST(too_much_at_once),
		TEST(drains),
		TEST(floods_are_stopped),
		TEST(window_never_opens),
		{0},
	};

	(void)argc;
	gateway_begin(argv[0]);
	return test_main("gateway_bad", tests);
}
