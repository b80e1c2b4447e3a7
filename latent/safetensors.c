/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One safetensors file: 8 bytes of header length, a JSON object of names with
 * dtype, shape and data_offsets, then the tensors without holes between them.
 * Format: the README of the safetensors project; the checks are those of its
 * own reader, and that dtype times shape is what the offsets span.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "latent/weights.h"

#define LENGTH_BYTES 8
#define NO_DTYPE     UINT32_MAX

struct kind {
	const char *name;
	uint32_t bytes; /* of one element; 0: less than a byte, not checked */
	uint32_t dtype; /* of AVP, or NO_DTYPE */
};

static const struct kind kinds[] = {
	{"F32", 4, AVP_FLOAT32},   {"F16", 2, AVP_FLOAT16},
	{"BF16", 2, AVP_BFLOAT16}, {"I8", 1, AVP_INT8},
	{"F64", 8, NO_DTYPE},	   {"I64", 8, NO_DTYPE},
	{"U64", 8, NO_DTYPE},	   {"I32", 4, NO_DTYPE},
	{"U32", 4, NO_DTYPE},	   {"I16", 2, NO_DTYPE},
	{"U16", 2, NO_DTYPE},	   {"U8", 1, NO_DTYPE},
	{"BOOL", 1, NO_DTYPE},	   {"F8_E4M3", 1, NO_DTYPE},
	{"F8_E5M2", 1, NO_DTYPE},  {"F8_E8M0", 1, NO_DTYPE},
	{"C64", 8, NO_DTYPE},	   {"F4", 0, NO_DTYPE},
	{"F6_E2M3", 0, NO_DTYPE},  {"F6_E3M2", 0, NO_DTYPE},
};

static int bad(struct avp_reason *why, struct avp_str tensor, const char *what)
{
	return avp__fail(why, AVP_DESERIALIZATION_ERROR,
			 "tensor %.*s: %s; the file is damaged", SHOWN(tensor),
			 what);
}

static const struct kind *kind_of(struct avp_str name)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (avp_str_equal(name, avp_str_of(kinds[i].name)))
			return &kinds[i];
	return NULL;
}

/* Fills shape and rank of t; *elements is their product. */
static int read_shape(const struct avp_json *shape, struct avp__weight *e,
		      uint64_t *elements, struct avp_reason *why)
{
	const struct avp_json *v = avp_json_first(shape);

	if (avp_json_type_of(shape) != AVP_JSON_ARRAY)
		return bad(why, e->name, "shape is not a list");
	*elements = 1;
	e->tensor.rank = avp_json_count(shape);
	for (uint32_t d = 0; v; d++, v = avp_json_next(v)) {
		uint64_t n;

		if (avp_json_uint64(v, &n))
			return bad(why, e->name,
				   "shape holds what is no count");
		if (__builtin_mul_overflow(*elements, n, elements))
			return bad(why, e->name, "shape is over 2^64");
		if (d < AVP_TENSOR_RANK)
			e->tensor.shape[d] = n;
	}
	return 0;
}

static int read_offsets(const struct avp_json *offsets, struct avp__weight *e,
			uint64_t data_bytes, struct avp_reason *why)
{
	const struct avp_json *v = avp_json_first(offsets);

	if (avp_json_type_of(offsets) != AVP_JSON_ARRAY ||
	    avp_json_count(offsets) != 2 || avp_json_uint64(v, &e->begin) ||
	    avp_json_uint64(avp_json_next(v), &e->end))
		return bad(why, e->name, "data_offsets are not two counts");
	if (e->begin > e->end || e->end > data_bytes)
		return avp__fail(
			why, AVP_DESERIALIZATION_ERROR,
			"tensor %.*s: data_offsets %llu to %llu, the "
			"file has %llu bytes of data; it is damaged or "
			"not whole",
			SHOWN(e->name), (unsigned long long)e->begin,
			(unsigned long long)e->end,
			(unsigned long long)data_bytes);
	return 0;
}

