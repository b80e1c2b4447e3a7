/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metadata written: measured first, which finds everything that can be wrong,
 * then put down in one pass. Fields ascending, defaults left out.
 */
#include <limits.h>
#include <stdlib.h>

#include <avp/codec.h>

#include "codec/internal.h"
#include "codec/json_internal.h"
#include "codec/wire.h"

/* ---- extra -------------------------------------------------------------- */

/* Merges two sorted runs into out; of equal keys the left stays first. */
static void merge(const struct avp_pair *a, size_t na, const struct avp_pair *b,
		  size_t nb, struct avp_pair *out)
{
	while (na && nb) {
		if (avp__str_compare(a->key, b->key) <= 0) {
			*out++ = *a++;
			na--;
		} else {
			*out++ = *b++;
			nb--;
		}
	}
	memcpy(out, na ? a : b, (na + nb) * sizeof(*out));
}

/* Stable, so that the last of equal keys is known. */
static void sort(struct avp_pair *p, size_t n, struct avp_pair *spare)
{
	for (size_t run = 1; run < n; run *= 2) {
		for (size_t i = 0; i < n; i += 2 * run) {
			size_t left = n - i < run ? n - i : run;
			size_t right = n - i - left < run ? n - i - left : run;

			merge(p + i, left, p + i + left, right, spare + i);
		}
		memcpy(p, spare, n * sizeof(*p));
	}
}

size_t avp__pairs_sort(struct avp_pair *p, size_t n, struct avp_pair *spare)
{
	size_t kept = 0;

	sort(p, n, spare);
	for (size_t i = 0; i < n; i++)
		if (i + 1 == n || !avp_str_equal(p[i].key, p[i + 1].key))
			p[kept++] = p[i];
	return kept;
}

int avp__extra_init(struct avp__extra *extra, const struct avp_metadata *m,
		    struct avp_reason *why)
{
	struct avp_extra_cursor c = {.metadata = m};
	struct avp_pair spare[AVP__FEW_PAIRS];
	size_t n = 0, room = m->extra_count;

	extra->count = 0;
	extra->pair = extra->few;
	if (!room)
		return 0;
	if (room > AVP__FEW_PAIRS)
		extra->pair = malloc(2 * room * sizeof(*extra->pair));
	if (!extra->pair)
		return avp__fail(why, AVP_NO_MEMORY,
				 "no memory to sort %zu pairs of extra", room);
	while (n < room && avp_extra_next(&c, &extra->pair[n]))
		n++;
	extra->count = avp__pairs_sort(
		extra->pair, n,
		extra->pair == extra->few ? spare : extra->pair + room);
	return 0;
}

void avp__extra_fini(struct avp__extra *extra)
{
	if (extra->pair != extra->few)
		free(extra->pair);
}

/* ---- measuring ---------------------------------------------------------- */

/* A string field with its tag of one byte. */
static uint64_t str_size(size_t len)
{
	return 1 + avp__varint_size(len) + (uint64_t)len;
}

static uint64_t text_size(struct avp_str s)
{
	return s.len ? str_size(s.len) : 0;
}

static uint64_t number_size(uint32_t value)
{
	return value ? 1 + avp__varint_size(value) : 0;
}

/* Both members are always written, as protobuf does. */
static uint64_t pair_size(const struct avp_pair *pair)
{
	return str_size(pair->key.len) + str_size(pair->value.len);
}

static bool valid_str(struct avp_str s)
{
	return !s.len || (s.data && avp__utf8_valid(s.data, s.len));
}

#define STRING(member)                                         \
	{                                                      \
#member, offsetof(struct avp_metadata, member) \
	}
static const struct {
	const char *name;
	size_t offset;
} strings[] = {
	STRING(session_id), STRING(source_agent_id), STRING(target_agent_id),
	STRING(model_id),   STRING(avp_map_id),	     STRING(compression),
};

