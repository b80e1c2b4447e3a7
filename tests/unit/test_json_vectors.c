/* SPDX-License-Identifier: Apache-2.0 */
/* Every recorded text goes through the reader and the writer. */
#include "tests/vectors.h"

/* Writes a parsed text in a style; what comes out must be `expected`. */
static void rewrite(const struct avp_json *c, struct avp_str text,
		    uint32_t style, struct avp_str expected)
{
	struct avp_json_doc *doc = NULL;
	struct avp_buf buf = {0};
	struct avp_reason why;

	if (CASE(c, !avp_json_parse(&doc, text.data, text.len, NULL, &why)) &&
	    CASE(c, !avp_json_write(&buf, avp_json_root(doc), style)))
		CASE(c, avp_str_equal(avp_buf_str(&buf), expected));
	avp_buf_fini(&buf);
	avp_json_free(doc);
}

static void refused(const struct avp_json *c, struct avp_str text)
{
	struct avp_json_doc *doc;
	struct avp_reason why;

	CASE(c, avp_json_parse(&doc, text.data, text.len, NULL, &why) ==
			AVP_BAD_JSON);
}

static void model_hash_texts(void)
{
	uint32_t done = 0;

	for (const struct avp_json *c = vectors_first("model_hash"); c;
	     c = avp_json_next(c)) {
		struct avp_str text = case_str(c, "config_json");
		struct avp_str canonical = case_str(c, "canonical");
		struct sha256_hex sum =
			sha256_hex(canonical.data, canonical.len);

		if (case_bool(c, "python_only"))
			continue;
		done++;
		if (avp_json_get(c, "error")) {
			refused(c, text);
			continue;
		}
		rewrite(c, text, AVP_JSON_CANONICAL, canonical);
		CASE(c, case_is(c, "sha256", sum.text));
	}
	CU_ASSERT(!vectors_are_ours() || done > 0);
}

/* Texts that the reference wrote come out as they went in. */
static void written_texts(void)
{
	static const struct {
		const char *kind, *key;
	} sets[] = {{"hello", "wire"},
		    {"json_message", "wire"},
		    {"fallback_request", "wire"},
		    {"json_message_parse", "to_json_again"}};
	uint32_t done = 0;

	for (size_t i = 0; i < sizeof(sets) / sizeof(*sets); i++)
		for (const struct avp_json *c = vectors_first(sets[i].kind); c;
		     c = avp_json_next(c)) {
			struct avp_str text = case_str(c, sets[i].key);

			if (!text.len)
				continue;
			rewrite(c, text, AVP_JSON_PYTHON, text);
			done++;
		}
	CU_ASSERT(!vectors_are_ours() || done > 0);
}

/* What is not JSON at all is refused by the reader alone. */
static void parse_verdicts(void)
{
	static const char *const kinds[] = {"hello_parse",
					    "json_message_parse"};

	for (size_t i = 0; i < 2; i++)
		for (const struct avp_json *c = vectors_first(kinds[i]); c;
		     c = avp_json_next(c)) {
			const struct avp_json *error = avp_json_get(c, "error");
			struct avp_str text = case_str(c, "text");
			struct avp_json_doc *doc = NULL;
			int code = avp_json_parse(&doc, text.data, text.len,
						  NULL, NULL);

			CASE(c, case_is(error, "class", "JSONDecodeError") ==
					(code == AVP_BAD_JSON));
			avp_json_free(doc);
		}
}

/* The index itself is a megabyte of ASCII that Python wrote. */
static void index_text(void)
{
	struct bytes b = vectors_file(avp_str_of("index.json"));
	struct avp_json_doc *doc = NULL, *again = NULL;
	struct avp_buf one = {0}, two = {0};

	CU_ASSERT_EQUAL_FATAL(avp_json_parse(&doc, b.data, b.len, NULL, NULL),
			      0);
	CU_ASSERT_EQUAL(avp_json_write(&one, avp_json_root(doc), AVP_JSON_HTTP),
			0);
	CU_ASSERT_EQUAL_FATAL(
		avp_json_parse(&again, one.data, one.len, NULL, NULL), 0);
	avp_buf_clear(&one);
	CU_ASSERT_EQUAL(
		avp_json_write(&one, avp_json_root(doc), AVP_JSON_PYTHON), 0);
	CU_ASSERT_EQUAL(
		avp_json_write(&two, avp_json_root(again), AVP_JSON_PYTHON), 0);
	CU_ASSERT(avp_str_equal(avp_buf_str(&one), avp_buf_str(&two)));
	avp_buf_fini(&one);
	avp_buf_fini(&two);
	avp_json_free(doc);
	avp_json_free(again);
	bytes_free(&b);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(model_hash_texts),
		TEST(written_texts),
		TEST(parse_verdicts),
		TEST(index_text),
		{0},
	};

	return test_main("json_vectors", tests);
}
