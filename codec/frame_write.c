/* SPDX-License-Identifier: Apache-2.0 */
/* Frames written: around a payload that is in place, or with a copy of it. */
#include <avp/codec.h>
#include <zlib.h>

#include "codec/internal.h"
#include "codec/wire.h"

uint32_t avp_crc32(const void *bytes, size_t len)
{
	/* zlib takes NULL for "begin" even with a length of 0: the same. */
	return (uint32_t)crc32_z(0, bytes, len);
}

/* Header and metadata by a plan that stands; the caller made room. */
static void write_head(const struct avp__plan *plan, enum avp_dialect dialect,
		       uint64_t payload_bytes, uint8_t *out)
{
	out[0] = 'A';
	out[1] = 'V';
	out[2] = 1;
	out[3] = (uint8_t)avp__flags(plan->m, dialect);
	avp__put_le32(out + 4, plan->bytes + (uint32_t)payload_bytes);
	avp__put_le32(out + 8, plan->bytes);
	avp__plan_write(plan, out + AVP_FRAME_HEADER_BYTES);
}

/* Plans a head for so many bytes of payload; the plan is to be undone. */
static int plan_head(struct avp__plan *plan, const struct avp_metadata *m,
		     enum avp_dialect dialect, uint64_t payload_bytes,
		     struct avp_reason *why)
{
	int err;

	if (m->compression.data &&
	    !avp_str_equal(m->compression, (struct avp_str){"zstd", 4}))
		return avp__fail(
			why, AVP_BAD_COMPRESSION,
			"compression \"%.*s\" cannot be sent; \"zstd\" "
			"or none",
			m->compression.len > 32 ? 32 : (int)m->compression.len,
			m->compression.data);
	err = avp__plan_init(plan, m, dialect, why);
	if (err)
		return err;
	if (payload_bytes <= UINT32_MAX - plan->bytes)
		return 0;
	avp__plan_fini(plan);
	return avp__fail(why, AVP_TOO_LARGE,
			 "%llu payload bytes and %u of metadata are over a "
			 "frame's 4 GiB - 1; send it in parts",
			 (unsigned long long)payload_bytes, plan->bytes);
}

int avp_frame_head_size(const struct avp_metadata *m, enum avp_dialect dialect)
{
	struct avp__plan plan;
	int err = plan_head(&plan, m, dialect, 0, NULL);

	if (err)
		return err;
	avp__plan_fini(&plan);
	return AVP_FRAME_HEADER_BYTES + (int)plan.bytes;
}

int avp_frame_head_encode(const struct avp_metadata *m,
			  enum avp_dialect dialect, uint64_t payload_bytes,
			  uint8_t *out, size_t capacity, struct avp_reason *why)
{
	struct avp__plan plan;
	int err = plan_head(&plan, m, dialect, payload_bytes, why);
	size_t head;

	if (err)
		return err;
	head = AVP_FRAME_HEADER_BYTES + (size_t)plan.bytes;
	if (head > capacity)
		err = avp__fail(why, AVP_TOO_LARGE,
				"header and metadata take %zu bytes, there is "
				"room for %zu",
				head, capacity);
	else
		write_head(&plan, dialect, payload_bytes, out);
	avp__plan_fini(&plan);
	return err ? err : (int)head;
}

/* m, or a copy of it with the checksum that dialect 0.4 writes. */
static const struct avp_metadata *with_checksum(const struct avp_metadata *m,
						enum avp_dialect dialect,
						const void *payload,
						uint64_t payload_bytes,
						struct avp_metadata *copy)
{
	if (dialect != AVP_DIALECT_0_4 || m->has & AVP_HAS_CHECKSUM ||
	    m->compression.data)
		return m;
	*copy = *m;
	copy->has |= AVP_HAS_CHECKSUM;
	copy->payload_checksum = avp_crc32(payload, payload_bytes);
	return copy;
}

