/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the codec costs: medians over batches, in nanoseconds a call.
 *
 *	build/tests/bench/bench_codec [FILTER]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <avp/codec.h>

#include "bench.h"

#define BATCHES	   201
#define BIG	   ((uint64_t)64 << 20)
#define HEADROOM   4096
#define ZSTD_BYTES ((uint64_t)4 << 20)

static uint8_t *big; /* HEADROOM, then BIG bytes of payload */
static uint8_t small[256], large[8192];
static size_t small_len, large_len;
static struct avp_metadata bench_meta, full_meta;
static struct avp_frame_template template;
static struct avp_frame frame;
static struct avp_zstd *zstd;
static uint8_t *packed, *unpacked;
static uint64_t packed_len;
static volatile uint64_t sink;

#define USE(value)                                 \
	do {                                       \
		sink += (uint64_t)(value);         \
		__asm__ volatile("" ::: "memory"); \
	} while (0)

static void decode_head_small(void)
{
	uint64_t need;

	USE(avp_frame_decode_head(small, small_len, 64 + small_len, &frame,
				  &need, NULL));
}

static void decode_head_full(void)
{
	uint64_t need;

	USE(avp_frame_decode_head(large, large_len, 64 + large_len, &frame,
				  &need, NULL));
}

static void decode_64mib(void)
{
	USE(avp_frame_decode(big, BIG, &frame, NULL));
}

static void encode_head_small(void)
{
	USE(avp_frame_head_encode(&bench_meta, AVP_DIALECT_0_2, 64, large, 256,
				  NULL));
}

static void encode_before_64mib(void)
{
	void *at;

	USE(avp_frame_encode_before(&bench_meta, AVP_DIALECT_0_2,
				    big + HEADROOM, BIG - HEADROOM, HEADROOM,
				    &at, NULL));
}

static void encode_full(void)
{
	static uint8_t out[8192];

	USE(avp_frame_head_encode(&full_meta, AVP_DIALECT_0_2, 64, out,
				  sizeof(out), NULL));
}

static void stamp(void)
{
	USE(avp_frame_template_stamp(&template, 64, small));
}

static void crc_16mib(void)
{
	USE(avp_crc32(big + HEADROOM, 16 << 20));
}

static void compress_fast(void)
{
	USE(avp_zstd_compress(zstd, AVP_COMPRESS_FAST, unpacked, ZSTD_BYTES,
			      packed, avp_zstd_bound(ZSTD_BYTES), &packed_len,
			      NULL));
}

static void decompress(void)
{
	uint64_t n;

	USE(avp_zstd_decompress(zstd, packed, packed_len, unpacked, ZSTD_BYTES,
				&n, NULL));
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void measure(const char *name, void (*call)(void), int calls)
{
	static double batch[BATCHES];
	int batches = calls > 1 ? BATCHES : 11;

	for (int b = 0; b < batches; b++) {
		double start = now_ns();

		for (int i = 0; i < calls; i++)
			call();
		batch[b] = (now_ns() - start) / calls;
	}
	qsort(batch, (size_t)batches, sizeof(*batch), compare);
	printf("%-20s min %11.1f  p50 %11.1f  p90 %11.1f ns\n", name, batch[0],
	       batch[batches / 2], batch[batches * 9 / 10]);
}

static void prepare(void)
{
	static const struct avp_pair extra[] = {
		{{"task_id", 7}, {"1d1be0a5", 8}},
		{{"kv.part", 7}, {"1", 1}},
	};
	void *at;
	int n;

	bench_meta.model_id = avp_str_of("bench");
	bench_meta.hidden_dim = 4096;
	bench_meta.shape_count = 1;
	bench_meta.shape_inline[0] = 4096;
	full_meta = bench_meta;
	full_meta.session_id = avp_str_of("1bec3571e5a86f4d67876c71c3d48575");
	full_meta.source_agent_id = avp_str_of("planner");
	full_meta.target_agent_id = avp_str_of("solver");
	full_meta.model_id = avp_str_of("Qwen/Qwen2.5-0.5B-Instruct");
	full_meta.num_layers = 24;
	full_meta.payload_type = AVP_KV_CACHE;
	full_meta.dtype = AVP_BFLOAT16;
	full_meta.confidence_score = 0.5f;
	full_meta.extra = extra;
	full_meta.extra_count = 2;
	n = avp_frame_head_encode(&bench_meta, AVP_DIALECT_0_2, 64, small,
				  sizeof(small), NULL);
	small_len = (size_t)n;
	n = avp_frame_head_encode(&full_meta, AVP_DIALECT_0_2, 64, large,
				  sizeof(large), NULL);
	large_len = (size_t)n;
	avp_frame_template_init(&template, &bench_meta, AVP_DIALECT_0_2, NULL);
	big = malloc(BIG);
	unpacked = malloc(ZSTD_BYTES);
	packed = malloc(avp_zstd_bound(ZSTD_BYTES));
	zstd = avp_zstd_new();
	if (!big || !unpacked || !packed || !zstd)
		abort();
	memset(big, 1, BIG);
	for (uint64_t i = 0; i < ZSTD_BYTES; i++)
		unpacked[i] = (uint8_t)(i * i >> 7);
	n = avp_frame_encode_before(&bench_meta, AVP_DIALECT_0_2,
				    big + HEADROOM, BIG - HEADROOM, HEADROOM,
				    &at, NULL);
	memmove(big, at, (size_t)n); /* decode_64mib reads it from there */
	printf("heads of %zu and %zu bytes, metadata struct %zu, frame %zu\n",
	       small_len, large_len, sizeof(struct avp_metadata),
	       sizeof(struct avp_frame));
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*call)(void);
		int calls;
	} all[] = {
		{"decode_head_small", decode_head_small, 10000},
		{"decode_head_full", decode_head_full, 10000},
		{"decode_64MiB", decode_64mib, 1000},
		{"encode_head_small", encode_head_small, 10000},
		{"encode_head_full", encode_full, 10000},
		{"encode_before_64MiB", encode_before_64mib, 1000},
		{"template_stamp", stamp, 10000},
		{"crc32_16MiB", crc_16mib, 1},
		{"zstd_fast_4MiB", compress_fast, 1},
		{"zstd_expand_4MiB", decompress, 1},
	};

	prepare();
	compress_fast();
	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		if (argc < 2 || strstr(all[i].name, argv[1]))
			measure(all[i].name, all[i].call, all[i].calls);
	return 0;
}
