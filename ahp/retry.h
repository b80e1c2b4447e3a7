/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reliable messages: what is done when one was not accepted.
 *
 * In the usual case nothing is: the message's slot and block are our own memory
 * and stay as they are until it is settled. All that is kept is a mark in the
 * ledger's cookie and four bytes of deadline. Only when it was refused, when
 * its link ended, or when its slot is about to be written over (a straggler),
 * is the slot copied into a parcel, which lives until the message is accepted
 * or dead.
 *
 * A parcel is SENT (its last delivery is in the ledger of a link), BACKOFF
 * (waits for its time), QUEUED (waits in its peer's queue for the peer, or for
 * room) or DONE (only its outcome is still asked for). BACKOFF and QUEUED ones
 * are in a heap by the time at which something is due: the retry or the
 * deadline. A timerfd in the agent's loop tells that time, so that foreign
 * loops need nothing else; inotify tells when an agent's name appears.
 */
#ifndef AVP_AHP_RETRY_H
#define AVP_AHP_RETRY_H

#include "ahp/agent_internal.h"
#include "ring/lane_inline.h"

enum {
	PARCELS_MAX = 65536,  /* waiting or straggling: 384 bytes each */
	PARCELS_CHUNK = 64,   /* that many are allocated at once */
	OUTCOMES_KEPT = 2048, /* of parcels that are done, for ahp_status() */
	ORIGIN_BUCKETS = 4096,
	BACKOFF_DOUBLINGS = 6,
};
#define TICK_NS	    10000000ll	/* while a queue waits for room */
#define LOOK_NS	    200000000ll /* between two looks for an absent agent */
#define ANSWERS_NS  50000000ll	/* between two looks for answers */
#define NO_DEADLINE INT64_MAX

/* A ledger's cookie: body | parcel << 32 | marks. */
#define COOKIE_PARCEL_SHIFT 32
#define COOKIE_PARCEL_MASK  0x3fffffffu
#define COOKIE_RELIABLE	    (UINT64_C(1) << 63)
#define COOKIE_NOTIFY	    (UINT64_C(1) << 62)

enum parcel_state {
	PARCEL_FREE,
	PARCEL_SENT,
	PARCEL_BACKOFF,
	PARCEL_QUEUED,
	PARCEL_DONE
};

struct parcel {
	_Alignas(LINE) uint8_t slot[SLOT_BYTES]; /* as it was sent last */
	uint8_t id[16];
	struct ahp_receipt origin; /* what the application was given */
	int64_t deadline_ns, due_ns;
	uint32_t number;     /* its own, from 1 on */
	uint32_t expires_ms; /* of each delivery; 0: the deadline's */
	uint32_t body;	     /* held; 0: in the slot */
	uint32_t deliveries;
	int last; /* what became of the last delivery */
	int outcome;
	uint32_t next, before; /* in a queue, the free ones, or the done ones */
	uint32_t next_origin;
	uint32_t heap_at;
	uint8_t state; /* enum parcel_state */
	bool notify;
	bool seen; /* by a reader that has ended, perhaps */
};

struct ahp__retry {
	struct ahp_agent *agent;
	struct parcel **chunk; /* [PARCELS_MAX / PARCELS_CHUNK] */
	uint32_t room;	       /* parcels in chunks */
	uint32_t *heap;
	uint32_t heaped, queued;
	uint32_t free_first, done_first, done_last, done;
	uint32_t origin[ORIGIN_BUCKETS];
	uint64_t posted; /* messages taken while their reader was absent */
	uint64_t random;
	int64_t tick_ns;  /* while something is queued */
	int64_t armed_ns; /* what the timer is set to; 0: not */
	struct avp_watch timer, names;
};

/* ---- parcel.c: where they are kept -------------------------------------- */

int ahp__retry_open(struct ahp_agent *agent, struct avp_reason *why);
void ahp__retry_free(struct ahp_agent *agent);

struct parcel *ahp__parcel_at(const struct ahp__retry *r, uint32_t number);
/* NULL at the bound, or without memory. Origin and the rest are the
 * caller's. */
struct parcel *ahp__parcel_new(struct ahp__retry *r,
			       const struct ahp_receipt *origin);
/* It is done: forgotten after OUTCOMES_KEPT others. */
void ahp__parcel_done(struct ahp__retry *r, struct parcel *p);
struct parcel *ahp__parcel_of(const struct ahp__retry *r,
			      const struct ahp_receipt *origin);

void ahp__parcel_push(struct ahp__retry *r, struct parcel *p); /* due_ns */
void ahp__parcel_pull(struct ahp__retry *r, struct parcel *p);

void ahp__parcel_enqueue(struct ahp__retry *r, struct parcel *p);
void ahp__parcel_dequeue(struct ahp__retry *r, struct parcel *p);

/* ---- redeliver.c: sending one again ------------------------------------- */

/* 0, or AVP_QUEUE_FULL and the like: to be tried again. */
int ahp__retry_deliver(struct ahp__link *link, struct parcel *p);
/* A private slot of a message whose reader is not there, and its body. */
int ahp__retry_pack(struct ahp_agent *agent, struct parcel *p,
		    const struct ahp_outgoing *m, struct avp_reason *why);

/* ---- retry.c: the policy ------------------------------------------------ */

/* How long to wait before that retry (1, 2, ...); random is any number. */
int64_t ahp__backoff_ns(int64_t delay_ns, uint32_t retry, uint32_t random);

/* Does what is due at now_ns, and sets the timer. */
void ahp__retry_turn(struct ahp_agent *agent, int64_t now_ns);

/* Hook of agent.c, in each turn: reads the answers to what was sent. */
void ahp__retry_look(struct ahp_agent *agent);

/*
 * Hooks of send.c. _before: the slot that the next message will take is written
 * over: its straggler is kept. _mark: flags is not 0; fills the slot's deadline
 * in, and gives the cookie.
 */
int ahp__retry_before(struct ahp__link *link, uint32_t flags,
		      struct avp_reason *why);
uint64_t ahp__retry_mark(struct ahp__link *link, struct slot *slot,
			 const struct ahp_outgoing *m, uint32_t flags,
			 uint32_t body);
/* The reader is not there: the message is taken all the same. */
int ahp__retry_post(struct ahp_agent *agent, const struct ahp_outgoing *m,
		    struct ahp_receipt *receipt, struct avp_reason *why);
/* Hook of peer.c: does a message wait to be sent to that peer again? */
bool ahp__retry_needs(const struct ahp__retry *r, uint32_t peer);
/* What ahp_status() answers, when a link's ledger says code. */
int ahp__retry_status(struct ahp_agent *agent,
		      const struct ahp_receipt *receipt, int code);

/* Hooks of link.c: a marked message is settled, or its link has ended. */
void ahp__retry_settled(struct ahp__link *link, uint64_t sequence,
			uint64_t cookie, enum avp_ack status);
void ahp__retry_lost(struct ahp__link *link, uint64_t sequence,
		     uint64_t cookie);
void ahp__retry_link_up(struct ahp__link *link);
/* The agent is being closed: what waits is dead. */
void ahp__retry_give_up(struct ahp_agent *agent);

#endif
