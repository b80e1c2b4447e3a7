/* SPDX-License-Identifier: Apache-2.0 */
/* KV-cache payloads: the golden vectors, slices, layouts, and parts. */
#include <stdlib.h>
#include <string.h>

#include <avp/latent.h>

#include "tests/harness.h"
#include "tests/vectors.h"

static uint32_t dtype_of(struct avp_str name)
{
	static const char *const names[] = {"float32", "float16", "bfloat16"};

	for (uint32_t i = 0; i < 3; i++)
		if (avp_str_equal(name, avp_str_of(names[i])))
			return i;
	return 99;
}

static struct avp_kv_shape shape_of(const struct avp_json *header)
{
	return (struct avp_kv_shape){
		.num_layers = (uint32_t)case_int(header, "num_layers"),
		.num_kv_heads = (uint32_t)case_int(header, "num_kv_heads"),
		.head_dim = (uint32_t)case_int(header, "head_dim"),
		.seq_len = (uint32_t)case_int(header, "seq_len"),
		.dtype = dtype_of(case_str(header, "dtype")),
	};
}

static bool same_kv_shape(const struct avp_kv_shape *a,
			  const struct avp_kv_shape *b)
{
	return !memcmp(a, b, sizeof(*a));
}

/* A builder's buffer: its tensors begin on a 64-byte boundary. */
static uint8_t *aligned_payload(uint64_t bytes, void **to_free)
{
	uint8_t *p = aligned_alloc(64, (bytes + 64 + 63) & ~63ull);

	*to_free = p;
	return p + avp_kv_padding(0);
}

static void check_tensors(const struct avp_json *c, const struct avp_kv *kv)
{
	const struct avp_json *t = avp_json_first(avp_json_get(c, "tensors"));

	CASE(c, t != NULL);
	for (; t; t = avp_json_next(t)) {
		uint32_t layer = (uint32_t)case_int(t, "layer");
		enum avp_kv_which which =
			case_is(t, "which", "K") ? AVP_KV_K : AVP_KV_V;
		struct avp_tensor view;
		struct sha256_hex sum;

		CASE(c, !avp_kv_tensor(kv, layer, which, &view));
		CASE(c, avp_kv_offset(kv, layer, which) ==
				(uint64_t)case_int(t, "offset"));
		CASE(c, avp_tensor_bytes(&view) ==
				(uint64_t)case_int(t, "nbytes"));
		CASE(c, avp_tensor_contiguous(&view));
		sum = sha256_hex(view.data, avp_tensor_bytes(&view));
		CASE(c, case_is(t, "sha256", sum.text));
	}
}

/* Builds the same cache tensor by tensor: every byte must come out equal. */
static void check_rebuild(const struct avp_json *c, const struct avp_kv *kv,
			  const struct bytes *b)
{
	void *memory;
	uint8_t *to = aligned_payload(b->len, &memory);
	struct avp_kv made;

	CASE(c, !avp_kv_build(&made, to, b->len, &kv->shape, NULL));
	for (uint32_t i = 0; i < 2 * kv->shape.num_layers; i++) {
		struct avp_tensor x, y;

		avp_kv_tensor(kv, i / 2, i % 2, &x);
		avp_kv_tensor(&made, i / 2, i % 2, &y);
		CASE(c, !avp_tensor_copy(&y, &x, NULL));
	}
	CASE(c, !memcmp(to, b->data, b->len));
	free(memory);
}

static void vectors_kv(void)
{
	uint32_t n = 0;

	for (const struct avp_json *c = vectors_first("kv"); c;
	     c = avp_json_next(c), n++) {
		struct bytes b = vectors_file(case_str(c, "file"));
		const struct avp_kv_shape want =
			shape_of(avp_json_get(c, "header"));
		struct avp_reason why = {0};
		struct avp_kv kv;

		CASE(c, b.len == (size_t)case_int(c, "total_len"));
		if (CASE(c, !avp_kv_open(&kv, b.data, b.len, &why))) {
			CASE(c, same_kv_shape(&kv.shape, &want));
			check_tensors(c, &kv);
			check_rebuild(c, &kv, &b);
		}
		bytes_free(&b);
	}
	CU_ASSERT(!vectors_are_ours() || n == 17);
}

