/* SPDX-License-Identifier: Apache-2.0 */
/* Compressed payloads: one honest zstd frame, or nothing. */
#include <stdlib.h>
#include <string.h>

#include <avp/codec.h>
#include <zstd.h>

#include "tests/harness.h"

#define CONTENT 100000

static const enum avp_compression levels[] = {
	AVP_COMPRESS_FAST,
	AVP_COMPRESS_BALANCED,
	AVP_COMPRESS_MAX,
};

static uint8_t content[CONTENT], packed[CONTENT + 4096], back[CONTENT + 64];

static void fill(void)
{
	for (size_t i = 0; i < CONTENT; i++)
		content[i] = (uint8_t)(i * i >> 9);
}

static void round_trips_with_one_context(void)
{
	struct avp_zstd *z = avp_zstd_new();

	fill();
	for (size_t n = 0; n <= CONTENT; n = n * 7 + 1)
		for (size_t i = 0; i < 3; i++) {
			uint64_t len = 0, got = 1;

			CU_ASSERT_EQUAL(avp_zstd_compress(z, levels[i], content,
							  n, packed,
							  avp_zstd_bound(n),
							  &len, NULL),
					0);
			memset(back, 0x77, sizeof(back));
			CU_ASSERT_EQUAL(avp_zstd_decompress(z, packed, len,
							    back, n, &got,
							    NULL),
					0);
			CU_ASSERT(got == n && !memcmp(back, content, n));
			CU_ASSERT_EQUAL(back[n], 0x77);
		}
	avp_zstd_free(z);
	avp_zstd_free(NULL);
}

static void bounds_are_kept(void)
{
	struct avp_zstd *z = avp_zstd_new();
	struct avp_reason why;
	uint64_t len = 0, got = 7;

	fill();
	CU_ASSERT_EQUAL(avp_zstd_compress(z, AVP_COMPRESS_FAST, content,
					  CONTENT, packed, 20, &len, &why),
			AVP_TOO_LARGE);
	CU_ASSERT_EQUAL(avp_zstd_compress(z, (enum avp_compression)0, content,
					  1, packed, 20, &len, &why),
			AVP_USAGE);
	CU_ASSERT_EQUAL(avp_zstd_compress(z, AVP_COMPRESS_FAST, content,
					  CONTENT, packed, sizeof(packed), &len,
					  NULL),
			0);
	memset(back, 0x77, sizeof(back));
	CU_ASSERT_EQUAL(avp_zstd_decompress(z, packed, len, back, CONTENT - 1,
					    &got, &why),
			AVP_TOO_LARGE);
	CU_ASSERT(got == 7 && back[0] == 0x77);
	CU_ASSERT(strstr(why.text, "99999") != NULL);
	avp_zstd_free(z);
}

static void refuse(struct avp_zstd *z, uint64_t len, int code)
{
	uint64_t got;

	CU_ASSERT_EQUAL(
		avp_zstd_decompress(z, packed, len, back, CONTENT, &got, NULL),
		code);
}

/* A content size that is a lie is found out before memory is taken for it. */
static void lies_about_the_size(void)
{
	/* RFC 8878: magic, descriptor e0 (8-byte size, single segment). */
	static const uint8_t claim[] = {
		0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0,   0,	0,
		0,    0,    0,	  0,	0x40, /* 4 EiB */
		0x29, 0,    0,	  'h',	'e',  'l', 'l', 'o',
	};
	uint64_t size = 0;

	CU_ASSERT_EQUAL(
		avp_zstd_content_size(claim, sizeof(claim), &size, NULL),
		AVP_TOO_LARGE);
	CU_ASSERT_EQUAL(size, 0);
}

