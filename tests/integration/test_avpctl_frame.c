/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl frame, run as a script would: outputs, exit statuses, messages. */
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <avp/codec.h>

#include "tests/vectors.h"

extern char **environ;

static char avpctl[4096]; /* beside this program's build */

static const char *path(const char *name)
{
	static char buf[4][4096];
	static int i;

	i = (i + 1) % 4;
	snprintf(buf[i], sizeof(buf[i]), "%s/%s", test_dir(), name);
	return buf[i];
}

static void save(const char *name, const void *data, size_t len)
{
	FILE *f = fopen(path(name), "wb");

	CU_ASSERT_FATAL(f != NULL);
	CU_ASSERT_EQUAL(fwrite(data, 1, len, f), len);
	fclose(f);
}

static struct bytes load(const char *name)
{
	static char data[1 << 20];
	FILE *f = fopen(path(name), "rb");
	size_t n;

	CU_ASSERT_FATAL(f != NULL);
	n = fread(data, 1, sizeof(data), f);
	fclose(f);
	return bytes_copy(data, n);
}

/* Runs avpctl with words separated by blanks; stdout and stderr to files. */
static int run(const char *words)
{
	static char line[8192];
	char *argv[32] = {avpctl};
	posix_spawn_file_actions_t files;
	int n = 1, status = 0;
	pid_t pid;

	snprintf(line, sizeof(line), "%s", words);
	for (char *w = strtok(line, " "); w && n < 31; w = strtok(NULL, " "))
		argv[n++] = w;
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, 1, path("out"),
					 O_CREAT | O_WRONLY | O_TRUNC, 0600);
	posix_spawn_file_actions_addopen(&files, 2, path("err"),
					 O_CREAT | O_WRONLY | O_TRUNC, 0600);
	CU_ASSERT_FATAL(
		posix_spawn(&pid, avpctl, &files, NULL, argv, environ) == 0);
	posix_spawn_file_actions_destroy(&files);
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int runf(const char *format, const char *a, const char *b)
{
	static char words[8192];

	snprintf(words, sizeof(words), format, a, b, b);
	return run(words);
}

/* The one line on stderr begins so. */
static void complained(const char *beginning)
{
	struct bytes err = load("err");
	const uint8_t *newline = memchr(err.data, '\n', err.len);

	CU_ASSERT(err.len > strlen(beginning) &&
		  !memcmp(err.data, beginning, strlen(beginning)));
	CU_ASSERT(newline == err.data + err.len - 1);
	bytes_free(&err);
}

static struct avp_json_doc *answer(void)
{
	struct avp_json_doc *doc = NULL;
	struct bytes out = load("out");

	CU_ASSERT(out.len && out.data[out.len - 1] == '\n');
	CU_ASSERT_EQUAL_FATAL(
		avp_json_parse(&doc, out.data, out.len, NULL, NULL), 0);
	bytes_free(&out);
	return doc;
}

static void encode_and_decode(void)
{
	static const char meta[] =
		"{\"model_id\":\"m\\u0000\",\"hidden_dim\":4,\"num_layers\":"
		"null,\"payload_type\":\"KV_CACHE\",\"dtype\":\"BFLOAT16\","
		"\"tensor_shape\":[2,2],\"mode\":\"JSON\",\"compression\":"
		"\"lz4\",\"confidence_score\":1e99,\"extra\":{\"b\":\"\\u00e9"
		"\",\"a\":\"1\"},\"note\":[]}";
	static const struct {
		const char *options, *dialect, *confidence;
		int flags;
	} all[] = {
		{"", "0.2", "\"inf\"", 8},
		{"--compression max", "0.2", "\"inf\"", 9},
		{"--dialect 0.4", "0.4", "0.0", 4},
		{"--dialect 0.4 --compression fast", "0.4", "0.0", 5},
	};
	const struct avp_json *root, *m;
	struct avp_json_doc *doc;
	struct bytes back;
	char words[4096];

	save("meta", meta, sizeof(meta) - 1);
	save("payload", "12345678", 8);
	for (size_t i = 0; i < 4; i++) {
		snprintf(words, sizeof(words),
			 "frame encode --metadata %s --payload %s -o %s %s",
			 path("meta"), path("payload"), path("frame"),
			 all[i].options);
		CU_ASSERT_EQUAL_FATAL(run(words), 0);
		CU_ASSERT_EQUAL(runf("frame decode %s --payload %s",
				     path("frame"), path("back")),
				0);
		back = load("back");
		CU_ASSERT(back.len == 8 && !memcmp(back.data, "12345678", 8));
		bytes_free(&back);
		doc = answer();
		root = avp_json_root(doc);
		m = avp_json_get(root, "metadata");
		CU_ASSERT_EQUAL(case_int(avp_json_get(root, "header"), "flags"),
				all[i].flags);
		CU_ASSERT(case_bool(avp_json_get(root, "header"), "kv_cache"));
		CU_ASSERT(case_is(root, "dialect", all[i].dialect));
		CU_ASSERT(case_is(m, "mode", "JSON"));
		CU_ASSERT(case_is(m, "dtype", "BFLOAT16"));
		CU_ASSERT(case_is(avp_json_get(m, "extra"), "b", "\xc3\xa9"));
		CU_ASSERT(case_is(m, "compression", "zstd") ==
			  (all[i].flags & 1));
		CU_ASSERT(case_is(m, "confidence_score", "inf") == (i < 2));
		CU_ASSERT_EQUAL(case_str(m, "model_id").len, 2);
		CU_ASSERT_EQUAL(case_int(root, "payload_bytes"), 8);
		avp_json_free(doc);
	}
}

