/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a local agent through the real gateway to a peer that is scripted here:
 * what the peer gets, and what the agent hears of whatever the peer answers.
 */
#include <errno.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "tests/far.h"
#include "tests/gateway.h"

/* ---- tests -------------------------------------------------------------- */

static void text(void)
{
	struct far w;

	far_begin(&w, "", "max_retries: 0");
	for (int i = 0; i < 3; i++) {
		CU_ASSERT_EQUAL(far_text(&w, "{\"q\": \"\303\251\"}"), 0);
		CU_ASSERT_EQUAL(far_outcome(&w), 0);
		CU_ASSERT(far_hears(&w, "\"answer\": 42",
				    "\"status\": \"success\""));
	}
	CU_ASSERT_STRING_EQUAL(w.path, "/avp/v2/text");
	CU_ASSERT_STRING_EQUAL(w.type, "application/json");
	CU_ASSERT_PTR_NOT_NULL(strstr(
		w.body, "\"content\": \"{\\\"q\\\": \\\"\\u00e9\\\"}\""));
	CU_ASSERT_PTR_NOT_NULL(strstr(w.body, "\"extra\": {\"ahp\": "
					      "{\"method\": \"TASK\", "
					      "\"agent_id\": \"planner\""));
	CU_ASSERT_STRING_EQUAL(w.wait, "");
	CU_ASSERT_EQUAL(strlen(w.id), 36);
	/* One in nobody's name, one for the planner's model. */
	CU_ASSERT_EQUAL(w.handshakes, 2);
	CU_ASSERT_EQUAL(w.requests, 3);
	far_end(&w);
}

/* To a gateway: the frame's bytes as they are; it says that they are
 * accepted. */
static void frame_to_gateway(void)
{
	static const char *const script[] = {
		"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
		"AHP-Outcome: accepted\r\nContent-Length: 16\r\n\r\n"
		"{\"success\":true}",
		NULL};
	static uint8_t payload[1 << 20], frame[(1 << 20) + 1024];
	struct avp_metadata m = {.model_id = avp_str_of("m"),
				 .hidden_dim = 262144};
	uint64_t len = 0;
	struct far w;

	far_begin(&w, "cafe", "max_retries: 0");
	w.knows_agents = true;
	/* What the probe found out holds until the next start. */
	CU_ASSERT_EQUAL(w.handshakes, 1);
	w.script = script;
	pattern_fill(payload, sizeof(payload), 7);
	CU_ASSERT_EQUAL(far_frame(&w, &m, payload, sizeof(payload)), 0);
	CU_ASSERT_EQUAL(far_outcome(&w), 0);
	CU_ASSERT_STRING_EQUAL(w.path, "/avp/v2/transmit");
	CU_ASSERT_STRING_EQUAL(w.type, "application/avp+binary");
	CU_ASSERT_STRING_EQUAL(w.task, "t1");
	/* A path without an agent: the frame says for whom it is. */
	m.target_agent_id = avp_str_of("far");
	m.source_agent_id = avp_str_of("planner");
	CU_ASSERT_EQUAL(avp_frame_encode(&m, AVP_DIALECT_0_2, payload,
					 sizeof(payload), frame, sizeof(frame),
					 &len, NULL),
			0);
	CU_ASSERT(len == w.body_len && !memcmp(frame, w.body, len));
	far_end(&w);
}

static void frame_unchanged(void)
{
	static uint8_t frame[1024];
	struct avp_metadata m = {.model_id = avp_str_of("m")};
	uint64_t len = 0;
	struct far w;

	far_begin(&w, "cafe", "max_retries: 0, path: agent");
	w.knows_agents = true;
	CU_ASSERT_EQUAL(far_frame(&w, &m, "12345678", 8), 0);
	CU_ASSERT_EQUAL(far_outcome(&w), 0);
	CU_ASSERT_STRING_EQUAL(w.path, "/agents/far/avp/v2/transmit");
	CU_ASSERT_EQUAL(avp_frame_encode(&m, AVP_DIALECT_0_2, "12345678", 8,
					 frame, sizeof(frame), &len, NULL),
			0);
	CU_ASSERT(len == w.body_len && !memcmp(frame, w.body, len));
	CU_ASSERT(far_hears(&w, "\"answer\": 42", "success"));
	far_end(&w);
}

