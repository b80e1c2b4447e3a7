/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl kv inspect: the header and tensors of a KV-cache. */
#include <stdlib.h>
#include <string.h>

#include <avp/latent.h>

#include "codec/wire.h"
#include "gateway/cmd.h"
#include "latent/sha256.h"

/* What was read, and the payload in it or expanded from it. */
struct input {
	struct cmd_file file;
	void *expanded;
	const void *payload;
	uint64_t bytes;
};

static void input_fini(struct input *in)
{
	cmd_file_fini(&in->file);
	free(in->expanded);
}

static int expand(struct input *in, const struct avp_frame *f,
		  struct avp_reason *why)
{
	struct avp_zstd *zstd = avp_zstd_new();
	uint64_t size = 0;
	int err =
		avp_zstd_content_size(f->payload, f->payload_bytes, &size, why);

	if (!err && size > UINT32_MAX)
		err = avp__fail(why, AVP_TOO_LARGE,
				"the payload says it expands to %llu bytes; a "
				"frame's limit is 4 GiB",
				(unsigned long long)size);
	if (!err && (!zstd || !(in->expanded = malloc(size + 1))))
		err = avp__fail(why, AVP_NO_MEMORY,
				"no memory to expand the payload to %llu bytes",
				(unsigned long long)size);
	if (!err)
		err = avp_zstd_decompress(zstd, f->payload, f->payload_bytes,
					  in->expanded, size, &in->bytes, why);
	avp_zstd_free(zstd);
	in->payload = in->expanded;
	return err;
}

/*
 * A payload begins with num_layers: "AV\1" as one would be a model of 90,689
 * layers or more, so the magic and version tell a frame.
 */
static bool is_frame(const struct cmd_file *file)
{
	return file->len >= 3 && !memcmp(file->data, "AV\1", 3);
}

static int find_payload(struct input *in, struct avp_reason *why)
{
	struct avp_frame f;
	int err = cmd_frame_fill(&in->file, why);

	if (!err)
		err = avp_frame_decode(in->file.data, in->file.len, &f, why);
	if (err)
		return err;
	if (f.metadata.payload_type != AVP_KV_CACHE)
		return avp__fail(
			why, AVP_SHAPE_MISMATCH,
			"the frame holds %s, not KV_CACHE",
			avp_payload_type_name(f.metadata.payload_type));
	in->payload = f.payload;
	in->bytes = f.payload_bytes;
	if (f.flags & AVP_FLAG_COMPRESSED)
		err = expand(in, &f, why);
	return err ? err
		   : avp_frame_payload_check(&f, in->payload, in->bytes, why);
}

/* What the header of a payload announces; 0 if it is no good. */
static uint64_t announced(const struct cmd_file *f)
{
	const struct avp_kv_shape shape = {
		.num_layers = avp__get_le32(f->data),
		.num_kv_heads = avp__get_le32(f->data + 4),
		.head_dim = avp__get_le32(f->data + 8),
		.seq_len = avp__get_le32(f->data + 12),
		.dtype = f->data[16],
	};
	uint64_t bytes;

	return avp_kv_bytes(&shape, &bytes, NULL) ? 0 : bytes;
}

/* A bare payload: its size judges its header before more is read. */
static int fill_payload(struct input *in, struct avp_reason *why)
{
	struct cmd_file *f = &in->file;
	uint64_t bytes = f->size;
	struct avp_kv kv;
	int err = 0;

	/* A stream has no size: a byte more than announced is too much. */
	if (bytes == UINT64_MAX)
		bytes = announced(f);
	if (bytes == f->size || !bytes)
		err = avp_kv_open(&kv, f->data, bytes ? bytes : f->len, why);
	if (!err)
		err = cmd_file_fill(f, bytes == f->size ? bytes : bytes + 1,
				    why);
	in->payload = f->data;
	in->bytes = f->len;
	return err;
}

