/* SPDX-License-Identifier: Apache-2.0 */
/* Frames read in place; the order of the checks is the reference's. */
#include <avp/codec.h>

#include "codec/internal.h"
#include "codec/wire.h"

static const struct avp_str zstd_name = {"zstd", 4};

static int check_header(const uint8_t *p, uint64_t head_bytes,
			uint64_t total_bytes, uint64_t *need,
			struct avp_reason *why)
{
	uint64_t frame_bytes;

	if (total_bytes < AVP_FRAME_HEADER_BYTES)
		return avp__fail(why, AVP_SHORT_HEADER,
				 "%llu bytes, a frame has at least 12",
				 (unsigned long long)total_bytes);
	if (head_bytes < AVP_FRAME_HEADER_BYTES) {
		*need = AVP_FRAME_HEADER_BYTES;
		return AVP_AGAIN;
	}
	if (p[0] != 'A' || p[1] != 'V')
		return avp__fail(why, AVP_BAD_MAGIC,
				 "begins with %02x%02x, a frame with 4156 "
				 "(\"AV\")",
				 p[0], p[1]);
	if (p[2] != 1)
		return avp__fail(why, AVP_BAD_VERSION,
				 "frame version %u, only 1 is known", p[2]);
	frame_bytes = AVP_FRAME_HEADER_BYTES + (uint64_t)avp__get_le32(p + 4);
	if (frame_bytes > total_bytes)
		return avp__fail(why, AVP_TRUNCATED,
				 "the frame says %llu bytes, %llu are there; "
				 "send it whole",
				 (unsigned long long)frame_bytes,
				 (unsigned long long)total_bytes);
	return 0;
}

/*
 * metadata_length beyond the payload. The reference parses what it can find
 * before anybody notices, so metadata that is none comes first here as well.
 */
static int bad_lengths(const uint8_t *p, uint64_t head_bytes,
		       struct avp_frame *frame, struct avp_reason *why)
{
	uint64_t n = head_bytes - AVP_FRAME_HEADER_BYTES;
	int err;

	if (frame->metadata_length < n)
		n = frame->metadata_length;
	err = avp_metadata_decode(p + AVP_FRAME_HEADER_BYTES, (size_t)n,
				  &frame->metadata, why);
	if (err)
		return err;
	return avp__fail(why, AVP_BAD_LENGTHS,
			 "metadata_length %u is over payload_length %u, which "
			 "includes it",
			 frame->metadata_length, frame->payload_length);
}

int avp__frame_parse(const uint8_t *p, uint64_t head_bytes,
		     uint64_t total_bytes, struct avp_frame *frame,
		     uint64_t *need, struct avp_reason *why)
{
	int err = check_header(p, head_bytes, total_bytes, need, why);

	if (err)
		return err;
	frame->version = p[2];
	frame->flags = p[3];
	frame->payload_length = avp__get_le32(p + 4);
	frame->metadata_length = avp__get_le32(p + 8);
	frame->raw_size = total_bytes;
	frame->payload = NULL;
	frame->content_bytes = 0;
	if (frame->metadata_length > frame->payload_length)
		return bad_lengths(p, head_bytes, frame, why);
	frame->payload_off =
		AVP_FRAME_HEADER_BYTES + (uint64_t)frame->metadata_length;
	frame->payload_bytes = frame->payload_length - frame->metadata_length;
	if (frame->payload_off > head_bytes) {
		*need = frame->payload_off;
		return AVP_AGAIN;
	}
	err = avp_metadata_decode(p + AVP_FRAME_HEADER_BYTES,
				  frame->metadata_length, &frame->metadata,
				  why);
	if (err)
		return err;
	frame->dialect =
		(uint8_t)avp__dialect_detect(frame->flags, &frame->metadata);
	if (frame->flags & AVP_FLAG_COMPRESSED) {
		frame->metadata.compression = zstd_name;
	} else {
		frame->metadata.compression = (struct avp_str){NULL, 0};
		frame->content_bytes = frame->payload_bytes;
	}
	return 0;
}

int avp__frame_check_enums(struct avp_frame *frame, struct avp_reason *why)
{
	struct avp_metadata *m = &frame->metadata;
	int mode = avp__mode_read(m->mode, (enum avp_dialect)frame->dialect);

	/*
	 * EMBEDDING passes in either dialect: 0.4.1 and 0.4.2, which 0.5 cannot
	 * be told from, still had it.
	 */
	if (m->payload_type > AVP_EMBEDDING)
		return avp__fail(why, AVP_BAD_PAYLOAD_TYPE,
				 "payload_type %d is unknown, 0 to 2 are known",
				 (int)m->payload_type);
	if (mode < 0)
		return avp__fail(
			why, AVP_BAD_MODE, "mode %d is unknown in dialect %s",
			(int)m->mode, avp_dialect_name(frame->dialect));
	if (m->dtype > AVP_INT8)
		return avp__fail(why, AVP_BAD_DTYPE,
				 "dtype %d is unknown, 0 to 3 are known",
				 (int)m->dtype);
	m->mode = (uint32_t)mode;
	return 0;
}

int avp_frame_decode(const void *bytes, uint64_t len, struct avp_frame *frame,
		     struct avp_reason *why)
{
	uint64_t need;
	int err = avp__frame_parse(bytes, len, len, frame, &need, why);

	if (err)
		return err;
	frame->payload = (const uint8_t *)bytes + frame->payload_off;
	if (frame->flags & AVP_FLAG_COMPRESSED) {
		err = avp_zstd_content_size(frame->payload,
					    frame->payload_bytes,
					    &frame->content_bytes, why);
		if (err)
			return err;
	}
	return avp__frame_check_enums(frame, why);
}

int avp_frame_decode_head(const void *head, size_t head_bytes,
			  uint64_t total_bytes, struct avp_frame *frame,
			  uint64_t *need, struct avp_reason *why)
{
	int err = avp__frame_parse(head, head_bytes, total_bytes, frame, need,
				   why);

	if (err)
		return err;
	return avp__frame_check_enums(frame, why);
}

int avp_frame_payload_check(const struct avp_frame *frame, const void *content,
			    uint64_t content_bytes, struct avp_reason *why)
{
	uint32_t crc;

	if (!(frame->metadata.has & AVP_HAS_CHECKSUM))
		return 0;
	crc = avp_crc32(content, content_bytes);
	if (crc == frame->metadata.payload_checksum)
		return 0;
	return avp__fail(why, AVP_CHECKSUM,
			 "payload_checksum is 0x%08x, the payload's CRC-32 "
			 "0x%08x; it was damaged, send it again",
			 frame->metadata.payload_checksum, crc);
}
