/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include <avp/dlq.h>

#include "tests/far.h"
#include "tests/gateway.h"

static char program[PATH_MAX];

void far_setup(const char *argv0)
{
	test_program(program, argv0, "avp-gateway");
	signal(SIGPIPE, SIG_IGN);
	agents_begin();
}

/* ---- the world of a test ------------------------------------------------ */

static void keep(char *to, size_t cap, const char *value)
{
	snprintf(to, cap, "%.*s", (int)cap - 1, value);
}

static void note(struct far *w, const struct web_request *r)
{
	char id[64];

	keep(id, sizeof(id), web_field(r, "AHP-Message-ID"));
	w->same_id += w->requests && !strcmp(id, w->id);
	w->requests++;
	keep(w->id, sizeof(w->id), id);
	keep(w->path, sizeof(w->path), r->path);
	keep(w->task, sizeof(w->task), web_field(r, "AHP-Task-ID"));
	keep(w->wait, sizeof(w->wait), web_field(r, "AHP-Wait"));
	keep(w->type, sizeof(w->type), web_field(r, "Content-Type"));
	keep(w->token, sizeof(w->token), web_field(r, "Authorization"));
	free(w->body);
	w->body = malloc(r->body_len + 1);
	memcpy(w->body, r->body, r->body_len);
	w->body[r->body_len] = 0;
	w->body_len = r->body_len;
}

/* model_hash "echo": what it was told, as the reference does. */
static int shake(struct far *w, const struct web_request *r, char *to,
		 size_t cap)
{
	const char *told = strstr(r->body, "\"model_hash\": \"");
	char body[400], hash[80];

	w->handshakes++;
	keep(hash, sizeof(hash), w->options.model_hash);
	if (!strcmp(hash, "echo"))
		snprintf(hash, sizeof(hash), "%.*s",
			 told ? (int)strcspn(told + 15, "\"") : 0,
			 told ? told + 15 : "");
	snprintf(body, sizeof(body),
		 "{\"success\":true,\"agent_id\":\"far\",\"session_id\":"
		 "\"s-1\",\"identity\":{\"model_hash\":\"%s\"}}",
		 hash);
	return web_json(to, cap, 200, "", body);
}

/* "-": hang up; "~TEXT": that, then hang up; "": say nothing; a text: as it is;
 * "200 {...}": JSON. */
static int play(const char *line, char *to, size_t cap)
{
	int status;

	if (!*line)
		return 0;
	if (!strcmp(line, "-"))
		return -1;
	if (*line == '~')
		return -1 - snprintf(to, cap, "%s", line + 1);
	if (sscanf(line, "%d {", &status) == 1 && line[3] == ' ')
		return web_json(to, cap, status, "", line + 4);
	return snprintf(to, cap, "%s", line);
}

static int answer(void *arg, const struct web_request *r, char *to, size_t cap)
{
	struct far *w = arg;
	const char *line;

	if (!strncmp(r->path, "/agents/", 8) && !w->knows_agents)
		return web_json(to, cap, 404, "", "{\"detail\":\"Not Found\"}");
	if (strstr(r->path, "/avp/v2/handshake"))
		return shake(w, r, to, cap);
	if (strstr(r->path, "/health")) {
		w->healths++;
		return web_json(to, cap, 200, "", "{\"status\":\"ok\"}");
	}
	note(w, r);
	if (w->lie)
		return w->lie(w->lie_arg, r, to, cap);
	line = w->script[w->at];
	w->at += w->script[w->at + 1] != NULL;
	return play(line, to, cap);
}

double far_now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void far_turn(struct far *w)
{
	web_turn(w->web);
	if (w->options.serve)
		w->options.serve(w->options.serve_arg);
	if (w->planner)
		ahp_agent_run(w->planner, 500000);
}

static void start_gateway(struct far *w)
{
	char config[PATH_MAX], log[PATH_MAX], line[64] = "";
	int out[2], err;
	ssize_t n = 0;
	FILE *f;

	snprintf(config, sizeof(config), "%s/avp.yaml", test_dir());
	snprintf(log, sizeof(log), "%s/log", test_dir());
	f = fopen(config, "we");
	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	fprintf(f,
		"dlq: {dir: %s/dlq}\n%s"
		"gateway:\n"
		"  log_level: debug\n"
		"  limits: {drain_time: 1s}\n"
		"  listeners: [{address: 127.0.0.1, port: 0}]\n"
		"  peers:\n"
		"    - {url: \"http://127.0.0.1:%u\", agents: [far], "
		"retry_delay: 10ms, %s}\n",
		test_dir(), w->options.sections ? w->options.sections : "",
		w->options.port ? w->options.port : web_port(w->web),
		w->options.more);
	fclose(f);
	CU_ASSERT_FATAL(!pipe2(out, O_CLOEXEC | O_NONBLOCK));
	fflush(NULL);
	w->gateway = fork();
	if (!w->gateway) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		err = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
		dup2(out[1], 1);
		dup2(err, 2);
		if (w->options.before_exec)
			w->options.before_exec();
		execl(program, program, "--config", config, (char *)NULL);
		_exit(127);
	}
	close(out[1]);
	for (double end = far_now_s() + FAR_PATIENCE_S;
	     n <= 0 && far_now_s() < end;) {
		web_turn(w->web);
		n = read(out[0], line, sizeof(line) - 1);
		if (!n)
			break;
	}
	close(out[0]);
	CU_ASSERT_FATAL(
		!strncmp(line, "listening address=127.0.0.1 port=", 33));
	w->port = (unsigned)strtoul(line + 33, NULL, 10);
}

