/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answers of the reference's HTTP app, recorded and replayed against
 * avp-gateway: status and "success" are the same, but where AVP.md outranks the
 * recording. It does so by the rules below, so that any set of cases can be
 * replayed ($AVP_VECTORS); tests/http.txt lists which cases of ours they meet.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <avp/hello.h>

#include "tests/gateway.h"

#define LISTENER(agent)              \
	"    - address: 127.0.0.1\n" \
	"      port: 0\n"            \
	"      default_agent: " agent "\n"
#define ALL_LISTENERS                                                     \
	"gateway:\n  listeners:\n" LISTENER("echo") LISTENER("rejecting") \
		LISTENER("frames")

static struct answer a;

/* ---- where AVP.md outranks the recording ----------------------------------------- */

#define AS_RECORDED 0
#define REFUSED	    4 /* by any status 4xx */

struct request {
	const struct avp_json *c, *headers;
	const char *method, *path, *agent; /* whose listener it comes to */
	struct bytes body;
	int recorded;
};

static bool is_to(const struct request *q, const char *path)
{
	size_t n = strlen(path);

	return !strcmp(q->method, "POST") && !strncmp(q->path, path, n) &&
	       (!q->path[n] || q->path[n] == '?');
}

static struct avp_str header(const struct request *q, const char *name)
{
	struct avp_str value = {"", 0};

	for (const struct avp_json *h = avp_json_first(q->headers); h;
	     h = avp_json_next(h))
		if (!strcasecmp(avp_json_key_of(h).data, name))
			avp_json_string(h, &value);
	return value;
}

static bool is_wrong_content(const struct request *q, const char *type)
{
	struct avp_str told = header(q, "content-type");
	size_t n = told.len ? strcspn(told.data, "; ") : 0;

	return header(q, "content-encoding").len ||
	       (n && (n != strlen(type) || strncasecmp(told.data, type, n)));
}

static bool is_other(const struct request *q, struct avp_str target)
{
	return target.len && !avp_str_equal(target, avp_str_of(q->agent));
}

/* Is there half of a surrogate pair, which no answer could hold? */
static bool has_half(struct avp_str text)
{
	for (size_t i = 0; i + 1 < text.len; i++)
		if ((uint8_t)text.data[i] == 0xed &&
		    (uint8_t)text.data[i + 1] >= 0xa0)
			return true;
	return false;
}

/* What the reference is careless of, and frames to somebody else. */
static int of_frame(const struct request *q)
{
	uint64_t n = q->body.len, need;
	struct avp_frame f;

	if (is_wrong_content(q, "application/avp+binary"))
		return 415;
	if (!avp_frame_decode_head(q->body.data, n, n, &f, &need, NULL) &&
	    is_other(q, f.metadata.target_agent_id))
		return 404; /* before its payload is looked at */
	if (q->recorded == 400)
		return AS_RECORDED;
	if (avp_frame_decode(q->body.data, n, &f, NULL))
		return REFUSED;
	if (!(f.flags & AVP_FLAG_COMPRESSED) &&
	    avp_frame_payload_check(&f, f.payload, f.payload_bytes, NULL))
		return REFUSED;
	return AS_RECORDED;
}

/* No text message; or to somebody else, or to who rejects all that comes. */
static int of_text(const struct request *q, const struct avp_json *root)
{
	struct avp_text_message m;

	if (avp_text_message_read(&m, root, NULL))
		return 400;
	if (avp_json_get(root, "perplexity_score") &&
	    !avp_json_get(root, "content"))
		return 404; /* a FallbackRequest, of a session of nobody */
	if (has_half(m.content) || has_half(m.source_agent_id))
		return 400;
	if (is_other(q, m.target_agent_id))
		return 404;
	return strcmp(q->agent, "rejecting") ? AS_RECORDED : 501;
}

