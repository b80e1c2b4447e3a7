/* SPDX-License-Identifier: Apache-2.0 */
/* The account of tokens and the sessions. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <avp/message.h>

#include "tests/vectors.h"

#define S(literal) ((struct avp_str){literal, sizeof(literal) - 1})

static struct avp_reason why;

/* ---- tokens ------------------------------------------------------------- */

static void token_limits(void)
{
	VECTORS("token_limits", 1);
	for (const struct avp_json *c = vectors_first("token_limits"); c;
	     c = avp_json_next(c)) {
		const struct avp_json *step =
			avp_json_first(avp_json_get(c, "steps"));
		struct ahp_tokens *t = NULL;

		CASE(c, !ahp_tokens_new(&t, case_int(step, "default_limit"),
					&why));
		for (step = avp_json_next(step); step;
		     step = avp_json_next(step)) {
			struct avp_str agent = case_str(step, "agent");

			if (case_is(step, "op", "set_limit"))
				CASE(c, !ahp_tokens_set_limit(
						t, agent,
						case_int(step, "limit"), &why));
			else
				CASE(c,
				     case_is(step, "op", "get_limit") &&
					     ahp_tokens_get_limit(t, agent) ==
						     case_int(step, "result"));
		}
		ahp_tokens_free(t);
	}
}

static void grants(void)
{
	struct ahp_tokens *t = NULL;
	uint64_t granted = 9;

	CU_ASSERT_EQUAL(ahp_tokens_new(&t, -1, &why), AVP_INVALID_MESSAGE);
	CU_ASSERT_EQUAL_FATAL(ahp_tokens_new(&t, 500, &why), 0);
	CU_ASSERT_EQUAL(ahp_tokens_grant(t, S("a"), 300, &granted, &why), 0);
	CU_ASSERT_EQUAL(granted, 300);
	CU_ASSERT_EQUAL(ahp_tokens_grant(t, S("a"), 300, &granted, &why), 0);
	CU_ASSERT_EQUAL(granted, 200);
	CU_ASSERT_EQUAL(ahp_tokens_grant(t, S("a"), UINT64_MAX, &granted, &why),
			0);
	CU_ASSERT_EQUAL(granted, 0);
	CU_ASSERT_EQUAL(ahp_tokens_remaining(t, S("a")), 0);
	CU_ASSERT_EQUAL(ahp_tokens_remaining(t, S("b")), 500);
	ahp_tokens_return(t, S("a"), 100);
	CU_ASSERT_EQUAL(ahp_tokens_remaining(t, S("a")), 100);
	ahp_tokens_return(t, S("a"), UINT64_MAX);
	ahp_tokens_return(t, S("nobody"), 1);
	CU_ASSERT_EQUAL(ahp_tokens_remaining(t, S("a")), 500);
	CU_ASSERT_EQUAL(ahp_tokens_grant(t, S("a"), 400, &granted, &why), 0);
	CU_ASSERT_EQUAL(ahp_tokens_set_limit(t, S("a"), 10, &why), 0);
	CU_ASSERT_EQUAL(ahp_tokens_remaining(t, S("a")), 0);
	CU_ASSERT_EQUAL(ahp_tokens_set_limit(t, S("a"), -5, &why),
			AVP_INVALID_MESSAGE);
	CU_ASSERT_EQUAL(ahp_tokens_get_limit(t, S("a")), 10);
	CU_ASSERT_EQUAL(ahp_tokens_set_limit(t, S("a"), INT64_MAX, &why), 0);
	CU_ASSERT_EQUAL(ahp_tokens_grant(t, S("a"), UINT64_MAX, &granted, &why),
			0);
	CU_ASSERT_EQUAL(granted, (uint64_t)INT64_MAX - 400);
	CU_ASSERT_EQUAL(ahp_tokens_remaining(t, S("a")), 0);
	ahp_tokens_free(t);
}

static void many_agents(void)
{
	struct ahp_tokens *t = NULL;
	char name[16];
	uint64_t granted = 7;
	int failed = 0;

	CU_ASSERT_EQUAL_FATAL(ahp_tokens_new(&t, 10, &why), 0);
	for (uint32_t i = 0; i < AHP_TOKENS_MAX_AGENTS; i++) {
		snprintf(name, sizeof(name), "%u", i * 40503u % 65536u);
		failed += ahp_tokens_set_limit(t, avp_str_of(name), i, &why);
	}
	CU_ASSERT_EQUAL(failed, 0);
	for (uint32_t i = 0; i < AHP_TOKENS_MAX_AGENTS; i++) {
		snprintf(name, sizeof(name), "%u", i * 40503u % 65536u);
		failed += ahp_tokens_get_limit(t, avp_str_of(name)) != i;
	}
	CU_ASSERT_EQUAL(failed, 0);
	CU_ASSERT_EQUAL(ahp_tokens_grant(t, S("more"), 5, &granted, &why),
			AVP_QUEUE_FULL);
	CU_ASSERT_EQUAL(granted, 7);
	CU_ASSERT_EQUAL(ahp_tokens_get_limit(t, S("more")), 10);
	ahp_tokens_free(t);
}

/* ---- sessions ----------------------------------------------------------- */

#define HANDLES 256

struct replay {
	struct ahp_sessions *sessions;
	double now;
	char ids[HANDLES][AHP_SESSION_ID_BYTES];
};

static struct avp_str id_of(const struct replay *r, const struct avp_json *step)
{
	int64_t handle = case_int(step, "handle");

	return avp_str_of(r->ids[handle >= 0 && handle < HANDLES ? handle : 0]);
}

