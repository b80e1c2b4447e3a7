/* SPDX-License-Identifier: Apache-2.0 */
/* A frame as JSON, the way `avpctl frame decode` and `avpctl recv` show it. */
#include <math.h>

#include <avp/codec.h>
#include <openssl/evp.h>

#include "codec/internal.h"
#include "gateway/cmd.h"

static void put_header(struct avp_json_writer *w, const struct avp_frame *f)
{
	bool old = f->dialect == AVP_DIALECT_0_2;
	unsigned int map = old ? AVP_FLAG_HAS_MAP : AVP_FLAG_HAS_MAP_0_4;
	unsigned int kv = old ? AVP_FLAG_KV_CACHE : AVP_FLAG_KV_CACHE_0_4;

	avp_json_key(w, "header");
	avp_json_open_object(w);
	avp_json_member_uint(w, "version", f->version);
	avp_json_member_uint(w, "flags", f->flags);
	avp_json_member_bool(w, "compressed", f->flags & AVP_FLAG_COMPRESSED);
	avp_json_member_bool(w, "hybrid", old && f->flags & AVP_FLAG_HYBRID);
	avp_json_member_bool(w, "has_map", f->flags & map);
	avp_json_member_bool(w, "kv_cache", f->flags & kv);
	avp_json_member_uint(w, "payload_length", f->payload_length);
	avp_json_member_uint(w, "metadata_length", f->metadata_length);
	avp_json_close_object(w);
}

static void put_confidence(struct avp_json_writer *w, float value)
{
	avp_json_key(w, "confidence_score");
	if (isnan(value))
		avp_json_put_text(w, "nan");
	else if (isinf(value))
		avp_json_put_text(w, value < 0 ? "-inf" : "inf");
	else
		avp_json_put_double(w, (double)value);
}

static int put_metadata(struct avp_json_writer *w, const struct avp_metadata *m,
			struct avp_reason *why)
{
	struct avp_shape_cursor shape = {.metadata = m};
	struct avp__extra extra;
	uint32_t dim;
	int err = avp__extra_init(&extra, m, why);

	if (err)
		return err;
	avp_json_key(w, "metadata");
	avp_json_open_object(w);
	avp_json_member_string(w, "session_id", m->session_id);
	avp_json_member_string(w, "source_agent_id", m->source_agent_id);
	avp_json_member_string(w, "target_agent_id", m->target_agent_id);
	avp_json_member_string(w, "model_id", m->model_id);
	avp_json_member_uint(w, "hidden_dim", m->hidden_dim);
	avp_json_member_uint(w, "num_layers", m->num_layers);
	avp_json_key(w, "payload_type");
	avp_json_put_text(w, avp_payload_type_name(m->payload_type));
	avp_json_key(w, "dtype");
	avp_json_put_text(w, avp_dtype_name(m->dtype));
	avp_json_key(w, "tensor_shape");
	avp_json_open_array(w);
	while (avp_shape_next(&shape, &dim))
		avp_json_put_uint(w, dim);
	avp_json_close_array(w);
	avp_json_key(w, "mode");
	avp_json_put_text(w, avp_mode_name(m->mode));
	avp_json_key(w, "compression");
	if (m->compression.data)
		avp_json_put_string(w, m->compression);
	else
		avp_json_put_null(w);
	put_confidence(w, m->confidence_score);
	avp_json_member_string(w, "avp_map_id", m->avp_map_id);
	avp_json_key(w, "extra");
	avp_json_open_object(w);
	for (size_t i = 0; i < extra.count; i++) {
		avp_json_key_str(w, extra.pair[i].key);
		avp_json_put_string(w, extra.pair[i].value);
	}
	avp_json_close_object(w);
	avp_json_close_object(w);
	avp__extra_fini(&extra);
	return 0;
}

static void put_sha256(struct avp_json_writer *w, const void *data,
		       uint64_t bytes)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	char hex[2 * EVP_MAX_MD_SIZE + 1] = "";
	unsigned int n = 0;

	EVP_Digest(data, bytes, digest, &n, EVP_sha256(), NULL);
	for (unsigned int i = 0; i < n; i++) {
		hex[2 * i] = "0123456789abcdef"[digest[i] >> 4];
		hex[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
	}
	avp_json_key(w, "payload_sha256");
	avp_json_put_text(w, hex);
}

int cmd_put_frame(struct avp_json_writer *w, const struct cmd_content *c,
		  struct avp_reason *why)
{
	const struct avp_frame *f = &c->frame;
	int err;

	put_header(w, f);
	avp_json_key(w, "dialect");
	avp_json_put_text(w, avp_dialect_name(f->dialect));
	err = put_metadata(w, &f->metadata, why);
	if (err)
		return err;
	avp_json_member_uint(w, "payload_bytes", f->content_bytes);
	put_sha256(w, c->data, f->content_bytes);
	avp_json_member_uint(w, "raw_size", f->raw_size);
	return 0;
}
