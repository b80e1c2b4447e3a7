/* SPDX-License-Identifier: Apache-2.0 */
/* Who a model is, from its config.json. */
#include <stdlib.h>
#include <string.h>

#include <avp/latent.h>

#include "latent/sha256.h"

#define MAX_MISSING 6

struct avp_config {
	struct avp_json_doc *doc; /* the identity's strings are in it */
	struct avp_buf canonical;
	struct avp_identity identity;
	char hash[65];
	const char *missing[MAX_MISSING + 1]; /* NULL ends it */
	uint32_t missing_count;
};

static void note_missing(struct avp_config *c, const char *key)
{
	c->missing[c->missing_count++] = key;
}

static int take_string(struct avp_config *c, const char *key,
		       struct avp_str *to, struct avp_reason *why)
{
	int got = avp_json_get_string(avp_json_root(c->doc), key, to, why);

	if (!got)
		note_missing(c, key);
	return got < 0 ? got : 0;
}

static int take_count(struct avp_config *c, const char *key, uint32_t *to,
		      struct avp_reason *why)
{
	uint64_t x = 0;
	int got = avp_json_get_uint(avp_json_root(c->doc), key, UINT32_MAX, &x,
				    why);

	if (!got)
		note_missing(c, key);
	if (got < 0)
		return got;
	*to = (uint32_t)x;
	return 0;
}

static int take_identity(struct avp_config *c, struct avp_reason *why)
{
	const struct avp_json *root = avp_json_root(c->doc);
	struct avp_identity *id = &c->identity;
	/* An explicit null stays unknown: the reference's get() finds it. */
	const char *heads = avp_json_get(root, "num_key_value_heads")
				    ? "num_key_value_heads"
				    : "num_attention_heads";
	int err;

	if ((err = take_string(c, "model_type", &id->model_family, why)) ||
	    (err = take_string(c, "_name_or_path", &id->model_id, why)) ||
	    (err = take_count(c, "hidden_size", &id->hidden_dim, why)) ||
	    (err = take_count(c, "num_hidden_layers", &id->num_layers, why)) ||
	    (err = take_count(c, heads, &id->num_kv_heads, why)) ||
	    (err = take_count(c, "head_dim", &id->head_dim, why)))
		return err;
	return 0;
}

static int take_hash(struct avp_config *c, struct avp_reason *why)
{
	int err = avp_json_write(&c->canonical, avp_json_root(c->doc),
				 AVP_JSON_CANONICAL);

	if (err)
		return avp__fail(why, err, "the canonical text was not made");
	avp__sha256_hex(c->canonical.data, c->canonical.len, c->hash);
	c->identity.model_hash = avp_str_of(c->hash);
	return 0;
}

int avp_config_open(struct avp_config **c, const void *text, size_t len,
		    struct avp_reason *why)
{
	const struct avp_json_options options = {.size = sizeof(options),
						 .max_bytes = AVP_CONFIG_BYTES};
	struct avp_config *made = calloc(1, sizeof(*made));
	int err;

	if (!made)
		return avp__fail(why, AVP_NO_MEMORY, "no memory");
	if ((err = avp_json_parse(&made->doc, text, len, &options, why)) ||
	    (err = avp_json_expect_object(avp_json_root(made->doc), "a config",
					  why)) ||
	    (err = take_identity(made, why)) || (err = take_hash(made, why))) {
		avp_config_close(made);
		return err;
	}
	*c = made;
	return 0;
}

void avp_config_close(struct avp_config *c)
{
	if (!c)
		return;
	avp_json_free(c->doc);
	avp_buf_fini(&c->canonical);
	free(c);
}

const struct avp_identity *avp_config_identity(const struct avp_config *c)
{
	return &c->identity;
}

struct avp_str avp_config_canonical(const struct avp_config *c)
{
	return avp_buf_str(&c->canonical);
}

const char *avp_config_missing(const struct avp_config *c, uint32_t index)
{
	return index < c->missing_count ? c->missing[index] : NULL;
}

/* Python's bool(value). */
static int truthy(const struct avp_json *value)
{
	struct avp_str text;
	bool b = false;
	double d = 0;

	switch (avp_json_type_of(value)) {
	case AVP_JSON_NULL: return 0;
	case AVP_JSON_BOOL: return !avp_json_bool(value, &b) && b;
	case AVP_JSON_INT:
	case AVP_JSON_FLOAT: return !avp_json_double(value, &d) && d != 0;
	case AVP_JSON_STRING: return !avp_json_string(value, &text) && text.len;
	default: return avp_json_count(value) != 0;
	}
}

int avp_config_needs_realignment(const struct avp_config *c)
{
	return !truthy(
		avp_json_get(avp_json_root(c->doc), "tie_word_embeddings"));
}
