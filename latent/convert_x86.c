/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conversions with AVX2 and F16C, chosen at run time. AVX-512 BF16's
 * VCVTNEPS2BF16 is not used: it flushes denormals, so its bits differ from
 * those of the portable kernels. All of these are bound by memory anyway.
 *
 * A large result is stored around the caches: the reader is another process,
 * and the line fill that an ordinary store costs is a third of the traffic.
 */
#include "latent/convert.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#include <stdatomic.h>
#include <stdbool.h>

/* From here on a result does not fit beside its source in the L2 caches. */
#define STREAM_BYTES (4u << 20)
#define AHEAD	     1024 /* bytes of prefetch distance; measured */

#define KERNEL static __attribute__((target("avx2,f16c")))
#define PART   static inline __attribute__((always_inline, target("avx2,f16c")))

PART __m256 load8(const char *from)
{
	return _mm256_loadu_ps((const float *)from);
}

PART void store(char *to, __m256i v, bool stream)
{
	if (stream)
		_mm256_stream_si256((__m256i *)to, v);
	else
		_mm256_storeu_si256((__m256i *)to, v);
}

/*
 * How many results of size item come before the first 32-byte boundary of to;
 * *stream says whether the rest may be stored around the caches.
 */
static size_t head_of(const void *to, size_t count, size_t item, bool *stream)
{
	size_t head = (0 - (uintptr_t)to) % 32;

	*stream = count >= STREAM_BYTES / item && head % item == 0;
	return *stream ? head / item : 0;
}

static void finish(bool stream)
{
	/* Streaming stores are weakly ordered; a later release store is not
	 * enough to order them. */
	if (stream)
		_mm_sfence();
}

/* 8 bfloat16 in the low halves of 8 words; NaNs made quiet, not rounded. */
PART __m256i bfloat8(__m256 x)
{
	const __m256i bits = _mm256_castps_si256(x);
	const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16),
					     _mm256_set1_epi32(1));
	const __m256i up = _mm256_add_epi32(
		bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
	const __m256i quiet =
		_mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
	const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);

	return _mm256_srli_epi32(
		_mm256_blendv_epi8(up, quiet, _mm256_castps_si256(nan)), 16);
}

PART __m256i bfloat16x16(const char *from)
{
	__m256i words = _mm256_packus_epi32(bfloat8(load8(from)),
					    bfloat8(load8(from + 32)));

	/* packus works within 128-bit lanes: put the quarters in order. */
	return _mm256_permute4x64_epi64(words, 0xd8);
}

PART __m256i half16(const char *from)
{
	const __m128i low = _mm256_cvtps_ph(load8(from), 0);
	const __m128i high = _mm256_cvtps_ph(load8(from + 32), 0);

	return _mm256_set_m128i(high, low);
}

PART size_t narrow_bf16(char *to, const char *from, size_t n, bool stream)
{
	size_t i = 0;

	for (; i + 32 <= n; i += 32) {
		_mm_prefetch(from + 4 * i + AHEAD, _MM_HINT_T0);
		_mm_prefetch(from + 4 * i + AHEAD + 64, _MM_HINT_T0);
		store(to + 2 * i, bfloat16x16(from + 4 * i), stream);
		store(to + 2 * i + 32, bfloat16x16(from + 4 * i + 64), stream);
	}
	return i;
}

PART size_t narrow_f16(char *to, const char *from, size_t n, bool stream)
{
	size_t i = 0;

	for (; i + 32 <= n; i += 32) {
		_mm_prefetch(from + 4 * i + AHEAD, _MM_HINT_T0);
		_mm_prefetch(from + 4 * i + AHEAD + 64, _MM_HINT_T0);
		store(to + 2 * i, half16(from + 4 * i), stream);
		store(to + 2 * i + 32, half16(from + 4 * i + 64), stream);
	}
	return i;
}

PART __m128i load8x16(const char *from)
{
	return _mm_loadu_si128((const __m128i *)from);
}

PART size_t widen_bf16(char *to, const char *from, size_t n, bool stream)
{
	size_t i = 0;

	for (; i + 16 <= n; i += 16) {
		const __m256i a = _mm256_cvtepu16_epi32(load8x16(from + 2 * i));
		const __m256i b =
			_mm256_cvtepu16_epi32(load8x16(from + 2 * i + 16));

		_mm_prefetch(from + 2 * i + AHEAD, _MM_HINT_T0);
		store(to + 4 * i, _mm256_slli_epi32(a, 16), stream);
		store(to + 4 * i + 32, _mm256_slli_epi32(b, 16), stream);
	}
	return i;
}

PART size_t widen_f16(char *to, const char *from, size_t n, bool stream)
{
	size_t i = 0;

	for (; i + 16 <= n; i += 16) {
		const __m256 a = _mm256_cvtph_ps(load8x16(from + 2 * i));
		const __m256 b = _mm256_cvtph_ps(load8x16(from + 2 * i + 16));

		_mm_prefetch(from + 2 * i + AHEAD, _MM_HINT_T0);
		store(to + 4 * i, _mm256_castps_si256(a), stream);
		store(to + 4 * i + 32, _mm256_castps_si256(b), stream);
	}
	return i;
}

