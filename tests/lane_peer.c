/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "ring/wake.h"
#include "tests/lane_peer.h"

#define LATE_NS	    5000000000ll /* a bell that has not come by then is lost */
#define FLUSH_EVERY 16

enum { OWES_ACCEPT = 1, OWES_RELEASE = 2 };

/* What message `sequence` of whichever end looks like; both ends know. */
struct shape {
	bool long_form, in_arena;
	uint8_t task, session, inline_bytes;
	uint32_t body;
};

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9;
	x ^= x >> 27;
	x *= 0x94d049bb133111eb;
	return x ^ x >> 31;
}

static struct shape shape_of(uint64_t sequence)
{
	uint64_t r = mix(sequence);
	struct shape s = {.task = (uint8_t)(r % 81),
			  .session = (uint8_t)(r >> 8) % 33};
	unsigned ids = 2u + s.task + s.session;

	s.in_arena = r >> 16 & 1;
	s.long_form = s.in_arena || (r >> 17 & 3) == 0;
	s.inline_bytes =
		(uint8_t)((r >> 24) % ((s.long_form ? 192 : 224) - ids + 1));
	s.body = s.inline_bytes;
	if (s.in_arena) {
		s.body = 1 + (uint32_t)(r >> 40) % LANE_PEER_BLOCK;
		if (s.inline_bytes > s.body)
			s.inline_bytes = (uint8_t)s.body;
	}
	return s;
}

static void fill(uint8_t *to, uint64_t sequence, size_t bytes)
{
	uint64_t word = mix(sequence ^ 0x5bd1e995);

	for (size_t i = 0; i < bytes; i++)
		to[i] = (uint8_t)(word >> i % 8 * 8) ^ (uint8_t)(i >> 3);
}

static bool same(const void *bytes, uint64_t sequence, size_t n)
{
	uint8_t want[LANE_PEER_BLOCK];

	fill(want, sequence, n);
	return !memcmp(bytes, want, n);
}

static void wrong(struct lane_peer *p, const char *what)
{
	if (!p->wrong)
		p->wrong = what;
}

static uint32_t choice(struct lane_peer *p, uint32_t of)
{
	p->seed = p->seed * 1664525 + 1013904223;
	return (p->seed >> 8) % of;
}

