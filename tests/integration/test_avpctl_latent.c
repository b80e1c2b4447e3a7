/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl identity, resolve, kv and realign, run as a script would. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include <avp/latent.h>

#include "tests/tool.h"

/* stdout is empty; stderr is one line with the text in it. */
static void complained(const char *text)
{
	struct bytes out = tool_load("tool.out");

	CU_ASSERT(tool_has("tool.err", text));
	CU_ASSERT(tool_complained("tool", "avpctl: "));
	CU_ASSERT_EQUAL(out.len, 0);
	bytes_free(&out);
}

/* A config of the reference's, by the program. */
static void identity(const struct avp_json *c)
{
	const struct avp_json *want = avp_json_get(c, "identity");
	const struct avp_str text = case_str(c, "config_json");
	struct avp_str hash = case_str(want, "model_hash");
	struct avp_json_doc *doc;
	struct bytes out;

	tool_save("config.json", text.data, text.len);
	CASE(c, !TOOL("identity", tool_path("config.json")));
	doc = tool_answer("tool");
	CASE(c,
	     avp_str_equal(case_str(avp_json_root(doc), "model_hash"), hash));
	CASE(c, case_int(avp_json_root(doc), "num_kv_heads") ==
			case_int(want, "num_kv_heads"));
	avp_json_free(doc);
	CASE(c, !TOOL("identity", "--canonical", tool_path("config.json")));
	out = tool_load("tool.out");
	CASE(c, !strcmp(sha256_hex(out.data, out.len - 1).text, hash.data));
	bytes_free(&out);
}

static void identities(void)
{
	for (const struct avp_json *c = vectors_first("identity"); c;
	     c = avp_json_next(c))
		if (!avp_json_get(c, "error"))
			identity(c);
	VECTORS("identity", 22);
	CU_ASSERT_EQUAL(
		TOOL("identity", tool_save_text("config.json",
						"{\"model_type\":\"x\","
						"\"hidden_size\":8,"
						"\"num_hidden_layers\":2,"
						"\"num_key_value_heads\":1}")),
		0);
	CU_ASSERT(tool_has("tool.err", "lacks _name_or_path, head_dim"));
}

static void bad_identities(void)
{
	CU_ASSERT_EQUAL(TOOL("identity", tool_save_text("bad", "{")), 1);
	complained("avpctl: identity: BAD_JSON: ");
	CU_ASSERT_EQUAL(TOOL("identity", tool_save_text("bad", "[]")), 1);
	complained("avpctl: identity: INVALID_MESSAGE: ");
	CU_ASSERT_EQUAL(TOOL("identity", tool_path("none")), 3);
	complained("avpctl: identity: IO: ");
	CU_ASSERT_EQUAL(TOOL("identity"), 2);
	complained("avpctl: identity: USAGE: ");
	CU_ASSERT_EQUAL(TOOL("identity", "--nonsense", tool_path("bad")), 2);
	complained("USAGE: ");
	CU_ASSERT_EQUAL(truncate(tool_save_text("big", " "), (16 << 20) + 1),
			0);
	CU_ASSERT_EQUAL(TOOL("identity", tool_path("big")), 1);
	complained("avpctl: identity: TOO_LARGE: ");
}

static void resolutions(void)
{
	struct avp_json_doc *doc;

	tool_save_text("a", "{\"model_family\":\"qwen2\",\"hidden_dim\":896,"
			    "\"num_layers\":24,\"num_kv_heads\":2}");
	tool_save_text("b", "{\"model_family\":\"qwen2\",\"hidden_dim\":896,"
			    "\"num_layers\":24,\"num_kv_heads\":4}");
	CU_ASSERT_EQUAL(TOOL("resolve", tool_path("a"), tool_path("b")), 0);
	doc = tool_answer("tool");
	CU_ASSERT(case_is(avp_json_root(doc), "mode", "LATENT"));
	CU_ASSERT_FALSE(case_bool(avp_json_root(doc), "kv_compatible"));
	avp_json_free(doc);
	CU_ASSERT_EQUAL(
		TOOL("resolve", tool_path("a"), tool_save_text("c", "{}")), 0);
	doc = tool_answer("tool");
	CU_ASSERT(case_is(avp_json_root(doc), "mode", "JSON"));
	avp_json_free(doc);
	CU_ASSERT_EQUAL(TOOL("resolve", tool_path("a"),
			     tool_save_text("c", "{\"hidden_dim\":-1}")),
			1);
	complained("avpctl: resolve: INVALID_MESSAGE: ");
	CU_ASSERT_EQUAL(TOOL("resolve", tool_path("a")), 2);
}

