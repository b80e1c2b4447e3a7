/* SPDX-License-Identifier: Apache-2.0 */
/*
 * W = (E_out^T E_out + lambda I)^-1 E_out^T E_in, by the normal equations as
 * the reference computes them: the Gram matrix by rank-k updates of its lower
 * triangle (half the work of a full product), Cholesky, two triangular solves.
 *
 * Memory beside the inputs: W, which first holds E_out^T E_in, and the Gram
 * matrix. Its upper triangle, which Cholesky does not touch, keeps a copy of
 * the lower one: a failed factorisation starts again from there.
 */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cblas.h>
#include <f77blas.h>

#include <avp/latent.h>

#include "latent/realign_rows.h"

/* Of each input in float32 at a time: long enough for BLAS to be at its best,
 * and for 16-bit inputs all that is ever widened. */
#define BLOCK_BYTES (32u << 20)

/* Raising lambda tenfold so often spans every ratio that float32 can hold. */
#define MAX_RAISES 40

/* LAPACK, which libopenblas holds too; its f77blas.h lacks this one. */
void spocon_(const char *uplo, const blasint *n, const float *a,
	     const blasint *lda, const float *anorm, float *rcond, float *work,
	     blasint *iwork, blasint *info, size_t uplo_len);

struct problem {
	const struct avp_tensor *e_in, *e_out;
	uint64_t vocab;
	int dim;
	double lambda;
	float *w, *gram, *diagonal;
	float *block; /* two of block_rows x dim */
	uint64_t block_rows;
	void (*progress)(void *user, double done);
	void *user;
};

static void report(const struct problem *p, double done)
{
	if (p->progress)
		p->progress(p->user, done);
}

/* gram += E_out^T E_out, w += E_out^T E_in; the sum of E_in's row norms. */
static double accumulate(struct problem *p)
{
	const size_t dim = (size_t)p->dim;
	double norms = 0;

	for (uint64_t row = 0; row < p->vocab; row += p->block_rows) {
		const uint64_t left = p->vocab - row;
		const int n =
			(int)(left < p->block_rows ? left : p->block_rows);
		int in_ld, out_ld;
		const float *in = avp__rows_read(p->e_in, row, (uint64_t)n,
						 p->block, &in_ld);
		const float *out =
			avp__rows_read(p->e_out, row, (uint64_t)n,
				       p->block + p->block_rows * dim, &out_ld);
		const float beta = row ? 1.0f : 0.0f;

		cblas_ssyrk(CblasRowMajor, CblasLower, CblasTrans, p->dim, n,
			    1.0f, out, out_ld, beta, p->gram, p->dim);
		cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, p->dim,
			    p->dim, n, 1.0f, out, out_ld, in, in_ld, beta, p->w,
			    p->dim);
		for (int i = 0; i < n; i++) {
			const float *r = in + (size_t)i * (size_t)in_ld;

			norms += sqrt(cblas_sdot(p->dim, r, 1, r, 1));
		}
		report(p,
		       0.95 * (double)(row + (uint64_t)n) / (double)p->vocab);
	}
	return norms;
}

/* Copies one triangle onto the other, in tiles that stay in the cache. */
static void mirror(float *a, size_t dim, int lower_to_upper)
{
	enum { TILE = 32 };

	for (size_t i0 = 0; i0 < dim; i0 += TILE)
		for (size_t j0 = 0; j0 <= i0; j0 += TILE)
			for (size_t i = i0; i < i0 + TILE && i < dim; i++)
				for (size_t j = j0; j < j0 + TILE && j < i; j++)
					if (lower_to_upper)
						a[j * dim + i] = a[i * dim + j];
					else
						a[i * dim + j] = a[j * dim + i];
}

/* The 1-norm of gram + lambda I, whose lower triangle is mirrored. */
static float norm_of(const struct problem *p)
{
	const size_t dim = (size_t)p->dim;
	float most = 0;

	for (size_t i = 0; i < dim; i++) {
		float sum = cblas_sasum(p->dim, p->gram + i * dim, 1);

		if (!(sum <= most))
			most = sum;
	}
	return most;
}

/*
 * Factors the lower triangle of gram + lambda I. 0, or 1 when it is not
 * positive definite, or so near to that in float32 that nothing of a solution
 * would be true.
 */
static int factor(struct problem *p, double lambda, float *work, blasint *iwork)
{
	const size_t dim = (size_t)p->dim;
	/* Row-major lower is Fortran's upper: the same bytes. */
	char uplo = 'U';
	blasint n = p->dim, info;
	float norm, rcond = 0;

	for (size_t i = 0; i < dim; i++)
		p->gram[i * dim + i] = p->diagonal[i] + (float)lambda;
	norm = norm_of(p);
	spotrf_(&uplo, &n, p->gram, &n, &info);
	if (info)
		return 1;
	spocon_(&uplo, &n, p->gram, &n, &norm, &rcond, work, iwork, &info, 1);
	return info || !(rcond > FLT_EPSILON / 2);
}

/* Factors with lambda, raised as far as it takes. */
static int factor_somehow(struct problem *p, struct avp_realign_result *result,
			  struct avp_reason *why)
{
	const size_t dim = (size_t)p->dim;
	float *work = malloc(3 * dim * sizeof(*work));
	blasint *iwork = malloc(dim * sizeof(*iwork));
	double lambda = p->lambda;
	uint32_t raised = 0;
	int bad = -1;

