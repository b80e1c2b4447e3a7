/* SPDX-License-Identifier: Apache-2.0 */
/*
 * <avp/shm.h>: memory that one process writes and others read.
 *
 * Every process writes only to memory that it owns. It makes a memfd, maps it
 * read-write, seals it and passes the fd; a peer can then map it for reading
 * only, and neither side can shrink it under the other. A block of such memory
 * is lent by the owner's arena, whose state is private, so that a peer that is
 * killed or lies never damages the owner.
 *
 * Nothing here is shared between threads without the caller's exclusion: one
 * segment, one arena is used by one thread at a time. There is no global state.
 * Errors and struct avp_reason (which may be NULL) are those of <avp/error.h>;
 * on failure, out-parameters stay untouched.
 */
#ifndef AVP_SHM_H
#define AVP_SHM_H

#include <stddef.h>
#include <stdint.h>

#include <avp/error.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/*
 * What to ask of memory. What cannot be had is done without and said (in
 * segment.flags, in the reason of a call that succeeded), unless STRICT.
 */
#define AVP_MEMORY_LOCK	       1u /* mlock: never swapped */
#define AVP_MEMORY_SMALL_PAGES 2u /* do not try for 2 MiB pages */
#define AVP_MEMORY_STRICT      4u /* what is asked and refused is an error */
#define AVP_MEMORY_PREFAULT    8u /* arenas: make the first segment at open */

/* ---- segments ----------------------------------------------------------- */

/* What was granted: avp_segment.flags. */
#define AVP_SEGMENT_WRITABLE 1u /* ours; else a peer's, for reading */
#define AVP_SEGMENT_HUGE     2u /* every 2 MiB of it is one huge page */
#define AVP_SEGMENT_LOCKED   4u /* mlocked */

/* A segment's number has 24 bits and an offset in it 40: what links carry. */
#define AVP_SEGMENT_NUMBER_MAX ((UINT32_C(1) << 24) - 1)
#define AVP_SEGMENT_BYTES_MAX  (UINT64_C(1) << 40)

/* A mapped memfd. Zeroed it is no segment, and may be closed. */
struct avp_segment {
	void *base;	/* at a multiple of 2 MiB */
	uint64_t bytes; /* the size of file and mapping */
	int fd;		/* to be passed to peers; -1 in one that was imported */
	uint32_t flags; /* AVP_SEGMENT_* */
};

struct avp_segment_options {
	uint32_t size;	/* sizeof(struct), or 0 for that of version 0.1 */
	uint32_t flags; /* AVP_MEMORY_*, without PREFAULT */
	uint64_t reserved[4];
};

/*
 * Makes a segment of at least bytes (1 to AVP_SEGMENT_BYTES_MAX; rounded up to
 * pages, from 2 MiB on to 2 MiB), zeroed, with every page allocated, and seals
 * it SHRINK | GROW | FUTURE_WRITE | SEAL. label (borrowed, may be NULL) shows
 * in /proc/PID/maps as memfd:avp:label. options may be NULL. The caller closes
 * it. The mapping is not inherited by fork and not written to a core.
 *
 * Limits are compared before anything grows, because the kernel signals or
 * kills at RLIMIT_FSIZE and at a cgroup's memory limit: AVP_NO_MEMORY, with the
 * limit and the mend. AVP_USAGE for arguments, AVP_UNSUPPORTED before Linux
 * 5.1, AVP_IO, AVP_PERMISSION. On success why->code is AVP_OK and why->text
 * empty, or what was done without.
 */
int avp_segment_create(struct avp_segment *segment, const char *label,
		       uint64_t bytes,
		       const struct avp_segment_options *options,
		       struct avp_reason *why);

/*
 * Maps a peer's segment for reading. Takes fd in every case: closed when this
 * returns 0, handed to avp_fd_dispose() otherwise. The order of checks matters
 * and is part of the contract: F_GET_SEALS contains the four seals; before that
 * nothing else is done with the fd, since fstat on a file of FUSE can block for
 * ever; then tmpfs (not hugetlb); then size: not 0, equal to expect_bytes
 * unless that is 0, at most cap_bytes; then no holes, which would be filled at
 * the reader's cost. AVP_POISONED for what no honest peer sends, AVP_TOO_LARGE
 * over the cap, AVP_NO_MEMORY when it cannot be mapped here.
 *
 * The owner may change the contents at any time: load a word once, check the
 * copy, use the copy.
 */
int avp_segment_import(struct avp_segment *segment, int fd,
		       uint64_t expect_bytes, uint64_t cap_bytes,
		       struct avp_reason *why);

/* Unmaps, closes the fd and zeroes *segment. The memory itself lives until the
 * last process that maps it is gone. */
void avp_segment_close(struct avp_segment *segment);

/*
 * The same in a forked child: the mapping was not inherited, and something else
 * may lie at its address by now. Only the fd is closed.
 */
void avp_segment_forget(struct avp_segment *segment);

/* ---- limits ------------------------------------------------------------- */

