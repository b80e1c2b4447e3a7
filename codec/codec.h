/* SPDX-License-Identifier: Apache-2.0 */
/*
 * <avp/codec.h>: AVP frames, their metadata and their compression.
 *
 * A frame (AVP specification, binary format; all numbers little-endian):
 *
 *      0  2  magic "AV"
 *      2  1  version 1
 *      3  1  flags
 *      4  4  payload_length = metadata and tensor bytes
 *      8  4  metadata_length
 *     12     protobuf Metadata, then tensor bytes (one zstd frame if compressed)
 *
 * Everything here is a pure function on bytes: no global state, no I/O, any
 * thread, and no allocation except where a comment says so. A function may be
 * called on different objects from different threads at once.
 *
 * The bytes that a function parses must not change while it runs. What lies in
 * memory that another process can write is copied first; of a frame in a peer's
 * memory copy its first bytes only, see avp_frame_decode_head().
 */
#ifndef AVP_CODEC_H
#define AVP_CODEC_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <avp/error.h>
#include <avp/str.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* ---- words of the protocol ---------------------------------------------- */

enum avp_payload_type {
	AVP_HIDDEN_STATE = 0,
	AVP_KV_CACHE = 1,
	AVP_EMBEDDING = 2 /* not in SDK 0.5 and later */
};

enum avp_dtype {
	AVP_FLOAT32 = 0,
	AVP_FLOAT16 = 1,
	AVP_BFLOAT16 = 2,
	AVP_INT8 = 3
};

/* The dialects number modes differently on the wire; these are ours. */
enum avp_mode {
	AVP_MODE_LATENT = 0,
	AVP_MODE_HYBRID = 1, /* dialect 0.2 only */
	AVP_MODE_JSON = 2
};

/*
 * What the reference SDK wrote before and since its 0.3.0. All say version 1.
 * AVP_DIALECT_0_4 stands for 0.4.1 and later: flags and JSON mode renumbered,
 * HYBRID, EMBEDDING and confidence_score gone, payload_checksum added.
 */
enum avp_dialect { AVP_DIALECT_0_2 = 0, AVP_DIALECT_0_4 = 1 };

/*
 * "FLOAT16", "KV_CACHE", "LATENT", "0.2" ...; NULL for a number that the
 * protocol does not know. Static storage.
 */
const char *avp_payload_type_name(uint32_t payload_type);
const char *avp_dtype_name(uint32_t dtype);
const char *avp_mode_name(uint32_t mode);
const char *avp_dialect_name(uint32_t dialect);

/* Bytes of one element: 4, 2, 2, 1; 0 for an unknown dtype. */
size_t avp_dtype_size(uint32_t dtype);

/* ---- metadata ----------------------------------------------------------- */

struct avp_pair {
	struct avp_str key, value;
};

#define AVP_SHAPE_INLINE 8

/* Bits of avp_metadata.has: fields whose presence says something. */
#define AVP_HAS_CHECKSUM   1u /* payload_checksum, read and written */
#define AVP_HAS_CONFIDENCE 2u /* set by reading only */
#define AVP_HAS_COMPAT	   4u /* a field of 100-103, set by reading only */

/*
 * Metadata of one frame; all zero bytes are the protocol's defaults. The caller
 * owns it; it owns nothing: strings, `shape` and `extra` are borrowed, for
 * encoding until the call returns, after decoding they point into the bytes
 * that were decoded and live as long as those.
 *
 * A decoded struct, changed or not, can be encoded again: shape and extra then
 * come from `raw` where the members here do not hold them.
 */
