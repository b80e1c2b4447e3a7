/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A segment of our own, from the first page to the last seal.
 *
 * The order in creation matters. The writable mapping comes before
 * F_SEAL_FUTURE_WRITE, which forbids any later one, our own included. Every
 * page is allocated before the fd is passed: under these seals a reader would
 * fill the holes at its own cost, and could not give them back.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shm/options.h"
#include "shm/shm_internal.h"

/* Newer than Debian 12's headers. */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U /* Linux 6.3 */
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

/* ---- mapping ------------------------------------------------------------ */

/* Address space of bytes at a multiple of 2 MiB, or NULL. */
static void *reserve(uint64_t bytes)
{
	uint64_t whole = bytes + AVP__HUGE_BYTES, skip, rest;
	char *area = mmap(NULL, whole, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (area == MAP_FAILED)
		return NULL;
	skip = -(uint64_t)(uintptr_t)area % AVP__HUGE_BYTES;
	rest = whole - skip - bytes;
	if (skip)
		munmap(area, skip);
	if (rest)
		munmap(area + skip + bytes, rest);
	return area + skip;
}

void *avp__map(int fd, uint64_t bytes, int protection)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t whole = (bytes + page - 1) / page * page;
	void *base = reserve(whole), *at;
	int error;

	if (!base)
		return NULL;
	at = mmap(base, whole, protection, MAP_SHARED | MAP_FIXED, fd, 0);
	if (at == MAP_FAILED)
		goto fail;
	/* A child would keep the pages of every peer alive, and a core of them
	 * would leak gigabytes and delay the news of our death. */
	if (madvise(base, whole, MADV_DONTFORK) ||
	    madvise(base, whole, MADV_DONTDUMP))
		goto fail;
	return base;
fail:
	error = errno;
	munmap(base, whole);
	errno = error;
	return NULL;
}

static void unmap(const struct avp_segment *segment)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	if (segment->base)
		munmap(segment->base,
		       (segment->bytes + page - 1) / page * page);
}

void avp_segment_forget(struct avp_segment *segment)
{
	/* A zeroed segment has fd 0, which is not its own. */
	if (segment->base && segment->fd >= 0)
		close(segment->fd);
	memset(segment, 0, sizeof(*segment));
	segment->fd = -1;
}

void avp_segment_close(struct avp_segment *segment)
{
	unmap(segment);
	avp_segment_forget(segment);
}

/* ---- creation ----------------------------------------------------------- */

static int code_of(int error)
{
	switch (error) {
	case ENOMEM:
	case ENOSPC:
	case EMFILE:
	case ENFILE:
	case EFBIG: return AVP_NO_MEMORY;
	case EACCES:
	case EPERM: return AVP_PERMISSION;
	case ENOSYS: return AVP_UNSUPPORTED;
	default: return AVP_IO;
	}
}

static int refused(struct avp_reason *why, const char *what, uint64_t bytes)
{
	int error = errno;

	return avp__fail(why, code_of(error),
			 "%s of a segment of %" PRIu64 " bytes: %s", what,
			 bytes, strerror(error));
}

static int new_memfd(const char *label, int *code, struct avp_reason *why)
{
	const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	char name[64];
	int fd;

	snprintf(name, sizeof(name), "avp:%s", label ? label : "segment");
	fd = memfd_create(name, flags | MFD_NOEXEC_SEAL);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(name, flags);
	if (fd < 0)
		*code = refused(why, "memfd_create", 0);
	return fd;
}

/* Allocates what is missing; an error, never a signal, when it cannot. */
static int populate(const struct avp_segment *s, uint64_t off, uint64_t bytes)
{
	if (!madvise((char *)s->base + off, bytes, MADV_POPULATE_WRITE))
		return 0;
	if (errno != EINVAL)
		return -1;
	return fallocate(s->fd, 0, (off_t)off, (off_t)bytes);
}

/*
 * One page in every 2 MiB, then all of these collapsed into huge pages: ten
 * times faster than small pages (MEASURED), and the reader's faults too.
 */
static bool collapse(char *base, uint64_t bytes)
{
	const size_t page = (size_t)sysconf(_SC_PAGESIZE);

	for (uint64_t off = 0; off < bytes; off += AVP__HUGE_BYTES)
		if (madvise(base + off, page, MADV_POPULATE_WRITE))
			return false;
	return !madvise(base, bytes, MADV_COLLAPSE);
}

int avp__segment_fill(struct avp_segment *s, uint64_t off, uint64_t bytes,
		      struct avp_reason *note)
{
	if (s->flags & AVP_SEGMENT_HUGE &&
	    !collapse((char *)s->base + off, bytes)) {
		s->flags &= ~AVP_SEGMENT_HUGE;
		avp__fail(note, AVP_UNSUPPORTED,
			  "no huge pages for %" PRIu64 " bytes: "
			  "MADV_COLLAPSE: %s; first use is slower",
			  s->bytes, strerror(errno));
	}
	/* After a collapse this only fills the page tables. */
	if (populate(s, off, bytes))
		return refused(note, "allocation", s->bytes);
	return AVP_OK;
}

