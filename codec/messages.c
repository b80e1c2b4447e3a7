/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FallbackRequest and TransmitResponse by protobuf-c, which owns what it read
 * until _fini. What it leaves to its caller is done here: UTF-8, equal keys of
 * a map, and a limit, since it takes up to a hundred bytes for two of the wire.
 */
#include <stdlib.h>

#include <avp/codec.h>

#include "avp.pb-c.h"
#include "codec/internal.h"
#include "codec/wire.h"

typedef Avp__Pb__FallbackRequest pb_fallback;
typedef Avp__Pb__TransmitResponse pb_response;
typedef Avp__Pb__Pair pb_pair;

static ProtobufCBinaryData data_of(struct avp_str s)
{
	return (ProtobufCBinaryData){s.len, (uint8_t *)(uintptr_t)s.data};
}

/* Present text has data even if it is empty; protobuf-c gives NULL. */
static struct avp_str str_of(ProtobufCBinaryData d)
{
	return (struct avp_str){d.data ? (const char *)d.data : "", d.len};
}

static bool valid(struct avp_str s)
{
	return avp__utf8_valid(s.data, s.len);
}

static int not_text(const char *what, struct avp_reason *why)
{
	return avp__fail(why, AVP_SERIALIZATION_ERROR,
			 "a string of the %s is not UTF-8; pass UTF-8 text",
			 what);
}

static int no_message(const char *what, size_t len, struct avp_reason *why)
{
	return avp__fail(why, AVP_DESERIALIZATION_ERROR,
			 "%zu bytes are not a protobuf %s with UTF-8 strings",
			 len, what);
}

static int no_memory(const char *what, struct avp_reason *why)
{
	return avp__fail(why, AVP_NO_MEMORY, "no memory for a %s", what);
}

static int check_size(const char *what, size_t len, struct avp_reason *why)
{
	if (len <= AVP_MESSAGE_MAX_BYTES)
		return 0;
	return avp__fail(why, AVP_TOO_LARGE,
			 "a %s of %zu bytes, the limit is %d", what, len,
			 AVP_MESSAGE_MAX_BYTES);
}

static int pack(const char *what, const ProtobufCMessage *message, void *out,
		size_t capacity, struct avp_reason *why)
{
	size_t n = protobuf_c_message_get_packed_size(message);
	int err = check_size(what, n, why);

	if (err)
		return err;
	if (n > capacity)
		return avp__fail(why, AVP_TOO_LARGE,
				 "a %s takes %zu bytes, there is room for %zu",
				 what, n, capacity);
	return (int)protobuf_c_message_pack(message, out);
}

/* ---- FallbackRequest ---------------------------------------------------- */

#define FALLBACK "FallbackRequest"

int avp_pb_fallback_request_encode(const struct avp_pb_fallback_request *m,
				   void *out, size_t capacity,
				   struct avp_reason *why)
{
	pb_fallback pb;
	uint32_t bits;

	avp__pb__fallback_request__init(&pb);
	if (!valid(m->session_id) || !valid(m->reason))
		return not_text(FALLBACK, why);
	pb.session_id = data_of(m->session_id);
	pb.reason = data_of(m->reason);
	memcpy(&bits, &m->perplexity_score, sizeof(bits));
	if (bits) {
		pb.has_perplexity_case = 3;
		pb.perplexity_score = m->perplexity_score;
	}
	return pack(FALLBACK, &pb.base, out, capacity, why);
}

int avp_pb_fallback_request_decode(const void *bytes, size_t len,
				   struct avp_pb_fallback_request *m,
				   struct avp_reason *why)
{
	int err = check_size(FALLBACK, len, why);
	pb_fallback *pb;

	if (err)
		return err;
	pb = avp__pb__fallback_request__unpack(NULL, len, bytes);
	if (!pb || !valid(str_of(pb->session_id)) ||
	    !valid(str_of(pb->reason))) {
		avp__pb__fallback_request__free_unpacked(pb, NULL);
		return no_message(FALLBACK, len, why);
	}
	memset(m, 0, sizeof(*m));
	m->session_id = str_of(pb->session_id);
	m->reason = str_of(pb->reason);
	if (pb->has_perplexity_case == 3)
		m->perplexity_score = pb->perplexity_score;
	m->owned = pb;
	return 0;
}

void avp_pb_fallback_request_fini(struct avp_pb_fallback_request *m)
{
	avp__pb__fallback_request__free_unpacked(m->owned, NULL);
	memset(m, 0, sizeof(*m));
}

/* ---- TransmitResponse --------------------------------------------------- */

#define RESPONSE "TransmitResponse"

/* What a decoded response holds: protobuf-c's message, and the map in order. */
struct owned {
	pb_response *pb;
	struct avp_pair pair[];
};