struct avp_metadata {
	struct avp_str session_id;	/* field 1 */
	struct avp_str source_agent_id; /* 2 */
	struct avp_str target_agent_id; /* 3 */
	struct avp_str model_id;	/* 4 */
	struct avp_str avp_map_id;	/* 13 */
	struct avp_str compression;	/* 11; data is NULL when absent */
	uint32_t hidden_dim;		/* 5 */
	uint32_t num_layers;		/* 6 */
	uint32_t payload_type;		/* 7, enum avp_payload_type */
	uint32_t dtype;			/* 8, enum avp_dtype */
	uint32_t mode;			/* 10, enum avp_mode */
	float confidence_score;		/* 12, every bit of it is kept */
	uint32_t payload_checksum;	/* 15, if has & AVP_HAS_CHECKSUM */
	uint32_t has;			/* AVP_HAS_... */
	/*
	 * tensor_shape (9). Encoding takes shape_count numbers from `shape`, or
	 * from shape_inline if that is NULL. Decoding leaves `shape` NULL and
	 * the first AVP_SHAPE_INLINE of them in shape_inline; avp_shape_next()
	 * and avp_metadata_shape() reach all.
	 */
	uint32_t shape_count;
	uint32_t shape_inline[AVP_SHAPE_INLINE];
	/*
	 * extra (14). Encoding writes extra_count pairs in code-point order of
	 * their keys, the last of equal keys. Decoding leaves `extra` NULL and
	 * in extra_count the entries on the wire, equal keys included; see
	 * avp_extra_next() and avp_metadata_extra_get().
	 */
	uint32_t extra_count;
	const uint32_t *shape;
	const struct avp_pair *extra;
	const uint8_t *raw; /* set by decoding: the metadata's bytes */
	size_t raw_bytes;
};

/*
 * Reads a protobuf Metadata. Accepts what the reference's protobuf accepts:
 * unknown fields and groups (to a depth of 100), packed and unpacked shapes,
 * over-long varints, values cut to 32 bits, a field of the wrong wire type as
 * unknown, the last value of a repeated field. Refuses bytes that are not
 * protobuf, invalid UTF-8 in a known string, and an entry of `extra` with
 * unknown fields, about which the runtimes disagree.
 *
 * The numbers of payload_type, dtype and mode are those on the wire: what they
 * mean is known with the frame's flags, see avp_frame_decode().
 *
 * 0, or AVP_BAD_METADATA with *m in no particular state.
 */
int avp_metadata_decode(const uint8_t *bytes, size_t len,
			struct avp_metadata *m, struct avp_reason *why);

/*
 * Walks tensor_shape, of a struct for encoding as of a decoded one. Begin with
 * { .metadata = m } and zeros. 1 with *dim filled, 0 at the end.
 */
struct avp_shape_cursor {
	const struct avp_metadata *metadata;
	uint32_t index;
	const uint8_t *at, *packed, *packed_end; /* private */
};
int avp_shape_next(struct avp_shape_cursor *cursor, uint32_t *dim);

/* Copies up to `capacity` first dims of the shape; how many there were. */
size_t avp_metadata_shape(const struct avp_metadata *m, uint32_t *dims,
			  size_t capacity);

/*
 * Walks extra in the order of the array or of the wire; when a key comes again,
 * the later value holds. Begin with { .metadata = m } and zeros. 1 with *pair
 * filled (borrowed like the strings of m), 0 at the end.
 */
struct avp_extra_cursor {
	const struct avp_metadata *metadata;
	uint32_t index;
	const uint8_t *at; /* private */
};
int avp_extra_next(struct avp_extra_cursor *cursor, struct avp_pair *pair);

/* 1 with *value filled if extra has the key, else 0. */
int avp_metadata_extra_get(const struct avp_metadata *m, struct avp_str key,
			   struct avp_str *value);

/*
 * Fields 100-103 of version 0.1, which are read and never written. 1 if a
 * decoded m has any (AVP_HAS_COMPAT), else 0 and zeros. The data of agent_id
 * and task_id is NULL when they are absent.
 */
struct avp_metadata_compat {
	uint32_t embedding_dim;
	struct avp_str data_type, agent_id, task_id;
};
int avp_metadata_compat(const struct avp_metadata *m,
			struct avp_metadata_compat *compat);

