/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl frame encode: a frame of metadata as JSON and a payload's file. */
#include <math.h>
#include <stdlib.h>

#include <avp/codec.h>

#include "gateway/cmd.h"

#define JSON_MAX ((uint64_t)64 << 20)

struct encoder {
	const char *metadata, *payload, *out;
	enum avp_dialect dialect;
	enum avp_compression compression;
	struct avp_metadata m;
	struct avp_pair *extra;
	uint32_t *shape;
};

/* A name of the protocol, or its number. */
static int read_enum(const struct avp_json *meta, const char *key, int code,
		     const char *(*name_of)(uint32_t), uint32_t *value,
		     struct avp_reason *why)
{
	const struct avp_json *v = avp_json_get(meta, key);
	struct avp_str name;
	uint64_t number;

	if (avp_json_type_of(v) == AVP_JSON_INT) {
		int err =
			avp_json_get_uint(meta, key, UINT32_MAX, &number, why);

		if (err < 0)
			return err;
		*value = (uint32_t)number;
		return 0;
	}
	name.len = 0;
	if (avp_json_get_string(meta, key, &name, why) != 1)
		return v && avp_json_type_of(v) ? AVP_INVALID_MESSAGE : 0;
	for (uint32_t i = 0; name_of(i); i++)
		if (avp_str_equal(name, avp_str_of(name_of(i)))) {
			*value = i;
			return 0;
		}
	return avp__fail(why, code, "%s \"%.40s\" is unknown", key, name.data);
}

/* A number, or the words that JSON cannot say; beyond float32 is infinite. */
static int read_confidence(const struct avp_json *meta, float *value,
			   struct avp_reason *why)
{
	static const char key[] = "confidence_score";
	struct avp_str word;
	double number;
	int got;

	if (!avp_json_string(avp_json_get(meta, key), &word)) {
		if (avp_str_equal(word, avp_str_of("inf")))
			*value = INFINITY;
		else if (avp_str_equal(word, avp_str_of("-inf")))
			*value = -INFINITY;
		else if (avp_str_equal(word, avp_str_of("nan")))
			*value = NAN;
		else
			return avp__fail(why, AVP_INVALID_MESSAGE,
					 "%s \"%.40s\" is no number; write "
					 "one, or \"inf\", \"-inf\", \"nan\"",
					 key, word.data);
		return 0;
	}
	got = avp_json_get_double(meta, key, &number, why);
	if (got == 1)
		*value = (float)number;
	return got < 0 ? got : 0;
}

static int read_shape(const struct avp_json *meta, struct encoder *e,
		      struct avp_reason *why)
{
	const struct avp_json *array = NULL, *v;
	uint64_t dim;
	int got = avp_json_get_array(meta, "tensor_shape", &array, why);

	if (got != 1)
		return got;
	e->shape = calloc(avp_json_count(array) + 1, sizeof(*e->shape));
	if (!e->shape)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for a shape");
	for (v = avp_json_first(array); v; v = avp_json_next(v)) {
		if (avp_json_uint64(v, &dim) || dim > UINT32_MAX)
			return avp__fail(why, AVP_INVALID_MESSAGE,
					 "tensor_shape element %u is no whole "
					 "number from 0 to 4294967295",
					 e->m.shape_count);
		e->shape[e->m.shape_count++] = (uint32_t)dim;
	}
	e->m.shape = e->shape;
	return 0;
}

static int read_extra(const struct avp_json *meta, struct encoder *e,
		      struct avp_reason *why)
{
	const struct avp_json *object = NULL, *v;
	int got = avp_json_get_object(meta, "extra", &object, why);

	if (got != 1)
		return got;
	e->extra = calloc(avp_json_count(object) + 1, sizeof(*e->extra));
	if (!e->extra)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for extra");
	for (v = avp_json_first(object); v; v = avp_json_next(v)) {
		struct avp_pair *pair = &e->extra[e->m.extra_count++];

		pair->key = avp_json_key_of(v);
		if (avp_json_string(v, &pair->value))
			return avp__fail(why, AVP_INVALID_MESSAGE,
					 "extra \"%.40s\" is no string; write "
					 "it as one",
					 pair->key.data);
	}
	e->m.extra = e->extra;
	return 0;
}

