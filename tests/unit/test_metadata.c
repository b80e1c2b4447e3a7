/* SPDX-License-Identifier: Apache-2.0 */
/* Metadata's reader and writer on bytes made by hand. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <avp/codec.h>

#include "tests/harness.h"

#define OLD AVP_DIALECT_0_2
#define NEW AVP_DIALECT_0_4

static uint8_t out[1 << 16];

static struct avp_str str(const char *s, size_t len)
{
	struct avp_str r = {s, len};

	return r;
}

/* Encodes and compares with bytes written as a C string. */
static void expect(const struct avp_metadata *m, enum avp_dialect dialect,
		   const char *bytes, size_t len)
{
	int n = avp_metadata_encode(m, dialect, out, sizeof(out), NULL);

	CU_ASSERT_EQUAL(n, (int)len);
	CU_ASSERT(n == (int)len && !memcmp(out, bytes, len));
	CU_ASSERT_EQUAL(avp_metadata_size(m, dialect), (int)len);
}
#define EXPECT(m, dialect, bytes) expect(m, dialect, bytes, sizeof(bytes) - 1)

static int decode(struct avp_metadata *m, const char *bytes, size_t len)
{
	return avp_metadata_decode((const uint8_t *)bytes, len, m, NULL);
}
#define DECODE(m, bytes) decode(m, bytes, sizeof(bytes) - 1)
#define REFUSED(bytes)                                                 \
	do {                                                           \
		struct avp_metadata m_;                                \
		CU_ASSERT_EQUAL(decode(&m_, bytes, sizeof(bytes) - 1), \
				AVP_BAD_METADATA);                     \
	} while (0)

static void defaults_take_no_bytes(void)
{
	struct avp_metadata m = {0};

	EXPECT(&m, OLD, "");
	EXPECT(&m, NEW, "");
	memset(&m, 0xff, sizeof(m));
	CU_ASSERT_EQUAL(DECODE(&m, ""), 0);
	CU_ASSERT(!m.model_id.data && !m.compression.data && !m.hidden_dim);
	CU_ASSERT(!m.mode && !m.has && !m.shape_count && !m.extra_count);
}

static void every_field_in_order(void)
{
	const struct avp_pair extra[] = {{str("k", 1), str("", 0)}};
	struct avp_metadata m = {
		.session_id = str("a\0b", 3),
		.source_agent_id = str("s", 1),
		.target_agent_id = str("t", 1),
		.model_id = str("m", 1),
		.hidden_dim = 300,
		.num_layers = 1,
		.payload_type = AVP_KV_CACHE,
		.dtype = AVP_INT8,
		.shape_count = 2,
		.shape_inline = {0, 128},
		.mode = AVP_MODE_JSON,
		.compression = str("zstd", 4),
		.confidence_score = 1,
		.avp_map_id = str("x", 1),
		.extra = extra,
		.extra_count = 1,
		.payload_checksum = 0,
		.has = AVP_HAS_CHECKSUM,
	};

	EXPECT(&m, OLD,
	       "\x0a\x03"
	       "a\0b\x12\x01s\x1a\x01t\x22\x01m\x28\xac\x02\x30\x01\x38\x01"
	       "\x40\x03\x4a\x03\x00\x80\x01\x50\x02\x5a\x04zstd"
	       "\x65\x00\x00\x80\x3f\x6a\x01x\x72\x05\x0a\x01k\x12\x00");
	/* 0.4: JSON is 1, no confidence, a checksum even if it is 0. */
	EXPECT(&m, NEW,
	       "\x0a\x03"
	       "a\0b\x12\x01s\x1a\x01t\x22\x01m\x28\xac\x02\x30\x01\x38\x01"
	       "\x40\x03\x4a\x03\x00\x80\x01\x50\x01\x5a\x04zstd"
	       "\x6a\x01x\x72\x05\x0a\x01k\x12\x00\x78\x00");
}

static void floats_keep_their_bits(void)
{
	struct avp_metadata m = {.confidence_score = -0.0f};
	uint32_t bits = 0x7fc00001, read;

	EXPECT(&m, OLD, "\x65\x00\x00\x00\x80");
	memcpy(&m.confidence_score, &bits, 4);
	EXPECT(&m, OLD, "\x65\x01\x00\xc0\x7f");
	CU_ASSERT_EQUAL(DECODE(&m, "\x65\x01\x00\xc0\x7f"), 0);
	memcpy(&read, &m.confidence_score, 4);
	CU_ASSERT_EQUAL(read, bits);
	CU_ASSERT_EQUAL(m.has, AVP_HAS_CONFIDENCE);
}

