/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Models of two agents: what each tells in its Hello, how they may talk, and what
 * becomes of frames that the other's model cannot use.
 */
#include <string.h>

#include "tests/agents.h"
#include "tests/harness.h"

#define S(text)                        \
	{                              \
		text, sizeof(text) - 1 \
	}

static const struct avp_identity qwen = {
	.model_family = S("qwen2"),
	.model_id = S("Qwen/Qwen2.5-0.5B"),
	.model_hash = S("aa11"),
	.hidden_dim = 896,
	.num_layers = 24,
	.num_kv_heads = 2,
	.head_dim = 64,
};

static const struct avp_identity llama = {
	.model_family = S("llama"),
	.model_id = S("meta/Llama-3.1-8B"),
	.model_hash = S("bb22"),
	.hidden_dim = 4096,
	.num_layers = 32,
	.num_kv_heads = 8,
	.head_dim = 128,
};

static struct ahp_agent *a, *b;

static void open_models(const struct avp_identity *of_a,
			const struct avp_identity *of_b)
{
	const struct ahp_agent_options options_a = {.identity = of_a};
	const struct ahp_agent_options options_b = {.identity = of_b};

	a = agent_open("a", &options_a);
	b = agent_open("b", &options_b);
	agents_link(a, b);
}

static void close_models(void)
{
	ahp_agent_close(a);
	ahp_agent_close(b);
	CU_ASSERT_EQUAL(agents_names_left(), 0);
}

static struct ahp_mode mode_of(struct ahp_agent *agent, const char *peer)
{
	struct ahp_mode mode;
	uint32_t number;

	CU_ASSERT_EQUAL_FATAL(ahp_connect(agent, peer, 0, &number, NULL), 0);
	memset(&mode, 0xff, sizeof(mode));
	CU_ASSERT_EQUAL_FATAL(ahp_peer_mode(agent, number, &mode), 0);
	return mode;
}

static bool says(const struct ahp_mode *mode, const char *text)
{
	return strstr(mode->resolution.reason, text) != NULL;
}

/* ---- verdicts ------------------------------------------------------------------ */

static void same_models(void)
{
	struct ahp_mode mode;

	open_models(&qwen, &qwen);
	for (int i = 0; i < 2; i++) {
		mode = i ? mode_of(b, "a") : mode_of(a, "b");
		CU_ASSERT_EQUAL(mode.resolution.mode, AVP_MODE_LATENT);
		CU_ASSERT(mode.resolution.kv_compatible);
		CU_ASSERT(says(&mode, "equal model_hash"));
		CU_ASSERT_FALSE(mode.refuses_states);
		CU_ASSERT_FALSE(mode.refuses_caches);
		CU_ASSERT(avp_str_equal(mode.identity.model_id, qwen.model_id));
		CU_ASSERT_EQUAL(mode.identity.num_layers, 24);
		CU_ASSERT_EQUAL(mode.identity.head_dim, 64);
	}
	close_models();
}

static void other_models(void)
{
	struct ahp_mode mode;

	open_models(&qwen, &llama);
	mode = mode_of(a, "b");
	CU_ASSERT_EQUAL(mode.resolution.mode, AVP_MODE_JSON);
	CU_ASSERT(says(&mode, "model_family: qwen2, llama"));
	CU_ASSERT(mode.refuses_states && mode.refuses_caches);
	CU_ASSERT(
		avp_str_equal(mode.identity.model_family, llama.model_family));
	mode = mode_of(b, "a");
	CU_ASSERT_EQUAL(mode.resolution.mode, AVP_MODE_JSON);
	CU_ASSERT(says(&mode, "model_family: llama, qwen2"));
	CU_ASSERT(mode.refuses_states && mode.refuses_caches);
	close_models();
}

static void other_heads(void)
{
	struct avp_identity wide = qwen;
	struct ahp_mode mode;

	wide.num_kv_heads = 14;
	open_models(&qwen, &wide);
	mode = mode_of(a, "b");
	CU_ASSERT_EQUAL(mode.resolution.mode, AVP_MODE_LATENT);
	CU_ASSERT_FALSE(mode.resolution.kv_compatible);
	CU_ASSERT(says(&mode, "num_kv_heads differs, 2 here and 14 there"));
	CU_ASSERT_FALSE(mode.refuses_states);
	CU_ASSERT(mode.refuses_caches);
	close_models();
}

