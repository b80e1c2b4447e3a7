/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON form of a dead letter: the reference's four keys, and ours. */
#include <stdlib.h>
#include <string.h>

#include <avp/ahp.h>

#include "ahp/dlq_internal.h"
#include "codec/wire.h"

/* A payload at the JSON reader's own depth has two levels around it here. */
#define ENTRY_DEPTH AVP_JSON_DEPTH_CAP
#define CODE_LAST   (-99) /* no code of <avp/error.h> is below */

/* ---- writing ------------------------------------------------------------- */

static void put_time(struct avp_json_writer *w, const struct ahp_time *time)
{
	char text[AHP_TIME_BYTES];
	struct avp_str s = {text, ahp_time_write(time, text)};

	avp_json_member_string(w, "timestamp", s);
}

/* Texts of errors come from anywhere: what is no UTF-8 becomes '?'. */
static int put_error(struct avp_json_writer *w, struct avp_str error)
{
	struct avp_str clean = {NULL, error.len};
	char *copy;

	avp_json_key(w, "error");
	if (avp__utf8_valid(error.data, error.len)) {
		avp_json_put_string(w, error);
		return 0;
	}
	copy = malloc(error.len);
	if (!copy)
		return AVP_NO_MEMORY;
	for (size_t i = 0; i < error.len; i++)
		copy[i] = error.data[i] & 0x80 ? '?' : error.data[i];
	clean.data = copy;
	avp_json_put_string(w, clean);
	free(copy);
	return 0;
}

static void put_message(struct avp_json_writer *w,
			const struct ahp_envelope *message)
{
	avp_json_key(w, "message");
	if (message)
		ahp_envelope_put(w, message);
	else
		avp_json_put_null(w);
}

static void put_body(struct avp_json_writer *w, uint8_t kind, uint64_t bytes,
		     const char *sha256)
{
	avp_json_key(w, "body");
	avp_json_open_object(w);
	avp_json_key(w, "kind");
	avp_json_put_text(w, kind == AHP_FRAME ? "frame" : "json");
	avp_json_member_uint(w, "bytes", bytes);
	if (sha256) {
		avp_json_key(w, "sha256");
		avp_json_put_text(w, sha256);
	}
	avp_json_close_object(w);
}

/* Text that claims to be an object is looked at before it is kept for good. */
static int check_payload(const struct ahp_envelope *message,
			 struct avp_reason *why)
{
	struct avp_json_doc *doc = NULL;
	struct avp_reason inner;
	struct avp_str text;
	int err;

	if (!message || message->payload || !message->payload_json.len)
		return 0;
	text = message->payload_json;
	err = avp_json_parse(&doc, text.data, text.len, NULL, &inner);
	if (!err)
		err = avp_json_expect_object(avp_json_root(doc), "a payload",
					     &inner);
	avp_json_free(doc);
	return err ? avp__fail(why,
			       err == AVP_NO_MEMORY ? err : AVP_INVALID_MESSAGE,
			       "a letter's payload: %s; keep what is no JSON "
			       "object as its body",
			       inner.text)
		   : 0;
}

int avp__dlq_entry_write(struct avp_buf *buf, const struct ahp_dlq_letter *l,
			 struct avp_reason *why)
{
	struct ahp_time time =
		l->timestamp.year ? l->timestamp : ahp_time_now();
	struct avp_str agent = l->agent;
	struct avp_json_writer w;
	int err = check_payload(l->message, why), written;

	if (err)
		return err;
	if (!agent.len && l->message)
		agent = l->message->target_agent;
	avp_json_begin(&w, buf, AVP_JSON_HTTP);
	avp_json_open_object(&w);
	avp_json_member_string(&w, "agent", agent);
	put_message(&w, l->message);
	err = put_error(&w, l->error);
	avp_json_key(&w, "code");
	avp_json_put_text(&w, avp_error_name(l->code));
	put_time(&w, &time);
	avp_json_member_uint(&w, "retry_count", l->retry_count);
	if (l->body_bytes)
		put_body(&w, l->kind, l->body_bytes, NULL);
	avp_json_close_object(&w);
	written = avp_json_finish(&w);
	err = err ? err : written;
	return err ? avp__fail(why, err, "a letter cannot be written: %s",
			       avp_error_text(err))
		   : 0;
}

