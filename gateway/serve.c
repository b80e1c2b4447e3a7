/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The endpoints of AVP's HTTP transport: which one is meant, who may use it,
 * and what an answer looks like. Statuses and bodies are those that the
 * reference SDK's server was seen to give, but where a comment says otherwise.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/serve.h"

#define JSON "application/json"

/* ---- answers ------------------------------------------------------------ */

/* Codes of frames come first in the list: AVP's answer has no code for them. */
static bool is_frame_code(int code)
{
	return code <= AVP_SHORT_HEADER && code > AVP_UNKNOWN;
}

int serve_status(int code)
{
	switch (code) {
	case AVP_SHAPE_MISMATCH: return 409;
	case AVP_TOO_LARGE: return 413;
	case AVP_AGENT_NOT_FOUND: return 404;
	case AVP_PERMISSION: return 403;
	case AVP_QUEUE_FULL:
	case AVP_NO_MEMORY:
	case AVP_AGAIN:
	case AVP_CLOSED:
	case AVP_POISONED: return 503;
	case AVP_TIMEOUT:
	case AVP_EXPIRED: return 504;
	case AVP_BAD_JSON:
	case AVP_INVALID_MESSAGE: return 400;
	default: return is_frame_code(code) ? 400 : 500;
	}
}

static void answer_fail(struct exchange *x, int status, int code,
			const struct http_pair *pair, const char *text)
{
	struct http_reply reply = {.status = status, .type = JSON};
	const struct http_pair later = {"retry-after", avp_str_of("1")};
	struct avp_buf buf = {0};
	struct avp_json_writer w;

	avp_json_begin(&w, &buf, AVP_JSON_HTTP);
	avp_json_open_object(&w);
	avp_json_member_bool(&w, "success", false);
	avp_json_key(&w, "message");
	avp_json_put_text(&w, text);
	if (!is_frame_code(code)) {
		avp_json_key(&w, "code");
		avp_json_put_text(&w, avp_error_name(code));
	}
	avp_json_close_object(&w);
	if (!avp_json_finish(&w)) {
		reply.body = buf.data;
		reply.bytes = buf.len;
	}
	if (!pair && status == 503)
		pair = &later;
	reply.pair = pair;
	reply.pairs = pair != NULL;
	http_answer(x->r, &reply);
	avp_buf_fini(&buf);
}

void serve_refuse(struct exchange *x, int status, int code,
		  const struct http_pair *pair, const char *text)
{
	if (x->r->answered)
		return;
	deliver_forget(x);
	x->gw->metrics.too_large += status == 413;
	x->gw->metrics.timed_out += status == 504 || status == 408;
	answer_fail(x, status, code, pair, text);
}

void serve_fail(struct exchange *x, int status, const struct avp_reason *why)
{
	serve_refuse(x, status, why->code, NULL, why->text);
}

void serve_failf(struct exchange *x, int status, int code, const char *format,
		 ...)
{
	struct avp_reason why = {.code = code};
	va_list args;

	va_start(args, format);
	vsnprintf(why.text, sizeof(why.text), format, args);
	va_end(args);
	serve_fail(x, status, &why);
}

void serve_json(struct exchange *x, int status, struct avp_str json)
{
	http_answer(x->r, &(struct http_reply){.status = status,
					       .type = JSON,
					       .body = json.data,
					       .bytes = json.len});
}

static void answer_detail(struct exchange *x, int status, const char *text,
			  const struct http_pair *pair)
{
	http_answer(x->r, &(struct http_reply){.status = status,
					       .type = JSON,
					       .pair = pair,
					       .pairs = pair != NULL,
					       .body = text,
					       .bytes = strlen(text)});
}

/* ---- which endpoint ----------------------------------------------------- */

