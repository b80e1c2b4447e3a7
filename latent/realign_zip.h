/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Zip archives as torch.save() writes them: members stored, not compressed,
 * each aligned to 64 bytes, with zip64 records where they are needed. Format:
 * PKWARE's APPNOTE 6.3. Read by pread, nothing mapped: a file that shrinks
 * meanwhile is a failed read.
 */
#ifndef AVP_LATENT_REALIGN_ZIP_H
#define AVP_LATENT_REALIGN_ZIP_H

#include <avp/latent.h>

/* ---- reading ---- */

struct avp__zip {
	int fd; /* borrowed */
	uint64_t bytes;
	uint8_t *directory; /* the central directory, checked as it is walked */
	size_t directory_bytes;
};

struct avp__zip_member {
	struct avp_str name; /* in the directory */
	uint64_t header_off, bytes;
	uint32_t crc;
};

/* 0, AVP_DESERIALIZATION_ERROR, AVP_IO, or AVP_NO_MEMORY. */
int avp__zip_open(struct avp__zip *z, int fd, struct avp_reason *why);
void avp__zip_close(struct avp__zip *z);

/* Walks the members; *at begins at 0. 1, 0 at the end, or an error. */
int avp__zip_next(const struct avp__zip *z, size_t *at,
		  struct avp__zip_member *m, struct avp_reason *why);

/* The member `prefix` + `rest`. 1, 0 if there is none, or an error. */
int avp__zip_find(const struct avp__zip *z, struct avp_str prefix,
		  const char *rest, struct avp__zip_member *m,
		  struct avp_reason *why);

/* Reads the whole member into `to`, of m->bytes, and compares its CRC-32. */
int avp__zip_read(const struct avp__zip *z, const struct avp__zip_member *m,
		  void *to, struct avp_reason *why);

/* ---- writing ---- */

#define AVP__ZIP_MEMBERS 8

struct avp__zip_writer {
	int fd; /* borrowed */
	uint64_t at;
	uint32_t count;
	struct {
		const char *name; /* borrowed until the end */
		uint32_t off, bytes, crc;
	} members[AVP__ZIP_MEMBERS];
};

/* Errors are a failed write's; the archive stays under 4 GiB. */
int avp__zip_add(struct avp__zip_writer *z, const char *name, const void *data,
		 uint32_t bytes);
int avp__zip_finish(struct avp__zip_writer *z);

#endif
