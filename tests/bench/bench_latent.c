/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_latent [convert|pages|apply|realign|soft]: what latent/ reaches,
 * beside what the machine can do, interleaved with it. One JSON object a line;
 * medians. Bandwidths count bytes read and written.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cblas.h>

#include <avp/latent.h>

#include "latent/convert.h"

#define MIB	(1u << 20)
#define REPEATS 15

static volatile float sink; /* so that reads are not left out */

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int ascending(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *x, int n)
{
	qsort(x, (size_t)n, sizeof(*x), ascending);
	return x[n / 2];
}

static void *touched(size_t bytes)
{
	float *p =
		aligned_alloc(2 * MIB, (bytes + 2 * MIB - 1) & ~(2 * MIB - 1));

	if (!p) {
		perror("bench_latent");
		exit(3);
	}
	for (size_t i = 0; i < bytes / 4; i++)
		p[i] = (float)((i * 2654435761u) % 1000) * 0.001f - 0.5f;
	return p;
}

struct pair {
	const char *name;
	uint32_t to, from;
};

/* 64 MiB of float32 on the one side, half of it on the other. */
static void convert_one(const struct pair *pair, void *wide, void *other,
			void *narrow)
{
	const size_t count = 64u * MIB / 4;
	const int widening = pair->to == AVP_FLOAT32;
	double copy[REPEATS], convert[REPEATS], c, v;

	avp_convert(narrow, widening ? pair->from : pair->to, wide, AVP_FLOAT32,
		    count);
	for (int i = 0; i < REPEATS; i++) {
		double t = now();

		memcpy(other, wide, 64u * MIB);
		copy[i] = now() - t;
		t = now();
		avp_convert(widening ? wide : narrow, pair->to,
			    widening ? narrow : wide, pair->from, count);
		convert[i] = now() - t;
	}
	c = 128 * (double)MIB / median(copy, REPEATS);
	v = 96 * (double)MIB / median(convert, REPEATS);
	printf("{\"bench\":\"convert\",\"pair\":\"%s\",\"kernels\":\"%s\","
	       "\"bytes_per_second\":%.3g,\"memcpy\":%.3g,\"ratio\":%.2f}\n",
	       pair->name, avp__convert_best()->name, v, c, v / c);
}

static void bench_convert(void)
{
	static const struct pair pairs[] = {
		{"f32->bf16", AVP_BFLOAT16, AVP_FLOAT32},
		{"bf16->f32", AVP_FLOAT32, AVP_BFLOAT16},
		{"f32->f16", AVP_FLOAT16, AVP_FLOAT32},
		{"f16->f32", AVP_FLOAT32, AVP_FLOAT16},
	};
	void *wide = touched(64u * MIB), *other = touched(64u * MIB);
	void *narrow = touched(32u * MIB);

	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
		convert_one(&pairs[i], wide, other, narrow);
	free(wide);
	free(other);
	free(narrow);
}

/* ---- KV-caches ---------------------------------------------------------- */

/* K of one layer of Llama-3.1-8B, 32,768 tokens: 64 MiB in blocks of 16. */
static void bench_pages(void)
{
	const struct avp_kv_shape shape = {1, 8, 128, 32768, AVP_BFLOAT16};
	const uint32_t blocks = 32768 / AVP_KV_BLOCK_TOKENS;
	char *memory = touched(130u * MIB), *pool = touched(64u * MIB);
	void *other = touched(64u * MIB);
	uint32_t *table = malloc(blocks * sizeof(*table));
	struct avp_kv_pages pages = {.pool = pool,
				     .dtype = AVP_BFLOAT16,
				     .blocks = blocks,
				     .table = table,
				     .table_len = blocks};
	double copy[REPEATS], gather[REPEATS], c, g;
	struct avp_kv kv;

	for (uint32_t i = 0; i < blocks; i++)
		table[i] = (uint32_t)((uint64_t)i * 1021 % blocks);
	if (avp_kv_build(&kv, memory + avp_kv_padding(0), 129u * MIB, &shape,
			 NULL))
		exit(1);
	for (int i = 0; i < REPEATS; i++) {
		double t = now();

		memcpy(other, pool, 64u * MIB);
		copy[i] = now() - t;
		t = now();
		avp_kv_from_pages(&kv, 0, AVP_KV_K, &pages, NULL);
		gather[i] = now() - t;
	}
	c = 128 * (double)MIB / median(copy, REPEATS);
	g = 128 * (double)MIB / median(gather, REPEATS);
	printf("{\"bench\":\"pages\",\"bytes_per_second\":%.3g,"
	       "\"memcpy\":%.3g,\"ratio\":%.2f}\n",
	       g, c, g / c);
	free(memory), free(pool), free(other), free(table);
}

/* ---- realignment -------------------------------------------------------- */

static struct avp_tensor matrix(const void *data, uint32_t dtype, uint64_t rows,
				uint64_t columns)
{
	const uint64_t shape[] = {rows, columns};
	struct avp_tensor t;

	avp_tensor_init(&t, data, dtype, 2, shape);
	return t;
}

/* FLOP/s of a square product, the best that BLAS gives here. */
static double gemm_rate(const float *a, const float *b, float *c, int n)
{
	const double t = now();

	cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, n, n, 1.0f, a,
		    n, b, n, 0.0f, c, n);
	return 2.0 * n * n * n / (now() - t);
}

/*
 * The least work: V d (d+1) for the triangle of the Gram matrix, 2 V d^2 for
 * E_out^T E_in, d^3 / 3 for Cholesky, 2 d^3 for the two solves.
 */
