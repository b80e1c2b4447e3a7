/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The header of an HTTP/1.1 request (RFC 9112). Whoever stands before us, a
 * proxy, must not find other requests in the same bytes than we do: so lines end
 * with CR LF and with nothing else, names are tokens right up to their colon, no
 * value goes on in the next line, and what frames a body comes once and is the
 * only thing that does.
 */
#include <http_parser.h>
#include <string.h>
#include <strings.h>

#include "gateway/h1.h"

/* ---- the end of it --------------------------------------------------------------- */

long h1_head_end(const uint8_t *p, size_t n, size_t from)
{
	for (size_t i = from; i < n; i++) {
		if (p[i] == '\n') {
			if (!i || p[i - 1] != '\r')
				return AVP_INVALID_MESSAGE;
			if (i >= 3 && p[i - 2] == '\n')
				return (long)i + 1;
		} else if (!p[i] || (i && p[i - 1] == '\r')) {
			return AVP_INVALID_MESSAGE;
		}
	}
	return 0;
}

/* ---- its lines ------------------------------------------------------------------- */

static bool is_token(uint8_t c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
	       (c >= 'A' && c <= 'Z') || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static bool field_line_ok(const uint8_t *line, size_t n)
{
	size_t name = 0;

	while (name < n && is_token(line[name]))
		name++;
	if (!name || name == n || line[name] != ':')
		return false;
	for (size_t i = name + 1; i < n; i++)
		if ((line[i] < ' ' && line[i] != '\t') || line[i] == 0x7f)
			return false;
	return true;
}

/* METHOD SP target SP HTTP/1.x, each of them visible. */
static bool request_line_ok(const uint8_t *line, size_t n)
{
	unsigned spaces = 0;

	for (size_t i = 0; i < n; i++) {
		if (line[i] == ' ') {
			if (!i || line[i - 1] == ' ')
				return false;
			spaces++;
		} else if (line[i] < ' ' || line[i] >= 0x7f) {
			return false;
		}
	}
	return spaces == 2 && n && line[n - 1] != ' ';
}

static bool lines_ok(const uint8_t *p, size_t n)
{
	const uint8_t *end = p + n - 2; /* the empty line */
	bool first = true;

	for (const uint8_t *next; p < end; p = next) {
		next = (uint8_t *)memchr(p, '\n', (size_t)(end - p)) + 1;
		if (first ? !request_line_ok(p, (size_t)(next - p) - 2)
			  : !field_line_ok(p, (size_t)(next - p) - 2))
			return false;
		first = false;
	}
	return !first;
}

/* ---- its fields ------------------------------------------------------------------ */

struct reading {
	struct h1_head *head;
	struct http_request *r;
	enum http_field field;
	int status; /* of the refusal; 0: none yet */
	const char *why;
};

static int refuse(struct reading *now, int status, const char *why)
{
	if (!now->status) {
		now->status = status;
		now->why = why;
	}
	return 1;
}

static int on_url(http_parser *parser, const char *at, size_t n)
{
	struct reading *now = parser->data;

	if (n > HTTP_TARGET_MAX)
		return refuse(now, 414, "the request's target is too long");
	if (!http_target_set(now->r, at, n))
		return refuse(now, 400, "the request's target is not one");
	return 0;
}

static int on_field(http_parser *parser, const char *at, size_t n)
{
	struct reading *now = parser->data;

	if (++now->r->fields > HTTP_FIELDS_MAX)
		return refuse(now, 431, "too many header fields");
	now->field = http_field_of(at, n);
	return 0;
}

static bool says(struct avp_str value, const char *text)
{
	return value.len == strlen(text) &&
	       !strncasecmp(value.data, text, value.len);
}

/* What decides where the body ends, or whether it is sent. */
static int framing(struct reading *now, struct avp_str value)
{
	switch (now->field) {
	case HTTP_CONTENT_LENGTH:
		if (!http_length_set(now->r, value))
			return refuse(now, 400, "Content-Length is no number");
		return 0;
	case HTTP_TRANSFER_ENCODING:
		if (!says(value, "chunked"))
			return refuse(now, 501,
				      "Transfer-Encoding may be chunked");
		now->head->chunked = true;
		return 0;
	case HTTP_EXPECT:
		if (!says(value, "100-continue"))
			return refuse(now, 417, "Expect may be 100-continue");
		now->r->expects = true;
		return 0;
	default: return 0;
	}
}

static int on_value(http_parser *parser, const char *at, size_t n)
{
	struct reading *now = parser->data;
	struct http_span *span = &now->r->field[now->field];

	if (now->field == HTTP_FIELD_OTHER)
		return 0;
	if (span->off)
		return refuse(now, 400, "a header field comes twice");
	while (n && (at[n - 1] == ' ' || at[n - 1] == '\t'))
		n--;
	if (!http_span_set(now->r, span, at, n))
		return refuse(now, 503, "no memory");
	return framing(now, (struct avp_str){at, n});
}

/* No body for the parser: h1.c reads it. */
static int on_end(http_parser *parser)
{
	(void)parser;
	return 2;
}

/* ---- all of it ------------------------------------------------------------------- */

static int version_ok(struct reading *now, const http_parser *parser)
{
	const struct http_request *r = now->r;

	if (parser->http_major != 1 || parser->http_minor > 1)
		return refuse(now, 505, "HTTP/1.1, HTTP/1.0 or HTTP/2");
	if (!parser->http_minor) {
		if (now->head->chunked)
			return refuse(now, 400, "HTTP/1.0 has no chunks");
		now->r->expects = false;
		return 0;
	}
	if (!r->field[HTTP_HOST].off)
		return refuse(now, 400, "there is no Host");
	return 0;
}

static enum http_verb verb_of(const http_parser *parser)
{
	switch ((enum http_method)parser->method) {
	case HTTP_GET: return HTTP_VERB_GET;
	case HTTP_HEAD: return HTTP_VERB_HEAD;
	case HTTP_POST: return HTTP_VERB_POST;
	default: return HTTP_VERB_OTHER;
	}
}

int h1_head_read(struct h1_head *head, struct http_request *r, const uint8_t *p,
		 size_t n, const char **why)
{
	static const http_parser_settings settings = {
		.on_url = on_url,
		.on_header_field = on_field,
		.on_header_value = on_value,
		.on_headers_complete = on_end,
	};
	struct reading now = {.head = head, .r = r};
	http_parser parser;

	http_parser_init(&parser, HTTP_REQUEST);
	parser.data = &now;
	if (!lines_ok(p, n))
		refuse(&now, 400, "a line of the header is not one");
	else if (http_parser_execute(&parser, &settings, (const char *)p, n) !=
			 n ||
		 HTTP_PARSER_ERRNO(&parser) != HPE_OK)
		refuse(&now, 400,
		       http_errno_description(HTTP_PARSER_ERRNO(&parser)));
	else
		version_ok(&now, &parser);
	if (!now.status && head->chunked && r->known)
		refuse(&now, 400, "both Content-Length and Transfer-Encoding");
	head->keep = http_should_keep_alive(&parser);
	r->verb = verb_of(&parser);
	*why = now.why;
	return now.status;
}
