/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ledger: what was sent and what the peer may say of it. At the end a
 * lane's whole acknowledgement traffic, in random order, against a model.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <avp/ring.h>

#include "ring/slot.h"
#include "tests/harness.h"

#define SPAN 65536 /* sequences that the recorder and the model remember */

/* What news have come of each sequence, less the first. */
struct recorder {
	uint64_t first;
	uint8_t settled[SPAN], released[SPAN];
	uint64_t cookie_errors, twice;
	uint64_t news;
	uint64_t
		plain[AVP_ACK_RELEASED + 1]; /* news of plain ones, by status */
};

static struct recorder rec;

static void record(void *arg, uint64_t sequence, uint64_t cookie,
		   enum avp_ack status, uint32_t count)
{
	struct recorder *r = arg;
	uint8_t *at = status == AVP_ACK_RELEASED ? r->released : r->settled;

	if (!cookie) {
		r->plain[status] += count;
		return;
	}
	r->news++;
	r->cookie_errors += cookie != sequence * 3;
	at += (sequence - r->first) % SPAN;
	r->twice += *at != 0;
	*at = (uint8_t)status;
}

static struct avp_ledger *open_ledger(uint32_t window, uint64_t first)
{
	struct avp_ledger *l = NULL;

	memset(&rec, 0, sizeof(rec));
	rec.first = first;
	CU_ASSERT_EQUAL_FATAL(avp_ledger_new(&l, window, first, record, &rec),
			      0);
	return l;
}

static void add(struct avp_ledger *l, uint64_t sequence, bool lent)
{
	CU_ASSERT_TRUE_FATAL(avp_ledger_has_room(l));
	avp_ledger_add(l, sequence, sequence * 3, lent);
}

static void close_ledger(struct avp_ledger *l)
{
	CU_ASSERT_EQUAL(rec.cookie_errors, 0);
	CU_ASSERT_EQUAL(rec.twice, 0);
	avp_ledger_free(l);
}

/* ---- one by one --------------------------------------------------------- */

static void in_order(void)
{
	struct avp_ledger *l = open_ledger(16, 100);

	for (uint64_t s = 100; s < 104; s++)
		add(l, s, s >= 102); /* two inline, two lent */
	CU_ASSERT_EQUAL(avp_ledger_outstanding(l), 4);
	CU_ASSERT_EQUAL(avp_ledger_acks(l, 103, 100), 0);
	CU_ASSERT_EQUAL(rec.news, 3);
	CU_ASSERT_EQUAL(avp_ledger_outstanding(l), 2);
	CU_ASSERT_EQUAL(avp_ledger_status(l, 100), AVP_ACK_ACCEPTED);
	CU_ASSERT_EQUAL(avp_ledger_status(l, 102), AVP_ACK_ACCEPTED);
	CU_ASSERT_EQUAL(avp_ledger_status(l, 103), 0);
	CU_ASSERT_EQUAL(avp_ledger_status(l, 104), AVP_UNKNOWN);
	CU_ASSERT_EQUAL(avp_ledger_status(l, 99), AVP_UNKNOWN);
	/* Released before it is accepted: only then it is over. */
	CU_ASSERT_EQUAL(avp_ledger_acks(l, 103, 104), 0);
	CU_ASSERT_EQUAL(rec.released[3], AVP_ACK_RELEASED);
	CU_ASSERT_EQUAL(avp_ledger_outstanding(l), 1);
	CU_ASSERT_EQUAL(avp_ledger_acks(l, 104, 104), 0);
	CU_ASSERT_EQUAL(avp_ledger_outstanding(l), 0);
	/* What was not lent makes no news of release. */
	CU_ASSERT_EQUAL(rec.released[0] + rec.released[1], 0);
	CU_ASSERT_EQUAL(rec.news, 6);
	close_ledger(l);
}