static bool replay_create(struct replay *r, const struct avp_json *step)
{
	struct ahp_session_agent agents[AHP_SESSION_MAX_AGENTS] = {0};
	const struct avp_json *result = avp_json_get(step, "result");
	const struct avp_json *ttl = avp_json_get(step, "ttl");
	const struct avp_json *a = avp_json_first(avp_json_get(step, "agents"));
	const struct ahp_session *s = NULL;
	int64_t handle = case_int(result, "handle");
	uint32_t n = 0;

	for (; a && n < AHP_SESSION_MAX_AGENTS; a = avp_json_next(a))
		avp_json_string(a, &agents[n++].agent_id);
	if (handle >= HANDLES ||
	    ahp_session_create(
		    r->sessions, agents, n, (uint32_t)case_int(step, "mode"),
		    avp_json_type_of(ttl) ? case_double(step, "ttl") : NAN,
		    r->now, &s, &why))
		return false;
	memcpy(r->ids[handle], s->id, sizeof(s->id));
	return strlen(s->id) == 32 && s->ttl_s == case_double(result, "ttl") &&
	       s->created_s == case_double(result, "created_at") &&
	       s->mode == (uint32_t)case_int(step, "mode");
}

static bool replay_find(const struct replay *r, const struct avp_json *step)
{
	const struct avp_json *h =
		avp_json_first(avp_json_get(step, "handles"));
	const struct ahp_session *s = NULL;
	int64_t handle;

	for (; h; h = avp_json_next(h)) {
		s = ahp_session_find(r->sessions, case_str(step, "agent"),
				     r->now, s);
		if (!s || avp_json_int64(h, &handle) ||
		    strcmp(s->id, r->ids[handle]) != 0)
			return false;
	}
	return !ahp_session_find(r->sessions, case_str(step, "agent"), r->now,
				 s);
}

static bool replay_step(struct replay *r, const struct avp_json *step)
{
	if (case_is(step, "op", "advance")) {
		r->now = case_double(step, "clock");
		return true;
	}
	if (case_is(step, "op", "create"))
		return replay_create(r, step);
	if (case_is(step, "op", "get"))
		return !!ahp_session_get(r->sessions, id_of(r, step), r->now) ==
		       case_bool(step, "found");
	if (case_is(step, "op", "invalidate"))
		return ahp_session_invalidate(r->sessions, id_of(r, step)) ==
		       case_bool(step, "result");
	if (case_is(step, "op", "find"))
		return replay_find(r, step);
	if (case_is(step, "op", "active_count"))
		return ahp_session_count(r->sessions, r->now) ==
		       case_int(step, "result");
	return case_is(step, "op", "cleanup_expired") &&
	       ahp_session_cleanup(r->sessions, r->now) ==
		       case_int(step, "removed");
}

static void session_sequence(void)
{
	VECTORS("session_sequence", 4);
	for (const struct avp_json *c = vectors_first("session_sequence"); c;
	     c = avp_json_next(c)) {
		const struct avp_json *step =
			avp_json_first(avp_json_get(c, "steps"));
		struct replay r = {.now = case_double(step, "clock")};

		CASE(c, !ahp_sessions_new(&r.sessions,
					  case_double(step, "default_ttl")));
		for (int i = 1; (step = avp_json_next(step)) != NULL; i++)
			if (!CASE(c, replay_step(&r, step)))
				printf("  step %d\n", i);
		ahp_sessions_free(r.sessions);
	}
}

static void sessions_copy_and_bound(void)
{
	char name[] = "agent";
	struct ahp_session_agent agent = {
		.agent_id = {name, 5},
		.identity = {.model_hash = S("h"), .hidden_dim = 896},
	};
	const struct ahp_session *s = NULL;
	struct ahp_sessions *all = NULL;
	int failed = 0;

	CU_ASSERT_EQUAL_FATAL(ahp_sessions_new(&all, 10), 0);
	CU_ASSERT_EQUAL(
		ahp_session_create(all, &agent, 65, 0, NAN, 0, &s, &why),
		AVP_USAGE);
	CU_ASSERT_EQUAL(ahp_session_create(all, &agent, 1, 0, NAN, 0, &s, &why),
			0);
	memset(name, 'x', 5);
	CU_ASSERT(avp_str_equal(s->agents[0].agent_id, S("agent")));
	CU_ASSERT(avp_str_equal(s->agents[0].identity.model_hash, S("h")));
	CU_ASSERT_EQUAL(s->agents[0].identity.hidden_dim, 896);
	for (uint32_t i = 1; i < AHP_SESSIONS_MAX; i++)
		failed += ahp_session_create(all, NULL, 0, 2, NAN, 1, &s, &why);
	CU_ASSERT_EQUAL(failed, 0);
	CU_ASSERT_EQUAL(ahp_session_create(all, NULL, 0, 0, NAN, 10, &s, &why),
			AVP_QUEUE_FULL);
	CU_ASSERT_EQUAL(
		ahp_session_create(all, NULL, 0, 0, NAN, 10.5, &s, &why), 0);
	CU_ASSERT_EQUAL(ahp_session_count(all, 10.5), AHP_SESSIONS_MAX);
	CU_ASSERT_PTR_EQUAL(ahp_session_get(all, avp_str_of(s->id), 20), s);
	CU_ASSERT_PTR_NULL(ahp_session_get(all, S("short"), 20));
	CU_ASSERT_PTR_NULL(ahp_session_get(
		all, S("zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"), 20));
	ahp_sessions_free(all);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(token_limits),
		TEST(grants),
		TEST(many_agents),
		TEST(session_sequence),
		TEST(sessions_copy_and_bound),
		{0},
	};

	return test_main("tokens", tests);
}
