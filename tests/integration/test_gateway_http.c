/* SPDX-License-Identifier: Apache-2.0 */
/* avp-gateway as an HTTP/1.1 server: HTTP's rules, and AHP's. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "tests/gateway.h"

#define LISTENER(agent)              \
	"    - address: 127.0.0.1\n" \
	"      port: 0\n"            \
	"      default_agent: " agent "\n"
#define ECHO_ONLY "gateway:\n  listeners:\n" LISTENER("echo")

static struct answer a;

/* ---- what must not be taken for a request ------------------------------- */

#define BEGIN "POST /avp/v2/text HTTP/1.1\r\nHost: t\r\n"
#define AFTER "GET /smuggled HTTP/1.1\r\nHost: t\r\n\r\n"

static const char *const smuggled[] = {
	BEGIN "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}" AFTER,
	BEGIN "Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}" AFTER,
	BEGIN "Content-Length: 2, 2\r\n\r\n{}" AFTER,
	BEGIN "Content-Length: +2\r\n\r\n{}" AFTER,
	BEGIN "Content-Length: -1\r\n\r\n{}" AFTER,
	BEGIN "Content-Length: 0x2\r\n\r\n{}" AFTER,
	BEGIN "Content-Length: 2 2\r\n\r\n{}" AFTER,
	BEGIN "Content-Length:\r\n\r\n" AFTER,
	BEGIN "Content-Length: 99999999999999999999\r\n\r\n{}" AFTER,
	BEGIN "Content-Length : 2\r\n\r\n{}" AFTER,
	BEGIN "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
	      "0\r\n\r\n" AFTER,
	BEGIN "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n"
	      "0\r\n\r\n" AFTER,
	BEGIN "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" AFTER,
	BEGIN "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" AFTER,
	BEGIN "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" AFTER,
	BEGIN "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"
	      "\r\n0\r\n\r\n" AFTER,
	BEGIN "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" AFTER,
	BEGIN "Transfer-Encoding:\x0b"
	      "chunked\r\n\r\n0\r\n\r\n" AFTER,
	BEGIN "Transfer-Encoding\r\n : chunked\r\n\r\n0\r\n\r\n" AFTER,
	BEGIN "X: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" AFTER,
	BEGIN "X: y\r\n\tfolded\r\nContent-Length: 2\r\n\r\n{}" AFTER,
	BEGIN " X: y\r\nContent-Length: 2\r\n\r\n{}" AFTER,
	BEGIN "X: y\nContent-Length: 2\r\n\r\n{}" AFTER,
	BEGIN "X: y\rContent-Length: 2\r\n\r\n{}" AFTER,
	BEGIN "Content-Length: 2\n\n{}" AFTER,
	BEGIN ": y\r\n\r\n" AFTER,
	BEGIN "no colon\r\n\r\n" AFTER,
	BEGIN "X(y): z\r\n\r\n" AFTER,
	BEGIN "Host: u\r\nContent-Length: 2\r\n\r\n{}" AFTER,
	"POST /avp/v2/text HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}" AFTER,
	"POST /avp/v2/text HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"
	"0\r\n\r\n" AFTER,
	"POST  /avp/v2/text HTTP/1.1\r\nHost: t\r\n\r\n" AFTER,
	"POST /avp/v2/text\tHTTP/1.1\r\nHost: t\r\n\r\n" AFTER,
	"POST /avp/v2/text HTTP/1.1 \r\nHost: t\r\n\r\n" AFTER,
	"POST /avp/v2/te xt HTTP/1.1\r\nHost: t\r\n\r\n" AFTER,
	"POST /avp/v2/text HTTP/1.1\nHost: t\r\n\r\n" AFTER,
	"GET /health\r\n\r\n" AFTER,
	"GET /health HTTP/2.0\r\nHost: t\r\n\r\n" AFTER,
	"GET /health HTTP/0.9\r\nHost: t\r\n\r\n" AFTER,
	"GET /health HTTP/1.1x\r\nHost: t\r\n\r\n" AFTER,
	"AV\x01 frame\r\n\r\n" AFTER,
	BEGIN "Transfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n" AFTER,
	BEGIN "Transfer-Encoding: chunked\r\n\r\n2 \r\n{}\r\n0\r\n\r\n" AFTER,
	BEGIN "Transfer-Encoding: chunked\r\n\r\n 2\r\n{}\r\n0\r\n\r\n" AFTER,
	BEGIN "Transfer-Encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n" AFTER,
	BEGIN "Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n" AFTER,
	BEGIN "Transfer-Encoding: chunked\r\n\r\n\r\n{}\r\n0\r\n\r\n" AFTER,
	BEGIN
	"Transfer-Encoding: chunked\r\n\r\n2;a\nb\r\n{}\r\n0\r\n\r\n" AFTER,
	BEGIN "Transfer-Encoding: chunked\r\n\r\n2\r\n{}X\r\n0\r\n\r\n" AFTER,
	BEGIN "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\n0\r\n\r\n" AFTER,
	BEGIN "Transfer-Encoding: chunked\r\n\r\n"
	      "10000000000000002\r\n{}\r\n0\r\n\r\n" AFTER,
	BEGIN
	"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: y\n\r\n" AFTER,
};

