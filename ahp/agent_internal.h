/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of ahp/ share. An agent is used by one thread at a time, so
 * nothing here is atomic but the words of the page, which peers read.
 */
#ifndef AVP_AHP_INTERNAL_H
#define AVP_AHP_INTERNAL_H

#include <stdatomic.h>
#include <time.h>

#include <avp/ahp.h>
#include <avp/ring.h>

#include "ahp/page.h"
#include "ahp/progress.h"
#include "ahp/wire.h"
#include "ring/bell.h"
#include "shm/guard.h"

struct ahp__link;
struct ahp__retry;
struct ahp__events;
struct ahp__twins;
struct ahp__keep;

/* Limits, each with its reason. */
enum {
	LINKS_MAX = 4096,  /* two fds each, of a usual hard limit of 1 Mi */
	PEERS_MAX = 65536, /* names that are known: what names can cost */
	PEER_BUCKETS = 4096,
	PEER_PLACE_MASK = 0x1ffff, /* of a number: the place, from 1 on */
	STRANGERS_MAX = 64,	   /* connections whose Hello has not come */
	IMPORTS_MAX = 64,    /* live segments of one peer: mostly they double */
	FLUSH_EVERY = 32,    /* messages between two stores of the ack line */
	STREAM_AFTER = 4,    /* messages without a pause are a stream */
	BURST_MESSAGES = 64, /* from one link, before the next is polled */
	LENT_SHARE = 4,	     /* a link is lent a quarter of the quota */
	RECENT_LINKS = 8,    /* polled in each turn; one of the others too */
	FRAME_HEAD_MAX = 65536 + AVP_FRAME_HEADER_BYTES, /* on a local link */
};
#define BURST_BYTES	 (1u << 20)
#define HELLO_TIMEOUT_NS 5000000000ll /* a stranger has that long to speak */
#define RETRY_CONNECT_NS 2000000ll    /* while the other's backlog is full */
#define SAFETY_NS	 125000000ll  /* no sleep is longer; 8 cost 0.08 % */
#define SPIN_NS		 50000ll      /* at most, in adaptive mode */
/* What options mean by 0; the first three are the specification's. */
#define TASK_TIMEOUT_NS	      60000000000ll
#define HEARTBEAT_INTERVAL_NS 30000000000ll
#define MAX_RETRIES	      3
#define RETRY_DELAY_NS	      1000000000ll
#define RECEIVE_TIMEOUT_NS    30000000000ll
#define TRIM_NS		      30000000000ll /* memory lies idle that long */
#define SEGMENT_CAP	      (1ull << 40) /* of one imported segment */

/* A block that was lent, and how many still hold it. */
struct ahp__body {
	struct avp_block block;
	uint32_t refs; /* the application's loan, and each lent descriptor */
	uint32_t pool; /* which of the agent's pools it is from */
	uint32_t next_free;
};

/* The arena for the peers of one user. */
struct ahp__pool {
	uint32_t uid;
	struct avp_arena *arena;
};

/* A name, and what we know of the agent behind it. */
struct ahp__peer {
	char id[AHP_ID_BYTES + 1];
	uint32_t number;	    /* what the application calls it: round
				       * of its place << 17 | place */
	uint32_t used;		    /* peer_clock of its last link's news */
	struct ahp__link *link;	    /* up or being made, or NULL */
	uint32_t generation;	    /* links that there have been */
	uint32_t ledger_generation; /* of the link whose ledger this is: */
	struct avp_ledger *ledger;  /* kept to answer ahp_status() */
	int error;		    /* why the last attempt failed */
	struct avp_reason why;
	uint32_t next_same_hash;
	uint32_t retry_first,
		retry_last; /* parcels that wait for it: retry.h */
	int64_t tried_ns;   /* when it was last looked for */
	uint64_t beat;	    /* its heartbeat, and when it was new */
	int64_t beat_ns;
	uint32_t beat_generation;
};

