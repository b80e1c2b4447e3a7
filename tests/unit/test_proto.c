/* SPDX-License-Identifier: Apache-2.0 */
/* The other protobuf messages, by the recorded bytes and by hand. */
#include <stdlib.h>
#include <string.h>

#include <avp/codec.h>

#include "avp.pb-c.h"
#include "tests/vectors.h"

#define CHUNKS	 16
#define DECODING AVP_DESERIALIZATION_ERROR

static uint32_t bits_of(float f)
{
	uint32_t u;

	memcpy(&u, &f, sizeof(u));
	return u;
}

/* ---- HybridPayload ------------------------------------------------------ */

static struct bytes case_bytes(const struct avp_json *c)
{
	if (avp_json_get(c, "hex"))
		return bytes_hex(case_str(c, "hex"));
	return vectors_file(case_str(c, "file"));
}

static void check_chunk(const struct avp_json *c, const struct avp_json *want,
			const struct avp_hybrid_chunk *chunk)
{
	uint32_t bits = (uint32_t)strtoul(
		case_str(want, "confidence_f32_bits").data, NULL, 16);

	CASE(c, chunk->chunk_type == case_int(want, "chunk_type"));
	CASE(c, bits_of(chunk->confidence) == bits);
	if (avp_json_get(want, "data_sha256")) {
		struct sha256_hex sum =
			sha256_hex(chunk->data, (size_t)chunk->bytes);

		CASE(c, case_is(want, "data_sha256", sum.text));
	} else {
		struct bytes data = bytes_hex(case_str(want, "data_hex"));

		CASE(c, chunk->bytes == data.len &&
				!memcmp(chunk->data, data.data, data.len));
		bytes_free(&data);
	}
}

static void hybrid_case(const struct avp_json *c)
{
	const struct avp_json *want = avp_json_get(c, "chunks");
	struct avp_hybrid_chunk chunks[CHUNKS];
	struct bytes in = case_bytes(c);
	struct avp_hybrid_cursor cursor = {in.data, in.data + in.len};
	uint32_t n = 0;
	uint64_t len;
	int got;

	while ((got = avp_hybrid_next(&cursor, &chunks[n], NULL)) == 1)
		if (++n == CHUNKS)
			break;
	if (case_is(c, "verdict", "reject")) {
		CASE(c, got == DECODING);
		bytes_free(&in);
		return;
	}
	CASE(c, got == 0 && n == avp_json_count(want));
	want = avp_json_first(want);
	for (uint32_t i = 0; i < n && want; i++, want = avp_json_next(want))
		check_chunk(c, want, &chunks[i]);
	if (case_bool(c, "byte_exact")) {
		uint8_t *out = malloc(in.len + 1);

		CASE(c, avp_hybrid_size(chunks, n) == in.len);
		CASE(c, !avp_hybrid_encode(chunks, n, out, in.len, &len, NULL));
		CASE(c, len == in.len && !memcmp(out, in.data, len));
		CASE(c, !len || avp_hybrid_encode(chunks, n, out, len - 1, &len,
						  NULL) == AVP_TOO_LARGE);
		free(out);
	}
	bytes_free(&in);
}

static void hybrid_vectors(void)
{
	VECTORS("pb_hybrid", 19);
	for (const struct avp_json *c = vectors_first("pb_hybrid"); c;
	     c = avp_json_next(c))
		hybrid_case(c);
}

/* protobuf-c, with its copies, reads the same chunks. */
static void hybrid_second_opinion(void)
{
	for (const struct avp_json *c = vectors_first("pb_hybrid"); c;
	     c = avp_json_next(c)) {
		struct bytes in = case_bytes(c);
		struct avp_hybrid_cursor cursor = {in.data, in.data + in.len};
		struct avp_hybrid_chunk chunk;
		Avp__Pb__HybridPayload *pb =
			avp__pb__hybrid_payload__unpack(NULL, in.len, in.data);
		size_t n = 0;

		CASE(c, !pb == case_is(c, "verdict", "reject"));
		for (; pb && n < pb->n_chunks; n++) {
			const Avp__Pb__HybridChunk *p = pb->chunks[n];

			CASE(c, avp_hybrid_next(&cursor, &chunk, NULL) == 1);
			CASE(c, chunk.chunk_type == p->chunk_type &&
					chunk.bytes == p->data.len &&
					(!chunk.bytes ||
					 !memcmp(chunk.data, p->data.data,
						 p->data.len)));
		}
		avp__pb__hybrid_payload__free_unpacked(pb, NULL);
		bytes_free(&in);
	}
}

