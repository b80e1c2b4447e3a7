/* SPDX-License-Identifier: Apache-2.0 */
#include "latent/realign_zip.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCAL_SIGNATURE	    0x04034b50u
#define CENTRAL_SIGNATURE   0x02014b50u
#define END_SIGNATURE	    0x06054b50u
#define END64_SIGNATURE	    0x06064b50u
#define LOCATOR64_SIGNATURE 0x07064b50u

#define LOCAL_BYTES	30
#define CENTRAL_BYTES	46
#define END_BYTES	22
#define END64_BYTES	56
#define LOCATOR64_BYTES 20

/* A cache has five members or so; torch's own names are short. */
#define MAX_DIRECTORY (64u << 10)
#define ALIGNMENT     64

static uint32_t get16(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8;
}

static uint32_t get32(const uint8_t *p)
{
	return get16(p) | get16(p + 2) << 16;
}

static uint64_t get64(const uint8_t *p)
{
	return get32(p) | (uint64_t)get32(p + 4) << 32;
}

static void put16(uint8_t *p, uint32_t x)
{
	p[0] = (uint8_t)x;
	p[1] = (uint8_t)(x >> 8);
}

static void put32(uint8_t *p, uint32_t x)
{
	put16(p, x);
	put16(p + 2, x >> 16);
}

static int damaged(struct avp_reason *why, const char *what)
{
	return avp__fail(why, AVP_DESERIALIZATION_ERROR,
			 "%s; the file is damaged or not from torch.save()",
			 what);
}

