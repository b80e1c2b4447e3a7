/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl frame decode | decode-many; encode is in cmd_frame_encode.c. */
#include <stdlib.h>

#include <avp/codec.h>

#include "gateway/cmd.h"

#define LIST_MAX ((uint64_t)64 << 20)

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

static int decode(struct decoder *d, const char *file, bool regular,
		  struct avp_reason *why)
{
	int err = cmd_file_open(&d->input, file, regular, why);

	if (err)
		return err;
	err = cmd_frame_fill(&d->input, why);
	cmd_file_close(&d->input);
	if (!err)
		err = cmd_content_decode(&d->content, d->input.data,
					 d->input.len, why);
	d->content.frame.raw_size = d->input.size;
	return err;
}

static int decode_one(struct decoder *d, const char *file, const char *payload,
		      struct avp_reason *why)
{
	struct cmd_answer answer;
	int err = 0;

	if (payload)
		err = cmd_check_output("--payload", payload, true,
				       (const char *const[]){file, NULL}, why);
	if (!err)
		err = decode(d, file, false, why);
	if (!err && payload) {
		struct cmd_piece piece = {d->content.data,
					  d->content.frame.content_bytes};

		err = cmd_file_write(payload, &piece, 1, why);
	}
	if (err)
		return err;
	err = cmd_put_frame(cmd_answer_begin(&answer), &d->content, why);
	return cmd_answer_end(&answer, err, why);
}

/* ---- decode-many -------------------------------------------------------- */

static int decode_line(const struct avp_json *line, struct decoder *d,
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
	return decode(d, file.data, true, why);
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
		err = decode_line(line, d, &bad);
	avp_json_begin(&w, out, CMD_JSON);
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
		avp_json_put_text(&w, avp_error_name(cmd_listed(bad.code)));
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

#define MAX_PAYLOAD(to)                                                    \
	{                                                                  \
		"max-payload", CMD_BYTES, to, "BYTES",                     \
			"what decompression may produce (4G);\nBYTES has " \
			"K, M or G behind it, or none"                     \
	}

static int frame_decode(int argc, char **argv)
{
	static const struct cmd_page page = {
		"frame decode", "FILE|-", 1, 1,
		"Prints one AVP frame as JSON: its header, dialect and "
		"metadata, and of its\n"
		"uncompressed payload the size and SHA-256. A frame that is "
		"malformed in any way\n"
		"is refused, by the same code as the library has for it.\n"};
	struct decoder d = {.content.max_bytes = CMD_CONTENT_MAX};
	const char *payload = NULL;
	const struct cmd_option options[] = {
		{"payload", CMD_TEXT, &payload, "OUT",
		 "write the uncompressed payload there"},
		MAX_PAYLOAD(&d.content.max_bytes),
		{0},
	};
	int status = cmd_arguments(&page, options, &argc, argv);
	struct avp_reason why;

	if (status != CMD_GO_ON)
		return status;
	status = decode_one(&d, argv[1], payload, &why)
			 ? cmd_fail(page.name, &why)
			 : CMD_DONE;
	decoder_fini(&d);
	return status;
}

static int frame_decode_many(int argc, char **argv)
{
	static const struct cmd_page page = {
		"frame decode-many", "LIST|-", 1, 1,
		"LIST has {\"id\":..,\"file\":..} a line. Each is answered by "
		"a line, in their order:\n"
		"{\"id\":..,\"ok\":true, ..as of frame decode} or\n"
		"{\"id\":..,\"ok\":false,\"code\":\"..\",\"message\":\"..\"}"
		". What is no regular file is\n"
		"not read, but for \"-\", stdin.\n"};
	struct decoder d = {.content.max_bytes = CMD_CONTENT_MAX};
	const struct cmd_option options[] = {
		MAX_PAYLOAD(&d.content.max_bytes),
		{0},
	};
	int status = cmd_arguments(&page, options, &argc, argv);
	struct avp_reason why;

	if (status != CMD_GO_ON)
		return status;
	status = decode_many(&d, argv[1], &why) ? cmd_fail(page.name, &why)
						: CMD_DONE;
	decoder_fini(&d);
	return status;
}

int cmd_frame(int argc, char **argv)
{
	static const struct cmd_page page = {
		"frame", "COMMAND [ARGUMENT]...", 1, 1,
		"Reads and writes AVP frames, in both dialects.\n"};
	static const struct cmd_option none[] = {{0}};
	static const struct cmd_sub subs[] = {
		{"decode", frame_decode, "a frame as JSON"},
		{"decode-many", frame_decode_many, "thousands of them"},
		{"encode", cmd_frame_encode, "a frame of JSON and a payload"},
		{0},
	};

	return cmd_group(&page, none, subs, argc, argv);
}
