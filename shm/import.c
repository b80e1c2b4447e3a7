/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A peer's segment, from an fd that may be anything. F_GET_SEALS is answered by
 * the kernel from the inode and never waits, whatever the fd is; only memfds
 * (and hugetlb files) have seals. What passes is memory whose size is fixed, so
 * that everything after it is harmless.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "shm/shm_internal.h"

static int check_seals(int fd, struct avp_reason *why)
{
	int seals = fcntl(fd, F_GET_SEALS);

	if (seals < 0)
		return avp__fail(why, AVP_POISONED,
				 "fd %d from the peer has no seals (%s); only "
				 "sealed memfds may be sent",
				 fd, strerror(errno));
	if ((seals & AVP__SEALS) != AVP__SEALS)
		return avp__fail(
			why, AVP_POISONED,
			"fd %d from the peer has seals %#x, which lack "
			"%#x of SHRINK|GROW|FUTURE_WRITE|SEAL",
			fd, seals, AVP__SEALS & ~seals);
	return AVP_OK;
}

static int check_size(int fd, uint64_t expect, uint64_t cap, uint64_t *bytes,
		      struct avp_reason *why)
{
	struct stat st;
	uint64_t size, there;

	if (fstat(fd, &st))
		return avp__fail(why, AVP_IO, "fstat of the peer's fd: %s",
				 strerror(errno));
	size = (uint64_t)st.st_size;
	there = (uint64_t)st.st_blocks * 512;
	if (!size || (expect && size != expect))
		return avp__fail(why, AVP_POISONED,
				 "the peer's segment has %" PRIu64 " bytes, "
				 "announced were %" PRIu64,
				 size, expect);
	if (size > cap || size > AVP_SEGMENT_BYTES_MAX)
		return avp__fail(
			why, AVP_TOO_LARGE,
			"the peer's segment has %" PRIu64 " bytes, over "
			"the cap of %" PRIu64 "; raise the cap or lower "
			"the peer's quota",
			size, cap);
	if (there < size)
		return avp__fail(why, AVP_POISONED,
				 "the peer's segment has holes: %" PRIu64 " of "
				 "%" PRIu64 " bytes are allocated",
				 there, size);
	*bytes = size;
	return AVP_OK;
}

static int check(int fd, uint64_t expect, uint64_t cap, uint64_t *bytes,
		 struct avp_reason *why)
{
	struct statfs fs;
	int code = check_seals(fd, why);

	if (code)
		return code;
	if (fstatfs(fd, &fs))
		return avp__fail(why, AVP_IO, "fstatfs of the peer's fd: %s",
				 strerror(errno));
	if (fs.f_type != TMPFS_MAGIC)
		return avp__fail(why, AVP_POISONED,
				 "the peer's segment is on file system %#lx; "
				 "only tmpfs (memfd without hugetlb) is taken",
				 (unsigned long)fs.f_type);
	return check_size(fd, expect, cap, bytes, why);
}

int avp_segment_import(struct avp_segment *segment, int fd,
		       uint64_t expect_bytes, uint64_t cap_bytes,
		       struct avp_reason *why)
{
	struct avp_segment s = {.fd = -1};
	int code = check(fd, expect_bytes, cap_bytes, &s.bytes, why);

	if (code)
		goto fail;
	s.base = avp__map(fd, s.bytes, PROT_READ);
	if (!s.base) {
		code = avp__fail(
			why, errno == ENOMEM ? AVP_NO_MEMORY : AVP_POISONED,
			"mapping the peer's segment of %" PRIu64 " bytes: %s",
			s.bytes, strerror(errno));
		goto fail;
	}
	close(fd);
	*segment = s;
	return AVP_OK;
fail:
	avp_fd_dispose(fd);
	return code;
}