static const struct route {
	const char *path;
	enum gw_endpoint endpoint;
	enum http_verb verb;
	bool of_agent; /* also below /agents/<id> */
} routes[] = {
	{"/avp/v2/transmit", GW_TRANSMIT, HTTP_VERB_POST, true},
	{"/avp/v2/text", GW_TEXT, HTTP_VERB_POST, true},
	{"/avp/v2/handshake", GW_HANDSHAKE, HTTP_VERB_POST, true},
	{"/health", GW_HEALTH, HTTP_VERB_GET, false},
	{"/metrics", GW_METRICS, HTTP_VERB_GET, false},
};
#define ROUTES (sizeof(routes) / sizeof(*routes))

static const struct route *route_of(struct avp_str path, bool of_agent)
{
	for (size_t i = 0; i < ROUTES; i++)
		if ((routes[i].of_agent || !of_agent) &&
		    avp_str_equal(avp_str_of(routes[i].path), path))
			return &routes[i];
	return NULL;
}

static bool is_id(struct avp_str id)
{
	static const char most[] = "abcdefghijklmnopqrstuvwxyz"
				   "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";

	if (!id.len || id.len > AHP_ID_BYTES || id.data[0] == '.')
		return false;
	for (size_t i = 0; i < id.len; i++)
		if (!id.data[i] || !strchr(most, id.data[i]))
			return false;
	return true;
}

/* Takes "/agents/<id>" off the path; false if that is there and wrong. */
static bool take_agent(struct exchange *x, struct avp_str *path)
{
	static const char prefix[] = "/agents/";
	const size_t n = sizeof(prefix) - 1;
	const char *slash;
	struct avp_str id;

	if (path->len < n || memcmp(path->data, prefix, n))
		return true;
	slash = memchr(path->data + n, '/', path->len - n);
	if (!slash)
		return false;
	id = (struct avp_str){path->data + n, (size_t)(slash - path->data) - n};
	if (!is_id(id))
		return false;
	memcpy(x->url_agent, id.data, id.len);
	path->len -= (size_t)(slash - path->data);
	path->data = slash;
	return true;
}

static struct avp_str without_slashes(struct avp_str path)
{
	while (path.len && path.data[path.len - 1] == '/')
		path.len--;
	return path;
}

/*
 * "/health/" is not "/health", but the way to it. path is what is left of full
 * behind an agent's prefix.
 */
static bool redirects(struct exchange *x, struct avp_str full,
		      struct avp_str path)
{
	struct avp_str host = http_get(x->r, HTTP_HOST);
	struct avp_str query = http_query(x->r);
	char where[HTTP_TARGET_MAX + 512];
	struct http_pair location = {"location", {where, 0}};

	if (!path.len || path.data[path.len - 1] != '/' || host.len > 256 ||
	    !route_of(without_slashes(path), *x->url_agent))
		return false;
	full = without_slashes(full);
	if (query.len < 2)
		query.len = 0; /* a question mark alone */
	snprintf(where, sizeof(where), "%s://%.*s%.*s%.*s",
		 x->r->conn->tls ? "https" : "http", (int)host.len,
		 host.data ? host.data : "", (int)full.len, full.data,
		 (int)query.len, query.data ? query.data : "");
	location.value.len = strlen(where);
	http_answer(x->r, &(struct http_reply){.status = 307,
					       .pair = &location,
					       .pairs = 1});
	return true;
}

static const struct route *find_route(struct exchange *x)
{
	struct avp_str full = http_path(x->r), path;
	const struct route *route = NULL;
	struct http_pair allow = {"allow", {0}};
	char room[HTTP_TARGET_MAX];
	bool good;

	if (full.len)
		memcpy(room, full.data, full.len);
	full.data = room;
	good = fields_unescape(room, &full.len);
	path = full;
	good = good && take_agent(x, &path);
	if (good)
		route = route_of(path, *x->url_agent);
	if (!route) {
		if (!good || !redirects(x, full, path))
			answer_detail(x, 404, "{\"detail\":\"Not Found\"}",
				      NULL);
		return NULL;
	}
	x->endpoint = route->endpoint;
	if (x->r->verb == route->verb)
		return route;
	allow.value = avp_str_of(route->verb == HTTP_VERB_GET ? "GET" : "POST");
	answer_detail(x, 405, "{\"detail\":\"Method Not Allowed\"}", &allow);
	return NULL;
}

