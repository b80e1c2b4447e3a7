/* SPDX-License-Identifier: Apache-2.0 */
/*
 * <avp/ahp.h>: agents that hand each other AVP frames and JSON through shared
 * memory, under AHP's methods, sequences and acknowledgements.
 *
 * An agent has a name. It opens, finds others by name in the same namespace of
 * this host, and links to them on its first message; no daemon is involved. The
 * body of a message is written once, into memory that the sender lends (a
 * loan), and read where it lies; messages of up to about 200 bytes travel
 * inside the ring instead.
 *
 *	struct ahp_agent *me;
 *	struct ahp_agent_options options = { .id = "planner" };
 *	ahp_agent_open(&me, &options, NULL);
 *	ahp_loan(me, NULL, tensor_bytes, 0, &loan, NULL);
 *	fill(loan.data);
 *	avp_frame_encode_before(&metadata, ..., loan.data, ...);
 *	ahp_send(me, &(struct ahp_outgoing){ .target = "solver", ... }, ...);
 *
 * Threads: an agent is used by one thread at a time; different agents are
 * independent. No thread is started unless AHP_PROGRESS_THREAD asks for one.
 * Processes: an agent belongs to the process that opened it; in a forked child
 * every call answers AVP_FORKED, except ahp_agent_close(), which frees the
 * child's copy and touches nothing else.
 * Time-outs are in nanoseconds: 0 does not wait, AHP_FOREVER waits for ever,
 * AHP_USUAL as long as the agent's options say: receive_timeout_ns where a
 * message is waited for, task_timeout_ns for all else.
 *
 * Delivery: a message that was published is read even if its sender is killed
 * right after; what a killed reader had not accepted is told to the sender as
 * AVP_CLOSED, or, with AHP_RELIABLE, sent again when that agent is back. On one
 * link messages arrive in the order in which they were sent, except those that
 * are sent again.
 */
#ifndef AVP_AHP_H
#define AVP_AHP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <avp/codec.h>
#include <avp/error.h>
#include <avp/hello.h>
#include <avp/latent.h>
#include <avp/message.h>
#include <avp/ring.h>
#include <avp/shm.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

#define AHP_FOREVER INT64_MAX
#define AHP_USUAL   INT64_MIN

/* Agent ids on this host: 1-64 of [A-Za-z0-9._-], not beginning with a dot. */
#define AHP_ID_BYTES 64

/* Bytes in front of a loan's data that a frame's header and metadata may
 * take. */
#define AHP_HEADROOM 1024

enum ahp_kind {
	AHP_JSON = 0, /* the body is the payload, a JSON object as text */
	AHP_FRAME = 1 /* the body is an AVP frame */
};

/* How an agent waits for messages when there are none. */
enum ahp_wait {
	/*
	 * Spins, then sleeps. Spins for as long as messages have taken to come
	 * of late, at most spin_ns; hardly at all while it sleeps anyway.
	 */
	AHP_WAIT_ADAPTIVE = 0,
	AHP_WAIT_BUSY = 1, /* spins; peers never have to wake it */
	AHP_WAIT_BLOCK = 2 /* sleeps at once */
};

enum ahp_log_level { AHP_LOG_ERROR, AHP_LOG_WARNING, AHP_LOG_INFO };

/* Called from within library calls of the agent's thread; must not call
 * back. */
typedef void ahp_log(void *arg, enum ahp_log_level level, int code,
		     const char *agent, const char *task, const char *text);

/* Acknowledge received messages with ahp_accept() or ahp_reject() only. */
#define AHP_EXPLICIT_ACK 1u

