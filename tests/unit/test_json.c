/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON reader and writer, by hand-made texts; Python 3.11 was the judge. */
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <avp/json.h>

#include "tests/harness.h"

#define S(literal) ((struct avp_str){literal, sizeof(literal) - 1})

static struct avp_reason why;

static struct avp_json_doc *parse(struct avp_str text)
{
	struct avp_json_doc *doc = NULL;

	memset(&why, 0, sizeof(why));
	if (avp_json_parse(&doc, text.data, text.len, NULL, &why))
		printf("  %s\n", why.text);
	return doc;
}

static bool writes(struct avp_str text, uint32_t style, struct avp_str expected)
{
	struct avp_json_doc *doc = parse(text);
	struct avp_buf buf = {0};
	bool same = doc && !avp_json_write(&buf, avp_json_root(doc), style) &&
		    avp_str_equal(avp_buf_str(&buf), expected);

	if (!same)
		printf("  %.*s\n  became %.*s\n  not    %.*s\n", (int)text.len,
		       text.data, (int)buf.len, buf.data ? buf.data : "",
		       (int)expected.len, expected.data);
	avp_buf_fini(&buf);
	avp_json_free(doc);
	return same;
}

static void styles(void)
{
	static const struct avp_str text =
		S(" {\"b\":[1,-0,2.50,\"\xc3\xa9\\ud83d\\ude00\\/"
		  "\x7f\"],\t\"\\u0000\""
		  ":null,\"a\":{\"y\":true,\"x\":false}}\r\n");

	CU_ASSERT(writes(
		text, AVP_JSON_PYTHON,
		S("{\"b\": [1, 0, 2.5, \"\\u00e9\\ud83d\\ude00/\\u007f\"], "
		  "\"\\u0000\": null, "
		  "\"a\": {\"y\": true, \"x\": false}}")));
	CU_ASSERT(writes(
		text, AVP_JSON_CANONICAL,
		S("{\"\\u0000\":null,\"a\":{\"x\":false,\"y\":true},"
		  "\"b\":[1,0,2.5,\"\\u00e9\\ud83d\\ude00/\\u007f\"]}")));
	CU_ASSERT(
		writes(text, AVP_JSON_HTTP,
		       S("{\"b\":[1,0,2.5,\"\xc3\xa9\xf0\x9f\x98\x80/\x7f\"],"
			 "\"\\u0000\":null,\"a\":{\"y\":true,\"x\":false}}")));
	CU_ASSERT(writes(
		S("[[],{},[[]],\"\\b\\f\\n\\r\\t\\\"\\\\\\u001f\"]"),
		AVP_JSON_UTF8,
		S("[[], {}, [[]], \"\\b\\f\\n\\r\\t\\\"\\\\\\u001f\"]")));
}

static void surrogates(void)
{
	/* Lone ones stay what they are; a pair is one character. */
	static const struct avp_str text =
		S("[\"\\ud800\",\"\\udfff\",\"\\ud83dx\","
		  "\"\\uD83D\\uD83D\\uDE00\","
		  "\"\\ud83d\\n\",\"\\udbff\\udfff\"]");

	CU_ASSERT(writes(text, AVP_JSON_COMPACT,
			 S("[\"\\ud800\",\"\\udfff\",\"\\ud83dx\","
			   "\"\\ud83d\\ud83d\\ude00\","
			   "\"\\ud83d\\n\",\"\\udbff\\udfff\"]")));
	CU_ASSERT(writes(text, AVP_JSON_HTTP,
			 S("[\"\\ud800\",\"\\udfff\",\"\\ud83dx\","
			   "\"\\ud83d\xf0\x9f\x98\x80\","
			   "\"\\ud83d\\n\",\"\xf4\x8f\xbf\xbf\"]")));
	/* Sorted by code point, not by UTF-16 unit: U+FFFF before U+10000. */
	CU_ASSERT(writes(S("{\"\\ud800\\udc00\":1,\"\\uffff\":2,\"\\ud800\":3,"
			   "\"\":4}"),
			 AVP_JSON_CANONICAL,
			 S("{\"\":4,\"\\ud800\":3,\"\\uffff\":2,"
			   "\"\\ud800\\udc00\":1}")));
}

