/* SPDX-License-Identifier: Apache-2.0 */
/* AHP's JSON form, payloads, times, ids and errors. */
#include <stdio.h>
#include <string.h>

#include <avp/message.h>

#include "tests/vectors.h"

#define S(literal) ((struct avp_str){literal, sizeof(literal) - 1})

static struct avp_reason why;

static struct avp_json_doc *parse(struct avp_str text)
{
	struct avp_json_doc *doc = NULL;

	if (avp_json_parse(&doc, text.data, text.len, NULL, &why))
		printf("  %s\n", why.text);
	return doc;
}

/* The text of what was written, as a value; equal JSON in any order of keys. */
static bool same_json(const struct avp_buf *got, const struct avp_json *want)
{
	struct avp_json_doc *doc = parse(avp_buf_str(got));
	struct avp_buf a = {0}, b = {0};
	bool same;

	if (!doc)
		return false;
	avp_json_write(&a, avp_json_root(doc), AVP_JSON_CANONICAL);
	avp_json_write(&b, want, AVP_JSON_CANONICAL);
	same = avp_str_equal(avp_buf_str(&a), avp_buf_str(&b));
	if (!same)
		printf("  %s\n  %s\n", a.data, b.data);
	avp_buf_fini(&a);
	avp_buf_fini(&b);
	avp_json_free(doc);
	return same;
}

/* Byte for byte what json.dumps() makes of the recorded dict. */
static bool same_text(const struct avp_buf *got, const struct avp_json *want)
{
	struct avp_buf text = {0};
	bool same = !avp_json_write(&text, want, AVP_JSON_PYTHON) &&
		    avp_str_equal(avp_buf_str(got), avp_buf_str(&text));

	avp_buf_fini(&text);
	return same;
}

/* ---- the nine keys ------------------------------------------------------ */

static void messages(void)
{
	static const char *const kinds[] = {"ahp_message", "ahp_sender",
					    "ahp_receiver_send"};
	uint32_t done = 0;

	for (size_t i = 0; i < 3; i++)
		for (const struct avp_json *c = vectors_first(kinds[i]); c;
		     c = avp_json_next(c)) {
			const struct avp_json *m =
				avp_json_get(c, i ? "message" : "dict");
			struct avp_buf buf = {0};
			struct ahp_envelope e;

			if (!avp_json_type_of(m))
				continue;
			done++;
			CASE(c, !ahp_envelope_read(&e, m, &why));
			CASE(c, !ahp_envelope_write(&buf, &e, AVP_JSON_PYTHON));
			CASE(c, same_text(&buf, m));
			avp_buf_fini(&buf);
		}
	CU_ASSERT(!vectors_are_ours() || done > 0);
}

static bool is_type(const struct avp_json *object, const char *key,
		    enum avp_json_type type)
{
	enum avp_json_type t = avp_json_type_of(avp_json_get(object, key));

	return t == type || t == AVP_JSON_NULL;
}

/* What the reference passes on in a wrong type, we refuse. */
static bool input_fits(const struct avp_json *in)
{
	int64_t limit;

	return is_type(in, "method", AVP_JSON_STRING) &&
	       is_type(in, "agent_id", AVP_JSON_STRING) &&
	       is_type(in, "target_agent", AVP_JSON_STRING) &&
	       is_type(in, "task_id", AVP_JSON_STRING) &&
	       is_type(in, "session_id", AVP_JSON_STRING) &&
	       is_type(in, "payload", AVP_JSON_OBJECT) &&
	       is_type(in, "timestamp", AVP_JSON_STRING) &&
	       is_type(in, "message_id", AVP_JSON_STRING) &&
	       (!avp_json_type_of(avp_json_get(in, "token_limit")) ||
		(!avp_json_int64(avp_json_get(in, "token_limit"), &limit) &&
		 limit >= 0));
}

/* null in the recorded answer is the default in ours. */
static bool same_string(const struct avp_json *want, const char *key,
			struct avp_str got)
{
	return avp_str_equal(case_str(want, key), got);
}