/*
 * Bytes that avp_metadata_encode() will write, or the error it would return.
 * Both allocate, and free again, for more than 16 pairs of extra.
 */
int avp_metadata_size(const struct avp_metadata *m, enum avp_dialect dialect);

/*
 * Writes m canonically: fields ascending, defaults left out, shapes packed.
 * Dialect 0.4 leaves confidence_score out, 0.2 payload_checksum.
 *
 * Bytes written; or AVP_BAD_PAYLOAD_TYPE, AVP_BAD_DTYPE, AVP_BAD_MODE for a
 * value that the dialect does not have, AVP_BAD_METADATA for invalid UTF-8,
 * AVP_TOO_LARGE over 2 GiB or over the capacity, AVP_NO_MEMORY, AVP_USAGE.
 */
int avp_metadata_encode(const struct avp_metadata *m, enum avp_dialect dialect,
			uint8_t *out, size_t capacity, struct avp_reason *why);

/* ---- frames: reading ---------------------------------------------------- */

#define AVP_FRAME_HEADER_BYTES 12

/* Header flags. Only the first is obeyed on reading: metadata outranks
 * flags. */
#define AVP_FLAG_COMPRESSED   0x01
#define AVP_FLAG_HYBRID	      0x02 /* dialect 0.2 */
#define AVP_FLAG_HAS_MAP      0x04 /* dialect 0.2 */
#define AVP_FLAG_KV_CACHE     0x08 /* dialect 0.2 */
#define AVP_FLAG_HAS_MAP_0_4  0x02
#define AVP_FLAG_KV_CACHE_0_4 0x04

/*
 * A frame that was read. Payload means the bytes behind the metadata as they
 * stand in the frame: the tensor, or one zstd frame if AVP_FLAG_COMPRESSED.
 * In `metadata`, mode is an enum avp_mode whatever the dialect, and compression
 * is "zstd" or absent after the flag, which decides.
 */
struct avp_frame {
	uint8_t version, flags;
	uint8_t dialect;	  /* enum avp_dialect, judged from the frame */
	uint32_t payload_length;  /* as in the header */
	uint32_t metadata_length; /* as in the header */
	uint64_t payload_off;	  /* from the frame's first byte */
	uint64_t payload_bytes;	  /* in the frame */
	uint64_t content_bytes;	  /* uncompressed; 0 if not yet known */
	uint64_t raw_size;	  /* of the input, bytes after the frame too */
	const void *payload;	  /* NULL from avp_frame_decode_head() */
	struct avp_metadata metadata;
};

/* The frame's whole length; what the input has beyond it is not its own. */
static inline uint64_t avp_frame_bytes(const struct avp_frame *frame)
{
	return AVP_FRAME_HEADER_BYTES + (uint64_t)frame->payload_length;
}

/*
 * Reads the frame at the beginning of `bytes`, in place: nothing is copied and
 * the payload is not looked at; of a compressed one only the zstd headers are.
 * Bytes after the frame are allowed. Checks, in this order: length, magic,
 * version, truncation, metadata, the zstd frame's outside, enums. What the
 * payload means (its size against tensor_shape, a KV-cache header, a
 * HybridPayload) is not judged, nor is payload_checksum: see
 * avp_frame_payload_check().
 *
 * 0; or AVP_SHORT_HEADER, AVP_BAD_MAGIC, AVP_BAD_VERSION, AVP_TRUNCATED,
 * AVP_BAD_METADATA, AVP_BAD_LENGTHS, AVP_BAD_COMPRESSION, AVP_BAD_PAYLOAD_TYPE,
 * AVP_BAD_MODE, AVP_BAD_DTYPE, with *frame in no particular state.
 */
int avp_frame_decode(const void *bytes, uint64_t len, struct avp_frame *frame,
		     struct avp_reason *why);

