/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lane protocol. One process writes a lane, one reads it; each word has one
 * writer.
 *
 * Messages: the writer fills slot (sequence & mask) and then release-stores its
 * commit word. The reader acquire-loads the commit word of the slot that it
 * expects: the sequence itself means a message, anything older that the slot can
 * hold (zero, or the sequence one lap before) means none yet, everything else is
 * a violation. The writer enters a slot again only when the reader's `consumed`
 * word, or an acknowledgement, says that it was read; the reader stores that
 * word with release after its loads from the slot.
 *
 * The words that ride along in slots spare the ack line's cache miss, but reach
 * only a peer that is reading its messages: one that does nothing but send sees
 * the ack line alone, so a word that rode is still news for the line.
 *
 * Acknowledgements go the other way, in the reader's own lane: cumulative words
 * in every slot that it writes and in its ack line, out-of-order entries in its
 * ack ring. An entry is stored before a cumulative word passes its sequence, and
 * the writer drains the ring whenever it looks at the words, so that at most two
 * entries a message are ever unread: with two entries for each message that may
 * be outstanding the ring cannot overflow.
 */
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include <avp/ring.h>

#include "ring/lane_inline.h"
#include "shm/options.h"

#define DEFAULT_SLOTS 1024
#define COLOUR_BYTES  4096 /* room for the coloured start of the slots */

static struct lane_map *own_map(const struct avp_lane_tx *tx)
{
	return tx->segment.base;
}

static const struct lane_map *peer_map(const struct avp_lane_rx *rx)
{
	return rx->segment.base;
}

static uint32_t ack_entries(uint32_t window)
{
	return 2 * window;
}

uint64_t avp_lane_bytes(uint32_t slots)
{
	uint64_t bytes = LANE_ACKS_OFF + 8ull * ack_entries(slots) +
			 COLOUR_BYTES + (uint64_t)slots * SLOT_BYTES;

	return (bytes + 4095) & ~4095ull;
}

static bool power_of_two(uint64_t n)
{
	return n && !(n & (n - 1));
}

static int check_options(const struct avp_lane_options *options,
			 struct avp_lane_options *o, struct avp_reason *why)
{
	int error = avp__options_copy(o, sizeof(*o), sizeof(*o), options, 0,
				      why);

	if (!error)
		error = avp__options_reserved(o->reserved, 4, why);
	if (error)
		return error;
	if (o->reserved32)
		return avp__fail(why, AVP_USAGE,
				 "options.reserved32 is not 0");
	if (o->slots && (!power_of_two(o->slots) ||
			 o->slots < LANE_MIN_SLOTS || o->slots > LANE_MAX_SLOTS))
		return avp__fail(why, AVP_USAGE,
				 "%u slots: must be a power of two from %u to "
				 "%u",
				 o->slots, LANE_MIN_SLOTS, LANE_MAX_SLOTS);
	if (o->window > (o->slots ? o->slots : DEFAULT_SLOTS))
		return avp__fail(why, AVP_USAGE,
				 "a window of %u is over the number of slots",
				 o->window);
	if (o->first_sequence > LANE_MAX_FIRST)
		return avp__fail(why, AVP_USAGE,
				 "a first sequence of %llu is over 2^63 - 1",
				 (unsigned long long)o->first_sequence);
	return 0;
}

static void fill_header(struct avp_lane_tx *tx, uint32_t slots,
			uint64_t slots_off)
{
	struct lane_header *h = &own_map(tx)->header;

	h->magic = LANE_MAGIC;
	h->major = LANE_MAJOR;
	h->minor = LANE_MINOR;
	h->header_bytes = sizeof(*h);
	h->slots = slots;
	h->slot_bytes = SLOT_BYTES;
	h->acks = ack_entries(slots);
	h->window = tx->window;
	h->slots_off = slots_off;
	h->first_sequence = tx->next;
	h->start_ns = tx->start_ns;
	memcpy(h->epoch, tx->epoch, sizeof(h->epoch));
	/* release: pairs with the acquire in read_header(); covers the header */
	atomic_store_explicit(&h->ready, LANE_READY, memory_order_release);
}

int avp_lane_init(struct avp_lane_tx *tx, const struct avp_lane_options *options,
		  struct avp_reason *why)
{
	struct avp_lane_tx new = { 0 };
	struct avp_lane_options o;
	uint64_t slots_off;
	struct timespec now;
	uint32_t slots;
	int error = check_options(options, &o, why);

