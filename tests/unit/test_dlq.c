/* SPDX-License-Identifier: Apache-2.0 */
/* The dead letter queue: what is stored is there, whatever happens to it. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <avp/ahp.h>
#include <avp/dlq.h>

#include "ahp/dlq_journal.h"
#include "tests/agents.h"
#include "tests/vectors.h"

#define S(literal) ((struct avp_str){literal, sizeof(literal) - 1})

static struct avp_reason why;

/* ---- helpers ------------------------------------------------------------- */

/* A directory of the test's own below the program's. */
static const char *place(const char *name)
{
	static char path[400];

	snprintf(path, sizeof(path), "%s/%s", test_dir(), name);
	return path;
}

static int open_with(struct ahp_dlq **q, const char *name, uint32_t flags,
		     uint64_t max_bytes)
{
	struct ahp_dlq_options o = {.size = sizeof(o),
				    .flags = flags,
				    .dir = place(name),
				    .name_space = "ns",
				    .max_bytes = max_bytes};
	int err = ahp_dlq_open(q, &o, &why);

	if (err)
		printf("  %s\n", why.text);
	return err;
}

static struct ahp_dlq *open_queue(const char *name)
{
	struct ahp_dlq *q = NULL;

	CU_ASSERT_EQUAL_FATAL(open_with(&q, name, 0, 0), 0);
	return q;
}

static const char *journal_of(const char *name)
{
	static char path[500];

	snprintf(path, sizeof(path), "%s/ns/journal", place(name));
	return path;
}

static int put_with(struct ahp_dlq *q, const char *agent, const char *error,
		    const void *body, uint64_t bytes, uint64_t *ticket)
{
	struct ahp_envelope message = {
		.method = S("TASK"),
		.agent_id = S("leader"),
		.target_agent = avp_str_of(agent),
		.task_id = S("t1"),
		.payload_json = S("{\"a\":[1,2.5,\"x\"]}"),
		.token_limit = 500,
		.timestamp = ahp_time_from_unix_ns(0),
		.message_id = avp_str_of(error),
	};
	struct ahp_dlq_letter letter = {.message = &message,
					.error = avp_str_of(error),
					.code = AVP_RETRY_EXHAUSTED,
					.retry_count = 3,
					.kind = AHP_FRAME,
					.body = body,
					.body_bytes = bytes};

	return ahp_dlq_append(q, &letter, ticket, &why);
}

static int put(struct ahp_dlq *q, const char *agent, const char *error)
{
	return put_with(q, agent, error, NULL, 0, NULL);
}

/* The errors of all letters, in order: "a b c ". */
static const char *errors_of(struct ahp_dlq *q)
{
	static char text[4000];
	struct ahp_dlq_entry e;
	uint64_t after = 0;
	size_t n = 0;

	text[0] = 0;
	while (ahp_dlq_next(q, after, &e, &why) == 1) {
		after = e.number;
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%.*s ",
				      (int)e.error.len, e.error.data);
		ahp_dlq_entry_fini(&e);
	}
	return text;
}

static struct ahp_dlq_info info_of(struct ahp_dlq *q)
{
	struct ahp_dlq_info info = {0};

	CU_ASSERT_EQUAL(ahp_dlq_info(q, &info, &why), 0);
	return info;
}

static struct bytes slurp(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st = {0};
	struct bytes b = {0};

	CU_ASSERT_FATAL(fd >= 0 && !fstat(fd, &st));
	b.len = (size_t)st.st_size;
	b.data = malloc(b.len + 1);
	CU_ASSERT_EQUAL(read(fd, b.data, b.len), (ssize_t)b.len);
	close(fd);
	return b;
}

static void spill(const char *path, const void *data, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	CU_ASSERT_FATAL(fd >= 0);
	CU_ASSERT_EQUAL(write(fd, data, len), (ssize_t)len);
	close(fd);
}

/* ---- what goes in comes out ---------------------------------------------- */

