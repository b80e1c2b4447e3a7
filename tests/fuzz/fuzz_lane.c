/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any slots through a real lane into an agent, which answers, holds, lets go
 * and sends in between, over wraps of sequences; what comes of each is foretold
 * by the plain rules here, that know of no short way: lane_parse(), the decoder
 * without its memo, and lists that are walked from end to end. The
 * acknowledgements are entered in a ledger as a sender's, and have to say the
 * same.
 */
#include <string.h>

#include <avp/latent.h>
#include <avp/ring.h>

#include "ahp/agent_internal.h"
#include "ring/lane_inline.h"
#include "tests/fuzz.h"
#include "tests/raw.h"

#define WINDOW	     16u
#define SEGMENT	     65536u
#define OPS_MAX	     4096
#define HIDDEN	     64
#define IDS	     4
#define LONG_HEAD_AT 16384 /* a frame whose metadata is in no slot */
#define TEXT_AT	     49152

struct input {
	const uint8_t *at, *end;
};

static unsigned draw(struct input *in)
{
	return in->at < in->end ? *in->at++ : 0;
}

/* ---- what is foretold -------------------------------------------------- */

enum fate { DELIVERED, REFUSED, PASSED, TWIN, POISON };

struct foretold {
	uint64_t sequence, master; /* of a twin */
	enum fate fate;
	enum avp_ack status;  /* once it is settled, else 0 */
	bool accept, release; /* is owed */
	uint8_t id;	      /* 0: none */
	bool lent;
};

struct game {
	struct ahp_agent *v;
	struct raw raw;
	struct avp_lane_rx rx; /* the victim's lane */
	struct avp_ledger *ledger;
	bool explicit, judges, tame, lied;
	uint32_t peer;
	uint64_t first;
	struct foretold m[OPS_MAX + 1]; /* by sequence - first */
	uint8_t told[OPS_MAX + 1];	/* statuses that the ledger had */
	bool freed[OPS_MAX + 1];
	bool known[IDS + 1];
	uint64_t master[IDS + 1]; /* 0: none */
	struct ahp_message held[WINDOW + 1];
	bool full[WINDOW + 1];
	uint64_t committed, taken; /* sequences: below them */
	/* What the victim sent, and what we have said of it. */
	uint64_t sent_first, sent, below, released;
	bool settled[OPS_MAX + 1];
	uint64_t in_flight;
	struct ahp_receipt last;
};

static struct foretold *at(struct game *g, uint64_t sequence)
{
	return &g->m[sequence - g->first];
}

static bool read_head(const struct avp_slot_view *v, const uint8_t *body,
		      struct avp_frame *f)
{
	uint64_t need = 0, copied;
	int error = avp_frame_decode_head(v->inline_data, v->inline_bytes,
					  v->body_bytes, f, &need, NULL);

	if (error == AVP_AGAIN && need == AVP_FRAME_HEADER_BYTES) {
		error = avp_frame_decode_head(body, need, v->body_bytes, f,
					      &need, NULL);
		if (error && error != AVP_AGAIN)
			return false;
		error = AVP_AGAIN;
	}
	if (error != AVP_AGAIN)
		return !error;
	copied = need;
	return need <= FRAME_HEAD_MAX &&
	       !avp_frame_decode_head(body, copied, v->body_bytes, f, &need,
				      NULL);
}

static enum avp_ack judged(struct game *g, const struct avp_slot_view *v,
			   const uint8_t *body, struct avp_frame *f)
{
	static const struct avp_identity model = {.hidden_dim = HIDDEN};
	uint32_t now_ms = ahp__lane_ms(g->raw.tx.start_ns);

	if (v->expiry_ms && (int32_t)(now_ms - v->expiry_ms) > 0)
		return AVP_ACK_EXPIRED;
	if (v->method < AHP_TASK || v->method > AHP_TOKEN_RESPONSE ||
	    v->kind > AHP_FRAME)
		return AVP_ACK_REJECTED;
	if (v->kind != AHP_FRAME)
		return 0;
	if (!read_head(v, body, f))
		return AVP_ACK_REJECTED;
	f->payload = body + f->payload_off;
	if (g->judges &&
	    avp_latent_check(&model, &f->metadata,
			     f->flags & AVP_FLAG_COMPRESSED ? NULL : f->payload,
			     f->content_bytes, NULL))
		return AVP_ACK_MISFIT;
	return 0;
}

