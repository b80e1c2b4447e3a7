/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metadata read without allocation. The hot path is a switch over one-byte tags
 * of a few short fields; everything else is rare and may be slower.
 */
#include <avp/codec.h>

#include "codec/internal.h"
#include "codec/wire.h"

#define VARINT(field)  AVP__TAG(field, AVP__VARINT)
#define LEN(field)     AVP__TAG(field, AVP__LEN)
#define FIXED32(field) AVP__TAG(field, AVP__FIXED32)

static float float_of(uint64_t bits)
{
	uint32_t u = (uint32_t)bits;
	float f;

	memcpy(&f, &u, sizeof(f));
	return f;
}

static struct avp_str str_of(const struct avp__field *f)
{
	return (struct avp_str){(const char *)f->data, (size_t)f->value};
}

static inline void add_dim(struct avp_metadata *m, uint32_t dim)
{
	if (m->shape_count < AVP_SHAPE_INLINE)
		m->shape_inline[m->shape_count] = dim;
	m->shape_count++;
}

static bool read_packed(const struct avp__field *f, struct avp_metadata *m)
{
	const uint8_t *p = f->data, *end = p + f->value;
	uint64_t dim;

	while (p < end) {
		p = avp__varint(p, end, &dim);
		if (!p)
			return false;
		add_dim(m, (uint32_t)dim);
	}
	return true;
}

bool avp__field_pair(const struct avp__field *entry, struct avp_pair *pair)
{
	const uint8_t *p = entry->data, *end = p + entry->value;
	struct avp__field f;

	pair->key = pair->value = (struct avp_str){"", 0};
	while (p < end) {
		p = avp__wire_next(p, end, &f, AVP__DEPTH - 1);
		if (!p)
			return false;
		if (f.tag == LEN(1)) {
			if (!avp__field_text(&f, &pair->key))
				return false;
		} else if (f.tag == LEN(2)) {
			if (!avp__field_text(&f, &pair->value))
				return false;
		} else {
			return false;
		}
	}
	return true;
}

/*
 * Fields that are not in a common frame; an unknown one is fine. Apart, so that
 * the common ones are read with fewer registers to save.
 */
__attribute__((noinline)) static bool read_rare(const struct avp__field *f,
						struct avp_metadata *m)
{
	struct avp_pair pair;
	struct avp_str s;

	switch (f->tag) {
	case VARINT(9): add_dim(m, (uint32_t)f->value); return true;
	case LEN(11): return avp__field_text(f, &m->compression);
	case FIXED32(12):
		m->confidence_score = float_of(f->value);
		m->has |= AVP_HAS_CONFIDENCE;
		return true;
	case LEN(13): return avp__field_text(f, &m->avp_map_id);
	case LEN(14): m->extra_count++; return avp__field_pair(f, &pair);
	case VARINT(15):
		m->payload_checksum = (uint32_t)f->value;
		m->has |= AVP_HAS_CHECKSUM;
		return true;
	case VARINT(100): m->has |= AVP_HAS_COMPAT; return true;
	case LEN(101):
	case LEN(102):
	case LEN(103): m->has |= AVP_HAS_COMPAT; return avp__field_text(f, &s);
	default: return (f->tag & 7) != AVP__END_GROUP;
	}
}

static inline bool read_field(const struct avp__field *f,
			      struct avp_metadata *m)
{
	switch (f->tag) {
	case LEN(1): return avp__field_text(f, &m->session_id);
	case LEN(2): return avp__field_text(f, &m->source_agent_id);
	case LEN(3): return avp__field_text(f, &m->target_agent_id);
	case LEN(4): return avp__field_text(f, &m->model_id);
	case VARINT(5): m->hidden_dim = (uint32_t)f->value; return true;
	case VARINT(6): m->num_layers = (uint32_t)f->value; return true;
	case VARINT(7): m->payload_type = (uint32_t)f->value; return true;
	case VARINT(8): m->dtype = (uint32_t)f->value; return true;
	case LEN(9): return read_packed(f, m);
	case VARINT(10): m->mode = (uint32_t)f->value; return true;
	default: return read_rare(f, m);
	}
}

static inline void clear_str(struct avp_str *s)
{
	s->data = NULL;
	s->len = 0;
}

/*
 * All but shape_inline. One by one: a chain of struct assignments reads back
 * what it has just stored in halves, a stall of ten nanoseconds.
 */
static inline void clear(struct avp_metadata *m)
{
	clear_str(&m->session_id);
	clear_str(&m->source_agent_id);
	clear_str(&m->target_agent_id);
	clear_str(&m->model_id);
	clear_str(&m->avp_map_id);
	clear_str(&m->compression);
	m->hidden_dim = 0;
	m->num_layers = 0;
	m->payload_type = 0;
	m->dtype = 0;
	m->mode = 0;
	m->confidence_score = 0;
	m->payload_checksum = 0;
	m->has = 0;
	m->shape_count = 0;
	m->extra_count = 0;
	m->shape = NULL;
	m->extra = NULL;
}

