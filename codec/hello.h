/* SPDX-License-Identifier: Apache-2.0 */
/*
 * <avp/hello.h>: AVP's JSON messages: who an agent and its model are (HELLO),
 * the text message of the fallback mode, and the request to fall back.
 *
 * Written as the reference SDK 0.2.0 writes them, byte for byte (json.dumps
 * defaults, its order of keys); read strictly: a known key of another JSON type
 * or out of range is AVP_INVALID_MESSAGE, null counts as absent, unknown keys
 * are ignored. What is read is borrowed from the parsed document.
 */
#ifndef AVP_HELLO_H
#define AVP_HELLO_H

#include <stdbool.h>
#include <stdint.h>

#include <avp/json.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* What a HELLO or text message without avp_version means. */
#define AVP_DEFAULT_VERSION "0.2.0"

/*
 * A model (AVP specification, model identity). A count of 0 and an empty string
 * are unknown. Names in a Hugging Face config: AVP handshake section.
 */
struct avp_identity {
	struct avp_str model_family; /* "qwen2" */
	struct avp_str model_id;     /* "Qwen/Qwen2.5-0.5B" */
	struct avp_str model_hash;   /* SHA-256 of the canonical config, hex */
	uint32_t hidden_dim;
	uint32_t num_layers;
	uint32_t num_kv_heads;
	uint32_t head_dim;
	/* SDK 0.3 and later: of the vocabulary; written unless empty. */
	struct avp_str tokenizer_hash;
};

/* Reads an identity object. 0 or AVP_INVALID_MESSAGE. */
int avp_identity_read(struct avp_identity *identity,
		      const struct avp_json *object, struct avp_reason *why);

/* Writes it as the next value. */
void avp_identity_put(struct avp_json_writer *w,
		      const struct avp_identity *identity);

struct avp_hello {
	struct avp_str agent_id;
	struct avp_str
		avp_version; /* data NULL: AVP_DEFAULT_VERSION is written */
	bool version_told;   /* set by reading */
	bool has_identity;
	struct avp_identity identity;
	/* An object; NULL: what capabilities_json says, or if empty {}. */
	const struct avp_json *capabilities;
	struct avp_str capabilities_json; /* for writing: an object as text */
};

/* From a parsed text. 0 or AVP_INVALID_MESSAGE with *hello unspecified. */
int avp_hello_read(struct avp_hello *hello, const struct avp_json *root,
		   struct avp_reason *why);

/* Appends the JSON text; 0, AVP_NO_MEMORY, AVP_SERIALIZATION_ERROR. */
int avp_hello_write(struct avp_buf *buf, const struct avp_hello *hello);

/* What an agent says to one that cannot use its latent states. */
struct avp_text_message {
	struct avp_str
		avp_version; /* data NULL: AVP_DEFAULT_VERSION is written */
	bool version_told;   /* set by reading */
	struct avp_str session_id, source_agent_id, target_agent_id;
	struct avp_str content;
	const struct avp_json *extra; /* an object; as capabilities above, */
	struct avp_str extra_json;    /* but left out when it is empty */
};

/* As avp_hello_read() and avp_hello_write(). */
int avp_text_message_read(struct avp_text_message *message,
			  const struct avp_json *root, struct avp_reason *why);
int avp_text_message_write(struct avp_buf *buf,
			   const struct avp_text_message *message);

/* A receiver's wish that its session goes on in JSON. */
struct avp_fallback {
	struct avp_str session_id;
	struct avp_str reason;
	double perplexity_score;
};

/* As avp_hello_read() and avp_hello_write(). */
int avp_fallback_read(struct avp_fallback *fallback,
		      const struct avp_json *root, struct avp_reason *why);
int avp_fallback_write(struct avp_buf *buf,
		       const struct avp_fallback *fallback);

/*
 * Appends the sentence that the reference raises for it: "Fallback requested:
 * REASON (perplexity=12.3457)". 0 or AVP_NO_MEMORY.
 */
int avp_fallback_describe(struct avp_buf *buf,
			  const struct avp_fallback *fallback);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
