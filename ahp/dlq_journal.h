/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file of a dead letter queue. A header of 64 bytes, then records without
 * gaps, each a head of 32 bytes and what the head says. Numbers are in the
 * host's byte order: the file is for the host that wrote it.
 *
 * A record counts when both its checksums fit. The head's begins with the
 * file's random salt, so that a body that holds bytes of a journal is no record
 * when something is searched for behind a damaged place.
 *
 * Everything here happens under the queue's lock, a flock on the file .lock
 * beside the journal, which is never replaced.
 */
#ifndef AVP_AHP_DLQ_JOURNAL_H
#define AVP_AHP_DLQ_JOURNAL_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <avp/error.h>

#define JOURNAL_MAGIC	0x0a51514c44505641ull /* "AVPDLQQ\n" */
#define JOURNAL_MAJOR	1
#define RECORD_DLQ	0x52514c44u /* "DLQR" */
#define RECORD_VERSION	1
#define JOURNAL_NAME	"journal"
#define JOURNAL_NEW	".journal.new"
#define JOURNAL_SHA_LEN 32

struct journal_header {
	uint64_t magic;
	uint16_t major, minor;
	uint32_t crc; /* of the header with 0 here */
	uint64_t salt;
	uint64_t next_number; /* of the first letter that comes after these */
	uint8_t reserved[32];
};
static_assert(sizeof(struct journal_header) == 64, "file format");

enum journal_kind {
	JOURNAL_LETTER = 1,  /* struct journal_ref and the entry as JSON */
	JOURNAL_BODY = 2,    /* its SHA-256 and its bytes */
	JOURNAL_REMOVED = 3, /* the letter of that number; nothing more */
};

struct journal_record {
	uint32_t magic;
	uint32_t head_crc; /* of the salt and what follows, to the head's end */
	uint64_t bytes;	   /* behind the head */
	uint64_t number;   /* of the letter; 0 for a body */
	uint8_t version;
	uint8_t kind;
	uint16_t reserved;
	uint32_t crc; /* of the bytes behind the head */
};
static_assert(sizeof(struct journal_record) == 32, "file format");

/* Which body belongs to a letter; zeros if none does. */
struct journal_ref {
	uint8_t sha256[JOURNAL_SHA_LEN];
	uint64_t bytes;
};
static_assert(sizeof(struct journal_ref) == 40, "file format");

/* CRC-32 of zlib, going on from crc. */
uint32_t avp__journal_crc(uint32_t crc, const void *bytes, uint64_t len);

/* Fills in magic, version and head_crc. */
void avp__journal_seal(struct journal_record *record, uint64_t salt);

/* ---- reading ------------------------------------------------------------- */

/* What a record begins with, enough to enter it into an index. */
struct journal_seen {
	struct journal_record head;
	uint64_t off;				   /* of the head */
	uint8_t first[sizeof(struct journal_ref)]; /* what follows the head */
};

/* 0 to go on; an error ends the scan and is returned. */
typedef int avp__journal_visit(void *arg, const struct journal_seen *seen);

/*
 * Reads the header: 0; AVP_AGAIN when the file is shorter than one and holds
 * nothing else (its making was cut short); AVP_DESERIALIZATION_ERROR for
 * another file or version; AVP_IO.
 */
int avp__journal_read_header(int fd, struct journal_header *header,
			     struct avp_reason *why);

/*
 * Visits the records from *end on and moves *end behind the last one. What lies
 * behind that is torn. *damaged grows by the bytes that were passed over
 * between records. Time and memory are bounded by the file's size, whatever it
 * holds.
 */
int avp__journal_scan(int fd, uint64_t salt, uint64_t file_bytes, uint64_t *end,
		      uint64_t *damaged, avp__journal_visit *visit, void *arg,
		      struct avp_reason *why);

/* pread of exactly so many; AVP_IO, also when they are not there. */
int avp__journal_pread(int fd, void *to, uint64_t len, uint64_t off,
		       struct avp_reason *why);

/* ---- writing ------------------------------------------------------------- */

/* AVP_PERMISSION, AVP_NO_MEMORY or AVP_IO for errno: "what name: words". */
int avp__journal_fail(struct avp_reason *why, const char *what,
		      const char *name);

/*
 * Writes the pieces at off, all or none: a failure cuts the file to off again.
 * The pieces are used up.
 */
int avp__journal_write(int fd, uint64_t off, struct iovec *pieces, int count,
		       struct avp_reason *why);

/* Copies a range to the end of another file. */
int avp__journal_copy(int from, uint64_t off, uint64_t len, int to,
		      uint64_t to_off, struct avp_reason *why);

/* Creates JOURNAL_NEW in dir with a header; its fd. salt 0: a new one. */
int avp__journal_create(int dir, uint64_t salt, uint64_t next_number,
			struct avp_reason *why);

/*
 * Brings the new one to the disk and puts it in the old one's place; *renamed
 * tells, after an error, whether it is there.
 */
int avp__journal_publish(int dir, int fd, bool *renamed,
			 struct avp_reason *why);

/* ---- the directory ------------------------------------------------------- */

/* Opens (or makes, unless read_only) a directory and those above it. */
int avp__journal_dir(const char *path, bool read_only, struct avp_reason *why);

#endif