static void vectors_kv_edge(void)
{
	uint32_t n = 0;

	for (const struct avp_json *c = vectors_first("kv_edge"); c;
	     c = avp_json_next(c), n++) {
		struct avp_str file = case_str(c, "file");
		struct bytes b = file.len ? vectors_file(file)
					  : bytes_hex(case_str(c, "hex"));
		/* Where the advice is "either", we refuse. */
		const bool accept = case_is(c, "advice", "accept");
		struct avp_reason why = {0};
		struct avp_kv kv = {.first_layer = 77};
		int code = avp_kv_open(&kv, b.data, b.len, &why);

		CASE(c, (code == 0) == accept);
		if (code) {
			CASE(c, code == AVP_KV_SIZE || code == AVP_BAD_DTYPE);
			CASE(c, why.code == code && strlen(why.text) > 20);
			CASE(c, kv.first_layer == 77);
		} else {
			struct avp_kv_shape want = shape_of(avp_json_get(
				avp_json_get(c, "expect"), "header"));

			CASE(c, same_kv_shape(&kv.shape, &want));
		}
		bytes_free(&b);
	}
	CU_ASSERT(!vectors_are_ours() || n == 35);
}

/* Products that wrap to nothing, or to just what is there. */
static void sizes_that_wrap(void)
{
	static const struct avp_kv_shape shapes[] = {
		{1, 1u << 31, 4, 1u << 31, AVP_FLOAT32},
		{1, 1u << 31, 1, 1u << 31, AVP_FLOAT32},
		{1u << 31, 1u << 31, 1, 1, AVP_FLOAT32},
		{1u << 31, 1u << 16, 1u << 16, 1, AVP_FLOAT16},
	};
	uint8_t head[AVP_KV_HEADER_BYTES];
	struct avp_kv kv;
	uint64_t bytes;

	for (size_t i = 0; i < 4; i++) {
		memcpy(head, &shapes[i], 16);
		head[16] = (uint8_t)shapes[i].dtype;
		CU_ASSERT_EQUAL(avp_kv_open(&kv, head, sizeof(head), NULL),
				AVP_KV_SIZE);
		CU_ASSERT_EQUAL(avp_kv_bytes(&shapes[i], &bytes, NULL),
				AVP_TOO_LARGE);
	}
}

/* The header's bytes, of shapes far over any memory; odd dtypes are refused. */
static void vectors_kv_header(void)
{
	uint32_t n = 0;

	for (const struct avp_json *c = vectors_first("kv_header"); c;
	     c = avp_json_next(c), n++) {
		struct avp_kv_shape shape = shape_of(c);
		struct bytes b = bytes_hex(case_str(c, "hex"));
		void *memory;
		uint8_t *to = aligned_payload(64, &memory);
		struct avp_reason why;
		struct avp_kv kv;
		int code;

		memset(to, 'x', AVP_KV_HEADER_BYTES);
		code = avp_kv_build(&kv, to, UINT64_MAX, &shape, &why);
		if (shape.dtype > AVP_BFLOAT16) {
			CASE(c, code == AVP_BAD_DTYPE && to[0] == 'x');
		} else if (code == AVP_TOO_LARGE) {
			CASE(c, to[0] == 'x');
		} else {
			CASE(c, code == 0);
			CASE(c, !memcmp(to, b.data, AVP_KV_HEADER_BYTES));
		}
		free(memory);
		bytes_free(&b);
	}
	CU_ASSERT(!vectors_are_ours() || n == 6);
}

/*
 * What the reference serialises by accident we refuse: other dtypes, a batch,
 * no layers, layers of unequal length. bfloat16, which it cannot, we can.
 */
