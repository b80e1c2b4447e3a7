/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A link's life: its state, its sockets and what is said on them, the segments
 * that go over it, and its end by hang-up, poison or refusal. How it begins is
 * in greeting.c. Words that a peer says are copied off the socket by the
 * kernel; each is checked before it is used, and one that is wrong ends that
 * link alone.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ahp/agent_internal.h"
#include "ahp/link.h"
#include "ahp/retry.h"
#include "ring/lane_inline.h"

/* ---- making and freeing ------------------------------------------------- */

static void sock_ready(struct avp_watch *watch, uint32_t events)
{
	(void)events;
	((struct ahp__link *)watch->arg)->agent->own_calls++;
	ahp__link_listen(watch->arg, SERVE_TURN);
}

/* The process has ended, though a forked child may keep its socket open. */
static void pid_ready(struct avp_watch *watch, uint32_t events)
{
	struct ahp__link *link = watch->arg;
	struct ahp_agent *agent = link->agent;

	(void)events;
	agent->own_calls++;
	ahp__link_serve(link);
	for (uint32_t i = 0; i < agent->links; i++)
		if (agent->link[i] == link && link->sock >= 0)
			ahp__link_hang_up(link);
}

int ahp__link_watch(struct ahp__link *link, struct avp_reason *why)
{
	int error;

	link->sock_watch =
		(struct avp_watch){link->sock, AVP_READABLE, sock_ready, link};
	error = avp_loop_add(link->agent->loop, &link->sock_watch, why);
	if (error)
		return error;
	link->sock_watched = true;
	if (link->who.pidfd < 0)
		return 0;
	link->pid_watch = (struct avp_watch){link->who.pidfd, AVP_READABLE,
					     pid_ready, link};
	error = avp_loop_add(link->agent->loop, &link->pid_watch, why);
	link->pid_watched = !error;
	return error;
}

static void bell_rung(struct avp__bell *bell)
{
	((struct ahp__link *)bell->arg)->agent->own_calls++;
}

int ahp__link_hear_bell(struct ahp__link *link, struct avp_reason *why)
{
	int error;

	if (!link->agent->hears_words)
		return 0;
	link->bell = (struct avp__bell){.word = avp__lane_bell(&link->rx),
					.rung = bell_rung,
					.arg = link};
	error = avp__loop_bell_add(link->agent->loop, &link->bell, why);
	link->bell_added = !error;
	return error;
}

static void drop_bell(struct ahp__link *link)
{
	if (link->bell_added)
		avp__loop_bell_remove(link->agent->loop, &link->bell);
	link->bell_added = false;
}

static void unwatch(struct ahp__link *link)
{
	drop_bell(link);
	if (link->sock_watched)
		avp_loop_remove(link->agent->loop, &link->sock_watch);
	if (link->pid_watched)
		avp_loop_remove(link->agent->loop, &link->pid_watch);
	link->sock_watched = link->pid_watched = false;
}

struct ahp__link *ahp__link_new(struct ahp_agent *agent, bool ours,
				struct avp_reason *why)
{
	struct ahp__link *link;

	if (agent->links == LINKS_MAX) {
		avp__fail(why, AVP_QUEUE_FULL, "%u links are the limit",
			  LINKS_MAX);
		return NULL;
	}
	link = calloc(1, sizeof(*link));
	if (!link) {
		avp__fail(why, AVP_NO_MEMORY, "no memory for a link");
		return NULL;
	}
	link->agent = agent;
	link->token_limit = agent->options.token_limit;
	link->told = agent->identity;
	link->sock = -1;
	link->ours = ours;
	link->who.pidfd = -1;
	link->since_ns = ahp__now_ns();
	agent->link[agent->links++] = link;
	return link;
}

static void forget_unsettled(struct ahp__link *link)
{
	struct ahp__link **at = &link->agent->unsettled;

	while (*at && *at != link)
		at = &(*at)->next_unsettled;
	if (*at)
		*at = link->next_unsettled;
	link->unsettled = false;
}