/* The answer is about the agent, and comes from what it told at link time. */
static int of_handshake(const struct request *q, const struct avp_json *root)
{
	const struct avp_identity *i;
	struct avp_hello hello;

	if (q->recorded == 400)
		return AS_RECORDED;
	if (avp_hello_read(&hello, root, NULL))
		return case_is(q->c, "app", "echo") && q->recorded == 200
			       ? 422
			       : REFUSED;
	i = &hello.identity;
	if (has_half(hello.agent_id) || has_half(i->model_family) ||
	    has_half(i->model_id) || has_half(i->model_hash))
		return 400;
	return strcmp(q->agent, "rejecting") ? AS_RECORDED : 200;
}

static int of_json(const struct request *q)
{
	const struct avp_json *root;
	struct avp_json_doc *doc;
	int status;

	if (is_wrong_content(q, "application/json"))
		return 415;
	if (avp_json_parse(&doc, q->body.data, q->body.len, NULL, NULL))
		return 400; /* UTF-16 too */
	root = avp_json_root(doc);
	status = is_to(q, "/avp/v2/text") ? of_text(q, root)
					  : of_handshake(q, root);
	avp_json_free(doc);
	return status;
}

/* A status, or one of the above. */
static int by_rule(const struct request *q)
{
	static const char *const methods[] = {"GET",	 "HEAD",   "POST",
					      "PUT",	 "DELETE", "CONNECT",
					      "OPTIONS", "TRACE",  "PATCH"};
	size_t known = 0;

	while (known < 9 && strcmp(q->method, methods[known]))
		known++;
	if (known == 9)
		return 400; /* recorded without a server's HTTP parser */
	if (is_to(q, "/avp/v2/transmit"))
		return of_frame(q);
	if (is_to(q, "/avp/v2/text") || is_to(q, "/avp/v2/handshake"))
		return of_json(q);
	return AS_RECORDED;
}

/* ---- recorded answers ------------------------------------------------------------ */

/* The line of a case in tests/http.txt: what ours answers there, or 0. */
static int listed(const char *id)
{
	FILE *f = fopen("tests/http.txt", "re");
	char line[512];
	int status = 0;

	CU_ASSERT_FATAL(f != NULL);
	while (!status && vectors_are_ours() && fgets(line, sizeof(line), f))
		if (!strncmp(line, id, strlen(id)))
			sscanf(line + strlen(id), "%d", &status);
	fclose(f);
	return status;
}

static bool is_as_recorded(const struct request *q, int status)
{
	const struct avp_json *also = avp_json_get(q->c, "also_ok_status");
	int64_t value;

	for (also = avp_json_first(also); also; also = avp_json_next(also))
		if (!avp_json_int64(also, &value) && value == status)
			return true;
	return status == q->recorded;
}

static bool meets(const struct request *q, int rule, int status)
{
	return rule == AS_RECORDED ? is_as_recorded(q, status)
	       : rule == REFUSED   ? status / 100 == REFUSED
				   : status == rule;
}

/* Is "success" the same, if the recorded answer has it? */
static bool same_success(const struct avp_json *response)
{
	struct avp_str body = case_str(response, "body");
	const char *of[] = {"\"success\":true", "\"success\":false"};

	for (int i = 0; i < 2; i++)
		if (body.len &&
		    memmem(body.data, body.len, of[i], strlen(of[i])))
			return answer_has(&a, of[i]);
	return true;
}

static void same_headers(const struct request *q)
{
	const struct avp_json *headers =
		avp_json_get(avp_json_get(q->c, "response"), "headers");
	char line[512];

	snprintf(line, sizeof(line), "allow: %s\r\n",
		 case_str(headers, "allow").data);
	CASE(q->c, a.status != 405 || answer_has(&a, line));
	snprintf(line, sizeof(line), "location: %s\r\n",
		 case_str(headers, "location").data);
	CASE(q->c, a.status != 307 || answer_has(&a, line));
}

