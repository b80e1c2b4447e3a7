/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gateway's log: on stderr, a line an event: the event's name, key=value,
 * and at the end level and time. Never payloads, tokens or keys.
 *
 *	listening address=127.0.0.1 port=8080 tls=no level=info time=2026-...Z
 */
#ifndef AVP_GATEWAY_LOG_H
#define AVP_GATEWAY_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include <avp/str.h>

enum gw_log_level {
	GW_LOG_ERROR,
	GW_LOG_WARNING,
	GW_LOG_INFO,
	GW_LOG_DEBUG,
};

struct gw_log {
	uint32_t level; /* enum gw_log_level: what is beyond is not written */
	int64_t window_ns; /* warnings are bounded: since when they are counted */
	uint32_t in_window, suppressed;
};

static inline bool gw_logs(const struct gw_log *log, enum gw_log_level level)
{
	return (uint32_t)level <= log->level;
}

/*
 * A line. format makes the "key=value ..." part; texts of others go through
 * gw_shown(). At most 200 warnings and errors a second are written: what a peer
 * can cause must not fill a disk; how many were left out is said.
 */
__attribute__((format(printf, 4, 5))) void gw_log(struct gw_log *log,
						  enum gw_log_level level,
						  const char *event,
						  const char *format, ...);

#define GW_SHOWN_BYTES 128

/*
 * A value that somebody else wrote, as it may stand in a line: bare if it is of
 * harmless characters, else in quotes with escapes; cut when it is long.
 */
const char *gw_shown(char to[GW_SHOWN_BYTES], struct avp_str text);

#endif