static void vectors_kv_serialize_edge(void)
{
	const struct avp_kv_shape shape = {2, 2, 4, 3, AVP_FLOAT16};
	const uint64_t batch[] = {2, 2, 2, 3, 4}, flat[] = {2, 3};
	const uint64_t shorter[] = {2, 2, 2, 4};
	static uint16_t numbers[192];
	struct avp_kv_shape odd;
	struct avp_tensor t;
	struct avp_kv kv;
	void *memory;
	uint8_t *to = aligned_payload(4096, &memory);

	VECTORS("kv_serialize_edge", 7);
	odd = shape, odd.dtype = AVP_INT8;
	CU_ASSERT_EQUAL(avp_kv_build(&kv, to, 4096, &odd, NULL), AVP_BAD_DTYPE);
	odd = shape, odd.num_layers = 0;
	CU_ASSERT_EQUAL(avp_kv_build(&kv, to, 4096, &odd, NULL), AVP_KV_SIZE);
	odd = shape, odd.dtype = AVP_BFLOAT16;
	CU_ASSERT_EQUAL(avp_kv_build(&kv, to, 4096, &odd, NULL), 0);
	CU_ASSERT_EQUAL(avp_kv_build(&kv, to, 4096, &shape, NULL), 0);
	avp_tensor_init(&t, numbers, AVP_FLOAT16, 5, batch);
	CU_ASSERT_EQUAL(avp_kv_from_stacked(&kv, 0, &t, NULL),
			AVP_SHAPE_MISMATCH);
	avp_tensor_init(&t, numbers, AVP_FLOAT16, 2, flat);
	CU_ASSERT_EQUAL(avp_kv_from_stacked(&kv, 0, &t, NULL),
			AVP_SHAPE_MISMATCH);
	avp_tensor_init(&t, numbers, AVP_FLOAT16, 4, shorter);
	CU_ASSERT_EQUAL(avp_kv_from_stacked(&kv, 1, &t, NULL),
			AVP_SHAPE_MISMATCH);
	CU_ASSERT_EQUAL(avp_kv_build(&kv, to + 1, 4096, &shape, NULL),
			AVP_USAGE);
	CU_ASSERT_EQUAL(avp_kv_build(&kv, to, 40, &shape, NULL), AVP_TOO_LARGE);
	free(memory);
}

/* ---- a cache whose every number says where it belongs ------------------- */

#define LAYERS 3
#define HEADS  4
#define DIM    8
#define TOKENS 37

static float mark(uint32_t layer, uint32_t which, uint64_t head, uint64_t token,
		  uint64_t dim)
{
	return (float)(layer * 2 + which) * 10000 + (float)head * 1000 +
	       (float)token * 10 + (float)dim;
}

static void fill(struct avp_kv *kv)
{
	for (uint32_t i = 0; i < 2 * kv->shape.num_layers; i++) {
		struct avp_tensor t;
		float *x;

		avp_kv_tensor(kv, kv->first_layer + i / 2, i % 2, &t);
		x = t.data;
		for (uint64_t h = 0; h < HEADS; h++)
			for (uint64_t s = 0; s < TOKENS; s++)
				for (uint64_t d = 0; d < DIM; d++)
					*x++ = mark(kv->first_layer + i / 2,
						    i % 2, h, s, d);
	}
}

static const struct avp_kv_shape marked = {LAYERS, HEADS, DIM, TOKENS,
					   AVP_FLOAT32};

static void *marked_cache(struct avp_kv *kv, uint8_t **payload, uint64_t *bytes)
{
	void *memory;

	avp_kv_bytes(&marked, bytes, NULL);
	*payload = aligned_payload(*bytes, &memory);
	CU_ASSERT_EQUAL_FATAL(avp_kv_build(kv, *payload, *bytes, &marked, NULL),
			      0);
	fill(kv);
	return memory;
}

static float at(const struct avp_tensor *t, uint64_t i, uint64_t j, uint64_t k)
{
	return *(const float *)(const void *)((const char *)t->data +
					      (int64_t)i * t->stride[0] +
					      (int64_t)j * t->stride[1] +
					      (int64_t)k * t->stride[2]);
}

