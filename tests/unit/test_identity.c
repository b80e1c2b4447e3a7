/* SPDX-License-Identifier: Apache-2.0 */
/* Identities from configs, the resolver's verdicts, frames against a model. */
#include <stdlib.h>
#include <string.h>

#include <avp/latent.h>

#include "tests/harness.h"
#include "tests/vectors.h"

static int open_text(struct avp_config **c, struct avp_str text,
		     struct avp_reason *why)
{
	return avp_config_open(c, text.data, text.len, why);
}

/* Bad JSON, and what is JSON but no object, which only we refuse. */
static bool refused_rightly(const struct avp_json *c, int code)
{
	const char *text = case_str(c, "config_json").data;

	if (avp_json_get(c, "error"))
		return code == AVP_BAD_JSON;
	return code == AVP_INVALID_MESSAGE && text[strspn(text, " ")] != '{';
}

static void check_hash(const struct avp_json *c,
		       const struct avp_config *config)
{
	struct bytes want = vectors_string(c, case_str(c, "canonical"));
	const struct avp_str got = avp_config_canonical(config);

	CASE(c, got.len == want.len && !memcmp(got.data, want.data, got.len));
	CASE(c, avp_str_equal(avp_config_identity(config)->model_hash,
			      case_str(c, "sha256")));
	bytes_free(&want);
}

static void vectors_model_hash(void)
{
	uint32_t read = 0, refused = 0, python_only = 0;

	for (const struct avp_json *c = vectors_first("model_hash"); c;
	     c = avp_json_next(c)) {
		struct avp_config *config;
		struct avp_reason why;
		struct bytes text;

		if (case_bool(c, "python_only")) {
			python_only++;
			continue;
		}
		text = vectors_string(c, case_str(c, "config_json"));
		if (avp_config_open(&config, text.data, text.len, &why)) {
			CASE(c, refused_rightly(c, why.code));
			refused++;
		} else {
			check_hash(c, config);
			avp_config_close(config);
			read++;
		}
		bytes_free(&text);
	}
	CU_ASSERT(!vectors_are_ours() ||
		  (read > 160 && refused < 20 && python_only < 10));
	VECTORS("model_hash", read + refused + python_only);
}

/* What the reference gives for a null, None, is unknown to us: "" or 0. */
static bool same_count(const struct avp_json *want, const char *key,
		       uint32_t got)
{
	return case_int(want, key) == (int64_t)got;
}

static void vectors_identity(void)
{
	uint32_t odd = 0;

	for (const struct avp_json *c = vectors_first("identity"); c;
	     c = avp_json_next(c)) {
		const struct avp_json *want = avp_json_get(c, "identity");
		const struct avp_identity *got;
		struct avp_config *config;

		/* Python objects that are no config: not ours to read. */
		if (avp_json_get(c, "error")) {
			odd++;
			continue;
		}
		if (!CASE(c, !open_text(&config, case_str(c, "config_json"),
					NULL)))
			continue;
		got = avp_config_identity(config);
		CASE(c, avp_str_equal(got->model_family,
				      case_str(want, "model_family")));
		CASE(c,
		     avp_str_equal(got->model_id, case_str(want, "model_id")));
		CASE(c, avp_str_equal(got->model_hash,
				      case_str(want, "model_hash")));
		CASE(c, same_count(want, "hidden_dim", got->hidden_dim));
		CASE(c, same_count(want, "num_layers", got->num_layers));
		CASE(c, same_count(want, "num_kv_heads", got->num_kv_heads));
		CASE(c, same_count(want, "head_dim", got->head_dim));
		avp_config_close(config);
	}
	VECTORS("identity", 22);
	CU_ASSERT(!vectors_are_ours() || odd == 4);
}

static void vectors_needs_realignment(void)
{
	for (const struct avp_json *c = vectors_first("needs_realignment"); c;
	     c = avp_json_next(c)) {
		struct avp_config *config;

		if (!CASE(c, !open_text(&config, case_str(c, "config_json"),
					NULL)))
			continue;
		CASE(c, avp_config_needs_realignment(config) ==
				case_bool(c, "result"));
		avp_config_close(config);
	}
	VECTORS("needs_realignment", 6);
}