/* Is the last body what the codec makes of that? */
static bool got_frame(const struct far *w, const struct avp_metadata *m,
		      enum avp_dialect dialect, const void *payload,
		      uint64_t bytes)
{
	static uint8_t frame[70000];
	uint64_t len = 0;

	CU_ASSERT_EQUAL(avp_frame_encode(m, dialect, payload, bytes, frame,
					 sizeof(frame), &len, NULL),
			0);
	return len == w->body_len && !memcmp(frame, w->body, len);
}

/* A head that is written anew for 0.4.1 and later has the payload's
 * checksum. */
static void newer_dialect(void)
{
	static uint8_t payload[65536];
	const uint32_t kv[] = {1, 1, 1, 1};
	struct avp_metadata m = {.model_id = avp_str_of("m"),
				 .avp_map_id = avp_str_of("vocab:1")};
	struct avp_frame f;
	struct far w;

	far_begin(&w, "cafe", "max_retries: 0, dialect: 0.4, path: agent");
	w.knows_agents = true;
	pattern_fill(payload, sizeof(payload), 9);
	/* Another flag for the map: so only dialects differ. */
	CU_ASSERT_EQUAL(far_frame(&w, &m, payload, sizeof(payload)), 0);
	CU_ASSERT_EQUAL(far_outcome(&w), 0);
	m.target_agent_id = avp_str_of("far");
	m.source_agent_id = avp_str_of("planner");
	CU_ASSERT(got_frame(&w, &m, AVP_DIALECT_0_4, payload, sizeof(payload)));
	CU_ASSERT_FATAL(!avp_frame_decode(w.body, w.body_len, &f, NULL));
	CU_ASSERT_EQUAL(f.metadata.has, AVP_HAS_CHECKSUM);
	CU_ASSERT_EQUAL(f.metadata.payload_checksum,
			avp_crc32(payload, sizeof(payload)));
	/* What is the same in both goes as it is, a cache does not. */
	m.avp_map_id = (struct avp_str){0};
	CU_ASSERT_EQUAL(far_frame(&w, &m, payload, 64), 0);
	CU_ASSERT_EQUAL(far_outcome(&w), 0);
	CU_ASSERT(got_frame(&w, &m, AVP_DIALECT_0_2, payload, 64));
	m.payload_type = AVP_KV_CACHE;
	memcpy(payload, kv, sizeof(kv));
	payload[16] = 0;
	CU_ASSERT_EQUAL(far_frame(&w, &m, payload, 17 + 8), 0);
	CU_ASSERT_EQUAL(far_outcome(&w), 0);
	CU_ASSERT(got_frame(&w, &m, AVP_DIALECT_0_4, payload, 17 + 8));
	far_end(&w);
}

static void compressed(void)
{
	static uint8_t payload[65536], back[65536];
	struct avp_metadata m = {.model_id = avp_str_of("m")};
	struct avp_zstd *z = avp_zstd_new();
	struct avp_frame f;
	uint64_t len = 0;
	struct far w;

	far_begin(
		&w, "cafe",
		"max_retries: 0, compression: fast, dialect: 0.4, path: agent");
	w.knows_agents = true;
	memset(payload, 7, sizeof(payload));
	CU_ASSERT_EQUAL(far_frame(&w, &m, payload, sizeof(payload)), 0);
	CU_ASSERT_EQUAL(far_outcome(&w), 0);
	CU_ASSERT(w.body_len < 1024);
	CU_ASSERT_FATAL(!avp_frame_decode(w.body, w.body_len, &f, NULL));
	CU_ASSERT(f.flags & AVP_FLAG_COMPRESSED);
	CU_ASSERT_EQUAL(avp_zstd_decompress(z, f.payload, f.payload_bytes, back,
					    sizeof(back), &len, NULL),
			0);
	CU_ASSERT(len == sizeof(payload) && !memcmp(back, payload, len));
	CU_ASSERT_EQUAL(avp_frame_payload_check(&f, back, len, NULL), 0);
	CU_ASSERT(f.metadata.has & AVP_HAS_CHECKSUM);
	avp_zstd_free(z);
	far_end(&w);
}

