/* SPDX-License-Identifier: Apache-2.0 */
/* Frames: written and read in place, judged in the right order. */
#include <stdlib.h>
#include <string.h>

#include <avp/codec.h>

#include "tests/harness.h"

#define OLD  AVP_DIALECT_0_2
#define NEW  AVP_DIALECT_0_4
#define HEAD 26 /* of bench() and no payload */

static struct avp_metadata bench(void)
{
	struct avp_metadata m = {
		.hidden_dim = 4096, .shape_count = 1, .shape_inline = {4096}};

	m.model_id = avp_str_of("bench");
	return m;
}

static void in_place(void)
{
	struct avp_metadata m = bench();
	uint8_t block[256];
	uint8_t *payload = block + 128;
	struct avp_frame f;
	void *start = NULL;

	memset(block, 0x55, sizeof(block));
	CU_ASSERT_EQUAL(avp_frame_encode_before(&m, OLD, payload, 64, HEAD - 1,
						&start, NULL),
			AVP_TOO_LARGE);
	CU_ASSERT(!start && block[127] == 0x55);
	CU_ASSERT_EQUAL(avp_frame_encode_before(&m, OLD, payload, 64, HEAD,
						&start, NULL),
			HEAD);
	CU_ASSERT(start == payload - HEAD);
	CU_ASSERT(block[127 - HEAD] == 0x55 && payload[0] == 0x55);
	CU_ASSERT_EQUAL(avp_frame_decode(start, HEAD + 64 + 9, &f, NULL), 0);
	CU_ASSERT(f.payload == payload);
	CU_ASSERT(f.payload_bytes == 64 && f.content_bytes == 64);
	CU_ASSERT(avp_frame_bytes(&f) == HEAD + 64 && f.raw_size == HEAD + 73);
	CU_ASSERT_EQUAL(f.metadata.hidden_dim, 4096);
	CU_ASSERT(avp_str_equal(f.metadata.model_id, avp_str_of("bench")));
	CU_ASSERT_EQUAL(avp_frame_head_size(&m, OLD), HEAD);
}

static void head_alone(void)
{
	struct avp_metadata m = bench();
	uint64_t need = 0, total = HEAD + 1000;
	struct avp_frame f;
	uint8_t head[64];
	int n = avp_frame_head_encode(&m, OLD, 1000, head, sizeof(head), NULL);

	CU_ASSERT_EQUAL(n, HEAD);
	for (size_t have = 0; have < HEAD; have++) {
		CU_ASSERT_EQUAL(avp_frame_decode_head(head, have, total, &f,
						      &need, NULL),
				AVP_AGAIN);
		CU_ASSERT_EQUAL(need, have < 12 ? 12 : HEAD);
	}
	CU_ASSERT_EQUAL(
		avp_frame_decode_head(head, HEAD, total, &f, &need, NULL), 0);
	CU_ASSERT(!f.payload && f.payload_off == HEAD);
	CU_ASSERT_EQUAL(f.payload_bytes, 1000);
	CU_ASSERT_EQUAL(
		avp_frame_decode_head(head, HEAD, total - 1, &f, &need, NULL),
		AVP_TRUNCATED);
	/* What cannot become a frame is refused before more is asked for. */
	head[8] = 0xff;
	head[9] = 0xff;
	CU_ASSERT_EQUAL(
		avp_frame_decode_head(head, HEAD, total, &f, &need, NULL),
		AVP_BAD_LENGTHS);
	CU_ASSERT_EQUAL(avp_frame_decode_head(head, 0, 11, &f, &need, NULL),
			AVP_SHORT_HEADER);
}

