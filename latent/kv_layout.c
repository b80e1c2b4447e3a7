/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Other layouts of one layer's K and V: blocks of a pool, as serving engines
 * keep them, and K and V stacked in one tensor, as frameworks hand them out.
 */
#include <avp/latent.h>

static struct avp_kv_pages with_defaults(const struct avp_kv *kv,
					 const struct avp_kv_pages *given)
{
	const int64_t item = (int64_t)avp_dtype_size(given->dtype);
	struct avp_kv_pages p = *given;

	if (!p.block_tokens)
		p.block_tokens = AVP_KV_BLOCK_TOKENS;
	if (!p.head_stride)
		p.head_stride = item * kv->shape.head_dim;
	if (!p.token_stride)
		p.token_stride = p.head_stride * kv->shape.num_kv_heads;
	if (!p.block_stride)
		p.block_stride = p.token_stride * p.block_tokens;
	return p;
}

static int check_pages(const struct avp_kv *kv, const struct avp_kv_pages *p,
		       struct avp_reason *why)
{
	const uint32_t need =
		(uint32_t)(((uint64_t)kv->shape.seq_len + p->block_tokens - 1) /
			   p->block_tokens);

	if (!avp_dtype_size(p->dtype))
		return avp__fail(why, AVP_BAD_DTYPE,
				 "pool dtype %u; 0 to 3 are known", p->dtype);
	if (p->table_len < need)
		return avp__fail(
			why, AVP_SHAPE_MISMATCH,
			"%u tokens in blocks of %u need %u blocks, the "
			"table has %u",
			kv->shape.seq_len, p->block_tokens, need, p->table_len);
	for (uint32_t i = 0; i < need; i++)
		if (p->table[i] >= p->blocks)
			return avp__fail(why, AVP_SHAPE_MISMATCH,
					 "block table entry %u is %u, the pool "
					 "has %u blocks",
					 i, p->table[i], p->blocks);
	return 0;
}

/* Block i of the table as [heads][tokens][head_dim], the cache's own order. */
static struct avp_tensor page(const struct avp_kv *kv,
			      const struct avp_kv_pages *p, uint32_t i,
			      uint64_t tokens)
{
	return (struct avp_tensor){
		.data = (char *)p->pool + p->block_stride * p->table[i],
		.dtype = p->dtype,
		.rank = 3,
		.shape = {kv->shape.num_kv_heads, tokens, kv->shape.head_dim},
		.stride = {p->head_stride, p->token_stride,
			   (int64_t)avp_dtype_size(p->dtype)},
	};
}

static int copy_pages(const struct avp_kv *kv, uint32_t layer,
		      enum avp_kv_which which, const struct avp_kv_pages *given,
		      int into_pool, struct avp_reason *why)
{
	const struct avp_kv_pages p = with_defaults(kv, given);
	uint64_t token = 0, left = kv->shape.seq_len;
	struct avp_tensor whole;
	int err = check_pages(kv, &p, why);

	if (err)
		return err;
	if (avp_kv_tensor(kv, layer, which, &whole))
		return avp__fail(why, AVP_USAGE, "layer %u is not in it",
				 layer);
	for (uint32_t i = 0; left; i++) {
		uint64_t n = left < p.block_tokens ? left : p.block_tokens;
		struct avp_tensor block = page(kv, &p, i, n), part;

		avp_tensor_slice(&whole, 1, token, n, &part);
		avp_tensor_copy(into_pool ? &block : &part,
				into_pool ? &part : &block, NULL);
		token += n;
		left -= n;
	}
	return 0;
}

int avp_kv_from_pages(const struct avp_kv *kv, uint32_t layer,
		      enum avp_kv_which which, const struct avp_kv_pages *pages,
		      struct avp_reason *why)
{
	return copy_pages(kv, layer, which, pages, 0, why);
}

int avp_kv_to_pages(const struct avp_kv *kv, uint32_t layer,
		    enum avp_kv_which which, const struct avp_kv_pages *pages,
		    struct avp_reason *why)
{
	return copy_pages(kv, layer, which, pages, 1, why);
}

/* K and V lie one behind the other: together they are the stacked tensor. */
static int both(const struct avp_kv *kv, uint32_t layer, struct avp_tensor *t,
		struct avp_reason *why)
{
	const uint64_t shape[] = {2, kv->shape.num_kv_heads, kv->shape.seq_len,
				  kv->shape.head_dim};
	struct avp_tensor k;

	if (avp_kv_tensor(kv, layer, AVP_KV_K, &k))
		return avp__fail(why, AVP_USAGE, "layer %u is not in it",
				 layer);
	return avp_tensor_init(t, k.data, kv->shape.dtype, 4, shape);
}

int avp_kv_from_stacked(const struct avp_kv *kv, uint32_t layer,
			const struct avp_tensor *stacked,
			struct avp_reason *why)
{
	struct avp_tensor own;
	int err = both(kv, layer, &own, why);

	return err ? err : avp_tensor_copy(&own, stacked, why);
}

int avp_kv_to_stacked(const struct avp_kv *kv, uint32_t layer,
		      const struct avp_tensor *stacked, struct avp_reason *why)
{
	struct avp_tensor own;
	int err = both(kv, layer, &own, why);

	return err ? err : avp_tensor_copy(stacked, &own, why);
}
