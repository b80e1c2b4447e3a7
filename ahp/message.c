/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON form of AHP messages: the nine keys, payloads, errors. */
#include <avp/message.h>

static const char *const method_names[] = {
	[AHP_TASK] = "TASK",
	[AHP_ACK] = "ACK",
	[AHP_RESULT] = "RESULT",
	[AHP_PROGRESS] = "PROGRESS",
	[AHP_HEARTBEAT] = "HEARTBEAT",
	[AHP_TOKEN_REQUEST] = "TOKEN_REQUEST",
	[AHP_TOKEN_RESPONSE] = "TOKEN_RESPONSE",
};
#define METHODS (sizeof(method_names) / sizeof(*method_names))

const char *ahp_method_name(uint32_t method)
{
	return method < METHODS ? method_names[method] : NULL;
}

enum ahp_method ahp_method_of(struct avp_str name)
{
	for (uint32_t i = AHP_TASK; i < METHODS; i++)
		if (avp_str_equal(name, avp_str_of(method_names[i])))
			return (enum ahp_method)i;
	return AHP_OTHER;
}

/* ---- members that come again and again ---------------------------------- */

static int read_string(const struct avp_json *object, const char *key,
		       struct avp_str *out, struct avp_reason *why)
{
	int code = avp_json_get_string(object, key, out, why);

	return code < 0 ? code : 0;
}

static int read_object(const struct avp_json *object, const char *key,
		       const struct avp_json **out, struct avp_reason *why)
{
	int code = avp_json_get_object(object, key, out, why);

	return code < 0 ? code : 0;
}

static int read_timestamp(const struct avp_json *object, struct ahp_time *time,
			  struct avp_reason *why)
{
	struct avp_str text;
	int code = avp_json_get_string(object, "timestamp", &text, why);

	return code > 0 ? ahp_time_read(time, text, why) : code;
}

static void put_timestamp(struct avp_json_writer *w,
			  const struct ahp_time *time)
{
	struct ahp_time now;
	char text[AHP_TIME_BYTES];
	struct avp_str s = {text, 0};

	if (!time->year) {
		now = ahp_time_now();
		time = &now;
	}
	s.len = ahp_time_write(time, text);
	avp_json_member_string(w, "timestamp", s);
}

static void put_object(struct avp_json_writer *w, const char *key,
		       const struct avp_json *object, struct avp_str json)
{
	avp_json_key(w, key);
	if (object)
		avp_json_put(w, object);
	else
		avp_json_put_raw(w, json.len ? json : avp_str_of("{}"));
}

static struct avp_str or_default(struct avp_str s, const char *text)
{
	return s.data ? s : avp_str_of(text);
}

/* ---- envelope ----------------------------------------------------------- */

int ahp_envelope_read(struct ahp_envelope *envelope,
		      const struct avp_json *root, struct avp_reason *why)
{
	static const struct avp_str empty = {"", 0};
	struct ahp_envelope e = {
		.method = empty,
		.agent_id = empty,
		.target_agent = empty,
		.task_id = empty,
		.session_id = empty,
		.token_limit = AHP_DEFAULT_TOKEN_LIMIT,
	};
	int code = avp_json_expect_object(root, "an AHP message", why);

	code = code ? code : read_string(root, "method", &e.method, why);
	code = code ? code : read_string(root, "agent_id", &e.agent_id, why);
	code = code ? code
		    : read_string(root, "target_agent", &e.target_agent, why);
	code = code ? code : read_string(root, "task_id", &e.task_id, why);
	code = code ? code
		    : read_string(root, "session_id", &e.session_id, why);
	code = code ? code : read_object(root, "payload", &e.payload, why);
	code = code ? code
		    : avp_json_get_int(root, "token_limit", 0, INT64_MAX,
				       &e.token_limit, why);
	code = code < 0 ? code : read_timestamp(root, &e.timestamp, why);
	code = code ? code
		    : read_string(root, "message_id", &e.message_id, why);
	if (!code)
		*envelope = e;
	return code;
}