	while (work && iwork) {
		bad = factor(p, lambda, work, iwork);
		if (!bad || raised == MAX_RAISES)
			break;
		mirror(p->gram, dim, 0);
		raised++;
		lambda *= 10;
	}
	free(work);
	free(iwork);
	if (bad < 0)
		return avp__fail(why, AVP_NO_MEMORY, "no memory");
	if (bad)
		return avp__fail(why, AVP_DESERIALIZATION_ERROR,
				 "E_out^T E_out is not positive definite even "
				 "with lambda %g; is lm_head damaged?",
				 lambda);
	result->raised = raised;
	result->lambda = lambda;
	return 0;
}

static int solve(struct problem *p, struct avp_realign_result *result,
		 struct avp_reason *why)
{
	const size_t dim = (size_t)p->dim;
	int err;

	for (size_t i = 0; i < dim; i++)
		p->diagonal[i] = p->gram[i * dim + i];
	mirror(p->gram, dim, 1);
	err = factor_somehow(p, result, why);
	if (err)
		return err;
	report(p, 0.96);
	cblas_strsm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans,
		    CblasNonUnit, p->dim, p->dim, 1.0f, p->gram, p->dim, p->w,
		    p->dim);
	cblas_strsm(CblasRowMajor, CblasLeft, CblasLower, CblasTrans,
		    CblasNonUnit, p->dim, p->dim, 1.0f, p->gram, p->dim, p->w,
		    p->dim);
	report(p, 1.0);
	return 0;
}

/* A sum is finite only if every addend is. */
static int finite_diagonals(const struct problem *p)
{
	const size_t dim = (size_t)p->dim;
	double sum = 0;

	for (size_t i = 0; i < dim; i++)
		sum += p->gram[i * dim + i];
	return isfinite(sum);
}

static int compute(struct problem *p, struct avp_realign_result *result,
		   struct avp_reason *why)
{
	const double norm = accumulate(p) / (double)p->vocab;

	if (!isfinite(norm) || !finite_diagonals(p))
		return avp__fail(why, AVP_DESERIALIZATION_ERROR,
				 "%s hold NaN, infinity, or numbers whose "
				 "squares do not fit float32",
				 isfinite(norm) ? "lm_head's rows"
						: "the input embeddings");
	if ((float)norm <= 0)
		return avp__fail(why, AVP_DESERIALIZATION_ERROR,
				 "the input embeddings hold nothing but zeros, "
				 "or numbers near to that: their mean norm is "
				 "%g, and no state can be scaled to it; is the "
				 "file damaged?",
				 norm);
	result->target_norm = (float)norm;
	return solve(p, result, why);
}

static int check(const struct avp_tensor *e_in, const struct avp_tensor *e_out,
		 struct avp_reason *why)
{
	int err;

	if ((err = avp__rows_check(e_in, "E_in", why)) ||
	    (err = avp__rows_check(e_out, "E_out", why)))
		return err;
	if (e_in->dtype == AVP_INT8 || e_out->dtype == AVP_INT8)
		return avp__fail(why, AVP_BAD_DTYPE,
				 "embeddings of INT8; float32, float16 or "
				 "bfloat16 is needed");
	if (e_in->shape[0] != e_out->shape[0] ||
	    e_in->shape[1] != e_out->shape[1])
		return avp__fail(why, AVP_SHAPE_MISMATCH,
				 "E_in is %llu x %llu, E_out %llu x %llu; both "
				 "must have one vocabulary and one dim",
				 (unsigned long long)e_in->shape[0],
				 (unsigned long long)e_in->shape[1],
				 (unsigned long long)e_out->shape[0],
				 (unsigned long long)e_out->shape[1]);
	return 0;
}

static int take_options(struct problem *p,
			const struct avp_realign_options *options,
			struct avp_reason *why)
{
	p->lambda = AVP_REALIGN_LAMBDA;
	if (!options)
		return 0;
	if ((options->size && options->size != sizeof(*options)) ||
	    options->flags || options->reserved[0] || options->reserved[1] ||
	    options->reserved[2] || options->reserved[3])
		return avp__fail(
			why, AVP_USAGE,
			"options of realignment: size %u is neither 0 nor "
			"%zu, or flags or reserved are not 0",
			options->size, sizeof(*options));
	if (!(options->lambda >= 0) || options->lambda > FLT_MAX)
		return avp__fail(why, AVP_USAGE,
				 "lambda %g; it is positive, %g by default",
				 options->lambda, AVP_REALIGN_LAMBDA);
	if (options->lambda > 0)
		p->lambda = options->lambda;
	p->progress = options->progress;
	p->user = options->user;
	return 0;
}

int avp_realign_compute(const struct avp_tensor *e_in,
			const struct avp_tensor *e_out,
			const struct avp_realign_options *options, float *w,
			struct avp_realign_result *result,
			struct avp_reason *why)
{
	struct problem p = {.e_in = e_in, .e_out = e_out, .w = w};
	struct avp_realign_result made = {0};
	size_t dim;
	int err;

	if ((err = check(e_in, e_out, why)) ||
	    (err = take_options(&p, options, why)))
		return err;
	dim = e_in->shape[1];
	p.dim = (int)dim;
	p.vocab = e_in->shape[0];
	p.block_rows = BLOCK_BYTES / (dim * sizeof(float));
	if (p.block_rows > p.vocab)
		p.block_rows = p.vocab;
	p.gram = malloc(dim * dim * sizeof(float));
	p.diagonal = malloc(dim * sizeof(float));
	p.block = malloc(2 * p.block_rows * dim * sizeof(float));
	if (p.gram && p.diagonal && p.block)
		err = compute(&p, &made, why);
	else
		err = avp__fail(why, AVP_NO_MEMORY,
				"no memory for %zu x %zu floats", dim, dim);
	free(p.block);
	free(p.diagonal);
	free(p.gram);
	if (!err)
		*result = made;
	return err;
}