static void slices(void)
{
	struct avp_kv_range range = {1, 2, 30, 0};
	struct avp_tensor t, one;
	struct avp_kv kv;
	uint8_t *payload;
	uint64_t bytes;
	void *memory = marked_cache(&kv, &payload, &bytes);

	CU_ASSERT_EQUAL((uintptr_t)kv.tensors % 64, 0);
	CU_ASSERT_EQUAL(avp_kv_slice(&kv, 2, AVP_KV_V, &range, &t), 0);
	CU_ASSERT_EQUAL(t.shape[0], 2);
	CU_ASSERT_EQUAL(t.shape[1], 7);
	CU_ASSERT_EQUAL(t.shape[2], DIM);
	CU_ASSERT_EQUAL(at(&t, 1, 6, 3), mark(2, 1, 2, 36, 3));
	CU_ASSERT_FALSE(avp_tensor_contiguous(&t));
	CU_ASSERT_EQUAL(avp_tensor_select(&t, 0, 1, &one), 0);
	CU_ASSERT_EQUAL(one.rank, 2);
	CU_ASSERT(avp_tensor_contiguous(&one));
	CU_ASSERT_EQUAL(*(float *)one.data, mark(2, 1, 2, 30, 0));
	range.first_token = TOKENS;
	CU_ASSERT_EQUAL(avp_kv_slice(&kv, 2, AVP_KV_V, &range, &t), AVP_USAGE);
	range = (struct avp_kv_range){3, 2, 0, 0};
	CU_ASSERT_EQUAL(avp_kv_slice(&kv, 2, AVP_KV_V, &range, &t), AVP_USAGE);
	CU_ASSERT_EQUAL(avp_kv_tensor(&kv, LAYERS, AVP_KV_K, &t), AVP_USAGE);
	CU_ASSERT_EQUAL(avp_tensor_slice(&t, 3, 0, 1, &t), AVP_USAGE);
	CU_ASSERT_EQUAL(avp_tensor_slice(&t, 0, 1, UINT64_MAX, &t), AVP_USAGE);
	CU_ASSERT_EQUAL(avp_tensor_select(&t, 0, 2, &t), AVP_USAGE);
	free(memory);
}

static void pages_there_and_back(void)
{
	static const uint32_t table[] = {5, 0, 3};
	static float pool[6 * AVP_KV_BLOCK_TOKENS * HEADS * DIM];
	struct avp_kv_pages pages = {.pool = pool,
				     .dtype = AVP_FLOAT32,
				     .blocks = 6,
				     .table = table,
				     .table_len = 3};
	uint32_t wrong[] = {5, 6, 3};
	struct avp_kv kv, back;
	struct avp_reason why;
	uint8_t *payload, *to;
	uint64_t bytes;
	void *memory = marked_cache(&kv, &payload, &bytes), *memory2;

	CU_ASSERT_EQUAL(avp_kv_to_pages(&kv, 1, AVP_KV_K, &pages, NULL), 0);
	/* Token 20 is row 4 of the table's second block, which is block 0. */
	CU_ASSERT_EQUAL(pool[(4 * HEADS + 3) * DIM + 2], mark(1, 0, 3, 20, 2));
	to = aligned_payload(bytes, &memory2);
	avp_kv_build(&back, to, bytes, &marked, NULL);
	memset(back.tensors, 0, bytes - AVP_KV_HEADER_BYTES);
	CU_ASSERT_EQUAL(avp_kv_from_pages(&back, 1, AVP_KV_K, &pages, NULL), 0);
	CU_ASSERT_EQUAL(memcmp(payload + avp_kv_offset(&kv, 1, AVP_KV_K),
			       to + avp_kv_offset(&kv, 1, AVP_KV_K),
			       kv.tensor_bytes),
			0);
	pages.table_len = 2;
	CU_ASSERT_EQUAL(avp_kv_to_pages(&kv, 1, AVP_KV_K, &pages, &why),
			AVP_SHAPE_MISMATCH);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "need 3 blocks"));
	pages.table_len = 3, pages.table = wrong;
	CU_ASSERT_EQUAL(avp_kv_from_pages(&back, 1, AVP_KV_K, &pages, &why),
			AVP_SHAPE_MISMATCH);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "entry 1 is 6"));
	free(memory);
	free(memory2);
}

/* A bfloat16 pool in [head][token] order inside a block: strides and dtype. */
static void pages_of_another_kind(void)
{
	static const uint32_t table[] = {1, 0, 2, 3, 4};
	static uint16_t pool[5 * HEADS * 8 * DIM];
	const int64_t token = 2 * DIM, head = 8 * token, block = HEADS * head;
	struct avp_kv_pages pages = {pool,  AVP_BFLOAT16, 8,	 5,   5,
				     table, block,	  token, head};
	float x;
	struct avp_kv kv;
	uint8_t *payload;
	uint64_t bytes;
	void *memory = marked_cache(&kv, &payload, &bytes);

	CU_ASSERT_EQUAL(avp_kv_to_pages(&kv, 0, AVP_KV_K, &pages, NULL), 0);
	avp_convert(&x, AVP_FLOAT32, pool + (2 * 8 + 5) * DIM + 7, AVP_BFLOAT16,
		    1);
	/* Block 0 holds tokens 8 to 15: head 2, token 13, 7 is 2137 -> 2144. */
	CU_ASSERT_EQUAL(x, 2144.0f);
	free(memory);
}

