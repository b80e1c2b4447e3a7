/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /avp/v2/text and /avp/v2/handshake: bodies that are JSON.
 *
 * A text message reaches the local agent as the payload of a message of kind
 * JSON. If extra.ahp is there, another gateway has sent it and content is the
 * payload itself; else the payload is the whole text message as its sender
 * wrote it.
 */
#include <math.h>
#include <string.h>

#include "gateway/serve.h"
#include "latent/contradict.h"

#define JSON_FIRST_BYTES 4096

/* ---- the body ----------------------------------------------------------- */

static uint64_t most_of(const struct exchange *x)
{
	uint64_t most = x->gw->conf->limits.body_bytes;

	return most < AVP_JSON_MAX_BYTES ? most : AVP_JSON_MAX_BYTES;
}

static void refuse_size(struct exchange *x)
{
	serve_failf(x, 413, AVP_TOO_LARGE,
		    "more than %llu bytes of JSON, the most that is taken",
		    (unsigned long long)most_of(x));
}

void json_head(struct exchange *x)
{
	if (x->r->known && x->r->length > most_of(x))
		refuse_size(x);
	else
		fields_read(x);
}

size_t json_place(struct exchange *x, void **at)
{
	struct avp_buf *b = &x->stage;

	/* A NUL has its place behind the text. */
	if (b->len + 1 >= b->capacity) {
		if (b->len >= most_of(x)) {
			refuse_size(x);
			return 0;
		}
		if (avp_buf_reserve(b, b->len ? b->len : JSON_FIRST_BYTES)) {
			serve_failf(x, 503, AVP_NO_MEMORY, "no memory");
			return 0;
		}
	}
	*at = b->data + b->len;
	return b->capacity - b->len - 1;
}

/* The JSON of the body; NULL: answered. what is "handshake" or "message". */
static const struct avp_json *parse(struct exchange *x, const char *what)
{
	struct avp_reason why;
	int code = avp_json_parse(&x->doc, x->stage.data ? x->stage.data : "",
				  x->stage.len, NULL, &why);
	const struct avp_json *root = code ? NULL : avp_json_root(x->doc);

	if (code)
		serve_failf(x, serve_status(code), AVP_BAD_JSON,
			    "Invalid %s: %s", what, why.text);
	else if (avp_json_type_of(root) != AVP_JSON_OBJECT)
		serve_failf(x, 400, AVP_BAD_JSON,
			    "Invalid %s: it has to be an object", what);
	else
		return root;
	return NULL;
}

/* ---- text --------------------------------------------------------------- */

static void take_fallback(struct exchange *x, const struct avp_json *root)
{
	struct avp_fallback fallback;
	struct avp_reason why;

	if (avp_fallback_read(&fallback, root, &why))
		serve_fail(x, 400, &why);
	else if (gw_outbound_fallback(x->gw, &fallback))
		serve_json(x, 200, avp_str_of("{\"success\":true}"));
	else
		serve_failf(x, 404, AVP_AGENT_NOT_FOUND,
			    "no session of ours has that session_id");
}

static bool is_fallback(const struct avp_json *root)
{
	return avp_json_get(root, "perplexity_score") &&
	       !avp_json_get(root, "content");
}

/* What a text cannot hold that is to be passed on as UTF-8. */
static bool has_lone_surrogate(struct avp_str text)
{
	for (size_t i = 0; i + 1 < text.len; i++)
		if ((uint8_t)text.data[i] == 0xed &&
		    (uint8_t)text.data[i + 1] >= 0xa0)
			return true;
	return false;
}

