/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 as identities show it. */
#ifndef AVP_LATENT_SHA256_H
#define AVP_LATENT_SHA256_H

#include <stddef.h>

/* The digest in lower-case hexadecimal, NUL-terminated. */
void avp__sha256_hex(const void *data, size_t len, char hex[65]);

#endif