static pb_pair *pairs_of(const struct avp__extra *extra, pb_pair ***list)
{
	size_t n = extra->count;
	pb_pair *pair = malloc(n * (sizeof(*pair) + sizeof(*list)) + 1);

	if (!pair)
		return NULL;
	*list = (pb_pair **)(pair + n);
	for (size_t i = 0; i < n; i++) {
		avp__pb__pair__init(&pair[i]);
		pair[i].has_key_case = 1;
		pair[i].key = data_of(extra->pair[i].key);
		pair[i].has_value_case = 2;
		pair[i].value = data_of(extra->pair[i].value);
		(*list)[i] = &pair[i];
	}
	return pair;
}

static int encode_response(const struct avp_pb_transmit_response *m,
			   const struct avp__extra *extra, void *out,
			   size_t capacity, struct avp_reason *why)
{
	pb_response pb;
	pb_pair *pair;
	int n;

	avp__pb__transmit_response__init(&pb);
	for (size_t i = 0; i < extra->count; i++)
		if (!valid(extra->pair[i].key) || !valid(extra->pair[i].value))
			return not_text(RESPONSE, why);
	pair = pairs_of(extra, &pb.extra);
	if (!pair)
		return no_memory(RESPONSE, why);
	pb.n_extra = extra->count;
	pb.success = m->success != 0;
	if (m->message.data) {
		pb.has_message_case = 2;
		pb.message = data_of(m->message);
	}
	if (m->request_id.data) {
		pb.has_request_id_case = 3;
		pb.request_id = data_of(m->request_id);
	}
	n = pack(RESPONSE, &pb.base, out, capacity, why);
	free(pair);
	return n;
}

int avp_pb_transmit_response_encode(const struct avp_pb_transmit_response *m,
				    void *out, size_t capacity,
				    struct avp_reason *why)
{
	const struct avp_metadata as_extra = {.extra = m->extra,
					      .extra_count = m->extra_count};
	struct avp__extra extra;
	int n;

	if (!valid(m->message) || !valid(m->request_id))
		return not_text(RESPONSE, why);
	n = avp__extra_init(&extra, &as_extra, why);
	if (n)
		return n;
	n = encode_response(m, &extra, out, capacity, why);
	avp__extra_fini(&extra);
	return n;
}

static bool response_is_text(const pb_response *pb)
{
	if (pb->has_message_case == 2 && !valid(str_of(pb->message)))
		return false;
	if (pb->has_request_id_case == 3 && !valid(str_of(pb->request_id)))
		return false;
	for (size_t i = 0; i < pb->n_extra; i++) {
		const pb_pair *p = pb->extra[i];

		if ((p->has_key_case && !valid(str_of(p->key))) ||
		    (p->has_value_case && !valid(str_of(p->value))))
			return false;
	}
	return true;
}

static struct owned *own(pb_response *pb, uint32_t *count)
{
	const struct avp_str empty = {"", 0};
	size_t n = pb->n_extra;
	struct owned *o = malloc(sizeof(*o) + 2 * n * sizeof(*o->pair));

	if (!o)
		return NULL;
	o->pb = pb;
	for (size_t i = 0; i < n; i++) {
		const pb_pair *p = pb->extra[i];

		o->pair[i].key = p->has_key_case ? str_of(p->key) : empty;
		o->pair[i].value = p->has_value_case ? str_of(p->value) : empty;
	}
	*count = (uint32_t)avp__pairs_sort(o->pair, n, o->pair + n);
	return o;
}

int avp_pb_transmit_response_decode(const void *bytes, size_t len,
				    struct avp_pb_transmit_response *m,
				    struct avp_reason *why)
{
	int err = check_size(RESPONSE, len, why);
	struct owned *o = NULL;
	uint32_t count = 0;
	pb_response *pb;

	if (err)
		return err;
	pb = avp__pb__transmit_response__unpack(NULL, len, bytes);
	if (!pb || !response_is_text(pb))
		err = no_message(RESPONSE, len, why);
	else if (!(o = own(pb, &count)))
		err = no_memory(RESPONSE, why);
	if (err) {
		avp__pb__transmit_response__free_unpacked(pb, NULL);
		return err;
	}
	memset(m, 0, sizeof(*m));
	m->success = pb->success;
	if (pb->has_message_case == 2)
		m->message = str_of(pb->message);
	if (pb->has_request_id_case == 3)
		m->request_id = str_of(pb->request_id);
	m->extra = o->pair;
	m->extra_count = count;
	m->owned = o;
	return 0;
}

void avp_pb_transmit_response_fini(struct avp_pb_transmit_response *m)
{
	struct owned *o = m->owned;

	if (o)
		avp__pb__transmit_response__free_unpacked(o->pb, NULL);
	free(o);
	memset(m, 0, sizeof(*m));
}
