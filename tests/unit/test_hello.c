/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AVP's JSON messages against the recorded ones. Where the reference passes on
 * a value of the wrong JSON type, the recorded fields show it, and we refuse:
 * tests/refused.txt lists the cases with their reason.
 */
#include <stdio.h>
#include <string.h>

#include <avp/hello.h>

#include "tests/vectors.h"

#define S(literal) ((struct avp_str){literal, sizeof(literal) - 1})

static const char *const identity_strings[] = {"model_family", "model_id",
					       "model_hash"};
static const char *const identity_counts[] = {"hidden_dim", "num_layers",
					      "num_kv_heads", "head_dim"};

/* ---- what the recorded fields lead us to expect ------------------------- */

static bool is_string(const struct avp_json *object, const char *key)
{
	enum avp_json_type t = avp_json_type_of(avp_json_get(object, key));

	return t == AVP_JSON_STRING || t == AVP_JSON_NULL;
}

static bool is_object(const struct avp_json *object, const char *key)
{
	enum avp_json_type t = avp_json_type_of(avp_json_get(object, key));

	return t == AVP_JSON_OBJECT || t == AVP_JSON_NULL;
}

static bool is_count(const struct avp_json *object, const char *key)
{
	const struct avp_json *v = avp_json_get(object, key);
	uint64_t n;

	return avp_json_type_of(v) == AVP_JSON_NULL ||
	       (!avp_json_uint64(v, &n) && n <= UINT32_MAX);
}

static bool identity_fits(const struct avp_json *identity)
{
	bool fits = true;

	for (size_t i = 0; i < 3; i++)
		fits = fits && is_string(identity, identity_strings[i]);
	for (size_t i = 0; i < 4; i++)
		fits = fits && is_count(identity, identity_counts[i]);
	return fits;
}

static bool hello_fits(const struct avp_json *fields)
{
	return is_string(fields, "agent_id") &&
	       is_string(fields, "avp_version") &&
	       is_object(fields, "capabilities") &&
	       identity_fits(avp_json_get(fields, "identity"));
}

static bool text_message_fits(const struct avp_json *fields)
{
	return is_string(fields, "avp_version") &&
	       is_string(fields, "session_id") &&
	       is_string(fields, "source_agent_id") &&
	       is_string(fields, "target_agent_id") &&
	       is_string(fields, "content") && is_object(fields, "extra");
}

/*
 * The reference refuses null where an object is due; we take it as absent. The
 * list of refused cases is for the open set, which it has to match.
 */
static bool accepts(const struct avp_json *c, bool fits,
		    const struct avp_json *text)
{
	if (case_is(c, "verdict", "accept")) {
		if (vectors_are_ours())
			CASE(c, vectors_refused(c) == !fits);
		return fits;
	}
	return avp_json_type_of(text) == AVP_JSON_OBJECT &&
	       avp_json_get(text, "identity") &&
	       avp_json_type_of(avp_json_get(text, "identity")) ==
		       AVP_JSON_NULL;
}

/* ---- comparing ---------------------------------------------------------- */

static void same_string(const struct avp_json *c, const struct avp_json *fields,
			const char *key, struct avp_str got)
{
	struct bytes want = vectors_string(c, case_str(fields, key));

	if (!CASE(c, avp_str_equal(got, (struct avp_str){(char *)want.data,
							 want.len})))
		printf("  in %s\n", key);
	bytes_free(&want);
}

static void same_object(const struct avp_json *c, const struct avp_json *want,
			const struct avp_json *got)
{
	struct avp_buf a = {0}, b = {0};

	avp_json_write(&a, want, AVP_JSON_CANONICAL);
	avp_json_write(&b, got, AVP_JSON_CANONICAL);
	if (avp_json_count(want) || avp_json_count(got))
		CASE(c, avp_str_equal(avp_buf_str(&a), avp_buf_str(&b)));
	avp_buf_fini(&a);
	avp_buf_fini(&b);
}

static void same_identity(const struct avp_json *c,
			  const struct avp_json *fields,
			  const struct avp_identity *got)
{
	CASE(c, got->hidden_dim == case_int(fields, "hidden_dim"));
	CASE(c, got->num_layers == case_int(fields, "num_layers"));
	CASE(c, got->num_kv_heads == case_int(fields, "num_kv_heads"));
	CASE(c, got->head_dim == case_int(fields, "head_dim"));
	same_string(c, fields, "model_family", got->model_family);
	same_string(c, fields, "model_id", got->model_id);
	same_string(c, fields, "model_hash", got->model_hash);
}

static void same_hello(const struct avp_json *c, const struct avp_json *fields,
		       const struct avp_hello *got)
{
	const struct avp_json *identity = avp_json_get(fields, "identity");

	same_string(c, fields, "agent_id", got->agent_id);
	if (avp_json_type_of(avp_json_get(fields, "avp_version")))
		same_string(c, fields, "avp_version", got->avp_version);
	CASE(c, got->has_identity ==
			(avp_json_type_of(identity) == AVP_JSON_OBJECT));
	if (got->has_identity)
		same_identity(c, identity, &got->identity);
	same_object(c, avp_json_get(fields, "capabilities"), got->capabilities);
}

