/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers between text and double. The C library's conversions round correctly
 * in both directions; what is done here is to find the fewest digits, to lay
 * them out as Python's repr() does, and to stay clear of the process's locale.
 */
#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "codec/json_internal.h"

/* glibc's "C" locale is static: neither call allocates. */
static double parse_double(const char *text)
{
	locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
	int saved = errno;
	double value = c ? strtod_l(text, NULL, c) : NAN;

	if (c)
		freelocale(c);
	errno = saved;
	return value;
}

double avp__json_number(const char *text)
{
	return parse_double(text);
}

/* digits[0].digits[1]... x 10^exponent */
struct decimal {
	char digits[24];
	int count, exponent;
};

/*
 * The decimal of `count` digits nearest to a positive value. The locale has a
 * say in the decimal point alone, and whatever that is, it is skipped.
 */
static void nearest(double value, int count, struct decimal *d)
{
	char text[64];
	const char *s = text;

	snprintf(text, sizeof(text), "%.*e", count - 1, value);
	d->count = 0;
	for (; *s && *s != 'e'; s++)
		if (*s >= '0' && *s <= '9')
			d->digits[d->count++] = *s;
	d->exponent = (int)strtol(s + 1, NULL, 10);
}

static bool reads_back(const struct decimal *d, double value)
{
	char text[64];

	snprintf(text, sizeof(text), "%.*se%d", d->count, d->digits,
		 d->exponent - (d->count - 1));
	return parse_double(text) == value;
}

/* The next decimal of that many digits upwards. */
static void step_up(struct decimal *d)
{
	int i = d->count - 1;

	while (i >= 0 && d->digits[i] == '9')
		d->digits[i--] = '0';
	if (i >= 0) {
		d->digits[i]++;
		return;
	}
	d->digits[0] = '1';
	d->exponent++;
}

/*
 * A text of up to 15 digits survives the way through a normal double, so if any
 * has so few, the nearest of 15 digits is that one with zeros behind. It takes
 * 16 or 17 otherwise. Two kinds of doubles are different: subnormals, of which
 * a text of far fewer digits may be the only one; and powers of two, which
 * reach only half as far down as up, so that the nearest decimal may read back
 * as another double while the next one upwards does not.
 */
static void shortest(double value, struct decimal *d)
{
	int exponent;
	bool power = frexp(value, &exponent) == 0.5;
	int count = exponent <= -1022 || power ? 1 : 15;

	for (; count < 17; count++) {
		nearest(value, count, d);
		if (reads_back(d, value))
			break;
		if (!power)
			continue;
		step_up(d);
		if (reads_back(d, value))
			break;
	}
	if (count == 17)
		nearest(value, count, d);
	while (d->count > 1 && d->digits[d->count - 1] == '0')
		d->count--;
}

static size_t put_zeros(char *out, int n)
{
	memset(out, '0', (size_t)n);
	return (size_t)n;
}

static size_t put_digits(char *out, const char *digits, int n)
{
	memcpy(out, digits, (size_t)n);
	return (size_t)n;
}

/* 1e+16, 1.5e-07: at least two digits in the exponent. */
static size_t lay_out_exponent(const struct decimal *d, char *out)
{
	size_t n = put_digits(out, d->digits, 1);
	int e = d->exponent;

	if (d->count > 1) {
		out[n++] = '.';
		n += put_digits(out + n, d->digits + 1, d->count - 1);
	}
	return n + (size_t)snprintf(out + n, 8, "e%c%02d", e < 0 ? '-' : '+',
				    e < 0 ? -e : e);
}

/* 0.0001, 12.5, 500000.0 */
static size_t lay_out_plain(const struct decimal *d, char *out)
{
	int whole = d->exponent + 1, here;
	size_t n = 0;

	if (whole <= 0) {
		n += put_digits(out, "0.", 2);
		n += put_zeros(out + n, -whole);
		return n + put_digits(out + n, d->digits, d->count);
	}
	here = whole < d->count ? whole : d->count;
	n += put_digits(out, d->digits, here);
	n += put_zeros(out + n, whole - here);
	out[n++] = '.';
	if (here == d->count)
		return n + put_zeros(out + n, 1);
	return n + put_digits(out + n, d->digits + here, d->count - here);
}

size_t avp__json_format_double(double value, char out[JSON_DOUBLE_BYTES])
{
	struct decimal d = {.digits = "0", .count = 1};
	size_t n = 0;

	if (isnan(value))
		return put_digits(out, "NaN", 3);
	if (signbit(value))
		out[n++] = '-';
	if (isinf(value))
		return n + put_digits(out + n, "Infinity", 8);
	if (value != 0)
		shortest(fabs(value), &d);
	if (d.exponent < -4 || d.exponent >= 16)
		return n + lay_out_exponent(&d, out + n);
	return n + lay_out_plain(&d, out + n);
}