static void extra_is_sorted_and_unique(void)
{
	const struct avp_pair extra[] = {
		{str("b", 1), str("1", 1)},
		{str("\xf0\x9f\xa4\x96", 4), str("", 0)},
		{str("b", 1), str("2", 1)},
		{str("a\xff", 1), str("3", 1)},
		{str("", 0), str("", 0)},
		{str("\xe2\x80\xa8", 3), str("", 0)},
		{str("ba", 2), str("", 0)},
	};
	struct avp_metadata m = {.extra = extra, .extra_count = 7};

	EXPECT(&m, OLD,
	       "\x72\x04\x0a\x00\x12\x00\x72\x06\x0a\x01"
	       "a\x12\x01"
	       "3\x72\x06\x0a\x01"
	       "b\x12\x01"
	       "2\x72\x06\x0a\x02"
	       "ba\x12\x00\x72\x07\x0a\x03\xe2\x80\xa8\x12\x00"
	       "\x72\x08\x0a\x04\xf0\x9f\xa4\x96\x12\x00");
}

/* Enough pairs for the sort that allocates; written, read, written again. */
static void many_pairs(void)
{
	static char keys[500][8], values[500][8];
	static struct avp_pair extra[1000];
	static uint8_t again[sizeof(out)];
	struct avp_metadata m = {.extra = extra, .extra_count = 1000};
	struct avp_metadata read;
	struct avp_str value;
	int n;

	for (unsigned int i = 0; i < 500; i++) {
		snprintf(keys[i], sizeof(keys[i]), "k%u", i * 7919 % 500);
		snprintf(values[i], sizeof(values[i]), "v%u", i);
		extra[i].key = extra[500 + i].key = avp_str_of(keys[i]);
		extra[i].value = avp_str_of("old");
		extra[500 + i].value = avp_str_of(values[i]);
	}
	n = avp_metadata_encode(&m, OLD, out, sizeof(out), NULL);
	CU_ASSERT(n > 0);
	CU_ASSERT_EQUAL_FATAL(avp_metadata_decode(out, (size_t)n, &read, NULL),
			      0);
	CU_ASSERT_EQUAL(read.extra_count, 500);
	for (unsigned int i = 0; i < 500; i++) {
		CU_ASSERT_EQUAL(avp_metadata_extra_get(
					&read, avp_str_of(keys[i]), &value),
				1);
		CU_ASSERT(avp_str_equal(value, avp_str_of(values[i])));
	}
	CU_ASSERT_EQUAL(
		avp_metadata_encode(&read, OLD, again, sizeof(again), NULL), n);
	CU_ASSERT(!memcmp(out, again, (size_t)n));
}

static void last_value_of_a_key_wins(void)
{
	struct avp_extra_cursor c = {0};
	struct avp_metadata m;
	struct avp_pair pair;
	struct avp_str value;

	CU_ASSERT_EQUAL(DECODE(&m, "\x72\x06\x0a\x01k\x12\x01v\x28\x05"
				   "\x72\x06\x12\x01w\x0a\x01k\x72\x00"),
			0);
	CU_ASSERT_EQUAL(m.extra_count, 3);
	CU_ASSERT(avp_metadata_extra_get(&m, avp_str_of("k"), &value) == 1 &&
		  avp_str_equal(value, avp_str_of("w")));
	CU_ASSERT(avp_metadata_extra_get(&m, avp_str_of(""), &value) == 1 &&
		  !value.len);
	CU_ASSERT_EQUAL(avp_metadata_extra_get(&m, avp_str_of("x"), &value), 0);
	c.metadata = &m;
	for (int i = 0; i < 3; i++)
		CU_ASSERT_EQUAL(avp_extra_next(&c, &pair), 1);
	CU_ASSERT(!pair.key.len && !pair.value.len);
	CU_ASSERT_EQUAL(avp_extra_next(&c, &pair), 0);
	EXPECT(&m, OLD,
	       "\x28\x05\x72\x04\x0a\x00\x12\x00\x72\x06\x0a\x01k\x12\x01w");
}

