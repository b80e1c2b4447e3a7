/* SPDX-License-Identifier: Apache-2.0 */
/* Requests: what both versions of HTTP make of a header, and the body's clock. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "gateway/conn.h"

static const char *const field_name[HTTP_FIELDS] = {
	[HTTP_HOST] = "host",
	[HTTP_CONTENT_TYPE] = "content-type",
	[HTTP_CONTENT_ENCODING] = "content-encoding",
	[HTTP_CONTENT_LENGTH] = "content-length",
	[HTTP_TRANSFER_ENCODING] = "transfer-encoding",
	[HTTP_EXPECT] = "expect",
	[HTTP_AUTHORIZATION] = "authorization",
	[HTTP_AVP_VERSION] = "avp-version",
	[HTTP_AVP_AGENT_ID] = "avp-agent-id",
	[HTTP_AHP_METHOD] = "ahp-method",
	[HTTP_AHP_MESSAGE_ID] = "ahp-message-id",
	[HTTP_AHP_TASK_ID] = "ahp-task-id",
	[HTTP_AHP_SESSION_ID] = "ahp-session-id",
	[HTTP_AHP_SOURCE] = "ahp-source",
	[HTTP_AHP_TARGET] = "ahp-target",
	[HTTP_AHP_TOKEN_LIMIT] = "ahp-token-limit",
	[HTTP_AHP_WAIT] = "ahp-wait",
	[HTTP_AHP_ENCODING] = "ahp-encoding",
};

enum http_field http_field_of(const void *name, size_t n)
{
	for (int i = 1; i < HTTP_FIELDS; i++)
		if (strlen(field_name[i]) == n &&
		    !strncasecmp(field_name[i], name, n))
			return (enum http_field)i;
	return HTTP_FIELD_OTHER;
}

static struct avp_str span_str(const struct http_request *r,
			       const struct http_span *span)
{
	return (struct avp_str){r->text.data + span->off, span->len};
}

struct avp_str http_get(const struct http_request *r, enum http_field field)
{
	if (!r->field[field].off)
		return (struct avp_str){0};
	return span_str(r, &r->field[field]);
}

struct avp_str http_path(const struct http_request *r)
{
	return span_str(r, &r->path);
}

struct avp_str http_query(const struct http_request *r)
{
	return span_str(r, &r->query);
}

bool http_span_set(struct http_request *r, struct http_span *span,
		   const void *bytes, size_t n)
{
	/* Nothing lies at 0, which means that it was not sent. */
	if (!r->text.len && avp_buf_append(&r->text, "", 1))
		return false;
	*span = (struct http_span){(uint32_t)r->text.len, (uint32_t)n};
	return !avp_buf_append(&r->text, n ? bytes : "", n);
}

/* Where the path of "http://host/path" begins, which proxies are sent. */
static const char *after_authority(const char *at, size_t n)
{
	static const char *const scheme[] = {"http://", "https://"};

	for (int i = 0; i < 2; i++) {
		size_t k = strlen(scheme[i]);
		const char *slash;

		if (n <= k || strncasecmp(at, scheme[i], k))
			continue;
		slash = memchr(at + k, '/', n - k);
		return slash ? slash : at + n;
	}
	return at;
}

bool http_target_set(struct http_request *r, const void *bytes, size_t n)
{
	const char *path = after_authority(bytes, n), *query;
	size_t left = n - (size_t)(path - (const char *)bytes);

	if (n > HTTP_TARGET_MAX)
		return false;
	query = memchr(path, '?', left);
	if (!query)
		query = path + left;
	return http_span_set(r, &r->path, path, (size_t)(query - path)) &&
	       http_span_set(r, &r->query, query,
			     left - (size_t)(query - path));
}

bool http_length_set(struct http_request *r, struct avp_str value)
{
	uint64_t length = 0;

	if (!value.len || value.len > 18 || r->known)
		return false;
	for (size_t i = 0; i < value.len; i++) {
		if (value.data[i] < '0' || value.data[i] > '9')
			return false;
		length = 10 * length + (uint64_t)(value.data[i] - '0');
	}
	r->known = true;
	r->length = length;
	return true;
}