static void hybrid_by_hand(void)
{
	static const uint8_t ok[] = {0x0b, 0x08, 0x01, 0x0c, 0x0a, 0x04,
				     0x10, 0x05, 0x0b, 0x0c, 0x0a, 0x00};
	static const uint8_t end_group[] = {0x0a, 0x01, 0x0c};
	struct avp_hybrid_cursor cursor = {ok, ok + sizeof(ok)};
	struct avp_hybrid_chunk chunk;
	struct avp_reason why;

	CU_ASSERT_EQUAL(avp_hybrid_next(&cursor, &chunk, NULL), 1);
	CU_ASSERT(chunk.bytes == 0 && chunk.data != NULL);
	CU_ASSERT_EQUAL(avp_hybrid_next(&cursor, &chunk, NULL), 1);
	CU_ASSERT_EQUAL(avp_hybrid_next(&cursor, &chunk, NULL), 0);
	cursor = (struct avp_hybrid_cursor){end_group, end_group + 3};
	CU_ASSERT_EQUAL(avp_hybrid_next(&cursor, &chunk, &why), DECODING);
	CU_ASSERT(strstr(why.text, "HybridPayload") != NULL);
}

/* ---- FallbackRequest ---------------------------------------------------- */

static void fallback_case(const struct avp_json *c)
{
	const struct avp_json *input = avp_json_get(c, "input");
	struct bytes want = bytes_hex(case_str(c, "hex"));
	uint32_t bits = (uint32_t)strtoul(
		case_str(c, "perplexity_f32_bits").data, NULL, 16);
	struct avp_pb_fallback_request m = {0}, read;
	uint8_t out[256];
	int n;

	m.session_id = case_str(input, "session_id");
	m.reason = case_str(input, "reason");
	memcpy(&m.perplexity_score, &bits, sizeof(bits));
	n = avp_pb_fallback_request_encode(&m, out, sizeof(out), NULL);
	CASE(c, n == (int)want.len && !memcmp(out, want.data, want.len));
	if (CASE(c, !avp_pb_fallback_request_decode(want.data, want.len, &read,
						    NULL))) {
		CASE(c, avp_str_equal(read.session_id, m.session_id));
		CASE(c, avp_str_equal(read.reason, m.reason));
		CASE(c, bits_of(read.perplexity_score) == bits);
		avp_pb_fallback_request_fini(&read);
	}
	bytes_free(&want);
}

static void fallback_vectors(void)
{
	VECTORS("pb_fallback_request", 4);
	for (const struct avp_json *c = vectors_first("pb_fallback_request"); c;
	     c = avp_json_next(c))
		fallback_case(c);
}

static void fallback_by_hand(void)
{
	static uint8_t large[AVP_MESSAGE_MAX_BYTES + 1];
	struct avp_pb_fallback_request m = {.perplexity_score = -0.0f}, read;
	uint8_t out[64];

	m.reason = (struct avp_str){"a\0b", 3};
	CU_ASSERT_EQUAL(avp_pb_fallback_request_encode(&m, out, 64, NULL), 10);
	CU_ASSERT(!memcmp(out, "\x12\x03\x61\x00\x62\x1d\x00\x00\x00\x80", 10));
	CU_ASSERT_EQUAL(avp_pb_fallback_request_decode(out, 10, &read, NULL),
			0);
	CU_ASSERT(avp_str_equal(read.reason, m.reason));
	CU_ASSERT_EQUAL(bits_of(read.perplexity_score), 0x80000000);
	avp_pb_fallback_request_fini(&read);
	CU_ASSERT(!read.owned && !read.reason.data);
	CU_ASSERT_EQUAL(avp_pb_fallback_request_encode(&m, out, 9, NULL),
			AVP_TOO_LARGE);
	CU_ASSERT_EQUAL(avp_pb_fallback_request_decode(out, 9, &read, NULL),
			DECODING);
	out[3] = 0xff;
	CU_ASSERT_EQUAL(avp_pb_fallback_request_decode(out, 10, &read, NULL),
			DECODING);
	m.reason = (struct avp_str){"\xc3", 1};
	CU_ASSERT_EQUAL(avp_pb_fallback_request_encode(&m, out, 64, NULL),
			AVP_SERIALIZATION_ERROR);
	CU_ASSERT_EQUAL(avp_pb_fallback_request_decode(large, sizeof(large),
						       &read, NULL),
			AVP_TOO_LARGE);
}

/* ---- TransmitResponse --------------------------------------------------- */

static struct avp_str optional(const struct avp_json *input, const char *key)
{
	struct avp_str none = {NULL, 0};

	return avp_json_get(input, key) ? case_str(input, key) : none;
}

static bool same(struct avp_str a, struct avp_str b)
{
	return !a.data == !b.data && avp_str_equal(a, b);
}

