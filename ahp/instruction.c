/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The compact instruction of AHP's token control: a few lines on the task and
 * its user, and as much of the context as the token limit leaves room for. The
 * reference counts characters where it says tokens; so do we.
 */
#include <avp/message.h>

#include "ahp/pystr.h"

/* Kept free, and what there must at least be for a context. */
enum { MARGIN = 50, CONTEXT_LEAST = 100 };

static const struct {
	const char *key, *label;
} traits[] = {
	{"gender", "Gender: "},		{"age", "Age: "},
	{"occupation", "Occupation: "}, {"mood", "Mood: "},
	{"hobbies", "Hobbies: "},
};
#define TRAITS (sizeof(traits) / sizeof(*traits))

static int put(struct avp_buf *buf, const char *text)
{
	struct avp_str s = avp_str_of(text);

	return avp_buf_append(buf, s.data, s.len);
}

/* "Label: value", with a default for a key that is not there at all. */
static int put_line(struct avp_buf *buf, const char *label,
		    const struct avp_json *object, const char *key,
		    const char *absent)
{
	const struct avp_json *value = avp_json_get(object, key);
	int code = put(buf, label);

	if (code)
		return code;
	return value ? avp__py_str(buf, value) : put(buf, absent);
}

/* ---- hobbies: ",".join() of whatever can be walked ----------------------- */

static int join(struct avp_buf *buf, struct avp_str part, bool first)
{
	if (!first && avp_buf_append(buf, ",", 1))
		return AVP_NO_MEMORY;
	return avp_buf_append(buf, part.data, part.len);
}

static int join_characters(struct avp_buf *buf, struct avp_str s)
{
	int code = 0;

	for (size_t i = 0, n; i < s.len && !code; i += n) {
		struct avp_str rest = {s.data + i, s.len - i};

		n = avp__py_cut(rest, 1);
		code = join(buf, (struct avp_str){rest.data, n}, !i);
	}
	return code;
}

static int join_elements(struct avp_buf *buf, const struct avp_json *list,
			 struct avp_reason *why)
{
	const struct avp_json *e = avp_json_first(list);
	struct avp_str s;
	int code = 0;

	for (bool first = true; e && !code; e = avp_json_next(e)) {
		if (avp_json_string(e, &s))
			return avp__fail(why, AVP_INVALID_MESSAGE,
					 "\"hobbies\" holds what is no string; "
					 "it must be an array of strings");
		code = join(buf, s, first);
		first = false;
	}
	return code;
}

static int put_hobbies(struct avp_buf *buf, const struct avp_json *hobbies,
		       struct avp_reason *why)
{
	const struct avp_json *e = avp_json_first(hobbies);
	struct avp_str s;
	int code = 0;

	switch (avp_json_type_of(hobbies)) {
	case AVP_JSON_STRING:
		avp_json_string(hobbies, &s);
		return join_characters(buf, s);
	case AVP_JSON_ARRAY: return join_elements(buf, hobbies, why);
	case AVP_JSON_OBJECT:
		for (bool first = true; e && !code; e = avp_json_next(e)) {
			code = join(buf, avp_json_key_of(e), first);
			first = false;
		}
		return code;
	default:
		return avp__fail(why, AVP_INVALID_MESSAGE,
				 "\"hobbies\" must be an array of strings");
	}
}

/* ---- lines -------------------------------------------------------------- */

static int put_profile(struct avp_buf *buf, const struct avp_json *profile,
		       struct avp_reason *why)
{
	const char *before = "\nUser Info: ";
	int code = 0;

	for (size_t i = 0; i < TRAITS && !code; i++) {
		const struct avp_json *value =
			avp_json_get(profile, traits[i].key);

		if (!avp__py_true(value))
			continue;
		if (put(buf, before) || put(buf, traits[i].label))
			return AVP_NO_MEMORY;
		before = "; ";
		code = i + 1 == TRAITS ? put_hobbies(buf, value, why)
				       : avp__py_str(buf, value);
	}
	return code;
}

/* The lines so far without the newlines between them, in characters. */
static int64_t length_of(const char *lines, size_t len, int64_t newlines)
{
	return (int64_t)avp__py_len((struct avp_str){lines, len}) - newlines;
}