static bool same_envelope(const struct avp_json *c, struct ahp_envelope *e)
{
	const struct avp_json *want = avp_json_get(c, "to_dict");
	const struct avp_json *limit = avp_json_get(want, "token_limit");
	char text[AHP_TIME_BYTES];
	struct avp_str time = {text, 0};

	if (!e->timestamp.year)
		ahp_time_read(&e->timestamp, case_str(c, "now"), &why);
	time.len = ahp_time_write(&e->timestamp, text);
	if (!e->message_id.data)
		e->message_id = case_str(want, "message_id");
	return same_string(want, "method", e->method) &&
	       same_string(want, "agent_id", e->agent_id) &&
	       same_string(want, "target_agent", e->target_agent) &&
	       same_string(want, "task_id", e->task_id) &&
	       same_string(want, "session_id", e->session_id) &&
	       same_string(want, "timestamp", time) &&
	       same_string(want, "message_id", e->message_id) &&
	       e->token_limit == (avp_json_type_of(limit)
					  ? case_int(want, "token_limit")
					  : AHP_DEFAULT_TOKEN_LIMIT) &&
	       avp_json_count(e->payload) ==
		       avp_json_count(avp_json_get(want, "payload"));
}

static void from_dict(void)
{
	VECTORS("ahp_from_dict", 20);
	for (const struct avp_json *c = vectors_first("ahp_from_dict"); c;
	     c = avp_json_next(c)) {
		const struct avp_json *in = avp_json_get(c, "input");
		struct ahp_envelope e;
		int code = ahp_envelope_read(&e, in, &why);

		if (case_is(c, "verdict", "accept") && input_fits(in))
			CASE(c, code == 0 && same_envelope(c, &e));
		else
			CASE(c, code == AVP_INVALID_MESSAGE);
	}
}

static void envelope_by_hand(void)
{
	struct avp_json_doc *doc = parse(S("{\"token_limit\":-1}"));
	struct ahp_envelope e = {.method = S("TASK"),
				 .payload_json = S("{\"a\":1}"),
				 .timestamp = ahp_time_from_unix_ns(0)};
	struct avp_buf buf = {0};

	CU_ASSERT_EQUAL(ahp_envelope_read(&e, avp_json_root(doc), &why),
			AVP_INVALID_MESSAGE);
	CU_ASSERT(strstr(why.text, "\"token_limit\" is -1") != NULL);
	CU_ASSERT_EQUAL(ahp_envelope_write(&buf, &e, AVP_JSON_HTTP), 0);
	CU_ASSERT_STRING_EQUAL(
		buf.data,
		"{\"method\":\"TASK\",\"agent_id\":\"\",\"target_agent\":\"\","
		"\"task_id\":\"\",\"session_id\":\"\",\"payload\":{\"a\":1},"
		"\"token_limit\":0,\"timestamp\":\"1970-01-01T00:00:00Z\"}");
	CU_ASSERT_EQUAL(ahp_envelope_read(&e, NULL, &why), AVP_INVALID_MESSAGE);
	avp_buf_fini(&buf);
	avp_json_free(doc);
	for (uint32_t m = AHP_TASK; m <= AHP_TOKEN_RESPONSE; m++)
		CU_ASSERT_EQUAL(ahp_method_of(avp_str_of(ahp_method_name(m))),
				m);
	CU_ASSERT_PTR_NULL(ahp_method_name(AHP_OTHER));
	CU_ASSERT_PTR_NULL(ahp_method_name(8));
	CU_ASSERT_EQUAL(ahp_method_of(S("CUSTOM")), AHP_OTHER);
	CU_ASSERT_EQUAL(ahp_method_of(S("task")), AHP_OTHER);
}

/* ---- payloads ----------------------------------------------------------- */

/* Reads the payload as its method's struct and writes it again. */
static void again(const struct avp_json *c, struct avp_str method,
		  const struct avp_json *payload, struct avp_buf *buf)
{
	struct ahp_heartbeat_payload heartbeat;
	struct ahp_progress_payload progress;
	struct ahp_result_payload result;
	struct ahp_ack_payload ack;
	struct avp_json_writer w;

	avp_json_begin(&w, buf, AVP_JSON_PYTHON);
	switch (ahp_method_of(method)) {
	case AHP_ACK:
		CASE(c, !ahp_ack_read(&ack, payload, &why));
		ahp_ack_put(&w, &ack);
		break;
	case AHP_RESULT:
		CASE(c, !ahp_result_read(&result, payload, &why));
		ahp_result_put(&w, &result);
		break;
	case AHP_PROGRESS:
		CASE(c, !ahp_progress_read(&progress, payload, &why));
		ahp_progress_put(&w, &progress);
		/* 1 and 1.0 are one number. */
		break;
	case AHP_HEARTBEAT:
		CASE(c, !ahp_heartbeat_read(&heartbeat, payload, &why));
		ahp_heartbeat_put(&w, &heartbeat);
		break;
	default: avp_json_put(&w, payload);
	}
	CASE(c, !avp_json_finish(&w));
}

