/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A message's way to a peer. It is in the peer's queue, or waits for a
 * handshake, or is under way, or waits for its next attempt; then it has
 * ended, and its sender is told. It keeps its sender's memory and
 * acknowledgement until then.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway/outbound.h"

#define MS	      INT64_C(1000000)
#define SECOND	      (1000 * MS)
#define FAILURES_OPEN 5		    /* in a row: then the peer has a rest */
#define REST_MAX_NS   (30 * SECOND) /* between two looks at a dead peer */
#define RETRY_MAX_NS  (60 * SECOND)
#define TELL_AGAIN_NS (10 * MS)

/* ---- lists -------------------------------------------------------------- */

void out_unlist(struct out_message *m)
{
	if (!m->list)
		return;
	*m->link = m->next;
	if (m->next)
		m->next->link = m->link;
	else
		m->list->end = m->link;
	m->list = NULL;
}

/* To the end of a list, out of any other. */
static void list_add(struct out_list *list, struct out_message *m)
{
	out_unlist(m);
	if (!list->first)
		list->end = &list->first;
	m->next = NULL;
	m->link = list->end;
	*list->end = m;
	list->end = &m->next;
	m->list = list;
}

/* ---- how much ----------------------------------------------------------- */

static bool is_full(const struct out_peer *peer)
{
	return peer->leaving || peer->out->draining ||
	       peer->messages >= peer->conf->in_flight ||
	       peer->bytes >= peer->conf->in_flight_bytes;
}

/* Senders wait in their rings while the peer has enough: QUEUE_FULL to them. */
static void set_paused(struct out_peer *peer)
{
	bool full = is_full(peer);

	for (struct out_remote *r = peer->remotes; r; r = r->next) {
		if (!r->agent || r->agent->paused == full)
			continue;
		r->agent->paused = full;
		r->agent->due = !full;
	}
}

void out_peer_count(struct out_peer *peer, int more)
{
	peer->active += (uint32_t)more;
}

/* Requests at once: HTTP/2 carries them side by side. */
static uint32_t most_active(const struct out_peer *peer)
{
	if (peer->failures >= FAILURES_OPEN)
		return 1;
	return peer->http2 ? peer->conf->in_flight : peer->conf->connections;
}

/* ---- the breaker -------------------------------------------------------- */

/* d, doubled n times up to max, and up to half of that more by chance. */
static int64_t back_off(int64_t d, uint32_t n, int64_t max)
{
	while (n-- && d < max)
		d *= 2;
	d = d < max ? d : max;
	return d + (int64_t)((double)d * 0.5 * ((double)random() / RAND_MAX));
}

static bool is_open(struct out_peer *peer)
{
	return peer->open_until_ns > peer->gw->now_ns;
}

static void failed(struct out_peer *peer, const struct out_request *r)
{
	struct gateway *gw = peer->gw;
	char shown[GW_SHOWN_BYTES];

	out_sessions_forget(peer);
	peer->http2 = false;
	if (++peer->failures < FAILURES_OPEN)
		return;
	if (peer->failures == FAILURES_OPEN)
		gw_log(&gw->log, GW_LOG_WARNING, "peer_down",
		       "url=%s failures=%u reason=%s", peer->conf->url.text,
		       peer->failures,
		       gw_shown(shown, avp_str_of(out_request_error(r))));
	peer->open_until_ns =
		gw_clock_ns() + back_off(peer->conf->retry_delay_ns,
					 peer->failures - FAILURES_OPEN,
					 REST_MAX_NS);
	gw_timer_set(&gw->timers, &peer->wake, peer->open_until_ns);
}

void out_peer_heard(struct out_peer *peer, const struct out_request *r)
{
	struct gateway *gw = peer->gw;

	out_beat_answered(peer, r);
	if (r->code && !r->too_large) {
		failed(peer, r);
		return;
	}
	peer->heard_ns = gw_clock_ns();
	if (peer->failures >= FAILURES_OPEN)
		gw_log(&gw->log, GW_LOG_INFO, "peer_up", "url=%s",
		       peer->conf->url.text);
	peer->failures = 0;
	peer->open_until_ns = 0;
	gw_ready_add(gw, &peer->pump);
}

/* ---- the end of a message ----------------------------------------------- */

static void message_free(struct out_message *m)
{
	struct out_peer *peer = m->remote->peer;

	out_unlist(m);
	*m->all_link = m->all_next;
	if (m->all_next)
		m->all_next->all_link = m->all_link;
	gw_timer_clear(&peer->gw->timers, &m->timer);
	out_body_free(m);
	avp_buf_fini(&m->verdict.payload);
	peer->messages--;
	peer->bytes -= m->bytes;
	m->remote->messages--;
	gw_message_free(m->message);
	free(m);
	set_paused(peer);
	gw_ready_add(peer->gw, &peer->pump);
}

