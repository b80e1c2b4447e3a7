/* SPDX-License-Identifier: Apache-2.0 */
/*
 * avpctl run as a script would: words in, an exit status, stdout and stderr in
 * files. Files are those of test_dir(); an output NAME goes to NAME.out and
 * NAME.err.
 */
#ifndef AVP_TESTS_TOOL_H
#define AVP_TESTS_TOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "tests/vectors.h"

/*
 * Finds the avpctl of the build that this program, argv[0], is in. To be called
 * first; ends the program if there is none.
 */
void tool_begin(const char *argv0);
const char *tool_program(void);

/* ---- files -------------------------------------------------------------- */

/* A file's path; valid for the next fifteen calls. */
const char *tool_path(const char *name);

/* Writes a file; its path. */
const char *tool_save(const char *name, const void *data, size_t len);
const char *tool_save_text(const char *name, const char *text);

/* A file's bytes, with a NUL behind them that does not count. */
struct bytes tool_load(const char *name);

/* ---- runs --------------------------------------------------------------- */

/* Starts avpctl with the words up to NULL. Its stdout is an fd, or of these. */
enum { TOOL_FILE = -1 /* NAME.out */, TOOL_CLOSED = -2 };
pid_t tool_start_list(const char *name, int out, const char *const *words);

#define TOOL_START(name, ...)            \
	tool_start_list(name, TOOL_FILE, \
			(const char *const[]){__VA_ARGS__, NULL})

/* Its exit status, once it ends; -1 and below when that signal ended it. */
int tool_finish(pid_t pid);

/* Both, with the output "tool". */
#define TOOL(...) tool_finish(TOOL_START("tool", __VA_ARGS__))

/* ---- what they said ----------------------------------------------------- */

/* stderr is one line, and begins so. */
bool tool_complained(const char *name, const char *beginning);

/* A file has the text in it; if not, it is shown. */
bool tool_has(const char *file, const char *text);

/* stdout as a line of JSON; does not return without one. */
struct avp_json_doc *tool_answer(const char *name);

#endif