static void stacked_in_any_order(void)
{
	static float stacked[2 * TOKENS * HEADS * DIM];
	const uint64_t shape[] = {2, TOKENS, HEADS, DIM};
	struct avp_tensor t;
	struct avp_kv kv, back;
	uint8_t *payload, *to;
	uint64_t bytes;
	void *memory = marked_cache(&kv, &payload, &bytes), *memory2;

	avp_tensor_init(&t, stacked, AVP_FLOAT32, 4, shape);
	CU_ASSERT_EQUAL(avp_tensor_swap(&t, 1, 2, &t), 0);
	CU_ASSERT_EQUAL(avp_kv_to_stacked(&kv, 2, &t, NULL), 0);
	CU_ASSERT_EQUAL(stacked[((TOKENS + 9) * HEADS + 1) * DIM + 4],
			mark(2, 1, 1, 9, 4));
	to = aligned_payload(bytes, &memory2);
	avp_kv_build(&back, to, bytes, &marked, NULL);
	CU_ASSERT_EQUAL(avp_kv_from_stacked(&back, 2, &t, NULL), 0);
	CU_ASSERT_EQUAL(memcmp(payload + avp_kv_offset(&kv, 2, AVP_KV_K),
			       to + avp_kv_offset(&kv, 2, AVP_KV_K),
			       2 * kv.tensor_bytes),
			0);
	free(memory);
	free(memory2);
}

/* ---- parts --------------------------------------------------------------- */

static void parts_of_a_large_cache(void)
{
	/* Llama-3.1-70B, 131,072 tokens in bfloat16: 40 GiB. */
	const struct avp_kv_shape whole = {80, 8, 128, 131072, AVP_BFLOAT16};
	struct avp_kv_shape shape, huge = whole;
	struct avp_kv_part part;
	uint32_t layers, first = 0;
	uint64_t bytes;

	CU_ASSERT_EQUAL(avp_kv_part_layers(&whole, 0, &layers, NULL), 0);
	CU_ASSERT_EQUAL(layers, 7);
	for (uint32_t i = 0; first < 80; i++) {
		CU_ASSERT_EQUAL_FATAL(
			avp_kv_part_at(&whole, layers, i, &part, &shape), 0);
		CU_ASSERT_EQUAL(part.part, i);
		CU_ASSERT_EQUAL(part.parts, 12);
		CU_ASSERT_EQUAL(part.first_layer, first);
		CU_ASSERT_EQUAL(shape.num_layers, part.layers);
		CU_ASSERT_EQUAL(avp_kv_bytes(&shape, &bytes, NULL), 0);
		CU_ASSERT(bytes <= UINT32_MAX);
		first += part.layers;
	}
	CU_ASSERT_EQUAL(avp_kv_part_at(&whole, layers, 12, &part, &shape),
			AVP_USAGE);
	huge.seq_len = 2u << 20;
	CU_ASSERT_EQUAL(avp_kv_part_layers(&huge, 0, &layers, NULL),
			AVP_TOO_LARGE);
}

static int read_back(const struct avp_kv_part_extra *extra, uint32_t pairs,
		     struct avp_kv_part *part, struct avp_reason *why)
{
	struct avp_metadata m = {.payload_type = AVP_KV_CACHE,
				 .extra = extra->pairs,
				 .extra_count = pairs};

	return avp_kv_part_read(&m, part, why);
}