static void round_trip(void)
{
	struct ahp_dlq *q = open_queue("trip");
	struct ahp_dlq_letter alone = {.agent = S("b"),
				       .error = S("bad \xff text"),
				       .code = AVP_TIMEOUT};
	struct ahp_dlq_entry e;
	struct avp_buf buf = {0};
	uint64_t ticket = 0;

	CU_ASSERT_EQUAL(put_with(q, "a", "e1", NULL, 0, &ticket), 0);
	CU_ASSERT_EQUAL(ticket, 1);
	CU_ASSERT_EQUAL(ahp_dlq_stored(q, ticket), 0);
	CU_ASSERT_EQUAL(ahp_dlq_append(q, &alone, &ticket, &why), 0);
	CU_ASSERT_EQUAL(ahp_dlq_commit(q, &why), 0);
	CU_ASSERT_EQUAL(ahp_dlq_stored(q, 1), 1);
	CU_ASSERT_EQUAL(ahp_dlq_stored(q, ticket), 1);
	CU_ASSERT_EQUAL(ahp_dlq_stored(q, ticket + 1), 0);
	ahp_dlq_close(q);

	q = open_queue("trip");
	CU_ASSERT_EQUAL_FATAL(ahp_dlq_get(q, 1, &e, &why), 1);
	CU_ASSERT(e.has_message && avp_str_equal(e.agent, S("a")));
	CU_ASSERT_EQUAL(e.code, AVP_RETRY_EXHAUSTED);
	CU_ASSERT_EQUAL(e.retry_count, 3);
	CU_ASSERT_EQUAL(ahp_envelope_write(&buf, &e.message, AVP_JSON_HTTP), 0);
	CU_ASSERT_STRING_EQUAL(
		buf.data,
		"{\"method\":\"TASK\",\"agent_id\":\"leader\",\"target_agent\":"
		"\"a\",\"task_id\":\"t1\",\"session_id\":\"\",\"payload\":{"
		"\"a\":[1,2.5,\"x\"]},\"token_limit\":500,\"timestamp\":"
		"\"1970-01-01T00:00:00+00:00\",\"message_id\":\"e1\"}");
	ahp_dlq_entry_fini(&e);
	CU_ASSERT_EQUAL_FATAL(ahp_dlq_next(q, 1, &e, &why), 1);
	CU_ASSERT(!e.has_message && e.number == 2);
	CU_ASSERT(avp_str_equal(e.error, S("bad ? text")));
	CU_ASSERT(e.timestamp.year >= 2024);
	CU_ASSERT_EQUAL(ahp_dlq_next(q, 2, &e, &why), 0);
	ahp_dlq_entry_fini(&e);
	avp_buf_fini(&buf);
	ahp_dlq_close(q);
}

/* Entries as the reference has them, through the journal and back. */
static void recorded(void)
{
	uint32_t done = 0;

	for (const struct avp_json *c = vectors_first("ahp_dlq"); c;
	     c = avp_json_next(c))
		for (const struct avp_json *x =
			     avp_json_first(avp_json_get(c, "entries"));
		     x; x = avp_json_next(x)) {
			struct ahp_dlq *q = open_queue("recorded");
			struct ahp_dlq_letter l = {
				.error = case_str(x, "error"),
				.retry_count =
					(uint32_t)case_int(x, "retry_count"),
			};
			struct avp_buf got = {0}, want = {0};
			struct ahp_envelope m;
			struct ahp_dlq_entry e;
			struct avp_json_doc *doc;
			struct avp_json_writer w;

			l.message = &m;
			CASE(c, !ahp_envelope_read(
					&m, avp_json_get(x, "message"), &why));
			CASE(c, !ahp_time_read(&l.timestamp,
					       case_str(x, "timestamp"), &why));
			CASE(c, !ahp_dlq_append(q, &l, NULL, &why));
			CASE(c, ahp_dlq_next(q, done, &e, &why) == 1);
			avp_json_begin(&w, &got, AVP_JSON_PYTHON);
			ahp_dlq_entry_put(&w, &e);
			CASE(c, !avp_json_finish(&w));
			CASE(c, !avp_json_parse(&doc, got.data, got.len, NULL,
						&why));
			for (const struct avp_json *k = avp_json_first(x); k;
			     k = avp_json_next(k)) {
				avp_buf_clear(&got);
				avp_buf_clear(&want);
				avp_json_write(&want, k, AVP_JSON_PYTHON);
				avp_json_write(
					&got,
					avp_json_find(avp_json_root(doc),
						      avp_json_key_of(k)),
					AVP_JSON_PYTHON);
				CASE(c, avp_str_equal(avp_buf_str(&got),
						      avp_buf_str(&want)));
			}
			avp_json_free(doc);
			ahp_dlq_entry_fini(&e);
			avp_buf_fini(&got);
			avp_buf_fini(&want);
			ahp_dlq_close(q);
			done++;
		}
	CU_ASSERT(!vectors_are_ours() || done > 0);
}

