/* SPDX-License-Identifier: Apache-2.0 */
/*
 * POST /avp/v2/transmit. The body's first bytes, a frame's header and metadata,
 * are read into memory of our own and judged; only then is a block of the arena
 * taken, as large as it has to be, and the rest goes there straight from the
 * connection, so that the tensor lies as a local sender would have written it.
 */
#include <stdlib.h>
#include <string.h>

#include "gateway/serve.h"

/* As on a link between two agents of this host. */
#define METADATA_MAX 65536

/* What a compressed payload may say that it expands to. */
#define CONTENT_MAX (UINT64_C(4) << 30)

/*
 * A compressed payload up to this is expanded once, so that damage is told to
 * whoever sent it: under a millisecond, in which others wait. Larger ones are
 * their reader's to expand.
 */
#define EXPAND_MAX (1u << 20)

/* ---- what is wrong with a frame, in the reference's words --------------- */

static uint32_t le32(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
	       (uint32_t)p[3] << 24;
}

static uint8_t *stage(struct exchange *x)
{
	return x->stage.data ? (uint8_t *)x->stage.data : x->small;
}

static uint64_t frame_bytes(struct exchange *x)
{
	return AVP_FRAME_HEADER_BYTES + (uint64_t)le32(stage(x) + 4);
}

static void refuse_frame(struct exchange *x, const struct avp_reason *why,
			 uint64_t got)
{
	const uint8_t *head = stage(x);

	switch (why->code) {
	case AVP_SHORT_HEADER:
		serve_failf(x, 400, why->code,
			    "Message too short: %llu bytes, need at least 12",
			    (unsigned long long)got);
		return;
	case AVP_BAD_MAGIC:
		serve_failf(
			x, 400, why->code,
			"Invalid magic bytes: expected 0x4156, got %02x%02x",
			head[0], head[1]);
		return;
	case AVP_BAD_VERSION:
		serve_failf(x, 400, why->code,
			    "Unsupported protocol version: %u", head[2]);
		return;
	case AVP_TRUNCATED:
		serve_failf(x, 400, why->code,
			    "Message truncated: expected %llu bytes, got %llu",
			    (unsigned long long)frame_bytes(x),
			    (unsigned long long)got);
		return;
	default: serve_fail(x, serve_status(why->code), why);
	}
}

/* ---- its head ----------------------------------------------------------- */

static bool judge_sizes(struct exchange *x, uint64_t metadata)
{
	uint64_t most = x->gw->conf->limits.body_bytes, bytes = frame_bytes(x);
	struct avp_reason why = {.code = AVP_TRUNCATED};

	if (x->r->known && x->r->length < bytes) {
		refuse_frame(x, &why, x->r->length);
		return false;
	}
	if (bytes > most || metadata > METADATA_MAX) {
		serve_failf(x, 413, AVP_TOO_LARGE,
			    "a frame of %llu bytes with %llu of metadata; at "
			    "most %llu and %u are taken",
			    (unsigned long long)bytes,
			    (unsigned long long)metadata,
			    (unsigned long long)most, METADATA_MAX);
		return false;
	}
	return true;
}

/* Twelve bytes are there: how many the metadata has, or an answer. */
static void judge_header(struct exchange *x)
{
	struct avp_reason why;
	uint64_t need = 0;
	int code = avp_frame_decode_head(stage(x), x->staged, frame_bytes(x),
					 &x->frame, &need, &why);

	if (code == AVP_AGAIN && judge_sizes(x, need)) {
		x->stage_need = need;
		if (need > STAGE_BYTES &&
		    (avp_buf_reserve(&x->stage, need) ||
		     avp_buf_append(&x->stage, x->small, x->staged)))
			serve_failf(x, 503, AVP_NO_MEMORY, "no memory");
	} else if (code && code != AVP_AGAIN) {
		refuse_frame(x, &why, x->staged);
	} else if (!code && judge_sizes(x, 0)) {
		x->framed = true;
	}
}

