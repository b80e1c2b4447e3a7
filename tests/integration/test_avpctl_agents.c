/* SPDX-License-Identifier: Apache-2.0 */
/*
 * avpctl ls, stat, top, send, recv and doctor, run as a script would: what they
 * print, how they end, and that no end leaves anything behind.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <avp/ahp.h>

#include "tests/tool.h"

static char agents[4096]; /* the directory of the namespace */

#define SECONDS 20.0 /* until a condition counts as never to come */

/* ---- files -------------------------------------------------------------- */

static bool same_files(const char *a, const char *b)
{
	struct bytes x = tool_load(a), y = tool_load(b);
	bool same = x.len == y.len && !memcmp(x.data, y.data, x.len);

	bytes_free(&x);
	bytes_free(&y);
	return same;
}

/* Are there no names of agents, not even a lock? */
static bool no_names(void)
{
	DIR *d = opendir(agents);
	struct dirent *entry;
	bool none = true;

	while (d && (entry = readdir(d)))
		none &= !strcmp(entry->d_name, ".") ||
			!strcmp(entry->d_name, "..");
	if (d)
		closedir(d);
	return none;
}

/* ---- processes ---------------------------------------------------------- */

/* Runs avpctl; its outputs are NAME.out and NAME.err. */
#define RUN(name, ...) tool_finish(TOOL_START(name, __VA_ARGS__))

static bool is_there(void *file)
{
	return access(file, F_OK) == 0;
}

/* Until an agent of that name listens. */
static void await_agent(const char *id)
{
	char file[8192];

	snprintf(file, sizeof(file), "%s/%s.sock", agents, id);
	CU_ASSERT_FATAL(test_wait(is_there, file, SECONDS));
}

struct lines {
	const char *file;
	int wanted;
};

static bool has_lines(void *arg)
{
	const struct lines *l = arg;
	struct bytes b = tool_load(l->file);
	int n = 0;

	for (size_t i = 0; i < b.len; i++)
		n += b.data[i] == '\n';
	bytes_free(&b);
	return n >= l->wanted;
}

static void await_lines(const char *file, int wanted)
{
	struct lines l = {file, wanted};

	CU_ASSERT_FATAL(test_wait(has_lines, &l, SECONDS));
}

static pid_t start_receiver(const char *id, const char *option,
			    const char *value)
{
	pid_t pid = TOOL_START(id, "recv", "--as", id, "--timeout", "60",
			       option, value);

	await_agent(id);
	return pid;
}

/* ---- outputs ------------------------------------------------------------ */

static void complained(const char *name, const char *beginning)
{
	CU_ASSERT(tool_complained(name, beginning));
}

static bool silent(const char *file)
{
	struct stat st;

	return !stat(tool_path(file), &st) && !st.st_size;
}

/* The nth line of a file, from 0 on, as JSON. */
static struct avp_json_doc *line(const char *file, int n)
{
	struct avp_json_doc *doc = NULL;
	struct bytes b = tool_load(file);
	const char *p = (const char *)b.data, *end = p + b.len, *newline;

	while ((newline = memchr(p, '\n', (size_t)(end - p))) && n--)
		p = newline + 1;
	CU_ASSERT_PTR_NOT_NULL_FATAL(newline);
	CU_ASSERT_EQUAL_FATAL(
		avp_json_parse(&doc, p, (size_t)(newline - p), NULL, NULL), 0);
	bytes_free(&b);
	return doc;
}

/* Is a value, written compactly, this text? */
static bool reads(const struct avp_json *value, const char *text)
{
	struct avp_buf buf = {0};
	bool same;

	CU_ASSERT_EQUAL(
		avp_json_write(&buf, value, AVP_JSON_HTTP | AVP_JSON_AS_READ),
		0);
	same = avp_str_equal(avp_buf_str(&buf), avp_str_of(text));
	avp_buf_fini(&buf);
	return same;
}

/* ---- ls ----------------------------------------------------------------- */

