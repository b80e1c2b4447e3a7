/* SPDX-License-Identifier: Apache-2.0 */
/* What conf.c (keys, defaults) and conf_check.c (what they may be) share. */
#ifndef AVP_GATEWAY_CONF_INTERNAL_H
#define AVP_GATEWAY_CONF_INTERNAL_H

#include "gateway/conf.h"

/* ---- what a single text may be ------------------------------------------ */

bool gw__conf_is_path(const char *text);
bool gw__conf_is_address(const char *text);
bool gw__conf_is_url(const char *text);
bool gw__conf_is_hash(const char *text);
bool gw__conf_is_pin(const char *text);

/*
 * What the keys are together, and the files that they name: 0 or AVP_BAD_CONFIG
 * at the place of the one that is wrong. Reads tokens into *c. name is the
 * file's, for errors.
 */
int gw__conf_check(struct gw_conf *c, const char *name, struct avp_reason *why);

#endif
