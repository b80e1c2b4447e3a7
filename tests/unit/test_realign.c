/* SPDX-License-Identifier: Apache-2.0 */
/* Realignment and projection: the vectors, and float64 on random problems. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <avp/latent.h>

#include "tests/harness.h"
#include "tests/vectors.h"

static uint64_t random_state = 42;

/* Roughly normal, variance 1. */
static float gauss(void)
{
	float sum = 0;

	for (int i = 0; i < 12; i++) {
		random_state = random_state * 6364136223846793005u +
			       1442695040888963407u;
		sum += (float)(random_state >> 40) * (1.0f / (1 << 24));
	}
	return sum - 6;
}

static float *randoms(size_t n, float scale)
{
	float *x = malloc(n * sizeof(*x));

	for (size_t i = 0; i < n; i++)
		x[i] = gauss() * scale;
	return x;
}

static struct avp_tensor matrix(const void *data, uint32_t dtype, uint64_t rows,
				uint64_t columns)
{
	const uint64_t shape[] = {rows, columns};
	struct avp_tensor t;

	CU_ASSERT_EQUAL_FATAL(avp_tensor_init(&t, data, dtype, 2, shape), 0);
	return t;
}

static double most_apart(const float *a, const float *b, size_t n)
{
	double most = 0;

	for (size_t i = 0; i < n; i++)
		most = fmax(most, fabs((double)a[i] - (double)b[i]));
	return most;
}

/* A tolerance of null means: not comparable number by number. */
static double tolerance(const struct avp_json *c, const char *key)
{
	const struct avp_json *t = avp_json_get(c, "tolerance");

	if (avp_json_type_of(avp_json_get(t, key)) == AVP_JSON_NULL)
		return INFINITY;
	return case_double(t, key);
}

static void check_apply(const struct avp_json *c, const struct avp_json *files,
			const float *w, uint32_t dim, float norm)
{
	struct bytes x = vectors_file(case_str(files, "X"));
	struct bytes y = vectors_file(case_str(files, "Y"));
	struct bytes x16 = vectors_file(case_str(files, "X_f16"));
	struct bytes y16 = vectors_file(case_str(files, "Y_f16"));
	const size_t rows = x.len / 4 / dim, rows16 = x16.len / 2 / dim;
	float *got = calloc(rows * dim, 4), *wide = malloc(rows * dim * 4);
	uint16_t *got16 = calloc(rows16 * dim, 2);
	struct avp_tensor from = matrix(x.data, AVP_FLOAT32, rows, dim);
	struct avp_tensor to = matrix(got, AVP_FLOAT32, rows, dim);

	CASE(c, rows == 7 && rows16 == 3);
	CASE(c, !avp_realign_apply(w, dim, norm, &from, &to, NULL));
	CASE(c, most_apart(got, (float *)(void *)y.data, rows * dim) <=
			tolerance(c, "Y_abs"));
	/* One by one takes another path through BLAS. */
	for (size_t i = 0; i < rows; i++) {
		avp_tensor_slice(&from, 0, i, 1, &from);
		avp_tensor_slice(&to, 0, i, 1, &to);
		CASE(c, !avp_realign_apply(w, dim, norm, &from, &to, NULL));
		from = matrix(x.data, AVP_FLOAT32, rows, dim);
		to = matrix(got, AVP_FLOAT32, rows, dim);
	}
	CASE(c, most_apart(got, (float *)(void *)y.data, rows * dim) <=
			tolerance(c, "Y_abs"));
	from = matrix(x16.data, AVP_FLOAT16, rows16, dim);
	to = matrix(got16, AVP_FLOAT16, rows16, dim);
	CASE(c, !avp_realign_apply(w, dim, norm, &from, &to, NULL));
	avp_convert(got, AVP_FLOAT32, got16, AVP_FLOAT16, rows16 * dim);
	avp_convert(wide, AVP_FLOAT32, y16.data, AVP_FLOAT16, rows16 * dim);
	/* Half a unit in the last place of float16 at the largest value. */
	CASE(c, most_apart(got, wide, rows16 * dim) <=
			fmax(tolerance(c, "Y_abs"), 1.3e-4));
	bytes_free(&x), bytes_free(&y), bytes_free(&x16), bytes_free(&y16);
	free(got), free(wide), free(got16);
}