/*
 * A flag of an agent (all that it sends) or of one message: what is rejected,
 * expired, or not accepted when its reader ends, is sent again. At most
 * max_retries times; after a rejection or an expiry not before retry_delay_ns,
 * doubled each time, and up to half of that more, by chance; after the reader's
 * end as soon as an agent of that id is there, in order, before anything that
 * is sent to it afterwards. Not on a live link otherwise, whatever the time:
 * shared memory loses nothing. An agent that is not there is waited for, also
 * by the first delivery: ahp_send() then takes the message and links later. At
 * the message's deadline, or when the retries are used up, it is a dead
 * letter.
 *
 * The body must not be changed until the message is settled (AHP_KEEP_LOAN).
 * The work is done within the calls of the agent's thread, ahp_agent_run() for
 * one. At most 65,536 messages are kept for that; what is one too many is dead
 * at once, or not taken by ahp_send(): AVP_QUEUE_FULL. ahp_agent_close() makes
 * dead letters of what is waiting; what is with its reader stays there.
 */
#define AHP_RELIABLE 4u

#define AHP_NO_RETRY UINT32_MAX /* for max_retries: the first delivery only */

/*
 * A thread for agents whose owners compute for longer than others should wait.
 * It acts, every 10 ms, only while the owner has made no call for 10 ms: peers
 * can link, heartbeats stay fresh, acknowledgements go both ways, reliable
 * messages are sent again. It delivers nothing. Without the flag no thread is
 * started.
 *
 * The log callback, the one of ahp_agent_bury(), and the dead letter queue of
 * ahp_agent_keep_dlq() are used by that thread then, in turn with the owner:
 * the queue should be opened for the agent alone. ahp_agent_loop() is NULL.
 * The texts of ahp_peer_mode() are valid while that link is. Signals are
 * blocked in it.
 */
#define AHP_PROGRESS_THREAD 16u

/*
 * In adaptive mode: offers its processor, between its looks, to whoever else
 * could run on it. For a process whose peers may well be on its own, as a
 * gateway's are: else it would spin in their way. What comes from another
 * processor is heard up to a microsecond later.
 */
#define AHP_YIELD 32u

struct ahp_agent_options {
	uint32_t size;	/* sizeof(struct ahp_agent_options), or 0 */
	uint32_t flags; /* AHP_EXPLICIT_ACK | _RELIABLE | ..: above */
	const char *id;
	const char *name_space;	 /* NULL: $AVP_NAMESPACE, else "default" */
	const char *runtime_dir; /* NULL: see ahp_runtime_dir() */
	const struct avp_identity *identity; /* ahp_agent_set_identity() */
	uint32_t wait;			     /* enum ahp_wait */
	uint32_t window;      /* messages outstanding per link, a power of
				 * two from 16 to 65536; 0: 1024 */
	uint64_t quota_bytes; /* of memory lent, per uid; 0: arena's own.
				 * Segments that were not needed for half a
				 * minute go back to the system */
	uint64_t first_segment_bytes; /* 0: the arena's default */
	uint32_t memory_flags;	      /* AVP_MEMORY_* for the arena */
	uint32_t allowed_uid_count;
	const uint32_t *allowed_uids; /* beside our own and root's */
	ahp_log *log;		      /* NULL: silence */
	void *log_arg;
	uint32_t max_retries;	    /* further deliveries; 0: 3 */
	uint32_t dedup_ids;	    /* ids remembered; 0: 65536; at most 2^20 */
	int64_t retry_delay_ns;	    /* 0: 1 s */
	int64_t task_timeout_ns;    /* deadline of reliable messages; 0: 60 s */
	int64_t receive_timeout_ns; /* what AHP_USUAL means; 0: 30 s */
	int64_t heartbeat_interval_ns; /* see ahp_liveness(); 0: 30 s */
	uint32_t token_limit;	       /* of messages that name none; 0: 500 */
	uint32_t spin_ns;	/* AHP_WAIT_ADAPTIVE, at most; 0: 50 us */
	uint64_t reserve_bytes; /* of memory for our own user's agents, made
				 * while the agent waits, or by its progress
				 * thread; at most the quota; 0: none */
	uint64_t reserved[3];	/* 0 */
};