static unsigned id_of(const struct avp_slot_view *v)
{
	return v->message_id ? v->message_id[0] : 0;
}

static bool asks(const struct game *g, unsigned method)
{
	return g->explicit && (method == AHP_TASK || method == AHP_RESULT ||
			       method == AHP_PROGRESS);
}

static void foretell_id(struct game *g, struct foretold *t, bool accept)
{
	if (g->known[t->id]) {
		t->fate = PASSED;
		t->status = AVP_ACK_ACCEPTED;
	} else if (g->master[t->id]) {
		t->fate = TWIN;
		t->accept = true;
		t->master = g->master[t->id];
	} else if (accept) {
		g->master[t->id] = t->sequence;
	} else {
		g->known[t->id] = true;
	}
}

static bool parses(struct avp_slot_view *v)
{
	return lane_parse(v->copy, v) == LANE_OK &&
	       (!v->in_arena || (v->segment == 1 && v->offset <= SEGMENT &&
				 v->body_bytes <= SEGMENT - v->offset));
}

/* Parses a slot that was committed: into v and f, which point into it. */
static void foretell(struct game *g, struct foretold *t,
		     struct avp_slot_view *v, struct avp_frame *f,
		     const uint8_t **body)
{
	const uint8_t *base = g->raw.segment.base;
	bool accept;

	*t = (struct foretold){.sequence = g->taken, .fate = DELIVERED};
	if (!parses(v)) {
		t->fate = POISON;
		return;
	}
	*body = v->in_arena ? base + v->offset : v->inline_data;
	t->status = judged(g, v, *body, f);
	t->lent = v->in_arena;
	if (t->status) {
		t->fate = REFUSED;
		return;
	}
	accept = asks(g, v->method);
	t->id = (uint8_t)id_of(v);
	if (t->id)
		foretell_id(g, t, accept);
	if (t->fate != DELIVERED)
		return;
	t->accept = accept;
	t->release = v->in_arena;
	t->status = accept ? 0 : AVP_ACK_ACCEPTED;
}

/* ---- what came --------------------------------------------------------- */

static void same_str(struct avp_str a, struct avp_str b)
{
	MUST(a.len == b.len && (!a.len || !memcmp(a.data, b.data, a.len)));
}

static void same_frame(const struct avp_frame *a, const struct avp_frame *b)
{
	const struct avp_metadata *m = &a->metadata, *n = &b->metadata;

	MUST(a->flags == b->flags && a->dialect == b->dialect);
	MUST(a->payload_length == b->payload_length);
	MUST(a->metadata_length == b->metadata_length);
	MUST(a->raw_size == b->raw_size && a->payload_off == b->payload_off);
	MUST(a->payload_bytes == b->payload_bytes);
	MUST(a->content_bytes == b->content_bytes);
	same_str(m->model_id, n->model_id);
	same_str(m->session_id, n->session_id);
	same_str(m->source_agent_id, n->source_agent_id);
	same_str(m->target_agent_id, n->target_agent_id);
	same_str(m->avp_map_id, n->avp_map_id);
	same_str(m->compression, n->compression);
	MUST(m->hidden_dim == n->hidden_dim && m->mode == n->mode);
	MUST(m->dtype == n->dtype && m->payload_type == n->payload_type);
	MUST(m->has == n->has && m->shape_count == n->shape_count);
}