static int put_context(struct avp_buf *buf, struct avp_str context,
		       int64_t available)
{
	size_t n;

	if (!context.len || available <= CONTEXT_LEAST)
		return 0;
	n = avp__py_cut(context, (size_t)available);
	if (put(buf, "\nContext: "))
		return AVP_NO_MEMORY;
	return avp_buf_append(buf, context.data, n);
}

static int put_all(struct avp_buf *buf, const struct ahp_instruction *in,
		   const char *no_category, struct avp_reason *why)
{
	const struct avp_json *demand = avp_json_get(in->task, "instruction");
	int64_t limit = in->max_tokens ? in->max_tokens : in->default_limit;
	size_t begin = buf->len, before;
	int64_t newlines = 1, used;
	int code;

	if (put_line(buf, "Task: ", in->task, "category", no_category) ||
	    put_line(buf, "\nTarget: ", in->user_profile, "name", "User"))
		return AVP_NO_MEMORY;
	before = buf->len;
	code = put_profile(buf, in->user_profile, why);
	if (code)
		return code;
	newlines += buf->len > before;
	if (avp__py_true(demand)) {
		if (put(buf, "\nRequirement: ") || avp__py_str(buf, demand))
			return AVP_NO_MEMORY;
		newlines++;
	}
	used = length_of(buf->data + begin, buf->len - begin, newlines);
	return put_context(buf, in->context,
			   limit < used + MARGIN ? 0 : limit - used - MARGIN);
}

static int check_object(const struct avp_json *value, const char *what,
			struct avp_reason *why)
{
	return value ? avp_json_expect_object(value, what, why) : 0;
}

static int write_instruction(struct avp_buf *buf,
			     const struct ahp_instruction *in,
			     const char *no_category, struct avp_reason *why)
{
	size_t begin = buf->len;
	int code = check_object(in->user_profile, "a user profile", why);

	if (!code)
		code = check_object(in->task, "a task", why);
	if (!code)
		code = put_all(buf, in, no_category, why);
	if (code == AVP_NO_MEMORY)
		avp__fail(why, code, "no memory for an instruction");
	if (code)
		buf->len = begin;
	return code;
}

int ahp_instruction_write(struct avp_buf *buf,
			  const struct ahp_instruction *instruction,
			  struct avp_reason *why)
{
	return write_instruction(buf, instruction, "unknown", why);
}

/* ---- the payload of a TASK ---------------------------------------------- */

static int write_payload(struct avp_buf *buf, const struct avp_json *payload,
			 struct avp_str instruction, uint32_t style)
{
	static const char key[] = "compact_instruction";
	const struct avp_json *old = avp_json_get(payload, key);
	struct avp_json_writer w;

	avp_json_begin(&w, buf, style);
	avp_json_open_object(&w);
	for (const struct avp_json *m = avp_json_first(payload); m;
	     m = avp_json_next(m)) {
		avp_json_key_str(&w, avp_json_key_of(m));
		if (m == old)
			avp_json_put_string(&w, instruction);
		else
			avp_json_put(&w, m);
	}
	if (!old)
		avp_json_member_string(&w, key, instruction);
	avp_json_close_object(&w);
	return avp_json_finish(&w);
}

/*
 * The reference builds the task from the payload's keys, a missing category
 * included: as null, so that the instruction says "Task: None".
 */
int ahp_task_payload_write(struct avp_buf *buf, const struct avp_json *payload,
			   struct avp_str context, int64_t token_limit,
			   int64_t default_limit, uint32_t style,
			   struct avp_reason *why)
{
	struct ahp_instruction in = {.task = payload,
				     .context = context,
				     .max_tokens = token_limit,
				     .default_limit = default_limit};
	struct avp_buf text = {0};
	int code = check_object(payload, "a TASK's payload", why);

	if (!code)
		code = avp_json_get_object(payload, "user_info",
					   &in.user_profile, why);
	if (code >= 0)
		code = write_instruction(&text, &in, "None", why);
	if (!code)
		code = write_payload(buf, payload, avp_buf_str(&text), style);
	avp_buf_fini(&text);
	return code;
}