struct ahp_agent;

/*
 * Opens an agent under its id: AVP_NAME_TAKEN when a live one holds it,
 * AVP_USAGE for options, AVP_PERMISSION for a runtime directory that is not
 * ours, AVP_IO, AVP_NO_MEMORY. What options point to is copied.
 */
int ahp_agent_open(struct ahp_agent **agent,
		   const struct ahp_agent_options *options,
		   struct avp_reason *why);

/*
 * Closes all links, removes the agent's names and frees everything. Messages
 * and loans that are still held become invalid. What peers have not read yet
 * stays readable for them. The last agent leaves the namespace's directory
 * empty, but there: its group and mode may be an administrator's.
 */
void ahp_agent_close(struct ahp_agent *agent);

const char *ahp_agent_id(const struct ahp_agent *agent);

/*
 * Says which model the agent runs (NULL: none, or not known), to the peers of
 * links that are made from now on; those that are up keep what was told.
 * Copied; model_id is cut to 255 bytes. AVP_USAGE for a model_family over 63
 * bytes or a model_hash over 71.
 */
int ahp_agent_set_identity(struct ahp_agent *agent,
			   const struct avp_identity *identity,
			   struct avp_reason *why);

/* ---- peers -------------------------------------------------------------- */

/*
 * Links to an agent of this host unless that is done: waits for its answer, at
 * most timeout_ns. On success *peer (may be NULL) is a number for it that stays
 * valid, across its restarts, until the agent is closed; never 0. (When 65,536
 * names are known, one without a link is forgotten for a new one, if 32,768
 * others were used since: its number then is nobody's, AVP_USAGE.)
 * AVP_AGENT_NOT_FOUND at once when there is none of that name, AVP_TIMEOUT,
 * AVP_PERMISSION (another user's, that has not listed us), AVP_USAGE.
 */
int ahp_connect(struct ahp_agent *agent, const char *id, int64_t timeout_ns,
		uint32_t *peer, struct avp_reason *why);

/* The id of a peer's number, or NULL. Valid as long as the number. */
const char *ahp_peer_id(const struct ahp_agent *agent, uint32_t peer);

/*
 * What two agents may send each other, by what each told of its model when they
 * linked. Both ends of a link come to the same answer. ahp_send() refuses
 * latent frames (mode LATENT; of states, those without an avp_map_id)
 * accordingly.
 */
struct ahp_mode {
	/* As avp_resolve() says; JSON when a model is not known. */
	struct avp_resolution resolution;
	/*
	 * Hidden states and embeddings, or KV-caches, are of no use to the
	 * peer: only when both told something that differs. What is not known
	 * is not refused, whatever the resolution says; nor by a gateway.
	 */
	bool refuses_states, refuses_caches;
	/* The peer's, its texts valid until the next call for this agent. */
	struct avp_identity identity;
	uint64_t reserved[4];
};

/*
 * Of a peer to which there is a link: from ahp_connect() or the first message
 * on. AVP_AGENT_NOT_FOUND when there is none (any more).
 */
int ahp_peer_mode(const struct ahp_agent *agent, uint32_t peer,
		  struct ahp_mode *mode);

/*
 * What is known of an agent of this host, by its heartbeat, timed with our own
 * clock since we first looked: so the first answer for a link is AHP_ALIVE. A
 * report and no more: nothing is sent again because an agent is stuck.
 * AHP_USUAL is the agent's heartbeat_interval_ns. For agents of other hosts
 * see ahp_heartbeat_liveness() of <avp/message.h>.
 */
enum ahp_liveness ahp_liveness(struct ahp_agent *agent, const char *id,
			       int64_t timeout_ns);

/*
 * For an agent that stands for another, as a gateway's for a remote one: false, and
 * its heart does not beat until this is called with true. ahp_liveness() then tells
 * its peers that it is stuck, and observers hear so after a minute. Nothing else
 * changes. Agents begin with true.
 */
