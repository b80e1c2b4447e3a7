/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a frame, and its payload as the other messages. Built by `make
 * fuzz` for libFuzzer; as a test it replays the recorded frames and the first
 * bytes of each.
 */
#include <stdlib.h>
#include <string.h>

#include <avp/codec.h>

#include "tests/fuzz.h"

#define CONTENT_LIMIT ((uint64_t)1 << 20)

/* What was read is written canonically, and that reads and writes the same. */
static void rewrite(const struct avp_frame *f)
{
	enum avp_dialect dialect = (enum avp_dialect)f->dialect;
	struct avp_metadata m;
	uint8_t *first, *second;
	int n = avp_metadata_size(&f->metadata, dialect);

	if (n < 0) { /* EMBEDDING is read and not written in 0.4 */
		MUST(n == AVP_BAD_PAYLOAD_TYPE && dialect == AVP_DIALECT_0_4);
		return;
	}
	first = malloc((size_t)n + 1);
	second = malloc((size_t)n + 1);
	MUST(first && second);
	MUST(avp_metadata_encode(&f->metadata, dialect, first, (size_t)n,
				 NULL) == n);
	MUST(!avp_metadata_decode(first, (size_t)n, &m, NULL));
	MUST(m.shape_count == f->metadata.shape_count);
	m.mode = f->metadata.mode; /* the wire's number is the dialect's */
	MUST(avp_metadata_encode(&m, dialect, second, (size_t)n, NULL) == n);
	MUST(!memcmp(first, second, (size_t)n));
	free(first);
	free(second);
}

static void walk(const struct avp_metadata *m)
{
	struct avp_extra_cursor extra = {.metadata = m};
	struct avp_shape_cursor shape = {.metadata = m};
	struct avp_metadata_compat compat;
	struct avp_str value;
	struct avp_pair pair;
	uint32_t dim, n = 0;

	while (avp_shape_next(&shape, &dim))
		n++;
	MUST(n == m->shape_count);
	for (n = 0; avp_extra_next(&extra, &pair); n++)
		if (n < 100)
			MUST(avp_metadata_extra_get(m, pair.key, &value) == 1);
	MUST(n == m->extra_count);
	avp_metadata_compat(m, &compat);
}

static void other_messages(const void *data, size_t len)
{
	struct avp_hybrid_cursor cursor = {data, (const uint8_t *)data + len};
	struct avp_pb_fallback_request request;
	struct avp_pb_transmit_response response;
	struct avp_hybrid_chunk chunk;

	while (avp_hybrid_next(&cursor, &chunk, NULL) == 1)
		;
	if (!avp_pb_fallback_request_decode(data, len, &request, NULL))
		avp_pb_fallback_request_fini(&request);
	if (!avp_pb_transmit_response_decode(data, len, &response, NULL))
		avp_pb_transmit_response_fini(&response);
}

static void expand(const struct avp_frame *f)
{
	struct avp_zstd *z = avp_zstd_new();
	uint64_t room = f->content_bytes;
	uint64_t len;
	uint8_t *out;

	if (room > CONTENT_LIMIT)
		room = CONTENT_LIMIT;
	out = malloc(room + 1);
	MUST(z && out);
	if (!avp_zstd_decompress(z, f->payload, f->payload_bytes, out, room,
				 &len, NULL))
		MUST(len == f->content_bytes);
	free(out);
	avp_zstd_free(z);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct avp_frame whole, part;
	struct avp_reason why;
	uint64_t need = 0;
	int err = avp_frame_decode(data, len, &whole, &why);

	other_messages(data, len);
	if (err) {
		MUST(why.code == err && why.text[0]);
		return 0;
	}
	MUST(avp_frame_bytes(&whole) <= len);
	MUST(!avp_frame_decode_head(data, whole.payload_off, len, &part, &need,
				    NULL));
	MUST(part.payload_bytes == whole.payload_bytes);
	walk(&whole.metadata);
	rewrite(&whole);
	if (whole.flags & AVP_FLAG_COMPRESSED)
		expand(&whole);
	other_messages(whole.payload, whole.payload_bytes);
	return 0;
}

#ifndef AVP_FUZZING
static void recorded_frames(void)
{
	unsigned int fed = 0;

	for (const struct avp_json *c = vectors_first("frame"); c;
	     c = avp_json_next(c)) {
		struct bytes in;

		if (!avp_json_get(c, "file"))
			continue;
		in = vectors_file(case_str(c, "file"));
		feed(in.data, in.len);
		for (size_t n = 0; n < in.len && n < 200; n++)
			feed(in.data, n);
		/* Each byte of the head changed, in two ways. */
		for (size_t i = 0; i < in.len && i < 120; i++) {
			in.data[i] ^= 0x80;
			feed(in.data, in.len < 4096 ? in.len : 4096);
			in.data[i] ^= 0x81;
			feed(in.data, in.len < 4096 ? in.len : 4096);
			in.data[i] ^= 0x01;
		}
		bytes_free(&in);
		fed++;
	}
	CU_ASSERT(!vectors_are_ours() || fed > 300);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(recorded_frames),
		{0},
	};

	return test_main("fuzz_frame", tests);
}
#endif
