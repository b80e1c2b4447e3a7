/* SPDX-License-Identifier: Apache-2.0 */
/* When two models are known to differ, as links and the gateway refuse
 * states. */
#ifndef AVP_LATENT_CONTRADICT_H
#define AVP_LATENT_CONTRADICT_H

#include <stdbool.h>

#include <avp/hello.h>

/*
 * Both have told something, and it is not the same. avp_resolve() is JSON also
 * of models of which nothing is known: ignorance alone forbids nothing.
 */
bool avp__contradict(const struct avp_identity *a,
		     const struct avp_identity *b);

#endif
