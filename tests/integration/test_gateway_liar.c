/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peers that lie to the gateway, over HTTP/1.1 and HTTP/2: answers cut at every
 * byte, ended by a reset, malformed, endless, or none. Each message ends, its
 * sender is told, and the next one to an honest answer is accepted.
 */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "tests/far.h"
#include "tests/gateway.h"
#include "tests/h2_liar.h"

#define QUICK "max_retries: 0, answer: 64KiB, request_time: 300ms"

/* ---- what has to hold after each of them -------------------------------- */

static unsigned fds_of(pid_t pid)
{
	char path[64];
	unsigned n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	CU_ASSERT_PTR_NOT_NULL_FATAL(dir);
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* A message ends, and a refused TASK has its RESULT. Returns how it ended. */
static int ends(struct far *w, const char *what, unsigned n)
{
	int code = far_text(w, "{}") ? AVP_UNKNOWN : far_outcome(w);
	bool told = far_hears(w, "\"status\"", "");

	if (!told || code == AVP_AGAIN || code == AVP_UNKNOWN) {
		CU_FAIL("a message has not ended");
		fprintf(stderr, "%s %u: %s, %s\n", what, n,
			avp_error_name(code), told ? "told" : "not told");
	}
	return code;
}

static void ends_with(struct far *w, int code, const char *what, unsigned n)
{
	int got = ends(w, what, n);

	if (got == code)
		return;
	CU_FAIL("a message has ended in another way");
	fprintf(stderr, "%s %u: %s, not %s\n", what, n, avp_error_name(got),
		avp_error_name(code));
}

static double letters; /* of all tests: they share a queue */

/* All that it took is settled; nothing is kept but letters. */
static void settles(struct far *w, unsigned fds)
{
	double dead = gateway_metric(w->port, "avp_out_dead_total");

	CU_ASSERT_EQUAL(
		gateway_metric(w->port, "avp_out_messages_total"),
		gateway_metric(w->port, "avp_out_accepted_total") +
			gateway_metric(w->port, "avp_out_refused_total"));
	/* Two connections that are kept, and one that is being closed. */
	CU_ASSERT(fds_of(w->gateway) <= fds + 3);
	far_end(w);
	letters += dead;
	CU_ASSERT_EQUAL(far_letters(""), letters);
}

/* ---- HTTP/1.1 ----------------------------------------------------------- */

struct lie {
	const char *text;
	size_t bytes;
	bool hang_up;
};

static int tell(void *arg, const struct web_request *request, char *to,
		size_t cap)
{
	const struct lie *lie = arg;

	(void)request;
	CU_ASSERT_FATAL(lie->bytes <= cap);
	memcpy(to, lie->text, lie->bytes);
	return lie->hang_up ? -1 - (int)lie->bytes : (int)lie->bytes;
}

static void cut_at_every_byte(void)
{
	static char whole[512];
	struct lie lie = {.text = whole, .hang_up = true};
	size_t n = (size_t)web_json(whole, sizeof(whole), 200, "", FAR_OK);
	struct far w;
	unsigned fds;

	far_begin(&w, "", QUICK);
	ends_with(&w, 0, "honest", 0);
	fds = fds_of(w.gateway);
	w.lie = tell;
	w.lie_arg = &lie;
	for (; lie.bytes < n; lie.bytes++) {
		ends_with(&w, AVP_REJECTED, "cut", (unsigned)lie.bytes);
		web_resets(w.web, true);
		ends_with(&w, AVP_REJECTED, "reset", (unsigned)lie.bytes);
		web_resets(w.web, false);
	}
	ends_with(&w, 0, "whole", 0);
	settles(&w, fds);
}

#define HEAD  "HTTP/1.1 200 OK\r\n"
#define JSON_ "Content-Type: application/json\r\n"

static const char *const lies[] = {
	"hello\r\n\r\n",
	"\r\n\r\n\r\n",
	"HTTP/3.0 200 OK\r\n\r\n{}",
	"HTTP/1.1 99999 X\r\n\r\n{}",
	"HTTP/1.1 -1 X\r\n\r\n{}",
	"HTTP/1.1 000 X\r\nContent-Length: 2\r\n\r\n{}",
	"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
	"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 100 C\r\n\r\nHTTP/1.1 103 C\r\n\r\n",
	HEAD JSON_ "Content-Length: -5\r\n\r\n{}",
	HEAD JSON_ "Content-Length: 2\r\nContent-Length: 9\r\n\r\n{}",
	HEAD JSON_ "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
	HEAD JSON_ "Transfer-Encoding: chunked\r\n\r\n"
		   "ffffffffffffffffff\r\n{}\r\n0\r\n\r\n",
	HEAD JSON_ "Transfer-Encoding: chunked\r\n\r\n2\r\n{}xx0\r\n\r\n",
	HEAD JSON_ "Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n"
		   "\r\n",
	HEAD JSON_ "Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\037"
		   "\213\10\1",
	HEAD "AHP-Outcome: result\r\nContent-Length: 2\r\n\r\n{}",
	HEAD
	"AHP-Outcome: result\r\nContent-Length: 14\r\n\r\n{\"result\":[1]}",
	HEAD "AHP-Outcome: result\r\nContent-Type: application/avp+binary\r\n"
	     "Content-Length: 12\r\n\r\nAV\1\0\377\377\377\377\377\377\377\377",
	HEAD "Content-Type: application/avp+binary; x\r\nContent-Length: 2\r\n"
	     "\r\n{}",
	"HTTP/1.1 503 X\r\nRetry-After: 99999999999999999999\r\n"
	"Content-Length: 2\r\n\r\n{}",
	"HTTP/1.1 429 X\r\nRetry-After: -1\r\nContent-Length: 2\r\n\r\n{}",
	"HTTP/1.1 503 X\r\nRetry-After: soon\r\nContent-Length: 2\r\n\r\n{}",
	"HTTP/1.1 308 X\r\nLocation: /agents/far/avp/v2/text\r\n"
	"Content-Length: 0\r\n\r\n",
	"HTTP/1.1 301 X\r\nLocation: file:///etc/passwd\r\nContent-Length: 0"
	"\r\n\r\n",
	"HTTP/1.1 204 X\r\nContent-Length: 2\r\n\r\n{}",
	"HTTP/1.1 500 X\r\nContent-Type: text/html\r\nContent-Length: 13\r\n"
	"\r\n<html></html>",
	"HTTP/1.1 404 X\r\nContent-Length: 9\r\n\r\n\0\1\2\3\4\5\6\7\10",
};

/* n bytes of answer: a head, and then the same again and again. */
static char *endless(const char *head, const char *again, size_t n)
{
	size_t len = strlen(head), step = strlen(again);
	char *text = malloc(n + step + 1);

	memcpy(text, head, len);
	for (; len < n; len += step)
		memcpy(text + len, again, step);
	text[len] = 0;
	return text;
}

static void too_much(struct far *w, struct lie *lie)
{
	static const struct {
		const char *head, *again;
	} of[] = {
		{HEAD "X: ", "x"},
		{HEAD, "X: y\r\n"},
		{"", "HTTP/1.1 100 Continue\r\n\r\n"},
		{HEAD JSON_ "\r\n", "[[[[[[[["},
		{HEAD JSON_ "Content-Length: 40000\r\n\r\n", "[[[[[[[["},
		{HEAD JSON_ "Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n"},
	};

	for (unsigned i = 0; i < sizeof(of) / sizeof(*of); i++) {
		char *text = endless(of[i].head, of[i].again, 400000);

		lie->text = text;
		lie->bytes = strlen(text);
		ends_with(w, AVP_REJECTED, "too much", i);
		free(text);
	}
}

static void malformed(void)
{
	struct lie lie = {.hang_up = true};
	struct far w;
	unsigned fds;

	far_begin(&w, "", QUICK);
	ends_with(&w, 0, "honest", 0);
	fds = fds_of(w.gateway);
	w.lie = tell;
	w.lie_arg = &lie;
	for (unsigned i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
		lie.text = lies[i];
		lie.bytes = strlen(lies[i]);
		ends_with(&w, AVP_REJECTED, "malformed", i);
	}
	too_much(&w, &lie);
	/* And one that says nothing. */
	lie = (struct lie){.text = ""};
	ends_with(&w, AVP_EXPIRED, "silent", 0);
	w.lie = NULL;
	ends_with(&w, 0, "honest", 1);
	settles(&w, fds);
}

/* ---- HTTP/2 ------------------------------------------------------------- */

static void h2_turn(void *liar)
{
	h2_liar_turn(liar);
}

static void begin_h2(struct far *w, struct h2_liar *liar)
{
	far_begin_with(w, &(struct far_options){.model_hash = "",
						.more = QUICK ", http: 2",
						.port = h2_liar_port(liar),
						.serve = h2_turn,
						.serve_arg = liar});
}

static void http2_lies(void)
{
	struct h2_liar *liar = h2_liar_open();
	const char *name;
	struct far w;
	unsigned fds;

	begin_h2(&w, liar);
	ends_with(&w, 0, "honest", 0);
	fds = fds_of(w.gateway);
	for (unsigned i = 0; (name = h2_lie_name(i)); i++) {
		/* On a connection that was used before, and on a new one. */
		for (int used = 1; used >= 0; used--) {
			if (!used)
				h2_liar_hang_up(liar);
			h2_liar_lie(liar, i);
			if (h2_lie_is_honest(i))
				ends_with(&w, 0, name, i);
			else
				CU_ASSERT(ends(&w, name, i) != 0);
			h2_liar_repent(liar);
			ends_with(&w, 0, "honest again, after", i);
		}
	}
	settles(&w, fds);
	h2_liar_close(liar);
}

static void http2_cut_at_every_byte(void)
{
	struct h2_liar *liar = h2_liar_open();
	struct far w;
	unsigned fds;

	begin_h2(&w, liar);
	ends_with(&w, 0, "honest", 0);
	fds = fds_of(w.gateway);
	for (unsigned n = 0; n < h2_liar_answer_bytes(); n++) {
		h2_liar_cut(liar, n);
		CU_ASSERT(ends(&w, "cut", n) != 0);
		h2_liar_repent(liar);
		ends_with(&w, 0, "honest again, after", n);
	}
	settles(&w, fds);
	h2_liar_close(liar);
}

/* What lay idle is closed: no attempt of the message's is lost by that. */
static void http2_closed_meanwhile(void)
{
	struct h2_liar *liar = h2_liar_open();
	struct far w;

	begin_h2(&w, liar);
	for (unsigned i = 0; i < 20; i++) {
		ends_with(&w, 0, "closed meanwhile", i);
		h2_liar_hang_up(liar);
	}
	CU_ASSERT_EQUAL(gateway_metric(w.port, "avp_out_retries_total"), 0);
	settles(&w, fds_of(w.gateway));
	h2_liar_close(liar);
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {TEST(cut_at_every_byte),
					    TEST(malformed),
					    TEST(http2_lies),
					    TEST(http2_cut_at_every_byte),
					    TEST(http2_closed_meanwhile),
					    {0}};

	(void)argc;
	far_setup(argv[0]);
	return test_main("gateway_liar", tests);
}