/* Room for a body of so many bytes, what was staged of it in front. */
static bool borrow(struct exchange *x, uint64_t bytes)
{
	uint64_t most = x->gw->conf->limits.in_flight_bytes;
	struct avp_reason why;
	int code;

	if (most && x->in->lent_bytes + bytes > most)
		code = avp__fail(&why, AVP_QUEUE_FULL,
				 "%llu bytes are being received; %llu are the "
				 "limit of all together",
				 (unsigned long long)x->in->lent_bytes,
				 (unsigned long long)most);
	else
		code = ahp_loan(x->speaker->agent, x->peer ? x->target : NULL,
				bytes - x->staged, (uint32_t)x->staged,
				&x->loan, &why);
	if (code) {
		serve_fail(x, serve_status(code), &why);
		return false;
	}
	x->at = (uint8_t *)x->loan.data - x->staged;
	x->room = bytes;
	x->in->lent_bytes += bytes;
	return true;
}

static void take_loan(struct exchange *x)
{
	if (!borrow(x, x->r->known ? x->r->length : frame_bytes(x)))
		return;
	x->filled = x->staged;
	memcpy(x->at, stage(x), x->staged);
}

/* Header and metadata are there: whose it is, and whether it will be taken. */
static void judge_head(struct exchange *x)
{
	const struct avp_metadata *m = &x->frame.metadata;
	struct avp_reason why;
	struct avp_str source = m->source_agent_id;
	int code;

	if (!source.len)
		source = serve_either(x, HTTP_AHP_SOURCE,
				      http_get(x->r, HTTP_AVP_AGENT_ID));
	if (!serve_address(x, m->target_agent_id.len
				      ? m->target_agent_id
				      : http_get(x->r, HTTP_AHP_TARGET)))
		return;
	deliver_speak(x, source);
	code = deliver_link(x, &why);
	if (code && code != AVP_AGAIN)
		serve_fail(x, serve_status(code), &why);
	else if (!x->r->known || x->r->length > STAGE_BYTES)
		take_loan(x);
}

/* ---- the body ----------------------------------------------------------- */

void transmit_head(struct exchange *x)
{
	x->stage_need = AVP_FRAME_HEADER_BYTES;
	if (!fields_read(x) || !x->r->expects || !*x->url_agent)
		return;
	/* Whoever asks before it sends is told now what is known already. */
	if (serve_address(x, (struct avp_str){0})) {
		struct avp_reason why;
		int code;

		deliver_speak(x, http_get(x->r, HTTP_AVP_AGENT_ID));
		code = deliver_link(x, &why);
		if (code && code != AVP_AGAIN)
			serve_fail(x, serve_status(code), &why);
	}
}

/* More came than the frame's own length: as much room again. */
static bool grow(struct exchange *x)
{
	uint64_t most = x->gw->conf->limits.body_bytes, bytes = 2 * x->room;
	struct ahp_agent *own = x->speaker->agent;
	struct ahp_loan old = x->loan;
	uint8_t *from = x->at;

	if (bytes > most)
		bytes = most;
	if (bytes <= x->filled) {
		serve_failf(x, 413, AVP_TOO_LARGE,
			    "a body of more than %llu bytes, the most that is "
			    "taken",
			    (unsigned long long)most);
		return false;
	}
	x->in->lent_bytes -= x->room;
	x->room = 0;
	memset(&x->loan, 0, sizeof(x->loan));
	if (borrow(x, bytes))
		memcpy(x->at, from, x->filled);
	ahp_loan_release(own, &old);
	return x->room;
}

size_t transmit_place(struct exchange *x, void **at)
{
	if (!x->framed || !x->at) {
		size_t end = x->framed ? x->r->length : x->stage_need;

		*at = stage(x) + x->staged;
		return end - x->staged;
	}
	if (x->filled == x->room && !grow(x))
		return 0;
	*at = x->at + x->filled;
	return x->room - x->filled;
}

void transmit_placed(struct exchange *x, size_t n)
{
	if (x->at) {
		x->filled += n;
		return;
	}
	x->staged += n;
	if (x->stage.data)
		x->stage.len = x->staged;
	if (x->framed || x->staged < x->stage_need)
		return;
	judge_header(x); /* again, with the metadata */
	if (x->framed && !x->r->answered)
		judge_head(x);
}

/* ---- the end of it ------------------------------------------------------ */

