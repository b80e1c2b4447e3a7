/* SPDX-License-Identifier: Apache-2.0 */
/* Opcodes and their meaning: Lib/pickletools.py of CPython; protocol 2. */
#include "latent/realign_pickle.h"

#include <math.h>
#include <string.h>

/* Such a dictionary makes some 40 values, 10 deep; all bounds are generous. */
#define MAX_VALUES 256
#define MAX_STACK  64
#define MAX_ITEMS  8 /* of a tuple */

enum type {
	T_INT,
	T_BOOL,
	T_FLOAT,
	T_STRING,
	T_TUPLE,
	T_DICT,	   /* the one that all is about */
	T_REBUILD, /* the name torch._utils._rebuild_tensor_v2 */
	T_ORDERED, /* the name collections.OrderedDict, or an empty one */
	T_STORAGE_TYPE,
	T_STORAGE,
	T_TENSOR,
};

struct value {
	enum type type;
	int64_t number; /* also a storage type's dtype */
	double real;
	struct avp_str text;
	uint32_t count;
	uint16_t items[MAX_ITEMS]; /* values */
};

struct machine {
	const uint8_t *at, *end;
	uint32_t values, depth;
	uint32_t marks[MAX_STACK], mark_count;
	struct value value[MAX_VALUES];
	uint16_t stack[MAX_STACK];
	uint16_t memo[256];
	uint8_t known[256];
	int w, norm; /* values in the dictionary, or -1 */
};

/* All steps return 1, or 0 when the pickle is not of the expected kind. */

static int push(struct machine *m, uint16_t value)
{
	if (m->depth == MAX_STACK)
		return 0;
	m->stack[m->depth++] = value;
	return 1;
}

static struct value *push_new(struct machine *m, enum type type)
{
	struct value *v;

	if (m->values == MAX_VALUES || !push(m, (uint16_t)m->values))
		return NULL;
	v = &m->value[m->values++];
	*v = (struct value){.type = type};
	return v;
}

/* The bottom of what may be taken: nothing below a MARK is touched by pops. */
static uint32_t floor_of(const struct machine *m)
{
	return m->mark_count ? m->marks[m->mark_count - 1] : 0;
}

static struct value *pop(struct machine *m)
{
	if (m->depth == floor_of(m))
		return NULL;
	return &m->value[m->stack[--m->depth]];
}

static int bytes_left(const struct machine *m, size_t n)
{
	return (size_t)(m->end - m->at) >= n;
}

static int push_number(struct machine *m, int width)
{
	uint32_t x = 0;
	struct value *v;

	if (!bytes_left(m, (size_t)width) || !(v = push_new(m, T_INT)))
		return 0;
	for (int i = 0; i < width; i++)
		x |= (uint32_t)m->at[i] << 8 * i;
	v->number = width == 4 ? (int64_t)(int32_t)x : (int64_t)x;
	m->at += width;
	return 1;
}

static int push_float(struct machine *m)
{
	struct value *v;
	uint64_t x = 0;

	if (!bytes_left(m, 8) || !(v = push_new(m, T_FLOAT)))
		return 0;
	for (int i = 0; i < 8; i++) /* big-endian */
		x = x << 8 | *m->at++;
	memcpy(&v->real, &x, sizeof(x));
	return 1;
}

static int push_string(struct machine *m)
{
	struct value *v;
	uint32_t n = 0;

	if (!bytes_left(m, 4))
		return 0;
	for (int i = 0; i < 4; i++)
		n |= (uint32_t)*m->at++ << 8 * i;
	if (!bytes_left(m, n) || !(v = push_new(m, T_STRING)))
		return 0;
	v->text = (struct avp_str){(const char *)m->at, n};
	m->at += n;
	return 1;
}

