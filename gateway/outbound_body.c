/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a message is as a request. A frame goes out as it lies in its sender's
 * memory; its head is written anew, and its tensor still sent from there, when
 * the peer speaks another dialect or would not know for whom it is. To a peer
 * that takes text goes the payload of a JSON message, or the text of a frame.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gateway/outbound.h"

#define TEXT_MAX (UINT64_C(64) << 20) /* of what has to be copied to be read */

const char *out_version(enum avp_dialect dialect)
{
	return dialect == AVP_DIALECT_0_4 ? "0.4.1" : AVP_DEFAULT_VERSION;
}

void out_url(char url[OUT_URL_BYTES], const struct out_remote *remote,
	     const char *endpoint)
{
	const struct out_peer *peer = remote->peer;
	int n = (int)strlen(peer->conf->url.text);

	while (n && peer->conf->url.text[n - 1] == '/')
		n--;
	if (peer->plain)
		snprintf(url, OUT_URL_BYTES, "%.*s/avp/v2/%s", n,
			 peer->conf->url.text, endpoint);
	else
		snprintf(url, OUT_URL_BYTES, "%.*s/agents/%s/avp/v2/%s", n,
			 peer->conf->url.text, remote->id, endpoint);
}

void out_fields(struct out_request *r, const char *agent_id,
		enum avp_dialect dialect)
{
	const char *token = r->peer->conf->token;

	out_request_field(
		r, "AVP-Version",
		avp_str_of(dialect == AVP_DIALECT_0_4 ? "0.4" : "0.2"));
	out_request_field(r, "AVP-Agent-ID", avp_str_of(agent_id));
	if (token)
		out_request_secret(r, "Authorization", "Bearer", token);
}

void out_body_free(struct out_message *m)
{
	avp_buf_fini(&m->head);
	free(m->copy);
	m->copy = NULL;
}

/* ---- AHP's own fields --------------------------------------------------------------- */

/* When the message was sent, as the wall clock has it. */
static struct ahp_time sent_at(const struct ahp_message *in)
{
	struct timespec t;
	int64_t ns;

	clock_gettime(CLOCK_REALTIME, &t);
	ns = t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
	return ahp_time_from_unix_ns(ns - (gw_clock_ns() - in->sent_ns));
}

static struct out_about about(const struct out_message *m)
{
	const struct ahp_message *in = &m->message->m;
	struct out_about a = {
		.method = in->method,
		.source = avp_str_of(in->source),
		.target = avp_str_of(m->remote->id),
		.task_id = in->task_id,
		.session_id = in->session_id,
		.token_limit = in->token_limit,
		.time = sent_at(in),
	};

	memcpy(a.id, m->id, sizeof(a.id));
	return a;
}

void out_about_fields(const struct out_about *a, struct out_request *r)
{
	char id[AHP_ID_TEXT_BYTES], text[AHP_TIME_BYTES], limit[16];

	ahp_id_write(a->id, id);
	ahp_time_write(&a->time, text);
	snprintf(limit, sizeof(limit), "%u", a->token_limit);
	out_request_field(r, "AHP-Method",
			  avp_str_of(ahp_method_name(a->method)));
	out_request_field(r, "AHP-Message-ID", avp_str_of(id));
	out_request_field(r, "AHP-Task-ID", a->task_id);
	out_request_field(r, "AHP-Session-ID", a->session_id);
	out_request_field(r, "AHP-Source", a->source);
	out_request_field(r, "AHP-Target", a->target);
	out_request_field(r, "AHP-Token-Limit", avp_str_of(limit));
	out_request_field(r, "AHP-Timestamp", avp_str_of(text));
}

/* {"ahp": {...}}: all of the message but its payload. */
static int extra_of(const struct out_about *a, struct avp_buf *to)
{
	char id[AHP_ID_TEXT_BYTES], text[AHP_TIME_BYTES];
	struct avp_json_writer w;

	ahp_id_write(a->id, id);
	ahp_time_write(&a->time, text);
	avp_json_begin(&w, to, AVP_JSON_PYTHON);
	avp_json_open_object(&w);
	avp_json_key(&w, "ahp");
	avp_json_open_object(&w);
	avp_json_member_string(&w, "method",
			       avp_str_of(ahp_method_name(a->method)));
	avp_json_member_string(&w, "agent_id", a->source);
	avp_json_member_string(&w, "target_agent", a->target);
	avp_json_member_string(&w, "task_id", a->task_id);
	avp_json_member_string(&w, "session_id", a->session_id);
	avp_json_member_uint(&w, "token_limit", a->token_limit);
	avp_json_member_string(&w, "timestamp", avp_str_of(text));
	avp_json_member_string(&w, "message_id", avp_str_of(id));
	avp_json_close_object(&w);
	avp_json_close_object(&w);
	return avp_json_finish(&w);
}