/* A payload, then the same in a compressed frame: equal answers. */
static void caches(void)
{
	const struct avp_json *c = vectors_first("kv");
	struct bytes b, plain, framed;
	const struct avp_json *t;
	struct avp_json_doc *doc;
	struct avp_str dtype;

	CU_ASSERT(!vectors_are_ours() || c);
	if (!c)
		return;
	b = vectors_file(case_str(c, "file"));
	tool_save("kv", b.data, b.len);
	tool_save_text("meta", "{\"payload_type\":\"KV_CACHE\"}");
	CU_ASSERT_EQUAL(TOOL("kv", "inspect", tool_path("kv")), 0);
	plain = tool_load("tool.out");
	doc = tool_answer("tool");
	t = avp_json_first(avp_json_get(avp_json_root(doc), "tensors"));
	CU_ASSERT(case_is(t, "which", "K"));
	CU_ASSERT_EQUAL(case_int(t, "offset"), 17);
	CU_ASSERT(avp_str_equal(
		case_str(t, "sha256"),
		case_str(avp_json_first(avp_json_get(c, "tensors")),
			 "sha256")));
	dtype = case_str(avp_json_get(avp_json_root(doc), "header"), "dtype");
	CU_ASSERT(
		dtype.len &&
		!strncasecmp(dtype.data,
			     case_str(avp_json_get(c, "header"), "dtype").data,
			     dtype.len));
	avp_json_free(doc);
	CU_ASSERT_EQUAL(TOOL("frame", "encode", "--metadata", tool_path("meta"),
			     "--payload", tool_path("kv"), "--compression",
			     "fast", "-o", tool_path("frame")),
			0);
	CU_ASSERT_EQUAL(TOOL("kv", "inspect", tool_path("frame")), 0);
	framed = tool_load("tool.out");
	CU_ASSERT_STRING_EQUAL((char *)plain.data, (char *)framed.data);
	tool_save("kv", b.data, b.len - 1);
	CU_ASSERT_EQUAL(TOOL("kv", "inspect", tool_path("kv")), 1);
	complained("avpctl: kv inspect: KV_SIZE: ");
	tool_save_text("meta", "{}");
	TOOL("frame", "encode", "--metadata", tool_path("meta"), "--payload",
	     tool_path("kv"), "-o", tool_path("frame"));
	CU_ASSERT_EQUAL(TOOL("kv", "inspect", tool_path("frame")), 1);
	complained("avpctl: kv inspect: SHAPE_MISMATCH: ");
	CU_ASSERT_EQUAL(TOOL("kv", "inspect", tool_save_text("kv", "AV\1")), 1);
	complained("avpctl: kv inspect: SHORT_HEADER: ");
	bytes_free(&b), bytes_free(&plain), bytes_free(&framed);
}

static void copy_vector(const char *name, const struct avp_json *files,
			const char *key)
{
	struct bytes b = vectors_file(case_str(files, key));

	tool_save(name, b.data, b.len);
	bytes_free(&b);
}

static bool same_floats(const char *name, const char *want, size_t n,
			double tolerance)
{
	struct bytes a = tool_load(name), b = tool_load(want);
	const float *x = (const float *)(const void *)a.data;
	const float *y = (const float *)(const void *)b.data;
	bool same = a.len == b.len && a.len == n * 4;

	for (size_t i = 0; same && i < n; i++)
		same = fabs((double)x[i] - (double)y[i]) <= tolerance;
	bytes_free(&a), bytes_free(&b);
	return same;
}

