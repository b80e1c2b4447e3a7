/* SPDX-License-Identifier: Apache-2.0 */
/* Conversions between the dtypes of AVP, on top of the processor's kernels. */
#include <string.h>

#include <avp/latent.h>

#include "latent/convert.h"

/* Numbers that pass through a float32 buffer on the stack at a time. */
#define CHUNK 1024

static void widen(float *to, const void *from, uint32_t dtype, size_t count)
{
	const struct avp__convert_kernels *k = avp__convert_best();

	switch (dtype) {
	case AVP_FLOAT16: k->f16_to_f32(to, from, count); break;
	case AVP_BFLOAT16: k->bf16_to_f32(to, from, count); break;
	case AVP_INT8: k->int8_to_f32(to, from, count, 1.0f); break;
	default: memcpy(to, from, count * sizeof(float));
	}
}

static void narrow(void *to, uint32_t dtype, const float *from, size_t count)
{
	const struct avp__convert_kernels *k = avp__convert_best();

	switch (dtype) {
	case AVP_FLOAT16: k->f32_to_f16(to, from, count); break;
	case AVP_BFLOAT16: k->f32_to_bf16(to, from, count); break;
	case AVP_INT8: k->f32_to_int8(to, from, count, 1.0f); break;
	default: memcpy(to, from, count * sizeof(float));
	}
}

/* Every dtype is exact in float32, so two steps round only once. */
static void through_float(char *to, uint32_t to_dtype, const char *from,
			  uint32_t from_dtype, size_t count)
{
	const size_t to_item = avp_dtype_size(to_dtype);
	const size_t from_item = avp_dtype_size(from_dtype);
	float buffer[CHUNK];

	while (count) {
		size_t n = count < CHUNK ? count : CHUNK;

		widen(buffer, from, from_dtype, n);
		narrow(to, to_dtype, buffer, n);
		to += n * to_item;
		from += n * from_item;
		count -= n;
	}
}

int avp_convert(void *to, uint32_t to_dtype, const void *from,
		uint32_t from_dtype, size_t count)
{
	const size_t to_item = avp_dtype_size(to_dtype);

	if (!to_item || !avp_dtype_size(from_dtype))
		return AVP_BAD_DTYPE;
	if (!count)
		return 0;
	if (to_dtype == from_dtype)
		memcpy(to, from, count * to_item);
	else if (to_dtype == AVP_FLOAT32 && (uintptr_t)to % sizeof(float) == 0)
		widen(to, from, from_dtype, count);
	else if (from_dtype == AVP_FLOAT32 &&
		 (uintptr_t)from % sizeof(float) == 0)
		narrow(to, to_dtype, from, count);
	else
		through_float(to, to_dtype, from, from_dtype, count);
	return 0;
}

void avp_int8_quantize(int8_t *to, const float *from, size_t count, float scale)
{
	avp__convert_best()->f32_to_int8(to, from, count, scale);
}

void avp_int8_dequantize(float *to, const int8_t *from, size_t count,
			 float scale)
{
	avp__convert_best()->int8_to_f32(to, from, count, scale);
}
