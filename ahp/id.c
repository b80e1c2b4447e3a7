/* SPDX-License-Identifier: Apache-2.0 */
/* Message ids: 16 bytes in memory, UUID text elsewhere (RFC 9562). */
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include <openssl/sha.h>

#include <avp/message.h>

/* Where a UUID's text has its hyphens: 8-4-4-4-12 digits. */
static bool is_hyphen(size_t i)
{
	return i == 8 || i == 13 || i == 18 || i == 23;
}

static int digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_uuid(uint8_t id[16], struct avp_str text)
{
	uint8_t out[16] = {0};
	size_t n = 0;

	if (text.len != AHP_ID_TEXT_BYTES - 1)
		return false;
	for (size_t i = 0; i < text.len; i++) {
		int digit = digit_value(text.data[i]);

		if (is_hyphen(i)) {
			if (text.data[i] != '-')
				return false;
			continue;
		}
		if (digit < 0)
			return false;
		out[n / 2] = (uint8_t)(out[n / 2] << 4 | digit);
		n++;
	}
	memcpy(id, out, sizeof(out));
	return true;
}

int ahp_id_read(uint8_t id[16], struct avp_str text)
{
	uint8_t digest[SHA256_DIGEST_LENGTH];

	if (read_uuid(id, text))
		return 0;
	if (!SHA256((const uint8_t *)(text.len ? text.data : ""), text.len,
		    digest))
		return AVP_NO_MEMORY;
	memcpy(id, digest, 16);
	return 0;
}

void ahp_id_write(const uint8_t id[16], char text[AHP_ID_TEXT_BYTES])
{
	static const char hex[] = "0123456789abcdef";
	size_t n = 0;

	for (size_t i = 0; i < AHP_ID_TEXT_BYTES - 1; i++) {
		if (is_hyphen(i)) {
			text[i] = '-';
			continue;
		}
		text[i] = hex[id[n / 2] >> (n % 2 ? 0 : 4) & 15];
		n++;
	}
	text[AHP_ID_TEXT_BYTES - 1] = 0;
}

/* Version in the upper half of byte 6, variant 10 in the top of byte 8. */
static void stamp(uint8_t id[16], uint8_t version)
{
	id[6] = (uint8_t)(version << 4 | (id[6] & 0x0f));
	id[8] = 0x80 | (id[8] & 0x3f);
}

void ahp_id_of_sequence(uint8_t id[16], const uint8_t epoch[16],
			uint64_t sequence)
{
	memcpy(id, epoch, 6);
	id[6] = epoch[6] & 0x0f;
	id[7] = epoch[7];
	for (int i = 0; i < 8; i++)
		id[8 + i] = (uint8_t)(sequence >> (56 - 8 * i));
	stamp(id, 8);
}

int ahp_id_random(uint8_t id[16])
{
	uint8_t bytes[16];
	int saved = errno;
	ssize_t n;

	do
		n = getrandom(bytes, sizeof(bytes), 0);
	while (n < 0 && errno == EINTR);
	errno = saved;
	if (n != (ssize_t)sizeof(bytes))
		return AVP_IO;
	memcpy(id, bytes, sizeof(bytes));
	stamp(id, 4);
	return 0;
}
