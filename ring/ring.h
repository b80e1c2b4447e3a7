/* SPDX-License-Identifier: Apache-2.0 */
/*
 * <avp/ring.h>: lanes, the one-way message rings of a link, and the event loop
 * that an agent sleeps in.
 *
 * A link between two processes is two lanes. Each side owns one: a sealed
 * segment that only it can write. It carries the side's messages as 256-byte
 * slots, and its acknowledgements of what it reads from the other's lane.
 * avp_lane_tx is the owner's view of its lane, avp_lane_rx the reader's view of
 * the peer's. Bodies that do not fit a slot lie in arena segments (<avp/shm.h>)
 * which a slot names by number and offset.
 *
 * Order and memory: avp_lane_put() release-stores the slot's sequence,
 * avp_lane_take() acquire-loads it; one thread writes, one reads, neither
 * blocks, no system call is made. What is read from a peer's lane is copied
 * once and checked; a peer that breaks the layout gets AVP_POISONED, never
 * more.
 *
 * Most programs use <avp/ahp.h>, which is built on this.
 */
#ifndef AVP_RING_H
#define AVP_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <avp/error.h>
#include <avp/shm.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* Most bytes of a task id and of a session id in a slot, each. */
#define AVP_LANE_ID_BYTES 80

/* What a slot can carry beside its header: ids with a length byte each,
 * body. */
#define AVP_LANE_SMALL_BYTES 224
#define AVP_LANE_LONG_BYTES  192

/* A body in an arena segment: numbers have 24 bits, offsets 40. */
#define AVP_LANE_SEGMENT_MAX ((1u << 24) - 1)
#define AVP_LANE_OFFSET_MAX  ((1ull << 40) - 1)

enum avp_ack {
	AVP_ACK_ACCEPTED = 1, /* settled: the reader has taken it over */
	AVP_ACK_REJECTED = 2, /* settled: the reader refused it */
	AVP_ACK_EXPIRED = 3,  /* settled: read after its deadline */
	AVP_ACK_RELEASED = 4, /* the reader no longer looks at the body */
	AVP_ACK_MISFIT = 5    /* settled: not of the shape of its model */
};

struct avp_lane_options {
	uint32_t size;	 /* sizeof(struct avp_lane_options), or 0 */
	uint32_t flags;	 /* none yet: 0 */
	uint32_t slots;	 /* 16..65536, a power of two; 0: 1024 */
	uint32_t window; /* most messages outstanding; 0: slots */
	uint32_t colour; /* cache colour: slots start 128 * colour % 4096 off */
	uint32_t reserved32;
	uint64_t first_sequence; /* 0: 1; at most 2^63 - 1. Tests start near
				    the wrap of the low words, 2^32 */
	uint64_t reserved[4];	 /* 0 */
};

/* The owner's side of a lane. Caller's memory; members are private. */
struct avp_lane_tx {
	struct avp_segment segment;
	uint8_t *slots;
	uint64_t slot_mask, ack_mask;
	uint32_t window;
	uint64_t next;			    /* sequence of the next message */
	uint64_t consumed;		    /* by the peer, as far as known */
	uint64_t accepted, released, taken; /* of the peer's messages */
	uint64_t written_accepted, written_released, written_taken;
	uint64_t ack_next, written_acks;
	uint64_t start_ns;
	uint8_t epoch[16];
};

/* The reader's side of a peer's lane. Caller's memory; members are private. */
struct avp_lane_rx {
	struct avp_segment segment;
	const uint8_t *slots;
	const uint64_t *acks;
	uint64_t slot_mask, ack_mask;
	uint32_t window;
	uint64_t next; /* sequence expected next */
	uint64_t ack_next;
	uint64_t first_sequence;
	uint64_t start_ns;
	uint8_t epoch[16];
};

/* A message to be written into a slot. All pointers are borrowed. */
struct avp_slot_put {
	uint8_t method, kind; /* of the layer above; stored as they are */
	bool redelivered;
	bool prompt;	/* asks for an acknowledgement at once */
	bool long_form; /* message_id is given, or the body is in an arena */
	bool in_arena;	/* implies long_form */
	uint32_t token_limit, sent_ms, expiry_ms;
	const char *task, *session;	   /* need no NUL */
	uint8_t task_bytes, session_bytes; /* <= AVP_LANE_ID_BYTES */
	uint8_t inline_bytes; /* ids + 2 + inline_bytes must fit the form */
	const void *inline_data;
	uint8_t message_id[16];
	uint32_t segment;
	uint64_t offset, body_bytes;
};

