/* SPDX-License-Identifier: Apache-2.0 */
/* What local senders hear of their messages, and what becomes a dead letter. */
#include <stdlib.h>
#include <string.h>

#include "ahp/dlq_internal.h"
#include "gateway/outbound.h"

#define BODY_MAX (UINT64_C(64) << 20) /* copied into a letter */

/* ---- to the sender ------------------------------------------------------ */

static int say(struct out_remote *remote, struct ahp_outgoing *out)
{
	struct gateway *gw = remote->peer->gw;
	char shown[GW_SHOWN_BYTES];
	struct avp_reason why;
	int err;

	/* From now on it is the library's to see to that it arrives. */
	out->flags |= AHP_RELIABLE;
	err = ahp_send(remote->agent->agent, out, 0, NULL, &why);
	if (err && err != AVP_QUEUE_FULL)
		gw_log(&gw->log, GW_LOG_WARNING, "not_told",
		       "agent=%s method=%s code=%s reason=%s", remote->id,
		       ahp_method_name(out->method), avp_error_name(err),
		       gw_shown(shown, avp_str_of(why.text)));
	return err;
}

/* {"result": {AHP's error object}, "status": "error"} */
static int write_error(const struct out_message *m, struct avp_buf *to)
{
	const struct ahp_message *in = &m->message->m;
	struct avp_buf details = {0};
	char id[AHP_ID_TEXT_BYTES];
	struct avp_json_writer w;
	struct ahp_error error = {
		.message = avp_str_of(m->verdict.text),
		.code = m->verdict.code,
		.agent_id = avp_str_of(m->remote->id),
		.task_id = in->task_id,
	};
	int err;

	ahp_id_write(m->id, id);
	avp_json_begin(&w, &details, AVP_JSON_PYTHON);
	avp_json_open_object(&w);
	avp_json_member_string(&w, "code",
			       avp_str_of(avp_error_name(m->verdict.code)));
	avp_json_member_string(&w, "message_id", avp_str_of(id));
	avp_json_member_uint(&w, "attempts", m->attempts);
	if (m->session && m->session->json)
		avp_json_member_string(&w, "mode", avp_str_of("JSON"));
	avp_json_close_object(&w);
	err = avp_json_finish(&w);
	error.details_json = avp_buf_str(&details);
	avp_json_begin(&w, to, AVP_JSON_PYTHON);
	avp_json_open_object(&w);
	avp_json_key(&w, "result");
	ahp_error_put(&w, &error);
	avp_json_member_string(&w, "status", avp_str_of("error"));
	avp_json_close_object(&w);
	if (!err)
		err = avp_json_finish(&w);
	avp_buf_fini(&details);
	return err;
}

int out_tell(struct out_message *m)
{
	const struct ahp_message *in = &m->message->m;
	struct out_verdict *v = &m->verdict;
	struct ahp_outgoing out = {
		.peer = in->peer,
		.method = AHP_RESULT,
		.kind = v->kind,
		.token_limit = in->token_limit,
		.task_id = in->task_id,
		.session_id = in->session_id,
	};

	if (in->method != AHP_TASK || (!v->code && !v->result))
		return 0;
	if (v->code && !v->payload.len && write_error(m, &v->payload))
		return 0;
	if (v->code)
		out.kind = AHP_JSON;
	out.body = v->payload.data;
	out.body_bytes = v->payload.len;
	return say(m->remote, &out) == AVP_QUEUE_FULL ? AVP_QUEUE_FULL : 0;
}

