/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>

#include <avp/codec.h>

#include "codec/frame_memo_inline.h"
#include "codec/internal.h"
#include "codec/wire.h"

/*
 * A compressed frame is left out: its `compression` is no part of the head. So
 * is metadata of less than four bytes, for memo_same().
 */
static void remember(struct avp_frame_memo *memo, const uint8_t *head,
		     const struct avp_frame *frame)
{
	uint32_t len = AVP_FRAME_HEADER_BYTES + frame->metadata_length;

	memo->len = 0;
	memo->changes++;
	if (len < MEMO_LEAST || len > sizeof(memo->head) ||
	    frame->metadata.compression.data)
		return;
	memcpy(memo->head, head, len);
	memo->frame = *frame;
	memo_rebase(&memo->frame.metadata,
		    (const char *)memo->head - (const char *)head);
	memo->len = len;
}

int avp_frame_decode_again(struct avp_frame_memo *memo, const void *head,
			   size_t head_bytes, uint64_t total_bytes,
			   struct avp_frame *frame, uint64_t *need,
			   struct avp_reason *why)
{
	int error;

	if (memo_fits(memo, head, head_bytes, total_bytes)) {
		memo_copy(memo, head, frame);
		memo_lengths(memo, head, total_bytes, frame);
		return 0;
	}
	error = avp_frame_decode_head(head, head_bytes, total_bytes, frame,
				      need, why);
	if (!error)
		remember(memo, head, frame);
	return error;
}