static void smuggling_is_refused(void)
{
	pid_t echo = gateway_agent("echo", role_echo);
	struct gateway_run g;

	gateway_start(&g, ECHO_ONLY);
	for (size_t i = 0; i < sizeof(smuggled) / sizeof(*smuggled); i++) {
		int fd = client_open(g.port[0]);

		client_says(fd, smuggled[i]);
		if (!client_hears(fd, &a) || a.status < 400 || !a.closes) {
			CU_FAIL("taken");
			fprintf(stderr, "%d for %s\n", a.status, smuggled[i]);
		}
		/* Nothing behind it was read as a request. */
		CU_ASSERT(!client_hears(fd, &a));
		close(fd);
	}
	gateway_agent_end(echo);
	gateway_stop(&g);
}

static void nul_is_refused(void)
{
	static const char with_nul[] = "GET /health HTTP/1.1\r\nHost: t\r\n"
				       "X: a\0b\r\n\r\n" AFTER;
	struct gateway_run g;
	int fd;

	gateway_start(&g, ECHO_ONLY);
	fd = client_open(g.port[0]);
	client_say(fd, with_nul, sizeof(with_nul) - 1);
	CU_ASSERT(client_hears(fd, &a) && a.status == 400 && a.closes);
	CU_ASSERT(client_closed(fd));
	close(fd);
	gateway_stop(&g);
}

/* ---- what HTTP/1.1 allows ----------------------------------------------- */

#define TEXT(body, n)                                       \
	"POST /avp/v2/text HTTP/1.1\r\nhost: t\r\n"         \
	"content-type: application/json; charset=utf-8\r\n" \
	"content-length: " n "\r\n\r\n" body

static void one_after_the_other(void)
{
	static const char three[] =
		"\r\nGET /health HTTP/1.1\r\nHost: t\r\n\r\n"
		"GET /nope HTTP/1.1\r\nHost: t\r\n\r\n" TEXT(
			"{\"content\":\"x\"}", "15") TEXT("{", "1");
	pid_t echo = gateway_agent("echo", role_echo);
	struct gateway_run g;
	int fd;

	gateway_start(&g, ECHO_ONLY);
	fd = client_open(g.port[0]);
	client_says(fd, three);
	CU_ASSERT(client_hears(fd, &a) && a.status == 200 && !a.closes);
	CU_ASSERT(client_hears(fd, &a) && a.status == 404 && !a.closes);
	CU_ASSERT(client_hears(fd, &a) && a.status == 200 && !a.closes);
	CU_ASSERT(client_hears(fd, &a) && a.status == 400 && !a.closes);
	/* The same, and the last a byte at a time. */
	client_say(fd, three, sizeof(three) - 2);
	CU_ASSERT(client_hears(fd, &a) && a.status == 200);
	CU_ASSERT(client_hears(fd, &a) && a.status == 404);
	CU_ASSERT(client_hears(fd, &a) && a.status == 200);
	client_says(fd, "{");
	CU_ASSERT(client_hears(fd, &a) && a.status == 400);
	for (const char *at = three; *at; at++)
		client_say(fd, at, 1);
	CU_ASSERT(client_hears(fd, &a) && a.status == 200);
	CU_ASSERT(client_hears(fd, &a) && a.status == 404);
	CU_ASSERT(client_hears(fd, &a) && a.status == 200);
	CU_ASSERT(client_hears(fd, &a) && a.status == 400);
	/* Half closed: what was asked is still answered. */
	client_says(fd, TEXT("{\"content\":\"x\"}", "15"));
	shutdown(fd, SHUT_WR);
	CU_ASSERT(client_hears(fd, &a) && a.status == 200);
	CU_ASSERT(client_closed(fd));
	close(fd);
	gateway_agent_end(echo);
	gateway_stop(&g);
}

