/* SPDX-License-Identifier: Apache-2.0 */
/* The peers of the configuration, and the proxies of the agents behind them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/outbound.h"

#define MS	   INT64_C(1000000)
#define REOPEN_NS  (1000 * MS) /* a name that somebody else holds */
#define LEAVING_NS (20 * MS)   /* between looks at a peer that leaves */

/* ---- proxies ------------------------------------------------------------ */

static struct out_remote *remote_of(struct gw_timer *timer)
{
	return (struct out_remote *)((char *)timer -
				     offsetof(struct out_remote, timer));
}

static void open_proxy(struct out_remote *remote,
		       const struct avp_identity *identity)
{
	struct gateway *gw = remote->peer->gw;
	char shown[GW_SHOWN_BYTES];
	struct avp_reason why;
	int err = gw_agent_open(gw, remote->id, identity, remote,
				&remote->agent, &why);

	if (!err) {
		if (gw->dlq)
			ahp_agent_keep_dlq(remote->agent->agent, gw->dlq, NULL);
		out_remote_beats(remote);
		return;
	}
	gw_log(&gw->log, GW_LOG_ERROR, "proxy", "agent=%s code=%s reason=%s",
	       remote->id, avp_error_name(err),
	       gw_shown(shown, avp_str_of(why.text)));
	gw_timer_set(&gw->timers, &remote->timer, gw_clock_ns() + REOPEN_NS);
}

static void reopen_fired(struct gw_timer *timer)
{
	struct out_remote *remote = remote_of(timer);

	if (!remote->peer->leaving && !remote->agent)
		open_proxy(remote, NULL);
}

/*
 * Only now local agents can find it: they are to know its model when they
 * link. A peer that does not answer is there all the same, of an unknown
 * model.
 */
void out_remote_answered(struct out_remote *remote,
			 const struct avp_identity *identity)
{
	char shown[GW_SHOWN_BYTES];
	struct avp_reason why;

	remote->probed = true;
	if (remote->peer->leaving)
		return;
	if (!remote->agent) {
		open_proxy(remote, identity);
		return;
	}
	if (identity &&
	    ahp_agent_set_identity(remote->agent->agent, identity, &why))
		gw_log(&remote->peer->gw->log, GW_LOG_WARNING, "identity",
		       "agent=%s reason=%s", remote->id,
		       gw_shown(shown, avp_str_of(why.text)));
}

/* ---- peers -------------------------------------------------------------- */

static int remote_new(struct out_peer *peer, const char *id,
		      struct avp_reason *why)
{
	struct out_remote *remote = calloc(1, sizeof(*remote));

	if (!remote)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for a peer");
	remote->peer = peer;
	remote->timer.fire = reopen_fired;
	snprintf(remote->id, sizeof(remote->id), "%s", id);
	remote->next = peer->remotes;
	peer->remotes = remote;
	return 0;
}

static void peer_free(struct out_peer *peer)
{
	struct out_peer **at = &peer->out->peers;
	struct out_remote *remote;

	out_peer_close(peer);
	while ((remote = peer->remotes)) {
		peer->remotes = remote->next;
		gw_timer_clear(&peer->gw->timers, &remote->timer);
		if (remote->agent)
			gw_agent_close(remote->agent);
		free(remote);
	}
	while (*at != peer)
		at = &(*at)->next;
	*at = peer->next;
	gw_conf_free(peer->whole);
	free(peer);
}

static int peer_new(struct gw_outbound *out, struct gw_conf *whole,
		    const struct gw_conf_peer *conf, struct avp_reason *why)
{
	struct out_peer *peer = calloc(1, sizeof(*peer));
	int err = 0;

	if (!peer)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for a peer");
	*peer = (struct out_peer){
		.out = out, .gw = out->gw, .conf = conf, .next = out->peers};
	peer->whole = gw_conf_ref(whole);
	out->peers = peer;
	for (uint32_t i = 0; i < conf->agents.count && !err; i++)
		err = remote_new(peer, conf->agents.item[i].text, why);
	if (!err)
		err = out_peer_open(peer, why);
	if (err) {
		peer_free(peer);
		return err;
	}
	for (struct out_remote *r = peer->remotes; r; r = r->next)
		out_remote_probe(r);
	return 0;
}

/* ---- reload ------------------------------------------------------------- */