/*
 * A message as it was read: a private copy of its slot, checked, and pointers
 * into that copy. Caller's memory, at a multiple of 64; must not be moved while
 * the pointers live.
 */
struct avp_slot_view {
	uint64_t sequence;
	uint32_t accepted,
		released; /* low words: the peer's acknowledgements */
	uint32_t sent_ms, expiry_ms, token_limit;
	uint8_t method, kind;
	bool redelivered, prompt, long_form, in_arena;
	uint8_t task_bytes, session_bytes, inline_bytes;
	uint32_t segment; /* in_arena only, as offset and body_bytes: */
	uint64_t offset, body_bytes; /* not yet compared with the segment */
	const char *task, *session;
	const uint8_t *inline_data;
	const uint8_t *message_id; /* 16 bytes, or NULL: implied */
#ifdef __cplusplus
	alignas(64) uint8_t copy[256];
#else
	_Alignas(64) uint8_t copy[256];
#endif
};

/* A peer's cumulative acknowledgements, as loaded from its ack line. */
struct avp_acks {
	uint64_t accepted, released, consumed;
};

/*
 * Creates a lane in a new sealed segment and maps it read-write. Returns
 * AVP_USAGE, AVP_NO_MEMORY or AVP_IO. avp_lane_fini() unmaps and closes it.
 */
int avp_lane_init(struct avp_lane_tx *tx,
		  const struct avp_lane_options *options,
		  struct avp_reason *why);
void avp_lane_fini(struct avp_lane_tx *tx);

/* The bytes of a lane's segment with that many slots. */
uint64_t avp_lane_bytes(uint32_t slots);

/*
 * Maps a peer's lane read-only from its fd, which is taken in every case, and
 * checks segment and header. tx learns where the peer's sequences start, so
 * that acknowledgements count from there: attach before the first put into tx.
 * AVP_POISONED with a reason when the lane is not one.
 */
int avp_lane_attach(struct avp_lane_rx *rx, struct avp_lane_tx *tx, int fd,
		    struct avp_reason *why);
void avp_lane_detach(struct avp_lane_rx *rx);

/*
 * Writes one message and commits it; the peer may read it as soon as this has
 * begun to return. The acknowledgements given so far ride along. Returns 0,
 * AVP_QUEUE_FULL when every slot holds a message that the peer has not read
 * (call avp_lane_consumed() with fresher news, and try again), or AVP_USAGE
 * when it does not fit the form. The commit is sequentially consistent if
 * ordered is set: a sleeper's word that is loaded afterwards (wake.h) is then
 * up to date.
 */
int avp_lane_put(struct avp_lane_tx *tx, const struct avp_slot_put *message,
		 bool ordered);

/*
 * Tells tx how far the peer has read, by its ack line or by what is accepted
 * (avp_ledger_accepted()): what is settled was read. A value that is behind
 * what is known, or ahead of what was sent, is no news.
 */
void avp_lane_consumed(struct avp_lane_tx *tx, uint64_t consumed);

/*
 * Takes the next message: 1 and a filled view; 0 when there is none;
 * AVP_POISONED when the slot is not what the protocol allows.
 */
int avp_lane_take(struct avp_lane_rx *rx, struct avp_slot_view *view,
		  struct avp_reason *why);

/* Is a message there? One load; nothing is taken. */
bool avp_lane_ready(const struct avp_lane_rx *rx);

/* Fetches the line of the next message into the cache. */
void avp_lane_prefetch(const struct avp_lane_rx *rx);

/*
 * Acknowledges. avp_lane_ack_below() moves the cumulative words: everything
 * below accepted is settled, below released released, below taken read; values
 * never go back. They reach the peer with the next avp_lane_put(), once it
 * reads that message, or with avp_lane_ack_flush(), which stores the ack line
 * if it is behind (true), also when slots have carried the same: a peer that
 * sends and does not read looks at the line only. avp_lane_ack_one() writes an
 * entry out of order, at once; entries of a message must be written before a
 * cumulative word passes it. A flush that had news of either kind (true) is
 * ordered before the load of a sleeper's word that follows, as an ordered put
 * is.
 */
