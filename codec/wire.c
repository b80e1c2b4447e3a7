/* SPDX-License-Identifier: Apache-2.0 */
/* The wire format's rare forms, and text that is not short ASCII. */
#include "codec/wire.h"
#include "codec/json_internal.h"

const uint8_t *avp__varint_long(const uint8_t *p, const uint8_t *end,
				uint64_t *value)
{
	uint64_t v = 0;

	for (unsigned int shift = 0; shift < 70 && p < end; shift += 7) {
		uint8_t byte = *p++;

		v |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80) {
			*value = v;
			return p;
		}
	}
	return NULL;
}

const uint8_t *avp__tag_long(const uint8_t *p, const uint8_t *end,
			     uint32_t *tag)
{
	const uint8_t *start = p;
	uint64_t v;

	p = avp__varint_long(p, end, &v);
	if (!p || p - start > 5 || v > UINT32_MAX)
		return NULL;
	*tag = (uint32_t)v;
	return p;
}

/* The byte behind the end tag of the group that p is in. */
static const uint8_t *skip_group(const uint8_t *p, const uint8_t *end,
				 uint32_t number, int depth)
{
	struct avp__field f;

	if (--depth < 0)
		return NULL;
	while (p && p < end) {
		p = avp__wire_next(p, end, &f, depth);
		if (p && (f.tag & 7) == AVP__END_GROUP)
			return f.tag >> 3 == number ? p : NULL;
	}
	return NULL;
}

/* An end tag is returned as a field: it is for the caller to expect one. */
const uint8_t *avp__wire_rest(const uint8_t *p, const uint8_t *end,
			      struct avp__field *f, int depth)
{
	switch (f->tag & 7) {
	case AVP__FIXED64:
		if (end - p < 8)
			return NULL;
		f->value = avp__get_le32(p) | (uint64_t)avp__get_le32(p + 4)
						      << 32;
		return p + 8;
	case AVP__FIXED32:
		if (end - p < 4)
			return NULL;
		f->value = avp__get_le32(p);
		return p + 4;
	case AVP__GROUP: return skip_group(p, end, f->tag >> 3, depth);
	case AVP__END_GROUP: return p;
	default: return NULL; /* wire types 6 and 7 are none */
	}
}

bool avp__utf8_valid_long(const uint8_t *p, size_t len)
{
	uint64_t eight;
	uint32_t point;
	size_t n;

	while (len) {
		if (len >= 8) {
			memcpy(&eight, p, 8);
			if (!(eight & AVP__HIGH_BITS)) {
				p += 8;
				len -= 8;
				continue;
			}
		}
		n = avp__utf8_next(p, len, false, &point);
		if (!n)
			return false;
		p += n;
		len -= n;
	}
	return true;
}