KERNEL void f32_to_f16(void *to, const void *from, size_t count)
{
	char *out = to;
	const char *in = from;
	bool stream;
	size_t head = head_of(to, count, 2, &stream), done;

	avp__convert_portable.f32_to_f16(out, in, head);
	out += 2 * head, in += 4 * head, count -= head;
	done = stream ? narrow_f16(out, in, count, true)
		      : narrow_f16(out, in, count, false);
	avp__convert_portable.f32_to_f16(out + 2 * done, in + 4 * done,
					 count - done);
	finish(stream);
}

KERNEL void f32_to_bf16(void *to, const void *from, size_t count)
{
	char *out = to;
	const char *in = from;
	bool stream;
	size_t head = head_of(to, count, 2, &stream), done;

	avp__convert_portable.f32_to_bf16(out, in, head);
	out += 2 * head, in += 4 * head, count -= head;
	done = stream ? narrow_bf16(out, in, count, true)
		      : narrow_bf16(out, in, count, false);
	avp__convert_portable.f32_to_bf16(out + 2 * done, in + 4 * done,
					  count - done);
	finish(stream);
}

KERNEL void f16_to_f32(void *to, const void *from, size_t count)
{
	char *out = to;
	const char *in = from;
	bool stream;
	size_t head = head_of(to, count, 4, &stream), done;

	avp__convert_portable.f16_to_f32(out, in, head);
	out += 4 * head, in += 2 * head, count -= head;
	done = stream ? widen_f16(out, in, count, true)
		      : widen_f16(out, in, count, false);
	avp__convert_portable.f16_to_f32(out + 4 * done, in + 2 * done,
					 count - done);
	finish(stream);
}

KERNEL void bf16_to_f32(void *to, const void *from, size_t count)
{
	char *out = to;
	const char *in = from;
	bool stream;
	size_t head = head_of(to, count, 4, &stream), done;

	avp__convert_portable.bf16_to_f32(out, in, head);
	out += 4 * head, in += 2 * head, count -= head;
	done = stream ? widen_bf16(out, in, count, true)
		      : widen_bf16(out, in, count, false);
	avp__convert_portable.bf16_to_f32(out + 4 * done, in + 2 * done,
					  count - done);
	finish(stream);
}

/* 8 words within int8's range. Saturates; a NaN gives 0. */
PART __m256i int8_words(const char *from, __m256 scale)
{
	__m256 x = _mm256_div_ps(load8(from), scale);

	x = _mm256_and_ps(x, _mm256_cmp_ps(x, x, _CMP_ORD_Q));
	x = _mm256_min_ps(x, _mm256_set1_ps(127.0f));
	x = _mm256_max_ps(x, _mm256_set1_ps(-128.0f));
	return _mm256_cvtps_epi32(x);
}

KERNEL void f32_to_int8(int8_t *to, const void *from, size_t count, float scale)
{
	const __m256 s = _mm256_set1_ps(scale);
	const char *in = from;
	size_t i = 0;

	for (; i + 16 <= count; i += 16) {
		__m256i w = _mm256_packs_epi32(int8_words(in + 4 * i, s),
					       int8_words(in + 4 * i + 32, s));

		w = _mm256_permute4x64_epi64(w, 0xd8);
		_mm_storeu_si128(
			(__m128i *)(to + i),
			_mm_packs_epi16(_mm256_castsi256_si128(w),
					_mm256_extracti128_si256(w, 1)));
	}
	avp__convert_portable.f32_to_int8(to + i, in + 4 * i, count - i, scale);
}

KERNEL void int8_to_f32(void *to, const int8_t *from, size_t count, float scale)
{
	const __m256 s = _mm256_set1_ps(scale);
	char *out = to;
	size_t i = 0;

	for (; i + 8 <= count; i += 8) {
		const __m128i b = _mm_loadl_epi64((const __m128i *)(from + i));
		const __m256 x = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b));

		_mm256_storeu_ps((float *)(out + 4 * i), _mm256_mul_ps(x, s));
	}
	avp__convert_portable.int8_to_f32(out + 4 * i, from + i, count - i,
					  scale);
}

static const struct avp__convert_kernels kernels = {
	.name = "avx2+f16c",
	.f32_to_f16 = f32_to_f16,
	.f32_to_bf16 = f32_to_bf16,
	.f16_to_f32 = f16_to_f32,
	.bf16_to_f32 = bf16_to_f32,
	.f32_to_int8 = f32_to_int8,
	.int8_to_f32 = int8_to_f32,
};

enum { NOT_ASKED, PRESENT, ABSENT };

/* AVX2 with the system's consent, and F16C, which a hypervisor may mask. */
static int ask_processor(void)
{
	unsigned a, b, c = 0, d;

	if (__builtin_cpu_supports("avx2") && __get_cpuid(1, &a, &b, &c, &d) &&
	    (c & bit_F16C))
		return PRESENT;
	return ABSENT;
}

const struct avp__convert_kernels *avp__convert_x86(void)
{
	/* Remembered, for CPUID traps in a virtual machine. Relaxed: a thread
	 * that does not see it asks again and gets the same answer. */
	static _Atomic int answer;
	int known = atomic_load_explicit(&answer, memory_order_relaxed);

	if (known == NOT_ASKED) {
		known = ask_processor();
		atomic_store_explicit(&answer, known, memory_order_relaxed);
	}
	return known == PRESENT ? &kernels : NULL;
}
#else
const struct avp__convert_kernels *avp__convert_x86(void)
{
	return NULL;
}
#endif

const struct avp__convert_kernels *avp__convert_best(void)
{
	const struct avp__convert_kernels *x86 = avp__convert_x86();

	return x86 ? x86 : &avp__convert_portable;
}