int avp_metadata_decode(const uint8_t *bytes, size_t len,
			struct avp_metadata *m, struct avp_reason *why)
{
	const uint8_t *p = bytes, *end = bytes + len, *at;
	struct avp__field f;

	clear(m);
	m->raw = bytes;
	m->raw_bytes = len;
	while (p < end) {
		at = p;
		p = avp__wire_next(p, end, &f, AVP__DEPTH);
		if (!p || !read_field(&f, m))
			return avp__fail(why, AVP_BAD_METADATA,
					 "metadata byte %zu of %zu begins no "
					 "valid field (protobuf with UTF-8 "
					 "strings); send a protobuf Metadata",
					 (size_t)(at - bytes), len);
	}
	return 0;
}

/* ---- what the members do not hold --------------------------------------- */

/* The next field of raw with one of two tags; false at the end. */
static bool next_of(const struct avp_metadata *m, const uint8_t **at,
		    uint32_t tag, uint32_t or_tag, struct avp__field *f)
{
	const uint8_t *p = *at ? *at : m->raw, *end = m->raw + m->raw_bytes;

	while (p && p < end) {
		p = avp__wire_next(p, end, f, AVP__DEPTH);
		*at = p ? p : end;
		if (p && (f->tag == tag || f->tag == or_tag))
			return true;
	}
	return false;
}

static int shape_next_raw(struct avp_shape_cursor *c, uint32_t *dim)
{
	struct avp__field f;
	uint64_t value;

	while (c->packed == c->packed_end) {
		if (!next_of(c->metadata, &c->at, VARINT(9), LEN(9), &f))
			return 0;
		if (f.tag == VARINT(9)) {
			*dim = (uint32_t)f.value;
			return 1;
		}
		c->packed = f.data;
		c->packed_end = f.data + f.value;
	}
	c->packed = avp__varint(c->packed, c->packed_end, &value);
	if (!c->packed) { /* raw was changed since it was decoded */
		c->packed = c->packed_end;
		return 0;
	}
	*dim = (uint32_t)value;
	return 1;
}

int avp_shape_next(struct avp_shape_cursor *c, uint32_t *dim)
{
	const struct avp_metadata *m = c->metadata;

	if (c->index >= m->shape_count)
		return 0;
	c->index++;
	if (m->shape) {
		*dim = m->shape[c->index - 1];
		return 1;
	}
	if (m->shape_count <= AVP_SHAPE_INLINE) {
		*dim = m->shape_inline[c->index - 1];
		return 1;
	}
	return shape_next_raw(c, dim);
}

size_t avp_metadata_shape(const struct avp_metadata *m, uint32_t *dims,
			  size_t capacity)
{
	struct avp_shape_cursor c = {.metadata = m};
	size_t n = 0;

	while (n < capacity && avp_shape_next(&c, &dims[n]))
		n++;
	return n;
}

int avp_extra_next(struct avp_extra_cursor *c, struct avp_pair *pair)
{
	const struct avp_metadata *m = c->metadata;
	struct avp__field f;

	if (c->index >= m->extra_count)
		return 0;
	if (m->extra) {
		*pair = m->extra[c->index++];
		return 1;
	}
	if (!next_of(m, &c->at, LEN(14), LEN(14), &f))
		return 0;
	c->index++;
	return avp__field_pair(&f, pair);
}

int avp_metadata_extra_get(const struct avp_metadata *m, struct avp_str key,
			   struct avp_str *value)
{
	struct avp_extra_cursor c = {.metadata = m};
	struct avp_pair pair;
	int found = 0;

	while (avp_extra_next(&c, &pair))
		if (avp_str_equal(pair.key, key)) {
			*value = pair.value;
			found = 1;
		}
	return found;
}

int avp_metadata_compat(const struct avp_metadata *m,
			struct avp_metadata_compat *compat)
{
	const uint8_t *p = m->raw, *end = m->raw + m->raw_bytes;
	struct avp__field f;

	memset(compat, 0, sizeof(*compat));
	if (!(m->has & AVP_HAS_COMPAT))
		return 0;
	while (p && p < end) {
		p = avp__wire_next(p, end, &f, AVP__DEPTH);
		if (!p)
			break;
		switch (f.tag) {
		case VARINT(100): compat->embedding_dim = f.value; break;
		case LEN(101): compat->data_type = str_of(&f); break;
		case LEN(102): compat->agent_id = str_of(&f); break;
		case LEN(103): compat->task_id = str_of(&f); break;
		}
	}
	return 1;
}