static void leave_up(struct ahp__link *link)
{
	forget_unsettled(link);
	if (ahp__up_remove(link))
		link->agent->draining -= link->state == LINK_DRAINING;
}

static void close_socket(struct ahp__link *link)
{
	unwatch(link);
	if (link->sock >= 0)
		close(link->sock);
	link->sock = -1;
	avp_peer_close(&link->who);
	link->who.pidfd = -1;
}

/* ---- what was sent: its ledger ------------------------------------------ */

static void settled(void *arg, uint64_t sequence, uint64_t cookie,
		    enum avp_ack status, uint32_t count)
{
	struct ahp__link *link = arg;
	struct ahp_agent *agent = link->agent;

	if (status == AVP_ACK_RELEASED) {
		link->lent_bytes -= agent->body[(uint32_t)cookie].block.bytes;
		ahp__body_unref(agent, (uint32_t)cookie);
		return;
	}
	agent->stats.in_flight -= count;
	agent->stats.acked += status == AVP_ACK_ACCEPTED ? count : 0;
	agent->stats.rejected += status != AVP_ACK_ACCEPTED;
	if (LANE_UNLIKELY(cookie >> COOKIE_PARCEL_SHIFT))
		ahp__retry_settled(link, sequence, cookie, status);
}

int ahp__link_open_ledger(struct ahp__link *link, struct avp_reason *why)
{
	/* The peer's ack ring has two entries for each message that may be
	 * outstanding: its window bounds ours. */
	uint32_t window = link->tx.window < link->rx.window ? link->tx.window
							    : link->rx.window;

	if (avp_ledger_new(&link->ledger, window, link->tx.next, settled, link))
		return avp__fail(why, AVP_NO_MEMORY, "no memory for a ledger");
	return 0;
}

static void forget_body(void *arg, uint64_t sequence, uint64_t cookie,
			bool settled, bool released)
{
	struct ahp__link *link = arg;

	if (!settled)
		link->agent->stats.in_flight--;
	if (!settled && cookie >> COOKIE_PARCEL_SHIFT)
		ahp__retry_lost(link, sequence, cookie);
	if ((uint32_t)cookie && !released)
		ahp__body_unref(link->agent, (uint32_t)cookie);
}

/* What we sent and was not acknowledged is given up, its memory taken back. */
static void settle_accounts(struct ahp__link *link)
{
	if (!link->ledger)
		return;
	avp_ledger_drain(link->ledger, forget_body, link);
	link->lent_bytes = 0;
	if (link->peer) {
		avp_ledger_free(link->peer->ledger);
		link->peer->ledger = link->ledger;
		link->peer->ledger_generation = link->generation;
	} else {
		avp_ledger_free(link->ledger);
	}
	link->ledger = NULL;
}

static void drop_memory(struct ahp__link *link)
{
	drop_bell(link);
	if (link->tx_made)
		avp_lane_fini(&link->tx);
	if (link->rx_made)
		avp_lane_detach(&link->rx);
	avp_segment_close(&link->page_segment);
	link->tx_made = link->rx_made = false;
	link->page = NULL;
}

void ahp__link_free(struct ahp__link *link)
{
	struct ahp_agent *agent = link->agent;

	leave_up(link);
	if (link->peer)
		ahp__peer_used(agent, link->peer);
	if (link->peer && link->peer->link == link)
		link->peer->link = NULL;
	ahp__twins_end_link(link);
	settle_accounts(link);
	drop_memory(link);
	for (unsigned i = 0; i < link->imports; i++)
		avp_segment_close(&link->import[i].segment);
	close_socket(link);
	for (uint32_t i = 0; i < agent->links; i++)
		if (agent->link[i] == link) {
			agent->link[i] = agent->link[--agent->links];
			break;
		}
	free(link->deadline_ms);
	free(link->held);
	free(link);
}

void ahp__link_forget(struct ahp__link *link)
{
	avp_segment_forget(&link->tx.segment);
	for (unsigned i = 0; i < link->imports; i++)
		avp_segment_forget(&link->import[i].segment);
	avp_ledger_free(link->ledger);
	if (link->sock >= 0)
		close(link->sock);
	avp_peer_close(&link->who);
	free(link->deadline_ms);
	free(link->held);
	free(link);
}