/* What growth is compared with; UINT64_MAX is "no limit" or "unknown". */
struct avp_limits {
	uint64_t file_bytes;	  /* RLIMIT_FSIZE */
	uint64_t address_bytes;	  /* RLIMIT_AS ... */
	uint64_t address_used;	  /* ... and what is mapped now */
	uint64_t locked_bytes;	  /* RLIMIT_MEMLOCK ... */
	uint64_t locked_used;	  /* ... and what is locked now */
	uint64_t available_bytes; /* MemAvailable of the machine */
	uint64_t cgroup_bytes;	  /* the tightest memory limit above us ... */
	uint64_t cgroup_room;	  /* ... and what can still be charged */
	char cgroup_file[256];	  /* the file that says so, "" if none */
	uint64_t reserved[8];
};

/* Reads them all; what cannot be read is unlimited. Some 300 us. */
void avp_limits_read(struct avp_limits *limits);

/* ---- the arena ---------------------------------------------------------- */

struct avp_arena;

struct avp_arena_options {
	uint32_t size;	      /* sizeof(struct), or 0 */
	uint32_t flags;	      /* AVP_MEMORY_* */
	uint64_t quota_bytes; /* of all segments; 0: a quarter of RAM */
	uint64_t
		first_segment_bytes; /* 0: 2 MiB; later ones double, to 1 GiB */
	uint64_t warm_bytes;	     /* 0: a quarter of the L3 cache */
	const char *label;	     /* borrowed for the call; NULL: "arena" */
	uint64_t reserved[4];
};

/* One lent block. Plain data, may be copied; give any copy back, once. */
struct avp_block {
	void *data;	  /* bytes long, aligned as asked, not zeroed */
	uint64_t bytes;	  /* as asked */
	uint64_t off;	  /* of data in its segment, 40 bits */
	uint32_t segment; /* the segment's number, 24 bits, never 0 */
	uint32_t handle;  /* the arena's */
};

struct avp_arena_stats {
	uint64_t quota_bytes;	/* as granted */
	uint64_t warm_bytes;	/* as granted */
	uint64_t segment_bytes; /* of all segments, retiring ones included */
	uint64_t lent_bytes;	/* rounded up as blocks are */
	uint64_t kept_bytes;	/* waiting in the warm window, free for use */
	uint64_t free_bytes;	/* neither lent nor kept nor retiring */
	uint64_t lent_blocks;
	uint64_t segments; /* now */
	uint64_t retiring; /* of these, asked back by avp_arena_trim() */
	uint64_t grown;	   /* segments ever made */
	uint32_t flags;	   /* AVP_SEGMENT_*: what every segment now has */
	struct avp_reason degraded; /* what was last done without; text "" */
	uint64_t reserved[4];
};

/*
 * Opens an arena; the caller closes it. Without PREFAULT no segment is made
 * until the first block is wanted. AVP_USAGE, AVP_NO_MEMORY, and with PREFAULT
 * what avp_segment_create() answers.
 */
int avp_arena_open(struct avp_arena **arena,
		   const struct avp_arena_options *options,
		   struct avp_reason *why);

/* Frees all, lent blocks too: first see that no reader needs them. In a forked
 * child it frees the child's copy of the state and leaves the parent alone. */
void avp_arena_close(struct avp_arena *arena);

/*
 * Lends a block of bytes (1 to AVP_SEGMENT_BYTES_MAX) whose address, here and
 * in every process that imported the segment, is a multiple of align (a power
 * of two up to 2 MiB; 0: 64). Constant time; without a system call, malloc or
 * page fault unless the arena must grow.
 *
 * Blocks up to warm_bytes are reused oldest first, after about warm_bytes of
 * others, since the line that was read by a peer a moment ago is the dearest to
 * write; larger ones most recent first.
 *
 * AVP_NO_MEMORY at the quota or a limit of the system, with its name and mend;
 * AVP_TOO_LARGE, AVP_USAGE; AVP_FORKED in a forked child.
 *
 * After an alloc compare avp_arena_generation() with what the peers know: the
 * block may lie in a segment that has to be passed to them first.
 */
int avp_arena_alloc(struct avp_arena *arena, uint64_t bytes, uint64_t align,
		    struct avp_block *block, struct avp_reason *why);

/*
 * Makes memory ahead of need, for whoever has nothing else to do now: as many
 * segments as bytes need, the ones that there are counted, but never more than
 * the quota. A call does a step of it, some 0.13 ms for 2 MiB (0.3 ms more
 * when a segment begins), and returns 1; 0 when there is nothing left to do. A
 * segment can be lent from after its last step. An alloc meanwhile that would
 * have to make such memory finishes it; one for which the quota then has no
 * room takes its place. AVP_NO_MEMORY at a limit of the system, AVP_FORKED:
 * what was begun is dropped.
 */
int avp_arena_prepare(struct avp_arena *arena, uint64_t bytes,
		      struct avp_reason *why);

/*
 * Takes a block back. Constant time, never fails. A block that is not lent (a
 * second release) is a bug of the caller: asserted, and with NDEBUG ignored.
 */
