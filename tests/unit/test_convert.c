/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conversions: every 16-bit number, every exponent and rounding boundary of
 * float32, random bits; the processor's kernels give the portable bits, and the
 * portable bits are the nearest number by a definition that shares no code.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <avp/latent.h>

#include "latent/convert.h"
#include "tests/harness.h"

#define ALL16 65536

static uint64_t random_state = 0x9e3779b97f4a7c15;

static uint32_t random32(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)(random_state >> 32);
}

static float as_float(uint32_t bits)
{
	float f;

	memcpy(&f, &bits, sizeof(f));
	return f;
}

/* The value of a 16-bit pattern, by the formats' definition, in double. */
static double value16(uint16_t bits, int fraction_bits, int bias)
{
	const int exponent_bits = 15 - fraction_bits;
	int exponent = bits >> fraction_bits & ((1 << exponent_bits) - 1);
	double fraction =
		(bits & ((1 << fraction_bits) - 1)) * ldexp(1, -fraction_bits);
	double x;

	if (exponent == (1 << exponent_bits) - 1)
		x = fraction != 0 ? NAN : INFINITY;
	else if (exponent)
		x = ldexp(1 + fraction, exponent - bias);
	else
		x = ldexp(fraction, 1 - bias);
	return bits & 0x8000 ? -x : x;
}

static double half(uint16_t bits)
{
	return value16(bits, 10, 15);
}

static double bfloat(uint16_t bits)
{
	return value16(bits, 7, 127);
}

/* What infinity stands for when distances are compared: the next step up. */
static double bounded(double x, double beyond)
{
	return isinf(x) ? copysign(beyond, x) : x;
}

/* Is got the nearest of its kind to x, and the even one of two as near? */
static bool nearest(float x, uint16_t got, double (*value)(uint16_t),
		    double beyond)
{
	const double y = fabs(bounded(value(got), beyond)), a = fabs((double)x);
	const uint16_t magnitude = got & 0x7fff;
	double here, other;

	if (isnan(x))
		return isnan(value(got));
	if (!signbit(x) != !(got & 0x8000))
		return false;
	if (isinf(x))
		return isinf(value(got));
	here = fabs(a - y);
	if (magnitude && a < y) {
		other = a - fabs(value((uint16_t)(magnitude - 1)));
		return here < other || (here == other && !(got & 1));
	}
	if (isinf(value(got)))
		return true;
	other = fabs(bounded(value((uint16_t)(magnitude + 1)), beyond)) - a;
	return here < other || (here == other && !(got & 1));
}

#define HALF_BEYOND   65536.0
#define BFLOAT_BEYOND ldexp(1, 128)

/*
 * Fills with float32 that matter: all exponents and signs with fractions at and
 * around every rounding boundary, then random bits.
 */
static size_t interesting(uint32_t *bits, size_t capacity)
{
	static const uint32_t steps[] = {0, 1, 2};
	size_t n = 0;

	for (uint32_t top = 0; top < 512; top++)
		for (uint32_t bit = 0; bit <= 23; bit++)
			for (size_t s = 0; s < 3; s++) {
				uint32_t at = (bit < 23 ? 1u << bit : 0);

				bits[n++] = top << 23 |
					    ((at + steps[s]) & 0x7fffff);
				bits[n++] = top << 23 |
					    ((at - steps[s]) & 0x7fffff);
				bits[n++] = top << 23 |
					    ((3 * at + steps[s]) & 0x7fffff);
			}
	while (n < capacity)
		bits[n++] = random32();
	return n;
}

#define SAMPLES (4u << 20)

static void narrowing_is_nearest(void)
{
	uint32_t *bits = malloc(SAMPLES * sizeof(*bits));
	uint16_t *got = malloc(SAMPLES * sizeof(*got));
	size_t n = interesting(bits, SAMPLES), wrong = 0;

	avp__convert_portable.f32_to_f16(got, bits, n);
	for (size_t i = 0; i < n; i++)
		wrong += !nearest(as_float(bits[i]), got[i], half, HALF_BEYOND);
	CU_ASSERT_EQUAL(wrong, 0);
	avp__convert_portable.f32_to_bf16(got, bits, n);
	wrong = 0;
	for (size_t i = 0; i < n; i++)
		wrong += !nearest(as_float(bits[i]), got[i], bfloat,
				  BFLOAT_BEYOND);
	CU_ASSERT_EQUAL(wrong, 0);
	free(bits);
	free(got);
}

