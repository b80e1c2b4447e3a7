/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A reader of YAML sections by tables: one row for each key says where its
 * value goes, of what type it is and from where to where it may be. The
 * gateway reads its own section with a table of its own.
 */
#ifndef AVP_AHP_CONFIG_TABLE_H
#define AVP_AHP_CONFIG_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <avp/config.h>

/* Where something stands in the file, from 1 on; 0: nowhere, a default. */
struct avp__config_mark {
	uint32_t line, column;
};

/* A text that was given, of the heap; NULL: none was. */
struct avp__config_text {
	char *text;
	struct avp__config_mark at;
};

struct avp__config_texts {
	struct avp__config_text *item;
	uint32_t count;
};

enum config_type {
	CONFIG_UINT,  /* uint32_t */
	CONFIG_BYTES, /* uint64_t, with units */
	CONFIG_TIME, /* int64_t of nanoseconds, with units; min, max likewise */
	CONFIG_BOOL, /* bool: true or false */
	CONFIG_WORD, /* uint32_t: the place in the words */
	CONFIG_NAME, /* char[max + 1] of [A-Za-z0-9._-], no leading dot */
	CONFIG_PATH, /* char[max + 1], absolute */
	CONFIG_UIDS, /* uint32_t[max]; how many, at count_off */
	CONFIG_TEXT, /* struct avp__config_text, as its rule says */
	CONFIG_TEXTS, /* struct avp__config_texts, up to max, no two equal */
	CONFIG_MAP,   /* keys of its own; at count_off a bool: it was given */
	/*
	 * Up to max mappings: a pointer to an array of the heap, whose elements
	 * begin with a struct avp__config_mark; at count_off a uint32_t.
	 */
	CONFIG_LIST,
};

/* Further conditions. */
#define CONFIG_POWER_OF_2 1u

struct config_key {
	const char *name;
	enum config_type type;
	uint32_t flags;
	size_t off; /* in the struct that is filled */
	uint64_t min, max;
	/*
	 * WORD: const char *const[], up to NULL; TEXT, TEXTS: struct
	 * config_rule; MAP, LIST: struct config_nested.
	 */
	const void *more;
	size_t count_off;
};

/* What a text may be. */
struct config_rule {
	bool (*ok)(const char *text);
	const char *what; /* "an IP address" */
};

struct config_nested {
	const struct config_key *keys; /* offsets from the row's own, in a LIST
					* from the element */
	size_t bytes;		       /* of a LIST's element */
	void (*begin)(void *element);  /* puts in defaults; NULL: zeros */
};

struct config_section {
	const char *name;
	/* Up to a NULL name, at most 64; NULL: not ours. */
	const struct config_key *keys;
};

/* 1-64 of [A-Za-z0-9._-], no leading dot: as agents of this host. */
bool avp__config_is_name(const char *text);

/*
 * Reads a text into the struct at `to`. Sections are up to a NULL name; those
 * without keys are passed over. Errors as for ahp_config_parse(); what was put
 * on the heap until then is in the struct, to be freed by the caller.
 */
int avp__config_parse(const struct config_section *sections, void *to,
		      const char *name, const void *text, size_t len,
		      struct avp_reason *why);

/*
 * The sections of <avp/config.h>, for a struct that begins with a struct
 * ahp_config, with `gateway` read by these keys. Up to a NULL name.
 */
#define AVP__CONFIG_SECTIONS 8
void avp__config_sections(struct config_section sections[AVP__CONFIG_SECTIONS],
			  const struct config_key *gateway);

/* AVP_BAD_CONFIG with "name:line:column: " in front. */
__attribute__((format(printf, 4, 5), cold)) int avp__config_bad(
	const char *name, struct avp__config_mark at, struct avp_reason *why,
	const char *format, ...);

/*
 * The file that counts, as ahp_config_load() says: 1 with *from, which may
 * point into `own`; 0 when there is none.
 */
int avp__config_find(const char *path, char own[AHP_CONFIG_PATH],
		     const char **from);

/* A file's bytes, for free(); AVP_BAD_CONFIG, AVP_NO_MEMORY. */
int avp__config_slurp(const char *path, char **text, size_t *len,
		      struct avp_reason *why);

/* ---- single values: config_value.c -------------------------------------- */

/* What a key takes, in words. */
void avp__config_expected(const struct config_key *key, char *to, size_t cap);

/*
 * Reads a scalar as its type says; `text` has no NUL inside. Of a TEXT only
 * whether it is one. False: it is none.
 */
bool avp__config_value(const struct config_key *key, const char *text,
		       size_t len, void *to);

#endif