void avp_lane_ack_below(struct avp_lane_tx *tx, uint64_t accepted,
			uint64_t released, uint64_t taken);
bool avp_lane_ack_flush(struct avp_lane_tx *tx);
void avp_lane_ack_one(struct avp_lane_tx *tx, uint64_t sequence,
		      enum avp_ack status);

/* Loads the peer's ack line. The values are the peer's: to be checked. */
void avp_lane_acks_load(const struct avp_lane_rx *rx, struct avp_acks *acks);

/*
 * Takes the next entry of the peer's ack ring: 1 with the low 48 bits of a
 * sequence and a status of enum avp_ack, 0 when there is none, AVP_POISONED
 * when it holds anything but an entry of this lap or of the one before.
 */
int avp_lane_ack_take(struct avp_lane_rx *rx, uint64_t *sequence_low,
		      enum avp_ack *status);

/* ---- the ledger of what is outstanding --------------------------------- */

/*
 * What a sender remembers of each message until it is both settled and
 * released. Private memory; the peer's words are checked against it.
 */
struct avp_ledger;

/*
 * Called when a message is settled (status one of AVP_ACK_ACCEPTED, _REJECTED,
 * _EXPIRED, _MISFIT) and when it is released (AVP_ACK_RELEASED), each once, in
 * the order in which the news come. cookie is what avp_ledger_add() was given,
 * 0 for plain messages. Those that a cumulative word settles are told at once:
 * `count` of them, sequence is then no one's in particular. For all others
 * count is 1. It must not call the ledger.
 */
typedef void avp_ledger_news(void *arg, uint64_t sequence, uint64_t cookie,
			     enum avp_ack status, uint32_t count);

/* window as the lane's, and its first sequence. AVP_USAGE, AVP_NO_MEMORY. */
int avp_ledger_new(struct avp_ledger **ledger, uint32_t window,
		   uint64_t first_sequence, avp_ledger_news *news, void *arg);
void avp_ledger_free(struct avp_ledger *ledger);

/* Room for another message, and how many are outstanding. */
bool avp_ledger_has_room(const struct avp_ledger *ledger);
uint32_t avp_ledger_outstanding(const struct avp_ledger *ledger);

/* All below this sequence are settled, as the peer said and was believed. */
uint64_t avp_ledger_accepted(const struct avp_ledger *ledger);

/*
 * Enters the next sequence. The caller has asked avp_ledger_has_room(). What is
 * not lent (its body is in the slot) counts as released from the start, and
 * there is no news of that.
 */
void avp_ledger_add(struct avp_ledger *ledger, uint64_t sequence,
		    uint64_t cookie, bool lent);

/* The same for a message that is not lent and has no cookie: much cheaper. */
void avp_ledger_add_plain(struct avp_ledger *ledger);

/*
 * Where the cookie of a message is kept that is not settled yet, to be
 * replaced; valid until the next call. NULL for any other message.
 */
uint64_t *avp_ledger_cookie(struct avp_ledger *ledger, uint64_t sequence);

/*
 * The peer's news: full words from its ack line, low words from a slot, or an
 * entry of its ack ring. 0, or AVP_POISONED when the peer acknowledges what was
 * not sent. A word that is behind what is known is no news: the ack line is
 * written less often than slots are.
 */
int avp_ledger_acks(struct avp_ledger *ledger, uint64_t accepted,
		    uint64_t released);
int avp_ledger_acks_low(struct avp_ledger *ledger, uint32_t accepted,
			uint32_t released);
int avp_ledger_ack_one(struct avp_ledger *ledger, uint64_t sequence_low,
		       enum avp_ack status);

/*
 * The state of a message: 0 while it is not settled, else its enum avp_ack.
 * AVP_UNKNOWN for what was never sent, or so long ago that it is forgotten (the
 * last 2 * window messages, all that are outstanding or were when the ledger
 * was drained, and the last 64 of those that were outstanding for longer than
 * 2 * window messages, are known).
 */