void ahp_envelope_put(struct avp_json_writer *w,
		      const struct ahp_envelope *envelope)
{
	const struct ahp_envelope *e = envelope;

	avp_json_open_object(w);
	avp_json_member_string(w, "method", e->method);
	avp_json_member_string(w, "agent_id", e->agent_id);
	avp_json_member_string(w, "target_agent", e->target_agent);
	avp_json_member_string(w, "task_id", e->task_id);
	avp_json_member_string(w, "session_id", e->session_id);
	put_object(w, "payload", e->payload, e->payload_json);
	avp_json_member_int(w, "token_limit", e->token_limit);
	put_timestamp(w, &e->timestamp);
	if (e->message_id.data)
		avp_json_member_string(w, "message_id", e->message_id);
	avp_json_close_object(w);
}

int ahp_envelope_write(struct avp_buf *buf, const struct ahp_envelope *envelope,
		       uint32_t style)
{
	struct avp_json_writer w;

	avp_json_begin(&w, buf, style);
	ahp_envelope_put(&w, envelope);
	return avp_json_finish(&w);
}

/* ---- payloads ----------------------------------------------------------- */

int ahp_ack_read(struct ahp_ack_payload *ack, const struct avp_json *payload,
		 struct avp_reason *why)
{
	struct ahp_ack_payload a = {.original_message_id = {"", 0},
				    .ack_status = avp_str_of("received")};
	int code = avp_json_expect_object(payload, "an ACK's payload", why);

	code = code ? code
		    : read_string(payload, "original_message_id",
				  &a.original_message_id, why);
	code = code ? code
		    : read_string(payload, "ack_status", &a.ack_status, why);
	code = code ? code : read_timestamp(payload, &a.timestamp, why);
	if (!code)
		*ack = a;
	return code;
}

void ahp_ack_put(struct avp_json_writer *w, const struct ahp_ack_payload *ack)
{
	avp_json_open_object(w);
	avp_json_member_string(w, "original_message_id",
			       ack->original_message_id);
	avp_json_member_string(w, "ack_status",
			       or_default(ack->ack_status, "received"));
	put_timestamp(w, &ack->timestamp);
	avp_json_close_object(w);
}

int ahp_result_read(struct ahp_result_payload *result,
		    const struct avp_json *payload, struct avp_reason *why)
{
	struct ahp_result_payload r = {.status = avp_str_of("success")};
	int code = avp_json_expect_object(payload, "a RESULT's payload", why);

	code = code ? code : read_object(payload, "result", &r.result, why);
	code = code ? code : read_string(payload, "status", &r.status, why);
	if (!code)
		*result = r;
	return code;
}

void ahp_result_put(struct avp_json_writer *w,
		    const struct ahp_result_payload *result)
{
	avp_json_open_object(w);
	put_object(w, "result", result->result, result->result_json);
	avp_json_member_string(w, "status",
			       or_default(result->status, "success"));
	avp_json_close_object(w);
}

int ahp_progress_read(struct ahp_progress_payload *progress,
		      const struct avp_json *payload, struct avp_reason *why)
{
	struct ahp_progress_payload p = {.message = {"", 0}};
	int code = avp_json_expect_object(payload, "a PROGRESS's payload", why);

	code = code ? code
		    : avp_json_get_double(payload, "progress", &p.progress,
					  why);
	code = code < 0 ? code
			: read_string(payload, "message", &p.message, why);
	if (!code)
		*progress = p;
	return code;
}

void ahp_progress_put(struct avp_json_writer *w,
		      const struct ahp_progress_payload *progress)
{
	avp_json_open_object(w);
	avp_json_key(w, "progress");
	avp_json_put_double(w, progress->progress);
	avp_json_member_string(w, "message", progress->message);
	avp_json_close_object(w);
}

int ahp_heartbeat_read(struct ahp_heartbeat_payload *heartbeat,
		       const struct avp_json *payload, struct avp_reason *why)
{
	struct ahp_heartbeat_payload h = {0};
	int code =
		avp_json_expect_object(payload, "a HEARTBEAT's payload", why);

	code = code ? code : read_timestamp(payload, &h.timestamp, why);
	if (!code)
		*heartbeat = h;
	return code;
}

void ahp_heartbeat_put(struct avp_json_writer *w,
		       const struct ahp_heartbeat_payload *heartbeat)
{
	avp_json_open_object(w);
	put_timestamp(w, &heartbeat->timestamp);
	avp_json_close_object(w);
}

