/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A KV-cache as a sequence of frames: cut by layers when it is over 4 GiB, or
 * sent layer by layer while the sender still computes the next one.
 */
#include <stdio.h>
#include <string.h>

#include <avp/latent.h>

#include "latent/shown.h"

/* What payload_length can say, less room for the metadata beside the
 * tensors. */
#define FRAME_BYTES (UINT32_MAX - (64u << 10))

static const char *const keys[AVP_KV_PART_KEYS] = {
	"kv.part", "kv.parts", "kv.first_layer", "kv.layers", "kv.total_layers",
};

int avp_kv_part_layers(const struct avp_kv_shape *whole, uint64_t max_bytes,
		       uint32_t *layers, struct avp_reason *why)
{
	struct avp_kv_shape one = *whole;
	uint64_t layer, fit;
	int err;

	if (!max_bytes)
		max_bytes = FRAME_BYTES;
	one.num_layers = 1;
	err = avp_kv_bytes(&one, &layer, why);
	if (err)
		return err;
	if (layer > max_bytes)
		return avp__fail(
			why, AVP_TOO_LARGE,
			"one layer takes %llu bytes of the %llu that a "
			"part may have; split its tokens",
			(unsigned long long)layer,
			(unsigned long long)max_bytes);
	layer -= AVP_KV_HEADER_BYTES;
	fit = (max_bytes - AVP_KV_HEADER_BYTES) / layer;
	*layers = fit < whole->num_layers ? (uint32_t)fit : whole->num_layers;
	return 0;
}

int avp_kv_part_at(const struct avp_kv_shape *whole, uint32_t layers,
		   uint32_t index, struct avp_kv_part *part,
		   struct avp_kv_shape *shape)
{
	const uint64_t first = (uint64_t)layers * index;
	uint32_t rest;

	if (!layers || first >= whole->num_layers)
		return AVP_USAGE;
	rest = whole->num_layers - (uint32_t)first;
	*part = (struct avp_kv_part){
		.part = index,
		.parts = (whole->num_layers - 1) / layers + 1,
		.first_layer = (uint32_t)first,
		.layers = rest < layers ? rest : layers,
		.total_layers = whole->num_layers,
	};
	*shape = *whole;
	shape->num_layers = part->layers;
	return 0;
}

void avp_kv_part_write(const struct avp_kv_part *part,
		       struct avp_kv_part_extra *extra)
{
	const uint32_t values[AVP_KV_PART_KEYS] = {
		part->part,   part->parts,	  part->first_layer,
		part->layers, part->total_layers,
	};

	for (int i = 0; i < AVP_KV_PART_KEYS; i++) {
		snprintf(extra->text[i], sizeof(extra->text[i]), "%u",
			 values[i]);
		extra->pairs[i].key = avp_str_of(keys[i]);
		extra->pairs[i].value = avp_str_of(extra->text[i]);
	}
}

static int decimal(struct avp_str text, uint32_t *value)
{
	uint32_t x = 0;

	if (!text.len || (text.len > 1 && text.data[0] == '0'))
		return 0;
	for (size_t i = 0; i < text.len; i++)
		if (text.data[i] < '0' || text.data[i] > '9' ||
		    __builtin_mul_overflow(x, 10u, &x) ||
		    __builtin_add_overflow(x, (uint32_t)(text.data[i] - '0'),
					   &x))
			return 0;
	*value = x;
	return 1;
}

static int check_part(const struct avp_kv_part *p, struct avp_reason *why)
{
	if (p->parts && p->part >= p->parts)
		return avp__fail(why, AVP_BAD_METADATA,
				 "kv.part %u of kv.parts %u; they count from 0",
				 p->part, p->parts);
	if (!p->layers || p->first_layer >= p->total_layers ||
	    p->layers > p->total_layers - p->first_layer)
		return avp__fail(why, AVP_BAD_METADATA,
				 "kv.layers %u from kv.first_layer %u are not "
				 "among kv.total_layers %u",
				 p->layers, p->first_layer, p->total_layers);
	return 0;
}

int avp_kv_part_read(const struct avp_metadata *m, struct avp_kv_part *part,
		     struct avp_reason *why)
{
	uint32_t values[AVP_KV_PART_KEYS];
	struct avp_kv_part made;
	const char *missing = NULL;
	int found = 0, err;

