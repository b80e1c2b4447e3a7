/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The protobuf wire format, bounded on both sides (protobuf.dev, Encoding).
 * Reading decides as upb 6.31 does, the runtime of the reference SDK: tags of
 * at most 5 bytes and 32 bits, varints of at most 10 bytes, whose bits beyond
 * 64 are dropped.
 */
#ifndef AVP_CODEC_WIRE_H
#define AVP_CODEC_WIRE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <avp/codec.h>

#define AVP__VARINT	      0u
#define AVP__FIXED64	      1u
#define AVP__LEN	      2u
#define AVP__GROUP	      3u
#define AVP__END_GROUP	      4u
#define AVP__FIXED32	      5u
#define AVP__TAG(field, wire) ((uint32_t)(field) << 3 | (wire))

/* upb's default: a message in it, or a group, is one level. */
#define AVP__DEPTH 100

struct avp__field {
	uint32_t tag;	     /* number << 3 | wire type */
	uint64_t value;	     /* of a varint or fixed field; length of bytes */
	const uint8_t *data; /* AVP__LEN: its bytes */
};

/* The slow halves of what follows: anything but one-byte varints. */
const uint8_t *avp__varint_long(const uint8_t *p, const uint8_t *end,
				uint64_t *value);
const uint8_t *avp__tag_long(const uint8_t *p, const uint8_t *end,
			     uint32_t *tag);
const uint8_t *avp__wire_rest(const uint8_t *p, const uint8_t *end,
			      struct avp__field *f, int depth);

/*
 * Results go through locals where a function is called, so that a caller's
 * variables may stay in registers: a third of the time of a small metadata.
 */

/* The byte behind the varint at p, or NULL if it does not end before end. */
static inline const uint8_t *avp__varint(const uint8_t *p, const uint8_t *end,
					 uint64_t *value)
{
	uint64_t v = 0;

	if (p < end && *p < 0x80) {
		*value = *p;
		return p + 1;
	}
	p = avp__varint_long(p, end, &v);
	*value = v;
	return p;
}

static inline const uint8_t *avp__tag(const uint8_t *p, const uint8_t *end,
				      uint32_t *tag)
{
	uint32_t t = 0;

	if (*p < 0x80) {
		*tag = *p;
		return p + 1;
	}
	p = avp__tag_long(p, end, &t);
	*tag = t;
	return p;
}

/*
 * Reads one field at p < end; groups are passed over whole, with depth more
 * levels allowed. The byte behind it, or NULL if this is no field.
 */
static inline const uint8_t *avp__wire_next(const uint8_t *p,
					    const uint8_t *end,
					    struct avp__field *f, int depth)
{
	struct avp__field rare;

	p = avp__tag(p, end, &f->tag);
	f->data = p;
	if (!p || f->tag < 8)
		return NULL; /* 0 is no field number */
	if ((f->tag & 7) == AVP__VARINT)
		return avp__varint(p, end, &f->value);
	if ((f->tag & 7) == AVP__LEN) {
		p = avp__varint(p, end, &f->value);
		if (!p || f->value > (uint64_t)(end - p))
			return NULL;
		f->data = p;
		return p + f->value;
	}
	rare.tag = f->tag;
	rare.value = 0;
	p = avp__wire_rest(p, end, &rare, depth);
	f->value = rare.value;
	return p;
}

static inline unsigned int avp__varint_size(uint64_t v)
{
	return (unsigned int)(63 - __builtin_clzll(v | 1)) / 7 + 1;
}

static inline uint8_t *avp__put_varint(uint8_t *p, uint64_t v)
{
	while (v >= 0x80) {
		*p++ = (uint8_t)(v | 0x80);
		v >>= 7;
	}
	*p++ = (uint8_t)v;
	return p;
}

static inline uint8_t *avp__put_bytes(uint8_t *p, uint32_t field,
				      const void *data, size_t len)
{
	p = avp__put_varint(p, AVP__TAG(field, AVP__LEN));
	p = avp__put_varint(p, len);
	if (len)
		memcpy(p, data, len);
	return p + len;
}

static inline void avp__put_le32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
	p[2] = (uint8_t)(v >> 16);
	p[3] = (uint8_t)(v >> 24);
}

static inline uint32_t avp__get_le32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
	       (uint32_t)p[3] << 24;
}

/* Some byte of the eight has its high bit set: not ASCII. */
#define AVP__HIGH_BITS 0x8080808080808080u

/* Well-formed UTF-8 (Unicode 15, table 3-7): no surrogates, no over-long. */
bool avp__utf8_valid_long(const uint8_t *p, size_t len);

/* Short ASCII by overlapping loads, without a loop or a call. */
static inline bool avp__utf8_valid(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint64_t a, b;
	uint32_t c, d;

	if (len > 16)
		return avp__utf8_valid_long(p, len);
	if (len >= 8) {
		memcpy(&a, p, 8);
		memcpy(&b, p + len - 8, 8);
		a |= b;
	} else if (len >= 4) {
		memcpy(&c, p, 4);
		memcpy(&d, p + len - 4, 4);
		a = c | d;
	} else if (len) {
		a = (uint64_t)(p[0] | p[len / 2] | p[len - 1]);
	} else {
		return true;
	}
	return !(a & AVP__HIGH_BITS) || avp__utf8_valid_long(p, len);
}

/* The text of a field of AVP__LEN; false if it is not UTF-8. */
static inline bool avp__field_text(const struct avp__field *f,
				   struct avp_str *text)
{
	text->data = (const char *)f->data;
	text->len = (size_t)f->value;
	return avp__utf8_valid(f->data, text->len);
}

/*
 * An entry of a map of texts. upb sets one with unknown fields aside, C++ keeps
 * it: it is refused, so that no two readers see different maps.
 */
bool avp__field_pair(const struct avp__field *entry, struct avp_pair *pair);

#endif