static void response_case(const struct avp_json *c)
{
	const struct avp_json *input = avp_json_get(c, "input");
	const struct avp_json *extra =
		avp_json_first(avp_json_get(input, "extra"));
	struct bytes want = bytes_hex(case_str(c, "hex"));
	struct avp_pb_transmit_response m = {0}, read;
	struct avp_pair pair;
	uint8_t out[256];
	int n;

	m.success = case_bool(input, "success");
	m.message = optional(input, "message");
	m.request_id = optional(input, "request_id");
	if (extra) {
		pair.key = avp_json_key_of(extra);
		avp_json_string(extra, &pair.value);
		m.extra = &pair;
		m.extra_count = 1;
	}
	n = avp_pb_transmit_response_encode(&m, out, sizeof(out), NULL);
	CASE(c, n == (int)want.len && !memcmp(out, want.data, want.len));
	if (CASE(c, !avp_pb_transmit_response_decode(want.data, want.len, &read,
						     NULL))) {
		CASE(c, read.success == m.success);
		CASE(c, same(read.message, m.message));
		CASE(c, same(read.request_id, m.request_id));
		CASE(c, read.extra_count == m.extra_count);
		CASE(c,
		     !m.extra_count || (same(read.extra[0].key, pair.key) &&
					same(read.extra[0].value, pair.value)));
		avp_pb_transmit_response_fini(&read);
	}
	bytes_free(&want);
}

static void response_vectors(void)
{
	VECTORS("pb_transmit_response", 5);
	for (const struct avp_json *c = vectors_first("pb_transmit_response");
	     c; c = avp_json_next(c))
		response_case(c);
}

static void response_by_hand(void)
{
	static const uint8_t map[] = "\x22\x06\x0a\x01"
				     "b\x12\x01"
				     "1\x22\x00\x22\x06\x0a\x01"
				     "b\x12\x01"
				     "2";
	static const uint8_t bad_key[] = "\x22\x03\x0a\x01\xff";
	struct avp_pb_transmit_response m;
	uint8_t out[64];

	CU_ASSERT_EQUAL(
		avp_pb_transmit_response_decode(map, sizeof(map) - 1, &m, NULL),
		0);
	CU_ASSERT_EQUAL_FATAL(m.extra_count, 2);
	CU_ASSERT(!m.extra[0].key.len && !m.extra[0].value.len);
	CU_ASSERT(avp_str_equal(m.extra[1].value, avp_str_of("2")));
	/* Members of an entry are written though they are empty. */
	CU_ASSERT_EQUAL(avp_pb_transmit_response_encode(&m, out, 64, NULL), 14);
	CU_ASSERT(!memcmp(out, "\x22\x04\x0a\x00\x12\x00\x22\x06", 8));
	avp_pb_transmit_response_fini(&m);
	CU_ASSERT_EQUAL(avp_pb_transmit_response_decode(
				bad_key, sizeof(bad_key) - 1, &m, NULL),
			DECODING);
	CU_ASSERT_EQUAL(avp_pb_transmit_response_decode(map, 5, &m, NULL),
			DECODING);
}

/* Read as upb reads: by wire types, each text checked, groups passed over. */
static void messages_read_as_upb_does(void)
{
	static const uint8_t typed[] = "\x0a\x01\x01\x13\x08\x01\x14\x1a\x01r";
	static const uint8_t late[] = "\x12\x01\xff\x12\x01r";
	struct avp_pb_transmit_response t;
	struct avp_pb_fallback_request f;

	CU_ASSERT_EQUAL_FATAL(avp_pb_transmit_response_decode(
				      typed, sizeof(typed) - 1, &t, NULL),
			      0);
	CU_ASSERT(!t.success && !t.message.data);
	CU_ASSERT(avp_str_equal(t.request_id, avp_str_of("r")));
	avp_pb_transmit_response_fini(&t);
	CU_ASSERT_EQUAL(avp_pb_transmit_response_decode(late, sizeof(late) - 1,
							&t, NULL),
			DECODING);
	CU_ASSERT_EQUAL(avp_pb_fallback_request_decode(late, sizeof(late) - 1,
						       &f, NULL),
			DECODING);
	CU_ASSERT_EQUAL_FATAL(avp_pb_fallback_request_decode(NULL, 0, &f, NULL),
			      0);
	CU_ASSERT(f.session_id.data && !f.session_id.len);
	avp_pb_fallback_request_fini(&f);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(hybrid_vectors),
		TEST(hybrid_second_opinion),
		TEST(hybrid_by_hand),
		TEST(fallback_vectors),
		TEST(fallback_by_hand),
		TEST(response_vectors),
		TEST(response_by_hand),
		TEST(messages_read_as_upb_does),
		{0},
	};

	return test_main("proto", tests);
}
