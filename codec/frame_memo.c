/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>

#include <avp/codec.h>

#include "codec/internal.h"
#include "codec/wire.h"

#define LENGTH_OFF 4 /* of payload_length, which may differ */
#define AFTER_OFF  8

static bool same_head(const struct avp_frame_memo *memo, const uint8_t *head)
{
	return !memcmp(head, memo->head, LENGTH_OFF) &&
	       !memcmp(head + AFTER_OFF, memo->head + AFTER_OFF,
		       memo->len - AFTER_OFF);
}

static void rebase(struct avp_str *s, ptrdiff_t by)
{
	if (s->data)
		s->data += by;
}

/* Everything that a decoded metadata borrows points into the head. */
static void rebase_metadata(struct avp_metadata *m, ptrdiff_t by)
{
	rebase(&m->session_id, by);
	rebase(&m->source_agent_id, by);
	rebase(&m->target_agent_id, by);
	rebase(&m->model_id, by);
	rebase(&m->avp_map_id, by);
	m->raw += by;
}

/* A compressed frame is left out: its `compression` is no part of the head. */
static void remember(struct avp_frame_memo *memo, const uint8_t *head,
		     const struct avp_frame *frame)
{
	uint32_t len = AVP_FRAME_HEADER_BYTES + frame->metadata_length;

	memo->len = 0;
	if (len > sizeof(memo->head) || frame->metadata.compression.data)
		return;
	memcpy(memo->head, head, len);
	memo->frame = *frame;
	rebase_metadata(&memo->frame.metadata,
			(const char *)memo->head - (const char *)head);
	memo->len = len;
}

int avp_frame_decode_again(struct avp_frame_memo *memo, const void *head,
			   size_t head_bytes, uint64_t total_bytes,
			   struct avp_frame *frame, uint64_t *need,
			   struct avp_reason *why)
{
	const uint8_t *p = head;
	uint32_t length;
	int error;

	if (!memo->len || head_bytes < memo->len || !same_head(memo, p))
		goto anew;
	length = avp__get_le32(p + LENGTH_OFF);
	if (length < memo->frame.metadata_length ||
	    length > total_bytes - AVP_FRAME_HEADER_BYTES)
		goto anew; /* which says what is wrong */
	*frame = memo->frame;
	rebase_metadata(&frame->metadata,
			(const char *)head - (const char *)memo->head);
	frame->payload_length = length;
	frame->payload_bytes = length - frame->metadata_length;
	frame->content_bytes = frame->payload_bytes;
	frame->raw_size = total_bytes;
	return 0;
anew:
	error = avp_frame_decode_head(head, head_bytes, total_bytes, frame,
				      need, why);
	if (!error)
		remember(memo, head, frame);
	return error;
}