static void out_of_order(void)
{
	struct avp_ledger *l = open_ledger(16, 1);

	for (uint64_t s = 1; s <= 5; s++)
		add(l, s, true);
	CU_ASSERT_EQUAL(avp_ledger_ack_one(l, 3, AVP_ACK_REJECTED), 0);
	CU_ASSERT_EQUAL(avp_ledger_ack_one(l, 5, AVP_ACK_EXPIRED), 0);
	CU_ASSERT_EQUAL(avp_ledger_ack_one(l, 3, AVP_ACK_RELEASED), 0);
	/* Said again, or otherwise: the first answer stands. */
	CU_ASSERT_EQUAL(avp_ledger_ack_one(l, 3, AVP_ACK_ACCEPTED), 0);
	CU_ASSERT_EQUAL(avp_ledger_ack_one(l, 5, AVP_ACK_REJECTED), 0);
	CU_ASSERT_EQUAL(avp_ledger_outstanding(l), 4);
	CU_ASSERT_EQUAL(avp_ledger_acks(l, 6, 6), 0);
	CU_ASSERT_EQUAL(avp_ledger_outstanding(l), 0);
	CU_ASSERT_EQUAL(avp_ledger_status(l, 2), AVP_ACK_ACCEPTED);
	CU_ASSERT_EQUAL(avp_ledger_status(l, 3), AVP_ACK_REJECTED);
	CU_ASSERT_EQUAL(avp_ledger_status(l, 5), AVP_ACK_EXPIRED);
	CU_ASSERT_EQUAL(rec.news, 10);
	/* Overtaken by the words: no news, no harm. */
	CU_ASSERT_EQUAL(avp_ledger_ack_one(l, 2, AVP_ACK_RELEASED), 0);
	CU_ASSERT_EQUAL(rec.news, 10);
	close_ledger(l);
}

static void window_is_the_limit(void)
{
	struct avp_ledger *l = open_ledger(3, 1);

	for (uint64_t s = 1; s <= 3; s++)
		add(l, s, true);
	CU_ASSERT_FALSE(avp_ledger_has_room(l));
	CU_ASSERT_EQUAL(avp_ledger_acks(l, 4, 1), 0); /* still lent */
	CU_ASSERT_FALSE(avp_ledger_has_room(l));
	CU_ASSERT_EQUAL(avp_ledger_ack_one(l, 2, AVP_ACK_RELEASED), 0);
	CU_ASSERT_TRUE(avp_ledger_has_room(l));
	close_ledger(l);
}

static void arguments(void)
{
	struct avp_ledger *l = NULL;

	CU_ASSERT_EQUAL(avp_ledger_new(&l, 0, 1, record, &rec), AVP_USAGE);
	CU_ASSERT_EQUAL(avp_ledger_new(&l, 65537, 1, record, &rec), AVP_USAGE);
	CU_ASSERT_EQUAL(avp_ledger_new(&l, 16, 0, record, &rec), AVP_USAGE);
	CU_ASSERT_EQUAL(avp_ledger_new(&l, 16, 1ull << 63, record, &rec),
			AVP_USAGE);
	CU_ASSERT_PTR_NULL(l);
	avp_ledger_free(NULL);
}

/* ---- lies --------------------------------------------------------------- */

static void words_beyond_what_was_sent(void)
{
	static const uint64_t first[] = {1, UINT32_MAX - 1, 1ull << 48,
					 INT64_MAX};

	for (unsigned i = 0; i < 4; i++) {
		uint64_t f = first[i];
		struct avp_ledger *l = open_ledger(16, f);
		const uint64_t lies[] = {f + 5, f + 6, f + 1000,
					 f + (1ull << 31), f + (1ull << 32)};

		for (uint64_t s = f; s < f + 4; s++)
			add(l, s, true);
		for (unsigned k = 0; k < 5; k++) {
			CU_ASSERT_EQUAL(avp_ledger_acks(l, lies[k], f),
					AVP_POISONED);
			CU_ASSERT_EQUAL(avp_ledger_acks(l, f, lies[k]),
					AVP_POISONED);
			CU_ASSERT_EQUAL(avp_ledger_acks(l, f + 4, lies[k]),
					AVP_POISONED);
		}
		CU_ASSERT_EQUAL(
			avp_ledger_acks_low(l, (uint32_t)f + 5, (uint32_t)f),
			AVP_POISONED);
		CU_ASSERT_EQUAL(avp_ledger_acks_low(l, (uint32_t)f,
						    (uint32_t)f + 0x7fffffff),
				AVP_POISONED);
		/* Half of a lie is none of it: nothing was settled. */
		CU_ASSERT_EQUAL(rec.news, 0);
		CU_ASSERT_EQUAL(avp_ledger_outstanding(l), 4);
		/* What is behind is no news. */
		CU_ASSERT_EQUAL(avp_ledger_acks(l, 0, f - 1), 0);
		CU_ASSERT_EQUAL(avp_ledger_acks_low(l, (uint32_t)f - 1,
						    (uint32_t)f - 1000),
				0);
		CU_ASSERT_EQUAL(rec.news, 0);
		CU_ASSERT_EQUAL(avp_ledger_acks(l, f + 4, f + 4), 0);
		CU_ASSERT_EQUAL(rec.news, 8);
		close_ledger(l);
	}
}