static void payload_shapes(void)
{
	static const char *const kinds[] = {"ahp_sender", "ahp_receiver_send"};
	uint32_t done = 0;

	for (size_t i = 0; i < 2; i++)
		for (const struct avp_json *c = vectors_first(kinds[i]); c;
		     c = avp_json_next(c)) {
			const struct avp_json *m = avp_json_get(c, "message");
			const struct avp_json *p = avp_json_get(m, "payload");
			const struct avp_json *x = avp_json_get(p, "progress");
			struct avp_buf buf = {0};

			if (!avp_json_type_of(m))
				continue;
			done++;
			again(c, case_str(m, "method"), p, &buf);
			if (avp_json_type_of(x) != AVP_JSON_INT)
				CASE(c, same_json(&buf, p));
			avp_buf_fini(&buf);
		}
	CU_ASSERT(!vectors_are_ours() || done > 0);
}

static void token_payloads(void)
{
	struct avp_json_doc *doc = parse(S(
		"{\"tokens\":300,\"remaining\":200,\"bad\":{\"tokens\":-1}}"));
	const struct avp_json *root = avp_json_root(doc);
	struct ahp_token_request_payload request;
	struct ahp_token_response_payload response;
	struct avp_buf buf = {0};
	struct avp_json_writer w;

	CU_ASSERT_EQUAL(ahp_token_request_read(&request, root, &why), 0);
	CU_ASSERT_EQUAL(request.tokens, 300);
	CU_ASSERT_EQUAL(ahp_token_response_read(&response, root, &why), 0);
	CU_ASSERT_EQUAL(response.remaining, 200);
	CU_ASSERT_EQUAL(ahp_token_request_read(&request,
					       avp_json_get(root, "bad"), &why),
			AVP_INVALID_MESSAGE);
	CU_ASSERT_EQUAL(ahp_token_request_read(
				&request, avp_json_get(root, "tokens"), &why),
			AVP_INVALID_MESSAGE);
	CU_ASSERT_EQUAL(ahp_token_response_read(
				&response, avp_json_get(root, "bad"), &why),
			AVP_INVALID_MESSAGE);
	avp_json_begin(&w, &buf, AVP_JSON_HTTP);
	avp_json_open_array(&w);
	ahp_token_request_put(&w, &request);
	ahp_token_response_put(&w, &response);
	avp_json_close_array(&w);
	CU_ASSERT_EQUAL(avp_json_finish(&w), 0);
	CU_ASSERT_STRING_EQUAL(buf.data, "[{\"tokens\":300},"
					 "{\"tokens\":300,\"remaining\":200}]");
	avp_buf_fini(&buf);
	avp_json_free(doc);
}

static void payload_defaults(void)
{
	struct avp_json_doc *doc = parse(S("{\"result\":[1],\"status\":null}"));
	struct ahp_result_payload result = {0};
	struct ahp_progress_payload progress;
	struct ahp_ack_payload ack;
	struct avp_buf buf = {0};
	struct avp_json_writer w;

	CU_ASSERT_EQUAL(ahp_result_read(&result, avp_json_root(doc), &why),
			AVP_INVALID_MESSAGE);
	CU_ASSERT_EQUAL(ahp_progress_read(&progress, avp_json_root(doc), &why),
			0);
	CU_ASSERT_EQUAL(progress.progress, 0);
	CU_ASSERT_EQUAL(ahp_ack_read(&ack, avp_json_root(doc), &why), 0);
	CU_ASSERT(avp_str_equal(ack.ack_status, S("received")));
	CU_ASSERT_EQUAL(ack.timestamp.year, 0);
	avp_json_begin(&w, &buf, AVP_JSON_HTTP);
	ahp_result_put(&w, &result);
	CU_ASSERT_EQUAL(avp_json_finish(&w), 0);
	CU_ASSERT_STRING_EQUAL(buf.data,
			       "{\"result\":{},\"status\":\"success\"}");
	avp_buf_fini(&buf);
	avp_json_free(doc);
}

/* ---- errors ------------------------------------------------------------- */

static void errors(void)
{
	VECTORS("ahp_error", 9);
	for (const struct avp_json *c = vectors_first("ahp_error"); c;
	     c = avp_json_next(c)) {
		const struct avp_json *dict = avp_json_get(c, "dict");
		struct avp_buf buf = {0};
		struct avp_json_writer w;
		struct ahp_error e;

		CASE(c, !ahp_error_read(&e, dict, &why));
		CASE(c, case_is(dict, "code", avp_error_name(e.code)));
		avp_json_begin(&w, &buf, AVP_JSON_PYTHON);
		ahp_error_put(&w, &e);
		CASE(c, !avp_json_finish(&w));
		CASE(c, same_text(&buf, dict));
		avp_buf_fini(&buf);
	}
}

