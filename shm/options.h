/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How structs of options grow: the one rule of shm/, ring/ and ahp/. (codec/
 * and latent/, which do not stand on shm/, take 0 and their own size.)
 */
#ifndef AVP_SHM_OPTIONS_H
#define AVP_SHM_OPTIONS_H

#include <stddef.h>
#include <stdint.h>

#include <avp/error.h>

/*
 * Checks the head that every struct of options begins with, {size, flags}, and
 * copies it into known bytes at copy. size 0 stands for first, the struct of
 * version 0.1; what is shorter than known is filled up with zeros; bytes that
 * this build does not know must be 0, flags within allowed. AVP_USAGE.
 */
int avp__options_copy(void *copy, size_t known, size_t first,
		      const void *options, uint32_t allowed,
		      struct avp_reason *why);

/* Each reserved word must be 0: AVP_USAGE otherwise. */
int avp__options_reserved(const uint64_t *reserved, size_t count,
			  struct avp_reason *why);

#endif
