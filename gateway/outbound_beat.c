/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How remote agents are: alive, stuck, dead, or never seen. Whatever comes from
 * one tells that it lives. One that was silent for half an interval is asked,
 * by a HEARTBEAT, which its gateway answers for it (gateway.h); a server that
 * knows no HEARTBEAT, as the SDK's, is asked for GET /health, and speaks for
 * all that are behind it. Silence counts by the clock of this host, as
 * <avp/message.h> says.
 */
#include <stdio.h>
#include <string.h>

#include "gateway/outbound.h"

const char *out_state_name(enum ahp_liveness state)
{
	static const char *const names[] = {"never_seen", "alive", "stuck",
					    "dead"};

	return names[state];
}

enum ahp_liveness out_remote_state(const struct out_remote *remote)
{
	const struct gateway *gw = remote->peer->gw;
	enum ahp_liveness by_clock = ahp_heartbeat_liveness(
		gw->out->beats, avp_str_of(remote->id),
		gw->conf->ahp.heartbeat_interval_ns, gw_clock_ns());

	if (!remote->is)
		return AHP_NEVER_SEEN;
	/* The worse of both: they grow from alive to dead. */
	return by_clock > remote->is ? by_clock : remote->is;
}

void out_remote_beats(struct out_remote *remote)
{
	if (remote->agent)
		ahp_agent_set_beating(remote->agent->agent,
				      remote->told != AHP_STUCK &&
					      remote->told != AHP_DEAD);
}

static void tell(struct out_remote *remote)
{
	enum ahp_liveness state = out_remote_state(remote);

	if (state == remote->told)
		return;
	gw_log(&remote->peer->gw->log,
	       state == AHP_ALIVE ? GW_LOG_INFO : GW_LOG_WARNING, "liveness",
	       "agent=%s state=%s was=%s url=%s", remote->id,
	       out_state_name(state), out_state_name(remote->told),
	       remote->peer->conf->url.text);
	remote->told = state;
	out_remote_beats(remote);
}

/* That there is no memory to remember it makes it older, and not younger. */
static void seen(struct out_remote *remote, enum ahp_liveness is)
{
	struct gateway *gw = remote->peer->gw;

	remote->seen_ns = gw_clock_ns();
	if (ahp_heartbeat_update(gw->out->beats, avp_str_of(remote->id),
				 remote->seen_ns))
		return;
	remote->is = is;
	tell(remote);
}

void out_remote_heard(struct out_remote *remote)
{
	seen(remote, AHP_ALIVE);
}

void gw_outbound_heard(struct gw_agent *agent)
{
	if (agent->remote)
		out_remote_heard(agent->remote);
}

/* ---- what the answers say ----------------------------------------------- */

static bool has_one_voice(const struct out_peer *peer)
{
	return peer->plain || peer->deaf;
}

void out_beat_answered(struct out_peer *peer, const struct out_request *r)
{
	if (r->code) {
		peer->deaf = false; /* another may be there next time */
		return;
	}
	if (!has_one_voice(peer) || r->status >= 500)
		return;
	for (struct out_remote *i = peer->remotes; i; i = i->next)
		out_remote_heard(i);
}

static bool says(const struct out_request *r, const char *outcome)
{
	return r->status == 200 && !strcmp(r->outcome, outcome);
}

/* An answer of somebody else's, in between: it says nothing of the agent. */
static bool is_busy(const struct out_request *r)
{
	return r->status == 408 || r->status == 429 || r->status >= 500;
}

/* What the answer to a HEARTBEAT tells of the remote agent, and of its server. */
static void learn(struct out_remote *remote, const struct out_request *r)
{
	if (says(r, GW_OUTCOME_ALIVE))
		seen(remote, AHP_ALIVE);
	else if (says(r, GW_OUTCOME_STUCK) || r->status == 504)
		seen(remote, AHP_STUCK);
	else if (r->status == 404 && r->body.len &&
		 strstr(r->body.data, "AGENT_NOT_FOUND"))
		remote->is = remote->is ? AHP_DEAD : AHP_NEVER_SEEN;
	else if (!is_busy(r))
		remote->peer->deaf = true;
}