static void ls_shows_who_is_there(void)
{
	pid_t solver = start_receiver("solver", NULL, NULL);
	const struct avp_json *first;
	struct avp_json_doc *doc;

	CU_ASSERT_EQUAL(RUN("ls", "ls", "--json"), 0);
	doc = line("ls.out", 0);
	first = avp_json_first(avp_json_get(avp_json_root(doc), "agents"));
	CU_ASSERT(case_is(first, "id", "solver"));
	CU_ASSERT(case_is(first, "state", "alive"));
	CU_ASSERT_EQUAL(case_int(first, "pid"), solver);
	CU_ASSERT_EQUAL(case_int(first, "uid"), geteuid());
	CU_ASSERT(case_is(first, "model_id", "") &&
		  avp_json_get(first, "model_id"));
	CU_ASSERT(case_is(first, "model_hash", "") &&
		  avp_json_get(first, "links"));
	CU_ASSERT_PTR_NULL(avp_json_next(first));
	avp_json_free(doc);
	CU_ASSERT_EQUAL(RUN("ls", "ls"), 0);
	await_lines("ls.out", 2);
	kill(solver, SIGTERM);
	CU_ASSERT_EQUAL(tool_finish(solver), 0);
	CU_ASSERT_EQUAL(RUN("ls", "ls", "--json"), 0);
	doc = line("ls.out", 0);
	CU_ASSERT(reads(avp_json_root(doc), "{\"agents\":[]}"));
	avp_json_free(doc);
	CU_ASSERT_EQUAL(RUN("ls", "ls", "--json", "--namespace", "x"), 0);
	CU_ASSERT(no_names());
}

/* What a killed agent leaves is shown once, and is gone then. */
static void ls_removes_what_the_killed_left(void)
{
	pid_t solver = start_receiver("solver", NULL, NULL);
	struct avp_json_doc *doc;

	kill(solver, SIGKILL);
	CU_ASSERT_EQUAL(tool_finish(solver), -SIGKILL);
	CU_ASSERT_FALSE(no_names());
	CU_ASSERT_EQUAL(RUN("ls", "ls", "--json"), 0);
	doc = line("ls.out", 0);
	CU_ASSERT(case_is(
		avp_json_first(avp_json_get(avp_json_root(doc), "agents")),
		"state", "dead"));
	avp_json_free(doc);
	CU_ASSERT(no_names());
	CU_ASSERT_EQUAL(RUN("ls", "ls", "--json"), 0);
	doc = line("ls.out", 0);
	CU_ASSERT(reads(avp_json_root(doc), "{\"agents\":[]}"));
	avp_json_free(doc);
}

/* ---- send and recv ------------------------------------------------------ */

static void json_arrives_as_it_was(void)
{
	static const char *const keys[] = {
		"method",      "agent_id",   "target_agent",
		"task_id",     "session_id", "payload",
		"token_limit", "timestamp",  "message_id"};
	static const char text[] =
		"{\"a\":[1,2.50,null,-1e400,12345678901234567890],"
		"\"\xc3\xa9\":\"\\u0000"
		"\"}";
	pid_t solver = start_receiver("solver", "--count", "1");
	struct avp_json_doc *got, *answer;
	const struct avp_json *m, *v;
	struct ahp_time time;

	CU_ASSERT_EQUAL(RUN("send", "send", "solver", "--json", text, "--task",
			    "t 1", "--session", "s1", "--method", "PROGRESS"),
			0);
	CU_ASSERT_EQUAL(tool_finish(solver), 0);
	got = line("solver.out", 0);
	answer = line("send.out", 0);
	m = avp_json_root(got);
	v = avp_json_first(m);
	for (size_t i = 0; i < 9; i++, v = avp_json_next(v))
		CU_ASSERT(
			avp_str_equal(avp_json_key_of(v), avp_str_of(keys[i])));
	CU_ASSERT_PTR_NULL(v);
	CU_ASSERT(reads(avp_json_get(m, "payload"), text));
	CU_ASSERT(case_is(m, "method", "PROGRESS"));
	CU_ASSERT(case_is(m, "target_agent", "solver"));
	CU_ASSERT(!strncmp(case_str(m, "agent_id").data, "avpctl-", 7));
	CU_ASSERT(case_is(m, "task_id", "t 1"));
	CU_ASSERT(case_is(m, "session_id", "s1"));
	CU_ASSERT_EQUAL(case_int(m, "token_limit"), 500);
	CU_ASSERT_EQUAL(ahp_time_read(&time, case_str(m, "timestamp"), NULL),
			0);
	CU_ASSERT(avp_str_equal(case_str(m, "message_id"),
				case_str(avp_json_root(answer), "message_id")));
	CU_ASSERT(case_is(avp_json_root(answer), "status", "sent"));
	CU_ASSERT(case_double(avp_json_root(answer), "seconds") > 0);
	avp_json_free(got);
	avp_json_free(answer);
	CU_ASSERT(silent("send.err") && silent("solver.err"));
	CU_ASSERT(no_names());
}