static void only_one_whole_frame(void)
{
	static const uint8_t skippable[] = {0x50, 0x2a, 0x4d, 0x18, 1,
					    0,	  0,	0,    'x'};
	struct avp_zstd *z = avp_zstd_new();
	uint64_t n = 0;

	fill();
	CU_ASSERT_EQUAL(avp_zstd_compress(z, AVP_COMPRESS_FAST, content, 5000,
					  packed, sizeof(packed), &n, NULL),
			0);
	for (uint64_t cut = 0; cut < n; cut++)
		refuse(z, cut, AVP_BAD_COMPRESSION);
	packed[n] = 0;
	refuse(z, n + 1, AVP_BAD_COMPRESSION);
	memcpy(packed + n, skippable, sizeof(skippable));
	refuse(z, n + sizeof(skippable), AVP_BAD_COMPRESSION);
	memmove(packed + 9, packed, n);
	memcpy(packed, skippable, 9);
	refuse(z, n + 9, AVP_BAD_COMPRESSION);
	refuse(z, 9, AVP_BAD_COMPRESSION);
	avp_zstd_free(z);
}

static void damage_and_lack_of_size(void)
{
	struct avp_zstd *z = avp_zstd_new();
	ZSTD_CCtx *c = ZSTD_createCCtx();
	size_t n;

	fill();
	ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, 0);
	n = ZSTD_compress2(c, packed, sizeof(packed), content, 500);
	CU_ASSERT(!ZSTD_isError(n));
	refuse(z, n, AVP_BAD_COMPRESSION);
	ZSTD_CCtx_reset(c, ZSTD_reset_session_and_parameters);
	ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1);
	n = ZSTD_compress2(c, packed, sizeof(packed), content, 500);
	refuse(z, n, 0);
	packed[n - 1] ^= 1;
	refuse(z, n, AVP_BAD_COMPRESSION);
	ZSTD_CCtx_reset(c, ZSTD_reset_session_and_parameters);
	ZSTD_CCtx_loadDictionary(c, content + 1000, 5000);
	n = ZSTD_compress2(c, packed, sizeof(packed), content + 2000, 500);
	refuse(z, n, AVP_BAD_COMPRESSION);
	ZSTD_freeCCtx(c);
	avp_zstd_free(z);
}

static void frames(void)
{
	struct avp_zstd *z = avp_zstd_new();
	struct avp_metadata m = {.hidden_dim = 7};
	uint64_t bound = 0, len = 0, got;
	struct avp_frame f;

	fill();
	for (int dialect = 0; dialect < 2; dialect++)
		for (size_t n = 0; n <= 5000; n += 2500) {
			CU_ASSERT_EQUAL(avp_frame_compress_bound(
						&m, (enum avp_dialect)dialect,
						n, &bound),
					0);
			CU_ASSERT_EQUAL(
				avp_frame_compress(z, AVP_COMPRESS_FAST, &m,
						   (enum avp_dialect)dialect,
						   content, n, packed, bound,
						   &len, NULL),
				0);
			CU_ASSERT_EQUAL(avp_frame_decode(packed, len, &f, NULL),
					0);
			CU_ASSERT(f.flags == 1 && f.content_bytes == n);
			CU_ASSERT_EQUAL(f.dialect, dialect);
			CU_ASSERT_EQUAL(avp_zstd_decompress(
						z, f.payload, f.payload_bytes,
						back, CONTENT, &got, NULL),
					0);
			CU_ASSERT_EQUAL(
				avp_frame_payload_check(&f, back, got, NULL),
				0);
			CU_ASSERT(!memcmp(back, content, n));
		}
	CU_ASSERT_EQUAL(avp_frame_compress(z, AVP_COMPRESS_FAST, &m,
					   AVP_DIALECT_0_2, content, 5000,
					   packed, 15, &len, NULL),
			AVP_TOO_LARGE);
	avp_zstd_free(z);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(round_trips_with_one_context),
		TEST(bounds_are_kept),
		TEST(lies_about_the_size),
		TEST(only_one_whole_frame),
		TEST(damage_and_lack_of_size),
		TEST(frames),
		{0},
	};

	return test_main("zstd", tests);
}