	if (error)
		return error;
	slots = o.slots ? o.slots : DEFAULT_SLOTS;
	if (getrandom(new.epoch, sizeof(new.epoch), 0) != sizeof(new.epoch))
		return avp__fail(why, AVP_IO, "getrandom: no random epoch");
	error = avp_segment_create(&new.segment, "avp-lane",
				   avp_lane_bytes(slots), NULL, why);
	if (error)
		return error;
	clock_gettime(CLOCK_MONOTONIC, &now);
	new.start_ns = (uint64_t)now.tv_sec * 1000000000u +
		       (uint64_t)now.tv_nsec;
	new.window = o.window ? o.window : slots;
	new.next = o.first_sequence ? o.first_sequence : 1;
	new.consumed = new.next;
	slots_off = LANE_ACKS_OFF + 8ull * ack_entries(slots) +
		    (uint64_t)o.colour * 2 * LINE % COLOUR_BYTES;
	new.slots = (uint8_t *)new.segment.base + slots_off;
	new.slot_mask = slots - 1;
	new.ack_mask = ack_entries(slots) - 1;
	*tx = new;
	fill_header(tx, slots, slots_off);
	return 0;
}

void avp_lane_fini(struct avp_lane_tx *tx)
{
	avp_segment_close(&tx->segment);
}

/* Copies the peer's header once and checks the copy. */
static int read_header(const struct avp_segment *segment,
		       struct lane_header *h, struct avp_reason *why)
{
	const struct lane_map *map = segment->base;
	uint64_t end;

	/* acquire: pairs with the release of ready in fill_header() */
	if (segment->bytes < avp_lane_bytes(LANE_MIN_SLOTS) ||
	    atomic_load_explicit(&map->header.ready, memory_order_acquire) !=
		    LANE_READY)
		return avp__fail(why, AVP_POISONED, "the lane is not ready");
	memcpy(h, &map->header, sizeof(*h));
	if (h->magic != LANE_MAGIC || h->major != LANE_MAJOR)
		return avp__fail(why, AVP_POISONED,
				 "lane magic %llx major %u, want %llx and %u",
				 (unsigned long long)h->magic, h->major,
				 LANE_MAGIC, LANE_MAJOR);
	if (h->header_bytes < sizeof(*h) || h->slot_bytes != SLOT_BYTES ||
	    !power_of_two(h->slots) || h->slots < LANE_MIN_SLOTS ||
	    h->slots > LANE_MAX_SLOTS || h->acks != ack_entries(h->slots) ||
	    !h->window || h->window > h->slots || !h->first_sequence ||
	    h->start_ns > INT64_MAX / 2 ||
	    h->first_sequence > LANE_MAX_FIRST)
		return avp__fail(why, AVP_POISONED,
				 "lane geometry: %u slots of %u bytes, %u "
				 "acks, window %u",
				 h->slots, h->slot_bytes, h->acks, h->window);
	end = h->slots_off + (uint64_t)h->slots * SLOT_BYTES;
	if (h->slots_off % LINE || end < h->slots_off ||
	    h->slots_off < LANE_ACKS_OFF + 8ull * h->acks ||
	    end > segment->bytes)
		return avp__fail(why, AVP_POISONED,
				 "lane slots at %llu do not fit %llu bytes",
				 (unsigned long long)h->slots_off,
				 (unsigned long long)segment->bytes);
	return 0;
}

int avp_lane_attach(struct avp_lane_rx *rx, struct avp_lane_tx *tx, int fd,
		    struct avp_reason *why)
{
	struct avp_segment segment;
	struct lane_header h;
	int error = avp_segment_import(&segment, fd, 0, LANE_MAX_BYTES, why);

	if (error)
		return error;
	error = read_header(&segment, &h, why);
	if (error) {
		avp_segment_close(&segment);
		return error;
	}
	*rx = (struct avp_lane_rx){
		.segment = segment,
		.slots = (const uint8_t *)segment.base + h.slots_off,
		.acks = (const void *)((const uint8_t *)segment.base +
				       LANE_ACKS_OFF),
		.slot_mask = h.slots - 1,
		.ack_mask = h.acks - 1,
		.window = h.window,
		.next = h.first_sequence,
		.first_sequence = h.first_sequence,
		.start_ns = h.start_ns,
	};
	memcpy(rx->epoch, h.epoch, sizeof(rx->epoch));
	avp_lane_ack_below(tx, rx->next, rx->next, rx->next);
	avp_lane_ack_flush(tx);
	return 0;
}

void avp_lane_detach(struct avp_lane_rx *rx)
{
	avp_segment_close(&rx->segment);
}