static void errors_by_hand(void)
{
	struct avp_json_doc *doc = parse(S("{\"code\":\"BAD_MAGIC\"}"));
	struct ahp_error e = {.code = AVP_BAD_MAGIC};
	struct avp_buf buf = {0};
	struct avp_json_writer w;

	CU_ASSERT_EQUAL(ahp_error_read(&e, avp_json_root(doc), &why),
			AVP_INVALID_MESSAGE);
	avp_json_begin(&w, &buf, AVP_JSON_HTTP);
	ahp_error_put(&w, &e);
	CU_ASSERT_EQUAL(avp_json_finish(&w), 0);
	CU_ASSERT_STRING_EQUAL(buf.data,
			       "{\"message\":\"\",\"code\":\"UNKNOWN\","
			       "\"agent_id\":\"\",\"task_id\":\"\","
			       "\"details\":{}}");
	avp_buf_fini(&buf);
	avp_json_free(doc);
}

/* ---- times -------------------------------------------------------------- */

/* What Python 3.11.7's fromisoformat() makes of it; NULL: refused. */
static void times(void)
{
	static const struct {
		const char *text, *iso;
	} cases[] = {
		{"2025-01-02", "2025-01-02T00:00:00"},
		{"20250102", "2025-01-02T00:00:00"},
		{"2025-W01-4", "2025-01-02T00:00:00"},
		{"2025W014T03", "2025-01-02T03:00:00"},
		{"2025-W01", "2024-12-30T00:00:00"},
		{"2025W01T03", "2024-12-30T03:00:00"},
		{"2025W01103:04", "2024-12-30T03:04:00"},
		{"2025W013103:04", "2025-01-01T03:04:00"},
		{"2025-W01-1203:04", NULL},
		{"2020-W53-7", "2021-01-03T00:00:00"},
		{"2025-W53", NULL},
		{"2025-W00", NULL},
		{"2025-W01-8", NULL},
		{"2025-W01-", NULL},
		{"0000-01-01", NULL},
		{"9999-12-31T23:59:59.999999", "9999-12-31T23:59:59.999999"},
		{"2024-02-29", "2024-02-29T00:00:00"},
		{"2025-02-29", NULL},
		{"1900-02-29", NULL},
		{"2025-01-32", NULL},
		{"2025-1-02", NULL},
		{"2025-01", NULL},
		{"2025-0102", NULL},
		{"2025-01-02T", NULL},
		{"2025-01-02T3", NULL},
		{"2025-01-02x03:04", "2025-01-02T03:04:00"},
		{"2025-01-02\xf0\x9f\x98\x80"
		 "03:04",
		 "2025-01-02T03:04:00"},
		{"2025-01-02T03:04:05,5", "2025-01-02T03:04:05.500000"},
		{"2025-01-02T03:04:05.1234567", "2025-01-02T03:04:05.123456"},
		{"2025-01-02T03:04:05.", NULL},
		{"2025-01-02T03:04:60", NULL},
		{"2025-01-02T24:00", NULL},
		{"2025-01-02T03:0405", NULL},
		{"2025-01-02T030405", "2025-01-02T03:04:05"},
		{"2025-01-02T03:04:05Z", "2025-01-02T03:04:05+00:00"},
		{"2025-01-02T03:04:05z", NULL},
		{"2025-01-02T03:04:05Z0", NULL},
		{"2025-01-02T03:04:05-0130", "2025-01-02T03:04:05-01:30"},
		{"2025-01-02T03+23:59:59.999999",
		 "2025-01-02T03:00:00+23:59:59.999999"},
		{"2025-01-02T03-00:00:01", "2025-01-02T03:00:00-00:00:01"},
		{"2025-01-02T03+24:00", NULL},
		{"2025-01-02T03+", NULL},
		{"2025-01-02T03:04:05.+02:00", "2025-01-02T03:04:05+02:00"},
		{" 2025-01-02", NULL},
		{"2025-01-02\n", NULL},
		{"garbage", NULL},
		{"", NULL},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		char text[AHP_TIME_BYTES] = "";
		struct ahp_time t;
		int code = ahp_time_read(&t, avp_str_of(cases[i].text), &why);

		if (!code)
			ahp_time_write(&t, text);
		if (code != (cases[i].iso ? 0 : AVP_INVALID_MESSAGE) ||
		    (cases[i].iso && strcmp(text, cases[i].iso) != 0)) {
			printf("  %s: %s\n", cases[i].text, text);
			CU_FAIL("another time");
		}
	}
}