static void vectors_realign(void)
{
	for (const struct avp_json *c = vectors_first("realign"); c;
	     c = avp_json_next(c)) {
		const struct avp_json *files = avp_json_get(c, "files");
		const uint32_t dim = (uint32_t)case_int(c, "dim");
		const uint64_t vocab = (uint64_t)case_int(c, "vocab");
		struct bytes in = vectors_file(case_str(files, "E_in"));
		struct bytes out = vectors_file(case_str(files, "E_out"));
		struct bytes want = vectors_file(case_str(files, "W"));
		struct avp_realign_options options = {
			.size = sizeof(options),
			.lambda = case_double(c, "lambda_reg"),
		};
		struct avp_tensor e_in =
			matrix(in.data, AVP_FLOAT32, vocab, dim);
		struct avp_tensor e_out =
			matrix(out.data, AVP_FLOAT32, vocab, dim);
		float *w = malloc((size_t)dim * dim * 4);
		struct avp_realign_result r;
		double norm = case_double(c, "target_norm");

		if (CASE(c, !avp_realign_compute(&e_in, &e_out, &options, w, &r,
						 NULL))) {
			CASE(c, r.raised == 0);
			CASE(c, fabs((double)r.target_norm - norm) <=
					norm * tolerance(c, "target_norm_rel"));
			CASE(c, most_apart(w, (float *)(void *)want.data,
					   (size_t)dim * dim) <=
					tolerance(c, "W_abs"));
			check_apply(c, files, w, dim, r.target_norm);
		}
		free(w);
		bytes_free(&in), bytes_free(&out), bytes_free(&want);
	}
	VECTORS("realign", 5);
}

static void vectors_realign_error(void)
{
	static const float a[24], b[20];
	struct avp_tensor e_in = matrix(a, AVP_FLOAT32, 6, 4);
	struct avp_tensor e_out = matrix(b, AVP_FLOAT32, 5, 4);
	struct avp_realign_result r = {.raised = 7};
	struct avp_reason why;
	float w[16];

	VECTORS("realign_error", 2);
	CU_ASSERT_EQUAL(avp_realign_compute(&e_in, &e_out, NULL, w, &r, &why),
			AVP_SHAPE_MISMATCH);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "E_in is 6 x 4, E_out 5 x 4"));
	CU_ASSERT_EQUAL(r.raised, 7);
	/* The other one, a model without embeddings: test_weights.c. */
}

/*
 * The relative residual of (G + lambda I) W = B in float64, with G and B
 * computed anew in float64: the backward error, which a stable algorithm keeps
 * near float32's precision whatever the condition is.
 */
static double residual(const float *e_in, const float *e_out, size_t vocab,
		       size_t dim, double lambda, const float *w)
{
	double *g = calloc(dim * dim, sizeof(*g)), *b = calloc(dim * dim, 8);
	double g_norm = 0, w_norm = 0, b_norm = 0, r_norm = 0;

	for (size_t v = 0; v < vocab; v++)
		for (size_t i = 0; i < dim; i++)
			for (size_t j = 0; j < dim; j++) {
				double x = (double)e_out[v * dim + i];

				g[i * dim + j] +=
					x * (double)e_out[v * dim + j];
				b[i * dim + j] += x * (double)e_in[v * dim + j];
			}
	for (size_t i = 0; i < dim; i++)
		g[i * dim + i] += lambda;
	for (size_t i = 0; i < dim; i++)
		for (size_t j = 0; j < dim; j++) {
			double r = b[i * dim + j];

			for (size_t k = 0; k < dim; k++)
				r -= g[i * dim + k] * (double)w[k * dim + j];
			r_norm += r * r;
			g_norm += g[i * dim + j] * g[i * dim + j];
			w_norm +=
				(double)w[i * dim + j] * (double)w[i * dim + j];
			b_norm += b[i * dim + j] * b[i * dim + j];
		}
	free(g), free(b);
	return sqrt(r_norm) / (sqrt(g_norm) * sqrt(w_norm) + sqrt(b_norm));
}

/* Column j scaled by 10^(-j * decades / dim): a condition number to choose. */
static void stretch(float *e, size_t vocab, size_t dim, double decades)
{
	for (size_t v = 0; v < vocab; v++)
		for (size_t j = 0; j < dim; j++)
			e[v * dim + j] *= (float)pow(10, -decades * (double)j /
								 (double)dim);
}