void ahp_agent_set_beating(struct ahp_agent *agent, bool beating);

/* ---- sending ------------------------------------------------------------ */

/*
 * Memory that peers can read. data is aligned to 64 bytes (from 2 MiB on, to
 * 4096), so that a tensor written there lies well in every process; headroom
 * bytes in front of it take what goes before the tensor.
 */
struct ahp_loan {
	void *data;
	uint64_t bytes;	   /* from data, as asked */
	uint32_t headroom; /* bytes before data, at least what was asked */
	uint32_t handle;   /* private */
};

/*
 * Lends bytes for messages to agents of the same user as `target` (NULL: our
 * own user; another user's agents cannot read it). headroom 0 means
 * AHP_HEADROOM. The loan is handed over by ahp_send() or given back by
 * ahp_loan_release(). AVP_NO_MEMORY at the quota or a limit of the system;
 * AVP_AGENT_NOT_FOUND when target is not linked.
 */
int ahp_loan(struct ahp_agent *agent, const char *target, uint64_t bytes,
	     uint32_t headroom, struct ahp_loan *loan, struct avp_reason *why);
void ahp_loan_release(struct ahp_agent *agent, struct ahp_loan *loan);

/* Keep the caller's hold on the loan, to send it again or to others. */
#define AHP_KEEP_LOAN 1u

/*
 * The receiver acknowledges as soon as it takes the message, instead of with
 * its next message or call: for a sender that is going to ahp_wait(). Costs
 * the receiver a cache line.
 */
#define AHP_PROMPT_ACK 2u

/* Tell ahp_next_event() what became of the message. */
#define AHP_NOTIFY 8u

/* One message to be sent. Zero means absent or default. All is borrowed. */
struct ahp_outgoing {
	const char *target; /* agent id ... */
	uint32_t peer;	    /* ... or its number, which saves the look-up */
	uint32_t flags;	    /* AHP_KEEP_LOAN, _PROMPT_ACK, _RELIABLE, _NOTIFY */
	uint8_t method;	    /* enum ahp_method */
	uint8_t kind;	    /* enum ahp_kind */
	uint8_t reserved[2];
	uint32_t token_limit;	/* 0: the agent's */
	struct avp_str task_id; /* at most 80 bytes, as session_id */
	struct avp_str session_id;
	const uint8_t *message_id; /* 16 bytes; NULL or zeros: implied by its
				    * place */
	int64_t expires_ns;  /* from now: afterwards the reader answers EXPIRED
			     * instead of delivering it; 0: never. Counts anew
			     * when the message is sent again. */
	int64_t deadline_ns; /* AHP_RELIABLE, from now: the end of all attempts;
			      * 0: the agent's task_timeout_ns; AHP_FOREVER */
	/*
	 * The body: bytes of the caller's, which are copied, or, with a loan,
	 * a part of that loan (headroom included), which is not. With a frame
	 * template, body is the payload alone: the frame's head is written in
	 * front of it, in a loan into the bytes before it.
	 */
	const struct avp_frame_template *frame;
	const void *body;
	uint64_t body_bytes;
	struct ahp_loan *loan;
};

/* Names a sent message towards ahp_status() and ahp_wait(). Plain data. */
struct ahp_receipt {
	uint64_t sequence;
	uint32_t peer, generation;
};

/*
 * Sends a message, linking first if needed; waits at most timeout_ns for the
 * link and for room. On success the loan, if any, is taken (the struct is
 * zeroed) unless AHP_KEEP_LOAN; on failure it stays the caller's. *receipt may
 * be NULL. AVP_AGENT_NOT_FOUND; AVP_TIMEOUT while linking; AVP_QUEUE_FULL when
 * the peer has not acknowledged enough, or when more than a quarter of the
 * quota is lent to it; AVP_INVALID_MESSAGE for what no message may be, such as
 * a body that does not begin as the frame that it should be, or metadata over
 * 64 KiB; AVP_POISONED for a peer that broke the protocol and has not hung up
 * yet; AVP_SHAPE_MISMATCH for a latent frame that its model cannot use, by
 * what both told: see ahp_peer_mode(). Send JSON to such a peer, or a hybrid
 * frame; or states with an avp_map_id.
 */
