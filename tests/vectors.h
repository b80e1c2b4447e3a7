/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The golden vectors (tests/vectors/README.md says what is in them): recorded
 * behaviour of the reference implementations, replayed by the unit tests. The
 * directory is $AVP_VECTORS, else tests/vectors. What is missing or damaged
 * ends the program with a message: a test that finds no vectors has failed.
 */
#ifndef AVP_TESTS_VECTORS_H
#define AVP_TESTS_VECTORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <avp/json.h>

#include "tests/harness.h"

/*
 * The first case of a kind ("frame"), the others by avp_json_next(); NULL when
 * the set has none of it. The index is parsed once and lives as long as the
 * program.
 *
 *      for (const struct avp_json *c = vectors_first("kv"); c;
 *           c = avp_json_next(c))
 *              CASE(c, decode(c) == 0);
 */
const struct avp_json *vectors_first(const char *kind);

/* The whole index: "set", "reference", "counts" and "cases". */
const struct avp_json *vectors_root(void);

/* How many cases of that kind there are. */
uint32_t vectors_count(const char *kind);

/*
 * The set is the one of this tree, not another that $AVP_VECTORS names: for it
 * alone lists and counts of cases hold.
 */
bool vectors_are_ours(void);

/* There are so many of that kind, if the set is ours. */
#define VECTORS(kind, count) \
	CU_ASSERT(!vectors_are_ours() || vectors_count(kind) == (count))

/*
 * tests/refused.txt lists the case: the reference accepts it and we refuse it,
 * for the reason that stands there. Of a set that is not ours any may be.
 */
bool vectors_refused(const struct avp_json *c);

/* CU_ASSERT that names the case (an object with an id) when it fails. */
#define CASE(c, condition) \
	vectors_check((c), (condition), #condition, __FILE__, __LINE__)
bool vectors_check(const struct avp_json *c, bool holds, const char *condition,
		   const char *file, unsigned line);

/* ---- members of a case -------------------------------------------------- */

/* A member's string; "" with len 0 if it is absent or no string. */
struct avp_str case_str(const struct avp_json *object, const char *key);
bool case_is(const struct avp_json *object, const char *key, const char *text);
bool case_bool(const struct avp_json *object, const char *key);
/* 0 if it is absent or no such number. */
int64_t case_int(const struct avp_json *object, const char *key);
double case_double(const struct avp_json *object, const char *key);

/* ---- bytes -------------------------------------------------------------- */

struct bytes {
	uint8_t *data; /* never NULL after a call that fills it */
	size_t len;
};
void bytes_free(struct bytes *b);

struct bytes bytes_hex(struct avp_str hex);
struct bytes bytes_copy(const void *data, size_t len);
/* A file of the vectors, by its path there. */
struct bytes vectors_file(struct avp_str path);
/*
 * What a payload spec describes; `frame` is needed for "frame_tail" alone and
 * may be NULL.
 */
struct bytes vectors_payload(const struct avp_json *spec,
			     const struct bytes *frame);
/*
 * A recorded string as the reference had it: in a case that says
 * surrogates_escaped, the six characters \udXXX are one lone surrogate.
 */
struct bytes vectors_string(const struct avp_json *c, struct avp_str s);

struct sha256_hex {
	char text[65];
};
struct sha256_hex sha256_hex(const void *data, size_t len);

#endif