static bool take_text(struct exchange *x, struct avp_text_message *t)
{
	const struct avp_json *ahp =
		t->extra ? avp_json_get(t->extra, "ahp") : NULL;
	struct avp_str target = t->target_agent_id, source = t->source_agent_id;
	struct avp_reason why;

	if (avp_json_type_of(ahp) != AVP_JSON_OBJECT)
		ahp = NULL;
	if (has_lone_surrogate(t->content) ||
	    has_lone_surrogate(t->source_agent_id)) {
		serve_failf(x, 400, AVP_INVALID_MESSAGE,
			    "content or source_agent_id holds half of a "
			    "surrogate pair");
		return false;
	}
	if (ahp &&
	    (avp_json_get_string(ahp, "target_agent", &target, &why) < 0 ||
	     avp_json_get_string(ahp, "agent_id", &source, &why) < 0)) {
		serve_fail(x, 400, &why);
		return false;
	}
	if (!source.len)
		source = serve_either(x, HTTP_AHP_SOURCE,
				      http_get(x->r, HTTP_AVP_AGENT_ID));
	if (!target.len)
		target = http_get(x->r, HTTP_AHP_TARGET);
	x->payload = avp_buf_str(&x->stage);
	if (ahp)
		x->payload = t->content;
	x->session = t->session_id;
	if (!fields_read_json(x, ahp))
		return false;
	if (x->wants_liveness && x->method != AHP_HEARTBEAT) {
		serve_failf(x, 400, AVP_INVALID_MESSAGE,
			    "AHP-Wait: liveness is for a HEARTBEAT");
		return false;
	}
	if (!serve_address(x, target))
		return false;
	deliver_speak(x, source);
	return true;
}

void text_end(struct exchange *x)
{
	const struct avp_json *root = parse(x, "message");
	struct avp_text_message text;
	struct avp_reason why;
	int code;

	if (!root)
		return;
	if (is_fallback(root)) {
		take_fallback(x, root);
		return;
	}
	if (avp_text_message_read(&text, root, &why)) {
		serve_failf(x, 400, AVP_INVALID_MESSAGE, "Invalid message: %s",
			    why.text);
		return;
	}
	if (!take_text(x, &text))
		return;
	x->whole = true;
	code = deliver_link(x, &why);
	if (!code)
		text_send(x);
	else if (code != AVP_AGAIN)
		serve_fail(x, serve_status(code), &why);
}

/* gateway.h, AHP-Wait: liveness. The link to the agent is there. */
static void answer_liveness(struct exchange *x)
{
	enum ahp_liveness is =
		ahp_liveness(x->speaker->agent, x->target, AHP_USUAL);
	struct http_pair pair = {
		"ahp-outcome", avp_str_of(is == AHP_STUCK ? GW_OUTCOME_STUCK
							  : GW_OUTCOME_ALIVE)};
	static const char text[] = "{\"success\":true}";

	if (is != AHP_ALIVE && is != AHP_STUCK) {
		serve_failf(x, 404, AVP_AGENT_NOT_FOUND, "%s has ended",
			    x->target);
		return;
	}
	deliver_forget(x);
	http_answer(x->r, &(struct http_reply){.status = 200,
					       .type = "application/json",
					       .pair = &pair,
					       .pairs = 1,
					       .body = text,
					       .bytes = sizeof(text) - 1});
}

void text_send(struct exchange *x)
{
	struct ahp_outgoing m = {.kind = AHP_JSON};

	if (x->wants_liveness) {
		answer_liveness(x);
		return;
	}
	fields_fill(x, &m, x->session);
	m.body = x->payload.data;
	m.body_bytes = x->payload.len;
	deliver_send(x, &m);
}

/* ---- handshake ---------------------------------------------------------- */

/* NaN, an infinity or half of a surrogate pair, wherever in it. */
static bool is_unspeakable(const struct avp_json *value)
{
	const struct avp_json *member;
	struct avp_str text;
	double number;

	switch (avp_json_type_of(value)) {
	case AVP_JSON_FLOAT:
		return avp_json_double(value, &number) || !isfinite(number);
	case AVP_JSON_STRING:
		return avp_json_string(value, &text) ||
		       has_lone_surrogate(text);
	case AVP_JSON_ARRAY:
	case AVP_JSON_OBJECT:
		member = avp_json_first(value);
		while (member && !has_lone_surrogate(avp_json_key_of(member)) &&
		       !is_unspeakable(member))
			member = avp_json_next(member);
		return member;
	default: return false;
	}
}

/* Of the keys of a HELLO that tell who asks, the first that is; or NULL. */
static const char *find_unspeakable(const struct avp_json *root,
				    const struct avp_json *identity)
{
	static const char *const keys[] = {
		"model_family", "model_id",	"model_hash", "hidden_dim",
		"num_layers",	"num_kv_heads", "head_dim",
	};

	if (is_unspeakable(avp_json_get(root, "agent_id")))
		return "agent_id";
	for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++)
		if (is_unspeakable(avp_json_get(identity, keys[i])))
			return keys[i];
	return NULL;
}

