/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of numbers for BLAS: in place where they can be, else converted. */
#ifndef AVP_LATENT_REALIGN_ROWS_H
#define AVP_LATENT_REALIGN_ROWS_H

#include <avp/latent.h>

/* 0 if t is [rows][dim] of a known dtype, each row without gaps. */
int avp__rows_check(const struct avp_tensor *t, const char *name,
		    struct avp_reason *why);

/*
 * n rows from `first` on as float32: a pointer into t itself if they are that
 * already, else into scratch, which has room for n x dim. *ld is the distance
 * of two rows in floats.
 */
const float *avp__rows_read(const struct avp_tensor *t, uint64_t first,
			    uint64_t n, float *scratch, int *ld);

/* 1 if avp__rows_read() gives pointers into t itself. */
int avp__rows_in_place(const struct avp_tensor *t);

/* Writes n contiguous float32 rows into rows `first`... of t, converting. */
void avp__rows_write(const struct avp_tensor *t, uint64_t first, uint64_t n,
		     const float *rows);

#endif
