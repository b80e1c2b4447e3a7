/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AHP's fields of a message that came by HTTP: headers beside a frame,
 * extra.ahp in a text message. A message that names none is a TASK with an id
 * of ours.
 */
#include <stdio.h>
#include <string.h>

#include "gateway/serve.h"

static bool refuse(struct exchange *x, const char *text)
{
	serve_failf(x, 400, AVP_INVALID_MESSAGE, "%s", text);
	return false;
}

static bool keep_id(struct exchange *x, struct avp_str *id, struct avp_str from)
{
	char *room = x->ids[id == &x->session_id];

	if (from.len > AVP_LANE_ID_BYTES)
		return refuse(x, "a task or session id has at most 80 bytes");
	if (from.len)
		memcpy(room, from.data, from.len);
	*id = (struct avp_str){room, from.len};
	return true;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool fields_unescape(char *text, size_t *len)
{
	size_t n = 0;

	for (size_t i = 0; i < *len; i++) {
		int high, low;

		if (text[i] != '%') {
			text[n++] = text[i];
			continue;
		}
		high = *len - i > 2 ? hex_value(text[i + 1]) : -1;
		low = *len - i > 2 ? hex_value(text[i + 2]) : -1;
		if (high < 0 || low < 0)
			return false;
		text[n++] = (char)(high << 4 | low);
		i += 2;
	}
	*len = n;
	return true;
}

/* The field as its sender meant it: gateway.h, AHP-Encoding. */
static bool take_id_field(struct exchange *x, struct avp_str *id,
			  enum http_field field)
{
	struct avp_str value = http_get(x->r, field);
	char room[3 * AVP_LANE_ID_BYTES];

	if (!http_get(x->r, HTTP_AHP_ENCODING).len)
		return keep_id(x, id, value);
	if (value.len > sizeof(room))
		return keep_id(x, id, value); /* which refuses it */
	if (value.len)
		memcpy(room, value.data, value.len);
	value.data = room;
	if (!fields_unescape(room, &value.len))
		return refuse(x, "AHP-Encoding is percent, and a task or "
				 "session id has a % without two hex digits");
	return keep_id(x, id, value);
}

static bool take_method(struct exchange *x, struct avp_str name)
{
	x->method = name.len ? (uint8_t)ahp_method_of(name) : AHP_TASK;
	if (x->method == AHP_OTHER || x->method == AHP_ACK)
		return refuse(x, "AHP-Method may be TASK, RESULT, PROGRESS, "
				 "HEARTBEAT, TOKEN_REQUEST or TOKEN_RESPONSE");
	return true;
}

static bool take_limit(struct exchange *x, struct avp_str digits)
{
	uint64_t limit = 0;

	if (digits.len > 10)
		return refuse(x, "AHP-Token-Limit is no number of 32 bits");
	for (size_t i = 0; i < digits.len; i++) {
		if (digits.data[i] < '0' || digits.data[i] > '9')
			return refuse(x, "AHP-Token-Limit is no number");
		limit = 10 * limit + (uint64_t)(digits.data[i] - '0');
	}
	/* AHP.md: the slot's field saturates. */
	x->token_limit = limit > UINT32_MAX ? UINT32_MAX : (uint32_t)limit;
	return true;
}

static bool take_id(struct exchange *x, struct avp_str text)
{
	int error = text.len ? ahp_id_read(x->message_id, text)
			     : ahp_id_random(x->message_id);

	if (error)
		serve_failf(x, 503, error, "no id for the message");
	return !error;
}

bool fields_read(struct exchange *x)
{
	const struct http_request *r = x->r;
	struct avp_str wait = http_get(r, HTTP_AHP_WAIT);
	struct avp_str encoding = http_get(r, HTTP_AHP_ENCODING);

	x->wants_result = avp_str_equal(wait, avp_str_of("result"));
	x->wants_liveness = avp_str_equal(wait, avp_str_of(GW_WAIT_LIVENESS));
	if (wait.len && !x->wants_result && !x->wants_liveness &&
	    !avp_str_equal(wait, avp_str_of("ack")))
		return refuse(x, "AHP-Wait may be ack, result or liveness");
	if (x->wants_liveness && x->endpoint != GW_TEXT)
		return refuse(x, "AHP-Wait: liveness is for a HEARTBEAT, which "
				 "is text");
	if (encoding.len && !avp_str_equal(encoding, avp_str_of("percent")))
		return refuse(x, "AHP-Encoding may be percent, or absent");
	return take_method(x, http_get(r, HTTP_AHP_METHOD)) &&
	       take_id(x, http_get(r, HTTP_AHP_MESSAGE_ID)) &&
	       take_limit(x, http_get(r, HTTP_AHP_TOKEN_LIMIT)) &&
	       take_id_field(x, &x->task_id, HTTP_AHP_TASK_ID) &&
	       take_id_field(x, &x->session_id, HTTP_AHP_SESSION_ID);
}

bool fields_read_json(struct exchange *x, const struct avp_json *ahp)
{
	struct avp_str method = {0}, task = {0}, session = {0}, id = {0};
	uint64_t limit = x->token_limit;
	struct avp_reason why;

	if (!ahp)
		return true;
	if (avp_json_get_string(ahp, "method", &method, &why) < 0 ||
	    avp_json_get_string(ahp, "task_id", &task, &why) < 0 ||
	    avp_json_get_string(ahp, "session_id", &session, &why) < 0 ||
	    avp_json_get_string(ahp, "message_id", &id, &why) < 0 ||
	    avp_json_get_uint(ahp, "token_limit", INT64_MAX, &limit, &why) <
		    0) {
		serve_fail(x, 400, &why);
		return false;
	}
	x->token_limit = limit > UINT32_MAX ? UINT32_MAX : (uint32_t)limit;
	return (!method.len || take_method(x, method)) &&
	       (!id.len || take_id(x, id)) &&
	       (!task.len || keep_id(x, &x->task_id, task)) &&
	       (!session.len || keep_id(x, &x->session_id, session));
}

void fields_fill(struct exchange *x, struct ahp_outgoing *m,
		 struct avp_str session)
{
	char id[AHP_ID_TEXT_BYTES];

	if (x->wants_result && !x->task_id.len) {
		ahp_id_write(x->message_id, id);
		keep_id(x, &x->task_id, avp_str_of(id));
	}
	m->method = x->method;
	m->message_id = x->message_id;
	m->token_limit = x->token_limit;
	m->task_id = x->task_id;
	m->session_id = x->session_id;
	if (!m->session_id.len && session.len <= AVP_LANE_ID_BYTES)
		m->session_id = session;
}