/*
 * The same for a frame that lies elsewhere, as in a peer's memory: `head` is a
 * private copy of its first head_bytes bytes, total_bytes the size of what it
 * was copied from. frame->payload is NULL, payload_off says where it begins;
 * the outside of a zstd frame is not checked and content_bytes then 0.
 *
 * AVP_AGAIN if header and metadata are longer than the head: *need bytes of it
 * are asked for, and nothing was allocated or trusted to say so; the caller
 * judges that size before copying. Otherwise as avp_frame_decode().
 */
int avp_frame_decode_head(const void *head, size_t head_bytes,
			  uint64_t total_bytes, struct avp_frame *frame,
			  uint64_t *need, struct avp_reason *why);

/*
 * The head of the last frame of a stream, and what it said: frames that follow
 * one another mostly differ in their payload alone. Zeros to begin with; plain
 * memory, not to be moved.
 */
#define AVP_FRAME_MEMO_BYTES 256
struct avp_frame_memo {
	uint32_t len;	  /* of head; 0: nothing remembered */
	uint32_t changes; /* how often another head was read */
	uint8_t head[AVP_FRAME_MEMO_BYTES];
	struct avp_frame frame;
};

/*
 * avp_frame_decode_head(), with the same answers and the same result; a head
 * that says what the last one said, but for payload_length, is not read again.
 */
int avp_frame_decode_again(struct avp_frame_memo *memo, const void *head,
			   size_t head_bytes, uint64_t total_bytes,
			   struct avp_frame *frame, uint64_t *need,
			   struct avp_reason *why);

/*
 * Compares payload_checksum, when the frame has one, with the CRC-32 of the
 * uncompressed payload that the caller holds: a scan of it. 0 if it fits or
 * there is none, else AVP_CHECKSUM.
 */
int avp_frame_payload_check(const struct avp_frame *frame, const void *content,
			    uint64_t content_bytes, struct avp_reason *why);

/* CRC-32 as in zlib (reflected 0x04c11db7), the one of payload_checksum. */
uint32_t avp_crc32(const void *bytes, size_t len);

/* ---- frames: writing ---------------------------------------------------- */

/*
 * The flags follow from the metadata: compressed when `compression` is set
 * (to "zstd", the payload being one zstd frame), the others from mode,
 * avp_map_id and payload_type. Errors are those of avp_metadata_encode(),
 * AVP_BAD_COMPRESSION for another compression, and AVP_TOO_LARGE when metadata
 * and payload exceed what payload_length can say, 4 GiB - 1.
 */

/* Bytes of header and metadata, or the error of encoding them. */
int avp_frame_head_size(const struct avp_metadata *m, enum avp_dialect dialect);

/*
 * Writes header and metadata for a payload of payload_bytes that the caller
 * puts behind them. Bytes written or an error.
 */
int avp_frame_head_encode(const struct avp_metadata *m,
			  enum avp_dialect dialect, uint64_t payload_bytes,
			  uint8_t *out, size_t capacity,
			  struct avp_reason *why);

/*
 * Writes the head so that it ends where the payload begins, into the
 * `headroom` bytes before it: a tensor that was written where it shall lie
 * becomes a frame without a copy. *frame is the frame's first byte. In dialect
 * 0.4 a payload_checksum is added if m has none, which scans the payload,
 * unless it is compressed. Bytes of the head or an error.
 */
int avp_frame_encode_before(const struct avp_metadata *m,
			    enum avp_dialect dialect, void *payload,
			    uint64_t payload_bytes, size_t headroom,
			    void **frame, struct avp_reason *why);

/*
 * Writes a whole frame into the caller's memory; the payload is copied. A
 * payload_checksum is added as above. 0 with the frame's length in *len.
 */
int avp_frame_encode(const struct avp_metadata *m, enum avp_dialect dialect,
		     const void *payload, uint64_t payload_bytes, void *out,
		     uint64_t capacity, uint64_t *len, struct avp_reason *why);