static bool exact(float got, double want)
{
	if (isnan(want))
		return isnan(got);
	return got == want && !signbit(got) == !signbit(want);
}

static void widening_is_exact(void)
{
	static uint16_t all[ALL16];
	static float wide[ALL16];
	size_t wrong = 0;

	for (uint32_t i = 0; i < ALL16; i++)
		all[i] = (uint16_t)i;
	avp__convert_portable.f16_to_f32(wide, all, ALL16);
	for (uint32_t i = 0; i < ALL16; i++)
		wrong += !exact(wide[i], half(all[i]));
	avp__convert_portable.bf16_to_f32(wide, all, ALL16);
	for (uint32_t i = 0; i < ALL16; i++)
		wrong += !exact(wide[i], bfloat(all[i]));
	CU_ASSERT_EQUAL(wrong, 0);
}

static void nan_is_quiet_and_keeps_its_sign(void)
{
	const uint32_t in[] = {0x7f800001, 0xff800001, 0x7fc01234, 0xffffffff};
	uint16_t out[4];

	avp_convert(out, AVP_FLOAT16, in, AVP_FLOAT32, 4);
	CU_ASSERT_EQUAL(out[0], 0x7e00);
	CU_ASSERT_EQUAL(out[1], 0xfe00);
	CU_ASSERT_EQUAL(out[2], 0x7e00);
	CU_ASSERT_EQUAL(out[3], 0xffff);
	avp_convert(out, AVP_BFLOAT16, in, AVP_FLOAT32, 4);
	CU_ASSERT_EQUAL(out[0], 0x7fc0);
	CU_ASSERT_EQUAL(out[1], 0xffc0);
	CU_ASSERT_EQUAL(out[2], 0x7fc0);
	CU_ASSERT_EQUAL(out[3], 0xffff);
}

/* Compares two kernels on n numbers at the given misalignment. */
static void same_bits(void (*a)(void *, const void *, size_t),
		      void (*b)(void *, const void *, size_t), const void *in,
		      size_t n, size_t from_item, size_t to_item, size_t skew)
{
	char *source = malloc(n * from_item + skew);
	char *x = malloc(n * to_item + skew + 1);
	char *y = malloc(n * to_item + skew + 1);

	memcpy(source + skew, in, n * from_item);
	x[skew + n * to_item] = y[skew + n * to_item] = 'e';
	a(x + skew, source + skew, n);
	b(y + skew, source + skew, n);
	CU_ASSERT_EQUAL(memcmp(x + skew, y + skew, n * to_item), 0);
	CU_ASSERT_EQUAL(x[skew + n * to_item], 'e');
	CU_ASSERT_EQUAL(y[skew + n * to_item], 'e');
	free(source);
	free(x);
	free(y);
}

static void processor_gives_the_same_bits(void)
{
	const struct avp__convert_kernels *k = avp__convert_best();
	const struct avp__convert_kernels *p = &avp__convert_portable;
	/* Over the size from which results go around the caches. */
	const size_t n = SAMPLES + 21;
	uint32_t *bits = malloc(n * sizeof(*bits));
	static uint16_t all[ALL16];

	interesting(bits, n);
	for (uint32_t i = 0; i < ALL16; i++)
		all[i] = (uint16_t)i;
	for (size_t skew = 0; skew < 5; skew++) {
		same_bits(k->f32_to_f16, p->f32_to_f16, bits, n, 4, 2, skew);
		same_bits(k->f32_to_bf16, p->f32_to_bf16, bits, n, 4, 2, skew);
		same_bits(k->f16_to_f32, p->f16_to_f32, bits, n, 2, 4, skew);
		same_bits(k->bf16_to_f32, p->bf16_to_f32, bits, n, 2, 4, skew);
		same_bits(k->f16_to_f32, p->f16_to_f32, all, ALL16, 2, 4, skew);
		same_bits(k->bf16_to_f32, p->bf16_to_f32, all, ALL16, 2, 4,
			  skew);
	}
	for (size_t few = 0; few < 70; few++) {
		same_bits(k->f32_to_f16, p->f32_to_f16, bits, few, 4, 2, 1);
		same_bits(k->f32_to_bf16, p->f32_to_bf16, bits, few, 4, 2, 1);
		same_bits(k->f16_to_f32, p->f16_to_f32, all, few, 2, 4, 1);
		same_bits(k->bf16_to_f32, p->bf16_to_f32, all, few, 2, 4, 1);
	}
	free(bits);
}