static int check_strings(const struct avp__plan *plan, struct avp_reason *why)
{
	for (size_t i = 0; i < sizeof(strings) / sizeof(*strings); i++) {
		const struct avp_str *s = (const void *)((const char *)plan->m +
							 strings[i].offset);

		if (!valid_str(*s))
			return avp__fail(why, AVP_BAD_METADATA,
					 "%s of %zu bytes is not UTF-8; pass "
					 "UTF-8 text",
					 strings[i].name, s->len);
	}
	for (size_t i = 0; i < plan->extra.count; i++)
		if (!valid_str(plan->extra.pair[i].key) ||
		    !valid_str(plan->extra.pair[i].value))
			return avp__fail(why, AVP_BAD_METADATA,
					 "a pair of extra is not UTF-8; pass "
					 "UTF-8 text");
	return 0;
}

static int check_enums(struct avp__plan *plan, enum avp_dialect dialect,
		       struct avp_reason *why)
{
	const struct avp_metadata *m = plan->m;
	int mode = avp__mode_write(m->mode, dialect);

	if (!avp_dialect_name(dialect))
		return avp__fail(why, AVP_USAGE, "dialect %u is unknown",
				 (unsigned int)dialect);
	if (!avp_payload_type_name(m->payload_type) ||
	    (dialect == AVP_DIALECT_0_4 && m->payload_type == AVP_EMBEDDING))
		return avp__fail(why, AVP_BAD_PAYLOAD_TYPE,
				 "payload_type %u is none of dialect %s, which "
				 "has %s",
				 m->payload_type, avp_dialect_name(dialect),
				 dialect == AVP_DIALECT_0_4 ? "0 and 1"
							    : "0 to 2");
	if (mode < 0)
		return avp__fail(why, AVP_BAD_MODE,
				 "mode %u is none of dialect %s, which has %s",
				 m->mode, avp_dialect_name(dialect),
				 dialect == AVP_DIALECT_0_4
					 ? "LATENT and JSON"
					 : "LATENT, HYBRID and JSON");
	if (!avp_dtype_name(m->dtype))
		return avp__fail(why, AVP_BAD_DTYPE,
				 "dtype %u is unknown, 0 to 3 are known",
				 m->dtype);
	plan->wire_mode = (uint32_t)mode;
	return 0;
}

static int measure_shape(struct avp__plan *plan, struct avp_reason *why)
{
	struct avp_shape_cursor c = {.metadata = plan->m};
	uint64_t bytes = 0;
	uint32_t dim, n = 0;

	while (avp_shape_next(&c, &dim)) {
		bytes += avp__varint_size(dim);
		n++;
	}
	if (n != plan->m->shape_count)
		return avp__fail(why, AVP_USAGE,
				 "shape_count is %u but only %u are there",
				 plan->m->shape_count, n);
	if (bytes > INT_MAX)
		return avp__fail(why, AVP_TOO_LARGE,
				 "a shape of %u numbers is over the 2 GiB of "
				 "a metadata",
				 n);
	plan->shape_bytes = (uint32_t)bytes;
	return 0;
}

static int measure(struct avp__plan *plan, struct avp_reason *why)
{
	const struct avp_metadata *m = plan->m;
	uint64_t n = text_size(m->session_id) + text_size(m->source_agent_id) +
		     text_size(m->target_agent_id) + text_size(m->model_id) +
		     text_size(m->avp_map_id);

	n += number_size(m->hidden_dim) + number_size(m->num_layers) +
	     number_size(m->payload_type) + number_size(m->dtype) +
	     number_size(plan->wire_mode);
	n += plan->shape_bytes ? str_size(plan->shape_bytes) : 0;
	n += m->compression.data ? str_size(m->compression.len) : 0;
	n += plan->confidence ? 5 : 0;
	n += plan->checksum ? 1 + avp__varint_size(m->payload_checksum) : 0;
	for (size_t i = 0; i < plan->extra.count; i++)
		n += str_size(pair_size(&plan->extra.pair[i]));
	/* protobuf's own limit; with the header a count still fits an int. */
	if (n > INT_MAX - AVP_FRAME_HEADER_BYTES)
		return avp__fail(why, AVP_TOO_LARGE,
				 "metadata of %llu bytes is over 2 GiB; put "
				 "less into it",
				 (unsigned long long)n);
	plan->bytes = (uint32_t)n;
	return 0;
}

int avp__plan_init(struct avp__plan *plan, const struct avp_metadata *m,
		   enum avp_dialect dialect, struct avp_reason *why)
{
	int err;

