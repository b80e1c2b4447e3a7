/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arena: blocks out of segments that grow, double, and are given back.
 *
 * The warm path is avp_arena_alloc() with a ripe block in its class, and
 * avp_arena_release(): two list operations each. Everything else (cutting,
 * growing, flushing) is in find_block() and below.
 */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shm/arena_internal.h"
#include "shm/options.h"

#define DEFAULT_FIRST_BYTES AVP__HUGE_BYTES
#define ALIGN_MAX	    AVP__HUGE_BYTES

/* The default window. Without a known L3, that of a small server; a share of a
 * very large one is still most of a core's second-level TLB. */
#define WINDOW_UNKNOWN (UINT64_C(4) << 20)
#define WINDOW_MIN     (UINT64_C(1) << 20)
#define WINDOW_MAX     (UINT64_C(64) << 20)
/* What the size classes reach: the most that may be asked for. */
#define WINDOW_LIMIT (UINT64_C(512) << 20)

/* ---- opening ------------------------------------------------------------ */

/* The kernel knows how many cores share the cache; the C library, asked on some
 * virtual machines, tells the sum of the host's. */
static uint64_t l3_bytes(void)
{
	unsigned long kib = 0;
	FILE *file;
	long bytes;

	file = fopen("/sys/devices/system/cpu/cpu0/cache/index3/size", "re");
	if (file) {
		if (fscanf(file, "%luK", &kib) != 1)
			kib = 0;
		fclose(file);
	}
	if (kib)
		return (uint64_t)kib << 10;
	bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
	return bytes > 0 ? (uint64_t)bytes : 0;
}

static uint64_t default_window(uint64_t quota)
{
	uint64_t bytes = l3_bytes() / 4;

	if (!bytes)
		bytes = WINDOW_UNKNOWN;
	if (bytes < WINDOW_MIN)
		bytes = WINDOW_MIN;
	if (bytes > WINDOW_MAX)
		bytes = WINDOW_MAX;
	/* Rotation must not be what fills a small arena. */
	return bytes < quota / 2 ? bytes : quota / 2;
}

static int set_sizes(struct avp_arena *a, const struct avp_arena_options *o,
		     struct avp_reason *why)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	a->quota_bytes = o->quota_bytes
				 ? o->quota_bytes
				 : (uint64_t)sysconf(_SC_PHYS_PAGES) * page / 4;
	a->next_bytes = o->first_segment_bytes;
	if (!a->next_bytes)
		a->next_bytes = a->quota_bytes < DEFAULT_FIRST_BYTES
					? a->quota_bytes
					: DEFAULT_FIRST_BYTES;
	a->window.bytes =
		o->warm_bytes ? o->warm_bytes : default_window(a->quota_bytes);
	if (a->quota_bytes < page)
		return avp__fail(why, AVP_USAGE,
				 "quota_bytes %" PRIu64 " is below one page, "
				 "%" PRIu64,
				 a->quota_bytes, page);
	if (a->next_bytes > a->quota_bytes ||
	    a->next_bytes > AVP_SEGMENT_BYTES_MAX)
		return avp__fail(why, AVP_USAGE,
				 "first_segment_bytes %" PRIu64 " is over the "
				 "quota of %" PRIu64 " or the %" PRIu64 " of a "
				 "segment",
				 a->next_bytes, a->quota_bytes,
				 AVP_SEGMENT_BYTES_MAX);
	if (a->window.bytes > WINDOW_LIMIT)
		return avp__fail(why, AVP_USAGE,
				 "warm_bytes %" PRIu64 " is over %" PRIu64
				 "; larger than a cache it only costs memory",
				 a->window.bytes, WINDOW_LIMIT);
	return AVP_OK;
}

static int check_options(const struct avp_arena_options *options,
			 struct avp_arena_options *o, struct avp_reason *why)
{
	int code = avp__options_copy(o, sizeof(*o), sizeof(*o), options,
				     AVP_MEMORY_LOCK | AVP_MEMORY_SMALL_PAGES |
					     AVP_MEMORY_STRICT |
					     AVP_MEMORY_PREFAULT,
				     why);