void ahp_dlq_entry_members(struct avp_json_writer *w,
			   const struct ahp_dlq_entry *e)
{
	avp_json_member_string(w, "agent", e->agent);
	put_message(w, e->has_message ? &e->message : NULL);
	avp_json_member_string(w, "error", e->error);
	avp_json_key(w, "code");
	avp_json_put_text(w, avp_error_name(e->code));
	put_time(w, &e->timestamp);
	avp_json_member_uint(w, "retry_count", e->retry_count);
	avp_json_member_uint(w, "number", e->number);
	if (e->body_bytes)
		put_body(w, e->kind, e->body_bytes, e->body_sha256);
	if (e->body_lost)
		avp_json_member_bool(w, "body_lost", true);
}

void ahp_dlq_entry_put(struct avp_json_writer *w, const struct ahp_dlq_entry *e)
{
	avp_json_open_object(w);
	ahp_dlq_entry_members(w, e);
	avp_json_close_object(w);
}

/* ---- reading ------------------------------------------------------------- */

static int read_code(const struct avp_json *root, int *code,
		     struct avp_reason *why)
{
	struct avp_str name;
	int is = avp_json_get_string(root, "code", &name, why);

	*code = AVP_UNKNOWN;
	for (int c = 0; is > 0 && c >= CODE_LAST; c--)
		if (avp_str_equal(name, avp_str_of(avp_error_name(c)))) {
			*code = c;
			break;
		}
	return is < 0 ? is : 0;
}

static int read_message(const struct avp_json *root, struct ahp_dlq_entry *e,
			struct avp_reason *why)
{
	const struct avp_json *message = NULL;
	int is = avp_json_get_object(root, "message", &message, why);

	e->has_message = is > 0;
	return is > 0 ? ahp_envelope_read(&e->message, message, why) : is;
}

static int read_kind(const struct avp_json *root, struct ahp_dlq_entry *e,
		     struct avp_reason *why)
{
	const struct avp_json *body = NULL;
	struct avp_str kind = {"", 0};
	int is = avp_json_get_object(root, "body", &body, why);

	if (is > 0)
		is = avp_json_get_string(body, "kind", &kind, why);
	e->kind =
		avp_str_equal(kind, avp_str_of("frame")) ? AHP_FRAME : AHP_JSON;
	return is < 0 ? is : 0;
}

static int read_members(struct ahp_dlq_entry *e, const struct avp_json *root,
			struct avp_reason *why)
{
	struct avp_str time = {"", 0};
	uint64_t retries = 0;
	int err = avp_json_expect_object(root, "a dead letter", why);

	if (!err)
		err = avp_json_get_string(root, "agent", &e->agent, why);
	if (err >= 0)
		err = avp_json_get_string(root, "error", &e->error, why);
	if (err >= 0)
		err = avp_json_get_uint(root, "retry_count", UINT32_MAX,
					&retries, why);
	e->retry_count = (uint32_t)retries;
	if (err >= 0)
		err = avp_json_get_string(root, "timestamp", &time, why);
	if (err >= 0)
		err = ahp_time_read(&e->timestamp, time, why);
	if (!err)
		err = read_code(root, &e->code, why);
	if (!err)
		err = read_kind(root, e, why);
	return err ? err : read_message(root, e, why);
}

int avp__dlq_entry_read(struct ahp_dlq_entry *entry, const void *text,
			size_t len, struct avp_reason *why)
{
	const struct avp_json_options options = {
		.size = sizeof(options),
		.max_depth = ENTRY_DEPTH,
		.max_bytes = AHP_DLQ_ENTRY_BYTES,
	};
	struct ahp_dlq_entry e = {.agent = {"", 0}, .error = {"", 0}};
	int err = avp_json_parse(&e.doc, text, len, &options, why);

	if (!err)
		err = read_members(&e, avp_json_root(e.doc), why);
	if (err)
		avp_json_free(e.doc);
	else
		*entry = e;
	return err;
}

void ahp_dlq_entry_fini(struct ahp_dlq_entry *entry)
{
	avp_json_free(entry->doc);
	memset(entry, 0, sizeof(*entry));
}
