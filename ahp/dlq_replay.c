/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A letter on its way back. It is claimed by a lock of one byte, at its
 * number's place in the lock file, which ends with the process that holds it;
 * what is sent says by `replay_of` which message it was.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include <avp/ahp.h>

#include "ahp/dlq_internal.h"
#include "codec/wire.h"

#define KV_HEADER_BYTES 17    /* AVP.md: in front of the tensors */
#define HEAD_GUESS	4096u /* header and metadata of nearly every frame */
#define HEAD_MAX	(1u << 20) /* no peer takes more than 64 KiB of it */

static const char replay_key[] = "replay_of";

/* ---- claims -------------------------------------------------------------- */

/* By the open file, not the process: two handles of one process differ too. */
static int set_claim(struct ahp_dlq *q, uint64_t number, short type)
{
	struct flock claim = {
		.l_type = type,
		.l_whence = SEEK_SET,
		.l_start = (off_t)(number & INT64_MAX),
		.l_len = 1,
	};

	return fcntl(q->lock, F_OFD_SETLK, &claim);
}

static int take_claim(struct ahp_dlq *q, uint64_t number,
		      struct avp_reason *why)
{
	if (avp__forked(&q->guard))
		return avp__fail(why, AVP_FORKED,
				 "dead letter queue: opened before a fork; a "
				 "child opens its own");
	if (q->flags & AHP_DLQ_READ_ONLY)
		return avp__fail(why, AVP_USAGE,
				 "dead letter queue: it was opened to be read");
	if (!set_claim(q, number, F_WRLCK))
		return 0;
	if (errno == EAGAIN || errno == EACCES)
		return avp__fail(why, AVP_AGAIN,
				 "letter %llu is being replayed by somebody "
				 "else",
				 (unsigned long long)number);
	return avp__journal_fail(why, "cannot claim a letter in", ".lock");
}

/* ---- what is sent -------------------------------------------------------- */

static int nothing_to_send(const struct ahp_dlq_replay *r, const char *what,
			   struct avp_reason *why)
{
	return avp__fail(why, AVP_INVALID_MESSAGE,
			 "letter %llu cannot be replayed: %s",
			 (unsigned long long)r->entry.number, what);
}

/* The payload's members, and which message it was. */
static int build_payload(struct ahp_dlq_replay *r,
			 const struct avp_json *payload, struct avp_reason *why)
{
	struct avp_str old = r->entry.message.message_id;
	struct avp_json_writer w;
	int err;

	avp_json_begin(&w, &r->head, AVP_JSON_HTTP);
	avp_json_open_object(&w);
	for (const struct avp_json *m = avp_json_first(payload); m;
	     m = avp_json_next(m)) {
		struct avp_str key = avp_json_key_of(m);

		if (old.len && avp_str_equal(key, avp_str_of(replay_key)))
			continue;
		avp_json_key_str(&w, key);
		avp_json_put(&w, m);
	}
	if (old.len)
		avp_json_member_string(&w, replay_key, old);
	avp_json_close_object(&w);
	err = avp_json_finish(&w);
	r->body_bytes = r->head.len;
	r->skip = r->entry.body_bytes;
	return err ? avp__fail(why, err, "a replay's payload: %s",
			       avp_error_text(err))
		   : 0;
}

/* JSON that was kept beside the message may be anything. */
static int parse_payload(struct ahp_dlq_replay *r, const void *text,
			 struct avp_reason *why)
{
	struct avp_json_doc *doc;
	int err = avp_json_parse(&doc, text, r->entry.body_bytes, NULL, why);

	if (err == AVP_NO_MEMORY)
		return err;
	if (err)
		return nothing_to_send(r, "its body is no JSON", why);
	if (avp_json_type_of(avp_json_root(doc)) == AVP_JSON_OBJECT)
		err = build_payload(r, avp_json_root(doc), why);
	else
		err = nothing_to_send(r, "its body is no JSON object", why);
	avp_json_free(doc);
	return err;
}

