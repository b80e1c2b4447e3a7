/* SPDX-License-Identifier: Apache-2.0 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <avp/message.h>

#include "gateway/log.h"

#define LINE_BYTES	    1024
#define WARNINGS_PER_SECOND 200
#define SECOND		    INT64_C(1000000000)

static const char *const level_name[] = {"error", "warning", "info", "debug"};

/* Lines are whole or not at all, also where several processes write. */
static void put_line(enum gw_log_level level, const char *event,
		     const char *text)
{
	struct ahp_time now = ahp_time_now();
	char time[AHP_TIME_BYTES], line[LINE_BYTES + 128];
	int n;

	ahp_time_write(&now, time);
	n = snprintf(line, sizeof(line), "%s%s%s level=%s time=%s\n", event,
		     *text ? " " : "", text, level_name[level], time);
	/* Nobody is told when the log cannot be written. */
	if (n > 0 && write(STDERR_FILENO, line, (size_t)n) < 0)
		return;
}

static int64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * SECOND + t.tv_nsec;
}

/* May another warning be written in this second? */
static bool has_room(struct gw_log *log)
{
	int64_t now_ns = clock_ns();
	char text[48];

	if (now_ns - log->window_ns < SECOND &&
	    log->in_window >= WARNINGS_PER_SECOND) {
		log->suppressed++;
		return false;
	}
	if (now_ns - log->window_ns >= SECOND) {
		log->window_ns = now_ns;
		log->in_window = 0;
		if (log->suppressed) {
			snprintf(text, sizeof(text), "lines=%u",
				 log->suppressed);
			put_line(GW_LOG_WARNING, "log_suppressed", text);
		}
		log->suppressed = 0;
	}
	log->in_window++;
	return true;
}

void gw_log(struct gw_log *log, enum gw_log_level level, const char *event,
	    const char *format, ...)
{
	char text[LINE_BYTES];
	va_list args;

	if (!gw_logs(log, level) || (level <= GW_LOG_WARNING && !has_room(log)))
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	put_line(level, event, text);
}

static bool is_harmless(struct avp_str text)
{
	static const char harmless[] = "abcdefghijklmnopqrstuvwxyz"
				       "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				       "0123456789._-:/[]+@,";

	for (size_t i = 0; i < text.len; i++)
		if (!text.data[i] || !strchr(harmless, text.data[i]))
			return false;
	return text.len && text.len < GW_SHOWN_BYTES;
}

const char *gw_shown(char to[GW_SHOWN_BYTES], struct avp_str text)
{
	static const char hex[] = "0123456789abcdef";
	char *p = to, *end = to + GW_SHOWN_BYTES - 8;

	if (is_harmless(text)) {
		memcpy(to, text.data, text.len);
		to[text.len] = 0;
		return to;
	}
	*p++ = '"';
	for (size_t i = 0; i < text.len; i++) {
		uint8_t c = (uint8_t)text.data[i];

		if (p >= end) {
			memcpy(p, "...", 3);
			p += 3;
			break;
		}
		if (c == '"' || c == '\\') {
			*p++ = '\\';
			*p++ = (char)c;
		} else if (c < 0x20 || c >= 0x7f) {
			*p++ = '\\';
			*p++ = 'x';
			*p++ = hex[c >> 4];
			*p++ = hex[c & 15];
		} else {
			*p++ = (char)c;
		}
	}
	*p++ = '"';
	*p = 0;
	return to;
}