enum ahp__link_state {
	LINK_CONNECTING, /* ours, the other's backlog is full */
	LINK_GREETING,	 /* waiting for the other's Hello */
	LINK_SHARING,	 /* waiting for its fds */
	LINK_UP,
	LINK_DRAINING, /* hung up; what it published is still to be read */
	LINK_POISONED, /* not believed any more; waiting for its hang-up */
	LINK_ENDED,    /* kept only because messages of it are held */
};

/* A received message that is not yet accepted, or not yet released. */
struct ahp__held {
	uint64_t sequence;
	bool accept, release; /* what is still owed */
	uint32_t twin;	      /* of messages with an id: twins.c */
	uint32_t next[2],
		before[2]; /* in the two lists, in order of sequence */
};

enum { OWED_ACCEPT, OWED_RELEASE };

/* Of ahp__link.keeps_out. */
enum { KEEPS_OUT_STATES = 1, KEEPS_OUT_CACHES = 2 };

struct ahp__import {
	uint32_t number;
	bool leaving; /* the peer wants it back */
	struct avp_segment segment;
};

struct ahp__link {
	struct ahp_agent *agent;
	struct ahp__peer *peer; /* NULL until its Hello has come */
	const char *source;	/* of the peer, for messages: id, number */
	uint32_t number;
	enum ahp__link_state state;
	uint8_t keeps_out; /* frames that its peer could not use */
	bool queued; /* messages wait to be sent again: they go first */
	bool ours;	   /* we connected */
	bool sock_watched, pid_watched, tx_made, rx_made;
	int sock;
	struct avp_watch sock_watch, pid_watch;
	struct avp_peer_id who;
	uint8_t agent_epoch[16];
	int64_t since_ns;    /* when it was made: for time-outs */
	uint32_t generation; /* of the peer */
	uint32_t up_at;	     /* its place in the agent's, while it is polled */

	struct avp_lane_tx tx;
	struct avp_lane_rx rx;
	int64_t sent_ref_ns;  /* a moment, not long ago ... */
	uint32_t sent_ref_ms; /* ... and what slots said then: ahp__sent_ns() */
	struct avp_segment page_segment;
	const struct page_map *page; /* the peer's */
	bool peer_sleeps;	     /* it is not in busy mode */
	bool peer_hears_word;	     /* of our lane; or a byte on the socket */
	bool bell_added;
	struct avp__bell bell; /* the word of the peer's lane */
	uint32_t rung_messages, rung_space;
	uint32_t token_limit; /* the agent's, of messages that name none */
	bool judges; /* our model's shape is known: frames have to fit it */
	uint32_t fit_head;  /* memo.changes of the last that did, ... */
	uint64_t fit_bytes; /* ... and its payload_bytes */
	struct avp_frame_memo memo;
	uint32_t head_at; /* of the last frame, in its slot */
	uint32_t streak;  /* messages taken since there was none */
	/* Acknowledgements that came with messages and are not yet entered:
	 * that is done while we wait, not between a message and its answer. */
	bool heard;
	bool unsettled; /* in the agent's list */
	struct ahp__link *next_unsettled;
	uint32_t heard_accepted, heard_released;
	unsigned unflushed;   /* messages taken since the ack line was stored */
	unsigned flush_every; /* FLUSH_EVERY, or half a small window */

	struct avp_ledger *ledger;
	/* Plain messages that may be sent before anything is looked at: at most
	 * as many as there is room for; 0 when the link is not up, or keeps
	 * something out, or when others go first. */
	uint32_t plain_room;
	uint32_t
		*deadline_ms; /* [slots] of reliable messages; NULL: none yet */
	uint32_t usual_ms;    /* the agent's task_timeout_ns; 0: for ever */
	uint64_t settled_below; /* what was true of it when last looked */
	bool lost;	 /* the first that was not accepted has been seen */
	uint32_t pool;	 /* of bodies that it may read */
	uint32_t passed; /* segments up to this number were passed */
	uint32_t passed_count;
	bool asked, ask_again; /* for the agent's retiring one: trim.c */
	uint64_t lent_bytes, lent_max;
	bool room_wanted;    /* for a message that was QUEUE_FULL, ... */
	uint64_t room_bytes; /* ... of so many bytes in the arena */