/* The peer tells in its handshake what it speaks, and has one path for all. */
static void newer_server(void)
{
	struct avp_metadata m = {.model_id = avp_str_of("m")};
	struct far w;

	far_begin(&w, "cafe\"},\"avp_version\":\"0.6.2\",\"x\":{\"a\":\"",
		  "max_retries: 0");
	CU_ASSERT_EQUAL(far_frame(&w, &m, "12345678", 8), 0);
	CU_ASSERT_EQUAL(far_outcome(&w), 0);
	m.target_agent_id = avp_str_of("far");
	m.source_agent_id = avp_str_of("planner");
	CU_ASSERT(got_frame(&w, &m, AVP_DIALECT_0_4, "12345678", 8));
	far_end(&w);
}

/* Another model: text flows, states do not, unless text is beside them. */
static void other_model(void)
{
	static const struct avp_hybrid_chunk chunks[] = {
		{AVP_CHUNK_TEXT, 1, "hello ", 6},
		{AVP_CHUNK_LATENT, 1, "\1\2\3\4", 4},
		{AVP_CHUNK_TEXT, 1, "there", 5},
	};
	struct avp_metadata m = {.model_id = avp_str_of("m")};
	uint8_t hybrid[200];
	uint64_t len = 0;
	struct far w;

	far_begin(&w, "beef", "max_retries: 0");
	/* Known from the link on. */
	CU_ASSERT_EQUAL(far_frame(&w, &m, "12345678", 8), AVP_SHAPE_MISMATCH);
	m.mode = AVP_MODE_HYBRID;
	CU_ASSERT_EQUAL(avp_hybrid_encode(chunks, 3, hybrid, sizeof(hybrid),
					  &len, NULL),
			0);
	CU_ASSERT_EQUAL(far_frame(&w, &m, hybrid, len), 0);
	CU_ASSERT_EQUAL(far_outcome(&w), 0);
	CU_ASSERT_STRING_EQUAL(w.path, "/avp/v2/text");
	CU_ASSERT_PTR_NOT_NULL(strstr(w.body, "\"content\": \"hello there\""));
	far_end(&w);
}

/* What it was told of one sender's model is not held against another's. */
static void echoing_server(void)
{
	struct avp_identity other = {.model_hash = avp_str_of("beef")};
	struct avp_metadata m = {.model_id = avp_str_of("m")};
	struct ahp_agent *planner;
	struct far w;

	far_begin(&w, "echo", "max_retries: 0");
	CU_ASSERT_EQUAL(far_frame(&w, &m, "12345678", 8), 0);
	CU_ASSERT_EQUAL(far_outcome(&w), 0);
	planner = w.planner;
	w.planner = agent_open("other",
			       &(struct ahp_agent_options){.identity = &other});
	CU_ASSERT_EQUAL(far_frame(&w, &m, "12345678", 8), 0);
	CU_ASSERT_EQUAL(far_outcome(&w), 0);
	CU_ASSERT_EQUAL(w.handshakes, 3);
	ahp_agent_close(planner);
	far_end(&w);
}

/* ---- bad answers -------------------------------------------------------- */