void ahp__link_unview(struct ahp__link *link)
{
	if (--link->views)
		return;
	if (link->state == LINK_ENDED)
		ahp__link_free(link);
	else if (link->state == LINK_POISONED)
		shutdown(link->sock, SHUT_WR);
}

void ahp__link_finish(struct ahp__link *link)
{
	leave_up(link);
	link->state = LINK_ENDED;
	link->plain_room = 0;
	if (link->ledger)
		ahp__acks_enter(link);
	ahp__twins_end_link(link);
	settle_accounts(link);
	drop_memory(link);
	close_socket(link);
	if (!link->views)
		ahp__link_free(link);
}

/* ---- ending ------------------------------------------------------------- */

void ahp__link_fail(struct ahp__link *link, const struct avp_reason *why)
{
	struct ahp__peer *peer = link->peer;

	if (!peer || peer->link != link)
		return;
	peer->link = NULL;
	peer->error = why->code;
	peer->why = *why;
}

/*
 * The last acknowledgements of a peer that is gone may ride on messages that
 * are not yet taken: what they say counts before anything is given up.
 */
static void hear_the_rest(struct ahp__link *link)
{
	struct avp_lane_rx ahead = link->rx;

	while (ahead.next - link->rx.next <= ahead.slot_mask &&
	       lane_arrived(&ahead) == ahead.next) {
		const struct slot *slot = lane_next(&ahead);

		link->heard = true;
		ahp__unsettle(link);
		link->heard_accepted = slot->accepted;
		link->heard_released = slot->released;
		ahead.next++;
	}
}

void ahp__link_hang_up(struct ahp__link *link)
{
	struct avp_reason why;

	if (link->state == LINK_DRAINING || link->state == LINK_ENDED)
		return;
	avp__fail(&why, AVP_CLOSED, "%s hung up",
		  link->peer ? link->peer->id : "a stranger");
	if (link->state == LINK_UP)
		hear_the_rest(link);
	if (link->state == LINK_UP)
		ahp__acks_read(link); /* may poison it */
	ahp__link_fail(link, &why);
	if (link->state == LINK_UP) {
		close_socket(link);
		link->state = LINK_DRAINING;
		link->agent->draining++;
		link->plain_room = 0;
		/* Now: what is sent from here on comes after what was lost. */
		settle_accounts(link);
	} else {
		ahp__link_finish(link);
	}
}

/*
 * The peer broke the protocol. Nothing more of it is believed; what it was lent
 * stays lent until it hangs up, since it may still be looking.
 */
void ahp__link_poison(struct ahp__link *link, const struct avp_reason *why)
{
	ahp__link_poison_by(link, (struct avp_str){0}, why);
}

void ahp__link_poison_by(struct ahp__link *link, struct avp_str task,
			 const struct avp_reason *why)
{
	struct avp_reason full;

	if (link->state == LINK_POISONED || link->state == LINK_ENDED)
		return;
	avp__fail(&full, AVP_POISONED, "%s broke the protocol: %.180s",
		  link->peer ? link->peer->id : "a stranger", why->text);
	link->agent->stats.poisoned++;
	ahp__log_task(link->agent, AHP_LOG_WARNING, AVP_POISONED, task, "%s",
		      full.text);
	if (link->state == LINK_DRAINING)
		return ahp__link_finish(link);
	leave_up(link);
	if (link->peer && link->peer->link == link) {
		link->peer->error = AVP_POISONED;
		link->peer->why = full;
	}
	link->state = LINK_POISONED;
	drop_bell(link);
	link->plain_room = 0;
	if (!link->views)
		shutdown(link->sock, SHUT_WR);
}