	struct ahp__import import[IMPORTS_MAX];
	unsigned imports;

	struct ahp__held *held; /* [held_room], 0 is the lists' head */
	uint32_t held_room, held_free;
	uint32_t owed[2]; /* entries in each list */
	uint32_t views;	  /* messages whose body lies in the peer's memory */

	/* mode.c: what our Hello says, what the peer's did, and the verdict. */
	struct wire_identity told, heard_of;
	struct avp_resolution resolution;
};

/* A polled link's next message is there when this word is `next`. */
struct ahp__look {
	const _Atomic uint64_t *word;
	uint64_t next;
};

struct ahp_agent {
	struct avp__fork_guard guard;
	/* Zero there bars calls: the guard's cookie, but for callbacks. */
	const volatile uint32_t *entry;
	struct ahp__progress *progress; /* NULL: no thread but the owner's */
	char id[AHP_ID_BYTES + 1];
	uint8_t epoch[16];
	bool explicit_ack;
	enum ahp_wait wait;
	/* Without what it pointed to, and with what 0 meant. */
	struct ahp_agent_options options;
	struct wire_identity identity;
	uint32_t *allowed_uids;
	uint32_t own_uid;

	/* names: rendezvous.c */
	int dir, lock, listener;
	struct avp_watch listen_watch;

	/* page.c */
	struct avp_segment page_segment;
	struct page_map *page;
	int page_file;
	int64_t page_written_ns, beat_ns;
	int64_t alive_ns; /* the last beat that counts */
	bool silent;	  /* ahp_agent_set_beating() */
	uint64_t page_stats[sizeof(struct ahp_stats) / 8]; /* as written */
	uint32_t page_shows; /* that may be made before the next beat */

	struct avp_loop *loop;
	bool hears_words; /* of peers' lanes, as doorbells; or only sockets */
	int own_calls;	  /* of callbacks, in this turn of the loop */
	bool foreign;	  /* others were made, since ahp_agent_run() began */
	uint32_t polls;	  /* since the loop was last run */
	bool room_wanted; /* by a link */
	int64_t spin_ns, spin_max_ns; /* before sleeping, in adaptive mode */
	bool yields;		      /* while it spins */

	struct ahp__peer **peer; /* by place - 1 */
	uint32_t peers, peers_room;
	uint32_t peer_hash[PEER_BUCKETS]; /* number of the first, or 0 */
	uint32_t peer_hand, peer_clock;	  /* see peer.c */

	struct ahp__link *link[LINKS_MAX];
	uint32_t links;

	struct ahp__link *up[LINKS_MAX];  /* up or draining: these are polled */
	struct ahp__look look[LINKS_MAX]; /* of each, as up.c says */
	uint32_t ups, draining, first, turn;
	int64_t sent_refs_ns;	   /* when each link's sent_ref was renewed */
	uint64_t first_sequence;   /* of links; tests begin before a wrap */
	struct ahp__link *speaker; /* up[first] while it has budget, or NULL */
	int64_t budget; /* of up[first], before the next one's turn */
	bool idle_due;	/* one was spent: look at one idle link */
	struct ahp__link *unsettled; /* what ahp__settle_all() has to look at */

	struct ahp__pool *pool;
	uint32_t pools;
	/* trim.c */
	int64_t trim_ns, trimmed_ns;	   /* the period; tests shorten it */
	uint64_t reserve_bytes;		   /* as it was asked for */
	uint64_t lent_most[2];		   /* in this period and the last */
	uint32_t retiring, retiring_pool; /* the segment asked back, or 0 */
	bool leaving; /* there may be imports that are asked back */

	struct ahp__body *body; /* 0 is not used */
	uint32_t bodies, bodies_room, body_free;