/* ---- writing ------------------------------------------------------------- */

static int check_put(const struct avp_slot_put *m)
{
	unsigned used = 2u + m->task_bytes + m->session_bytes + m->inline_bytes;

	if (m->task_bytes > AVP_LANE_ID_BYTES ||
	    m->session_bytes > AVP_LANE_ID_BYTES || used > AVP_LANE_SMALL_BYTES)
		return AVP_USAGE;
	if (!m->long_form)
		return m->in_arena ? AVP_USAGE : 0;
	if (used > AVP_LANE_LONG_BYTES ||
	    (m->in_arena && (m->segment > AVP_LANE_SEGMENT_MAX ||
			     m->offset > AVP_LANE_OFFSET_MAX ||
			     m->inline_bytes > m->body_bytes)))
		return AVP_USAGE;
	return 0;
}

static uint8_t *put_long(struct slot *slot, const struct avp_slot_put *m)
{
	memcpy(slot->message_id, m->message_id, sizeof(slot->message_id));
	slot->where = m->in_arena ? (uint64_t)m->segment << 40 | m->offset : 0;
	slot->body_bytes = m->in_arena ? m->body_bytes : m->inline_bytes;
	return slot->rest;
}

int avp_lane_put(struct avp_lane_tx *tx, const struct avp_slot_put *m,
		 bool ordered)
{
	struct slot *slot;
	uint8_t *p;
	int error = check_put(m);

	if (error)
		return error;
	slot = lane_claim(tx);
	if (!slot)
		return AVP_QUEUE_FULL;
	slot->sent_ms = m->sent_ms;
	slot->expiry_ms = m->expiry_ms;
	slot->token_limit = m->token_limit;
	slot->method = m->method;
	slot->kind = m->kind;
	slot->flags = (uint8_t)((m->long_form ? SLOT_LONG : 0) |
				(m->in_arena ? SLOT_ARENA : 0) |
				(m->redelivered ? SLOT_REDELIVERED : 0) |
				(m->prompt ? SLOT_PROMPT : 0));
	slot->inline_bytes = m->inline_bytes;
	p = m->long_form ? put_long(slot, m) :
			   (uint8_t *)slot + SLOT_SMALL_BYTES;
	p = lane_put_id(p, m->task, m->task_bytes);
	p = lane_put_id(p, m->session, m->session_bytes);
	lane_copy_short(p, m->inline_data, m->inline_bytes);
	lane_commit(tx, slot, ordered);
	return 0;
}

void avp_lane_consumed(struct avp_lane_tx *tx, uint64_t consumed)
{
	if (consumed - tx->consumed <= tx->next - tx->consumed)
		tx->consumed = consumed;
}

/* ---- reading ------------------------------------------------------------- */

bool avp_lane_ready(const struct avp_lane_rx *rx)
{
	/* seq_cst: S2 of wake.h, pairs with the ordered avp_lane_put() */
	return atomic_load_explicit(&lane_next(rx)->sequence,
				    memory_order_seq_cst) == rx->next;
}

void avp_lane_prefetch(const struct avp_lane_rx *rx)
{
	__builtin_prefetch(lane_next(rx));
	__builtin_prefetch((const uint8_t *)lane_next(rx) + LINE);
}

/* Not the sequence that we wait for: an older one, or nonsense? */
int avp__lane_not_ready(const struct avp_lane_rx *rx, uint64_t found,
			struct avp_reason *why)
{
	uint64_t slots = rx->slot_mask + 1;

	if (rx->next - rx->first_sequence < slots ? !found :
						    found == rx->next - slots)
		return 0;
	return avp__fail(why, AVP_POISONED,
			 "message %llu: its slot holds sequence %llu",
			 (unsigned long long)rx->next,
			 (unsigned long long)found);
}

int avp__lane_fault(const struct avp_lane_rx *rx, enum lane_fault fault,
		    const uint8_t *copy, struct avp_reason *why)
{
	static const char *const what[] = {
		[LANE_BAD_FLAGS] = "unknown flags",
		[LANE_BAD_TASK] = "a task id that is too long",
		[LANE_BAD_SESSION] = "a session id that is too long",
		[LANE_BAD_INLINE] = "inline bytes beyond the slot",
		[LANE_BAD_BODY] = "more of the body than there is",
	};
	const struct slot *slot = (const void *)copy;

	return avp__fail(why, AVP_POISONED,
			 "message %llu has %s (flags %#x, %u inline bytes)",
			 (unsigned long long)rx->next, what[fault], slot->flags,
			 slot->inline_bytes);
}