static int read_tensor(const struct avp__weights_file *f,
		       const struct avp_json *member, struct avp__weight *e,
		       struct avp_reason *why)
{
	const struct kind *kind;
	struct avp_str dtype;
	uint64_t elements = 0, bytes;
	int err;

	e->name = avp_json_key_of(member);
	if (avp_json_type_of(member) != AVP_JSON_OBJECT ||
	    avp_json_string(avp_json_get(member, "dtype"), &dtype))
		return bad(why, e->name, "is no object with a dtype");
	if ((err = read_shape(avp_json_get(member, "shape"), e, &elements,
			      why)) ||
	    (err = read_offsets(avp_json_get(member, "data_offsets"), e,
				f->bytes - f->data_off, why)))
		return err;
	kind = kind_of(dtype);
	e->dtype = kind ? kind->name : NULL;
	e->tensor.dtype = kind ? kind->dtype : NO_DTYPE;
	if (!kind || !kind->bytes)
		return 0;
	if (__builtin_mul_overflow(elements, kind->bytes, &bytes) ||
	    bytes != e->end - e->begin)
		return bad(why, e->name,
			   "data_offsets do not span dtype times shape");
	if (kind->dtype == NO_DTYPE || e->tensor.rank > AVP_TENSOR_RANK)
		return 0;
	err = avp_tensor_init(&e->tensor,
			      (char *)f->map + f->data_off + e->begin,
			      kind->dtype, e->tensor.rank, e->tensor.shape);
	return err ? bad(why, e->name, "is over 2^63 bytes") : 0;
}

static int by_begin(const void *a, const void *b)
{
	const struct avp__weight *x = a, *y = b;

	if (x->begin != y->begin)
		return x->begin < y->begin ? -1 : 1;
	return (x->end > y->end) - (x->end < y->end);
}

/* Every byte of the data belongs to exactly one tensor. */
static int check_cover(struct avp__weight *e, uint32_t n, uint64_t data_bytes,
		       struct avp_reason *why)
{
	uint64_t at = 0;

	qsort(e, n, sizeof(*e), by_begin);
	for (uint32_t i = 0; i < n; i++) {
		if (e[i].begin != at)
			return bad(why, e[i].name,
				   e[i].begin < at ? "overlaps another one"
						   : "leaves a hole before it");
		at = e[i].end;
	}
	if (at != data_bytes)
		return avp__fail(why, AVP_DESERIALIZATION_ERROR,
				 "%llu bytes follow the last tensor; the file "
				 "is damaged",
				 (unsigned long long)(data_bytes - at));
	return 0;
}

static int make_room(struct avp_weights *w, uint32_t more,
		     struct avp_reason *why)
{
	const uint64_t need = (uint64_t)w->count + more;
	struct avp__weight *grown;

	if (need <= w->capacity)
		return 0;
	grown = need > UINT32_MAX / 2 ? NULL
				      : realloc(w->all, need * sizeof(*grown));
	if (!grown)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for %llu names",
				 (unsigned long long)need);
	w->all = grown;
	w->capacity = (uint32_t)need;
	return 0;
}

/* The tensors that the header of file w->file_count names. */
static int read_header(struct avp_weights *w, const struct avp__weights_file *f,
		       struct avp_reason *why)
{
	const struct avp_json *root = avp_json_root(f->header);
	struct avp__weight *first;
	uint32_t n = 0;
	int err;

	if (avp_json_type_of(root) != AVP_JSON_OBJECT)
		return avp__fail(why, AVP_DESERIALIZATION_ERROR,
				 "the header is not a JSON object");
	err = make_room(w, avp_json_count(root), why);
	if (err)
		return err;
	first = w->all + w->count;
	for (const struct avp_json *m = avp_json_first(root); m;
	     m = avp_json_next(m)) {
		if (avp_str_equal(avp_json_key_of(m),
				  avp_str_of("__metadata__")))
			continue;
		first[n] = (struct avp__weight){.file = w->file_count};
		err = read_tensor(f, m, &first[n], why);
		if (err)
			return err;
		n++;
	}
	err = check_cover(first, n, f->bytes - f->data_off, why);
	if (!err)
		w->count += n;
	return err;
}