	uint32_t send_flags; /* AHP_RELIABLE, for every message */
	bool closing;
	struct ahp__retry *retry; /* NULL until it is needed, as the others */
	struct ahp__events *events;
	struct ahp__twins *twins;
	ahp_bury *bury;
	void *bury_arg;
	struct ahp__keep *keep;

	struct ahp_stats stats;
};

/* The peer of a number, or NULL. */
static inline struct ahp__peer *ahp__peer_at(const struct ahp_agent *agent,
					     uint32_t number)
{
	uint32_t at = (number & PEER_PLACE_MASK) - 1;
	struct ahp__peer *peer = at < agent->peers ? agent->peer[at] : NULL;

	return peer && peer->number == number ? peer : NULL;
}

/* Why there is no entry: AVP_FORKED, or AVP_USAGE from within a callback. */
__attribute__((cold)) int ahp__agent_barred(const struct ahp_agent *agent);

/*
 * At the top of each public call that can answer with a code: the calling
 * thread is in (progress.h) until its function returns, or it is told why not.
 * AHP_ENTER for the other calls.
 */
#define AHP_ENTER(agent)                                            \
	__attribute__((cleanup(ahp__leave),                         \
		       unused)) struct ahp__progress *ahp_inside_ = \
		ahp__enter((agent)->progress)
#define AHP_GUARD(agent)                                   \
	AHP_ENTER(agent);                                  \
	do {                                               \
		if (__builtin_expect(!*(agent)->entry, 0)) \
			return ahp__agent_barred(agent);   \
	} while (0)

int64_t ahp__now_ns(void);

/*
 * Milliseconds since a lane's start by the coarse clock (4 ms exact, and 18 ns
 * cheaper than the fine one; deadlines are seconds).
 */
static inline uint32_t ahp__lane_ms(uint64_t start_ns)
{
	struct timespec t;
	int64_t ns;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
	ns = t.tv_sec * 1000000000ll + t.tv_nsec - (int64_t)start_ns;
	return ns < 0 ? 0 : (uint32_t)((uint64_t)ns / 1000000);
}

/* Renews sent_ref: when a link comes up, and at least every three weeks. */
void ahp__link_sent_ref(struct ahp__link *link, int64_t now_ns);

/* When a message was sent, by the 32 bits of its slot, which wrap after 49
 * days. */
static inline int64_t ahp__sent_ns(const struct ahp__link *link, uint32_t ms)
{
	return link->sent_ref_ns +
	       (int32_t)(ms - link->sent_ref_ms) * INT64_C(1000000);
}

__attribute__((format(printf, 4, 5), cold)) void ahp__logf(
	struct ahp_agent *agent, enum ahp_log_level level, int code,
	const char *format, ...);

/* The same of a message, or of what became of it, with its task id. */
__attribute__((format(printf, 5, 6), cold)) void ahp__log_task(
	struct ahp_agent *agent, enum ahp_log_level level, int code,
	struct avp_str task, const char *format, ...);

/* ---- agent.c ------------------------------------------------------------ */

void ahp__stats_fill(const struct ahp_agent *agent, struct ahp_stats *stats);

/* ---- peer.c ------------------------------------------------------------- */

/*
 * The peer of that name, made if it is new, in another's place at PEERS_MAX;
 * NULL if all of those are needed, or without memory.
 */
struct ahp__peer *ahp__peer_get(struct ahp_agent *agent, const char *id);
uint32_t ahp__peer_find(const struct ahp_agent *agent, const char *id);
/* Somebody looked for it, or its link has ended. */
void ahp__peer_used(struct ahp_agent *agent, struct ahp__peer *peer);

/* ---- wait.c ------------------------------------------------------------- */

/* Everything that is due: sockets, for at most timeout_ns; time-outs, page. */
void ahp__agent_turn(struct ahp_agent *agent, int64_t timeout_ns);

/* Acknowledgements, both ways: what can be done while nothing else is. */
void ahp__settle_all(struct ahp_agent *agent);

