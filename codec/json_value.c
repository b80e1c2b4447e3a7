/* SPDX-License-Identifier: Apache-2.0 */
/* Looking into a parsed JSON document, and strict members of messages. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "codec/json_internal.h"

static const char *const type_names[] = {
	"null",	    "a boolean", "an integer", "a number",
	"a string", "an array",	 "an object",
};

const struct avp_json *avp_json_root(const struct avp_json_doc *doc)
{
	return doc->node;
}

enum avp_json_type avp_json_type_of(const struct avp_json *value)
{
	return value ? (enum avp_json_type)value->type : AVP_JSON_NULL;
}

static bool is_container(const struct avp_json *value)
{
	return value && value->type >= AVP_JSON_ARRAY;
}

uint32_t avp_json_count(const struct avp_json *value)
{
	return is_container(value) ? value->n : 0;
}

static const struct avp_json *node_at(const struct avp_json *value, uint32_t i)
{
	return i ? &avp__json_doc(value)->node[i] : NULL;
}

const struct avp_json *avp_json_first(const struct avp_json *container)
{
	return is_container(container) ? node_at(container, container->a)
				       : NULL;
}

const struct avp_json *avp_json_next(const struct avp_json *value)
{
	return value ? node_at(value, value->next) : NULL;
}

struct avp_str avp_json_key_of(const struct avp_json *member)
{
	struct avp_str key = {"", 0};

	if (member && member->key_len) {
		key.data = avp__json_doc(member)->text + member->key_off;
		key.len = member->key_len;
	}
	return key;
}

static const struct avp_json *find_sorted(const struct avp_json *object,
					  struct avp_str key)
{
	const struct avp_json_doc *doc = avp__json_doc(object);
	const uint32_t *order = doc->order + object->order;
	size_t low = 0, high = object->n;

	while (low < high) {
		size_t middle = (low + high) / 2;
		const struct avp_json *m = &doc->node[order[middle]];
		int c = avp__str_compare(key, avp_json_key_of(m));

		if (!c)
			return m;
		if (c < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return NULL;
}

const struct avp_json *avp_json_find(const struct avp_json *object,
				     struct avp_str key)
{
	const struct avp_json *m;

	if (avp_json_type_of(object) != AVP_JSON_OBJECT)
		return NULL;
	if (object->n > JSON_SMALL_OBJECT)
		return find_sorted(object, key);
	for (m = avp_json_first(object); m; m = avp_json_next(m))
		if (avp_str_equal(avp_json_key_of(m), key))
			return m;
	return NULL;
}

const struct avp_json *avp_json_get(const struct avp_json *object,
				    const char *key)
{
	return avp_json_find(object, avp_str_of(key));
}

/* ---- one value ---------------------------------------------------------- */

static const char *text_of(const struct avp_json *value)
{
	return avp__json_doc(value)->text + value->a;
}

int avp_json_bool(const struct avp_json *value, bool *out)
{
	if (avp_json_type_of(value) != AVP_JSON_BOOL)
		return AVP_INVALID_MESSAGE;
	*out = value->n;
	return 0;
}

int avp_json_int64(const struct avp_json *value, int64_t *out)
{
	int saved = errno;
	long long n;
	bool fits;

	if (avp_json_type_of(value) != AVP_JSON_INT)
		return AVP_INVALID_MESSAGE;
	errno = 0;
	n = strtoll(text_of(value), NULL, 10);
	fits = !errno;
	errno = saved;
	if (!fits)
		return AVP_INVALID_MESSAGE;
	*out = n;
	return 0;
}

int avp_json_uint64(const struct avp_json *value, uint64_t *out)
{
	int saved = errno;
	unsigned long long n;
	bool fits;

	if (avp_json_type_of(value) != AVP_JSON_INT || text_of(value)[0] == '-')
		return AVP_INVALID_MESSAGE;
	errno = 0;
	n = strtoull(text_of(value), NULL, 10);
	fits = !errno;
	errno = saved;
	if (!fits)
		return AVP_INVALID_MESSAGE;
	*out = n;
	return 0;
}

int avp_json_double(const struct avp_json *value, double *out)
{
	if (avp_json_type_of(value) != AVP_JSON_INT &&
	    avp_json_type_of(value) != AVP_JSON_FLOAT)
		return AVP_INVALID_MESSAGE;
	*out = avp__json_number(text_of(value));
	return 0;
}

