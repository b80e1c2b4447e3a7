/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/2 (RFC 9113), by nghttp2.
 *
 * Floods. nghttp2 itself bounds: streams at once, CONTINUATION frames (8), the
 * entries of SETTINGS (32), acknowledgements that the peer does not read (1000),
 * a header's size (64 KiB), and resets a second (1000, then 33). What it does not
 * count is work that is cheap to ask for and is done at once: PING, SETTINGS,
 * PRIORITY, WINDOW_UPDATE, empty DATA, and streams that are opened to be reset. Each costs credit here; credit comes back with time and
 * with every request that was answered, and who has none left is told
 * ENHANCE_YOUR_CALM.
 */
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/conn.h"

#define CREDIT_MAX	2000
#define CREDIT_A_SECOND 200
#define CREDIT_ANSWER	8	    /* for a request that was answered */
#define COST_RESET	20	    /* a stream, opened and thrown away */
#define NOTICE_NS	100000000ll /* for the first GOAWAY to arrive */
#define PAIRS_MAX	16

struct h2 {
	nghttp2_session *session;
	struct http_conn *conn;
	struct http_request *requests;
	struct gw_timer notice;
	bool noticed;
	bool failed; /* it understands no more */
	bool over;   /* and has said all */
	int32_t credit;
	int64_t credit_ns; /* when it was that */
};

/* ---- credit ------------------------------------------------------------------------ */

static void spend(struct h2 *h, int32_t cost)
{
	int64_t now_ns = gw_clock_ns();
	int64_t more = (now_ns - h->credit_ns) * CREDIT_A_SECOND / 1000000000;

	if (more > 0) {
		h->credit = (int32_t)(h->credit + more > CREDIT_MAX
					      ? CREDIT_MAX
					      : h->credit + more);
		h->credit_ns = now_ns;
	}
	h->credit -= cost;
	if (h->credit >= 0)
		return;
	h->conn->server->counts.floods++;
	h->credit = INT32_MAX / 2; /* said once */
	nghttp2_session_terminate_session(h->session,
					  NGHTTP2_ENHANCE_YOUR_CALM);
}

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *hd,
			  void *arg)
{
	struct h2 *h = arg;

	(void)session;
	if (hd->type == NGHTTP2_RST_STREAM)
		spend(h, COST_RESET);
	else if (hd->type != NGHTTP2_HEADERS &&
		 (hd->type != NGHTTP2_DATA || !hd->length))
		spend(h, 1);
	return 0;
}

/* ---- requests ---------------------------------------------------------------------- */

static struct http_request *request_of(struct h2 *h, int32_t stream)
{
	return nghttp2_session_get_stream_user_data(h->session, stream);
}