/* ---- what both kinds of message have ------------------------------------ */

struct avp_str serve_either(const struct exchange *x, enum http_field field,
			    struct avp_str other)
{
	struct avp_str told = http_get(x->r, field);

	return told.data ? told : other;
}

bool serve_address(struct exchange *x, struct avp_str named)
{
	const char *other =
		*x->url_agent ? x->url_agent : auth_default_agent(x);

	if (!named.len)
		named = avp_str_of(other);
	if (!named.len) {
		serve_failf(x, 404, AVP_AGENT_NOT_FOUND,
			    "no target_agent_id is given, and there is no "
			    "default agent here");
		return false;
	}
	if (!is_id(named)) {
		serve_failf(x, 404, AVP_AGENT_NOT_FOUND,
			    "no agent of this host can have the id that is "
			    "asked for");
		return false;
	}
	memcpy(x->target, named.data, named.len);
	x->target[named.len] = 0;
	return auth_permits(x, x->target);
}

/* AVP.md: a missing Content-Type is accepted; compression is the frame's. */
static bool check_content(struct exchange *x)
{
	const char *want =
		x->endpoint == GW_TRANSMIT ? "application/avp+binary" : JSON;
	struct avp_str type = http_get(x->r, HTTP_CONTENT_TYPE);
	const char *semicolon =
		type.len ? memchr(type.data, ';', type.len) : NULL;
	size_t n = semicolon ? (size_t)(semicolon - type.data) : type.len;

	while (n && type.data[n - 1] == ' ')
		n--;
	if (http_get(x->r, HTTP_CONTENT_ENCODING).len) {
		serve_failf(x, 415, AVP_INVALID_MESSAGE,
			    "no Content-Encoding is taken here");
		return false;
	}
	if (n && (n != strlen(want) || strncasecmp(type.data, want, n))) {
		serve_failf(x, 415, AVP_INVALID_MESSAGE,
			    "Content-Type has to be %s", want);
		return false;
	}
	if (x->r->known && x->r->length > x->gw->conf->limits.body_bytes) {
		serve_failf(x, 413, AVP_TOO_LARGE,
			    "a body of %llu bytes; at most %llu are taken",
			    (unsigned long long)x->r->length,
			    (unsigned long long)x->gw->conf->limits.body_bytes);
		return false;
	}
	return true;
}

/* ---- the endpoints that only tell --------------------------------------- */

static void answer_metrics(struct exchange *x)
{
	struct avp_buf buf = {0};

	if (gw_metrics_write(x->gw, &buf))
		serve_failf(x, 503, AVP_NO_MEMORY, "no memory");
	else
		http_answer(x->r, &(struct http_reply){
					  .status = 200,
					  .type = "text/plain; version=0.0.4; "
						  "charset=utf-8",
					  .body = buf.data,
					  .bytes = buf.len});
	avp_buf_fini(&buf);
}

/* ---- as http.h has it --------------------------------------------------- */

static void on_deadline(struct gw_timer *timer)
{
	struct exchange *x =
		(void *)((char *)timer - offsetof(struct exchange, timer));

	if (x->state == LINKING)
		serve_failf(x, 504, AVP_TIMEOUT,
			    "%s has not answered in time; it may be computing",
			    x->target);
	else
		serve_failf(x, 504, AVP_TIMEOUT,
			    x->acked
				    ? "%s has acknowledged, and its RESULT has "
				      "not come in time"
				    : "%s has not acknowledged in time",
			    x->target);
}

