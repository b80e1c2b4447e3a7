/* SPDX-License-Identifier: Apache-2.0 */
/* What the JSON reader, writer and number texts share. */
#ifndef AVP_CODEC_JSON_INTERNAL_H
#define AVP_CODEC_JSON_INTERNAL_H

#include <avp/json.h>

/*
 * A document is one block of nodes behind its header and one block of text. A
 * node names others by index; 0, the root, means none where another is meant.
 * `self` leads from a node back to the header.
 */
struct avp_json {
	uint32_t type : 3, self : 29;
	uint32_t next;		   /* the next in the same container */
	uint32_t key_off, key_len; /* in the text, of a member */
	uint32_t a;		   /* first child, or offset in the text */
	uint32_t n;		   /* number of children, or of bytes; a bool */
	uint32_t order; /* of a large object: begin of its sorted members */
};

struct avp_json_doc {
	char *text; /* decoded strings and numbers, each with a NUL behind */
	uint32_t *order;
	size_t nodes, node_capacity;
	size_t ordered, order_capacity;
	struct avp_json node[];
};

/* Objects up to this size are searched from end to end and have no order. */
#define JSON_SMALL_OBJECT 8

static inline const struct avp_json_doc *avp__json_doc(
	const struct avp_json *value)
{
	const struct avp_json *root = value - value->self;

	return (const void *)((const char *)root -
			      offsetof(struct avp_json_doc, node));
}

/* Negative, 0, positive: by bytes, which in UTF-8 is by code point. */
int avp__str_compare(struct avp_str a, struct avp_str b);

/* The number that a text in JSON's grammar (NaN and infinities too) means. */
double avp__json_number(const char *text);

/* Python's repr() of a double, in JSON's words; the length. */
#define JSON_DOUBLE_BYTES 32
size_t avp__json_format_double(double value, char out[JSON_DOUBLE_BYTES]);

/*
 * Length of the UTF-8 sequence at s (1-4), 0 if it is not valid. With `wtf` a
 * lone surrogate counts as valid. *point is filled if it is valid.
 */
size_t avp__utf8_next(const uint8_t *s, size_t len, bool wtf, uint32_t *point);

#endif
