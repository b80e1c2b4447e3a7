/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One open queue, and how its files share it. Every operation stands between
 * enter and leave, which take the handle's mutex and the queue's lock, and
 * bring the index up to what other processes have done. When that or a
 * rewriting fails the index is forgotten: the next operation reads the journal
 * anew.
 */
#ifndef AVP_AHP_DLQ_INTERNAL_H
#define AVP_AHP_DLQ_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include <avp/dlq.h>
#include <avp/ring.h>

#include "ahp/dlq_index.h"
#include "shm/guard.h"

struct ahp_dlq {
	struct avp__fork_guard guard;
	pthread_mutex_t mutex; /* all below, but `stored` */
	int dir;	       /* -1: READ_ONLY, and there is none */
	int lock;	       /* -1: READ_ONLY, and nobody can write */
	int fd;		       /* the journal, or -1 */
	uint32_t flags;
	uint64_t max_bytes;
	uint64_t salt; /* of the journal that was read; 0: none yet */
	uint64_t end;  /* behind its last record */
	uint64_t damaged, dropped;
	struct dlq_index index;
	uint64_t appended; /* the last ticket */
	bool broken;	   /* a commit failed: nothing is believed */
	_Atomic uint64_t stored;
};

enum dlq__mode { DLQ__LOOK, DLQ__CHANGE };

/* 0, or an error with nothing taken. CHANGE repairs and makes what is
 * missing. */
int avp__dlq_enter(struct ahp_dlq *dlq, enum dlq__mode mode,
		   struct avp_reason *why);

/* Closes the journal and throws the index away; all is read again later. */
void avp__dlq_forget(struct ahp_dlq *dlq);

/* Gives err back. */
int avp__dlq_leave(struct ahp_dlq *dlq, int err);

/*
 * Within CHANGE: writes the journal anew with the letters that are live in the
 * index, on the disk when this returns. After an error nothing has changed.
 */
int avp__dlq_rewrite(struct ahp_dlq *dlq, struct avp_reason *why);

/* Within CHANGE: an empty journal, even where there is no room for a second. */
int avp__dlq_empty(struct ahp_dlq *dlq, struct avp_reason *why);

/* Within CHANGE: fdatasync; a failure breaks the handle. */
int avp__dlq_sync(struct ahp_dlq *dlq, struct avp_reason *why);

/*
 * A commit in two halves, for who does not wait for the disk: an fd of the
 * journal to be synced, with the last ticket that this stores; AVP_AGAIN when
 * all are stored. The second half takes the fd, and the errno of the syncing,
 * or 0.
 */
int avp__dlq_commit_begin(struct ahp_dlq *dlq, uint64_t *upto,
			  struct avp_reason *why);
int avp__dlq_commit_end(struct ahp_dlq *dlq, int fd, uint64_t upto, int error,
			struct avp_reason *why);

/* The journal is JSON: ids that are no UTF-8 are shown, not dropped. */
struct avp_str avp__dlq_clean(char to[AVP_LANE_ID_BYTES], struct avp_str id);

/* Within CHANGE: rewrites if holes have become too much; errors do no harm. */
void avp__dlq_tidy(struct ahp_dlq *dlq);

/* AVP_IO for a broken handle, else 0. */
int avp__dlq_usable(const struct ahp_dlq *dlq, struct avp_reason *why);

/* A part of a letter's body; within enter and leave. */
int avp__dlq_body_part(struct ahp_dlq *dlq, const struct ahp_dlq_entry *entry,
		       uint64_t off, void *to, uint64_t len,
		       struct avp_reason *why);

/* Is that its body, in two pieces? 0 or AVP_CHECKSUM. */
int avp__dlq_body_check(const struct ahp_dlq_entry *entry, const void *head,
			uint64_t head_bytes, const void *rest,
			struct avp_reason *why);

/* ---- entries as JSON (dlq_entry.c) --------------------------------------- */

/* Appends the JSON of a letter to be stored. */
int avp__dlq_entry_write(struct avp_buf *buf,
			 const struct ahp_dlq_letter *letter,
			 struct avp_reason *why);

/* Reads it; the text may go away. number and body are left 0. */
int avp__dlq_entry_read(struct ahp_dlq_entry *entry, const void *text,
			size_t len, struct avp_reason *why);

#endif
