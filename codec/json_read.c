/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The JSON parser: one pass, no recursion. Each value becomes a node behind its
 * parent in one growing block; strings are decoded into one block of text that
 * is as long as the input, since no value is longer decoded than written.
 *
 * An object is finished when its '}' comes: equal keys are merged there, and a
 * large object gets an array of its members sorted by key, for searching and
 * for sorted writing. Sorting, not hashing: no input makes it quadratic.
 */
#include <stdlib.h>
#include <string.h>

#include "codec/json_internal.h"

struct frame {
	uint32_t node, last; /* the open container, its last child */
};

struct parser {
	const uint8_t *text;
	size_t len, pos;
	struct avp_json_doc *doc;
	size_t text_len; /* of doc->text */
	struct frame *frames;
	uint32_t depth, max_depth;
	uint32_t key_off, key_len; /* of the value that comes next */
	struct avp_reason *why;
};

/* "byte 7: expected a value, got ']'" */
static int refuse(struct parser *p, const char *expected)
{
	size_t at = p->pos;

	if (at >= p->len)
		return avp__fail(p->why, AVP_BAD_JSON,
				 "byte %zu: expected %s, but the text ends", at,
				 expected);
	if (p->text[at] > 0x20 && p->text[at] < 0x7f)
		return avp__fail(p->why, AVP_BAD_JSON,
				 "byte %zu: expected %s, not '%c'", at,
				 expected, p->text[at]);
	return avp__fail(p->why, AVP_BAD_JSON,
			 "byte %zu: expected %s, not byte 0x%02x", at, expected,
			 p->text[at]);
}

static int no_memory(struct parser *p)
{
	return avp__fail(p->why, AVP_NO_MEMORY,
			 "no memory for a JSON text of %zu bytes", p->len);
}

static void skip_space(struct parser *p)
{
	while (p->pos < p->len &&
	       (p->text[p->pos] == ' ' || p->text[p->pos] == '\n' ||
		p->text[p->pos] == '\r' || p->text[p->pos] == '\t'))
		p->pos++;
}

static int peek(const struct parser *p)
{
	return p->pos < p->len ? p->text[p->pos] : -1;
}

/* ---- strings ------------------------------------------------------------ */

size_t avp__utf8_next(const uint8_t *s, size_t len, bool wtf, uint32_t *point)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t n = s[0] < 0x80	 ? 1
		   : s[0] < 0xc2 ? 0
		   : s[0] < 0xe0 ? 2
		   : s[0] < 0xf0 ? 3
		   : s[0] < 0xf5 ? 4
				 : 0;
	uint32_t c = n < 2 ? s[0] : s[0] & (0x7fu >> n);

	if (!n || n > len)
		return 0;
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (s[i] & 0x3f);
	}
	if (c < least[n] || c > 0x10ffff ||
	    (!wtf && c >= 0xd800 && c <= 0xdfff))
		return 0;
	*point = c;
	return n;
}

static void put_point(struct parser *p, uint32_t c)
{
	char *out = p->doc->text + p->text_len;
	size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
	static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};

	p->text_len += n;
	for (size_t i = n; i-- > 1; c >>= 6)
		out[i] = (char)(0x80 | (c & 0x3f));
	out[0] = (char)(lead[n] | c);
}

/* Four hexadecimal digits at pos; -1 if they are not there. */
static int32_t hex4(const struct parser *p)
{
	int32_t c = 0;

	if (p->len - p->pos < 4)
		return -1;
	for (size_t i = 0; i < 4; i++) {
		uint8_t d = p->text[p->pos + i];

		if (d >= '0' && d <= '9')
			d -= '0';
		else if ((d | 0x20) >= 'a' && (d | 0x20) <= 'f')
			d = (uint8_t)((d | 0x20) - 'a' + 10);
		else
			return -1;
		c = c << 4 | d;
	}
	return c;
}

