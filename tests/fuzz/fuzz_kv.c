/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a KV-cache payload and as a part of one. Whatever is accepted
 * has all its tensors inside the bytes. As a test: the recorded caches, their
 * first bytes, and each byte of the header changed.
 */
#include <stdlib.h>
#include <string.h>

#include <avp/latent.h>

#include "tests/fuzz.h"

static volatile unsigned sink; /* so that reads are not left out */

/* Reads the first and last byte of each tensor. */
static unsigned touch(const struct avp_kv *kv, const uint8_t *data, size_t len)
{
	unsigned sum = 0;

	for (uint32_t i = 0; i < kv->shape.num_layers; i++)
		for (int which = 0; which < 2; which++) {
			struct avp_tensor t;
			const uint8_t *p;

			MUST(!avp_kv_tensor(kv, i + kv->first_layer,
					    (enum avp_kv_which)which, &t));
			p = t.data;
			MUST(p >= data + AVP_KV_HEADER_BYTES);
			MUST(avp_tensor_bytes(&t) <= (size_t)(data + len - p));
			sum += p[0] + (unsigned)p[avp_tensor_bytes(&t) - 1];
		}
	return sum;
}

static void slice(const struct avp_kv *kv)
{
	const struct avp_kv_range half = {kv->shape.num_kv_heads / 2, 0,
					  kv->shape.seq_len / 2, 0};
	struct avp_tensor t;

	MUST(!avp_kv_slice(kv, kv->shape.num_layers - 1, AVP_KV_V, &half, &t));
	MUST(avp_kv_slice(kv, kv->shape.num_layers, AVP_KV_V, &half, &t));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct avp_kv_assembly assembly = {0};
	struct avp_kv_part part;
	struct avp_reason why;
	struct avp_kv kv;
	int err = avp_kv_open(&kv, data, len, &why);

	if (err) {
		MUST(why.code == err && why.text[0]);
	} else {
		sink += touch(&kv, data, len);
		slice(&kv);
	}
	if (len < sizeof(part))
		return 0;
	memcpy(&part, data, sizeof(part));
	if (avp_kv_assembly_add(&assembly, &part, data + sizeof(part),
				len - sizeof(part), &kv, &why) >= 0)
		sink += touch(&kv, data + sizeof(part), len - sizeof(part));
	else
		MUST(!assembly.parts_seen && why.text[0]);
	return 0;
}

#ifndef AVP_FUZZING
static void feed_variants(const struct bytes *b)
{
	const struct avp_kv_part part = {0, 1, 0, 1, 1};
	struct bytes prefixed = {malloc(b->len + sizeof(part)),
				 b->len + sizeof(part)};

	memcpy(prefixed.data, &part, sizeof(part));
	memcpy(prefixed.data + sizeof(part), b->data, b->len);
	feed(prefixed.data, prefixed.len);
	bytes_free(&prefixed);
	for (size_t n = 0; n < b->len && n < 60; n++)
		feed(b->data, n);
	feed(b->data, b->len);
	for (size_t i = 0; i < b->len && i < AVP_KV_HEADER_BYTES; i++)
		for (int x = 1; x < 256; x++) {
			b->data[i] ^= (uint8_t)x;
			LLVMFuzzerTestOneInput(b->data, b->len);
			b->data[i] ^= (uint8_t)x;
		}
}

static void recorded_caches(void)
{
	static const char *const kinds[] = {"kv", "kv_edge"};
	unsigned fed = 0;

	for (int k = 0; k < 2; k++)
		for (const struct avp_json *c = vectors_first(kinds[k]); c;
		     c = avp_json_next(c), fed++) {
			struct avp_str file = case_str(c, "file");
			struct bytes in =
				file.len ? vectors_file(file)
					 : bytes_hex(case_str(c, "hex"));

			feed_variants(&in);
			bytes_free(&in);
		}
	CU_ASSERT(!vectors_are_ours() || fed == 52);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(recorded_caches),
		{0},
	};

	return test_main("fuzz_kv", tests);
}
#endif