/* Says why, hangs up, forgets: for one who was never linked. */
void ahp__link_refuse(struct ahp__link *link, const struct avp_reason *why)
{
	struct wire_refuse say = {
		.head = {WIRE_MAGIC, WIRE_MAJOR, WIRE_MINOR, WIRE_REFUSE,
			 sizeof(say)},
		.code = why->code,
	};

	snprintf(say.text, sizeof(say.text), "%.*s", (int)sizeof(say.text) - 1,
		 why->text);
	avp_fd_send(link->sock, &say, sizeof(say), NULL, 0, NULL);
	ahp__logf(link->agent, AHP_LOG_INFO, why->code, "refused: %s",
		  why->text);
	ahp__link_fail(link, why);
	ahp__link_free(link);
}

/* ---- speaking ----------------------------------------------------------- */

static int pass_segment(struct ahp__link *link, uint32_t number,
			const struct avp_segment *segment,
			struct avp_reason *why)
{
	struct wire_segment say = {
		.head = {WIRE_MAGIC, WIRE_MAJOR, WIRE_MINOR, WIRE_SEGMENT,
			 sizeof(say)},
		.number = number,
		.bytes = segment->bytes,
	};

	return avp_fd_send(link->sock, &say, sizeof(say), &segment->fd, 1, why);
}

int ahp__link_pass_segments(struct ahp__link *link, struct avp_reason *why)
{
	struct avp_arena *arena = link->agent->pool[link->pool].arena;
	struct avp_segment segment;
	uint32_t number;
	int error;

	while (avp_arena_segments(arena, link->passed, &number, 1)) {
		if (avp_arena_segment(arena, number, &segment))
			return AVP_UNKNOWN;
		if (link->passed_count == IMPORTS_MAX)
			return avp__fail(
				why, AVP_NO_MEMORY,
				"%s has mapped %u segments, the limit; "
				"choose a larger first_segment_bytes",
				link->peer->id, IMPORTS_MAX);
		error = pass_segment(link, number, &segment, why);
		if (error == AVP_AGAIN)
			return avp__fail(why, AVP_QUEUE_FULL,
					 "%s does not read its socket",
					 link->peer->id);
		if (error)
			return error;
		link->passed = number;
		link->passed_count++;
	}
	return 0;
}

void ahp__link_ring(struct ahp__link *link)
{
	static const uint8_t bell = WIRE_BELL;

	link->agent->stats.wakes++;
	if (link->peer_hears_word)
		return avp__lane_ring(&link->tx);
	/* AVP_AGAIN: its queue is full of bells and news; it will wake. */
	avp_fd_send(link->sock, &bell, sizeof(bell), NULL, 0, NULL);
}

/* ---- listening ---------------------------------------------------------- */

static void on_segment(struct ahp__link *link, const struct wire_segment *say,
		       size_t bytes, const int *fds, unsigned n)
{
	struct ahp__import *import = &link->import[link->imports];
	struct avp_reason why = {0};

	if (bytes < sizeof(*say) || n != 1 || link->imports == IMPORTS_MAX ||
	    (link->imports && say->number <= import[-1].number)) {
		for (unsigned i = 0; i < n; i++)
			avp_fd_dispose(fds[i]);
		avp__fail(&why, AVP_POISONED,
			  "segment %u with %u fds, %u segments known",
			  say->number, n, link->imports);
		return ahp__link_poison(link, &why);
	}
	if (avp_segment_import(&import->segment, fds[0], say->bytes,
			       SEGMENT_CAP, &why))
		return ahp__link_poison(link, &why);
	import->number = say->number;
	import->leaving = false;
	link->imports++;
}

/* What is wrong with a message that nobody takes. */
static void explain(const union wire_message *m, size_t bytes,
		    struct avp_reason *why)
{
	if (bytes < sizeof(m->head) || m->head.magic != WIRE_MAGIC)
		avp__fail(why, AVP_POISONED, "%zu bytes that are no message",
			  bytes);
	else if (m->head.major != WIRE_MAJOR)
		avp__fail(
			why, AVP_UNSUPPORTED,
			"it speaks version %u.%u of links, we speak %u.%u; use "
			"one version of libavp on this host",
			m->head.major, m->head.minor, WIRE_MAJOR, WIRE_MINOR);
	else
		avp__fail(why, AVP_POISONED,
			  "message of kind %u, %u bytes (%zu came), is not due",
			  m->head.kind, m->head.bytes, bytes);
}

