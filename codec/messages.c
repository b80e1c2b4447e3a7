/* SPDX-License-Identifier: Apache-2.0 */
/*
 * FallbackRequest and TransmitResponse: written by protobuf-c, and read by the
 * metadata's wire code out of a copy that lives until _fini. protobuf-c does
 * not look at the wire type of a bool (a string in the place of `success`
 * reads as true), nor at UTF-8, knows no groups, and takes a hundred bytes for
 * two.
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

static bool read_fallback(const uint8_t *p, const uint8_t *end,
			  struct avp_pb_fallback_request *m)
{
	struct avp__field f;
	uint32_t bits;

	while (p < end) {
		p = avp__wire_next(p, end, &f, AVP__DEPTH);
		if (!p)
			return false;
		switch (f.tag) {
		case AVP__TAG(1, AVP__LEN):
			if (!avp__field_text(&f, &m->session_id))
				return false;
			break;
		case AVP__TAG(2, AVP__LEN):
			if (!avp__field_text(&f, &m->reason))
				return false;
			break;
		case AVP__TAG(3, AVP__FIXED32):
			bits = (uint32_t)f.value;
			memcpy(&m->perplexity_score, &bits, sizeof(bits));
			break;
		default:
			if ((f.tag & 7) == AVP__END_GROUP)
				return false;
		}
	}
	return true;
}

int avp_pb_fallback_request_decode(const void *bytes, size_t len,
				   struct avp_pb_fallback_request *m,
				   struct avp_reason *why)
{
	const struct avp_str empty = {"", 0};
	struct avp_pb_fallback_request read = {empty, empty, 0, NULL};
	int err = check_size(FALLBACK, len, why);
	uint8_t *copy;

	if (err)
		return err;
	copy = malloc(len + 1);
	if (!copy)
		return no_memory(FALLBACK, why);
	if (len)
		memcpy(copy, bytes, len);
	if (!read_fallback(copy, copy + len, &read)) {
		free(copy);
		return no_message(FALLBACK, len, why);
	}
	*m = read;
	m->owned = copy;
	return 0;
}

void avp_pb_fallback_request_fini(struct avp_pb_fallback_request *m)
{
	free(m->owned);
	memset(m, 0, sizeof(*m));
}

/* ---- TransmitResponse --------------------------------------------------- */

#define RESPONSE "TransmitResponse"

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

/* Counts the entries of the map, and fills pair with them if it is not NULL. */
static bool read_response(const uint8_t *p, const uint8_t *end,
			  struct avp_pb_transmit_response *m,
			  struct avp_pair *pair)
{
	struct avp_pair one;
	struct avp__field f;

	m->extra_count = 0;
	while (p < end) {
		p = avp__wire_next(p, end, &f, AVP__DEPTH);
		if (!p)
			return false;
		switch (f.tag) {
		case AVP__TAG(1, AVP__VARINT): m->success = f.value != 0; break;
		case AVP__TAG(2, AVP__LEN):
			if (!avp__field_text(&f, &m->message))
				return false;
			break;
		case AVP__TAG(3, AVP__LEN):
			if (!avp__field_text(&f, &m->request_id))
				return false;
			break;
		case AVP__TAG(4, AVP__LEN):
			if (!avp__field_pair(&f, pair ? pair++ : &one))
				return false;
			m->extra_count++;
			break;
		default:
			if ((f.tag & 7) == AVP__END_GROUP)
				return false;
		}
	}
	return true;
}

int avp_pb_transmit_response_decode(const void *bytes, size_t len,
				    struct avp_pb_transmit_response *m,
				    struct avp_reason *why)
{
	struct avp_pb_transmit_response read = {0};
	int err = check_size(RESPONSE, len, why);
	const uint8_t *begin = bytes;
	struct avp_pair *pair;
	uint8_t *copy;
	size_t n;

	if (err)
		return err;
	if (!read_response(begin, begin + len, &read, NULL))
		return no_message(RESPONSE, len, why);
	/* The pairs, room to sort them, and the bytes that they point into. */
	n = read.extra_count;
	pair = malloc(2 * n * sizeof(*pair) + len + 1);
	if (!pair)
		return no_memory(RESPONSE, why);
	copy = (uint8_t *)(pair + 2 * n);
	if (len)
		memcpy(copy, bytes, len);
	read_response(copy, copy + len, &read, pair);
	*m = read;
	m->extra = pair;
	m->extra_count = (uint32_t)avp__pairs_sort(pair, n, pair + n);
	m->owned = pair;
	return 0;
}

void avp_pb_transmit_response_fini(struct avp_pb_transmit_response *m)
{
	free(m->owned);
	memset(m, 0, sizeof(*m));
}