static void entries_beyond_what_was_sent(void)
{
	struct avp_ledger *l = open_ledger(16, 1000);

	CU_ASSERT_EQUAL(avp_ledger_ack_one(l, 1000, AVP_ACK_ACCEPTED),
			AVP_POISONED);
	add(l, 1000, false);
	CU_ASSERT_EQUAL(avp_ledger_ack_one(l, 1001, AVP_ACK_ACCEPTED),
			AVP_POISONED);
	CU_ASSERT_EQUAL(avp_ledger_ack_one(l, 999, AVP_ACK_ACCEPTED),
			AVP_POISONED);
	CU_ASSERT_EQUAL(avp_ledger_ack_one(l, 0, AVP_ACK_RELEASED),
			AVP_POISONED);
	CU_ASSERT_EQUAL(
		avp_ledger_ack_one(l, ACK_SEQUENCE_MASK, AVP_ACK_RELEASED),
		AVP_POISONED);
	CU_ASSERT_EQUAL(rec.news, 0);
	CU_ASSERT_EQUAL(avp_ledger_ack_one(l, 1000, AVP_ACK_ACCEPTED), 0);
	CU_ASSERT_EQUAL(avp_ledger_outstanding(l), 0);
	close_ledger(l);
}

/* ---- wraps and stragglers ----------------------------------------------- */

/* Everything in order over the boundary, told by low words or entries. */
static void over_boundary(uint64_t first)
{
	struct avp_ledger *l = open_ledger(16, first);
	uint64_t bad = 0;

	for (uint64_t s = first; s < first + 64; s++) {
		add(l, s, true);
		if (s & 1)
			bad += avp_ledger_acks_low(l, (uint32_t)s + 1,
						   (uint32_t)s + 1) != 0;
		else if (avp_ledger_ack_one(l, s & ACK_SEQUENCE_MASK,
					    AVP_ACK_RELEASED) ||
			 avp_ledger_ack_one(l, s & ACK_SEQUENCE_MASK,
					    AVP_ACK_REJECTED))
			bad++;
		bad += avp_ledger_outstanding(l) != 0;
		bad += avp_ledger_status(l, s) !=
		       (s & 1 ? AVP_ACK_ACCEPTED : AVP_ACK_REJECTED);
	}
	CU_ASSERT_EQUAL(bad, 0);
	CU_ASSERT_EQUAL(rec.news, 128);
	close_ledger(l);
}

static void over_boundaries(void)
{
	over_boundary(1);
	over_boundary((1ull << 31) - 30);
	over_boundary((1ull << 32) - 30);
	over_boundary((1ull << 48) - 30);
	over_boundary((1ull << 63) - 40);
}

/* Two messages are held while far more than 2 * window others pass. */
static void stragglers(void)
{
	const uint64_t first = UINT32_MAX - 500, held = first + 1;
	struct avp_ledger *l = open_ledger(16, first);
	uint64_t bad = 0, s;

	for (s = first; s < first + 5000; s++) {
		add(l, s, true);
		if (s == held || s == held + 20)
			continue;
		bad += avp_ledger_ack_one(l, s & ACK_SEQUENCE_MASK,
					  AVP_ACK_ACCEPTED) != 0;
		bad += avp_ledger_ack_one(l, s & ACK_SEQUENCE_MASK,
					  AVP_ACK_RELEASED) != 0;
		bad += avp_ledger_status(l, s) != AVP_ACK_ACCEPTED;
		bad += s > held && avp_ledger_status(l, held) != 0;
	}
	CU_ASSERT_EQUAL(bad, 0);
	CU_ASSERT_EQUAL(avp_ledger_outstanding(l), 2);
	/* One is settled by an entry, still lent; the other by the word. */
	CU_ASSERT_EQUAL(avp_ledger_ack_one(l, held & ACK_SEQUENCE_MASK,
					   AVP_ACK_REJECTED),
			0);
	CU_ASSERT_EQUAL(avp_ledger_status(l, held), AVP_ACK_REJECTED);
	CU_ASSERT_EQUAL(avp_ledger_outstanding(l), 2);
	CU_ASSERT_EQUAL(avp_ledger_acks(l, s, held + 20), 0);
	CU_ASSERT_EQUAL(avp_ledger_status(l, held), AVP_ACK_REJECTED);
	CU_ASSERT_EQUAL(avp_ledger_status(l, held + 20), AVP_ACK_ACCEPTED);
	CU_ASSERT_EQUAL(avp_ledger_outstanding(l), 1);
	CU_ASSERT_EQUAL(avp_ledger_acks(l, s, s), 0);
	CU_ASSERT_EQUAL(avp_ledger_outstanding(l), 0);
	CU_ASSERT_EQUAL(rec.news, 10000);
	close_ledger(l);
}