static int on_begin_headers(nghttp2_session *session,
			    const nghttp2_frame *frame, void *arg)
{
	struct h2 *h = arg;
	struct http_request *r;

	h->conn->in_head = true;
	if (frame->hd.type != NGHTTP2_HEADERS ||
	    frame->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	r = http_request_new(h->conn);
	if (!r)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	r->stream = frame->hd.stream_id;
	r->next = h->requests;
	r->before = &h->requests;
	if (r->next)
		r->next->before = &r->next;
	h->requests = r;
	nghttp2_session_set_stream_user_data(session, r->stream, r);
	return 0;
}

static bool is(const uint8_t *name, size_t n, const char *text)
{
	return n == strlen(text) && !memcmp(name, text, n);
}

static enum http_verb verb_of(const uint8_t *value, size_t n)
{
	if (is(value, n, "GET"))
		return HTTP_VERB_GET;
	if (is(value, n, "HEAD"))
		return HTTP_VERB_HEAD;
	return is(value, n, "POST") ? HTTP_VERB_POST : HTTP_VERB_OTHER;
}

/* 0, or the status of a refusal. */
static int take_field(struct http_request *r, enum http_field field,
		      const uint8_t *value, size_t n)
{
	struct avp_str text = {(const char *)value, n};

	if (r->field[field].off)
		return 400;
	if (!http_span_set(r, &r->field[field], value, n))
		return 503;
	if (field == HTTP_CONTENT_LENGTH && !http_length_set(r, text))
		return 400;
	if (field == HTTP_EXPECT) {
		r->expects = is(value, n, "100-continue");
		return r->expects ? 0 : 417;
	}
	return 0;
}

static int take_header(struct http_request *r, const uint8_t *name, size_t n,
		       const uint8_t *value, size_t bytes)
{
	enum http_field field;

	r->head_bytes += (uint32_t)(n + bytes);
	if (r->head_bytes > r->conn->server->limits.head_bytes ||
	    ++r->fields > HTTP_FIELDS_MAX)
		return 431;
	if (is(name, n, ":method")) {
		r->verb = verb_of(value, bytes);
		return 0;
	}
	if (is(name, n, ":path")) {
		if (bytes > HTTP_TARGET_MAX)
			return 414;
		return http_target_set(r, value, bytes) ? 0 : 503;
	}
	if (is(name, n, ":authority"))
		return take_field(r, HTTP_HOST, value, bytes);
	field = http_field_of(name, n);
	if (field == HTTP_FIELD_OTHER ||
	    (field == HTTP_HOST && r->field[field].off))
		return 0;
	return take_field(r, field, value, bytes);
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame,
		     const uint8_t *name, size_t n, const uint8_t *value,
		     size_t bytes, uint8_t flags, void *arg)
{
	struct http_request *r = request_of(arg, frame->hd.stream_id);

	(void)session, (void)flags;
	if (r && !r->begun && !r->refused)
		r->refused = take_header(r, name, n, value, bytes);
	return 0;
}

static void say_continue(struct h2 *h, struct http_request *r)
{
	nghttp2_nv nv = {(uint8_t *)":status", (uint8_t *)"100", 7, 3, 0};

	r->expects = false;
	nghttp2_submit_headers(h->session, NGHTTP2_FLAG_NONE, r->stream, NULL,
			       &nv, 1, NULL);
}

static void begin(struct h2 *h, struct http_request *r)
{
	struct http_reply reply = {.status = r->refused,
				   .type = "application/json"};

	if (!r->refused) {
		http_begin(r);
		if (r->expects && !r->answered)
			say_continue(h, r);
		return;
	}
	h->conn->server->gw->metrics.protocol_errors++;
	reply.body = "{\"success\":false,\"message\":\"the header is not one "
		     "that is served here\"}";
	reply.bytes = strlen(reply.body);
	http_answer(r, &reply);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame,
		    void *arg)
{
	struct h2 *h = arg;
	struct http_request *r;

	(void)session;
	if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
		return 0;
	h->conn->in_head = false;
	r = request_of(h, frame->hd.stream_id);
	if (!r)
		return 0;
	if (frame->hd.type == NGHTTP2_HEADERS &&
	    frame->headers.cat == NGHTTP2_HCAT_REQUEST)
		begin(h, r);
	if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
		http_end(r);
	return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream,
		   const uint8_t *data, size_t n, void *arg)
{
	struct http_request *r = request_of(arg, stream);

	(void)session, (void)flags;
	if (r)
		http_body(r, data, n);
	return 0;
}

static void end_request(struct h2 *h, struct http_request *r)
{
	*r->before = r->next;
	if (r->next)
		r->next->before = r->before;
	if (r->answered && r->body_off == r->body_bytes &&
	    h->credit < CREDIT_MAX)
		h->credit += CREDIT_ANSWER;
	http_request_end(r);
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t error,
		    void *arg)
{
	struct http_request *r = request_of(arg, stream);

	(void)error;
	if (!r)
		return 0;
	nghttp2_session_set_stream_user_data(session, stream, NULL);
	end_request(arg, r);
	return 0;
}

/* The answer to a request that is still being sent: no more of it. */
static int on_sent(nghttp2_session *session, const nghttp2_frame *frame,
		   void *arg)
{
	struct http_request *r;

	if ((frame->hd.type != NGHTTP2_HEADERS &&
	     frame->hd.type != NGHTTP2_DATA) ||
	    !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
		return 0;
	r = request_of(arg, frame->hd.stream_id);
	if (r && !r->ended)
		nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE,
					  frame->hd.stream_id,
					  NGHTTP2_NO_ERROR);
	return 0;
}

/* ---- answers ------------------------------------------------------------------------- */

static ssize_t read_body(nghttp2_session *session, int32_t stream, uint8_t *to,
			 size_t room, uint32_t *flags,
			 nghttp2_data_source *source, void *arg)
{
	struct http_request *r = source->ptr;
	uint64_t left = r->body_bytes - r->body_off;

	(void)session, (void)stream, (void)arg;
	if (left <= room)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	else
		left = room;
	memcpy(to, r->body + r->body_off, left);
	r->body_off += left;
	return (ssize_t)left;
}

/* False: no memory; whatever was borrowed is released. */
static bool keep_body(struct http_request *r, const struct http_reply *reply)
{
	void *copy;

	if (r->verb == HTTP_VERB_HEAD || !reply->bytes) {
		if (reply->release)
			reply->release(reply->release_arg);
		return true;
	}
	r->body = reply->body;
	r->body_bytes = reply->bytes;
	r->release = reply->release;
	r->release_arg = reply->release_arg;
	if (reply->release)
		return true;
	copy = malloc(reply->bytes);
	if (!copy) {
		r->body_bytes = 0;
		return false;
	}
	r->body = memcpy(copy, reply->body, reply->bytes);
	r->release = free;
	r->release_arg = copy;
	return true;
}

static void pair(nghttp2_nv *nv, size_t *n, const char *name,
		 struct avp_str value)
{
	nv[(*n)++] = (nghttp2_nv){
		.name = (uint8_t *)name,
		.namelen = strlen(name),
		.value = (uint8_t *)value.data,
		.valuelen = value.len,
	};
}

static void answer(struct http_request *r, const struct http_reply *reply)
{
	struct h2 *h = r->conn->state;
	nghttp2_data_provider body = {.source.ptr = r,
				      .read_callback = read_body};
	nghttp2_nv nv[5 + PAIRS_MAX];
	char status[12], length[24];
	size_t n = 0;

	snprintf(status, sizeof(status), "%d", reply->status);
	snprintf(length, sizeof(length), "%llu",
		 (unsigned long long)reply->bytes);
	pair(nv, &n, ":status", avp_str_of(status));
	pair(nv, &n, "date", avp_str_of(http_date()));
	pair(nv, &n, "server", avp_str_of("avp-gateway"));
	pair(nv, &n, "content-length", avp_str_of(length));
	if (reply->type)
		pair(nv, &n, "content-type", avp_str_of(reply->type));
	for (unsigned i = 0; i < reply->pairs && i < PAIRS_MAX; i++)
		pair(nv, &n, reply->pair[i].name, reply->pair[i].value);
	if (!keep_body(r, reply) ||
	    nghttp2_submit_response(h->session, r->stream, nv, n,
				    r->body_bytes ? &body : NULL))
		nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE,
					  r->stream, NGHTTP2_INTERNAL_ERROR);
	http_mind(r);
}