/*
 * A head prepared once for frames that differ in their payload alone. It is
 * plain memory and borrows nothing.
 */
#define AVP_FRAME_TEMPLATE_BYTES 248
struct avp_frame_template {
	uint32_t len;		  /* header and metadata */
	uint32_t metadata_length; /* of it */
	uint8_t bytes[AVP_FRAME_TEMPLATE_BYTES];
};

/* 0, or an error; AVP_TOO_LARGE if the head does not fit. */
int avp_frame_template_init(struct avp_frame_template *t,
			    const struct avp_metadata *m,
			    enum avp_dialect dialect, struct avp_reason *why);

/*
 * Stamps a head for payload_bytes into out, which has room for t->len bytes.
 * Its length, or AVP_TOO_LARGE.
 */
static inline int avp_frame_template_stamp(const struct avp_frame_template *t,
					   uint64_t payload_bytes, void *out)
{
	uint8_t *p = (uint8_t *)out + 4;
	uint32_t n;

	if (payload_bytes > UINT32_MAX - t->metadata_length)
		return AVP_TOO_LARGE;
	n = t->metadata_length + (uint32_t)payload_bytes;
	memcpy(out, t->bytes, t->len);
	p[0] = (uint8_t)n;
	p[1] = (uint8_t)(n >> 8);
	p[2] = (uint8_t)(n >> 16);
	p[3] = (uint8_t)(n >> 24);
	return (int)t->len;
}

/* ---- compression -------------------------------------------------------- */

/* Levels of the protocol, as zstd numbers them. */
enum avp_compression {
	AVP_COMPRESS_NONE = 0,
	AVP_COMPRESS_FAST = 1,
	AVP_COMPRESS_BALANCED = 3,
	AVP_COMPRESS_MAX = 19
};

/*
 * zstd's working memory, reused from call to call; one thread at a time. NULL
 * without memory; free takes NULL. The contexts behind it are allocated at
 * their first use: some 1 MB, about 80 MB for AVP_COMPRESS_MAX of a big
 * payload.
 */
struct avp_zstd;
struct avp_zstd *avp_zstd_new(void);
void avp_zstd_free(struct avp_zstd *z);

/* Room in which so many bytes can always be compressed. */
uint64_t avp_zstd_bound(uint64_t content_bytes);

/*
 * Compresses into one zstd frame with its content size. 0 with its length in
 * *len; AVP_TOO_LARGE, AVP_NO_MEMORY, AVP_USAGE.
 */
int avp_zstd_compress(struct avp_zstd *z, enum avp_compression level,
		      const void *content, uint64_t content_bytes, void *out,
		      uint64_t capacity, uint64_t *len, struct avp_reason *why);

/*
 * What a zstd frame says it expands to, from its headers alone. A lie is
 * possible, so judge it before allocating. AVP_BAD_COMPRESSION unless the bytes
 * are exactly one zstd frame that has its content size: no skippable frame, no
 * bytes behind.
 */
int avp_zstd_content_size(const void *bytes, uint64_t len,
			  uint64_t *content_bytes, struct avp_reason *why);

/*
 * Expands one zstd frame into the caller's memory, never more than capacity;
 * AVP_TOO_LARGE, before anything is written, if it says more. The bytes must
 * not lie where a peer can change them. 0 with the length in *content_bytes;
 * AVP_BAD_COMPRESSION, AVP_NO_MEMORY.
 */
int avp_zstd_decompress(struct avp_zstd *z, const void *bytes, uint64_t len,
			void *out, uint64_t capacity, uint64_t *content_bytes,
			struct avp_reason *why);

/* Room in which avp_frame_compress() always succeeds, or the error it gives. */
int avp_frame_compress_bound(const struct avp_metadata *m,
			     enum avp_dialect dialect, uint64_t payload_bytes,
			     uint64_t *bound);

