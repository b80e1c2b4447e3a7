/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fuzz harnesses share. Built by `make fuzz` each is libFuzzer's; as a
 * test it feeds fixed examples to the same function.
 */
#ifndef AVP_TESTS_FUZZ_H
#define AVP_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* What has to hold whatever the input is. */
#define MUST(condition)           \
	do {                      \
		if (!(condition)) \
			abort();  \
	} while (0)

#ifndef AVP_FUZZING
#include "tests/vectors.h"

/* A copy of just its size, so that a read beyond it is found. */
static inline void feed(const void *data, size_t len)
{
	struct bytes copy = bytes_copy(data, len);

	LLVMFuzzerTestOneInput(copy.data, copy.len);
	bytes_free(&copy);
}
#endif

#endif
