/* SPDX-License-Identifier: Apache-2.0 */
/*
 * <avp/json.h>: one JSON reader and writer, in the dialect of Python's json
 * module, which the reference implementations of AVP and AHP speak: NaN and
 * Infinity, integers of any size, \u0000 in strings and keys, lone surrogates,
 * the last of equal keys wins at the place of the first, floats as the shortest
 * text that reads back as the same number (`1e-05`, `500000.0`).
 *
 * Strings in memory are UTF-8 with a length. A surrogate without its other half
 * (`\ud800`), which UTF-8 cannot hold, is kept as the three bytes that UTF-8
 * would give it (WTF-8), and the writer turns it back into `\ud800`. Such bytes
 * in a text that is read are refused as the invalid UTF-8 that they are.
 *
 * A document is immutable once parsed: any number of threads may read it. A
 * writer and its buffer belong to one thread at a time. Nothing depends on the
 * process's locale.
 */
#ifndef AVP_JSON_H
#define AVP_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <avp/error.h>
#include <avp/str.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* ---- reading ------------------------------------------------------------ */

/* Defaults and limits of struct avp_json_options. */
#define AVP_JSON_MAX_BYTES  (16u << 20) /* a tokenizer's config fits */
#define AVP_JSON_MAX_DEPTH  512u
#define AVP_JSON_BYTES_CAP  (1u << 30) /* indices in a node have 29 bits */
#define AVP_JSON_DEPTH_CAP  1000u      /* Python's own stack ends there */
#define AVP_JSON_MAX_DIGITS 4300u      /* of an integer: Python 3.11's limit */

struct avp_json_options {
	uint32_t size;	    /* sizeof(struct avp_json_options), or 0 */
	uint32_t max_depth; /* nested arrays and objects; 0: the default */
	uint64_t max_bytes; /* of the text; 0: the default */
	uint64_t reserved[4];
};

enum avp_json_type {
	AVP_JSON_NULL = 0,
	AVP_JSON_BOOL = 1,
	AVP_JSON_INT = 2,   /* written without point and exponent */
	AVP_JSON_FLOAT = 3, /* NaN and the infinities too */
	AVP_JSON_STRING = 4,
	AVP_JSON_ARRAY = 5,
	AVP_JSON_OBJECT = 6
};

struct avp_json_doc; /* a parsed text: owns its values */
struct avp_json;     /* one value of it */

/*
 * Parses the whole of text (copied; it may go away). `options` may be NULL. 0
 * with *doc for avp_json_free(), or AVP_BAD_JSON (the reason names the byte
 * offset and what was expected there), AVP_TOO_LARGE (more than max_bytes),
 * AVP_NO_MEMORY, AVP_USAGE (options over the caps above). Time is O(n log n)
 * and memory at most 40 times the text, whatever it holds.
 */
int avp_json_parse(struct avp_json_doc **doc, const void *text, size_t len,
		   const struct avp_json_options *options,
		   struct avp_reason *why);

/* Frees the document and all its values; NULL is allowed. */
void avp_json_free(struct avp_json_doc *doc);

/* The value that the whole text is. */
const struct avp_json *avp_json_root(const struct avp_json_doc *doc);

/*
 * The functions on values take NULL as null. All returned pointers belong to
 * the document.
 */
enum avp_json_type avp_json_type_of(const struct avp_json *value);

/* Elements of an array, members of an object (equal keys once), else 0. */
uint32_t avp_json_count(const struct avp_json *value);

/* Walks an array or object in the order of the text; NULL at the end. */
const struct avp_json *avp_json_first(const struct avp_json *container);
const struct avp_json *avp_json_next(const struct avp_json *value);

/* The key of an object's member, empty for any other value. */
struct avp_str avp_json_key_of(const struct avp_json *member);

/* The member of that key, NULL if there is none. O(log n). */
const struct avp_json *avp_json_get(const struct avp_json *object,
				    const char *key);
const struct avp_json *avp_json_find(const struct avp_json *object,
				     struct avp_str key);

/*
 * What a value holds. 0, or AVP_INVALID_MESSAGE with nothing filled when it is
 * of another type or does not fit. avp_json_double() takes integers as well:
 * what is beyond a double is infinite.
 */
int avp_json_bool(const struct avp_json *value, bool *out);
int avp_json_int64(const struct avp_json *value, int64_t *out);
int avp_json_uint64(const struct avp_json *value, uint64_t *out);
int avp_json_double(const struct avp_json *value, double *out);
int avp_json_string(const struct avp_json *value, struct avp_str *out);

/* The text of an integer of any size, "-12"; empty for another type. */
struct avp_str avp_json_digits(const struct avp_json *value);

/*
 * Members of a message, strictly: 1 with *out filled, 0 with *out untouched
 * (so: set the default first) when the key is absent or null, else
 * AVP_INVALID_MESSAGE when the type is another or the number out of range; the
 * reason names key, value and limit.
 */
int avp_json_get_bool(const struct avp_json *object, const char *key, bool *out,
		      struct avp_reason *why);
int avp_json_get_int(const struct avp_json *object, const char *key,
		     int64_t min, int64_t max, int64_t *out,
		     struct avp_reason *why);
int avp_json_get_uint(const struct avp_json *object, const char *key,
		      uint64_t max, uint64_t *out, struct avp_reason *why);
int avp_json_get_double(const struct avp_json *object, const char *key,
			double *out, struct avp_reason *why);
int avp_json_get_string(const struct avp_json *object, const char *key,
			struct avp_str *out, struct avp_reason *why);