static const struct {
	const char *line, *code, *words;
} bad[] = {
	{"HTTP/1.1 204 No\r\n\r\n", "DESERIALIZATION_ERROR", "without a body"},
	{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
	 "DESERIALIZATION_ERROR", "without a body"},
	{"HTTP/1.1 307 X\r\nLocation: http://evil/\r\nContent-Length: "
	 "0\r\n\r\n",
	 "INVALID_MESSAGE", "redirects are not followed"},
	{"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: "
	 "6\r\n\r\n<html>",
	 "DESERIALIZATION_ERROR", "text/html"},
	{"200 [1]", "DESERIALIZATION_ERROR", "no JSON object"},
	{"200 {\"a\":", "DESERIALIZATION_ERROR", "no JSON object"},
	{"200 {\"success\":false,\"message\":\"no way\"}", "UNKNOWN", "no way"},
	{"HTTP/1.1 200 OK\r\nContent-Type: application/avp+binary\r\n"
	 "Content-Length: 4\r\n\r\nAV\1\1",
	 "DESERIALIZATION_ERROR", "cannot be read"},
	{"400 {\"success\":false,\"message\":\"bad\"}", "INVALID_MESSAGE",
	 "answers 400: bad"},
	{"403 {}", "UNKNOWN", "answers 403"},
	{"404 {\"success\":false,\"code\":\"AGENT_NOT_FOUND\"}",
	 "AGENT_NOT_FOUND", "answers 404"},
	{"409 {\"success\":false}", "SHAPE_MISMATCH", "answers 409"},
	{"413 {}", "TOO_LARGE", "answers 413"},
	{"500 {}", "UNKNOWN", "answers 500"},
	{"503 {}", "QUEUE_FULL", "answers 503"},
	{"504 {}", "TIMEOUT", "answers 504"},
	{"-", "CLOSED", "mpty reply"},
	{"~HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "CLOSED", ""},
	{"~garbage\r\n\r\n", "CLOSED", ""},
	{"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "CLOSED", ""},
};

/* What ahp_status() says of it. */
static int as_told(const char *code)
{
	if (!strcmp(code, "TIMEOUT"))
		return AVP_EXPIRED;
	return strcmp(code, "SHAPE_MISMATCH") ? AVP_REJECTED
					      : AVP_SHAPE_MISMATCH;
}

static void bad_answers(void)
{
	struct avp_metadata m = {.model_id = avp_str_of("m")};
	const char *script[2] = {NULL, NULL};
	char code[64];
	struct far w;

	far_begin(&w, "cafe", "max_retries: 0, answer: 4KiB, request_time: 2s");
	w.script = script;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		script[0] = bad[i].line;
		w.at = 0;
		snprintf(code, sizeof(code), "\"code\": \"%s\"", bad[i].code);
		CU_ASSERT_EQUAL(far_frame(&w, &m, "12345678", 8), 0);
		CU_ASSERT_EQUAL(far_outcome(&w), as_told(bad[i].code));
		CU_ASSERT(far_hears(&w, code, bad[i].words));
	}
	far_end(&w);
}

static void huge_answer(void)
{
	static char line[8192] = "200 {\"a\":\"";
	const char *script[2] = {line, NULL};
	struct far w;

	memset(line + strlen(line), 'x', 6000);
	memcpy(line + strlen(line), "\"}", 3);
	far_begin(&w, "", "max_retries: 0, answer: 4KiB");
	w.script = script;
	CU_ASSERT_EQUAL(far_text(&w, "{}"), 0);
	CU_ASSERT_EQUAL(far_outcome(&w), AVP_REJECTED);
	CU_ASSERT(
		far_hears(&w, "TOO_LARGE", "larger than the configured limit"));
	far_end(&w);
}

/* ---- again -------------------------------------------------------------- */

static void retries(void)
{
	static const char *const script[] = {"503 {}", "-", "504 {}",
					     "200 " FAR_OK, NULL};
	struct far w;

	far_begin(&w, "", "max_retries: 3");
	w.script = script;
	CU_ASSERT_EQUAL(far_text(&w, "{}"), 0);
	CU_ASSERT_EQUAL(far_outcome(&w), 0);
	CU_ASSERT(far_hears(&w, "\"answer\": 42", "success"));
	CU_ASSERT_EQUAL(w.requests, 4);
	CU_ASSERT_EQUAL(w.same_id, 3);
	far_end(&w);
}

static void dead_letter(void)
{
	static const char *const script[] = {"503 {\"message\":\"go away\"}",
					     NULL};
	struct far w;

	far_begin(&w, "", "max_retries: 2");
	w.script = script;
	CU_ASSERT_EQUAL(far_text(&w, "{\"kept\": 1}"), 0);
	CU_ASSERT_EQUAL(far_outcome(&w), AVP_REJECTED);
	CU_ASSERT(far_hears(&w, "go away", "\"attempts\": 3"));
	CU_ASSERT_EQUAL(w.requests, 3);
	far_end(&w);
	CU_ASSERT_EQUAL(far_letters("go away"), 1);
}

/* Of all calls that write files to the disk; what io_uring does is none. */
static void forbid_sync(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fdatasync, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_fsync, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EIO),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = {sizeof(code) / sizeof(*code), code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter))
		_exit(126);
}