/* A whole window of stragglers, all over at once. */
static void window_of_stragglers(void)
{
	struct avp_ledger *l = open_ledger(32, 1);
	uint64_t s = 1;

	for (; s <= 31; s++)
		add(l, s, true);
	for (; s < 1000; s++) {
		add(l, s, false);
		CU_ASSERT_EQUAL(avp_ledger_ack_one(l, s, AVP_ACK_ACCEPTED), 0);
	}
	CU_ASSERT_EQUAL(avp_ledger_outstanding(l), 31);
	CU_ASSERT_EQUAL(avp_ledger_acks(l, s, s), 0);
	CU_ASSERT_EQUAL(avp_ledger_outstanding(l), 0);
	for (int i = 0; i < 31; i++)
		CU_ASSERT(rec.settled[i] == AVP_ACK_ACCEPTED &&
			  rec.released[i] == AVP_ACK_RELEASED);
	close_ledger(l);
}

/* ---- what is left ------------------------------------------------------- */

struct visited {
	uint64_t last, count, settled, released, wrong;
};

static void visit(void *arg, uint64_t sequence, uint64_t cookie, bool settled,
		  bool released)
{
	struct visited *v = arg;

	v->wrong += sequence <= v->last || cookie != sequence * 3;
	v->last = sequence;
	v->count++;
	v->settled += settled;
	v->released += released;
}

/* ---- plain messages ----------------------------------------------------- */

static void plain_ones(void)
{
	const uint64_t f = UINT32_MAX - 3;
	struct avp_ledger *l = open_ledger(16, f);

	for (int i = 0; i < 8; i++)
		avp_ledger_add_plain(l);
	add(l, f + 8, true);
	avp_ledger_add_plain(l);
	CU_ASSERT_EQUAL(avp_ledger_outstanding(l), 10);
	CU_ASSERT_EQUAL(avp_ledger_status(l, f + 3), 0);
	CU_ASSERT_EQUAL(avp_ledger_status(l, f + 10), AVP_UNKNOWN);
	CU_ASSERT_EQUAL(avp_ledger_status(l, f - 1), AVP_UNKNOWN);
	/* Out of order; said again; released, which they are anyway. */
	CU_ASSERT_EQUAL(avp_ledger_ack_one(l, f + 3, AVP_ACK_REJECTED), 0);
	CU_ASSERT_EQUAL(avp_ledger_ack_one(l, f + 3, AVP_ACK_ACCEPTED), 0);
	CU_ASSERT_EQUAL(avp_ledger_ack_one(l, f + 4, AVP_ACK_RELEASED), 0);
	CU_ASSERT_EQUAL(avp_ledger_outstanding(l), 9);
	/* A word over some of them, then over all. */
	CU_ASSERT_EQUAL(avp_ledger_acks(l, f + 5, f), 0);
	CU_ASSERT_EQUAL(rec.plain[AVP_ACK_ACCEPTED], 4);
	CU_ASSERT_EQUAL(avp_ledger_ack_one(l, f + 2, AVP_ACK_REJECTED), 0);
	CU_ASSERT_EQUAL(avp_ledger_acks(l, f + 10, f + 10), 0);
	CU_ASSERT_EQUAL(rec.plain[AVP_ACK_ACCEPTED], 8);
	CU_ASSERT_EQUAL(rec.plain[AVP_ACK_REJECTED], 1);
	CU_ASSERT_EQUAL(rec.plain[AVP_ACK_RELEASED], 0);
	CU_ASSERT_EQUAL(avp_ledger_outstanding(l), 0);
	CU_ASSERT_EQUAL(rec.news, 2); /* of f + 8 */
	CU_ASSERT_EQUAL(avp_ledger_status(l, f + 3), AVP_ACK_REJECTED);
	CU_ASSERT_EQUAL(avp_ledger_status(l, f + 2), AVP_ACK_ACCEPTED);
	CU_ASSERT_EQUAL(avp_ledger_status(l, f + 9), AVP_ACK_ACCEPTED);
	for (int i = 0; i < 16; i++)
		avp_ledger_add_plain(l);
	CU_ASSERT_FALSE(avp_ledger_has_room(l));
	CU_ASSERT_EQUAL(avp_ledger_acks(l, f + 27, f), AVP_POISONED);
	CU_ASSERT_EQUAL(avp_ledger_acks(l, f + 26, f), 0);
	CU_ASSERT_TRUE(avp_ledger_has_room(l));
	close_ledger(l);
}