int avp_ledger_status(const struct avp_ledger *ledger, uint64_t sequence);

/*
 * Calls visit for each outstanding message in order of sequence, and forgets
 * them: what remains to be done when the link has ended.
 */
typedef void avp_ledger_visit(void *arg, uint64_t sequence, uint64_t cookie,
			      bool settled, bool released);
void avp_ledger_drain(struct avp_ledger *ledger, avp_ledger_visit *visit,
		      void *arg);

/* ---- the event loop ------------------------------------------------------ */

/*
 * What an agent sleeps in: sockets, pidfds and the application's own fds. One
 * thread at a time, not always the same one. There are two backends that behave
 * alike: io_uring where the system allows it, else epoll. The environment's
 * AVP_LOOP=io_uring|epoll, read at opening, forces one.
 *
 * In a forked child a loop can only be closed; all else answers AVP_FORKED.
 */
struct avp_loop;

#define AVP_READABLE 1u /* also hang-up and error: read to learn which */
#define AVP_WRITABLE 2u

/*
 * A watched fd. Caller's memory, which must stay where it is while watched.
 * Remove it before the fd is closed: io_uring holds the file until then.
 */
struct avp_watch {
	int fd;		 /* borrowed */
	uint32_t events; /* AVP_READABLE | AVP_WRITABLE wanted */
	/* Called from avp_loop_run(); may add and remove any watch. */
	void (*ready)(struct avp_watch *watch, uint32_t events);
	void *arg; /* the caller's */
};

/*
 * AVP_NO_MEMORY, AVP_IO; AVP_USAGE for an unknown AVP_LOOP, AVP_UNSUPPORTED
 * when the one that it names cannot be had. Watches outlive a loop that is
 * closed.
 */
int avp_loop_open(struct avp_loop **loop, struct avp_reason *why);
void avp_loop_close(struct avp_loop *loop);

/*
 * Level-triggered. avp_loop_change() after events was changed. A watch that is
 * removed is not called again, not even in the turn that is under way.
 * AVP_USAGE for an fd that is closed, a plain file, watched already, or
 * (change) not watched; removing such a one does nothing. AVP_NO_MEMORY,
 * AVP_IO.
 */
int avp_loop_add(struct avp_loop *loop, struct avp_watch *watch,
		 struct avp_reason *why);
int avp_loop_change(struct avp_loop *loop, struct avp_watch *watch,
		    struct avp_reason *why);
void avp_loop_remove(struct avp_loop *loop, struct avp_watch *watch);

/*
 * Brings what was written to a file to the disk, as fdatasync() does, while
 * others go on: done is called from avp_loop_run(), with 0 or an errno. One at
 * a time for a loop: AVP_AGAIN while another is under way. Until done is
 * called, or the loop is closed (then it never is), the struct must stay where
 * it is and the fd open. AVP_UNSUPPORTED with epoll, which has nothing of that
 * kind: there the caller has to wait for an fdatasync() of its own.
 */
struct avp_sync {
	int fd; /* borrowed */
	int reserved;
	void (*done)(struct avp_sync *sync, int error);
	void *arg; /* the caller's */
};
int avp_loop_sync(struct avp_loop *loop, struct avp_sync *sync);

/*
 * Waits until something is ready, for at most timeout_ns (0: not at all; less:
 * for ever), and calls it. Returns how many calls were made; 0 also after a
 * signal; AVP_IO; AVP_USAGE from within a callback.
 */
int avp_loop_run(struct avp_loop *loop, int64_t timeout_ns);

/*
 * An fd for another event loop, which polls readable when avp_loop_run() would
 * not wait; rarely also when it would. With an edge-triggered one run until 0
 * is returned. Once asked for, each turn ends with all polls in the kernel,
 * which costs a system call for a turn that had calls; so ask only if it is
 * used.
 *
 * With io_uring, work for the thread that ran the loop ends its other waits, in
 * poll() or epoll_wait(), with EINTR, as a signal would: wait again.
 */
int avp_loop_fd(struct avp_loop *loop);

/* "io_uring" or "epoll". */
const char *avp_loop_backend(const struct avp_loop *loop);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