static void add_headers(char *to, size_t cap, const struct avp_json *headers)
{
	*to = 0;
	for (const struct avp_json *h = avp_json_first(headers); h;
	     h = avp_json_next(h)) {
		struct avp_str key = avp_json_key_of(h), value = {0};
		size_t n = strlen(to);

		avp_json_string(h, &value);
		snprintf(to + n, cap - n, "%.*s: %.*s\r\n", (int)key.len,
			 key.data, (int)value.len, value.data);
	}
}

static void replay(unsigned port, const struct request *q)
{
	const char *id = case_str(q->c, "id").data;
	int rule = by_rule(q), list = listed(id);
	char headers[2048];

	add_headers(headers, sizeof(headers), q->headers);
	client_asks(port, q->method, q->path, headers, q->body.data,
		    q->body.len, &a);
	if (!CASE(q->c, meets(q, rule, a.status)))
		printf("    %d, recorded %d, by rule %d: %.200s\n", a.status,
		       q->recorded, rule, a.body ? a.body : "");
	CASE(q->c, !list || a.status == list);
	CASE(q->c, !vectors_are_ours() ||
			   is_as_recorded(q, a.status) == !list ||
			   a.status == q->recorded);
	if (a.status != q->recorded)
		return;
	if (!case_is(q->c, "compare", "status") && a.status < 500)
		CASE(q->c, same_success(avp_json_get(q->c, "response")));
	same_headers(q);
}

static void recorded_answers_of(const struct gateway_run *g,
				const struct avp_json *c)
{
	static const char *const agents[] = {"echo", "rejecting", "frames"};
	const struct avp_json *request = avp_json_get(c, "request");
	unsigned i = case_is(c, "app", "failing")   ? 1
		     : case_is(c, "app", "no_text") ? 2
						    : 0;
	struct request q = {
		.c = c,
		.headers = avp_json_get(request, "headers"),
		.method = case_str(request, "method").data,
		.path = case_str(request, "path").data,
		.agent = agents[i],
		.body = bytes_hex(case_str(request, "body_hex")),
		.recorded =
			(int)case_int(avp_json_get(c, "response"), "status"),
	};

	replay(g->port[i], &q);
	bytes_free(&q.body);
}

/* Takes frames and no text. */
static void role_frames(struct ahp_agent *agent, struct ahp_message *m)
{
	if (m->kind == AHP_FRAME)
		ahp_accept(agent, m);
	else
		ahp_reject(agent, m);
	ahp_release(agent, m);
}

static void recorded_answers(void)
{
	pid_t agents[] = {
		gateway_plain_agent("echo", role_echo),
		gateway_plain_agent("rejecting", role_reject),
		gateway_plain_agent("frames", role_frames),
	};
	struct gateway_run g;

	gateway_start(&g, ALL_LISTENERS);
	VECTORS("http", 76);
	for (const struct avp_json *c = vectors_first("http"); c;
	     c = avp_json_next(c))
		recorded_answers_of(&g, c);
	for (size_t i = 0; i < 3; i++)
		gateway_agent_end(agents[i]);
	gateway_stop(&g);
}

/* ---- what the recorded ones leave open ------------------------------------------- */