static void same_text_message(const struct avp_json *c,
			      const struct avp_json *fields,
			      const struct avp_text_message *got)
{
	if (avp_json_type_of(avp_json_get(fields, "avp_version")))
		same_string(c, fields, "avp_version", got->avp_version);
	same_string(c, fields, "session_id", got->session_id);
	same_string(c, fields, "source_agent_id", got->source_agent_id);
	same_string(c, fields, "target_agent_id", got->target_agent_id);
	same_string(c, fields, "content", got->content);
	same_object(c, avp_json_get(fields, "extra"), got->extra);
}

static struct avp_json_doc *parse(struct avp_str text)
{
	struct avp_json_doc *doc = NULL;

	avp_json_parse(&doc, text.data, text.len, NULL, NULL);
	return doc;
}

static const struct avp_json *root_of(const struct avp_json_doc *doc)
{
	return doc ? avp_json_root(doc) : NULL;
}

/* ---- replay ------------------------------------------------------------- */

static void hello_parse(void)
{
	VECTORS("hello_parse", 35);
	for (const struct avp_json *c = vectors_first("hello_parse"); c;
	     c = avp_json_next(c)) {
		const struct avp_json *fields = avp_json_get(c, "fields");
		struct avp_json_doc *doc = parse(case_str(c, "text"));
		struct avp_hello hello;
		struct avp_reason why;
		int code = avp_hello_read(&hello, root_of(doc), &why);

		if (accepts(c, hello_fits(fields), root_of(doc))) {
			if (CASE(c, code == 0) && fields)
				same_hello(c, fields, &hello);
		} else {
			CASE(c, code == AVP_INVALID_MESSAGE);
		}
		avp_json_free(doc);
	}
}

static void hello_wire(void)
{
	VECTORS("hello", 10);
	for (const struct avp_json *c = vectors_first("hello"); c;
	     c = avp_json_next(c)) {
		struct avp_json_doc *doc = parse(case_str(c, "wire"));
		struct avp_buf buf = {0};
		struct avp_hello hello;

		CASE(c, !avp_hello_read(&hello, root_of(doc), NULL));
		same_hello(c, avp_json_get(c, "fields"), &hello);
		CASE(c, !avp_hello_write(&buf, &hello));
		CASE(c, avp_str_equal(avp_buf_str(&buf), case_str(c, "wire")));
		avp_buf_fini(&buf);
		avp_json_free(doc);
	}
}

static void text_message_parse(void)
{
	VECTORS("json_message_parse", 17);
	for (const struct avp_json *c = vectors_first("json_message_parse"); c;
	     c = avp_json_next(c)) {
		const struct avp_json *fields = avp_json_get(c, "fields");
		struct avp_str again = case_str(c, "to_json_again");
		struct avp_json_doc *doc = parse(case_str(c, "text"));
		struct avp_buf buf = {0};
		struct avp_text_message m;
		int code = avp_text_message_read(&m, root_of(doc), NULL);

		if (!accepts(c, text_message_fits(fields), root_of(doc))) {
			CASE(c, code == AVP_INVALID_MESSAGE);
		} else if (CASE(c, code == 0)) {
			same_text_message(c, fields, &m);
			CASE(c, !avp_text_message_write(&buf, &m));
			/* null was read as absent and is written so. */
			if (avp_json_type_of(avp_json_get(fields, "content")) !=
			    AVP_JSON_NULL)
				CASE(c,
				     avp_str_equal(avp_buf_str(&buf), again));
		}
		avp_buf_fini(&buf);
		avp_json_free(doc);
	}
}

static void text_message_wire(void)
{
	VECTORS("json_message", 5);
	for (const struct avp_json *c = vectors_first("json_message"); c;
	     c = avp_json_next(c)) {
		struct avp_json_doc *doc = parse(case_str(c, "wire"));
		struct avp_buf buf = {0};
		struct avp_text_message m;

		CASE(c, !avp_text_message_read(&m, root_of(doc), NULL));
		same_text_message(c, avp_json_get(c, "fields"), &m);
		CASE(c, !avp_text_message_write(&buf, &m));
		CASE(c, avp_str_equal(avp_buf_str(&buf), case_str(c, "wire")));
		avp_buf_fini(&buf);
		avp_json_free(doc);
	}
}

static void fallback_text(const struct avp_json *c)
{
	struct avp_fallback f = {
		.reason = case_str(c, "reason"),
		.perplexity_score = case_double(c, "perplexity_score"),
	};
	struct avp_buf buf = {0};

	CASE(c, !avp_fallback_describe(&buf, &f));
	CASE(c, avp_str_equal(avp_buf_str(&buf), case_str(c, "error_text")));
	avp_buf_fini(&buf);
}

