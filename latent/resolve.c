/* SPDX-License-Identifier: Apache-2.0 */
/* May two models exchange states, and does a frame fit the one that reads? */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <avp/latent.h>

#include "latent/contradict.h"
#include "latent/shown.h"

__attribute__((format(printf, 2, 3))) static void because(
	struct avp_resolution *r, const char *format, ...)
{
	const size_t used = strlen(r->reason);
	va_list args;

	va_start(args, format);
	vsnprintf(r->reason + used, sizeof(r->reason) - used, format, args);
	va_end(args);
}

static int same_nonempty(struct avp_str a, struct avp_str b)
{
	return a.len && avp_str_equal(a, b);
}

/* 1 if one of the two counts is unknown, or they are equal. */
static int may_equal(struct avp_resolution *r, const char *name, uint32_t local,
		     uint32_t remote)
{
	if (!local || !remote || local == remote)
		return 1;
	because(r, "; %s differs, %u here and %u there: no KV-caches", name,
		local, remote);
	return 0;
}

static void latent(struct avp_resolution *r, const struct avp_identity *local,
		   const struct avp_identity *remote)
{
	r->mode = AVP_MODE_LATENT;
	r->kv_compatible =
		may_equal(r, "num_kv_heads", local->num_kv_heads,
			  remote->num_kv_heads) &&
		may_equal(r, "head_dim", local->head_dim, remote->head_dim);
}

static void json(struct avp_resolution *r, const struct avp_identity *local,
		 const struct avp_identity *remote)
{
	r->mode = AVP_MODE_JSON;
	if (!local->model_family.len || !remote->model_family.len)
		because(r,
			"no equal model_hash, and a model_family is unknown");
	else if (!avp_str_equal(local->model_family, remote->model_family))
		because(r, "model_hash differs, and model_family: %.*s, %.*s",
			SHOWN(local->model_family),
			SHOWN(remote->model_family));
	else if (!local->hidden_dim || local->hidden_dim != remote->hidden_dim)
		because(r, "no equal model_hash; hidden_dim is %u and %u",
			local->hidden_dim, remote->hidden_dim);
	else
		because(r, "no equal model_hash; num_layers is %u and %u",
			local->num_layers, remote->num_layers);
}

void avp_resolve(const struct avp_identity *local,
		 const struct avp_identity *remote, uint32_t flags,
		 struct avp_resolution *r)
{
	*r = (struct avp_resolution){.mode = AVP_MODE_JSON};
	if (!local || !remote) {
		because(r, "the %s model is not known",
			local ? "remote" : "local");
	} else if (same_nonempty(local->model_hash, remote->model_hash)) {
		because(r, "equal model_hash");
		latent(r, local, remote);
	} else if (same_nonempty(local->model_family, remote->model_family) &&
		   local->hidden_dim && local->num_layers &&
		   local->hidden_dim == remote->hidden_dim &&
		   local->num_layers == remote->num_layers) {
		because(r,
			"equal model_family %.*s, hidden_dim %u, num_layers "
			"%u",
			SHOWN(local->model_family), local->hidden_dim,
			local->num_layers);
		latent(r, local, remote);
	} else if (flags & AVP_RESOLVE_MAPS &&
		   same_nonempty(local->tokenizer_hash,
				 remote->tokenizer_hash)) {
		r->mode = AVP_MODE_LATENT;
		because(r, "different models of one vocabulary");
		snprintf(r->map_id, sizeof(r->map_id), "vocab:%.*s",
			 (int)(local->tokenizer_hash.len < 16
				       ? local->tokenizer_hash.len
				       : 16),
			 local->tokenizer_hash.data);
	} else {
		json(r, local, remote);
	}
}

static bool texts_differ(struct avp_str a, struct avp_str b)
{
	return a.len && b.len && !avp_str_equal(a, b);
}

static bool counts_differ(uint32_t a, uint32_t b)
{
	return a && b && a != b;
}

bool avp__contradict(const struct avp_identity *a, const struct avp_identity *b)
{
	return texts_differ(a->model_hash, b->model_hash) ||
	       texts_differ(a->model_family, b->model_family) ||
	       counts_differ(a->hidden_dim, b->hidden_dim) ||
	       counts_differ(a->num_layers, b->num_layers);
}

/* ---- frames ------------------------------------------------------------- */

static int fits(const char *name, uint32_t model, uint32_t frame,
		struct avp_reason *why)
{
	if (!model || !frame || model == frame)
		return 0;
	return avp__fail(
		why, AVP_SHAPE_MISMATCH,
		"%s is %u in the frame, %u in this agent's model; send "
		"JSON instead",
		name, frame, model);
}

static int check_cache(const struct avp_identity *model,
		       const struct avp_metadata *m, const void *content,
		       uint64_t bytes, struct avp_reason *why)
{
	struct avp_kv_part part;
	struct avp_kv kv;
	uint32_t layers;
	int parts = avp_kv_part_read(m, &part, why), err;

	if (parts < 0)
		return parts;
	if (parts && (err = fits("kv.total_layers", model->num_layers,
				 part.total_layers, why)))
		return err;
	if (!content)
		return 0;
	err = avp_kv_open(&kv, content, bytes, why);
	if (err)
		return err;
	layers = kv.shape.num_layers;
	if (parts && layers != part.layers)
		return avp__fail(why, AVP_SHAPE_MISMATCH,
				 "the part has %u layers, kv.layers says %u",
				 layers, part.layers);
	if ((!parts &&
	     (err = fits("num_layers", model->num_layers, layers, why))) ||
	    (err = fits("num_kv_heads", model->num_kv_heads,
			kv.shape.num_kv_heads, why)) ||
	    (err = fits("head_dim", model->head_dim, kv.shape.head_dim, why)))
		return err;
	return 0;
}

static int check_states(const struct avp_identity *model,
			const struct avp_metadata *m, const void *content,
			uint64_t bytes, struct avp_reason *why)
{
	const uint64_t dim = model->hidden_dim;
	uint32_t dims[AVP_TENSOR_RANK];
	size_t rank = avp_metadata_shape(m, dims, AVP_TENSOR_RANK);
	struct avp_tensor t;
	uint64_t last;
	int err;

	if (content) {
		err = avp_tensor_of_frame(m, content, bytes, &t, why);
		if (err)
			return err;
		rank = t.rank;
		last = t.shape[rank - 1];
	} else if (rank && rank <= AVP_TENSOR_RANK) {
		last = dims[rank - 1];
	} else {
		return 0;
	}
	if (!dim || m->avp_map_id.len)
		return 0;
	/* One dimension alone may be many states end to end. */
	if (rank > 1 ? last == dim : last % dim == 0)
		return 0;
	return avp__fail(why, AVP_SHAPE_MISMATCH,
			 "tensor_shape ends in %llu, this agent's model is %u "
			 "wide; send JSON instead",
			 (unsigned long long)last, model->hidden_dim);
}

int avp_latent_check(const struct avp_identity *model,
		     const struct avp_metadata *m, const void *content,
		     uint64_t content_bytes, struct avp_reason *why)
{
	int err;

	if (m->mode != AVP_MODE_LATENT)
		return 0;
	if (!m->avp_map_id.len &&
	    (err = fits("hidden_dim", model->hidden_dim, m->hidden_dim, why)))
		return err;
	if (m->payload_type == AVP_KV_CACHE)
		return check_cache(model, m, content, content_bytes, why);
	return check_states(model, m, content, content_bytes, why);
}