/* Answers of the same app to requests that are in no set. */
static const struct {
	const char *method, *path, *body;
	size_t bytes; /* 0: as many as the text has */
	int status;
	const char *has;
} more[] = {
	/* No model, nothing to hold a payload against: AVP.md, Frame. */
	{"POST", "/avp/v2/transmit", "AV\1\0\1\0\0\0\0\0\0\0x", 13, 200, NULL},
	{"POST", "/avp/v2/transmit", "AV\1\10\3\0\0\0\2\0\0\0\70\1x", 15, 200,
	 NULL},
	/* Six bytes of zstd with a checksum, the same of other bytes. */
	{"POST", "/avp/v2/transmit",
	 "AV\1\1\23\0\0\0\0\0\0\0\50\265\57\375\44\6\61\0\0abcdef"
	 "\115\24\43\304",
	 31, 200, NULL},
	{"POST", "/avp/v2/transmit",
	 "AV\1\1\23\0\0\0\0\0\0\0\50\265\57\375\44\6\61\0\0abcdeF"
	 "\115\24\43\304",
	 31, 400, "\"success\":false"},
	/* Of 17 bytes that cannot expand to 2^64 - 3. */
	{"POST", "/avp/v2/transmit",
	 "AV\1\1\21\0\0\0\0\0\0\0\50\265\57\375\340\375\377\377\377\377"
	 "\377\377\377\53\0\0\0",
	 29, 400, "expands"},
	/* What the reference takes, and cannot write as JSON again. */
	{"POST", "/avp/v2/handshake", "{\"identity\":{\"hidden_dim\":NaN}}", 0,
	 400, "hidden_dim"},
	{"POST", "/avp/v2/handshake", "{\"identity\":{\"head_dim\":-1e400}}", 0,
	 400, "head_dim"},
	{"POST", "/avp/v2/handshake",
	 "{\"identity\":{\"model_id\":\"\\ud800\"}}", 0, 400, "model_id"},
	{"POST", "/avp/v2/handshake", "{\"agent_id\":[{\"\\ud800\":1}]}", 0,
	 400, "agent_id"},
	{"POST", "/avp/v2/handshake",
	 "{\"x\":NaN,\"identity\":{\"x\":[Infinity],\"tokenizer_hash\":"
	 "\"\\udc00\"}}",
	 0, 200, "\"success\":true"},
	{"POST", "/avp/v2/handshake", "{\"identity\":{\"hidden_dim\":\"8\"}}",
	 0, 422, "\"success\":false"},
	{"POST", "/avp/v2/text", "{\"source_agent_id\":\"\\ud800\"}", 0, 400,
	 "source_agent_id"},
	{"POST", "/avp/v2/text", "{\"session_id\":\"\\ud800\"}", 0, 200, NULL},
	/* Paths. */
	{"GET", "/healt%68", "", 0, 200, "ok"},
	{"POST", "/%61gents/echo/avp/v2%2Ftext", "{}", 0, 200, NULL},
	{"GET", "/healt%6", "", 0, 404, NULL},
	{"GET", "/health%00", "", 0, 404, NULL},
	{"GET", "/health///?", "", 0, 307, "location: http://test/health\r\n"},
	{"GET", "/%68ealth/?a=%62", "", 0, 307,
	 "location: http://test/health?a=%62\r\n"},
	{"POST", "/agents/echo/avp/v2/text%2f", "{}", 0, 307,
	 "location: http://test/agents/echo/avp/v2/text\r\n"},
	{"GET", "//", "", 0, 404, NULL},
	{"GET", "/%0d%0ax:/health/", "", 0, 404, NULL},
};

static void more_answers(void)
{
	pid_t echo = gateway_plain_agent("echo", role_echo);
	struct gateway_run g;

	gateway_start(&g, "gateway:\n  listeners:\n" LISTENER("echo"));
	for (size_t i = 0; i < sizeof(more) / sizeof(*more); i++) {
		client_asks(g.port[0], more[i].method, more[i].path, "",
			    more[i].body,
			    more[i].bytes ? more[i].bytes
					  : strlen(more[i].body),
			    &a);
		if (a.status != more[i].status) {
			CU_FAIL("status");
			fprintf(stderr, "%zu: %s %s\n", i, more[i].path,
				a.text);
		}
		CU_ASSERT(!more[i].has || answer_has(&a, more[i].has));
	}
	gateway_agent_end(echo);
	gateway_stop(&g);
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		TEST(recorded_answers),
		TEST(more_answers),
		{0},
	};

	(void)argc;
	gateway_begin(argv[0]);
	return test_main("gateway_recorded", tests);
}
