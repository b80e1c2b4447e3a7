/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a link begins: connected or accepted, greeted (Hello both ways), adopted
 * by the peer of that name, shared (page and lane both ways), up. Its life
 * after that is in link.c.
 *
 * There is one link for a pair. When both connect at once, the connection that
 * the smaller id made stays; each end can tell without asking the other.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ahp/agent_internal.h"
#include "ahp/link.h"
#include "ahp/retry.h"

/* ---- Hello -------------------------------------------------------------- */

static int say_hello(struct ahp__link *link, const char *to,
		     struct avp_reason *why)
{
	struct ahp_agent *agent = link->agent;
	struct wire_hello hello = {
		.head = {WIRE_MAGIC, WIRE_MAJOR, WIRE_MINOR, WIRE_HELLO,
			 sizeof(hello)},
		.wait = agent->wait,
		.bell = agent->hears_words ? WIRE_BELL_WORD : WIRE_BELL_SOCKET,
		.fds = 2,
		.identity = link->told,
	};

	memcpy(hello.epoch, agent->epoch, sizeof(hello.epoch));
	memcpy(hello.id, agent->id, sizeof(agent->id));
	memcpy(hello.to, to, strlen(to) + 1);
	return avp_fd_send(link->sock, &hello, sizeof(hello), NULL, 0, why);
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

/*
 * Another opening of an agent that we are linked to says Hello. The old one has
 * hung up, or is dead and a forked child keeps its socket, or is the same
 * process; else somebody takes a name that is not his. Without a pidfd that
 * cannot be told, and the new one is believed.
 */
static int replace(struct ahp__link *other, const struct ahp__link *link,
		   struct avp_reason *why)
{
	struct ahp_agent *agent = link->agent;

	ahp__link_listen(other, SERVE_ALL);
	if (!ahp__link_alive(agent, other))
		return 0;
	if (other->who.pid != link->who.pid && other->who.pidfd >= 0 &&
	    avp_pidfd_dead(other->who.pidfd) <= 0)
		return avp__fail(why, AVP_NAME_TAKEN,
				 "process %d holds that id here and lives",
				 other->who.pid);
	ahp__link_hang_up(other);
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

