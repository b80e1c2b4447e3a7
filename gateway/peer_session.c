/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handshakes: once for each model of local senders, remote agent and session.
 * Who answers decides what may be sent: frames in its dialect, or text.
 */
#include <stdio.h>
#include <string.h>

#include "gateway/outbound.h"
#include "latent/contradict.h"

#define JSON_MAX (1u << 20) /* of a handshake's answer */

/* ---- which session ------------------------------------------------------ */

/* Texts may hold no '/' of ours: their lengths keep them apart. */
static void key_of(char key[OUT_KEY_BYTES], const struct avp_identity *of)
{
	const struct avp_str text[] = {of->model_family, of->model_hash,
				       of->model_id};
	int n = snprintf(key, OUT_KEY_BYTES, "%u/%u/%u/%u", of->hidden_dim,
			 of->num_layers, of->num_kv_heads, of->head_dim);

	for (int i = 0; i < 3; i++)
		n += snprintf(key + n, OUT_KEY_BYTES - (size_t)n, "/%zu:%.*s",
			      text[i].len, (int)text[i].len,
			      text[i].data ? text[i].data : "");
}

/* The one of that key; else one that is free, or was used longest ago. */
static struct out_session *find(struct out_remote *remote, const char *key)
{
	struct out_session *best = NULL;

	for (int i = 0; i < OUT_SESSIONS; i++) {
		struct out_session *s = &remote->session[i];

		if (s->remote && !strcmp(s->key, key))
			return s;
		if (s->state == OUT_ASKING)
			continue;
		if (!best || s->used_ns < best->used_ns)
			best = s;
	}
	/* All are being asked for: the message waits with another's. */
	if (!best)
		return &remote->session[0];
	*best = (struct out_session){.remote = remote};
	snprintf(best->key, sizeof(best->key), "%s", key);
	return best;
}

struct out_session *out_session_for(struct out_remote *remote,
				    const struct gw_message *message)
{
	struct gateway *gw = remote->peer->gw;
	struct ahp_mode mode = {0};
	char key[OUT_KEY_BYTES];
	struct out_session *s;

	/* One whose sender is gone is of an unknown model. */
	ahp_peer_mode(remote->agent->agent, message->m.peer, &mode);
	key_of(key, &mode.identity);
	s = find(remote, key);
	s->used_ns = gw->now_ns;
	s->last_sender = message->m.peer;
	if (s->state == OUT_READY && gw->now_ns > s->expires_ns)
		s->state = OUT_NONE;
	return s;
}

void out_sessions_forget(struct out_peer *peer)
{
	for (struct out_remote *r = peer->remotes; r; r = r->next)
		for (int i = 0; i < OUT_SESSIONS; i++)
			if (r->session[i].state == OUT_READY)
				r->session[i].state = OUT_NONE;
}

void out_session_fall(struct out_session *s, const struct avp_fallback *f)
{
	struct gateway *gw = s->remote->peer->gw;
	char shown[GW_SHOWN_BYTES];

	s->json = true;
	snprintf(s->reason, sizeof(s->reason),
		 "%s has asked for JSON: %.*s (perplexity %g)", s->remote->id,
		 (int)(f->reason.len < 100 ? f->reason.len : 100),
		 f->reason.data ? f->reason.data : "", f->perplexity_score);
	gw->metrics.out_fallbacks++;
	gw_log(&gw->log, GW_LOG_INFO, "fallback", "agent=%s reason=%s",
	       s->remote->id, gw_shown(shown, f->reason));
}

/* ---- what the answer says ----------------------------------------------- */

static enum avp_dialect dialect_of(const struct gw_conf_peer *conf,
				   struct avp_str version)
{
	if (conf->dialect != GW_DIALECT_AUTO)
		return conf->dialect == GW_DIALECT_0_4 ? AVP_DIALECT_0_4
						       : AVP_DIALECT_0_2;
	return gw_dialect_of(version);
}

static int read_members(const struct avp_json *root, struct avp_str *id,
			struct avp_str *version, struct avp_identity *identity,
			struct avp_reason *why)
{
	const struct avp_json *object = NULL;
	bool success = true;
	int err = avp_json_expect_object(root, "a handshake's answer", why);