static size_t put_varint(uint8_t *to, uint64_t n)
{
	size_t i = 0;

	for (; n >= 0x80; n >>= 7)
		to[i++] = (uint8_t)(n | 0x80);
	to[i++] = (uint8_t)n;
	return i;
}

static void add_le32(char *at, uint32_t more)
{
	uint8_t *p = (uint8_t *)at;
	uint32_t n = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
		     (uint32_t)p[3] << 24;

	n += more;
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(n >> 8 * i);
}

/*
 * One more entry of the map `extra` (field 14 of Metadata: key 1, value 2) goes
 * behind the metadata: in protobuf the last of equal keys holds, and what we do
 * not know of the others stays as it is.
 */
static int build_frame(struct ahp_dlq_replay *r, const uint8_t *head,
		       const struct avp_frame *frame, struct avp_reason *why)
{
	const size_t key_len = sizeof(replay_key) - 1;
	struct avp_str old = r->entry.message.message_id;
	uint8_t pair[32], open[16];
	size_t n, m;

	/* A lone surrogate, which JSON may hold, would spoil the metadata. */
	if (!avp__utf8_valid(old.data, old.len))
		old.len = 0;
	if (frame->metadata.payload_type == AVP_KV_CACHE)
		r->tensor_off = KV_HEADER_BYTES;
	r->skip = frame->payload_off;
	pair[0] = 0x0a;
	pair[1] = (uint8_t)key_len;
	memcpy(pair + 2, replay_key, key_len);
	pair[2 + key_len] = 0x12;
	n = 3 + key_len;
	n += put_varint(pair + n, old.len);
	open[0] = 0x72;
	m = 1 + put_varint(open + 1, n + old.len);
	if (avp_buf_append(&r->head, head, r->skip))
		return AVP_NO_MEMORY;
	if (!old.len) {
		n = m = 0;
	} else if (avp_buf_append(&r->head, open, m) ||
		   avp_buf_append(&r->head, pair, n) ||
		   avp_buf_append(&r->head, old.data, old.len)) {
		return AVP_NO_MEMORY;
	}
	if (m + n + old.len > UINT32_MAX - frame->payload_length)
		return nothing_to_send(r, "its frame has 4 GiB already", why);
	add_le32(r->head.data + 4, (uint32_t)(m + n + old.len));
	add_le32(r->head.data + 8, (uint32_t)(m + n + old.len));
	r->tensor_off += r->head.len;
	r->body_bytes = r->entry.body_bytes - r->skip + r->head.len;
	return 0;
}

static int read_part(struct ahp_dlq *q, const struct ahp_dlq_entry *entry,
		     uint64_t off, void *to, uint64_t len,
		     struct avp_reason *why)
{
	int err = avp__dlq_enter(q, DLQ__LOOK, why);

	return err ? err
		   : avp__dlq_leave(q, avp__dlq_body_part(q, entry, off, to,
							  len, why));
}

/* The first bytes of the body, in the caller's hands. */
static int read_first(struct ahp_dlq *q, const struct ahp_dlq_replay *r,
		      uint64_t len, uint8_t **to, struct avp_reason *why)
{
	int err;

	*to = malloc(len + 1);
	if (!*to)
		return avp__fail(why, AVP_NO_MEMORY,
				 "no memory for %llu bytes of a letter",
				 (unsigned long long)len);
	err = read_part(q, &r->entry, 0, *to, len, why);
	if (err) {
		free(*to);
		*to = NULL;
	}
	return err;
}

static int prepare_frame(struct ahp_dlq *q, struct ahp_dlq_replay *r,
			 struct avp_reason *why)
{
	uint64_t len = HEAD_GUESS, need = 0, total = r->entry.body_bytes;
	struct avp_frame frame;
	uint8_t *head = NULL;
	int err;