int avp_json_string(const struct avp_json *value, struct avp_str *out)
{
	if (avp_json_type_of(value) != AVP_JSON_STRING)
		return AVP_INVALID_MESSAGE;
	*out = (struct avp_str){text_of(value), value->n};
	return 0;
}

struct avp_str avp_json_digits(const struct avp_json *value)
{
	if (avp_json_type_of(value) != AVP_JSON_INT)
		return (struct avp_str){"", 0};
	return (struct avp_str){text_of(value), value->n};
}

/* ---- members of a message ----------------------------------------------- */

static int wrong_type(const struct avp_json *value, const char *key,
		      const char *wanted, struct avp_reason *why)
{
	return avp__fail(why, AVP_INVALID_MESSAGE,
			 "\"%s\" is %s; it must be %s", key,
			 type_names[avp_json_type_of(value)], wanted);
}

/* The member if it is there and not null. */
static const struct avp_json *member(const struct avp_json *object,
				     const char *key)
{
	const struct avp_json *m = avp_json_get(object, key);

	return avp_json_type_of(m) == AVP_JSON_NULL ? NULL : m;
}

int avp_json_get_bool(const struct avp_json *object, const char *key, bool *out,
		      struct avp_reason *why)
{
	const struct avp_json *m = member(object, key);

	if (!m)
		return 0;
	if (avp_json_bool(m, out))
		return wrong_type(m, key, "true or false", why);
	return 1;
}

int avp_json_get_int(const struct avp_json *object, const char *key,
		     int64_t min, int64_t max, int64_t *out,
		     struct avp_reason *why)
{
	const struct avp_json *m = member(object, key);
	int64_t n;

	if (!m)
		return 0;
	if (m->type != AVP_JSON_INT)
		return wrong_type(m, key, "an integer", why);
	if (avp_json_int64(m, &n) || n < min || n > max)
		return avp__fail(why, AVP_INVALID_MESSAGE,
				 "\"%s\" is %.40s%s; it must be from %" PRId64
				 " to %" PRId64,
				 key, text_of(m), m->n > 40 ? "..." : "", min,
				 max);
	*out = n;
	return 1;
}

int avp_json_get_uint(const struct avp_json *object, const char *key,
		      uint64_t max, uint64_t *out, struct avp_reason *why)
{
	const struct avp_json *m = member(object, key);
	uint64_t n;

	if (!m)
		return 0;
	if (m->type != AVP_JSON_INT)
		return wrong_type(m, key, "an integer", why);
	if (avp_json_uint64(m, &n) || n > max)
		return avp__fail(why, AVP_INVALID_MESSAGE,
				 "\"%s\" is %.40s%s; it must be from 0 to "
				 "%" PRIu64,
				 key, text_of(m), m->n > 40 ? "..." : "", max);
	*out = n;
	return 1;
}

int avp_json_get_double(const struct avp_json *object, const char *key,
			double *out, struct avp_reason *why)
{
	const struct avp_json *m = member(object, key);

	if (!m)
		return 0;
	if (avp_json_double(m, out))
		return wrong_type(m, key, "a number", why);
	return 1;
}

int avp_json_get_string(const struct avp_json *object, const char *key,
			struct avp_str *out, struct avp_reason *why)
{
	const struct avp_json *m = member(object, key);

	if (!m)
		return 0;
	if (avp_json_string(m, out))
		return wrong_type(m, key, "a string", why);
	return 1;
}

static int get_container(const struct avp_json *object, const char *key,
			 enum avp_json_type type, const struct avp_json **out,
			 struct avp_reason *why)
{
	const struct avp_json *m = member(object, key);

	if (!m)
		return 0;
	if (avp_json_type_of(m) != type)
		return wrong_type(m, key, type_names[type], why);
	*out = m;
	return 1;
}

int avp_json_get_array(const struct avp_json *object, const char *key,
		       const struct avp_json **out, struct avp_reason *why)
{
	return get_container(object, key, AVP_JSON_ARRAY, out, why);
}

int avp_json_get_object(const struct avp_json *object, const char *key,
			const struct avp_json **out, struct avp_reason *why)
{
	return get_container(object, key, AVP_JSON_OBJECT, out, why);
}

int avp_json_expect_object(const struct avp_json *value, const char *what,
			   struct avp_reason *why)
{
	if (avp_json_type_of(value) == AVP_JSON_OBJECT)
		return 0;
	return avp__fail(why, AVP_INVALID_MESSAGE,
			 "%s is a JSON object, not %s", what,
			 type_names[avp_json_type_of(value)]);
}
