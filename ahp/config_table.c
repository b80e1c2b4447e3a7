/* SPDX-License-Identifier: Apache-2.0 */
/* YAML by tables, out of libyaml's events: nothing is built, nothing expanded. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <yaml.h>

#include <avp/config.h>

#include "ahp/config_table.h"
#include "shm/reason.h"

#define SHOWN 40 /* of a text that is quoted in an error */

struct reader {
	yaml_parser_t parser;
	yaml_event_t event; /* the one at hand */
	bool has_event;
	const char *name, *text;
	size_t len;
	unsigned depth;
	struct avp_reason *why;
};

/* ---- errors -------------------------------------------------------------- */

/* A long path is told by its end: its beginning is known. */
static const char *tail(const char *name, const char **dots)
{
	size_t n = strlen(name);

	*dots = n > 100 ? "..." : "";
	return n > 100 ? name + n - 100 : name;
}

__attribute__((format(printf, 3, 4))) static int bad_at(struct reader *r,
							yaml_mark_t at,
							const char *format, ...)
{
	const char *dots, *name = tail(r->name, &dots);
	char text[252];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return avp__fail(r->why, AVP_BAD_CONFIG, "%s%s:%zu:%zu: %s", dots, name,
			 at.line + 1, at.column + 1, text);
}

#define BAD(r, ...) bad_at(r, (r)->event.start_mark, __VA_ARGS__)

