/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A window of message ids: the last N that were entered, forgotten in the order
 * in which they came. 24 bytes an id, reserved at once, touched as it fills.
 * One thread at a time. The hash is keyed, since ids come from peers.
 */
#ifndef AVP_AHP_DEDUP_H
#define AVP_AHP_DEDUP_H

#include <stdbool.h>
#include <stdint.h>

#define AHP__DEDUP_MAX (1u << 20) /* ids; 24 MiB */

struct ahp__dedup;

/* ids is rounded up to a power of two, 16 at least. AVP_USAGE,
 * AVP_NO_MEMORY. */
int ahp__dedup_new(struct ahp__dedup **dedup, uint32_t ids);
void ahp__dedup_free(struct ahp__dedup *dedup);

bool ahp__dedup_has(const struct ahp__dedup *dedup, const uint8_t id[16]);

/* Enters an id that is not there; the oldest goes if the window is full. */
void ahp__dedup_add(struct ahp__dedup *dedup, const uint8_t id[16]);

/* Bytes that a window of so many ids takes. */
uint64_t ahp__dedup_bytes(uint32_t ids);

#endif