/* A thousand, said before one answer is read. */
static void pipelined(void)
{
	static const char one[] = "GET /health HTTP/1.1\r\nHost: t\r\n\r\n";
	struct gateway_run g;
	int fd;

	gateway_start(&g, ECHO_ONLY);
	fd = client_open(g.port[0]);
	for (int i = 0; i < 1000; i++)
		client_says(fd, one);
	for (int i = 0; i < 1000; i++)
		CU_ASSERT_FATAL(client_hears(fd, &a) && a.status == 200);
	close(fd);
	gateway_stop(&g);
}

#define IN_CHUNKS                                       \
	"POST /avp/v2/transmit HTTP/1.1\r\nHost: t\r\n" \
	"Transfer-Encoding: Chunked\r\n\r\n"

/* As one chunk of n bytes. */
static void say_chunk(int fd, const void *bytes, size_t n)
{
	char size[32];

	snprintf(size, sizeof(size), "%zx;x=\"y\"\r\n", n);
	client_says(fd, size);
	client_say(fd, bytes, n);
	client_says(fd, "\r\n");
}

static void chunks(void)
{
	static uint8_t frame[70000], zeros[40000];
	size_t n = frame_make(frame, "", 65536, 1), at = 0;
	pid_t echo = gateway_plain_agent("echo", role_echo);
	struct gateway_run g;
	int fd;

	gateway_start(&g, ECHO_ONLY "  limits:\n    body: 100KiB\n");
	fd = client_open(g.port[0]);
	client_says(fd, IN_CHUNKS);
	for (size_t step = 1; at < n; step = step * 3 + 1) {
		if (step > n - at)
			step = n - at;
		say_chunk(fd, frame + at, step);
		at += step;
	}
	client_says(fd, "000\r\nTrailer: ignored\r\n\r\n");
	CU_ASSERT(client_hears(fd, &a) && a.status == 200 && !a.closes);
	/* Bytes behind the frame are taken, as far as bodies may go. */
	client_says(fd, IN_CHUNKS);
	say_chunk(fd, frame, n);
	say_chunk(fd, zeros, 20000);
	client_says(fd, "0\r\n\r\n");
	CU_ASSERT(client_hears(fd, &a) && a.status == 200 && !a.closes);
	client_says(fd, IN_CHUNKS);
	say_chunk(fd, frame, n);
	say_chunk(fd, zeros, sizeof(zeros));
	CU_ASSERT(client_hears(fd, &a) && a.status == 413 && a.closes);
	close(fd);
	CU_ASSERT(gateway_lends_nothing(&g));
	gateway_agent_end(echo);
	gateway_stop(&g);
}