static int read_texts(const struct avp_json *meta, struct avp_metadata *m,
		      struct avp_reason *why)
{
	const struct {
		const char *key;
		struct avp_str *s;
	} all[] = {
		{"session_id", &m->session_id},
		{"source_agent_id", &m->source_agent_id},
		{"target_agent_id", &m->target_agent_id},
		{"model_id", &m->model_id},
		{"avp_map_id", &m->avp_map_id},
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) {
		int got = avp_json_get_string(meta, all[i].key, all[i].s, why);

		if (got < 0)
			return got;
	}
	return 0;
}

static int read_metadata(const struct avp_json *meta, struct encoder *e,
			 struct avp_reason *why)
{
	struct avp_metadata *m = &e->m;
	uint64_t hidden_dim = 0, num_layers = 0;
	int err = avp_json_expect_object(meta, "metadata", why);

	if (!err)
		err = read_texts(meta, m, why);
	if (!err)
		err = avp_json_get_uint(meta, "hidden_dim", UINT32_MAX,
					&hidden_dim, why);
	if (err >= 0)
		err = avp_json_get_uint(meta, "num_layers", UINT32_MAX,
					&num_layers, why);
	m->hidden_dim = (uint32_t)hidden_dim;
	m->num_layers = (uint32_t)num_layers;
	if (err >= 0)
		err = read_enum(meta, "payload_type", AVP_BAD_PAYLOAD_TYPE,
				avp_payload_type_name, &m->payload_type, why);
	if (!err)
		err = read_enum(meta, "dtype", AVP_BAD_DTYPE, avp_dtype_name,
				&m->dtype, why);
	if (!err)
		err = read_enum(meta, "mode", AVP_BAD_MODE, avp_mode_name,
				&m->mode, why);
	if (!err)
		err = read_confidence(meta, &m->confidence_score, why);
	if (!err)
		err = read_shape(meta, e, why);
	if (!err)
		err = read_extra(meta, e, why);
	return err;
}

static int write_compressed(const struct encoder *e,
			    const struct cmd_file *payload,
			    struct avp_reason *why)
{
	struct avp_zstd *z = avp_zstd_new();
	struct cmd_piece piece = {0};
	uint64_t bound = 0, len;
	void *frame = NULL;
	int err = avp_frame_compress_bound(&e->m, e->dialect, payload->len,
					   &bound);

	if (!err)
		frame = malloc(bound);
	if (!err && (!z || !frame))
		err = avp__fail(why, AVP_NO_MEMORY,
				"no memory to compress %zu bytes",
				payload->len);
	/* Also for the words, when the bound was refused. */
	else
		err = avp_frame_compress(z, e->compression, &e->m, e->dialect,
					 payload->data, payload->len, frame,
					 bound, &len, why);
	if (!err) {
		piece = (struct cmd_piece){frame, len};
		err = cmd_file_write(e->out, &piece, 1, why);
	}
	free(frame);
	avp_zstd_free(z);
	return err;
}

static int write_plain(struct encoder *e, const struct cmd_file *payload,
		       struct avp_reason *why)
{
	struct cmd_piece pieces[2] = {{NULL, 0}, {payload->data, payload->len}};
	int n, err = 0;
	uint8_t *head;

	if (e->dialect == AVP_DIALECT_0_4) {
		e->m.has |= AVP_HAS_CHECKSUM;
		e->m.payload_checksum = avp_crc32(payload->data, payload->len);
	}
	n = avp_frame_head_size(&e->m, e->dialect);
	head = malloc(n > 0 ? (size_t)n : 1);
	if (!head)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for a head");
	n = avp_frame_head_encode(&e->m, e->dialect, payload->len, head,
				  n > 0 ? (size_t)n : 0, why);
	if (n < 0)
		err = n;
	pieces[0] = (struct cmd_piece){head, n > 0 ? (size_t)n : 0};
	if (!err)
		err = cmd_file_write(e->out, pieces, 2, why);
	free(head);
	return err;
}

