/* SPDX-License-Identifier: Apache-2.0 */
/* What a peer's answer means: accepted, with a RESULT or not; refused;
 * again. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "gateway/outbound.h"

#define SHOWN 100 /* of a text of the peer's, in a reason */

/* AVP's statuses (issue and AVP.md, HTTP), and those of proxies in between. */
static const struct {
	long status;
	int code;
	bool retry;
} statuses[] = {
	{400, AVP_INVALID_MESSAGE, false}, {401, AVP_PERMISSION, false},
	{403, AVP_PERMISSION, false},	   {404, AVP_AGENT_NOT_FOUND, true},
	{405, AVP_UNSUPPORTED, false},	   {408, AVP_TIMEOUT, true},
	{409, AVP_SHAPE_MISMATCH, false},  {413, AVP_TOO_LARGE, false},
	{415, AVP_INVALID_MESSAGE, false}, {422, AVP_INVALID_MESSAGE, false},
	{429, AVP_QUEUE_FULL, true},	   {500, AVP_UNKNOWN, false},
	{501, AVP_UNSUPPORTED, false},	   {502, AVP_CLOSED, true},
	{503, AVP_QUEUE_FULL, true},	   {504, AVP_TIMEOUT, true},
};

__attribute__((format(printf, 3, 4))) static void say(struct out_verdict *v,
						      int code,
						      const char *format, ...)
{
	va_list args;

	v->code = code;
	va_start(args, format);
	vsnprintf(v->text, sizeof(v->text), format, args);
	va_end(args);
}

/* ---- the body as JSON --------------------------------------------------- */

static bool is_type(const struct out_request *r, const char *type)
{
	size_t n = strlen(type);

	return !strncasecmp(r->type, type, n) &&
	       (!r->type[n] || r->type[n] == ';' || r->type[n] == ' ');
}

static struct avp_json_doc *parse(const struct out_request *r,
				  struct avp_reason *why)
{
	struct avp_json_options options = {
		.size = sizeof(options),
		.max_depth = 256,
		.max_bytes = r->body.len + 1 < AVP_JSON_BYTES_CAP
				     ? r->body.len + 1
				     : AVP_JSON_BYTES_CAP};
	struct avp_json_doc *doc;

	if (avp_json_parse(&doc, r->body.data ? r->body.data : "", r->body.len,
			   &options, why))
		return NULL;
	if (avp_json_type_of(avp_json_root(doc)) == AVP_JSON_OBJECT)
		return doc;
	avp_json_free(doc);
	avp__fail(why, AVP_BAD_JSON, "no object");
	return NULL;
}

/* A short text of the answer's, printable. */
static void shown(char to[SHOWN + 1], struct avp_str text)
{
	size_t n = text.len < SHOWN ? text.len : SHOWN;

	for (size_t i = 0; i < n; i++)
		to[i] = text.data[i] >= ' ' && text.data[i] < 0x7f
				? text.data[i]
				: '?';
	to[n] = 0;
}

/* What an error's answer says of itself: {"message"} of ours, {"detail"}. */
static void error_text(const struct out_request *r, char to[SHOWN + 1],
		       int *code)
{
	struct avp_json_doc *doc = r->body.len ? parse(r, NULL) : NULL;
	const struct avp_json *root = doc ? avp_json_root(doc) : NULL;
	struct avp_str text = {r->body.data, r->body.len}, name = {0};

	if (avp_json_string(avp_json_get(root, "message"), &text))
		avp_json_string(avp_json_get(root, "detail"), &text);
	shown(to, text);
	if (!avp_json_string(avp_json_get(root, "code"), &name))
		for (int c = -1; c > -70; c--)
			if (avp_str_equal(name, avp_str_of(avp_error_name(c))))
				*code = c;
	avp_json_free(doc);
}

/* ---- status ------------------------------------------------------------- */

static void judge_error(const struct out_request *r, struct out_verdict *v)
{
	char text[SHOWN + 1];
	int code = AVP_UNKNOWN;
	size_t i = 0;

	while (i < sizeof(statuses) / sizeof(*statuses) &&
	       statuses[i].status != r->status)
		i++;
	if (i < sizeof(statuses) / sizeof(*statuses)) {
		code = statuses[i].code;
		v->retry = statuses[i].retry;
	}
	error_text(r, text, &code);
	v->after_ns = r->retry_after_ns;
	say(v, code, "%s answers %ld: %s", r->peer->conf->url.text, r->status,
	    text[0] ? text : "without a word");
}

/* What no retry mends, nor a rest: the certificate, the address. */
static bool is_final(CURLcode code)
{
	return code == CURLE_URL_MALFORMAT ||
	       code == CURLE_UNSUPPORTED_PROTOCOL;
}

void out_judge_status(const struct out_request *r, struct out_verdict *v)
{
	const char *url = r->peer->conf->url.text;
	char text[SHOWN + 1];

	if (r->code) {
		v->retry = !r->too_large && !is_final(r->code);
		say(v,
		    r->too_large			  ? AVP_TOO_LARGE
		    : r->code == CURLE_OPERATION_TIMEDOUT ? AVP_TIMEOUT
							  : AVP_CLOSED,
		    "%.100s: %.140s", url, out_request_error(r));
	} else if (r->status >= 400) {
		judge_error(r, v);
	} else if (r->status >= 300) {
		shown(text, avp_str_of(r->location));
		say(v, AVP_INVALID_MESSAGE,
		    "%.60s answers %ld%s%s; redirects are not followed: set "
		    "its url right",
		    url, r->status, text[0] ? " to " : "", text);
	} else if (r->status == 204 || !r->body.len) {
		say(v, AVP_DESERIALIZATION_ERROR,
		    "%.100s answers %ld without a body; expected a JSON "
		    "object",
		    url, r->status);
	} else if (r->type[0] && !is_type(r, "application/json") &&
		   !is_type(r, "application/avp+binary")) {
		shown(text, avp_str_of(r->type));
		say(v, AVP_DESERIALIZATION_ERROR,
		    "%.80s answers %ld with %.60s; expected a JSON object: is "
		    "its url right?",
		    url, r->status, text);
	}
}