int ahp_send(struct ahp_agent *agent, const struct ahp_outgoing *message,
	     int64_t timeout_ns, struct ahp_receipt *receipt,
	     struct avp_reason *why);

/*
 * Sends messages in their order, to one target or several, in all within
 * timeout_ns. Returns how many were sent: from the first on, all if that is
 * `count`; what is not sent, and its loans, stay the caller's. Else *why (may
 * be NULL) says what the next one met, and the error itself is returned when
 * it was the first. Cheaper than as many calls: short messages for one peer
 * have one time stamp, and a peer that sleeps is woken once for all of them.
 * receipts, one for each message, may be NULL.
 */
int ahp_send_many(struct ahp_agent *agent, const struct ahp_outgoing *messages,
		  uint32_t count, int64_t timeout_ns,
		  struct ahp_receipt *receipts, struct avp_reason *why);

/*
 * What became of a message: 0 accepted, AVP_AGAIN not known yet, AVP_REJECTED,
 * AVP_EXPIRED, AVP_SHAPE_MISMATCH when a latent frame does not fit the reader's
 * model, AVP_CLOSED when the reader is gone and had not answered, AVP_UNKNOWN
 * when it is forgotten (some 2,000 messages later). Of a reliable one,
 * AVP_AGAIN until it is accepted or dead: AVP_RETRY_EXHAUSTED, AVP_EXPIRED
 * (its deadline), AVP_SHAPE_MISMATCH (at once: it would not fit another time),
 * AVP_QUEUE_FULL (no room to keep it).
 */
int ahp_status(struct ahp_agent *agent, const struct ahp_receipt *receipt);

/* The same, after waiting for it: AVP_TIMEOUT instead of AVP_AGAIN. */
int ahp_wait(struct ahp_agent *agent, const struct ahp_receipt *receipt,
	     int64_t timeout_ns);

/* The end of a message that was sent with AHP_NOTIFY. */
struct ahp_event {
	struct ahp_receipt receipt;
	int code;	     /* as of ahp_status(), never AVP_AGAIN */
	uint32_t deliveries; /* 1, and one more for each retry */
	/*
	 * Of a dead one, 1: whoever keeps dead letters has it; a queue, see
	 * ahp_agent_keep_dlq(), has it on the disk.
	 */
	uint32_t kept;
	uint32_t reserved32;
	uint64_t reserved;
};

/*
 * Takes the next event, waiting for at most timeout_ns: AVP_TIMEOUT. None is
 * lost: ahp_send() answers AVP_QUEUE_FULL to AHP_NOTIFY while 65,536 are to
 * come or have not been taken.
 */
int ahp_next_event(struct ahp_agent *agent, struct ahp_event *event,
		   int64_t timeout_ns);

/*
 * A reliable message that could not be delivered, for whoever keeps such: a
 * dead letter queue, or the program itself. Everything is borrowed for the
 * call; the body is our own memory, private or unchanged since it was sent.
 */
struct ahp_dead_letter {
	const char *target;
	int code; /* as of ahp_status() */
	int last; /* what came of the last delivery; 0: there was none */
	const char *error; /* in words */
	uint32_t deliveries;
	uint32_t token_limit;
	uint8_t method, kind, message_id[16];
	struct avp_str task_id, session_id;
	const void *body;
	uint64_t body_bytes;
	struct ahp_receipt receipt;
};

/*
 * Called for each dead letter, from within calls of the agent's thread; must
 * not call back. 0 when it is kept; anything else is logged. Without one
 * (NULL) dead letters are logged and counted. Replaces the one before.
 */