static void bodies_are_kept_once(void)
{
	static uint8_t body[100000], back[sizeof(body)];
	struct ahp_dlq *q = open_queue("bodies");
	struct ahp_dlq_entry e;
	uint64_t one, n;

	pattern_fill(body, sizeof(body), 1);
	CU_ASSERT_EQUAL(put_with(q, "a", "x", body, sizeof(body), NULL), 0);
	one = info_of(q).file_bytes;
	for (int i = 0; i < 9; i++)
		CU_ASSERT_EQUAL(put_with(q, "a", "x", body, sizeof(body), NULL),
				0);
	CU_ASSERT(info_of(q).file_bytes < one + 9 * 1000);
	pattern_fill(body, sizeof(body), 2);
	CU_ASSERT_EQUAL(put_with(q, "b", "y", body, sizeof(body), NULL), 0);
	CU_ASSERT(info_of(q).file_bytes > 2 * sizeof(body));
	ahp_dlq_close(q);
	q = open_queue("bodies");
	CU_ASSERT_EQUAL_FATAL(ahp_dlq_get(q, 11, &e, &why), 1);
	CU_ASSERT_EQUAL(e.body_bytes, sizeof(body));
	CU_ASSERT_EQUAL(e.kind, AHP_FRAME);
	CU_ASSERT_EQUAL(ahp_dlq_body(q, &e, back, &why), 0);
	CU_ASSERT(!memcmp(back, body, sizeof(body)));
	ahp_dlq_entry_fini(&e);
	/* The body goes with the last letter that has it. */
	for (uint64_t i = 1; i <= 10; i++)
		CU_ASSERT_EQUAL(ahp_dlq_remove(q, i, &why), 1);
	CU_ASSERT_EQUAL(ahp_dlq_remove(q, 10, &why), 0);
	CU_ASSERT_EQUAL(ahp_dlq_compact(q, &why), 0);
	CU_ASSERT(info_of(q).file_bytes < 2 * sizeof(body));
	CU_ASSERT_EQUAL_FATAL(ahp_dlq_next(q, 0, &e, &why), 1);
	CU_ASSERT_EQUAL(ahp_dlq_body(q, &e, back, &why), 0);
	ahp_dlq_entry_fini(&e);
	CU_ASSERT_EQUAL(ahp_dlq_clear(q, S("nobody"), &n, &why), 0);
	CU_ASSERT_EQUAL(n, 0);
	CU_ASSERT_EQUAL(ahp_dlq_clear(q, S("b"), &n, &why), 0);
	CU_ASSERT_EQUAL(n, 1);
	CU_ASSERT_EQUAL(info_of(q).file_bytes, 64);
	/* Numbers are never used again. */
	CU_ASSERT_EQUAL(put(q, "a", "z"), 0);
	CU_ASSERT_EQUAL_FATAL(ahp_dlq_next(q, 0, &e, &why), 1);
	CU_ASSERT_EQUAL(e.number, 12);
	ahp_dlq_entry_fini(&e);
	ahp_dlq_close(q);
}

static void clear_by_agent(void)
{
	struct ahp_dlq *q = open_queue("clear");
	uint64_t n = 0;

	put(q, "a", "1");
	put(q, "b", "2");
	put(q, "a", "3");
	put(q, "b", "4");
	CU_ASSERT_EQUAL(ahp_dlq_clear(q, S("a"), &n, &why), 0);
	CU_ASSERT_EQUAL(n, 2);
	CU_ASSERT_STRING_EQUAL(errors_of(q), "2 4 ");
	put(q, "a", "5");
	CU_ASSERT_STRING_EQUAL(errors_of(q), "2 4 5 ");
	ahp_dlq_close(q);
	q = open_queue("clear");
	CU_ASSERT_STRING_EQUAL(errors_of(q), "2 4 5 ");
	CU_ASSERT_EQUAL(ahp_dlq_clear(q, S(""), &n, &why), 0);
	CU_ASSERT_EQUAL(n, 3);
	CU_ASSERT_STRING_EQUAL(errors_of(q), "");
	ahp_dlq_close(q);
}

/* ---- damage -------------------------------------------------------------- */

/* Where each letter's record ends, by the sizes that were seen. */
#define LETTERS 5

static struct bytes sample(const char *name, uint64_t ends[LETTERS + 1])
{
	struct ahp_dlq *q = open_queue(name);
	char error[8] = "0", body[300];

	ends[0] = info_of(q).file_bytes;
	memset(body, 'b', sizeof(body));
	for (int i = 0; i < LETTERS; i++) {
		error[0] = (char)('0' + i);
		body[0] = error[0];
		CU_ASSERT_EQUAL(put_with(q, "a", error, body,
					 i % 2 ? sizeof(body) : 0, NULL),
				0);
		ends[i + 1] = info_of(q).file_bytes;
	}
	CU_ASSERT_EQUAL(ahp_dlq_commit(q, &why), 0);
	ahp_dlq_close(q);
	return slurp(journal_of(name));
}

static uint64_t size_of(const char *path)
{
	struct stat st = {0};

	CU_ASSERT_EQUAL(stat(path, &st), 0);
	return (uint64_t)st.st_size;
}