/* Each byte string has several faults; the first in order is named. */
static void first_fault_is_named(void)
{
	static const struct {
		const char *bytes;
		size_t len;
		int code;
	} all[] = {
		{"XX\x09\0\xff\xff\xff\xff\xff\xff\xff", 11, AVP_SHORT_HEADER},
		{"XX\x09\0\xff\xff\xff\xff\xff\xff\xff\xff", 12, AVP_BAD_MAGIC},
		{"AV\x09\0\xff\xff\xff\xff\xff\xff\xff\xff", 12,
		 AVP_BAD_VERSION},
		{"AV\x01\0\x03\0\0\0\xff\xff\xff\xff\x38\x09", 14,
		 AVP_TRUNCATED},
		{"AV\x01\0\x02\0\0\0\x04\0\0\0\x38\x09\x50", 15,
		 AVP_BAD_METADATA},
		{"AV\x01\0\x02\0\0\0\x04\0\0\0\x38\x09", 14, AVP_BAD_LENGTHS},
		{"AV\x01\x01\x04\0\0\0\x03\0\0\0\x38\x09\x50Z", 16,
		 AVP_BAD_METADATA},
		{"AV\x01\x01\x05\0\0\0\x04\0\0\0\x38\x09\x50\x09Z", 17,
		 AVP_BAD_COMPRESSION},
		{"AV\x01\0\x06\0\0\0\x06\0\0\0\x40\x09\x50\x09\x38\x09", 18,
		 AVP_BAD_PAYLOAD_TYPE},
		{"AV\x01\0\x04\0\0\0\x04\0\0\0\x40\x09\x50\x09", 16,
		 AVP_BAD_MODE},
		{"AV\x01\0\x02\0\0\0\x02\0\0\0\x40\x09", 14, AVP_BAD_DTYPE},
		{"AV\x01\0\0\0\0\0\0\0\0\0", 12, 0},
	};
	struct avp_reason why;
	struct avp_frame f;

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		int code = avp_frame_decode(all[i].bytes, all[i].len, &f, &why);

		CU_ASSERT_EQUAL(code, all[i].code);
		CU_ASSERT(!code || (why.code == code && *why.text));
	}
}

/* What a frame's flags and metadata tell; mode comes out as ours. */
static void dialects_are_told_apart(void)
{
	static const struct {
		uint8_t flags;
		const char *bytes;
		size_t len;
		int dialect, mode;
	} all[] = {
#define M(flags, bytes, dialect, mode) \
	{flags, bytes, sizeof(bytes) - 1, dialect, mode}
		M(0, "", OLD, AVP_MODE_LATENT),
		M(8, "\x38\x01", OLD, AVP_MODE_LATENT),
		M(8, "\x78\x00", OLD, AVP_MODE_LATENT),
		M(0, "\x65\0\0\0\0\x78\x00", OLD, AVP_MODE_LATENT),
		M(0, "\xa0\x06\x00\x78\x00", OLD, AVP_MODE_LATENT),
		M(0, "\x50\x01\x78\x00", NEW, AVP_MODE_JSON),
		M(4, "\x38\x01", NEW, AVP_MODE_LATENT),
		M(4, "\x38\x01\x50\x01", NEW, AVP_MODE_JSON),
		M(4, "\x6a\x01m\x50\x01", OLD, AVP_MODE_HYBRID),
		M(2, "\x6a\x01m\x50\x01", NEW, AVP_MODE_JSON),
		M(6, "\x6a\x01m\x50\x01", OLD, AVP_MODE_HYBRID),
		M(6, "\x38\x01\x6a\x01m\x50\x01", NEW, AVP_MODE_JSON),
		M(2, "\x50\x01", OLD, AVP_MODE_HYBRID),
		M(0, "\x50\x01", OLD, AVP_MODE_HYBRID),
		M(0, "\x50\x02", OLD, AVP_MODE_JSON),
		M(0, "\x38\x02", OLD, AVP_MODE_LATENT),
		M(0, "\x50\x02\x78\x00", NEW, -1),
#undef M
	};
	uint8_t frame[64] = "AV\x01";
	struct avp_frame f;

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		int code;

		frame[3] = all[i].flags;
		frame[4] = frame[8] = (uint8_t)all[i].len;
		memcpy(frame + 12, all[i].bytes, all[i].len);
		code = avp_frame_decode(frame, 12 + all[i].len, &f, NULL);
		CU_ASSERT_EQUAL(code, all[i].mode < 0 ? AVP_BAD_MODE : 0);
		CU_ASSERT_EQUAL(f.dialect, all[i].dialect);
		if (all[i].mode >= 0)
			CU_ASSERT_EQUAL(f.metadata.mode, (uint32_t)all[i].mode);
	}
}

