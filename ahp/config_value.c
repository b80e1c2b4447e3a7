/* SPDX-License-Identifier: Apache-2.0 */
/* A configuration's single values: what a key takes, and reading it. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ahp/config_table.h"

void avp__config_expected(const struct config_key *k, char *to, size_t cap)
{
	const char *const *words = k->more;
	const struct config_rule *rule = k->more;
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
		for (int i = 0; words[i] && n < cap; i++)
			n += (size_t)snprintf(to + n, cap - n, "%s %s",
					      i ? "," : "", words[i]);
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
	case CONFIG_TEXT: snprintf(to, cap, "%s", rule->what); break;
	case CONFIG_TEXTS:
		snprintf(to, cap, "a list of up to %llu, each %s",
			 (unsigned long long)k->max, rule->what);
		break;
	case CONFIG_MAP: snprintf(to, cap, "a mapping of keys"); break;
	case CONFIG_LIST:
		snprintf(to, cap, "a list of up to %llu mappings",
			 (unsigned long long)k->max);
		break;
	}
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

bool avp__config_is_name(const char *text)
{
	return *text && *text != '.' && strlen(text) <= 64 &&
	       !text[strspn(text, "abcdefghijklmnopqrstuvwxyz"
				  "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")];
}

static bool in_range(const struct config_key *k, uint64_t n)
{
	return n >= k->min && n <= k->max &&
	       !(k->flags & CONFIG_POWER_OF_2 && n & (n - 1));
}

bool avp__config_value(const struct config_key *k, const char *text, size_t len,
		       void *to)
{
	const struct config_rule *rule = k->more;
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
	case CONFIG_WORD: return read_word(text, k->more, to);
	case CONFIG_NAME:
	case CONFIG_PATH:
		if (len < k->min || len > k->max ||
		    !(k->type == CONFIG_PATH ? *text == '/'
					     : avp__config_is_name(text)))
			return false;
		memcpy(to, text, len + 1);
		return true;
	case CONFIG_TEXT: return rule->ok(text);
	default: break;
	}
	return false;
}
