/* SPDX-License-Identifier: Apache-2.0 */
/*
 * <avp/latent.h>: tensors, KV-caches, model files, compatibility of models, and
 * the matrices that carry hidden states from one model into another.
 *
 * Everything here is a function on the caller's memory: no global state, no
 * threads of its own, and no allocation except where a comment says so. A
 * function may be called on different objects from different threads at once.
 * What reads a tensor reads it in place: in memory of another process the
 * numbers may change while they are read, and the result is then some other
 * numbers, never a fault. Sizes and headers are copied before they are judged.
 *
 * The last part (realignment, projection and their cache) is in libavp-latent,
 * which links OpenBLAS; the rest is in libavp.
 */
#ifndef AVP_LATENT_H
#define AVP_LATENT_H

#include <stddef.h>
#include <stdint.h>

#include <avp/codec.h>
#include <avp/error.h>
#include <avp/hello.h>
#include <avp/json.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* ---- numbers ------------------------------------------------------------ */

/*
 * Converts count numbers; `to` and `from` do not overlap and need no alignment.
 * Narrowing rounds to nearest, ties to even; too large becomes infinity, and
 * for int8, which counts as plain integers here, the nearest end. Denormals are
 * kept. A NaN becomes quiet with its sign kept, and 0 in int8; bfloat16 to
 * float32 moves the bits as they are. The bits do not depend on the processor.
 * Equal dtypes are copied. 0, or AVP_BAD_DTYPE.
 */
int avp_convert(void *to, uint32_t to_dtype, const void *from,
		uint32_t from_dtype, size_t count);

/* Nearest integers of from / scale, saturated; and back, times scale. */
void avp_int8_quantize(int8_t *to, const float *from, size_t count,
		       float scale);
void avp_int8_dequantize(float *to, const int8_t *from, size_t count,
			 float scale);

/* ---- tensors ------------------------------------------------------------ */

#define AVP_TENSOR_RANK 8

/*
 * A view: where the numbers are and how to walk them. It owns nothing and lives
 * as long as the memory. `data` is not const so that one type serves both
 * sides: a view of a received message is to be read only, and its mapping
 * enforces that.
 */
struct avp_tensor {
	void *data; /* the first element; any alignment */
	uint32_t dtype;
	uint32_t rank;
	uint64_t shape[AVP_TENSOR_RANK];
	int64_t stride[AVP_TENSOR_RANK]; /* in bytes */
};

/*
 * A contiguous row-major tensor. 0, AVP_BAD_DTYPE, or AVP_TOO_LARGE if its
 * size does not fit 63 bits or the rank is over AVP_TENSOR_RANK.
 */
int avp_tensor_init(struct avp_tensor *t, const void *data, uint32_t dtype,
		    uint32_t rank, const uint64_t *shape);

/* Elements, and the bytes that they take without gaps. */
uint64_t avp_tensor_count(const struct avp_tensor *t);
uint64_t avp_tensor_bytes(const struct avp_tensor *t);

/* 1 if the elements lie row-major without gaps, else 0. */
int avp_tensor_contiguous(const struct avp_tensor *t);

/*
 * Views into views; out may be t. 0, or AVP_USAGE with *out untouched when
 * there is no such dimension or range.
 */
int avp_tensor_slice(const struct avp_tensor *t, uint32_t dim, uint64_t first,
		     uint64_t count, struct avp_tensor *out);
int avp_tensor_select(const struct avp_tensor *t, uint32_t dim, uint64_t index,
		      struct avp_tensor *out); /* rank goes down by one */
int avp_tensor_swap(const struct avp_tensor *t, uint32_t a, uint32_t b,
		    struct avp_tensor *out);

/*
 * Copies element by element, converting. Shapes must be equal: else
 * AVP_SHAPE_MISMATCH and nothing was written. The memory must not overlap.
 */
int avp_tensor_copy(const struct avp_tensor *to, const struct avp_tensor *from,
		    struct avp_reason *why);