void serve_head(struct http_request *r)
{
	struct exchange *x = calloc(1, sizeof(*x));

	if (!x) {
		http_answer(r, &(struct http_reply){.status = 503});
		return;
	}
	x->r = r;
	x->gw = r->conn->server->gw;
	x->in = x->gw->in;
	x->timer.fire = on_deadline;
	r->above = x;
	if (!find_route(x))
		return;
	if (x->endpoint == GW_HEALTH) {
		serve_json(x, 200, avp_str_of("{\"status\":\"ok\"}"));
		return;
	}
	if (!auth_check(x))
		return;
	if (x->endpoint == GW_METRICS)
		answer_metrics(x);
	else if (check_content(x) && x->endpoint == GW_TRANSMIT)
		transmit_head(x);
	else if (!r->answered)
		json_head(x);
}

size_t serve_place(struct http_request *r, void **at)
{
	struct exchange *x = r->above;

	if (!x || r->answered)
		return 0;
	if (x->endpoint == GW_TRANSMIT)
		return transmit_place(x, at);
	return json_place(x, at);
}

void serve_placed(struct http_request *r, size_t bytes)
{
	struct exchange *x = r->above;

	if (x->endpoint == GW_TRANSMIT)
		transmit_placed(x, bytes);
	else
		x->stage.len += bytes;
}

/* From now on there is an end to waiting for the agent. */
static void limit_wait(struct exchange *x)
{
	gw_timer_set(&x->gw->timers, &x->timer,
		     gw_clock_ns() + x->gw->conf->limits.ack_ns);
}

void serve_end(struct http_request *r)
{
	struct exchange *x = r->above;

	if (!x)
		return;
	limit_wait(x);
	switch (x->endpoint) {
	case GW_TRANSMIT: transmit_end(x); return;
	case GW_TEXT: text_end(x); return;
	case GW_HANDSHAKE: handshake_end(x); return;
	default: return;
	}
}

/* ---- the end ------------------------------------------------------------ */

static long long us(int64_t from_ns, int64_t to_ns)
{
	return from_ns && to_ns > from_ns ? (to_ns - from_ns) / 1000 : 0;
}

static void log_access(const struct exchange *x, int64_t now_ns)
{
	const struct http_request *r = x->r;

	gw_log(&x->gw->log, GW_LOG_DEBUG, "request",
	       "peer=%s http=%s endpoint=%s agent=%s status=%d in=%llu "
	       "out=%llu "
	       "receive_us=%lld hand_over_us=%lld ack_us=%lld",
	       r->conn->peer, r->conn->protocol->name,
	       gw_endpoint_name(x->endpoint), *x->target ? x->target : "-",
	       r->status, (unsigned long long)r->received,
	       (unsigned long long)r->answer_bytes, us(r->begin_ns, r->end_ns),
	       us(r->end_ns, x->sent_ns), us(x->sent_ns, now_ns));
}

static void count(struct exchange *x, int64_t now_ns)
{
	struct gw_metrics *m = &x->gw->metrics;
	const struct http_request *r = x->r;
	int hundreds = r->status / 100;

	m->requests[x->endpoint]
		   [hundreds >= 1 && hundreds <= 5 ? hundreds : 0]++;
	if (x->endpoint != GW_TRANSMIT && x->endpoint != GW_TEXT)
		return;
	if (r->end_ns)
		gw_histogram_add(&m->receive, r->end_ns - r->begin_ns);
	if (x->sent_ns) {
		gw_histogram_add(&m->hand_over, x->sent_ns - r->end_ns);
		gw_histogram_add(&m->ack, now_ns - x->sent_ns);
	}
}

void serve_done(struct http_request *r)
{
	struct exchange *x = r->above;
	int64_t now_ns = gw_clock_ns();

	if (!x)
		return;
	count(x, now_ns);
	if (gw_logs(&x->gw->log, GW_LOG_DEBUG))
		log_access(x, now_ns);
	deliver_forget(x);
	transmit_free(x);
	avp_json_free(x->doc);
	avp_buf_fini(&x->stage);
	free(x);
}