int avp_lane_take(struct avp_lane_rx *rx, struct avp_slot_view *v,
		  struct avp_reason *why)
{
	uint64_t found = lane_arrived(rx);
	enum lane_fault fault;

	if (found != rx->next)
		return avp__lane_not_ready(rx, found, why);
	lane_copy(rx, v->copy);
	fault = lane_parse(v->copy, v);
	if (fault)
		return avp__lane_fault(rx, fault, v->copy, why);
	v->sequence = found;
	rx->next = found + 1;
	return 1;
}

/* ---- acknowledging --------------------------------------------------------- */

void avp_lane_ack_below(struct avp_lane_tx *tx, uint64_t accepted,
			uint64_t released, uint64_t taken)
{
	tx->accepted = accepted;
	tx->released = released;
	tx->taken = taken;
}

bool avp_lane_ack_flush(struct avp_lane_tx *tx)
{
	struct lane_acks *acks = &own_map(tx)->acks;

	if (tx->written_accepted == tx->accepted &&
	    tx->written_released == tx->released &&
	    tx->written_taken == tx->taken && tx->written_acks == tx->ack_next)
		return false;
	/*
	 * release: pairs with the acquires in avp_lane_acks_load(); a word
	 * covers our loads from the slots and bodies, and the ack ring's
	 * entries, below it. The last one is seq_cst: P1 of wake.h.
	 */
	atomic_store_explicit(&acks->consumed, tx->taken, memory_order_release);
	atomic_store_explicit(&acks->released, tx->released,
			      memory_order_release);
	atomic_store_explicit(&acks->accepted, tx->accepted,
			      memory_order_seq_cst);
	tx->written_accepted = tx->accepted;
	tx->written_released = tx->released;
	tx->written_taken = tx->taken;
	tx->written_acks = tx->ack_next;
	return true;
}

static uint64_t lap_bits(uint64_t index, uint64_t mask)
{
	return (index / (mask + 1) + 1) << ACK_LAP_SHIFT;
}

void avp_lane_ack_one(struct avp_lane_tx *tx, uint64_t sequence,
		      enum avp_ack status)
{
	_Atomic uint64_t *ring =
		(void *)((uint8_t *)tx->segment.base + LANE_ACKS_OFF);
	uint64_t index = tx->ack_next++;

	/* release: pairs with the acquire in avp_lane_ack_take(); RELEASED
	 * covers our loads from the body */
	atomic_store_explicit(&ring[index & tx->ack_mask],
			      lap_bits(index, tx->ack_mask) |
				      (uint64_t)status << ACK_STATUS_SHIFT |
				      (sequence & ACK_SEQUENCE_MASK),
			      memory_order_release);
}

void avp_lane_acks_load(const struct avp_lane_rx *rx, struct avp_acks *out)
{
	const struct lane_acks *acks = &peer_map(rx)->acks;

	/* acquire: pair with the stores in avp_lane_ack_flush(); seq_cst, the
	 * first: it is the load S2 of ring/wake.h */
	out->accepted =
		atomic_load_explicit(&acks->accepted, memory_order_seq_cst);
	out->released =
		atomic_load_explicit(&acks->released, memory_order_acquire);
	out->consumed =
		atomic_load_explicit(&acks->consumed, memory_order_acquire);
}

int avp_lane_ack_take(struct avp_lane_rx *rx, uint64_t *sequence_low,
		      enum avp_ack *status)
{
	const _Atomic uint64_t *ring = (const void *)rx->acks;
	/* acquire: pairs with the release in avp_lane_ack_one() */
	uint64_t entry = atomic_load_explicit(
		&ring[rx->ack_next & rx->ack_mask], memory_order_acquire);
	uint64_t lap = lap_bits(rx->ack_next, rx->ack_mask);
	unsigned s = entry >> ACK_STATUS_SHIFT & 0xff;

	if (entry >> ACK_LAP_SHIFT != lap >> ACK_LAP_SHIFT) {
		/* else overwritten, or nonsense */
		lap -= 1ull << ACK_LAP_SHIFT;
		return entry >> ACK_LAP_SHIFT == lap >> ACK_LAP_SHIFT
			       ? 0
			       : AVP_POISONED;
	}
	if (s < AVP_ACK_ACCEPTED || s > AVP_ACK_MISFIT)
		return AVP_POISONED;
	rx->ack_next++;
	*sequence_low = entry & ACK_SEQUENCE_MASK;
	*status = (enum avp_ack)s;
	return 1;
}
