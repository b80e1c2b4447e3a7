/* SPDX-License-Identifier: Apache-2.0 */
/*
 * <avp/dlq.h>: the dead letter queue: messages that could not be delivered, and
 * errors without a message, kept on disk until somebody looks.
 *
 * One directory holds one queue: an append-only journal. Appending writes a
 * letter and gives a ticket; committing brings everything written so far to the
 * disk with one fdatasync. A letter is stored when its ticket is: only then may
 * the message be forgotten elsewhere.
 *
 *	ahp_dlq_open(&dlq, NULL, &why);
 *	ahp_dlq_append(dlq, &letter, &ticket, &why);	many times
 *	ahp_dlq_commit(dlq, &why);			once
 *	ahp_dlq_stored(dlq, ticket) == 1
 *
 * What survives: a letter whose ticket was stored survives the death of every
 * process and of the machine. Of letters that were appended and not committed
 * any may be found later, whole, or not at all. A file that was cut or damaged
 * loses the letters in the damaged place and no others.
 *
 * The bound: the letters that are there, with their bodies, take at most
 * max_bytes. What would exceed them is refused with AVP_QUEUE_FULL, because a
 * letter that was stored is never dropped unasked; with AHP_DLQ_DROP_OLDEST the
 * oldest letters go instead, a quarter of the bound at a time. Letters that
 * were removed leave holes; the journal is written anew without them once they
 * take more than the letters do, or a quarter of the bound: so the file has at
 * most 1.25 times max_bytes, and for a moment there are two.
 *
 * Processes: any number may use one queue at the same time; each operation
 * takes the queue's lock (flock) and sees what others did before. Waiting for
 * the lock can block for as long as another one rewrites the journal. A
 * process killed in an operation leaves a queue that the next one repairs. In
 * a forked child every call answers AVP_FORKED, except ahp_dlq_close(), which
 * frees its copy. Threads: all calls on one queue may come from any thread;
 * ahp_dlq_commit() waits for the disk without keeping the others from
 * appending.
 *
 * Errors everywhere: AVP_PERMISSION (read-only, or not ours), AVP_IO (a full
 * disk or quota, a failing one), AVP_NO_MEMORY, AVP_DESERIALIZATION_ERROR (the
 * journal is none, or of a newer version). A write that fails leaves the queue
 * as it was.
 */
#ifndef AVP_DLQ_H
#define AVP_DLQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <avp/error.h>
#include <avp/json.h>
#include <avp/message.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

#define AHP_DLQ_MAX_BYTES   (UINT64_C(256) << 20) /* the default bound */
#define AHP_DLQ_MIN_BYTES   (UINT64_C(64) << 10)
#define AHP_DLQ_ENTRY_BYTES (UINT32_C(32) << 20) /* of a letter without body */

#define AHP_DLQ_DROP_OLDEST 1u /* make room instead of refusing */
#define AHP_DLQ_READ_ONLY   2u /* look only; a queue that is not there is empty */

struct ahp_dlq_options {
	uint32_t size;	/* sizeof(struct ahp_dlq_options), or 0 */
	uint32_t flags; /* AHP_DLQ_* */
	/*
	 * Where queues lie, one directory for each namespace; made if missing.
	 * The namespace's own has to be ours and not writable by others. NULL:
	 * $XDG_STATE_HOME/avp/dlq, else ~/.local/state/avp/dlq.
	 */
	const char *dir;
	const char *name_space; /* NULL: $AVP_NAMESPACE, else "default" */
	uint64_t max_bytes;	/* 0: AHP_DLQ_MAX_BYTES */
	uint64_t reserved[4];	/* 0 */
};

struct ahp_dlq;

/*
 * The directory of a namespace's queue, DIR/NAMESPACE, with dir and name_space
 * as above. Returns the length of path; AVP_USAGE for a bad name, or when it
 * does not fit, or without a home directory.
 */
int ahp_dlq_dir(const char *dir, const char *name_space, char *path, size_t cap,
		struct avp_reason *why);

/* Opens a queue, made if need be, and repairs it. options may be NULL. */
int ahp_dlq_open(struct ahp_dlq **dlq, const struct ahp_dlq_options *options,
		 struct avp_reason *why);

/* Frees it. Does not commit. NULL is allowed. */
void ahp_dlq_close(struct ahp_dlq *dlq);

/* ---- storing ------------------------------------------------------------ */

/* What is to be kept. Everything is borrowed for the call. */
struct ahp_dlq_letter {
	struct avp_str agent; /* whose queue; empty: the message's target */
	const struct ahp_envelope *message; /* NULL: an error alone */
	struct avp_str error; /* in words; what is no UTF-8 becomes '?' */
	int code;	      /* enum avp_code; its name is kept */
	uint32_t retry_count;
	struct ahp_time timestamp; /* year 0: now */
	/*
	 * A body that does not belong into the message's payload: an AVP frame,
	 * or JSON that could not be read. Kept once, however many letters have
	 * the same one. Must not change during the call, so: no view of a
	 * peer's memory.
	 */
	uint8_t kind; /* enum ahp_kind of <avp/ahp.h>: 1 a frame, 0 JSON */
	const void *body;
	uint64_t body_bytes; /* 0: none */
};

/*
 * Appends a letter. *ticket (from 1 on, growing; may be NULL) is for
 * ahp_dlq_stored(). AVP_QUEUE_FULL at the bound; AVP_TOO_LARGE for a letter
 * that would not fit an empty queue, or over AHP_DLQ_ENTRY_BYTES without its
 * body; AVP_SERIALIZATION_ERROR for a message that is no UTF-8.
 */
int ahp_dlq_append(struct ahp_dlq *dlq, const struct ahp_dlq_letter *letter,
		   uint64_t *ticket, struct avp_reason *why);