static void part_keys(void)
{
	const struct avp_kv_part part = {2, 0, 14, 7, 80};
	struct avp_kv_part got = {9, 9, 9, 9, 9};
	struct avp_kv_part_extra extra;
	struct avp_reason why;

	avp_kv_part_write(&part, &extra);
	CU_ASSERT_EQUAL(read_back(&extra, 5, &got, NULL), 1);
	CU_ASSERT_EQUAL(memcmp(&part, &got, sizeof(part)), 0);
	CU_ASSERT_EQUAL(read_back(&extra, 0, &got, NULL), 0);
	CU_ASSERT_EQUAL(read_back(&extra, 4, &got, &why), AVP_BAD_METADATA);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "kv.total_layers is missing"));
	extra.pairs[3].value = avp_str_of("67");
	CU_ASSERT_EQUAL(read_back(&extra, 5, &got, &why), AVP_BAD_METADATA);
	for (size_t i = 0; i < 6; i++) {
		static const char *const bad[] = {"",	"-1",  "4294967296",
						  "07", "1e3", " 7"};

		extra.pairs[3].value = avp_str_of(bad[i]);
		CU_ASSERT_EQUAL(read_back(&extra, 5, &got, &why),
				AVP_BAD_METADATA);
	}
	CU_ASSERT_EQUAL(got.total_layers, 80);
}

/* The receiver uses each layer as it comes, in any order, each only once. */
static void layer_by_layer(void)
{
	static const uint32_t order[] = {1, 0, 2};
	struct avp_kv_assembly a = {0};
	struct avp_kv_shape shape;
	struct avp_kv_part part;
	struct avp_reason why;
	uint64_t bytes;

	for (uint32_t i = 0; i < LAYERS; i++) {
		struct avp_kv sent, got;
		struct avp_tensor v;
		void *memory;
		uint8_t *payload;

		avp_kv_part_at(&marked, 1, order[i], &part, &shape);
		avp_kv_bytes(&shape, &bytes, NULL);
		payload = aligned_payload(bytes, &memory);
		avp_kv_build(&sent, payload, bytes, &shape, NULL);
		sent.first_layer = part.first_layer;
		fill(&sent);
		CU_ASSERT_FALSE(avp_kv_assembly_has(&a, order[i]));
		CU_ASSERT_EQUAL(avp_kv_assembly_add(&a, &part, payload, bytes,
						    &got, NULL),
				i == LAYERS - 1);
		CU_ASSERT(avp_kv_assembly_has(&a, order[i]));
		CU_ASSERT_EQUAL(avp_kv_tensor(&got, order[i], AVP_KV_V, &v), 0);
		CU_ASSERT_EQUAL(at(&v, 3, 30, 7), mark(order[i], 1, 3, 30, 7));
		CU_ASSERT_EQUAL(avp_kv_assembly_add(&a, &part, payload, bytes,
						    &got, &why),
				AVP_SHAPE_MISMATCH);
		CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "came before"));
		free(memory);
	}
	CU_ASSERT_EQUAL(a.layers_seen, LAYERS);
}

static void parts_that_do_not_fit(void)
{
	struct avp_kv_assembly a = {0}, before;
	struct avp_kv_part part = {0, 2, 0, 1, 2};
	const struct avp_kv_shape one = {1, 2, 2, 2, AVP_FLOAT32};
	const struct avp_kv_shape other = {1, 2, 2, 4, AVP_FLOAT16};
	struct avp_kv kv;
	void *memory;
	uint8_t *p = aligned_payload(4096, &memory);
	uint64_t bytes;

	avp_kv_bytes(&one, &bytes, NULL);
	avp_kv_build(&kv, p, 4096, &one, NULL);
	CU_ASSERT_EQUAL(avp_kv_assembly_add(&a, &part, p, bytes, &kv, NULL), 0);
	before = a;
	part = (struct avp_kv_part){1, 2, 1, 1, 3};
	CU_ASSERT_EQUAL(avp_kv_assembly_add(&a, &part, p, bytes, &kv, NULL),
			AVP_SHAPE_MISMATCH);
	part = (struct avp_kv_part){1, 3, 1, 1, 2};
	CU_ASSERT_EQUAL(avp_kv_assembly_add(&a, &part, p, bytes, &kv, NULL),
			AVP_SHAPE_MISMATCH);
	part = (struct avp_kv_part){1, 2, 1, 1, 2};
	avp_kv_build(&kv, p, 4096, &other, NULL);
	CU_ASSERT_EQUAL(avp_kv_assembly_add(&a, &part, p, bytes, &kv, NULL),
			AVP_SHAPE_MISMATCH);
	part = (struct avp_kv_part){1, 2, 1, 1, 1u << 20};
	CU_ASSERT_EQUAL(avp_kv_assembly_add(&a, &part, p, bytes, &kv, NULL),
			AVP_TOO_LARGE);
	CU_ASSERT_EQUAL(memcmp(&a, &before, sizeof(a)), 0);
	free(memory);
}

