/* SPDX-License-Identifier: Apache-2.0 */
/* Records in a file: written whole or not at all, found again after
 * anything. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zlib.h>

#include "ahp/dlq_journal.h"

#define CHUNK_BYTES (64u << 10) /* read at a time */

int avp__journal_fail(struct avp_reason *why, const char *what,
		      const char *name)
{
	int error = errno, code = AVP_IO;

	if (error == EACCES || error == EPERM || error == EROFS ||
	    error == ELOOP)
		code = AVP_PERMISSION;
	else if (error == ENOMEM || error == EMFILE || error == ENFILE)
		code = AVP_NO_MEMORY;
	return avp__fail(
		why, code, "dead letter queue: %s %s: %s", what, name,
		error == EISDIR ? "it is a directory, which no queue has made; "
				  "remove it"
				: strerror(error));
}

uint32_t avp__journal_crc(uint32_t crc, const void *bytes, uint64_t len)
{
	return (uint32_t)crc32_z(crc, bytes, len);
}

static uint32_t head_crc(const struct journal_record *r, uint64_t salt)
{
	const size_t from = offsetof(struct journal_record, bytes);

	return avp__journal_crc(avp__journal_crc(0, &salt, sizeof(salt)),
				(const char *)r + from, sizeof(*r) - from);
}

void avp__journal_seal(struct journal_record *r, uint64_t salt)
{
	r->magic = RECORD_DLQ;
	r->version = RECORD_VERSION;
	r->head_crc = head_crc(r, salt);
}

/* ---- reading ------------------------------------------------------------- */

int avp__journal_pread(int fd, void *to, uint64_t len, uint64_t off,
		       struct avp_reason *why)
{
	char *p = to;
	ssize_t n;