/* ---- a fallback --------------------------------------------------------- */

/* {"fallback": {...}}, or the FallbackRequest itself. */
static const struct avp_json *fallback_of(const struct avp_json *root)
{
	const struct avp_json *f = avp_json_get(root, "fallback");

	if (!f)
		f = avp_json_get(root, "fallback_request");
	if (!f && avp_json_get(root, "perplexity_score"))
		f = root;
	return avp_json_type_of(f) == AVP_JSON_OBJECT ? f : NULL;
}

/* True: the peer asks for text instead of the frame that it was sent. */
static bool fell_back(struct out_message *m, const struct avp_json *root,
		      struct out_verdict *v)
{
	const struct avp_json *f = m->latent ? fallback_of(root) : NULL;
	struct avp_fallback fallback;
	char text[SHOWN + 1];

	if (!f || avp_fallback_read(&fallback, f, NULL))
		return false;
	out_session_fall(m->session, &fallback);
	shown(text, fallback.reason);
	v->retry = m->message->m.frame.metadata.mode == AVP_MODE_HYBRID;
	v->after_ns = 0;
	say(v, AVP_INVALID_MESSAGE,
	    "%s asks for JSON instead of latent states: %s (perplexity %g)",
	    m->remote->id, text, fallback.perplexity_score);
	return true;
}

/* ---- results ------------------------------------------------------------ */

/* The SDK's answer is what its handler made of the message. */
static int wrap(struct avp_buf *to, const struct avp_json *root)
{
	struct avp_json_writer w;

	avp_json_begin(&w, to, AVP_JSON_PYTHON);
	avp_json_open_object(&w);
	avp_json_key(&w, "result");
	avp_json_put(&w, root);
	avp_json_member_string(&w, "status", avp_str_of("success"));
	avp_json_close_object(&w);
	return avp_json_finish(&w);
}

static void take_json_result(const struct out_request *r,
			     const struct avp_json *root, struct out_verdict *v)
{
	const struct avp_json *result = root;
	int err;

	if (!strcasecmp(r->outcome, GW_OUTCOME_RESULT)) {
		result = avp_json_get(root, "result");
		if (avp_json_type_of(result) != AVP_JSON_OBJECT)
			return say(v, AVP_DESERIALIZATION_ERROR,
				   "%.100s says that its answer is a RESULT, "
				   "which is not in it",
				   r->peer->conf->url.text);
		err = avp_json_write(&v->payload, result, AVP_JSON_PYTHON);
	} else {
		err = wrap(&v->payload, root);
	}
	v->result = !err;
	v->kind = AHP_JSON;
	if (err)
		say(v, err, "no memory for a RESULT");
}

static void take_frame_result(const struct out_message *m,
			      struct out_request *r, struct out_verdict *v)
{
	struct avp_frame frame;
	struct avp_reason why;

	if (avp_frame_decode(r->body.data, r->body.len, &frame, &why))
		return say(v, AVP_DESERIALIZATION_ERROR,
			   "%.80s answers with a frame that cannot be read: "
			   "%.120s",
			   r->peer->conf->url.text, why.text);
	if (m->message->m.method != AHP_TASK)
		return;
	v->payload = r->body;
	r->body = (struct avp_buf){0};
	v->result = true;
	v->kind = AHP_FRAME;
}

static void judge_json(struct out_message *m, const struct out_request *r,
		       struct out_verdict *v)
{
	struct avp_reason why;
	struct avp_json_doc *doc = parse(r, &why);
	const struct avp_json *root;
	bool success = true;
	char text[SHOWN + 1];

	if (!doc)
		return say(v, AVP_DESERIALIZATION_ERROR,
			   "%.80s answers %ld with what is no JSON object: "
			   "%.100s",
			   r->peer->conf->url.text, r->status, why.text);
	root = avp_json_root(doc);
	avp_json_bool(avp_json_get(root, "success"), &success);
	if (fell_back(m, root, v)) {
		/* Said there. */
	} else if (!success) {
		int code = AVP_REJECTED;

		error_text(r, text, &code);
		say(v, code, "%.80s refuses: %s", r->peer->conf->url.text,
		    text);
	} else if (m->message->m.method == AHP_TASK &&
		   strcasecmp(r->outcome, GW_OUTCOME_ACCEPTED) != 0) {
		take_json_result(r, root, v);
	}
	avp_json_free(doc);
}

void out_judge(struct out_message *m, struct out_request *r,
	       struct out_verdict *v)
{
	struct avp_json_doc *doc;

	out_judge_status(r, v);
	if (!v->code && is_type(r, "application/avp+binary"))
		take_frame_result(m, r, v);
	else if (!v->code)
		judge_json(m, r, v);
	else if (!r->code && r->status >= 400 && r->body.len &&
		 (doc = parse(r, NULL))) {
		fell_back(m, avp_json_root(doc), v);
		avp_json_free(doc);
	}
}
