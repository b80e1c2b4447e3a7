/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl: finds the subcommand that was asked for and runs it. */
#include <stdio.h>

#include "gateway/cmd.h"

static const struct cmd_sub commands[] = {
	{"ls", cmd_ls, "the agents of this host"},
	{"stat", cmd_stat, "the counters of an agent"},
	{"top", cmd_top, "what flows now, agent by agent"},
	{"send", cmd_send, "send an agent a message"},
	{"recv", cmd_recv, "be an agent, and print what comes"},
	{"dlq", cmd_dlq, "messages that could not be delivered"},
	{"instruction", cmd_instruction, "the compact instruction of a task"},
	{"frame", cmd_frame, "read and write AVP frames"},
	{"kv", cmd_kv, "look into a KV-cache"},
	{"identity", cmd_identity, "who a model is, from its config.json"},
	{"resolve", cmd_resolve, "how two models may talk"},
	{"realign", cmd_helper, "carry hidden states into embedding space"},
	{"bench", cmd_bench, "measure the library on this machine"},
	{"doctor", cmd_doctor, "what this host gives to agents"},
	{0},
};

static int avpctl(int argc, char **argv)
{
	static const struct cmd_page page = {
		"", "COMMAND [ARGUMENT]...", 1, 1,
		"Looks at AVP frames, models and the agents of this host. "
		"avpctl COMMAND --help\n"
		"tells more. An option's value may stand behind it or behind "
		"\"=\"; what stands\n"
		"behind \"--\" is no option; \"-\" is stdin.\n"};
	bool version = false;
	const struct cmd_option options[] = {
		{"version", CMD_FLAG, &version, NULL, "print the version"},
		{0},
	};
	int status = cmd_group(&page, options, commands, argc, argv);

	if (status == CMD_GO_ON && puts("avpctl " AVP_VERSION) >= 0)
		return CMD_DONE;
	return status == CMD_GO_ON ? CMD_SYSTEM : status;
}

int main(int argc, char **argv)
{
	return cmd_main(avpctl, argc, argv);
}