/* Behind "\u". Two escapes that are a surrogate pair are one character. */
static int read_unicode(struct parser *p)
{
	int32_t c = hex4(p), low;

	if (c < 0)
		return refuse(p, "four hexadecimal digits after \\u");
	p->pos += 4;
	if (c >= 0xd800 && c < 0xdc00 && p->len - p->pos >= 2 &&
	    p->text[p->pos] == '\\' && p->text[p->pos + 1] == 'u') {
		p->pos += 2;
		low = hex4(p);
		if (low < 0)
			return refuse(p, "four hexadecimal digits after \\u");
		if (low >= 0xdc00 && low < 0xe000) {
			c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
			p->pos += 4;
		} else {
			p->pos -= 2;
		}
	}
	put_point(p, (uint32_t)c);
	return 0;
}

static int read_escape(struct parser *p)
{
	static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
	const char *found;

	p->pos++;
	if (peek(p) == 'u') {
		p->pos++;
		return read_unicode(p);
	}
	found = peek(p) > 0 ? strchr(from, peek(p)) : NULL;
	if (!found)
		return refuse(p, "one of \"\\/bfnrtu after a backslash");
	p->doc->text[p->text_len++] = to[found - from];
	p->pos++;
	return 0;
}

/* Plain bytes up to the next quote, escape or mistake. */
static void read_plain(struct parser *p)
{
	size_t begin = p->pos, n;
	uint32_t c;

	while (p->pos < p->len) {
		uint8_t b = p->text[p->pos];

		if (b == '"' || b == '\\' || b < 0x20)
			break;
		n = b < 0x80 ? 1
			     : avp__utf8_next(p->text + p->pos, p->len - p->pos,
					      false, &c);
		if (!n)
			break;
		p->pos += n;
	}
	memcpy(p->doc->text + p->text_len, p->text + begin, p->pos - begin);
	p->text_len += p->pos - begin;
}

/* At an opening quote. */
static int read_string(struct parser *p, uint32_t *off, uint32_t *len)
{
	size_t begin = p->text_len;
	int code = 0;

	for (p->pos++; !code;) {
		read_plain(p);
		if (peek(p) == '"')
			break;
		if (peek(p) == '\\')
			code = read_escape(p);
		else if (peek(p) >= 0x80)
			code = refuse(p, "valid UTF-8 in a string");
		else if (peek(p) >= 0)
			code = refuse(p, "no control character in a string "
					 "(escape it)");
		else
			code = refuse(p, "'\"' at the end of a string");
	}
	if (code)
		return code;
	p->pos++;
	*off = (uint32_t)begin;
	*len = (uint32_t)(p->text_len - begin);
	p->doc->text[p->text_len++] = 0;
	return 0;
}

/* ---- nodes -------------------------------------------------------------- */

static int grow_nodes(struct parser *p)
{
	size_t capacity = p->doc->node_capacity * 3 / 2 + 16;
	struct avp_json_doc *doc = realloc(
		p->doc, sizeof(*doc) + capacity * sizeof(struct avp_json));

	if (!doc)
		return no_memory(p);
	p->doc = doc;
	doc->node_capacity = capacity;
	return 0;
}

/* Adds a value with the pending key to the open container. */
static int add_node(struct parser *p, enum avp_json_type type, size_t a,
		    size_t n)
{
	uint32_t self = (uint32_t)p->doc->nodes;
	struct frame *parent = p->depth ? &p->frames[p->depth - 1] : NULL;
	struct avp_json *node;

	if (self == p->doc->node_capacity && grow_nodes(p))
		return AVP_NO_MEMORY;
	node = p->doc->node;
	p->doc->nodes++;
	node[self] = (struct avp_json){
		.type = (uint32_t)type & 7,
		.self = self & 0x1fffffff,
		.key_off = p->key_off,
		.key_len = p->key_len,
		.a = (uint32_t)a,
		.n = (uint32_t)n,
	};
	if (!parent)
		return 0;
	if (parent->last)
		node[parent->last].next = self;
	else
		node[parent->node].a = self;
	parent->last = self;
	node[parent->node].n++;
	return 0;
}

static int open_container(struct parser *p, enum avp_json_type type)
{
	if (p->depth == p->max_depth)
		return avp__fail(p->why, AVP_BAD_JSON,
				 "byte %zu: nested deeper than %u; nest less",
				 p->pos, p->max_depth);
	if (add_node(p, type, 0, 0))
		return AVP_NO_MEMORY;
	p->frames[p->depth++] =
		(struct frame){.node = (uint32_t)(p->doc->nodes - 1)};
	p->pos++;
	p->key_off = p->key_len = 0;
	return 0;
}

