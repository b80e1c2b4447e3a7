/* SPDX-License-Identifier: Apache-2.0 */
/* The arguments of every command, read in one way, and the pages on them. */
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/wire.h"
#include "gateway/cmd.h"

#define SECONDS_MAX 1e9 /* some 30 years; more would not fit nanoseconds */

static const char *namespace_option, *config_option;

const char *cmd_namespace(void)
{
	return namespace_option;
}

const char *cmd_config(void)
{
	return config_option;
}

/* They may also stand before the command's name, and once in all. */
static uint64_t common_seen;
static const struct cmd_option common[] = {
	{"namespace", CMD_TEXT, &namespace_option, "NAME",
	 "whose agents; $AVP_NAMESPACE, else \"default\""},
	{"config", CMD_TEXT, &config_option, "FILE",
	 "$AVP_CONFIG, else ~/.config/avp/avp.yaml,\n"
	 "else /etc/avp/avp.yaml"},
	{0},
};

/* ---- pages -------------------------------------------------------------- */

#define COLUMN 25

__attribute__((format(printf, 2, 3))) static void put(struct avp_buf *page,
						      const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	avp_buf_append(page, text, strlen(text));
}

/* A word and what is said of it, line by line in their columns. */
static void put_row(struct avp_buf *page, const char *word, const char *text)
{
	int n;

	put(page, "  %-*s", COLUMN - 3, word);
	if (strlen(word) > COLUMN - 3)
		put(page, "\n%*s", COLUMN - 1, "");
	for (;; text += n + 1) {
		n = (int)strcspn(text, "\n");
		put(page, " %.*s\n", n, text);
		if (!text[n])
			return;
		put(page, "%*s", COLUMN - 1, "");
	}
}

static void put_options(struct avp_buf *page, const struct cmd_option *o)
{
	char word[64];

	for (; o->name; o++) {
		snprintf(word, sizeof(word), "%s%s %s", o->name[1] ? "--" : "-",
			 o->name, o->value ? o->value : "");
		put_row(page, word, o->help);
	}
}

static int print_page(const struct cmd_page *p, const struct cmd_option *own,
		      const struct cmd_sub *subs)
{
	struct avp_buf page = {0};
	struct avp_reason why;
	int err;

	put(&page, "usage: avpctl%s%s [OPTION]...%s%s\n\n",
	    p->name[0] ? " " : "", p->name, p->operands[0] ? " " : "",
	    p->operands);
	avp_buf_append(&page, p->text, strlen(p->text));
	if (subs)
		put(&page, "\ncommands:\n");
	for (; subs && subs->name; subs++)
		put_row(&page, subs->name, subs->help);
	put(&page, "\noptions:\n");
	put_options(&page, own);
	put_options(&page, common);
	put_row(&page, "--help", "this page");
	put(&page, "\nexit status:\n"
		   "  0 done   1 the input or the peer was refused   2 wrong "
		   "usage or configuration\n"
		   "  3 the system refused. Each failure is a line on stderr:\n"
		   "  avpctl: WHAT: CODE: REASON\n");
	err = cmd_print(&page, &why);
	avp_buf_fini(&page);
	return err ? cmd_fail(p->name[0] ? p->name : "help", &why) : CMD_DONE;
}

/* ---- values ------------------------------------------------------------- */

static int read_bytes(const char *text, uint64_t *to)
{
	static const char units[] = "KMG";
	unsigned int shift = 0;
	const char *unit;
	char *end;

	errno = 0;
	*to = strtoull(text, &end, 10);
	unit = *end ? strchr(units, *end) : NULL;
	if (unit) {
		shift = 10 * (unsigned int)(unit - units + 1);
		end++;
	}
	if (*text < '0' || *text > '9' || *end || errno ||
	    *to > UINT64_MAX >> shift)
		return -1;
	*to <<= shift;
	return 0;
}

static int read_count(const char *text, uint64_t *to)
{
	char *end;

	errno = 0;
	*to = strtoull(text, &end, 10);
	return *text < '0' || *text > '9' || *end || errno ? -1 : 0;
}

static int read_double(const char *text, double *to)
{
	char *end;

	*to = strtod(text, &end);
	return end == text || *end || !isfinite(*to) ? -1 : 0;
}

/* What would have been a value, or NULL if this is one and was stored. */
static const char *store(const struct cmd_option *o, const char *text)
{
	uint64_t *count = o->to;
	double number;

	switch (o->kind) {
	case CMD_FLAG: *(bool *)o->to = true; return NULL;
	case CMD_TEXT:
		if (!*text)
			return "one that is not empty";
		*(const char **)o->to = text;
		return NULL;
	case CMD_UTF8:
		if (!avp__utf8_valid(text, strlen(text)))
			return "one of valid UTF-8";
		*(const char **)o->to = text;
		return NULL;
	case CMD_BYTES:
		return read_bytes(text, count)
			       ? "a number of bytes: 4096, 64K, 16M or 4G"
			       : NULL;
	case CMD_COUNT:
		return read_count(text, count)
			       ? "a count: a whole number from 0 on"
			       : NULL;
	case CMD_SECONDS:
		if (read_double(text, &number) || number < 0 ||
		    number > SECONDS_MAX)
			return "seconds: 2 or 0.5, up to 1000000000";
		*(int64_t *)o->to = (int64_t)(number * 1e9);
		return NULL;
	case CMD_NUMBER:
		if (read_double(text, &number) || number <= 0)
			return "a number above 0";
		*(double *)o->to = number;
		return NULL;
	}
	return NULL;
}

