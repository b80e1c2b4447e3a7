/* SPDX-License-Identifier: Apache-2.0 */
/* The doorbell's word in a lane. The loop's side of it is in loop_uring.c. */
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ring/bell.h"
#include "ring/slot.h"

void avp__lane_ring(struct avp_lane_tx *tx)
{
	struct lane_map *map = tx->segment.base;
	_Atomic uint32_t *word = &map->bell.rings;
	/* relaxed: only the owner writes it */
	uint32_t rings = atomic_load_explicit(word, memory_order_relaxed);

	/* release: pairs with the acquire in hear_bell(); the news that it is
	 * rung for is before it */
	atomic_store_explicit(word, rings + 1, memory_order_release);
	/* Not FUTEX_PRIVATE: the sleeper is in another process. */
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

const _Atomic uint32_t *avp__lane_bell(const struct avp_lane_rx *rx)
{
	const struct lane_map *map = rx->segment.base;

	return &map->bell.rings;
}