/* ---- objects: equal keys, order ----------------------------------------- */

static struct avp_str node_key(const struct avp_json_doc *doc, uint32_t i)
{
	return (struct avp_str){doc->text + doc->node[i].key_off,
				doc->node[i].key_len};
}

/* The value of `from` in the place of `to`, which comes first in the text. */
static void take_value(struct avp_json_doc *doc, uint32_t to, uint32_t from)
{
	struct avp_json *t = &doc->node[to], *f = &doc->node[from];

	t->type = f->type;
	t->a = f->a;
	t->n = f->n;
	t->order = f->order;
}

static void merge_small(struct avp_json_doc *doc, struct avp_json *object)
{
	uint32_t seen[JSON_SMALL_OBJECT], n = 0, i = object->a, j;

	for (; i; i = doc->node[i].next) {
		for (j = 0; j < n; j++)
			if (avp_str_equal(node_key(doc, seen[j]),
					  node_key(doc, i)))
				break;
		if (j < n) {
			take_value(doc, seen[j], i);
			continue;
		}
		if (n)
			doc->node[seen[n - 1]].next = i;
		seen[n++] = i;
	}
	if (n)
		doc->node[seen[n - 1]].next = 0;
	object->n = n;
}

int avp__str_compare(struct avp_str a, struct avp_str b)
{
	size_t n = a.len < b.len ? a.len : b.len;
	int c = n ? memcmp(a.data, b.data, n) : 0;

	return c ? c : (a.len > b.len) - (a.len < b.len);
}

/* Nodes are numbered in the order of the text, so equal keys stay in it. */
static int compare_members(const void *a, const void *b, void *doc)
{
	const uint32_t *i = a, *j = b;
	int c = avp__str_compare(node_key(doc, *i), node_key(doc, *j));

	return c ? c : (*i > *j) - (*i < *j);
}

static int reserve_order(struct parser *p, size_t more)
{
	struct avp_json_doc *doc = p->doc;
	size_t capacity = doc->order_capacity * 3 / 2 + more;
	uint32_t *order;

	if (doc->order_capacity - doc->ordered >= more)
		return 0;
	order = realloc(doc->order, capacity * sizeof(*order));
	if (!order)
		return no_memory(p);
	doc->order = order;
	doc->order_capacity = capacity;
	return 0;
}

/*
 * Of each run of equal keys the first member stays, with the last one's value;
 * the others are marked by naming themselves as next, and unlinked in one walk.
 */
static uint32_t merge_sorted(struct avp_json_doc *doc, uint32_t *order,
			     uint32_t count)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < count; i++) {
		if (kept && avp_str_equal(node_key(doc, order[kept - 1]),
					  node_key(doc, order[i]))) {
			take_value(doc, order[kept - 1], order[i]);
			doc->node[order[i]].key_len = UINT32_MAX;
			continue;
		}
		order[kept++] = order[i];
	}
	return kept;
}

static void unlink_merged(struct avp_json_doc *doc, const struct avp_json *o)
{
	uint32_t last = o->a; /* the first of all is the first of its key */

	for (uint32_t i = doc->node[last].next; i; i = doc->node[i].next) {
		if (doc->node[i].key_len == UINT32_MAX)
			continue;
		doc->node[last].next = i;
		last = i;
	}
	doc->node[last].next = 0;
}

static int sort_large(struct parser *p, struct avp_json *object)
{
	struct avp_json_doc *doc = p->doc;
	uint32_t *order, n = 0;

	if (reserve_order(p, object->n))
		return AVP_NO_MEMORY;
	order = doc->order + doc->ordered;
	for (uint32_t i = object->a; i; i = doc->node[i].next)
		order[n++] = i;
	qsort_r(order, n, sizeof(*order), compare_members, doc);
	object->order = (uint32_t)doc->ordered;
	n = merge_sorted(doc, order, n);
	if (n < object->n)
		unlink_merged(doc, object);
	object->n = n;
	doc->ordered += n;
	return 0;
}

static int close_container(struct parser *p)
{
	struct avp_json *node = &p->doc->node[p->frames[--p->depth].node];

	p->pos++;
	if (node->type != AVP_JSON_OBJECT)
		return 0;
	if (node->n > JSON_SMALL_OBJECT)
		return sort_large(p, node);
	merge_small(p->doc, node);
	return 0;
}

