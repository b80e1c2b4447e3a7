/* SPDX-License-Identifier: Apache-2.0 */
/* The files of one model: single or sharded, and the tensors' names. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "latent/weights.h"

#define INDEX_BYTES AVP_WEIGHTS_HEADER_BYTES
#define INDEX_NAME  "model.safetensors.index.json"
#define SINGLE_NAME "model.safetensors"

static int by_name(const void *a, const void *b)
{
	const struct avp__weight *x = a, *y = b;
	const size_t n = x->name.len < y->name.len ? x->name.len : y->name.len;
	const int order = n ? memcmp(x->name.data, y->name.data, n) : 0;

	return order ? order
		     : (x->name.len > y->name.len) -
			       (x->name.len < y->name.len);
}

static const struct avp__weight *lookup(const struct avp_weights *w,
					struct avp_str name)
{
	const struct avp__weight key = {.name = name};

	return w->count ? bsearch(&key, w->all, w->count, sizeof(key), by_name)
			: NULL;
}

static int finish(struct avp_weights *w, struct avp_reason *why)
{
	if (w->count)
		qsort(w->all, w->count, sizeof(*w->all), by_name);
	for (uint32_t i = 1; i < w->count; i++)
		if (!by_name(&w->all[i - 1], &w->all[i]))
			return avp__fail(why, AVP_DESERIALIZATION_ERROR,
					 "tensor %.*s is in two shards",
					 SHOWN(w->all[i].name));
	return 0;
}

/* A shard lies in the directory of the index, under a plain name. */
static int plain_name(struct avp_str name)
{
	return name.len && name.len < 256 && name.data[0] != '.' &&
	       !memchr(name.data, '/', name.len) &&
	       !memchr(name.data, 0, name.len);
}

static int has_file(const struct avp_weights *w, struct avp_str name)
{
	for (uint32_t i = 0; i < w->file_count; i++)
		if (avp_str_equal(w->files[i].name, name))
			return 1;
	return 0;
}

static int add_shard(struct avp_weights *w, int dir_fd,
		     const struct avp_json *entry, struct avp_reason *why)
{
	struct avp_str name;
	char path[256];

	if (avp_json_string(entry, &name) || !plain_name(name))
		return avp__fail(why, AVP_DESERIALIZATION_ERROR,
				 "the index gives no plain file name for %.*s",
				 SHOWN(avp_json_key_of(entry)));
	if (has_file(w, name))
		return 0;
	snprintf(path, sizeof(path), "%.*s", (int)name.len, name.data);
	return avp__weights_add(w, dir_fd, path, name, why);
}

/* Is each tensor where the index says? */
static int check_index(const struct avp_weights *w, const struct avp_json *map,
		       struct avp_reason *why)
{
	for (const struct avp_json *e = avp_json_first(map); e;
	     e = avp_json_next(e)) {
		const struct avp__weight *t = lookup(w, avp_json_key_of(e));
		struct avp_str file = {0};

		avp_json_string(e, &file);
		if (!t || !avp_str_equal(w->files[t->file].name, file))
			return avp__fail(
				why, AVP_DESERIALIZATION_ERROR,
				"tensor %.*s is not in %.*s, where the "
				"index says; a shard is missing or of "
				"another model",
				SHOWN(avp_json_key_of(e)), SHOWN(file));
	}
	return 0;
}

static int open_index(struct avp_weights *w, int dir_fd, const char *path,
		      struct avp_reason *why)
{
	struct avp_json_options options = {.size = sizeof(options),
					   .max_bytes = INDEX_BYTES};
	const struct avp_json *map;
	char *text;
	size_t len;
	int err = avp__file_read(dir_fd, path, INDEX_BYTES, &text, &len, why);

	if (err)
		return err;
	err = avp_json_parse(&w->index, text, len, &options, why);
	free(text);
	if (err)
		return err;
	map = avp_json_get(avp_json_root(w->index), "weight_map");
	if (avp_json_type_of(map) != AVP_JSON_OBJECT || !avp_json_count(map))
		return avp__fail(why, AVP_DESERIALIZATION_ERROR,
				 "%s has no weight_map with names", path);
	for (const struct avp_json *e = avp_json_first(map); e && !err;
	     e = avp_json_next(e))
		err = add_shard(w, dir_fd, e, why);
	if (!err)
		err = finish(w, why);
	return err ? err : check_index(w, map, why);
}

static int open_directory(struct avp_weights *w, int fd, const char *path,
			  struct avp_reason *why)
{
	int err;

	if (!faccessat(fd, INDEX_NAME, F_OK, 0))
		return open_index(w, fd, INDEX_NAME, why);
	if (faccessat(fd, SINGLE_NAME, F_OK, 0))
		return avp__fail(why, AVP_IO,
				 "%s: holds neither " SINGLE_NAME
				 " nor " INDEX_NAME,
				 path);
	err = avp__weights_add(w, fd, SINGLE_NAME, (struct avp_str){0}, why);
	return err ? err : finish(w, why);
}

static int ends_with(struct avp_str s, const char *end)
{
	const size_t n = strlen(end);

	return s.len >= n && !memcmp(s.data + s.len - n, end, n);
}

/* An index file: its shards lie beside it. */
static int open_named_index(struct avp_weights *w, const char *path,
			    struct avp_reason *why)
{
	const char *slash = strrchr(path, '/');
	char *dir = strndup(path, slash ? (size_t)(slash - path) + 1 : 0);
	int fd, err;

