/* SPDX-License-Identifier: Apache-2.0 */
/* Safetensors files: whole ones, shards, and headers that lie. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <avp/latent.h>

#include "tests/harness.h"

static char *path_of(const char *name)
{
	char *path;

	CU_ASSERT_FATAL(asprintf(&path, "%s/%s", test_dir(), name) > 0);
	return path;
}

static void write_file(const char *name, const void *data, size_t len)
{
	char *path = path_of(name);
	FILE *f = fopen(path, "we");

	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	CU_ASSERT_EQUAL(fwrite(data, 1, len, f), len);
	CU_ASSERT_EQUAL(fclose(f), 0);
	free(path);
}

/* A file of this header and so many bytes of data: 0, 1, 2 ... */
static void write_model(const char *name, const char *header, size_t data_bytes)
{
	const uint64_t n = strlen(header);
	uint8_t *file = malloc(8 + n + data_bytes);

	for (int i = 0; i < 8; i++)
		file[i] = (uint8_t)(n >> 8 * i);
	memcpy(file + 8, header, n);
	for (size_t i = 0; i < data_bytes; i++)
		file[8 + n + i] = (uint8_t)i;
	write_file(name, file, 8 + n + data_bytes);
	free(file);
}

static int open_model(const char *name, struct avp_weights **w,
		      struct avp_reason *why)
{
	char *path = path_of(name);
	int code = avp_weights_open(w, path, why);

	free(path);
	return code;
}

static int code_of(const char *name, struct avp_reason *why)
{
	struct avp_weights *w = NULL;
	int code = open_model(name, &w, why);

	avp_weights_close(w);
	return code;
}

#define T(name, dtype, shape, from, to)                          \
	"\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape \
	",\"data_offsets\":[" #from "," #to "]}"

static void one_file(void)
{
	struct avp_weights *w;
	struct avp_tensor in, out, t;
	struct avp_reason why;

	write_model(
		"m.safetensors",
		"{\"__metadata__\":{\"format\":\"pt\"}," T(
			"lm_head.weight", "BF16", "[3,2]", 24,
			36) "," T("model.embed_tokens.weight", "F32", "[3,2]",
				  0,
				  24) "," T("counts", "I64", "[2]", 36,
					    52) "," T("scalar", "F16", "[]", 52,
						      54) "," T("empty", "F16",
								"[0,7]", 54,
								54) "}   ",
		54);
	CU_ASSERT_EQUAL_FATAL(open_model("m.safetensors", &w, NULL), 0);
	CU_ASSERT_EQUAL(avp_weights_count(w), 5);
	CU_ASSERT(avp_str_equal(avp_weights_name(w, 0), avp_str_of("counts")));
	CU_ASSERT_EQUAL(avp_weights_name(w, 5).len, 0);
	CU_ASSERT_EQUAL(avp_weights_embeddings(w, &in, &out, NULL), 0);
	CU_ASSERT_EQUAL(in.dtype, AVP_FLOAT32);
	CU_ASSERT_EQUAL(in.shape[0], 3);
	CU_ASSERT_EQUAL(*(uint8_t *)in.data, 0);
	CU_ASSERT_EQUAL(out.dtype, AVP_BFLOAT16);
	CU_ASSERT_EQUAL(*(uint8_t *)out.data, 24);
	CU_ASSERT_EQUAL(avp_weights_find(w, avp_str_of("scalar"), &t, NULL), 1);
	CU_ASSERT_EQUAL(t.rank, 0);
	CU_ASSERT_EQUAL(avp_weights_find(w, avp_str_of("empty"), &t, NULL), 1);
	CU_ASSERT_EQUAL(avp_weights_find(w, avp_str_of("none"), &t, NULL), 0);
	CU_ASSERT_EQUAL(avp_weights_find(w, avp_str_of("counts"), &t, &why),
			AVP_BAD_DTYPE);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "counts has dtype I64"));
	avp_weights_close(w);
}

