/* SPDX-License-Identifier: Apache-2.0 */
/* One KV-cache payload: its header, its size, and views of its tensors. */
#include <string.h>

#include <avp/latent.h>

/* What vector code and the arena agree on for the first tensor. */
#define ALIGNMENT 64

static void put32(uint8_t *to, uint32_t x)
{
	for (int i = 0; i < 4; i++)
		to[i] = (uint8_t)(x >> 8 * i);
}

static uint32_t get32(const uint8_t *from)
{
	return (uint32_t)from[0] | (uint32_t)from[1] << 8 |
	       (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

static int check_count(const char *name, uint32_t count, struct avp_reason *why)
{
	if (count)
		return 0;
	return avp__fail(why, AVP_KV_SIZE,
			 "%s 0 is below 1; a KV-cache holds at least one token "
			 "of one head of one layer",
			 name);
}

static int check_shape(const struct avp_kv_shape *s, struct avp_reason *why)
{
	int err;

	if ((err = check_count("num_layers", s->num_layers, why)) ||
	    (err = check_count("num_kv_heads", s->num_kv_heads, why)) ||
	    (err = check_count("head_dim", s->head_dim, why)) ||
	    (err = check_count("seq_len", s->seq_len, why)))
		return err;
	if (s->dtype > AVP_BFLOAT16)
		return avp__fail(why, AVP_BAD_DTYPE,
				 "KV dtype %u; a KV-cache has 0 float32, "
				 "1 float16 or 2 bfloat16",
				 s->dtype);
	return 0;
}

/* Bytes of one K or V, and of the payload. */
static int sizes(const struct avp_kv_shape *s, uint64_t *tensor,
		 uint64_t *payload, struct avp_reason *why)
{
	uint64_t one, all;
	int err = check_shape(s, why);

	if (err)
		return err;
	if (__builtin_mul_overflow((uint64_t)s->num_kv_heads, s->seq_len,
				   &one) ||
	    __builtin_mul_overflow(one, s->head_dim, &one) ||
	    __builtin_mul_overflow(one, avp_dtype_size(s->dtype), &one) ||
	    __builtin_mul_overflow(one, 2 * (uint64_t)s->num_layers, &all) ||
	    all > INT64_MAX - AVP_KV_HEADER_BYTES)
		return avp__fail(
			why, AVP_TOO_LARGE,
			"%u layers x %u heads x %u tokens x %u is over "
			"2^63 bytes; no such cache exists",
			s->num_layers, s->num_kv_heads, s->seq_len,
			s->head_dim);
	*tensor = one;
	*payload = all + AVP_KV_HEADER_BYTES;
	return 0;
}

int avp_kv_bytes(const struct avp_kv_shape *shape, uint64_t *bytes,
		 struct avp_reason *why)
{
	uint64_t tensor = 0;

	return sizes(shape, &tensor, bytes, why);
}

int avp_kv_build(struct avp_kv *kv, void *payload, uint64_t capacity,
		 const struct avp_kv_shape *shape, struct avp_reason *why)
{
	uint8_t *at = payload;
	uint64_t tensor = 0, bytes = 0;
	int err = sizes(shape, &tensor, &bytes, why);

	if (err)
		return err;
	if (bytes > capacity)
		return avp__fail(why, AVP_TOO_LARGE,
				 "the cache has %llu bytes, the buffer %llu; "
				 "ask for more, or send it in parts",
				 (unsigned long long)bytes,
				 (unsigned long long)capacity);
	if ((uintptr_t)(at + AVP_KV_HEADER_BYTES) % ALIGNMENT)
		return avp__fail(
			why, AVP_USAGE,
			"the tensors would begin %zu bytes behind a "
			"%d-byte boundary; see avp_kv_padding()",
			(size_t)((uintptr_t)(at + AVP_KV_HEADER_BYTES) %
				 ALIGNMENT),
			ALIGNMENT);
	put32(at, shape->num_layers);
	put32(at + 4, shape->num_kv_heads);
	put32(at + 8, shape->head_dim);
	put32(at + 12, shape->seq_len);
	at[16] = (uint8_t)shape->dtype;
	*kv = (struct avp_kv){.shape = *shape,
			      .tensors = at + AVP_KV_HEADER_BYTES,
			      .tensor_bytes = tensor};
	return 0;
}

int avp_kv_open(struct avp_kv *kv, const void *payload, uint64_t bytes,
		struct avp_reason *why)
{
	uint8_t head[AVP_KV_HEADER_BYTES];
	struct avp_kv_shape shape;
	uint64_t tensor = 0, need = 0;
	int err;

	if (bytes < sizeof(head))
		return avp__fail(why, AVP_KV_SIZE,
				 "%llu bytes are less than the %d of a KV "
				 "header",
				 (unsigned long long)bytes,
				 AVP_KV_HEADER_BYTES);
	memcpy(head, payload, sizeof(head));
	shape = (struct avp_kv_shape){.num_layers = get32(head),
				      .num_kv_heads = get32(head + 4),
				      .head_dim = get32(head + 8),
				      .seq_len = get32(head + 12),
				      .dtype = head[16]};
	err = sizes(&shape, &tensor, &need, why);
	if (err == AVP_TOO_LARGE) /* larger than any payload: also this one */
		return avp__fail(
			why, AVP_KV_SIZE,
			"%u layers x %u heads x %u tokens x %u are far "
			"more than the payload's %llu bytes",
			shape.num_layers, shape.num_kv_heads, shape.seq_len,
			shape.head_dim, (unsigned long long)bytes);
	if (err)
		return err;
	if (need != bytes)
		return avp__fail(
			why, AVP_KV_SIZE,
			"%u layers x %u heads x %u tokens x %u of %s "
			"take %llu bytes, the payload has %llu",
			shape.num_layers, shape.num_kv_heads, shape.seq_len,
			shape.head_dim, avp_dtype_name(shape.dtype),
			(unsigned long long)need, (unsigned long long)bytes);
	*kv = (struct avp_kv){
		.shape = shape,
		.tensors = (char *)(uintptr_t)payload + sizeof(head),
		.tensor_bytes = tensor,
	};
	return 0;
}

uint64_t avp_kv_offset(const struct avp_kv *kv, uint32_t layer,
		       enum avp_kv_which which)
{
	return AVP_KV_HEADER_BYTES +
	       (2 * (uint64_t)(layer - kv->first_layer) + which) *
		       kv->tensor_bytes;
}

int avp_kv_tensor(const struct avp_kv *kv, uint32_t layer,
		  enum avp_kv_which which, struct avp_tensor *t)
{
	const uint64_t shape[] = {kv->shape.num_kv_heads, kv->shape.seq_len,
				  kv->shape.head_dim};
	uint64_t off;

	if (layer < kv->first_layer ||
	    layer - kv->first_layer >= kv->shape.num_layers ||
	    (which != AVP_KV_K && which != AVP_KV_V))
		return AVP_USAGE;
	off = avp_kv_offset(kv, layer, which) - AVP_KV_HEADER_BYTES;
	return avp_tensor_init(t, (char *)kv->tensors + off, kv->shape.dtype, 3,
			       shape);
}

int avp_kv_slice(const struct avp_kv *kv, uint32_t layer,
		 enum avp_kv_which which, const struct avp_kv_range *range,
		 struct avp_tensor *t)
{
	const struct avp_kv_shape *s = &kv->shape;
	uint64_t heads = range->heads, tokens = range->tokens;
	struct avp_tensor made;

	if (range->first_head >= s->num_kv_heads ||
	    range->first_token >= s->seq_len ||
	    avp_kv_tensor(kv, layer, which, &made))
		return AVP_USAGE;
	if (!heads)
		heads = s->num_kv_heads - range->first_head;
	if (!tokens)
		tokens = s->seq_len - range->first_token;
	if (avp_tensor_slice(&made, 0, range->first_head, heads, &made) ||
	    avp_tensor_slice(&made, 1, range->first_token, tokens, &made))
		return AVP_USAGE;
	*t = made;
	return 0;
}