/* Ids that no sender gave are of version 8 and differ. */
static void implied_ids(void)
{
	struct ahp_agent_options options = {.size = sizeof(options),
					    .id = "planner"};
	struct ahp_outgoing out = {.target = "solver",
				   .method = AHP_TASK,
				   .body = "{}",
				   .body_bytes = 2};
	pid_t solver = start_receiver("solver", "--count", "2");
	struct avp_json_doc *a, *b;
	struct ahp_agent *planner;
	struct avp_str x, y;

	CU_ASSERT_FATAL(!ahp_agent_open(&planner, &options, NULL));
	for (int i = 0; i < 2; i++)
		CU_ASSERT_EQUAL(
			ahp_send(planner, &out, AHP_FOREVER, NULL, NULL), 0);
	CU_ASSERT_EQUAL(tool_finish(solver), 0);
	ahp_agent_close(planner);
	a = line("solver.out", 0);
	b = line("solver.out", 1);
	x = case_str(avp_json_root(a), "message_id");
	y = case_str(avp_json_root(b), "message_id");
	CU_ASSERT(x.len == 36 && x.data[14] == '8');
	CU_ASSERT(!memcmp(x.data, y.data, 18));
	CU_ASSERT(!avp_str_equal(x, y));
	avp_json_free(a);
	avp_json_free(b);
}

/* recv shows and files a frame as `frame decode` does from the file. */
static void check_frame(const char *sent, int number)
{
	struct avp_json_doc *got, *decoded;
	struct avp_buf text = {0};
	char name[64];

	CU_ASSERT_EQUAL(RUN("send", "send", "solver", "--frame",
			    tool_path(sent), "--wait-ack"),
			0);
	await_lines("solver.out", number);
	CU_ASSERT_EQUAL(RUN("decode", "frame", "decode", tool_path(sent)), 0);
	got = line("solver.out", number - 1);
	decoded = line("decode.out", 0);
	CU_ASSERT_EQUAL(
		avp_json_write(&text, avp_json_root(decoded), AVP_JSON_HTTP),
		0);
	CU_ASSERT(reads(avp_json_get(avp_json_root(got), "frame"), text.data));
	CU_ASSERT(reads(avp_json_get(avp_json_root(got), "payload"), "{}"));
	avp_buf_fini(&text);
	snprintf(name, sizeof(name), "files/message-%06d.avp", number + 1);
	CU_ASSERT(case_is(avp_json_root(got), "file", tool_path(name)));
	avp_json_free(got);
	avp_json_free(decoded);
}

static void frames_arrive_as_they_were(void)
{
	static const char meta[] =
		"{\"model_id\":\"m\",\"payload_type\":\"KV_CACHE\"}";
	static uint8_t payload[3 << 20];
	pid_t solver;

	for (size_t i = 0; i < sizeof(payload); i++)
		payload[i] = (uint8_t)(i * i >> 7);
	tool_save("payload", payload, sizeof(payload));
	tool_save("meta", meta, sizeof(meta) - 1);
	RUN("encode", "frame", "encode", "--metadata", tool_path("meta"),
	    "--payload", tool_path("payload"), "-o", tool_path("plain"));
	RUN("encode", "frame", "encode", "--metadata", tool_path("meta"),
	    "--payload", tool_path("payload"), "-o", tool_path("zstd"),
	    "--compression", "fast", "--dialect", "0.4");
	tool_save("short", "AV\1\0\0\0\0\0\0\0\0\0", 12);
	/* Whatever is there already is left alone. */
	CU_ASSERT_EQUAL(mkdir(tool_path("files"), 0700), 0);
	tool_save("files/message-000001.avp", "mine", 4);
	solver = start_receiver("solver", "--out", tool_path("files"));
	check_frame("plain", 1);
	check_frame("zstd", 2);
	check_frame("short", 3);
	CU_ASSERT(same_files("plain", "files/message-000002.avp"));
	CU_ASSERT(same_files("zstd", "files/message-000003.avp"));
	CU_ASSERT(same_files("short", "files/message-000004.avp"));
	kill(solver, SIGINT);
	CU_ASSERT_EQUAL(tool_finish(solver), 0);
	tool_save("meta", "mine", 4);
	CU_ASSERT(same_files("meta", "files/message-000001.avp"));
	CU_ASSERT(no_names());
}