const char *http_date(void)
{
	static const char day[][4] = {"Sun", "Mon", "Tue", "Wed",
				      "Thu", "Fri", "Sat"};
	static const char month[][4] = {"Jan", "Feb", "Mar", "Apr",
					"May", "Jun", "Jul", "Aug",
					"Sep", "Oct", "Nov", "Dec"};
	static char text[64];
	static time_t written;
	time_t now = time(NULL);
	struct tm tm;

	if (now == written)
		return text;
	gmtime_r(&now, &tm);
	snprintf(text, sizeof(text), "%s, %02d %s %04d %02d:%02d:%02d GMT",
		 day[tm.tm_wday % 7], tm.tm_mday, month[tm.tm_mon % 12],
		 tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
	written = now;
	return text;
}

/* ---- life ---------------------------------------------------------------------- */

static struct http_request *of_timer(struct gw_timer *timer)
{
	return (void *)((char *)timer - offsetof(struct http_request, timer));
}

static struct gw_timers *timers_of(const struct http_request *r)
{
	return &r->conn->server->gw->timers;
}

void http_mind(struct http_request *r)
{
	const struct http_limits *limits = &r->conn->server->limits;

	r->period_bytes = r->answered ? r->body_off : r->received;
	gw_timer_set(timers_of(r), &r->timer,
		     gw_clock_ns() + (r->answered ? limits->write_ns
						  : limits->body_ns));
}

/* A period is over: was there enough of the body in it? */
static void period_ends(struct gw_timer *timer)
{
	struct http_request *r = of_timer(timer);
	struct http_conn *c = r->conn; /* outlives it */
	const struct http_limits *limits = &c->server->limits;
	uint64_t now = r->answered ? r->body_off : r->received, want = 0;

	if (!r->answered && limits->body_min_bytes)
		want = limits->body_min_bytes - 1;
	if (now - r->period_bytes > want) {
		http_mind(r);
		return;
	}
	c->server->gw->metrics.timed_out++;
	c->protocol->too_slow(r);
	http_ready(c);
}

struct http_request *http_request_new(struct http_conn *c)
{
	struct http_request *r = calloc(1, sizeof(*r));

	if (!r)
		return NULL;
	r->conn = c;
	r->timer.fire = period_ends;
	r->begin_ns = gw_clock_ns();
	c->requests++;
	c->begun++;
	c->server->in_flight++;
	return r;
}

void http_request_end(struct http_request *r)
{
	gw_timer_clear(timers_of(r), &r->timer);
	if (r->begun)
		serve_done(r);
	if (r->release)
		r->release(r->release_arg);
	if (r->conn->lent == r)
		r->conn->lent = NULL;
	r->conn->requests--;
	r->conn->server->in_flight--;
	avp_buf_fini(&r->text);
	free(r);
}

void http_begin(struct http_request *r)
{
	r->begun = true;
	r->head_ns = gw_clock_ns();
	http_mind(r);
	serve_head(r);
}

void http_end(struct http_request *r)
{
	if (!r->answered)
		gw_timer_clear(timers_of(r), &r->timer);
	r->ended = true;
	r->end_ns = gw_clock_ns();
	if (!r->answered)
		serve_end(r);
}

void http_body(struct http_request *r, const void *bytes, size_t n)
{
	const uint8_t *from = bytes;

	r->received += n;
	while (n && !r->answered) {
		void *at;
		size_t room = serve_place(r, &at);

		if (!room)
			return;
		if (room > n)
			room = n;
		memcpy(at, from, room);
		serve_placed(r, room);
		from += room;
		n -= room;
	}
}

void http_answer(struct http_request *r, const struct http_reply *reply)
{
	r->answered = true;
	r->status = reply->status;
	r->answer_bytes = reply->bytes;
	r->conn->protocol->answer(r, reply);
	http_ready(r->conn);
}

const char *http_reason(int status)
{
	switch (status) {
	case 200: return "OK";
	case 307: return "Temporary Redirect";
	case 400: return "Bad Request";
	case 401: return "Unauthorized";
	case 403: return "Forbidden";
	case 404: return "Not Found";
	case 405: return "Method Not Allowed";
	case 408: return "Request Timeout";
	case 409: return "Conflict";
	case 413: return "Payload Too Large";
	case 414: return "URI Too Long";
	case 415: return "Unsupported Media Type";
	case 417: return "Expectation Failed";
	case 422: return "Unprocessable Entity";
	case 429: return "Too Many Requests";
	case 431: return "Request Header Fields Too Large";
	case 500: return "Internal Server Error";
	case 501: return "Not Implemented";
	case 502: return "Bad Gateway";
	case 503: return "Service Unavailable";
	case 504: return "Gateway Timeout";
	case 505: return "HTTP Version Not Supported";
	default: return "";
	}
}