/* A plain message that is held while others, plain and lent, pass. */
static void plain_stragglers(void)
{
	struct avp_ledger *l = open_ledger(16, 1);
	struct visited v = {0};

	for (uint64_t s = 1; s < 500; s++) {
		if (s % 3)
			avp_ledger_add_plain(l);
		else
			add(l, s, true);
		if (s == 7 || s == 100 || s == 101)
			continue;
		avp_ledger_ack_one(l, s, AVP_ACK_ACCEPTED);
		avp_ledger_ack_one(l, s, AVP_ACK_RELEASED);
	}
	CU_ASSERT_EQUAL(avp_ledger_outstanding(l), 3);
	CU_ASSERT_EQUAL(avp_ledger_status(l, 7), 0);
	CU_ASSERT_EQUAL(avp_ledger_status(l, 100), 0);
	CU_ASSERT_EQUAL(avp_ledger_status(l, 8), AVP_UNKNOWN);
	CU_ASSERT_EQUAL(avp_ledger_ack_one(l, 100, AVP_ACK_EXPIRED), 0);
	CU_ASSERT_EQUAL(avp_ledger_status(l, 100), AVP_ACK_EXPIRED);
	CU_ASSERT_EQUAL(rec.plain[AVP_ACK_EXPIRED], 1);
	CU_ASSERT_EQUAL(avp_ledger_acks(l, 8, 8), 0);
	CU_ASSERT_EQUAL(avp_ledger_outstanding(l), 1);
	avp_ledger_drain(l, visit, &v);
	CU_ASSERT_EQUAL(v.count, 1);
	CU_ASSERT_EQUAL(avp_ledger_outstanding(l), 0);
	close_ledger(l);
}

/* What was outstanding stays so to whoever asks; what was accepted too. */
static void drained_plain_ones(void)
{
	struct avp_ledger *l = open_ledger(16, 1);
	struct visited v = {0};

	for (uint64_t s = 1; s <= 10; s++)
		avp_ledger_add_plain(l);
	avp_ledger_ack_one(l, 8, AVP_ACK_REJECTED);
	avp_ledger_acks(l, 5, 5);
	avp_ledger_drain(l, visit, &v);
	CU_ASSERT_EQUAL(v.count, 5); /* 5, 6, 7, 9, 10 */
	CU_ASSERT_EQUAL(v.settled, 0);
	CU_ASSERT_EQUAL(v.released, 5);
	CU_ASSERT_EQUAL(avp_ledger_status(l, 4), AVP_ACK_ACCEPTED);
	CU_ASSERT_EQUAL(avp_ledger_status(l, 5), 0);
	CU_ASSERT_EQUAL(avp_ledger_status(l, 8), AVP_ACK_REJECTED);
	avp_ledger_drain(l, visit, &v);
	CU_ASSERT_EQUAL(v.count, 5);
	close_ledger(l);
}

/* ---- the end of a link -------------------------------------------------- */

