/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server of HTTP/2 by prior knowledge, frames written by hand: it answers
 * every request with the same JSON, which serves as that of a handshake too,
 * until it is told to lie. Nothing happens but in h2_liar_turn().
 */
#ifndef AVP_TESTS_H2_LIAR_H
#define AVP_TESTS_H2_LIAR_H

#include <stdbool.h>

struct h2_liar;

/* On a free port of 127.0.0.1; does not return without one. */
struct h2_liar *h2_liar_open(void);
unsigned h2_liar_port(const struct h2_liar *liar);
void h2_liar_turn(struct h2_liar *liar);
void h2_liar_close(struct h2_liar *liar);

/* The lies, numbered from 0; NULL: there are no more. */
const char *h2_lie_name(unsigned lie);
/* It is none: the answer is to be accepted. */
bool h2_lie_is_honest(unsigned lie);

/* From now on each request's answer is that lie, until it repents. */
void h2_liar_lie(struct h2_liar *liar, unsigned lie);
/* Or ends, with the connection, after so many bytes. */
void h2_liar_cut(struct h2_liar *liar, unsigned bytes);
void h2_liar_repent(struct h2_liar *liar);
/* On all connections that there are. */
void h2_liar_hang_up(struct h2_liar *liar);
/* How many a whole one has. */
unsigned h2_liar_answer_bytes(void);

#endif
