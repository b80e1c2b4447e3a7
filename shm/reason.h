/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the library's own files fill a struct avp_reason. With <avp/error.h> this
 * is the ground that every floor stands on; it includes nothing else.
 */
#ifndef AVP_SHM_REASON_H
#define AVP_SHM_REASON_H

#include <avp/error.h>

/*
 * Fills why, if it is not NULL, and returns code, so that a failure is one
 * line: return avp__fail(why, AVP_TOO_LARGE, "%zu bytes are over ...", n);
 */
__attribute__((format(printf, 3, 4), cold)) int
avp__fail(struct avp_reason *why, int code, const char *format, ...);

#endif