static void too_slow(struct http_request *r)
{
	static const char text[] = "{\"success\":false,\"message\":\"the body "
				   "comes too slowly\"}";
	struct h2 *h = r->conn->state;

	if (!r->answered)
		http_answer(r, &(struct http_reply){.status = 408,
						    .type = "application/json",
						    .body = text,
						    .bytes = sizeof(text) - 1});
	else
		nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE,
					  r->stream, NGHTTP2_CANCEL);
}

/* ---- the session ------------------------------------------------------------------------ */

/* Whoever sent something before it saw the first has had the time to. */
static void on_notice(struct gw_timer *timer)
{
	struct h2 *h = (void *)((char *)timer - offsetof(struct h2, notice));

	nghttp2_submit_goaway(
		h->session, NGHTTP2_FLAG_NONE,
		nghttp2_session_get_last_proc_stream_id(h->session),
		NGHTTP2_NO_ERROR, NULL, 0);
	http_ready(h->conn);
}

static int settle(struct h2 *h)
{
	const struct http_limits *l = &h->conn->server->limits;
	nghttp2_settings_entry entry[] = {
		{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, l->streams},
		{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, l->window_bytes},
		{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, l->head_bytes},
		{NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
	};
	int error =
		nghttp2_submit_settings(h->session, NGHTTP2_FLAG_NONE, entry,
					sizeof(entry) / sizeof(*entry));

	if (error)
		return error;
	return nghttp2_session_set_local_window_size(
		h->session, NGHTTP2_FLAG_NONE, 0,
		(int32_t)l->conn_window_bytes);
}

static int open_session(struct h2 *h)
{
	nghttp2_session_callbacks *callbacks;
	nghttp2_option *option;
	int error;

	if (nghttp2_session_callbacks_new(&callbacks))
		return AVP_NO_MEMORY;
	nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks,
							      on_begin_frame);
	nghttp2_session_callbacks_set_on_begin_headers_callback(
		callbacks, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks,
							     on_frame);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks,
								  on_data);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks,
							       on_close);
	nghttp2_session_callbacks_set_on_frame_send_callback(callbacks,
							     on_sent);
	error = nghttp2_option_new(&option);
	if (!error) {
		nghttp2_option_set_no_closed_streams(option, 1);
		error = nghttp2_session_server_new2(&h->session, callbacks, h,
						    option);
		nghttp2_option_del(option);
	}
	nghttp2_session_callbacks_del(callbacks);
	return error ? error : settle(h);
}