/* A case of the reference's, by the program. */
static void matrix(const struct avp_json *c, const char *vocab, const char *dim)
{
	const struct avp_json *files = avp_json_get(c, "files"),
			      *limits = avp_json_get(c, "tolerance");
	size_t n = (size_t)case_int(c, "dim");
	char lambda[32], norm[32];
	struct avp_json_doc *doc;

	snprintf(lambda, sizeof(lambda), "%.17g", case_double(c, "lambda_reg"));
	snprintf(norm, sizeof(norm), "%.17g", case_double(c, "target_norm"));
	copy_vector("in", files, "E_in"), copy_vector("ou", files, "E_out");
	copy_vector("w0", files, "W"), copy_vector("x", files, "X");
	copy_vector("y0", files, "Y");
	CASE(c, !TOOL("realign", "compute", "--e-in", tool_path("in"),
		      "--e-out", tool_path("ou"), "--vocab", vocab, "--dim",
		      dim, "--lambda", lambda, "-o", tool_path("w")));
	doc = tool_answer("tool");
	CASE(c, fabs(case_double(avp_json_root(doc), "target_norm") -
		     case_double(c, "target_norm")) < 1e-6);
	CASE(c, case_int(avp_json_root(doc), "dim") == (int64_t)n);
	CASE(c, !case_bool(avp_json_root(doc), "cached"));
	avp_json_free(doc);
	CASE(c, same_floats("w", "w0", n * n, case_double(limits, "W_abs")));
	CASE(c, !TOOL("realign", "apply", "--matrix", tool_path("w"),
		      "--target-norm", norm, "--in", tool_path("x"), "--dim",
		      dim, "-o", tool_path("y")));
	CASE(c,
	     same_floats("y", "y0",
			 n * (size_t)case_int(avp_json_get(c, "apply"), "rows"),
			 case_double(limits, "Y_abs")));
}

static void matrices(void)
{
	char vocab[32], dim[32];

	VECTORS("realign", 5);
	if (!vectors_first("realign"))
		return;
	for (const struct avp_json *c = vectors_first("realign"); c;
	     c = avp_json_next(c)) {
		snprintf(vocab, sizeof(vocab), "%lld",
			 (long long)case_int(c, "vocab"));
		snprintf(dim, sizeof(dim), "%lld",
			 (long long)case_int(c, "dim"));
		if (case_double(avp_json_get(c, "tolerance"), "W_abs") > 0)
			matrix(c, vocab, dim); /* else it has no one answer */
	}
	CU_ASSERT_EQUAL(TOOL("realign", "compute", "--e-in", tool_path("in"),
			     "--e-out", tool_path("ou"), "--vocab", "199",
			     "--dim", dim, "-o", tool_path("w")),
			1);
	complained("avpctl: realign compute: SHAPE_MISMATCH: ");
	CU_ASSERT_EQUAL(TOOL("realign", "compute", "--vocab", "-3"), 2);
	complained("avpctl: realign compute: USAGE: --vocab \"-3\"");
	CU_ASSERT_EQUAL(TOOL("realign", "apply", "--matrix", tool_path("w")),
			2);
}

/* Computes with E_in, or E_out, all x but one number, y; the exit status. */
static int computed(const char *which, float x, float y)
{
	const char *in = strcmp(which, "in") ? "good" : "bad";
	const char *out = strcmp(which, "out") ? "good" : "bad";
	float bad[20 * 4], good[20 * 4];

	for (int i = 0; i < 20 * 4; i++) {
		bad[i] = x;
		good[i] = (float)((i * 37 + i / 4 * 11) % 17) - 8;
	}
	bad[33] = y;
	tool_save("bad", bad, sizeof(bad));
	tool_save("good", good, sizeof(good));
	return TOOL("realign", "compute", "--e-in", tool_path(in), "--e-out",
		    tool_path(out), "--vocab", "20", "--dim", "4", "-o",
		    tool_path("w"));
}

static void warned(const char *text)
{
	CU_ASSERT(
		tool_complained("tool", "avpctl: realign compute: warning: "));
	CU_ASSERT(tool_has("tool.err", text));
	avp_json_free(tool_answer("tool"));
}

/* What cannot be right is said. */
static void strange_weights(void)
{
	const float bad[] = {NAN, INFINITY, -INFINITY, 3e38f};
	struct bytes err;

	CU_ASSERT_EQUAL(computed("", 0, 0), 0);
	err = tool_load("tool.err");
	CU_ASSERT_EQUAL(err.len, 0);
	bytes_free(&err);
	/* What apply would not take is not handed out either. */
	CU_ASSERT_EQUAL(computed("in", 0, 0), 1);
	complained("DESERIALIZATION_ERROR: the input embeddings hold nothing");
	CU_ASSERT_EQUAL(computed("out", 0, 0), 0);
	warned("nothing but zeros, as when lm_head has");
	/* All rows alike: rank 1. */
	CU_ASSERT_EQUAL(computed("out", 1e3f, 1e3f), 0);
	warned("E_out^T E_out is not positive definite");
	for (int i = 0; i < 4; i++) {
		CU_ASSERT_EQUAL(computed("in", 1, bad[i]), 1);
		complained("DESERIALIZATION_ERROR: the input embeddings hold");
		CU_ASSERT_EQUAL(computed("out", 1, bad[i]), 1);
		complained("DESERIALIZATION_ERROR: lm_head's rows hold");
	}
}

