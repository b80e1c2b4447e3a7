/* SPDX-License-Identifier: Apache-2.0 */
/* A tokenizer's vocabulary: its hash, and what two of them share. */
#include <stdlib.h>
#include <string.h>

#include <avp/latent.h>

#include "latent/sha256.h"

struct token {
	struct avp_str text; /* in the document */
	uint32_t id;
};

struct avp_vocab {
	struct avp_json_doc *doc;
	struct token *tokens; /* by text, in code-point order */
	uint32_t count;
	char hash[65];
};

/* UTF-8 sorts by bytes as its code points sort. */
static int compare(struct avp_str a, struct avp_str b)
{
	const size_t n = a.len < b.len ? a.len : b.len;
	const int order = n ? memcmp(a.data, b.data, n) : 0;

	return order ? order : (a.len > b.len) - (a.len < b.len);
}

static int by_text(const void *a, const void *b)
{
	const struct token *x = a, *y = b;

	return compare(x->text, y->text);
}

static int bad(struct avp_reason *why, const char *what)
{
	return avp__fail(
		why, AVP_INVALID_MESSAGE,
		"%s; a tokenizer.json with model.vocab or a vocab.json "
		"of tokens and ids is expected",
		what);
}

/* tokenizer.json keeps it under model.vocab; a vocab.json is one. */
static const struct avp_json *find_vocab(const struct avp_json *root)
{
	const struct avp_json *model = avp_json_get(root, "model");

	if (avp_json_type_of(model) == AVP_JSON_OBJECT)
		return avp_json_get(model, "vocab");
	return root;
}

/* A member "token": id, or the element [token, score] whose id is its place. */
static int take_token(const struct avp_json *entry, int listed, uint32_t place,
		      struct token *t)
{
	uint64_t id;

	if (listed) {
		t->id = place;
		return avp_json_type_of(entry) == AVP_JSON_ARRAY &&
		       !avp_json_string(avp_json_first(entry), &t->text);
	}
	t->text = avp_json_key_of(entry);
	if (avp_json_uint64(entry, &id) || id > UINT32_MAX)
		return 0;
	t->id = (uint32_t)id;
	return 1;
}

static int take_tokens(struct avp_vocab *v, struct avp_reason *why)
{
	const struct avp_json *vocab = find_vocab(avp_json_root(v->doc));
	const enum avp_json_type type = avp_json_type_of(vocab);
	uint32_t n = 0;

	if (type != AVP_JSON_OBJECT && type != AVP_JSON_ARRAY)
		return bad(why, "there is no vocabulary");
	v->count = avp_json_count(vocab);
	if (!v->count)
		return bad(why, "the vocabulary is empty");
	v->tokens = malloc(v->count * sizeof(*v->tokens));
	if (!v->tokens)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for %u tokens",
				 v->count);
	for (const struct avp_json *e = avp_json_first(vocab); e;
	     e = avp_json_next(e), n++)
		if (!take_token(e, type == AVP_JSON_ARRAY, n, &v->tokens[n]))
			return bad(why, "an entry is no token with an id");
	qsort(v->tokens, v->count, sizeof(*v->tokens), by_text);
	return 0;
}

static int take_hash(struct avp_vocab *v, struct avp_reason *why)
{
	struct avp_buf text = {0};
	struct avp_json_writer w;
	int err;

	avp_json_begin(&w, &text, AVP_JSON_COMPACT);
	avp_json_open_array(&w);
	for (uint32_t i = 0; i < v->count; i++) {
		avp_json_open_array(&w);
		avp_json_put_string(&w, v->tokens[i].text);
		avp_json_put_uint(&w, v->tokens[i].id);
		avp_json_close_array(&w);
	}
	avp_json_close_array(&w);
	err = avp_json_finish(&w);
	if (err)
		avp__fail(why, err, "the text to hash was not made");
	else
		avp__sha256_hex(text.data, text.len, v->hash);
	avp_buf_fini(&text);
	return err;
}

int avp_vocab_open(struct avp_vocab **v, const void *text, size_t len,
		   struct avp_reason *why)
{
	const struct avp_json_options options = {.size = sizeof(options),
						 .max_bytes = AVP_VOCAB_BYTES};
	struct avp_vocab *made = calloc(1, sizeof(*made));
	int err;

	if (!made)
		return avp__fail(why, AVP_NO_MEMORY, "no memory");
	if ((err = avp_json_parse(&made->doc, text, len, &options, why)) ||
	    (err = take_tokens(made, why)) || (err = take_hash(made, why))) {
		avp_vocab_close(made);
		return err;
	}
	*v = made;
	return 0;
}

void avp_vocab_close(struct avp_vocab *v)
{
	if (!v)
		return;
	avp_json_free(v->doc);
	free(v->tokens);
	free(v);
}

uint32_t avp_vocab_count(const struct avp_vocab *v)
{
	return v->count;
}

struct avp_str avp_vocab_hash(const struct avp_vocab *v)
{
	return avp_str_of(v->hash);
}

/* Both are sorted: one walk over the two. */
uint32_t avp_vocab_overlap(const struct avp_vocab *a, const struct avp_vocab *b,
			   uint32_t *a_ids, uint32_t *b_ids, uint32_t capacity)
{
	uint32_t i = 0, j = 0, shared = 0;

	while (i < a->count && j < b->count) {
		const int order = compare(a->tokens[i].text, b->tokens[j].text);

		if (order < 0) {
			i++;
		} else if (order > 0) {
			j++;
		} else {
			if (a_ids && b_ids && shared < capacity) {
				a_ids[shared] = a->tokens[i].id;
				b_ids[shared] = b->tokens[j].id;
			}
			shared++, i++, j++;
		}
	}
	return shared;
}
