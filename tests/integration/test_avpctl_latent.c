/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl identity, resolve, kv and realign, run as a script would. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <avp/latent.h>

#include "tests/vectors.h"

extern char **environ;

static char avpctl[4096]; /* in this program's build */

static const char *path(const char *name)
{
	static char buf[8][4096];
	static int i;

	i = (i + 1) % 8;
	snprintf(buf[i], sizeof(buf[i]), "%s/%s", test_dir(), name);
	return buf[i];
}

static const char *save(const char *name, const void *data, size_t len)
{
	const char *to = path(name);
	FILE *f = fopen(to, "wbe");

	CU_ASSERT_FATAL(f != NULL);
	CU_ASSERT_EQUAL(fwrite(data, 1, len, f), len);
	CU_ASSERT_EQUAL(fclose(f), 0);
	return to;
}

static const char *save_text(const char *name, const char *text)
{
	return save(name, text, strlen(text));
}

static struct bytes load(const char *name)
{
	static char data[1 << 20];
	FILE *f = fopen(path(name), "rbe");
	size_t n;

	CU_ASSERT_FATAL(f != NULL);
	n = fread(data, 1, sizeof(data) - 1, f);
	data[n] = 0;
	fclose(f);
	return bytes_copy(data, n + 1); /* with its NUL */
}

