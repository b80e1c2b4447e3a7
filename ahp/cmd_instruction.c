/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl instruction: the compact instruction of a task, as a sender adds
 * it. */
#include <avp/message.h>

#include "codec/json_internal.h"
#include "gateway/cmd.h"

#define INPUT_MAX ((uint64_t)16 << 20)

static int need_object(const struct avp_json *root, const char *key,
		       const struct avp_json **out, struct avp_reason *why)
{
	int code = avp_json_get_object(root, key, out, why);

	if (!code)
		return avp__fail(why, AVP_INVALID_MESSAGE,
				 "\"%s\" is missing: an object, {} at least",
				 key);
	return code < 0 ? code : 0;
}

static int read_request(const struct avp_json *root, struct ahp_instruction *in,
			struct avp_reason *why)
{
	int code = avp_json_expect_object(root, "an instruction's input", why);

	code = code ? code
		    : need_object(root, "user_profile", &in->user_profile, why);
	code = code ? code : need_object(root, "task", &in->task, why);
	code = code ? code
		    : avp_json_get_string(root, "context", &in->context, why);
	code = code < 0 ? code
			: avp_json_get_int(root, "max_tokens", INT64_MIN,
					   INT64_MAX, &in->max_tokens, why);
	code = code < 0 ? code
			: avp_json_get_int(root, "default_limit", INT64_MIN,
					   INT64_MAX, &in->default_limit, why);
	return code < 0 ? code : 0;
}

/* A lone surrogate is something that UTF-8 cannot say. */
static int check_utf8(const struct avp_buf *text, struct avp_reason *why)
{
	const uint8_t *s = (const uint8_t *)text->data;
	uint32_t c;

	for (size_t i = 0, n; i < text->len; i += n) {
		n = avp__utf8_next(s + i, text->len - i, false, &c);
		if (!n)
			return avp__fail(why, AVP_SERIALIZATION_ERROR,
					 "byte %zu of the instruction would be "
					 "a lone surrogate; pair it",
					 i);
	}
	return 0;
}

static int print_instruction(const char *path, struct avp_reason *why)
{
	struct ahp_instruction in = {.default_limit = AHP_DEFAULT_TOKEN_LIMIT};
	struct avp_json_doc *doc = NULL;
	struct cmd_file file = {0};
	struct avp_buf text = {0};
	int code = cmd_file_read(&file, path, INPUT_MAX, why);

	if (!code)
		code = avp_json_parse(&doc, file.data, file.len, NULL, why);
	if (!code)
		code = read_request(avp_json_root(doc), &in, why);
	if (!code)
		code = ahp_instruction_write(&text, &in, why);
	if (!code)
		code = check_utf8(&text, why);
	if (!code && avp_buf_append(&text, "\n", 1))
		code = avp__fail(why, AVP_NO_MEMORY, "no memory for the text");
	if (!code)
		code = cmd_print(&text, why);
	avp_buf_fini(&text);
	avp_json_free(doc);
	cmd_file_fini(&file);
	return code;
}

int cmd_instruction(int argc, char **argv)
{
	static const struct cmd_page page = {
		"instruction", "FILE.json|-", 1, 1,
		"Prints, as text, the compact instruction that a sender adds "
		"to a task, of\n"
		"{\"user_profile\":{..},\"task\":{..},\"context\":\"..\","
		"\"max_tokens\":N,\n"
		"\"default_limit\":500}; all but the first two are "
		"optional.\n"};
	static const struct cmd_option none[] = {{0}};
	int status = cmd_arguments(&page, none, &argc, argv);
	struct avp_reason why;

	if (status != CMD_GO_ON)
		return status;
	return print_instruction(argv[1], &why) ? cmd_fail("instruction", &why)
						: CMD_DONE;
}
