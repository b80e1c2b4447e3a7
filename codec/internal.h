/* SPDX-License-Identifier: Apache-2.0 */
/* What the codec's files share and `avpctl frame` may use. */
#ifndef AVP_CODEC_INTERNAL_H
#define AVP_CODEC_INTERNAL_H

#include <avp/codec.h>

/* Pairs of extra that are sorted without an allocation. */
#define AVP__FEW_PAIRS 16

/*
 * Sorts n pairs by key, in code-point order, and keeps the last of equal keys:
 * how many there are then. spare has room for n.
 */
size_t avp__pairs_sort(struct avp_pair *pair, size_t n, struct avp_pair *spare);

/*
 * Extra as it is written: keys in code-point order, each once. pair points to
 * few or to memory that fini frees; the strings are borrowed from m.
 */
struct avp__extra {
	size_t count;
	struct avp_pair *pair;
	struct avp_pair few[AVP__FEW_PAIRS];
};
int avp__extra_init(struct avp__extra *extra, const struct avp_metadata *m,
		    struct avp_reason *why);
void avp__extra_fini(struct avp__extra *extra);

/* Metadata measured and found encodable; then written in one pass. */
struct avp__plan {
	const struct avp_metadata *m;
	uint32_t bytes, shape_bytes, wire_mode, confidence, checksum;
	struct avp__extra extra;
};
int avp__plan_init(struct avp__plan *plan, const struct avp_metadata *m,
		   enum avp_dialect dialect, struct avp_reason *why);
uint8_t *avp__plan_write(const struct avp__plan *plan, uint8_t *out);
void avp__plan_fini(struct avp__plan *plan);

/* The dialect that a frame's flags and metadata (modes as on the wire) tell. */
enum avp_dialect avp__dialect_detect(unsigned int flags,
				     const struct avp_metadata *m);
/* Mode of a number on the wire, and back; -1 if the dialect has no such. */
int avp__mode_read(uint32_t wire, enum avp_dialect dialect);
int avp__mode_write(uint32_t mode, enum avp_dialect dialect);
unsigned int avp__flags(const struct avp_metadata *m, enum avp_dialect dialect);

/*
 * The two halves of avp_frame_decode(), between which the reference
 * decompresses. After the first, metadata.mode is still the wire's number.
 */
int avp__frame_parse(const uint8_t *head, uint64_t head_bytes,
		     uint64_t total_bytes, struct avp_frame *frame,
		     uint64_t *need, struct avp_reason *why);
int avp__frame_check_enums(struct avp_frame *frame, struct avp_reason *why);

#endif
