/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/1.1: what h1.c, which reads bodies and writes answers, knows of h1_head.c. */
#ifndef AVP_GATEWAY_H1_H
#define AVP_GATEWAY_H1_H

#include "gateway/conn.h"

struct h1_head {
	bool chunked;
	bool keep; /* another request may follow */
};

/*
 * Where the header that begins at p ends: its length, 0 when its end has not
 * come, AVP_INVALID_MESSAGE for a line that does not end with CR LF, or a NUL.
 * The first `from` bytes were looked at before.
 */
long h1_head_end(const uint8_t *p, size_t n, size_t from);

/*
 * Reads a header of n bytes into the request. 0, or the status of the refusal
 * and what is wrong.
 */
int h1_head_read(struct h1_head *head, struct http_request *r, const uint8_t *p,
		 size_t n, const char **why);

#endif
