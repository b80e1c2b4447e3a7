/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl frame decode | decode-many; encode is in cmd_frame_encode.c. */
#include <getopt.h>
#include <stdlib.h>

#include <avp/codec.h>

#include "gateway/cmd.h"
#include "shm/reason.h"

#define LIST_MAX ((uint64_t)64 << 20)

const char cmd_frame_usage[] =
	"usage: avpctl frame decode FILE|- [--payload OUT] "
	"[--max-payload BYTES]\n"
	"       avpctl frame decode-many LIST|- [--max-payload BYTES]\n"
	"       avpctl frame encode --metadata META.json --payload FILE|- "
	"-o OUT\n"
	"                    [--compression none|fast|balanced|max] "
	"[--dialect 0.2|0.4]\n"
	"\n"
	"decode prints a frame as JSON, its payload by size and SHA-256; "
	"--payload\n"
	"writes the uncompressed payload. decode-many reads lines\n"
	"{\"id\":..,\"file\":..} and answers each with one. BYTES takes K, M "
	"or G.\n";

/* ---- decode ------------------------------------------------------------- */

/* One file's frame at a time; buffers are kept for the next. */
struct decoder {
	struct cmd_file input;
	struct cmd_content content;
};

static void decoder_fini(struct decoder *d)
{
	cmd_file_fini(&d->input);
	cmd_content_fini(&d->content);
}

static int decode(struct decoder *d, struct avp_reason *why)
{
	return cmd_content_decode(&d->content, d->input.data, d->input.len,
				  why);
}

static int decode_one(struct decoder *d, const char *file, const char *payload,
		      struct avp_reason *why)
{
	struct avp_json_writer w;
	struct avp_buf out = {0};
	int err;

	err = cmd_file_read(&d->input, file, CMD_FRAME_INPUT_MAX, why);
	if (!err)
		err = decode(d, why);
	if (!err && payload) {
		struct cmd_piece piece = {d->content.data,
					  d->content.frame.content_bytes};

		err = cmd_file_write(payload, &piece, 1, why);
	}
	if (err)
		return err;
	avp_json_begin(&w, &out, AVP_JSON_HTTP);
	avp_json_open_object(&w);
	err = cmd_put_frame(&w, &d->content, why);
	avp_json_close_object(&w);
	if (!err)
		err = cmd_print_json(&w, &out, why);
	avp_buf_fini(&out);
	return err;
}

/* ---- decode-many -------------------------------------------------------- */

static int read_request(const struct avp_json *line, struct decoder *d,
			struct avp_reason *why)
{
	struct avp_str file = {"", 0};
	int err = avp_json_get_string(line, "file", &file, why);

	if (err < 0)
		return err;
	if (!file.len || memchr(file.data, 0, file.len))
		return avp__fail(why, AVP_INVALID_MESSAGE,
				 "the line names no \"file\"");
	/* The parser keeps a NUL behind each string. */
	return cmd_file_read(&d->input, file.data, CMD_FRAME_INPUT_MAX, why);
}

static int answer_line(struct decoder *d, const char *text, size_t len,
		       struct avp_buf *out, struct avp_reason *why)
{
	struct avp_json_doc *doc = NULL;
	const struct avp_json *line;
	struct avp_json_writer w;
	struct avp_reason bad;
	size_t start;
	int err = avp_json_parse(&doc, text, len, NULL, &bad);

	line = doc ? avp_json_root(doc) : NULL;
	if (!err)
		err = read_request(line, d, &bad);
	if (!err)
		err = decode(d, &bad);
	avp_json_begin(&w, out, AVP_JSON_HTTP);
	avp_json_open_object(&w);
	avp_json_key(&w, "id");
	avp_json_put(&w, avp_json_get(line, "id"));
	start = out->len;
	avp_json_member_bool(&w, "ok", !err);
	if (!err && cmd_put_frame(&w, &d->content, &bad)) {
		out->len = start; /* out of memory in the middle */
		avp_json_member_bool(&w, "ok", false);
		err = bad.code;
	}
	if (err) {
		avp_json_key(&w, "code");
		avp_json_put_text(&w, avp_error_name(bad.code));
		avp_json_key(&w, "message");
		avp_json_put_text(&w, bad.text);
	}
	avp_json_close_object(&w);
	avp_json_free(doc);
	return cmd_print_json(&w, out, why);
}

static int decode_many(struct decoder *d, const char *list,
		       struct avp_reason *why)
{
	struct cmd_file lines = {0};
	struct avp_buf out = {0};
	int err = cmd_file_read(&lines, list, LIST_MAX, why);
	const char *p = (const char *)lines.data, *end = p + lines.len;

	while (!err && p < end) {
		const char *newline = memchr(p, '\n', (size_t)(end - p));
		size_t len = (size_t)((newline ? newline : end) - p);

		if (len)
			err = answer_line(d, p, len, &out, why);
		p = newline ? newline + 1 : end;
	}
	avp_buf_fini(&out);
	cmd_file_fini(&lines);
	return err;
}

/* ---- arguments ---------------------------------------------------------- */

static int run_decode(int argc, char **argv)
{
	static const struct option options[] = {
		{"payload", required_argument, NULL, 'p'},
		{"max-payload", required_argument, NULL, 'm'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	bool many = !strcmp(argv[0], "decode-many");
	const char *what = many ? "frame decode-many" : "frame decode";
	struct decoder d = {.content.max_bytes = CMD_CONTENT_MAX};
	const char *payload = NULL;
	struct avp_reason why;
	int c, err = 0;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (c == 'h')
			return cmd_help(cmd_frame_usage);
		if (c == 'm')
			err = cmd_parse_bytes(optarg, &d.content.max_bytes,
					      &why);
		else if (c == 'p' && !many)
			payload = optarg;
		else
			return cmd_bad_option("frame", c, argv);
		if (err)
			return cmd_fail(what, &why);
	}
	if (argc - optind != 1)
		return cmd_failf(what, AVP_USAGE,
				 "%d files; name one, or - for stdin",
				 argc - optind);
	err = many ? decode_many(&d, argv[optind], &why)
		   : decode_one(&d, argv[optind], payload, &why);
	decoder_fini(&d);
	return err ? cmd_fail(what, &why) : CMD_DONE;
}

int cmd_frame(int argc, char **argv)
{
	if (argc < 2)
		return cmd_failf("frame", AVP_USAGE,
				 "decode, decode-many or encode? See avpctl "
				 "frame --help");
	if (!strcmp(argv[1], "decode") || !strcmp(argv[1], "decode-many"))
		return run_decode(argc - 1, argv + 1);
	if (!strcmp(argv[1], "encode"))
		return cmd_frame_encode(argc - 1, argv + 1);
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help"))
		return cmd_help(cmd_frame_usage);
	return cmd_failf("frame", AVP_USAGE,
			 "%s is none of decode, decode-many, encode", argv[1]);
}
