/* SPDX-License-Identifier: Apache-2.0 */
/* Names from outside, as a reason may show them. */
#ifndef AVP_LATENT_SHOWN_H
#define AVP_LATENT_SHOWN_H

#include <avp/str.h>

/*
 * For "%.*s": a name cut to at most 60 bytes, at the end of a character, for a
 * reason may travel on as JSON. It needs no NUL at its end.
 */
#define SHOWN(s) avp__shown(s), (s).len ? (s).data : ""

static inline int avp__shown(struct avp_str s)
{
	size_t n = 60;

	if (s.len <= n)
		return (int)s.len;
	while (n && ((unsigned char)s.data[n] & 0xc0) == 0x80)
		n--;
	return (int)n;
}

#endif