/* ---- models ------------------------------------------------------------- */

/* A model of a width, and a frame of one state of it. */
static void save_model(const char *config, const char *frame, unsigned width)
{
	static const uint8_t zeros[64];
	char text[64];

	TOOL("frame", "encode", "--metadata", tool_save_text("meta", "{}"),
	     "--payload", tool_save("payload", zeros, 4 * width), "-o",
	     tool_path(frame));
	snprintf(text, sizeof(text), "{\"hidden_size\":%u}", width);
	tool_save_text(config, text);
}

/* A frame for another model is refused: by its reader, or before it is sent. */
static void models_are_told(void)
{
	struct avp_json_doc *doc;
	pid_t solver;

	save_model("eight", "of-8", 8);
	save_model("seven", "of-7", 7);
	solver = start_receiver("solver", "--model", tool_path("eight"));
	CU_ASSERT_EQUAL(TOOL("send", "solver", "--frame", tool_path("of-7"),
			     "--wait-ack"),
			1);
	CU_ASSERT(tool_complained("tool",
				  "avpctl: send: SHAPE_MISMATCH: the frame "
				  "does not fit the model of solver"));
	doc = line("tool.out", 0);
	CU_ASSERT(case_is(avp_json_root(doc), "status", "rejected"));
	avp_json_free(doc);
	CU_ASSERT(tool_complained("solver", "avpctl: recv: warning: "
					    "SHAPE_MISMATCH: message "));
	CU_ASSERT_EQUAL(TOOL("send", "solver", "--frame", tool_path("of-8"),
			     "--model", tool_path("seven")),
			1);
	CU_ASSERT(tool_complained("tool", "avpctl: send: SHAPE_MISMATCH: "
					  "solver cannot use "));
	CU_ASSERT(silent("tool.out"));
	CU_ASSERT(silent("solver.out"));
	CU_ASSERT_EQUAL(TOOL("send", "solver", "--frame", tool_path("of-8"),
			     "--model", tool_path("eight"), "--wait-ack"),
			0);
	await_lines("solver.out", 1);
	kill(solver, SIGINT);
	CU_ASSERT_EQUAL(tool_finish(solver), 0);
	CU_ASSERT(no_names());
}

/* ---- acknowledgements --------------------------------------------------- */

static void fill_pipe(int fd)
{
	static const char block[4096];

	fcntl(fd, F_SETFL, O_NONBLOCK);
	while (write(fd, block, sizeof(block)) > 0)
		;
	fcntl(fd, F_SETFL, 0);
}

static void drain_pipe(int fd)
{
	char block[4096];

	fcntl(fd, F_SETFL, O_NONBLOCK);
	while (read(fd, block, sizeof(block)) > 0)
		;
}

/* Its stdout full, so that it cannot print: 0 when the message is accepted. */
static int ack_while_stuck(const char *option)
{
	int fd[2], status;
	pid_t solver;

	CU_ASSERT_FATAL(pipe2(fd, O_CLOEXEC) == 0);
	fill_pipe(fd[1]);
	solver = tool_start_list("solver", fd[1],
				 (const char *const[]){"recv", "--as", "solver",
						       "--count", "1", option,
						       NULL});
	close(fd[1]);
	await_agent("solver");
	status = RUN("send", "send", "solver", "--json", "{}", "--wait-ack",
		     "--timeout", "0.5");
	drain_pipe(fd[0]);
	CU_ASSERT_EQUAL(tool_finish(solver), 0);
	close(fd[0]);
	return status;
}

static void accepted_only_when_printed(void)
{
	struct avp_json_doc *doc;

	CU_ASSERT_EQUAL(ack_while_stuck("--no-auto-ack"), 1);
	complained("send", "avpctl: send: TIMEOUT: solver has not accepted");
	doc = line("send.out", 0);
	CU_ASSERT(case_is(avp_json_root(doc), "status", "sent"));
	avp_json_free(doc);
	CU_ASSERT_EQUAL(ack_while_stuck(NULL), 0);
	doc = line("send.out", 0);
	CU_ASSERT(case_is(avp_json_root(doc), "status", "accepted"));
	avp_json_free(doc);
	CU_ASSERT(no_names());
}