static void floats(void)
{
	static const struct {
		const char *text, *written;
	} cases[] = {
		{"1e-5", "1e-05"},
		{"0.0001", "0.0001"},
		{"5E5", "500000.0"},
		{"1e16", "1e+16"},
		{"9999999999999998.0", "9999999999999998.0"},
		{"1e400", "Infinity"},
		{"-1e400", "-Infinity"},
		{"NaN", "NaN"},
		{"-0.0", "-0.0"},
		{"-0e9", "-0.0"},
		{"5e-324", "5e-324"},
		{"1.5e-323", "1.5e-323"},
		{"4.9406564584124654e-324", "5e-324"},
		{"2.2250738585072014e-308", "2.2250738585072014e-308"},
		{"1.7976931348623157e308", "1.7976931348623157e+308"},
		{"0.1", "0.1"},
		{"0.30000000000000004", "0.30000000000000004"},
		{"9007199254740993.0", "9007199254740992.0"},
		/* 2^-44: the nearest of 16 digits reads back as less. */
		{"5.684341886080801486968994140625e-14",
		 "5.684341886080802e-14"},
		{"9.5367431640625e-07", "9.5367431640625e-07"},
		{"-123456789012345678901234567890",
		 "-123456789012345678901234567890"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++)
		CU_ASSERT(writes(avp_str_of(cases[i].text), AVP_JSON_PYTHON,
				 avp_str_of(cases[i].written)));
}

/* Every power of two and its neighbours read back as themselves. */
static void floats_read_back(void)
{
	struct avp_buf buf = {0};
	struct avp_json_writer w;

	for (int e = -1074; e < 1024; e++)
		for (int step = -1; step <= 1; step++) {
			double x = ldexp(1, e), back;

			x = step ? nextafter(x, step * INFINITY) : x;
			if (isinf(x))
				continue;
			avp_buf_clear(&buf);
			avp_json_begin(&w, &buf, AVP_JSON_PYTHON);
			avp_json_put_double(&w, x);
			CU_ASSERT_EQUAL(avp_json_finish(&w), 0);
			back = strtod(buf.data, NULL);
			CU_ASSERT_EQUAL(back, x);
		}
	avp_buf_fini(&buf);
}

/* A decimal comma in the process's locale changes nothing. */
static void locale(void)
{
	static const char *const names[] = {"de_DE.UTF-8", "de_DE", "fr_FR"};
	bool set = false;

	for (size_t i = 0; !set && i < 3; i++)
		set = setlocale(LC_ALL, names[i]) != NULL;
	CU_ASSERT(writes(S("[1.5,1e22]"), AVP_JSON_PYTHON, S("[1.5, 1e+22]")));
	setlocale(LC_ALL, "C");
}

static void refuses(void)
{
	static const struct {
		struct avp_str text;
		const char *reason;
	} cases[] = {
		{S(""), "byte 0: expected a value, but the text ends"},
		{S(" "), "byte 1: expected a value, but the text ends"},
		{S("\xef\xbb\xbf{}"), "byte 0: a byte order mark"},
		{S("{"), "byte 1: expected a key"},
		{S("{\"a\":1,}"), "byte 7: expected a key"},
		{S("{'a':1}"), "byte 1: expected a key in double quotes, not"},
		{S("{\"a\" 1}"), "byte 5: expected ':' after a key, not '1'"},
		{S("{\"a\":1 2}"), "byte 7: expected ',' or '}', not '2'"},
		{S("[1,]"), "byte 3: expected a value, not ']'"},
		{S("[1}"), "byte 2: expected ',' or ']', not '}'"},
		{S("[1"), "byte 2: expected ',' or ']', but the text ends"},
		{S("1 1"), "byte 2: expected the end of the text, not '1'"},
		{S("1\0"), "byte 1: expected the end of the text, not byte"},
		{S("01"), "byte 1: expected the end of the text"},
		{S("-"), "byte 0: expected a value, not '-'"},
		{S("+1"), "byte 0: expected a value, not '+'"},
		{S(".5"), "byte 0: expected a value"},
		{S("1."), "byte 1: expected the end of the text, not '.'"},
		{S("1.e5"), "byte 1: expected the end of the text"},
		{S("1e"), "byte 1: expected the end of the text, not 'e'"},
		{S("1e+"), "byte 1: expected the end of the text"},
		{S("0x1"), "byte 1: expected the end of the text, not 'x'"},
		{S("nul"), "byte 0: expected a value, not 'n'"},
		{S("True"), "byte 0: expected a value"},
		{S("-NaN"), "byte 0: expected a value"},
		{S("\v1"), "byte 0: expected a value, not byte 0x0b"},
		{S("\"a"), "byte 2: expected '\"' at the end of a string"},
		{S("\"\n\""), "byte 1: expected no control character"},
		{S("\"\0\""), "byte 1: expected no control character"},
		{S("\"\\x\""), "byte 2: expected one of"},
		{S("\"\\"), "byte 2: expected one of"},
		{S("\"\\\0\""), "byte 2: expected one of"},
		{S("\"\\u12g4\""), "byte 3: expected four hexadecimal"},
		{S("\"\\ud800\\u12\""), "byte 9: expected four hexadecimal"},
		{S("\"\xff\""), "byte 1: expected valid UTF-8"},
		{S("\"\xc3\""), "byte 1: expected valid UTF-8"},
		{S("\"\xc3"), "byte 1: expected valid UTF-8"},
		{S("\"\xc0\x80\""), "byte 1: expected valid UTF-8"},
		{S("\"\xe0\x80\x80\""), "byte 1: expected valid UTF-8"},
		{S("\"\xed\xa0\x80\""), "byte 1: expected valid UTF-8"},
		{S("\"\xf4\x90\x80\x80\""), "byte 1: expected valid UTF-8"},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct avp_json_doc *doc = (void *)&why;

		CU_ASSERT_EQUAL(avp_json_parse(&doc, cases[i].text.data,
					       cases[i].text.len, NULL, &why),
				AVP_BAD_JSON);
		CU_ASSERT_PTR_EQUAL(doc, &why);
		if (strncmp(why.text, cases[i].reason,
			    strlen(cases[i].reason)) != 0) {
			printf("  %s\n", why.text);
			CU_FAIL("another reason than expected");
		}
	}
}

static int parse_repeated(const char *open, const char *close, size_t n,
			  const struct avp_json_options *options)
{
	struct avp_buf buf = {0};
	struct avp_json_doc *doc = NULL;
	int code;

	for (size_t i = 0; i < n; i++)
		avp_buf_append(&buf, open, strlen(open));
	for (size_t i = 0; i < n; i++)
		avp_buf_append(&buf, close, strlen(close));
	code = avp_json_parse(&doc, buf.data, buf.len, options, &why);
	avp_json_free(doc);
	avp_buf_fini(&buf);
	return code;
}

static void limits(void)
{
	struct avp_json_options o = {.size = sizeof(o), .max_depth = 3};

	CU_ASSERT_EQUAL(parse_repeated("[", "]", 512, NULL), 0);
	CU_ASSERT_EQUAL(parse_repeated("[", "]", 513, NULL), AVP_BAD_JSON);
	CU_ASSERT(strstr(why.text, "deeper than 512") != NULL);
	CU_ASSERT_EQUAL(parse_repeated("[", "", 100000, NULL), AVP_BAD_JSON);
	CU_ASSERT_EQUAL(parse_repeated("{\"a\":", "", 5000, NULL),
			AVP_BAD_JSON);
	CU_ASSERT_EQUAL(parse_repeated("[", "]", 3, &o), 0);
	CU_ASSERT_EQUAL(parse_repeated("[", "]", 4, &o), AVP_BAD_JSON);
	CU_ASSERT_EQUAL(parse_repeated("1", "", 4300, NULL), 0);
	CU_ASSERT_EQUAL(parse_repeated("1", "", 4301, NULL), AVP_BAD_JSON);
	CU_ASSERT(strstr(why.text, "4301 digits") != NULL);
	o.max_bytes = 10;
	CU_ASSERT_EQUAL(parse_repeated("1", "", 10, &o), 0);
	CU_ASSERT_EQUAL(parse_repeated("1", "", 11, &o), AVP_TOO_LARGE);
	CU_ASSERT(strstr(why.text, "11 bytes") != NULL);
	o.max_depth = 1001;
	CU_ASSERT_EQUAL(parse_repeated("1", "", 1, &o), AVP_USAGE);
	o = (struct avp_json_options){.size = sizeof(o), .reserved = {1}};
	CU_ASSERT_EQUAL(parse_repeated("1", "", 1, &o), AVP_USAGE);
	o = (struct avp_json_options){.size = 4};
	CU_ASSERT_EQUAL(parse_repeated("1", "", 1, &o), AVP_USAGE);
	o = (struct avp_json_options){.max_bytes = 10};
	CU_ASSERT_EQUAL(parse_repeated("1", "", 10, &o), 0);
	CU_ASSERT_EQUAL(parse_repeated("1", "", 11, &o), AVP_TOO_LARGE);
}

/* The last of equal keys wins, at the place of the first: as in a dict. */
static void equal_keys(void)
{
	struct avp_buf text = {0};
	struct avp_json_doc *doc;
	int64_t n = 0;

	CU_ASSERT(
		writes(S("{\"a\":1,\"b\":[2],\"\\u0061\":{\"x\":[3]},\"b\":4}"),
		       AVP_JSON_COMPACT, S("{\"a\":{\"x\":[3]},\"b\":4}")));
	CU_ASSERT(writes(S("{\"k\":0,\"j\":1,\"i\":2,\"h\":3,\"g\":4,\"f\":5,"
			   "\"e\":6,\"d\":7,\"c\":8,\"b\":9,\"a\":10,\"k\":"
			   "[11],\"d\":12,\"d\":13}"),
			 AVP_JSON_COMPACT,
			 S("{\"k\":[11],\"j\":1,\"i\":2,\"h\":3,\"g\":4,"
			   "\"f\":5,\"e\":6,\"d\":13,\"c\":8,\"b\":9,"
			   "\"a\":10}")));
	/* Nine members of two keys: sorted, then small again. */
	CU_ASSERT(writes(S("{\"b\":1,\"a\":2,\"b\":3,\"b\":4,\"b\":5,\"b\":6,"
			   "\"b\":7,\"a\":8,\"b\":9}"),
			 AVP_JSON_COMPACT, S("{\"b\":9,\"a\":8}")));
	avp_buf_append(&text, "{", 1);
	for (int i = 0; i < 200000; i++)
		avp_buf_append(&text, "\"a\":1,", 6);
	avp_buf_append(&text, "\"a\":7}", 6);
	doc = parse(avp_buf_str(&text));
	CU_ASSERT_EQUAL(avp_json_count(avp_json_root(doc)), 1);
	avp_json_int64(avp_json_get(avp_json_root(doc), "a"), &n);
	CU_ASSERT_EQUAL(n, 7);
	avp_json_free(doc);
	avp_buf_fini(&text);
}

static void large_object(void)
{
	struct avp_buf text = {0};
	struct avp_json_writer w;
	struct avp_json_doc *doc;
	char key[16];
	int64_t n;

	avp_json_begin(&w, &text, AVP_JSON_HTTP);
	avp_json_open_object(&w);
	for (int i = 0; i < 30000; i++) {
		snprintf(key, sizeof(key), "k%d", i * 7919 % 30000);
		avp_json_member_int(&w, key, i * 7919 % 30000);
	}
	avp_json_close_object(&w);
	CU_ASSERT_EQUAL(avp_json_finish(&w), 0);
	doc = parse(avp_buf_str(&text));
	CU_ASSERT_PTR_NOT_NULL_FATAL(doc);
	CU_ASSERT_EQUAL(avp_json_count(avp_json_root(doc)), 30000);
	for (int i = 0; i < 30000; i++) {
		snprintf(key, sizeof(key), "k%d", i);
		n = -1;
		avp_json_int64(avp_json_get(avp_json_root(doc), key), &n);
		CU_ASSERT_EQUAL(n, i);
	}
	CU_ASSERT_PTR_NULL(avp_json_get(avp_json_root(doc), "k30000"));
	CU_ASSERT_PTR_NULL(avp_json_get(avp_json_root(doc), ""));
	avp_json_free(doc);
	avp_buf_fini(&text);
}

static void values(void)
{
	struct avp_json_doc *doc =
		parse(S("[9223372036854775807,-9223372036854775808,"
			"18446744073709551615,18446744073709551616,1.0,true,"
			"\"a\\u0000b\",1e5]"));
	const struct avp_json *v = avp_json_first(avp_json_root(doc));
	struct avp_str s = {NULL, 0};
	uint64_t u = 0;
	int64_t i = 0;
	double d = 0;
	bool b = false;

	CU_ASSERT_EQUAL(avp_json_int64(v, &i), 0);
	CU_ASSERT_EQUAL(i, INT64_MAX);
	v = avp_json_next(v);
	CU_ASSERT_EQUAL(avp_json_int64(v, &i), 0);
	CU_ASSERT_EQUAL(i, INT64_MIN);
	CU_ASSERT_EQUAL(avp_json_uint64(v, &u), AVP_INVALID_MESSAGE);
	v = avp_json_next(v);
	CU_ASSERT_EQUAL(avp_json_uint64(v, &u), 0);
	CU_ASSERT_EQUAL(u, UINT64_MAX);
	CU_ASSERT_EQUAL(avp_json_int64(v, &i), AVP_INVALID_MESSAGE);
	v = avp_json_next(v);
	CU_ASSERT_EQUAL(avp_json_uint64(v, &u), AVP_INVALID_MESSAGE);
	CU_ASSERT(avp_str_equal(avp_json_digits(v), S("18446744073709551616")));
	CU_ASSERT_EQUAL(avp_json_double(v, &d), 0);
	CU_ASSERT_EQUAL(d, 18446744073709551616.0);
	v = avp_json_next(v);
	CU_ASSERT_EQUAL(avp_json_int64(v, &i), AVP_INVALID_MESSAGE);
	CU_ASSERT_EQUAL(avp_json_digits(v).len, 0);
	v = avp_json_next(v);
	CU_ASSERT_EQUAL(avp_json_bool(v, &b), 0);
	CU_ASSERT(b);
	CU_ASSERT_EQUAL(avp_json_double(v, &d), AVP_INVALID_MESSAGE);
	CU_ASSERT_EQUAL(avp_json_string(v, &s), AVP_INVALID_MESSAGE);
	v = avp_json_next(v);
	CU_ASSERT_EQUAL(avp_json_string(v, &s), 0);
	CU_ASSERT(avp_str_equal(s, S("a\0b")));
	v = avp_json_next(v);
	CU_ASSERT_EQUAL(avp_json_double(v, &d), 0);
	CU_ASSERT_EQUAL(d, 1e5);
	CU_ASSERT_PTR_NULL(avp_json_next(v));
	CU_ASSERT_EQUAL(avp_json_type_of(NULL), AVP_JSON_NULL);
	CU_ASSERT_EQUAL(avp_json_count(v), 0);
	CU_ASSERT_PTR_NULL(avp_json_first(v));
	CU_ASSERT_PTR_NULL(avp_json_get(NULL, "a"));
	avp_json_free(doc);
}

static void members(void)
{
	struct avp_json_doc *doc =
		parse(S("{\"s\":\"x\",\"n\":null,\"i\":-7,\"big\":"
			"123456789012345678901234567890123456789012345,"
			"\"f\":0.5,\"b\":true,\"o\":{},\"l\":[]}"));
	const struct avp_json *o = avp_json_root(doc), *c = NULL;
	struct avp_str s = S("default");
	int64_t i = 5;
	uint64_t u = 5;
	double d = 5;
	bool b = false;

	CU_ASSERT_EQUAL(avp_json_get_string(o, "none", &s, &why), 0);
	CU_ASSERT_EQUAL(avp_json_get_string(o, "n", &s, &why), 0);
	CU_ASSERT(avp_str_equal(s, S("default")));
	CU_ASSERT_EQUAL(avp_json_get_string(o, "s", &s, &why), 1);
	CU_ASSERT(avp_str_equal(s, S("x")));
	CU_ASSERT_EQUAL(avp_json_get_string(o, "i", &s, &why),
			AVP_INVALID_MESSAGE);
	CU_ASSERT_STRING_EQUAL(why.text,
			       "\"i\" is an integer; it must be a string");
	CU_ASSERT_EQUAL(avp_json_get_int(o, "i", -7, 0, &i, &why), 1);
	CU_ASSERT_EQUAL(i, -7);
	CU_ASSERT_EQUAL(avp_json_get_int(o, "i", 0, 9, &i, &why),
			AVP_INVALID_MESSAGE);
	CU_ASSERT_STRING_EQUAL(why.text, "\"i\" is -7; it must be from 0 to 9");
	CU_ASSERT_EQUAL(avp_json_get_int(o, "big", 0, INT64_MAX, &i, &why),
			AVP_INVALID_MESSAGE);
	CU_ASSERT(strstr(why.text, "1234567890...;") != NULL);
	CU_ASSERT_EQUAL(avp_json_get_int(o, "b", 0, 1, &i, &why),
			AVP_INVALID_MESSAGE);
	CU_ASSERT_EQUAL(avp_json_get_int(o, "f", 0, 1, &i, &why),
			AVP_INVALID_MESSAGE);
	CU_ASSERT_EQUAL(i, -7);
	CU_ASSERT_EQUAL(avp_json_get_uint(o, "i", 9, &u, &why),
			AVP_INVALID_MESSAGE);
	CU_ASSERT_EQUAL(avp_json_get_uint(o, "n", 9, &u, &why), 0);
	CU_ASSERT_EQUAL(u, 5);
	CU_ASSERT_EQUAL(avp_json_get_double(o, "f", &d, &why), 1);
	CU_ASSERT_EQUAL(avp_json_get_double(o, "s", &d, &why),
			AVP_INVALID_MESSAGE);
	CU_ASSERT_EQUAL(d, 0.5);
	CU_ASSERT_EQUAL(avp_json_get_bool(o, "b", &b, &why), 1);
	CU_ASSERT(b);
	CU_ASSERT_EQUAL(avp_json_get_bool(o, "i", &b, &why),
			AVP_INVALID_MESSAGE);
	CU_ASSERT_EQUAL(avp_json_get_object(o, "l", &c, &why),
			AVP_INVALID_MESSAGE);
	CU_ASSERT_PTR_NULL(c);
	CU_ASSERT_EQUAL(avp_json_get_object(o, "o", &c, &why), 1);
	CU_ASSERT_EQUAL(avp_json_get_array(o, "l", &c, &why), 1);
	CU_ASSERT_EQUAL(avp_json_expect_object(o, "a HELLO", &why), 0);
	CU_ASSERT_EQUAL(avp_json_expect_object(c, "a HELLO", &why),
			AVP_INVALID_MESSAGE);
	CU_ASSERT_STRING_EQUAL(why.text,
			       "a HELLO is a JSON object, not an array");
	avp_json_free(doc);
}

static void writer(void)
{
	struct avp_buf buf = {0};
	struct avp_json_writer w;

	avp_buf_append(&buf, ">", 1);
	avp_json_begin(&w, &buf, AVP_JSON_PYTHON);
	avp_json_open_object(&w);
	avp_json_member_string(&w, "s", S("a\0\xed\xa0\x80"));
	avp_json_member_int(&w, "i", INT64_MIN);
	avp_json_member_uint(&w, "u", UINT64_MAX);
	avp_json_member_bool(&w, "b", false);
	avp_json_key_str(&w, S("k\0"));
	avp_json_open_array(&w);
	avp_json_put_null(&w);
	avp_json_put_double(&w, 0.1f);
	avp_json_put_raw(&w, S("{}"));
	avp_json_put_text(&w, "t");
	avp_json_put(&w, NULL);
	avp_json_close_array(&w);
	CU_ASSERT_EQUAL(avp_json_finish(&w), AVP_SERIALIZATION_ERROR);
	avp_json_close_object(&w);
	CU_ASSERT_EQUAL(avp_json_finish(&w), 0);
	CU_ASSERT_STRING_EQUAL(buf.data,
			       ">{\"s\": \"a\\u0000\\ud800\", "
			       "\"i\": -9223372036854775808, "
			       "\"u\": 18446744073709551615, \"b\": false, "
			       "\"k\\u0000\": [null, 0.10000000149011612, {}, "
			       "\"t\", null]}");
	avp_json_begin(&w, &buf, AVP_JSON_PYTHON);
	avp_json_put_string(&w, S("\xff"));
	CU_ASSERT_EQUAL(avp_json_finish(&w), AVP_SERIALIZATION_ERROR);
	CU_ASSERT_EQUAL(avp_buf_reserve(&buf, SIZE_MAX), AVP_NO_MEMORY);
	CU_ASSERT_EQUAL(avp_buf_reserve(&buf, SIZE_MAX / 2), AVP_NO_MEMORY);
	avp_buf_fini(&buf);
	CU_ASSERT_PTR_NULL(buf.data);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(styles),
		TEST(surrogates),
		TEST(floats),
		TEST(floats_read_back),
		TEST(locale),
		TEST(refuses),
		TEST(limits),
		TEST(equal_keys),
		TEST(large_object),
		TEST(values),
		TEST(members),
		TEST(writer),
		{0},
	};

	return test_main("json", tests);
}