/*
 * The view that a frame's metadata describes: tensor_shape of the dtype over
 * the uncompressed payload, which must be exactly that long. Without a
 * tensor_shape it is one-dimensional. Not for KV-caches and hybrid frames.
 * 0, AVP_BAD_DTYPE, or AVP_SHAPE_MISMATCH.
 */
int avp_tensor_of_frame(const struct avp_metadata *m, const void *content,
			uint64_t content_bytes, struct avp_tensor *t,
			struct avp_reason *why);

/* ---- KV-caches ---------------------------------------------------------- */

/*
 * A KV-cache payload (AVP specification): a header of 17 bytes, num_layers,
 * num_kv_heads, head_dim, seq_len as uint32 and one dtype byte, then K0 V0 K1
 * V1 ..., each [num_kv_heads][seq_len][head_dim], contiguous, little-endian.
 */
#define AVP_KV_HEADER_BYTES 17

struct avp_kv_shape {
	uint32_t num_layers, num_kv_heads, head_dim, seq_len; /* >= 1 each */
	uint32_t dtype; /* AVP_FLOAT32, AVP_FLOAT16 or AVP_BFLOAT16 */
};

enum avp_kv_which { AVP_KV_K = 0, AVP_KV_V = 1 };

/*
 * An opened or built cache: a private copy of the header and where the tensors
 * are. It owns nothing. Layers count from first_layer, which is 0 except in a
 * part of a cache (see below).
 */
struct avp_kv {
	struct avp_kv_shape shape;
	uint32_t first_layer;
	void *tensors;	       /* K of the first layer */
	uint64_t tensor_bytes; /* of one K or V */
};

/*
 * Bytes of the whole payload, header included. 0 with *bytes; AVP_KV_SIZE for a
 * count of 0, AVP_BAD_DTYPE, or AVP_TOO_LARGE if they do not fit 63 bits.
 */
int avp_kv_bytes(const struct avp_kv_shape *shape, uint64_t *bytes,
		 struct avp_reason *why);

/*
 * Writes the header at payload, whose tensors the caller then fills through
 * avp_kv_tensor(): a cache is built where it is sent from. The tensors begin at
 * payload + 17, which must be a 64-byte boundary so that vector code can write
 * them: avp_kv_padding() says how to get there. The other tensors follow
 * without gaps, aligned as far as the bytes of one allow (any multiple of 64
 * bytes is).
 *
 * 0; AVP_USAGE if misaligned; AVP_TOO_LARGE if capacity is too small; or as
 * avp_kv_bytes().
 */
int avp_kv_build(struct avp_kv *kv, void *payload, uint64_t capacity,
		 const struct avp_kv_shape *shape, struct avp_reason *why);

/*
 * Bytes to leave free at a 64-byte boundary before `lead` bytes of frame header
 * and metadata, so that the tensors behind them and the KV header are aligned.
 */
static inline size_t avp_kv_padding(size_t lead)
{
	return (0 - (lead + AVP_KV_HEADER_BYTES)) & 63;
}

/*
 * Opens a payload of exactly that many bytes. The 17 bytes are copied, the copy
 * is checked and used: what the sender writes into them afterwards changes
 * nothing. The tensors are not looked at.
 *
 * 0; AVP_KV_SIZE if header and length disagree or a count is 0; AVP_BAD_DTYPE.
 */
int avp_kv_open(struct avp_kv *kv, const void *payload, uint64_t bytes,
		struct avp_reason *why);

/* Where a layer's K or V begins, from the payload's first byte. */
uint64_t avp_kv_offset(const struct avp_kv *kv, uint32_t layer,
		       enum avp_kv_which which);

/*
 * K or V of one layer, as [num_kv_heads][seq_len][head_dim]. 0, or AVP_USAGE
 * for a layer that is not in this payload.
 */
int avp_kv_tensor(const struct avp_kv *kv, uint32_t layer,
		  enum avp_kv_which which, struct avp_tensor *t);