/* A body that is no JSON, ids that are no UTF-8: a line all the same. */
static void bad_bodies_are_shown_and_rejected(void)
{
	struct ahp_agent_options options = {.size = sizeof(options),
					    .id = "planner"};
	struct ahp_outgoing out = {.target = "solver",
				   .method = AHP_TASK,
				   .task_id = {"a\xff", 2},
				   .body = "nope",
				   .body_bytes = 4};
	pid_t solver = start_receiver("solver", "--no-auto-ack", NULL);
	struct ahp_agent *planner;
	struct ahp_receipt receipt;
	struct avp_json_doc *doc;
	const struct avp_json *m;

	CU_ASSERT_FATAL(!ahp_agent_open(&planner, &options, NULL));
	CU_ASSERT_EQUAL(ahp_send(planner, &out, AHP_FOREVER, &receipt, NULL),
			0);
	CU_ASSERT_EQUAL(ahp_wait(planner, &receipt, AHP_FOREVER), AVP_REJECTED);
	await_lines("solver.out", 1);
	doc = line("solver.out", 0);
	m = avp_json_root(doc);
	CU_ASSERT(case_is(m, "task_id", "a?"));
	CU_ASSERT(reads(avp_json_get(m, "payload"), "{}"));
	CU_ASSERT(case_is(avp_json_get(m, "error"), "code", "BAD_JSON"));
	avp_json_free(doc);
	/* And it goes on. */
	out.body = "{}";
	out.body_bytes = 2;
	CU_ASSERT_EQUAL(ahp_send(planner, &out, AHP_FOREVER, &receipt, NULL),
			0);
	CU_ASSERT_EQUAL(ahp_wait(planner, &receipt, AHP_FOREVER), 0);
	ahp_agent_close(planner);
	kill(solver, SIGTERM);
	CU_ASSERT_EQUAL(tool_finish(solver), 0);
}

/* Answers a waiting send with a second one, as two scripts would. */
static void answer_task(const char *option, const char *body)
{
	pid_t solver = start_receiver("solver", "--count", "1");
	pid_t asking =
		TOOL_START("ask", "send", "solver", "--json", "{\"q\":1}",
			   "--wait-result", "--timeout", "30");
	struct avp_json_doc *doc;
	char agent[128], task[128];

	CU_ASSERT_EQUAL(tool_finish(solver), 0);
	doc = line("solver.out", 0);
	snprintf(agent, sizeof(agent), "%s",
		 case_str(avp_json_root(doc), "agent_id").data);
	snprintf(task, sizeof(task), "%s",
		 case_str(avp_json_root(doc), "task_id").data);
	CU_ASSERT_EQUAL(strlen(task), 36);
	avp_json_free(doc);
	/* Neither another task's result nor another method ends the wait. */
	CU_ASSERT_EQUAL(RUN("send", "send", agent, "--method", "RESULT",
			    "--task", "other", "--json", "{\"x\":1}",
			    "--wait-ack"),
			0);
	CU_ASSERT_EQUAL(RUN("send", "send", agent, "--method", "PROGRESS",
			    "--task", task, "--json", "{\"x\":2}",
			    "--wait-ack"),
			0);
	CU_ASSERT_EQUAL(RUN("send", "send", agent, "--method", "RESULT",
			    "--task", task, option, body, "--wait-ack"),
			0);
	CU_ASSERT_EQUAL(tool_finish(asking), 0);
}

static void results_are_waited_for(void)
{
	static const char result[] =
		"{\"result\":{\"a\":[1]},\"status\":\"ok\"}";
	struct avp_json_doc *doc;

	answer_task("--json", result);
	doc = line("ask.out", 0);
	CU_ASSERT(case_is(avp_json_root(doc), "status", "accepted"));
	CU_ASSERT(reads(avp_json_get(avp_json_root(doc), "result"), result));
	avp_json_free(doc);
	tool_save("short", "AV\1\0\0\0\0\0\0\0\0\0", 12);
	answer_task("--frame", tool_path("short"));
	doc = line("ask.out", 0);
	CU_ASSERT_EQUAL(case_int(avp_json_get(avp_json_root(doc), "result"),
				 "raw_size"),
			12);
	avp_json_free(doc);
	CU_ASSERT(no_names());
}

/* ---- how things end ----------------------------------------------------- */