static void compare(struct game *g, const struct ahp_message *m,
		    const struct avp_slot_view *v, const struct avp_frame *f,
		    const uint8_t *body)
{
	const uint8_t *bytes = m->body;

	MUST(!strcmp(m->source, "evil") && m->sequence == g->taken);
	MUST(m->method == v->method && m->kind == v->kind);
	MUST(m->redelivered == v->redelivered && m->in_place == v->in_arena);
	MUST(m->token_limit == v->token_limit);
	same_str(m->task_id, (struct avp_str){v->task, v->task_bytes});
	same_str(m->session_id, (struct avp_str){v->session, v->session_bytes});
	MUST(m->body_bytes == v->body_bytes);
	MUST(!memcmp(bytes, body, m->body_bytes));
	if (m->kind != AHP_FRAME)
		return;
	same_frame(&m->frame, f);
	MUST((const uint8_t *)m->frame.payload == bytes + f->payload_off);
}

/* ---- answering --------------------------------------------------------- */

static void settle_twins(struct game *g, struct foretold *t,
			 enum avp_ack status)
{
	if (!t->id)
		return;
	g->master[t->id] = 0;
	g->known[t->id] |= status == AVP_ACK_ACCEPTED;
	for (uint64_t s = g->first; s < g->taken; s++)
		if (at(g, s)->fate == TWIN && at(g, s)->master == t->sequence &&
		    at(g, s)->accept) {
			at(g, s)->accept = false;
			at(g, s)->status = status;
		}
}

static void answer(struct game *g, unsigned i, bool accept)
{
	struct foretold *t = at(g, g->held[i].sequence);
	int got = accept ? ahp_accept(g->v, &g->held[i])
			 : ahp_reject(g->v, &g->held[i]);

	MUST(got == (t->accept ? 0 : AVP_USAGE));
	if (got)
		return;
	t->accept = false;
	t->status = accept ? AVP_ACK_ACCEPTED : AVP_ACK_REJECTED;
	settle_twins(g, t, t->status);
}

static void let_go(struct game *g, unsigned i)
{
	struct foretold *t = at(g, g->held[i].sequence);

	ahp_release(g->v, &g->held[i]);
	t->release = false;
	MUST(!g->held[i].body);
	if (t->accept)
		answer(g, i, true);
	g->full[i] = false;
}

/* ---- the words --------------------------------------------------------- */

static void heard(void *arg, uint64_t sequence, uint64_t cookie,
		  enum avp_ack status, uint32_t count)
{
	struct game *g = arg;
	uint64_t i = sequence - g->first;

	MUST(count == 1 && cookie == 1);
	if (status == AVP_ACK_RELEASED)
		g->freed[i] = true;
	else
		g->told[i] = (uint8_t)status;
}

static void hear_acks(struct game *g)
{
	uint64_t sequence;
	struct avp_acks words;
	enum avp_ack status;
	int got;

	avp_lane_acks_load(&g->rx, &words);
	while ((got = avp_lane_ack_take(&g->rx, &sequence, &status)) > 0)
		MUST(!avp_ledger_ack_one(g->ledger, sequence, status));
	MUST(!got);
	MUST(!avp_ledger_acks(g->ledger, words.accepted, words.released));
}

/* After a turn the ack line and its ring say exactly what is owed. */
static void check_words(struct game *g)
{
	uint64_t accepted = g->taken, released = g->taken;
	struct avp_acks words;

	for (uint64_t s = g->taken; s-- > g->first;) {
		accepted = at(g, s)->accept ? s : accepted;
		released = at(g, s)->release ? s : released;
	}
	/* The victim hears of its own from what asks for it. */
	avp_lane_ack_flush(&g->raw.tx);
	if (g->sent > g->sent_first)
		ahp_status(g->v, &g->last);
	ahp_agent_run(g->v, 0);
	avp_lane_acks_load(&g->rx, &words);
	MUST(words.accepted == accepted && words.released == released);
	MUST(words.consumed == g->taken);
	hear_acks(g);
	for (uint64_t s = g->first; s < g->taken; s++) {
		MUST(g->told[s - g->first] == at(g, s)->status);
		MUST(!at(g, s)->lent ||
		     g->freed[s - g->first] == !at(g, s)->release);
	}
	MUST(agent_stats(g->v).in_flight == g->in_flight);
}

