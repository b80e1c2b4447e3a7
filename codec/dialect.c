/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reference SDK renumbered flags and modes in its 0.3.0 and left the
 * header's version at 1, so a frame must be judged by what only one of the two
 * could have written.
 */
#include <avp/codec.h>

#include "codec/internal.h"

#define N(names) (sizeof(names) / sizeof(*(names)))

const char *avp_payload_type_name(uint32_t payload_type)
{
	static const char *const names[] = {"HIDDEN_STATE", "KV_CACHE",
					    "EMBEDDING"};

	return payload_type < N(names) ? names[payload_type] : NULL;
}

const char *avp_dtype_name(uint32_t dtype)
{
	static const char *const names[] = {"FLOAT32", "FLOAT16", "BFLOAT16",
					    "INT8"};

	return dtype < N(names) ? names[dtype] : NULL;
}

const char *avp_mode_name(uint32_t mode)
{
	static const char *const names[] = {"LATENT", "HYBRID", "JSON"};

	return mode < N(names) ? names[mode] : NULL;
}

const char *avp_dialect_name(uint32_t dialect)
{
	static const char *const names[] = {"0.2", "0.4"};

	return dialect < N(names) ? names[dialect] : NULL;
}

size_t avp_dtype_size(uint32_t dtype)
{
	static const uint8_t sizes[] = {4, 2, 2, 1};

	return dtype < N(sizes) ? sizes[dtype] : 0;
}

/*
 * The first sign decides, surest first. Mode 1 by itself is HYBRID of 0.2 or
 * JSON of 0.4, and is read as the former.
 */
enum avp_dialect avp__dialect_detect(unsigned int flags,
				     const struct avp_metadata *m)
{
	int map = m->avp_map_id.len != 0;
	int kv = m->payload_type == AVP_KV_CACHE;

	if (flags & AVP_FLAG_KV_CACHE)
		return AVP_DIALECT_0_2;
	if (m->has & (AVP_HAS_CONFIDENCE | AVP_HAS_COMPAT))
		return AVP_DIALECT_0_2;
	if (m->has & AVP_HAS_CHECKSUM)
		return AVP_DIALECT_0_4;
	if (flags & AVP_FLAG_KV_CACHE_0_4 && kv && !map)
		return AVP_DIALECT_0_4;
	if (flags & AVP_FLAG_HAS_MAP && map && !kv)
		return AVP_DIALECT_0_2;
	if (flags & AVP_FLAG_HAS_MAP_0_4 && map)
		return AVP_DIALECT_0_4;
	return AVP_DIALECT_0_2;
}

int avp__mode_read(uint32_t wire, enum avp_dialect dialect)
{
	if (dialect == AVP_DIALECT_0_2)
		return wire <= AVP_MODE_JSON ? (int)wire : -1;
	return wire == 0 ? AVP_MODE_LATENT : wire == 1 ? AVP_MODE_JSON : -1;
}

int avp__mode_write(uint32_t mode, enum avp_dialect dialect)
{
	if (dialect == AVP_DIALECT_0_2)
		return mode <= AVP_MODE_JSON ? (int)mode : -1;
	return mode == AVP_MODE_LATENT ? 0 : mode == AVP_MODE_JSON ? 1 : -1;
}

unsigned int avp__flags(const struct avp_metadata *m, enum avp_dialect dialect)
{
	unsigned int flags = m->compression.data ? AVP_FLAG_COMPRESSED : 0;
	int map = m->avp_map_id.len != 0;
	int kv = m->payload_type == AVP_KV_CACHE;

	if (dialect == AVP_DIALECT_0_4)
		return flags | (map ? AVP_FLAG_HAS_MAP_0_4 : 0) |
		       (kv ? AVP_FLAG_KV_CACHE_0_4 : 0);
	return flags | (m->mode == AVP_MODE_HYBRID ? AVP_FLAG_HYBRID : 0) |
	       (map ? AVP_FLAG_HAS_MAP : 0) | (kv ? AVP_FLAG_KV_CACHE : 0);
}
