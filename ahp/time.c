/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Timestamps as Python's datetime reads and writes them (ISO 8601, and what
 * fromisoformat() of 3.11 takes besides: recorded in the vectors, and compared
 * with the original on random texts).
 */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <avp/message.h>

/* A part of the text; reading behind its end gives NUL. */
struct part {
	const char *s;
	size_t at, end;
};

static char look(const struct part *p, size_t at)
{
	return at < p->end ? p->s[at] : 0;
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Exactly n digits. */
static bool take_digits(struct part *p, int n, int *value)
{
	int v = 0;

	for (int i = 0; i < n; i++) {
		char c = look(p, p->at + (size_t)i);

		if (!is_digit(c))
			return false;
		v = v * 10 + (c - '0');
	}
	p->at += (size_t)n;
	*value = v;
	return true;
}

/* ---- the calendar ------------------------------------------------------- */

static bool is_leap(int year)
{
	return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static int days_in_month(int year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30,
				   31, 31, 30, 31, 30, 31};

	return days[month - 1] + (month == 2 && is_leap(year));
}

/* Days before January 1 of a year; day 1 is January 1 of year 1, a Monday. */
static int days_before_year(int year)
{
	int y = year - 1;

	return y * 365 + y / 4 - y / 100 + y / 400;
}

/* The Monday of ISO week 1: the week that has the year's first Thursday. */
static int first_monday(int year)
{
	int first = days_before_year(year) + 1;
	int weekday = (first + 6) % 7; /* Monday 0 */

	return weekday > 3 ? first - weekday + 7 : first - weekday;
}

static bool from_ordinal(struct ahp_time *t, int ordinal)
{
	int year, month = 1, rest;

	if (ordinal < 1 || ordinal > days_before_year(10000))
		return false;
	for (year = ordinal / 366 + 1; days_before_year(year + 1) < ordinal;)
		year++;
	rest = ordinal - days_before_year(year);
	while (rest > days_in_month(year, month))
		rest -= days_in_month(year, month++);
	t->year = (uint16_t)year;
	t->month = (uint8_t)month;
	t->day = (uint8_t)rest;
	return true;
}

/* ISO week and weekday to the day. */
static bool from_week(struct ahp_time *t, int year, int week, int day)
{
	int weeks;

	if (year < 1 || year > 9999)
		return false;
	weeks = (first_monday(year + 1) - first_monday(year)) / 7;
	if (week < 1 || week > weeks || day < 1 || day > 7)
		return false;
	return from_ordinal(t, first_monday(year) + (week - 1) * 7 + day - 1);
}

/* ---- date --------------------------------------------------------------- */

/* How long the date is; the character behind it, whatever it is, separates. */
static size_t date_length(const struct part *p)
{
	size_t n = 7;

	if (p->end == 7)
		return 7;
	if (look(p, 4) == '-') {
		if (look(p, 5) != 'W')
			return 10;
		if (look(p, 8) != '-')
			return 8;
		/* 2025-W01-1T.. or 2025-W01-03..: then '-' is the separator. */
		return p->end == 9 ? 0 : is_digit(look(p, 10)) ? 8 : 10;
	}
	if (look(p, 4) != 'W')
		return 8;
	/*
	 * A digit can separate too, and those of a time come in pairs: an odd
	 * number of digits behind the week has no day of the week.
	 */
	while (n < p->end && is_digit(look(p, n)))
		n++;
	return n < 9 ? n : n % 2 == 0 ? 7 : 8;
}

static bool read_week(struct part *p, struct ahp_time *t, int year, bool dashes)
{
	int week, day = 1;

	p->at++;
	if (!take_digits(p, 2, &week))
		return false;
	if (p->at < p->end) {
		if (dashes && look(p, p->at++) != '-')
			return false;
		if (!take_digits(p, 1, &day))
			return false;
	}
	return from_week(t, year, week, day);
}

static bool read_date(struct part *p, struct ahp_time *t)
{
	int year, month, day;
	bool dashes;

	if (!take_digits(p, 4, &year))
		return false;
	dashes = look(p, p->at) == '-';
	p->at += dashes;
	if (look(p, p->at) == 'W')
		return read_week(p, t, year, dashes);
	if (!take_digits(p, 2, &month))
		return false;
	if (dashes && look(p, p->at++) != '-')
		return false;
	if (!take_digits(p, 2, &day) || year < 1 || month < 1 || month > 12 ||
	    day < 1 || day > days_in_month(year, month))
		return false;
	t->year = (uint16_t)year;
	t->month = (uint8_t)month;
	t->day = (uint8_t)day;
	return true;
}

/* ---- time --------------------------------------------------------------- */

struct clock {
	int hour, minute, second, microsecond;
};

enum clock_end { CLOCK_BAD = -1, CLOCK_WHOLE = 0, CLOCK_MORE = 1 };

/* Up to six digits count, further ones are read over. */
static enum clock_end read_fraction(struct part *p, struct clock *c)
{
	size_t left = p->end - p->at, n = left < 6 ? left : 6;

	if (!take_digits(p, (int)n, &c->microsecond))
		return CLOCK_BAD;
	for (; n < 6; n++)
		c->microsecond *= 10;
	while (is_digit(look(p, p->at)))
		p->at++;
	return p->at < p->end ? CLOCK_MORE : CLOCK_WHOLE;
}

/*
 * HH[:MM[:SS[.f]]] or HH[MM[SS[.f]]]. One character that is left over at the
 * very end is CLOCK_MORE: before a zone the reference takes no notice of it.
 */
static enum clock_end read_clock(struct part *p, struct clock *c)
{
	int *fields[] = {&c->hour, &c->minute, &c->second};
	bool colons = true;

	for (int i = 0; i < 3; i++) {
		char behind;

		if (!take_digits(p, 2, fields[i]))
			return CLOCK_BAD;
		if (p->at >= p->end)
			return CLOCK_WHOLE;
		behind = look(p, p->at++);
		if (!i)
			colons = behind == ':';
		if (p->at >= p->end)
			return CLOCK_MORE;
		if (colons && behind == ':')
			continue;
		if (behind == '.' || behind == ',')
			break;
		if (colons)
			return CLOCK_BAD;
		p->at--;
	}
	return read_fraction(p, c);
}

static bool read_zone(struct part *p, struct ahp_time *t)
{
	const int64_t day_us = (int64_t)86400 * 1000000;
	struct clock c = {0};
	char sign = look(p, p->at++);

	t->zone = AHP_ZONE_OFFSET;
	if (sign == 'Z')
		return p->at == p->end;
	if (read_clock(p, &c) != CLOCK_WHOLE)
		return false;
	/* Without a whole second it is UTC to the reference, fraction or
	 * not. */
	if (!c.hour && !c.minute && !c.second)
		return true;
	t->offset_us =
		(int64_t)(c.hour * 3600 + c.minute * 60 + c.second) * 1000000 +
		c.microsecond;
	if (sign == '-')
		t->offset_us = -t->offset_us;
	return t->offset_us > -day_us && t->offset_us < day_us;
}

static bool read_time(struct part *p, struct ahp_time *t)
{
	struct part clock = *p;
	struct clock c = {0};
	enum clock_end end;

	clock.end = p->at;
	while (clock.end < p->end && !memchr("+-Z", p->s[clock.end], 3))
		clock.end++;
	end = read_clock(&clock, &c);
	if (end == CLOCK_BAD || (end == CLOCK_MORE && clock.end == p->end))
		return false;
	if (c.hour > 23 || c.minute > 59 || c.second > 59)
		return false;
	t->hour = (uint8_t)c.hour;
	t->minute = (uint8_t)c.minute;
	t->second = (uint8_t)c.second;
	t->microsecond = (uint32_t)c.microsecond;
	p->at = clock.end;
	return p->at == p->end || read_zone(p, t);
}

/* Bytes of the one character that stands between date and time. */
static size_t separator_length(uint8_t first)
{
	return first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
}

static bool read_all(struct ahp_time *t, struct avp_str text)
{
	struct part whole = {text.data, 0, text.len};
	size_t date = text.len < 7 ? 0 : date_length(&whole);
	struct part p = {text.data, 0, date < text.len ? date : text.len};

	if (!date || !read_date(&p, t))
		return false;
	if (text.len <= date)
		return true;
	whole.at = date + separator_length((uint8_t)text.data[date]);
	return whole.at <= whole.end && read_time(&whole, t);
}

int ahp_time_read(struct ahp_time *time, struct avp_str text,
		  struct avp_reason *why)
{
	struct ahp_time t = {0};

	if (!read_all(&t, text))
		return avp__fail(
			why, AVP_INVALID_MESSAGE,
			"timestamp \"%.*s\" is no ISO 8601 time; write "
			"2025-01-31T23:59:59Z",
			(int)(text.len < 64 ? text.len : 64),
			text.len ? text.data : "");
	*time = t;
	return 0;
}

/* ---- writing ------------------------------------------------------------ */

static int write_offset(const struct ahp_time *t, char *out, size_t size)
{
	int64_t us = t->offset_us < 0 ? -t->offset_us : t->offset_us;
	int s = (int)(us / 1000000), fraction = (int)(us % 1000000), n;

	n = snprintf(out, size, "%c%02d:%02d", t->offset_us < 0 ? '-' : '+',
		     s / 3600, s / 60 % 60);
	if (s % 60 || fraction)
		n += snprintf(out + n, size - (size_t)n, ":%02d", s % 60);
	if (fraction)
		n += snprintf(out + n, size - (size_t)n, ".%06d", fraction);
	return n;
}

size_t ahp_time_write(const struct ahp_time *t, char text[AHP_TIME_BYTES])
{
	size_t size = AHP_TIME_BYTES;
	int n = snprintf(text, size, "%04u-%02u-%02uT%02u:%02u:%02u", t->year,
			 t->month, t->day, t->hour, t->minute, t->second);

	if (t->microsecond)
		n += snprintf(text + n, size - (size_t)n, ".%06u",
			      t->microsecond);
	if (t->zone == AHP_ZONE_Z)
		n += snprintf(text + n, size - (size_t)n, "Z");
	else if (t->zone == AHP_ZONE_OFFSET)
		n += write_offset(t, text + n, size - (size_t)n);
	return (size_t)n;
}

struct ahp_time ahp_time_from_unix_ns(int64_t ns)
{
	enum { EPOCH = 719163 }; /* 1970-01-01 as days since year 1 */
	struct ahp_time t = {.zone = AHP_ZONE_Z};
	int64_t us = ns / 1000 - (ns % 1000 < 0);
	int64_t s = us / 1000000 - (us % 1000000 < 0);
	int64_t day = s / 86400 - (s % 86400 < 0);
	int in_day = (int)(s - day * 86400);

	/* 64 bits of nanoseconds end in 2262. */
	from_ordinal(&t, (int)day + EPOCH);
	t.hour = (uint8_t)(in_day / 3600);
	t.minute = (uint8_t)(in_day / 60 % 60);
	t.second = (uint8_t)(in_day % 60);
	t.microsecond = (uint32_t)(us - s * 1000000);
	return t;
}

struct ahp_time ahp_time_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return ahp_time_from_unix_ns((int64_t)now.tv_sec * 1000000000 +
				     now.tv_nsec);
}
