/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl kv inspect: the header and tensors of a KV-cache. */
#include <stdlib.h>
#include <string.h>

#include <avp/latent.h>

#include "gateway/cmd.h"
#include "latent/sha256.h"
#include "shm/reason.h"

static const char usage[] = "usage: avpctl kv inspect FILE|-\n"
			    "\n"
			    "prints the header and the tensors of a KV-cache "
			    "payload, or of a frame\n"
			    "that holds one.\n";

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
static int is_frame(const struct cmd_file *file)
{
	return file->len >= 3 && !memcmp(file->data, "AV\1", 3);
}

static int find_payload(struct input *in, struct avp_reason *why)
{
	struct avp_frame f;
	int err;

	in->payload = in->file.data;
	in->bytes = in->file.len;
	if (!is_frame(&in->file))
		return 0;
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
	struct avp_buf out = {0};
	struct avp_json_writer w;
	int err;

	avp_json_begin(&w, &out, AVP_JSON_HTTP);
	avp_json_open_object(&w);
	put_header(&w, &kv->shape);
	avp_json_key(&w, "tensors");
	avp_json_open_array(&w);
	for (uint32_t i = 0; i < kv->shape.num_layers; i++) {
		put_tensor(&w, kv, i, AVP_KV_K);
		put_tensor(&w, kv, i, AVP_KV_V);
	}
	avp_json_close_array(&w);
	avp_json_close_object(&w);
	err = avp_json_finish(&w);
	if (!err)
		err = avp_buf_append(&out, "\n", 1);
	if (err)
		avp__fail(why, err, "cannot write the answer: %s",
			  avp_error_text(err));
	else
		err = cmd_print(&out, why);
	avp_buf_fini(&out);
	return err;
}

static int inspect(const char *path, struct avp_reason *why)
{
	struct input in = {0};
	struct avp_kv kv;
	int err = cmd_file_read(&in.file, path, CMD_FRAME_INPUT_MAX, why);

	if (!err)
		err = find_payload(&in, why);
	if (!err)
		err = avp_kv_open(&kv, in.payload, in.bytes, why);
	if (!err)
		err = print_cache(&kv, why);
	input_fini(&in);
	return err;
}

int cmd_kv(int argc, char **argv)
{
	struct avp_reason why;

	if (argc >= 2 &&
	    (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help")))
		return cmd_help(usage);
	if (argc < 2 || strcmp(argv[1], "inspect"))
		return cmd_failf("kv", AVP_USAGE,
				 "inspect is all there is; see avpctl kv "
				 "--help");
	if (argc == 3 && !strcmp(argv[2], "--help"))
		return cmd_help(usage);
	if (argc != 3 || (argv[2][0] == '-' && argv[2][1]))
		return cmd_failf("kv inspect", AVP_USAGE,
				 "name one file, or - for stdin");
	if (inspect(argv[2], &why))
		return cmd_fail("kv inspect", &why);
	return CMD_DONE;
}