void far_begin_with(struct far *w, const struct far_options *options)
{
	static const char *const ok[] = {"200 " FAR_OK, NULL};
	struct avp_identity mine = {.model_hash = avp_str_of("cafe")};

	*w = (struct far){.options = *options, .script = ok};
	w->web = web_open(answer, w);
	start_gateway(w);
	w->planner = agent_open("planner",
				&(struct ahp_agent_options){.identity = &mine});
	for (double end = far_now_s() + FAR_PATIENCE_S;
	     far_now_s() < end &&
	     ahp_connect(w->planner, "far", 0, NULL, NULL) != 0;)
		far_turn(w);
}

void far_begin(struct far *w, const char *model_hash, const char *more)
{
	far_begin_with(w, &(struct far_options){.model_hash = model_hash,
						.more = more});
}

void far_end(struct far *w)
{
	int status = -1;

	ahp_agent_close(w->planner);
	kill(w->gateway, SIGTERM);
	for (double until = far_now_s() + FAR_PATIENCE_S;
	     far_now_s() < until && waitpid(w->gateway, &status, WNOHANG) == 0;)
		web_turn(w->web);
	CU_ASSERT(WIFEXITED(status) && !WEXITSTATUS(status));
	web_close(w->web);
	free(w->body);
}

/* ---- messages ----------------------------------------------------------- */

int far_text(struct far *w, const char *text)
{
	return agent_say(w->planner, "far", text, &w->receipt);
}

int far_frame(struct far *w, const struct avp_metadata *m, const void *payload,
	      uint64_t bytes)
{
	static uint8_t frame[3 << 20];
	struct ahp_outgoing out = {.target = "far",
				   .method = AHP_TASK,
				   .kind = AHP_FRAME,
				   .task_id = avp_str_of("t1"),
				   .body = frame};

	CU_ASSERT_FATAL(!avp_frame_encode(m, AVP_DIALECT_0_2, payload, bytes,
					  frame, sizeof(frame), &out.body_bytes,
					  NULL));
	return ahp_send(w->planner, &out, LONG_NS, &w->receipt, NULL);
}

/* What became of the last one. */
int far_outcome(struct far *w)
{
	double end_s = far_now_s() + FAR_PATIENCE_S;
	int code;

	while ((code = ahp_status(w->planner, &w->receipt)) == AVP_AGAIN &&
	       far_now_s() < end_s)
		far_turn(w);
	return code;
}

/* The next RESULT has these texts. */
bool far_hears(struct far *w, const char *a, const char *b)
{
	struct ahp_message m;
	char text[4096] = "";
	double end_s = far_now_s() + FAR_PATIENCE_S;

	while (ahp_receive(w->planner, &m, 0)) {
		if (far_now_s() > end_s)
			return false;
		far_turn(w);
	}
	snprintf(text, sizeof(text), "%.*s", (int)m.body_bytes,
		 (const char *)m.body);
	CU_ASSERT_STRING_EQUAL(m.source, "far");
	ahp_release(w->planner, &m);
	if (strstr(text, a) && strstr(text, b))
		return true;
	printf("heard %s\n  and not %s, %s\n", text, a, b);
	return false;
}

/* ---- what is left of it ------------------------------------------------- */

bool far_logged(const char *words)
{
	return gateway_logged("log", words);
}

unsigned far_letters(const char *text)
{
	struct ahp_dlq_options o = {.size = sizeof(o),
				    .flags = AHP_DLQ_READ_ONLY};
	struct ahp_dlq_entry entry = {0};
	struct ahp_dlq *dlq;
	unsigned n = 0;
	char dir[PATH_MAX];

	snprintf(dir, sizeof(dir), "%s/dlq", test_dir());
	o.dir = dir;
	CU_ASSERT_FATAL(!ahp_dlq_open(&dlq, &o, NULL));
	for (uint64_t at = 0; ahp_dlq_next(dlq, at, &entry, NULL) == 1;) {
		at = entry.number;
		n += memmem(entry.error.data, entry.error.len, text,
			    strlen(text)) != NULL &&
		     avp_str_equal(entry.agent, avp_str_of("far"));
		ahp_dlq_entry_fini(&entry);
	}
	ahp_dlq_close(dlq);
	return n;
}

bool far_is(struct far *w, const char *state)
{
	char name[80];

	snprintf(name, sizeof(name),
		 "avp_remote_agent_state{agent=\"far\",state=\"%s\"}", state);
	return gateway_metric(w->port, name) == 1;
}

/* answers: the peer is there, and serves. */
bool far_becomes(struct far *w, const char *state, bool answers)
{
	double until = far_now_s() + FAR_PATIENCE_S;

	while (!far_is(w, state)) {
		if (far_now_s() > until)
			return false;
		if (answers)
			web_turn(w->web);
		ahp_agent_run(w->planner, 500000);
	}
	return true;
}
