/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as JSON, and what is JSON as each of the messages. Built by `make
 * fuzz` for libFuzzer; as a test it replays the recorded texts, cut and changed
 * at each byte.
 */
#include <stdlib.h>
#include <string.h>

#include <avp/hello.h>
#include <avp/json.h>
#include <avp/message.h>

#include "tests/fuzz.h"

static void write_value(struct avp_buf *buf, const struct avp_json *value,
			uint32_t style)
{
	avp_buf_clear(buf);
	MUST(!avp_json_write(buf, value, style));
}

/* What was written reads back as what writes the same. */
static void rewrite(const struct avp_json *root, uint32_t style)
{
	struct avp_buf one = {0}, two = {0};
	struct avp_json_doc *again;

	write_value(&one, root, style);
	MUST(!avp_json_parse(&again, one.data, one.len, NULL, NULL));
	write_value(&two, avp_json_root(again), style);
	MUST(avp_str_equal(avp_buf_str(&one), avp_buf_str(&two)));
	avp_json_free(again);
	avp_buf_fini(&one);
	avp_buf_fini(&two);
}

/* Every member is found by its key, and none is there twice. */
static void walk(const struct avp_json *value)
{
	bool object = avp_json_type_of(value) == AVP_JSON_OBJECT;
	uint32_t n = 0;

	for (const struct avp_json *e = avp_json_first(value); e;
	     e = avp_json_next(e), n++) {
		if (object)
			MUST(avp_json_find(value, avp_json_key_of(e)) == e);
		walk(e);
	}
	MUST(n == avp_json_count(value));
}

static void codec_messages(const struct avp_json *root, struct avp_buf *buf)
{
	struct avp_text_message text;
	struct avp_fallback fallback;
	struct avp_hello hello;

	if (!avp_hello_read(&hello, root, NULL))
		MUST(!avp_hello_write(buf, &hello));
	if (!avp_text_message_read(&text, root, NULL))
		MUST(!avp_text_message_write(buf, &text));
	if (!avp_fallback_read(&fallback, root, NULL)) {
		MUST(!avp_fallback_write(buf, &fallback));
		MUST(!avp_fallback_describe(buf, &fallback));
	}
}

static void payloads(const struct avp_json *root)
{
	struct ahp_token_response_payload response;
	struct ahp_token_request_payload request;
	struct ahp_heartbeat_payload heartbeat;
	struct ahp_progress_payload progress;
	struct ahp_result_payload result;
	struct ahp_ack_payload ack;
	struct ahp_error error;

	ahp_ack_read(&ack, root, NULL);
	ahp_result_read(&result, root, NULL);
	ahp_progress_read(&progress, root, NULL);
	ahp_heartbeat_read(&heartbeat, root, NULL);
	ahp_token_request_read(&request, root, NULL);
	ahp_token_response_read(&response, root, NULL);
	ahp_error_read(&error, root, NULL);
}

static void ahp_messages(const struct avp_json *root, struct avp_buf *buf)
{
	struct ahp_instruction in = {
		.user_profile = root, .task = root, .default_limit = 500};
	struct ahp_envelope e;
	struct avp_str s;
	struct ahp_time t;
	char text[AHP_TIME_BYTES];
	uint8_t id[16];

	payloads(root);
	ahp_instruction_write(buf, &in, NULL);
	ahp_task_payload_write(buf, root, in.context, 0, 500, 0, NULL);
	if (!ahp_envelope_read(&e, root, NULL))
		MUST(!ahp_envelope_write(buf, &e, AVP_JSON_PYTHON));
	if (avp_json_string(root, &s))
		return;
	MUST(!ahp_id_read(id, s));
	if (!ahp_time_read(&t, s, NULL)) {
		s = (struct avp_str){text, ahp_time_write(&t, text)};
		MUST(!ahp_time_read(&t, s, NULL));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct avp_reason why = {0};
	struct avp_buf buf = {0};
	struct avp_json_doc *doc;
	const struct avp_json *root;
	int code = avp_json_parse(&doc, data, len, NULL, &why);

	if (code) {
		MUST(why.code == code && why.text[0]);
		return 0;
	}
	root = avp_json_root(doc);
	walk(root);
	rewrite(root, AVP_JSON_PYTHON);
	rewrite(root, AVP_JSON_CANONICAL);
	rewrite(root, AVP_JSON_HTTP);
	codec_messages(root, &buf);
	ahp_messages(root, &buf);
	avp_buf_fini(&buf);
	avp_json_free(doc);
	return 0;
}

#ifndef AVP_FUZZING
static void feed_changed(struct avp_str text)
{
	struct bytes in = bytes_copy(text.data, text.len);
	size_t step = in.len / 100 + 1;

	feed(in.data, in.len);
	for (size_t i = 0; i < in.len; i += step) {
		static const uint8_t others[] = "\"\\{}[],:0-\x00\x80";
		uint8_t kept = in.data[i];

		feed(in.data, i);
		for (size_t k = 0; k < sizeof(others) - 1; k++) {
			in.data[i] = others[k];
			feed(in.data, in.len);
		}
		in.data[i] = kept;
	}
	bytes_free(&in);
}

static void recorded_texts(void)
{
	static const struct {
		const char *kind, *key;
	} sets[] = {{"hello_parse", "text"},
		    {"json_message_parse", "text"},
		    {"json_message", "wire"},
		    {"hello", "wire"},
		    {"model_hash", "config_json"}};
	unsigned int fed = 0;

	for (size_t i = 0; i < sizeof(sets) / sizeof(*sets); i++)
		for (const struct avp_json *c = vectors_first(sets[i].kind); c;
		     c = avp_json_next(c), fed++)
			feed_changed(case_str(c, sets[i].key));
	CU_ASSERT(!vectors_are_ours() || fed > 0);
}

/* AHP's are recorded as values, not as texts. */
static void recorded_values(void)
{
	static const char *const kinds[] = {"ahp_message", "ahp_from_dict",
					    "ahp_error", "ahp_sender",
					    "compact_instruction"};
	struct avp_buf text = {0};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		for (const struct avp_json *c = vectors_first(kinds[i]); c;
		     c = avp_json_next(c))
			for (const struct avp_json *m = avp_json_first(c); m;
			     m = avp_json_next(m)) {
				write_value(&text, m, AVP_JSON_HTTP);
				feed_changed(avp_buf_str(&text));
			}
	CU_ASSERT(!vectors_are_ours() || text.len > 0);
	avp_buf_fini(&text);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(recorded_texts),
		TEST(recorded_values),
		{0},
	};

	return test_main("fuzz_json", tests);
}
#endif
