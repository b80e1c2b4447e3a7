/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of shm/ share. */
#ifndef AVP_SHM_INTERNAL_H
#define AVP_SHM_INTERNAL_H

#include <stdbool.h>

#include <avp/shm.h>

#define AVP__HUGE_BYTES (UINT64_C(2) << 20)

/* The seals of every segment: the peer cannot write, nobody can resize, and
 * nobody can take a seal for absent by adding it later. */
#define AVP__SEALS \
	(F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL)

/*
 * Whether a segment of bytes can be made within every limit of limits.c. What
 * is no more than now, may change before the pages are there: other processes
 * charge the same cgroup. locked: RLIMIT_MEMLOCK counts too.
 */
int avp__limits_check(uint64_t bytes, struct avp_reason *why);
int avp__limits_check_lock(uint64_t bytes, struct avp_reason *why);

/* The size that avp_segment_create() makes of bytes; and the largest such size
 * that is not over bytes. */
uint64_t avp__segment_round(uint64_t bytes);
uint64_t avp__segment_round_down(uint64_t bytes);

/*
 * avp_segment_create() in three parts. _begin: the file and its mapping,
 * without a page, after a look at the limits; to be closed by the caller from
 * then on. _fill: the pages of a part, from a multiple of 2 MiB on. _seal,
 * when every part is there: what is asked (AVP_MEMORY_*), and the seals. note
 * tells what was done without, or why it failed; it begins empty.
 */
int avp__segment_begin(struct avp_segment *segment, const char *label,
		       uint64_t bytes, uint32_t asked, struct avp_reason *why);
int avp__segment_fill(struct avp_segment *segment, uint64_t off, uint64_t bytes,
		      struct avp_reason *note);
int avp__segment_seal(struct avp_segment *segment, uint32_t asked,
		      struct avp_reason *note);

/*
 * Maps all bytes of fd at a multiple of 2 MiB, shared, not inherited by fork
 * and not dumped. NULL, with errno, when the system refuses.
 */
void *avp__map(int fd, uint64_t bytes, int protection);

#endif