static void continue_is_said(void)
{
	pid_t echo = gateway_agent("echo", role_echo);
	struct gateway_run g;
	char text[32] = "";
	int fd;

	gateway_start(&g, ECHO_ONLY "  limits:\n    body: 1MiB\n");
	fd = client_open(g.port[0]);
	client_says(fd, "POST /avp/v2/text HTTP/1.1\r\nHost: t\r\n"
			"Expect: 100-continue\r\nContent-Length: 15\r\n\r\n");
	CU_ASSERT_EQUAL(recv(fd, text, 25, MSG_WAITALL), 25);
	CU_ASSERT_STRING_EQUAL(text, "HTTP/1.1 100 Continue\r\n\r\n");
	client_says(fd, "{\"content\":\"x\"}");
	CU_ASSERT(client_hears(fd, &a) && a.status == 200 && !a.closes);
	close(fd);
	/* Too large, or for nobody: said before the body, instead of it. */
	fd = client_open(g.port[0]);
	client_says(fd, "POST /avp/v2/transmit HTTP/1.1\r\nHost: t\r\n"
			"Expect: 100-continue\r\n"
			"Content-Length: 1048577\r\n\r\n");
	CU_ASSERT(client_hears(fd, &a) && a.status == 413 && a.closes);
	close(fd);
	fd = client_open(g.port[0]);
	client_says(fd, "POST /agents/nobody/avp/v2/transmit HTTP/1.1\r\n"
			"Host: t\r\nExpect: 100-continue\r\n"
			"Content-Length: 100\r\n\r\n");
	CU_ASSERT(client_hears(fd, &a) && a.status == 404);
	CU_ASSERT(answer_has(&a, "\"code\":\"AGENT_NOT_FOUND\""));
	close(fd);
	fd = client_open(g.port[0]);
	client_says(fd, "GET /health HTTP/1.1\r\nHost: t\r\n"
			"Expect: the unexpected\r\n\r\n");
	CU_ASSERT(client_hears(fd, &a) && a.status == 417);
	close(fd);
	gateway_agent_end(echo);
	gateway_stop(&g);
}

/* ---- agents ------------------------------------------------------------- */

static void who_is_addressed(void)
{
	static uint8_t frame[256];
	pid_t echo = gateway_agent("echo", role_echo),
	      other = gateway_agent("other", role_reject);
	struct gateway_run g;
	unsigned port;
	size_t n;

	gateway_start(&g, "gateway:\n  listeners:\n    - address: 127.0.0.1\n"
			  "      port: 0\n");
	port = g.port[0];
	n = frame_make(frame, "", 32, 1);
	CU_ASSERT_EQUAL(
		client_asks(port, "POST", "/avp/v2/transmit", "", frame, n, &a),
		404);
	CU_ASSERT_EQUAL(client_asks(port, "POST",
				    "/agents/echo/avp/v2/transmit", "", frame,
				    n, &a),
			200);
	CU_ASSERT(answer_has(&a, "ahp-outcome: accepted"));
	CU_ASSERT_EQUAL(client_asks(port, "POST",
				    "/agents/nobody/avp/v2/transmit", "", frame,
				    n, &a),
			404);
	CU_ASSERT_EQUAL(client_asks(port, "POST", "/agents/../avp/v2/transmit",
				    "", frame, n, &a),
			404);
	CU_ASSERT_EQUAL(client_asks(port, "POST", "/avp/v2/transmit",
				    "AHP-Target: echo\r\n", frame, n, &a),
			200);
	n = frame_make(frame, "other", 32, 1);
	CU_ASSERT_EQUAL(
		client_asks(port, "POST", "/avp/v2/transmit", "", frame, n, &a),
		500);
	n = frame_make(frame, "gateway", 32, 1);
	CU_ASSERT_EQUAL(
		client_asks(port, "POST", "/avp/v2/transmit", "", frame, n, &a),
		404);
	CU_ASSERT_EQUAL(client_asks(port, "POST",
				    "/agents/echo/avp/v2/handshake", "",
				    "{\"agent_id\":\"r\"}", 16, &a),
			200);
	CU_ASSERT(answer_has(&a, "\"agent_id\":\"echo\",\"session_id\":\""));
	CU_ASSERT(answer_has(&a, "\"model_hash\":\"cafe\",\"hidden_dim\":8"));
	CU_ASSERT_EQUAL(client_asks(port, "POST",
				    "/agents/nobody/avp/v2/handshake", "", "{}",
				    2, &a),
			200);
	CU_ASSERT(answer_has(&a, "\"model_hash\":\"\",\"hidden_dim\":0"));
	gateway_agent_end(echo);
	gateway_agent_end(other);
	gateway_stop(&g);
}