static void int8_rounds_and_saturates(void)
{
	const struct avp__convert_kernels *k = avp__convert_best();
	const float in[] = {0.5f,    1.5f,   2.5f,     -0.5f,
			    -1.5f,   127.4f, 127.5f,   1e30f,
			    -1e9f,   NAN,    INFINITY, -128.5f,
			    -128.6f, -0.0f,  3.f,      0.49999997f};
	const int8_t want[] = {0,    2, 2,   0,	   -2,	 127, 127, 127,
			       -128, 0, 127, -128, -128, 0,   3,   0};
	int8_t out[16], same[16];
	static float x[SAMPLES / 64];
	static int8_t a[SAMPLES / 64], b[SAMPLES / 64];
	float back[16];

	CU_ASSERT_EQUAL(avp_convert(out, AVP_INT8, in, AVP_FLOAT32, 16), 0);
	CU_ASSERT_EQUAL(memcmp(out, want, 16), 0);
	avp__convert_portable.f32_to_int8(same, in, 16, 1.0f);
	CU_ASSERT_EQUAL(memcmp(same, want, 16), 0);
	avp_convert(back, AVP_FLOAT32, out, AVP_INT8, 16);
	CU_ASSERT_EQUAL(back[8], -128.0f);
	for (size_t i = 0; i < SAMPLES / 64; i++)
		x[i] = as_float(random32());
	k->f32_to_int8(a, x, SAMPLES / 64, 0.37f);
	avp__convert_portable.f32_to_int8(b, x, SAMPLES / 64, 0.37f);
	CU_ASSERT_EQUAL(memcmp(a, b, sizeof(a)), 0);
	avp_int8_quantize(out, in, 16, 0.5f);
	CU_ASSERT_EQUAL(out[0], 1);
	CU_ASSERT_EQUAL(out[14], 6);
	avp_int8_dequantize(back, out, 16, 0.5f);
	CU_ASSERT_EQUAL(back[14], 3.0f);
}

static void every_pair_of_dtypes(void)
{
	static const int8_t in[] = {0, 1, -1, 7, 127, -128, 64, -3};

	for (uint32_t a = 0; a < 4; a++)
		for (uint32_t b = 0; b < 4; b++) {
			char x[64], y[64];
			int8_t out[8];

			avp_convert(x + 1, a, in, AVP_INT8, 8);
			avp_convert(y + 3, b, x + 1, a, 8);
			avp_convert(out, AVP_INT8, y + 3, b, 8);
			CU_ASSERT_EQUAL(memcmp(in, out, 8), 0);
		}
	CU_ASSERT_EQUAL(avp_convert(NULL, 4, in, 0, 1), AVP_BAD_DTYPE);
	CU_ASSERT_EQUAL(avp_convert(NULL, 0, in, 77, 1), AVP_BAD_DTYPE);
	CU_ASSERT_EQUAL(avp_convert(NULL, 0, NULL, 1, 0), 0);
}

static void two_steps_round_once(void)
{
	static uint16_t all[ALL16], got[ALL16];
	size_t wrong = 0;

	for (uint32_t i = 0; i < ALL16; i++)
		all[i] = (uint16_t)i;
	avp_convert(got, AVP_BFLOAT16, all, AVP_FLOAT16, ALL16);
	for (uint32_t i = 0; i < ALL16; i++)
		wrong += !nearest((float)half(all[i]), got[i], bfloat,
				  BFLOAT_BEYOND) &&
			 !isnan(half(all[i]));
	CU_ASSERT_EQUAL(wrong, 0);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(narrowing_is_nearest),
		TEST(widening_is_exact),
		TEST(nan_is_quiet_and_keeps_its_sign),
		TEST(processor_gives_the_same_bits),
		TEST(int8_rounds_and_saturates),
		TEST(every_pair_of_dtypes),
		TEST(two_steps_round_once),
		{0},
	};

	return test_main("convert", tests);
}