static bool loop_syncs(void)
{
	struct avp_loop *loop;
	bool io_uring;

	CU_ASSERT_EQUAL_FATAL(avp_loop_open(&loop, NULL), 0);
	io_uring = !strcmp(avp_loop_backend(loop), "io_uring");
	avp_loop_close(loop);
	return io_uring;
}

/* The disk has them, and no turn has waited for it. */
static void dead_letters_in_the_loop(void)
{
	static const char *const script[] = {"503 {\"message\":\"busy\"}",
					     NULL};
	struct far w;

	if (!loop_syncs()) {
		printf("skipped: no io_uring here\n");
		return;
	}
	/* A queue that is there: to make one takes an fsync(). */
	far_begin(&w, "", "max_retries: 0");
	far_end(&w);
	far_begin_with(&w, &(struct far_options){.model_hash = "",
						 .more = "max_retries: 0",
						 .before_exec = forbid_sync});
	w.script = script;
	for (int i = 0; i < 20; i++) {
		CU_ASSERT_EQUAL(far_text(&w, "{\"kept\": 2}"), 0);
		CU_ASSERT_EQUAL(far_outcome(&w), AVP_REJECTED);
		CU_ASSERT(far_hears(&w, "busy", "\"attempts\": 1"));
	}
	far_end(&w);
	CU_ASSERT_EQUAL(far_letters("busy"), 20);
	CU_ASSERT_FALSE(far_logged("dead_letter"));
}

/* A letter is text: what of it is none is shown as '?', and it is kept. */
static void dead_letter_of_any_id(void)
{
	static const char *const script[] = {"503 {\"message\":\"not now\"}",
					     NULL};
	static uint8_t frame[64];
	struct avp_metadata m = {.model_id = avp_str_of("m")};
	struct ahp_outgoing out = {.target = "far",
				   .method = AHP_TASK,
				   .kind = AHP_FRAME,
				   .task_id = {"\377\0", 2},
				   .body = frame};
	struct far w;

	far_begin(&w, "cafe", "max_retries: 0");
	w.script = script;
	avp_frame_encode(&m, AVP_DIALECT_0_2, "12345678", 8, frame,
			 sizeof(frame), &out.body_bytes, NULL);
	CU_ASSERT_EQUAL(ahp_send(w.planner, &out, LONG_NS, &w.receipt, NULL),
			0);
	CU_ASSERT_EQUAL(far_outcome(&w), AVP_REJECTED);
	CU_ASSERT_STRING_EQUAL(w.task, "%FF%00");
	far_end(&w);
	CU_ASSERT_EQUAL(far_letters("not now"), 1);
}

static void retry_after(void)
{
	static const char *const script[] = {
		"HTTP/1.1 503 No\r\nContent-Type: application/json\r\n"
		"Retry-After: 1\r\nContent-Length: 2\r\n\r\n{}",
		"200 " FAR_OK, NULL};
	double begin_s;
	struct far w;

	far_begin(&w, "", "max_retries: 1");
	w.script = script;
	begin_s = far_now_s();
	CU_ASSERT_EQUAL(far_text(&w, "{}"), 0);
	CU_ASSERT_EQUAL(far_outcome(&w), 0);
	CU_ASSERT(far_now_s() - begin_s >= 1.0);
	CU_ASSERT_EQUAL(w.requests, 2);
	far_end(&w);
}