	while (len) {
		n = pread(fd, p, len, (off_t)off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return avp__journal_fail(why, "cannot read",
						 JOURNAL_NAME);
		if (!n)
			return avp__fail(why, AVP_IO,
					 "dead letter queue: the journal ends "
					 "at byte %llu, %llu were to follow",
					 (unsigned long long)off,
					 (unsigned long long)len);
		p += n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

static uint32_t header_crc(const struct journal_header *header)
{
	struct journal_header h = *header;

	h.crc = 0;
	return avp__journal_crc(0, &h, sizeof(h));
}

int avp__journal_read_header(int fd, struct journal_header *header,
			     struct avp_reason *why)
{
	struct journal_header h = {0};
	ssize_t n;
	int err;

	do {
		n = pread(fd, &h, sizeof(h), 0);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return avp__journal_fail(why, "cannot read", JOURNAL_NAME);
	if ((size_t)n < sizeof(h)) {
		uint64_t magic = JOURNAL_MAGIC;

		err = memcmp(&h, &magic, n < 8 ? (size_t)n : 8)
			      ? AVP_DESERIALIZATION_ERROR
			      : AVP_AGAIN;
		return avp__fail(why, err,
				 "dead letter queue: a file of %zd bytes is no "
				 "journal; move it away",
				 n);
	}
	if (h.magic != JOURNAL_MAGIC || h.crc != header_crc(&h))
		return avp__fail(why, AVP_DESERIALIZATION_ERROR,
				 "dead letter queue: the file does not begin "
				 "as a journal does; move it away");
	if (h.major != JOURNAL_MAJOR)
		return avp__fail(why, AVP_DESERIALIZATION_ERROR,
				 "dead letter queue: the journal is of version "
				 "%u, this library reads %u",
				 h.major, JOURNAL_MAJOR);
	*header = h;
	return 0;
}

/* A scan reads through a buffer of its own: no mapping can be cut under us. */
struct scan {
	int fd;
	uint64_t salt, file_bytes;
	uint64_t at; /* of the buffer */
	size_t len;
	uint8_t *buf;
	struct avp_reason *why;
};

/* Makes `need` bytes at off visible; they are within the file and the
 * buffer. */
static const uint8_t *look(struct scan *s, uint64_t off, size_t need)
{
	uint64_t len = s->file_bytes - off;

	if (off >= s->at && off - s->at + need <= s->len)
		return s->buf + (off - s->at);
	if (len > CHUNK_BYTES)
		len = CHUNK_BYTES;
	s->len = 0;
	if (avp__journal_pread(s->fd, s->buf, len, off, s->why))
		return NULL;
	s->at = off;
	s->len = (size_t)len;
	return s->buf;
}

/* 1 a head whose record lies within the file, 0 none, or an error. */
static int read_head(struct scan *s, uint64_t off, struct journal_record *head)
{
	const uint8_t *p;

	if (s->file_bytes - off < sizeof(*head))
		return 0;
	p = look(s, off, sizeof(*head));
	if (!p)
		return AVP_IO;
	memcpy(head, p, sizeof(*head));
	return head->magic == RECORD_DLQ &&
	       head->head_crc == head_crc(head, s->salt) &&
	       head->bytes <= s->file_bytes - off - sizeof(*head);
}

/* 1 the bytes behind the head are what was written, 0 not, or an error. */
static int check_bytes(struct scan *s, struct journal_seen *seen)
{
	uint64_t off = seen->off + sizeof(seen->head);
	uint64_t left = seen->head.bytes;
	uint32_t crc = 0;

	memset(seen->first, 0, sizeof(seen->first));
	while (left) {
		size_t n = left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;
		const uint8_t *p = look(s, off, n);

		if (!p)
			return AVP_IO;
		if (left == seen->head.bytes)
			memcpy(seen->first, p,
			       n < sizeof(seen->first) ? n
						       : sizeof(seen->first));
		crc = avp__journal_crc(crc, p, n);
		off += n;
		left -= n;
	}
	return crc == seen->head.crc;
}

/*
 * Where the next head may be, from off on; the file's end if nowhere. A head
 * alone is believed here: its salted checksum makes it one.
 */
static int find_head(struct scan *s, uint64_t off, uint64_t *found)
{
	const uint32_t magic = RECORD_DLQ;
	struct journal_record head;

	while (s->file_bytes - off >= sizeof(head)) {
		const uint8_t *p = look(s, off, sizeof(head)), *hit;
		size_t n;
		int is;

		if (!p)
			return AVP_IO;
		/* All that is there to see: each byte is read once. */
		n = s->len - (size_t)(off - s->at);
		hit = memmem(p, n, &magic, sizeof(magic));
		if (!hit) {
			off += n - (sizeof(magic) - 1);
			continue;
		}
		off += (uint64_t)(hit - p);
		is = read_head(s, off, &head);
		if (is < 0)
			return is;
		if (is) {
			*found = off;
			return 0;
		}
		off++;
	}
	*found = s->file_bytes;
	return 0;
}

static int scan_records(struct scan *s, uint64_t *end, uint64_t *damaged,
			avp__journal_visit *visit, void *arg)
{
	struct journal_seen seen = {.off = *end};
	uint64_t next;
	int is, err;

	while (seen.off < s->file_bytes) {
		is = read_head(s, seen.off, &seen.head);
		if (!is) {
			err = find_head(s, seen.off + 1, &next);
			if (err)
				return err;
			seen.off = next;
			continue;
		}
		if (is > 0)
			is = check_bytes(s, &seen);
		if (is < 0)
			return is;
		next = seen.off + sizeof(seen.head) + seen.head.bytes;
		if (is) {
			*damaged += seen.off - *end;
			*end = next;
			err = visit(arg, &seen);
			if (err)
				return err;
		}
		seen.off = next;
	}
	return 0;
}

int avp__journal_scan(int fd, uint64_t salt, uint64_t file_bytes, uint64_t *end,
		      uint64_t *damaged, avp__journal_visit *visit, void *arg,
		      struct avp_reason *why)
{
	struct scan s = {.fd = fd,
			 .salt = salt,
			 .file_bytes = file_bytes,
			 .buf = malloc(CHUNK_BYTES),
			 .why = why};
	int err;

	if (!s.buf)
		return avp__fail(why, AVP_NO_MEMORY,
				 "dead letter queue: no memory to read it");
	err = scan_records(&s, end, damaged, visit, arg);
	free(s.buf);
	return err;
}

/* ---- writing ------------------------------------------------------------- */

/* Beyond RLIMIT_FSIZE the kernel would send SIGXFSZ, which ends a process. */
static bool over_limit(uint64_t end)
{
	struct rlimit limit;

	return !getrlimit(RLIMIT_FSIZE, &limit) &&
	       limit.rlim_cur != RLIM_INFINITY && end > limit.rlim_cur;
}

static int write_pieces(int fd, uint64_t off, struct iovec *p, int count)
{
	ssize_t n;

	while (count) {
		n = pwritev(fd, p, count, (off_t)off);
		if (n < 0 && errno == EINTR)
			continue;
		if (!n)
			errno = ENOSPC;
		if (n <= 0)
			return -1;
		off += (uint64_t)n;
		while (count && (size_t)n >= p->iov_len) {
			n -= (ssize_t)p->iov_len;
			p++;
			count--;
		}
		if (count) {
			p->iov_base = (char *)p->iov_base + n;
			p->iov_len -= (size_t)n;
		}
	}
	return 0;
}

int avp__journal_write(int fd, uint64_t off, struct iovec *pieces, int count,
		       struct avp_reason *why)
{
	uint64_t end = off;
	int error;

	for (int i = 0; i < count; i++)
		end += pieces[i].iov_len;
	errno = EFBIG;
	if (!over_limit(end) && !write_pieces(fd, off, pieces, count))
		return 0;
	error = errno;
	/* If that fails too, the next one to look finds a torn tail. */
	if (ftruncate(fd, (off_t)off))
		error = errno == EIO ? EIO : error;
	errno = error;
	return avp__journal_fail(why, "cannot write", JOURNAL_NAME);
}

static int copy_by_hand(int from, uint64_t off, uint64_t len, int to,
			uint64_t to_off, struct avp_reason *why)
{
	char *buf = malloc(CHUNK_BYTES);
	int err = 0;

	if (!buf)
		return avp__fail(why, AVP_NO_MEMORY,
				 "dead letter queue: no memory to copy it");
	while (len && !err) {
		size_t n = len < CHUNK_BYTES ? (size_t)len : CHUNK_BYTES;
		struct iovec piece = {buf, n};

		err = avp__journal_pread(from, buf, n, off, why);
		if (!err)
			err = avp__journal_write(to, to_off, &piece, 1, why);
		off += n;
		to_off += n;
		len -= n;
	}
	free(buf);
	return err;
}

int avp__journal_copy(int from, uint64_t off, uint64_t len, int to,
		      uint64_t to_off, struct avp_reason *why)
{
	loff_t in = (loff_t)off, out = (loff_t)to_off;
	ssize_t n = 1;

	if (len <= CHUNK_BYTES || over_limit(to_off + len))
		return copy_by_hand(from, off, len, to, to_off, why);
	while (len && n > 0) {
		n = copy_file_range(from, &in, to, &out, len, 0);
		if (n < 0 && errno == EINTR)
			n = 1;
		else if (n > 0)
			len -= (uint64_t)n;
	}
	/* Old kernels and some file systems cannot. */
	return len ? copy_by_hand(from, (uint64_t)in, len, to, (uint64_t)out,
				  why)
		   : 0;
}

static int write_header(int fd, uint64_t salt, uint64_t next_number,
			struct avp_reason *why)
{
	struct journal_header h = {.magic = JOURNAL_MAGIC,
				   .major = JOURNAL_MAJOR,
				   .salt = salt,
				   .next_number = next_number};
	struct iovec piece = {&h, sizeof(h)};

	if (!salt &&
	    getrandom(&h.salt, sizeof(h.salt), 0) != (ssize_t)sizeof(h.salt))
		return avp__journal_fail(why, "no randomness for",
					 JOURNAL_NAME);
	h.crc = header_crc(&h);
	return avp__journal_write(fd, 0, &piece, 1, why);
}

int avp__journal_create(int dir, uint64_t salt, uint64_t next_number,
			struct avp_reason *why)
{
	int fd, err;

	/* What a killed process left is nobody's: we hold the lock. */
	unlinkat(dir, JOURNAL_NEW, 0);
	fd = openat(dir, JOURNAL_NEW,
		    O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return avp__journal_fail(why, "cannot make", JOURNAL_NEW);
	err = write_header(fd, salt, next_number, why);
	if (!err)
		return fd;
	unlinkat(dir, JOURNAL_NEW, 0);
	close(fd);
	return err;
}

int avp__journal_publish(int dir, int fd, bool *renamed, struct avp_reason *why)
{
	*renamed = false;
	if (fsync(fd))
		return avp__journal_fail(why, "cannot sync", JOURNAL_NEW);
	if (renameat(dir, JOURNAL_NEW, dir, JOURNAL_NAME))
		return avp__journal_fail(why, "cannot rename to", JOURNAL_NAME);
	if (fsync(dir))
		return avp__journal_fail(why, "cannot sync", "its directory");
	return 0;
}

/* ---- the directory ------------------------------------------------------- */

/* A new name is on the disk when its directory is. */
static int sync_dir(const char *path, struct avp_reason *why)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), err = 0;

	if (fd < 0 || fsync(fd))
		err = avp__journal_fail(why, "cannot sync directory", path);
	if (fd >= 0)
		close(fd);
	return err;
}

/* Makes one directory; parent is the path's part above it. */
static int make_dir(const char *path, const char *parent,
		    struct avp_reason *why)
{
	struct stat st;
	int error;

	if (!mkdir(path, 0700))
		return sync_dir(parent, why);
	error = errno;
	/* A read-only file system says EROFS even of what is there. */
	if (error == EEXIST || !stat(path, &st))
		return 0;
	errno = error;
	return avp__journal_fail(why, "cannot make directory", path);
}

static int make_dirs(const char *path, struct avp_reason *why)
{
	char part[PATH_MAX], parent[PATH_MAX];
	const char *slash = path;
	size_t n;
	int err;

	snprintf(parent, sizeof(parent), "%s", *path == '/' ? "/" : ".");
	do {
		slash = strchr(slash + 1, '/');
		n = slash ? (size_t)(slash - path) : strlen(path);
		memcpy(part, path, n);
		part[n] = 0;
		err = make_dir(part, parent, why);
		memcpy(parent, part, n + 1);
	} while (!err && slash);
	return err;
}

int avp__journal_dir(const char *path, bool read_only, struct avp_reason *why)
{
	struct stat st;
	int fd, err = 0;

	if (strlen(path) >= PATH_MAX)
		return avp__fail(why, AVP_USAGE,
				 "dead letter queue: a path of %zu bytes; %d "
				 "are the limit",
				 strlen(path), PATH_MAX - 1);
	if (!read_only)
		err = make_dirs(path, why);
	if (err)
		return err;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return avp__journal_fail(why, "cannot open directory", path);
	if (!fstat(fd, &st) && (st.st_uid == geteuid() || !st.st_uid) &&
	    !(st.st_mode & (S_IWGRP | S_IWOTH)))
		return fd;
	close(fd);
	return avp__fail(why, AVP_PERMISSION,
			 "dead letter queue: %s belongs to uid %u with mode "
			 "%o; it must be ours or root's and writable by nobody "
			 "else",
			 path, (unsigned)st.st_uid, st.st_mode & 07777u);
}
