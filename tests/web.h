/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small HTTP/1.1 server that says what a test wants said. It runs in the
 * test's own thread: nothing happens but in web_turn().
 */
#ifndef AVP_TESTS_WEB_H
#define AVP_TESTS_WEB_H

#include <stdbool.h>
#include <stddef.h>

struct web;

/* A request, whole. */
struct web_request {
	const char *text; /* all of it, with a NUL behind */
	size_t len;
	char path[256];
	const char *body;
	size_t body_len;
};

/*
 * What to answer: bytes as they are, of up to `cap`; their number, 0: nothing
 * (the connection stays open), -1: hang up, -2 and below: these many bytes,
 * then hang up.
 */
typedef int web_answer(void *arg, const struct web_request *request, char *to,
		       size_t cap);

#define WEB_ANSWER_BYTES (512 << 10)

/* On a port of 127.0.0.1 that is free; does not return without one. */
struct web *web_open(web_answer *answer, void *arg);
unsigned web_port(const struct web *web);
/* One look at all its sockets. */
void web_turn(struct web *web);
/* Hangs up on everybody; new ones may come. */
void web_hang_up(struct web *web);
void web_close(struct web *web);
/* From now on it hangs up with a reset, or not. */
void web_resets(struct web *web, bool resets);

/* A field's value, in static memory; "" when there is none. */
const char *web_field(const struct web_request *request, const char *name);

/* A whole answer with its length. */
int web_json(char *to, size_t cap, int status, const char *more_fields,
	     const char *body);

#endif