/* The payload, which is judged as it will be read, and thrown away. */
static int judge_compressed(struct exchange *x, struct avp_reason *why)
{
	const struct avp_frame *f = &x->frame;
	uint64_t n;
	void *content;
	int code;

	if (f->content_bytes > EXPAND_MAX)
		return 0;
	content = malloc(f->content_bytes + 1);
	if (!content)
		return avp__fail(why, AVP_NO_MEMORY, "no memory");
	code = avp_zstd_decompress(x->in->zstd, f->payload, f->payload_bytes,
				   content, f->content_bytes, &n, why);
	if (!code)
		code = avp_frame_payload_check(f, content, n, why);
	free(content);
	return code;
}

static bool judge_frame(struct exchange *x, const void *body, uint64_t bytes)
{
	struct avp_frame *f = &x->frame;
	struct avp_reason why;
	int code = avp_frame_decode(body, bytes, f, &why);

	if (code ==
	    AVP_TOO_LARGE) { /* says more than its bytes can expand to */
		serve_fail(x, 400, &why);
		return false;
	}
	if (!code && f->content_bytes > CONTENT_MAX)
		code = avp__fail(
			&why, AVP_TOO_LARGE,
			"a payload that expands to %llu bytes; at most "
			"%llu are taken",
			(unsigned long long)f->content_bytes,
			(unsigned long long)CONTENT_MAX);
	if (!code && f->flags & AVP_FLAG_COMPRESSED)
		code = judge_compressed(x, &why);
	else if (!code)
		code = avp_frame_payload_check(f, f->payload, f->payload_bytes,
					       &why);
	if (code)
		refuse_frame(x, &why, bytes);
	return !code;
}

static void body_of(struct exchange *x, const void **body, uint64_t *bytes)
{
	*body = x->at ? x->at : stage(x);
	*bytes = x->at ? x->filled : x->staged;
}

void transmit_end(struct exchange *x)
{
	struct avp_reason why = {.code = AVP_SHORT_HEADER};
	const void *body;
	uint64_t bytes;

	body_of(x, &body, &bytes);
	if (bytes >= AVP_FRAME_HEADER_BYTES)
		why.code = AVP_TRUNCATED;
	if (!x->framed) {
		refuse_frame(x, &why, bytes);
		return;
	}
	if (!judge_frame(x, body, bytes))
		return;
	x->whole = true;
	if (x->state != LINKING)
		transmit_send(x);
}

/* AVP.md: a payload is held against its metadata by who knows its own model. */
static bool is_known(const struct avp_identity *model)
{
	return model->hidden_dim || model->num_layers || model->num_kv_heads ||
	       model->head_dim;
}

/* Does the model that is to read it know such tensors, and its session them? */
static bool judge_use(struct exchange *x)
{
	const struct avp_frame *f = &x->frame;
	bool plain = !(f->flags & AVP_FLAG_COMPRESSED);
	const struct ahp_session *session =
		ahp_session_get(x->in->sessions, f->metadata.session_id,
				(double)gw_clock_ns() / 1e9);
	struct avp_reason why;
	struct ahp_mode mode;
	int code = 0;

	if (session && session->mode == AVP_MODE_JSON &&
	    f->metadata.mode == AVP_MODE_LATENT)
		code = avp__fail(&why, AVP_SHAPE_MISMATCH,
				 "this session speaks JSON, its models being "
				 "different: send to /avp/v2/text");
	else if (!ahp_peer_mode(x->speaker->agent, x->peer, &mode) &&
		 is_known(&mode.identity))
		code = avp_latent_check(&mode.identity, &f->metadata,
					plain ? f->payload : NULL,
					plain ? f->payload_bytes : 0, &why);
	if (code)
		serve_fail(x, serve_status(code), &why);
	return !code;
}

void transmit_send(struct exchange *x)
{
	struct ahp_outgoing m = {.kind = AHP_FRAME};

	if (!judge_use(x))
		return;
	fields_fill(x, &m, x->frame.metadata.session_id);
	body_of(x, &m.body, &m.body_bytes);
	if (x->at)
		m.loan = &x->loan;
	deliver_send(x, &m);
}

void transmit_free(struct exchange *x)
{
	x->in->lent_bytes -= x->room;
	x->room = 0;
	if (x->loan.handle)
		ahp_loan_release(x->speaker->agent, &x->loan);
}