static int push_global(struct machine *m)
{
	static const struct {
		const char *name;
		enum type type;
		uint32_t dtype;
	} known[] = {
		{"torch._utils\n_rebuild_tensor_v2\n", T_REBUILD, 0},
		{"collections\nOrderedDict\n", T_ORDERED, 0},
		{"torch\nFloatStorage\n", T_STORAGE_TYPE, AVP_FLOAT32},
		{"torch\nHalfStorage\n", T_STORAGE_TYPE, AVP_FLOAT16},
		{"torch\nBFloat16Storage\n", T_STORAGE_TYPE, AVP_BFLOAT16},
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		const size_t n = strlen(known[i].name);
		struct value *v;

		if (!bytes_left(m, n) || memcmp(m->at, known[i].name, n))
			continue;
		v = push_new(m, known[i].type);
		if (!v)
			return 0;
		v->number = known[i].dtype;
		m->at += n;
		return 1;
	}
	return 0;
}

/* A tuple of the n values on top. */
static int push_tuple(struct machine *m, uint32_t n)
{
	uint16_t items[MAX_ITEMS];
	struct value *v;

	if (n > MAX_ITEMS || n > m->depth - floor_of(m))
		return 0;
	m->depth -= n;
	memcpy(items, m->stack + m->depth, n * sizeof(items[0]));
	v = push_new(m, T_TUPLE);
	if (!v)
		return 0;
	v->count = n;
	memcpy(v->items, items, n * sizeof(items[0]));
	return 1;
}

static int push_mark(struct machine *m)
{
	if (m->mark_count == MAX_STACK)
		return 0;
	m->marks[m->mark_count++] = m->depth;
	return 1;
}

/* How many values lie above the last mark, which goes away. */
static int pop_mark(struct machine *m, uint32_t *n)
{
	if (!m->mark_count)
		return 0;
	*n = m->depth - m->marks[--m->mark_count];
	return 1;
}

static struct value *item(struct machine *m, const struct value *tuple,
			  uint32_t i, enum type type)
{
	struct value *v;

	if (!tuple || tuple->type != T_TUPLE || i >= tuple->count)
		return NULL;
	v = &m->value[tuple->items[i]];
	return v->type == type ? v : NULL;
}

/* BINPERSID: ("storage", type, key, location, number of elements). */
static int push_storage(struct machine *m)
{
	const struct value *id = pop(m);
	const struct value *word = item(m, id, 0, T_STRING);
	const struct value *type = item(m, id, 1, T_STORAGE_TYPE);
	const struct value *key = item(m, id, 2, T_STRING);
	const struct value *count = item(m, id, 4, T_INT);
	struct value *v;

	if (!word || !type || !key || !count || id->count != 5 ||
	    count->number < 0 ||
	    !avp_str_equal(word->text, avp_str_of("storage")))
		return 0;
	v = push_new(m, T_STORAGE);
	if (!v)
		return 0;
	v->number = count->number;
	v->text = key->text;
	v->count = (uint32_t)type->number;
	return 1;
}

/* REDUCE: an empty OrderedDict, or a tensor whose arguments are kept. */
static int reduce(struct machine *m)
{
	const struct value *arguments = pop(m), *callee = pop(m);
	struct value *v;

	if (!arguments || !callee || arguments->type != T_TUPLE)
		return 0;
	if (callee->type == T_ORDERED)
		return !arguments->count && push_new(m, T_ORDERED);
	if (callee->type != T_REBUILD || arguments->count < 6)
		return 0;
	v = push_new(m, T_TENSOR);
	if (!v)
		return 0;
	v->count = arguments->count;
	memcpy(v->items, arguments->items, sizeof(v->items));
	return 1;
}

static int set_item(struct machine *m, uint16_t key, uint16_t value)
{
	const struct value *k = &m->value[key];
	int *place;

	if (k->type != T_STRING)
		return 0;
	if (avp_str_equal(k->text, avp_str_of("w_realign")))
		place = &m->w;
	else if (avp_str_equal(k->text, avp_str_of("target_norm")))
		place = &m->norm;
	else
		return 0;
	if (*place >= 0)
		return 0;
	*place = value;
	return 1;
}

/* The n values on top are keys and values for the dictionary below them. */
static int set_items(struct machine *m, uint32_t n)
{
	const uint16_t *pairs;

	if (n % 2 || n + 1 > m->depth - floor_of(m))
		return 0;
	m->depth -= n;
	pairs = m->stack + m->depth;
	if (m->value[m->stack[m->depth - 1]].type != T_DICT)
		return 0;
	for (uint32_t i = 0; i < n; i += 2)
		if (!set_item(m, pairs[i], pairs[i + 1]))
			return 0;
	return 1;
}

