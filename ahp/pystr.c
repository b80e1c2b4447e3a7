/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>

#include "ahp/pystr.h"

static int put(struct avp_buf *buf, const char *text)
{
	struct avp_str s = avp_str_of(text);

	return avp_buf_append(buf, s.data, s.len);
}

bool avp__py_true(const struct avp_json *value)
{
	struct avp_str s = {NULL, 0};
	bool b = false;
	double d = 0;

	switch (avp_json_type_of(value)) {
	case AVP_JSON_NULL: return false;
	case AVP_JSON_BOOL: return !avp_json_bool(value, &b) && b;
	case AVP_JSON_INT:
	case AVP_JSON_FLOAT: return !avp_json_double(value, &d) && d != 0;
	case AVP_JSON_STRING: return !avp_json_string(value, &s) && s.len;
	default: return avp_json_count(value) > 0;
	}
}

size_t avp__py_len(struct avp_str s)
{
	size_t n = 0;

	for (size_t i = 0; i < s.len; i++)
		n += ((uint8_t)s.data[i] & 0xc0) != 0x80;
	return n;
}

size_t avp__py_cut(struct avp_str s, size_t n)
{
	size_t i;

	for (i = 0; i < s.len; i++)
		if (((uint8_t)s.data[i] & 0xc0) != 0x80 && !n--)
			break;
	return i;
}

/* ---- repr() of a string ------------------------------------------------- */

/* The character that begins at s, which is UTF-8; its length in bytes. */
static size_t decode(const uint8_t *s, uint32_t *c)
{
	size_t n = s[0] < 0x80 ? 1 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;

	*c = n == 1 ? s[0] : s[0] & (0x7fu >> n);
	for (size_t i = 1; i < n; i++)
		*c = *c << 6 | (s[i] & 0x3f);
	return n;
}

static int put_character(struct avp_buf *buf, const char *bytes, size_t len,
			 uint32_t c, char quote)
{
	char text[16];

	if (c == (uint32_t)quote || c == '\\')
		snprintf(text, sizeof(text), "\\%c", (char)c);
	else if (c == '\n' || c == '\r' || c == '\t')
		snprintf(text, sizeof(text), "\\%c",
			 c == '\n'   ? 'n'
			 : c == '\r' ? 'r'
				     : 't');
	else if (avp__py_printable(c))
		return avp_buf_append(buf, bytes, len);
	else if (c < 0x100)
		snprintf(text, sizeof(text), "\\x%02x", c);
	else if (c < 0x10000)
		snprintf(text, sizeof(text), "\\u%04x", c);
	else
		snprintf(text, sizeof(text), "\\U%08x", c);
	return put(buf, text);
}

/* Single quotes, unless only double ones need no escaping. */
static int put_quoted(struct avp_buf *buf, struct avp_str s)
{
	bool single = s.len && memchr(s.data, '\'', s.len);
	bool dbl = s.len && memchr(s.data, '"', s.len);
	char quote = single && !dbl ? '"' : '\'';
	uint32_t c;

	if (avp_buf_append(buf, &quote, 1))
		return AVP_NO_MEMORY;
	for (size_t i = 0, n; i < s.len; i += n) {
		n = decode((const uint8_t *)s.data + i, &c);
		if (put_character(buf, s.data + i, n, c, quote))
			return AVP_NO_MEMORY;
	}
	return avp_buf_append(buf, &quote, 1);
}

/* ---- repr() of the others ----------------------------------------------- */

static int put_repr(struct avp_buf *buf, const struct avp_json *value);

/* As JSON writes it, but for the words. */
static int put_float(struct avp_buf *buf, const struct avp_json *value)
{
	double d = 0;

	avp_json_double(value, &d);
	if (isnan(d))
		return put(buf, "nan");
	if (isinf(d))
		return put(buf, d < 0 ? "-inf" : "inf");
	return avp_json_write(buf, value, AVP_JSON_PYTHON);
}

static int put_container(struct avp_buf *buf, const struct avp_json *value)
{
	bool object = avp_json_type_of(value) == AVP_JSON_OBJECT;
	int code = put(buf, object ? "{" : "[");

	for (const struct avp_json *e = avp_json_first(value); e && !code;
	     e = avp_json_next(e)) {
		if (object)
			code = put_quoted(buf, avp_json_key_of(e)) ||
			       put(buf, ": ");
		if (!code)
			code = put_repr(buf, e);
		if (!code && avp_json_next(e))
			code = put(buf, ", ");
	}
	return code ? AVP_NO_MEMORY : put(buf, object ? "}" : "]");
}

static int put_repr(struct avp_buf *buf, const struct avp_json *value)
{
	struct avp_str s = {NULL, 0};
	bool b = false;

	switch (avp_json_type_of(value)) {
	case AVP_JSON_NULL: return put(buf, "None");
	case AVP_JSON_BOOL:
		avp_json_bool(value, &b);
		return put(buf, b ? "True" : "False");
	case AVP_JSON_INT:
		s = avp_json_digits(value);
		return avp_buf_append(buf, s.data, s.len);
	case AVP_JSON_FLOAT: return put_float(buf, value);
	case AVP_JSON_STRING:
		avp_json_string(value, &s);
		return put_quoted(buf, s);
	default: return put_container(buf, value);
	}
}

int avp__py_str(struct avp_buf *buf, const struct avp_json *value)
{
	struct avp_str s;

	if (!avp_json_string(value, &s))
		return avp_buf_append(buf, s.data, s.len);
	return put_repr(buf, value);
}