/* ---- slots ------------------------------------------------------------- */

static struct avp_frame_template frame[3];

static void make_frames(void)
{
	static const char *const model[] = {"m", "qwen2.5-0.5b", "other"};

	for (unsigned i = 0; i < 3; i++) {
		struct avp_metadata metadata = {
			.model_id = {model[i], strlen(model[i])},
			.hidden_dim = i < 2 ? HIDDEN : HIDDEN + 1,
			.shape_count = 1,
			.shape_inline = {64},
		};

		MUST(!avp_frame_template_init(&frame[i], &metadata,
					      AVP_DIALECT_0_2, NULL));
	}
}

/* Bodies in the arena: frames of each kind, one with a long head, text. */
static void fill_segment(uint8_t *base)
{
	static char name[300];
	struct avp_metadata metadata = {.model_id = {name, sizeof(name)},
					.hidden_dim = HIDDEN,
					.shape_count = 1,
					.shape_inline = {64}};
	uint64_t len;

	memset(name, 'n', sizeof(name));
	for (unsigned i = 0; i < 3; i++)
		avp_frame_template_stamp(&frame[i], 2000, base + 4096 * i);
	MUST(!avp_frame_encode(&metadata, AVP_DIALECT_0_2, base, 1000,
			       base + LONG_HEAD_AT, 8192, &len, NULL));
	memset(base + TEXT_AT, ' ', SEGMENT - TEXT_AT);
}

static unsigned some_length(struct input *in)
{
	unsigned r = draw(in);

	return r < 160 ? 0 : r < 220 ? r % 20 : r < 250 ? draw(in) % 81 : r;
}

static uint8_t *put_ids(struct input *in, uint8_t *p, const uint8_t *end)
{
	for (int i = 0; i < 2; i++) {
		unsigned n = some_length(in);

		*p++ = (uint8_t)n;
		for (; n && p < end - 1; n--)
			*p++ = (uint8_t)draw(in);
	}
	return p;
}

static void put_small(struct input *in, struct slot *slot, uint8_t *p,
		      const uint8_t *end)
{
	unsigned room = (unsigned)(end - p), n = draw(in);
	const struct avp_frame_template *t = &frame[draw(in) % 3];
	uint8_t text[AVP_FRAME_TEMPLATE_BYTES + 256] = {0};

	if (slot->kind == AHP_FRAME) {
		n %= 64;
		avp_frame_template_stamp(t, n, text);
		n += t->len;
	}
	if (draw(in) < 250 && n > room)
		n = room;
	slot->inline_bytes = (uint8_t)n;
	memcpy(p, text, n < room ? n : room);
}

static void put_lent(struct game *g, struct input *in, struct slot *slot,
		     uint8_t *p, const uint8_t *end)
{
	const uint8_t *base = g->raw.segment.base;
	unsigned room = (unsigned)(end - p), r = draw(in), which = r % 4;
	uint64_t off = which < 3 ? 4096 * which : LONG_HEAD_AT;
	unsigned n = r / 4 % 4 ? room : draw(in) % (room + 1);

	if (slot->kind != AHP_FRAME)
		off = TEXT_AT;
	slot->body_bytes = r / 16 % 2 ? 2200 : draw(in);
	if (r / 32 == 7)
		slot->body_bytes = (uint64_t)draw(in) << draw(in) % 58;
	if (draw(in) > 250)
		off = draw(in) * 257u;
	slot->where = (draw(in) < 252 ? 1ull : draw(in)) << 40 | off;
	if (n > slot->body_bytes && draw(in) < 250)
		n = (unsigned)slot->body_bytes;
	slot->inline_bytes = (uint8_t)n;
	if (off < SEGMENT - 256)
		memcpy(p, base + off, n < room ? n : room);
}