/* The second vector of realign_error: a model without embeddings. */
static void names_of_embeddings(void)
{
	static const struct {
		const char *header;
		int code;
	} models[] = {
		{"{" T("transformer.wte.weight", "F32", "[2]", 0, 8) "}", 1},
		{"{" T("model.layers.0.weight", "F32", "[2]", 0, 8) "}",
		 AVP_DESERIALIZATION_ERROR},
		{"{" T("wte.weight", "F32", "[1]", 0,
		       4) "," T("vlm_head.weight", "F32", "[1]", 4, 8) "}",
		 1},
		{"{" T("tok_embeddings.weight", "F32", "[1]", 0,
		       4) "," T("output.weight", "F32", "[1]", 4, 8) "}",
		 0},
		{"{" T("gpt_neox.embed_in.weight", "F32", "[1]", 0,
		       4) "," T("embed_out.weight", "F32", "[1]", 4, 8) "}",
		 0},
		{"{" T("wte.weight", "U8", "[8]", 0, 8) "}", AVP_BAD_DTYPE},
		{"{" T("wte.weight", "F99", "[8]", 0, 8) "}", AVP_BAD_DTYPE},
		{"{" T("wte.weight", "I8", "[1,1,1,1,1,1,1,1,8]", 0, 8) "}",
		 AVP_TOO_LARGE},
	};

	for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++) {
		struct avp_tensor in = {.rank = 99}, out;
		struct avp_reason why = {0};
		struct avp_weights *w;

		write_model("n.safetensors", models[i].header, 8);
		CU_ASSERT_EQUAL_FATAL(open_model("n.safetensors", &w, NULL), 0);
		CU_ASSERT_EQUAL(avp_weights_embeddings(w, &in, &out, &why),
				models[i].code);
		CU_ASSERT(models[i].code >= 0 || in.rank == 99);
		CU_ASSERT(models[i].code >= 0 || strlen(why.text) > 20);
		avp_weights_close(w);
	}
}

static void lies_are_refused(void)
{
	static const struct {
		const char *what, *header;
		int code;
	} lies[] = {
		{"not JSON", "{\"a\":", AVP_BAD_JSON},
		{"no object", "[]", AVP_DESERIALIZATION_ERROR},
		{"tensor is no object", "{\"a\":7}", AVP_DESERIALIZATION_ERROR},
		{"size", "{" T("a", "F32", "[3]", 0, 16) "}",
		 AVP_DESERIALIZATION_ERROR},
		{"past the end", "{" T("a", "F32", "[5]", 0, 20) "}",
		 AVP_DESERIALIZATION_ERROR},
		{"backwards", "{" T("a", "F32", "[4]", 16, 0) "}",
		 AVP_DESERIALIZATION_ERROR},
		{"overlap",
		 "{" T("a", "F32", "[3]", 0, 12) "," T("b", "F32", "[2]", 8,
						       16) "}",
		 AVP_DESERIALIZATION_ERROR},
		{"hole",
		 "{" T("a", "F32", "[1]", 0, 4) "," T("b", "F32", "[2]", 8,
						      16) "}",
		 AVP_DESERIALIZATION_ERROR},
		{"hole before", "{" T("b", "F32", "[2]", 8, 16) "}",
		 AVP_DESERIALIZATION_ERROR},
		{"rest", "{" T("a", "F32", "[1]", 0, 4) "}",
		 AVP_DESERIALIZATION_ERROR},
		{"overflow",
		 "{" T("a", "F32", "[4294967296,4294967296,4]", 0, 16) "}",
		 AVP_DESERIALIZATION_ERROR},
		{"overflow to fit",
		 "{" T("a", "F32", "[4611686018427387905,4]", 0, 16) "}",
		 AVP_DESERIALIZATION_ERROR},
		{"negative", "{" T("a", "F32", "[-4]", 0, 16) "}",
		 AVP_DESERIALIZATION_ERROR},
		{"one offset",
		 "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],"
		 "\"data_offsets\":[0]}}",
		 AVP_DESERIALIZATION_ERROR},
		{"shape is a number", "{" T("a", "F32", "4", 0, 16) "}",
		 AVP_DESERIALIZATION_ERROR},
	};

	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		struct avp_reason why = {0};

		write_model("l.safetensors", lies[i].header, 16);
		CU_ASSERT_EQUAL(code_of("l.safetensors", &why), lies[i].code);
		CU_ASSERT(strlen(why.text) > 10);
	}
}

static void lengths_of_headers(void)
{
	static const uint8_t huge[16] = {255, 255, 255, 255,
					 255, 255, 255, 255};
	static const uint8_t nearly[12] = {5, 0, 0,   0,   0,	0,
					   0, 0, '{', '}', ' ', ' '};
	struct avp_reason why;
	char *path = path_of("s.safetensors");

	write_file("s.safetensors", huge, 16);
	CU_ASSERT_EQUAL(code_of("s.safetensors", &why),
			AVP_DESERIALIZATION_ERROR);
	write_file("s.safetensors", nearly, 12);
	CU_ASSERT_EQUAL(code_of("s.safetensors", &why),
			AVP_DESERIALIZATION_ERROR);
	write_file("s.safetensors", nearly, 7);
	CU_ASSERT_EQUAL(code_of("s.safetensors", &why),
			AVP_DESERIALIZATION_ERROR);
	write_file("s.safetensors", nearly, 0);
	CU_ASSERT_EQUAL(code_of("s.safetensors", &why),
			AVP_DESERIALIZATION_ERROR);
	/* A header over the limit, in a file that is as large: mostly a
	 * hole. */
	write_file("s.safetensors", "\1\0\0\3\0\0\0\0", 8);
	CU_ASSERT_EQUAL(truncate(path, (64 << 20)), 0);
	CU_ASSERT_EQUAL(code_of("s.safetensors", &why), AVP_TOO_LARGE);
	CU_ASSERT_EQUAL(code_of("none.safetensors", &why), AVP_IO);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "none.safetensors"));
	CU_ASSERT_EQUAL(unlink(path), 0);
	CU_ASSERT_EQUAL(mkfifo(path, 0600), 0);
	CU_ASSERT_EQUAL(code_of("s.safetensors", &why), AVP_IO);
	free(path);
}

