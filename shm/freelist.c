/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two-level segregated fit (M. Masmano, I. Ripoll, A. Crespo, J. Real: "TLSF: a
 * new dynamic memory allocator for real-time systems", 2004) with descriptors
 * outside the memory that they describe. Constant time: two bit scans find a
 * bin whose every block fits.
 */
#include <assert.h>
#include <stdlib.h>

#include "shm/arena_internal.h"

/* Blocks looked at in a bin where not every block fits. */
#define PROBES 8

/* ---- descriptors -------------------------------------------------------- */

static bool add_chunk(struct pool *pool)
{
	uint32_t n = pool->n_chunks;
	struct desc **chunks, *chunk;

	if (n == UINT32_MAX >> CHUNK_SHIFT)
		return false;
	chunks = realloc(pool->chunks, (n + 1) * sizeof(*chunks));
	if (!chunks)
		return false;
	pool->chunks = chunks;
	chunk = aligned_alloc(sizeof(struct desc), CHUNK * sizeof(*chunk));
	if (!chunk)
		return false;
	chunks[n] = chunk;
	pool->n_chunks = n + 1;
	/* Backwards, so that the lowest is taken first; 0 is never listed. */
	for (uint32_t i = CHUNK; i-- > (n ? 0 : 1);) {
		chunk[i] = (struct desc){.list_next = pool->unused};
		pool->unused = n << CHUNK_SHIFT | i;
		pool->n_unused++;
	}
	return true;
}

bool avp__pool_reserve(struct pool *pool, uint32_t n)
{
	return pool->n_unused >= n || add_chunk(pool);
}

void avp__pool_fini(struct pool *pool)
{
	for (uint32_t i = 0; i < pool->n_chunks; i++)
		free(pool->chunks[i]);
	free(pool->chunks);
	*pool = (struct pool){0};
}

static uint32_t new_desc(struct pool *pool)
{
	uint32_t i = pool->unused;

	assert(i);
	pool->unused = desc_at(pool, i)->list_next;
	pool->n_unused--;
	return i;
}

static void free_desc(struct pool *pool, uint32_t i)
{
	*desc_at(pool, i) = (struct desc){.list_next = pool->unused};
	pool->unused = i;
	pool->n_unused++;
}

/* ---- bins --------------------------------------------------------------- */

struct bin {
	uint32_t row, step;
};

/* The bin that a block of so many grains lies in. */
static struct bin bin_of(uint64_t grains)
{
	uint32_t log;

	if (grains < BIN_STEPS)
		return (struct bin){0, (uint32_t)grains};
	log = 63 - (uint32_t)__builtin_clzll(grains);
	return (struct bin){log - 3, (uint32_t)(grains >> (log - 4)) & 15};
}

/* The first bin whose every block has at least so many grains. */
static struct bin bin_above(uint64_t grains)
{
	if (grains >= BIN_STEPS) {
		uint32_t log = 63 - (uint32_t)__builtin_clzll(grains);

		grains += (UINT64_C(1) << (log - 4)) - 1;
	}
	return bin_of(grains);
}

/* The head of the first bin from b on that is not empty; 0 if all are. */
static uint32_t first_from(const struct shm_segment *s, struct bin b)
{
	uint32_t steps, rows;

	if (b.row >= BIN_ROWS)
		return 0;
	steps = s->steps[b.row] & UINT32_MAX << b.step;
	if (!steps) {
		rows = b.row + 1 < BIN_ROWS
			       ? s->rows & UINT32_MAX << (b.row + 1)
			       : 0;
		if (!rows)
			return 0;
		b.row = (uint32_t)__builtin_ctz(rows);
		steps = s->steps[b.row];
	}
	return s->bins[b.row][__builtin_ctz(steps)];
}

static void insert(struct pool *pool, uint32_t i)
{
	struct desc *d = desc_at(pool, i);
	struct bin b = bin_of(d->bytes / GRAIN);
	uint32_t *head = &d->segment->bins[b.row][b.step];

	/* At the head: the most recent first, still in some cache. */
	d->state = DESC_FREE;
	d->list_prev = 0;
	d->list_next = *head;
	if (*head)
		desc_at(pool, *head)->list_prev = i;
	*head = i;
	d->segment->rows |= 1u << b.row;
	d->segment->steps[b.row] |= 1u << b.step;
}

static void unlink_block(struct pool *pool, uint32_t i)
{
	struct desc *d = desc_at(pool, i);
	struct shm_segment *s = d->segment;
	struct bin b = bin_of(d->bytes / GRAIN);

	if (d->list_next)
		desc_at(pool, d->list_next)->list_prev = d->list_prev;
	if (d->list_prev)
		desc_at(pool, d->list_prev)->list_next = d->list_next;
	else
		s->bins[b.row][b.step] = d->list_next;
	if (s->bins[b.row][b.step])
		return;
	s->steps[b.row] &= ~(1u << b.step);
	if (!s->steps[b.row])
		s->rows &= ~(1u << b.row);
}

/* ---- taking ------------------------------------------------------------- */

static uint64_t align_up(uint64_t off, uint64_t align)
{
	return (off + align - 1) & ~(align - 1);
}

static bool fits(const struct desc *d, uint64_t bytes, uint64_t align)
{
	uint64_t at = align_up(d->off, align);

	return at + bytes <= d->off + d->bytes;
}

/* The first of a few blocks of a bin that fits, 0 if none does. */
static uint32_t probe(const struct pool *pool, uint32_t i, uint64_t bytes,
		      uint64_t align)
{
	for (unsigned n = 0; i && n < PROBES; n++) {
		const struct desc *d = desc_at(pool, i);

		if (fits(d, bytes, align))
			return i;
		i = d->list_next;
	}
	return 0;
}

/*
 * First where everything fits, the alignment's loss included; then where it may
 * happen to fit: a new segment of exactly the size asked lies there.
 */
static uint32_t find(const struct pool *pool, const struct shm_segment *s,
		     uint64_t bytes, uint64_t align)
{
	uint64_t grains = bytes / GRAIN;
	uint32_t i = first_from(s, bin_above(grains + align / GRAIN - 1));
	struct bin b;

	if (i)
		return i;
	i = probe(pool, first_from(s, bin_above(grains)), bytes, align);
	if (i)
		return i;
	b = bin_of(grains);
	return probe(pool, s->bins[b.row][b.step], bytes, align);
}

/* Cuts a block in two; the upper part, not in any list, is returned. */
static uint32_t split(struct pool *pool, uint32_t i, uint64_t bytes)
{
	uint32_t above = new_desc(pool);
	struct desc *d = desc_at(pool, i), *u = desc_at(pool, above);

	*u = (struct desc){.off = d->off + bytes,
			   .bytes = d->bytes - bytes,
			   .segment = d->segment,
			   .below = i,
			   .above = d->above,
			   .class = CLASS_NONE};
	if (d->above)
		desc_at(pool, d->above)->below = above;
	d->above = above;
	d->bytes = bytes;
	return above;
}

uint32_t avp__free_take(struct pool *pool, struct shm_segment *segment,
			uint64_t bytes, uint64_t align)
{
	uint32_t i = find(pool, segment, bytes, align);
	uint64_t gap;

	if (!i)
		return 0;
	unlink_block(pool, i);
	gap = align_up(desc_at(pool, i)->off, align) - desc_at(pool, i)->off;
	if (gap) {
		uint32_t above = split(pool, i, gap);

		insert(pool, i);
		i = above;
	}
	if (desc_at(pool, i)->bytes > bytes)
		insert(pool, split(pool, i, bytes));
	desc_at(pool, i)->state = DESC_LENT;
	desc_at(pool, i)->class = CLASS_NONE;
	return i;
}

/* ---- putting back ------------------------------------------------------- */

/* Joins above into i; neither is in a list. */
static void join(struct pool *pool, uint32_t i, uint32_t above)
{
	struct desc *d = desc_at(pool, i), *u = desc_at(pool, above);

	d->bytes += u->bytes;
	d->above = u->above;
	if (u->above)
		desc_at(pool, u->above)->below = i;
	free_desc(pool, above);
}

static bool is_free(const struct pool *pool, uint32_t i)
{
	return i && desc_at(pool, i)->state == DESC_FREE;
}

void avp__free_put(struct pool *pool, uint32_t i)
{
	uint32_t above = desc_at(pool, i)->above;
	uint32_t below = desc_at(pool, i)->below;

	if (is_free(pool, above)) {
		unlink_block(pool, above);
		join(pool, i, above);
	}
	if (is_free(pool, below)) {
		unlink_block(pool, below);
		join(pool, below, i);
		i = below;
	}
	insert(pool, i);
}

void avp__free_init(struct pool *pool, struct shm_segment *segment)
{
	uint32_t i = new_desc(pool);

	*desc_at(pool, i) = (struct desc){.bytes = segment->memory.bytes,
					  .segment = segment,
					  .class = CLASS_NONE};
	insert(pool, i);
}

void avp__free_fini(struct pool *pool, struct shm_segment *segment)
{
	uint32_t i = first_from(segment, (struct bin){0, 0});

	assert(i && desc_at(pool, i)->bytes == segment->memory.bytes);
	unlink_block(pool, i);
	free_desc(pool, i);
}