int out_about_text(const struct out_about *a, enum avp_dialect dialect,
		   struct avp_str session_id, struct avp_str content,
		   struct out_request *r)
{
	struct avp_text_message text = {
		.avp_version = avp_str_of(out_version(dialect)),
		.session_id = session_id,
		.source_agent_id = a->source,
		.target_agent_id = a->target,
		.content = content,
	};
	struct avp_buf extra = {0};
	int err = extra_of(a, &extra);

	text.extra_json = avp_buf_str(&extra);
	if (!err)
		err = avp_text_message_write(&r->own, &text);
	avp_buf_fini(&extra);
	r->piece[0] = r->own.data;
	r->piece_bytes[0] = r->own.len;
	out_request_field(r, "Content-Type", avp_str_of("application/json"));
	return err;
}

/* ---- text ------------------------------------------------------------------------------- */

static int text_body(struct out_message *m, struct out_request *r,
		     struct avp_str content, struct avp_reason *why)
{
	const struct out_about a = about(m);
	struct avp_str session =
		a.session_id.len ? a.session_id : avp_str_of(m->session->id);
	int err = out_about_text(&a, m->session->dialect, session, content, r);

	m->latent = false;
	if (!err)
		return 0;
	return avp__fail(why, err,
			 "the message cannot be written as text: %s; text, "
			 "task and session id are to be UTF-8",
			 avp_error_text(err));
}

/* A private copy of a part of the body: what is read must not change. */
static int copy_part(struct out_message *m, uint64_t off, uint64_t bytes,
		     struct avp_reason *why)
{
	if (bytes > TEXT_MAX)
		return avp__fail(why, AVP_TOO_LARGE,
				 "%llu bytes to be sent as text: at most %llu",
				 (unsigned long long)bytes,
				 (unsigned long long)TEXT_MAX);
	m->copy = malloc(bytes + 1);
	if (!m->copy)
		return avp__fail(why, AVP_NO_MEMORY,
				 "no memory for a message of %llu bytes",
				 (unsigned long long)bytes);
	if (ahp_message_copy(&m->message->m, off, m->copy, bytes))
		return avp__fail(why, AVP_INVALID_MESSAGE,
				 "the message is shorter than its frame says");
	return 0;
}

static int json_text(struct out_message *m, struct out_request *r,
		     struct avp_reason *why)
{
	uint64_t bytes = m->message->m.body_bytes;
	int err = copy_part(m, 0, bytes, why);

	return err ? err
		   : text_body(m, r, (struct avp_str){m->copy, bytes}, why);
}

/* Replaces the copied payload by what it expands to. */
static int expand(struct out_message *m, uint64_t *bytes,
		  struct avp_reason *why)
{
	struct avp_zstd *z = m->remote->peer->out->zstd;
	uint64_t content;
	void *to;
	int err = avp_zstd_content_size(m->copy, *bytes, &content, why);

	if (err)
		return err;
	if (content > TEXT_MAX)
		return avp__fail(why, AVP_TOO_LARGE,
				 "%llu bytes to be sent as text: at most %llu",
				 (unsigned long long)content,
				 (unsigned long long)TEXT_MAX);
	to = malloc(content + 1);
	if (!to)
		return avp__fail(why, AVP_NO_MEMORY, "no memory to expand it");
	err = avp_zstd_decompress(z, m->copy, *bytes, to, content, bytes, why);
	free(m->copy);
	m->copy = to;
	return err;
}

/* The text chunks of a HybridPayload, one after the other, moved together. */
static int take_chunks(struct out_message *m, uint64_t *bytes,
		       struct avp_reason *why)
{
	struct avp_hybrid_cursor cursor = {m->copy,
					   (uint8_t *)m->copy + *bytes};
	struct avp_hybrid_chunk chunk;
	uint64_t n = 0;
	int more;

	while ((more = avp_hybrid_next(&cursor, &chunk, why)) > 0) {
		if (chunk.chunk_type != AVP_CHUNK_TEXT)
			continue;
		/* Never beyond what was read already. */
		memmove((uint8_t *)m->copy + n, chunk.data, chunk.bytes);
		n += chunk.bytes;
	}
	*bytes = n;
	return more;
}

/* The text that the sender put into its frame, if it did. */
static int frame_text(struct out_message *m, struct out_request *r,
		      struct avp_reason *why)
{
	const struct avp_frame *f = &m->message->m.frame;
	uint64_t bytes = f->payload_bytes;
	int err = copy_part(m, f->payload_off, bytes, why);

	if (!err && f->flags & AVP_FLAG_COMPRESSED)
		err = expand(m, &bytes, why);
	if (!err && f->metadata.mode == AVP_MODE_HYBRID)
		err = take_chunks(m, &bytes, why);
	if (!err && !bytes)
		err = avp__fail(why, AVP_INVALID_MESSAGE,
				"%s takes text only, and the hybrid frame has "
				"no text chunk: %.150s",
				m->remote->id, m->session->reason);
	return err ? err
		   : text_body(m, r, (struct avp_str){m->copy, bytes}, why);
}