static void bench_realign(void)
{
	enum { VOCAB = 32000, DIM = 2048, SQUARE = 4096, RUNS = 5 };
	const double v = VOCAB, d = DIM;
	const double work =
		v * d * (d + 1) + 2 * v * d * d + d * d * d / 3 + 2 * d * d * d;
	float *in = touched((size_t)VOCAB * DIM * 4);
	float *out = touched((size_t)VOCAB * DIM * 4);
	float *w = touched((size_t)DIM * DIM * 4);
	float *c = touched((size_t)SQUARE * SQUARE * 4);
	struct avp_tensor e_in = matrix(in, AVP_FLOAT32, VOCAB, DIM);
	struct avp_tensor e_out = matrix(out, AVP_FLOAT32, VOCAB, DIM);
	struct avp_realign_result r;
	double rate[RUNS], gemm[RUNS], x, g;
	uint32_t raised = 0;
	uint64_t s = 1;

	for (size_t i = 0; i < (size_t)VOCAB * DIM; i++) {
		s = s * 6364136223846793005u + 1442695040888963407u;
		out[i] = ((float)(s >> 40) * 0x1p-24f - 0.5f) * 0.07f;
	}
	gemm_rate(in, out, c, SQUARE);
	for (int i = 0; i < RUNS; i++) {
		double t;

		gemm[i] = gemm_rate(in, out, c, SQUARE);
		t = now();
		avp_realign_compute(&e_in, &e_out, NULL, w, &r, NULL);
		rate[i] = work / (now() - t);
		raised += r.raised;
	}
	x = median(rate, RUNS), g = median(gemm, RUNS);
	printf("{\"bench\":\"realign\",\"vocab\":%d,\"dim\":%d,"
	       "\"seconds\":%.3f,\"flops\":%.4g,\"sgemm\":%.4g,"
	       "\"ratio\":%.2f,\"raised\":%u,\"threads\":%d}\n",
	       VOCAB, DIM, work / x, x, g, x / g, raised,
	       openblas_get_num_threads());
	free(in), free(out), free(w), free(c);
}

/* As fast as one core can: the baseline must not be slow for its own
 * reasons. */
#if defined(__x86_64__)
__attribute__((target("avx2")))
#endif
static float
read_once(const float *p, size_t n)
{
	typedef float vector __attribute__((vector_size(32)));
	const vector *v = (const vector *)(const void *)p;
	vector a = {0}, b = a, c = a, d = a;

	for (size_t i = 0; i < n / 8; i += 4) {
		a += v[i];
		b += v[i + 1];
		c += v[i + 2];
		d += v[i + 3];
	}
	a += b + c + d;
	return a[0] + a[7];
}

/* One 4,096-wide vector; W was pushed out of the caches before each run. */
static void bench_apply(void)
{
	enum { DIM = 4096, RUNS = 31 };
	const size_t n = (size_t)DIM * DIM;
	float *w = touched(n * 4), *other = touched(n * 4);
	float x[DIM], y[DIM];
	struct avp_tensor tx = matrix(x, AVP_FLOAT32, 1, DIM);
	struct avp_tensor ty = matrix(y, AVP_FLOAT32, 1, DIM);
	double apply[RUNS], reading[RUNS], a, b;

	for (int i = 0; i < DIM; i++)
		x[i] = (float)(i % 13) - 6;
	for (int i = 0; i < RUNS; i++) {
		double t;

		sink += read_once(other, n);
		t = now();
		sink += read_once(w, n);
		reading[i] = now() - t;
		sink += read_once(other, n);
		t = now();
		avp_realign_apply(w, DIM, 1.0f, &tx, &ty, NULL);
		apply[i] = now() - t;
	}
	a = median(apply, RUNS), b = median(reading, RUNS);
	printf("{\"bench\":\"apply\",\"dim\":%d,\"microseconds\":%.0f,"
	       "\"read_w_once\":%.0f,\"ratio\":%.2f}\n",
	       DIM, a * 1e6, b * 1e6, a / b);
	free(w), free(other);
}

/* Qwen2.5-0.5B: 151,936 x 896 in bfloat16, as its file has it. */
static void bench_soft(void)
{
	enum { VOCAB = 151936, DIM = 896, STATES = 64 };
	const size_t n = (size_t)VOCAB * DIM;
	float *e = touched(n * 4);
	uint16_t *narrow = touched(n * 2);
	float *x = touched(STATES * DIM * 4), *y = touched(STATES * DIM * 4);
	struct avp_tensor te = matrix(narrow, AVP_BFLOAT16, VOCAB, DIM);

	avp_convert(narrow, AVP_BFLOAT16, e, AVP_FLOAT32, n);
	for (uint64_t states = 1; states <= STATES; states *= 64) {
		struct avp_tensor tx = matrix(x, AVP_FLOAT32, states, DIM);
		struct avp_tensor ty = matrix(y, AVP_FLOAT32, states, DIM);
		double t[5];

		for (int i = 0; i < 5; i++) {
			t[i] = now();
			avp_soft_embed(&te, &tx, &ty, NULL);
			t[i] = now() - t[i];
		}
		printf("{\"bench\":\"soft\",\"vocab\":%d,\"dim\":%d,"
		       "\"states\":%d,\"milliseconds\":%.1f}\n",
		       VOCAB, DIM, (int)states, median(t, 5) * 1e3);
	}
	free(e), free(narrow), free(x), free(y);
}

int main(int argc, char **argv)
{
	const char *only = argc > 1 ? argv[1] : "";

	if (!*only || !strcmp(only, "convert"))
		bench_convert();
	if (!*only || !strcmp(only, "pages"))
		bench_pages();
	if (!*only || !strcmp(only, "apply"))
		bench_apply();
	if (!*only || !strcmp(only, "realign"))
		bench_realign();
	if (!*only || !strcmp(only, "soft"))
		bench_soft();
	return 0;
}
