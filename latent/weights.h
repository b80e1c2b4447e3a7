/* SPDX-License-Identifier: Apache-2.0 */
/* The set of mapped files behind struct avp_weights; see safetensors.c. */
#ifndef AVP_LATENT_WEIGHTS_H
#define AVP_LATENT_WEIGHTS_H

#include <avp/json.h>
#include <avp/latent.h>

#include "latent/shown.h"

struct avp__weight {
	struct avp_str name; /* in its file's document */
	struct avp_tensor tensor;
	const char *dtype; /* static; NULL: no dtype that we know */
	uint32_t file;
	uint64_t begin, end; /* of its bytes, from the end of the header */
};

struct avp__weights_file {
	struct avp_str
		name; /* in the index's document; empty if there is none */
	struct avp_json_doc *header;
	void *map;
	uint64_t bytes, data_off;
};

struct avp_weights {
	struct avp_json_doc *index;
	struct avp__weights_file *files;
	struct avp__weight *all; /* by name, once complete */
	uint32_t file_count, count, capacity;
};

/* Maps one file and adds its tensors to w. dir_fd as for openat(). */
int avp__weights_add(struct avp_weights *w, int dir_fd, const char *path,
		     struct avp_str name, struct avp_reason *why);

/*
 * The bytes of a whole file of at most `limit`, for free(). AVP_IO,
 * AVP_PERMISSION, AVP_TOO_LARGE or AVP_NO_MEMORY.
 */
int avp__file_read(int dir_fd, const char *path, uint64_t limit, char **text,
		   size_t *len, struct avp_reason *why);

/* AVP_PERMISSION or AVP_IO with the path and what errno says. */
int avp__file_failed(const char *path, struct avp_reason *why);

#endif