/* A part of it: heads and tokens; a count of 0 means all from first on. */
struct avp_kv_range {
	uint32_t first_head, heads;
	uint32_t first_token, tokens;
};
int avp_kv_slice(const struct avp_kv *kv, uint32_t layer,
		 enum avp_kv_which which, const struct avp_kv_range *range,
		 struct avp_tensor *t);

/*
 * K or V of one layer as serving engines keep it: in blocks of a pool, found
 * by a table. Token t is in block table[t / block_tokens], row t %
 * block_tokens. Strides are in bytes; all 0 means contiguous
 * [block][token][head][head_dim] (vLLM's NHD layout).
 */
#define AVP_KV_BLOCK_TOKENS 16
struct avp_kv_pages {
	void *pool;
	uint32_t dtype;
	uint32_t block_tokens; /* 0: AVP_KV_BLOCK_TOKENS */
	uint32_t blocks;       /* in the pool; no table entry reaches it */
	uint32_t table_len;
	const uint32_t *table;
	int64_t block_stride, token_stride, head_stride;
};

/*
 * Copies a layer's K or V out of a pool into a cache that is being built, or
 * out of a cache into a pool, converting when the dtypes differ. The table
 * must reach seq_len tokens and name only blocks of the pool: else
 * AVP_SHAPE_MISMATCH and nothing was copied.
 */
int avp_kv_from_pages(const struct avp_kv *kv, uint32_t layer,
		      enum avp_kv_which which, const struct avp_kv_pages *pages,
		      struct avp_reason *why);
int avp_kv_to_pages(const struct avp_kv *kv, uint32_t layer,
		    enum avp_kv_which which, const struct avp_kv_pages *pages,
		    struct avp_reason *why);

/*
 * Copies a layer from or to one tensor [2][num_kv_heads][seq_len][head_dim], K
 * before V, of any strides: another order of the dimensions is
 * avp_tensor_swap() away. Converts. 0, AVP_USAGE, or AVP_SHAPE_MISMATCH.
 */
int avp_kv_from_stacked(const struct avp_kv *kv, uint32_t layer,
			const struct avp_tensor *stacked,
			struct avp_reason *why);
int avp_kv_to_stacked(const struct avp_kv *kv, uint32_t layer,
		      const struct avp_tensor *stacked, struct avp_reason *why);

/* ---- caches in parts ---------------------------------------------------- */

/*
 * A cache over 4 GiB, or one that is sent layer by layer while it is computed,
 * is a sequence of KV frames, each a complete payload of some layers, told
 * apart by five keys in the metadata's extra.
 */
struct avp_kv_part {
	uint32_t part;	       /* kv.part, from 0 */
	uint32_t parts;	       /* kv.parts; 0 = not known yet */
	uint32_t first_layer;  /* kv.first_layer, from 0 */
	uint32_t layers;       /* kv.layers, in this frame */
	uint32_t total_layers; /* kv.total_layers, of the whole cache */
};
#define AVP_KV_PART_KEYS 5

/*
 * How many layers fit a payload of max_bytes, at least 1; 0 as max_bytes means
 * what a frame can carry beside 64 KiB of metadata. AVP_TOO_LARGE if one layer
 * does not fit: split its tokens.
 */
int avp_kv_part_layers(const struct avp_kv_shape *whole, uint64_t max_bytes,
		       uint32_t *layers, struct avp_reason *why);

/*
 * Part `index` of a cache that is cut every `layers` layers: its keys, and the
 * shape to build. AVP_USAGE if there is no such part.
 */
int avp_kv_part_at(const struct avp_kv_shape *whole, uint32_t layers,
		   uint32_t index, struct avp_kv_part *part,
		   struct avp_kv_shape *shape);

/* The five pairs for a frame's metadata. They point into *extra itself. */
struct avp_kv_part_extra {
	struct avp_pair pairs[AVP_KV_PART_KEYS];
	char text[AVP_KV_PART_KEYS][12];
};
void avp_kv_part_write(const struct avp_kv_part *part,
		       struct avp_kv_part_extra *extra);

