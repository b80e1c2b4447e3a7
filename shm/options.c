/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "shm/options.h"

struct head {
	uint32_t size, flags;
};

int avp__options_copy(void *copy, size_t known, size_t first,
		      const void *options, uint32_t allowed,
		      struct avp_reason *why)
{
	const unsigned char *bytes = options;
	struct head head = {0};
	size_t size;

	memset(copy, 0, known);
	if (!options)
		return AVP_OK;
	memcpy(&head, options, sizeof(head));
	size = head.size ? head.size : first;
	if (size < first || size > 4096)
		return avp__fail(why, AVP_USAGE,
				 "options.size %u is not between %zu and 4096; "
				 "use sizeof or 0",
				 head.size, first);
	for (size_t i = known; i < size; i++)
		if (bytes[i])
			return avp__fail(
				why, AVP_USAGE,
				"options hold a field at byte %zu that "
				"this version does not know; leave it 0",
				i);
	if (head.flags & ~allowed)
		return avp__fail(why, AVP_USAGE,
				 "options.flags %#x: only %#x are known here",
				 head.flags, allowed);
	memcpy(copy, options, size < known ? size : known);
	return AVP_OK;
}

int avp__options_reserved(const uint64_t *reserved, size_t count,
			  struct avp_reason *why)
{
	for (size_t i = 0; i < count; i++)
		if (reserved[i])
			return avp__fail(why, AVP_USAGE,
					 "options.reserved[%zu] is not 0", i);
	return AVP_OK;
}