static bool text_same(const struct avp__config_text *a,
		      const struct avp__config_text *b)
{
	return !a->text || !b->text ? a->text == b->text
				    : !strcmp(a->text, b->text);
}

/* Files of TLS are read at each connection: only their names count. */
static bool same(const struct gw_conf_peer *a, const struct gw_conf_peer *b)
{
	const struct gw_conf_tls *s = &a->tls, *t = &b->tls;

	if (!text_same(&a->url, &b->url) || a->agents.count != b->agents.count)
		return false;
	for (uint32_t i = 0; i < a->agents.count; i++)
		if (!text_same(&a->agents.item[i], &b->agents.item[i]))
			return false;
	return text_same(&s->ca, &t->ca) && text_same(&s->cert, &t->cert) &&
	       text_same(&s->key, &t->key) &&
	       text_same(&s->pinned, &t->pinned) &&
	       !memcmp(&a->http, &b->http,
		       sizeof(*a) - offsetof(struct gw_conf_peer, http));
}

static bool is_idle(const struct out_peer *peer)
{
	if (peer->messages)
		return false;
	for (struct out_remote *r = peer->remotes; r; r = r->next)
		if (r->agent && r->agent->users)
			return false;
	return true;
}

/* Names that the one that has left may have held. */
static void open_missing(struct gw_outbound *out)
{
	for (struct out_peer *p = out->peers; p; p = p->next)
		for (struct out_remote *r = p->remotes; r; r = r->next)
			if (r->probed && !r->agent && !p->leaving)
				open_proxy(r, NULL);
}

static void reap_fired(struct gw_timer *timer)
{
	struct gw_outbound *out =
		(struct gw_outbound *)((char *)timer -
				       offsetof(struct gw_outbound, reap));
	struct out_peer *p, *next;
	bool again = false;

	for (p = out->peers; p; p = next) {
		next = p->next;
		if (p->leaving && is_idle(p)) {
			peer_free(p);
			open_missing(out);
		} else
			again |= p->leaving;
	}
	if (again)
		gw_timer_set(&out->gw->timers, timer,
			     out->gw->now_ns + LEAVING_NS);
}

static void leave(struct out_peer *peer)
{
	struct gw_outbound *out = peer->out;

	peer->leaving = true;
	for (struct out_remote *r = peer->remotes; r; r = r->next)
		if (r->agent)
			r->agent->closing = true;
	out_peer_drain(peer);
	gw_timer_set(&out->gw->timers, &out->reap,
		     out->gw->now_ns + LEAVING_NS);
}

/* The one of the new configuration that is the same peer, or NULL. */
static const struct gw_conf_peer *find_same(const struct gw_conf *next,
					    const struct gw_conf_peer *of)
{
	for (uint32_t i = 0; i < next->peers; i++)
		if (same(&next->peer[i], of))
			return &next->peer[i];
	return NULL;
}

static bool is_there(const struct gw_outbound *out,
		     const struct gw_conf_peer *conf)
{
	for (struct out_peer *p = out->peers; p; p = p->next)
		if (p->conf == conf)
			return true;
	return false;
}

void gw_outbound_reload(struct gateway *gw, struct gw_conf *next)
{
	struct gw_outbound *out = gw->out;
	const struct gw_conf_peer *conf;
	char shown[GW_SHOWN_BYTES];
	struct avp_reason why;

	for (struct out_peer *p = out->peers; p; p = p->next) {
		conf = p->leaving ? NULL : find_same(next, p->conf);
		if (!conf) {
			leave(p);
			continue;
		}
		p->conf = conf;
		gw_conf_free(p->whole);
		p->whole = gw_conf_ref(next);
	}
	for (uint32_t i = 0; i < next->peers; i++)
		if (!is_there(out, &next->peer[i]) &&
		    peer_new(out, next, &next->peer[i], &why))
			gw_log(&gw->log, GW_LOG_ERROR, "peer",
			       "url=%s reason=%s", next->peer[i].url.text,
			       gw_shown(shown, avp_str_of(why.text)));
}

/* ---- the whole ---------------------------------------------------------- */

