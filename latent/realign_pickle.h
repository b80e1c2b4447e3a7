/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pickle inside a realignment cache: a dictionary {"w_realign": tensor,
 * "target_norm": tensor or number}. Read by a parser that builds values of its
 * own and calls nothing: GLOBAL is compared with the three names that such a
 * dictionary needs, REDUCE understands two of them.
 */
#ifndef AVP_LATENT_REALIGN_PICKLE_H
#define AVP_LATENT_REALIGN_PICKLE_H

#include <avp/latent.h>

/* Of the pickle; torch's has under 300 bytes. */
#define AVP__PICKLE_BYTES 4096

struct avp__pickled_tensor {
	uint32_t dtype;	   /* of the storage */
	char key[16];	   /* member data/<key> */
	uint64_t elements; /* of the storage */
	uint64_t offset;   /* in elements */
	uint32_t rank;	   /* 0 to 2 */
	uint64_t shape[2], stride[2];
};

struct avp__pickled_matrix {
	struct avp__pickled_tensor w; /* square; inside its storage */
	int norm_is_tensor;
	struct avp__pickled_tensor norm; /* one element, inside its storage */
	double norm_number;
};

/* 0 or AVP_DESERIALIZATION_ERROR with the opcode's offset. */
int avp__pickle_read(const uint8_t *bytes, size_t len,
		     struct avp__pickled_matrix *m, struct avp_reason *why);

/*
 * Writes the pickle of a contiguous float32 matrix in storage "0" and a scalar
 * in storage "1", as torch.save() does. Its length; room for
 * AVP__PICKLE_BYTES.
 */
size_t avp__pickle_write(uint8_t *out, uint32_t dim);

#endif