void out_tell_fallback(struct out_session *s,
		       const struct avp_fallback *fallback)
{
	struct avp_buf text = {0}, payload = {0};
	struct avp_json_writer w;
	struct ahp_outgoing out = {
		.peer = s->last_sender,
		.method = AHP_PROGRESS,
		.kind = AHP_JSON,
		.session_id = avp_str_of(s->id),
	};

	avp_fallback_describe(&text, fallback);
	avp_json_begin(&w, &payload, AVP_JSON_PYTHON);
	avp_json_open_object(&w);
	avp_json_key(&w, "progress");
	avp_json_put_double(&w, 0);
	avp_json_member_string(&w, "message", avp_buf_str(&text));
	avp_json_member_string(&w, "mode", avp_str_of("JSON"));
	avp_json_close_object(&w);
	if (!avp_json_finish(&w) && s->last_sender &&
	    out.session_id.len <= AHP_ID_BYTES) {
		out.body = payload.data;
		out.body_bytes = payload.len;
		say(s->remote, &out);
	}
	avp_buf_fini(&text);
	avp_buf_fini(&payload);
}

/* ---- dead letters ------------------------------------------------------- */

/* A sender that sends a rejected message again gets no second letter for it. */
static bool is_buried(struct gw_outbound *out, const uint8_t id[16])
{
	for (unsigned i = 0; i < 256; i++)
		if (!memcmp(out->buried[i], id, 16))
			return true;
	memcpy(out->buried[out->buried_at++ % 256], id, 16);
	return false;
}

static int append(struct out_message *m, struct ahp_dlq_letter *letter,
		  struct ahp_envelope *envelope, struct avp_reason *why)
{
	const struct ahp_message *in = &m->message->m;
	struct ahp_dlq *dlq = m->remote->peer->gw->dlq;
	uint64_t bytes = in->body_bytes;
	void *copy = bytes <= BODY_MAX ? malloc(bytes + 1) : NULL;
	int err = AVP_INVALID_MESSAGE;

	if (!copy || ahp_message_copy(in, 0, copy, bytes)) {
		free(copy);
		return ahp_dlq_append(dlq, letter, NULL, why);
	}
	if (in->kind == AHP_JSON) {
		envelope->payload_json = (struct avp_str){copy, bytes};
		err = ahp_dlq_append(dlq, letter, NULL, why);
		envelope->payload_json = (struct avp_str){0};
	}
	if (err == AVP_INVALID_MESSAGE || err == AVP_SERIALIZATION_ERROR) {
		letter->kind = in->kind;
		letter->body = copy;
		letter->body_bytes = bytes;
		err = ahp_dlq_append(dlq, letter, NULL, why);
	}
	free(copy);
	return err;
}

void out_bury(struct out_message *m)
{
	const struct ahp_message *in = &m->message->m;
	struct gateway *gw = m->remote->peer->gw;
	char id[AHP_ID_TEXT_BYTES], shown[GW_SHOWN_BYTES];
	char task[AVP_LANE_ID_BYTES], session[AVP_LANE_ID_BYTES];
	struct ahp_envelope envelope = {
		.method = avp_str_of(ahp_method_name(in->method)),
		.agent_id = avp_str_of(in->source),
		.target_agent = avp_str_of(m->remote->id),
		.task_id = avp__dlq_clean(task, in->task_id),
		.session_id = avp__dlq_clean(session, in->session_id),
		.token_limit = in->token_limit,
		.message_id = {id, sizeof(id) - 1},
	};
	struct ahp_dlq_letter letter = {
		.message = &envelope,
		.error = avp_str_of(m->verdict.text),
		.code = m->verdict.code,
		.retry_count = m->attempts ? m->attempts - 1 : 0,
	};
	struct avp_reason why;

	ahp_id_write(m->id, id);
	if (is_buried(gw->out, m->id))
		return;
	gw->metrics.out_dead++;
	if (!gw->dlq) {
		gw_log(&gw->log, GW_LOG_ERROR, "dead_letter",
		       "agent=%s id=%s reason=\"there is no dead letter queue, "
		       "it is lost\"",
		       m->remote->id, id);
		return;
	}
	if (append(m, &letter, &envelope, &why)) {
		gw_log(&gw->log, GW_LOG_ERROR, "dead_letter",
		       "agent=%s id=%s code=%s reason=%s", m->remote->id, id,
		       avp_error_name(why.code),
		       gw_shown(shown, avp_str_of(why.text)));
		return;
	}
	gw_letters_written(gw);
}