static void cut_at_every_byte(void)
{
	uint64_t ends[LETTERS + 1];
	struct bytes whole = sample("cut", ends);
	const char all[] = "0 1 2 3 4 ";
	char want[20];

	for (size_t len = 0; len <= whole.len; len++) {
		struct ahp_dlq *q;
		int kept = 0;

		while (kept < LETTERS && ends[kept + 1] <= len)
			kept++;
		spill(journal_of("cut"), whole.data, len);
		q = open_queue("cut");
		snprintf(want, sizeof(want), "%.*s", 2 * kept, all);
		CU_ASSERT_STRING_EQUAL(errors_of(q), want);
		CU_ASSERT_EQUAL(put(q, "a", "new"), 0);
		snprintf(want, sizeof(want), "%.*snew ", 2 * kept, all);
		CU_ASSERT_STRING_EQUAL(errors_of(q), want);
		ahp_dlq_close(q);
		q = open_queue("cut");
		CU_ASSERT_STRING_EQUAL(errors_of(q), want);
		CU_ASSERT_EQUAL(size_of(journal_of("cut")),
				info_of(q).file_bytes);
		CU_ASSERT_EQUAL(info_of(q).damaged, 0);
		ahp_dlq_close(q);
	}
	bytes_free(&whole);
}

/* One byte that is wrong costs the letter that it belongs to, and no other. */
static void changed_at_every_byte(void)
{
	uint64_t ends[LETTERS + 1];
	struct bytes whole = sample("changed", ends);
	const char all[] = "0 1 2 3 4 ";

	for (size_t at = ends[0]; at < whole.len; at++) {
		char want[20] = "";
		struct ahp_dlq *q;
		int hit = 0;

		while (ends[hit + 1] <= at)
			hit++;
		whole.data[at] ^= 0x10;
		spill(journal_of("changed"), whole.data, whole.len);
		whole.data[at] ^= 0x10;
		q = open_queue("changed");
		snprintf(want, sizeof(want), "%.*s%s", 2 * hit, all,
			 all + 2 * hit + 2);
		/* A letter whose body is damaged is there, without it. */
		if (strcmp(errors_of(q), all) != 0)
			CU_ASSERT_STRING_EQUAL(errors_of(q), want);
		if (!strcmp(errors_of(q), all)) {
			struct ahp_dlq_entry e;

			CU_ASSERT_EQUAL(
				ahp_dlq_get(q, (uint64_t)hit + 1, &e, &why), 1);
			CU_ASSERT(e.body_lost);
			ahp_dlq_entry_fini(&e);
		}
		ahp_dlq_close(q);
	}
	bytes_free(&whole);
}

static void not_a_journal(void)
{
	struct ahp_dlq *q = open_queue("strange");
	struct ahp_dlq_options o = {
		.size = sizeof(o), .dir = place("strange"), .name_space = "ns"};
	struct bytes whole;

	put(q, "a", "1");
	ahp_dlq_close(q);
	whole = slurp(journal_of("strange"));
	whole.data[8] = 9;
	spill(journal_of("strange"), whole.data, whole.len);
	CU_ASSERT_EQUAL(ahp_dlq_open(&q, &o, &why), AVP_DESERIALIZATION_ERROR);
	spill(journal_of("strange"), "hello", 5);
	CU_ASSERT_EQUAL(ahp_dlq_open(&q, &o, &why), AVP_DESERIALIZATION_ERROR);
	CU_ASSERT(strstr(why.text, "move it away") != NULL);
	/* What is not ours stays as it is. */
	bytes_free(&whole);
	whole = slurp(journal_of("strange"));
	CU_ASSERT_EQUAL(whole.len, 5);
	bytes_free(&whole);
	unlink(journal_of("strange"));
	CU_ASSERT_EQUAL(symlink("/dev/null", journal_of("strange")), 0);
	CU_ASSERT_EQUAL(ahp_dlq_open(&q, &o, &why), AVP_PERMISSION);
	unlink(journal_of("strange"));
	CU_ASSERT_EQUAL(mkfifo(journal_of("strange"), 0600), 0);
	CU_ASSERT_EQUAL(ahp_dlq_open(&q, &o, &why), AVP_PERMISSION);
}

/* ---- the bound ----------------------------------------------------------- */

