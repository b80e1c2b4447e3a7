/* SPDX-License-Identifier: Apache-2.0 */
/* A frame with its payload uncompressed, for the commands that show one. */
#include <stdlib.h>

#include <avp/codec.h>

#include "codec/internal.h"
#include "gateway/cmd.h"

void cmd_content_fini(struct cmd_content *c)
{
	avp_zstd_free(c->zstd);
	free(c->expanded);
}

static int expand(struct cmd_content *c, struct avp_reason *why)
{
	struct avp_frame *f = &c->frame;
	int err = avp_zstd_content_size(f->payload, f->payload_bytes,
					&f->content_bytes, why);

	if (err)
		return err;
	if (f->content_bytes > c->max_bytes)
		return avp__fail(why, AVP_TOO_LARGE,
				 "the payload says it expands to %llu bytes, "
				 "--max-payload is %llu",
				 (unsigned long long)f->content_bytes,
				 (unsigned long long)c->max_bytes);
	if (f->content_bytes > c->expanded_capacity || !c->expanded) {
		free(c->expanded);
		c->expanded_capacity = 0;
		c->expanded = malloc(f->content_bytes + 1);
		if (c->expanded)
			c->expanded_capacity = f->content_bytes;
	}
	if (!c->zstd)
		c->zstd = avp_zstd_new();
	if (!c->expanded || !c->zstd)
		return avp__fail(why, AVP_NO_MEMORY,
				 "no memory to expand the payload to %llu "
				 "bytes",
				 (unsigned long long)f->content_bytes);
	c->data = c->expanded;
	return avp_zstd_decompress(c->zstd, f->payload, f->payload_bytes,
				   c->expanded, f->content_bytes,
				   &f->content_bytes, why);
}

/* As the reference goes about it: decompression before enums. */
int cmd_content_decode(struct cmd_content *c, const void *bytes, uint64_t len,
		       struct avp_reason *why)
{
	struct avp_frame *f = &c->frame;
	uint64_t need;
	int err;

	err = avp__frame_parse(bytes, len, len, f, &need, why);
	if (err)
		return err;
	f->payload = (const uint8_t *)bytes + f->payload_off;
	c->data = f->payload;
	if (f->flags & AVP_FLAG_COMPRESSED)
		err = expand(c, why);
	if (!err)
		err = avp__frame_check_enums(f, why);
	if (!err)
		err = avp_frame_payload_check(f, c->data, f->content_bytes,
					      why);
	return err;
}