	return code ? code : avp__options_reserved(o->reserved, 4, why);
}

static int grow(struct avp_arena *a, uint64_t bytes, struct avp_reason *why);

int avp_arena_open(struct avp_arena **arena,
		   const struct avp_arena_options *options,
		   struct avp_reason *why)
{
	struct avp_arena_options o;
	struct avp_arena *a;
	int code = check_options(options, &o, why);

	if (code)
		return code;
	a = calloc(1, sizeof(*a));
	if (!a)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for an arena");
	a->flags = o.flags;
	a->next_number = 1;
	snprintf(a->label, sizeof(a->label), "%s", o.label ? o.label : "arena");
	code = set_sizes(a, &o, why);
	if (!code)
		code = avp__fork_guard_init(&a->guard, why);
	if (!code && o.flags & AVP_MEMORY_PREFAULT)
		code = grow(a, 1, why);
	if (code) {
		avp_arena_close(a);
		return code;
	}
	*arena = a;
	return AVP_OK;
}

void avp_arena_close(struct avp_arena *a)
{
	bool forked;

	if (!a)
		return;
	forked = a->guard.cookie && avp__forked(&a->guard);
	if (forked)
		avp_segment_forget(&a->coming.memory);
	else
		avp__prepare_drop(a);
	while (a->newest) {
		struct shm_segment *s = a->newest;

		a->newest = s->older;
		if (forked)
			avp_segment_forget(&s->memory);
		else
			avp_segment_close(&s->memory);
		free(s);
	}
	avp__pool_fini(&a->pool);
	avp__fork_guard_fini(&a->guard);
	free(a);
}

/* ---- growth ------------------------------------------------------------- */

static int no_descriptors(struct avp_reason *why)
{
	return avp__fail(why, AVP_NO_MEMORY,
			 "no memory for the arena's descriptors");
}

int avp__arena_adopt(struct avp_arena *a, const struct avp_segment *memory,
		     const struct avp_reason *note, struct avp_reason *why)
{
	struct shm_segment *s = calloc(1, sizeof(*s));

	if (!s || !avp__pool_reserve(&a->pool, 1)) {
		free(s);
		return no_descriptors(why);
	}
	if (note->text[0])
		a->degraded = *note;
	s->memory = *memory;
	s->number = a->next_number++;
	s->older = a->newest;
	a->newest = s;
	a->segment_bytes += s->memory.bytes;
	a->generation++;
	a->grown++;
	avp__free_init(&a->pool, s);
	return AVP_OK;
}

static int add_segment(struct avp_arena *a, uint64_t bytes,
		       struct avp_reason *why)
{
	const struct avp_segment_options o = {
		.flags = a->flags & ~AVP_MEMORY_PREFAULT,
	};
	struct avp_reason note = {0};
	struct avp_segment memory;
	int code = avp_segment_create(&memory, a->label, bytes, &o, &note);

	if (code) {
		if (why)
			*why = note;
		return code;
	}
	code = avp__arena_adopt(a, &memory, &note, why);
	if (code)
		avp_segment_close(&memory);
	return code;
}

/* Whether a segment of at least bytes may be added; how large, in *limit. */
static int quota_left(const struct avp_arena *a, uint64_t bytes,
		      uint64_t *limit, struct avp_reason *why)
{
	uint64_t used = a->segment_bytes + a->coming.memory.bytes;
	uint64_t left = a->quota_bytes > used ? a->quota_bytes - used : 0;
	uint64_t need = avp__segment_round(bytes);

	*limit = left < AVP_SEGMENT_BYTES_MAX ? left : AVP_SEGMENT_BYTES_MAX;
	if (a->next_number > AVP_SEGMENT_NUMBER_MAX)
		return avp__fail(why, AVP_NO_MEMORY,
				 "all %u segment numbers of this arena are "
				 "used; open a new one",
				 AVP_SEGMENT_NUMBER_MAX);
	if (need > left)
		return avp__fail(why, AVP_NO_MEMORY,
				 "a block of %" PRIu64 " bytes does not fit: "
				 "%" PRIu64 " of the quota of %" PRIu64
				 " bytes are in segments and %" PRIu64
				 " lent; release blocks, trim, or raise "
				 "quota_bytes",
				 bytes, a->segment_bytes, a->quota_bytes,
				 a->lent_bytes);
	return AVP_OK;
}