/*
 * 400 for what is no handshake, as the reference answers, and for what it takes
 * but cannot say itself; 422 for one that cannot be understood: the reference
 * looks at no type, and echoes what it got.
 */
static bool read_hello(struct exchange *x, struct avp_hello *hello)
{
	const struct avp_json *root = parse(x, "handshake"), *identity;
	struct avp_reason why;
	const char *key;

	if (!root)
		return false;
	identity = avp_json_get(root, "identity");
	if (identity && avp_json_type_of(identity) != AVP_JSON_OBJECT) {
		serve_failf(x, 400, AVP_INVALID_MESSAGE,
			    "Invalid handshake: identity has to be an object");
		return false;
	}
	key = find_unspeakable(root, identity);
	if (key) {
		serve_failf(x, 400, AVP_INVALID_MESSAGE,
			    "Invalid handshake: %s holds half of a surrogate "
			    "pair, or a number that is not finite",
			    key);
		return false;
	}
	if (avp_hello_read(hello, root, &why)) {
		serve_failf(x, 422, AVP_INVALID_MESSAGE,
			    "Invalid handshake: %s", why.text);
		return false;
	}
	return true;
}

void handshake_end(struct exchange *x)
{
	struct avp_str named = http_get(x->r, HTTP_AHP_TARGET);
	struct avp_hello hello;
	struct avp_reason why;
	int code = AVP_AGENT_NOT_FOUND;

	if (!read_hello(x, &hello))
		return;
	x->whole = true;
	if (named.len || *x->url_agent || *auth_default_agent(x)) {
		if (!serve_address(x, named))
			return;
		deliver_speak(x, (struct avp_str){0});
		code = deliver_link(x, &why);
		if (code == AVP_AGAIN)
			return;
	}
	handshake_linked(x, code);
}

static const struct ahp_session *open_session(struct exchange *x,
					      const struct avp_identity *ours)
{
	struct ahp_session_agent agents[2] = {
		{.agent_id = avp_str_of(x->target), .identity = *ours}};
	const struct ahp_session *session;
	struct avp_resolution mode;
	struct avp_hello hello;
	struct avp_reason why;

	/* It was read before, without an error. */
	if (avp_hello_read(&hello, avp_json_root(x->doc), &why))
		hello = (struct avp_hello){0};
	agents[1].agent_id = hello.agent_id;
	agents[1].identity = hello.identity;
	avp_resolve(ours, &hello.identity, 0, &mode);
	/* As on a link of this host, what is not known is not refused. */
	if (!avp__contradict(ours, &hello.identity))
		mode.mode = AVP_MODE_LATENT;
	if (!ahp_session_create(x->in->sessions, agents, 2, mode.mode,
				AHP_SESSION_TTL, (double)gw_clock_ns() / 1e9,
				&session, &why))
		return session;
	serve_fail(x, serve_status(why.code), &why);
	return NULL;
}

void handshake_linked(struct exchange *x, int code)
{
	struct ahp_mode mode = {0};
	const struct ahp_session *session;
	struct avp_buf buf = {0};
	struct avp_json_writer w;

	if (!code)
		ahp_peer_mode(x->speaker->agent, x->peer, &mode);
	session = open_session(x, &mode.identity);
	if (!session)
		return;
	avp_json_begin(&w, &buf, AVP_JSON_HTTP);
	avp_json_open_object(&w);
	avp_json_member_bool(&w, "success", true);
	avp_json_member_string(&w, "agent_id", avp_str_of(x->target));
	avp_json_key(&w, "session_id");
	avp_json_put_text(&w, session->id);
	avp_json_key(&w, "identity");
	avp_identity_put(&w, &mode.identity);
	avp_json_close_object(&w);
	if (avp_json_finish(&w))
		serve_failf(x, 503, AVP_NO_MEMORY, "no memory");
	else
		serve_json(x, 200, avp_buf_str(&buf));
	avp_buf_fini(&buf);
}