/*
 * Reads them. 1; 0 if there are none (a whole cache); AVP_BAD_METADATA if some
 * are missing, not decimal, or contradict each other.
 */
int avp_kv_part_read(const struct avp_metadata *m, struct avp_kv_part *part,
		     struct avp_reason *why);

/*
 * The receiving end: which layers of a task's cache have come. Begin with
 * zeros. Parts may come in any order; each is usable as soon as it was added.
 */
#define AVP_KV_MAX_LAYERS 4096 /* a bit each; the largest models have < 200 */
struct avp_kv_assembly {
	struct avp_kv_shape shape; /* of the whole, once one part came */
	uint32_t layers_seen, parts_seen, parts;
	uint64_t seen[AVP_KV_MAX_LAYERS / 64];
};

/*
 * Opens a part's payload, holds it against those before, and notes it. 1 when
 * the cache is now complete, 0 when layers are missing. AVP_SHAPE_MISMATCH if
 * it does not fit the others or a layer came before, AVP_TOO_LARGE over
 * AVP_KV_MAX_LAYERS, or as avp_kv_open(); *a is then as before.
 */
int avp_kv_assembly_add(struct avp_kv_assembly *a,
			const struct avp_kv_part *part, const void *payload,
			uint64_t bytes, struct avp_kv *kv,
			struct avp_reason *why);

/* 1 if the layer has come. */
static inline int avp_kv_assembly_has(const struct avp_kv_assembly *a,
				      uint32_t layer)
{
	return layer < AVP_KV_MAX_LAYERS &&
	       (a->seen[layer / 64] >> layer % 64 & 1);
}

/* ---- models and their compatibility ------------------------------------- */

/*
 * A Hugging Face config.json: who the model is (AVP specification, model
 * identity). Immutable once opened: any number of threads may read it.
 */
struct avp_config;

#define AVP_CONFIG_BYTES (16u << 20)

/*
 * Reads the text (copied). Keys that are absent or null give "" or 0, which
 * mean unknown, as the reference gives them; num_attention_heads stands in for
 * an absent num_key_value_heads. model_hash is the SHA-256 of the whole config
 * in canonical JSON: any number that Python's json reads is hashed.
 *
 * 0 with *c for avp_config_close(); AVP_BAD_JSON (also deeper than 512);
 * AVP_TOO_LARGE over AVP_CONFIG_BYTES; AVP_INVALID_MESSAGE if it is not an
 * object, or a key that is used holds another type or does not fit 32 bits;
 * AVP_NO_MEMORY.
 */
int avp_config_open(struct avp_config **c, const void *text, size_t len,
		    struct avp_reason *why);
void avp_config_close(struct avp_config *c); /* NULL is allowed */

/* Lives as long as c. */
const struct avp_identity *avp_config_identity(const struct avp_config *c);

/* 1 unless tie_word_embeddings is true as Python judges it. */
int avp_config_needs_realignment(const struct avp_config *c);

/* The canonical JSON text that was hashed. Lives as long as c. */
struct avp_str avp_config_canonical(const struct avp_config *c);

/* The used keys that the config lacks, one after the other; NULL after them. */
const char *avp_config_missing(const struct avp_config *c, uint32_t index);

/* How two models may talk. */
struct avp_resolution {
	uint32_t mode; /* AVP_MODE_LATENT or AVP_MODE_JSON */
	/*
	 * 1 if hidden states flow and KV-caches may: no count of heads or of
	 * head_dim differs. Layers are looked at when a cache comes.
	 */
	int kv_compatible;
	char map_id[32];  /* "vocab:<16 digits>": through a projection; or "" */
	char reason[184]; /* a sentence with the values that decided */
};

/* Also LATENT across models of one vocabulary (SDK 0.4; needs a projection). */
#define AVP_RESOLVE_MAPS 1u