static void vectors_resolve(void)
{
	for (const struct avp_json *c = vectors_first("resolve"); c;
	     c = avp_json_next(c)) {
		struct avp_identity local, remote;
		struct avp_resolution r;

		/* Python compares whatever it is, 4096.0 or a hash of 7. */
		if (avp_identity_read(&local, avp_json_get(c, "local"), NULL) ||
		    avp_identity_read(&remote, avp_json_get(c, "remote"),
				      NULL)) {
			CASE(c, avp_json_get(c, "error") || vectors_refused(c));
			continue;
		}
		if (vectors_are_ours())
			CASE(c, !vectors_refused(c));
		if (avp_json_get(c, "error"))
			continue;
		avp_resolve(&local, &remote, 0, &r);
		CASE(c, r.mode == (uint32_t)case_int(c, "mode"));
		CASE(c, strlen(r.reason) > 10);
		CASE(c, r.mode == AVP_MODE_LATENT || !r.kv_compatible);
		CASE(c, !r.map_id[0]);
	}
	VECTORS("resolve", 146);
}

static struct avp_identity qwen(void)
{
	return (struct avp_identity){.model_family = avp_str_of("qwen2"),
				     .hidden_dim = 896,
				     .num_layers = 24,
				     .num_kv_heads = 2,
				     .head_dim = 64};
}

static void verdicts_have_reasons(void)
{
	struct avp_identity a = qwen(), b = qwen();
	struct avp_resolution r;

	avp_resolve(&a, &b, 0, &r);
	CU_ASSERT_EQUAL(r.mode, AVP_MODE_LATENT);
	CU_ASSERT_EQUAL(r.kv_compatible, 1);
	b.head_dim = 0; /* unknown never differs */
	avp_resolve(&a, &b, 0, &r);
	CU_ASSERT_EQUAL(r.kv_compatible, 1);
	b.num_kv_heads = 4;
	avp_resolve(&a, &b, 0, &r);
	CU_ASSERT_EQUAL(r.mode, AVP_MODE_LATENT);
	CU_ASSERT_EQUAL(r.kv_compatible, 0);
	CU_ASSERT_PTR_NOT_NULL(
		strstr(r.reason, "num_kv_heads differs, 2 here and 4 there"));
	b.hidden_dim = 1024;
	avp_resolve(&a, &b, 0, &r);
	CU_ASSERT_EQUAL(r.mode, AVP_MODE_JSON);
	CU_ASSERT_PTR_NOT_NULL(strstr(r.reason, "hidden_dim is 896 and 1024"));
	avp_resolve(&a, NULL, 0, &r);
	CU_ASSERT_EQUAL(r.mode, AVP_MODE_JSON);
	CU_ASSERT_PTR_NOT_NULL(strstr(r.reason, "remote model is not known"));
	a.tokenizer_hash = b.tokenizer_hash =
		avp_str_of("0123456789abcdef0123456789abcdef");
	avp_resolve(&a, &b, 0, &r);
	CU_ASSERT_EQUAL(r.mode, AVP_MODE_JSON);
	avp_resolve(&a, &b, AVP_RESOLVE_MAPS, &r);
	CU_ASSERT_EQUAL(r.mode, AVP_MODE_LATENT);
	CU_ASSERT_EQUAL(r.kv_compatible, 0);
	CU_ASSERT_STRING_EQUAL(r.map_id, "vocab:0123456789abcdef");
}

static void a_name_of_any_length_fits_the_reason(void)
{
	struct avp_identity a = qwen(), b = qwen();
	struct avp_resolution r;
	char *name = malloc(100000);

	memset(name, 'x', 100000);
	b.model_family = (struct avp_str){name, 100000};
	avp_resolve(&a, &b, 0, &r);
	CU_ASSERT(strlen(r.reason) < sizeof(r.reason) - 1);
	/* Cut between two characters, never inside one. */
	for (size_t i = 0; i < 4; i++) {
		b.model_family = (struct avp_str){name, 99999};
		for (size_t at = i; at + 3 <= 99999; at += 3)
			memcpy(name + at, "\xe2\x82\xac", 3);
		avp_resolve(&a, &b, 0, &r);
		CU_ASSERT_PTR_NOT_NULL(strstr(r.reason, "\xe2\x82\xac"));
		CU_ASSERT((unsigned char)r.reason[strlen(r.reason) - 1] ==
				  0xac ||
			  r.reason[strlen(r.reason) - 1] == 'x');
	}
	free(name);
}

static int code_of(const char *text, struct avp_reason *why)
{
	struct avp_config *c = NULL;
	int code = avp_config_open(&c, text, strlen(text), why);

	avp_config_close(c);
	return code;
}

