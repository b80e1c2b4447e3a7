/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl frame, run as a script would: outputs, exit statuses, messages. */
#include <stdio.h>
#include <string.h>

#include <avp/codec.h>

#include "tests/tool.h"

/* Runs avpctl with words separated by blanks. */
static int run(const char *words)
{
	static char line[8192];
	const char *argv[32] = {NULL};
	int n = 0;

	snprintf(line, sizeof(line), "%s", words);
	for (char *w = strtok(line, " "); w && n < 31; w = strtok(NULL, " "))
		argv[n++] = w;
	return tool_finish(tool_start_list("tool", TOOL_FILE, argv));
}

static int runf(const char *format, const char *a, const char *b)
{
	static char words[8192];

	snprintf(words, sizeof(words), format, a, b, b);
	return run(words);
}

static void complained(const char *beginning)
{
	CU_ASSERT(tool_complained("tool", beginning));
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

	tool_save("meta", meta, sizeof(meta) - 1);
	tool_save("payload", "12345678", 8);
	for (size_t i = 0; i < 4; i++) {
		snprintf(words, sizeof(words),
			 "frame encode --metadata %s --payload %s -o %s %s",
			 tool_path("meta"), tool_path("payload"),
			 tool_path("frame"), all[i].options);
		CU_ASSERT_EQUAL_FATAL(run(words), 0);
		CU_ASSERT_EQUAL(runf("frame decode %s --payload %s",
				     tool_path("frame"), tool_path("back")),
				0);
		back = tool_load("back");
		CU_ASSERT(back.len == 8 && !memcmp(back.data, "12345678", 8));
		bytes_free(&back);
		doc = tool_answer("tool");
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
			 tool_path("good"), tool_path("short"),
			 tool_path("absent"), tool_path("good"));

	tool_save("list", list, (size_t)n);
	tool_save("good", "AV\1\0\0\0\0\0\0\0\0\0", 12);
	tool_save("short", "AV", 2);
	CU_ASSERT_EQUAL(runf("frame decode-many %s", tool_path("list"), ""), 0);
	out = tool_load("tool.out");
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

/* A script finds its own id again, though no double may hold it. */
static void ids_are_echoed_as_written(void)
{
	static const char *const ids[] = {"1e400",
					  "-1e400",
					  "1.50",
					  "1e-400",
					  "[1.0E5,{\"a\":-0.0}]",
					  "123456789012345678901234567890"};
	char list[2048], want[64];
	size_t n = 0;

	for (size_t i = 0; i < sizeof(ids) / sizeof(*ids); i++)
		n += (size_t)snprintf(list + n, sizeof(list) - n,
				      "{\"id\":%s,\"file\":\"\"}\n", ids[i]);
	/* Nor does a name that is no text, or is cut within a letter, end
	 * it. */
	n += (size_t)snprintf(list + n, sizeof(list) - n,
			      "{\"id\":7,\"file\":\"\\ud800\"}\n"
			      "{\"id\":8,\"file\":\"x");
	for (int i = 0; i < 200; i++)
		n += (size_t)snprintf(list + n, sizeof(list) - n, "\xc3\xa9");
	n += (size_t)snprintf(list + n, sizeof(list) - n,
			      "\"}\n{\"id\":9,\"file\":\"\"}\n");
	tool_save("list", list, n);
	CU_ASSERT_EQUAL(runf("frame decode-many %s", tool_path("list"), ""), 0);
	CU_ASSERT(tool_has("tool.out", "{\"id\":9,\"ok\":"));
	for (size_t i = 0; i < sizeof(ids) / sizeof(*ids); i++) {
		snprintf(want, sizeof(want), "{\"id\":%s,\"ok\":", ids[i]);
		CU_ASSERT(tool_has("tool.out", want));
	}
}

static void refusals_have_codes_and_statuses(void)
{
	tool_save("bad", "BV\1\0\0\0\0\0\0\0\0\0", 12);
	CU_ASSERT_EQUAL(runf("frame decode %s", tool_path("bad"), ""), 1);
	complained("avpctl: frame decode: BAD_MAGIC: ");
	CU_ASSERT_EQUAL(runf("frame decode %s", tool_path("absent"), ""), 3);
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
	tool_save("meta", "{", 1);
	CU_ASSERT_EQUAL(runf("frame encode --metadata %s --payload %s -o %s",
			     tool_path("meta"), tool_path("bad")),
			1);
	complained("avpctl: frame encode: BAD_JSON: ");
	CU_ASSERT_EQUAL(run("help"), 0);
	CU_ASSERT_EQUAL(run("--version --namespace x"), 0);
	CU_ASSERT_EQUAL(run("frame --help"), 0);
}

static void a_limit_on_what_expands(void)
{
	static char zeros[100000];

	tool_save("meta", "{}", 2);
	tool_save("payload", zeros, sizeof(zeros));
	CU_ASSERT_EQUAL(runf("frame encode --metadata %s --payload %s -o %s "
			     "--compression fast",
			     tool_path("meta"), tool_path("payload")),
			0); /* over the payload's own file */
	CU_ASSERT_EQUAL(runf("frame decode %s --max-payload 99999",
			     tool_path("payload"), ""),
			1);
	complained("avpctl: frame decode: TOO_LARGE: ");
	CU_ASSERT_EQUAL(runf("frame decode %s --max-payload 98K",
			     tool_path("payload"), ""),
			0);
}

/* Values that C has no place for are refused where they come in. */
static void values_that_do_not_fit(void)
{
	VECTORS("encode_error", 16);
	tool_save("payload", "", 0);
	for (const struct avp_json *c = vectors_first("encode_error"); c;
	     c = avp_json_next(c)) {
		struct avp_buf buf = {0};

		CU_ASSERT_EQUAL(avp_json_write(&buf, avp_json_get(c, "input"),
					       AVP_JSON_PYTHON),
				0);
		tool_save("meta", buf.data, buf.len);
		avp_buf_fini(&buf);
		CASE(c, runf("frame encode --metadata %s --payload %s -o %s",
			     tool_path("meta"), tool_path("payload")) == 1);
	}
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		TEST(encode_and_decode),
		TEST(many),
		TEST(ids_are_echoed_as_written),
		TEST(refusals_have_codes_and_statuses),
		TEST(a_limit_on_what_expands),
		TEST(values_that_do_not_fit),
		{0},
	};

	(void)argc;
	tool_begin(argv[0]);
	return test_main("avpctl_frame", tests);
}