void avp_arena_release(struct avp_arena *arena, const struct avp_block *block);

/* Changes whenever a segment was added or dropped. One load. */
uint64_t avp_arena_generation(const struct avp_arena *arena);

/*
 * Fills numbers, ascending, with up to max of the segments numbered over after
 * (0: from the first) that are not retiring; returns how many. Numbers ascend
 * with age and are never used again.
 */
uint32_t avp_arena_segments(const struct avp_arena *arena, uint32_t after,
			    uint32_t *numbers, uint32_t max);

/*
 * A copy of the segment of that number, which stays the arena's (its fd and
 * mapping are valid until it is dropped); AVP_USAGE if there is none.
 */
int avp_arena_segment(const struct avp_arena *arena, uint32_t number,
		      struct avp_segment *segment);

/*
 * First half of giving idle memory back: marks segments in which nothing is
 * lent as retiring, oldest first, while at least keep_bytes of others remain.
 * Nothing is allocated from them any more. Fills numbers with up to max of them
 * and returns how many. Then ask every peer that was told of them to unmap, and
 * drop each when all have answered or gone. The warm window starts afresh.
 */
uint32_t avp_arena_trim(struct avp_arena *arena, uint64_t keep_bytes,
			uint32_t *numbers, uint32_t max);

/* Second half: unmaps and closes a retiring segment. AVP_USAGE if it is not. */
int avp_arena_segment_drop(struct avp_arena *arena, uint32_t number);

/* Fills *stats; walks the segments. */
void avp_arena_stats(const struct avp_arena *arena,
		     struct avp_arena_stats *stats);

/* ---- passing fds -------------------------------------------------------- */

/* Fds in one message: far more than a Hello or a growth needs (two). */
#define AVP_FD_MAX 16

/*
 * Sends one message of len >= 1 bytes with n <= AVP_FD_MAX fds (borrowed) over
 * a SOCK_SEQPACKET socket, whole or not at all, without waiting and without
 * SIGPIPE. 0; AVP_AGAIN when the peer's queue is full; AVP_CLOSED when it hung
 * up (what it had sent may still be read); AVP_TOO_LARGE over the socket's
 * buffer; AVP_NO_MEMORY when too many fds of this user are in flight;
 * AVP_USAGE, AVP_IO.
 */
int avp_fd_send(int sock, const void *msg, size_t len, const int *fds,
		unsigned n, struct avp_reason *why);

/*
 * Receives one message without waiting: its length in *len, up to max_fds
 * (<= AVP_FD_MAX) fds, all CLOEXEC, in fds and their number in *n; the caller
 * owns them. With max_fds 0 no fd can enter this process: pass 0 until the peer
 * is known and has announced how many will come, then that number.
 *
 * AVP_AGAIN: nothing there. AVP_CLOSED: hung up, and everything it had sent was
 * read. (The one ECONNRESET that a SEQPACKET socket reports before its queued
 * data is passed over. A message of no bytes reads as the end.) AVP_POISONED:
 * longer than cap or with more fds than allowed. AVP_NO_MEMORY: this process is
 * at its fd limit, and the message is lost. On failure nothing is left open.
 */
int avp_fd_receive(int sock, void *msg, size_t cap, size_t *len, int *fds,
		   unsigned max_fds, unsigned *n, struct avp_reason *why);

/*
 * Closes an fd that a peer sent and that may be anything. What is known to be
 * plain memory is closed at once. Anything else is closed by a detached thread
 * that does only that and ends: closing a file of a FUSE file system waits for
 * its server, and only another thread can do it without stopping this one. It
 * runs at most once for a link, whose peer is then poisoned. If no thread can
 * be had the fd stays open: one fd is cheaper than a stopped agent. -1 is fine.
 */
void avp_fd_dispose(int fd);

/* ---- the peer ----------------------------------------------------------- */

/* Who is at the other end of a connected Unix socket. */
struct avp_peer_id {
	int32_t pid; /* 0: in a pid namespace that we cannot see */
	uint32_t
		uid; /* 65534: a user that our namespace cannot name, perhaps */
	uint32_t gid;
	int pidfd; /* -1: its death shows as a hang-up only */
};

/*
 * Fills *peer from SO_PEERCRED (the one who connected, or who called listen)
 * and a pidfd: SO_PEERPIDFD, before Linux 6.5 pidfd_open, which could meet a
 * process that took the number since. The caller closes it. AVP_CLOSED when the
 * process is already gone; AVP_NO_MEMORY at the fd limit; AVP_IO.
 */
int avp_peer_open(struct avp_peer_id *peer, int sock, struct avp_reason *why);

/* Closes the pidfd, if there is one. */
void avp_peer_close(struct avp_peer_id *peer);

/*
 * 1 when the process, all its threads, has ended; 0 when it lives, or when that
 * cannot be told because pidfd is -1. One system call, does not wait. The pidfd
 * polls readable at that moment.
 */
int avp_pidfd_dead(int pidfd);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
