/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/sha.h>

#include "tests/vectors.h"

static struct avp_json_doc *index_doc;

__attribute__((noreturn, format(printf, 1, 2))) static void die(
	const char *format, ...)
{
	va_list args;

	va_start(args, format);
	printf("FAIL vectors: ");
	vprintf(format, args);
	printf("\n");
	va_end(args);
	exit(1);
}

static void *need(void *memory)
{
	if (!memory)
		die("no memory");
	return memory;
}

static struct bytes bytes_new(size_t len)
{
	return (struct bytes){need(malloc(len + 1)), len};
}

void bytes_free(struct bytes *b)
{
	free(b->data);
	*b = (struct bytes){0};
}

struct bytes bytes_copy(const void *data, size_t len)
{
	struct bytes b = bytes_new(len);

	if (len)
		memcpy(b.data, data, len);
	return b;
}

struct bytes vectors_file(struct avp_str path)
{
	const char *base = getenv("AVP_VECTORS");
	char name[4096];
	struct bytes b;
	FILE *f;
	long size;

	snprintf(name, sizeof(name), "%s/%.*s", base ? base : "tests/vectors",
		 (int)path.len, path.data);
	f = fopen(name, "rbe");
	if (!f || fseek(f, 0, SEEK_END) || (size = ftell(f)) < 0)
		die("cannot read %s (run from the top of the tree)", name);
	rewind(f);
	b = bytes_new((size_t)size);
	if (fread(b.data, 1, b.len, f) != b.len)
		die("cannot read %s", name);
	fclose(f);
	return b;
}

static void free_index(void)
{
	avp_json_free(index_doc);
}

const struct avp_json *vectors_root(void)
{
	struct avp_json_options options = {.size = sizeof(options),
					   .max_bytes = 256u << 20};
	struct avp_reason why;
	struct bytes b;

	if (index_doc)
		return avp_json_root(index_doc);
	b = vectors_file(avp_str_of("index.json"));
	if (avp_json_parse(&index_doc, b.data, b.len, &options, &why))
		die("index.json: %s", why.text);
	bytes_free(&b);
	atexit(free_index);
	return avp_json_root(index_doc);
}

static const struct avp_json *index_cases(void)
{
	return avp_json_get(vectors_root(), "cases");
}

const struct avp_json *vectors_first(const char *kind)
{
	return avp_json_first(avp_json_get(index_cases(), kind));
}

uint32_t vectors_count(const char *kind)
{
	return avp_json_count(avp_json_get(index_cases(), kind));
}

bool vectors_are_ours(void)
{
	return case_is(vectors_root(), "set", "open");
}

bool vectors_refused(const struct avp_json *c)
{
	char line[256], id[64];
	struct avp_str want = case_str(c, "id");
	FILE *f = fopen("tests/refused.txt", "re");
	bool found = !vectors_are_ours();

	if (!f)
		die("cannot read tests/refused.txt");
	while (!found && fgets(line, sizeof(line), f))
		found = sscanf(line, "%63s", id) == 1 &&
			avp_str_equal(want, avp_str_of(id));
	fclose(f);
	return found;
}

bool vectors_check(const struct avp_json *c, bool holds, const char *condition,
		   const char *file, unsigned line)
{
	struct avp_str id = case_str(c, "id");

	if (!holds)
		printf("  %.*s: %s\n", (int)id.len, id.data, condition);
	CU_assertImplementation(holds, line, condition, file, "", CU_FALSE);
	return holds;
}

struct avp_str case_str(const struct avp_json *object, const char *key)
{
	struct avp_str s = {"", 0};

	avp_json_string(avp_json_get(object, key), &s);
	return s;
}

bool case_is(const struct avp_json *object, const char *key, const char *text)
{
	return avp_str_equal(case_str(object, key), avp_str_of(text));
}

bool case_bool(const struct avp_json *object, const char *key)
{
	bool value = false;

	avp_json_bool(avp_json_get(object, key), &value);
	return value;
}

int64_t case_int(const struct avp_json *object, const char *key)
{
	int64_t value = 0;

	avp_json_int64(avp_json_get(object, key), &value);
	return value;
}

double case_double(const struct avp_json *object, const char *key)
{
	double value = 0;

	avp_json_double(avp_json_get(object, key), &value);
	return value;
}

struct bytes bytes_hex(struct avp_str hex)
{
	struct bytes b = bytes_new(hex.len / 2);

