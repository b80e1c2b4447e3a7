/* SPDX-License-Identifier: Apache-2.0 */
/* <avp/str.h>: borrowed strings with a length, as every protocol field has. */
#ifndef AVP_STR_H
#define AVP_STR_H

#include <stddef.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Borrowed bytes: UTF-8 that may hold NUL and has none at its end. */
struct avp_str {
	const char *data;
	size_t len;
};

static inline struct avp_str avp_str_of(const char *text)
{
	struct avp_str s;

	s.data = text;
	s.len = text ? strlen(text) : 0;
	return s;
}

static inline int avp_str_equal(struct avp_str a, struct avp_str b)
{
	return a.len == b.len && (!a.len || !memcmp(a.data, b.data, a.len));
}

#ifdef __cplusplus
}
#endif
#endif