static int check_holes(const struct avp_segment *s, struct avp_reason *note)
{
	struct stat st;

	if (fstat(s->fd, &st))
		return refused(note, "fstat", s->bytes);
	if ((uint64_t)st.st_blocks * 512 < s->bytes)
		return avp__fail(note, AVP_IO,
				 "the kernel allocated %" PRIu64 " of %" PRIu64
				 " bytes",
				 (uint64_t)st.st_blocks * 512, s->bytes);
	return AVP_OK;
}

static void lock(struct avp_segment *s, struct avp_reason *note)
{
	/* With CAP_IPC_LOCK there is no limit, so ask the kernel first. */
	if (!mlock(s->base, s->bytes)) {
		s->flags |= AVP_SEGMENT_LOCKED;
		return;
	}
	if (!avp__limits_check_lock(s->bytes, note))
		avp__fail(note, AVP_PERMISSION,
			  "mlock of %" PRIu64 " bytes: %s", s->bytes,
			  strerror(errno));
}

static int seal(const struct avp_segment *s, struct avp_reason *why)
{
	if (!fcntl(s->fd, F_ADD_SEALS, AVP__SEALS))
		return AVP_OK;
	return avp__fail(why, errno == EINVAL ? AVP_UNSUPPORTED : AVP_IO,
			 "F_ADD_SEALS: %s; F_SEAL_FUTURE_WRITE needs Linux 5.1",
			 strerror(errno));
}

static uint64_t unit_of(uint64_t bytes)
{
	return bytes >= AVP__HUGE_BYTES ? AVP__HUGE_BYTES
					: (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t avp__segment_round(uint64_t bytes)
{
	uint64_t unit = unit_of(bytes);

	return (bytes + unit - 1) / unit * unit;
}

uint64_t avp__segment_round_down(uint64_t bytes)
{
	return bytes / unit_of(bytes) * unit_of(bytes);
}

int avp__segment_begin(struct avp_segment *segment, const char *label,
		       uint64_t bytes, uint32_t asked, struct avp_reason *why)
{
	struct avp_segment s = {.flags = AVP_SEGMENT_WRITABLE};
	int code;

	s.bytes = avp__segment_round(bytes);
	code = avp__limits_check(s.bytes, why);
	if (code)
		return code;
	s.fd = new_memfd(label, &code, why);
	if (s.fd < 0)
		return code;
	if (ftruncate(s.fd, (off_t)s.bytes)) {
		code = refused(why, "ftruncate", s.bytes);
	} else {
		s.base = avp__map(s.fd, s.bytes, PROT_READ | PROT_WRITE);
		if (!s.base)
			code = refused(why, "mmap", s.bytes);
	}
	if (code) {
		close(s.fd);
		return code;
	}
	if (s.bytes >= AVP__HUGE_BYTES && !(asked & AVP_MEMORY_SMALL_PAGES))
		s.flags |= AVP_SEGMENT_HUGE;
	*segment = s;
	return AVP_OK;
}

int avp__segment_seal(struct avp_segment *s, uint32_t asked,
		      struct avp_reason *note)
{
	int code = check_holes(s, note);

	if (code)
		return code;
	if (asked & AVP_MEMORY_LOCK)
		lock(s, note);
	if (note->code && asked & AVP_MEMORY_STRICT)
		return note->code;
	return seal(s, note);
}

static int check(uint64_t bytes, const struct avp_segment_options *options,
		 struct avp_segment_options *o, struct avp_reason *why)
{
	int code = avp__options_copy(o, sizeof(*o), sizeof(*o), options,
				     AVP_MEMORY_LOCK | AVP_MEMORY_SMALL_PAGES |
					     AVP_MEMORY_STRICT,
				     why);

	if (!code)
		code = avp__options_reserved(o->reserved, 4, why);
	if (code)
		return code;
	if (!bytes || bytes > AVP_SEGMENT_BYTES_MAX)
		return avp__fail(why, AVP_USAGE,
				 "a segment of %" PRIu64 " bytes; 1 to %" PRIu64
				 " are possible",
				 bytes, AVP_SEGMENT_BYTES_MAX);
	return AVP_OK;
}

int avp_segment_create(struct avp_segment *segment, const char *label,
		       uint64_t bytes,
		       const struct avp_segment_options *options,
		       struct avp_reason *why)
{
	struct avp_reason note = {0};
	struct avp_segment_options o;
	struct avp_segment s;
	int code = check(bytes, options, &o, why);

	if (!code)
		code = avp__segment_begin(&s, label, bytes, o.flags, why);
	if (code)
		return code;
	code = avp__segment_fill(&s, 0, s.bytes, &note);
	if (!code)
		code = avp__segment_seal(&s, o.flags, &note);
	if (why)
		*why = note;
	if (code) {
		avp_segment_close(&s);
		return code;
	}
	if (why)
		why->code = AVP_OK;
	*segment = s;
	return AVP_OK;
}
