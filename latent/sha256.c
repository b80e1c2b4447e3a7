/* SPDX-License-Identifier: Apache-2.0 */
#include "latent/sha256.h"

#include <openssl/sha.h>

void avp__sha256_hex(const void *data, size_t len, char hex[65])
{
	static const char digits[] = "0123456789abcdef";
	unsigned char digest[SHA256_DIGEST_LENGTH];

	SHA256(data, len, digest);
	for (size_t i = 0; i < 2 * sizeof(digest); i++)
		hex[i] = digits[digest[i / 2] >> (i % 2 ? 0 : 4) & 15];
	hex[2 * sizeof(digest)] = 0;
}