/*
 * Equal non-empty hashes: LATENT. Equal non-empty family and equal positive
 * hidden_dim and num_layers: LATENT. Else, if `flags` allow maps, equal
 * tokenizer hashes: LATENT with a map. Else JSON. NULL is an unknown model.
 */
void avp_resolve(const struct avp_identity *local,
		 const struct avp_identity *remote, uint32_t flags,
		 struct avp_resolution *r);

/*
 * Does a latent frame fit the model that is to read it? Looks at hidden_dim and
 * tensor_shape, of a KV-cache at its header, and at the payload's size against
 * them. `content` is the uncompressed payload, or NULL if it is not at hand,
 * and then only the metadata is judged; of it at most 17 bytes are read, and
 * copied first. What the model or the frame does not tell is not judged, nor
 * are JSON and hybrid frames, nor dimensions under an avp_map_id.
 *
 * 0, AVP_SHAPE_MISMATCH, AVP_KV_SIZE, AVP_BAD_DTYPE, or AVP_BAD_METADATA for
 * garbled kv.* keys.
 */
int avp_latent_check(const struct avp_identity *model,
		     const struct avp_metadata *m, const void *content,
		     uint64_t content_bytes, struct avp_reason *why);

/* ---- vocabularies (SDK 0.4) ---------------------------------------------- */

/*
 * The tokens of a model, from a Hugging Face tokenizer.json (its model.vocab,
 * an object of token and id or a list of [token, score]) or a plain vocab.json.
 * Immutable once opened.
 */
struct avp_vocab;

#define AVP_VOCAB_BYTES (64u << 20) /* Gemma's tokenizer.json has 33 MiB */

/*
 * 0 with *v for avp_vocab_close(); AVP_BAD_JSON, AVP_TOO_LARGE, AVP_NO_MEMORY,
 * or AVP_INVALID_MESSAGE if there is no vocabulary in it, or an id that does
 * not fit 32 bits.
 */
int avp_vocab_open(struct avp_vocab **v, const void *text, size_t len,
		   struct avp_reason *why);
void avp_vocab_close(struct avp_vocab *v); /* NULL is allowed */
uint32_t avp_vocab_count(const struct avp_vocab *v);

/*
 * The tokenizer_hash of an identity: SHA-256 of the compact JSON of the sorted
 * pairs, [["a",0],["b",1]]. Lives as long as v.
 */
struct avp_str avp_vocab_hash(const struct avp_vocab *v);

/*
 * The ids of the tokens that both know, in the order of the tokens, up to
 * `capacity` of them into the two lists (NULL: only count them); how many there
 * are. From AVP_VOCAB_SHARED on SDK 0.4 projects through them.
 */
#define AVP_VOCAB_SHARED 100
uint32_t avp_vocab_overlap(const struct avp_vocab *a, const struct avp_vocab *b,
			   uint32_t *a_ids, uint32_t *b_ids, uint32_t capacity);

/* ---- model files -------------------------------------------------------- */

/*
 * Tensors of safetensors files, mapped and read in place. Opened read-only;
 * any number of threads may use one. The header is read once and kept; the
 * tensors' bytes are the file's: if another process writes into the file they
 * change, and if it cuts the file short, reading beyond its new end is SIGBUS.
 * Replace model files by rename, as downloaders do.
 */
struct avp_weights;

#define AVP_WEIGHTS_HEADER_BYTES (32u << 20) /* a 400B model's: under 1 MiB */
#define AVP_WEIGHTS_FILES	 1024	     /* shards of one model */

/*
 * Opens a .safetensors file, a model.safetensors.index.json with its shards, or
 * a directory that holds either. Refused: a header that is not JSON of the
 * expected form, sizes that differ from dtype times shape, tensors that
 * overlap, leave holes, or pass the end of the file, and a shard outside the
 * directory. Nothing is allocated on the word of a header that the file's own
 * size does not bear out.
 *
 * 0 with *w for avp_weights_close(); AVP_IO, AVP_PERMISSION, AVP_BAD_JSON,
 * AVP_DESERIALIZATION_ERROR, AVP_TOO_LARGE, AVP_NO_MEMORY.
 */