static int encode(struct encoder *e, struct avp_reason *why)
{
	const struct avp_json_options options = {.size = sizeof(options),
						 .max_bytes = JSON_MAX};
	struct cmd_file meta = {0}, payload = {0};
	struct avp_json_doc *doc = NULL;
	int err = cmd_file_read(&meta, e->metadata, JSON_MAX, why);

	if (!err)
		err = avp_json_parse(&doc, meta.data, meta.len, &options, why);
	if (!err)
		err = read_metadata(avp_json_root(doc), e, why);
	if (!err)
		err = cmd_file_read(&payload, e->payload, CMD_INPUT_MAX, why);
	if (!err)
		err = e->compression ? write_compressed(e, &payload, why)
				     : write_plain(e, &payload, why);
	avp_json_free(doc);
	cmd_file_fini(&meta);
	cmd_file_fini(&payload);
	free(e->extra);
	free(e->shape);
	return err;
}

/* ---- arguments ---------------------------------------------------------- */

static int parse_compression(const char *text, enum avp_compression *level)
{
	static const struct {
		const char *name;
		enum avp_compression level;
	} all[] = {
		{"none", AVP_COMPRESS_NONE},
		{"fast", AVP_COMPRESS_FAST},
		{"balanced", AVP_COMPRESS_BALANCED},
		{"max", AVP_COMPRESS_MAX},
	};

	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		if (!strcmp(text, all[i].name)) {
			*level = all[i].level;
			return CMD_GO_ON;
		}
	return cmd_failf(
		"frame encode", AVP_USAGE,
		"--compression %.80s; choose none, fast, balanced or max",
		text);
}

static int parse_dialect(const char *text, enum avp_dialect *dialect)
{
	for (uint32_t i = 0; avp_dialect_name(i); i++)
		if (!strcmp(text, avp_dialect_name(i))) {
			*dialect = (enum avp_dialect)i;
			return CMD_GO_ON;
		}
	return cmd_failf("frame encode", AVP_USAGE,
			 "--dialect %.80s; choose 0.2 or 0.4", text);
}

int cmd_frame_encode(int argc, char **argv)
{
	static const struct cmd_page page = {
		"frame encode", "", 0, 0,
		"Writes a frame of metadata, as JSON with the keys that frame "
		"decode prints, and\n"
		"a payload. Keys that are absent take the protocol's defaults; "
		"\"compression\"\n"
		"is ignored. --metadata, --payload and -o are needed.\n"};
	struct encoder e = {0};
	const char *compression = NULL, *dialect = NULL;
	const struct cmd_option options[] = {
		{"metadata", CMD_TEXT, &e.metadata, "META.json",
		 "the metadata, - for stdin"},
		{"payload", CMD_TEXT, &e.payload, "FILE|-", "the payload"},
		{"o", CMD_TEXT, &e.out, "OUT",
		 "the frame's file, - for stdout"},
		{"compression", CMD_TEXT, &compression, "LEVEL",
		 "none (the default), fast, balanced or max"},
		{"dialect", CMD_TEXT, &dialect, "DIALECT",
		 "0.2 (the default) or 0.4"},
		{0},
	};
	int status = cmd_arguments(&page, options, &argc, argv);
	struct avp_reason why;

	if (status == CMD_GO_ON && compression)
		status = parse_compression(compression, &e.compression);
	if (status == CMD_GO_ON && dialect)
		status = parse_dialect(dialect, &e.dialect);
	if (status != CMD_GO_ON)
		return status;
	if (!e.metadata || !e.payload || !e.out)
		return cmd_failf(page.name, AVP_USAGE,
				 "--metadata, --payload and -o are needed; see "
				 "avpctl frame encode --help");
	return encode(&e, &why) ? cmd_fail(page.name, &why) : CMD_DONE;
}