	if (!err)
		err = avp_json_get_bool(root, "success", &success, why);
	if (err >= 0 && !success)
		return avp__fail(why, AVP_REJECTED,
				 "its answer to the handshake says success: "
				 "false");
	if (err >= 0)
		err = avp_json_get_string(root, "session_id", id, why);
	if (err >= 0)
		err = avp_json_get_string(root, "avp_version", version, why);
	if (err >= 0)
		err = avp_json_get_object(root, "identity", &object, why);
	if (err < 0)
		return err;
	return object ? avp_identity_read(identity, object, why) : 0;
}

/*
 * As links do (ahp_peer_mode()): what two models cannot share is refused, what
 * is not known is not.
 */
static void resolve(struct out_session *s, const struct avp_identity *local,
		    const struct avp_identity *remote)
{
	const struct gw_conf_peer *conf = s->remote->peer->conf;
	struct avp_resolution r;

	avp_resolve(local, remote, 0, &r);
	s->json = r.mode != AVP_MODE_LATENT && avp__contradict(local, remote);
	s->kv_compatible = r.mode != AVP_MODE_LATENT || r.kv_compatible;
	snprintf(s->reason, sizeof(s->reason), "%s", r.reason);
	if (conf->mode == GW_MODE_AUTO)
		return;
	s->json = conf->mode == GW_MODE_JSON;
	snprintf(s->reason, sizeof(s->reason),
		 "the configuration says mode: "
		 "%s",
		 s->json ? "json" : "latent");
}

/*
 * The reference's answer is the identity that it was told: of its own model,
 * which other local agents would be held against, that says nothing.
 */
static bool is_echo(const struct avp_identity *asked,
		    const struct avp_identity *answer)
{
	return avp_str_equal(asked->model_hash, answer->model_hash) &&
	       avp_str_equal(asked->model_family, answer->model_family) &&
	       asked->hidden_dim == answer->hidden_dim &&
	       asked->num_layers == answer->num_layers;
}

static void take_answer(struct out_session *s, const struct out_request *r,
			struct out_verdict *v)
{
	struct avp_json_options options = {.size = sizeof(options),
					   .max_depth = 64,
					   .max_bytes = JSON_MAX};
	struct gateway *gw = s->remote->peer->gw;
	struct avp_str id = {0}, version = avp_str_of(r->version);
	struct avp_identity remote = {0};
	struct avp_json_doc *doc;
	struct avp_reason why;
	int err = avp_json_parse(&doc, r->body.data ? r->body.data : "",
				 r->body.len, &options, &why);

	if (!err) {
		err = read_members(avp_json_root(doc), &id, &version, &remote,
				   &why);
		if (!err) {
			s->dialect = dialect_of(s->remote->peer->conf, version);
			snprintf(s->id, sizeof(s->id), "%.*s", (int)id.len,
				 id.data ? id.data : "");
			resolve(s, &s->asked.identity, &remote);
			out_remote_answered(s->remote,
					    is_echo(&s->asked.identity, &remote)
						    ? NULL
						    : &remote);
		}
		avp_json_free(doc);
	}
	if (err) {
		v->code = err == AVP_REJECTED ? err : AVP_DESERIALIZATION_ERROR;
		snprintf(v->text, sizeof(v->text),
			 "%s cannot be understood in its handshake: %.150s",
			 s->remote->peer->conf->url.text, why.text);
		return;
	}
	s->state = OUT_READY;
	s->expires_ns = gw_clock_ns() + s->remote->peer->conf->session_ns;
	gw_log(&gw->log, GW_LOG_INFO, "handshake",
	       "agent=%s takes=%s dialect=%s path=%s http=%s", s->remote->id,
	       s->json ? "text" : "frames", avp_dialect_name(s->dialect),
	       s->remote->peer->plain ? "plain" : "agent",
	       s->remote->peer->http2 ? "2" : "1.1");
}

/* ---- asking ------------------------------------------------------------- */

/* A server that does not know paths of agents: the SDK's. */
static bool is_plain(struct out_peer *peer, const struct out_request *r)
{
	return r->code == CURLE_OK && r->status == 404 && !peer->plain &&
	       peer->conf->path == GW_PATH_AUTO &&
	       !(r->body.len && strstr(r->body.data, "AGENT_NOT_FOUND"));
}

