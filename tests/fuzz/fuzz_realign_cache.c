/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a realignment cache, and as the pickle inside one: the CRC-32 of
 * the archive would keep most inputs from it. As a test: the file that torch
 * wrote, its pickle, their beginnings, and each byte changed.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <avp/latent.h>

#include "latent/realign_pickle.h"
#include "tests/fuzz.h"

/* What is accepted lies in its storage, to the last element. */
static void check_pickle(const uint8_t *data, size_t len)
{
	struct avp__pickled_matrix m;
	struct avp_reason why;

	if (avp__pickle_read(data, len, &m, &why)) {
		MUST(why.text[0]);
		return;
	}
	MUST(m.w.rank == 2 && m.w.shape[0] == m.w.shape[1] && m.w.shape[0]);
	MUST(m.w.offset + (m.w.shape[0] - 1) * m.w.stride[0] +
		     (m.w.shape[1] - 1) * m.w.stride[1] <
	     m.w.elements);
	MUST(strlen(m.w.key) < sizeof(m.w.key));
}

static void check_file(const uint8_t *data, size_t len)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	struct avp_realign_matrix m;
	struct avp_reason why;
	char path[64];

	MUST(fd >= 0 && write(fd, data, len) == (ssize_t)len);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (avp_realign_cache_read(path, &m, &why)) {
		MUST(why.text[0]);
	} else {
		MUST(isfinite(m.target_norm) && m.dim);
		avp_realign_matrix_fini(&m);
	}
	close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	check_pickle(data, len);
	check_file(data, len);
	return 0;
}

#ifndef AVP_FUZZING
static void feed_neighbours(uint8_t *data, size_t len, int step)
{
	for (size_t n = 0; n <= len; n++)
		feed(data, n);
	for (size_t i = 0; i < len; i++)
		for (int x = 1; x < 256; x += step) {
			data[i] ^= (uint8_t)x;
			feed(data, len);
			data[i] ^= (uint8_t)x;
		}
}

/* The pickle stands at byte 64 of the file and has 234 bytes. */
static void what_torch_wrote(void)
{
	const struct avp_json *c = vectors_first("realign_cache");
	struct avp__pickled_matrix m;
	struct bytes b;

	if (!vectors_are_ours())
		return;
	b = vectors_file(case_str(c, "file"));
	CU_ASSERT_EQUAL_FATAL(avp__pickle_read(b.data + 64, 234, &m, NULL), 0);
	feed_neighbours(b.data, b.len, 50);
	feed_neighbours(b.data + 64, 234, 1);
	bytes_free(&b);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(what_torch_wrote),
		{0},
	};

	return test_main("fuzz_realign_cache", tests);
}
#endif
