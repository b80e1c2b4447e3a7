/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A reader of YAML sections by tables: one row for each key says where its value
 * goes, of what type it is and from where to where it may be. The gateway reads
 * its own section with a table of its own.
 */
#ifndef AVP_AHP_CONFIG_TABLE_H
#define AVP_AHP_CONFIG_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include <avp/error.h>

enum config_type {
	CONFIG_UINT,  /* uint32_t */
	CONFIG_BYTES, /* uint64_t, with units */
	CONFIG_TIME, /* int64_t of nanoseconds, with units; min, max likewise */
	CONFIG_BOOL, /* bool: true or false */
	CONFIG_WORD, /* uint32_t: the place in `words` */
	CONFIG_NAME, /* char[max + 1] of [A-Za-z0-9._-], no leading dot */
	CONFIG_PATH, /* char[max + 1], absolute */
	CONFIG_UIDS, /* uint32_t[max]; how many, at count_off */
};

/* Further conditions. */
#define CONFIG_POWER_OF_2 1u

struct config_key {
	const char *name;
	enum config_type type;
	uint32_t flags;
	size_t off; /* in the struct that is filled */
	uint64_t min, max;
	const char *const *words; /* up to NULL */
	size_t count_off;
};

struct config_section {
	const char *name;
	/* Up to a NULL name, at most 64; NULL: not ours. */
	const struct config_key *keys;
};

/*
 * Reads a text into the struct at `to`. Sections are up to a NULL name; those
 * without keys are passed over. Errors as for ahp_config_parse().
 */
int avp__config_parse(const struct config_section *sections, void *to,
		      const char *name, const void *text, size_t len,
		      struct avp_reason *why);

/* A file's bytes, for free(); AVP_BAD_CONFIG, AVP_NO_MEMORY. */
int avp__config_slurp(const char *path, char **text, size_t *len,
		      struct avp_reason *why);

#endif
