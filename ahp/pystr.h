/* SPDX-License-Identifier: Apache-2.0 */
/* How Python shows values: what str() and repr() give for a JSON value. */
#ifndef AVP_AHP_PYSTR_H
#define AVP_AHP_PYSTR_H

#include <stdbool.h>
#include <stdint.h>

#include <avp/json.h>

/* Appends str(value), a string as it is; 0 or AVP_NO_MEMORY. */
int avp__py_str(struct avp_buf *buf, const struct avp_json *value);

/* Whether Python takes it for true: not null, false, 0, "", [] or {}. */
bool avp__py_true(const struct avp_json *value);

/* Code points in UTF-8 (lone surrogates count as one). */
size_t avp__py_len(struct avp_str s);

/* Bytes of the first n code points, or of all if there are fewer. */
size_t avp__py_cut(struct avp_str s, size_t n);

bool avp__py_printable(uint32_t c);

#endif
