/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The conversion kernels of one processor. Every set gives the same bits for
 * the same input: tests/unit/test_convert.c compares them exhaustively.
 *
 * Pointers may have any alignment (a KV-cache that came from a file starts at
 * byte 17); source and destination do not overlap.
 */
#ifndef AVP_LATENT_CONVERT_H
#define AVP_LATENT_CONVERT_H

#include <stddef.h>
#include <stdint.h>

struct avp__convert_kernels {
	const char *name;
	void (*f32_to_f16)(void *to, const void *from, size_t count);
	void (*f32_to_bf16)(void *to, const void *from, size_t count);
	void (*f16_to_f32)(void *to, const void *from, size_t count);
	void (*bf16_to_f32)(void *to, const void *from, size_t count);
	void (*f32_to_int8)(int8_t *to, const void *from, size_t count,
			    float scale);
	void (*int8_to_f32)(void *to, const int8_t *from, size_t count,
			    float scale);
};

extern const struct avp__convert_kernels avp__convert_portable;

/* The AVX2 + F16C set, or NULL where this processor or build has none. */
const struct avp__convert_kernels *avp__convert_x86(void);

/* The fastest set that this processor can run. Never NULL. */
const struct avp__convert_kernels *avp__convert_best(void);

#endif