typedef int ahp_bury(void *arg, const struct ahp_dead_letter *letter);
void ahp_agent_bury(struct ahp_agent *agent, ahp_bury *bury, void *arg);

/*
 * The same with a dead letter queue of <avp/dlq.h>, which is borrowed until the
 * agent is closed or is given another, or NULL. Letters are appended as
 * messages die, and are brought to the disk together, through the agent's
 * loop: by io_uring while the agent goes on; under epoll by an fdatasync() for
 * which the agent's next turn waits. A message's event comes when its letter
 * is on the disk (or cannot be: kept is 0, and it is logged), so nothing is
 * lost that was told to be kept. ahp_status() knows the outcome before. JSON
 * bodies become the letter's payload; frames, what is no JSON object, and JSON
 * over 1 MiB its body; a body that is too large for the queue is left out, and
 * the letter says so. What the queue does not take goes to ahp_agent_bury()'s
 * function. AVP_USAGE for a queue that was opened to be read, AVP_NO_MEMORY.
 */
struct ahp_dlq;
int ahp_agent_keep_dlq(struct ahp_agent *agent, struct ahp_dlq *dlq,
		       struct avp_reason *why);

/* ---- receiving ---------------------------------------------------------- */

/* Private room in a message for a copy of its slot. */
#define AHP_SLOT_BYTES 256

/*
 * A received message. Caller's memory, of some 900 bytes at a multiple of 64
 * (from aligned_alloc(), not malloc()); must not be moved while it is in
 * use, since members point into it.
 *
 * A short body is a private copy within slot_, at any address: its numbers
 * have no alignment, nor those of a short frame; memcpy() them. A long one
 * begins as far from a 64-byte boundary as it does in its loan. It lies in its
 * sender's memory, mapped read-only: nobody can write it here, but a dishonest
 * sender could still change it while you look. Header and metadata of a frame
 * (frame) are parsed from a private copy in either case; of JSON, parse a
 * copy: ahp_message_copy().
 */
struct ahp_message {
	const char *source; /* the sender's id; valid as long as its number */
	uint32_t peer;	    /* its number, for the answer */
	uint8_t method;	    /* enum ahp_method */
	uint8_t kind;	    /* enum ahp_kind */
	bool redelivered;   /* it, or its reader before us, may have seen it */
	bool in_place; /* the body lies in the sender's memory */
	uint32_t token_limit;
	struct avp_str task_id, session_id;
	uint64_t sequence;
	int64_t sent_ns; /* CLOCK_MONOTONIC when it was sent; some 4 ms exact */
	const void *body;
	uint64_t body_bytes;
	/* AHP_FRAME: its header and metadata; frame.payload is in the body. */
	struct avp_frame frame;

	/* Private. */
	void *link_;
	void *head_;
	uint32_t held_, reserved_;
	uint8_t epoch_[16];
#ifdef __cplusplus
	alignas(64) uint8_t slot_[AHP_SLOT_BYTES];
#else
	_Alignas(64) uint8_t slot_[AHP_SLOT_BYTES];
#endif
};

/*
 * Takes the next message, waiting for at most timeout_ns: AVP_TIMEOUT. TASK,
 * RESULT and PROGRESS are acknowledged at once unless the agent was opened with
 * AHP_EXPLICIT_ACK; other methods always are. Messages that are past their
 * deadline, frames that do not parse, or latent frames that do not fit the
 * model whose identity the agent told on that link, are answered (EXPIRED,
 * REJECTED, SHAPE_MISMATCH), logged and passed over. A frame is held against
 * the model by avp_latent_check(), which reads metadata and of a KV-cache the
 * header, copied first; what is compressed, by its metadata only: call it
 * again when the payload is expanded. Of frames laid end to end the first is
 * looked at. So is, not logged but counted, a message with an id (message_id,
 * or sent again) that was accepted before: it is accepted again; of one that
 * is still worked on, the answer waits for that of the first, and is the same.
 * With a time-out of 0 it passes over 1,024 and then says AVP_TIMEOUT too.
 */