static int read_at(const struct avp__zip *z, uint64_t off, void *to,
		   uint64_t bytes, struct avp_reason *why)
{
	char *at = to;

	if (off > z->bytes || bytes > z->bytes - off)
		return damaged(why, "an offset passes the end of the file");
	while (bytes) {
		ssize_t n = pread(z->fd, at, bytes, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return avp__fail(why, AVP_IO, "reading failed: %s",
					 n ? strerrordesc_np(errno)
					   : "the file became shorter");
		at += n;
		off += (uint64_t)n;
		bytes -= (uint64_t)n;
	}
	return 0;
}

/* torch writes no comment behind the end record, so it is the last thing. */
static int find_directory(const struct avp__zip *z, uint64_t *off,
			  uint64_t *bytes, struct avp_reason *why)
{
	uint8_t end[END_BYTES], locator[LOCATOR64_BYTES], end64[END64_BYTES];
	int err;

	if (z->bytes < END_BYTES)
		return damaged(why, "too short for a zip archive");
	err = read_at(z, z->bytes - END_BYTES, end, sizeof(end), why);
	if (err)
		return err;
	if (get32(end) != END_SIGNATURE)
		return damaged(why, "no zip archive ends here");
	*bytes = get32(end + 12);
	*off = get32(end + 16);
	if (*bytes != UINT32_MAX && *off != UINT32_MAX)
		return 0;
	if (z->bytes < END_BYTES + LOCATOR64_BYTES)
		return damaged(why, "the zip64 records are missing");
	err = read_at(z, z->bytes - END_BYTES - LOCATOR64_BYTES, locator,
		      sizeof(locator), why);
	if (err)
		return err;
	if (get32(locator) != LOCATOR64_SIGNATURE)
		return damaged(why, "the zip64 records are missing");
	err = read_at(z, get64(locator + 8), end64, sizeof(end64), why);
	if (err)
		return err;
	if (get32(end64) != END64_SIGNATURE)
		return damaged(why, "the zip64 end record is missing");
	*bytes = get64(end64 + 40);
	*off = get64(end64 + 48);
	return 0;
}

int avp__zip_open(struct avp__zip *z, int fd, struct avp_reason *why)
{
	uint64_t off = 0, bytes = 0;
	struct stat st;
	int err;

	*z = (struct avp__zip){.fd = fd};
	if (fstat(fd, &st) || !S_ISREG(st.st_mode))
		return avp__fail(why, AVP_IO, "it is not a file");
	z->bytes = (uint64_t)st.st_size;
	err = find_directory(z, &off, &bytes, why);
	if (err)
		return err;
	if (bytes > MAX_DIRECTORY)
		return damaged(why, "far more members than such a file has");
	z->directory = malloc(bytes + 1);
	if (!z->directory)
		return avp__fail(why, AVP_NO_MEMORY, "no memory");
	z->directory_bytes = bytes;
	err = read_at(z, off, z->directory, bytes, why);
	if (err)
		avp__zip_close(z);
	return err;
}

void avp__zip_close(struct avp__zip *z)
{
	free(z->directory);
	z->directory = NULL;
}

/*
 * Sizes and offset that do not fit 32 bits stand in extra field 1: those of
 * the three that are saturated, in this order.
 */
static int take_zip64(const uint8_t *extra, size_t len, uint64_t *compressed,
		      struct avp__zip_member *m)
{
	uint64_t *const wide[] = {&m->bytes, compressed, &m->header_off};

	while (len >= 4) {
		size_t n = get16(extra + 2);
		const uint8_t *at = extra + 4;

		if (n > len - 4)
			return 0;
		for (int i = 0; i < 3 && get16(extra) == 1; i++) {
			if (*wide[i] != UINT32_MAX)
				continue;
			if ((size_t)(extra + 4 + n - at) < 8)
				return 0;
			*wide[i] = get64(at);
			at += 8;
		}
		extra += 4 + n;
		len -= 4 + n;
	}
	return 1;
}

int avp__zip_next(const struct avp__zip *z, size_t *at,
		  struct avp__zip_member *m, struct avp_reason *why)
{
	const uint8_t *e = z->directory + *at;
	const size_t left = z->directory_bytes - *at;
	size_t name_len, extra_len, whole;
	uint64_t compressed;

	if (!left)
		return 0;
	if (left < CENTRAL_BYTES || get32(e) != CENTRAL_SIGNATURE)
		return damaged(why, "the central directory is garbled");
	name_len = get16(e + 28);
	extra_len = get16(e + 30);
	whole = CENTRAL_BYTES + name_len + extra_len + get16(e + 32);
	if (whole > left)
		return damaged(why, "the central directory is cut short");
	if ((get16(e + 8) & 1) || get16(e + 10) != 0)
		return damaged(why, "a member is encrypted or compressed");
	*m = (struct avp__zip_member){
		.name = {(const char *)e + CENTRAL_BYTES, name_len},
		.crc = get32(e + 16),
		.bytes = get32(e + 24),
		.header_off = get32(e + 42),
	};
	compressed = get32(e + 20);
	if (!take_zip64(e + CENTRAL_BYTES + name_len, extra_len, &compressed,
			m))
		return damaged(why, "an extra field is garbled");
	if (compressed != m->bytes)
		return damaged(why, "a member has two sizes");
	*at += whole;
	return 1;
}

int avp__zip_find(const struct avp__zip *z, struct avp_str prefix,
		  const char *rest, struct avp__zip_member *m,
		  struct avp_reason *why)
{
	const size_t n = strlen(rest);
	size_t at = 0;
	int got;

	while ((got = avp__zip_next(z, &at, m, why)) == 1)
		if (m->name.len == prefix.len + n &&
		    !memcmp(m->name.data, prefix.data, prefix.len) &&
		    !memcmp(m->name.data + prefix.len, rest, n))
			return 1;
	return got;
}

int avp__zip_read(const struct avp__zip *z, const struct avp__zip_member *m,
		  void *to, struct avp_reason *why)
{
	uint8_t head[LOCAL_BYTES];
	int err = read_at(z, m->header_off, head, sizeof(head), why);

	if (err)
		return err;
	if (get32(head) != LOCAL_SIGNATURE)
		return damaged(why, "a member's header is missing");
	err = read_at(z,
		      m->header_off + LOCAL_BYTES + get16(head + 26) +
			      get16(head + 28),
		      to, m->bytes, why);
	if (err)
		return err;
	if (avp_crc32(to, m->bytes) != m->crc)
		return damaged(why, "a member's CRC-32 does not match");
	return 0;
}

static int write_all(struct avp__zip_writer *z, const void *data, size_t bytes)
{
	const char *at = data;

	while (bytes) {
		ssize_t n = write(z->fd, at, bytes);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return AVP_IO;
		at += n;
		bytes -= (size_t)n;
		z->at += (uint64_t)n;
	}
	return 0;
}

/* The fields that local and central headers share, from version to extra. */
static void put_common(uint8_t *p, uint32_t crc, uint32_t bytes,
		       const char *name, uint32_t extra)
{
	memset(p, 0, 26);
	put32(p + 10, crc);
	put32(p + 14, bytes);
	put32(p + 18, bytes);
	put16(p + 22, (uint32_t)strlen(name));
	put16(p + 24, extra);
}

int avp__zip_add(struct avp__zip_writer *z, const char *name, const void *data,
		 uint32_t bytes)
{
	uint8_t head[LOCAL_BYTES + ALIGNMENT + 64] = {0};
	const size_t name_len = strlen(name);
	/* Padding in an extra field "FB", as torch's own writer does it. */
	const uint32_t extra =
		4 + (uint32_t)((0 - (z->at + LOCAL_BYTES + name_len + 4)) %
			       ALIGNMENT);
	uint8_t *pad = head + LOCAL_BYTES + name_len;
	const uint32_t crc = avp_crc32(data, bytes);
	int err;

	z->members[z->count].name = name;
	z->members[z->count].off = (uint32_t)z->at;
	z->members[z->count].bytes = bytes;
	z->members[z->count++].crc = crc;
	put32(head, LOCAL_SIGNATURE);
	put_common(head + 4, crc, bytes, name, extra);
	memcpy(head + LOCAL_BYTES, name, name_len);
	memcpy(pad, "FB", 2);
	put16(pad + 2, extra - 4);
	memset(pad + 4, 'Z', extra - 4);
	err = write_all(z, head, LOCAL_BYTES + name_len + extra);
	return err ? err : write_all(z, data, bytes);
}

int avp__zip_finish(struct avp__zip_writer *z)
{
	const uint64_t off = z->at;
	uint8_t end[END_BYTES] = {0};
	int err = 0;

	for (uint32_t i = 0; i < z->count && !err; i++) {
		const char *name = z->members[i].name;
		uint8_t head[CENTRAL_BYTES] = {0};

		put32(head, CENTRAL_SIGNATURE);
		put_common(head + 6, z->members[i].crc, z->members[i].bytes,
			   name, 0);
		put32(head + 42, z->members[i].off);
		err = write_all(z, head, sizeof(head));
		if (!err)
			err = write_all(z, name, strlen(name));
	}
	put32(end, END_SIGNATURE);
	put16(end + 8, z->count);
	put16(end + 10, z->count);
	put32(end + 12, (uint32_t)(z->at - off));
	put32(end + 16, (uint32_t)off);
	return err ? err : write_all(z, end, sizeof(end));
}