static void backward_error(void)
{
	static const double decades[] = {0, 1, 2, 3};
	const size_t vocab = 700, dim = 48;

	for (size_t i = 0; i < 4; i++) {
		float *in = randoms(vocab * dim, 0.02f);
		float *out = randoms(vocab * dim, 0.02f);
		float *w = malloc(dim * dim * 4);
		struct avp_tensor e_in = matrix(in, AVP_FLOAT32, vocab, dim);
		struct avp_tensor e_out = matrix(out, AVP_FLOAT32, vocab, dim);
		struct avp_realign_result r;

		stretch(out, vocab, dim, decades[i]);
		CU_ASSERT_EQUAL(
			avp_realign_compute(&e_in, &e_out, NULL, w, &r, NULL),
			0);
		CU_ASSERT_EQUAL(r.raised, 0);
		CU_ASSERT(residual(in, out, vocab, dim, r.lambda, w) < 2e-6);
		free(in), free(out), free(w);
	}
}

/*
 * Rank 6 of 12 and numbers so large that lambda vanishes beside them: the Gram
 * matrix is not positive definite, lambda is raised, and the caller is told.
 */
static void rank_deficient_is_answered(void)
{
	const size_t vocab = 6, dim = 12;
	float *in = randoms(vocab * dim, 30), *out = randoms(vocab * dim, 30);
	float w[144];
	struct avp_tensor e_in = matrix(in, AVP_FLOAT32, vocab, dim);
	struct avp_tensor e_out = matrix(out, AVP_FLOAT32, vocab, dim);
	struct avp_realign_result r = {0};

	CU_ASSERT_EQUAL(avp_realign_compute(&e_in, &e_out, NULL, w, &r, NULL),
			0);
	CU_ASSERT(r.raised > 0);
	CU_ASSERT(r.lambda > AVP_REALIGN_LAMBDA);
	CU_ASSERT(residual(in, out, vocab, dim, r.lambda, w) < 2e-6);
	free(in), free(out);
}

static void damaged_weights_are_refused(void)
{
	float in[32] = {1}, out[32] = {1}, w[16];
	struct avp_tensor e_in = matrix(in, AVP_FLOAT32, 8, 4);
	struct avp_tensor e_out = matrix(out, AVP_FLOAT32, 8, 4);
	struct avp_tensor gaps = e_in, odd = e_in;
	struct avp_realign_options options = {.size = sizeof(options)};
	struct avp_realign_result r;
	struct avp_reason why;

	in[5] = NAN;
	CU_ASSERT_EQUAL(avp_realign_compute(&e_in, &e_out, NULL, w, &r, &why),
			AVP_DESERIALIZATION_ERROR);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "input embeddings"));
	in[5] = 0, out[6] = INFINITY;
	CU_ASSERT_EQUAL(avp_realign_compute(&e_in, &e_out, NULL, w, &r, &why),
			AVP_DESERIALIZATION_ERROR);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "lm_head"));
	out[6] = 0;
	avp_tensor_swap(&gaps, 0, 1, &gaps);
	CU_ASSERT_EQUAL(avp_realign_compute(&gaps, &gaps, NULL, w, &r, &why),
			AVP_SHAPE_MISMATCH);
	odd.dtype = AVP_INT8, odd.stride[1] = 1;
	CU_ASSERT_EQUAL(avp_realign_compute(&odd, &odd, NULL, w, &r, &why),
			AVP_BAD_DTYPE);
	options.lambda = -1;
	CU_ASSERT_EQUAL(
		avp_realign_compute(&e_in, &e_out, &options, w, &r, NULL),
		AVP_USAGE);
	options = (struct avp_realign_options){.size = sizeof(options),
					       .flags = 1};
	CU_ASSERT_EQUAL(
		avp_realign_compute(&e_in, &e_out, &options, w, &r, NULL),
		AVP_USAGE);
	options = (struct avp_realign_options){.size = 8};
	CU_ASSERT_EQUAL(
		avp_realign_compute(&e_in, &e_out, &options, w, &r, NULL),
		AVP_USAGE);
	CU_ASSERT_EQUAL(avp_realign_apply(w, 5, 1, &e_in, &e_out, &why),
			AVP_SHAPE_MISMATCH);
}