int ahp_receive(struct ahp_agent *agent, struct ahp_message *message,
		int64_t timeout_ns);

/*
 * Waits as ahp_receive() for one message, and takes up to `count` that are
 * there then. Returns how many were taken, at least one, or an error:
 * AVP_TIMEOUT; AVP_USAGE for a count of 0. Each is dealt with, and released,
 * on its own.
 */
int ahp_receive_many(struct ahp_agent *agent, struct ahp_message *messages,
		     uint32_t count, int64_t timeout_ns);

/*
 * With AHP_EXPLICIT_ACK: the message is dealt with; or refused, and its sender
 * decides what to do. Once each. AVP_USAGE when it was answered before;
 * AVP_CLOSED when the sender is gone.
 */
int ahp_accept(struct ahp_agent *agent, struct ahp_message *message);
int ahp_reject(struct ahp_agent *agent, struct ahp_message *message);

/*
 * The same in the words of ahp_status(): 0 accepts it, AVP_REJECTED rejects it,
 * AVP_EXPIRED says that it came too late to be of use, AVP_SHAPE_MISMATCH that
 * it does not fit the model for which it is. For who passes messages on, and
 * hears what became of them. AVP_USAGE for any other code.
 */
int ahp_answer(struct ahp_agent *agent, struct ahp_message *message, int code);

/*
 * Ends the view of the body: the sender may use its memory again. In any order.
 * Does not acknowledge. The struct can be used for the next message then.
 */
void ahp_release(struct ahp_agent *agent, struct ahp_message *message);

/*
 * Copies bytes of the body, from off on, into the caller's memory: what is to
 * be parsed has to be private. AVP_USAGE beyond the body's end.
 */
int ahp_message_copy(const struct ahp_message *message, uint64_t off, void *to,
		     uint64_t bytes);

/* The 16 bytes of its id: given by the sender, or a UUIDv8 of its place. */
void ahp_message_id(const struct ahp_message *message, uint8_t id[16]);

/* ---- waiting elsewhere -------------------------------------------------- */

/*
 * Lets the agent do what is due (new links, hang-ups, acknowledgements) for at
 * most timeout_ns, and returns earlier when a message is there, when an event
 * is (AHP_NOTIFY), or when a watch was called that the program has added to
 * the agent's loop. 1 when a message is there, 0 otherwise.
 */
int ahp_agent_run(struct ahp_agent *agent, int64_t timeout_ns);

/*
 * The loop that the agent sleeps in, for sockets and timers of the program's
 * own (avp_loop_add(), _change(), _remove(); not _run() or _close()): one
 * thread can then wait for all of it in ahp_agent_run(). Any call that waits,
 * ahp_send() and ahp_receive() for two, may call the watches too.
 *
 * From within a watch's callback this agent must not be used: what was running
 * the loop is in the middle of it. Its calls answer AVP_USAGE there;
 * ahp_agent_close() does nothing but log. Note what is to be done, and do it
 * when ahp_agent_run() has returned. Allowed are the avp_loop_ calls above,
 * ahp_release(), ahp_loan_release() (not of a loan that is being sent), and
 * what only looks: ahp_agent_id(), ahp_peer_id(), ahp_peer_mode(),
 * ahp_agent_stats(), ahp_message_copy(), ahp_message_id(). Another agent may
 * be used.
 *
 * NULL with AHP_PROGRESS_THREAD: a watch would be called by that thread. Else
 * valid until the agent is closed, whose watches it then forgets. With
 * AHP_WAIT_BUSY the loop is looked at between spins, every few microseconds.
 */
struct avp_loop *ahp_agent_loop(const struct ahp_agent *agent);