/* JSON by the protocol, but nothing that was told speaks against a frame. */
static void unknown_models(void)
{
	static const struct avp_identity only_family = {.model_family =
								S("qwen2")};
	static const struct avp_identity only_hash = {.model_hash = S("cc33")};
	static const struct {
		const struct avp_identity *ours, *theirs;
		const char *why;
	} of[] = {
		{NULL, NULL, "the local model is not known"},
		{&qwen, NULL, "the remote model is not known"},
		{NULL, &qwen, "the local model is not known"},
		{&qwen, &only_family, "hidden_dim is 896 and 0"},
		{&only_family, &only_hash, "a model_family is unknown"},
	};

	for (unsigned i = 0; i < sizeof(of) / sizeof(*of); i++) {
		struct ahp_mode mode;

		open_models(of[i].ours, of[i].theirs);
		mode = mode_of(a, "b");
		CU_ASSERT_EQUAL(mode.resolution.mode, AVP_MODE_JSON);
		if (!says(&mode, of[i].why))
			CU_FAIL(of[i].why);
		CU_ASSERT_FALSE(mode.refuses_states || mode.refuses_caches);
		mode = mode_of(b, "a");
		CU_ASSERT_FALSE(mode.refuses_states || mode.refuses_caches);
		close_models();
	}
}

/* A new identity is told on new links; a link keeps what was told on it. */
static void changed_later(void)
{
	struct ahp_mode mode;
	uint32_t number;

	open_models(NULL, &qwen);
	CU_ASSERT_EQUAL(ahp_agent_set_identity(a, &llama, NULL), 0);
	mode = mode_of(b, "a");
	CU_ASSERT_EQUAL(mode.identity.model_family.len, 0);
	CU_ASSERT_FALSE(mode.refuses_states);
	CU_ASSERT_EQUAL_FATAL(ahp_connect(a, "b", 0, &number, NULL), 0);
	ahp_agent_close(b);
	agents_settle(a, a);
	CU_ASSERT_EQUAL(ahp_peer_mode(a, number, &mode), AVP_AGENT_NOT_FOUND);
	CU_ASSERT_EQUAL(ahp_peer_mode(a, number + 1, &mode),
			AVP_AGENT_NOT_FOUND);
	b = agent_open("b", &(struct ahp_agent_options){.identity = &qwen});
	agents_link(b, a);
	mode = mode_of(b, "a");
	CU_ASSERT(
		avp_str_equal(mode.identity.model_family, llama.model_family));
	CU_ASSERT(mode.refuses_states);
	/* The number is that of the name. */
	CU_ASSERT_EQUAL_FATAL(ahp_peer_mode(a, number, &mode), 0);
	CU_ASSERT(mode.refuses_states);
	close_models();
}

static void bad_identities(void)
{
	static const char letters[73] =
		"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abc"
		"def01234567";
	struct avp_identity model = qwen;
	struct avp_reason why;

	open_models(&qwen, &qwen);
	model.model_hash = (struct avp_str){letters, 72};
	CU_ASSERT_EQUAL(ahp_agent_set_identity(a, &model, &why), AVP_USAGE);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "model_hash of 72"));
	model.model_hash.len = 71;
	CU_ASSERT_EQUAL(ahp_agent_set_identity(a, &model, &why), 0);
	model.model_family = (struct avp_str){letters, 64};
	CU_ASSERT_EQUAL(ahp_agent_set_identity(a, &model, &why), AVP_USAGE);
	model.model_family.len = 63;
	CU_ASSERT_EQUAL(ahp_agent_set_identity(a, &model, &why), 0);
	CU_ASSERT_EQUAL(ahp_agent_set_identity(a, NULL, &why), 0);
	close_models();
}

int main(void)
{
	static const struct test tests[] = {
		TEST(same_models),
		TEST(other_models),
		TEST(other_heads),
		TEST(unknown_models),
		TEST(changed_later),
		TEST(bad_identities),
		{0},
	};

	agents_begin();
	return test_main("modes", tests);
}
