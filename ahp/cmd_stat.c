/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl stat: the counters of one agent. */
#include <string.h>

#include "ahp/cmd_agent.h"

struct wanted {
	const char *id;
	bool found;
	struct ahp_observation seen;
};

static void pick(void *arg, const struct ahp_observation *seen)
{
	struct wanted *wanted = arg;

	if (strcmp(seen->id, wanted->id))
		return;
	wanted->found = true;
	wanted->seen = *seen;
}

static int find(struct wanted *wanted, struct avp_reason *why)
{
	int err = cmd_observe(pick, wanted, why);

	if (err)
		return err;
	if (!wanted->found)
		return avp__fail(why, AVP_AGENT_NOT_FOUND,
				 "no agent %.64s in this namespace; avpctl ls "
				 "shows those that there are",
				 wanted->id);
	if (!strcmp(wanted->seen.state, "dead"))
		return avp__fail(why, AVP_AGENT_NOT_FOUND,
				 "agent %s was killed; what it left is removed "
				 "now",
				 wanted->id);
	return 0;
}

static int print_stats(const struct ahp_observation *seen,
		       struct avp_reason *why)
{
	struct cmd_answer answer;
	struct avp_json_writer *w = cmd_answer_begin(&answer);

	avp_json_key(w, "id");
	avp_json_put_text(w, seen->id);
	avp_json_member_uint(w, "pid", seen->pid);
	avp_json_key(w, "state");
	avp_json_put_text(w, seen->state);
	cmd_put_stats(w, &seen->stats);
	return cmd_answer_end(&answer, 0, why);
}

int cmd_stat(int argc, char **argv)
{
	static const struct cmd_page page = {
		"stat", "AGENT", 1, 1,
		"Prints an agent's counters as JSON: since it was opened, but "
		"in_flight,\n"
		"bytes_lent and links, which are as of now. They are at most "
		"0.1 s old, or as old\n"
		"as the last call that the agent made into the library.\n"};
	bool json;
	const struct cmd_option options[] = {
		{"json", CMD_FLAG, &json, NULL, "which it is anyway"},
		{0},
	};
	int status = cmd_arguments(&page, options, &argc, argv), err;
	struct wanted wanted = {0};
	struct avp_reason why;

	if (status != CMD_GO_ON)
		return status;
	wanted.id = argv[1];
	err = find(&wanted, &why);
	if (!err)
		err = print_stats(&wanted.seen, &why);
	return err ? cmd_fail("stat", &why) : CMD_DONE;
}