	for (int i = 0; i < AVP_KV_PART_KEYS; i++) {
		struct avp_str text;

		if (!avp_metadata_extra_get(m, avp_str_of(keys[i]), &text)) {
			missing = keys[i];
			continue;
		}
		found++;
		if (!decimal(text, &values[i]))
			return avp__fail(
				why, AVP_BAD_METADATA,
				"%s is \"%.*s\"; a decimal number below "
				"2^32 is expected",
				keys[i], SHOWN(text));
	}
	if (!found)
		return 0;
	if (missing)
		return avp__fail(why, AVP_BAD_METADATA,
				 "%s is missing; the %d keys of a part come "
				 "together",
				 missing, AVP_KV_PART_KEYS);
	made = (struct avp_kv_part){values[0], values[1], values[2], values[3],
				    values[4]};
	err = check_part(&made, why);
	if (err)
		return err;
	*part = made;
	return 1;
}

static int fits_shape(const struct avp_kv_assembly *a,
		      const struct avp_kv_part *p, const struct avp_kv_shape *s,
		      struct avp_reason *why)
{
	if (s->num_layers != p->layers)
		return avp__fail(why, AVP_SHAPE_MISMATCH,
				 "the part has %u layers, kv.layers says %u",
				 s->num_layers, p->layers);
	if (!a->parts_seen)
		return 0;
	if (s->num_kv_heads != a->shape.num_kv_heads ||
	    s->head_dim != a->shape.head_dim ||
	    s->seq_len != a->shape.seq_len || s->dtype != a->shape.dtype)
		return avp__fail(why, AVP_SHAPE_MISMATCH,
				 "part %u has %u heads x %u tokens x %u of %s, "
				 "the parts "
				 "before it %u x %u x %u of %s",
				 p->part, s->num_kv_heads, s->seq_len,
				 s->head_dim, avp_dtype_name(s->dtype),
				 a->shape.num_kv_heads, a->shape.seq_len,
				 a->shape.head_dim,
				 avp_dtype_name(a->shape.dtype));
	return 0;
}

static int fits_before(const struct avp_kv_assembly *a,
		       const struct avp_kv_part *p, struct avp_reason *why)
{
	int err = check_part(p, why);

	if (err)
		return err;
	if (p->total_layers > AVP_KV_MAX_LAYERS)
		return avp__fail(why, AVP_TOO_LARGE,
				 "kv.total_layers %u is over %d",
				 p->total_layers, AVP_KV_MAX_LAYERS);
	if (a->parts_seen && p->total_layers != a->shape.num_layers)
		return avp__fail(why, AVP_SHAPE_MISMATCH,
				 "kv.total_layers is %u, in the parts before "
				 "%u",
				 p->total_layers, a->shape.num_layers);
	if (a->parts && p->parts && p->parts != a->parts)
		return avp__fail(why, AVP_SHAPE_MISMATCH,
				 "kv.parts is %u, in the parts before %u",
				 p->parts, a->parts);
	for (uint32_t i = 0; i < p->layers; i++)
		if (avp_kv_assembly_has(a, p->first_layer + i))
			return avp__fail(
				why, AVP_SHAPE_MISMATCH,
				"layer %u came before; each comes once",
				p->first_layer + i);
	return 0;
}

int avp_kv_assembly_add(struct avp_kv_assembly *a,
			const struct avp_kv_part *part, const void *payload,
			uint64_t bytes, struct avp_kv *kv,
			struct avp_reason *why)
{
	struct avp_kv made;
	int err;

	if ((err = fits_before(a, part, why)) ||
	    (err = avp_kv_open(&made, payload, bytes, why)) ||
	    (err = fits_shape(a, part, &made.shape, why)))
		return err;
	a->shape = made.shape;
	a->shape.num_layers = part->total_layers;
	if (part->parts)
		a->parts = part->parts;
	a->parts_seen++;
	a->layers_seen += part->layers;
	for (uint32_t i = 0; i < part->layers; i++) {
		uint32_t layer = part->first_layer + i;

		a->seen[layer / 64] |= UINT64_C(1) << layer % 64;
	}
	made.first_layer = part->first_layer;
	*kv = made;
	return a->layers_seen == part->total_layers;
}