static void results_are_awaited(void)
{
	static uint8_t frame[20000];
	size_t n = frame_make(frame, "", 16384, 7);
	pid_t echo = gateway_agent("echo", role_echo),
	      silent = gateway_agent("silent", role_silent);
	struct gateway_run g;

	gateway_start(&g, ECHO_ONLY "  limits:\n    ack_time: 300ms\n");
	CU_ASSERT_EQUAL(client_asks(g.port[0], "POST", "/avp/v2/transmit",
				    "AHP-Wait: result\r\n", frame, n, &a),
			200);
	CU_ASSERT(answer_has(&a, "content-type: application/avp+binary"));
	CU_ASSERT(answer_has(&a, "ahp-outcome: result"));
	CU_ASSERT_EQUAL(a.body_len, n);
	CU_ASSERT(a.body_len == n && !memcmp(a.body, frame, n));
	CU_ASSERT_EQUAL(client_asks(g.port[0], "POST", "/avp/v2/text",
				    "AHP-Wait: result\r\nAHP-Task-ID: t1\r\n",
				    "{\"content\":\"x\"}", 15, &a),
			200);
	CU_ASSERT(answer_has(&a, "ahp-task-id: t1"));
	CU_ASSERT(answer_has(&a, "{\"success\":true,\"result\":{\"result\":"
				 "{\"said\":\"\xc3\xa9\"},\"status\":"
				 "\"success\"}}"));
	/* Who accepts and says no more: until the deadline. */
	CU_ASSERT_EQUAL(client_asks(g.port[0], "POST",
				    "/agents/silent/avp/v2/text",
				    "AHP-Wait: result\r\n", "{}", 2, &a),
			504);
	CU_ASSERT_EQUAL(client_asks(g.port[0], "POST",
				    "/agents/silent/avp/v2/text", "", "{}", 2,
				    &a),
			200);
	gateway_agent_end(echo);
	gateway_agent_end(silent);
	gateway_stop(&g);
}

static void fields_are_read(void)
{
	static const struct {
		const char *headers;
		int status;
	} cases[] = {
		{"AHP-Method: RESULT\r\n", 200},
		{"AHP-Method: DANCE\r\n", 400},
		{"AHP-Token-Limit: 99999999999\r\n", 400},
		{"AHP-Token-Limit: many\r\n", 400},
		{"AHP-Wait: forever\r\n", 400},
		{"Content-Encoding: gzip\r\n", 415},
		{"Content-Type: text/plain\r\n", 415},
		{"Content-Type: application/json\r\nContent-Type: a/b\r\n",
		 400},
		{"AHP-Task-ID: 0123456789012345678901234567890123456789012345"
		 "67890123456789012345678901234567890\r\n",
		 400},
	};
	static const char ahp[] =
		"{\"content\":\"{\\\"q\\\":1}\",\"extra\":{\"ahp\":{\"method\":"
		"\"TASK\",\"target_agent\":\"echo\",\"task_id\":\"t\","
		"\"token_limit\":7}}}";
	pid_t echo = gateway_agent("echo", role_echo);
	struct gateway_run g;

	gateway_start(&g, ECHO_ONLY);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		client_asks(g.port[0], "POST", "/avp/v2/text", cases[i].headers,
			    "{}", 2, &a);
		if (a.status != cases[i].status) {
			CU_FAIL("status");
			fprintf(stderr, "%d for %s", a.status,
				cases[i].headers);
		}
	}
	CU_ASSERT_EQUAL(client_asks(g.port[0], "POST", "/avp/v2/text",
				    "AHP-Wait: result\r\n", ahp,
				    sizeof(ahp) - 1, &a),
			200);
	CU_ASSERT(answer_has(&a, "ahp-task-id: t"));
	gateway_agent_end(echo);
	gateway_stop(&g);
}

/* ---- dialects ----------------------------------------------------------- */