static void write_index(const char *text)
{
	write_file("d/model.safetensors.index.json", text, strlen(text));
}

static void shards(void)
{
	struct avp_tensor in, out;
	struct avp_weights *w;
	struct avp_reason why;
	char *dir = path_of("d");

	CU_ASSERT_EQUAL(mkdir(dir, 0700), 0);
	CU_ASSERT_EQUAL(code_of("d", &why), AVP_IO);
	write_model("d/model.safetensors",
		    "{" T("wte.weight", "F32", "[4]", 0, 16) "}", 16);
	CU_ASSERT_EQUAL(code_of("d", &why), 0);
	write_model(
		"d/a.safetensors",
		"{" T("model.embed_tokens.weight", "F32", "[2,2]", 0, 16) "}",
		16);
	write_model("d/b.safetensors",
		    "{" T("lm_head.weight", "F16", "[2,2]", 0,
			  8) "," T("norm", "F16", "[1]", 8, 10) "}",
		    10);
	write_index("{\"metadata\":{},\"weight_map\":{\"lm_head.weight\":"
		    "\"b.safetensors\",\"norm\":\"b.safetensors\","
		    "\"model.embed_tokens.weight\":\"a.safetensors\"}}");
	CU_ASSERT_EQUAL_FATAL(open_model("d", &w, NULL), 0);
	CU_ASSERT_EQUAL(avp_weights_count(w), 3);
	CU_ASSERT_EQUAL(avp_weights_embeddings(w, &in, &out, NULL), 0);
	CU_ASSERT_EQUAL(out.dtype, AVP_FLOAT16);
	avp_weights_close(w);
	CU_ASSERT_EQUAL(code_of("d/model.safetensors.index.json", &why), 0);
	free(dir);
}

/* After shards(), which made the files. */
static void indices_that_lie(void)
{
	static const struct {
		const char *text;
		int code;
	} lies[] = {
		{"{}", AVP_DESERIALIZATION_ERROR},
		{"{\"weight_map\":{}}", AVP_DESERIALIZATION_ERROR},
		{"[", AVP_BAD_JSON},
		{"{\"weight_map\":{\"norm\":\"../d/b.safetensors\"}}",
		 AVP_DESERIALIZATION_ERROR},
		{"{\"weight_map\":{\"norm\":\"b.safetensors\\u0000\"}}",
		 AVP_DESERIALIZATION_ERROR},
		{"{\"weight_map\":{\"norm\":\"e/b.safetensors\"}}",
		 AVP_DESERIALIZATION_ERROR},
		{"{\"weight_map\":{\"norm\":7}}", AVP_DESERIALIZATION_ERROR},
		{"{\"weight_map\":{\"norm\":\"c.safetensors\"}}", AVP_IO},
		{"{\"weight_map\":{\"other\":\"b.safetensors\"}}",
		 AVP_DESERIALIZATION_ERROR},
		{"{\"weight_map\":{\"norm\":\"a.safetensors\","
		 "\"lm_head.weight\":\"b.safetensors\"}}",
		 AVP_DESERIALIZATION_ERROR},
		{"{\"weight_map\":{\"norm\":\"b.safetensors\",\"x\":"
		 "\"b2.safetensors\"}}",
		 AVP_DESERIALIZATION_ERROR},
	};
	struct avp_reason why;

	write_model("d/b2.safetensors",
		    "{" T("norm", "F16", "[1]", 0, 2) "," T("x", "F16", "[1]",
							    2, 4) "}",
		    4);
	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		write_index(lies[i].text);
		CU_ASSERT_EQUAL(code_of("d", &why), lies[i].code);
	}
}

int main(void)
{
	static const struct test tests[] = {
		TEST(one_file),
		TEST(names_of_embeddings),
		TEST(lies_are_refused),
		TEST(lengths_of_headers),
		TEST(shards),
		TEST(indices_that_lie),
		{0},
	};

	return test_main("weights", tests);
}