static void times_run_out(void)
{
	pid_t solver;

	CU_ASSERT_EQUAL(RUN("recv", "recv", "--as", "r", "--timeout", "0.05"),
			0);
	CU_ASSERT_EQUAL(RUN("recv", "recv", "--as", "r", "--timeout", "0.05",
			    "--count", "1"),
			1);
	complained("recv", "avpctl: recv: TIMEOUT: 0 of 1 messages");
	solver = start_receiver("solver", NULL, NULL);
	CU_ASSERT_EQUAL(RUN("send", "send", "solver", "--json", "{}",
			    "--wait-result", "--timeout", "0.2"),
			1);
	complained("send", "avpctl: send: TIMEOUT: no RESULT of task ");
	/* One that is stopped does not answer a connection. */
	kill(solver, SIGSTOP);
	CU_ASSERT_EQUAL(RUN("send", "send", "solver", "--json", "{}",
			    "--timeout", "0.2"),
			1);
	complained("send", "avpctl: send: TIMEOUT: solver ");
	kill(solver, SIGCONT);
	kill(solver, SIGTERM);
	CU_ASSERT_EQUAL(tool_finish(solver), 0);
	CU_ASSERT(no_names());
}

static void absent_agents_are_waited_for(void)
{
	pid_t sender = TOOL_START("send", "send", "late", "--json", "{}",
				  "--wait-ack", "--timeout", "60");
	pid_t late;
	char id[32];

	snprintf(id, sizeof(id), "avpctl-%d", (int)sender);
	await_agent(id); /* it looks for "late" now, or has looked */
	late = start_receiver("late", "--count", "1");
	CU_ASSERT_EQUAL(tool_finish(sender), 0);
	CU_ASSERT_EQUAL(tool_finish(late), 0);
	CU_ASSERT_EQUAL(
		RUN("send", "send", "late", "--json", "{}", "--timeout", "0.1"),
		1);
	complained("send", "avpctl: send: AGENT_NOT_FOUND: ");
	CU_ASSERT(no_names());
}

static void signals_end_it_cleanly(void)
{
	static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
	pid_t solver, asking;

	for (size_t i = 0; i < 3; i++) {
		solver = start_receiver("solver", "--count", "2");
		CU_ASSERT_EQUAL(RUN("send", "send", "solver", "--json", "{}"),
				0);
		await_lines("solver.out", 1);
		kill(solver, signals[i]);
		CU_ASSERT_EQUAL(tool_finish(solver), 1);
		complained("solver", "avpctl: recv: TIMEOUT: ended by signal ");
		CU_ASSERT(no_names());
	}
	solver = start_receiver("solver", "--count", "1");
	asking = TOOL_START("ask", "send", "solver", "--json", "{}",
			    "--wait-result");
	CU_ASSERT_EQUAL(tool_finish(solver), 0);
	kill(asking, SIGINT);
	CU_ASSERT_EQUAL(tool_finish(asking), 1);
	complained("ask", "avpctl: send: TIMEOUT: ended by signal ");
	CU_ASSERT(no_names());
}

static void a_name_is_held_once(void)
{
	pid_t solver = start_receiver("solver", "--count", "1");

	CU_ASSERT_EQUAL(RUN("recv", "recv", "--as", "solver"), 3);
	complained("recv", "avpctl: recv: PERMISSION: ");
	CU_ASSERT_EQUAL(
		RUN("send", "send", "solver", "--json", "{}", "--wait-ack"), 0);
	CU_ASSERT_EQUAL(tool_finish(solver), 0);
}

struct refusal {
	int status;
	const char *beginning;
	const char *words[8];
};

