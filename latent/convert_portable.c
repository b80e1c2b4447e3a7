/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conversions in integer arithmetic: independent of the rounding mode, of
 * flush-to-zero, and of the processor. They define the bits that the SIMD
 * kernels must give.
 *
 * Formats: IEEE 754-2008 binary32 and binary16; bfloat16 is the upper half of
 * a binary32. Narrowing rounds to nearest, ties to even; a NaN becomes quiet
 * and keeps its sign and the upper bits of its payload, as x86's VCVTPS2PH
 * does. Widening is exact, save that a signalling binary16 NaN becomes quiet
 * (VCVTPH2PS); bfloat16 moves its bits unchanged.
 */
#include <string.h>

#include "latent/convert.h"

#define F32_INF	      0x7f800000u
#define F32_MAGNITUDE 0x7fffffffu
#define F16_OVERFLOW  0x47800000u /* 65536.0f: from here on infinity */
#define F16_NORMAL    0x38800000u /* 2^-14, the least normal binary16 */
#define F16_NOTHING   0x33000000u /* 2^-25: half of the least subnormal */

static uint32_t load32(const void *from, size_t i)
{
	uint32_t x;

	memcpy(&x, (const char *)from + 4 * i, sizeof(x));
	return x;
}

static uint16_t load16(const void *from, size_t i)
{
	uint16_t x;

	memcpy(&x, (const char *)from + 2 * i, sizeof(x));
	return x;
}

static void store32(void *to, size_t i, uint32_t x)
{
	memcpy((char *)to + 4 * i, &x, sizeof(x));
}

static void store16(void *to, size_t i, uint16_t x)
{
	memcpy((char *)to + 2 * i, &x, sizeof(x));
}

/* magnitude is above 2^-25 and below 2^-14: a multiple of 2^-24 comes out. */
static uint32_t subnormal_half(uint32_t magnitude)
{
	uint32_t significand = (magnitude & 0x7fffff) | 0x800000;
	uint32_t shift = 126 - (magnitude >> 23); /* 14..24 */
	uint32_t half = significand >> shift;
	uint32_t rest = significand & ((1u << shift) - 1);
	uint32_t tie = 1u << (shift - 1);

	return half + (rest > tie || (rest == tie && (half & 1)));
}

static uint16_t half_of(uint32_t x)
{
	uint32_t sign = x >> 16 & 0x8000;
	uint32_t magnitude = x & F32_MAGNITUDE;

	if (magnitude > F32_INF)
		return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
	if (magnitude >= F16_OVERFLOW)
		return (uint16_t)(sign | 0x7c00);
	if (magnitude < F16_NOTHING)
		return (uint16_t)sign;
	if (magnitude < F16_NORMAL)
		return (uint16_t)(sign | subnormal_half(magnitude));
	/* The carry of the rounding may run into the exponent, up to inf. */
	magnitude += 0xfff + (magnitude >> 13 & 1);
	return (uint16_t)(sign | ((magnitude - (112u << 23)) >> 13));
}

static uint32_t single_of_half(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16;
	uint32_t exponent = h >> 10 & 31, fraction = h & 0x3ff;
	int up;

	if (exponent == 31)
		return sign | F32_INF | fraction << 13 |
		       (fraction ? 0x400000u : 0);
	if (exponent)
		return sign | (exponent + 112) << 23 | fraction << 13;
	if (!fraction)
		return sign;
	up = __builtin_clz(fraction) - 21; /* until bit 10 is the leading one */
	return sign | (uint32_t)(113 - up) << 23 |
	       (fraction << up & 0x3ff) << 13;
}

static uint16_t bfloat_of(uint32_t x)
{
	if ((x & F32_MAGNITUDE) > F32_INF)
		return (uint16_t)(x >> 16 | 0x40);
	return (uint16_t)((x + 0x7fff + (x >> 16 & 1)) >> 16);
}

static void f32_to_f16(void *to, const void *from, size_t count)
{
	for (size_t i = 0; i < count; i++)
		store16(to, i, half_of(load32(from, i)));
}

static void f32_to_bf16(void *to, const void *from, size_t count)
{
	for (size_t i = 0; i < count; i++)
		store16(to, i, bfloat_of(load32(from, i)));
}

static void f16_to_f32(void *to, const void *from, size_t count)
{
	for (size_t i = 0; i < count; i++)
		store32(to, i, single_of_half(load16(from, i)));
}

static void bf16_to_f32(void *to, const void *from, size_t count)
{
	for (size_t i = 0; i < count; i++)
		store32(to, i, (uint32_t)load16(from, i) << 16);
}

static int8_t int8_of(float x)
{
	/* Adding 1.5 * 2^23 leaves no bits for a fraction: round to even. */
	const float magic = 12582912.0f;

	if (x != x)
		return 0;
	if (x > 127.0f)
		return 127;
	if (x < -128.0f)
		return -128;
	return (int8_t)((x + magic) - magic);
}

static void f32_to_int8(int8_t *to, const void *from, size_t count, float scale)
{
	for (size_t i = 0; i < count; i++) {
		float x;

		memcpy(&x, (const char *)from + 4 * i, sizeof(x));
		to[i] = int8_of(x / scale);
	}
}

static void int8_to_f32(void *to, const int8_t *from, size_t count, float scale)
{
	for (size_t i = 0; i < count; i++) {
		float x = (float)from[i] * scale;

		memcpy((char *)to + 4 * i, &x, sizeof(x));
	}
}

const struct avp__convert_kernels avp__convert_portable = {
	.name = "portable",
	.f32_to_f16 = f32_to_f16,
	.f32_to_bf16 = f32_to_bf16,
	.f16_to_f32 = f16_to_f32,
	.bf16_to_f32 = bf16_to_f32,
	.f32_to_int8 = f32_to_int8,
	.int8_to_f32 = int8_to_f32,
};