/* A RESULT of a frame that its sender made in the other dialect. */
static void role_result(struct ahp_agent *agent, struct ahp_message *m)
{
	static const uint8_t cache[17 + 8] = {1, 0, 0, 0, 1, 0, 0, 0, 1,
					      0, 0, 0, 1, 0, 0, 0, 0, 7};
	struct avp_metadata meta = {.model_id = {"m", 1},
				    .payload_type = AVP_KV_CACHE};
	bool hybrid = avp_str_equal(m->task_id, avp_str_of("hybrid"));
	uint8_t frame[256];
	uint64_t n;

	if (hybrid)
		meta = (struct avp_metadata){.mode = AVP_MODE_HYBRID};
	CHECK(!avp_frame_encode(&meta, AVP_DIALECT_0_2, cache, sizeof(cache),
				frame, sizeof(frame), &n, NULL));
	struct ahp_outgoing reply = {.target = m->source,
				     .method = AHP_RESULT,
				     .kind = AHP_FRAME,
				     .task_id = m->task_id,
				     .body = frame,
				     .body_bytes = n};

	ahp_accept(agent, m);
	CHECK(!ahp_send(agent, &reply, LONG_NS, NULL, NULL));
	ahp_release(agent, m);
}

/* The frame of the last answer, which has to be one. */
static struct avp_frame answered(void)
{
	struct avp_frame f = {0};
	struct avp_reason why;

	CU_ASSERT_EQUAL(a.status, 200);
	CU_ASSERT(answer_has(&a, "content-type: application/avp+binary"));
	CU_ASSERT_EQUAL_FATAL(avp_frame_decode(a.body, a.body_len, &f, &why),
			      0);
	CU_ASSERT_EQUAL(f.payload_bytes, 17 + 8);
	CU_ASSERT_EQUAL(((const uint8_t *)f.payload)[17], 7);
	return f;
}

static void results_in_the_askers_dialect(void)
{
	static const char *const versions[] = {"0.2", "0.4"};
	static const struct avp_metadata mapped = {
		.model_id = {"m", 1}, .avp_map_id = {"vocab:1", 7}};
	uint8_t frame[256];
	char headers[128];
	struct gateway_run g;
	struct avp_frame f;
	uint64_t n;
	pid_t echo = gateway_agent("echo", role_result);

	gateway_start(&g, ECHO_ONLY);
	for (unsigned i = 0; i < 2; i++) {
		snprintf(headers, sizeof(headers),
			 "AHP-Wait: result\r\nAVP-Version: %s\r\n",
			 versions[i]);
		client_asks(g.port[0], "POST", "/avp/v2/text", headers, "{}", 2,
			    &a);
		f = answered();
		CU_ASSERT_EQUAL(f.flags, i ? 4 : AVP_FLAG_KV_CACHE);
		CU_ASSERT_EQUAL(f.metadata.has, i ? AVP_HAS_CHECKSUM : 0);
		CU_ASSERT_EQUAL(avp_frame_payload_check(&f, f.payload,
							f.payload_bytes, NULL),
				0);
	}
	/* Nothing said but by the frame that asks. */
	for (unsigned i = 0; i < 2; i++) {
		avp_frame_encode(&mapped, i ? AVP_DIALECT_0_4 : AVP_DIALECT_0_2,
				 "12345678", 8, frame, sizeof(frame), &n, NULL);
		client_asks(g.port[0], "POST", "/avp/v2/transmit",
			    "AHP-Wait: result\r\n", frame, n, &a);
		f = answered();
		CU_ASSERT_EQUAL(f.flags, i ? 4 : AVP_FLAG_KV_CACHE);
	}
	/* What cannot be said in it. */
	CU_ASSERT_EQUAL(client_asks(g.port[0], "POST", "/avp/v2/text",
				    "AHP-Wait: result\r\nAVP-Version: 0.4\r\n"
				    "AHP-Task-ID: hybrid\r\n",
				    "{}", 2, &a),
			502);
	CU_ASSERT(answer_has(&a, "dialect 0.4, which the client speaks"));
	CU_ASSERT(gateway_lends_nothing(&g));
	gateway_agent_end(echo);
	gateway_stop(&g);
}

/* ---- how an agent is ---------------------------------------------------- */

#define BEAT "AHP-Wait: liveness\r\nAHP-Method: HEARTBEAT\r\n"

struct question {
	unsigned port;
	const char *outcome;
};