static void ask(struct out_session *s);

static void release_waiting(struct out_session *s, const struct out_verdict *v)
{
	struct out_message *m;
	struct out_verdict copy;

	while ((m = s->waiting.first)) {
		if (!v->code) {
			out_message_queue(m);
			continue;
		}
		out_unlist(m);
		m->attempts++;
		copy = *v;
		out_message_judge(m, &copy);
	}
}

static void asked_done(struct out_request *r)
{
	struct out_session *s = r->arg;
	struct out_peer *peer = s->remote->peer;
	struct gateway *gw = peer->gw;
	char shown[GW_SHOWN_BYTES];
	struct out_verdict v = {0};

	s->request = NULL;
	s->state = OUT_NONE;
	out_peer_count(peer, -1);
	if (is_plain(peer, r)) {
		peer->plain = true;
		ask(s);
		return;
	}
	gw->metrics.out_handshakes++;
	out_judge_status(r, &v);
	if (!v.code)
		take_answer(s, r, &v);
	if (v.code) {
		gw->metrics.out_handshakes_failed++;
		gw_log(&gw->log, GW_LOG_WARNING, "handshake_failed",
		       "agent=%s code=%s reason=%s", s->remote->id,
		       avp_error_name(v.code),
		       gw_shown(shown, avp_str_of(v.text)));
		out_remote_answered(s->remote, NULL);
	}
	release_waiting(s, &v);
	gw_ready_add(gw, &peer->pump);
}

static void no_memory(struct out_session *s)
{
	struct out_verdict v = {.code = AVP_NO_MEMORY, .retry = true};

	snprintf(v.text, sizeof(v.text), "no memory for a handshake");
	out_remote_answered(s->remote, NULL);
	release_waiting(s, &v);
}

/* The HELLO of the model that s->asked names. */
static void ask(struct out_session *s)
{
	struct out_peer *peer = s->remote->peer;
	enum avp_dialect dialect = dialect_of(peer->conf, (struct avp_str){0});
	struct out_request *r = out_request_new(peer);
	struct avp_hello hello = {
		.agent_id = avp_str_of(s->asked_by),
		.avp_version = avp_str_of(out_version(dialect)),
		.has_identity = true,
		.identity = s->asked.identity,
	};
	char url[OUT_URL_BYTES];

	if (!r || avp_hello_write(&r->own, &hello)) {
		if (r)
			out_request_free(r);
		no_memory(s);
		return;
	}
	r->piece[0] = r->own.data;
	r->piece_bytes[0] = r->own.len;
	r->done = asked_done;
	r->arg = s;
	out_request_field(r, "Content-Type", avp_str_of("application/json"));
	out_fields(r, s->asked_by, dialect);
	out_url(url, s->remote, "handshake");
	if (out_request_start(r, url)) {
		no_memory(s);
		return;
	}
	s->request = r;
	s->state = OUT_ASKING;
	out_peer_count(peer, 1);
}

static struct avp_str copy_text(char *to, size_t cap, struct avp_str from)
{
	snprintf(to, cap, "%.*s", (int)from.len, from.data ? from.data : "");
	return avp_str_of(to);
}

void out_session_ask(struct out_session *s, const char *agent_id,
		     const struct avp_identity *identity)
{
	struct out_model *asked = &s->asked;

	asked->identity = *identity;
	asked->identity.model_family = copy_text(
		asked->family, sizeof(asked->family), identity->model_family);
	asked->identity.model_hash = copy_text(asked->hash, sizeof(asked->hash),
					       identity->model_hash);
	asked->identity.model_id =
		copy_text(asked->id, sizeof(asked->id), identity->model_id);
	asked->identity.tokenizer_hash = (struct avp_str){0};
	snprintf(s->asked_by, sizeof(s->asked_by), "%s", agent_id);
	ask(s);
}

void out_remote_probe(struct out_remote *remote)
{
	struct avp_identity nobody = {0};
	struct out_session *s;
	char key[OUT_KEY_BYTES];

	key_of(key, &nobody);
	s = find(remote, key);
	if (s->state == OUT_NONE)
		out_session_ask(s, gw_conf_id(remote->peer->gw->conf), &nobody);
}
