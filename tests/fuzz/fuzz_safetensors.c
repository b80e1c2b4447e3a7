/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a safetensors file. Whatever is accepted has all its tensors
 * inside the file. As a test: a good file, its beginnings, and each byte of it
 * changed.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <avp/latent.h>

#include "tests/fuzz.h"

static volatile unsigned sink; /* so that reads are not left out */

static void walk(const struct avp_weights *w)
{
	struct avp_tensor in, out;

	for (uint32_t i = 0; i < avp_weights_count(w); i++) {
		struct avp_str name = avp_weights_name(w, i);
		struct avp_tensor t;

		if (avp_weights_find(w, name, &t, NULL) == 1 &&
		    avp_tensor_count(&t)) {
			const uint8_t *p = t.data;

			sink += p[0] + (unsigned)p[avp_tensor_bytes(&t) - 1];
		}
	}
	avp_weights_embeddings(w, &in, &out, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	struct avp_weights *w;
	struct avp_reason why;
	char path[64];

	MUST(fd >= 0 && write(fd, data, len) == (ssize_t)len);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (avp_weights_open(&w, path, &why)) {
		MUST(why.text[0]);
	} else {
		walk(w);
		avp_weights_close(w);
	}
	close(fd);
	return 0;
}

#ifndef AVP_FUZZING
#include "tests/harness.h"

static const char header[] =
	"{\"__metadata__\":{\"format\":\"pt\"},\"model.embed_tokens.weight\":"
	"{\"dtype\":\"BF16\",\"shape\":[3,2],\"data_offsets\":[0,12]},"
	"\"lm_head.weight\":{\"dtype\":\"F32\",\"shape\":[3,1],"
	"\"data_offsets\":[12,24]}}";

static void a_file_and_its_neighbours(void)
{
	uint8_t file[8 + sizeof(header) - 1 + 24] = {sizeof(header) - 1};

	memcpy(file + 8, header, sizeof(header) - 1);
	for (size_t n = 0; n <= sizeof(file); n++)
		LLVMFuzzerTestOneInput(file, n);
	for (size_t i = 0; i < sizeof(file) - 24; i++)
		for (int bit = 0; bit < 8; bit++) {
			file[i] ^= (uint8_t)(1 << bit);
			LLVMFuzzerTestOneInput(file, sizeof(file));
			file[i] ^= (uint8_t)(1 << bit);
		}
	/* Each character by each that has a meaning. */
	for (size_t i = 8; i < sizeof(file) - 24; i++)
		for (const char *c = "0129-.e,:{}[]\"\\n"; *c; c++) {
			const uint8_t was = file[i];

			file[i] = (uint8_t)*c;
			LLVMFuzzerTestOneInput(file, sizeof(file));
			file[i] = was;
		}
	CU_ASSERT_EQUAL(file[8], '{');
}

int main(void)
{
	static const struct test tests[] = {
		TEST(a_file_and_its_neighbours),
		{0},
	};

	return test_main("fuzz_safetensors", tests);
}
#endif