static void times_of_ours(void)
{
	static const struct {
		int64_t ns;
		const char *text;
	} cases[] = {
		{0, "1970-01-01T00:00:00Z"},
		{1000, "1970-01-01T00:00:00.000001Z"},
		{999, "1970-01-01T00:00:00Z"},
		{-1, "1969-12-31T23:59:59.999999Z"},
		{951782400000000000, "2000-02-29T00:00:00Z"},
		{1735787045123456789, "2025-01-02T03:04:05.123456Z"},
		{INT64_MAX, "2262-04-11T23:47:16.854775Z"},
		{INT64_MIN, "1677-09-21T00:12:43.145224Z"},
	};
	struct ahp_time t;
	char text[AHP_TIME_BYTES];

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		t = ahp_time_from_unix_ns(cases[i].ns);
		ahp_time_write(&t, text);
		CU_ASSERT_STRING_EQUAL(text, cases[i].text);
	}
	t = ahp_time_now();
	CU_ASSERT(t.year >= 2024);
	CU_ASSERT_EQUAL(ahp_time_write(&t, text), strlen(text));
	CU_ASSERT_EQUAL(ahp_time_read(&t, avp_str_of(text), &why), 0);
}

/* ---- ids ---------------------------------------------------------------- */

static void ids(void)
{
	static const uint8_t epoch[16] = {0x01, 0x02, 0x03, 0x04, 0x05, 0x06,
					  0xff, 0x08, 0xaa, 0xbb, 0xcc, 0xdd,
					  0xee, 0xff, 0x00, 0x11};
	char text[AHP_ID_TEXT_BYTES];
	uint8_t id[16], other[16];

	CU_ASSERT_EQUAL(
		ahp_id_read(id, S("0000000E-0000-4000-8000-0000013525cd")), 0);
	CU_ASSERT_EQUAL(id[3], 0x0e);
	CU_ASSERT_EQUAL(id[15], 0xcd);
	ahp_id_write(id, text);
	CU_ASSERT_STRING_EQUAL(text, "0000000e-0000-4000-8000-0000013525cd");
	/* SHA-256 of "abc": ba7816bf 8f01cfea 414140de 5dae2223 ... */
	CU_ASSERT_EQUAL(ahp_id_read(id, S("abc")), 0);
	ahp_id_write(id, text);
	CU_ASSERT_STRING_EQUAL(text, "ba7816bf-8f01-cfea-4141-40de5dae2223");
	/* Nearly a UUID is another text. */
	ahp_id_read(id, S("0000000e-0000-4000-8000-0000013525c"));
	ahp_id_read(other, S("0000000e-0000-4000-80000-000013525cd"));
	CU_ASSERT_NOT_EQUAL(memcmp(id, other, 16), 0);
	CU_ASSERT_NOT_EQUAL(other[0], 0);
	ahp_id_read(id, S("0000000g-0000-4000-8000-0000013525cd"));
	CU_ASSERT_NOT_EQUAL(id[0], 0);
	CU_ASSERT_EQUAL(ahp_id_read(id, S("")), 0);
	CU_ASSERT_EQUAL(id[0], 0xe3);
	ahp_id_of_sequence(id, epoch, 0x123456789abcdef0);
	ahp_id_write(id, text);
	CU_ASSERT_STRING_EQUAL(text, "01020304-0506-8f08-9234-56789abcdef0");
	CU_ASSERT_EQUAL(ahp_id_random(id), 0);
	CU_ASSERT_EQUAL(ahp_id_random(other), 0);
	CU_ASSERT_NOT_EQUAL(memcmp(id, other, 16), 0);
	CU_ASSERT_EQUAL(id[6] >> 4, 4);
	CU_ASSERT_EQUAL(id[8] >> 6, 2);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(messages),
		TEST(from_dict),
		TEST(envelope_by_hand),
		TEST(payload_shapes),
		TEST(token_payloads),
		TEST(payload_defaults),
		TEST(errors),
		TEST(errors_by_hand),
		TEST(times),
		TEST(times_of_ours),
		TEST(ids),
		{0},
	};

	return test_main("ahp_message", tests);
}