/* One memo of 256 serves: torch's own numbers end below 30. */
static int memorise(struct machine *m, int width)
{
	uint32_t i;

	if (!bytes_left(m, (size_t)width) || m->depth == floor_of(m))
		return 0;
	i = m->at[0];
	for (int b = 1; b < width; b++)
		if (m->at[b])
			return 0;
	m->at += width;
	m->memo[i] = m->stack[m->depth - 1];
	m->known[i] = 1;
	return 1;
}

static int recall(struct machine *m)
{
	uint8_t i;

	if (!bytes_left(m, 1))
		return 0;
	i = *m->at++;
	return m->known[i] && push(m, m->memo[i]);
}

static int step(struct machine *m, uint8_t opcode)
{
	struct value *v;
	uint32_t n;

	switch (opcode) {
	case '}': return m->values == 0 && push_new(m, T_DICT);
	case 'q': return memorise(m, 1);
	case 'r': return memorise(m, 4);
	case 'h': return recall(m);
	case '(': return push_mark(m);
	case 'X': return push_string(m);
	case 'c': return push_global(m);
	case 'K': return push_number(m, 1);
	case 'M': return push_number(m, 2);
	case 'J': return push_number(m, 4);
	case 'G': return push_float(m);
	case ')': return push_tuple(m, 0);
	case 0x85: return push_tuple(m, 1);
	case 0x86: return push_tuple(m, 2);
	case 0x87: return push_tuple(m, 3);
	case 't': return pop_mark(m, &n) && push_tuple(m, n);
	case 'Q': return push_storage(m);
	case 'R': return reduce(m);
	case 's': return set_items(m, 2);
	case 'u': return pop_mark(m, &n) && set_items(m, n);
	case 0x88:
	case 0x89:
		v = push_new(m, T_BOOL);
		if (v)
			v->number = opcode == 0x88;
		return v != NULL;
	default: return 0;
	}
}

/* ---- from values to what they describe ----------------------------------- */

static int take_counts(struct machine *m, const struct value *tuple,
		       uint64_t *to)
{
	for (uint32_t i = 0; i < tuple->count; i++) {
		const struct value *v = item(m, tuple, i, T_INT);

		if (!v || v->number < 0)
			return 0;
		to[i] = (uint64_t)v->number;
	}
	return 1;
}

/* Every element lies inside the storage. Numbers are below 2^31 each. */
static int inside(const struct avp__pickled_tensor *t)
{
	uint64_t last = t->offset;

	for (uint32_t d = 0; d < t->rank; d++) {
		if (!t->shape[d])
			return 0;
		last += (t->shape[d] - 1) * t->stride[d];
	}
	return last < t->elements;
}

/* _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks) */
static int take_tensor(struct machine *m, const struct value *v,
		       struct avp__pickled_tensor *t)
{
	const struct value arguments = {
		.type = T_TUPLE,
		.count = v->count,
		.items = {v->items[0], v->items[1], v->items[2], v->items[3]}};
	const struct value *storage = item(m, &arguments, 0, T_STORAGE);
	const struct value *offset = item(m, &arguments, 1, T_INT);
	const struct value *size = item(m, &arguments, 2, T_TUPLE);
	const struct value *stride = item(m, &arguments, 3, T_TUPLE);

	*t = (struct avp__pickled_tensor){0};
	if (v->type != T_TENSOR || !storage || !offset || !size || !stride ||
	    size->count > 2 || stride->count != size->count ||
	    offset->number < 0 || storage->text.len >= sizeof(t->key) ||
	    memchr(storage->text.data, 0, storage->text.len))
		return 0;
	t->dtype = storage->count;
	t->elements = (uint64_t)storage->number;
	memcpy(t->key, storage->text.data, storage->text.len);
	t->offset = (uint64_t)offset->number;
	t->rank = size->count;
	return take_counts(m, size, t->shape) &&
	       take_counts(m, stride, t->stride) && inside(t);
}

