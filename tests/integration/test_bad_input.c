/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What should not be there: JSON that is none, ids, times and numbers that make
 * no sense, and a directory for dead letters that is full or read-only. Each
 * has a code of its own, the next good message gets through, and nothing that
 * was stored is lost.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <avp/dlq.h>
#include <avp/leader.h>

#include "tests/agents.h"
#include "tests/harness.h"

static struct avp_reason why;

/* ---- messages as JSON --------------------------------------------------- */

/* The code for reading an envelope of that text; JSON that is none has its
 * own. */
static int read_message(const char *text, size_t len)
{
	struct ahp_envelope m;
	struct avp_json_doc *doc;
	int error = avp_json_parse(&doc, text, len, NULL, &why);

	if (error)
		return error;
	error = ahp_envelope_read(&m, avp_json_root(doc), &why);
	avp_json_free(doc);
	return error;
}

static void messages(void)
{
	static const struct {
		const char *text;
		int code;
		const char *names; /* a word of the reason */
	} bad[] = {
		{"", AVP_BAD_JSON, ""},
		{"TASK", AVP_BAD_JSON, ""},
		{"{\"method\": \"TASK\"", AVP_BAD_JSON, ""},
		{"{\"method\": \"\xff\xfe\"}", AVP_BAD_JSON, ""},
		{"[]", AVP_INVALID_MESSAGE, "object"},
		{"{\"method\": 7}", AVP_INVALID_MESSAGE, "method"},
		{"{\"method\": \"TASK\", \"payload\": \"text\"}",
		 AVP_INVALID_MESSAGE, "payload"},
		{"{\"method\": \"TASK\", \"payload\": [1]}",
		 AVP_INVALID_MESSAGE, "payload"},
		{"{\"method\": \"TASK\", \"token_limit\": -1}",
		 AVP_INVALID_MESSAGE, "token_limit"},
		{"{\"method\": \"TASK\", \"token_limit\": 1e400}",
		 AVP_INVALID_MESSAGE, "token_limit"},
		{"{\"method\": \"TASK\", \"token_limit\": "
		 "99999999999999999999}",
		 AVP_INVALID_MESSAGE, "token_limit"},
		{"{\"method\": \"TASK\", \"timestamp\": \"yesterday\"}",
		 AVP_INVALID_MESSAGE, "yesterday"},
		{"{\"method\": \"TASK\", \"timestamp\": "
		 "\"2025-02-30T00:00:00\"}",
		 AVP_INVALID_MESSAGE, "2025-02-30"},
		{"{\"method\": \"TASK\", \"timestamp\": 12}",
		 AVP_INVALID_MESSAGE, "timestamp"},
		{"{\"method\": \"TASK\", \"task_id\": {}}", AVP_INVALID_MESSAGE,
		 "task_id"},
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		int code = read_message(bad[i].text, strlen(bad[i].text));

		if (code != bad[i].code || !strstr(why.text, bad[i].names)) {
			printf("  %s: %s: %s\n", bad[i].text,
			       avp_error_name(code), why.text);
			CU_FAIL("another code or reason");
		}
	}
}

/* Ids of a megabyte are read, where they are only text, and fit no slot. */
static void huge_ids(void)
{
	static char text[(1 << 20) + 100], id[1 << 20];
	struct ahp_agent *a = agent_open("a", NULL), *b = agent_open("b", NULL);
	struct ahp_outgoing out = {.target = "b", .method = AHP_TASK};
	uint8_t bytes[16], same[16];
	int n;

	memset(id, 'i', sizeof(id) - 1);
	n = snprintf(text, sizeof(text),
		     "{\"method\": \"TASK\", \"message_id\": \"%s\"}", id);
	CU_ASSERT_EQUAL(read_message(text, (size_t)n), 0);
	CU_ASSERT_EQUAL(ahp_id_read(bytes, avp_str_of(id)), 0);
	CU_ASSERT_EQUAL(ahp_id_read(same, avp_str_of(id)), 0);
	CU_ASSERT(!memcmp(bytes, same, sizeof(bytes)));
	agents_link(a, b);
	out.task_id = avp_str_of(id);
	CU_ASSERT_EQUAL(ahp_send(a, &out, 0, NULL, &why), AVP_INVALID_MESSAGE);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "1048575"));
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "80"));
	out.task_id = (struct avp_str){"t", 1};
	out.target = id;
	CU_ASSERT(ahp_send(a, &out, 0, NULL, &why) < 0);
	CU_ASSERT_EQUAL(agent_say(a, "b", "{}", NULL), 0);
	CU_ASSERT(agent_hears(b, "{}"));
	ahp_agent_close(b);
	ahp_agent_close(a);
}

/* ---- a leader and what it is sent --------------------------------------- */