/* Numbers that cannot be, and outputs that would cost an input or the JSON. */
static void odd_arguments(void)
{
	static const char *const norms[] = {"1e39", "1e-50", "1e300"};
	const float w[4] = {1, 0, 0, 1};

	tool_save("w", w, sizeof(w));
	tool_save("x", w, sizeof(w));
	for (int i = 0; i < 3; i++) {
		CU_ASSERT_EQUAL(TOOL("realign", "apply", "--matrix",
				     tool_path("w"), "--in", tool_path("x"),
				     "--dim", "2", "-o", tool_path("never"),
				     "--target-norm", norms[i]),
				2);
		complained("USAGE: --target-norm 1e");
		CU_ASSERT_EQUAL(access(tool_path("never"), F_OK), -1);
	}
	CU_ASSERT_EQUAL(TOOL("realign", "apply", "--matrix", tool_path("w"),
			     "--in", tool_path("x"), "--dim", "2", "-o",
			     tool_path("x"), "--target-norm", "1"),
			2);
	complained(", an input, whose bytes would be lost");
	/* Nothing that is given is passed over. */
	CU_ASSERT_EQUAL(
		TOOL("realign", "compute", "--model", test_dir(), "--dim", "2"),
		2);
	complained("USAGE: give --model, and ");
	for (int i = 0; i < 3; i++)
		CU_ASSERT_EQUAL(TOOL("realign", "compute", "--e-in",
				     tool_path("w"), "--e-out", tool_path("x"),
				     "--vocab", i ? "2" : "0", "--dim", "2",
				     "-o", i < 2 ? "-" : tool_path("w")),
				2);
	complained(", an input, whose bytes would be lost");
}

/* A model directory without lm_head, then with; its cache; tied weights. */
static void models(void)
{
	char file[256];
	static const char header[] =
		"{\"wte.weight\":{\"dtype\":\"F32\",\"shape\":[2,1],"
		"\"data_offsets\":[0,8]},\"%s\":{\"dtype\":\"F32\","
		"\"shape\":[2,1],\"data_offsets\":[8,16]}}";
	const float data[] = {1, 2, 3, 4};
	struct avp_json_doc *doc;

	tool_save_text("config.json", "{\"model_type\":\"x\"}");
	for (int with = 0; with < 2; with++) {
		int n = snprintf(file + 8, sizeof(file) - 8, header,
				 with ? "lm_head.weight" : "other");

		memset(file, 0, 8);
		file[0] = (char)n;
		memcpy(file + 8 + n, data, sizeof(data));
		tool_save("model.safetensors", file, (size_t)n + 24);
		CU_ASSERT_EQUAL(TOOL("realign", "compute", "--model",
				     test_dir(), "--cache", tool_path("cache")),
				!with);
		if (!with)
			complained("DESERIALIZATION_ERROR: ");
	}
	doc = tool_answer("tool");
	CU_ASSERT_FALSE(case_bool(avp_json_root(doc), "cached"));
	avp_json_free(doc);
	CU_ASSERT_EQUAL(TOOL("realign", "compute", "--model", test_dir(),
			     "--cache", tool_path("cache")),
			0);
	doc = tool_answer("tool");
	CU_ASSERT(case_bool(avp_json_root(doc), "cached"));
	/* The mean of 1 and 2. */
	CU_ASSERT_EQUAL(case_double(avp_json_root(doc), "target_norm"), 1.5);
	avp_json_free(doc);
	tool_save_text("config.json", "{\"tie_word_embeddings\":true}");
	CU_ASSERT_EQUAL(TOOL("realign", "compute", "--model", test_dir()), 1);
	complained("are tied");
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		TEST(identities), TEST(bad_identities), TEST(resolutions),
		TEST(caches),	  TEST(matrices),	TEST(strange_weights),
		TEST(models),	  TEST(odd_arguments),	{0},
	};

	(void)argc;
	tool_begin(argv[0]);
	return test_main("avpctl_latent", tests);
}