	for (;;) {
		len = len < total ? len : total;
		err = read_first(q, r, len, &head, why);
		if (err)
			return err;
		err = avp_frame_decode_head(head, len, total, &frame, &need,
					    why);
		if (err != AVP_AGAIN || need <= len || need > HEAD_MAX)
			break;
		len = need;
		free(head);
	}
	if (err)
		err = nothing_to_send(r, "its body is no AVP frame", why);
	else
		err = build_frame(r, head, &frame, why);
	free(head);
	return err;
}

static int prepare_json(struct ahp_dlq *q, struct ahp_dlq_replay *r,
			struct avp_reason *why)
{
	uint8_t *text;
	int err;

	if (!r->entry.body_bytes)
		return build_payload(r, r->entry.message.payload, why);
	if (r->entry.body_bytes > AVP_JSON_MAX_BYTES)
		return nothing_to_send(r, "its body is no JSON of usual size",
				       why);
	err = read_first(q, r, r->entry.body_bytes, &text, why);
	if (!err)
		err = avp__dlq_body_check(&r->entry, text, 0, text, why);
	if (!err)
		err = parse_payload(r, text, why);
	free(text);
	return err;
}

static int prepare(struct ahp_dlq *q, struct ahp_dlq_replay *r,
		   struct avp_reason *why)
{
	if (!r->entry.has_message)
		return nothing_to_send(r, "it is an error without a message",
				       why);
	if (r->entry.body_lost)
		return nothing_to_send(r, "its body was lost by damage", why);
	if (ahp_id_random(r->id))
		return avp__fail(why, AVP_IO, "no randomness for an id");
	r->method = (uint8_t)ahp_method_of(r->entry.message.method);
	r->kind = r->entry.body_bytes ? r->entry.kind : AHP_JSON;
	return r->kind == AHP_FRAME ? prepare_frame(q, r, why)
				    : prepare_json(q, r, why);
}

/* ---- the calls ----------------------------------------------------------- */

static void replay_fini(struct ahp_dlq_replay *r)
{
	ahp_dlq_entry_fini(&r->entry);
	avp_buf_fini(&r->head);
}

int ahp_dlq_replay_begin(struct ahp_dlq *q, uint64_t number,
			 struct ahp_dlq_replay *replay, struct avp_reason *why)
{
	struct ahp_dlq_replay r = {0};
	int is = take_claim(q, number, why);

	if (is)
		return is;
	/* It is looked for under the claim: who had it before may have sent. */
	is = ahp_dlq_get(q, number, &r.entry, why);
	if (is > 0) {
		int err = prepare(q, &r, why);

		is = err ? err : 1;
	}
	if (is > 0) {
		*replay = r;
		return 1;
	}
	replay_fini(&r);
	set_claim(q, number, F_UNLCK);
	return is;
}

int ahp_dlq_replay_read(struct ahp_dlq *q, const struct ahp_dlq_replay *r,
			void *to, struct avp_reason *why)
{
	uint64_t rest = r->entry.body_bytes - r->skip;
	uint8_t *old, *behind = (uint8_t *)to + r->head.len;
	int err;

	memcpy(to, r->head.data, r->head.len);
	if (!rest)
		return 0;
	err = read_part(q, &r->entry, r->skip, behind, rest, why);
	if (!err)
		err = read_first(q, r, r->skip, &old, why);
	if (err)
		return err;
	err = avp__dlq_body_check(&r->entry, old, r->skip, behind, why);
	free(old);
	return err;
}

int ahp_dlq_replay_end(struct ahp_dlq *q, struct ahp_dlq_replay *r, bool sent,
		       struct avp_reason *why)
{
	int is = sent ? ahp_dlq_remove(q, r->entry.number, why) : 0;

	set_claim(q, r->entry.number, F_UNLCK);
	replay_fini(r);
	return is < 0 ? is : 0;
}