static void on_message(struct ahp__link *link, union wire_message *m,
		       size_t bytes, const int *fds, unsigned n)
{
	struct avp_reason why;

	if (bytes == 1 && m->bell == WIRE_BELL && !n)
		return;
	if (bytes >= sizeof(m->head) && m->head.magic == WIRE_MAGIC &&
	    m->head.major == WIRE_MAJOR && m->head.bytes == bytes) {
		if (m->head.kind == WIRE_HELLO && link->state == LINK_GREETING)
			return ahp__greeting_hello(link, &m->hello, bytes);
		if (m->head.kind == WIRE_SHARE && link->state == LINK_SHARING)
			return ahp__greeting_share(link, fds, n);
		if (m->head.kind == WIRE_SEGMENT && link->state == LINK_UP)
			return on_segment(link, &m->segment, bytes, fds, n);
		if (m->head.kind == WIRE_UNMAP && link->state == LINK_UP &&
		    bytes == sizeof(m->segment) && !n)
			return ahp__trim_asked(link, &m->segment);
		if (m->head.kind == WIRE_UNMAPPED && link->state == LINK_UP &&
		    bytes == sizeof(m->segment) && !n)
			return ahp__trim_answered(link, &m->segment);
		if (m->head.kind == WIRE_REFUSE && !n &&
		    (link->state == LINK_GREETING ||
		     link->state == LINK_SHARING))
			return ahp__greeting_refused(link, &m->refuse, bytes);
	}
	for (unsigned i = 0; i < n; i++)
		avp_fd_dispose(fds[i]);
	if (link->state == LINK_POISONED)
		return;
	explain(m, bytes, &why);
	if (link->state == LINK_UP)
		return ahp__link_poison(link, &why);
	link->agent->stats.poisoned++;
	ahp__link_refuse(link, &why);
}

/* How many fds may come now: see "Import" in the design of segments. */
static unsigned fds_due(const struct ahp__link *link)
{
	return link->state == LINK_SHARING ? 2 : link->state == LINK_UP ? 1 : 0;
}

bool ahp__link_alive(const struct ahp_agent *agent,
		     const struct ahp__link *link)
{
	for (uint32_t i = 0; i < agent->links; i++)
		if (agent->link[i] == link)
			return link->sock >= 0;
	return false;
}

void ahp__link_listen(struct ahp__link *link, int most)
{
	struct ahp_agent *agent = link->agent;
	struct avp_reason why = {0};
	union wire_message message;
	int fds[AVP_FD_MAX], got;
	unsigned n;
	size_t bytes;

	for (; most && ahp__link_alive(agent, link); most--) {
		got = avp_fd_receive(link->sock, &message, sizeof(message),
				     &bytes, fds, fds_due(link), &n, &why);
		if (got == AVP_AGAIN)
			return;
		if (got == AVP_CLOSED)
			return ahp__link_hang_up(link);
		if (got == 0)
			on_message(link, &message, bytes, fds, n);
		else if (link->state == LINK_UP)
			ahp__link_poison(link, &why);
		else if (link->state != LINK_POISONED)
			return ahp__link_refuse(link, &why);
	}
}

void ahp__link_serve(struct ahp__link *link)
{
	ahp__link_listen(link, SERVE_ALL);
}

const struct avp_segment *ahp__link_import(struct ahp__link *link,
					   uint32_t number)
{
	for (int again = 0; again < 2; again++) {
		for (unsigned i = link->imports; i-- > 0;)
			if (link->import[i].number == number)
				return &link->import[i].segment;
		/* Its fd was sent before the message that names it. */
		if (again || link->state != LINK_UP)
			break;
		link->views++; /* so that serving it cannot free it */
		ahp__link_serve(link);
		if (!--link->views && link->state == LINK_POISONED)
			shutdown(link->sock, SHUT_WR);
	}
	return NULL;
}
