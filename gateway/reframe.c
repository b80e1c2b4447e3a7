/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames for who speaks another dialect than their sender: the head is written
 * anew, the tensor stays what it is.
 */
#include <stdlib.h>
#include <string.h>

#include "gateway/gateway.h"

enum avp_dialect gw_dialect_of(struct avp_str version)
{
	/* 0.3 and everything later is the new one. */
	if (version.len < 3 || !strncmp(version.data, "0.1", 3) ||
	    !strncmp(version.data, "0.2", 3))
		return AVP_DIALECT_0_2;
	return AVP_DIALECT_0_4;
}

/* Frames of these are the same bytes in both dialects. */
static bool is_plain_latent(const struct avp_metadata *m)
{
	return m->mode == AVP_MODE_LATENT &&
	       m->payload_type == AVP_HIDDEN_STATE && !m->avp_map_id.len &&
	       !(m->has &
		 (AVP_HAS_CONFIDENCE | AVP_HAS_COMPAT | AVP_HAS_CHECKSUM));
}

bool gw_frame_is_for(const struct avp_frame *frame, enum avp_dialect dialect)
{
	return frame->dialect == dialect || is_plain_latent(&frame->metadata);
}

/*
 * What 0.4.1 and later write. It is of the uncompressed payload, so of one that
 * came compressed only what its sender has written is passed on.
 */
static void add_checksum(const struct avp_frame *f, const void *payload,
			 enum avp_dialect dialect, struct avp_metadata *meta)
{
	if (dialect != AVP_DIALECT_0_4 || meta->has & AVP_HAS_CHECKSUM ||
	    f->flags & AVP_FLAG_COMPRESSED)
		return;
	meta->has |= AVP_HAS_CHECKSUM;
	meta->payload_checksum = avp_crc32(payload, f->payload_bytes);
}

int gw_frame_head(struct avp_buf *to, const struct avp_frame *frame,
		  const struct avp_metadata *meta, const void *payload,
		  enum avp_dialect dialect, const char *who,
		  struct avp_reason *why)
{
	struct avp_metadata m = *meta;
	int n;

	add_checksum(frame, payload, dialect, &m);
	n = avp_frame_head_size(&m, dialect);
	if (n > 0 && avp_buf_reserve(to, (size_t)n))
		return avp__fail(why, AVP_NO_MEMORY, "no memory for a head");
	if (n > 0)
		n = avp_frame_head_encode(&m, dialect, frame->payload_bytes,
					  (uint8_t *)to->data, (size_t)n, why);
	if (n < 0)
		return avp__fail(why, n,
				 "the frame cannot be written in dialect %s, "
				 "which %s speaks: %s",
				 avp_dialect_name(dialect), who,
				 avp_error_text(n));
	to->len = (size_t)n;
	return 0;
}

/* What is behind the payload is left out: it is no part of the frame. */
int gw_frame_convert(struct avp_buf *to, const struct ahp_message *m,
		     enum avp_dialect dialect, const char *who,
		     struct avp_reason *why)
{
	const struct avp_frame *f = &m->frame;
	uint64_t bytes = f->payload_bytes;
	void *payload = malloc(bytes + 1);
	int err = payload ? 0 : AVP_NO_MEMORY;

	/* A copy, so that checksum and bytes are of the same. */
	if (!err)
		err = ahp_message_copy(m, f->payload_off, payload, bytes);
	if (err)
		avp__fail(why, err, "a frame of %llu bytes: %s",
			  (unsigned long long)m->body_bytes,
			  avp_error_text(err));
	else
		err = gw_frame_head(to, f, &f->metadata, payload, dialect, who,
				    why);
	if (!err && avp_buf_append(to, payload, bytes))
		err = avp__fail(why, AVP_NO_MEMORY, "no memory for a frame");
	free(payload);
	return err;
}