static void long_shapes(void)
{
	uint32_t dims[300], read[300];
	struct avp_metadata m = {.shape = dims, .shape_count = 300}, got;
	int n;

	for (uint32_t i = 0; i < 300; i++)
		dims[i] = i * 0x01234567;
	n = avp_metadata_encode(&m, OLD, out, sizeof(out), NULL);
	CU_ASSERT_FATAL(n > 0);
	/* Behind it one more, unpacked, and an empty packed field. */
	memcpy(out + n, "\x48\x07\x4a\x00", 4);
	CU_ASSERT_EQUAL(avp_metadata_decode(out, (size_t)n + 4, &got, NULL), 0);
	CU_ASSERT_EQUAL(got.shape_count, 301);
	CU_ASSERT(!got.shape);
	CU_ASSERT(!memcmp(got.shape_inline, dims, 32));
	CU_ASSERT_EQUAL(avp_metadata_shape(&got, read, 300), 300);
	CU_ASSERT(!memcmp(read, dims, sizeof(dims)));
	CU_ASSERT_EQUAL(avp_metadata_size(&got, OLD), n + 1);
	/* A shape that does not say where it comes from. */
	got.raw = NULL;
	CU_ASSERT_EQUAL(avp_metadata_size(&got, OLD), AVP_USAGE);
}

