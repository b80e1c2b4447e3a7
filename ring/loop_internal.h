/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the loop's front (loop.c) and its two backends share. The front checks
 * arguments, forks and re-entry; a backend may rely on that.
 */
#ifndef AVP_RING_LOOP_INTERNAL_H
#define AVP_RING_LOOP_INTERNAL_H

#include <avp/ring.h>

#include "ring/bell.h"
#include "shm/guard.h"

/* A backend's struct begins with this. */
struct avp_loop {
	const struct avp__loop_ops *ops;
	struct avp__fork_guard guard;
	bool running; /* in avp_loop_run(): a callback may be on the stack */
	bool foreign; /* avp_loop_fd() was asked for: somebody may poll it */
	bool bells;   /* it can wait for words of memory: bell.h */
};

/* As the functions of <avp/ring.h>, of which each is one. */
struct avp__loop_ops {
	const char *name;
	/* AVP_UNSUPPORTED when this system has no such thing. */
	int (*open)(struct avp_loop **loop, struct avp_reason *why);
	/* forked: in a child, where nothing of the parent's may be touched. */
	void (*close)(struct avp_loop *loop, bool forked);
	int (*add)(struct avp_loop *loop, struct avp_watch *watch,
		   struct avp_reason *why);
	int (*change)(struct avp_loop *loop, struct avp_watch *watch,
		      struct avp_reason *why);
	void (*remove)(struct avp_loop *loop, struct avp_watch *watch);
	int (*sync)(struct avp_loop *loop, struct avp_sync *sync);
	int (*run)(struct avp_loop *loop, int64_t timeout_ns);
	int (*fd)(struct avp_loop *loop);
	/* As those of bell.h; only where `bells` is set. */
	int (*bell_add)(struct avp_loop *loop, struct avp__bell *bell,
			struct avp_reason *why);
	void (*bell_remove)(struct avp_loop *loop, struct avp__bell *bell);
};

extern const struct avp__loop_ops avp__loop_epoll, avp__loop_uring;

/* Poll's and epoll's bits are the same numbers; hang-up and error are read. */
static inline uint32_t avp__loop_events(uint32_t polled)
{
	return (polled & ~4u ? AVP_READABLE : 0) |
	       (polled & 4u ? AVP_WRITABLE : 0);
}

static inline uint32_t avp__loop_mask(uint32_t events)
{
	return (events & AVP_READABLE ? 1u : 0) |
	       (events & AVP_WRITABLE ? 4u : 0);
}

#endif