/*
 * Adds a segment in which bytes fit: twice the last one if the quota and the
 * system allow, else what the quota leaves, else just enough.
 */
static int grow(struct avp_arena *a, uint64_t bytes, struct avp_reason *why)
{
	uint64_t limit, want, least = avp__segment_round(bytes);
	int code;

	if (avp__prepare_suits(a, least) && !avp__prepare_finish(a, NULL))
		return AVP_OK;
	code = quota_left(a, bytes, &limit, why);
	if (code && a->coming.memory.base) {
		avp__prepare_drop(a);
		code = quota_left(a, bytes, &limit, why);
	}
	if (code)
		return code;
	want = a->next_bytes > bytes ? avp__segment_round(a->next_bytes)
				     : least;
	if (want > limit)
		want = avp__segment_round_down(limit);
	if (want < least)
		want = least;
	code = add_segment(a, want, why);
	if (code == AVP_NO_MEMORY && want > least)
		code = add_segment(a, least, why);
	if (!code && a->next_bytes < AVP__STEP_BYTES_MAX)
		a->next_bytes *= 2;
	return code;
}

/* ---- lending ------------------------------------------------------------ */

struct wish {
	uint64_t bytes, align; /* as asked, in whole grains */
	uint64_t size;	       /* of the block in its class */
	uint16_t class;
};

/* Cuts a block out of free memory, newest segment first: the older and smaller
 * ones run empty and can be given back. 0 if it fits nowhere. */
static uint32_t cut(struct avp_arena *a, uint64_t bytes, uint64_t align)
{
	for (struct shm_segment *s = a->newest; s; s = s->older) {
		uint32_t i =
			s->retiring ? 0
				    : avp__free_take(&a->pool, s, bytes, align);

		if (i)
			return i;
	}
	return 0;
}

static uint32_t cut_class(struct avp_arena *a, const struct wish *w)
{
	uint32_t i = cut(a, w->size,
			 w->class == CLASS_NONE ? w->align
						: avp__class_align(w->size));

	if (i)
		desc_at(&a->pool, i)->class = w->class;
	return i;
}

/*
 * Nothing to cut, but a block of the class that is not ripe yet. An arena that
 * is smaller than its window grows for the rotation's sake; once it may not,
 * it does not ask again, for asking reads files.
 */
static uint32_t rotate(struct avp_arena *a, const struct wish *w)
{
	if (!a->window.full_growth && a->segment_bytes < a->window.bytes) {
		if (!grow(a, w->size, NULL) && avp__pool_reserve(&a->pool, 2))
			return cut_class(a, w);
		a->window.full_growth = true;
	}
	return avp__window_take(a, w->class);
}

/* Nothing to cut and none of the class: kept blocks of others, or more. */
static int make_room(struct avp_arena *a, const struct wish *w, uint32_t *i,
		     struct avp_reason *why)
{
	int code;

	if (a->window.kept_bytes >= w->size) {
		avp__window_flush(a);
		*i = cut_class(a, w);
		if (*i)
			return AVP_OK;
	}
	/* The class's rounding must not cost the last block of a quota. */
	code = grow(a, w->size, why);
	if (code && w->bytes < w->size)
		code = grow(a, w->bytes, why);
	if (!avp__pool_reserve(&a->pool, 2))
		return no_descriptors(why);
	if (!code)
		*i = cut_class(a, w);
	if (*i)
		return AVP_OK;
	/* The last resort: exactly what was asked, wherever it is. */
	if (a->segment_bytes - a->lent_bytes >= w->bytes) {
		avp__window_flush(a);
		*i = cut(a, w->bytes, w->align);
	}
	assert(*i || code);
	return *i ? AVP_OK : code;
}