static void refuses_at_the_bound(void)
{
	static uint8_t body[70000];
	struct ahp_dlq *q = NULL;
	struct ahp_dlq_entry e;
	uint64_t count = 0, n;
	int err;

	CU_ASSERT_EQUAL_FATAL(open_with(&q, "bound", 0, 65536), 0);
	while (!(err = put(q, "a", "e")))
		count++;
	CU_ASSERT_EQUAL(err, AVP_QUEUE_FULL);
	CU_ASSERT(strstr(why.text, "max_bytes 65536") != NULL);
	CU_ASSERT(count > 50 && info_of(q).entries == count);
	CU_ASSERT(info_of(q).file_bytes <= 65536);
	CU_ASSERT_EQUAL(put_with(q, "a", "e", body, sizeof(body), NULL),
			AVP_TOO_LARGE);
	/* One that goes makes room for one that comes, again and again. */
	for (uint64_t i = 1; i <= 3 * count; i++) {
		CU_ASSERT_EQUAL(ahp_dlq_remove(q, i, &why), 1);
		CU_ASSERT_EQUAL(put(q, "a", "e"), 0);
		CU_ASSERT(info_of(q).file_bytes <= 65536 * 5 / 4 + 32);
	}
	CU_ASSERT_EQUAL(info_of(q).entries, count);
	CU_ASSERT_EQUAL(ahp_dlq_next(q, 0, &e, &why), 1);
	CU_ASSERT_EQUAL(e.number, 3 * count + 1);
	ahp_dlq_entry_fini(&e);
	CU_ASSERT_EQUAL(ahp_dlq_clear(q, S("a"), &n, &why), 0);
	CU_ASSERT_EQUAL(n, count);
	ahp_dlq_close(q);
}

static void drops_the_oldest_if_asked(void)
{
	struct ahp_dlq *q = NULL;
	struct ahp_dlq_info info;
	struct ahp_dlq_entry e;

	CU_ASSERT_EQUAL_FATAL(open_with(&q, "drop", AHP_DLQ_DROP_OLDEST, 65536),
			      0);
	for (int i = 1; i <= 2000; i++)
		CU_ASSERT_EQUAL(put(q, "a", "e"), 0);
	info = info_of(q);
	CU_ASSERT_EQUAL(info.entries + info.dropped, 2000);
	CU_ASSERT(info.bytes <= 65536 && info.dropped > 1000);
	CU_ASSERT_EQUAL(ahp_dlq_next(q, 0, &e, &why), 1);
	CU_ASSERT_EQUAL(e.number, info.dropped + 1);
	ahp_dlq_entry_fini(&e);
	ahp_dlq_close(q);
}

static void bad_letters(void)
{
	struct ahp_dlq *q = open_queue("bad");
	struct ahp_envelope m = {.method = S("TASK"),
				 .payload_json = S("{\"a\":")};
	struct ahp_dlq_letter l = {.message = &m};
	struct ahp_dlq_options o = {.size = 8};
	struct ahp_dlq *none = NULL;

	CU_ASSERT_EQUAL(ahp_dlq_append(q, &l, NULL, &why), AVP_INVALID_MESSAGE);
	m.payload_json = S("[]");
	CU_ASSERT_EQUAL(ahp_dlq_append(q, &l, NULL, &why), AVP_INVALID_MESSAGE);
	m.payload_json = S("");
	m.task_id = S("\xff");
	CU_ASSERT_EQUAL(ahp_dlq_append(q, &l, NULL, &why),
			AVP_SERIALIZATION_ERROR);
	CU_ASSERT_EQUAL(info_of(q).file_bytes, 64);
	CU_ASSERT_EQUAL(ahp_dlq_open(&none, &o, &why), AVP_USAGE);
	o = (struct ahp_dlq_options){.size = sizeof(o), .max_bytes = 1};
	CU_ASSERT_EQUAL(ahp_dlq_open(&none, &o, &why), AVP_USAGE);
	o = (struct ahp_dlq_options){.reserved = {0, 1}};
	CU_ASSERT_EQUAL(ahp_dlq_open(&none, &o, &why), AVP_USAGE);
	o = (struct ahp_dlq_options){.flags = 4};
	CU_ASSERT_EQUAL(ahp_dlq_open(&none, &o, &why), AVP_USAGE);
	/* Without a size: up to its name it is good. */
	o = (struct ahp_dlq_options){.name_space = "../x"};
	CU_ASSERT_EQUAL(ahp_dlq_open(&none, &o, &why), AVP_USAGE);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "../x"));
	ahp_dlq_close(q);
}

/* ---- directories --------------------------------------------------------- */