static int read_tokens(const struct avp_json *payload, const char *key,
		       uint64_t *out, struct avp_reason *why)
{
	int code = avp_json_get_uint(payload, key, INT64_MAX, out, why);

	if (!code)
		return avp__fail(why, AVP_INVALID_MESSAGE,
				 "\"%s\" is missing: a number of tokens", key);
	return code < 0 ? code : 0;
}

int ahp_token_request_read(struct ahp_token_request_payload *request,
			   const struct avp_json *payload,
			   struct avp_reason *why)
{
	struct ahp_token_request_payload r;
	int code = avp_json_expect_object(payload, "a TOKEN_REQUEST's payload",
					  why);

	code = code ? code : read_tokens(payload, "tokens", &r.tokens, why);
	if (!code)
		*request = r;
	return code;
}

void ahp_token_request_put(struct avp_json_writer *w,
			   const struct ahp_token_request_payload *request)
{
	avp_json_open_object(w);
	avp_json_member_uint(w, "tokens", request->tokens);
	avp_json_close_object(w);
}

int ahp_token_response_read(struct ahp_token_response_payload *response,
			    const struct avp_json *payload,
			    struct avp_reason *why)
{
	struct ahp_token_response_payload r;
	int code = avp_json_expect_object(payload, "a TOKEN_RESPONSE's payload",
					  why);

	code = code ? code : read_tokens(payload, "tokens", &r.tokens, why);
	code = code ? code
		    : read_tokens(payload, "remaining", &r.remaining, why);
	if (!code)
		*response = r;
	return code;
}

void ahp_token_response_put(struct avp_json_writer *w,
			    const struct ahp_token_response_payload *response)
{
	avp_json_open_object(w);
	avp_json_member_uint(w, "tokens", response->tokens);
	avp_json_member_uint(w, "remaining", response->remaining);
	avp_json_close_object(w);
}

/* ---- errors ------------------------------------------------------------- */

static bool is_ahp_code(int code)
{
	return code <= AVP_UNKNOWN && code >= AVP_RETRY_EXHAUSTED;
}

static int read_code(const struct avp_json *object, int *out,
		     struct avp_reason *why)
{
	struct avp_str name;
	int code = avp_json_get_string(object, "code", &name, why);

	if (code <= 0)
		return code;
	for (int c = AVP_UNKNOWN; is_ahp_code(c); c--)
		if (avp_str_equal(name, avp_str_of(avp_error_name(c)))) {
			*out = c;
			return 0;
		}
	return avp__fail(why, AVP_INVALID_MESSAGE,
			 "\"code\" is \"%.*s\"; it must be one of AHP's eight, "
			 "UNKNOWN to RETRY_EXHAUSTED",
			 (int)(name.len < 40 ? name.len : 40), name.data);
}

int ahp_error_read(struct ahp_error *error, const struct avp_json *root,
		   struct avp_reason *why)
{
	struct ahp_error e = {.message = {"", 0},
			      .code = AVP_UNKNOWN,
			      .agent_id = {"", 0},
			      .task_id = {"", 0}};
	int code = avp_json_expect_object(root, "an AHP error", why);

	code = code ? code : read_string(root, "message", &e.message, why);
	code = code ? code : read_code(root, &e.code, why);
	code = code ? code : read_string(root, "agent_id", &e.agent_id, why);
	code = code ? code : read_string(root, "task_id", &e.task_id, why);
	code = code ? code : read_object(root, "details", &e.details, why);
	if (!code)
		*error = e;
	return code;
}

void ahp_error_put(struct avp_json_writer *w, const struct ahp_error *error)
{
	int code = is_ahp_code(error->code) ? error->code : AVP_UNKNOWN;

	avp_json_open_object(w);
	avp_json_member_string(w, "message", error->message);
	avp_json_member_string(w, "code", avp_str_of(avp_error_name(code)));
	avp_json_member_string(w, "agent_id", error->agent_id);
	avp_json_member_string(w, "task_id", error->task_id);
	put_object(w, "details", error->details, error->details_json);
	avp_json_close_object(w);
}
