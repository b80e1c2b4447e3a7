/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shm/guard.h"

int avp__fork_guard_init(struct avp__fork_guard *guard, struct avp_reason *why)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint32_t *cookie;

	cookie = mmap(NULL, page, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (cookie == MAP_FAILED)
		return avp__fail(why, AVP_NO_MEMORY,
				 "no page for the fork guard: %s",
				 strerror(errno));
	if (madvise(cookie, page, MADV_WIPEONFORK)) {
		int error = errno;

		munmap(cookie, page);
		return avp__fail(why, AVP_UNSUPPORTED,
				 "MADV_WIPEONFORK: %s; it needs Linux 4.14",
				 strerror(error));
	}
	*cookie = 1;
	guard->cookie = cookie;
	return AVP_OK;
}

void avp__fork_guard_fini(struct avp__fork_guard *guard)
{
	if (guard->cookie)
		munmap((void *)guard->cookie, (size_t)sysconf(_SC_PAGESIZE));
	guard->cookie = NULL;
}