/* Runs avpctl with the words up to NULL; its exit status. */
static int run(const char *word, ...)
{
	char *argv[32] = {avpctl};
	posix_spawn_file_actions_t files;
	int n = 1, status = 0;
	va_list words;
	pid_t pid;

	va_start(words, word);
	for (; word; word = va_arg(words, const char *))
		argv[n++] = (char *)(uintptr_t)word;
	va_end(words);
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

/* stdout is one line of JSON. */
static struct avp_json_doc *answer(void)
{
	struct avp_json_doc *doc = NULL;
	struct bytes out = load("out");

	CU_ASSERT(out.len > 2 && strchr((char *)out.data, '\n') ==
					 (char *)out.data + out.len - 2);
	CU_ASSERT_EQUAL_FATAL(
		avp_json_parse(&doc, out.data, out.len - 1, NULL, NULL), 0);
	bytes_free(&out);
	return doc;
}

/* stdout is empty; stderr is one line with the text in it. */
static void complained(const char *text)
{
	struct bytes err = load("err"), out = load("out");
	const char *line = (const char *)err.data;

	if (!strstr(line, text)) {
		printf("  %s", line);
		CU_FAIL("complains otherwise");
	}
	CU_ASSERT(err.len > 2 && strchr(line, '\n') == line + err.len - 2);
	CU_ASSERT_EQUAL(out.len, 1);
	bytes_free(&err);
	bytes_free(&out);
}

static void identities(void)
{
	const struct avp_json *c = vectors_first("identity");
	const struct avp_str text = case_str(c, "config_json");
	struct avp_json_doc *doc;
	struct bytes out, err;

	save("config.json", text.data, text.len);
	CU_ASSERT_EQUAL(run("identity", path("config.json"), NULL), 0);
	doc = answer();
	CU_ASSERT(avp_str_equal(
		case_str(avp_json_root(doc), "model_hash"),
		case_str(avp_json_get(c, "identity"), "model_hash")));
	CU_ASSERT_EQUAL(case_int(avp_json_root(doc), "num_kv_heads"), 2);
	avp_json_free(doc);
	err = load("err");
	CU_ASSERT_PTR_NOT_NULL(
		strstr((char *)err.data, "lacks _name_or_path, head_dim"));
	bytes_free(&err);
	CU_ASSERT_EQUAL(
		run("identity", "--canonical", path("config.json"), NULL), 0);
	out = load("out");
	CU_ASSERT_STRING_EQUAL(sha256_hex(out.data, out.len - 2).text,
			       "4f14a90cd91a8f439955856559b708c661c07e60d23ad"
			       "995068c8da6d132f1fd");
	bytes_free(&out);
}

static void bad_identities(void)
{
	CU_ASSERT_EQUAL(run("identity", save_text("bad", "{"), NULL), 1);
	complained("avpctl: identity: BAD_JSON: ");
	CU_ASSERT_EQUAL(run("identity", save_text("bad", "[]"), NULL), 1);
	complained("avpctl: identity: INVALID_MESSAGE: ");
	CU_ASSERT_EQUAL(run("identity", path("none"), NULL), 3);
	complained("avpctl: identity: IO: ");
	CU_ASSERT_EQUAL(run("identity", NULL), 2);
	complained("avpctl: identity: USAGE: ");
	CU_ASSERT_EQUAL(run("identity", "--nonsense", path("bad"), NULL), 2);
	complained("USAGE: ");
	CU_ASSERT_EQUAL(truncate(save_text("big", " "), (16 << 20) + 1), 0);
	CU_ASSERT_EQUAL(run("identity", path("big"), NULL), 1);
	complained("avpctl: identity: TOO_LARGE: ");
}

static void resolutions(void)
{
	struct avp_json_doc *doc;

	save_text("a", "{\"model_family\":\"qwen2\",\"hidden_dim\":896,"
		       "\"num_layers\":24,\"num_kv_heads\":2}");
	save_text("b", "{\"model_family\":\"qwen2\",\"hidden_dim\":896,"
		       "\"num_layers\":24,\"num_kv_heads\":4}");
	CU_ASSERT_EQUAL(run("resolve", path("a"), path("b"), NULL), 0);
	doc = answer();
	CU_ASSERT(case_is(avp_json_root(doc), "mode", "LATENT"));
	CU_ASSERT_FALSE(case_bool(avp_json_root(doc), "kv_compatible"));
	avp_json_free(doc);
	CU_ASSERT_EQUAL(run("resolve", path("a"), save_text("c", "{}"), NULL),
			0);
	doc = answer();
	CU_ASSERT(case_is(avp_json_root(doc), "mode", "JSON"));
	avp_json_free(doc);
	CU_ASSERT_EQUAL(run("resolve", path("a"),
			    save_text("c", "{\"hidden_dim\":-1}"), NULL),
			1);
	complained("avpctl: resolve: INVALID_MESSAGE: ");
	CU_ASSERT_EQUAL(run("resolve", path("a"), NULL), 2);
}

/* A payload, then the same in a compressed frame: equal answers. */
static void caches(void)
{
	const struct avp_json *c = vectors_first("kv");
	struct bytes b = vectors_file(case_str(c, "file")), plain, framed;
	const struct avp_json *t;
	struct avp_json_doc *doc;

	save("kv", b.data, b.len);
	save_text("meta", "{\"payload_type\":\"KV_CACHE\"}");
	CU_ASSERT_EQUAL(run("kv", "inspect", path("kv"), NULL), 0);
	plain = load("out");
	doc = answer();
	t = avp_json_first(avp_json_get(avp_json_root(doc), "tensors"));
	CU_ASSERT(case_is(t, "which", "K"));
	CU_ASSERT_EQUAL(case_int(t, "offset"), 17);
	CU_ASSERT(avp_str_equal(
		case_str(t, "sha256"),
		case_str(avp_json_first(avp_json_get(c, "tensors")),
			 "sha256")));
	CU_ASSERT(case_is(avp_json_get(avp_json_root(doc), "header"), "dtype",
			  "FLOAT32"));
	avp_json_free(doc);
	CU_ASSERT_EQUAL(run("frame", "encode", "--metadata", path("meta"),
			    "--payload", path("kv"), "--compression", "fast",
			    "-o", path("frame"), NULL),
			0);
	CU_ASSERT_EQUAL(run("kv", "inspect", path("frame"), NULL), 0);
	framed = load("out");
	CU_ASSERT_STRING_EQUAL((char *)plain.data, (char *)framed.data);
	save("kv", b.data, b.len - 1);
	CU_ASSERT_EQUAL(run("kv", "inspect", path("kv"), NULL), 1);
	complained("avpctl: kv inspect: KV_SIZE: ");
	save_text("meta", "{}");
	run("frame", "encode", "--metadata", path("meta"), "--payload",
	    path("kv"), "-o", path("frame"), NULL);
	CU_ASSERT_EQUAL(run("kv", "inspect", path("frame"), NULL), 1);
	complained("avpctl: kv inspect: SHAPE_MISMATCH: ");
	CU_ASSERT_EQUAL(run("kv", "inspect", save_text("kv", "AV\1"), NULL), 1);
	complained("avpctl: kv inspect: SHORT_HEADER: ");
	bytes_free(&b), bytes_free(&plain), bytes_free(&framed);
}

static void copy_vector(const char *name, const struct avp_json *files,
			const char *key)
{
	struct bytes b = vectors_file(case_str(files, key));

	save(name, b.data, b.len);
	bytes_free(&b);
}

static bool same_floats(const char *name, const char *want, size_t n,
			double tolerance)
{
	struct bytes a = load(name), b = load(want);
	const float *x = (const float *)(const void *)a.data;
	const float *y = (const float *)(const void *)b.data;
	bool same = a.len == b.len && a.len == n * 4 + 1;

	for (size_t i = 0; same && i < n; i++)
		same = fabs((double)x[i] - (double)y[i]) <= tolerance;
	bytes_free(&a), bytes_free(&b);
	return same;
}

static void matrices(void)
{
	const struct avp_json *c = vectors_first("realign");
	const struct avp_json *files = avp_json_get(c, "files");
	struct avp_json_doc *doc;

	CU_ASSERT_EQUAL(case_int(c, "vocab"), 200);
	copy_vector("in", files, "E_in"), copy_vector("ou", files, "E_out");
	copy_vector("w0", files, "W"), copy_vector("x", files, "X");
	copy_vector("y0", files, "Y");
	CU_ASSERT_EQUAL(run("realign", "compute", "--e-in", path("in"),
			    "--e-out", path("ou"), "--vocab", "200", "--dim",
			    "16", "-o", path("w"), NULL),
			0);
	doc = answer();
	CU_ASSERT(fabs(case_double(avp_json_root(doc), "target_norm") -
		       case_double(c, "target_norm")) < 1e-6);
	CU_ASSERT_EQUAL(case_int(avp_json_root(doc), "dim"), 16);
	CU_ASSERT_FALSE(case_bool(avp_json_root(doc), "cached"));
	avp_json_free(doc);
	CU_ASSERT(same_floats("w", "w0", 256, 1e-6));
	CU_ASSERT_EQUAL(run("realign", "apply", "--matrix", path("w"),
			    "--target-norm", "0.07940368354320526", "--in",
			    path("x"), "--dim", "16", "-o", path("y"), NULL),
			0);
	CU_ASSERT(same_floats("y", "y0", 7 * 16, 1e-6));
	CU_ASSERT_EQUAL(run("realign", "compute", "--e-in", path("in"),
			    "--e-out", path("ou"), "--vocab", "199", "--dim",
			    "16", "-o", path("w"), NULL),
			1);
	complained("avpctl: realign compute: SHAPE_MISMATCH: ");
	CU_ASSERT_EQUAL(run("realign", "compute", "--vocab", "-3", NULL), 2);
	complained("avpctl: realign compute: USAGE: --vocab \"-3\"");
	CU_ASSERT_EQUAL(run("realign", "apply", "--matrix", path("w"), NULL),
			2);
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

	save_text("config.json", "{\"model_type\":\"x\"}");
	for (int with = 0; with < 2; with++) {
		int n = snprintf(file + 8, sizeof(file) - 8, header,
				 with ? "lm_head.weight" : "other");

		memset(file, 0, 8);
		file[0] = (char)n;
		memcpy(file + 8 + n, data, sizeof(data));
		save("model.safetensors", file, (size_t)n + 24);
		CU_ASSERT_EQUAL(run("realign", "compute", "--model", test_dir(),
				    "--cache", path("cache"), NULL),
				!with);
		if (!with)
			complained("DESERIALIZATION_ERROR: ");
	}
	doc = answer();
	CU_ASSERT_FALSE(case_bool(avp_json_root(doc), "cached"));
	avp_json_free(doc);
	CU_ASSERT_EQUAL(run("realign", "compute", "--model", test_dir(),
			    "--cache", path("cache"), NULL),
			0);
	doc = answer();
	CU_ASSERT(case_bool(avp_json_root(doc), "cached"));
	/* The mean of 1 and 2. */
	CU_ASSERT_EQUAL(case_double(avp_json_root(doc), "target_norm"), 1.5);
	avp_json_free(doc);
	save_text("config.json", "{\"tie_word_embeddings\":true}");
	CU_ASSERT_EQUAL(run("realign", "compute", "--model", test_dir(), NULL),
			1);
	complained("are tied");
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {
		TEST(identities),
		TEST(bad_identities),
		TEST(resolutions),
		TEST(caches),
		TEST(matrices),
		TEST(models),
		{0},
	};
	char *tail = argc ? strstr(argv[0], "tests/integration/") : NULL;

	if (!tail)
		return 1;
	snprintf(avpctl, sizeof(avpctl), "%.*savpctl", (int)(tail - argv[0]),
		 argv[0]);
	return test_main("avpctl_latent", tests);
}