/* ---- values ------------------------------------------------------------- */

static size_t count_digits(const struct parser *p, size_t at)
{
	size_t n = 0;

	while (at + n < p->len && p->text[at + n] >= '0' &&
	       p->text[at + n] <= '9')
		n++;
	return n;
}

/* Length of a fraction or exponent at `at`; 0 if none that is whole. */
static size_t float_part(const struct parser *p, size_t at)
{
	size_t sign = 0, n;

	if (at >= p->len)
		return 0;
	if (p->text[at] == '.') {
		n = count_digits(p, at + 1);
		return n ? n + 1 : 0;
	}
	if ((p->text[at] | 0x20) != 'e')
		return 0;
	if (at + 1 < p->len &&
	    (p->text[at + 1] == '+' || p->text[at + 1] == '-'))
		sign = 1;
	n = count_digits(p, at + 1 + sign);
	return n ? n + 1 + sign : 0;
}

static int add_text(struct parser *p, enum avp_json_type type, const void *text,
		    size_t len)
{
	size_t off = p->text_len;

	memcpy(p->doc->text + off, text, len);
	p->doc->text[off + len] = 0;
	p->text_len += len + 1;
	return add_node(p, type, off, len);
}

/*
 * A number stays text until it is asked for. "-0" is the integer 0. What is cut
 * short ("1.", "2e") is an integer with something unexpected behind it.
 */
static int read_number(struct parser *p)
{
	size_t begin = p->pos, minus = peek(p) == '-', at = begin + minus;
	size_t digits = count_digits(p, at), part;
	enum avp_json_type type = AVP_JSON_INT;

	if (!digits)
		return refuse(p, "a value");
	if (p->text[at] == '0')
		digits = 1;
	at += digits;
	for (const char *mark = ".e"; *mark; mark++) {
		if (at >= p->len || (p->text[at] | 0x20) != (*mark | 0x20))
			continue;
		part = float_part(p, at);
		if (!part)
			break;
		type = AVP_JSON_FLOAT;
		at += part;
	}
	if (type == AVP_JSON_INT && digits > AVP_JSON_MAX_DIGITS)
		return avp__fail(p->why, AVP_BAD_JSON,
				 "byte %zu: an integer of %zu digits is over "
				 "the limit of %u",
				 begin, digits, AVP_JSON_MAX_DIGITS);
	p->pos = at;
	if (type == AVP_JSON_INT && minus && p->text[begin + 1] == '0')
		begin++;
	return add_text(p, type, p->text + begin, at - begin);
}

static bool take_word(struct parser *p, const char *word)
{
	size_t n = strlen(word);

	if (p->len - p->pos < n || memcmp(p->text + p->pos, word, n) != 0)
		return false;
	p->pos += n;
	return true;
}

static int read_word(struct parser *p)
{
	if (take_word(p, "null"))
		return add_node(p, AVP_JSON_NULL, 0, 0);
	if (take_word(p, "true"))
		return add_node(p, AVP_JSON_BOOL, 0, 1);
	if (take_word(p, "false"))
		return add_node(p, AVP_JSON_BOOL, 0, 0);
	if (take_word(p, "NaN"))
		return add_text(p, AVP_JSON_FLOAT, "NaN", 3);
	if (take_word(p, "Infinity"))
		return add_text(p, AVP_JSON_FLOAT, "Infinity", 8);
	if (take_word(p, "-Infinity"))
		return add_text(p, AVP_JSON_FLOAT, "-Infinity", 9);
	return read_number(p);
}

static int read_value(struct parser *p)
{
	uint32_t off, len;

	skip_space(p);
	switch (peek(p)) {
	case '{': return open_container(p, AVP_JSON_OBJECT);
	case '[': return open_container(p, AVP_JSON_ARRAY);
	case '"':
		if (read_string(p, &off, &len))
			return AVP_BAD_JSON;
		return add_node(p, AVP_JSON_STRING, off, len);
	default: return read_word(p);
	}
}