/*
 * Writes a whole frame with its payload compressed, be it smaller or not; m's
 * own compression is not looked at. In dialect 0.4 with a payload_checksum. 0
 * with the frame's length in *len, or an error of the above.
 */
int avp_frame_compress(struct avp_zstd *z, enum avp_compression level,
		       const struct avp_metadata *m, enum avp_dialect dialect,
		       const void *payload, uint64_t payload_bytes, void *out,
		       uint64_t capacity, uint64_t *len,
		       struct avp_reason *why);

/* ---- the other messages ------------------------------------------------- */

/*
 * HybridPayload, the payload of a frame of mode HYBRID: text and latent chunks
 * in turn. A chunk_type that the protocol does not know is kept.
 */
enum avp_chunk_type { AVP_CHUNK_TEXT = 0, AVP_CHUNK_LATENT = 1 };
struct avp_hybrid_chunk {
	int32_t chunk_type;
	float confidence;
	const void *data; /* borrowed; text need not be UTF-8 */
	uint64_t bytes;
};

/*
 * Walks the chunks of a HybridPayload in place. Begin with { bytes, bytes +
 * len }, which must not change meanwhile. 1 with *chunk filled, 0 at the end,
 * AVP_DESERIALIZATION_ERROR where the bytes are no HybridPayload.
 */
struct avp_hybrid_cursor {
	const uint8_t *at, *end;
};
int avp_hybrid_next(struct avp_hybrid_cursor *cursor,
		    struct avp_hybrid_chunk *chunk, struct avp_reason *why);

/* Bytes that avp_hybrid_encode() will write. */
uint64_t avp_hybrid_size(const struct avp_hybrid_chunk *chunks, size_t count);

/* 0 with the length in *len, or AVP_TOO_LARGE: no room, a chunk over 2 GiB. */
int avp_hybrid_encode(const struct avp_hybrid_chunk *chunks, size_t count,
		      void *out, uint64_t capacity, uint64_t *len,
		      struct avp_reason *why);

/* The two messages below are small; more than this is refused unread. */
#define AVP_MESSAGE_MAX_BYTES 65536

/*
 * FallbackRequest as protobuf: the sender asks for JSON instead of latents.
 * Decoding fills the struct with strings that live until _fini, which leaves
 * zeros; a struct for encoding needs no _fini.
 *
 * encode: bytes written, or AVP_SERIALIZATION_ERROR (not UTF-8), AVP_TOO_LARGE,
 * AVP_NO_MEMORY. decode: 0, or AVP_DESERIALIZATION_ERROR, AVP_TOO_LARGE,
 * AVP_NO_MEMORY.
 */
struct avp_pb_fallback_request {
	struct avp_str session_id, reason;
	float perplexity_score;
	void *owned; /* private */
};
int avp_pb_fallback_request_encode(const struct avp_pb_fallback_request *m,
				   void *out, size_t capacity,
				   struct avp_reason *why);
int avp_pb_fallback_request_decode(const void *bytes, size_t len,
				   struct avp_pb_fallback_request *m,
				   struct avp_reason *why);
void avp_pb_fallback_request_fini(struct avp_pb_fallback_request *m);

/*
 * TransmitResponse as protobuf; the same rules. message and request_id are
 * absent when their data is NULL. extra is written in code-point order, the
 * last of equal keys; decoding gives it so.
 */
struct avp_pb_transmit_response {
	int success;
	struct avp_str message, request_id;
	const struct avp_pair *extra;
	uint32_t extra_count;
	void *owned; /* private */
};
int avp_pb_transmit_response_encode(const struct avp_pb_transmit_response *m,
				    void *out, size_t capacity,
				    struct avp_reason *why);
int avp_pb_transmit_response_decode(const void *bytes, size_t len,
				    struct avp_pb_transmit_response *m,
				    struct avp_reason *why);
void avp_pb_transmit_response_fini(struct avp_pb_transmit_response *m);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#include <avp/json.h>

#endif