/* ---- reading ------------------------------------------------------------ */

struct reader {
	const struct cmd_page *page;
	const struct cmd_option *own;
	uint64_t own_seen;
	int argc, at;
	char **argv;
	bool help;
};

/* Its words in a failure: short enough to leave room for the mend. */
#define SHOWN 80

__attribute__((format(printf, 2, 3))) static int usage(
	const struct cmd_page *page, const char *format, ...)
{
	struct avp_reason why;
	char text[sizeof(why.text)];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	avp__fail(&why, AVP_USAGE, "%.180s; see avpctl%s%s --help", text,
		  page->name[0] ? " " : "", page->name);
	return cmd_fail(page->name[0] ? page->name : "arguments", &why);
}

/* Of those in a table the one that word names, and its "=value" or NULL. */
static const struct cmd_option *find(const struct cmd_option *o,
				     const char *word, const char **value)
{
	const char *name = word + 1 + (word[1] == '-');
	size_t n = strcspn(name, "=");

	*value = name[n] ? name + n + 1 : NULL;
	for (; o->name; o++)
		if (strlen(o->name) == n && !memcmp(o->name, name, n) &&
		    (o->name[1] != 0) == (word[1] == '-'))
			return o;
	return NULL;
}

/* Reads the option at r->at and steps over it. */
static int take_option(struct reader *r)
{
	const char *word = r->argv[r->at++], *value, *wanted;
	const struct cmd_option *table = r->own, *o = find(table, word, &value);
	uint64_t *seen = &r->own_seen, bit;
	int shown = (int)strcspn(word, "=");

	if (!strcmp(word, "--help") || !strcmp(word, "-h")) {
		r->help = true;
		return CMD_GO_ON;
	}
	if (!o) {
		table = common;
		seen = &common_seen;
		o = find(table, word, &value);
	}
	if (shown > SHOWN)
		shown = SHOWN;
	if (!o)
		return usage(r->page, "%.*s is no option here", shown, word);
	bit = UINT64_C(1) << (o - table);
	if (*seen & bit)
		return usage(r->page, "%.*s is given twice", shown, word);
	*seen |= bit;
	if (o->kind == CMD_FLAG && value)
		return usage(r->page, "%.*s takes no value", shown, word);
	if (o->kind != CMD_FLAG && !value) {
		if (r->at >= r->argc)
			return usage(r->page, "%.*s needs a value", shown,
				     word);
		value = r->argv[r->at++];
	}
	wanted = store(o, value);
	if (wanted)
		return usage(r->page, "%.*s \"%.*s\": the value has to be %s",
			     shown, word, SHOWN, value, wanted);
	return CMD_GO_ON;
}

static bool is_option(const char *word)
{
	return word[0] == '-' && word[1];
}

int cmd_arguments(const struct cmd_page *page, const struct cmd_option *options,
		  int *argc, char **argv)
{
	struct reader r = {page, options, 0, *argc, 1, argv, false};
	int operands = 0, status = CMD_GO_ON;

	while (r.at < r.argc && status == CMD_GO_ON) {
		if (!strcmp(argv[r.at], "--")) {
			while (++r.at < r.argc)
				argv[++operands] = argv[r.at];
		} else if (is_option(argv[r.at])) {
			status = take_option(&r);
		} else {
			argv[++operands] = argv[r.at++];
		}
	}
	if (status != CMD_GO_ON)
		return status;
	if (r.help)
		return print_page(page, options, NULL);
	argv[operands + 1] = NULL;
	*argc = operands + 1;
	if (operands > page->most)
		return usage(page, "\"%.*s\" is one word too many", SHOWN,
			     argv[page->most + 1]);
	if (operands < page->least)
		return usage(page, "%s is needed", page->operands);
	for (int i = 1; i <= operands; i++)
		if (!argv[i][0])
			return usage(page, "\"\" is no %s: it is empty",
				     page->operands);
	return CMD_GO_ON;
}

int cmd_group(const struct cmd_page *page, const struct cmd_option *options,
	      const struct cmd_sub *subs, int argc, char **argv)
{
	struct reader r = {page, options, 0, argc, 1, argv, false};
	const char *word;
	int status;

	while (r.at < argc && is_option(argv[r.at])) {
		status = take_option(&r);
		if (status != CMD_GO_ON)
			return status;
	}
	word = r.at < argc ? argv[r.at] : NULL;
	if (r.help || (word && !strcmp(word, "help")))
		return print_page(page, options, subs);
	if (!word && r.own_seen)
		return CMD_GO_ON;
	if (!word) {
		status = print_page(page, options, subs);
		return status ? status
			      : usage(page, "one of the commands is needed");
	}
	for (const struct cmd_sub *s = subs; s->name; s++)
		if (!strcmp(word, s->name))
			return s->run(argc - r.at, argv + r.at);
	return usage(page, "\"%.*s\" is no command here", SHOWN, word);
}