/* What asks for no sensible number of tokens gets none, and is told. */
static void token_requests(void)
{
	static const struct avp_str bad[] = {
		{"", 0},
		{"tokens, please", 14},
		{"{\"tokens\": -5}", 14},
		{"{\"tokens\": 1e300}", 17},
		{"{\"tokens\": 99999999999999999999999}", 35},
		{"{\"tokens\": \"7\"}", 15},
		{"[7]", 3},
		{"{\"tokens\": \"\xc3\x28\"}", 16},
	};
	struct ahp_leader_options options = {.size = sizeof(options)};
	struct ahp_agent *a = agent_open("a", NULL), *b = agent_open("b", NULL);
	struct avp_str b_id = {"b", 1};
	struct ahp_leader *leader;
	struct ahp_news news;

	CU_ASSERT_EQUAL(ahp_tokens_new(&options.tokens, -1, &why),
			AVP_INVALID_MESSAGE);
	CU_ASSERT_EQUAL_FATAL(ahp_tokens_new(&options.tokens, 500, NULL), 0);
	CU_ASSERT_EQUAL(ahp_tokens_set_limit(options.tokens, b_id, -1, &why),
			AVP_INVALID_MESSAGE);
	agents_link(a, b);
	CU_ASSERT_EQUAL_FATAL(ahp_leader_open(&leader, a, &options, NULL), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		struct ahp_outgoing ask = {.target = "a",
					   .method = AHP_TOKEN_REQUEST,
					   .task_id = {"t", 1},
					   .body = bad[i].data,
					   .body_bytes = bad[i].len};

		CU_ASSERT_EQUAL(ahp_send(b, &ask, 0, NULL, NULL), 0);
		CU_ASSERT_EQUAL(ahp_leader_next(leader, &news, 0), AVP_TIMEOUT);
		CU_ASSERT(agent_hears(b, "{\"tokens\":0,\"remaining\":500}"));
		CU_ASSERT_EQUAL(ahp_tokens_remaining(options.tokens, b_id),
				500);
	}
	ahp_leader_close(leader);
	ahp_agent_close(b);
	ahp_agent_close(a);
	ahp_tokens_free(options.tokens);
}

/* ---- places for dead letters -------------------------------------------- */

static char place[400];

static bool write_to(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool done = fd >= 0 && write(fd, text, strlen(text)) > 0;

	if (fd >= 0)
		close(fd);
	return done;
}

/* A tmpfs of that many bytes, in name spaces of our own. */
static bool mount_small(const char *options)
{
	char users[40], groups[40];

	snprintf(users, sizeof(users), "0 %u 1", getuid());
	snprintf(groups, sizeof(groups), "0 %u 1", getgid());
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS))
		return false;
	write_to("/proc/self/setgroups", "deny");
	return write_to("/proc/self/uid_map", users) &&
	       write_to("/proc/self/gid_map", groups) &&
	       !mount("none", place, "tmpfs", 0, options);
}

static struct ahp_dlq *open_queue(int expected)
{
	struct ahp_dlq_options o = {
		.size = sizeof(o), .dir = place, .name_space = "ns"};
	struct ahp_dlq *q = NULL;
	int error = ahp_dlq_open(&q, &o, &why);

	if (error != expected)
		fprintf(stderr, "%s: %s\n", avp_error_name(error), why.text);
	CHECK(error == expected);
	return q;
}

static int put(struct ahp_dlq *q, uint64_t *ticket)
{
	static char body[4096];
	struct ahp_dlq_letter l = {
		.agent = {"a", 1}, .body = body, .body_bytes = sizeof(body)};

	body[0]++; /* bodies that are the same are kept once */
	return ahp_dlq_append(q, &l, ticket, &why);
}

static uint64_t count(struct ahp_dlq *q)
{
	struct ahp_dlq_info info;

	CHECK(!ahp_dlq_info(q, &info, NULL));
	return info.entries;
}

/* Stores what there is room for, loses nothing of it, and can be emptied. */
static void run_full(void *arg)
{
	uint64_t stored = 0, cleared, ticket;
	struct ahp_dlq *q;
	int error;

	(void)arg;
	if (!mount_small("size=128k"))
		_exit(77);
	q = open_queue(0);
	while (!(error = put(q, &ticket))) {
		CHECK(!ahp_dlq_commit(q, &why));
		CHECK(ahp_dlq_stored(q, ticket));
		stored++;
	}
	CHECK(error == AVP_IO);
	CHECK(strstr(why.text, "No space left"));
	CHECK(stored > 10 && count(q) == stored);
	ahp_dlq_close(q);
	q = open_queue(0);
	CHECK(count(q) == stored);
	CHECK(!ahp_dlq_clear(q, avp_str_of(""), &cleared, &why));
	CHECK(cleared == stored);
	CHECK(!put(q, NULL));
	ahp_dlq_close(q);
}

/* Read-only: refused with the reason; what is there can be looked at. */
static void run_read_only(void *arg)
{
	struct ahp_dlq_options look = {.size = sizeof(look),
				       .flags = AHP_DLQ_READ_ONLY,
				       .dir = place,
				       .name_space = "ns"};
	struct ahp_dlq *q, *open_before;

	(void)arg;
	if (!mount_small("size=1m"))
		_exit(77);
	q = open_queue(0);
	CHECK(!put(q, NULL) && !ahp_dlq_commit(q, &why));
	ahp_dlq_close(q);
	CHECK(!mount(NULL, place, NULL, MS_REMOUNT | MS_RDONLY, NULL));
	open_queue(AVP_PERMISSION);
	CHECK(strstr(why.text, "Read-only file system"));
	CHECK(!ahp_dlq_open(&open_before, &look, &why));
	CHECK(count(open_before) == 1);
	CHECK(put(open_before, NULL) == AVP_USAGE);
	ahp_dlq_close(open_before);
}

static void in_a_child(const char *name, void (*run)(void *))
{
	pid_t pid;
	int status;

	snprintf(place, sizeof(place), "%s/%s", test_dir(), name);
	CU_ASSERT_EQUAL_FATAL(mkdir(place, 0700), 0);
	pid = child_start(run, NULL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		continue;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		printf("skip bad_input.%s: no user name spaces here\n", name);
	else
		CU_ASSERT_EQUAL(status, 0);
}

static void full_disk(void)
{
	in_a_child("full_disk", run_full);
}

static void read_only(void)
{
	in_a_child("read_only", run_read_only);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(messages),	 TEST(huge_ids),  TEST(token_requests),
		TEST(full_disk), TEST(read_only), {0},
	};

	agents_begin();
	return test_main("bad_input", tests);
}
