/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON writer and its buffer. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "codec/json_internal.h"

/* ---- the buffer --------------------------------------------------------- */

int avp_buf_reserve(struct avp_buf *buf, size_t more)
{
	size_t need, capacity;
	char *data;

	if (__builtin_add_overflow(buf->len, more, &need) ||
	    __builtin_add_overflow(need, (size_t)1, &need))
		return AVP_NO_MEMORY;
	if (need <= buf->capacity)
		return 0;
	if (__builtin_add_overflow(need, need / 2, &capacity) ||
	    capacity > PTRDIFF_MAX)
		return AVP_NO_MEMORY;
	capacity = capacity < 64 ? 64 : capacity;
	data = realloc(buf->data, capacity);
	if (!data)
		return AVP_NO_MEMORY;
	buf->data = data;
	buf->capacity = capacity;
	return 0;
}

int avp_buf_append(struct avp_buf *buf, const void *bytes, size_t len)
{
	if (avp_buf_reserve(buf, len))
		return AVP_NO_MEMORY;
	if (len)
		memcpy(buf->data + buf->len, bytes, len);
	buf->len += len;
	buf->data[buf->len] = 0;
	return 0;
}

void avp_buf_fini(struct avp_buf *buf)
{
	free(buf->data);
	*buf = (struct avp_buf){0};
}

/* ---- the writer --------------------------------------------------------- */

/*
 * One flag is all the state that commas need: it is set behind a value and
 * clear behind a key and behind an opening bracket.
 */
void avp_json_begin(struct avp_json_writer *w, struct avp_buf *buf,
		    uint32_t style)
{
	*w = (struct avp_json_writer){.buf = buf, .style = style};
}

int avp_json_finish(struct avp_json_writer *w)
{
	return w->open && !w->code ? AVP_SERIALIZATION_ERROR : w->code;
}

static void put(struct avp_json_writer *w, const void *bytes, size_t len)
{
	if (!w->code)
		w->code = avp_buf_append(w->buf, bytes, len);
}

static void put_comma(struct avp_json_writer *w)
{
	if (w->comma)
		put(w, ", ", w->style & AVP_JSON_COMPACT ? 1 : 2);
	w->comma = true;
}

static void open_container(struct avp_json_writer *w, const char *bracket)
{
	put_comma(w);
	put(w, bracket, 1);
	w->comma = false;
	w->open++;
}

static void close_container(struct avp_json_writer *w, const char *bracket)
{
	put(w, bracket, 1);
	w->comma = true;
	w->open--;
}

void avp_json_open_object(struct avp_json_writer *w)
{
	open_container(w, "{");
}

void avp_json_close_object(struct avp_json_writer *w)
{
	close_container(w, "}");
}

void avp_json_open_array(struct avp_json_writer *w)
{
	open_container(w, "[");
}

void avp_json_close_array(struct avp_json_writer *w)
{
	close_container(w, "]");
}

/* ---- strings ------------------------------------------------------------ */

static size_t put_u(char *out, uint32_t unit)
{
	static const char hex[] = "0123456789abcdef";

	out[0] = '\\';
	out[1] = 'u';
	for (int i = 0; i < 4; i++)
		out[2 + i] = hex[unit >> (12 - 4 * i) & 15];
	return 6;
}

static void put_escaped(struct avp_json_writer *w, uint32_t c)
{
	static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
	const char *found = c && c < 0x80 ? strchr(from, (int)c) : NULL;
	char out[12] = {'\\'};
	size_t n = 2;

	if (found) {
		out[1] = to[found - from];
	} else if (c < 0x10000) {
		n = put_u(out, c);
	} else {
		c -= 0x10000;
		n = put_u(out, 0xd800 + (c >> 10));
		n += put_u(out + n, 0xdc00 + (c & 0x3ff));
	}
	put(w, out, n);
}

static bool needs_escape(uint32_t c, uint32_t style)
{
	if (c < 0x20 || c == '"' || c == '\\')
		return true;
	if (!(style & AVP_JSON_UTF8))
		return c >= 0x7f;
	return c >= 0xd800 && c <= 0xdfff;
}

static void put_string(struct avp_json_writer *w, struct avp_str s)
{
	const uint8_t *at = (const uint8_t *)s.data, *end = at + s.len;
	const uint8_t *plain = at;
	uint32_t c;

	put(w, "\"", 1);
	while (at < end) {
		size_t n = 1;

		c = *at;
		if (c >= 0x80)
			n = avp__utf8_next(at, (size_t)(end - at), true, &c);
		if (!n) {
			w->code = w->code ? w->code : AVP_SERIALIZATION_ERROR;
			return;
		}
		if (needs_escape(c, w->style)) {
			put(w, plain, (size_t)(at - plain));
			put_escaped(w, c);
			plain = at + n;
		}
		at += n;
	}
	put(w, plain, (size_t)(at - plain));
	put(w, "\"", 1);
}