static struct slot *put_slot(struct game *g, struct input *in)
{
	struct slot *slot = raw_slot(&g->raw);
	uint32_t now_ms = ahp__lane_ms(g->raw.tx.start_ns);
	const uint8_t *end = (const uint8_t *)slot + SLOT_BYTES;
	uint8_t *p = (uint8_t *)slot + SLOT_SMALL_BYTES;
	unsigned r = draw(in), expiry = draw(in);

	slot->token_limit = draw(in);
	slot->method = (uint8_t)(r < 240 ? 1 + r % 7 : r - 240);
	slot->kind = r < 255 ? r / 8 % 2 : 2;
	slot->sent_ms = now_ms;
	if (expiry > 240) /* an hour from now, or ago */
		slot->expiry_ms = now_ms + (expiry % 2 ? 3600000 : -3600000u);
	r = draw(in);
	slot->flags = r % 3 == 0   ? 0
		      : r % 3 == 1 ? SLOT_LONG | SLOT_ARENA
		      : r < 128	   ? SLOT_LONG
				   : 0;
	slot->flags |= r % 16 == 5   ? SLOT_PROMPT
		       : r % 64 == 9 ? SLOT_REDELIVERED
				     : 0;
	if (r == 255)
		slot->flags = (uint8_t)draw(in);
	if (slot->flags & SLOT_LONG) {
		p = slot->rest;
		if (draw(in) > 200)
			slot->message_id[0] = (uint8_t)(1 + draw(in) % IDS);
	}
	p = put_ids(in, p, end);
	if (slot->flags & SLOT_ARENA && slot->flags & SLOT_LONG)
		put_lent(g, in, slot, p, end);
	else
		put_small(in, slot, p, end);
	for (r = draw(in); r > 245 && p < end; r--)
		*(p + draw(in) % (unsigned)(end - p)) ^= (uint8_t)draw(in);
	return slot;
}

/* ---- turns ------------------------------------------------------------- */

/* Poison ends a game: most have none. */
static struct slot *put_tame(struct game *g, struct input *in)
{
	struct slot *slot = put_slot(g, in);
	struct avp_slot_view v = {0};

	memcpy(v.copy, slot, SLOT_BYTES);
	if (!parses(&v) && g->tame && draw(in) < 248)
		slot = raw_task(&g->raw, "{}", 2);
	slot->accepted = (uint32_t)g->below;
	slot->released = (uint32_t)g->released;
	return slot;
}

static void commit_some(struct game *g, struct input *in)
{
	hear_acks(g);
	for (unsigned n = 1 + draw(in) % 5;
	     n && avp_ledger_has_room(g->ledger) &&
	     g->committed - g->first < OPS_MAX;
	     n--, g->committed++) {
		struct slot *slot = put_tame(g, in);

		raw_commit(&g->raw, slot);
		avp_ledger_add(g->ledger, g->committed, 1,
			       slot->flags & SLOT_ARENA);
	}
}

static void keep(struct game *g, unsigned i)
{
	const struct foretold *t = at(g, g->held[i].sequence);

	g->full[i] = true;
	if (!t->accept && !t->release)
		let_go(g, i);
}

static unsigned free_place(const struct game *g)
{
	unsigned i = 0;

	while (g->full[i])
		MUST(++i <= WINDOW);
	return i;
}

/* Everything that was committed, one after another. False: poison. */
static bool take_all(struct game *g)
{
	for (; g->taken < g->committed; g->taken++) {
		uint64_t n = g->taken & g->raw.tx.slot_mask;
		const uint8_t *body = NULL;
		struct avp_slot_view v = {0};
		struct avp_frame f = {0};
		unsigned i = free_place(g);

		memcpy(v.copy, g->raw.tx.slots + n * SLOT_BYTES, SLOT_BYTES);
		foretell(g, at(g, g->taken), &v, &f, &body);
		if (at(g, g->taken)->fate == POISON)
			break;
		if (at(g, g->taken)->fate != DELIVERED)
			continue;
		MUST(!ahp_receive(g->v, &g->held[i], 0));
		compare(g, &g->held[i], &v, &f, body);
		keep(g, i);
	}
	if (agent_stats(g->v).poisoned)
		MUST(g->lied || g->taken < g->committed);
	MUST(ahp_receive(g->v, &g->held[free_place(g)], 0) == AVP_TIMEOUT);
	return g->taken == g->committed;
}

