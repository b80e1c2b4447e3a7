/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HybridPayload. Its chunks hold tensors, so it is read in place and written
 * once, with the metadata's wire code: protobuf-c would copy every chunk, and
 * allocates thirty times what a hostile payload of empty chunks takes.
 */
#include <limits.h>

#include <avp/codec.h>

#include "codec/wire.h"

static int no_payload(struct avp_reason *why)
{
	return avp__fail(why, AVP_DESERIALIZATION_ERROR,
			 "the payload is not a protobuf HybridPayload; a frame "
			 "of mode HYBRID holds one");
}

static int read_chunk(const struct avp__field *message,
		      struct avp_hybrid_chunk *chunk, struct avp_reason *why)
{
	const uint8_t *p = message->data, *end = p + message->value;
	struct avp_hybrid_chunk c = {.data = p};
	struct avp__field f;
	uint32_t bits;

	while (p < end) {
		p = avp__wire_next(p, end, &f, AVP__DEPTH - 1);
		if (!p)
			return no_payload(why);
		switch (f.tag) {
		case AVP__TAG(1, AVP__VARINT):
			c.chunk_type = (int32_t)(uint32_t)f.value;
			break;
		case AVP__TAG(2, AVP__LEN):
			c.data = f.data;
			c.bytes = f.value;
			break;
		case AVP__TAG(3, AVP__FIXED32):
			bits = (uint32_t)f.value;
			memcpy(&c.confidence, &bits, sizeof(bits));
			break;
		default:
			if ((f.tag & 7) == AVP__END_GROUP)
				return no_payload(why);
		}
	}
	*chunk = c;
	return 1;
}

int avp_hybrid_next(struct avp_hybrid_cursor *cursor,
		    struct avp_hybrid_chunk *chunk, struct avp_reason *why)
{
	struct avp__field f;

	while (cursor->at < cursor->end) {
		const uint8_t *p =
			avp__wire_next(cursor->at, cursor->end, &f, AVP__DEPTH);

		if (!p || (f.tag & 7) == AVP__END_GROUP)
			return no_payload(why);
		cursor->at = p;
		if (f.tag == AVP__TAG(1, AVP__LEN))
			return read_chunk(&f, chunk, why);
	}
	return 0;
}

static uint32_t confidence_bits(const struct avp_hybrid_chunk *c)
{
	uint32_t bits;

	memcpy(&bits, &c->confidence, sizeof(bits));
	return bits;
}

/* An enum is an int32 on the wire: a negative one takes ten bytes. */
static uint64_t type_bits(const struct avp_hybrid_chunk *c)
{
	return (uint64_t)(int64_t)c->chunk_type;
}

static uint64_t chunk_size(const struct avp_hybrid_chunk *c)
{
	uint64_t n = 0;

	n += c->chunk_type ? 1 + avp__varint_size(type_bits(c)) : 0;
	n += c->bytes ? 1 + avp__varint_size(c->bytes) + c->bytes : 0;
	n += confidence_bits(c) ? 5 : 0;
	return n;
}

uint64_t avp_hybrid_size(const struct avp_hybrid_chunk *chunks, size_t count)
{
	uint64_t n = 0;

	for (size_t i = 0; i < count; i++) {
		uint64_t size = chunk_size(&chunks[i]);

		n += 1 + avp__varint_size(size) + size;
	}
	return n;
}

static uint8_t *put_chunk(uint8_t *p, const struct avp_hybrid_chunk *c)
{
	*p++ = AVP__TAG(1, AVP__LEN);
	p = avp__put_varint(p, chunk_size(c));
	if (c->chunk_type) {
		*p++ = AVP__TAG(1, AVP__VARINT);
		p = avp__put_varint(p, type_bits(c));
	}
	if (c->bytes)
		p = avp__put_bytes(p, 2, c->data, c->bytes);
	if (confidence_bits(c)) {
		*p++ = AVP__TAG(3, AVP__FIXED32);
		avp__put_le32(p, confidence_bits(c));
		p += 4;
	}
	return p;
}

int avp_hybrid_encode(const struct avp_hybrid_chunk *chunks, size_t count,
		      void *out, uint64_t capacity, uint64_t *len,
		      struct avp_reason *why)
{
	uint64_t n = avp_hybrid_size(chunks, count);
	uint8_t *p = out;

	for (size_t i = 0; i < count; i++)
		if (chunk_size(&chunks[i]) > INT_MAX)
			return avp__fail(why, AVP_TOO_LARGE,
					 "chunk %zu is over protobuf's 2 GiB; "
					 "split it",
					 i);
	if (n > capacity)
		return avp__fail(why, AVP_TOO_LARGE,
				 "a HybridPayload of %llu bytes, there is room "
				 "for %llu",
				 (unsigned long long)n,
				 (unsigned long long)capacity);
	for (size_t i = 0; i < count; i++)
		p = put_chunk(p, &chunks[i]);
	*len = n;
	return 0;
}
