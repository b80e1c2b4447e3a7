/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A link's life: connected or accepted, greeted (Hello both ways), shared (page
 * and lane both ways), up, and hung up. Words that a peer says are copied off the
 * socket by the kernel; each is checked before it is used, and one that is wrong
 * ends that link alone.
 *
 * There is one link for a pair. When both connect at once, the connection that
 * the smaller id made stays; each end can tell without asking the other.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "ahp/agent_internal.h"
#include "ahp/retry.h"
#include "ring/lane_inline.h"
#include "shm/reason.h"

/*
 * Messages read from a socket at once: few in a turn, since a peer can write
 * bells as fast as we read them; all of them, which the other's send buffer
 * bounds to some 300, when something must not be missed.
 */
#define SERVE_TURN 64
#define SERVE_ALL  1024

static void serve(struct ahp__link *link, int most);

static void sock_ready(struct avp_watch *watch, uint32_t events)
{
	(void)events;
	serve(watch->arg, SERVE_TURN);
}

static void hang_up(struct ahp__link *link);

/* The process has ended, though a forked child may keep its socket open. */
static void pid_ready(struct avp_watch *watch, uint32_t events)
{
	struct ahp__link *link = watch->arg;
	struct ahp_agent *agent = link->agent;

	(void)events;
	ahp__link_serve(link);
	for (uint32_t i = 0; i < agent->links; i++)
		if (agent->link[i] == link && link->sock >= 0)
			hang_up(link);
}

/* ---- making and freeing ------------------------------------------------------ */

static int watch_link(struct ahp__link *link, struct avp_reason *why)
{
	int error;

	link->sock_watch = (struct avp_watch){ link->sock, AVP_READABLE,
					       sock_ready, link };
	error = avp_loop_add(link->agent->loop, &link->sock_watch, why);
	if (error)
		return error;
	link->sock_watched = true;
	if (link->who.pidfd < 0)
		return 0;
	link->pid_watch = (struct avp_watch){ link->who.pidfd, AVP_READABLE,
					      pid_ready, link };
	error = avp_loop_add(link->agent->loop, &link->pid_watch, why);
	link->pid_watched = !error;
	return error;
}

static void unwatch(struct ahp__link *link)
{
	if (link->sock_watched)
		avp_loop_remove(link->agent->loop, &link->sock_watch);
	if (link->pid_watched)
		avp_loop_remove(link->agent->loop, &link->pid_watch);
	link->sock_watched = link->pid_watched = false;
}

static struct ahp__link *new_link(struct ahp_agent *agent, int sock, bool ours,
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
	link->sock = sock;
	link->ours = ours;
	link->who.pidfd = -1;
	link->since_ns = ahp__now_ns();
	agent->link[agent->links++] = link;
	return link;
}

static void leave_up(struct ahp__link *link)
{
	struct ahp_agent *agent = link->agent;

	for (uint32_t i = 0; i < agent->ups; i++)
		if (agent->up[i] == link) {
			agent->up[i] = agent->up[--agent->ups];
			agent->first = agent->turn = 0;
			agent->budget = BURST_MESSAGES;
			return;
		}
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
	if (link->ledger)
		ahp__acks_enter(link);
	ahp__twins_end_link(link);
	settle_accounts(link);
	drop_memory(link);
	close_socket(link);
	if (!link->views)
		ahp__link_free(link);
}

/* ---- ending ------------------------------------------------------------------ */

static void fail_peer(struct ahp__link *link, const struct avp_reason *why)
{
	struct ahp__peer *peer = link->peer;

	if (!peer || peer->link != link)
		return;
	peer->link = NULL;
	peer->error = why->code;
	peer->why = *why;
}

/* The peer is gone. What it had published is still to be read. */
/*
 * The last acknowledgements of a peer that is gone may ride on messages that are
 * not yet taken: what they say counts before anything is given up.
 */
static void hear_the_rest(struct ahp__link *link)
{
	struct avp_lane_rx ahead = link->rx;

	while (ahead.next - link->rx.next <= ahead.slot_mask &&
	       lane_arrived(&ahead) == ahead.next) {
		const struct slot *slot = lane_next(&ahead);

		link->heard = true;
		link->heard_accepted = slot->accepted;
		link->heard_released = slot->released;
		ahead.next++;
	}
}