static void refusals_have_codes_and_statuses(void)
{
	static const struct refusal all[] = {
		{1, "send: AGENT_NOT_FOUND", {"send", "x", "--json", "{}"}},
		{1, "send: BAD_JSON", {"send", "x", "--json", "{\"a\""}},
		{1, "send: INVALID_MESSAGE", {"send", "x", "--json", "[]"}},
		{1,
		 "send: SHORT_HEADER",
		 {"send", "x", "--frame", "/dev/null"}},
		{3, "send: IO", {"send", "x", "--frame", "/no/such/file"}},
		{2, "send: USAGE", {"send", "x"}},
		{2, "send: USAGE", {"send", "--json", "{}"}},
		{2, "send: USAGE", {"send", "x", "y", "--json", "{}"}},
		{2, "send: USAGE", {"send", "../x", "--json", "{}"}},
		{2, "send: USAGE", {"send", ".x", "--json", "{}"}},
		{2,
		 "send: USAGE",
		 {"send", "x", "--json", "{}", "--frame", "f"}},
		{2,
		 "send: USAGE",
		 {"send", "x", "--json", "{}", "--method", "task"}},
		{2,
		 "send: USAGE",
		 {"send", "x", "--json", "{}", "--timeout", "-1"}},
		{2,
		 "send: USAGE",
		 {"send", "x", "--json", "{}", "--timeout", "nan"}},
		{2,
		 "send: USAGE",
		 {"send", "x", "--json", "{}", "--wait-ack", "--wait-result"}},
		{2, "send: USAGE", {"send", "x", "--nonsense"}},
		{2, "send: USAGE", {"send", "x", "--json"}},
		{2, "recv: USAGE", {"recv"}},
		{2, "recv: USAGE", {"recv", "--as", "a/b"}},
		{2, "recv: USAGE", {"recv", "--as", "a", "b"}},
		{2, "recv: USAGE", {"recv", "--as", "a", "--count", "-1"}},
		{2, "recv: USAGE", {"recv", "--as", "a", "--timeout", "x"}},
		{3, "recv: IO", {"recv", "--as", "a", "--out", "/no/such/d"}},
		{1, "stat: AGENT_NOT_FOUND", {"stat", "x"}},
		{2, "stat: USAGE", {"stat"}},
		{2, "top: USAGE", {"top", "--interval", "0"}},
		{2, "top: USAGE", {"top", "x"}},
		{2, "ls: USAGE", {"ls", "x"}},
		{2, "ls: USAGE", {"ls", "--namespace", "a/../b"}},
		{2, "doctor: USAGE", {"doctor", "x"}},
	};
	char beginning[128];

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		const char *const *w = all[i].words;
		int status = RUN("refused", w[0], w[1], w[2], w[3], w[4], w[5],
				 w[6]);

		if (status != all[i].status)
			printf("  refusal %zu: status %d\n", i, status);
		CU_ASSERT_EQUAL(status, all[i].status);
		snprintf(beginning, sizeof(beginning),
			 "avpctl: %s: ", all[i].beginning);
		complained("refused", beginning);
		CU_ASSERT(silent("refused.out"));
	}
	CU_ASSERT(no_names());
}

/* ---- looking on --------------------------------------------------------- */

static bool three_received(void *arg)
{
	struct avp_json_doc *doc;
	bool three;

	(void)arg;
	CU_ASSERT_EQUAL_FATAL(RUN("stat", "stat", "solver"), 0);
	doc = line("stat.out", 0);
	three = case_int(avp_json_root(doc), "received") == 3;
	avp_json_free(doc);
	return three;
}

static void counters_are_shown(void)
{
	static const char *const keys[] = {
		"sent",	      "received",    "acked",	   "rejected",
		"retried",    "redelivered", "duplicates", "dead",
		"in_flight",  "bytes_sent",  "bytes_lent", "bytes_received",
		"late_wakes", "wakes",	     "poisoned",   "links"};
	pid_t solver = start_receiver("solver", NULL, NULL);
	struct avp_json_doc *doc;

	for (int i = 0; i < 3; i++)
		CU_ASSERT_EQUAL(RUN("send", "send", "solver", "--json", "{}",
				    "--wait-ack"),
				0);
	CU_ASSERT(test_wait(three_received, NULL, SECONDS));
	doc = line("stat.out", 0);
	for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++)
		CU_ASSERT_EQUAL(avp_json_type_of(avp_json_get(
					avp_json_root(doc), keys[i])),
				AVP_JSON_INT);
	CU_ASSERT_EQUAL(case_int(avp_json_root(doc), "bytes_received"), 6);
	avp_json_free(doc);
	CU_ASSERT_EQUAL(RUN("top", "top", "--json", "--count", "2",
			    "--interval", "0.1"),
			0);
	doc = line("top.out", 1);
	CU_ASSERT(case_is(
		avp_json_first(avp_json_get(avp_json_root(doc), "agents")),
		"id", "solver"));
	avp_json_free(doc);
	CU_ASSERT_EQUAL(RUN("top", "top", "--count", "1", "--interval", "0.1"),
			0);
	kill(solver, SIGTERM);
	CU_ASSERT_EQUAL(tool_finish(solver), 0);
}

