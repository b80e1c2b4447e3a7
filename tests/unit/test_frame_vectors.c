/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every recorded frame: good ones come out as the reference read them, bad ones
 * are refused, and what its encoder wrote we write. `advice` decides; where it
 * leaves the choice, refusal() below says what is ours.
 */
#include <stdlib.h>
#include <string.h>

#include <avp/codec.h>

#include "avp.pb-c.h"
#include "tests/vectors.h"

/* Above every honest payload of the vectors, below every bomb. */
#define CONTENT_LIMIT ((uint64_t)256 << 20)

static struct bytes frame_bytes(const struct avp_json *c)
{
	struct bytes prefix, payload, all;

	if (avp_json_get(c, "file"))
		return vectors_file(case_str(c, "file"));
	prefix = bytes_hex(case_str(c, "frame_prefix_hex"));
	payload = vectors_payload(
		avp_json_get(avp_json_get(c, "encode"), "payload"), NULL);
	all.len = prefix.len + payload.len;
	all.data = malloc(all.len);
	memcpy(all.data, prefix.data, prefix.len);
	memcpy(all.data + prefix.len, payload.data, payload.len);
	bytes_free(&prefix);
	bytes_free(&payload);
	return all;
}

/*
 * Is this one of the cases left open that we refuse? Unknown dtypes, what is
 * behind or before the one zstd frame, and metadata that the protobuf runtimes
 * disagree about. Bytes after a frame, flags that do not match, and a payload
 * that does not fit its description are no business of decoding.
 */
static bool refusal(const struct avp_json *c)
{
	struct avp_str code = case_str(c, "code");

	return case_is(c, "verdict", "reject") ||
	       avp_str_equal(code, avp_str_of("BAD_DTYPE")) ||
	       avp_str_equal(code, avp_str_of("BAD_COMPRESSION")) ||
	       case_is(c, "name", "pb_map_entry_unknown") ||
	       case_is(c, "name", "fuzz_45"); /* dtype 11, read as FLOAT32 */
}

struct content {
	uint8_t *owned;
	const uint8_t *data;
	uint64_t len;
};

/* Everything that a careful receiver does. */
static int decode(const struct bytes *in, struct avp_frame *f,
		  struct content *content, struct avp_reason *why)
{
	struct avp_zstd *z;
	int err = avp_frame_decode(in->data, in->len, f, why);

	*content = (struct content){NULL, f->payload, f->payload_bytes};
	if (err)
		return err;
	if (!(f->flags & AVP_FLAG_COMPRESSED))
		return avp_frame_payload_check(f, content->data, content->len,
					       why);
	if (f->content_bytes > CONTENT_LIMIT)
		return why->code = AVP_TOO_LARGE;
	z = avp_zstd_new();
	content->owned = malloc(f->content_bytes + 1);
	content->data = content->owned;
	err = avp_zstd_decompress(z, f->payload, f->payload_bytes,
				  content->owned, f->content_bytes,
				  &content->len, why);
	avp_zstd_free(z);
	if (err)
		return err;
	return avp_frame_payload_check(f, content->data, content->len, why);
}

static void check_shape(const struct avp_json *c, const struct avp_json *want,
			const struct avp_metadata *m)
{
	struct avp_shape_cursor cursor = {.metadata = m};
	uint32_t dim;
	uint64_t n;

	CASE(c, m->shape_count == avp_json_count(want));
	for (const struct avp_json *v = avp_json_first(want); v;
	     v = avp_json_next(v)) {
		CASE(c, avp_shape_next(&cursor, &dim) == 1);
		CASE(c, !avp_json_uint64(v, &n) && n == dim);
	}
	CASE(c, avp_shape_next(&cursor, &dim) == 0);
}

static void check_extra(const struct avp_json *c, const struct avp_json *want,
			const struct avp_metadata *m)
{
	struct avp_extra_cursor cursor = {.metadata = m};
	struct avp_str value, got;
	struct avp_pair pair;

	for (const struct avp_json *v = avp_json_first(want); v;
	     v = avp_json_next(v)) {
		avp_json_string(v, &value);
		CASE(c,
		     avp_metadata_extra_get(m, avp_json_key_of(v), &got) == 1);
		CASE(c, avp_str_equal(got, value));
	}
	while (avp_extra_next(&cursor, &pair))
		CASE(c, avp_json_find(want, pair.key) != NULL);
}