int gw_outbound_open(struct gateway *gw, struct avp_reason *why)
{
	struct gw_outbound *out = calloc(1, sizeof(*out));
	int err = 0;

	if (!out || curl_global_init(CURL_GLOBAL_DEFAULT)) {
		free(out);
		return avp__fail(why, AVP_NO_MEMORY, "no memory for outbound");
	}
	gw->out = out;
	out->gw = gw;
	out->reap.fire = reap_fired;
	out->zstd = avp_zstd_new();
	if (!out->zstd || ahp_heartbeats_new(&out->beats))
		return avp__fail(why, AVP_NO_MEMORY, "no memory for outbound");
	for (uint32_t i = 0; i < gw->conf->peers && !err; i++)
		err = peer_new(out, gw->conf, &gw->conf->peer[i], why);
	return err;
}

void gw_outbound_close(struct gateway *gw)
{
	struct gw_outbound *out = gw->out;

	while (out->peers)
		peer_free(out->peers);
	gw_timer_clear(&gw->timers, &out->reap);
	avp_zstd_free(out->zstd);
	ahp_heartbeats_free(out->beats);
	free(out);
	gw->out = NULL;
	curl_global_cleanup();
}

void gw_outbound_drain(struct gateway *gw)
{
	gw->out->draining = true;
	for (struct out_peer *p = gw->out->peers; p; p = p->next)
		out_peer_drain(p);
}

bool gw_outbound_idle(const struct gateway *gw)
{
	for (struct out_peer *p = gw->out->peers; p; p = p->next)
		if (p->messages)
			return false;
	return true;
}

bool gw_outbound_ready(const struct gateway *gw)
{
	for (struct out_peer *p = gw->out->peers; p; p = p->next)
		for (struct out_remote *r = p->remotes; r; r = r->next)
			if (!r->probed)
				return false;
	return true;
}

void gw_outbound_message(struct gateway *gw, struct gw_message *message)
{
	struct out_remote *remote = message->to->remote;

	(void)gw;
	out_peer_take(remote->peer, remote, message);
}

struct gw_agent *gw_outbound_agent(struct gateway *gw, struct avp_str id)
{
	for (struct out_peer *p = gw->out->peers; p; p = p->next)
		for (struct out_remote *r = p->remotes; r; r = r->next)
			if (r->agent && !p->leaving &&
			    avp_str_equal(avp_str_of(r->id), id))
				return r->agent;
	return NULL;
}

bool gw_outbound_fallback(struct gateway *gw, const struct avp_fallback *f)
{
	bool found = false;

	for (struct out_peer *p = gw->out->peers; p; p = p->next)
		for (struct out_remote *r = p->remotes; r; r = r->next)
			for (int i = 0; i < OUT_SESSIONS; i++) {
				struct out_session *s = &r->session[i];

				if (s->state != OUT_READY || !*s->id ||
				    !avp_str_equal(avp_str_of(s->id),
						   f->session_id))
					continue;
				found = true;
				out_session_fall(s, f);
				out_tell_fallback(s, f);
			}
	return found;
}

static void remote_metrics(const struct out_remote *r, struct avp_buf *to)
{
	enum ahp_liveness state = out_remote_state(r);
	char label[128];

	for (unsigned i = AHP_NEVER_SEEN; i <= AHP_DEAD; i++) {
		snprintf(label, sizeof(label), "agent=\"%s\",state=\"%s\"",
			 r->id, out_state_name(i));
		gw_metric(to, "remote_agent_state", label, state == i);
	}
}

void gw_outbound_metrics(struct gateway *gw, struct avp_buf *to)
{
	char label[300];

	gw_metric_head(to, "peer_up", "gauge",
		       "1: requests to the peer have answers.");
	for (struct out_peer *p = gw->out->peers; p; p = p->next) {
		snprintf(label, sizeof(label), "url=\"%.250s\"",
			 p->conf->url.text);
		gw_metric(to, "peer_up", label, !p->failures && p->heard_ns);
	}
	gw_metric_head(to, "peer_messages", "gauge",
		       "Messages for the peer that are not settled.");
	for (struct out_peer *p = gw->out->peers; p; p = p->next) {
		snprintf(label, sizeof(label), "url=\"%.250s\"",
			 p->conf->url.text);
		gw_metric(to, "peer_messages", label, p->messages);
	}
	gw_metric_head(to, "remote_agent_state", "gauge",
		       "1: so the agent is, by its heartbeat.");
	for (struct out_peer *p = gw->out->peers; p; p = p->next)
		for (struct out_remote *r = p->remotes; r; r = r->next)
			if (!p->leaving)
				remote_metrics(r, to);
}
