/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A peer that speaks the protocol of a link by hand, so that it can lie. It
 * runs in the same process and thread as the agent that it lies to, which is
 * driven in between.
 */
#ifndef AVP_TESTS_RAW_H
#define AVP_TESTS_RAW_H

#include <avp/ring.h>

#include "ahp/page.h"
#include "ahp/wire.h"
#include "ring/slot.h"
#include "tests/agents.h"

struct raw {
	int sock;
	struct avp_segment page, segment;
	struct avp_lane_tx tx; /* ours, made by the library, then lied in */
	uint64_t next;	       /* sequence of our next slot */
	int lane; /* the agent's, as it was shared; 0: it was not */
};

/* Connects to an agent of this process: it has not looked yet. */
void raw_connect(struct raw *raw, const char *to);
struct wire_hello raw_hello(const char *id, const char *to);
/* One datagram with fds; false when the other's queue is full or it hung up. */
bool raw_say(struct raw *raw, const void *msg, size_t bytes, const int *fds,
	     unsigned n);
/* The next datagram's kind: enum wire_kind, 0 hang-up, -1 nothing there. */
int raw_hear(struct raw *raw, union wire_message *m);
/* Everything up to a link that is up, or up to what comes before our fds. */
void raw_greet(struct raw *raw, struct ahp_agent *victim, const char *id);
void raw_up(struct raw *raw, struct ahp_agent *victim, const char *id);
/* With a lane such as options say. */
void raw_up_with(struct raw *raw, struct ahp_agent *victim, const char *id,
		 const struct avp_lane_options *options);
/* Makes and passes an arena segment as number. */
void raw_segment(struct raw *raw, uint32_t number, uint64_t bytes);
/* Says SHARE with these fds, which it closes; runs the victim. */
void raw_share(struct raw *raw, struct ahp_agent *victim, int page, int lane);

/* The slot that is due, zeroed but for the commit word; and its commit. */
struct slot *raw_slot(struct raw *raw);
void raw_commit(struct raw *raw, struct slot *slot);
/* A TASK in the small form with an inline body. */
struct slot *raw_task(struct raw *raw, const void *body, uint8_t bytes);
/* A frame in the segment that was passed. */
struct slot *raw_lent(struct raw *raw, uint32_t number, uint64_t off,
		      uint64_t bytes);

struct lane_map *raw_lane(struct raw *raw);
void raw_close(struct raw *raw);

/* A memfd of bytes, of which `filled` are written, with these seals. */
int raw_memfd(uint64_t bytes, uint64_t filled, int seals);

/* Open fds of this process, when no more are being closed. */
int fd_count(void);
/* Waits until there are that many: some are closed by another thread. */
bool fds_are(int count);

#endif