static void check_metadata(const struct avp_json *c,
			   const struct avp_json *want,
			   const struct avp_metadata *m)
{
	uint32_t bits;

#define TEXT(key)   CASE(c, avp_str_equal(case_str(want, #key), m->key))
#define NUMBER(key) CASE(c, case_int(want, #key) == m->key)
	TEXT(session_id);
	TEXT(source_agent_id);
	TEXT(target_agent_id);
	TEXT(model_id);
	TEXT(avp_map_id);
	TEXT(compression);
	NUMBER(hidden_dim);
	NUMBER(num_layers);
	NUMBER(payload_type);
	NUMBER(dtype);
	NUMBER(mode);
#undef TEXT
#undef NUMBER
	CASE(c, !case_str(want, "compression").len == !m->compression.data);
	memcpy(&bits, &m->confidence_score, sizeof(bits));
	CASE(c, bits == strtoul(case_str(want, "confidence_f32_bits").data,
				NULL, 16));
	check_shape(c, avp_json_get(want, "tensor_shape"), m);
	check_extra(c, avp_json_get(want, "extra"), m);
}

static void check_frame(const struct avp_json *c, const struct bytes *in,
			const struct avp_frame *f,
			const struct content *content)
{
	const struct avp_json *want = avp_json_get(c, "expect");
	const struct avp_json *header = avp_json_get(want, "header");
	struct sha256_hex sum = sha256_hex(content->data, content->len);

	CASE(c, case_int(header, "version") == f->version);
	CASE(c, case_int(header, "flags") == f->flags);
	CASE(c, case_int(header, "payload_length") == f->payload_length);
	CASE(c, case_int(header, "metadata_length") == f->metadata_length);
	CASE(c, (uint64_t)case_int(want, "payload_len") == content->len);
	CASE(c, (uint64_t)case_int(want, "raw_size") == f->raw_size);
	CASE(c, case_is(want, "payload_sha256", sum.text));
	CASE(c, (const uint8_t *)f->payload == in->data + f->payload_off);
	check_metadata(c, avp_json_get(want, "metadata"), &f->metadata);
}

static void frame_case(const struct avp_json *c, unsigned int *good,
		       unsigned int *bad)
{
	bool refuse = case_is(c, "advice", "reject") ||
		      (case_is(c, "advice", "either") && refusal(c));
	struct bytes in = frame_bytes(c);
	struct content content;
	struct avp_reason why;
	struct avp_frame f;
	int err = decode(&in, &f, &content, &why);

	CASE(c, (err != 0) == refuse);
	if (!err) {
		check_frame(c, &in, &f, &content);
		++*good;
	} else {
		CASE(c, err == why.code && why.text[0]);
		if (case_str(c, "code").len)
			CASE(c, case_is(c, "code", avp_error_name(err)));
		++*bad;
	}
	free(content.owned);
	bytes_free(&in);
}

static void frames(void)
{
	unsigned int good = 0, bad = 0;

	for (const struct avp_json *c = vectors_first("frame"); c;
	     c = avp_json_next(c))
		frame_case(c, &good, &bad);
	CU_ASSERT(!vectors_are_ours() || (good > 200 && bad > 150));
}

/* The head alone, in a block of just its size, is judged the same. */
static void heads(void)
{
	for (const struct avp_json *c = vectors_first("frame"); c;
	     c = avp_json_next(c)) {
		struct bytes in = frame_bytes(c);
		struct avp_frame whole, part;
		int err = avp_frame_decode(in.data, in.len, &whole, NULL);
		uint64_t need = 0;
		uint8_t *head;

		if (!err) {
			head = malloc(whole.payload_off);
			memcpy(head, in.data, whole.payload_off);
			CASE(c, !avp_frame_decode_head(head, whole.payload_off,
						       in.len, &part, &need,
						       NULL));
			CASE(c, part.payload_bytes == whole.payload_bytes);
			CASE(c, part.dialect == whole.dialect);
			CASE(c, part.metadata.mode == whole.metadata.mode);
			CASE(c, avp_frame_decode_head(
					head, whole.payload_off - 1, in.len,
					&part, &need, NULL) == AVP_AGAIN);
			free(head);
		} else if (err != AVP_BAD_COMPRESSION && err != AVP_TOO_LARGE) {
			CASE(c,
			     avp_frame_decode_head(in.data, in.len, in.len,
						   &part, &need, NULL) == err);
		}
		bytes_free(&in);
	}
}