static void victim_sends(struct game *g, struct input *in)
{
	unsigned r = draw(in), bytes = draw(in);
	static uint8_t body[4096];
	struct ahp_outgoing out = {
		.peer = g->peer,
		.method = AHP_TASK,
		.kind = r % 2 ? AHP_FRAME : AHP_JSON,
		.flags = r / 2 % 4 == 1 ? AHP_RELIABLE : 0,
		.frame = r % 2 ? &frame[r % 3] : NULL,
		.body = body,
		.body_bytes = r / 8 % 4 ? bytes : bytes * 16,
	};
	struct ahp_loan loan = {0};

	if (g->sent - g->sent_first == OPS_MAX)
		return;
	if (r / 32 % 2) {
		if (ahp_loan(g->v, "evil", bytes + 1, 0, &loan, NULL))
			return;
		out.loan = &loan;
		out.body = loan.data;
		out.body_bytes = bytes;
		memset(loan.data, 0, bytes);
	}
	if (!ahp_send(g->v, &out, 0, &g->last, NULL)) {
		MUST(g->last.sequence == g->sent);
		MUST(g->sent - g->below < WINDOW && g->in_flight < WINDOW);
		g->settled[g->sent - g->sent_first] = false;
		g->sent++;
		g->in_flight++;
	} else if (loan.handle) {
		ahp_loan_release(g->v, &loan);
	}
}

/* Some of what the victim sent is accepted, in order, or otherwise. */
static void acknowledge(struct game *g, struct input *in)
{
	uint64_t some = g->sent - g->below, s;
	unsigned r = draw(in);

	some = some ? draw(in) % (some + 1) : 0;
	if (r % 4 == 0 && some) {
		s = g->below + some - 1;
		if (!g->settled[s - g->sent_first]) {
			g->in_flight--;
			avp_lane_ack_one(&g->raw.tx, s, AVP_ACK_ACCEPTED);
		}
		g->settled[s - g->sent_first] = true;
		return;
	}
	for (; some; some--, g->below++) {
		s = g->below - g->sent_first;
		g->in_flight -= !g->settled[s];
		g->settled[s] = true;
	}
	if (r % 8 < 6)
		g->released = g->below;
	avp_lane_ack_below(&g->raw.tx, g->below, g->released, g->below);
	if (r % 16 < 12)
		avp_lane_ack_flush(&g->raw.tx);
	if (r == 255 && !g->tame) { /* more than there was */
		avp_lane_ack_below(&g->raw.tx, g->sent + 1 + draw(in),
				   g->released, g->below);
		avp_lane_ack_flush(&g->raw.tx);
		g->lied = true;
	}
}

static void one_of_those_held(struct game *g, struct input *in)
{
	unsigned r = draw(in), i = r % (WINDOW + 1);

	if (!g->full[i])
		return;
	if (r / 16 % 4 == 0)
		answer(g, i, r & 64);
	else if (r / 16 % 4 == 1) {
		ahp_release(g->v, &g->held[i]);
		at(g, g->held[i].sequence)->release = false;
	} else
		let_go(g, i);
	if (g->full[i])
		keep(g, i);
}

static bool play(struct game *g, struct input *in)
{
	switch (draw(in) % 8) {
	case 0:
	case 1:
	case 2: commit_some(g, in); return take_all(g);
	case 3:
	case 4: one_of_those_held(g, in); break;
	case 5: victim_sends(g, in); break;
	case 6: acknowledge(g, in); break;
	default: check_words(g);
	}
	return !g->lied;
}

