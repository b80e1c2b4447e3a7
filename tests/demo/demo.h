/* SPDX-License-Identifier: Apache-2.0 */
/* What the scenes share: a clock, and who speaks. */
#ifndef AVP_TESTS_DEMO_H
#define AVP_TESTS_DEMO_H

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <avp/error.h>

static int64_t start_ns;	/* of the scene */
static const char *me = "demo"; /* who speaks */

static inline int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

/* One write for a line: several processes share the output. */
__attribute__((format(printf, 1, 2))) static inline void say(const char *format,
							     ...)
{
	char text[300], line[400];
	va_list args;
	int n;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	n = snprintf(line, sizeof(line), "  %7.1f  %-7s %s\n",
		     (double)(now_ns() - start_ns) * 1e-6, me, text);
	if (write(STDOUT_FILENO, line, (size_t)n) < 0)
		exit(1);
}

static inline void need(int ok, const char *what, const struct avp_reason *why)
{
	if (ok)
		return;
	fprintf(stderr, "%s: %s%s%s\n", me, what, why ? ": " : "",
		why ? why->text : "");
	exit(1);
}

#endif
