/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An agent's page: what peers look at without asking (a sealed segment, mapped
 * read-only by each), and what observers read of it (a small file beside the
 * agent's name, never mapped: who can write to the directory could cut it).
 */
#ifndef AVP_AHP_PAGE_H
#define AVP_AHP_PAGE_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_MAGIC 0x3165676150505641ull /* "AVPPage1" */
#define PAGE_READY 0x59444552u

struct page_map {
	uint64_t magic;
	uint16_t major, minor;
	_Atomic uint32_t ready; /* PAGE_READY, release-stored last */
	uint8_t epoch[16];	/* of this opening of the agent */
	uint8_t pad[32];
	/* The waiter words of ring/wake.h; one line, written at each sleep. */
	_Atomic uint32_t messages; /* odd: sleeps until a message comes */
	_Atomic uint32_t space;	   /* odd: sleeps until an ack comes */
	uint8_t pad2[56];
	_Atomic uint64_t heartbeat; /* grows while the agent is being called */
	uint8_t pad3[56];
};
static_assert(offsetof(struct page_map, epoch) == 16, "ABI");
static_assert(offsetof(struct page_map, messages) == 64, "ABI");
static_assert(offsetof(struct page_map, heartbeat) == 128, "ABI");
static_assert(sizeof(struct page_map) == 192, "ABI");

#define RECORD_MAGIC 0x3163655250505641ull /* "AVPPRec1" */

/* The file for observers: written whole by pwrite, some ten times a second while
 * the agent is at work, when it goes to sleep with something to tell, and once
 * a second while it is idle. */
struct page_record {
	uint64_t magic;
	uint32_t bytes;
	uint32_t pid, uid;
	uint32_t reserved;
	uint64_t heartbeat;
	int64_t beat_ns; /* CLOCK_MONOTONIC of the last beat */
	uint64_t stats[24];
	char id[72];
	char model_id[256];
	char model_hash[72];
};
static_assert(offsetof(struct page_record, stats) == 40, "ABI");
static_assert(sizeof(struct page_record) == 632, "ABI");

#endif
