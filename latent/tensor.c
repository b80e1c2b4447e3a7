/* SPDX-License-Identifier: Apache-2.0 */
/* Views of numbers: shape, stride, slices, and the copy that honours them. */
#include <string.h>

#include <avp/latent.h>

int avp_tensor_init(struct avp_tensor *t, const void *data, uint32_t dtype,
		    uint32_t rank, const uint64_t *shape)
{
	struct avp_tensor made = {
		.data = (void *)data, .dtype = dtype, .rank = rank};
	int64_t bytes = (int64_t)avp_dtype_size(dtype);

	if (!bytes)
		return AVP_BAD_DTYPE;
	if (rank > AVP_TENSOR_RANK)
		return AVP_TOO_LARGE;
	for (uint32_t d = rank; d-- > 0;) {
		/* An empty dimension must not hide that another overflows. */
		const uint64_t n = shape[d] ? shape[d] : 1;

		made.shape[d] = shape[d];
		made.stride[d] = bytes;
		if (__builtin_mul_overflow(bytes, n, &bytes))
			return AVP_TOO_LARGE;
	}
	*t = made;
	return 0;
}

uint64_t avp_tensor_count(const struct avp_tensor *t)
{
	uint64_t count = 1;

	for (uint32_t d = 0; d < t->rank; d++)
		count *= t->shape[d];
	return count;
}

uint64_t avp_tensor_bytes(const struct avp_tensor *t)
{
	return avp_tensor_count(t) * avp_dtype_size(t->dtype);
}

int avp_tensor_contiguous(const struct avp_tensor *t)
{
	int64_t step = (int64_t)avp_dtype_size(t->dtype);

	if (!avp_tensor_count(t))
		return 1;
	for (uint32_t d = t->rank; d-- > 0;) {
		if (t->shape[d] != 1 && t->stride[d] != step)
			return 0;
		step *= (int64_t)t->shape[d];
	}
	return 1;
}

int avp_tensor_slice(const struct avp_tensor *t, uint32_t dim, uint64_t first,
		     uint64_t count, struct avp_tensor *out)
{
	struct avp_tensor made = *t;

	if (dim >= t->rank || first > t->shape[dim] ||
	    count > t->shape[dim] - first)
		return AVP_USAGE;
	if (count)
		made.data = (char *)t->data + (int64_t)first * t->stride[dim];
	made.shape[dim] = count;
	*out = made;
	return 0;
}

int avp_tensor_select(const struct avp_tensor *t, uint32_t dim, uint64_t index,
		      struct avp_tensor *out)
{
	struct avp_tensor made = *t;
	size_t after;

	if (dim >= t->rank || index >= t->shape[dim])
		return AVP_USAGE;
	made.data = (char *)t->data + (int64_t)index * t->stride[dim];
	after = t->rank - dim - 1;
	memmove(made.shape + dim, made.shape + dim + 1,
		after * sizeof(made.shape[0]));
	memmove(made.stride + dim, made.stride + dim + 1,
		after * sizeof(made.stride[0]));
	made.rank--;
	*out = made;
	return 0;
}

int avp_tensor_swap(const struct avp_tensor *t, uint32_t a, uint32_t b,
		    struct avp_tensor *out)
{
	struct avp_tensor made = *t;

	if (a >= t->rank || b >= t->rank)
		return AVP_USAGE;
	made.shape[a] = t->shape[b];
	made.stride[a] = t->stride[b];
	made.shape[b] = t->shape[a];
	made.stride[b] = t->stride[a];
	*out = made;
	return 0;
}

/*
 * How many of the last dimensions lie without gaps in both; *run is their
 * number of elements, which one conversion takes.
 */
static uint32_t common_run(const struct avp_tensor *to,
			   const struct avp_tensor *from, uint64_t *run)
{
	int64_t to_step = (int64_t)avp_dtype_size(to->dtype);
	int64_t from_step = (int64_t)avp_dtype_size(from->dtype);
	uint32_t d = to->rank;

	*run = 1;
	while (d > 0) {
		const uint64_t n = to->shape[d - 1];

		if (n != 1 && (to->stride[d - 1] != to_step ||
			       from->stride[d - 1] != from_step))
			break;
		*run *= n;
		to_step *= (int64_t)n;
		from_step *= (int64_t)n;
		d--;
	}
	return d;
}

/* Counts index up in the first `dims` dimensions; 0 after the last. */
static int advance(const struct avp_tensor *t, uint32_t dims, uint64_t *index)
{
	while (dims-- > 0) {
		if (++index[dims] < t->shape[dims])
			return 1;
		index[dims] = 0;
	}
	return 0;
}

static char *place(const struct avp_tensor *t, uint32_t dims,
		   const uint64_t *index)
{
	char *at = t->data;

	for (uint32_t d = 0; d < dims; d++)
		at += (int64_t)index[d] * t->stride[d];
	return at;
}