/* What the event is, in words. */
static const char *found(const yaml_event_t *e, char words[SHOWN + 32])
{
	const char *text;
	size_t n;

	switch (e->type) {
	case YAML_SCALAR_EVENT:
		text = (const char *)e->data.scalar.value;
		n = e->data.scalar.length;
		if (!n && e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
			return "nothing";
		snprintf(words, SHOWN + 32, "%s\"%.*s\"%s",
			 e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE
				 ? ""
				 : "the quoted ",
			 (int)(n < SHOWN ? n : SHOWN), text,
			 n < SHOWN ? "" : "...");
		for (char *p = words; *p; p++)
			if ((unsigned char)*p < 0x20 || *p == 0x7f)
				*p = '?';
		return words;
	case YAML_SEQUENCE_START_EVENT: return "a list";
	case YAML_MAPPING_START_EVENT: return "a mapping";
	case YAML_ALIAS_EVENT: return "an alias";
	default: return "the end";
	}
}

/* ---- events -------------------------------------------------------------- */

static void drop_event(struct reader *r)
{
	if (r->has_event)
		yaml_event_delete(&r->event);
	r->has_event = false;
}

/* What is no UTF-8 is found before libyaml counts lines. */
static yaml_mark_t mark_of(const struct reader *r, size_t off)
{
	yaml_mark_t at = {0};

	for (size_t i = 0; i < off && i < r->len; i++) {
		at.column = r->text[i] == '\n' ? 0 : at.column + 1;
		at.line += r->text[i] == '\n';
	}
	return at;
}

static int syntax_error(struct reader *r)
{
	const yaml_parser_t *p = &r->parser;
	yaml_mark_t at = p->problem_mark;

	if (p->error == YAML_MEMORY_ERROR)
		return avp__fail(r->why, AVP_NO_MEMORY,
				 "no memory to read the configuration");
	if (p->error == YAML_READER_ERROR)
		at = mark_of(r, p->problem_offset);
	return bad_at(r, at, "%s%s%s; expected YAML in UTF-8",
		      p->context ? p->context : "",
		      p->context && p->problem ? ", " : "",
		      p->problem ? p->problem : "");
}

static bool is_anchored(const yaml_event_t *e)
{
	switch (e->type) {
	case YAML_ALIAS_EVENT: return true;
	case YAML_SCALAR_EVENT:
		return e->data.scalar.anchor || e->data.scalar.tag;
	case YAML_SEQUENCE_START_EVENT:
		return e->data.sequence_start.anchor ||
		       e->data.sequence_start.tag;
	case YAML_MAPPING_START_EVENT:
		return e->data.mapping_start.anchor ||
		       e->data.mapping_start.tag;
	default: return false;
	}
}

/* The next event into r->event; what no section may have is refused here. */
static int advance(struct reader *r)
{
	drop_event(r);
	if (!yaml_parser_parse(&r->parser, &r->event))
		return syntax_error(r);
	r->has_event = true;
	if (is_anchored(&r->event))
		return BAD(r, "an anchor, alias or tag; a configuration has "
			      "none: write the value itself");
	switch (r->event.type) {
	case YAML_SEQUENCE_START_EVENT:
	case YAML_MAPPING_START_EVENT:
		if (++r->depth > AHP_CONFIG_MAX_DEPTH)
			return BAD(r, "nested deeper than %u, the limit",
				   AHP_CONFIG_MAX_DEPTH);
		break;
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT: r->depth--; break;
	default: break;
	}
	return 0;
}

/* Passes over the value at hand, whatever it is. */
static int skip_value(struct reader *r)
{
	unsigned depth = r->depth;
	int err = 0;

	if (r->event.type == YAML_SCALAR_EVENT)
		return 0;
	while (!err && r->depth >= depth)
		err = advance(r);
	return err;
}

/* ---- values -------------------------------------------------------------- */

/* What a key takes, in words. */
static void expected(const struct config_key *k, char *to, size_t cap)
{
	size_t n = 0;

	switch (k->type) {
	case CONFIG_UINT:
		snprintf(to, cap, "a %s from %llu to %llu",
			 k->flags & CONFIG_POWER_OF_2 ? "power of two"
						      : "whole number",
			 (unsigned long long)k->min,
			 (unsigned long long)k->max);
		break;
	case CONFIG_BYTES:
		snprintf(to, cap,
			 "bytes, as 65536, 64KiB or 1GiB, from %llu to %llu",
			 (unsigned long long)k->min,
			 (unsigned long long)k->max);
		break;
	case CONFIG_TIME:
		snprintf(to, cap,
			 "a time, as 30, 2.5s, 500ms, 1m or 1h, from %gs to "
			 "%gs",
			 (double)k->min * 1e-9, (double)k->max * 1e-9);
		break;
	case CONFIG_BOOL: snprintf(to, cap, "true or false"); break;
	case CONFIG_WORD:
		n = (size_t)snprintf(to, cap, "one of");
		for (int i = 0; k->words[i] && n < cap; i++)
			n += (size_t)snprintf(to + n, cap - n, "%s %s",
					      i ? "," : "", k->words[i]);
		break;
	case CONFIG_NAME:
		snprintf(to, cap, "1-%llu of [A-Za-z0-9._-], no leading dot",
			 (unsigned long long)k->max);
		break;
	case CONFIG_PATH:
		snprintf(to, cap, "a path that begins with /, up to %llu bytes",
			 (unsigned long long)k->max);
		break;
	case CONFIG_UIDS:
		snprintf(to, cap, "a list of up to %llu user ids",
			 (unsigned long long)k->max);
		break;
	}
}

static int refuse(struct reader *r, const struct config_key *k)
{
	char words[SHOWN + 32], what[160];

	expected(k, what, sizeof(what));
	return BAD(r, "%s is %s; expected %s", k->name, found(&r->event, words),
		   what);
}

/* Decimal digits without a leading zero, which YAML 1.1 takes for octal. */
static bool read_digits(const char **text, uint64_t *n)
{
	const char *p = *text;
	uint64_t value = 0;

	if (*p < '0' || *p > '9' || (p[0] == '0' && p[1] >= '0' && p[1] <= '9'))
		return false;
	for (; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(value, UINT64_C(10), &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
			return false;
	*text = p;
	*n = value;
	return true;
}

struct unit {
	const char *name;
	uint64_t factor;
};

static bool read_unit(const char *text, const struct unit *units,
		      uint64_t *factor)
{
	if (*text == ' ' && text[1])
		text++;
	for (; units->name; units++)
		if (!strcmp(text, units->name)) {
			*factor = units->factor;
			return true;
		}
	return false;
}

static bool read_bytes(const char *text, uint64_t *n)
{
	static const struct unit units[] = {
		{"", 1},
		{"B", 1},
		{"KiB", UINT64_C(1) << 10},
		{"MiB", UINT64_C(1) << 20},
		{"GiB", UINT64_C(1) << 30},
		{"TiB", UINT64_C(1) << 40},
		{0},
	};
	uint64_t factor;

	return read_digits(&text, n) && read_unit(text, units, &factor) &&
	       !__builtin_mul_overflow(*n, factor, n);
}

/* The digits behind the point count in billionths; further ones are cut. */
static bool read_fraction(const char **text, uint64_t *billionths)
{
	const char *p = *text;
	uint64_t place = 100000000;

	*billionths = 0;
	if (*p != '.')
		return true;
	p++;
	if (*p < '0' || *p > '9')
		return false;
	for (; *p >= '0' && *p <= '9'; p++) {
		*billionths += (uint64_t)(*p - '0') * place;
		place /= 10;
	}
	*text = p;
	return true;
}

static bool read_time(const char *text, uint64_t *ns)
{
	static const struct unit units[] = {
		{"", 1000000000},
		{"ns", 1},
		{"us", 1000},
		{"ms", 1000000},
		{"s", 1000000000},
		{"m", UINT64_C(60000000000)},
		{"h", UINT64_C(3600000000000)},
		{0},
	};
	uint64_t whole, part, factor;

	if (!read_digits(&text, &whole) || !read_fraction(&text, &part) ||
	    !read_unit(text, units, &factor) ||
	    __builtin_mul_overflow(whole, factor, &whole))
		return false;
	/* Less than an hour: a double has it to the nanosecond. */
	part = (uint64_t)((double)part * 1e-9 * (double)factor + 0.5);
	return !__builtin_add_overflow(whole, part, ns) && *ns <= INT64_MAX;
}

static bool read_uint(const char *text, uint64_t *n)
{
	return read_digits(&text, n) && !*text;
}

static bool read_word(const char *text, const char *const *words, uint32_t *n)
{
	for (uint32_t i = 0; words[i]; i++)
		if (!strcmp(text, words[i])) {
			*n = i;
			return true;
		}
	return false;
}

static bool is_name(const char *text)
{
	return *text != '.' &&
	       !text[strspn(text, "abcdefghijklmnopqrstuvwxyz"
				  "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")];
}

static bool in_range(const struct config_key *k, uint64_t n)
{
	return n >= k->min && n <= k->max &&
	       !(k->flags & CONFIG_POWER_OF_2 && n & (n - 1));
}

/* The value as its type says; `text` has no NUL inside. */
static bool store(const struct config_key *k, const char *text, size_t len,
		  void *to)
{
	uint64_t n = 0;

	switch (k->type) {
	case CONFIG_UINT:
		if (!read_uint(text, &n) || !in_range(k, n) || n > UINT32_MAX)
			return false;
		*(uint32_t *)to = (uint32_t)n;
		return true;
	case CONFIG_BYTES:
		if (!read_bytes(text, &n) || !in_range(k, n))
			return false;
		*(uint64_t *)to = n;
		return true;
	case CONFIG_TIME:
		if (!read_time(text, &n) || !in_range(k, n))
			return false;
		*(int64_t *)to = (int64_t)n;
		return true;
	case CONFIG_BOOL:
		*(bool *)to = !strcmp(text, "true");
		return *(bool *)to || !strcmp(text, "false");
	case CONFIG_WORD: return read_word(text, k->words, to);
	case CONFIG_NAME:
	case CONFIG_PATH:
		if (len < k->min || len > k->max ||
		    !(k->type == CONFIG_PATH ? *text == '/' : is_name(text)))
			return false;
		memcpy(to, text, len + 1);
		return true;
	case CONFIG_UIDS: break;
	}
	return false;
}

static int read_scalar(struct reader *r, const struct config_key *k, void *to)
{
	const yaml_event_t *e = &r->event;
	const char *text;
	bool text_type = k->type == CONFIG_NAME || k->type == CONFIG_PATH;

	if (e->type != YAML_SCALAR_EVENT)
		return refuse(r, k);
	text = (const char *)e->data.scalar.value;
	if (strlen(text) != e->data.scalar.length)
		return refuse(r, k);
	/* "3" in quotes is a text, no number, in YAML as here. */
	if (!text_type && e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
		return refuse(r, k);
	return store(k, text, e->data.scalar.length, to) ? 0 : refuse(r, k);
}

static int read_uids(struct reader *r, const struct config_key *k, char *base)
{
	const struct config_key one = {k->name, CONFIG_UINT,	0,    0,
				       0,	UINT32_MAX - 1, NULL, 0};
	uint32_t *uids = (uint32_t *)(base + k->off), count = 0;
	int err;

	if (r->event.type != YAML_SEQUENCE_START_EVENT)
		return refuse(r, k);
	for (;;) {
		err = advance(r);
		if (err || r->event.type == YAML_SEQUENCE_END_EVENT)
			break;
		if (count == k->max)
			return BAD(r,
				   "%s has more than %llu entries, the limit",
				   k->name, (unsigned long long)k->max);
		err = read_scalar(r, &one, &uids[count++]);
		if (err)
			return err;
	}
	*(uint32_t *)(base + k->count_off) = count;
	return err;
}

/* ---- sections ------------------------------------------------------------ */

/* The text of the key at hand. */
static int read_key(struct reader *r, const char **text)
{
	char words[SHOWN + 32];
	const yaml_event_t *e = &r->event;

	if (e->type != YAML_SCALAR_EVENT)
		return BAD(r, "%s; expected a key", found(e, words));
	*text = (const char *)e->data.scalar.value;
	if (strlen(*text) != e->data.scalar.length)
		*text = ""; /* with a NUL inside: no key of ours */
	return 0;
}

static int unknown_key(struct reader *r, const struct config_section *s)
{
	char names[200] = "", words[SHOWN + 32];
	size_t n = 0;

	for (const struct config_key *k = s->keys; k->name; k++)
		n += (size_t)snprintf(names + n,
				      n < sizeof(names) ? sizeof(names) - n : 0,
				      "%s%s", n ? ", " : "", k->name);
	return BAD(r, "unknown key %s in %s; expected one of %s",
		   found(&r->event, words), s->name, names);
}

static int read_member(struct reader *r, const struct config_section *s,
		       uint64_t *seen, char *base)
{
	const struct config_key *k = s->keys;
	const char *text;
	int err = read_key(r, &text);

	if (err)
		return err;
	while (k->name && strcmp(k->name, text) != 0)
		k++;
	if (!k->name)
		return unknown_key(r, s);
	if (*seen & UINT64_C(1) << (k - s->keys))
		return BAD(r, "%s comes twice in %s; expected it once", k->name,
			   s->name);
	*seen |= UINT64_C(1) << (k - s->keys);
	err = advance(r);
	if (err)
		return err;
	return k->type == CONFIG_UIDS ? read_uids(r, k, base)
				      : read_scalar(r, k, base + k->off);
}

/* `ahp:` with nothing behind it is an empty section. */
static bool is_empty(const yaml_event_t *e)
{
	return e->type == YAML_SCALAR_EVENT && !e->data.scalar.length &&
	       e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

static int read_section(struct reader *r, const struct config_section *s,
			char *base)
{
	char words[SHOWN + 32];
	uint64_t seen = 0;
	int err = advance(r);

	if (err || is_empty(&r->event))
		return err;
	if (!s->keys)
		return skip_value(r);
	if (r->event.type != YAML_MAPPING_START_EVENT)
		return BAD(r, "section %s is %s; expected a mapping of keys",
			   s->name, found(&r->event, words));
	for (;;) {
		err = advance(r);
		if (err || r->event.type == YAML_MAPPING_END_EVENT)
			return err;
		err = read_member(r, s, &seen, base);
		if (err)
			return err;
	}
}

static int unknown_section(struct reader *r,
			   const struct config_section *sections)
{
	char names[120] = "", words[SHOWN + 32];
	size_t n = 0;

	for (; sections->name && n < sizeof(names); sections++)
		n += (size_t)snprintf(names + n, sizeof(names) - n, "%s%s",
				      n ? ", " : "", sections->name);
	return BAD(r, "unknown section %s; expected one of %s",
		   found(&r->event, words), names);
}

static int read_sections(struct reader *r,
			 const struct config_section *sections, char *base)
{
	const struct config_section *s;
	const char *text;
	uint64_t seen = 0;
	int err;

	for (;;) {
		err = advance(r);
		if (err || r->event.type == YAML_MAPPING_END_EVENT)
			return err;
		err = read_key(r, &text);
		if (err)
			return err;
		for (s = sections; s->name && strcmp(s->name, text) != 0; s++)
			;
		if (!s->name)
			return unknown_section(r, sections);
		if (seen & UINT64_C(1) << (s - sections))
			return BAD(r,
				   "section %s comes twice; expected it once",
				   s->name);
		seen |= UINT64_C(1) << (s - sections);
		err = read_section(r, s, base);
		if (err)
			return err;
	}
}

/* ---- documents ----------------------------------------------------------- */

static int read_document(struct reader *r,
			 const struct config_section *sections, char *base)
{
	char words[SHOWN + 32];
	int err = advance(r);

	if (err)
		return err;
	if (r->event.type == YAML_MAPPING_START_EVENT)
		err = read_sections(r, sections, base);
	else if (!is_empty(&r->event))
		err = BAD(r, "the file is %s; expected a mapping of sections",
			  found(&r->event, words));
	return err ? err : advance(r); /* the document's end */
}

static int read_stream(struct reader *r, const struct config_section *sections,
		       char *base)
{
	int err = advance(r);

	if (!err)
		err = advance(r);
	if (err || r->event.type == YAML_STREAM_END_EVENT)
		return err;
	err = read_document(r, sections, base);
	if (!err)
		err = advance(r);
	if (!err && r->event.type != YAML_STREAM_END_EVENT)
		err = BAD(r, "a second document; expected one");
	return err;
}

int avp__config_parse(const struct config_section *sections, void *to,
		      const char *name, const void *text, size_t len,
		      struct avp_reason *why)
{
	struct reader r = {.name = name, .text = text, .len = len, .why = why};
	const char *dots, *shown = tail(name, &dots);
	int err;

	if (len > AHP_CONFIG_MAX_BYTES)
		return avp__fail(why, AVP_BAD_CONFIG,
				 "%s%s:1:1: a file of %zu bytes; expected at "
				 "most %u",
				 dots, shown, len, AHP_CONFIG_MAX_BYTES);
	if (!yaml_parser_initialize(&r.parser))
		return avp__fail(why, AVP_NO_MEMORY,
				 "no memory to read the configuration");
	yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&r.parser, text, len);
	err = read_stream(&r, sections, to);
	drop_event(&r);
	yaml_parser_delete(&r.parser);
	return err;
}

/* ---- files --------------------------------------------------------------- */

static int unreadable(const char *path, const char *found_words,
		      struct avp_reason *why)
{
	const char *dots, *shown = tail(path, &dots);

	return avp__fail(why, AVP_BAD_CONFIG,
			 "%s%s:1:1: %s; expected a file that can be read", dots,
			 shown, found_words);
}

static int read_fd(int fd, const char *path, char **text, size_t *len,
		   struct avp_reason *why)
{
	size_t capacity = AHP_CONFIG_MAX_BYTES + 1, n = 0;
	char *buf = malloc(capacity);
	ssize_t got;

	if (!buf)
		return avp__fail(why, AVP_NO_MEMORY,
				 "no memory to read the configuration");
	/* One byte over the limit is enough to know. */
	while (n < capacity) {
		got = read(fd, buf + n, capacity - n);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0) {
			free(buf);
			return unreadable(path, strerror(errno), why);
		}
		if (!got)
			break;
		n += (size_t)got;
	}
	*text = buf;
	*len = n;
	return 0;
}

int avp__config_slurp(const char *path, char **text, size_t *len,
		      struct avp_reason *why)
{
	/* A pipe, as of a shell's substitution, is fine. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	struct stat st;
	int err;

	if (fd < 0)
		return unreadable(path, strerror(errno), why);
	if (!fstat(fd, &st) && S_ISDIR(st.st_mode))
		err = unreadable(path, "a directory", why);
	else
		err = read_fd(fd, path, text, len, why);
	close(fd);
	return err;
}