/*
 * To be called with each `heard` and `unflushed`. To look at every link costs
 * more than a round trip when they are hundreds.
 */
static inline void ahp__unsettle(struct ahp__link *link)
{
	if (link->unsettled)
		return;
	link->unsettled = true;
	link->next_unsettled = link->agent->unsettled;
	link->agent->unsettled = link;
}

/* What a bell may be rung for, and a waiter waits for. */
enum ahp__news { NEWS_MESSAGES = 1, NEWS_ACKS = 2 };

/*
 * Waits for ready(arg) as the agent's mode says: spins, sleeps, serves the
 * loop, woken by bells for such news. 0, or AVP_TIMEOUT.
 */
int ahp__agent_wait(struct ahp_agent *agent, int64_t timeout_ns,
		    enum ahp__news news, bool (*ready)(void *arg), void *arg);

/*
 * How long to spin in the next wait of adaptive mode, after one of waited_ns.
 * To spin is worth it when what is waited for comes before the longest spin
 * ends: for twice as long then, so that a little more does not make us sleep.
 * What takes longer halves the time that is wasted on it. What wakes a sleeper
 * that soon would have been caught.
 */
int64_t ahp__spin_next(int64_t spin_ns, int64_t longest_ns, int64_t waited_ns,
		       bool slept);

/* Are we called from within a callback of the agent's own loop? */
bool ahp__agent_in_callback(const struct ahp_agent *agent);

/* ---- up.c --------------------------------------------------------------- */

/* From now on it is polled; no more, if it was. */
void ahp__up_add(struct ahp__link *link);
bool ahp__up_remove(struct ahp__link *link);
void ahp__up_swap(struct ahp_agent *agent, uint32_t a, uint32_t b);
/* A message was taken from it since: looks at the next one's word. */
void ahp__up_taken(struct ahp__link *link);

/*
 * Is a message there? Only after ahp__settle_all(), which follows what was
 * taken. One load for each link, and that is the look before a sleep.
 */
bool ahp__any_ready(struct ahp_agent *agent);

/* ---- send.c ------------------------------------------------------------- */

/* Has the link room for the message that did not go? */
bool ahp__link_room_came(struct ahp__link *link);

/* ---- progress.c --------------------------------------------------------- */

int ahp__progress_start(struct ahp_agent *agent, struct avp_reason *why);
/* Ends the thread, and waits until it has ended. */
void ahp__progress_stop(struct ahp_agent *agent);
/* In a child, where there is none; false: it was acting when we were forked. */
bool ahp__progress_forget(struct ahp_agent *agent);

/* ---- rendezvous.c ------------------------------------------------------- */

bool ahp__id_ok(const char *id);
int ahp__names_open(struct ahp_agent *agent, const char *runtime_dir,
		    const char *name_space, struct avp_reason *why);
void ahp__names_close(struct ahp_agent *agent);
/* In a forked child: closes the fds and leaves the names alone. */
void ahp__names_forget(struct ahp_agent *agent);
/* A connected socket to an agent's name: fd, AVP_AGAIN, AVP_AGENT_NOT_FOUND. */
int ahp__names_connect(int dir, const char *id, struct avp_reason *why);
/* The directory of a namespace, opened; made if it has to be. */
int ahp__names_dir(const char *runtime_dir, const char *name_space,
		   struct avp_reason *why);

/* ---- page.c ------------------------------------------------------------- */

int ahp__page_open(struct ahp_agent *agent, struct avp_reason *why);
void ahp__page_close(struct ahp_agent *agent);
/* Beats, and writes the observers' file if that is due. */
void ahp__page_beat(struct ahp_agent *agent, int64_t now_ns);
/* Before a sleep: what it has counted since is shown now, not at the next beat,
 * unless it sleeps too often for that. */
void ahp__page_show(struct ahp_agent *agent);

/* ---- mode.c ------------------------------------------------------------- */