static int same_shape(const struct avp_tensor *a, const struct avp_tensor *b,
		      struct avp_reason *why)
{
	if (a->rank != b->rank)
		return avp__fail(
			why, AVP_SHAPE_MISMATCH,
			"a tensor of %u dimensions does not fit one of "
			"%u; select or slice it first",
			b->rank, a->rank);
	for (uint32_t d = 0; d < a->rank; d++)
		if (a->shape[d] != b->shape[d])
			return avp__fail(
				why, AVP_SHAPE_MISMATCH,
				"dimension %u is %llu here and %llu there; "
				"both tensors need one shape",
				d, (unsigned long long)a->shape[d],
				(unsigned long long)b->shape[d]);
	return 0;
}

/* One dimension of runs: n of them, `run` elements each. */
struct lane {
	char *to;
	const char *from;
	int64_t to_step, from_step;
	uint64_t n, run;
};

static void copy_lane(const struct lane *l, size_t bytes)
{
	char *to = l->to;
	const char *from = l->from;

	/* Of a fixed size it is a move, not a call: a transposed tensor. */
	if (bytes == 2)
		for (uint64_t i = 0; i < l->n; i++)
			memcpy(to + (int64_t)i * l->to_step,
			       from + (int64_t)i * l->from_step, 2);
	else if (bytes == 4)
		for (uint64_t i = 0; i < l->n; i++)
			memcpy(to + (int64_t)i * l->to_step,
			       from + (int64_t)i * l->from_step, 4);
	else
		for (uint64_t i = 0; i < l->n; i++)
			memcpy(to + (int64_t)i * l->to_step,
			       from + (int64_t)i * l->from_step, bytes);
}

static void convert_lane(const struct lane *l, uint32_t to_dtype,
			 uint32_t from_dtype)
{
	for (uint64_t i = 0; i < l->n; i++)
		avp_convert(l->to + (int64_t)i * l->to_step, to_dtype,
			    l->from + (int64_t)i * l->from_step, from_dtype,
			    l->run);
}

static void copy_all(const struct avp_tensor *to, const struct avp_tensor *from)
{
	uint64_t index[AVP_TENSOR_RANK] = {0};
	struct lane l = {.n = 1};
	uint32_t dims = common_run(to, from, &l.run);
	const size_t bytes = l.run * avp_dtype_size(to->dtype);

	if (dims) {
		dims--;
		l.n = to->shape[dims];
		l.to_step = to->stride[dims];
		l.from_step = from->stride[dims];
	}
	do {
		l.to = place(to, dims, index);
		l.from = place(from, dims, index);
		if (to->dtype == from->dtype)
			copy_lane(&l, bytes);
		else
			convert_lane(&l, to->dtype, from->dtype);
	} while (advance(to, dims, index));
}

int avp_tensor_copy(const struct avp_tensor *to, const struct avp_tensor *from,
		    struct avp_reason *why)
{
	int err = same_shape(to, from, why);

	if (err)
		return err;
	if (!avp_dtype_size(to->dtype) || !avp_dtype_size(from->dtype))
		return avp__fail(why, AVP_BAD_DTYPE,
				 "dtypes %u and %u; 0 to 3 are known",
				 from->dtype, to->dtype);
	if (avp_tensor_count(to))
		copy_all(to, from);
	return 0;
}

int avp_tensor_of_frame(const struct avp_metadata *m, const void *content,
			uint64_t content_bytes, struct avp_tensor *t,
			struct avp_reason *why)
{
	uint32_t dims[AVP_TENSOR_RANK];
	uint64_t shape[AVP_TENSOR_RANK];
	size_t rank = avp_metadata_shape(m, dims, AVP_TENSOR_RANK);
	const size_t item = avp_dtype_size(m->dtype);
	struct avp_tensor made;
	int err;

	if (!item)
		return avp__fail(why, AVP_BAD_DTYPE,
				 "dtype %u; 0 to 3 are known", m->dtype);
	if (rank > AVP_TENSOR_RANK)
		return avp__fail(why, AVP_SHAPE_MISMATCH,
				 "tensor_shape has %zu dimensions; at most %d "
				 "are handled",
				 rank, AVP_TENSOR_RANK);
	for (size_t d = 0; d < rank; d++)
		shape[d] = dims[d];
	if (!rank)
		shape[rank++] = content_bytes / item;
	err = avp_tensor_init(&made, content, m->dtype, (uint32_t)rank, shape);
	if (err || avp_tensor_bytes(&made) != content_bytes)
		return avp__fail(
			why, AVP_SHAPE_MISMATCH,
			"the payload has %llu bytes, tensor_shape times the "
			"%zu bytes of %s asks for %s%llu",
			(unsigned long long)content_bytes, item,
			avp_dtype_name(m->dtype), err ? "more than " : "",
			err ? (unsigned long long)INT64_MAX
			    : (unsigned long long)avp_tensor_bytes(&made));
	*t = made;
	return 0;
}