int avp_json_get_array(const struct avp_json *object, const char *key,
		       const struct avp_json **out, struct avp_reason *why);
int avp_json_get_object(const struct avp_json *object, const char *key,
			const struct avp_json **out, struct avp_reason *why);

/* 0 if the value is an object, else AVP_INVALID_MESSAGE: "a HELLO is ...". */
int avp_json_expect_object(const struct avp_json *value, const char *what,
			   struct avp_reason *why);

/* ---- writing ------------------------------------------------------------ */

/*
 * A growing buffer. All zero bytes are an empty one; the caller frees it with
 * avp_buf_fini(). Behind the len bytes stands a NUL once something was written.
 */
struct avp_buf {
	char *data;
	size_t len, capacity;
};

/* Makes room for `more` bytes behind len; 0 or AVP_NO_MEMORY. */
int avp_buf_reserve(struct avp_buf *buf, size_t more);
int avp_buf_append(struct avp_buf *buf, const void *bytes, size_t len);
static inline void avp_buf_clear(struct avp_buf *buf)
{
	buf->len = 0;
}
static inline struct avp_str avp_buf_str(const struct avp_buf *buf)
{
	struct avp_str s;

	s.data = buf->data;
	s.len = buf->len;
	return s;
}
/* Frees the memory and leaves an empty buffer. */
void avp_buf_fini(struct avp_buf *buf);

/* How to write: a style, which is a sum of these. */
#define AVP_JSON_PYTHON	   0u /* json.dumps(): ", " ": ", ASCII by \u00e9 */
#define AVP_JSON_COMPACT   1u /* "," and ":" */
#define AVP_JSON_UTF8	   2u /* text as it is; lone surrogates still escaped */
#define AVP_JSON_SORTED	   4u /* avp_json_put(): members by code point */
#define AVP_JSON_AS_READ   8u /* avp_json_put(): 1e400 and 1.50 stay that */
#define AVP_JSON_CANONICAL (AVP_JSON_COMPACT | AVP_JSON_SORTED) /* hashes */
#define AVP_JSON_HTTP	   (AVP_JSON_COMPACT | AVP_JSON_UTF8)	/* bodies */

/*
 * Writes a JSON text, value after value, behind what the buffer holds. Errors
 * stick: only avp_json_finish() needs to be looked at.
 *
 *      avp_json_begin(&w, &buf, AVP_JSON_PYTHON);
 *      avp_json_open_object(&w);
 *      avp_json_key(&w, "agent_id");
 *      avp_json_put_string(&w, id);
 *      avp_json_close_object(&w);
 *      code = avp_json_finish(&w);
 */
struct avp_json_writer {
	struct avp_buf *buf; /* the members are private */
	uint32_t style, open;
	int code;
	bool comma;
};

/* Begins a text in buf, which is borrowed until avp_json_finish(). */
void avp_json_begin(struct avp_json_writer *w, struct avp_buf *buf,
		    uint32_t style);

/*
 * 0; AVP_NO_MEMORY; AVP_SERIALIZATION_ERROR if a string was not UTF-8 (lone
 * surrogates excepted). The buffer then holds a part of the text.
 */
int avp_json_finish(struct avp_json_writer *w);

void avp_json_open_object(struct avp_json_writer *w);
void avp_json_close_object(struct avp_json_writer *w);
void avp_json_open_array(struct avp_json_writer *w);
void avp_json_close_array(struct avp_json_writer *w);
void avp_json_key(struct avp_json_writer *w, const char *key);
void avp_json_key_str(struct avp_json_writer *w, struct avp_str key);
void avp_json_put_null(struct avp_json_writer *w);
void avp_json_put_bool(struct avp_json_writer *w, bool value);
void avp_json_put_int(struct avp_json_writer *w, int64_t value);
void avp_json_put_uint(struct avp_json_writer *w, uint64_t value);
void avp_json_put_string(struct avp_json_writer *w, struct avp_str value);
void avp_json_put_text(struct avp_json_writer *w, const char *value);

/*
 * As Python's repr(): at most 17 digits, the fewest that read back as the same
 * double; an exponent below 1e-4 and from 1e16 on; NaN, Infinity, -Infinity. A
 * float32 is widened first, as in Python, so 0.1f is 0.10000000149011612.
 */
void avp_json_put_double(struct avp_json_writer *w, double value);

/* A parsed value with all below it; NULL writes null. */
void avp_json_put(struct avp_json_writer *w, const struct avp_json *value);

/* One whole JSON text that was written before, taken as it is. */
void avp_json_put_raw(struct avp_json_writer *w, struct avp_str json);

/* A key and its value, for the flat messages that most are. */
static inline void avp_json_member_string(struct avp_json_writer *w,
					  const char *key, struct avp_str value)
{
	avp_json_key(w, key);
	avp_json_put_string(w, value);
}
static inline void avp_json_member_int(struct avp_json_writer *w,
				       const char *key, int64_t value)
{
	avp_json_key(w, key);
	avp_json_put_int(w, value);
}
static inline void avp_json_member_uint(struct avp_json_writer *w,
					const char *key, uint64_t value)
{
	avp_json_key(w, key);
	avp_json_put_uint(w, value);
}
static inline void avp_json_member_bool(struct avp_json_writer *w,
					const char *key, bool value)
{
	avp_json_key(w, key);
	avp_json_put_bool(w, value);
}

/* The whole value behind what the buffer holds; as avp_json_finish(). */
int avp_json_write(struct avp_buf *buf, const struct avp_json *value,
		   uint32_t style);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