static void hang_up(struct ahp__link *link)
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
	fail_peer(link, &why);
	if (link->state == LINK_UP) {
		close_socket(link);
		link->state = LINK_DRAINING;
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
	struct avp_reason full;

	if (link->state == LINK_POISONED || link->state == LINK_ENDED)
		return;
	avp__fail(&full, AVP_POISONED, "%s broke the protocol: %.180s",
		  link->peer ? link->peer->id : "a stranger", why->text);
	link->agent->stats.poisoned++;
	ahp__logf(link->agent, AHP_LOG_WARNING, AVP_POISONED, "%s", full.text);
	if (link->state == LINK_DRAINING)
		return ahp__link_finish(link);
	leave_up(link);
	if (link->peer && link->peer->link == link) {
		link->peer->error = AVP_POISONED;
		link->peer->why = full;
	}
	link->state = LINK_POISONED;
	if (!link->views)
		shutdown(link->sock, SHUT_WR);
}

/* Says why, hangs up, forgets: for one who was never linked. */
static void refuse(struct ahp__link *link, const struct avp_reason *why)
{
	struct wire_refuse say = {
		.head = { WIRE_MAGIC, WIRE_MAJOR, WIRE_MINOR, WIRE_REFUSE,
			  sizeof(say) },
		.code = why->code,
	};

	snprintf(say.text, sizeof(say.text), "%.*s",
		 (int)sizeof(say.text) - 1, why->text);
	avp_fd_send(link->sock, &say, sizeof(say), NULL, 0, NULL);
	ahp__logf(link->agent, AHP_LOG_INFO, why->code, "refused: %s",
		  why->text);
	fail_peer(link, why);
	ahp__link_free(link);
}

/* ---- speaking ---------------------------------------------------------------- */

static int say_hello(struct ahp__link *link, const char *to,
		     struct avp_reason *why)
{
	struct ahp_agent *agent = link->agent;
	struct wire_hello hello = {
		.head = { WIRE_MAGIC, WIRE_MAJOR, WIRE_MINOR, WIRE_HELLO,
			  sizeof(hello) },
		.wait = agent->wait,
		.bell = 1,
		.fds = 2,
		.identity = agent->identity,
	};

	memcpy(hello.epoch, agent->epoch, sizeof(hello.epoch));
	memcpy(hello.id, agent->id, sizeof(agent->id));
	memcpy(hello.to, to, strlen(to) + 1);
	return avp_fd_send(link->sock, &hello, sizeof(hello), NULL, 0, why);
}

static int share(struct ahp__link *link, struct avp_reason *why)
{
	struct ahp_agent *agent = link->agent;
	struct avp_lane_options options = {
		.size = sizeof(options),
		.slots = agent->options.window,
		.colour = agent->links,
	};
	struct wire_head say = { WIRE_MAGIC, WIRE_MAJOR, WIRE_MINOR, WIRE_SHARE,
				 sizeof(say) };
	int error = avp_lane_init(&link->tx, &options, why), fds[2];

	if (error)
		return error;
	link->tx_made = true;
	fds[0] = agent->page_segment.fd;
	fds[1] = link->tx.segment.fd;
	error = avp_fd_send(link->sock, &say, sizeof(say), fds, 2, why);
	close(link->tx.segment.fd); /* only this peer ever needs it */
	link->tx.segment.fd = -1;
	return error;
}

static int pass_segment(struct ahp__link *link, uint32_t number,
			const struct avp_segment *segment,
			struct avp_reason *why)
{
	struct wire_segment say = {
		.head = { WIRE_MAGIC, WIRE_MAJOR, WIRE_MINOR, WIRE_SEGMENT,
			  sizeof(say) },
		.number = number,
		.bytes = segment->bytes,
	};

	return avp_fd_send(link->sock, &say, sizeof(say), &segment->fd, 1, why);
}

