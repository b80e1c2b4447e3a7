/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a journal holds, in memory: where its letters and bodies lie and which
 * of them are still wanted. Both arrays ascend by place in the file, letters
 * by number too. Made by a scan, kept up to date by each operation, thrown
 * away and made again after a failure.
 */
#ifndef AVP_AHP_DLQ_INDEX_H
#define AVP_AHP_DLQ_INDEX_H

#include <stdbool.h>
#include <stdint.h>

#include "ahp/dlq_journal.h"

#define INDEX_NO_BODY	UINT32_MAX
#define INDEX_BODY_LOST (UINT32_MAX - 1)

struct index_letter {
	uint64_t number, off, bytes; /* of the record, its head included */
	uint32_t body;		     /* place in bodies, or one of the above */
	bool live;
};

struct index_body {
	uint8_t sha256[JOURNAL_SHA_LEN];
	uint64_t off, bytes;
	uint32_t refs; /* live letters that have it */
};

struct dlq_index {
	struct index_letter *letters;
	struct index_body *bodies;
	uint32_t *table; /* by hash: 1 + place in bodies, 0 empty */
	uint32_t letter_count, letter_capacity;
	uint32_t body_count, body_capacity, table_size; /* a power of two */
	uint64_t live_letters, live_bytes;
	uint64_t last_number; /* of the letters that are in the file */
	uint64_t next_number; /* of the letter that comes next: above it */
	uint64_t strange;     /* bytes of records that make no sense here */
};

void avp__index_fini(struct dlq_index *index);

/* Room for one letter and one body more, so that entering them cannot fail. */
int avp__index_reserve(struct dlq_index *index);

/* Enters a record: an avp__journal_visit. */
int avp__index_enter(void *index, const struct journal_seen *seen);

/* The letter of that number, live or not; NULL. */
struct index_letter *avp__index_find(const struct dlq_index *index,
				     uint64_t number);

/* The first live letter above that number, or NULL. */
struct index_letter *avp__index_after(const struct dlq_index *index,
				      uint64_t number);

/* The body of that hash, wanted or not; NULL. */
struct index_body *avp__index_body(const struct dlq_index *index,
				   const uint8_t sha256[JOURNAL_SHA_LEN]);

/* The letter is not wanted any more. */
void avp__index_drop(struct dlq_index *index, struct index_letter *letter);

#endif