static struct h2 *open_h2(struct http_conn *c)
{
	struct h2 *h = calloc(1, sizeof(*h));

	if (!h)
		return NULL;
	c->state = h;
	h->conn = c;
	h->notice.fire = on_notice;
	h->credit = CREDIT_MAX;
	h->credit_ns = gw_clock_ns();
	if (!open_session(h))
		return h;
	nghttp2_session_del(h->session);
	free(h);
	c->state = NULL;
	return NULL;
}

/* ---- as a protocol ------------------------------------------------------------------------ */

static long input(struct http_conn *c, const uint8_t *bytes, size_t n)
{
	struct h2 *h = c->state ? c->state : open_h2(c);
	ssize_t taken;

	if (!h)
		return -1;
	taken = nghttp2_session_mem_recv(h->session, bytes, n);
	if (taken >= 0)
		return (long)taken;
	if (taken == NGHTTP2_ERR_BAD_CLIENT_MAGIC ||
	    taken == NGHTTP2_ERR_NOMEM) {
		c->server->gw->metrics.protocol_errors++;
		nghttp2_session_terminate_session(h->session,
						  NGHTTP2_PROTOCOL_ERROR);
	} else { /* what nghttp2 itself counts */
		c->server->counts.floods++;
		nghttp2_session_terminate_session(h->session,
						  NGHTTP2_ENHANCE_YOUR_CALM);
	}
	h->failed = true;
	return -1;
}

static void end_all(struct h2 *h)
{
	while (h->requests)
		end_request(h, h->requests);
}

static bool end_of_input(struct http_conn *c)
{
	c->broken = true;
	return false;
}

static void output(struct http_conn *c)
{
	struct h2 *h = c->state;
	const uint8_t *bytes;
	ssize_t n = 0;

	if (!h || h->over)
		return;
	while (c->out.len - c->out_off < HTTP_OUT_BYTES &&
	       (n = nghttp2_session_mem_send(h->session, &bytes)) > 0)
		http_say(c, bytes, (size_t)n);
	if (n < 0)
		c->broken = true;
	if (n > 0 || (!h->failed && (nghttp2_session_want_read(h->session) ||
				     nghttp2_session_want_write(h->session))))
		return;
	/* Nothing is asked of the session any more: its streams are no longer
	 * its own. */
	h->over = c->ending = true;
	end_all(h);
}

static void drain(struct http_conn *c)
{
	struct h2 *h = c->state;

	if (!h) {
		c->ending = true;
		return;
	}
	if (h->noticed)
		return;
	h->noticed = true;
	nghttp2_submit_shutdown_notice(h->session);
	gw_timer_set(&c->server->gw->timers, &h->notice,
		     gw_clock_ns() + NOTICE_NS);
}

static size_t place(struct http_conn *c, void **at)
{
	(void)c, (void)at;
	return 0; /* frames come in between */
}

static void close_h2(struct http_conn *c)
{
	struct h2 *h = c->state;

	if (!h)
		return;
	end_all(h);
	gw_timer_clear(&c->server->gw->timers, &h->notice);
	nghttp2_session_del(h->session);
	free(h);
}

const struct http_protocol http_2 = {
	.name = "2",
	.input = input,
	.end_of_input = end_of_input,
	.place = place,
	.output = output,
	.answer = answer,
	.drain = drain,
	.too_slow = too_slow,
	.close = close_h2,
};