static void beat_done(struct out_request *r)
{
	struct out_remote *remote = r->arg;

	remote->beating = false;
	if (!r->code)
		learn(remote, r);
	tell(remote);
}

/* ---- asking ------------------------------------------------------------- */

static int write_beat(struct out_request *r, struct out_remote *remote)
{
	const struct ahp_heartbeat_payload payload = {.timestamp =
							      ahp_time_now()};
	struct out_about about = {
		.method = AHP_HEARTBEAT,
		.source = avp_str_of(gw_conf_id(remote->peer->gw->conf)),
		.target = avp_str_of(remote->id),
		.token_limit = AHP_DEFAULT_TOKEN_LIMIT,
		.time = payload.timestamp,
	};
	struct avp_buf content = {0};
	struct avp_json_writer w;
	int err = ahp_id_random(about.id);

	avp_json_begin(&w, &content, AVP_JSON_PYTHON);
	ahp_heartbeat_put(&w, &payload);
	if (!err)
		err = avp_json_finish(&w);
	if (!err)
		err = out_about_text(&about, AVP_DIALECT_0_2,
				     (struct avp_str){0}, avp_buf_str(&content),
				     r);
	out_about_fields(&about, r);
	out_request_field(r, "AHP-Wait", avp_str_of(GW_WAIT_LIVENESS));
	avp_buf_fini(&content);
	return err;
}

/* Without memory for it, its next time is its next chance. */
static void send_beat(struct out_remote *remote)
{
	struct out_peer *peer = remote->peer;
	struct out_request *r = out_request_new(peer);
	char url[OUT_URL_BYTES];

	if (!r)
		return;
	r->done = beat_done;
	r->arg = remote;
	out_fields(r, gw_conf_id(peer->gw->conf), AVP_DIALECT_0_2);
	if (write_beat(r, remote)) {
		out_request_free(r);
		return;
	}
	out_url(url, remote, "text");
	remote->beating = !out_request_start(r, url);
	peer->gw->metrics.out_heartbeats += remote->beating;
}

static void health_done(struct out_request *r)
{
	(void)r; /* out_beat_answered() has seen it */
}

static void ask_health(struct out_peer *peer)
{
	struct out_request *r = out_request_new(peer);
	char url[OUT_URL_BYTES];

	if (!r)
		return;
	r->done = health_done;
	out_fields(r, gw_conf_id(peer->gw->conf), AVP_DIALECT_0_2);
	snprintf(url, sizeof(url), "%.2000s/health", peer->conf->url.text);
	out_request_start(r, url);
}

/*
 * Half an interval: an answer that comes a little later than the last one did
 * must not look as if it had been left out.
 */
static void beat_fired(struct gw_timer *timer)
{
	struct out_peer *peer =
		(struct out_peer *)((char *)timer -
				    offsetof(struct out_peer, beat));
	struct gateway *gw = peer->gw;
	int64_t every_ns = gw->conf->ahp.heartbeat_interval_ns;

	if (peer->leaving)
		return;
	gw_timer_set(&gw->timers, timer, gw->now_ns + every_ns);
	if (has_one_voice(peer) && gw->now_ns - peer->heard_ns >= every_ns / 2)
		ask_health(peer);
	for (struct out_remote *r = peer->remotes; r; r = r->next) {
		tell(r);
		if (!has_one_voice(peer) && !r->beating &&
		    gw->now_ns - r->seen_ns >= every_ns / 2)
			send_beat(r);
	}
}

void out_beat_open(struct out_peer *peer)
{
	struct gateway *gw = peer->gw;

	peer->beat.fire = beat_fired;
	gw_timer_set(&gw->timers, &peer->beat,
		     gw->now_ns + gw->conf->ahp.heartbeat_interval_ns);
}

void out_beat_close(struct out_peer *peer)
{
	gw_timer_clear(&peer->gw->timers, &peer->beat);
}