/* ---- frames ------------------------------------------------------------------------------ */

/* The frame's metadata as the peer is to see it. */
static struct avp_metadata told(const struct out_message *m)
{
	struct avp_metadata meta = m->message->m.frame.metadata;

	if (!meta.target_agent_id.len)
		meta.target_agent_id = avp_str_of(m->remote->id);
	if (!meta.source_agent_id.len)
		meta.source_agent_id = avp_str_of(m->message->m.source);
	return meta;
}

static int new_head(struct out_message *m, struct out_request *r,
		    struct avp_reason *why)
{
	const struct ahp_message *in = &m->message->m;
	const struct avp_metadata meta = told(m);
	const uint8_t *payload =
		(const uint8_t *)in->body + in->frame.payload_off;
	int err = gw_frame_head(&m->head, &in->frame, &meta, payload,
				m->session->dialect, m->remote->id, why);

	r->piece[0] = m->head.data;
	r->piece_bytes[0] = m->head.len;
	r->piece[1] = payload;
	r->piece_bytes[1] = in->body_bytes - in->frame.payload_off;
	return err;
}

/* zstd gets a copy: what it reads must not change meanwhile. */
static int compressed(struct out_message *m, struct out_request *r,
		      struct avp_reason *why)
{
	static const enum avp_compression levels[] = {
		AVP_COMPRESS_NONE, AVP_COMPRESS_FAST, AVP_COMPRESS_BALANCED,
		AVP_COMPRESS_MAX};
	const struct ahp_message *in = &m->message->m;
	struct avp_metadata meta = told(m);
	uint64_t bytes = in->frame.payload_bytes, room, len;
	int err = avp_frame_compress_bound(&meta, m->session->dialect, bytes,
					   &room);

	if (!err)
		m->copy = malloc(bytes + 1);
	if (!err && (!m->copy || avp_buf_reserve(&m->head, room)))
		err = AVP_NO_MEMORY;
	if (!err)
		err = ahp_message_copy(in, in->frame.payload_off, m->copy,
				       bytes);
	if (err)
		return avp__fail(why, err, "the frame cannot be compressed: %s",
				 avp_error_text(err));
	err = avp_frame_compress(m->remote->peer->out->zstd,
				 levels[r->peer->conf->compression], &meta,
				 m->session->dialect, m->copy, bytes,
				 m->head.data, room, &len, why);
	free(m->copy);
	m->copy = NULL;
	m->head.len = len;
	r->piece[0] = m->head.data;
	r->piece_bytes[0] = len;
	return err;
}

static int frame_body(struct out_message *m, struct out_request *r,
		      struct avp_reason *why)
{
	const struct ahp_message *in = &m->message->m;
	const struct avp_metadata *meta = &in->frame.metadata;

	m->latent = true;
	out_request_field(r, "Content-Type",
			  avp_str_of("application/avp+binary"));
	if (r->peer->conf->compression &&
	    !(in->frame.flags & AVP_FLAG_COMPRESSED))
		return compressed(m, r, why);
	/* A path of its own, or the metadata, has to say for whom it is. */
	if ((r->peer->plain && !meta->target_agent_id.len) ||
	    !gw_frame_is_for(&in->frame, m->session->dialect))
		return new_head(m, r, why);
	r->piece[0] = in->body;
	r->piece_bytes[0] = in->body_bytes;
	return 0;
}

static int refuse_latent(const struct out_message *m, struct avp_reason *why)
{
	return avp__fail(why, AVP_INVALID_MESSAGE,
			 "%s takes text only: %.120s; send JSON, or a hybrid "
			 "frame with text beside it",
			 m->remote->id, m->session->reason);
}

int out_body(struct out_message *m, struct out_request *r,
	     const char **endpoint, struct avp_reason *why)
{
	const struct ahp_message *in = &m->message->m;
	const struct out_session *s = m->session;
	const struct avp_metadata *meta = &in->frame.metadata;
	const struct out_about a = about(m);

	out_fields(r, in->source, s->dialect);
	out_about_fields(&a, r);
	if (in->method == AHP_TASK && r->peer->conf->wait_result) {
		out_request_field(r, "AHP-Wait", avp_str_of("result"));
		r->timeout_ns = m->deadline_ns - gw_clock_ns();
	}
	*endpoint = "text";
	if (in->kind == AHP_JSON)
		return json_text(m, r, why);
	if ((s->json && meta->mode != AVP_MODE_LATENT) ||
	    (s->dialect == AVP_DIALECT_0_4 && meta->mode == AVP_MODE_HYBRID))
		return frame_text(m, r, why);
	if (s->json)
		return refuse_latent(m, why);
	if (meta->payload_type == AVP_KV_CACHE && !s->kv_compatible)
		return avp__fail(why, AVP_SHAPE_MISMATCH,
				 "%s cannot use this KV-cache: %.180s",
				 m->remote->id, s->reason);
	*endpoint = "transmit";
	return frame_body(m, r, why);
}
