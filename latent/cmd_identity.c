/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl identity | resolve. */
#include <stdio.h>
#include <string.h>

#include <avp/latent.h>

#include "gateway/cmd.h"

/* One line, whatever is missing. */
static void warn_missing(const struct avp_config *c)
{
	const char *key = avp_config_missing(c, 0);

	if (!key)
		return;
	fputs("avpctl: identity: warning: the config lacks ", stderr);
	for (uint32_t i = 0; (key = avp_config_missing(c, i)); i++)
		fprintf(stderr, "%s%s", i ? ", " : "", key);
	fputs("; unknown, so \"\" or 0\n", stderr);
}

static int print_identity(const struct avp_config *c, bool canonical,
			  struct avp_reason *why)
{
	struct avp_buf out = {0};
	struct avp_str text = avp_config_canonical(c);
	struct avp_json_writer w;
	int err;

	if (canonical) {
		err = avp_buf_append(&out, text.data, text.len);
	} else {
		avp_json_begin(&w, &out, CMD_JSON);
		avp_identity_put(&w, avp_config_identity(c));
		err = avp_json_finish(&w);
	}
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

static int identity(const char *path, bool canonical, struct avp_reason *why)
{
	struct cmd_file file = {0};
	struct avp_config *c = NULL;
	/* A byte more than is read: the config itself tells what is too
	 * long. */
	int err = cmd_file_read(&file, path, AVP_CONFIG_BYTES, why);

	if (!err)
		err = avp_config_open(&c, file.data, file.len, why);
	if (!err)
		err = print_identity(c, canonical, why);
	if (!err)
		warn_missing(c);
	avp_config_close(c);
	cmd_file_fini(&file);
	return err;
}

int cmd_identity(int argc, char **argv)
{
	static const struct cmd_page page = {
		"identity", "CONFIG.json|-", 1, 1,
		"Prints who the model of a Hugging Face config.json is: "
		"{\"model_family\",\n"
		"\"model_id\",\"model_hash\",\"hidden_dim\",\"num_layers\","
		"\"num_kv_heads\",\"head_dim\"}.\n"
		"What the config lacks is \"\" or 0, and a line on stderr "
		"names it.\n"};
	bool canonical = false;
	const struct cmd_option options[] = {
		{"canonical", CMD_FLAG, &canonical, NULL,
		 "print the canonical JSON text instead,\n"
		 "whose SHA-256 is the model_hash"},
		{0},
	};
	int status = cmd_arguments(&page, options, &argc, argv);
	struct avp_reason why;

	if (status != CMD_GO_ON)
		return status;
	return identity(argv[1], canonical, &why) ? cmd_fail("identity", &why)
						  : CMD_DONE;
}

/* ---- resolve ------------------------------------------------------------ */

static int read_identity(const char *path, struct avp_json_doc **doc,
			 struct avp_identity *id, struct avp_reason *why)
{
	struct cmd_file file = {0};
	const struct avp_json *root;
	int err = cmd_file_read(&file, path, AVP_CONFIG_BYTES, why);

	if (!err)
		err = avp_json_parse(doc, file.data, file.len, NULL, why);
	cmd_file_fini(&file);
	if (err)
		return err;
	root = avp_json_root(*doc);
	err = avp_json_expect_object(root, "an identity", why);
	return err ? err : avp_identity_read(id, root, why);
}

static int print_resolution(const struct avp_resolution *r,
			    struct avp_reason *why)
{
	struct cmd_answer answer;
	struct avp_json_writer *w = cmd_answer_begin(&answer);

	avp_json_key(w, "mode");
	avp_json_put_text(w, avp_mode_name(r->mode));
	avp_json_key(w, "reason");
	avp_json_put_text(w, r->reason);
	avp_json_member_bool(w, "kv_compatible", r->kv_compatible);
	if (r->map_id[0]) {
		avp_json_key(w, "map_id");
		avp_json_put_text(w, r->map_id);
	}
	return cmd_answer_end(&answer, 0, why);
}

int cmd_resolve(int argc, char **argv)
{
	static const struct cmd_page page = {
		"resolve", "LOCAL.json REMOTE.json", 2, 2,
		"Prints how two models, given by their identities as avpctl "
		"identity prints them,\n"
		"may talk and why: {\"mode\":\"LATENT|JSON\",\"reason\","
		"\"kv_compatible\"}.\n"};
	bool maps = false;
	const struct cmd_option options[] = {
		{"maps", CMD_FLAG, &maps, NULL,
		 "also let states through a projection by\n"
		 "a shared vocabulary; adds \"map_id\""},
		{0},
	};
	int status = cmd_arguments(&page, options, &argc, argv), err;
	struct avp_json_doc *docs[2] = {NULL, NULL};
	struct avp_identity local, remote;
	struct avp_resolution r;
	struct avp_reason why;

	if (status != CMD_GO_ON)
		return status;
	err = read_identity(argv[1], &docs[0], &local, &why);
	if (!err)
		err = read_identity(argv[2], &docs[1], &remote, &why);
	if (!err) {
		avp_resolve(&local, &remote, maps ? AVP_RESOLVE_MAPS : 0, &r);
		err = print_resolution(&r, &why);
	}
	avp_json_free(docs[0]);
	avp_json_free(docs[1]);
	return err ? cmd_fail("resolve", &why) : CMD_DONE;
}
