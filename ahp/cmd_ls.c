/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl ls: who is there. */
#include <stdio.h>
#include <string.h>

#include "ahp/cmd_agent.h"

struct listing {
	struct avp_json_writer *w;
	bool json, any;
};

static void put_agent(struct avp_json_writer *w,
		      const struct ahp_observation *seen)
{
	avp_json_open_object(w);
	avp_json_key(w, "id");
	avp_json_put_text(w, seen->id);
	avp_json_member_uint(w, "pid", seen->pid);
	avp_json_member_uint(w, "uid", seen->uid);
	cmd_member_foreign(w, "model_id", avp_str_of(seen->model_id));
	cmd_member_foreign(w, "model_hash", avp_str_of(seen->model_hash));
	avp_json_member_uint(w, "links", seen->stats.links);
	avp_json_key(w, "state");
	avp_json_put_text(w, seen->state);
	avp_json_close_object(w);
}

/* A model's name comes from a file: nothing of it may steer a terminal. */
static void print_plain(const char *text)
{
	for (; *text; text++)
		putchar((unsigned char)*text < 0x20 ||
					(unsigned char)*text >= 0x7f
				? '?'
				: *text);
}

static void print_agent(const struct ahp_observation *seen)
{
	printf("%-24s %8u %6u %6llu %-6s ", seen->id, seen->pid, seen->uid,
	       (unsigned long long)seen->stats.links, seen->state);
	print_plain(seen->model_id);
	putchar('\n');
}

static void print_heading(void)
{
	printf("%-24s %8s %6s %6s %-6s %s\n", "AGENT", "PID", "UID", "LINKS",
	       "STATE", "MODEL");
}

static void show(void *arg, const struct ahp_observation *seen)
{
	struct listing *l = arg;

	if (l->json) {
		put_agent(l->w, seen);
		return;
	}
	if (!l->any)
		print_heading();
	l->any = true;
	print_agent(seen);
}

static int list_json(struct listing *l, struct avp_reason *why)
{
	struct cmd_answer answer;
	int err;

	l->w = cmd_answer_begin(&answer);
	avp_json_key(l->w, "agents");
	avp_json_open_array(l->w);
	err = cmd_observe(show, l, why);
	avp_json_close_array(l->w);
	return cmd_answer_end(&answer, err, why);
}

static int list_table(struct listing *l, struct avp_reason *why)
{
	int err = cmd_observe(show, l, why);

	if (!err && !l->any)
		print_heading();
	return err;
}

int cmd_ls(int argc, char **argv)
{
	static const struct cmd_page page = {
		"ls", "", 0, 0,
		"Lists the agents of a namespace, and removes what killed ones "
		"left: those are\n"
		"shown once, as dead. A stuck one has not been called for a "
		"minute.\n"};
	struct listing l = {0};
	const struct cmd_option options[] = {
		{"json", CMD_FLAG, &l.json, NULL,
		 "print {\"agents\":[{\"id\",\"pid\",\"uid\",\"model_id\",\n"
		 "\"model_hash\",\"links\",\"state\"},..]}"},
		{0},
	};
	int status = cmd_arguments(&page, options, &argc, argv), err;
	struct avp_reason why;

	if (status != CMD_GO_ON)
		return status;
	err = l.json ? list_json(&l, &why) : list_table(&l, &why);
	return err ? cmd_fail("ls", &why) : CMD_DONE;
}