static void directories(void)
{
	struct ahp_dlq *q = NULL;
	struct ahp_dlq_entry e;
	struct stat st;
	char path[600];

	/* Looking makes nothing. */
	CU_ASSERT_EQUAL_FATAL(open_with(&q, "d/e/f", AHP_DLQ_READ_ONLY, 0), 0);
	CU_ASSERT_EQUAL(ahp_dlq_next(q, 0, &e, &why), 0);
	CU_ASSERT_EQUAL(put(q, "a", "1"), AVP_USAGE);
	ahp_dlq_close(q);
	CU_ASSERT(stat(place("d"), &st) != 0);
	CU_ASSERT_EQUAL_FATAL(open_with(&q, "d/e/f", 0, 0), 0);
	CU_ASSERT_EQUAL(put(q, "a", "1"), 0);
	ahp_dlq_close(q);
	CU_ASSERT(!stat(place("d/e/f/ns"), &st) && (st.st_mode & 0777) == 0700);
	CU_ASSERT(!stat(journal_of("d/e/f"), &st) &&
		  (st.st_mode & 0777) == 0600);
	CU_ASSERT_EQUAL_FATAL(open_with(&q, "d/e/f", AHP_DLQ_READ_ONLY, 0), 0);
	CU_ASSERT_STRING_EQUAL(errors_of(q), "1 ");
	ahp_dlq_close(q);
	/* Others could plant letters; a link could lead anywhere. */
	chmod(place("d/e/f/ns"), 0777);
	CU_ASSERT_EQUAL(open_with(&q, "d/e/f", 0, 0), AVP_PERMISSION);
	chmod(place("d/e/f/ns"), 0700);
	snprintf(path, sizeof(path), "%s", place("d/ns"));
	CU_ASSERT_EQUAL(symlink("e/f/ns", path), 0);
	CU_ASSERT(open_with(&q, "d", 0, 0) != 0);
	spill(place("d/file"), "", 0);
	CU_ASSERT(open_with(&q, "d/file", 0, 0) != 0);
	/* What no queue has made is named, and what to do with it. */
	mkdir(place("g"), 0700), mkdir(place("g/ns"), 0700);
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s",
			 place(i ? "g/ns/journal" : "g/ns/.lock"));
		CU_ASSERT_EQUAL(mkdir(path, 0700), 0);
		CU_ASSERT_EQUAL(open_with(&q, "g", 0, 0), AVP_IO);
		CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "is a directory, "));
		CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "; remove it"));
		rmdir(path);
	}
}

static void default_directory(void)
{
	char path[300];

	unsetenv("AVP_NAMESPACE");
	setenv("XDG_STATE_HOME", "/x/state", 1);
	CU_ASSERT(ahp_dlq_dir(NULL, NULL, path, sizeof(path), &why) > 0);
	CU_ASSERT_STRING_EQUAL(path, "/x/state/avp/dlq/default");
	setenv("AVP_NAMESPACE", "blue", 1);
	unsetenv("XDG_STATE_HOME");
	setenv("HOME", "/home/me", 1);
	CU_ASSERT(ahp_dlq_dir(NULL, NULL, path, sizeof(path), &why) > 0);
	CU_ASSERT_STRING_EQUAL(path, "/home/me/.local/state/avp/dlq/blue");
	CU_ASSERT(ahp_dlq_dir("/d", "n", path, sizeof(path), &why) > 0);
	CU_ASSERT_STRING_EQUAL(path, "/d/n");
	CU_ASSERT_EQUAL(ahp_dlq_dir("/d", "n", path, 3, &why), AVP_USAGE);
	unsetenv("AVP_NAMESPACE");
}

/* A disk that is full, by a limit of this process that is lifted again. */
static void full_disk(void)
{
	struct ahp_dlq *q = open_queue("full");
	struct rlimit old, small;
	uint64_t n;

	put(q, "a", "1");
	getrlimit(RLIMIT_FSIZE, &old);
	small = old;
	small.rlim_cur = info_of(q).file_bytes + 100;
	setrlimit(RLIMIT_FSIZE, &small);
	CU_ASSERT_EQUAL(put(q, "a", "2"), AVP_IO);
	CU_ASSERT(strstr(why.text, "File too large") != NULL);
	CU_ASSERT_EQUAL(ahp_dlq_commit(q, &why), 0);
	CU_ASSERT_STRING_EQUAL(errors_of(q), "1 ");
	setrlimit(RLIMIT_FSIZE, &old);
	CU_ASSERT_EQUAL(put(q, "a", "3"), 0);
	CU_ASSERT_STRING_EQUAL(errors_of(q), "1 3 ");
	/* Rewriting that fails leaves the old one. */
	small.rlim_cur = 100;
	setrlimit(RLIMIT_FSIZE, &small);
	CU_ASSERT_EQUAL(ahp_dlq_compact(q, &why), AVP_IO);
	CU_ASSERT_STRING_EQUAL(errors_of(q), "1 3 ");
	/* Clearing works where nothing else does. */
	CU_ASSERT_EQUAL(ahp_dlq_clear(q, S(""), &n, &why), 0);
	CU_ASSERT_EQUAL(n, 2);
	setrlimit(RLIMIT_FSIZE, &old);
	CU_ASSERT_EQUAL(put(q, "a", "4"), 0);
	CU_ASSERT_STRING_EQUAL(errors_of(q), "4 ");
	ahp_dlq_close(q);
}

