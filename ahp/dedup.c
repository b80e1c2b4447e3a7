/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ids lie in a ring, in order of entry. A table of buckets tells where: a
 * bucket is a line of the cache, and holds 15 cells, of which eight are taken
 * on average. A cell has 11 bits of the hash and the place in the ring; so a
 * look-up costs one miss of the cache, in a table of 8 bytes an id, and looks
 * at an id only when those bits agree. One in a hundred buckets is full: what
 * does not fit goes to the next one with room, and its own bucket says how far
 * to look. What is evicted is known long before: its bucket is fetched into
 * the cache early, and costs no wait.
 */
#include <assert.h>
#include <emmintrin.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include <avp/error.h>

#include "ahp/dedup.h"

#define AHEAD	  8 /* entries: covers a miss of the cache */
#define HUGE	  (UINT64_C(2) << 20)
#define CELLS	  15
#define PER	  8  /* ids for each bucket */
#define FAR_MAX	  64 /* buckets; a hash that is keyed never needs that many */
#define PLACE	  ((UINT32_C(1) << 21) - 1)
#define TAG_SHIFT 21

struct bucket {
	uint16_t beyond; /* ids of this bucket that lie in one further on */
	uint16_t far;	 /* and how far on, at most */
	uint32_t cell[CELLS]; /* tag << 21 | place + 1; 0: empty */
};
static_assert(sizeof(struct bucket) == 64, "a line of the cache");
static_assert(AHP__DEDUP_MAX < PLACE, "places fit cells");

struct ahp__dedup {
	uint64_t seed[2];
	uint64_t mask; /* of the ring */
	uint64_t next; /* entries ever made; the ring's place is its low bits */
	struct bucket *bucket; /* [(mask + 1) / PER] */
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
	return round_up(ids) * (sizeof(struct bucket) / PER + 16);
}

/*
 * In huge pages where they are to be had: each look-up is a random access,
 * which in small ones misses the TLB too. Address space that only aligns costs
 * nothing.
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
	d->bucket = (void *)at;
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
	d->ring = (void *)(d->bucket + size / PER);
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

static struct bucket *bucket_at(const struct ahp__dedup *d, uint32_t hash,
				uint32_t far)
{
	return &d->bucket[(hash + far) & (d->mask / PER)];
}

/* Never 0, which is what an empty cell has there. */
static uint32_t tag_of(uint32_t hash)
{
	return hash >> TAG_SHIFT ? hash & ~PLACE : 1u << TAG_SHIFT;
}

/*
 * The cells, a bit each, that are `value` where `bits` is set. All at once: a
 * loop that ends here or there is mispredicted once or twice in each bucket,
 * which was seen to cost as much as the miss of the cache.
 */
static unsigned matches(const struct bucket *b, uint32_t bits, uint32_t value)
{
	const __m128i *line = (const __m128i *)(const void *)b;
	const __m128i mask = _mm_set1_epi32((int)bits);
	const __m128i want = _mm_set1_epi32((int)value);
	__m128i part[4];

	for (int i = 0; i < 4; i++)
		part[i] = _mm_cmpeq_epi32(
			_mm_and_si128(_mm_load_si128(line + i), mask), want);
	part[0] = _mm_packs_epi32(part[0], part[1]);
	part[2] = _mm_packs_epi32(part[2], part[3]);
	/* The first word is no cell. */
	return (unsigned)_mm_movemask_epi8(_mm_packs_epi16(part[0], part[2])) >>
	       1;
}

static bool bucket_has(const struct ahp__dedup *d, const struct bucket *b,
		       uint32_t tag, const uint8_t id[16])
{
	unsigned hits = matches(b, ~PLACE, tag);

	for (; hits; hits &= hits - 1) {
		uint32_t place = (b->cell[__builtin_ctz(hits)] & PLACE) - 1;

		if (!memcmp(d->ring[place], id, 16))
			return true;
	}
	return false;
}

bool ahp__dedup_has(const struct ahp__dedup *d, const uint8_t id[16])
{
	uint32_t hash = hash_of(d, id), far = bucket_at(d, hash, 0)->far;

	for (uint32_t i = 0; i <= far; i++)
		if (bucket_has(d, bucket_at(d, hash, i), tag_of(hash), id))
			return true;
	return false;
}

static void evict(struct ahp__dedup *d, uint64_t place)
{
	uint32_t hash = hash_of(d, d->ring[place]);
	struct bucket *home = bucket_at(d, hash, 0);

	for (uint32_t far = 0; far <= home->far; far++) {
		struct bucket *b = bucket_at(d, hash, far);
		unsigned hit = matches(b, PLACE, (uint32_t)(place + 1));

		if (!hit)
			continue;
		b->cell[__builtin_ctz(hit)] = 0;
		if (far && !--home->beyond)
			home->far = 0;
		return;
	}
}

static void enter(struct ahp__dedup *d, uint32_t hash, uint64_t place)
{
	struct bucket *home = bucket_at(d, hash, 0);

	for (uint32_t far = 0; far < FAR_MAX; far++) {
		struct bucket *b = bucket_at(d, hash, far);
		unsigned empty = matches(b, UINT32_MAX, 0);

		if (!empty)
			continue;
		b->cell[__builtin_ctz(empty)] =
			tag_of(hash) | (uint32_t)(place + 1);
		home->beyond += far != 0;
		if (far > home->far)
			home->far = (uint16_t)far;
		return;
	}
}

void ahp__dedup_add(struct ahp__dedup *d, const uint8_t id[16])
{
	uint64_t place = d->next & d->mask;

	if (d->next > d->mask) {
		evict(d, place);
		__builtin_prefetch(
			bucket_at(
				d,
				hash_of(d, d->ring[(place + AHEAD) & d->mask]),
				0),
			1);
	}
	memcpy(d->ring[place], id, 16);
	d->next++;
	enter(d, hash_of(d, id), place);
}