/* One line for each line, whatever is in it; the ids come back as they are. */
static void many(void)
{
	static const char *const codes[] = {
		NULL,	    "SHORT_HEADER",    "IO",
		"BAD_JSON", "INVALID_MESSAGE", NULL};
	struct bytes out;
	char list[8192];
	const char *p;
	int n = snprintf(list, sizeof(list),
			 "{\"id\":1,\"file\":\"%s\"}\n"
			 "{\"id\":\"x\",\"file\":\"%s\"}\n\n"
			 "{\"id\":[2],\"file\":\"%s\"}\n"
			 "{\n{\"id\":3}\n"
			 "{\"id\":4,\"file\":\"%s\"}",
			 path("good"), path("short"), path("absent"),
			 path("good"));

	save("list", list, (size_t)n);
	save("good", "AV\1\0\0\0\0\0\0\0\0\0", 12);
	save("short", "AV", 2);
	CU_ASSERT_EQUAL(runf("frame decode-many %s", path("list"), ""), 0);
	out = load("out");
	p = (const char *)out.data;
	for (size_t i = 0; i < 6; i++) {
		const char *end = strchr(p, '\n');
		struct avp_json_doc *doc = NULL;
		const struct avp_json *root;

		CU_ASSERT_PTR_NOT_NULL_FATAL(end);
		CU_ASSERT_EQUAL_FATAL(
			avp_json_parse(&doc, p, (size_t)(end - p), NULL, NULL),
			0);
		root = avp_json_root(doc);
		CU_ASSERT_EQUAL(case_bool(root, "ok"), !codes[i]);
		CU_ASSERT(!codes[i] || case_is(root, "code", codes[i]));
		CU_ASSERT(!codes[i] == !avp_json_get(root, "message"));
		avp_json_free(doc);
		p = end + 1;
	}
	CU_ASSERT(p == (const char *)out.data + out.len);
	bytes_free(&out);
}

static void refusals_have_codes_and_statuses(void)
{
	save("bad", "BV\1\0\0\0\0\0\0\0\0\0", 12);
	CU_ASSERT_EQUAL(runf("frame decode %s", path("bad"), ""), 1);
	complained("avpctl: frame decode: BAD_MAGIC: ");
	CU_ASSERT_EQUAL(runf("frame decode %s", path("absent"), ""), 3);
	complained("avpctl: frame decode: IO: ");
	CU_ASSERT_EQUAL(run("frame decode"), 2);
	complained("avpctl: frame decode: USAGE: ");
	CU_ASSERT_EQUAL(run("frame decode --nonsense x"), 2);
	complained("avpctl: frame decode: USAGE: ");
	CU_ASSERT_EQUAL(run("frame decode --max-payload 1X x"), 2);
	CU_ASSERT_EQUAL(run("frame encode"), 2);
	CU_ASSERT_EQUAL(run("frame fold"), 2);
	CU_ASSERT_EQUAL(run("fold"), 2);
	complained("avpctl: arguments: USAGE: ");
	CU_ASSERT_EQUAL(run("--config"), 2);
	save("meta", "{", 1);
	CU_ASSERT_EQUAL(runf("frame encode --metadata %s --payload %s -o %s",
			     path("meta"), path("bad")),
			1);
	complained("avpctl: frame encode: BAD_JSON: ");
	CU_ASSERT_EQUAL(run("help"), 0);
	CU_ASSERT_EQUAL(run("--version --namespace x"), 0);
	CU_ASSERT_EQUAL(run("frame --help"), 0);
}

static void a_limit_on_what_expands(void)
{
	static char zeros[100000];

	save("meta", "{}", 2);
	save("payload", zeros, sizeof(zeros));
	CU_ASSERT_EQUAL(runf("frame encode --metadata %s --payload %s -o %s "
			     "--compression fast",
			     path("meta"), path("payload")),
			0); /* over the payload's own file */
	CU_ASSERT_EQUAL(runf("frame decode %s --max-payload 99999",
			     path("payload"), ""),
			1);
	complained("avpctl: frame decode: TOO_LARGE: ");
	CU_ASSERT_EQUAL(
		runf("frame decode %s --max-payload 98K", path("payload"), ""),
		0);
}

/* Values that C has no place for are refused where they come in. */
static void values_that_do_not_fit(void)
{
	CU_ASSERT(vectors_count("encode_error") > 0);
	save("payload", "", 0);
	for (const struct avp_json *c = vectors_first("encode_error"); c;
	     c = avp_json_next(c)) {
		struct avp_buf buf = {0};

		CU_ASSERT_EQUAL(avp_json_write(&buf, avp_json_get(c, "input"),
					       AVP_JSON_PYTHON),
				0);
		save("meta", buf.data, buf.len);
		avp_buf_fini(&buf);
		CASE(c, runf("frame encode --metadata %s --payload %s -o %s",
			     path("meta"), path("payload")) == 1);
	}
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		TEST(encode_and_decode),
		TEST(many),
		TEST(refusals_have_codes_and_statuses),
		TEST(a_limit_on_what_expands),
		TEST(values_that_do_not_fit),
		{0},
	};
	char *tail = argc ? strstr(argv[0], "tests/integration/") : NULL;

	if (!tail)
		return 1;
	snprintf(avpctl, sizeof(avpctl), "%.*savpctl", (int)(tail - argv[0]),
		 argv[0]);
	return test_main("avpctl_frame", tests);
}