int avp_weights_open(struct avp_weights **w, const char *path,
		     struct avp_reason *why);
void avp_weights_close(struct avp_weights *w); /* NULL is allowed */

uint32_t avp_weights_count(const struct avp_weights *w);

/* The names in ascending order; empty beyond the last. They belong to w. */
struct avp_str avp_weights_name(const struct avp_weights *w, uint32_t index);

/*
 * 1 with *t, 0 if there is none of that name, AVP_BAD_DTYPE if its numbers are
 * of no dtype of AVP, AVP_TOO_LARGE over AVP_TENSOR_RANK dimensions.
 */
int avp_weights_find(const struct avp_weights *w, struct avp_str name,
		     struct avp_tensor *t, struct avp_reason *why);

/*
 * The input embeddings, and the output ones by the names that models use: 0
 * with both; 1 if there are no output ones, which means that they are tied, and
 * *out is *in; AVP_DESERIALIZATION_ERROR if there are no embeddings.
 */
int avp_weights_embeddings(const struct avp_weights *w, struct avp_tensor *in,
			   struct avp_tensor *out, struct avp_reason *why);

/* ---- realignment (libavp-latent) ---------------------------------------- */

/*
 * A model with untied weights leaves hidden states in another space than the
 * one that its input embeddings live in. W carries them back (LatentMAS, AVP
 * specification):
 *
 *     W = (E_out^T E_out + lambda I)^-1 E_out^T E_in
 *
 * with E_in the input embeddings and E_out the rows of lm_head, both
 * [vocab][dim]. A realigned state is y = x W, scaled to |y| = target_norm, the
 * mean norm of E_in's rows.
 *
 * OpenBLAS works on threads of its own, which start when libavp-latent is
 * loaded: as many as OPENBLAS_NUM_THREADS or the processor says.
 */
#define AVP_REALIGN_LAMBDA 1e-5
#define AVP_REALIGN_DIM	   24576u /* W has 2.25 GiB; the largest known: 18432 */

struct avp_realign_options {
	uint32_t size;	/* sizeof(struct avp_realign_options), or 0 */
	uint32_t flags; /* 0 */
	double lambda;	/* 0: AVP_REALIGN_LAMBDA; else positive */
	/* Called now and then by the caller's thread with 0.0 to 1.0. */
	void (*progress)(void *user, double done);
	void *user;
	uint64_t reserved[4];
};

struct avp_realign_result {
	float target_norm;
	/*
	 * 0, or how many times lambda was raised because the Gram matrix was
	 * not positive definite in float32: W is then smoother than asked for,
	 * and the caller should say so. `lambda` is the one used.
	 */
	uint32_t raised;
	double lambda;
};

/*
 * Computes W, dim x dim row-major. e_in and e_out have rank 2, equal shapes,
 * any float dtype, and rows without gaps; they are read in place and may be
 * mapped files. Memory beside them and W: dim^2 floats and 64 MiB, freed before
 * it returns. options may be NULL.
 *
 * 0; AVP_SHAPE_MISMATCH for unequal or unusable shapes; AVP_BAD_DTYPE;
 * AVP_TOO_LARGE over AVP_REALIGN_DIM; AVP_DESERIALIZATION_ERROR if the weights
 * hold NaN or infinity, if E_in's are so small that target_norm is 0, to which
 * no state can be scaled, or if no lambda up to the Gram matrix's own size
 * makes it positive definite; AVP_USAGE; AVP_NO_MEMORY. W is then in no
 * particular state.
 */
int avp_realign_compute(const struct avp_tensor *e_in,
			const struct avp_tensor *e_out,
			const struct avp_realign_options *options, float *w,
			struct avp_realign_result *result,
			struct avp_reason *why);