/* ---- encoding ----------------------------------------------------------- */

struct input {
	struct avp_metadata m;
	struct avp_pair *extra;
	uint32_t *shape;
};

static void read_input(const struct avp_json *meta, struct input *in)
{
	const struct avp_json *shape = avp_json_get(meta, "tensor_shape");
	const struct avp_json *extra = avp_json_get(meta, "extra");
	struct avp_metadata *m = &in->m;
	struct avp_str word = case_str(meta, "confidence_score");
	uint64_t n;

	memset(in, 0, sizeof(*in));
	m->session_id = case_str(meta, "session_id");
	m->source_agent_id = case_str(meta, "source_agent_id");
	m->target_agent_id = case_str(meta, "target_agent_id");
	m->model_id = case_str(meta, "model_id");
	m->avp_map_id = case_str(meta, "avp_map_id");
	m->hidden_dim = (uint32_t)case_int(meta, "hidden_dim");
	m->num_layers = (uint32_t)case_int(meta, "num_layers");
	m->payload_type = (uint32_t)case_int(meta, "payload_type");
	m->dtype = (uint32_t)case_int(meta, "dtype");
	m->mode = (uint32_t)case_int(meta, "mode");
	m->confidence_score =
		word.len ? strtof(word.data, NULL)
			 : (float)case_double(meta, "confidence_score");
	in->shape = calloc(avp_json_count(shape) + 1, sizeof(*in->shape));
	m->shape = in->shape;
	for (const struct avp_json *v = avp_json_first(shape); v;
	     v = avp_json_next(v))
		in->shape[m->shape_count++] =
			avp_json_uint64(v, &n) ? 0 : (uint32_t)n;
	in->extra = calloc(avp_json_count(extra) + 1, sizeof(*in->extra));
	m->extra = in->extra;
	for (const struct avp_json *v = avp_json_first(extra); v;
	     v = avp_json_next(v)) {
		in->extra[m->extra_count].key = avp_json_key_of(v);
		avp_json_string(v, &in->extra[m->extra_count++].value);
	}
}

static void encode_case(const struct avp_json *c, unsigned int *exact)
{
	const struct avp_json *encode = avp_json_get(c, "encode");
	struct bytes want = frame_bytes(c), payload, made = {0};
	struct avp_zstd *z = avp_zstd_new();
	int level = (int)case_int(encode, "zstd_level");
	struct content content = {0};
	struct avp_reason why;
	struct avp_frame f;
	struct input in;
	uint64_t room = 0, len = 0;

	payload = vectors_payload(avp_json_get(encode, "payload"), &want);
	read_input(avp_json_get(encode, "metadata"), &in);
	CASE(c, !avp_frame_compress_bound(&in.m, AVP_DIALECT_0_2, payload.len,
					  &room));
	made.data = malloc(room);
	if (level)
		CASE(c, !avp_frame_compress(z, (enum avp_compression)level,
					    &in.m, AVP_DIALECT_0_2,
					    payload.data, payload.len,
					    made.data, room, &len, NULL));
	else
		CASE(c, !avp_frame_encode(&in.m, AVP_DIALECT_0_2, payload.data,
					  payload.len, made.data, room, &len,
					  NULL));
	made.len = len;
	if (case_bool(c, "byte_exact")) {
		CASE(c, made.len == want.len &&
				!memcmp(made.data, want.data, want.len));
		++*exact;
	} else if (!level) {
		CASE(c, made.len == want.len);
	}
	if (CASE(c, !decode(&made, &f, &content, &why))) {
		CASE(c,
		     content.len == payload.len &&
			     !memcmp(content.data, payload.data, payload.len));
		check_metadata(
			c, avp_json_get(avp_json_get(c, "expect"), "metadata"),
			&f.metadata);
	}
	free(content.owned);
	free(in.shape);
	free(in.extra);
	avp_zstd_free(z);
	bytes_free(&made);
	bytes_free(&payload);
	bytes_free(&want);
}