/* ---- beginning and end ------------------------------------------------- */

static void quiet(void *arg, enum ahp_log_level level, int code,
		  const char *agent, const char *task, const char *text)
{
	(void)arg;
	(void)agent;
	MUST(strlen(task) <= AVP_LANE_ID_BYTES);
	MUST(level > AHP_LOG_WARNING || (code < 0 && *text));
}

static void begin(struct game *g, struct input *in)
{
	static const uint64_t wrap[] = {1, (1ull << 32) - 20, 1ull << 48};
	const struct avp_identity model = {.hidden_dim = HIDDEN};
	struct avp_lane_options lane = {.size = sizeof(lane)};
	struct ahp_agent_options options = {.window = WINDOW, .log = quiet};
	unsigned r = draw(in);

	memset(g, 0, sizeof(*g));
	g->explicit = r & 1;
	g->judges = r & 2;
	g->tame = r < 216;
	options.flags = g->explicit ? AHP_EXPLICIT_ACK : 0;
	options.identity = g->judges ? &model : NULL;
	options.retry_delay_ns = 3600 * SECOND_NS;
	options.first_segment_bytes = SEGMENT;
	lane.slots = lane.window = WINDOW;
	lane.first_sequence = wrap[r / 4 % 3];
	g->v = agent_open("v", &options);
	g->v->first_sequence = wrap[r / 12 % 3];
	raw_up_with(&g->raw, g->v, "evil", &lane);
	raw_segment(&g->raw, 1, SEGMENT);
	fill_segment(g->raw.segment.base);
	MUST(!avp_lane_attach(&g->rx, &g->raw.tx, g->raw.lane, NULL));
	g->raw.lane = 0;
	MUST(!ahp_connect(g->v, "evil", 0, &g->peer, NULL));
	g->first = g->committed = g->taken = lane.first_sequence;
	g->sent_first = g->sent = g->below = g->released = g->rx.next;
	MUST(!avp_ledger_new(&g->ledger, WINDOW, g->first, heard, g));
}

/* In any order: what is held goes, the link ends, the agent is closed. */
static void end(struct game *g, struct input *in)
{
	unsigned r = draw(in);

	if (r & 1) {
		raw_close(&g->raw);
		ahp_agent_run(g->v, 0);
		ahp_agent_run(g->v, 0);
	}
	for (unsigned i = 0; r & 2 && i <= WINDOW; i++) {
		if (!g->full[i])
			continue;
		MUST(!g->held[i].body || g->held[i].body_bytes <= SEGMENT);
		ahp_release(g->v, &g->held[i]);
		ahp_accept(g->v, &g->held[i]);
	}
	for (unsigned i = 0; !(r & 2) && i <= WINDOW; i++)
		if (g->full[i])
			free(g->held[i].head_);
	ahp_agent_close(g->v);
	avp_lane_detach(&g->rx);
	avp_ledger_free(g->ledger);
	if (!(r & 1))
		raw_close(&g->raw);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct input in = {data, data + len};
	static struct game game;
	static bool ready;

	if (!ready) {
		agents_begin();
		make_frames();
		ready = true;
	}
	begin(&game, &in);
	while (in.at < in.end && play(&game, &in))
		continue;
	end(&game, &in);
	return 0;
}

#ifndef AVP_FUZZING
#define GAMES 200

/* Fixed, but without a pattern: each is some hundred slots. */
static void drawn_games(void)
{
	static uint8_t bytes[8192];
	uint64_t x = 88172645463325252u;

	for (unsigned n = 0; n < GAMES; n++) {
		for (size_t i = 0; i < sizeof(bytes); i++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			bytes[i] = (uint8_t)(x >> 32);
		}
		feed(bytes, sizeof(bytes) >> n % 8);
	}
}

int main(void)
{
	static const struct test tests[] = {
		TEST(drawn_games),
		{0},
	};

	return test_main("fuzz_lane", tests);
}
#endif