/*
 * y = x W, each row scaled to target_norm, its own norm taken as at least 1e-6.
 * x and y are [rows][dim] of any dtypes, with rows without gaps, and do not
 * overlap. float32 rows are computed in place; others need up to 1 MiB, which
 * is allocated. 0, AVP_SHAPE_MISMATCH, AVP_BAD_DTYPE, or AVP_NO_MEMORY.
 */
int avp_realign_apply(const float *w, uint32_t dim, float target_norm,
		      const struct avp_tensor *x, const struct avp_tensor *y,
		      struct avp_reason *why);

/*
 * Tied weights need no W but the soft embedding: y = softmax(x E^T) E, for x
 * and y [rows][dim] and E [vocab][dim] of any float dtypes. The vocabulary is
 * walked in blocks with a running maximum, so that the logits of a block are
 * all that exists: memory is rows x (2 dim + 4096) floats at most, and a block
 * of E in float32 if it is not. Errors as avp_realign_apply().
 */
int avp_soft_embed(const struct avp_tensor *e, const struct avp_tensor *x,
		   const struct avp_tensor *y, struct avp_reason *why);

/*
 * Projection into another model through the tokens that both know (AVP 0.4):
 * y = softmax(x S^T) T, S the source's lm_head rows and T the target's input
 * embeddings of the shared tokens. Token i of `count` is row source_ids[i] of
 * `source` and row target_ids[i] of `target`. Both NULL: equal vocabularies,
 * row i with row i. x is [rows][source dim], y [rows][target dim].
 */
struct avp_projection {
	struct avp_tensor source, target;
	const uint32_t *source_ids, *target_ids;
	uint64_t count; /* with both NULL: 0, or that many first rows */
};
int avp_project(const struct avp_projection *p, const struct avp_tensor *x,
		const struct avp_tensor *y, struct avp_reason *why);

/* ---- the realignment cache (libavp-latent) ------------------------------ */

/*
 * A file as the reference SDK writes with torch.save(): a zip archive of a
 * pickled dictionary {"w_realign": [dim, dim] tensor, "target_norm": number or
 * tensor of one number}. Ours are read by torch.load(weights_only=True).
 */

/*
 * <dir>/<model_hash>.pt into path; dir NULL means $HOME/.avp/realign, "" and
 * relative ones are taken as they are. 0; AVP_USAGE if the hash is not 64
 * hexadecimal digits (it becomes a file name) or HOME is not set;
 * AVP_TOO_LARGE if path is too small.
 */
int avp_realign_cache_path(char *path, size_t capacity, const char *dir,
			   struct avp_str model_hash, struct avp_reason *why);

/*
 * Writes the file beside its name, syncs it, and renames it into place: a
 * reader sees the old one or the new one, whole. The directory is made (0700).
 * What killed writers of this file have left beside it is removed first.
 * 0, AVP_IO, AVP_PERMISSION, or AVP_TOO_LARGE.
 */
int avp_realign_cache_write(const char *path, const float *w, uint32_t dim,
			    float target_norm, struct avp_reason *why);

struct avp_realign_matrix {
	float *w; /* dim x dim row-major; freed by avp_realign_matrix_fini() */
	uint32_t dim;
	float target_norm;
};

/*
 * Reads one. Nothing in it is executed: the pickle is walked by a parser that
 * knows the few opcodes which such a dictionary takes, and anything else, a
 * wrong CRC-32, or sizes that do not fit are refused. float16 and bfloat16 are
 * widened, a transposed W is turned.
 *
 * 0; AVP_AGAIN if there is no such file; AVP_DESERIALIZATION_ERROR;
 * AVP_TOO_LARGE; AVP_IO; AVP_PERMISSION; AVP_NO_MEMORY.
 */
int avp_realign_cache_read(const char *path, struct avp_realign_matrix *m,
			   struct avp_reason *why);
void avp_realign_matrix_fini(struct avp_realign_matrix *m);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