static void fallback_wire(const struct avp_json *c)
{
	const struct avp_json *fields = avp_json_get(c, "fields");
	struct avp_json_doc *doc = parse(case_str(c, "wire")), *again;
	struct avp_buf buf = {0};
	struct avp_fallback f, g;

	CASE(c, !avp_fallback_read(&f, root_of(doc), NULL));
	same_string(c, fields, "session_id", f.session_id);
	same_string(c, fields, "reason", f.reason);
	CASE(c, f.perplexity_score == case_double(fields, "perplexity_score"));
	CASE(c, !avp_fallback_write(&buf, &f));
	/* A score that Python had as an int (5) is the same number as 5.0. */
	if (avp_json_type_of(avp_json_get(fields, "perplexity_score")) ==
	    AVP_JSON_FLOAT)
		CASE(c, avp_str_equal(avp_buf_str(&buf), case_str(c, "wire")));
	again = parse(avp_buf_str(&buf));
	CASE(c, !avp_fallback_read(&g, root_of(again), NULL));
	CASE(c, g.perplexity_score == f.perplexity_score);
	avp_json_free(again);
	avp_json_free(doc);
	avp_buf_fini(&buf);
}

static void fallback_request(void)
{
	VECTORS("fallback_request", 6);
	for (const struct avp_json *c = vectors_first("fallback_request"); c;
	     c = avp_json_next(c)) {
		if (avp_json_get(c, "wire"))
			fallback_wire(c);
		if (avp_json_get(c, "error_text"))
			fallback_text(c);
	}
}

/* ---- by hand ------------------------------------------------------------ */

static void reasons(void)
{
	struct avp_json_doc *doc =
		parse(S("{\"identity\":{\"hidden_dim\":4294967296}}"));
	struct avp_reason why;
	struct avp_hello hello;

	CU_ASSERT_EQUAL(avp_hello_read(&hello, root_of(doc), &why),
			AVP_INVALID_MESSAGE);
	CU_ASSERT_STRING_EQUAL(why.text, "\"hidden_dim\" is 4294967296; it "
					 "must be from 0 to 4294967295");
	avp_json_free(doc);
	doc = parse(S("{}"));
	CU_ASSERT_EQUAL(avp_hello_read(&hello, root_of(doc), &why), 0);
	CU_ASSERT_FALSE(hello.version_told);
	CU_ASSERT_FALSE(hello.has_identity);
	avp_json_free(doc);
	doc = parse(S("{\"avp_version\":\"0.4.1\"}"));
	CU_ASSERT_EQUAL(avp_hello_read(&hello, root_of(doc), &why), 0);
	CU_ASSERT(hello.version_told);
	avp_json_free(doc);
	CU_ASSERT_EQUAL(avp_hello_read(&hello, NULL, &why),
			AVP_INVALID_MESSAGE);
}

static void written_from_parts(void)
{
	struct avp_hello hello = {
		.agent_id = S("a"),
		.capabilities_json = S("{\"kv_cache\": true}"),
		.has_identity = true,
		.identity = {.model_hash = S("h"), .tokenizer_hash = S("t")},
	};
	struct avp_text_message m = {.content = S("\xff")};
	struct avp_fallback f = {.perplexity_score = -0.00004};
	struct avp_buf buf = {0};

	CU_ASSERT_EQUAL(avp_hello_write(&buf, &hello), 0);
	CU_ASSERT_STRING_EQUAL(
		buf.data,
		"{\"agent_id\": \"a\", \"avp_version\": \"0.2.0\", "
		"\"capabilities\": {\"kv_cache\": true}, \"identity\": "
		"{\"model_family\": \"\", \"model_id\": \"\", "
		"\"model_hash\": \"h\", \"hidden_dim\": 0, "
		"\"num_layers\": 0, \"num_kv_heads\": 0, \"head_dim\": 0, "
		"\"tokenizer_hash\": \"t\"}}");
	CU_ASSERT_EQUAL(avp_text_message_write(&buf, &m),
			AVP_SERIALIZATION_ERROR);
	avp_buf_clear(&buf);
	m.content = S("");
	m.extra_json = S("{\"ahp\": 1}");
	CU_ASSERT_EQUAL(avp_text_message_write(&buf, &m), 0);
	CU_ASSERT(strstr(buf.data, ", \"extra\": {\"ahp\": 1}}") != NULL);
	avp_buf_clear(&buf);
	CU_ASSERT_EQUAL(avp_fallback_describe(&buf, &f), 0);
	CU_ASSERT_STRING_EQUAL(buf.data,
			       "Fallback requested:  (perplexity=-0.0000)");
	avp_buf_fini(&buf);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(hello_parse),	  TEST(hello_wire),
		TEST(text_message_parse), TEST(text_message_wire),
		TEST(fallback_request),	  TEST(reasons),
		TEST(written_from_parts), {0},
	};

	return test_main("hello", tests);
}
