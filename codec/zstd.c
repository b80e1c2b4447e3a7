/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compressed payloads: one zstd frame that carries its content size (RFC 8878).
 * Contexts are made at first use and reused; what decompression may produce is
 * bounded before anything is written.
 */
#include <stdlib.h>

#include <avp/codec.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "codec/internal.h"
#include "codec/wire.h"

struct avp_zstd {
	ZSTD_CCtx *compress;
	ZSTD_DCtx *decompress;
};

struct avp_zstd *avp_zstd_new(void)
{
	return calloc(1, sizeof(struct avp_zstd));
}

void avp_zstd_free(struct avp_zstd *z)
{
	if (!z)
		return;
	ZSTD_freeCCtx(z->compress);
	ZSTD_freeDCtx(z->decompress);
	free(z);
}

uint64_t avp_zstd_bound(uint64_t content_bytes)
{
	/* ZSTD_COMPRESSBOUND, whose own function refuses what it deems big. */
	return content_bytes + (content_bytes >> 8) + 64;
}

int avp_zstd_compress(struct avp_zstd *z, enum avp_compression level,
		      const void *content, uint64_t content_bytes, void *out,
		      uint64_t capacity, uint64_t *len, struct avp_reason *why)
{
	size_t n;

	if (level != AVP_COMPRESS_FAST && level != AVP_COMPRESS_BALANCED &&
	    level != AVP_COMPRESS_MAX)
		return avp__fail(why, AVP_USAGE,
				 "compression level %d; use fast (1), balanced "
				 "(3) or max (19)",
				 (int)level);
	if (!z->compress)
		z->compress = ZSTD_createCCtx();
	if (!z->compress)
		return avp__fail(why, AVP_NO_MEMORY,
				 "no memory for a zstd context");
	n = ZSTD_compressCCtx(z->compress, out, capacity, content,
			      content_bytes, (int)level);
	if (!ZSTD_isError(n)) {
		*len = n;
		return 0;
	}
	switch (ZSTD_getErrorCode(n)) {
	case ZSTD_error_dstSize_tooSmall:
		return avp__fail(why, AVP_TOO_LARGE,
				 "%llu bytes do not compress into %llu; give "
				 "room for avp_zstd_bound()",
				 (unsigned long long)content_bytes,
				 (unsigned long long)capacity);
	case ZSTD_error_memory_allocation:
		return avp__fail(why, AVP_NO_MEMORY,
				 "no memory for zstd level %d", (int)level);
	default:
		return avp__fail(why, AVP_UNKNOWN, "zstd: %s",
				 ZSTD_getErrorName(n));
	}
}

/*
 * The headers of what must be one zstd frame: its content size, within limit.
 * A block takes at least 4 bytes and yields at most 128 KiB (RFC 8878,
 * 3.1.1.2), so a frame that promises more than its length allows is found out
 * here, before the caller has got memory for it.
 */
static int check_outside(const void *bytes, uint64_t len, uint64_t limit,
			 uint64_t *content_bytes, struct avp_reason *why)
{
	unsigned long long content;
	size_t frame;

	/* Also keeps out skippable frames, which zstd reads as empty. */
	if (len < 4 || avp__get_le32(bytes) != ZSTD_MAGICNUMBER)
		return avp__fail(why, AVP_BAD_COMPRESSION,
				 "%llu compressed bytes begin no zstd frame",
				 (unsigned long long)len);
	content = ZSTD_getFrameContentSize(bytes, len);
	if (content == ZSTD_CONTENTSIZE_ERROR)
		return avp__fail(why, AVP_BAD_COMPRESSION,
				 "the zstd frame's header is damaged or cut");
	if (content == ZSTD_CONTENTSIZE_UNKNOWN)
		return avp__fail(why, AVP_BAD_COMPRESSION,
				 "the zstd frame does not say its content "
				 "size; compress it in one piece");
	if (content > limit || content / ZSTD_BLOCKSIZE_MAX > len / 4)
		return avp__fail(why, AVP_TOO_LARGE,
				 "the payload says it expands to %llu bytes; "
				 "the limit is %llu, and its %llu bytes cannot "
				 "hold much more than %llu",
				 content, (unsigned long long)limit,
				 (unsigned long long)len,
				 (unsigned long long)len / 4 *
					 ZSTD_BLOCKSIZE_MAX);
	frame = ZSTD_findFrameCompressedSize(bytes, len);
	if (ZSTD_isError(frame))
		return avp__fail(why, AVP_BAD_COMPRESSION,
				 "the zstd frame is damaged or cut: %s",
				 ZSTD_getErrorName(frame));
	if (frame != len)
		return avp__fail(why, AVP_BAD_COMPRESSION,
				 "%llu bytes follow the zstd frame of %zu; "
				 "send one frame and nothing else",
				 (unsigned long long)(len - frame), frame);
	*content_bytes = content;
	return 0;
}

int avp_zstd_content_size(const void *bytes, uint64_t len,
			  uint64_t *content_bytes, struct avp_reason *why)
{
	return check_outside(bytes, len, UINT64_MAX, content_bytes, why);
}

int avp_zstd_decompress(struct avp_zstd *z, const void *bytes, uint64_t len,
			void *out, uint64_t capacity, uint64_t *content_bytes,
			struct avp_reason *why)
{
	uint64_t content;
	size_t n;
	int err = check_outside(bytes, len, capacity, &content, why);

	if (err)
		return err;
	if (!z->decompress)
		z->decompress = ZSTD_createDCtx();
	if (!z->decompress)
		return avp__fail(why, AVP_NO_MEMORY,
				 "no memory for a zstd context");
	n = ZSTD_decompressDCtx(z->decompress, out, content, bytes, len);
	if (ZSTD_isError(n))
		return avp__fail(why, AVP_BAD_COMPRESSION, "zstd: %s",
				 ZSTD_getErrorName(n));
	if (n != content)
		return avp__fail(why, AVP_BAD_COMPRESSION,
				 "the zstd frame says %llu bytes and holds %zu",
				 (unsigned long long)content, n);
	*content_bytes = content;
	return 0;
}