/* As it is in its file, whatever it is made of. */
static void token(void)
{
	char path[PATH_MAX], more[PATH_MAX + 40];
	struct far w;
	FILE *f;

	snprintf(path, sizeof(path), "%s/token", test_dir());
	f = fopen(path, "we");
	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	fputs("a%41/b=\n", f);
	fclose(f);
	CU_ASSERT_EQUAL(chmod(path, 0600), 0);
	snprintf(more, sizeof(more), "max_retries: 0, token_file: %s", path);
	far_begin(&w, "", more);
	CU_ASSERT_EQUAL(far_text(&w, "{}"), 0);
	CU_ASSERT_EQUAL(far_outcome(&w), 0);
	CU_ASSERT_STRING_EQUAL(w.token, "Bearer a%41/b=");
	far_end(&w);
}

/* The peer is away while messages come, and all arrive when it is back. */
static void peer_restarts(void)
{
	static const char *const script[] = {"-", "-", "-",	      "-",
					     "-", "-", "200 " FAR_OK, NULL};
	struct far w;

	far_begin(&w, "", "max_retries: 20");
	w.script = script;
	CU_ASSERT_EQUAL(far_text(&w, "{}"), 0);
	CU_ASSERT_EQUAL(far_outcome(&w), 0);
	CU_ASSERT(far_hears(&w, "\"answer\": 42", "success"));
	CU_ASSERT_EQUAL(w.requests, 7);
	CU_ASSERT(w.handshakes > 2); /* a peer that was away is asked again */
	far_end(&w);
}

/* ---- how it is ---------------------------------------------------------- */

/* Of a server that knows no HEARTBEAT its answers tell, to GET /health too. */
static void health(bool knows_agents)
{
	static const char *const no[] = {"400 {\"success\":false}", NULL};
	struct far w;

	far_begin_with(
		&w, &(struct far_options){
			    .model_hash = "",
			    .more = knows_agents ? "max_retries: 0, path: agent"
						 : "max_retries: 0",
			    .sections = "ahp: {heartbeat_interval: "
					"100ms}\n"});
	w.knows_agents = knows_agents;
	w.script = no;
	CU_ASSERT(far_becomes(&w, "alive", true));
	for (double until = far_now_s() + FAR_PATIENCE_S;
	     w.healths < 3 && far_now_s() < until;)
		far_turn(&w);
	CU_ASSERT(w.healths >= 3);
	CU_ASSERT(far_becomes(&w, "dead", false));
	CU_ASSERT(far_becomes(&w, "alive", true));
	CU_ASSERT_EQUAL(w.requests != 0, knows_agents);
	far_end(&w);
}

static void heartbeats_by_health(void)
{
	health(false);
	health(true);
}

/* ---- back-pressure ------------------------------------------------------ */

static void note_received(void *arg, const struct ahp_observation *seen)
{
	if (!strcmp(seen->id, "far"))
		*(uint64_t *)arg = seen->stats.received;
}

/* Messages that the gateway has taken from the planner, once some are known. */
static uint64_t taken(struct far *w)
{
	double until = far_now_s() + FAR_PATIENCE_S;
	uint64_t received = 0;

	while (received < 4 && far_now_s() < until) {
		far_turn(w);
		ahp_observe(NULL, NULL, note_received, &received, NULL);
	}
	return received;
}

static void queue_full(void)
{
	static const char *const silence[] = {"", NULL};
	struct far w;
	int code, sent = 0;

	far_begin(&w, "", "max_retries: 0, in_flight: 4, request_time: 20s");
	w.script = silence;
	do {
		code = far_text(&w, "{}");
		sent += !code;
		far_turn(&w);
	} while (!code && sent < 5000);
	CU_ASSERT_EQUAL(code, AVP_QUEUE_FULL);
	CU_ASSERT_EQUAL(taken(&w), 4);
	CU_ASSERT_EQUAL(sent, 1024); /* the window: none was accepted */
	far_end(&w);
}