static void bad_configs(void)
{
	struct avp_reason why;
	char *deep = malloc(20001), *large;

	CU_ASSERT_EQUAL(code_of("", &why), AVP_BAD_JSON);
	CU_ASSERT_EQUAL(code_of("{", &why), AVP_BAD_JSON);
	CU_ASSERT_EQUAL(code_of("[]", &why), AVP_INVALID_MESSAGE);
	CU_ASSERT_EQUAL(code_of("{\"hidden_size\": 4294967296}", &why),
			AVP_INVALID_MESSAGE);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "hidden_size"));
	CU_ASSERT_EQUAL(code_of("{\"hidden_size\": -1}", &why),
			AVP_INVALID_MESSAGE);
	CU_ASSERT_EQUAL(code_of("{\"head_dim\": 1.5}", &why),
			AVP_INVALID_MESSAGE);
	CU_ASSERT_EQUAL(code_of("{\"model_type\": 7}", &why),
			AVP_INVALID_MESSAGE);
	memset(deep, '[', 10000);
	memset(deep + 10000, ']', 10000);
	deep[20000] = 0;
	CU_ASSERT_EQUAL(code_of(deep, &why), AVP_BAD_JSON);
	free(deep);
	large = calloc(1, AVP_CONFIG_BYTES + 2);
	memset(large, ' ', AVP_CONFIG_BYTES + 1);
	CU_ASSERT_EQUAL(code_of(large, &why), AVP_TOO_LARGE);
	free(large);
}

static void missing_keys_are_told(void)
{
	static const char text[] = "{\"hidden_size\": 8, \"head_dim\": null,"
				   "\"num_attention_heads\": 3}";
	struct avp_config *c;
	uint32_t n = 0;

	CU_ASSERT_EQUAL_FATAL(avp_config_open(&c, text, strlen(text), NULL), 0);
	CU_ASSERT_STRING_EQUAL(avp_config_missing(c, 0), "model_type");
	while (avp_config_missing(c, n))
		n++;
	CU_ASSERT_EQUAL(n, 4);
	CU_ASSERT_EQUAL(avp_config_identity(c)->num_kv_heads, 3);
	avp_config_close(c);
}

/* ---- frames against a model --------------------------------------------- */

static void states_against_a_model(void)
{
	const struct avp_identity model = qwen();
	const uint32_t two[] = {2, 896}, turned[] = {896, 2};
	const uint32_t flat[] = {1792};
	static const float states[1793];
	struct avp_metadata m = {
		.hidden_dim = 896, .shape = two, .shape_count = 2};
	struct avp_reason why;

	CU_ASSERT_EQUAL(avp_latent_check(&model, &m, states, 7168, NULL), 0);
	CU_ASSERT_EQUAL(avp_latent_check(&model, &m, NULL, 0, NULL), 0);
	CU_ASSERT_EQUAL(avp_latent_check(&model, &m, states, 7164, &why),
			AVP_SHAPE_MISMATCH);
	m.shape = turned;
	CU_ASSERT_EQUAL(avp_latent_check(&model, &m, states, 7168, &why),
			AVP_SHAPE_MISMATCH);
	m.shape = flat, m.shape_count = 1;
	CU_ASSERT_EQUAL(avp_latent_check(&model, &m, states, 7168, NULL), 0);
	m.hidden_dim = 1024;
	CU_ASSERT_EQUAL(avp_latent_check(&model, &m, NULL, 0, &why),
			AVP_SHAPE_MISMATCH);
	CU_ASSERT_PTR_NOT_NULL(
		strstr(why.text, "hidden_dim is 1024 in the frame, 896 in"));
	m.mode = AVP_MODE_JSON;
	CU_ASSERT_EQUAL(avp_latent_check(&model, &m, NULL, 0, NULL), 0);
}