static double last_progress;

static void note_progress(void *user, double done)
{
	CU_ASSERT(done > last_progress && done <= 1);
	last_progress = done;
	++*(int *)user;
}

/* A contiguous float32 copy. */
static float *flat(const struct avp_tensor *t)
{
	float *x = malloc(avp_tensor_count(t) * sizeof(*x));
	struct avp_tensor to = matrix(x, AVP_FLOAT32, t->shape[0], t->shape[1]);

	CU_ASSERT_EQUAL(avp_tensor_copy(&to, t, NULL), 0);
	return x;
}

/*
 * More rows than one block, in bfloat16, both embeddings out of the columns of
 * one wider matrix.
 */
static void blocks_of_bfloat16(void)
{
	const size_t vocab = 530000, dim = 16, room = 24;
	float *x = randoms(vocab * room, 0.02f), *in, *out, w[256];
	uint16_t *narrow = malloc(vocab * room * 2);
	int calls = 0;
	struct avp_realign_options options = {.size = sizeof(options),
					      .progress = note_progress,
					      .user = &calls};
	struct avp_realign_result r;
	struct avp_tensor e_in, e_out;

	avp_convert(narrow, AVP_BFLOAT16, x, AVP_FLOAT32, vocab * room);
	e_in = e_out = matrix(narrow, AVP_BFLOAT16, vocab, room);
	avp_tensor_slice(&e_in, 1, 0, dim, &e_in);
	avp_tensor_slice(&e_out, 1, room - dim, dim, &e_out);
	last_progress = 0;
	CU_ASSERT_EQUAL(
		avp_realign_compute(&e_in, &e_out, &options, w, &r, NULL), 0);
	CU_ASSERT(calls >= 3);
	CU_ASSERT_EQUAL(last_progress, 1.0);
	in = flat(&e_in), out = flat(&e_out);
	CU_ASSERT(residual(in, out, vocab, dim, r.lambda, w) < 2e-6);
	/* The same numbers as float32 in place: the same W, nearly. */
	e_in = matrix(in, AVP_FLOAT32, vocab, dim);
	e_out = matrix(out, AVP_FLOAT32, vocab, dim);
	CU_ASSERT_EQUAL(avp_realign_compute(&e_in, &e_out, NULL, w, &r, NULL),
			0);
	CU_ASSERT(residual(in, out, vocab, dim, r.lambda, w) < 2e-6);
	free(x), free(in), free(out), free(narrow);
}

/* ---- soft embedding and projection --------------------------------------- */

/* y = softmax(x S^T) T for one row, in float64 and in one go. */
static void softly(const float *x, const float *s, size_t s_dim, const float *t,
		   size_t t_dim, const uint32_t *s_ids, const uint32_t *t_ids,
		   size_t tokens, double *y)
{
	double *z = malloc(tokens * sizeof(*z)), most = -INFINITY, total = 0;

	for (size_t v = 0; v < tokens; v++) {
		const float *row = s + (s_ids ? s_ids[v] : v) * s_dim;

		z[v] = 0;
		for (size_t i = 0; i < s_dim; i++)
			z[v] += (double)x[i] * (double)row[i];
		most = fmax(most, z[v]);
	}
	memset(y, 0, t_dim * sizeof(*y));
	for (size_t v = 0; v < tokens; v++) {
		const float *row = t + (t_ids ? t_ids[v] : v) * t_dim;
		double p = exp(z[v] - most);

		total += p;
		for (size_t i = 0; i < t_dim; i++)
			y[i] += p * (double)row[i];
	}
	for (size_t i = 0; i < t_dim; i++)
		y[i] /= total;
	free(z);
}