	if (known &&
	    memcmp(other->agent_epoch, hello->epoch, sizeof(hello->epoch)))
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
	link->peer_hears_word = hello->bell == WIRE_BELL_WORD;
	link->heard_of = hello->identity;
	ahp__mode_resolve(link);
	link->state = LINK_SHARING;
	return 0;
}

static int check_hello(struct ahp__link *link, const struct wire_hello *hello,
		       size_t bytes, struct avp_reason *why)
{
	struct ahp_agent *agent = link->agent;

	if (!hello_ok(hello, bytes))
		return avp__fail(why, AVP_POISONED, "its Hello is not one");
	if (hello->features & WIRE_DEMANDS)
		return avp__fail(why, AVP_UNSUPPORTED,
				 "it demands features %#x of a link; use one "
				 "version of libavp on this host",
				 hello->features & WIRE_DEMANDS);
	if (strcmp(hello->to, agent->id))
		return avp__fail(why, AVP_AGENT_NOT_FOUND, "this is %s, not %s",
				 agent->id, hello->to);
	if (link->ours && strcmp(hello->id, link->peer->id))
		return avp__fail(why, AVP_AGENT_NOT_FOUND,
				 "%s answered instead of %s", hello->id,
				 link->peer->id);
	if (!strcmp(hello->id, agent->id))
		return avp__fail(why, AVP_NAME_TAKEN, "%s is our own id",
				 hello->id);
	return 0;
}

static int share(struct ahp__link *link, struct avp_reason *why)
{
	struct ahp_agent *agent = link->agent;
	struct avp_lane_options options = {
		.size = sizeof(options),
		.slots = agent->options.window,
		.colour = agent->links,
		.first_sequence = agent->first_sequence,
	};
	struct wire_head say = {WIRE_MAGIC, WIRE_MAJOR, WIRE_MINOR, WIRE_SHARE,
				sizeof(say)};
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

void ahp__greeting_hello(struct ahp__link *link, const struct wire_hello *hello,
			 size_t bytes)
{
	struct ahp_agent *agent = link->agent;
	struct avp_reason why = {0};
	struct ahp__peer *peer;

	if (check_hello(link, hello, bytes, &why))
		return ahp__link_refuse(link, &why);
	peer = ahp__peer_get(agent, hello->id);
	if (!peer) {
		avp__fail(&why, AVP_QUEUE_FULL, "%u names are known and in use",
			  PEERS_MAX);
		return ahp__link_refuse(link, &why);
	}
	if (peer->link && peer->link != link &&
	    beat_other(link, peer->link, hello, &why))
		return ahp__link_refuse(link, &why);
	if (adopt(link, peer, hello, &why) ||
	    (!link->ours && say_hello(link, hello->id, &why)) ||
	    share(link, &why))
		ahp__link_refuse(link, &why);
}

/* ---- page and lane ------------------------------------------------------ */

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
	link->flush_every = link->rx.window / 2 < FLUSH_EVERY
				    ? link->rx.window / 2
				    : FLUSH_EVERY;
	error = check_page(link, why);
	if (!error)
		error = ahp__link_open_ledger(link, why);
	if (!error)
		error = ahp__link_hear_bell(link, why);
	return error;
}

void ahp__greeting_share(struct ahp__link *link, const int *fds, unsigned n)
{
	struct ahp_agent *agent = link->agent;
	struct avp_reason why = {0};

	if (take_share(link, fds, n, &why)) {
		agent->stats.poisoned += why.code == AVP_POISONED;
		return ahp__link_refuse(link, &why);
	}
	link->state = LINK_UP;
	link->source = link->peer->id;
	link->number = link->peer->number;
	ahp__link_sent_ref(link, ahp__now_ns());
	ahp__up_add(link);
	ahp__logf(agent, AHP_LOG_INFO, 0, "linked to %s (pid %d)",
		  link->peer->id, link->who.pid);
	ahp__retry_link_up(link);
}

/* ---- refusals ----------------------------------------------------------- */

/* A code of ours, for what a peer says is one. */
static int known_code(int32_t code)
{
	return code < 0 && strcmp(avp_error_name(code), "UNKNOWN")
		       ? code
		       : AVP_UNKNOWN;
}

void ahp__greeting_refused(struct ahp__link *link, struct wire_refuse *say,
			   size_t bytes)
{
	struct avp_reason why = {.code = AVP_UNKNOWN};

	if (bytes >= sizeof(*say)) {
		say->text[sizeof(say->text) - 1] = 0;
		avp__fail(&why, known_code(say->code), "%s refused: %s",
			  link->peer ? link->peer->id : "a stranger",
			  say->text);
	}
	ahp__link_fail(link, &why);
}

/* ---- connecting --------------------------------------------------------- */

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
	error = ahp__link_watch(link, why);
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
	link = ahp__link_new(agent, true, why);
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
 * Of too many that have said nothing, the one goes that had the longest time
 * to: who has something to say has said it when its connection is accepted.
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
	ahp__link_refuse(oldest, &why);
}

int ahp__link_accept(struct ahp_agent *agent, int sock)
{
	struct avp_reason why = {0};
	struct ahp__link *link;

	drop_stranger(agent);
	link = ahp__link_new(agent, false, &why);
	if (!link) {
		close(sock);
		return AVP_QUEUE_FULL;
	}
	if (greet(link, sock, &why))
		ahp__link_refuse(link, &why);
	else
		ahp__link_listen(link, SERVE_TURN);
	return 0;
}

void ahp__link_age(struct ahp__link *link, int64_t now_ns)
{
	struct avp_reason why = {0};
	int sock;

	/* One that was finished while it was being looked at. */
	if (link->state == LINK_ENDED && !link->views)
		return ahp__link_free(link);
	if (link->state >= LINK_UP)
		return;
	if (!link->ours && now_ns - link->since_ns > HELLO_TIMEOUT_NS) {
		avp__fail(&why, AVP_TIMEOUT, "no Hello within %lld s",
			  HELLO_TIMEOUT_NS / 1000000000);
		return ahp__link_refuse(link, &why);
	}
	if (link->state != LINK_CONNECTING)
		return;
	sock = ahp__names_connect(link->agent->dir, link->peer->id, &why);
	if (sock == AVP_AGAIN)
		return;
	if (sock >= 0 && !greet(link, sock, &why))
		return;
	ahp__link_fail(link, &why);
	ahp__link_free(link);
}