static void caches_against_a_model(void)
{
	const struct avp_identity model = qwen();
	struct avp_kv_shape shape = {24, 2, 64, 3, AVP_BFLOAT16};
	struct avp_metadata m = {.payload_type = AVP_KV_CACHE};
	const struct avp_kv_part part = {1, 3, 8, 8, 24};
	struct avp_kv_part_extra extra;
	struct avp_reason why;
	struct avp_kv kv;
	char *memory = aligned_alloc(64, 1 << 20);
	char *p = memory + avp_kv_padding(0);
	uint64_t bytes;

	avp_kv_bytes(&shape, &bytes, NULL);
	avp_kv_build(&kv, p, bytes, &shape, NULL);
	CU_ASSERT_EQUAL(avp_latent_check(&model, &m, p, bytes, NULL), 0);
	CU_ASSERT_EQUAL(avp_latent_check(&model, &m, p, bytes - 1, &why),
			AVP_KV_SIZE);
	shape.num_kv_heads = 4;
	avp_kv_bytes(&shape, &bytes, NULL);
	avp_kv_build(&kv, p, bytes, &shape, NULL);
	CU_ASSERT_EQUAL(avp_latent_check(&model, &m, p, bytes, &why),
			AVP_SHAPE_MISMATCH);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "num_kv_heads is 4"));
	shape.num_kv_heads = 2, shape.num_layers = 8;
	avp_kv_bytes(&shape, &bytes, NULL);
	avp_kv_build(&kv, p, bytes, &shape, NULL);
	CU_ASSERT_EQUAL(avp_latent_check(&model, &m, p, bytes, &why),
			AVP_SHAPE_MISMATCH);
	avp_kv_part_write(&part, &extra);
	m.extra = extra.pairs, m.extra_count = AVP_KV_PART_KEYS;
	CU_ASSERT_EQUAL(avp_latent_check(&model, &m, p, bytes, NULL), 0);
	m.extra_count = 2;
	CU_ASSERT_EQUAL(avp_latent_check(&model, &m, p, bytes, &why),
			AVP_BAD_METADATA);
	free(memory);
}

/* ---- vocabularies ------------------------------------------------------- */

static void vocabularies(void)
{
	static const char one[] =
		"{\"\\u00e9\": 2, \"a\": 0, \"\\ud83d\\ude00\": 7, "
		"\"b\\\"\": 1, \"\\uffff\": 9}";
	static const char other[] =
		"{\"version\":\"1.0\",\"model\":{\"type\":\"Unigram\","
		"\"vocab\":[[\"zz\",0.0],[\"\\u00e9\",-1.5],[\"a\",-2],"
		"[\"\",-3]]}}";
	static const char *const bad[] = {
		"[]",	      "7",
		"{}",	      "{\"model\":{}}",
		"{\"a\":-1}", "{\"a\":4294967296}",
		"[[7,0]]",    "{\"model\":{\"vocab\":[\"a\"]}}",
	};
	uint32_t a_ids[4] = {99, 99, 99, 99}, b_ids[4];
	struct avp_vocab *a, *b;
	struct avp_reason why;

	CU_ASSERT_EQUAL_FATAL(avp_vocab_open(&a, one, strlen(one), NULL), 0);
	CU_ASSERT_EQUAL_FATAL(avp_vocab_open(&b, other, strlen(other), NULL),
			      0);
	/* Python: sha256(json.dumps(sorted(vocab.items()),
	 * separators=(",", ":"))). */
	CU_ASSERT_STRING_EQUAL(avp_vocab_hash(a).data,
			       "e88e8b4fe14e7119287b6b9235e8a0540531eb00"
			       "8e21098ffbbd55439b8ccb0e");
	CU_ASSERT_EQUAL(avp_vocab_count(b), 4);
	CU_ASSERT_EQUAL(avp_vocab_overlap(a, b, NULL, NULL, 0), 2);
	CU_ASSERT_EQUAL(avp_vocab_overlap(a, b, a_ids, b_ids, 4), 2);
	CU_ASSERT(a_ids[0] == 0 && b_ids[0] == 2);
	CU_ASSERT(a_ids[1] == 2 && b_ids[1] == 1);
	CU_ASSERT_EQUAL(a_ids[2], 99);
	CU_ASSERT_EQUAL(avp_vocab_overlap(a, a, a_ids, b_ids, 1), 5);
	avp_vocab_close(a);
	avp_vocab_close(b);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CU_ASSERT_EQUAL(
			avp_vocab_open(&a, bad[i], strlen(bad[i]), &why),
			AVP_INVALID_MESSAGE);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(vectors_model_hash),
		TEST(vectors_identity),
		TEST(vectors_needs_realignment),
		TEST(vectors_resolve),
		TEST(verdicts_have_reasons),
		TEST(a_name_of_any_length_fits_the_reason),
		TEST(bad_configs),
		TEST(missing_keys_are_told),
		TEST(states_against_a_model),
		TEST(caches_against_a_model),
		TEST(vocabularies),
		{0},
	};

	return test_main("identity", tests);
}
