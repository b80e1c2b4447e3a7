/* SPDX-License-Identifier: Apache-2.0 */
#include "latent/realign_rows.h"

#include <limits.h>

int avp__rows_check(const struct avp_tensor *t, const char *name,
		    struct avp_reason *why)
{
	const int64_t item = (int64_t)avp_dtype_size(t->dtype);

	if (!item)
		return avp__fail(why, AVP_BAD_DTYPE,
				 "%s has dtype %u; 0 to 3 are known", name,
				 t->dtype);
	if (t->rank != 2 || !t->shape[0] || !t->shape[1])
		return avp__fail(why, AVP_SHAPE_MISMATCH,
				 "%s has %u dimensions; rows and columns are "
				 "needed, at least one of each",
				 name, t->rank);
	if (t->shape[1] > AVP_REALIGN_DIM)
		return avp__fail(why, AVP_TOO_LARGE,
				 "%s is %llu wide; at most %u is handled", name,
				 (unsigned long long)t->shape[1],
				 AVP_REALIGN_DIM);
	if (t->stride[1] != item && t->shape[1] > 1)
		return avp__fail(why, AVP_SHAPE_MISMATCH,
				 "the rows of %s have gaps; copy it first",
				 name);
	return 0;
}

int avp__rows_in_place(const struct avp_tensor *t)
{
	const int64_t width = (int64_t)(t->shape[1] * sizeof(float));

	return t->dtype == AVP_FLOAT32 &&
	       (uintptr_t)t->data % sizeof(float) == 0 &&
	       t->stride[0] >= width && t->stride[0] / 4 <= INT_MAX &&
	       t->stride[0] % (int64_t)sizeof(float) == 0;
}

const float *avp__rows_read(const struct avp_tensor *t, uint64_t first,
			    uint64_t n, float *scratch, int *ld)
{
	const uint64_t dim = t->shape[1];
	const char *at = (const char *)t->data + (int64_t)first * t->stride[0];

	if (avp__rows_in_place(t)) {
		*ld = (int)(t->stride[0] / (int64_t)sizeof(float));
		return (const float *)(const void *)at;
	}
	*ld = (int)dim;
	if (t->stride[0] == (int64_t)(dim * avp_dtype_size(t->dtype))) {
		avp_convert(scratch, AVP_FLOAT32, at, t->dtype, n * dim);
		return scratch;
	}
	for (uint64_t i = 0; i < n; i++)
		avp_convert(scratch + i * dim, AVP_FLOAT32,
			    at + (int64_t)i * t->stride[0], t->dtype, dim);
	return scratch;
}

void avp__rows_write(const struct avp_tensor *t, uint64_t first, uint64_t n,
		     const float *rows)
{
	const uint64_t dim = t->shape[1];
	char *at = (char *)t->data + (int64_t)first * t->stride[0];

	for (uint64_t i = 0; i < n; i++)
		avp_convert(at + (int64_t)i * t->stride[0], t->dtype,
			    rows + i * dim, AVP_FLOAT32, dim);
}