/* AVP_USAGE for texts that do not fit and must not be cut. NULL: unknown. */
int ahp__identity_set(struct wire_identity *to, const struct avp_identity *from,
		      struct avp_reason *why);
/* Both sides' identities are there: what may go over the link. */
void ahp__mode_resolve(struct ahp__link *link);
/*
 * May this go over a link that keeps something out? Yes for what is no frame.
 * Else AVP_SHAPE_MISMATCH, or false, with the resolver's reason.
 */
__attribute__((cold)) int ahp__mode_admits(const struct ahp__link *link,
					   const struct ahp_outgoing *m,
					   struct avp_reason *why);
__attribute__((cold)) bool ahp__mode_takes(const struct ahp__link *link,
					   const void *frame, uint64_t bytes,
					   struct avp_reason *why);
/* Is that the verdict of the last frame, which fitted? The head is the
 * memo's. */
static inline bool ahp__mode_fitted(const struct ahp__link *link,
				    uint64_t payload_bytes)
{
	return link->fit_head == link->memo.changes &&
	       link->fit_bytes == payload_bytes;
}

/* Does a frame that came fit our model, which is known? It is parsed
 * already. */
bool ahp__mode_fits(struct ahp__link *link, const struct ahp_message *m,
		    struct avp_reason *why);

/* ---- greeting.c: how links begin ---------------------------------------- */

int ahp__link_connect(struct ahp_agent *agent, struct ahp__peer *peer,
		      struct avp_reason *why);
int ahp__link_accept(struct ahp_agent *agent, int sock);
/* Time-outs of links that are being made. */
void ahp__link_age(struct ahp__link *link, int64_t now_ns);

/* ---- link.c: their life ------------------------------------------------- */

/* Reads what the peer says on the socket until there is no more. */
void ahp__link_serve(struct ahp__link *link);
/* Frees at once: the agent is being closed. */
void ahp__link_free(struct ahp__link *link);
/* The same in a forked child, which has the fds but not the mappings. */
void ahp__link_forget(struct ahp__link *link);
/* A draining link has nothing left to read. */
void ahp__link_finish(struct ahp__link *link);
void ahp__link_poison(struct ahp__link *link, const struct avp_reason *why);
/* The same by a message of that task. */
void ahp__link_poison_by(struct ahp__link *link, struct avp_str task,
			 const struct avp_reason *why);
/* Ends a link whose last held message was released. */
void ahp__link_unview(struct ahp__link *link);
/*
 * Passes the segments that the peer does not know yet. 0, AVP_QUEUE_FULL when
 * it does not read its socket, AVP_CLOSED when it is gone, AVP_NO_MEMORY.
 */
int ahp__link_pass_segments(struct ahp__link *link, struct avp_reason *why);
const struct avp_segment *ahp__link_import(struct ahp__link *link,
					   uint32_t number);
void ahp__link_ring(struct ahp__link *link);

/* ---- trim.c: idle memory goes back ------------------------------------------- */

void ahp__trim_turn(struct ahp_agent *agent, int64_t now_ns);
/* WIRE_UNMAP and WIRE_UNMAPPED have come. */
void ahp__trim_asked(struct ahp__link *link, const struct wire_segment *m);
void ahp__trim_answered(struct ahp__link *link, const struct wire_segment *m);

/* ---- acks.c ------------------------------------------------------------- */

/* What the peer's lane says of our messages. False: the link is poisoned. */
bool ahp__acks_read(struct ahp__link *link);
/* Enters the words that came with messages since. False: poisoned. */
bool ahp__acks_enter(struct ahp__link *link);
/* Sets plain_room anew: after whatever but a plain message may have changed
 * it. */
void ahp__acks_room(struct ahp__link *link);
/* Stores the ack line if there is news, and rings if the peer waits for it. */
void ahp__acks_flush(struct ahp__link *link);
/* A message was taken; what is owed for it. Returns its place, 0 if nothing. */
int ahp__acks_take(struct ahp__link *link, uint64_t sequence, bool accept,
		   bool release, uint32_t *held);