static void drain(void)
{
	struct avp_ledger *l = open_ledger(16, 1);
	struct visited v = {0};

	add(l, 1, true); /* becomes a straggler */
	for (uint64_t s = 2; s < 100; s++) {
		add(l, s, false);
		avp_ledger_ack_one(l, s, AVP_ACK_ACCEPTED);
	}
	add(l, 100, true);
	add(l, 101, false);
	add(l, 102, true);
	avp_ledger_ack_one(l, 100, AVP_ACK_RELEASED);
	avp_ledger_ack_one(l, 102, AVP_ACK_REJECTED);
	avp_ledger_drain(l, visit, &v);
	CU_ASSERT_EQUAL(v.wrong, 0);
	CU_ASSERT_EQUAL(v.count, 4); /* 1, 100, 101, 102 */
	CU_ASSERT_EQUAL(v.settled, 1);
	CU_ASSERT_EQUAL(v.released, 2);
	CU_ASSERT_EQUAL(avp_ledger_outstanding(l), 0);
	CU_ASSERT_EQUAL(avp_ledger_status(l, 102), AVP_ACK_REJECTED);
	avp_ledger_drain(l, visit, &v);
	CU_ASSERT_EQUAL(v.count, 4);
	close_ledger(l);
}

/* ---- a lane's acknowledgements against a model -------------------------- */

#define WINDOW 16

/*
 * The sender's ledger and its reader, who holds what it likes and pays in any
 * order, as the layer above does: an entry for what is not at the head, then
 * the words. Between drains of the sender the ring must never hold more than
 * it has entries for.
 */
struct model {
	struct avp_lane_tx tx, reader;
	struct avp_lane_rx rx, acks; /* the reader's view; the sender's */
	struct avp_ledger *ledger;
	uint64_t first, sent, accept_head, release_head, most_unread;
	uint8_t lent[SPAN], plain[SPAN];
	uint8_t accepted[SPAN], released[SPAN]; /* by the reader */
};

static struct model m;

static void send_one(void)
{
	struct avp_slot_put put = {0};
	bool lent = rand() & 1, plain = !lent && rand() % 4;

	if (!avp_ledger_has_room(m.ledger) || avp_lane_put(&m.tx, &put, false))
		return;
	m.lent[m.sent - m.first] = lent;
	m.plain[m.sent - m.first] = plain;
	if (plain)
		avp_ledger_add_plain(m.ledger);
	else
		avp_ledger_add(m.ledger, m.sent, m.sent * 3, lent);
	m.sent++;
}

static void take_one(void)
{
	struct avp_slot_view v;
	uint64_t i = m.rx.next - m.first;

	if (avp_lane_take(&m.rx, &v, NULL) == 1 && !m.lent[i])
		m.released[i] = AVP_ACK_RELEASED;
}

static void move_words(void)
{
	while (m.accept_head < m.rx.next && m.accepted[m.accept_head - m.first])
		m.accept_head++;
	while (m.release_head < m.rx.next &&
	       m.released[m.release_head - m.first])
		m.release_head++;
	avp_lane_ack_below(&m.reader, m.accept_head, m.release_head, m.rx.next);
}

static void note_unread(void)
{
	uint64_t unread = m.reader.ack_next - m.acks.ack_next;

	if (unread > m.most_unread)
		m.most_unread = unread;
}

/* Pays one debt of a random message that was taken. */
static void pay_one(void)
{
	uint64_t low =
		m.accept_head < m.release_head ? m.accept_head : m.release_head;
	uint64_t held = m.rx.next - low, s;

	if (!held)
		return;
	s = low + (uint64_t)rand() % held;
	if (rand() % 8 && (s == m.accept_head || s == m.release_head))
		return; /* rather one that needs an entry */
	if (rand() & 1 && !m.accepted[s - m.first]) {
		unsigned status = 1 + (unsigned)rand() % 3;

		m.accepted[s - m.first] = (uint8_t)status;
		if (s != m.accept_head || status != AVP_ACK_ACCEPTED)
			avp_lane_ack_one(&m.reader, s, (enum avp_ack)status);
	} else if (!m.released[s - m.first]) {
		m.released[s - m.first] = AVP_ACK_RELEASED;
		if (s != m.release_head)
			avp_lane_ack_one(&m.reader, s, AVP_ACK_RELEASED);
	}
	move_words();
	note_unread();
}