static void encoder(void)
{
	unsigned int exact = 0;

	for (const struct avp_json *c = vectors_first("frame"); c;
	     c = avp_json_next(c))
		if (case_is(c, "group", "encode_ok"))
			encode_case(c, &exact);
	CU_ASSERT(!vectors_are_ours() || exact > 100);
}

/*
 * What the reference's encoder takes though its decoder cannot read it, we do
 * not write. Values that do not fit a C type are tried through avpctl, in
 * tests/integration/test_avpctl_frame.c.
 */
static void encoder_refuses_unknown_enums(void)
{
	unsigned int done = 0;

	for (const struct avp_json *c = vectors_first("encode_error"); c;
	     c = avp_json_next(c)) {
		struct input in;

		if (case_is(c, "verdict", "reject"))
			continue;
		read_input(avp_json_get(c, "input"), &in);
		CASE(c, avp_metadata_size(&in.m, AVP_DIALECT_0_2) < 0);
		free(in.shape);
		free(in.extra);
		done++;
	}
	CU_ASSERT(!vectors_are_ours() || done > 0);
}

/* ---- second opinion ----------------------------------------------------- */

static bool same(struct avp_str a, ProtobufCBinaryData b)
{
	return a.len == b.len && (!a.len || !memcmp(a.data, b.data, a.len));
}

static void compare(const struct avp_json *c, const struct avp_frame *f,
		    const Avp__Pb__Metadata *pb)
{
	const struct avp_metadata *m = &f->metadata;
	struct avp_extra_cursor extra = {.metadata = m};
	struct avp_shape_cursor shape = {.metadata = m};
	struct avp_pair pair;
	uint32_t dim;

	CASE(c, same(m->session_id, pb->session_id));
	CASE(c, same(m->source_agent_id, pb->source_agent_id));
	CASE(c, same(m->target_agent_id, pb->target_agent_id));
	CASE(c, same(m->model_id, pb->model_id));
	CASE(c, same(m->avp_map_id, pb->avp_map_id));
	CASE(c, m->hidden_dim == pb->hidden_dim);
	CASE(c, m->num_layers == pb->num_layers);
	CASE(c, m->payload_type == (uint32_t)pb->payload_type);
	CASE(c, m->dtype == (uint32_t)pb->dtype);
	CASE(c, !!(m->has & AVP_HAS_CHECKSUM) == !!pb->has_checksum_case);
	CASE(c, !memcmp(&m->confidence_score, &pb->confidence_score, 4));
	CASE(c, m->shape_count == pb->n_tensor_shape);
	for (size_t i = 0; i < pb->n_tensor_shape; i++)
		CASE(c, avp_shape_next(&shape, &dim) == 1 &&
				dim == pb->tensor_shape[i]);
	CASE(c, m->extra_count == pb->n_extra);
	for (size_t i = 0; i < pb->n_extra; i++) {
		CASE(c, avp_extra_next(&extra, &pair) == 1);
		CASE(c, same(pair.key, pb->extra[i]->key));
		CASE(c, same(pair.value, pb->extra[i]->value));
	}
}

/*
 * protobuf-c reads what we read alike. It knows no groups and takes a wrong
 * wire type for an error, so of the hand-made frames it cannot read some.
 */
static void second_opinion(void)
{
	unsigned int compared = 0, unread = 0;

	for (const struct avp_json *c = vectors_first("frame"); c;
	     c = avp_json_next(c)) {
		struct bytes in = frame_bytes(c);
		Avp__Pb__Metadata *pb;
		struct avp_frame f;

		if (avp_frame_decode(in.data, in.len, &f, NULL)) {
			bytes_free(&in);
			continue;
		}
		pb = avp__pb__metadata__unpack(NULL, f.metadata_length,
					       in.data + 12);
		if (pb) {
			compare(c, &f, pb);
			compared++;
		} else {
			CASE(c, !case_is(c, "group", "encode_ok"));
			unread++;
		}
		avp__pb__metadata__free_unpacked(pb, NULL);
		bytes_free(&in);
	}
	CU_ASSERT(!vectors_are_ours() || compared > 200);
	CU_ASSERT(unread < 10);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(frames),	      TEST(heads),
		TEST(encoder),	      TEST(encoder_refuses_unknown_enums),
		TEST(second_opinion), {0},
	};

	return test_main("frame_vectors", tests);
}