/* ---- replay -------------------------------------------------------------- */

static void replay_json(void)
{
	struct ahp_dlq *q = open_queue("replay"), *other = open_queue("replay");
	struct ahp_dlq_replay r, again;
	struct ahp_dlq_letter alone = {.error = S("no message")};
	char text[200] = "";

	put(q, "a", "old-id");
	ahp_dlq_append(q, &alone, NULL, &why);
	CU_ASSERT_EQUAL(ahp_dlq_replay_begin(q, 7, &r, &why), 0);
	CU_ASSERT_EQUAL(ahp_dlq_replay_begin(q, 2, &r, &why),
			AVP_INVALID_MESSAGE);
	CU_ASSERT_EQUAL_FATAL(ahp_dlq_replay_begin(q, 1, &r, &why), 1);
	CU_ASSERT_EQUAL(ahp_dlq_replay_begin(other, 1, &again, &why),
			AVP_AGAIN);
	CU_ASSERT(r.kind == AHP_JSON && r.method == AHP_TASK);
	CU_ASSERT(r.body_bytes < sizeof(text));
	CU_ASSERT_EQUAL(ahp_dlq_replay_read(q, &r, text, &why), 0);
	CU_ASSERT_STRING_EQUAL(
		text, "{\"a\":[1,2.5,\"x\"],\"replay_of\":\"old-id\"}");
	/* Not sent: it stays, and is free for others. */
	CU_ASSERT_EQUAL(ahp_dlq_replay_end(q, &r, false, &why), 0);
	CU_ASSERT_EQUAL_FATAL(ahp_dlq_replay_begin(other, 1, &again, &why), 1);
	CU_ASSERT_EQUAL(ahp_dlq_replay_end(other, &again, true, &why), 0);
	CU_ASSERT_EQUAL(ahp_dlq_replay_begin(q, 1, &r, &why), 0);
	CU_ASSERT_STRING_EQUAL(errors_of(q), "no message ");
	ahp_dlq_close(other);
	ahp_dlq_close(q);
}

static void replay_frame(void)
{
	static const uint8_t payload[] = "tensor bytes";
	struct avp_pair extra[] = {{S("k"), S("v")}};
	struct avp_metadata m = {.model_id = S("bench"),
				 .hidden_dim = 3,
				 .extra_count = 1,
				 .extra = extra};
	struct ahp_dlq *q = open_queue("frames");
	struct ahp_dlq_replay r;
	struct avp_frame frame;
	struct avp_str value;
	uint8_t bytes[400], out[600];
	uint64_t len = 0;

	CU_ASSERT_EQUAL(avp_frame_encode(&m, AVP_DIALECT_0_2, payload,
					 sizeof(payload), bytes, sizeof(bytes),
					 &len, &why),
			0);
	CU_ASSERT_EQUAL(put_with(q, "a", "old-id", bytes, len, NULL), 0);
	CU_ASSERT_EQUAL(put_with(q, "a", "old-id", "AV", 2, NULL), 0);
	CU_ASSERT_EQUAL_FATAL(ahp_dlq_replay_begin(q, 1, &r, &why), 1);
	CU_ASSERT_FATAL(r.kind == AHP_FRAME && r.body_bytes <= sizeof(out));
	CU_ASSERT_EQUAL(ahp_dlq_replay_read(q, &r, out, &why), 0);
	CU_ASSERT_EQUAL(avp_frame_decode(out, r.body_bytes, &frame, &why), 0);
	CU_ASSERT_EQUAL(frame.payload_bytes, sizeof(payload));
	CU_ASSERT_EQUAL(frame.payload_off, r.tensor_off);
	CU_ASSERT(!memcmp(frame.payload, payload, sizeof(payload)));
	CU_ASSERT_EQUAL(frame.metadata.hidden_dim, 3);
	CU_ASSERT_EQUAL(
		avp_metadata_extra_get(&frame.metadata, S("replay_of"), &value),
		1);
	CU_ASSERT(avp_str_equal(value, S("old-id")));
	CU_ASSERT_EQUAL(avp_metadata_extra_get(&frame.metadata, S("k"), &value),
			1);
	CU_ASSERT_EQUAL(ahp_dlq_replay_end(q, &r, true, &why), 0);
	CU_ASSERT_EQUAL(ahp_dlq_replay_begin(q, 2, &r, &why),
			AVP_INVALID_MESSAGE);
	ahp_dlq_close(q);
}

/* ---- processes ----------------------------------------------------------- */

#define PROCESSES 4
#define EACH	  200

struct shared {
	_Atomic uint32_t finished;
};

