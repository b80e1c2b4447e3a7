/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who the models of a link are, and what may go over it: what each side told in
 * its Hello is resolved once, when the link is adopted.
 */
#include <string.h>

#include <avp/latent.h>

#include "ahp/agent_internal.h"
#include "latent/contradict.h"

static void copy_text(char *to, size_t cap, struct avp_str from)
{
	size_t n = from.len < cap ? from.len : cap - 1;

	memcpy(to, from.data ? from.data : "", n);
	to[n] = 0;
}

/* Texts that are compared are not cut: two would become equal. */
int ahp__identity_set(struct wire_identity *to, const struct avp_identity *from,
		      struct avp_reason *why)
{
	*to = (struct wire_identity){0};
	if (!from)
		return 0;
	if (from->model_family.len >= sizeof(to->family) ||
	    from->model_hash.len >= sizeof(to->hash))
		return avp__fail(
			why, AVP_USAGE,
			"model_family of %zu bytes, model_hash of %zu: "
			"at most %zu and %zu",
			from->model_family.len, from->model_hash.len,
			sizeof(to->family) - 1, sizeof(to->hash) - 1);
	copy_text(to->family, sizeof(to->family), from->model_family);
	copy_text(to->id, sizeof(to->id), from->model_id);
	copy_text(to->hash, sizeof(to->hash), from->model_hash);
	to->hidden_dim = from->hidden_dim;
	to->num_layers = from->num_layers;
	to->num_kv_heads = from->num_kv_heads;
	to->head_dim = from->head_dim;
	return 0;
}

static struct avp_identity borrow(const struct wire_identity *from)
{
	return (struct avp_identity){
		.model_family = {from->family, strlen(from->family)},
		.model_id = {from->id, strlen(from->id)},
		.model_hash = {from->hash, strlen(from->hash)},
		.hidden_dim = from->hidden_dim,
		.num_layers = from->num_layers,
		.num_kv_heads = from->num_kv_heads,
		.head_dim = from->head_dim,
	};
}

static bool told_anything(const struct avp_identity *of)
{
	return of->model_family.len || of->model_hash.len || of->hidden_dim ||
	       of->num_layers || of->num_kv_heads || of->head_dim;
}

void ahp__mode_resolve(struct ahp__link *link)
{
	struct avp_identity ours = borrow(&link->told);
	struct avp_identity theirs = borrow(&link->heard_of);
	struct avp_resolution *r = &link->resolution;

	avp_resolve(told_anything(&ours) ? &ours : NULL,
		    told_anything(&theirs) ? &theirs : NULL, 0, r);
	link->keeps_out = 0;
	link->judges = ours.hidden_dim || ours.num_layers ||
		       ours.num_kv_heads || ours.head_dim;
	if (r->mode != AVP_MODE_LATENT && avp__contradict(&ours, &theirs))
		link->keeps_out = KEEPS_OUT_STATES | KEEPS_OUT_CACHES;
	else if (r->mode == AVP_MODE_LATENT && !r->kv_compatible)
		link->keeps_out = KEEPS_OUT_CACHES;
}

/* ---- frames ------------------------------------------------------------- */

/* The first bytes are our own memory: they were written here. */
bool ahp__mode_takes(const struct ahp__link *link, const void *frame,
		     uint64_t bytes, struct avp_reason *why)
{
	const uint32_t max = FRAME_HEAD_MAX;
	const struct avp_metadata *m;
	struct avp_frame f;
	uint64_t need;
	bool cache;

	/* What is no frame, its reader will say. */
	if (avp_frame_decode_head(frame, bytes < max ? bytes : max, bytes, &f,
				  &need, NULL))
		return true;
	m = &f.metadata;
	cache = m->payload_type == AVP_KV_CACHE;
	/* A map carries states into another model's space; text is text. */
	if (m->mode != AVP_MODE_LATENT || (m->avp_map_id.len && !cache) ||
	    !(link->keeps_out & (cache ? KEEPS_OUT_CACHES : KEEPS_OUT_STATES)))
		return true;
	avp__fail(why, AVP_SHAPE_MISMATCH,
		  "%s cannot use this model's %s: %.150s; send JSON",
		  link->peer->id, cache ? "KV-caches" : "states",
		  link->resolution.reason);
	return false;
}

int ahp__mode_admits(const struct ahp__link *link, const struct ahp_outgoing *m,
		     struct avp_reason *why)
{
	uint8_t head[AVP_FRAME_TEMPLATE_BYTES];
	const void *frame = m->body;
	uint64_t bytes = m->body_bytes;

	if (m->frame) {
		avp_frame_template_stamp(m->frame, 0, head);
		frame = head;
		bytes = m->frame->len;
	}
	return ahp__mode_takes(link, frame, bytes, why) ? 0
							: AVP_SHAPE_MISMATCH;
}

/*
 * A stream of states with one head and one length is judged once; a cache has a
 * header of its own in each. A head that was too long for its slot (head_) is
 * not the one that the memo remembers.
 */
bool ahp__mode_fits(struct ahp__link *link, const struct ahp_message *m,
		    struct avp_reason *why)
{
	const struct avp_frame *f = &m->frame;
	const struct avp_identity model = {
		.hidden_dim = link->told.hidden_dim,
		.num_layers = link->told.num_layers,
		.num_kv_heads = link->told.num_kv_heads,
		.head_dim = link->told.head_dim,
	};
	bool cache = f->metadata.payload_type == AVP_KV_CACHE;
	bool known = !cache && !m->head_ && link->memo.len;

	if (known && ahp__mode_fitted(link, f->payload_bytes))
		return true;
	if (avp_latent_check(&model, &f->metadata,
			     f->flags & AVP_FLAG_COMPRESSED ? NULL : f->payload,
			     f->content_bytes, why))
		return false;
	if (known) {
		link->fit_head = link->memo.changes;
		link->fit_bytes = f->payload_bytes;
	}
	return true;
}

/* ---- for programs ------------------------------------------------------- */

int ahp_peer_mode(const struct ahp_agent *agent, uint32_t number,
		  struct ahp_mode *mode)
{
	const struct ahp__peer *peer;
	const struct ahp__link *link;

	AHP_ENTER(agent);
	peer = ahp__peer_at(agent, number);
	link = peer ? peer->link : NULL;
	if (!link || link->state < LINK_SHARING || link->state > LINK_DRAINING)
		return AVP_AGENT_NOT_FOUND;
	*mode = (struct ahp_mode){
		.resolution = link->resolution,
		.refuses_states = (link->keeps_out & KEEPS_OUT_STATES) != 0,
		.refuses_caches = (link->keeps_out & KEEPS_OUT_CACHES) != 0,
		.identity = borrow(&link->heard_of),
	};
	return 0;
}

int ahp_agent_set_identity(struct ahp_agent *agent,
			   const struct avp_identity *identity,
			   struct avp_reason *why)
{
	struct wire_identity wire;
	int error;

	AHP_GUARD(agent);
	error = ahp__identity_set(&wire, identity, why);
	if (error)
		return error;
	agent->identity = wire;
	agent->page_written_ns = 0; /* observers are to see it */
	ahp__page_beat(agent, ahp__now_ns());
	return 0;
}