static void odd_but_valid(void)
{
	struct avp_metadata m;

	/* Packed and unpacked mixed; over-long tag and varint; 64 bits cut. */
	CU_ASSERT_EQUAL(DECODE(&m, "\x4a\x02\x01\x02\x48\x07\xca\x80\x00\x01"
				   "\x04\x28\x85\x80\x80\x80\x10\x30"
				   "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
			0);
	CU_ASSERT_EQUAL(m.shape_count, 4);
	CU_ASSERT_EQUAL(m.shape_inline[2], 7);
	CU_ASSERT_EQUAL(m.shape_inline[3], 4);
	CU_ASSERT_EQUAL(m.hidden_dim, 5);
	CU_ASSERT_EQUAL(m.num_layers, UINT32_MAX);
	/* Wrong wire types, groups, unknown fields; negative enum. */
	CU_ASSERT_EQUAL(DECODE(&m, "\x08\x05\x2a\x01"
				   "a\x60\x07\x0b\x08\x01\x0c\xf9\x07"
				   "12345678\x38"
				   "\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
			0);
	CU_ASSERT(!m.session_id.data && !m.hidden_dim && !m.has);
	CU_ASSERT_EQUAL(m.payload_type, UINT32_MAX);
	/* Empty is not absent. */
	CU_ASSERT_EQUAL(DECODE(&m, "\x5a\x00"), 0);
	CU_ASSERT(m.compression.data && !m.compression.len);
}

static void malformed(void)
{
	REFUSED("\xff\xff\xff\xff\xff");
	REFUSED("\x0a\x05"
		"ab");
	REFUSED("\x0a\x03"
		"ab"); /* one byte short */
	REFUSED("\x28");
	REFUSED("\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
	REFUSED("\x65\x00\x00");
	REFUSED("\xf9\x07"
		"1234567");
	REFUSED("\x0e\x01");
	REFUSED("\x0b\x0b\x0c");
	REFUSED("\x0b\x14");
	REFUSED("\x0c");
	REFUSED("\x00\x01");
	REFUSED("\x80\x80\x80\x80\x10\x01");
	REFUSED("\xa8\x80\x80\x80\x80\x00\x01"); /* a tag of six bytes */
	REFUSED("\x4a\x02\x01\xff");
	REFUSED("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
	REFUSED("\x72\x05\x0a\x02"
		"a");
	/* Text: over-long, surrogate, beyond U+10FFFF, cut, in each place. */
	REFUSED("\x0a\x02\xc0\x80");
	REFUSED("\x22\x03\xed\xa0\x80");
	REFUSED("\x6a\x04\xf4\x90\x80\x80");
	REFUSED("\x12\x01\xe2");
	REFUSED("\x72\x04\x0a\x02\xc3\x28");
	REFUSED("\x72\x04\x12\x02\xc3\x28");
	REFUSED("\x5a\x01\x80");
	REFUSED("\xaa\x06\x01\x80");
	REFUSED("\x1a\x14"
		"0123456789abcdef\xf0\x82\x82\xac");
	/* An entry of the map with a field that is none of its own. */
	REFUSED("\x72\x08\x0a\x01k\x12\x01v\x18\x01");
}

static void depth_is_bounded(void)
{
	struct avp_metadata m;
	uint8_t groups[300];

	for (size_t depth = 99; depth <= 150; depth++) {
		memset(groups, 0x0b, depth);
		memset(groups + depth, 0x0c, depth);
		CU_ASSERT_EQUAL(
			avp_metadata_decode(groups, 2 * depth, &m, NULL),
			depth <= 100 ? 0 : AVP_BAD_METADATA);
	}
}

static void reason_names_the_byte(void)
{
	const uint8_t bytes[] = {0x28, 0x05, 0x0a, 0x09, 'a'};
	struct avp_metadata m;
	struct avp_reason why;

	CU_ASSERT_EQUAL(avp_metadata_decode(bytes, 5, &m, &why),
			AVP_BAD_METADATA);
	CU_ASSERT_EQUAL(why.code, AVP_BAD_METADATA);
	CU_ASSERT(strstr(why.text, "byte 2 of 5") != NULL);
}

static void version_0_1_fields(void)
{
	struct avp_metadata_compat compat;
	struct avp_metadata m;

	CU_ASSERT_EQUAL(DECODE(&m, "\xa0\x06\x07\xaa\x06\x01"
				   "f\xb2\x06\x00"),
			0);
	CU_ASSERT_EQUAL(avp_metadata_compat(&m, &compat), 1);
	CU_ASSERT_EQUAL(compat.embedding_dim, 7);
	CU_ASSERT(avp_str_equal(compat.data_type, avp_str_of("f")));
	CU_ASSERT(compat.agent_id.data && !compat.agent_id.len);
	CU_ASSERT(!compat.task_id.data);
	EXPECT(&m, OLD, ""); /* read, never written */
	CU_ASSERT_EQUAL(DECODE(&m, "\x28\x05"), 0);
	CU_ASSERT_EQUAL(avp_metadata_compat(&m, &compat), 0);
}

static void encoder_refuses(void)
{
	struct avp_pair pair = {str("k", 1), str("\xff", 1)};
	struct avp_metadata m = {.payload_type = 3};
	struct avp_reason why;

	CU_ASSERT_EQUAL(avp_metadata_size(&m, OLD), AVP_BAD_PAYLOAD_TYPE);
	m.payload_type = AVP_EMBEDDING;
	CU_ASSERT(avp_metadata_size(&m, OLD) > 0);
	CU_ASSERT_EQUAL(avp_metadata_size(&m, NEW), AVP_BAD_PAYLOAD_TYPE);
	m.payload_type = 0;
	m.mode = AVP_MODE_HYBRID;
	CU_ASSERT(avp_metadata_size(&m, OLD) > 0);
	CU_ASSERT_EQUAL(avp_metadata_size(&m, NEW), AVP_BAD_MODE);
	m.mode = 3;
	CU_ASSERT_EQUAL(avp_metadata_size(&m, OLD), AVP_BAD_MODE);
	m.mode = 0;
	m.dtype = 4;
	CU_ASSERT_EQUAL(avp_metadata_size(&m, OLD), AVP_BAD_DTYPE);
	m.dtype = 0;
	CU_ASSERT_EQUAL(avp_metadata_size(&m, (enum avp_dialect)2), AVP_USAGE);
	m.model_id = str("\xed\xa0\x80", 3);
	CU_ASSERT_EQUAL(avp_metadata_encode(&m, OLD, out, 100, &why),
			AVP_BAD_METADATA);
	CU_ASSERT(strstr(why.text, "model_id") != NULL);
	m.model_id = str("ok", 2);
	CU_ASSERT_EQUAL(avp_metadata_encode(&m, OLD, out, 3, &why),
			AVP_TOO_LARGE);
	CU_ASSERT_EQUAL(avp_metadata_encode(&m, OLD, out, 4, &why), 4);
	m.extra = &pair;
	m.extra_count = 1;
	CU_ASSERT_EQUAL(avp_metadata_size(&m, OLD), AVP_BAD_METADATA);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(defaults_take_no_bytes),
		TEST(every_field_in_order),
		TEST(floats_keep_their_bits),
		TEST(extra_is_sorted_and_unique),
		TEST(many_pairs),
		TEST(last_value_of_a_key_wins),
		TEST(long_shapes),
		TEST(odd_but_valid),
		TEST(malformed),
		TEST(depth_is_bounded),
		TEST(reason_names_the_byte),
		TEST(version_0_1_fields),
		TEST(encoder_refuses),
		{0},
	};

	return test_main("metadata", tests);
}