static void count_end(struct out_message *m)
{
	struct gateway *gw = m->remote->peer->gw;
	char id[AHP_ID_TEXT_BYTES], shown[GW_SHOWN_BYTES];

	ahp_id_write(m->id, id);
	if (!m->verdict.code) {
		out_remote_heard(m->remote);
		gw->metrics.out_accepted++;
		gw_log(&gw->log, GW_LOG_DEBUG, "sent",
		       "agent=%s source=%s id=%s bytes=%llu attempts=%u",
		       m->remote->id, m->message->m.source, id,
		       (unsigned long long)m->bytes, m->attempts);
		return;
	}
	gw->metrics.out_refused++;
	gw_log(&gw->log, GW_LOG_WARNING, "not_sent",
	       "agent=%s source=%s id=%s bytes=%llu attempts=%u code=%s "
	       "reason=%s",
	       m->remote->id, m->message->m.source, id,
	       (unsigned long long)m->bytes, m->attempts,
	       avp_error_name(m->verdict.code),
	       gw_shown(shown, avp_str_of(m->verdict.text)));
}

/* Tells the sender, until it has room to hear. */
static void settle(struct out_message *m)
{
	struct gateway *gw = m->remote->peer->gw;
	int64_t now_ns = gw_clock_ns();

	if (out_tell(m) == AVP_QUEUE_FULL && now_ns < m->deadline_ns &&
	    !m->remote->peer->out->draining) {
		gw_timer_set(&gw->timers, &m->timer, now_ns + TELL_AGAIN_NS);
		return;
	}
	if (m->verdict.code)
		gw_message_refuse(m->message, m->verdict.code);
	message_free(m);
}

static void end(struct out_message *m, struct out_verdict *v)
{
	m->ended = true;
	m->verdict = *v;
	*v = (struct out_verdict){0};
	out_unlist(m);
	out_body_free(m);
	count_end(m);
	/* What is accepted is the remote's: the sender need not wait for
	 * more. */
	if (!m->verdict.code) {
		gw_message_accept(m->message);
		ahp_release(m->message->to->agent, &m->message->m);
	}
	settle(m);
}

static void end_dead(struct out_message *m, struct out_verdict *v)
{
	m->verdict = *v;
	out_bury(m);
	m->verdict = (struct out_verdict){0};
	end(m, v);
}

/* ---- attempts ----------------------------------------------------------- */

void out_message_queue(struct out_message *m)
{
	struct out_peer *peer = m->remote->peer;

	m->waits = false;
	list_add(&peer->queue, m);
	gw_timer_clear(&peer->gw->timers, &m->timer);
	gw_timer_set(&peer->gw->timers, &m->timer, m->deadline_ns);
	gw_ready_add(peer->gw, &peer->pump);
}

void out_message_judge(struct out_message *m, struct out_verdict *v)
{
	struct out_peer *peer = m->remote->peer;
	const struct gw_conf_peer *conf = peer->conf;
	int64_t now_ns = gw_clock_ns(), wait_ns;

	if (!v->code || !v->retry) {
		end(m, v);
		return;
	}
	wait_ns = back_off(conf->retry_delay_ns,
			   m->attempts ? m->attempts - 1 : 0, RETRY_MAX_NS);
	if (wait_ns < v->after_ns)
		wait_ns = v->after_ns;
	if (m->attempts > conf->max_retries || peer->leaving ||
	    peer->out->draining || wait_ns > m->deadline_ns - now_ns) {
		end_dead(m, v);
		return;
	}
	peer->gw->metrics.out_retried++;
	out_unlist(m);
	m->waits = true;
	gw_timer_clear(&peer->gw->timers, &m->timer);
	gw_timer_set(&peer->gw->timers, &m->timer, now_ns + wait_ns);
	avp_buf_fini(&v->payload);
}

static void too_late(struct out_message *m)
{
	struct out_verdict v = {.code = AVP_TIMEOUT};

	snprintf(v.text, sizeof(v.text),
		 "agent %s: its peer %s was not to be had in time",
		 m->remote->id, m->remote->peer->conf->url.text);
	end_dead(m, &v);
}

static void message_due(struct gw_timer *timer)
{
	struct out_message *m =
		(struct out_message *)((char *)timer -
				       offsetof(struct out_message, timer));

	if (m->ended)
		settle(m);
	else if (m->waits)
		out_message_queue(m);
	else
		too_late(m);
}