/* ---- fallback ----------------------------------------------------------- */

static void fallback(void)
{
	static const char *const script[] = {
		"200 {\"success\":false,\"fallback\":{\"session_id\":\"s-1\","
		"\"reason\":\"drift\",\"perplexity_score\":12.5}}",
		"200 " FAR_OK, NULL};
	struct avp_metadata m = {.model_id = avp_str_of("m")};
	struct far w;

	far_begin(&w, "cafe", "max_retries: 0");
	w.script = script;
	CU_ASSERT_EQUAL(far_frame(&w, &m, "12345678", 8), 0);
	CU_ASSERT_EQUAL(far_outcome(&w), AVP_REJECTED);
	CU_ASSERT(far_hears(&w, "asks for JSON", "drift"));
	/* From now on it is told without being asked. */
	CU_ASSERT_EQUAL(far_frame(&w, &m, "12345678", 8), 0);
	CU_ASSERT_EQUAL(far_outcome(&w), AVP_REJECTED);
	CU_ASSERT(far_hears(&w, "takes text only", "drift"));
	CU_ASSERT_EQUAL(w.requests, 1);
	CU_ASSERT_EQUAL(far_text(&w, "{}"), 0);
	CU_ASSERT_EQUAL(far_outcome(&w), 0);
	CU_ASSERT(far_hears(&w, "\"answer\": 42", "success"));
	far_end(&w);
}

/* The peer asks by a request of its own. */
static void fallback_request(void)
{
	static const char asked[] = "{\"session_id\":\"s-1\",\"reason\":"
				    "\"drift\",\"perplexity_score\":9.5}",
			  other[] = "{\"session_id\":\"s-2\",\"reason\":"
				    "\"drift\",\"perplexity_score\":9.5}";
	static const char type[] = "Content-Type: application/json\r\n";
	static struct answer a;
	struct avp_metadata m = {.model_id = avp_str_of("m")};
	struct far w;

	far_begin(&w, "cafe", "max_retries: 0");
	CU_ASSERT_EQUAL(far_frame(&w, &m, "12345678", 8), 0);
	CU_ASSERT_EQUAL(far_outcome(&w), 0);
	CU_ASSERT(far_hears(&w, "\"answer\": 42", "success"));
	CU_ASSERT_EQUAL(client_asks(w.port, "POST", "/avp/v2/text", type, other,
				    sizeof(other) - 1, &a),
			404);
	CU_ASSERT_EQUAL(client_asks(w.port, "POST", "/avp/v2/text", type, asked,
				    sizeof(asked) - 1, &a),
			200);
	CU_ASSERT(far_hears(&w, "\"mode\": \"JSON\"", "drift"));
	CU_ASSERT_EQUAL(far_frame(&w, &m, "12345678", 8), 0);
	CU_ASSERT_EQUAL(far_outcome(&w), AVP_REJECTED);
	CU_ASSERT(far_hears(&w, "takes text only", "drift"));
	CU_ASSERT_EQUAL(far_text(&w, "{}"), 0);
	CU_ASSERT_EQUAL(far_outcome(&w), 0);
	CU_ASSERT_STRING_EQUAL(w.path, "/avp/v2/text");
	far_end(&w);
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {TEST(text),
					    TEST(frame_to_gateway),
					    TEST(frame_unchanged),
					    TEST(newer_dialect),
					    TEST(newer_server),
					    TEST(compressed),
					    TEST(other_model),
					    TEST(echoing_server),
					    TEST(bad_answers),
					    TEST(huge_answer),
					    TEST(retries),
					    TEST(dead_letter),
					    TEST(dead_letters_in_the_loop),
					    TEST(dead_letter_of_any_id),
					    TEST(retry_after),
					    TEST(token),
					    TEST(peer_restarts),
					    TEST(heartbeats_by_health),
					    TEST(queue_full),
					    TEST(fallback),
					    TEST(fallback_request),
					    {0}};

	(void)argc;
	far_setup(argv[0]);
	return test_main("gateway_out", tests);
}