static void put_header(struct avp_json_writer *w, const struct avp_kv_shape *s)
{
	avp_json_key(w, "header");
	avp_json_open_object(w);
	avp_json_member_uint(w, "num_layers", s->num_layers);
	avp_json_member_uint(w, "num_kv_heads", s->num_kv_heads);
	avp_json_member_uint(w, "head_dim", s->head_dim);
	avp_json_member_uint(w, "seq_len", s->seq_len);
	avp_json_key(w, "dtype");
	avp_json_put_text(w, avp_dtype_name(s->dtype));
	avp_json_close_object(w);
}

static void put_tensor(struct avp_json_writer *w, const struct avp_kv *kv,
		       uint32_t layer, enum avp_kv_which which)
{
	struct avp_tensor t;
	char hex[65];

	avp_kv_tensor(kv, layer, which, &t);
	avp__sha256_hex(t.data, avp_tensor_bytes(&t), hex);
	avp_json_open_object(w);
	avp_json_member_uint(w, "layer", layer);
	avp_json_key(w, "which");
	avp_json_put_text(w, which == AVP_KV_K ? "K" : "V");
	avp_json_member_uint(w, "offset", avp_kv_offset(kv, layer, which));
	avp_json_member_uint(w, "bytes", avp_tensor_bytes(&t));
	avp_json_key(w, "sha256");
	avp_json_put_text(w, hex);
	avp_json_close_object(w);
}

static int print_cache(const struct avp_kv *kv, struct avp_reason *why)
{
	struct cmd_answer answer;
	struct avp_json_writer *w = cmd_answer_begin(&answer);

	put_header(w, &kv->shape);
	avp_json_key(w, "tensors");
	avp_json_open_array(w);
	for (uint32_t i = 0; i < kv->shape.num_layers; i++) {
		put_tensor(w, kv, i, AVP_KV_K);
		put_tensor(w, kv, i, AVP_KV_V);
	}
	avp_json_close_array(w);
	return cmd_answer_end(&answer, 0, why);
}

static int fill(struct input *in, const char *path, struct avp_reason *why)
{
	int err = cmd_file_open(&in->file, path, false, why);

	if (err)
		return err;
	err = cmd_file_fill(&in->file, AVP_KV_HEADER_BYTES, why);
	if (!err)
		err = is_frame(&in->file) ? find_payload(in, why)
					  : fill_payload(in, why);
	cmd_file_close(&in->file);
	return err;
}

static int inspect(const char *path, struct avp_reason *why)
{
	struct input in = {0};
	struct avp_kv kv;
	int err = fill(&in, path, why);

	if (!err)
		err = avp_kv_open(&kv, in.payload, in.bytes, why);
	if (!err)
		err = print_cache(&kv, why);
	input_fini(&in);
	return err;
}

static int kv_inspect(int argc, char **argv)
{
	static const struct cmd_page page = {
		"kv inspect", "FILE|-", 1, 1,
		"Prints the header and the tensors of a KV-cache payload, or "
		"of a frame that\n"
		"holds one: {\"header\":{..},\"tensors\":[{\"layer\",\"which\","
		"\"offset\",\"bytes\",\n"
		"\"sha256\"},..]}.\n"};
	static const struct cmd_option none[] = {{0}};
	int status = cmd_arguments(&page, none, &argc, argv);
	struct avp_reason why;

	if (status != CMD_GO_ON)
		return status;
	return inspect(argv[1], &why) ? cmd_fail("kv inspect", &why) : CMD_DONE;
}

int cmd_kv(int argc, char **argv)
{
	static const struct cmd_page page = {"kv", "COMMAND [ARGUMENT]...", 1,
					     1, "Looks into KV-caches.\n"};
	static const struct cmd_option none[] = {{0}};
	static const struct cmd_sub subs[] = {
		{"inspect", kv_inspect, "a KV-cache, tensor by tensor"},
		{0},
	};

	return cmd_group(&page, none, subs, argc, argv);
}