static void message_done(struct out_request *r)
{
	struct out_message *m = r->arg;
	struct out_verdict v = {0};

	m->request = NULL;
	out_peer_count(r->peer, -1);
	out_judge(m, r, &v);
	out_body_free(m);
	out_message_judge(m, &v);
}

static void refuse(struct out_message *m, const struct avp_reason *why,
		   bool retry)
{
	struct out_verdict v = {.code = why->code, .retry = retry};

	snprintf(v.text, sizeof(v.text), "%s", why->text);
	out_message_judge(m, &v);
}

static void attempt(struct out_message *m, struct out_session *session)
{
	struct out_peer *peer = m->remote->peer;
	struct avp_reason why = {.code = AVP_NO_MEMORY,
				 .text = "no memory for a request"};
	struct out_request *r = out_request_new(peer);
	char url[OUT_URL_BYTES];
	const char *endpoint;
	int err;

	m->session = session;
	m->attempts++;
	gw_timer_clear(&peer->gw->timers, &m->timer);
	if (!r) {
		refuse(m, &why, true);
		return;
	}
	err = out_body(m, r, &endpoint, &why);
	if (err) {
		out_request_free(r);
		refuse(m, &why, err == AVP_NO_MEMORY);
		return;
	}
	out_url(url, m->remote, endpoint);
	r->done = message_done;
	r->arg = m;
	if (out_request_start(r, url)) {
		refuse(m, &why, true);
		return;
	}
	m->request = r;
	out_peer_count(peer, 1);
	peer->gw->metrics.out_bytes += m->bytes;
}

static void start(struct out_message *m)
{
	struct out_session *s = out_session_for(m->remote, m->message);
	struct ahp_mode mode = {0};

	out_unlist(m);
	if (s->state == OUT_READY) {
		attempt(m, s);
		return;
	}
	list_add(&s->waiting, m);
	if (s->state == OUT_ASKING)
		return;
	ahp_peer_mode(m->remote->agent->agent, m->message->m.peer, &mode);
	out_session_ask(s, m->message->m.source, &mode.identity);
}

static void pump(struct out_peer *peer)
{
	while (peer->queue.first && !is_open(peer) &&
	       peer->active < most_active(peer))
		start(peer->queue.first);
}

static void pump_run(struct gw_ready *item)
{
	pump((struct out_peer *)((char *)item -
				 offsetof(struct out_peer, pump)));
}

static void wake_fired(struct gw_timer *timer)
{
	struct out_peer *peer =
		(struct out_peer *)((char *)timer -
				    offsetof(struct out_peer, wake));

	gw_ready_add(peer->gw, &peer->pump);
}

/* ---- taking, opening, closing ------------------------------------------- */

void out_peer_take(struct out_peer *peer, struct out_remote *remote,
		   struct gw_message *message)
{
	struct out_message *m = calloc(1, sizeof(*m));
	struct gateway *gw = peer->gw;

	gw->metrics.out_messages++;
	if (!m) {
		gw_message_free(message);
		return;
	}
	m->message = message;
	m->remote = remote;
	m->bytes = message->m.body_bytes;
	m->timer.fire = message_due;
	m->deadline_ns = gw->now_ns + gw->conf->ahp.task_timeout_ns;
	ahp_message_id(&message->m, m->id);
	m->all_next = peer->all;
	m->all_link = &peer->all;
	if (peer->all)
		peer->all->all_link = &m->all_next;
	peer->all = m;
	peer->messages++;
	peer->bytes += m->bytes;
	remote->messages++;
	set_paused(peer);
	out_message_queue(m);
}

int out_peer_open(struct out_peer *peer, struct avp_reason *why)
{
	int err = out_http_open(peer, why);

	peer->pump.run = pump_run;
	peer->wake.fire = wake_fired;
	peer->plain = peer->conf->path == GW_PATH_PLAIN;
	if (!err)
		out_beat_open(peer);
	return err;
}

void out_peer_drain(struct out_peer *peer)
{
	struct out_message *m, *next;

	set_paused(peer);
	for (m = peer->all; m; m = next) {
		next = m->all_next;
		if (!m->ended && (m->waits || is_open(peer)) && !m->request)
			too_late(m);
	}
}

void out_peer_close(struct out_peer *peer)
{
	struct out_message *m;

	while ((m = peer->all)) {
		if (m->request)
			out_request_drop(m->request);
		m->request = NULL;
		if (m->ended)
			message_free(m);
		else
			too_late(m);
	}
	out_http_close(peer);
	gw_timer_clear(&peer->gw->timers, &peer->wake);
	out_beat_close(peer);
	gw_ready_remove(peer->gw, &peer->pump);
}