	for (size_t i = 0; i < b.len; i++) {
		char pair[3] = {hex.data[2 * i], hex.data[2 * i + 1], 0};
		char *end;

		b.data[i] = (uint8_t)strtoul(pair, &end, 16);
		if (*end)
			die("not hexadecimal: %s", pair);
	}
	return b;
}

/* ---- payload specs ------------------------------------------------------ */

static void fill_splitmix64(uint8_t *out, size_t len, uint64_t s)
{
	for (size_t at = 0; at < len; at += 8) {
		uint64_t z = s += 0x9e3779b97f4a7c15u;

		z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
		z = (z ^ z >> 27) * 0x94d049bb133111ebu;
		z ^= z >> 31;
		for (size_t i = 0; i < 8 && at + i < len; i++)
			out[at + i] = (uint8_t)(z >> 8 * i);
	}
}

/* Repeats the first `block` bytes over all. */
static void repeat(struct bytes *b, size_t block)
{
	if (!block && b->len)
		die("a pattern of no bytes");
	for (size_t i = block; i < b->len; i++)
		b->data[i] = b->data[i - block];
}

static void fill_pattern(struct bytes *b, struct avp_str hex)
{
	struct bytes pattern = bytes_hex(hex);
	size_t n = pattern.len < b->len ? pattern.len : b->len;

	memcpy(b->data, pattern.data, n);
	repeat(b, pattern.len);
	bytes_free(&pattern);
}

static void fill_tail(struct bytes *b, const struct bytes *frame)
{
	if (!frame || frame->len < b->len)
		die("a frame_tail longer than its frame");
	memcpy(b->data, frame->data + frame->len - b->len, b->len);
}

struct bytes vectors_payload(const struct avp_json *spec,
			     const struct bytes *frame)
{
	uint64_t seed = strtoull(case_str(spec, "seed").data, NULL, 10);
	size_t block = (size_t)case_int(spec, "block");
	struct bytes b;

	if (case_is(spec, "gen", "hex"))
		return bytes_hex(case_str(spec, "hex"));
	if (case_is(spec, "gen", "file"))
		return vectors_file(case_str(spec, "file"));
	b = bytes_new((size_t)case_int(spec, "len"));
	if (case_is(spec, "gen", "zeros")) {
		memset(b.data, 0, b.len);
	} else if (case_is(spec, "gen", "repeat")) {
		fill_pattern(&b, case_str(spec, "pattern"));
	} else if (case_is(spec, "gen", "splitmix64")) {
		fill_splitmix64(b.data, b.len, seed);
	} else if (case_is(spec, "gen", "splitmix64_repeat")) {
		fill_splitmix64(b.data, block < b.len ? block : b.len, seed);
		repeat(&b, block);
	} else if (case_is(spec, "gen", "frame_tail")) {
		fill_tail(&b, frame);
	} else {
		die("unknown payload spec \"%s\"", case_str(spec, "gen").data);
	}
	return b;
}

/* ---- strings and digests ------------------------------------------------ */

/* "\ud800" as a lone surrogate in three bytes; 0 if s is no such thing. */
static size_t unescape(uint8_t out[3], const char *s, size_t len)
{
	char *end, digits[5] = {0};
	unsigned long c;

	if (len < 6 || s[0] != '\\' || s[1] != 'u' || (s[2] | 0x20) != 'd')
		return 0;
	memcpy(digits, s + 2, 4);
	c = strtoul(digits, &end, 16);
	if (*end || c < 0xd800 || c > 0xdfff)
		return 0;
	out[0] = 0xed;
	out[1] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
	out[2] = (uint8_t)(0x80 | (c & 0x3f));
	return 3;
}

struct bytes vectors_string(const struct avp_json *c, struct avp_str s)
{
	struct bytes b = bytes_copy(s.data, s.len);
	size_t n = 0;

	if (!case_bool(c, "surrogates_escaped"))
		return b;
	for (size_t i = 0; i < s.len;) {
		size_t made = unescape(b.data + n, s.data + i, s.len - i);

		if (!made)
			b.data[n] = (uint8_t)s.data[i];
		i += made ? 6 : 1;
		n += made ? made : 1;
	}
	b.len = n;
	return b;
}

struct sha256_hex sha256_hex(const void *data, size_t len)
{
	uint8_t digest[SHA256_DIGEST_LENGTH];
	struct sha256_hex hex;

	SHA256(data, len, digest);
	for (size_t i = 0; i < sizeof(digest); i++)
		snprintf(hex.text + 2 * i, 3, "%02x", digest[i]);
	return hex;
}