/* Element by element, of each size, into another dtype, and of no element. */
static void transposed_copies(void)
{
	const uint64_t shape[] = {5, 7}, turned[] = {7, 5}, none[] = {0, 7};
	int8_t bytes[35], back[35];
	float wide[35], flipped[35];
	struct avp_tensor from, to;

	for (int i = 0; i < 35; i++)
		bytes[i] = (int8_t)(3 * i - 50);
	for (uint32_t dtype = 0; dtype < 4; dtype++) {
		avp_convert(wide, dtype, bytes, AVP_INT8, 35);
		avp_tensor_init(&from, wide, dtype, 2, shape);
		avp_tensor_init(&to, flipped, dtype, 2, turned);
		CU_ASSERT_EQUAL(avp_tensor_copy(&to, &from, NULL),
				AVP_SHAPE_MISMATCH);
		avp_tensor_swap(&from, 0, 1, &from);
		CU_ASSERT_FALSE(avp_tensor_contiguous(&from));
		CU_ASSERT_EQUAL(avp_tensor_copy(&to, &from, NULL), 0);
		avp_convert(back, AVP_INT8, flipped, dtype, 35);
		for (int i = 0; i < 35; i++)
			CU_ASSERT_EQUAL(back[i % 7 * 5 + i / 7], bytes[i]);
		/* And back again, through int8. */
		avp_tensor_init(&from, back, AVP_INT8, 2, shape);
		avp_tensor_swap(&to, 0, 1, &to);
		CU_ASSERT_EQUAL(avp_tensor_copy(&from, &to, NULL), 0);
		CU_ASSERT_EQUAL(memcmp(back, bytes, 35), 0);
	}
	avp_tensor_init(&from, NULL, AVP_INT8, 2, none);
	avp_tensor_init(&to, NULL, AVP_FLOAT32, 2, none);
	CU_ASSERT_EQUAL(avp_tensor_copy(&to, &from, NULL), 0);
	CU_ASSERT(avp_tensor_contiguous(&to));
}

static void views_of_frames(void)
{
	static const float numbers[12];
	const uint32_t dims[] = {3, 4},
		       huge[] = {UINT32_MAX, UINT32_MAX, UINT32_MAX};
	struct avp_metadata m = {
		.dtype = AVP_FLOAT32, .shape = dims, .shape_count = 2};
	struct avp_tensor t;
	struct avp_reason why;

	CU_ASSERT_EQUAL(avp_tensor_of_frame(&m, numbers, 48, &t, NULL), 0);
	CU_ASSERT_EQUAL(t.rank, 2);
	CU_ASSERT_EQUAL(t.stride[0], 16);
	CU_ASSERT_EQUAL(avp_tensor_of_frame(&m, numbers, 47, &t, &why),
			AVP_SHAPE_MISMATCH);
	m.shape = huge, m.shape_count = 3;
	CU_ASSERT_EQUAL(avp_tensor_of_frame(&m, numbers, 48, &t, &why),
			AVP_SHAPE_MISMATCH);
	m.shape_count = 0;
	CU_ASSERT_EQUAL(avp_tensor_of_frame(&m, numbers, 48, &t, NULL), 0);
	CU_ASSERT_EQUAL(t.shape[0], 12);
	CU_ASSERT_EQUAL(avp_tensor_of_frame(&m, numbers, 46, &t, NULL),
			AVP_SHAPE_MISMATCH);
	m.dtype = 9;
	CU_ASSERT_EQUAL(avp_tensor_of_frame(&m, numbers, 48, &t, NULL),
			AVP_BAD_DTYPE);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(vectors_kv),
		TEST(vectors_kv_edge),
		TEST(sizes_that_wrap),
		TEST(vectors_kv_header),
		TEST(vectors_kv_serialize_edge),
		TEST(slices),
		TEST(pages_there_and_back),
		TEST(pages_of_another_kind),
		TEST(stacked_in_any_order),
		TEST(parts_of_a_large_cache),
		TEST(part_keys),
		TEST(layer_by_layer),
		TEST(parts_that_do_not_fit),
		TEST(transposed_copies),
		TEST(views_of_frames),
		{0},
	};

	return test_main("kv", tests);
}