static void append_many(void *arg)
{
	struct shared *s = arg;
	struct ahp_dlq *q = NULL;
	char error[32];

	CHECK(!open_with(&q, "many", 0, 0));
	for (int i = 0; i < EACH; i++) {
		uint64_t ticket = 0;

		snprintf(error, sizeof(error), "%d:%d", (int)getpid(), i);
		CHECK(!put_with(q, "a", error, error, 5, &ticket));
		if (i % 20 == 19) {
			CHECK(!ahp_dlq_commit(q, &why));
			CHECK(ahp_dlq_stored(q, ticket));
		}
	}
	ahp_dlq_close(q);
	s->finished++;
}

static void compact_meanwhile(void *arg)
{
	struct shared *s = arg;
	struct ahp_dlq *q = NULL;
	struct ahp_dlq_entry e;
	unsigned rounds = 0;

	CHECK(!open_with(&q, "many", 0, 0));
	while (s->finished < PROCESSES || !rounds) {
		CHECK(!ahp_dlq_compact(q, &why));
		for (uint64_t n = 0; ahp_dlq_next(q, n, &e, &why) == 1;) {
			n = e.number;
			ahp_dlq_entry_fini(&e);
		}
		rounds++;
	}
	ahp_dlq_close(q);
}

static void many_processes(void)
{
	struct shared *s = shared_new(sizeof(*s));
	pid_t pids[PROCESSES + 1];
	struct ahp_dlq *q;
	struct ahp_dlq_entry e;
	int next[PROCESSES] = {0}, count = 0;

	for (int i = 0; i < PROCESSES; i++)
		pids[i] = child_start(append_many, s);
	pids[PROCESSES] = child_start(compact_meanwhile, s);
	for (int i = 0; i <= PROCESSES; i++)
		child_finish(pids[i]);
	q = open_queue("many");
	/* Everybody's letters, each one's in its order, none twice. */
	for (uint64_t n = 0; ahp_dlq_next(q, n, &e, &why) == 1; count++) {
		int pid = 0, i = -1;

		n = e.number;
		CU_ASSERT_EQUAL(sscanf(e.error.data, "%d:%d", &pid, &i), 2);
		CU_ASSERT_EQUAL(e.body_bytes, 5);
		for (int p = 0; p < PROCESSES; p++)
			if (pids[p] == pid)
				CU_ASSERT_EQUAL(next[p]++, i);
		ahp_dlq_entry_fini(&e);
	}
	CU_ASSERT_EQUAL(count, PROCESSES * EACH);
	CU_ASSERT_EQUAL(info_of(q).damaged, 0);
	ahp_dlq_close(q);
	shared_free(s, sizeof(*s));
}

static void forked_child(void)
{
	struct ahp_dlq *q = open_queue("forked");
	struct ahp_dlq_entry e;
	int status = -1;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		bool told = put(q, "a", "1") == AVP_FORKED &&
			    ahp_dlq_commit(q, &why) == AVP_FORKED &&
			    ahp_dlq_next(q, 0, &e, &why) == AVP_FORKED;

		ahp_dlq_close(q);
		_exit(told ? 0 : 1);
	}
	waitpid(pid, &status, 0);
	CU_ASSERT_EQUAL(status, 0);
	CU_ASSERT_EQUAL(put(q, "a", "2"), 0);
	ahp_dlq_close(q);
}

/* Somebody has removed the files: what was not committed is not "stored". */
static void removed_under_us(void)
{
	struct ahp_dlq *q = open_queue("removed");
	uint64_t ticket = 0;

	CU_ASSERT_EQUAL(put_with(q, "a", "1", NULL, 0, &ticket), 0);
	unlink(journal_of("removed"));
	CU_ASSERT_EQUAL(ahp_dlq_commit(q, &why), AVP_IO);
	CU_ASSERT_EQUAL(ahp_dlq_stored(q, ticket), 0);
	CU_ASSERT_EQUAL(put(q, "a", "2"), AVP_IO);
	ahp_dlq_close(q);
	q = open_queue("removed");
	CU_ASSERT_EQUAL(put(q, "a", "3"), 0);
	CU_ASSERT_STRING_EQUAL(errors_of(q), "3 ");
	ahp_dlq_close(q);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(round_trip),
		TEST(recorded),
		TEST(bodies_are_kept_once),
		TEST(clear_by_agent),
		TEST(cut_at_every_byte),
		TEST(changed_at_every_byte),
		TEST(not_a_journal),
		TEST(refuses_at_the_bound),
		TEST(drops_the_oldest_if_asked),
		TEST(bad_letters),
		TEST(directories),
		TEST(default_directory),
		TEST(full_disk),
		TEST(replay_json),
		TEST(replay_frame),
		TEST(many_processes),
		TEST(forked_child),
		TEST(removed_under_us),
		{0},
	};

	return test_main("dlq", tests);
}