void avp_json_key_str(struct avp_json_writer *w, struct avp_str key)
{
	put_comma(w);
	put_string(w, key);
	put(w, ": ", w->style & AVP_JSON_COMPACT ? 1 : 2);
	w->comma = false;
}

void avp_json_key(struct avp_json_writer *w, const char *key)
{
	avp_json_key_str(w, avp_str_of(key));
}

void avp_json_put_string(struct avp_json_writer *w, struct avp_str value)
{
	put_comma(w);
	put_string(w, value);
}

void avp_json_put_text(struct avp_json_writer *w, const char *value)
{
	avp_json_put_string(w, avp_str_of(value));
}

/* ---- other values ------------------------------------------------------- */

void avp_json_put_raw(struct avp_json_writer *w, struct avp_str json)
{
	put_comma(w);
	put(w, json.data, json.len);
}

void avp_json_put_null(struct avp_json_writer *w)
{
	avp_json_put_raw(w, (struct avp_str){"null", 4});
}

void avp_json_put_bool(struct avp_json_writer *w, bool value)
{
	avp_json_put_raw(w, avp_str_of(value ? "true" : "false"));
}

void avp_json_put_int(struct avp_json_writer *w, int64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRId64, value);
	avp_json_put_raw(w, avp_str_of(text));
}

void avp_json_put_uint(struct avp_json_writer *w, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%" PRIu64, value);
	avp_json_put_raw(w, avp_str_of(text));
}

void avp_json_put_double(struct avp_json_writer *w, double value)
{
	char text[JSON_DOUBLE_BYTES];
	size_t n = avp__json_format_double(value, text);

	avp_json_put_raw(w, (struct avp_str){text, n});
}

/* ---- parsed values ------------------------------------------------------ */

static void put_member(struct avp_json_writer *w, const struct avp_json *m)
{
	avp_json_key_str(w, avp_json_key_of(m));
	avp_json_put(w, m);
}

static void put_sorted(struct avp_json_writer *w, const struct avp_json *object)
{
	const struct avp_json_doc *doc = avp__json_doc(object);
	const struct avp_json *small[JSON_SMALL_OBJECT], *m;
	uint32_t n = 0, i;

	if (object->n > JSON_SMALL_OBJECT) {
		for (i = 0; i < object->n; i++)
			put_member(w,
				   &doc->node[doc->order[object->order + i]]);
		return;
	}
	for (m = avp_json_first(object); m; m = avp_json_next(m), n++) {
		for (i = n;
		     i && avp__str_compare(avp_json_key_of(m),
					   avp_json_key_of(small[i - 1])) < 0;
		     i--)
			small[i] = small[i - 1];
		small[i] = m;
	}
	for (i = 0; i < n; i++)
		put_member(w, small[i]);
}

static void put_object(struct avp_json_writer *w, const struct avp_json *object)
{
	const struct avp_json *m;

	avp_json_open_object(w);
	if (w->style & AVP_JSON_SORTED)
		put_sorted(w, object);
	else
		for (m = avp_json_first(object); m; m = avp_json_next(m))
			put_member(w, m);
	avp_json_close_object(w);
}

static void put_array(struct avp_json_writer *w, const struct avp_json *array)
{
	avp_json_open_array(w);
	for (const struct avp_json *e = avp_json_first(array); e;
	     e = avp_json_next(e))
		avp_json_put(w, e);
	avp_json_close_array(w);
}

static void put_float(struct avp_json_writer *w, const struct avp_json *value)
{
	double number;

	if (w->style & AVP_JSON_AS_READ)
		avp_json_put_raw(
			w,
			(struct avp_str){avp__json_doc(value)->text + value->a,
					 value->n});
	else if (!avp_json_double(value, &number))
		avp_json_put_double(w, number);
}

static void put_node_string(struct avp_json_writer *w,
			    const struct avp_json *value)
{
	struct avp_str s;

	if (!avp_json_string(value, &s))
		avp_json_put_string(w, s);
}

/* Recursion ends with the depth that the parser allows. */
void avp_json_put(struct avp_json_writer *w, const struct avp_json *value)
{
	switch (avp_json_type_of(value)) {
	case AVP_JSON_NULL: avp_json_put_null(w); return;
	case AVP_JSON_BOOL: avp_json_put_bool(w, value->n); return;
	case AVP_JSON_INT: avp_json_put_raw(w, avp_json_digits(value)); return;
	case AVP_JSON_FLOAT: put_float(w, value); return;
	case AVP_JSON_STRING: put_node_string(w, value); return;
	case AVP_JSON_ARRAY: put_array(w, value); return;
	case AVP_JSON_OBJECT: put_object(w, value); return;
	}
}

int avp_json_write(struct avp_buf *buf, const struct avp_json *value,
		   uint32_t style)
{
	struct avp_json_writer w;

	avp_json_begin(&w, buf, style);
	avp_json_put(&w, value);
	return avp_json_finish(&w);
}
