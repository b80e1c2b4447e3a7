/* SPDX-License-Identifier: Apache-2.0 */
/* Where letters and bodies lie in a journal. */
#include <stdlib.h>
#include <string.h>

#include "ahp/dlq_index.h"

void avp__index_fini(struct dlq_index *x)
{
	free(x->letters);
	free(x->bodies);
	free(x->table);
	memset(x, 0, sizeof(*x));
}

/* ---- bodies by hash ------------------------------------------------------ */

/* SHA-256 is as random as a hash can be: its first bytes are the place. */
static uint32_t first_slot(const struct dlq_index *x, const uint8_t *sha256)
{
	uint32_t n;

	memcpy(&n, sha256, sizeof(n));
	return n & (x->table_size - 1);
}

static void enter_slot(struct dlq_index *x, uint32_t place)
{
	uint32_t i = first_slot(x, x->bodies[place].sha256);

	while (x->table[i])
		i = (i + 1) & (x->table_size - 1);
	x->table[i] = place + 1;
}

struct index_body *avp__index_body(const struct dlq_index *x,
				   const uint8_t sha256[JOURNAL_SHA_LEN])
{
	if (!x->table_size)
		return NULL;
	for (uint32_t i = first_slot(x, sha256); x->table[i];
	     i = (i + 1) & (x->table_size - 1)) {
		struct index_body *b = &x->bodies[x->table[i] - 1];

		if (!memcmp(b->sha256, sha256, JOURNAL_SHA_LEN))
			return b;
	}
	return NULL;
}

/* ---- room ---------------------------------------------------------------- */

static int grow_bodies(struct dlq_index *x)
{
	uint32_t capacity = x->body_capacity ? x->body_capacity * 2 : 16;
	struct index_body *bodies;
	uint32_t *table;

	if (x->body_count >= INDEX_BODY_LOST / 4)
		return AVP_NO_MEMORY;
	bodies = realloc(x->bodies, capacity * sizeof(*bodies));
	if (!bodies)
		return AVP_NO_MEMORY;
	x->bodies = bodies;
	table = calloc(capacity * 2ul, sizeof(*table));
	if (!table)
		return AVP_NO_MEMORY;
	free(x->table);
	x->table = table;
	x->table_size = capacity * 2;
	x->body_capacity = capacity;
	for (uint32_t i = 0; i < x->body_count; i++)
		enter_slot(x, i);
	return 0;
}

static int grow_letters(struct dlq_index *x)
{
	uint32_t capacity = x->letter_capacity ? x->letter_capacity * 2 : 64;
	struct index_letter *letters;

	if (x->letter_count >= INDEX_BODY_LOST / 4)
		return AVP_NO_MEMORY;
	letters = realloc(x->letters, capacity * sizeof(*letters));
	if (!letters)
		return AVP_NO_MEMORY;
	x->letters = letters;
	x->letter_capacity = capacity;
	return 0;
}

int avp__index_reserve(struct dlq_index *x)
{
	int err = 0;

	if (x->letter_count == x->letter_capacity)
		err = grow_letters(x);
	if (!err && x->body_count == x->body_capacity)
		err = grow_bodies(x);
	return err;
}

/* ---- letters ------------------------------------------------------------- */

/* The place of the first letter from that number on. */
static uint32_t lower_bound(const struct dlq_index *x, uint64_t number)
{
	uint32_t low = 0, high = x->letter_count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (x->letters[middle].number < number)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct index_letter *avp__index_find(const struct dlq_index *x, uint64_t number)
{
	uint32_t i = lower_bound(x, number);

	return i < x->letter_count && x->letters[i].number == number
		       ? &x->letters[i]
		       : NULL;
}

struct index_letter *avp__index_after(const struct dlq_index *x,
				      uint64_t number)
{
	uint32_t i = number == UINT64_MAX ? x->letter_count
					  : lower_bound(x, number + 1);

	while (i < x->letter_count && !x->letters[i].live)
		i++;
	return i < x->letter_count ? &x->letters[i] : NULL;
}

void avp__index_drop(struct dlq_index *x, struct index_letter *l)
{
	struct index_body *b;

	if (!l->live)
		return;
	l->live = false;
	x->live_letters--;
	x->live_bytes -= l->bytes;
	if (l->body >= INDEX_BODY_LOST)
		return;
	b = &x->bodies[l->body];
	if (!--b->refs)
		x->live_bytes -= b->bytes;
}

/* ---- records ------------------------------------------------------------- */

static uint32_t take_body(struct dlq_index *x, const struct journal_ref *ref)
{
	struct index_body *b;

	if (!ref->bytes)
		return INDEX_NO_BODY;
	b = avp__index_body(x, ref->sha256);
	if (!b || b->bytes - sizeof(struct journal_record) - JOURNAL_SHA_LEN !=
			  ref->bytes)
		return INDEX_BODY_LOST;
	if (!b->refs++)
		x->live_bytes += b->bytes;
	return (uint32_t)(b - x->bodies);
}

static bool enter_letter(struct dlq_index *x, const struct journal_seen *seen)
{
	struct index_letter *l = &x->letters[x->letter_count];
	struct journal_ref ref;

	if (seen->head.bytes < sizeof(ref) ||
	    seen->head.number <= x->last_number ||
	    seen->head.number == UINT64_MAX)
		return false;
	memcpy(&ref, seen->first, sizeof(ref));
	l->number = seen->head.number;
	l->off = seen->off;
	l->bytes = sizeof(seen->head) + seen->head.bytes;
	l->body = take_body(x, &ref);
	l->live = true;
	x->letter_count++;
	x->live_letters++;
	x->live_bytes += l->bytes;
	x->last_number = l->number;
	if (x->next_number <= l->number)
		x->next_number = l->number + 1;
	return true;
}

static bool enter_body(struct dlq_index *x, const struct journal_seen *seen)
{
	struct index_body *b = &x->bodies[x->body_count];

	if (seen->head.bytes <= JOURNAL_SHA_LEN)
		return false;
	/* A second one is not wrong, but not needed either. */
	if (avp__index_body(x, seen->first))
		return true;
	memcpy(b->sha256, seen->first, JOURNAL_SHA_LEN);
	b->off = seen->off;
	b->bytes = sizeof(seen->head) + seen->head.bytes;
	b->refs = 0;
	enter_slot(x, x->body_count++);
	return true;
}

int avp__index_enter(void *index, const struct journal_seen *seen)
{
	struct dlq_index *x = index;
	struct index_letter *l;
	bool fits = true;

	if (avp__index_reserve(x))
		return AVP_NO_MEMORY;
	switch (seen->head.kind) {
	case JOURNAL_LETTER: fits = enter_letter(x, seen); break;
	case JOURNAL_BODY: fits = enter_body(x, seen); break;
	case JOURNAL_REMOVED:
		l = avp__index_find(x, seen->head.number);
		if (l)
			avp__index_drop(x, l);
		break;
	default: fits = false; break;
	}
	if (!fits)
		x->strange += sizeof(seen->head) + seen->head.bytes;
	return 0;
}