	plan->m = m;
	plan->confidence = plan->checksum = 0;
	if (dialect == AVP_DIALECT_0_2)
		memcpy(&plan->confidence, &m->confidence_score, 4);
	else
		plan->checksum = m->has & AVP_HAS_CHECKSUM;
	err = check_enums(plan, dialect, why);
	if (err)
		return err;
	err = avp__extra_init(&plan->extra, m, why);
	if (err)
		return err;
	err = check_strings(plan, why);
	if (!err)
		err = measure_shape(plan, why);
	if (!err)
		err = measure(plan, why);
	if (err)
		avp__plan_fini(plan);
	return err;
}

void avp__plan_fini(struct avp__plan *plan)
{
	avp__extra_fini(&plan->extra);
}

/* ---- writing ------------------------------------------------------------ */

static uint8_t *put_str(uint8_t *p, uint32_t field, struct avp_str s)
{
	return s.len ? avp__put_bytes(p, field, s.data, s.len) : p;
}

static uint8_t *put_number(uint8_t *p, uint32_t field, uint32_t value)
{
	if (!value)
		return p;
	*p++ = (uint8_t)AVP__TAG(field, AVP__VARINT);
	return avp__put_varint(p, value);
}

static uint8_t *put_shape(uint8_t *p, const struct avp__plan *plan)
{
	struct avp_shape_cursor c = {.metadata = plan->m};
	uint32_t dim;

	if (!plan->shape_bytes)
		return p;
	*p++ = (uint8_t)AVP__TAG(9, AVP__LEN);
	p = avp__put_varint(p, plan->shape_bytes);
	while (avp_shape_next(&c, &dim))
		p = avp__put_varint(p, dim);
	return p;
}

static uint8_t *put_extra(uint8_t *p, const struct avp__extra *extra)
{
	for (size_t i = 0; i < extra->count; i++) {
		const struct avp_pair *pair = &extra->pair[i];

		*p++ = (uint8_t)AVP__TAG(14, AVP__LEN);
		p = avp__put_varint(p, pair_size(pair));
		p = avp__put_bytes(p, 1, pair->key.data, pair->key.len);
		p = avp__put_bytes(p, 2, pair->value.data, pair->value.len);
	}
	return p;
}

uint8_t *avp__plan_write(const struct avp__plan *plan, uint8_t *p)
{
	const struct avp_metadata *m = plan->m;

	p = put_str(p, 1, m->session_id);
	p = put_str(p, 2, m->source_agent_id);
	p = put_str(p, 3, m->target_agent_id);
	p = put_str(p, 4, m->model_id);
	p = put_number(p, 5, m->hidden_dim);
	p = put_number(p, 6, m->num_layers);
	p = put_number(p, 7, m->payload_type);
	p = put_number(p, 8, m->dtype);
	p = put_shape(p, plan);
	p = put_number(p, 10, plan->wire_mode);
	if (m->compression.data)
		p = avp__put_bytes(p, 11, m->compression.data,
				   m->compression.len);
	if (plan->confidence) {
		*p++ = AVP__TAG(12, AVP__FIXED32);
		avp__put_le32(p, plan->confidence);
		p += 4;
	}
	p = put_str(p, 13, m->avp_map_id);
	p = put_extra(p, &plan->extra);
	if (plan->checksum) {
		*p++ = AVP__TAG(15, AVP__VARINT);
		p = avp__put_varint(p, m->payload_checksum);
	}
	return p;
}

int avp_metadata_size(const struct avp_metadata *m, enum avp_dialect dialect)
{
	struct avp__plan plan;
	int err = avp__plan_init(&plan, m, dialect, NULL);

	if (err)
		return err;
	avp__plan_fini(&plan);
	return (int)plan.bytes;
}

int avp_metadata_encode(const struct avp_metadata *m, enum avp_dialect dialect,
			uint8_t *out, size_t capacity, struct avp_reason *why)
{
	struct avp__plan plan;
	int err = avp__plan_init(&plan, m, dialect, why);

	if (err)
		return err;
	if (plan.bytes > capacity)
		err = avp__fail(why, AVP_TOO_LARGE,
				"metadata takes %u bytes, there is room for "
				"%zu",
				plan.bytes, capacity);
	else
		avp__plan_write(&plan, out);
	avp__plan_fini(&plan);
	return err ? err : (int)plan.bytes;
}