void ahp__acks_pay(struct ahp__link *link, uint32_t held, unsigned owed,
		   enum avp_ack status);
/*
 * The usual cases of both. A body was taken, with its message accepted, while
 * there is a free place (held_free): the words are the caller's to move. The
 * oldest body is given back, and nothing else is owed for its message; false:
 * it is not so, and nothing was done.
 */
uint32_t ahp__acks_lent(struct ahp__link *link, uint64_t sequence);
bool ahp__acks_return(struct ahp__link *link, uint32_t held);
/* Answers a message that is not delivered. */
void ahp__acks_refuse(struct ahp__link *link, uint64_t sequence,
		      enum avp_ack status, bool lent);

/* ---- twins.c: messages that carry an id --------------------------------- */

/*
 * Enters what is owed for such a message: 1, and it is to be delivered; 0 when
 * it came before, or the link is poisoned.
 */
int ahp__twins_take(struct ahp__link *link, struct ahp_message *message,
		    const struct avp_slot_view *view, bool accept);
/* An id's message is answered; up: and its sender hears of it. */
void ahp__twins_settle(struct ahp__link *link, uint32_t held,
		       enum avp_ack status, bool up);
/* The link has ended before the rest was answered. */
void ahp__twins_end_link(struct ahp__link *link);
void ahp__twins_free(struct ahp_agent *agent);

/* ---- events.c ----------------------------------------------------------- */

/* Keeps a place for an event: AVP_QUEUE_FULL, AVP_NO_MEMORY. */
int ahp__events_reserve(struct ahp_agent *agent, struct avp_reason *why);
void ahp__events_cancel(struct ahp_agent *agent);
void ahp__events_add(struct ahp_agent *agent, const struct ahp_event *event);
void ahp__events_free(struct ahp_agent *agent);
/* Will there be any, or are there some that were not taken? */
bool ahp__events_to_come(const struct ahp_agent *agent);
/* Is one there? Looks for acknowledgements. */
bool ahp__event_ready(struct ahp_agent *agent);

/* The id that a message of ours was given by its place; zeros: not known
 * now. */
void ahp__receipt_id(const struct ahp_agent *agent,
		     const struct ahp_receipt *receipt, uint8_t id[16]);

/* ---- keep.c: dead letters ----------------------------------------------- */

/*
 * A message is dead: its letter goes to whoever keeps such. event, of which a
 * place is reserved, or NULL, is told as soon as the letter is kept, or cannot
 * be.
 */
void ahp__bury(struct ahp_agent *agent, const struct ahp_dead_letter *letter,
	       const struct ahp_event *event);

/* Begins to bring to the disk what is not there yet; before each wait. */
void ahp__keep_turn(struct ahp_agent *agent);
/* Waits for the disk; the agent is being closed. _free: no loop any more. */
void ahp__keep_end(struct ahp_agent *agent);
void ahp__keep_free(struct ahp_agent *agent);

/* ---- body.c ------------------------------------------------------------- */

/* The pool for a user's peers, made if need be; negative: an error. */
int ahp__pool_for(struct ahp_agent *agent, uint32_t uid,
		  struct avp_reason *why);
int ahp__body_new(struct ahp_agent *agent, uint32_t pool, uint64_t bytes,
		  uint64_t align, uint32_t *body, struct avp_reason *why);
void ahp__body_ref(struct ahp_agent *agent, uint32_t body);
void ahp__body_unref(struct ahp_agent *agent, uint32_t body);
/*
 * Nothing else is to be done: a step, 0.13 ms and rarely some ms, of what the
 * options ask for ahead of need. True: there is more of it.
 */
bool ahp__bodies_prepare(struct ahp_agent *agent);
/* Takes back what peers say that they do not need any more. */
void ahp__bodies_collect(struct ahp_agent *agent);
void ahp__bodies_free(struct ahp_agent *agent);

#endif
