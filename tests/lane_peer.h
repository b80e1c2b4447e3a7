/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One end of a link made of two lanes, for tests: sends messages of random form
 * and size, checks what comes by content and order, holds some back and
 * acknowledges them late and out of order, spins or sleeps. Two of them run as
 * threads on one mapping (TSan) or as processes.
 */
#ifndef AVP_TESTS_LANE_PEER_H
#define AVP_TESTS_LANE_PEER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <avp/ring.h>

#include "ring/bell.h"

#define LANE_PEER_WINDOW 64
#define LANE_PEER_BLOCK	 2048
#define LANE_PEER_HELD	 8 /* messages that a reader holds back at most */

/* What the other end maps for reading: the waiter word, blocks for bodies. */
struct lane_peer_page {
	_Alignas(64) _Atomic uint32_t word;
	_Alignas(64) uint8_t block[LANE_PEER_WINDOW][LANE_PEER_BLOCK];
};

struct lane_peer {
	/* The caller's to fill, lanes attached. */
	struct avp_lane_tx tx;
	struct avp_lane_rx rx;
	struct lane_peer_page *page;
	const struct lane_peer_page *peer_page;
	int sock;	/* the bell, and the news of the end; non-blocking */
	bool sleeps;	/* or spins */
	bool futex;	/* the bell is the lane's word instead */
	uint32_t burst; /* messages at once, at most; 0: 24 */
	uint64_t total; /* messages to send, and as many to receive */
	uint32_t seed;	/* of this end's choices, not of contents */

	/* Results. */
	uint64_t received, sleeps_made, rings, late_wakes;
	const char *wrong; /* NULL, or what was seen first */

	/* Private. */
	struct avp_ledger *ledger;
	struct avp_loop *loop;
	struct avp_watch bell;
	struct avp__bell word;
	uint32_t rung;
	uint32_t free_blocks, free_block[LANE_PEER_WINDOW];
	uint64_t first, sent, accept_head, release_head;
	uint8_t debt[4 * LANE_PEER_WINDOW * 64];
	uint32_t helds;
	struct avp_slot_view held[LANE_PEER_HELD];
};

/* Runs until all was sent, received and acknowledged, or something is wrong. */
void lane_peer_run(struct lane_peer *peer);

/* The loop that this system gives can wait for a word. */
bool lane_has_bells(void);

#endif