/* The cold half of an alloc: an index in *i, or why not. */
static int find_block(struct avp_arena *a, const struct wish *w, uint32_t *i,
		      struct avp_reason *why)
{
	if (!avp__pool_reserve(&a->pool, 2))
		return no_descriptors(why);
	*i = cut_class(a, w);
	if (*i)
		return AVP_OK;
	if (w->class != CLASS_NONE && a->window.classes[w->class].oldest) {
		*i = rotate(a, w);
		if (*i)
			return AVP_OK;
	}
	return make_room(a, w, i, why);
}

static int check_wish(uint64_t bytes, uint64_t align, struct avp_reason *why)
{
	if (!bytes || align & (align - 1) || align > ALIGN_MAX)
		return avp__fail(
			why, AVP_USAGE,
			"a block of %" PRIu64 " bytes at %" PRIu64
			"; at least 1 at a power of two up to %" PRIu64,
			bytes, align, ALIGN_MAX);
	if (bytes > AVP_SEGMENT_BYTES_MAX)
		return avp__fail(why, AVP_TOO_LARGE,
				 "a block of %" PRIu64 " bytes is over the "
				 "%" PRIu64
				 " that an offset of 40 bits reaches",
				 bytes, AVP_SEGMENT_BYTES_MAX);
	return AVP_OK;
}

/* The block is the caller's from here on. */
static void lend(struct avp_arena *a, uint32_t i, uint64_t bytes,
		 struct avp_block *block)
{
	struct desc *d = desc_at(&a->pool, i);
	struct shm_segment *s = d->segment;

	s->lent_bytes += d->bytes;
	a->lent_bytes += d->bytes;
	a->lent_blocks++;
	if (d->class != CLASS_NONE)
		a->window.lent_bytes += d->bytes;
	block->data = (char *)s->memory.base + d->off;
	block->bytes = bytes;
	block->off = d->off;
	block->segment = s->number;
	block->handle = i;
}

int avp_arena_alloc(struct avp_arena *a, uint64_t bytes, uint64_t align,
		    struct avp_block *block, struct avp_reason *why)
{
	struct wish w = {.align = align < GRAIN ? GRAIN : align};
	uint32_t i = 0;
	int code;

	if (avp__forked(&a->guard))
		return avp__fail(why, AVP_FORKED,
				 "the arena belongs to the parent process");
	code = check_wish(bytes, align, why);
	if (code)
		return code;
	w.bytes = (bytes + GRAIN - 1) & ~(uint64_t)(GRAIN - 1);
	w.class = avp__class_of(&a->window, bytes, w.align, &w.size);
	if (w.class == CLASS_NONE)
		w.size = w.bytes;
	if (w.class != CLASS_NONE && avp__window_ripe(a, w.class)) {
		i = avp__window_take(a, w.class);
	} else {
		code = find_block(a, &w, &i, why);
		if (code)
			return code;
	}
	lend(a, i, bytes, block);
	return AVP_OK;
}

static bool is_lent(const struct avp_arena *a, const struct avp_block *block)
{
	const struct desc *d;

	if (block->handle >> CHUNK_SHIFT >= a->pool.n_chunks)
		return false;
	d = desc_at(&a->pool, block->handle);
	return d->state == DESC_LENT && d->off == block->off &&
	       d->segment->number == block->segment;
}

void avp_arena_release(struct avp_arena *a, const struct avp_block *block)
{
	bool lent;
	struct desc *d;

	if (avp__forked(&a->guard))
		return;
	lent = is_lent(a, block);
	assert(lent && "released twice, or not a block of this arena");
	if (!lent)
		return;
	d = desc_at(&a->pool, block->handle);
	d->segment->lent_bytes -= d->bytes;
	a->lent_bytes -= d->bytes;
	a->lent_blocks--;
	if (d->class == CLASS_NONE) {
		avp__free_put(&a->pool, block->handle);
		return;
	}
	a->window.lent_bytes -= d->bytes;
	avp__window_keep(a, block->handle);
}