static void flags_follow_the_metadata(void)
{
	struct avp_metadata m = {.mode = AVP_MODE_HYBRID,
				 .payload_type = AVP_KV_CACHE};
	uint8_t head[64];

	m.avp_map_id = avp_str_of("m");
	m.compression = avp_str_of("zstd");
	CU_ASSERT(avp_frame_head_encode(&m, OLD, 0, head, 64, NULL) > 0);
	CU_ASSERT_EQUAL(head[3], 1 | 2 | 4 | 8);
	m.mode = AVP_MODE_JSON;
	CU_ASSERT(avp_frame_head_encode(&m, NEW, 0, head, 64, NULL) > 0);
	CU_ASSERT_EQUAL(head[3], 1 | 2 | 4);
	m.compression = avp_str_of("lz4");
	CU_ASSERT_EQUAL(avp_frame_head_encode(&m, NEW, 0, head, 64, NULL),
			AVP_BAD_COMPRESSION);
	m = (struct avp_metadata){0};
	CU_ASSERT_EQUAL(avp_frame_head_encode(&m, OLD, 0, head, 12, NULL), 12);
	CU_ASSERT_EQUAL(head[3], 0);
}

static void four_gib_is_the_limit(void)
{
	struct avp_metadata m = bench();
	struct avp_frame_template t;
	uint8_t head[64];
	uint64_t most = UINT32_MAX - (HEAD - 12);

	CU_ASSERT_EQUAL(avp_frame_head_encode(&m, OLD, most, head, 64, NULL),
			HEAD);
	CU_ASSERT(!memcmp(head + 4, "\xff\xff\xff\xff", 4));
	CU_ASSERT_EQUAL(
		avp_frame_head_encode(&m, OLD, most + 1, head, 64, NULL),
		AVP_TOO_LARGE);
	CU_ASSERT_EQUAL(avp_frame_template_init(&t, &m, OLD, NULL), 0);
	CU_ASSERT_EQUAL(avp_frame_template_stamp(&t, most, head), HEAD);
	CU_ASSERT_EQUAL(avp_frame_template_stamp(&t, most + 1, head),
			AVP_TOO_LARGE);
}

static void templates(void)
{
	struct avp_metadata m = bench();
	struct avp_frame_template t;
	uint8_t stamped[64], encoded[64];
	char text[300];

	CU_ASSERT_EQUAL(avp_frame_template_init(&t, &m, OLD, NULL), 0);
	for (uint64_t n = 0; n < 100000; n = n * 3 + 1) {
		int len = avp_frame_head_encode(&m, OLD, n, encoded, 64, NULL);

		CU_ASSERT_EQUAL(avp_frame_template_stamp(&t, n, stamped), len);
		CU_ASSERT(!memcmp(stamped, encoded, (size_t)len));
	}
	memset(text, 'x', sizeof(text));
	m.model_id = (struct avp_str){text, sizeof(text)};
	CU_ASSERT_EQUAL(avp_frame_template_init(&t, &m, OLD, NULL),
			AVP_TOO_LARGE);
}

