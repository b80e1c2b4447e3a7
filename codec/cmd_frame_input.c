/* SPDX-License-Identifier: Apache-2.0 */
/* A frame from a file or a stream, read no further than it says it goes. */
#include "codec/internal.h"
#include "codec/wire.h"
#include "gateway/cmd.h"

/* What may follow a frame in a stream, which has no size to look up. */
#define BEHIND_MAX ((uint64_t)1 << 20)

/*
 * How much tells whether the head is good. With metadata beyond the payload the
 * verdict depends on what is found there.
 */
static uint64_t head_bytes(const struct cmd_file *file)
{
	uint64_t payload = avp__get_le32(file->data + 4);
	uint64_t metadata = avp__get_le32(file->data + 8);

	if (file->size == UINT64_MAX && metadata > payload + BEHIND_MAX)
		metadata = payload + BEHIND_MAX;
	return AVP_FRAME_HEADER_BYTES + metadata;
}

static int judge(const struct cmd_file *file, struct avp_reason *why)
{
	struct avp_frame frame;
	uint64_t need;

	return avp__frame_parse(file->data, file->len, file->size, &frame,
				&need, why);
}

static bool is_final(int err)
{
	return err && err != AVP_AGAIN && err != AVP_BAD_METADATA &&
	       err != AVP_BAD_LENGTHS;
}

int cmd_frame_fill(struct cmd_file *file, struct avp_reason *why)
{
	uint64_t all;
	int err = cmd_file_fill(file, AVP_FRAME_HEADER_BYTES, why);

	if (err)
		return err;
	err = judge(file, why);
	if (is_final(err))
		return err;
	err = cmd_file_fill(file, head_bytes(file), why);
	if (!err)
		err = judge(file, why);
	if (err)
		return err;
	all = AVP_FRAME_HEADER_BYTES + (uint64_t)avp__get_le32(file->data + 4);
	err = cmd_file_fill(file, all, why);
	if (!err && file->len < all)
		return judge(file, why); /* it has met its end */
	if (!err && file->size == UINT64_MAX)
		err = cmd_file_fill(file, all + BEHIND_MAX + 1, why);
	if (!err && file->size == UINT64_MAX)
		err = avp__fail(why, AVP_TOO_LARGE,
				"%.100s goes on more than %llu bytes behind "
				"its frame; cut it off, or make it a file",
				file->path, (unsigned long long)BEHIND_MAX);
	return err;
}