/*
 * One fd for a foreign event loop, readable when ahp_agent_run() has work;
 * level- or edge-triggered. Before each wait on it call ahp_agent_arm(): 1
 * means that work is already there, do not wait. After the wait call
 * ahp_agent_run(agent, 0), which also makes the fd unreadable again, then
 * ahp_receive() until AVP_TIMEOUT.
 *
 *	while (ahp_agent_arm(agent) == 0 && epoll_wait(...) < 0)
 *		;		// EINTR: arm again, wait again
 *	ahp_agent_run(agent, 0);
 *	while (!ahp_receive(agent, &message, 0))
 *		...
 *
 * It tells of messages; of what was sent with AHP_NOTIFY, of events; and of
 * room: when ahp_send() has answered AVP_QUEUE_FULL, calls of ahp_agent_arm()
 * cover that link too until its room has come, which is told once, by 1.
 * (ahp_agent_run() says 1 for messages only: try to send again.)
 *
 * With io_uring, waits of the thread that called the agent may end with EINTR
 * though no signal came: poll(), epoll_wait() and sleeps; see avp_loop_fd().
 * AVP_UNSUPPORTED with AHP_WAIT_BUSY: peers never wake such an agent.
 */
int ahp_agent_fd(const struct ahp_agent *agent);
int ahp_agent_arm(struct ahp_agent *agent);

/* ---- what is going on --------------------------------------------------- */

/* Counts since the agent was opened, but for those that say otherwise. */
struct ahp_stats {
	uint64_t sent, received, acked, rejected, retried, redelivered,
		duplicates, dead, bytes_sent, bytes_received, wakes, late_wakes,
		poisoned;
	uint64_t in_flight, bytes_lent, links; /* now */
	uint64_t waiting;		       /* now, to be sent again */
	uint64_t kept; /* since it was opened: dead letters that are kept */
	uint64_t reserved[6];
};
void ahp_agent_stats(const struct ahp_agent *agent, struct ahp_stats *stats);

/*
 * How peers wake this agent: "futex" (a word in shared memory, through io_uring
 * from Linux 6.7 on), "socket" (a byte), or "none" with AHP_WAIT_BUSY. The
 * environment's AVP_BELL=futex|socket, read at opening, forces one, for tests.
 */
const char *ahp_agent_doorbell(const struct ahp_agent *agent);

/* What an observer sees of an agent of this host. */
struct ahp_observation {
	char id[AHP_ID_BYTES + 1];
	const char *state; /* "alive", "stuck" or "dead" */
	uint32_t pid, uid;
	char model_id[256], model_hash[65];
	struct ahp_stats stats;
};

/*
 * Calls visit for every agent of a namespace (NULL: as for an agent), in order
 * of id, and removes what killed ones have left behind. The agents notice
 * nothing of it. Their stats are those of their last sleep or ahp_agent_arm(),
 * or, while they are at work, a tenth of a second old. "stuck" is one that
 * lives and has not been called for a minute. AVP_PERMISSION, AVP_IO.
 */
typedef void ahp_visit(void *arg, const struct ahp_observation *agent);
int ahp_observe(const char *runtime_dir, const char *name_space,
		ahp_visit *visit, void *arg, struct avp_reason *why);

/*
 * The directory in which agents meet: the first that exists or can be made, is
 * ours (or root's) and not writable by others, of $AVP_RUNTIME_DIR,
 * $XDG_RUNTIME_DIR/avp, /run/avp and /tmp/avp-<uid>. Returns the length of
 * path.
 *
 * Each namespace is a directory in it, for which the same holds; the first
 * agent makes it. So for agents of several users, which list each other in
 * allowed_uids, root makes both before any agent does, for a group that they
 * share:
 *
 *	install -d -m 2770 -g GROUP /run/avp /run/avp/default
 */
int ahp_runtime_dir(char *path, size_t cap, struct avp_reason *why);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
