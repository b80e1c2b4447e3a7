/* SPDX-License-Identifier: Apache-2.0 */
/* YAML by tables, out of libyaml's events: nothing is built, nothing
 * expanded. */
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

int avp__config_bad(const char *file, struct avp__config_mark at,
		    struct avp_reason *why, const char *format, ...)
{
	const char *dots, *name = tail(file, &dots);
	char text[252];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return avp__fail(why, AVP_BAD_CONFIG, "%s%s:%u:%u: %s", dots, name,
			 at.line, at.column, text);
}

/* As people count. */
static struct avp__config_mark mark(yaml_mark_t at)
{
	return (struct avp__config_mark){(uint32_t)at.line + 1,
					 (uint32_t)at.column + 1};
}

#define BAD_AT(r, at, ...) \
	avp__config_bad((r)->name, mark(at), (r)->why, __VA_ARGS__)
#define BAD(r, ...) BAD_AT(r, (r)->event.start_mark, __VA_ARGS__)

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
	return BAD_AT(r, at, "%s%s%s; expected YAML in UTF-8",
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

static int refuse(struct reader *r, const struct config_key *k)
{
	char words[SHOWN + 32], what[160];

	avp__config_expected(k, what, sizeof(what));
	return BAD(r, "%s is %s; expected %s", k->name, found(&r->event, words),
		   what);
}

/* "3" in quotes is a text, no number, in YAML as here. */
static bool takes_quotes(enum config_type type)
{
	return type == CONFIG_NAME || type == CONFIG_PATH ||
	       type == CONFIG_TEXT;
}

static int keep_text(struct reader *r, const char *text,
		     struct avp__config_text *to)
{
	to->text = strdup(text);
	to->at = mark(r->event.start_mark);
	return to->text ? 0
			: avp__fail(r->why, AVP_NO_MEMORY,
				    "no memory to read the configuration");
}

static int read_scalar(struct reader *r, const struct config_key *k, void *to)
{
	const yaml_event_t *e = &r->event;
	const char *text;

	if (e->type != YAML_SCALAR_EVENT)
		return refuse(r, k);
	text = (const char *)e->data.scalar.value;
	if (strlen(text) != e->data.scalar.length)
		return refuse(r, k);
	if (!takes_quotes(k->type) &&
	    e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
		return refuse(r, k);
	if (!avp__config_value(k, text, e->data.scalar.length, to))
		return refuse(r, k);
	return k->type == CONFIG_TEXT ? keep_text(r, text, to) : 0;
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

/* Room for one element more at the end of an array; zeroed. */
static void *grow(struct reader *r, void **array, uint32_t count, size_t bytes)
{
	char *p = realloc(*array, (count + 1) * bytes);

	if (!p) {
		avp__fail(r->why, AVP_NO_MEMORY,
			  "no memory to read the configuration");
		return NULL;
	}
	*array = p;
	return memset(p + count * bytes, 0, bytes);
}

/* To a list's next entry: 1, 0 at its end, or an error. */
static int next_entry(struct reader *r, const struct config_key *k,
		      uint32_t count)
{
	int err = advance(r);

	if (err || r->event.type == YAML_SEQUENCE_END_EVENT)
		return err;
	if (count == k->max)
		return BAD(r, "%s has more than %llu entries, the limit",
			   k->name, (unsigned long long)k->max);
	return 1;
}

static int read_texts(struct reader *r, const struct config_key *k,
		      struct avp__config_texts *to)
{
	const struct config_key one = {k->name, CONFIG_TEXT, 0,	      0,
				       0,	0,	     k->more, 0};
	int more;

	if (r->event.type != YAML_SEQUENCE_START_EVENT)
		return refuse(r, k);
	while ((more = next_entry(r, k, to->count)) > 0) {
		struct avp__config_text *text =
			grow(r, (void **)&to->item, to->count, sizeof(*text));
		int err = text ? read_scalar(r, &one, text) : AVP_NO_MEMORY;

		if (err)
			return err;
		to->count++;
		for (uint32_t i = 0; i + 1 < to->count; i++)
			if (!strcmp(to->item[i].text, text->text))
				return BAD(r,
					   "\"%s\" comes twice in %s; expected "
					   "it once",
					   text->text, k->name);
	}
	return more;
}

static int read_keys(struct reader *r, const char *name,
		     const struct config_key *keys, char *base);

static int read_list(struct reader *r, const struct config_key *k, char *base)
{
	const struct config_nested *nested = k->more;
	void **array = (void **)(base + k->off);
	uint32_t *count = (uint32_t *)(base + k->count_off);
	char words[SHOWN + 32];
	int more;

	if (r->event.type != YAML_SEQUENCE_START_EVENT)
		return refuse(r, k);
	while ((more = next_entry(r, k, *count)) > 0) {
		struct avp__config_mark *element;
		int err;

		if (r->event.type != YAML_MAPPING_START_EVENT)
			return BAD(r,
				   "an entry of %s is %s; expected a "
				   "mapping of keys",
				   k->name, found(&r->event, words));
		element = grow(r, array, *count, nested->bytes);
		if (!element)
			return AVP_NO_MEMORY;
		if (nested->begin)
			nested->begin(element);
		*element = mark(r->event.start_mark);
		++*count;
		err = read_keys(r, k->name, nested->keys, (char *)element);
		if (err)
			return err;
	}
	return more;
}

static int read_map(struct reader *r, const struct config_key *k, char *base)
{
	const struct config_nested *nested = k->more;

	if (r->event.type != YAML_MAPPING_START_EVENT)
		return refuse(r, k);
	*(bool *)(base + k->count_off) = true;
	return read_keys(r, k->name, nested->keys, base + k->off);
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

static int unknown_key(struct reader *r, const char *name,
		       const struct config_key *keys)
{
	char names[200] = "", words[SHOWN + 32];
	size_t n = 0;

	for (const struct config_key *k = keys; k->name; k++)
		n += (size_t)snprintf(names + n,
				      n < sizeof(names) ? sizeof(names) - n : 0,
				      "%s%s", n ? ", " : "", k->name);
	return BAD(r, "unknown key %s in %s; expected one of %s",
		   found(&r->event, words), name, names);
}

static int read_value(struct reader *r, const struct config_key *k, char *base)
{
	switch (k->type) {
	case CONFIG_UIDS: return read_uids(r, k, base);
	case CONFIG_TEXTS: return read_texts(r, k, (void *)(base + k->off));
	case CONFIG_MAP: return read_map(r, k, base);
	case CONFIG_LIST: return read_list(r, k, base);
	default: return read_scalar(r, k, base + k->off);
	}
}

static int read_member(struct reader *r, const char *name,
		       const struct config_key *keys, uint64_t *seen,
		       char *base)
{
	const struct config_key *k = keys;
	const char *text;
	int err = read_key(r, &text);

	if (err)
		return err;
	while (k->name && strcmp(k->name, text) != 0)
		k++;
	if (!k->name)
		return unknown_key(r, name, keys);
	if (*seen & UINT64_C(1) << (k - keys))
		return BAD(r, "%s comes twice in %s; expected it once", k->name,
			   name);
	*seen |= UINT64_C(1) << (k - keys);
	err = advance(r);
	return err ? err : read_value(r, k, base);
}

/* The members of the mapping at hand. */
static int read_keys(struct reader *r, const char *name,
		     const struct config_key *keys, char *base)
{
	uint64_t seen = 0;
	int err;

	for (;;) {
		err = advance(r);
		if (err || r->event.type == YAML_MAPPING_END_EVENT)
			return err;
		err = read_member(r, name, keys, &seen, base);
		if (err)
			return err;
	}
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
	int err = advance(r);

	if (err || is_empty(&r->event))
		return err;
	if (!s->keys)
		return skip_value(r);
	if (r->event.type != YAML_MAPPING_START_EVENT)
		return BAD(r, "section %s is %s; expected a mapping of keys",
			   s->name, found(&r->event, words));
	return read_keys(r, s->name, s->keys, base);
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