static int read_key(struct parser *p)
{
	skip_space(p);
	if (peek(p) != '"')
		return refuse(p, "a key in double quotes");
	if (read_string(p, &p->key_off, &p->key_len))
		return AVP_BAD_JSON;
	skip_space(p);
	if (peek(p) != ':')
		return refuse(p, "':' after a key");
	p->pos++;
	return 0;
}

/* In an open container: its end, or the next of its values. */
static int read_next(struct parser *p)
{
	const struct frame *top = &p->frames[p->depth - 1];
	bool object = p->doc->node[top->node].type == AVP_JSON_OBJECT;
	bool empty = !top->last;

	skip_space(p);
	if (peek(p) == (object ? '}' : ']'))
		return close_container(p);
	if (!empty) {
		if (peek(p) != ',')
			return refuse(p, object ? "',' or '}'" : "',' or ']'");
		p->pos++;
	}
	p->key_off = p->key_len = 0;
	if (object && read_key(p))
		return AVP_BAD_JSON;
	return read_value(p);
}

static int read_document(struct parser *p)
{
	int code;

	if (p->len >= 3 && !memcmp(p->text, "\xef\xbb\xbf", 3))
		return avp__fail(p->why, AVP_BAD_JSON,
				 "byte 0: a byte order mark; remove it");
	code = read_value(p);
	while (!code && p->depth)
		code = read_next(p);
	if (code)
		return code;
	skip_space(p);
	return p->pos < p->len ? refuse(p, "the end of the text") : 0;
}

/* ---- documents ---------------------------------------------------------- */

static int read_options(const struct avp_json_options *o, size_t len,
			uint32_t *max_depth, struct avp_reason *why)
{
	static const struct avp_json_options none;
	uint64_t max_bytes;

	o = o ? o : &none;
	if ((o->size && o->size != sizeof(*o)) || o->reserved[0] ||
	    o->reserved[1] || o->reserved[2] || o->reserved[3])
		return avp__fail(
			why, AVP_USAGE,
			"struct avp_json_options: size %u is neither 0 "
			"nor %zu, or reserved is not 0",
			o->size, sizeof(*o));
	if (o->max_depth > AVP_JSON_DEPTH_CAP ||
	    o->max_bytes > AVP_JSON_BYTES_CAP)
		return avp__fail(
			why, AVP_USAGE,
			"max_depth %u or max_bytes %llu is over %u, %u",
			o->max_depth, (unsigned long long)o->max_bytes,
			AVP_JSON_DEPTH_CAP, AVP_JSON_BYTES_CAP);
	*max_depth = o->max_depth ? o->max_depth : AVP_JSON_MAX_DEPTH;
	max_bytes = o->max_bytes ? o->max_bytes : AVP_JSON_MAX_BYTES;
	if (len > max_bytes)
		return avp__fail(why, AVP_TOO_LARGE,
				 "a JSON text of %zu bytes is over the limit "
				 "of %llu",
				 len, (unsigned long long)max_bytes);
	return 0;
}

/* Gives back what growing left over; a failure to shrink is none. */
static struct avp_json_doc *trim(struct avp_json_doc *doc, size_t text_len)
{
	char *text = realloc(doc->text, text_len ? text_len : 1);
	struct avp_json_doc *smaller;

	if (text)
		doc->text = text;
	smaller = realloc(doc,
			  sizeof(*doc) + doc->nodes * sizeof(struct avp_json));
	return smaller ? smaller : doc;
}

int avp_json_parse(struct avp_json_doc **doc, const void *text, size_t len,
		   const struct avp_json_options *options,
		   struct avp_reason *why)
{
	struct parser p = {.text = text, .len = len, .why = why};
	int code = read_options(options, len, &p.max_depth, why);

	if (code)
		return code;
	p.doc = calloc(1, sizeof(*p.doc));
	p.frames = malloc(p.max_depth * sizeof(*p.frames));
	if (p.doc)
		p.doc->text = malloc(len + 1);
	if (!p.doc || !p.frames || !p.doc->text)
		code = no_memory(&p);
	else
		code = read_document(&p);
	free(p.frames);
	if (code) {
		avp_json_free(p.doc);
		return code;
	}
	*doc = trim(p.doc, p.text_len);
	return 0;
}

void avp_json_free(struct avp_json_doc *doc)
{
	if (!doc)
		return;
	free(doc->text);
	free(doc->order);
	free(doc);
}