static void checksums(void)
{
	struct avp_metadata m = bench();
	char frame[128];
	struct avp_reason why;
	struct avp_frame f;
	uint64_t len = 0;

	CU_ASSERT_EQUAL(avp_crc32("123456789", 9), 0xcbf43926);
	CU_ASSERT_EQUAL(avp_crc32(NULL, 0), 0);
	CU_ASSERT_EQUAL(avp_frame_encode(&m, NEW, "123456789", 9, frame,
					 sizeof(frame), &len, NULL),
			0);
	CU_ASSERT_EQUAL(avp_frame_decode(frame, len, &f, NULL), 0);
	CU_ASSERT_EQUAL(f.dialect, NEW);
	CU_ASSERT_EQUAL(f.metadata.payload_checksum, 0xcbf43926);
	CU_ASSERT_EQUAL(avp_frame_payload_check(&f, f.payload, 9, NULL), 0);
	CU_ASSERT_EQUAL(avp_frame_payload_check(&f, "123456788", 9, &why),
			AVP_CHECKSUM);
	CU_ASSERT(strstr(why.text, "0xcbf43926") != NULL);
	/* 0.2 has none to compare with. */
	CU_ASSERT_EQUAL(avp_frame_encode(&m, OLD, "123456789", 9, frame,
					 sizeof(frame), &len, NULL),
			0);
	CU_ASSERT_EQUAL(avp_frame_decode(frame, len, &f, NULL), 0);
	CU_ASSERT_EQUAL(avp_frame_payload_check(&f, "x", 1, NULL), 0);
	CU_ASSERT_EQUAL(avp_frame_encode(&m, OLD, "123456789", 9, frame,
					 len - 1, &len, NULL),
			AVP_TOO_LARGE);
}

/* What a gateway does: read, address anew, write in another dialect. */
static void read_and_written_again(void)
{
	const struct avp_pair extra[] = {{avp_str_of("z"), avp_str_of("1")},
					 {avp_str_of("a"), avp_str_of("2")}};
	struct avp_metadata m = bench();
	uint8_t first[128], second[128];
	struct avp_frame f, g;
	struct avp_str value;
	int n;

	m.extra = extra;
	m.extra_count = 2;
	m.mode = AVP_MODE_JSON;
	m.confidence_score = 0.5f;
	n = avp_frame_head_encode(&m, OLD, 0, first, sizeof(first), NULL);
	CU_ASSERT_EQUAL(avp_frame_decode(first, (uint64_t)n, &f, NULL), 0);
	f.metadata.target_agent_id = avp_str_of("solver");
	f.metadata.has |= AVP_HAS_CHECKSUM;
	f.metadata.payload_checksum = 0;
	n = avp_frame_head_encode(&f.metadata, NEW, 0, second, sizeof(second),
				  NULL);
	CU_ASSERT_FATAL(n > 0);
	CU_ASSERT_EQUAL(avp_frame_decode(second, (uint64_t)n, &g, NULL), 0);
	CU_ASSERT_EQUAL(g.dialect, NEW);
	CU_ASSERT_EQUAL(g.metadata.mode, AVP_MODE_JSON);
	CU_ASSERT_EQUAL(g.metadata.shape_inline[0], 4096);
	CU_ASSERT(avp_str_equal(g.metadata.target_agent_id,
				avp_str_of("solver")));
	CU_ASSERT(avp_metadata_extra_get(&g.metadata, avp_str_of("a"),
					 &value) == 1 &&
		  avp_str_equal(value, avp_str_of("2")));
}

static void names(void)
{
	CU_ASSERT_STRING_EQUAL(avp_payload_type_name(2), "EMBEDDING");
	CU_ASSERT_STRING_EQUAL(avp_dtype_name(2), "BFLOAT16");
	CU_ASSERT_STRING_EQUAL(avp_mode_name(2), "JSON");
	CU_ASSERT_STRING_EQUAL(avp_dialect_name(1), "0.4");
	CU_ASSERT(!avp_payload_type_name(3) && !avp_dtype_name(UINT32_MAX));
	CU_ASSERT(avp_dtype_size(2) == 2 && avp_dtype_size(4) == 0);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(in_place),
		TEST(head_alone),
		TEST(first_fault_is_named),
		TEST(dialects_are_told_apart),
		TEST(flags_follow_the_metadata),
		TEST(four_gib_is_the_limit),
		TEST(templates),
		TEST(checksums),
		TEST(read_and_written_again),
		TEST(names),
		{0},
	};

	return test_main("frame", tests);
}
