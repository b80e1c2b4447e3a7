/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tells a forked child from the process that opened something, for one load a
 * call: a private page that the kernel wipes in a child (MADV_WIPEONFORK). A
 * child shares sockets and locks with its parent but has none of the mappings,
 * so every public call of it has to answer AVP_FORKED. A vfork child shares the
 * page and is not told apart: it may only exec anyway.
 */
#ifndef AVP_SHM_GUARD_H
#define AVP_SHM_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#include <avp/error.h>

struct avp__fork_guard {
	volatile uint32_t *cookie; /* not 0 in the process that made it */
};

/* AVP_NO_MEMORY, or AVP_UNSUPPORTED before Linux 4.14. */
int avp__fork_guard_init(struct avp__fork_guard *guard, struct avp_reason *why);

/* In either process; a zeroed guard is fine. */
void avp__fork_guard_fini(struct avp__fork_guard *guard);

static inline bool avp__forked(const struct avp__fork_guard *guard)
{
	return *guard->cookie == 0;
}

#endif