/* Read, not mapped: the header that was judged is the one that is used. */
static int parse_header(int fd, const char *path, struct avp__weights_file *f,
			struct avp_reason *why)
{
	uint8_t head[LENGTH_BYTES];
	struct avp_json_options options = {
		.size = sizeof(options), .max_bytes = AVP_WEIGHTS_HEADER_BYTES};
	uint64_t len = 0;
	char *text;
	int err;

	if (pread(fd, head, sizeof(head), 0) != sizeof(head))
		return avp__fail(why, AVP_DESERIALIZATION_ERROR,
				 "%llu bytes are no safetensors file",
				 (unsigned long long)f->bytes);
	for (int i = 0; i < LENGTH_BYTES; i++)
		len |= (uint64_t)head[i] << 8 * i;
	if (len > f->bytes - LENGTH_BYTES)
		return avp__fail(why, AVP_DESERIALIZATION_ERROR,
				 "a header of %llu bytes in a file of %llu; it "
				 "is no safetensors file, or not whole",
				 (unsigned long long)len,
				 (unsigned long long)f->bytes);
	if (len > AVP_WEIGHTS_HEADER_BYTES)
		return avp__fail(why, AVP_TOO_LARGE,
				 "a header of %llu bytes; at most %u are read",
				 (unsigned long long)len,
				 AVP_WEIGHTS_HEADER_BYTES);
	text = malloc(len + 1);
	if (!text)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for a header");
	if (pread(fd, text, len, LENGTH_BYTES) == (ssize_t)len)
		err = avp_json_parse(&f->header, text, len, &options, why);
	else
		err = avp__file_failed(path, why);
	free(text);
	f->data_off = LENGTH_BYTES + len;
	return err;
}

static int open_file(int fd, const char *path, struct avp__weights_file *f,
		     struct avp_reason *why)
{
	struct stat st;
	int err;

	if (fstat(fd, &st))
		return avp__file_failed(path, why);
	if (!S_ISREG(st.st_mode))
		return avp__fail(why, AVP_IO, "%s: is not a file", path);
	f->bytes = (uint64_t)st.st_size;
	err = parse_header(fd, path, f, why);
	if (err)
		return err;
	f->map = mmap(NULL, f->bytes, PROT_READ, MAP_SHARED, fd, 0);
	if (f->map == MAP_FAILED) {
		f->map = NULL;
		return avp__file_failed(path, why);
	}
	return 0;
}

int avp__weights_add(struct avp_weights *w, int dir_fd, const char *path,
		     struct avp_str name, struct avp_reason *why)
{
	struct avp__weights_file f = {.name = name};
	struct avp__weights_file *grown;
	int fd, err;

	if (w->file_count == AVP_WEIGHTS_FILES)
		return avp__fail(why, AVP_TOO_LARGE,
				 "more than %d files of one model",
				 AVP_WEIGHTS_FILES);
	grown = realloc(w->files, (w->file_count + 1) * sizeof(*grown));
	if (!grown)
		return avp__fail(why, AVP_NO_MEMORY, "no memory");
	w->files = grown;
	/* O_NONBLOCK: a FIFO must not hold us up before it is recognised. */
	fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return avp__file_failed(path, why);
	err = open_file(fd, path, &f, why);
	close(fd);
	if (!err)
		err = read_header(w, &f, why);
	if (err) {
		if (f.map)
			munmap(f.map, f.bytes);
		avp_json_free(f.header);
		return err;
	}
	w->files[w->file_count++] = f;
	return 0;
}