/*
 * Brings to the disk what was appended before the call, by whatever thread.
 * After AVP_IO the disk is not believed any more: this and ahp_dlq_append()
 * answer AVP_IO until the queue is closed and opened again, and tickets that
 * were not stored before never are.
 */
int ahp_dlq_commit(struct ahp_dlq *dlq, struct avp_reason *why);

/* 1: it is on the disk; 0: not yet (or never, after a failed commit). */
int ahp_dlq_stored(const struct ahp_dlq *dlq, uint64_t ticket);

/* ---- looking ------------------------------------------------------------ */

/* A letter that was read; freed by ahp_dlq_entry_fini(). */
struct ahp_dlq_entry {
	uint64_t number; /* in the queue, never used again; from 1 on */
	struct avp_str agent, error;
	int code;
	uint32_t retry_count;
	struct ahp_time timestamp;
	bool has_message;
	uint8_t kind;	     /* of the body */
	bool body_lost;	     /* there was one, but the journal was damaged */
	uint64_t body_bytes; /* 0: none */
	char body_sha256[65];
	struct ahp_envelope message;
	struct avp_json_doc *doc; /* owns what the members point to */
};

/*
 * The first letter with a number above `after`, oldest first: 1 with *entry
 * filled, 0 when there is none. after 0 looks at the journal anew; the others
 * go on in what was seen then.
 */
int ahp_dlq_next(struct ahp_dlq *dlq, uint64_t after,
		 struct ahp_dlq_entry *entry, struct avp_reason *why);

/* The letter of that number: 1, or 0 when it is not (or no longer) there. */
int ahp_dlq_get(struct ahp_dlq *dlq, uint64_t number,
		struct ahp_dlq_entry *entry, struct avp_reason *why);
void ahp_dlq_entry_fini(struct ahp_dlq_entry *entry);

/*
 * Writes the letter as the next value: agent, message, error, code, timestamp,
 * retry_count, number, and, if there is one, body: kind, bytes, sha256.
 */
void ahp_dlq_entry_put(struct avp_json_writer *w,
		       const struct ahp_dlq_entry *entry);

/* The same into the object that is open. */
void ahp_dlq_entry_members(struct avp_json_writer *w,
			   const struct ahp_dlq_entry *entry);

/*
 * Reads the body into the caller's entry->body_bytes bytes and checks it.
 * AVP_CHECKSUM when it is damaged; AVP_UNKNOWN when it is lost, or the letter
 * was removed meanwhile.
 */
int ahp_dlq_body(struct ahp_dlq *dlq, const struct ahp_dlq_entry *entry,
		 void *to, struct avp_reason *why);

struct ahp_dlq_info {
	uint64_t entries;
	uint64_t bytes;	     /* that they and their bodies take */
	uint64_t file_bytes; /* of the journal */
	uint64_t max_bytes;
	uint64_t damaged; /* bytes that were no letters, and were passed over */
	uint64_t dropped; /* letters that this handle dropped at the bound */
	uint64_t reserved[4];
};
int ahp_dlq_info(struct ahp_dlq *dlq, struct ahp_dlq_info *info,
		 struct avp_reason *why);

/* ---- removing ----------------------------------------------------------- */

/* 1 when it was there, 0 when not. On the disk when this returns, as below. */
int ahp_dlq_remove(struct ahp_dlq *dlq, uint64_t number,
		   struct avp_reason *why);

/* Removes the letters of an agent, or all (agent empty); *count: how many. */
int ahp_dlq_clear(struct ahp_dlq *dlq, struct avp_str agent, uint64_t *count,
		  struct avp_reason *why);

/* Writes the journal anew without what was removed. Done unasked as needed. */
int ahp_dlq_compact(struct ahp_dlq *dlq, struct avp_reason *why);

/* ---- replaying ---------------------------------------------------------- */

/*
 * A letter on its way back. The message goes out as a new one: with the id
 * given here, and with `replay_of`, the old id, as a key of its JSON payload or
 * of its frame's `extra`.
 */
struct ahp_dlq_replay {
	struct ahp_dlq_entry entry;
	uint8_t method; /* enum ahp_method; AHP_OTHER: entry.message.method */
	uint8_t kind;	/* enum ahp_kind of what is to be sent */
	uint8_t id[16]; /* of the new message */
	uint64_t body_bytes;
	/* Where the tensor of a frame begins, its KV-cache header left out. */
	uint64_t tensor_off;
	struct avp_buf head; /* private: what the body begins with ... */
	uint64_t skip;	     /* ... and what that stands for */
};

/*
 * Takes a letter for replay: nobody else can until ahp_dlq_replay_end(), or
 * this process ends. 1; 0 when it is not there; AVP_AGAIN when somebody else
 * has it; AVP_INVALID_MESSAGE when there is nothing to send (an error without
 * a message, a body that was lost, or is neither JSON nor a frame).
 */
int ahp_dlq_replay_begin(struct ahp_dlq *dlq, uint64_t number,
			 struct ahp_dlq_replay *replay, struct avp_reason *why);

/* Fills the caller's replay->body_bytes bytes with what is to be sent. */
int ahp_dlq_replay_read(struct ahp_dlq *dlq,
			const struct ahp_dlq_replay *replay, void *to,
			struct avp_reason *why);

/*
 * Ends it: with `sent` the letter is removed, on the disk when this returns.
 * Killed between sending and here, the letter is still there: a replay happens
 * at least once. Frees what the struct holds, in any case.
 */
int ahp_dlq_replay_end(struct ahp_dlq *dlq, struct ahp_dlq_replay *replay,
		       bool sent, struct avp_reason *why);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