int ahp__link_pass_segments(struct ahp__link *link, struct avp_reason *why)
{
	struct avp_arena *arena = link->agent->pool[link->pool].arena;
	uint64_t generation = avp_arena_generation(arena);
	struct avp_segment segment;
	uint32_t number;
	int error;

	while (avp_arena_segments(arena, link->passed, &number, 1)) {
		if (avp_arena_segment(arena, number, &segment))
			return AVP_UNKNOWN;
		if (link->passed_count == IMPORTS_MAX)
			return avp__fail(why, AVP_NO_MEMORY,
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
	link->passed_generation = generation;
	return 0;
}

void ahp__link_ring(struct ahp__link *link)
{
	static const uint8_t bell = WIRE_BELL;

	link->agent->stats.wakes++;
	/* AVP_AGAIN: its queue is full of bells and news; it will wake. */
	avp_fd_send(link->sock, &bell, sizeof(bell), NULL, 0, NULL);
}

/* ---- listening --------------------------------------------------------------- */

static void settled(void *arg, uint64_t sequence, uint64_t cookie,
		    enum avp_ack status)
{
	struct ahp__link *link = arg;
	struct ahp_agent *agent = link->agent;

	if (status == AVP_ACK_RELEASED) {
		link->lent_bytes -= agent->body[(uint32_t)cookie].block.bytes;
		ahp__body_unref(agent, (uint32_t)cookie);
		return;
	}
	agent->stats.in_flight--;
	agent->stats.acked += status == AVP_ACK_ACCEPTED;
	agent->stats.rejected += status != AVP_ACK_ACCEPTED;
	if (LANE_UNLIKELY(cookie >> COOKIE_PARCEL_SHIFT))
		ahp__retry_settled(link, sequence, cookie, status);
}

static bool allowed(const struct ahp_agent *agent, uint32_t uid)
{
	if (uid == agent->own_uid || !uid)
		return true;
	for (uint32_t i = 0; i < agent->options.allowed_uid_count; i++)
		if (agent->allowed_uids[i] == uid)
			return true;
	return false;
}

/* A text of the peer's has an end, and ids are such as we would open. */
static bool hello_ok(const struct wire_hello *hello, size_t bytes)
{
	return bytes >= sizeof(*hello) && !hello->id[sizeof(hello->id) - 1] &&
	       !hello->to[sizeof(hello->to) - 1] && ahp__id_ok(hello->id) &&
	       hello->fds == 2 && hello->wait <= AHP_WAIT_BLOCK &&
	       memchr(hello->identity.id, 0, sizeof(hello->identity.id)) &&
	       memchr(hello->identity.hash, 0, sizeof(hello->identity.hash)) &&
	       memchr(hello->identity.family, 0,
		      sizeof(hello->identity.family));
}

static bool still_there(const struct ahp_agent *agent,
			const struct ahp__link *link)
{
	for (uint32_t i = 0; i < agent->links; i++)
		if (agent->link[i] == link)
			return link->sock >= 0;
	return false;
}

/*
 * Another opening of an agent that we are linked to says Hello. The old one has
 * hung up, or is dead and a forked child keeps its socket, or is the same process;
 * else somebody takes a name that is not his. Without a pidfd that cannot be
 * told, and the new one is believed.
 */
static int replace(struct ahp__link *other, const struct ahp__link *link,
		   struct avp_reason *why)
{
	struct ahp_agent *agent = link->agent;

	serve(other, SERVE_ALL);
	if (!still_there(agent, other))
		return 0;
	if (other->who.pid != link->who.pid && other->who.pidfd >= 0 &&
	    avp_pidfd_dead(other->who.pidfd) <= 0)
		return avp__fail(why, AVP_NAME_TAKEN,
				 "process %d holds that id here and lives",
				 other->who.pid);
	hang_up(other);
	return 0;
}

/*
 * Another link to the same agent, and perhaps to another opening of it. Of the
 * same opening, the connection of the smaller id stays. 0 if it is link that
 * stays.
 */
static int beat_other(struct ahp__link *link, struct ahp__link *other,
		      const struct wire_hello *hello, struct avp_reason *why)
{
	bool we_are_smaller = strcmp(link->agent->id, hello->id) < 0;
	bool known = other->state >= LINK_SHARING;

	if (known && memcmp(other->agent_epoch, hello->epoch,
			    sizeof(hello->epoch)))
		return replace(other, link, why);
	if (other->state >= LINK_UP || link->ours == other->ours ||
	    link->ours != we_are_smaller)
		return avp__fail(why, AVP_AGAIN, "there is a link already");
	ahp__link_free(other);
	return 0;
}

static int adopt(struct ahp__link *link, struct ahp__peer *peer,
		 const struct wire_hello *hello, struct avp_reason *why)
{
	int pool = ahp__pool_for(link->agent, link->who.uid, why);
	struct avp_arena_stats stats;

	if (pool < 0)
		return pool;
	link->peer = peer;
	peer->link = link;
	link->generation = ++peer->generation;
	link->pool = (uint32_t)pool;
	avp_arena_stats(link->agent->pool[pool].arena, &stats);
	link->lent_max = stats.quota_bytes / LENT_SHARE;
	memcpy(link->agent_epoch, hello->epoch, sizeof(link->agent_epoch));
	link->peer_sleeps = hello->wait != AHP_WAIT_BUSY;
	link->state = LINK_SHARING;
	return 0;
}

static int check_hello(struct ahp__link *link, const struct wire_hello *hello,
		       size_t bytes, struct avp_reason *why)
{
	struct ahp_agent *agent = link->agent;

	if (!hello_ok(hello, bytes))
		return avp__fail(why, AVP_POISONED, "its Hello is not one");
	if (strcmp(hello->to, agent->id))
		return avp__fail(why, AVP_AGENT_NOT_FOUND,
				 "this is %s, not %s", agent->id, hello->to);
	if (link->ours && strcmp(hello->id, link->peer->id))
		return avp__fail(why, AVP_AGENT_NOT_FOUND,
				 "%s answered instead of %s", hello->id,
				 link->peer->id);
	if (!strcmp(hello->id, agent->id))
		return avp__fail(why, AVP_NAME_TAKEN,
				 "%s is our own id", hello->id);
	return 0;
}

static void on_hello(struct ahp__link *link, const struct wire_hello *hello,
		     size_t bytes)
{
	struct ahp_agent *agent = link->agent;
	struct avp_reason why = { 0 };
	struct ahp__peer *peer;

	if (check_hello(link, hello, bytes, &why))
		return refuse(link, &why);
	peer = ahp__peer_get(agent, hello->id);
	if (!peer) {
		avp__fail(&why, AVP_QUEUE_FULL, "%u names are the limit",
			  PEERS_MAX);
		return refuse(link, &why);
	}
	if (peer->link && peer->link != link &&
	    beat_other(link, peer->link, hello, &why))
		return refuse(link, &why);
	if (adopt(link, peer, hello, &why) ||
	    (!link->ours && say_hello(link, hello->id, &why)) ||
	    share(link, &why))
		refuse(link, &why);
}

static int check_page(struct ahp__link *link, struct avp_reason *why)
{
	const struct page_map *page = link->page_segment.base;

	/* acquire: pairs with the release in ahp__page_open() */
	if (atomic_load_explicit(&page->ready, memory_order_acquire) !=
		    PAGE_READY ||
	    page->magic != PAGE_MAGIC || page->major != WIRE_MAJOR)
		return avp__fail(why, AVP_POISONED, "its page is not one");
	link->page = page;
	return 0;
}

/* Takes both fds, whatever happens. */
static int take_share(struct ahp__link *link, const int *fds, unsigned n,
		      struct avp_reason *why)
{
	int error;

	if (n != 2) {
		for (unsigned i = 0; i < n; i++)
			avp_fd_dispose(fds[i]);
		return avp__fail(why, AVP_POISONED, "%u fds where 2 were due",
				 n);
	}
	error = avp_segment_import(&link->page_segment, fds[0], 0, 4096, why);
	if (error) {
		avp_fd_dispose(fds[1]);
		return error;
	}
	error = avp_lane_attach(&link->rx, &link->tx, fds[1], why);
	if (error)
		return error;
	link->rx_made = true;
	link->flush_every = link->rx.window / 2 < FLUSH_EVERY ?
				    link->rx.window / 2 :
				    FLUSH_EVERY;
	error = check_page(link, why);
	/* The peer's ack ring has two entries for each message that may be
	 * outstanding: its window bounds ours. */
	if (!error)
		error = avp_ledger_new(&link->ledger,
				       link->tx.window < link->rx.window ?
					       link->tx.window :
					       link->rx.window,
				       link->tx.next, settled, link);
	return error;
}

static void on_share(struct ahp__link *link, const int *fds, unsigned n)
{
	struct ahp_agent *agent = link->agent;
	struct avp_reason why = { 0 };

	if (take_share(link, fds, n, &why)) {
		agent->stats.poisoned += why.code == AVP_POISONED;
		return refuse(link, &why);
	}
	link->state = LINK_UP;
	agent->up[agent->ups++] = link;
	ahp__logf(agent, AHP_LOG_INFO, 0, "linked to %s (pid %d)",
		  link->peer->id, link->who.pid);
	ahp__retry_link_up(link);
}

static void on_segment(struct ahp__link *link, const struct wire_segment *say,
		       size_t bytes, const int *fds, unsigned n)
{
	struct ahp__import *import = &link->import[link->imports];
	struct avp_reason why = { 0 };

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
	link->imports++;
}

/* A code of ours, for what a peer says is one. */
static int known_code(int32_t code)
{
	return code < 0 && strcmp(avp_error_name(code), "UNKNOWN") ?
		       code :
		       AVP_UNKNOWN;
}

static void on_refuse(struct ahp__link *link, struct wire_refuse *say,
		      size_t bytes)
{
	struct avp_reason why = { .code = AVP_UNKNOWN };

	if (bytes >= sizeof(*say)) {
		say->text[sizeof(say->text) - 1] = 0;
		avp__fail(&why, known_code(say->code),
			  "%s refused: %s",
			  link->peer ? link->peer->id : "a stranger",
			  say->text);
	}
	fail_peer(link, &why);
}

/* What is wrong with a message that nobody takes. */
static void explain(const union wire_message *m, size_t bytes,
		    struct avp_reason *why)
{
	if (bytes < sizeof(m->head) || m->head.magic != WIRE_MAGIC)
		avp__fail(why, AVP_POISONED, "%zu bytes that are no message",
			  bytes);
	else if (m->head.major != WIRE_MAJOR)
		avp__fail(why, AVP_UNSUPPORTED,
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
			return on_hello(link, &m->hello, bytes);
		if (m->head.kind == WIRE_SHARE && link->state == LINK_SHARING)
			return on_share(link, fds, n);
		if (m->head.kind == WIRE_SEGMENT && link->state == LINK_UP)
			return on_segment(link, &m->segment, bytes, fds, n);
		if (m->head.kind == WIRE_REFUSE && !n &&
		    (link->state == LINK_GREETING ||
		     link->state == LINK_SHARING))
			return on_refuse(link, &m->refuse, bytes);
	}
	for (unsigned i = 0; i < n; i++)
		avp_fd_dispose(fds[i]);
	if (link->state == LINK_POISONED)
		return;
	explain(m, bytes, &why);
	if (link->state == LINK_UP)
		return ahp__link_poison(link, &why);
	link->agent->stats.poisoned++;
	refuse(link, &why);
}

/* How many fds may come now: see "Import" in the design of segments. */
static unsigned fds_due(const struct ahp__link *link)
{
	return link->state == LINK_SHARING ? 2 : link->state == LINK_UP ? 1 : 0;
}

static void serve(struct ahp__link *link, int most)
{
	struct ahp_agent *agent = link->agent;
	struct avp_reason why = { 0 };
	union wire_message message;
	int fds[AVP_FD_MAX], got;
	unsigned n;
	size_t bytes;

	for (; most && still_there(agent, link); most--) {
		got = avp_fd_receive(link->sock, &message, sizeof(message),
				     &bytes, fds, fds_due(link), &n, &why);
		if (got == AVP_AGAIN)
			return;
		if (got == AVP_CLOSED)
			return hang_up(link);
		if (got == 0)
			on_message(link, &message, bytes, fds, n);
		else if (link->state == LINK_UP)
			ahp__link_poison(link, &why);
		else if (link->state != LINK_POISONED)
			return refuse(link, &why);
	}
}

void ahp__link_serve(struct ahp__link *link)
{
	serve(link, SERVE_ALL);
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

/* ---- connecting -------------------------------------------------------------- */

static int greet(struct ahp__link *link, int sock, struct avp_reason *why)
{
	int error;

	link->sock = sock;
	error = avp_peer_open(&link->who, sock, why);
	if (error)
		return error;
	if (!allowed(link->agent, link->who.uid))
		return avp__fail(why, AVP_PERMISSION,
				 "uid %u is not among the allowed; list it in "
				 "allowed_uids",
				 link->who.uid);
	link->state = LINK_GREETING;
	error = watch_link(link, why);
	if (!error && link->ours)
		error = say_hello(link, link->peer->id, why);
	return error;
}

int ahp__link_connect(struct ahp_agent *agent, struct ahp__peer *peer,
		      struct avp_reason *why)
{
	int sock = ahp__names_connect(agent->dir, peer->id, why), error;
	struct ahp__link *link;

	if (sock < 0 && sock != AVP_AGAIN)
		return sock;
	link = new_link(agent, -1, true, why);
	if (!link) {
		if (sock >= 0)
			close(sock);
		return AVP_NO_MEMORY;
	}
	link->peer = peer;
	peer->link = link;
	peer->error = 0;
	if (sock < 0) {
		link->state = LINK_CONNECTING;
		return 0;
	}
	error = greet(link, sock, why);
	if (error)
		ahp__link_free(link);
	return error;
}

/*
 * Of too many that have said nothing, the one goes that had the longest time to:
 * who has something to say has said it when its connection is accepted.
 */
static void drop_stranger(struct ahp_agent *agent)
{
	struct ahp__link *oldest = NULL;
	struct avp_reason why;
	uint32_t strangers = 0;

	for (uint32_t i = 0; i < agent->links; i++) {
		struct ahp__link *link = agent->link[i];

		if (link->state != LINK_GREETING || link->ours)
			continue;
		strangers++;
		if (!oldest || link->since_ns < oldest->since_ns)
			oldest = link;
	}
	if (strangers < STRANGERS_MAX)
		return;
	avp__fail(&why, AVP_TIMEOUT, "no Hello, and %u others wait",
		  STRANGERS_MAX);
	refuse(oldest, &why);
}

int ahp__link_accept(struct ahp_agent *agent, int sock)
{
	struct avp_reason why = { 0 };
	struct ahp__link *link;

	drop_stranger(agent);
	link = new_link(agent, -1, false, &why);
	if (!link) {
		close(sock);
		return AVP_QUEUE_FULL;
	}
	if (greet(link, sock, &why))
		refuse(link, &why);
	else
		serve(link, SERVE_TURN);
	return 0;
}

void ahp__link_age(struct ahp__link *link, int64_t now_ns)
{
	struct avp_reason why = { 0 };
	int sock;

	/* One that was finished while it was being looked at. */
	if (link->state == LINK_ENDED && !link->views)
		return ahp__link_free(link);
	if (link->state >= LINK_UP)
		return;
	if (!link->ours && now_ns - link->since_ns > HELLO_TIMEOUT_NS) {
		avp__fail(&why, AVP_TIMEOUT, "no Hello within %lld s",
			  HELLO_TIMEOUT_NS / 1000000000);
		return refuse(link, &why);
	}
	if (link->state != LINK_CONNECTING)
		return;
	sock = ahp__names_connect(link->agent->dir, link->peer->id, &why);
	if (sock == AVP_AGAIN)
		return;
	if (sock >= 0 && !greet(link, sock, &why))
		return;
	fail_peer(link, &why);
	ahp__link_free(link);
}
