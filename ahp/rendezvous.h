/* SPDX-License-Identifier: Apache-2.0 */
/* Names in a namespace's directory: for rendezvous.c and observe.c. */
#ifndef AVP_AHP_RENDEZVOUS_H
#define AVP_AHP_RENDEZVOUS_H

#include <stdbool.h>

#include <avp/ahp.h>

#define AHP__NAME_BYTES (AHP_ID_BYTES + 16) /* an id and the longest suffix */

/*
 * The namespace that counts: the given one, else $AVP_NAMESPACE, else
 * "default". NULL if it is no name: AVP_USAGE.
 */
const char *ahp__name_space(const char *given, struct avp_reason *why);

/* The namespace's own lock; it goes away with the last agent's names. */
int ahp__names_lock(int dir, struct avp_reason *why);
void ahp__names_unlock(int dir, int lock);

/* The lock of an id, or AVP_NAME_TAKEN. The namespace's lock is held. */
int ahp__names_hold(int dir, const char *id, bool create,
		    struct avp_reason *why);

/*
 * The lock is held, but whoever listens has died: a forked child has inherited
 * both. Costs the agent a connection, if it lives.
 */
bool ahp__names_holder_dead(int dir, const char *id);

/* Removes an id's names. The caller holds its lock and the namespace's. */
void ahp__names_remove(int dir, const char *id);

#endif
