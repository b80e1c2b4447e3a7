/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arena's private state. None of it lies in shared memory, and blocks have
 * no headers there: what a peer reads, and what is written to, are the blocks.
 *
 * A segment is cut into blocks, all multiples of GRAIN, each with a descriptor
 * in the pool that knows its neighbours by address. A block is free (in a bin
 * of its segment), lent, or kept (in the warm window).
 *
 *   freelist.c  descriptors, bins, splitting and joining
 *   window.c    size classes and the warm window
 *   arena.c     segments, growth, and the public calls
 *   prepare.c   a segment that is made ahead of need
 */
#ifndef AVP_SHM_ARENA_INTERNAL_H
#define AVP_SHM_ARENA_INTERNAL_H

#include "shm/guard.h"
#include "shm/shm_internal.h"

/* Every block starts and ends on a cache line: no line has two writers. */
#define GRAIN 64u

/*
 * Bins: the first row holds sizes of 0 to 15 grains, each next row a power of
 * two in 16 steps, so a block is at most 1/16 larger than its bin says. 31 rows
 * reach 2^40 bytes; the 32nd only rounds the table up.
 */
#define BIN_ROWS  32
#define BIN_STEPS 16

/*
 * Size classes of the warm window: 8 exact ones of 1 to 8 grains, then 8 steps
 * to a power of two, up to 2^29 bytes: a window is never larger (arena.c).
 */
#define CLASSES	   (8 + 8 * 20)
#define CLASS_NONE UINT16_MAX

/* Blocks of the window from this size on are whole pages at whole pages, so
 * that a tensor that is asked at a page finds a warm block too. */
#define PAGED_BYTES (32u << 10)
#define PAGE_BYTES  4096u

/* Descriptors come in chunks, found by the upper bits of their index. Index 0
 * is never used: it ends lists. */
#define CHUNK_SHIFT 10
#define CHUNK	    (1u << CHUNK_SHIFT)

enum desc_state { DESC_UNUSED, DESC_FREE, DESC_LENT, DESC_KEPT };

/* One block: one cache line. */
struct desc {
	uint64_t off, bytes; /* in its segment */
	struct shm_segment *segment;
	uint64_t kept_at;	       /* window's clock when it was kept */
	uint32_t below, above;	       /* neighbours by address */
	uint32_t list_prev, list_next; /* bin, or window by age */
	uint32_t class_next;	       /* kept: next younger of its class */
	uint16_t class;
	uint8_t state;
	uint8_t pad[9];
};
_Static_assert(sizeof(struct desc) == 64, "a descriptor is a cache line");

struct pool {
	struct desc **chunks;
	uint32_t n_chunks;
	uint32_t unused; /* head of the list of descriptors to take */
	uint32_t n_unused;
};

struct shm_segment {
	struct avp_segment memory;
	struct shm_segment *older;
	uint32_t number;
	bool retiring;
	uint64_t lent_bytes;
	uint32_t rows; /* which rows have a block */
	uint32_t steps[BIN_ROWS];
	uint32_t bins[BIN_ROWS][BIN_STEPS];
};

struct class_queue {
	uint32_t oldest, youngest;
};

struct window {
	uint64_t bytes;	     /* how much traffic lies between two uses */
	uint64_t clock;	     /* bytes ever kept */
	uint64_t kept_bytes; /* in the window now */
	uint64_t lent_bytes; /* lent blocks that will come back to it */
	uint32_t oldest, youngest;
	bool full_growth; /* do not grow just to rotate any more */
	struct class_queue classes[CLASSES];
};

/* A segment that avp_arena_prepare() is at; none: memory.base is NULL. */
struct coming {
	struct avp_segment memory;
	uint64_t filled; /* its first bytes */
	uint64_t grown;	 /* the arena's, when the limits were looked at */
	struct avp_reason note;
};

/* A step of 1 GiB takes 60 ms with huge pages; more would be felt. */
#define AVP__STEP_BYTES_MAX (UINT64_C(1) << 30)

struct avp_arena {
	struct avp__fork_guard guard;
	struct pool pool;
	struct window window;
	struct shm_segment *newest; /* and by ->older, all of them */
	uint32_t next_number;
	uint32_t flags;	     /* AVP_MEMORY_* */
	uint64_t next_bytes; /* of the next segment, by doubling */
	uint64_t quota_bytes;
	uint64_t segment_bytes;
	uint64_t generation;
	uint64_t lent_bytes, lent_blocks;
	uint64_t grown;
	struct coming coming;
	struct avp_reason degraded;
	char label[48];
};

/* ---- arena.c ------------------------------------------------------------ */

/* Takes a sealed segment over; on failure it stays the caller's. note: what it
 * was made without. */
int avp__arena_adopt(struct avp_arena *arena, const struct avp_segment *memory,
		     const struct avp_reason *note, struct avp_reason *why);

/* ---- prepare.c ---------------------------------------------------------- */

/* Is a segment coming that has room for bytes, and what is missing of it not more
 * than would be made instead? */
bool avp__prepare_suits(const struct avp_arena *arena, uint64_t bytes);
/* All that is missing, at once; on failure it is dropped. */
int avp__prepare_finish(struct avp_arena *arena, struct avp_reason *why);
void avp__prepare_drop(struct avp_arena *arena);

/* ---- freelist.c --------------------------------------------------------- */

static inline struct desc *desc_at(const struct pool *pool, uint32_t i)
{
	return &pool->chunks[i >> CHUNK_SHIFT][i & (CHUNK - 1)];
}

/* Makes sure that n descriptors can be taken; false without memory. */
bool avp__pool_reserve(struct pool *pool, uint32_t n);
void avp__pool_fini(struct pool *pool);

/* One free block over the whole of a new segment; needs one descriptor. */
void avp__free_init(struct pool *pool, struct shm_segment *segment);

/*
 * Takes a block of bytes (a multiple of GRAIN) at a multiple of align out of
 * the segment's bins, leaving the rest free: its descriptor's index, state
 * DESC_LENT, or 0 if none fits. Needs two descriptors.
 */
uint32_t avp__free_take(struct pool *pool, struct shm_segment *segment,
			uint64_t bytes, uint64_t align);

/* Puts a block into the bins, joined with free neighbours. */
void avp__free_put(struct pool *pool, uint32_t i);

/* Returns the descriptor of a segment that is one free block to the pool. */
void avp__free_fini(struct pool *pool, struct shm_segment *segment);

/* ---- window.c ----------------------------------------------------------- */

/* The class for bytes at align and, in *size, the bytes of its blocks;
 * CLASS_NONE when such a block does not go through the window. */
uint16_t avp__class_of(const struct window *window, uint64_t bytes,
		       uint64_t align, uint64_t *size);

/* The alignment that all blocks of a class of that size have. */
uint64_t avp__class_align(uint64_t size);

/* Whether the class's oldest block may be used again already: enough other
 * bytes were kept, or are lent, since. False if there is none. */
bool avp__window_ripe(const struct avp_arena *arena, uint16_t class);

/* Takes the class's oldest block out of the window; 0 if there is none. */
uint32_t avp__window_take(struct avp_arena *arena, uint16_t class);

/* Keeps a block that came back; the oldest over the window's size are freed. */
void avp__window_keep(struct avp_arena *arena, uint32_t i);

/* Frees every kept block. */
void avp__window_flush(struct avp_arena *arena);

#endif
