/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ids lie in a ring, in order of entry. A table of twice as many cells, with
 * linear probing, tells where: a cell holds 32 bits of the hash, of which the
 * low ones are its home, and the place in the ring. So a probe looks at the ids
 * only when 32 bits agree, and a cell is removed, by moving those behind it up,
 * without looking at any id. What is evicted is known long before: its cell is
 * fetched into the cache early, and costs no wait.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include <avp/error.h>

#include "ahp/dedup.h"

#define AHEAD 8 /* entries: covers a miss of the cache */
#define HUGE  (UINT64_C(2) << 20)

struct ahp__dedup {
	uint64_t seed[2];
	uint64_t mask; /* of the ring */
	uint64_t next; /* entries ever made; the ring's place is its low bits */
	uint64_t *cell; /* [2 * (mask + 1)]: hash << 32 | place + 1; 0: empty */
	uint8_t (*ring)[16];
	void *mapping;
	uint64_t mapped;
};

static uint64_t round_up(uint32_t ids)
{
	uint64_t size = 16;

	while (size < ids)
		size *= 2;
	return size;
}

uint64_t ahp__dedup_bytes(uint32_t ids)
{
	return round_up(ids) * (2 * sizeof(uint64_t) + 16);
}

/*
 * In huge pages where they are to be had: each look-up is a random access, which
 * in small ones misses the TLB too. Address space that only aligns costs nothing.
 */
static int map_memory(struct ahp__dedup *d, uint64_t bytes)
{
	uintptr_t at;

	d->mapped = bytes + (bytes >= HUGE ? HUGE : 0);
	d->mapping = mmap(NULL, d->mapped, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (d->mapping == MAP_FAILED)
		return AVP_NO_MEMORY;
	at = (uintptr_t)d->mapping;
	if (bytes >= HUGE) {
		at = (at + HUGE - 1) & ~(uintptr_t)(HUGE - 1);
		madvise((void *)at, bytes, MADV_HUGEPAGE);
	}
	d->cell = (void *)at;
	return 0;
}

int ahp__dedup_new(struct ahp__dedup **out, uint32_t ids)
{
	struct ahp__dedup *d;
	uint64_t size = round_up(ids);

	if (ids > AHP__DEDUP_MAX)
		return AVP_USAGE;
	d = calloc(1, sizeof(*d));
	if (!d)
		return AVP_NO_MEMORY;
	if (getrandom(d->seed, sizeof(d->seed), 0) != sizeof(d->seed) ||
	    map_memory(d, ahp__dedup_bytes(ids))) {
		free(d);
		return AVP_NO_MEMORY;
	}
	d->mask = size - 1;
	d->ring = (void *)(d->cell + 2 * size);
	*out = d;
	return 0;
}

void ahp__dedup_free(struct ahp__dedup *d)
{
	if (!d)
		return;
	munmap(d->mapping, d->mapped);
	free(d);
}

/* Both halves, keyed, multiplied, and the product's halves folded. */
static uint32_t hash_of(const struct ahp__dedup *d, const uint8_t id[16])
{
	uint64_t word[2], folded;
	unsigned __int128 product;

	memcpy(word, id, sizeof(word));
	product = (unsigned __int128)(word[0] ^ d->seed[0]) *
		  ((word[1] ^ d->seed[1]) | 1);
	folded = (uint64_t)product ^ (uint64_t)(product >> 64);
	return (uint32_t)(folded ^ folded >> 32);
}

static uint64_t cell_mask(const struct ahp__dedup *d)
{
	return 2 * d->mask + 1;
}

bool ahp__dedup_has(const struct ahp__dedup *d, const uint8_t id[16])
{
	uint32_t hash = hash_of(d, id);
	uint64_t at = hash & cell_mask(d);

	for (; d->cell[at]; at = (at + 1) & cell_mask(d))
		if ((uint32_t)(d->cell[at] >> 32) == hash &&
		    !memcmp(d->ring[(uint32_t)d->cell[at] - 1], id, 16))
			return true;
	return false;
}

/* Moves cells up into the gap, none before its home. */
static void remove_cell(struct ahp__dedup *d, uint64_t gap)
{
	uint64_t mask = cell_mask(d), at = gap, home;

	for (;;) {
		at = (at + 1) & mask;
		if (!d->cell[at])
			break;
		home = d->cell[at] >> 32 & mask;
		if (((at - home) & mask) < ((at - gap) & mask))
			continue;
		d->cell[gap] = d->cell[at];
		gap = at;
	}
	d->cell[gap] = 0;
}

static void evict(struct ahp__dedup *d, uint64_t place)
{
	uint64_t at = hash_of(d, d->ring[place]) & cell_mask(d);

	while ((uint32_t)d->cell[at] != place + 1)
		at = (at + 1) & cell_mask(d);
	remove_cell(d, at);
}

void ahp__dedup_add(struct ahp__dedup *d, const uint8_t id[16])
{
	uint64_t place = d->next & d->mask, at;
	uint32_t hash = hash_of(d, id);

	if (d->next > d->mask) {
		evict(d, place);
		at = hash_of(d, d->ring[(place + AHEAD) & d->mask]);
		__builtin_prefetch(&d->cell[at & cell_mask(d)], 1);
	}
	memcpy(d->ring[place], id, 16);
	d->next++;
	for (at = hash & cell_mask(d); d->cell[at];
	     at = (at + 1) & cell_mask(d))
		continue;
	d->cell[at] = (uint64_t)hash << 32 | (place + 1);
}
