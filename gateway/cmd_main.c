/* SPDX-License-Identifier: Apache-2.0 */
/* How a program of commands begins, fails and ends. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gateway/cmd.h"

static bool die_of_pipes; /* as nobody told us to ignore SIGPIPE */

/* ---- failures ----------------------------------------------------------- */

int cmd_listed(int code)
{
	switch (code) {
	case AVP_AGAIN:
	case AVP_EXPIRED: return AVP_TIMEOUT;
	case AVP_CLOSED: return AVP_AGENT_NOT_FOUND;
	case AVP_POISONED:
	case AVP_REJECTED: return AVP_INVALID_MESSAGE;
	case AVP_NAME_TAKEN: return AVP_PERMISSION;
	case AVP_FORKED:
	case AVP_UNSUPPORTED: return AVP_IO;
	default: return code;
	}
}

/* The exit status that belongs to a code. */
static int status_of(int code)
{
	switch (cmd_listed(code)) {
	case AVP_OK: return CMD_DONE;
	case AVP_USAGE:
	case AVP_BAD_CONFIG: return CMD_USAGE;
	case AVP_IO:
	case AVP_NO_MEMORY:
	case AVP_PERMISSION: return CMD_SYSTEM;
	default: return CMD_REFUSED;
	}
}

int cmd_fail(const char *what, const struct avp_reason *why)
{
	char text[sizeof(why->text)];
	size_t n = strnlen(why->text, sizeof(text) - 1);

	/* Names and texts of others may hold what ends a line or steers. */
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)why->text[i];

		text[i] = c < 0x20 || c == 0x7f ? '?' : (char)c;
	}
	text[n] = 0;
	/* Of a reader that went away on purpose nobody wants to be told. */
	if (!cmd_reader_is_gone() || !die_of_pipes)
		fprintf(stderr, "avpctl: %s: %s: %s\n", what,
			avp_error_name(cmd_listed(why->code)), text);
	return status_of(why->code);
}

int cmd_failf(const char *what, int code, const char *format, ...)
{
	struct avp_reason why = {.code = code};
	va_list args;

	va_start(args, format);
	vsnprintf(why.text, sizeof(why.text), format, args);
	va_end(args);
	return cmd_fail(what, &why);
}

/* ---- main --------------------------------------------------------------- */

/*
 * A closed one would be the next file that is opened, a peer's socket for one.
 * It becomes /dev/null opened the wrong way round: reads and writes fail.
 */
static int open_closed(void)
{
	static const int modes[] = {O_WRONLY, O_RDONLY, O_RDWR};

	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 &&
		    open("/dev/null", modes[fd]) != fd)
			return -1;
	return 0;
}

void cmd_end_pipes(void)
{
	if (die_of_pipes)
		signal(SIGPIPE, SIG_DFL);
}

int cmd_main(int (*command)(int argc, char **argv), int argc, char **argv)
{
	static char none[] = "avpctl";
	char *no_words[] = {none, NULL};
	struct avp_reason why;
	int status;

	/* An agent removes its names before it goes: not killed by a pipe. */
	die_of_pipes = signal(SIGPIPE, SIG_IGN) == SIG_DFL;
	/* A file over RLIMIT_FSIZE is an error with a reason. */
	signal(SIGXFSZ, SIG_IGN);
	if (open_closed())
		return CMD_SYSTEM;
	status = argc > 0 ? command(argc, argv) : command(1, no_words);
	if (cmd_flush(&why) && status == CMD_DONE)
		status = cmd_fail("output", &why);
	if (cmd_reader_is_gone() && die_of_pipes) {
		cmd_end_pipes();
		raise(SIGPIPE);
	}
	return status;
}