	if (!dir)
		return avp__fail(why, AVP_NO_MEMORY, "no memory");
	fd = open(*dir ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(dir);
	if (fd < 0)
		return avp__file_failed(path, why);
	err = open_index(w, fd, slash ? slash + 1 : path, why);
	close(fd);
	return err;
}

static int open_any(struct avp_weights *w, const char *path,
		    struct avp_reason *why)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), err;

	if (fd >= 0) {
		err = open_directory(w, fd, path, why);
		close(fd);
		return err;
	}
	if (errno != ENOTDIR)
		return avp__file_failed(path, why);
	if (ends_with(avp_str_of(path), ".json"))
		return open_named_index(w, path, why);
	err = avp__weights_add(w, AT_FDCWD, path, (struct avp_str){0}, why);
	return err ? err : finish(w, why);
}

int avp_weights_open(struct avp_weights **w, const char *path,
		     struct avp_reason *why)
{
	struct avp_weights *made = calloc(1, sizeof(*made));
	int err;

	if (!made)
		return avp__fail(why, AVP_NO_MEMORY, "no memory");
	err = open_any(made, path, why);
	if (err) {
		avp_weights_close(made);
		return err;
	}
	*w = made;
	return 0;
}

void avp_weights_close(struct avp_weights *w)
{
	if (!w)
		return;
	for (uint32_t i = 0; i < w->file_count; i++) {
		munmap(w->files[i].map, w->files[i].bytes);
		avp_json_free(w->files[i].header);
	}
	avp_json_free(w->index);
	free(w->files);
	free(w->all);
	free(w);
}

uint32_t avp_weights_count(const struct avp_weights *w)
{
	return w->count;
}

struct avp_str avp_weights_name(const struct avp_weights *w, uint32_t index)
{
	if (index >= w->count)
		return (struct avp_str){0};
	return w->all[index].name;
}

static int usable(const struct avp__weight *e, struct avp_tensor *t,
		  struct avp_reason *why)
{
	if (e->tensor.rank > AVP_TENSOR_RANK)
		return avp__fail(
			why, AVP_TOO_LARGE,
			"tensor %.*s has %u dimensions; at most %d are "
			"handled",
			SHOWN(e->name), e->tensor.rank, AVP_TENSOR_RANK);
	if (!avp_dtype_size(e->tensor.dtype))
		return avp__fail(why, AVP_BAD_DTYPE,
				 "tensor %.*s has dtype %s; F32, F16, BF16 or "
				 "I8 is needed",
				 SHOWN(e->name),
				 e->dtype ? e->dtype : "of a later format");
	*t = e->tensor;
	return 1;
}

int avp_weights_find(const struct avp_weights *w, struct avp_str name,
		     struct avp_tensor *t, struct avp_reason *why)
{
	const struct avp__weight *e = lookup(w, name);

	return e ? usable(e, t, why) : 0;
}

/*
 * Names end like this, with the architecture's prefix before them; the most
 * telling first. Llama, Qwen, Gemma, Mistral; GPT-2, Falcon; BLOOM, BERT;
 * GPT-NeoX; Llama's original; Mamba; T5.
 */
static const char *const in_names[] = {
	"embed_tokens.weight",
	"wte.weight",
	"word_embeddings.weight",
	"embed_in.weight",
	"tok_embeddings.weight",
	"backbone.embeddings.weight",
	"backbone.embedding.weight",
	"shared.weight",
	NULL,
};
static const char *const out_names[] = {"lm_head.weight", "embed_out.weight",
					NULL};

/* Whole words only: "lm_head.weight" is not in "vlm_head.weight". */
static int is_named(struct avp_str s, const char *end)
{
	const size_t n = strlen(end);

	return ends_with(s, end) &&
	       (s.len == n || s.data[s.len - n - 1] == '.');
}

/* Of several with one ending the shortest: the language model's own. */
static const struct avp__weight *by_ending(const struct avp_weights *w,
					   const char *const *ends)
{
	const struct avp__weight *best = NULL;

	for (; *ends && !best; ends++)
		for (uint32_t i = 0; i < w->count; i++)
			if (is_named(w->all[i].name, *ends) &&
			    (!best || w->all[i].name.len < best->name.len))
				best = &w->all[i];
	return best;
}

int avp_weights_embeddings(const struct avp_weights *w, struct avp_tensor *in,
			   struct avp_tensor *out, struct avp_reason *why)
{
	const struct avp__weight *e_in = by_ending(w, in_names);
	const struct avp__weight *e_out = by_ending(w, out_names);
	struct avp_tensor made_in, made_out;
	int err;

	if (!e_out)
		e_out = lookup(w, avp_str_of("output.weight"));
	if (!e_in)
		return avp__fail(why, AVP_DESERIALIZATION_ERROR,
				 "no input embeddings among %u tensors; "
				 "*.embed_tokens.weight, *.wte.weight and the "
				 "like are known",
				 w->count);
	err = usable(e_in, &made_in, why);
	if (err < 0)
		return err;
	made_out = made_in;
	if (e_out && (err = usable(e_out, &made_out, why)) < 0)
		return err;
	*in = made_in;
	*out = made_out;
	return !e_out;
}