static void soft_embedding(void)
{
	/* Over two blocks and a bit; states over one batch and a bit. */
	const size_t vocab = 4500, dim = 24, states = 131;
	float *e = randoms(vocab * dim, 1), *x = randoms(states * dim, 2);
	float *y = malloc(states * dim * 4), *one = malloc(dim * 4);
	double *want = malloc(dim * sizeof(*want)), most = 0, alone = 0;
	struct avp_tensor te = matrix(e, AVP_FLOAT32, vocab, dim), row;
	struct avp_tensor tx = matrix(x, AVP_FLOAT32, states, dim);
	struct avp_tensor ty = matrix(y, AVP_FLOAT32, states, dim);

	/* Logits far over what expf() can take, rising from block to block. */
	for (size_t i = 0; i < dim; i++)
		x[i] *= 100;
	CU_ASSERT_EQUAL(avp_soft_embed(&te, &tx, &ty, NULL), 0);
	for (size_t r = 0; r < states; r++) {
		struct avp_tensor out = matrix(one, AVP_FLOAT32, 1, dim);

		softly(x + r * dim, e, dim, e, dim, NULL, NULL, vocab, want);
		avp_tensor_slice(&tx, 0, r, 1, &row);
		CU_ASSERT_EQUAL(avp_soft_embed(&te, &row, &out, NULL), 0);
		for (size_t i = 0; i < dim; i++) {
			most = fmax(most,
				    fabs((double)y[r * dim + i] - want[i]));
			alone = fmax(alone, fabs((double)one[i] - want[i]));
		}
	}
	CU_ASSERT(most < 1e-4);
	CU_ASSERT(alone < 1e-4);
	free(e), free(x), free(y), free(want), free(one);
}

static void projection_by_shared_tokens(void)
{
	const size_t s_vocab = 3000, t_vocab = 2600, s_dim = 20, t_dim = 12;
	const size_t shared = 2300, states = 5;
	float *s = randoms(s_vocab * s_dim, 1),
	      *t = randoms(t_vocab * t_dim, 1);
	float *x = randoms(states * s_dim, 1), *y = malloc(states * t_dim * 4);
	uint32_t *s_ids = malloc(shared * 4), *t_ids = malloc(shared * 4);
	double want[12], most = 0;
	struct avp_projection p = {
		.source = matrix(s, AVP_FLOAT32, s_vocab, s_dim),
		.target = matrix(t, AVP_FLOAT32, t_vocab, t_dim),
		.source_ids = s_ids,
		.target_ids = t_ids,
		.count = shared,
	};
	struct avp_tensor tx = matrix(x, AVP_FLOAT32, states, s_dim);
	struct avp_tensor ty = matrix(y, AVP_FLOAT32, states, t_dim);
	struct avp_reason why;

	for (size_t i = 0; i < shared; i++) {
		s_ids[i] = (uint32_t)(i * 7 % s_vocab);
		t_ids[i] = (uint32_t)(i * 11 % t_vocab);
	}
	CU_ASSERT_EQUAL(avp_project(&p, &tx, &ty, NULL), 0);
	for (size_t r = 0; r < states; r++) {
		softly(x + r * s_dim, s, s_dim, t, t_dim, s_ids, t_ids, shared,
		       want);
		for (size_t i = 0; i < t_dim; i++)
			most = fmax(most,
				    fabs((double)y[r * t_dim + i] - want[i]));
	}
	CU_ASSERT(most < 2e-5);
	t_ids[shared - 1] = (uint32_t)t_vocab;
	CU_ASSERT_EQUAL(avp_project(&p, &tx, &ty, &why), AVP_SHAPE_MISMATCH);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "target id 2299 is 2600"));
	p.target_ids = NULL;
	CU_ASSERT_EQUAL(avp_project(&p, &tx, &ty, NULL), AVP_USAGE);
	p.source_ids = NULL, p.count = 0;
	CU_ASSERT_EQUAL(avp_project(&p, &tx, &ty, NULL), AVP_SHAPE_MISMATCH);
	p.count = 2600;
	CU_ASSERT_EQUAL(avp_project(&p, &tx, &ty, NULL), 0);
	softly(x, s, s_dim, t, t_dim, NULL, NULL, 2600, want);
	CU_ASSERT(fabs((double)y[3] - want[3]) < 2e-5);
	free(s), free(t), free(x), free(y), free(s_ids), free(t_ids);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(vectors_realign),
		TEST(vectors_realign_error),
		TEST(backward_error),
		TEST(rank_deficient_is_answered),
		TEST(damaged_weights_are_refused),
		TEST(blocks_of_bfloat16),
		TEST(soft_embedding),
		TEST(projection_by_shared_tokens),
		{0},
	};

	return test_main("realign", tests);
}
