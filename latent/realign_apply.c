/* SPDX-License-Identifier: Apache-2.0 */
/* y = x W for one state or many, each row scaled to the target norm. */
#include <math.h>
#include <stdlib.h>

#include <cblas.h>

#include <avp/latent.h>

#include "latent/realign_rows.h"

/* Of scratch for rows that are not float32. */
#define SCRATCH_BYTES (1u << 20)

/* Up to here vector by vector: sgemm would first copy W into its own order. */
#define FEW_ROWS 3

#define LEAST_NORM 1e-6f /* the reference's clamp */

static void multiply(const float *w, int dim, const float *x, int x_ld,
		     float *y, int y_ld, int rows)
{
	if (rows > FEW_ROWS) {
		cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows,
			    dim, dim, 1.0f, x, x_ld, w, dim, 0.0f, y, y_ld);
		return;
	}
	for (int i = 0; i < rows; i++)
		cblas_sgemv(CblasRowMajor, CblasTrans, dim, dim, 1.0f, w, dim,
			    x + (size_t)i * (size_t)x_ld, 1, 0.0f,
			    y + (size_t)i * (size_t)y_ld, 1);
}

static void scale(float *y, int dim, int ld, int rows, float target_norm)
{
	for (int i = 0; i < rows; i++) {
		float *row = y + (size_t)i * (size_t)ld;
		float norm = sqrtf(cblas_sdot(dim, row, 1, row, 1));

		if (norm < LEAST_NORM)
			norm = LEAST_NORM;
		cblas_sscal(dim, target_norm / norm, row, 1);
	}
}

struct state_rows {
	const float *w;
	int dim;
	float target_norm;
	const struct avp_tensor *x, *y;
	float *scratch; /* for x and for y, one behind the other */
	uint64_t scratch_rows;
};

static void apply_rows(const struct state_rows *s, uint64_t first, uint64_t n)
{
	const int in_place = avp__rows_in_place(s->y);
	float *y_scratch = NULL, *y;
	int x_ld, y_ld;
	const float *x = avp__rows_read(s->x, first, n, s->scratch, &x_ld);

	if (in_place) {
		/* Reading gives the place itself, which is ours to write. */
		y = (float *)(uintptr_t)avp__rows_read(s->y, first, n, NULL,
						       &y_ld);
	} else {
		y_scratch = s->scratch + s->scratch_rows * (uint64_t)s->dim;
		y = y_scratch;
		y_ld = s->dim;
	}
	multiply(s->w, s->dim, x, x_ld, y, y_ld, (int)n);
	scale(y, s->dim, y_ld, (int)n, s->target_norm);
	if (y_scratch)
		avp__rows_write(s->y, first, n, y_scratch);
}

static int check(uint32_t dim, const struct avp_tensor *x,
		 const struct avp_tensor *y, struct avp_reason *why)
{
	int err;

	if ((err = avp__rows_check(x, "x", why)) ||
	    (err = avp__rows_check(y, "y", why)))
		return err;
	if (x->shape[1] != dim || y->shape[1] != dim ||
	    x->shape[0] != y->shape[0])
		return avp__fail(why, AVP_SHAPE_MISMATCH,
				 "x is %llu x %llu, y %llu x %llu, W %u x %u; "
				 "rows of W's dim are needed",
				 (unsigned long long)x->shape[0],
				 (unsigned long long)x->shape[1],
				 (unsigned long long)y->shape[0],
				 (unsigned long long)y->shape[1], dim, dim);
	return 0;
}

int avp_realign_apply(const float *w, uint32_t dim, float target_norm,
		      const struct avp_tensor *x, const struct avp_tensor *y,
		      struct avp_reason *why)
{
	/* As many rows as BLAS takes well when nothing is converted. */
	struct state_rows s = {.w = w,
			       .dim = (int)dim,
			       .x = x,
			       .y = y,
			       .target_norm = target_norm,
			       .scratch_rows = 4096};
	uint64_t first = 0;
	int err = check(dim, x, y, why);

	if (err)
		return err;
	if (!avp__rows_in_place(x) || !avp__rows_in_place(y)) {
		s.scratch_rows = SCRATCH_BYTES / (2 * sizeof(float) * dim);
		if (s.scratch_rows > x->shape[0])
			s.scratch_rows = x->shape[0];
		s.scratch = malloc(2 * s.scratch_rows * dim * sizeof(float));
		if (!s.scratch)
			return avp__fail(why, AVP_NO_MEMORY, "no memory");
	}
	while (first < x->shape[0]) {
		uint64_t n = x->shape[0] - first;

		if (n > s.scratch_rows)
			n = s.scratch_rows;
		apply_rows(&s, first, n);
		first += n;
	}
	free(s.scratch);
	return 0;
}
