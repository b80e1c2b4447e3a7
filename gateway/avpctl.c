/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl: finds the subcommand that was asked for and runs it. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "gateway/cmd.h"

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} commands[] = {
	{"bench", cmd_bench, "measure the library on this machine"},
	{"frame", cmd_frame, "read and write AVP frames"},
	{"identity", cmd_identity, "who a model is, from its config.json"},
	{"resolve", cmd_resolve, "how two models may talk"},
	{"kv", cmd_kv, "look into a KV-cache"},
	{"realign", cmd_realign, "carry hidden states into embedding space"},
	{"instruction", cmd_instruction, "the compact instruction of a task"},
	{"ls", cmd_ls, "the agents of this host"},
	{"stat", cmd_stat, "the counters of an agent"},
	{"top", cmd_top, "what flows now, agent by agent"},
	{"doctor", cmd_doctor, "what this host gives to agents"},
	{"send", cmd_send, "send an agent a message"},
	{"recv", cmd_recv, "be an agent, and print what comes"},
	{"dlq", cmd_dlq, "messages that could not be delivered"},
};
#define COMMANDS (sizeof(commands) / sizeof(*commands))

static const char *namespace_option, *config_option;

const char *cmd_namespace(void)
{
	return namespace_option;
}

const char *cmd_config(void)
{
	return config_option;
}

static int help(FILE *out)
{
	fputs("usage: avpctl COMMAND [ARGUMENT]...\n\ncommands:\n", out);
	for (size_t i = 0; i < COMMANDS; i++)
		fprintf(out, "  %-12s %s\n", commands[i].name,
			commands[i].help);
	fputs("\n"
	      "avpctl COMMAND --help tells more. Every command takes\n"
	      "  --namespace NAME   $AVP_NAMESPACE, else \"default\"\n"
	      "  --config FILE      $AVP_CONFIG, else "
	      "~/.config/avp/avp.yaml,\n"
	      "                     else /etc/avp/avp.yaml\n"
	      "and exits with 0 done, 1 refused, 2 wrong usage, 3 system.\n",
	      out);
	return out == stdout ? CMD_DONE : CMD_USAGE;
}

/* Is argv[i] the option, as "--name value" or "--name=value"? Its words, or 0. */
static int take_option(int argc, char **argv, int i, const char *name,
		       const char **value)
{
	size_t n = strlen(name);

	if (strncmp(argv[i], name, n))
		return 0;
	if (argv[i][n] == '=') {
		*value = argv[i] + n + 1;
		return 1;
	}
	if (argv[i][n])
		return 0;
	*value = i + 1 < argc ? argv[i + 1] : NULL;
	return 2;
}

/* Takes the options of all commands out of argv, up to "--". */
static int take_common(int argc, char **argv)
{
	int kept = 0, n;

	for (int i = 0; i < argc; i += n) {
		if (!strcmp(argv[i], "--")) {
			memmove(argv + kept, argv + i,
				(size_t)(argc - i) * sizeof(*argv));
			return kept + argc - i;
		}
		n = take_option(argc, argv, i, "--namespace",
				&namespace_option);
		if (!n)
			n = take_option(argc, argv, i, "--config",
					&config_option);
		if (n == 2 && i + 1 >= argc)
			return -cmd_failf("options", AVP_USAGE,
					  "%s needs a value", argv[i]);
		if (!n) {
			argv[kept++] = argv[i];
			n = 1;
		}
	}
	return kept;
}

int main(int argc, char **argv)
{
	/* A closed pipe is an error of write(), with a message and a status. */
	signal(SIGPIPE, SIG_IGN);
	argc = take_common(argc, argv);
	if (argc < 0)
		return -argc;
	argv[argc] = NULL;
	if (argc < 2)
		return help(stderr);
	if (!strcmp(argv[1], "help") || !strcmp(argv[1], "--help") ||
	    !strcmp(argv[1], "-h"))
		return help(stdout);
	if (!strcmp(argv[1], "--version")) {
		puts("avpctl " AVP_VERSION);
		return CMD_DONE;
	}
	for (size_t i = 0; i < COMMANDS; i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].run(argc - 1, argv + 1);
	return cmd_failf(argv[1], AVP_USAGE,
			 "no such command; see avpctl help");
}