static int take_norm(struct machine *m, const struct value *v,
		     struct avp__pickled_matrix *out)
{
	if (v->type == T_FLOAT || v->type == T_INT) {
		out->norm_number =
			v->type == T_INT ? (double)v->number : v->real;
		return 1;
	}
	out->norm_is_tensor = 1;
	return take_tensor(m, v, &out->norm) &&
	       (out->norm.rank < 1 || out->norm.shape[0] == 1) &&
	       (out->norm.rank < 2 || out->norm.shape[1] == 1);
}

static int take_matrix(struct machine *m, struct avp__pickled_matrix *out)
{
	*out = (struct avp__pickled_matrix){0};
	return m->depth == 1 && !m->mark_count && m->stack[0] == 0 &&
	       m->w >= 0 && m->norm >= 0 &&
	       take_tensor(m, &m->value[m->w], &out->w) && out->w.rank == 2 &&
	       out->w.shape[0] == out->w.shape[1] &&
	       take_norm(m, &m->value[m->norm], out);
}

int avp__pickle_read(const uint8_t *bytes, size_t len,
		     struct avp__pickled_matrix *out, struct avp_reason *why)
{
	struct machine m = {
		.at = bytes, .end = bytes + len, .w = -1, .norm = -1};

	if (len < 2 || bytes[0] != 0x80 || bytes[1] != 2)
		return avp__fail(why, AVP_DESERIALIZATION_ERROR,
				 "data.pkl is no pickle of protocol 2");
	m.at += 2;
	while (m.at < m.end) {
		const uint8_t opcode = *m.at++;

		if (opcode == '.')
			break;
		if (!step(&m, opcode))
			return avp__fail(
				why, AVP_DESERIALIZATION_ERROR,
				"data.pkl: what stands at byte %zu (0x%02x) is "
				"not part of {w_realign, target_norm}; nothing "
				"of it was executed",
				(size_t)(m.at - bytes - 1), opcode);
	}
	if (m.at[-1] != '.' || !take_matrix(&m, out))
		return avp__fail(
			why, AVP_DESERIALIZATION_ERROR,
			"data.pkl does not hold a square w_realign and "
			"one target_norm inside their storages");
	return 0;
}

/* ---- writing ------------------------------------------------------------ */

struct out {
	uint8_t *data;
	size_t len;
};

static void put(struct out *o, const void *bytes, size_t n)
{
	memcpy(o->data + o->len, bytes, n);
	o->len += n;
}

static void put_text(struct out *o, const char *text)
{
	const uint8_t head[] = {'X', (uint8_t)strlen(text), 0, 0, 0};

	put(o, head, sizeof(head));
	put(o, text, strlen(text));
}

static void put_number(struct out *o, uint32_t n)
{
	const uint8_t bytes[] = {'J', (uint8_t)n, (uint8_t)(n >> 8),
				 (uint8_t)(n >> 16), (uint8_t)(n >> 24)};

	put(o, bytes, sizeof(bytes));
}

static void put_code(struct out *o, const char *code)
{
	put(o, code, strlen(code));
}

/* Up to and with BINPERSID: a float32 storage and its offset 0. */
static void put_storage(struct out *o, const char *key, uint32_t elements)
{
	put_code(o, "ctorch._utils\n_rebuild_tensor_v2\n((");
	put_text(o, "storage");
	put_code(o, "ctorch\nFloatStorage\n");
	put_text(o, key);
	put_text(o, "cpu");
	put_number(o, elements);
	put_code(o, "tQ");
	put_number(o, 0);
}

/* requires_grad False, hooks OrderedDict(), and the call. */
static void put_rebuild(struct out *o)
{
	put_code(o, "\x89"
		    "ccollections\nOrderedDict\n)RtR");
}

size_t avp__pickle_write(uint8_t *data, uint32_t dim)
{
	struct out o = {data, 0};

	put_code(&o, "\x80\x02}(");
	put_text(&o, "w_realign");
	put_storage(&o, "0", dim * dim);
	put_number(&o, dim);
	put_number(&o, dim);
	put_code(&o, "\x86");
	put_number(&o, dim);
	put_number(&o, 1);
	put_code(&o, "\x86");
	put_rebuild(&o);
	put_text(&o, "target_norm");
	put_storage(&o, "1", 1);
	put_code(&o, "))");
	put_rebuild(&o);
	put_code(&o, "u.");
	return o.len;
}