static bool is_answered(void *arg)
{
	const struct question *q = arg;
	char line[64];

	snprintf(line, sizeof(line), "ahp-outcome: %s\r\n", q->outcome);
	return client_asks(q->port, "POST", "/avp/v2/text", BEAT,
			   "{\"content\":\"{}\"}", 16, &a) == 200 &&
	       strstr(a.text, line);
}

static void liveness(void)
{
	static const struct {
		const char *path, *headers;
		int status;
	} cases[] = {
		{"/avp/v2/text", BEAT, 200},
		{"/agents/nobody/avp/v2/text", BEAT, 404},
		{"/avp/v2/text", "AHP-Wait: liveness\r\n", 400},
		{"/avp/v2/transmit", BEAT, 400},
		/* A message as any other. */
		{"/avp/v2/text", "AHP-Method: HEARTBEAT\r\n", 200},
	};
	pid_t echo = gateway_agent("echo", role_echo);
	struct question q = {.outcome = "alive"};
	struct gateway_run g;

	gateway_start(&g, "ahp: {heartbeat_interval: 200ms}\n" ECHO_ONLY);
	q.port = g.port[0];
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		CU_ASSERT_EQUAL(client_asks(q.port, "POST", cases[i].path,
					    cases[i].headers, "{}", 2, &a),
				cases[i].status);
	CU_ASSERT(test_wait(is_answered, &q, 20));
	kill(echo, SIGSTOP);
	q.outcome = "stuck";
	CU_ASSERT(test_wait(is_answered, &q, 20));
	kill(echo, SIGCONT);
	q.outcome = "alive";
	CU_ASSERT(test_wait(is_answered, &q, 20));
	gateway_agent_end(echo);
	CU_ASSERT_EQUAL(
		client_asks(q.port, "POST", "/avp/v2/text", BEAT, "{}", 2, &a),
		404);
	gateway_stop(&g);
}

/* A state for another model, and a session that has agreed on JSON. */
static void what_does_not_fit(void)
{
	static const struct avp_metadata wide = {.model_id = {"m", 1},
						 .hidden_dim = 16};
	static const char hello[] = "{\"agent_id\":\"r\",\"identity\":{"
				    "\"model_family\":\"gpt\"}}";
	pid_t echo = gateway_agent("echo", role_echo);
	struct avp_metadata m = wide;
	struct gateway_run g;
	uint8_t frame[256];
	const char *id;
	uint64_t n;

	gateway_start(&g, ECHO_ONLY);
	avp_frame_encode(&wide, AVP_DIALECT_0_2, "12345678", 8, frame,
			 sizeof(frame), &n, NULL);
	CU_ASSERT_EQUAL(client_asks(g.port[0], "POST", "/avp/v2/transmit", "",
				    frame, n, &a),
			409);
	CU_ASSERT(answer_has(&a, "hidden_dim"));
	CU_ASSERT_EQUAL(client_asks(g.port[0], "POST", "/avp/v2/handshake", "",
				    hello, sizeof(hello) - 1, &a),
			200);
	id = strstr(a.text, "session_id\":\"");
	CU_ASSERT_FATAL(id != NULL);
	m.hidden_dim = 8;
	m.session_id = (struct avp_str){id + 13, 32};
	avp_frame_encode(&m, AVP_DIALECT_0_2, "12345678", 8, frame,
			 sizeof(frame), &n, NULL);
	CU_ASSERT_EQUAL(client_asks(g.port[0], "POST", "/avp/v2/transmit", "",
				    frame, n, &a),
			409);
	CU_ASSERT(answer_has(&a, "JSON"));
	gateway_agent_end(echo);
	gateway_stop(&g);
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		TEST(smuggling_is_refused),
		TEST(nul_is_refused),
		TEST(one_after_the_other),
		TEST(pipelined),
		TEST(chunks),
		TEST(continue_is_said),
		TEST(who_is_addressed),
		TEST(results_are_awaited),
		TEST(results_in_the_askers_dialect),
		TEST(fields_are_read),
		TEST(what_does_not_fit),
		TEST(liveness),
		{0},
	};

	(void)argc;
	gateway_begin(argv[0]);
	return test_main("gateway_http", tests);
}