static void ring_if_due(struct lane_peer *p)
{
	if (!avp__wake_due(&p->peer_page->word, &p->rung))
		return;
	p->rings++;
	if (p->futex) {
		avp__lane_ring(&p->tx);
		return;
	}
	/* A full queue means that bells are pending. */
	if (send(p->sock, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 &&
	    errno != EAGAIN)
		wrong(p, "the bell cannot be rung");
}

/* ---- sending ------------------------------------------------------------ */

static void news(void *arg, uint64_t sequence, uint64_t cookie,
		 enum avp_ack status, uint32_t count)
{
	struct lane_peer *p = arg;
	enum avp_ack want = sequence % 7 ? AVP_ACK_ACCEPTED : AVP_ACK_REJECTED;

	(void)count;
	if (status == AVP_ACK_RELEASED)
		p->free_block[p->free_blocks++] = (uint32_t)cookie;
	else if (status != want)
		wrong(p, "another status than the reader gave");
}

static bool send_one(struct lane_peer *p)
{
	struct shape s = shape_of(p->tx.next);
	uint8_t text[256], *body = text;
	struct avp_slot_put put = {.long_form = s.long_form,
				   .in_arena = s.in_arena,
				   .task = (const char *)text,
				   .task_bytes = s.task,
				   .session = (const char *)text,
				   .session_bytes = s.session,
				   .inline_bytes = s.inline_bytes,
				   .body_bytes = s.body};
	uint64_t sequence = p->tx.next;

	if (p->sent == p->total || !avp_ledger_has_room(p->ledger) ||
	    (s.in_arena && !p->free_blocks))
		return false;
	if (s.in_arena) {
		put.segment = p->free_block[p->free_blocks - 1];
		body = p->page->block[put.segment];
		fill(body, sequence, s.body);
	}
	fill(text, sequence, sizeof(text));
	put.inline_data = body;
	if (avp_lane_put(&p->tx, &put, p->sleeps))
		return false;
	avp_ledger_add(p->ledger, sequence, put.segment, s.in_arena);
	p->free_blocks -= s.in_arena;
	p->sent++;
	if (p->sleeps)
		ring_if_due(p);
	return true;
}

static bool take_entries(struct lane_peer *p)
{
	uint64_t sequence;
	enum avp_ack status;
	bool any = false;
	int got;

	while ((got = avp_lane_ack_take(&p->rx, &sequence, &status)) == 1) {
		any = true;
		if (avp_ledger_ack_one(p->ledger, sequence, status))
			wrong(p, "an ack entry of what was not sent");
	}
	if (got < 0)
		wrong(p, "a bad ack entry");
	return any;
}

/* Words before entries: what the words pass is then among the entries. */
static bool read_acks(struct lane_peer *p)
{
	uint64_t consumed = p->tx.consumed;
	uint32_t before = avp_ledger_outstanding(p->ledger);
	struct avp_acks words;
	bool any;

	avp_lane_acks_load(&p->rx, &words);
	any = take_entries(p);
	if (avp_ledger_acks(p->ledger, words.accepted, words.released))
		wrong(p, "words of what was not sent");
	avp_lane_consumed(&p->tx, words.consumed);
	return any || consumed != p->tx.consumed ||
	       before != avp_ledger_outstanding(p->ledger);
}

/* ---- receiving ---------------------------------------------------------- */

static uint8_t *debt_of(struct lane_peer *p, uint64_t sequence)
{
	return &p->debt[sequence % sizeof(p->debt)];
}

static void move_words(struct lane_peer *p)
{
	while (p->accept_head < p->rx.next &&
	       !(*debt_of(p, p->accept_head) & OWES_ACCEPT))
		p->accept_head++;
	while (p->release_head < p->rx.next &&
	       !(*debt_of(p, p->release_head) & OWES_RELEASE))
		p->release_head++;
	avp_lane_ack_below(&p->tx, p->accept_head, p->release_head, p->rx.next);
}

static void pay(struct lane_peer *p, uint64_t sequence, uint8_t what)
{
	uint64_t head = what == OWES_ACCEPT ? p->accept_head : p->release_head;
	enum avp_ack status = what == OWES_RELEASE ? AVP_ACK_RELEASED
			      : sequence % 7	   ? AVP_ACK_ACCEPTED
						   : AVP_ACK_REJECTED;

	if (sequence != head || status == AVP_ACK_REJECTED)
		avp_lane_ack_one(&p->tx, sequence, status);
	*debt_of(p, sequence) &= (uint8_t)~what;
	move_words(p);
}

static void check_body(struct lane_peer *p, const struct avp_slot_view *v)
{
	const void *body = v->inline_data;

	if (v->in_arena && v->segment >= LANE_PEER_WINDOW) {
		wrong(p, "a block that is none");
		return;
	}
	if (v->in_arena)
		body = p->peer_page->block[v->segment];
	if (!same(body, v->sequence, v->body_bytes))
		wrong(p, "a body that was changed");
}

static void check(struct lane_peer *p, const struct avp_slot_view *v)
{
	struct shape s = shape_of(v->sequence);

	if (v->sequence != p->first + p->received)
		wrong(p, "out of order");
	if (v->long_form != s.long_form || v->in_arena != s.in_arena ||
	    v->task_bytes != s.task || v->session_bytes != s.session ||
	    v->inline_bytes != s.inline_bytes || v->body_bytes != s.body)
		wrong(p, "another shape");
	else if (!same(v->task, v->sequence, s.task) ||
		 !same(v->session, v->sequence, s.session) ||
		 !same(v->inline_data, v->sequence, s.inline_bytes))
		wrong(p, "another text");
	else
		check_body(p, v);
}

/* Looks at a body that was held, a last time, and gives it back. */
static void let_go(struct lane_peer *p, uint32_t i)
{
	struct avp_slot_view *v = &p->held[i];
	uint8_t debt = *debt_of(p, v->sequence);

	if (v->in_arena)
		check_body(p, v);
	if (debt & OWES_RELEASE && choice(p, 2))
		pay(p, v->sequence, OWES_RELEASE);
	if (debt & OWES_ACCEPT)
		pay(p, v->sequence, OWES_ACCEPT);
	if (*debt_of(p, v->sequence) & OWES_RELEASE)
		pay(p, v->sequence, OWES_RELEASE);
	p->helds--;
	memmove(&p->held[i], &p->held[i + 1],
		(p->helds - i) * sizeof(p->held[0]));
}

static bool receive_one(struct lane_peer *p)
{
	struct avp_slot_view *v = &p->held[p->helds];
	int got = avp_lane_take(&p->rx, v, NULL);

	if (got < 0)
		wrong(p, "a bad slot");
	if (got != 1)
		return false;
	check(p, v);
	p->received++;
	take_entries(p);
	if (avp_ledger_acks_low(p->ledger, v->accepted, v->released))
		wrong(p, "words in a slot of what was not sent");
	avp_lane_consumed(&p->tx, avp_ledger_accepted(p->ledger));
	*debt_of(p, v->sequence) =
		OWES_ACCEPT | (v->in_arena ? OWES_RELEASE : 0);
	p->helds++;
	if (choice(p, 8))
		let_go(p, p->helds - 1);
	else
		move_words(p);
	if (p->helds == LANE_PEER_HELD)
		let_go(p, choice(p, p->helds));
	if (p->received % FLUSH_EVERY == 0)
		if (avp_lane_ack_flush(&p->tx) && p->sleeps)
			ring_if_due(p);
	return true;
}

/* ---- turns -------------------------------------------------------------- */

/* A sender may wait for what is held, so nothing is held by who has no work. */
static bool settle_all(struct lane_peer *p)
{
	bool any = p->helds;

	while (p->helds)
		let_go(p, choice(p, p->helds));
	if (avp_lane_ack_flush(&p->tx))
		any = true;
	if (any && p->sleeps)
		ring_if_due(p);
	return any;
}

static bool done(const struct lane_peer *p)
{
	return p->wrong || (p->received == p->total && p->sent == p->total &&
			    !avp_ledger_outstanding(p->ledger));
}

static bool work(struct lane_peer *p)
{
	bool any = false;
	uint32_t burst = 1 + choice(p, p->burst ? p->burst : 24);

	for (uint32_t i = 0; i < burst && receive_one(p); i++)
		any = true;
	for (uint32_t i = 0; i < burst && send_one(p); i++)
		any = true;
	return read_acks(p) || any;
}

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static void sleep_once(struct lane_peer *p)
{
	int64_t begin_ns;
	int calls;

	avp__wake_arm(&p->page->word);
	if (!avp_lane_ready(&p->rx) && !read_acks(p) && !done(p)) {
		p->sleeps_made++;
		begin_ns = now_ns();
		calls = avp_loop_run(p->loop, LATE_NS);
		if (calls < 0)
			wrong(p, "the loop failed");
		/* A turn may end early without a call, as after a signal. */
		if (!calls && now_ns() - begin_ns >= LATE_NS &&
		    (avp_lane_ready(&p->rx) || read_acks(p)))
			p->late_wakes++;
	}
	avp__wake_disarm(&p->page->word);
}

static void bell_rings(struct avp_watch *watch, uint32_t events)
{
	struct lane_peer *p = watch->arg;
	uint8_t bytes[64];

	(void)events;
	/* The end of the socket: the other end is done, and has said all. */
	if (!recv(p->sock, bytes, sizeof(bytes), MSG_DONTWAIT))
		avp_loop_remove(p->loop, watch);
}

static void word_changed(struct avp__bell *bell)
{
	(void)bell; /* it ends the sleep */
}

static bool open_peer(struct lane_peer *p)
{
	p->first = p->rx.first_sequence;
	p->accept_head = p->release_head = p->first;
	for (uint32_t i = 0; i < LANE_PEER_WINDOW; i++)
		p->free_block[p->free_blocks++] = i;
	p->bell = (struct avp_watch){p->sock, AVP_READABLE, bell_rings, p};
	p->word.word = avp__lane_bell(&p->rx);
	p->word.rung = word_changed;
	return !avp_ledger_new(&p->ledger, LANE_PEER_WINDOW, p->tx.next, news,
			       p) &&
	       !avp_loop_open(&p->loop, NULL) &&
	       !avp_loop_add(p->loop, &p->bell, NULL) &&
	       (!p->futex || !avp__loop_bell_add(p->loop, &p->word, NULL));
}

void lane_peer_run(struct lane_peer *p)
{
	if (!open_peer(p))
		wrong(p, "it cannot be opened");
	while (!done(p)) {
		if (work(p) || settle_all(p))
			continue;
		if (p->sleeps)
			sleep_once(p);
		else
			sched_yield();
	}
	settle_all(p);
	avp_loop_close(p->loop);
	avp_ledger_free(p->ledger);
}

bool lane_has_bells(void)
{
	struct avp_loop *loop;
	bool has;

	if (avp_loop_open(&loop, NULL))
		return false;
	has = avp__loop_has_bells(loop);
	avp_loop_close(loop);
	return has;
}