/* As the sender does it: words, then the ring, then what the words say. */
static int look(void)
{
	struct avp_acks words;
	uint64_t sequence;
	enum avp_ack status;

	avp_lane_acks_load(&m.acks, &words);
	while (avp_lane_ack_take(&m.acks, &sequence, &status) == 1)
		if (avp_ledger_ack_one(m.ledger, sequence, status))
			return AVP_POISONED;
	avp_lane_consumed(&m.tx, words.consumed);
	return avp_ledger_acks(m.ledger, words.accepted, words.released);
}

/* After a look, the ledger knows what the reader has said. */
static uint64_t differences(void)
{
	uint64_t wrong = 0, live = 0, plain[AVP_ACK_RELEASED + 1] = {0};

	for (uint64_t i = 0; i < m.sent - m.first; i++) {
		if (!m.plain[i])
			wrong += rec.settled[i] != m.accepted[i];
		else if (m.accepted[i])
			plain[m.accepted[i]]++;
		if (m.sent - m.first - i <= 2 * WINDOW)
			wrong += avp_ledger_status(m.ledger, m.first + i) !=
				 m.accepted[i];
		wrong += m.lent[i] && rec.released[i] != m.released[i];
		live += !m.accepted[i] || (m.lent[i] && !m.released[i]);
	}
	for (unsigned s = AVP_ACK_ACCEPTED; s <= AVP_ACK_EXPIRED; s++)
		wrong += plain[s] != rec.plain[s];
	return wrong + (live != avp_ledger_outstanding(m.ledger));
}

static void open_model(uint64_t first)
{
	struct avp_lane_options o = {.size = sizeof(o),
				     .slots = WINDOW,
				     .window = WINDOW,
				     .first_sequence = first};

	memset(&m, 0, sizeof(m));
	m.first = m.sent = m.accept_head = m.release_head = first;
	m.ledger = open_ledger(WINDOW, first);
	CU_ASSERT_FATAL(!avp_lane_init(&m.tx, &o, NULL) &&
			!avp_lane_init(&m.reader, &o, NULL));
	CU_ASSERT_FATAL(!avp_lane_attach(&m.rx, &m.reader, dup(m.tx.segment.fd),
					 NULL) &&
			!avp_lane_attach(&m.acks, &m.tx,
					 dup(m.reader.segment.fd), NULL));
}

static void random_acks(void)
{
	static const uint64_t first[] = {1, UINT32_MAX - 700,
					 (1ull << 48) - 300};
	uint64_t poisoned = 0, wrong = 0, most = 0;

	for (unsigned run = 0; run < 30; run++) {
		srand(run);
		open_model(first[run % 3]);
		for (unsigned step = 0; step < 40000; step++) {
			unsigned what = (unsigned)rand() % (10 + run);

			if (what < 3)
				send_one();
			else if (what < 6)
				take_one();
			else if (what == 6)
				avp_lane_ack_flush(&m.reader);
			else if (what == 7 && rand() % 16 == 0)
				poisoned += look() != 0;
			else
				pay_one();
			if (step % 4000 == 0) {
				avp_lane_ack_flush(&m.reader);
				poisoned += look() != 0;
				wrong += differences();
			}
		}
		CU_ASSERT(m.sent - m.first > 300);
		CU_ASSERT(m.most_unread <= 2 * WINDOW);
		if (most < m.most_unread)
			most = m.most_unread;
		avp_lane_detach(&m.rx);
		avp_lane_detach(&m.acks);
		avp_lane_fini(&m.tx);
		avp_lane_fini(&m.reader);
		close_ledger(m.ledger);
	}
	CU_ASSERT_EQUAL(poisoned, 0);
	CU_ASSERT_EQUAL(wrong, 0);
	CU_ASSERT(most > 2 * WINDOW - 8); /* it came near */
}

int main(void)
{
	static const struct test tests[] = {
		TEST(in_order),
		TEST(out_of_order),
		TEST(window_is_the_limit),
		TEST(arguments),
		TEST(words_beyond_what_was_sent),
		TEST(entries_beyond_what_was_sent),
		TEST(over_boundaries),
		TEST(stragglers),
		TEST(window_of_stragglers),
		TEST(plain_ones),
		TEST(plain_stragglers),
		TEST(drained_plain_ones),
		TEST(drain),
		TEST(random_acks),
		{0},
	};

	return test_main("ledger", tests);
}