static void doctor_finds(void)
{
	static const char *const names[] = {
		"kernel",     "io_uring",    "event_loop", "peer_death",
		"seals",      "huge_pages",  "memlock",	   "memory",
		"open_files", "runtime_dir", "path"};
	struct avp_json_doc *doc;
	const struct avp_json *f;

	CU_ASSERT_EQUAL(RUN("doctor", "doctor", "--json"), 0);
	doc = line("doctor.out", 0);
	f = avp_json_first(avp_json_get(avp_json_root(doc), "findings"));
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		CU_ASSERT(case_is(f, "name", names[i]));
		CU_ASSERT(case_is(f, "state", "ok") ||
			  case_is(f, "state", "degraded"));
		CU_ASSERT(case_str(f, "text").len > 0);
		CU_ASSERT(case_is(f, "state", "ok") ==
			  !case_str(f, "mend").len);
		f = avp_json_next(f);
	}
	CU_ASSERT_PTR_NULL(f);
	avp_json_free(doc);
	CU_ASSERT_EQUAL(RUN("doctor", "doctor"), 0);
	CU_ASSERT(no_names());
}

/* The text of the finding of that name in doctor.out. */
static bool finding_has(const char *name, const char *state, const char *text)
{
	struct avp_json_doc *doc = tool_answer("doctor");
	const struct avp_json *f =
		avp_json_first(avp_json_get(avp_json_root(doc), "findings"));
	bool has;

	while (f && !case_is(f, "name", name))
		f = avp_json_next(f);
	has = case_is(f, "state", state) &&
	      memmem(case_str(f, "text").data, case_str(f, "text").len, text,
		     strlen(text));
	if (!has)
		printf("  %s: %.*s\n", name, (int)case_str(f, "text").len,
		       case_str(f, "text").data);
	avp_json_free(doc);
	return has;
}

static void doctor_names_what_there_is(void)
{
	const char *forced = getenv("AVP_LOOP");
	char *kept = forced ? strdup(forced) : NULL, *run;

	setenv("AVP_LOOP", "epoll", 1);
	CU_ASSERT_EQUAL(RUN("doctor", "doctor", "--json"), 0);
	CU_ASSERT(finding_has("event_loop", "ok",
			      "epoll, as AVP_LOOP says; doorbells are bytes"));
	CU_ASSERT(finding_has("peer_death", "ok", "SO_PEERPIDFD") ||
		  finding_has("peer_death", "degraded", "SO_PEERPIDFD"));
	if (kept)
		setenv("AVP_LOOP", kept, 1);
	else
		unsetenv("AVP_LOOP");
	free(kept);
	/* Nowhere to meet: told, with the rest of the page. */
	run = strdup(getenv("AVP_RUNTIME_DIR"));
	setenv("AVP_RUNTIME_DIR", "/dev/null", 1);
	CU_ASSERT_EQUAL(RUN("doctor", "doctor", "--json"), 3);
	CU_ASSERT(finding_has("runtime_dir", "broken", "/dev/null"));
	CU_ASSERT(finding_has("path", "broken", ""));
	complained("doctor", "avpctl: doctor: IO: 2 of ");
	setenv("AVP_RUNTIME_DIR", run, 1);
	free(run);
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		TEST(ls_shows_who_is_there),
		TEST(ls_removes_what_the_killed_left),
		TEST(json_arrives_as_it_was),
		TEST(implied_ids),
		TEST(frames_arrive_as_they_were),
		TEST(models_are_told),
		TEST(accepted_only_when_printed),
		TEST(bad_bodies_are_shown_and_rejected),
		TEST(results_are_waited_for),
		TEST(times_run_out),
		TEST(absent_agents_are_waited_for),
		TEST(signals_end_it_cleanly),
		TEST(a_name_is_held_once),
		TEST(refusals_have_codes_and_statuses),
		TEST(counters_are_shown),
		TEST(doctor_finds),
		TEST(doctor_names_what_there_is),
		{0},
	};

	(void)argc;
	tool_begin(argv[0]);
	mkdir(tool_path("run"), 0700);
	setenv("AVP_RUNTIME_DIR", tool_path("run"), 1);
	unsetenv("AVP_NAMESPACE");
	snprintf(agents, sizeof(agents), "%s/default", tool_path("run"));
	return test_main("avpctl_agents", tests);
}
