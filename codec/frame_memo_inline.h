/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A frame whose head says what the last one's said, to be inlined into the path
 * of a message. Private to libavp; avp_frame_decode_again() is the function.
 */
#ifndef AVP_CODEC_FRAME_MEMO_INLINE_H
#define AVP_CODEC_FRAME_MEMO_INLINE_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <avp/codec.h>

#define MEMO_LENGTH_OFF 4 /* of payload_length, which may differ */
#define MEMO_AFTER_OFF	8
#define MEMO_LEAST	16 /* bytes of a head that is remembered */

static inline uint64_t memo_differ(const uint8_t *a, const uint8_t *b)
{
	uint64_t x, y;

	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	return x ^ y;
}

/*
 * Equal but for payload_length? Some dozen bytes: not worth two calls. The last
 * eight overlap what was compared before, which is cheaper than a rest of
 * bytes.
 */
static inline bool memo_same(const struct avp_frame_memo *memo,
			     const uint8_t *head)
{
	const uint8_t *known = memo->head;
	uint32_t last = memo->len - 8; /* MEMO_AFTER_OFF at least */
	uint64_t diff = memo_differ(head + last, known + last);

	for (uint32_t at = MEMO_AFTER_OFF; at < last; at += 8)
		diff |= memo_differ(head + at, known + at);
	return !diff && !memcmp(head, known, MEMO_LENGTH_OFF);
}

static inline uint32_t memo_length(const uint8_t *head)
{
	uint32_t length;

	memcpy(&length, head + MEMO_LENGTH_OFF, sizeof(length)); /* le */
	return length;
}

static inline bool memo_fits(const struct avp_frame_memo *memo,
			     const void *head, size_t head_bytes,
			     uint64_t total_bytes)
{
	uint32_t length;

	if (!memo->len || head_bytes < memo->len || !memo_same(memo, head))
		return false;
	length = memo_length(head);
	return length >= memo->frame.metadata_length &&
	       length <= total_bytes - AVP_FRAME_HEADER_BYTES;
}

static inline void memo_rebase_one(struct avp_str *s, ptrdiff_t by)
{
	if (s->data)
		s->data += by;
}

/* Everything that a decoded metadata borrows points into the head. */
static inline void memo_rebase(struct avp_metadata *m, ptrdiff_t by)
{
	memo_rebase_one(&m->session_id, by);
	memo_rebase_one(&m->source_agent_id, by);
	memo_rebase_one(&m->target_agent_id, by);
	memo_rebase_one(&m->model_id, by);
	memo_rebase_one(&m->avp_map_id, by);
	m->raw += by;
}

/* What a frame with that head says, but for the lengths. */
static inline void memo_copy(const struct avp_frame_memo *memo,
			     const void *head, struct avp_frame *frame)
{
	*frame = memo->frame;
	memo_rebase(&frame->metadata,
		    (const char *)head - (const char *)memo->head);
}

/* memo_fits() has said that this one has it. */
static inline void memo_lengths(const struct avp_frame_memo *memo,
				const void *head, uint64_t total_bytes,
				struct avp_frame *frame)
{
	uint32_t length = memo_length(head);

	frame->payload_length = length;
	frame->payload_bytes = length - memo->frame.metadata_length;
	frame->content_bytes = frame->payload_bytes;
	frame->raw_size = total_bytes;
}

#endif