int avp_frame_encode_before(const struct avp_metadata *m,
			    enum avp_dialect dialect, void *payload,
			    uint64_t payload_bytes, size_t headroom,
			    void **frame, struct avp_reason *why)
{
	struct avp_metadata copy;
	struct avp__plan plan;
	size_t head;
	int err;

	m = with_checksum(m, dialect, payload, payload_bytes, &copy);
	err = plan_head(&plan, m, dialect, payload_bytes, why);
	if (err)
		return err;
	head = AVP_FRAME_HEADER_BYTES + (size_t)plan.bytes;
	if (head > headroom) {
		err = avp__fail(why, AVP_TOO_LARGE,
				"header and metadata take %zu bytes, there are "
				"%zu before the payload",
				head, headroom);
	} else {
		*frame = (uint8_t *)payload - head;
		write_head(&plan, dialect, payload_bytes, *frame);
	}
	avp__plan_fini(&plan);
	return err ? err : (int)head;
}

int avp_frame_encode(const struct avp_metadata *m, enum avp_dialect dialect,
		     const void *payload, uint64_t payload_bytes, void *out,
		     uint64_t capacity, uint64_t *len, struct avp_reason *why)
{
	struct avp_metadata copy;
	int head;

	m = with_checksum(m, dialect, payload, payload_bytes, &copy);
	head = avp_frame_head_encode(
		m, dialect, payload_bytes, out,
		capacity < SIZE_MAX ? (size_t)capacity : SIZE_MAX, why);
	if (head < 0)
		return head;
	if (payload_bytes > capacity - (uint64_t)head)
		return avp__fail(why, AVP_TOO_LARGE,
				 "the frame takes %llu bytes, there is room "
				 "for %llu",
				 (unsigned long long)payload_bytes + head,
				 (unsigned long long)capacity);
	if (payload_bytes)
		memcpy((uint8_t *)out + head, payload, payload_bytes);
	*len = (uint64_t)head + payload_bytes;
	return 0;
}

int avp_frame_compress_bound(const struct avp_metadata *m,
			     enum avp_dialect dialect, uint64_t payload_bytes,
			     uint64_t *bound)
{
	struct avp_metadata copy = *m;
	int head;

	copy.compression = (struct avp_str){"zstd", 4};
	copy.has |= AVP_HAS_CHECKSUM;
	copy.payload_checksum = UINT32_MAX;
	head = avp_frame_head_size(&copy, dialect);
	if (head < 0)
		return head;
	*bound = (uint64_t)head + avp_zstd_bound(payload_bytes);
	return 0;
}

int avp_frame_compress(struct avp_zstd *z, enum avp_compression level,
		       const struct avp_metadata *m, enum avp_dialect dialect,
		       const void *payload, uint64_t payload_bytes, void *out,
		       uint64_t capacity, uint64_t *len, struct avp_reason *why)
{
	struct avp_metadata copy = *m, sum;
	struct avp__plan plan;
	uint64_t head, n;
	int err;

	copy.compression = (struct avp_str){NULL, 0};
	copy = *with_checksum(&copy, dialect, payload, payload_bytes, &sum);
	copy.compression = (struct avp_str){"zstd", 4};
	err = plan_head(&plan, &copy, dialect, 0, why);
	if (err)
		return err;
	head = AVP_FRAME_HEADER_BYTES + (uint64_t)plan.bytes;
	if (head > capacity)
		err = avp__fail(why, AVP_TOO_LARGE,
				"header and metadata take %llu bytes, there is "
				"room for %llu",
				(unsigned long long)head,
				(unsigned long long)capacity);
	if (!err)
		err = avp_zstd_compress(z, level, payload, payload_bytes,
					(uint8_t *)out + head, capacity - head,
					&n, why);
	if (!err && n > UINT32_MAX - plan.bytes)
		err = avp__fail(why, AVP_TOO_LARGE,
				"%llu compressed bytes are over a frame's "
				"4 GiB - 1; send it in parts",
				(unsigned long long)n);
	if (!err) {
		write_head(&plan, dialect, n, out);
		*len = head + n;
	}
	avp__plan_fini(&plan);
	return err;
}

int avp_frame_template_init(struct avp_frame_template *t,
			    const struct avp_metadata *m,
			    enum avp_dialect dialect, struct avp_reason *why)
{
	int head = avp_frame_head_encode(m, dialect, 0, t->bytes,
					 sizeof(t->bytes), why);

	if (head < 0)
		return head;
	t->len = (uint32_t)head;
	t->metadata_length = (uint32_t)head - AVP_FRAME_HEADER_BYTES;
	return 0;
}
