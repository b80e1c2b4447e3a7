/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Models of two agents: what each tells in its Hello, how they may talk, and
 * what becomes of frames that the other's model cannot use.
 */
#include <string.h>

#include <avp/latent.h>

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

/* Names a's peer by its number: short messages then take a shorter way. */
static bool by_number;

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

/* ---- verdicts ----------------------------------------------------------- */

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

/* ---- frames ------------------------------------------------------------- */

/* What a test says of a frame; the rest is as qwen's hidden states. */
struct told {
	uint64_t bytes;	     /* of the payload */
	uint32_t hidden_dim; /* in the metadata */
	uint32_t shape[3];   /* tensor_shape */
	uint32_t type, mode;
	struct avp_kv_shape kv; /* of a KV-cache: writes its header */
	int32_t off;		/* added to the payload's size */
	uint32_t long_head;	/* bytes of metadata that say nothing */
	bool map, tiny, templated;
	uint32_t flags;
};

static struct avp_metadata metadata_of(const struct told *t,
				       struct avp_pair *pair)
{
	static char filler[4000];
	struct avp_metadata m = {
		.model_id = S("m"),
		.hidden_dim = t->hidden_dim,
		.payload_type = t->type,
		.mode = t->mode,
		.dtype = t->kv.num_layers ? AVP_BFLOAT16 : AVP_FLOAT32,
		.shape = t->shape,
	};

	while (m.shape_count < 3 && t->shape[m.shape_count])
		m.shape_count++;
	if (t->map)
		m.avp_map_id = (struct avp_str)S("vocab:0011");
	memset(filler, 'f', sizeof(filler));
	*pair = (struct avp_pair){S("k"), {filler, t->long_head}};
	m.extra = pair;
	m.extra_count = t->long_head > 0;
	return m;
}

static uint64_t write_payload(const struct told *t, void *payload,
			      uint64_t bytes)
{
	struct avp_kv kv;

	memset(payload, 0, bytes);
	if (t->kv.num_layers)
		CU_ASSERT_EQUAL_FATAL(
			avp_kv_build(&kv, payload, bytes, &t->kv, NULL), 0);
	return bytes + (uint64_t)(int64_t)t->off;
}

/* From a to b, in a loan unless it is tiny; the code. */
static int send_told(const struct told *t, struct ahp_receipt *receipt,
		     struct avp_reason *why)
{
	struct ahp_outgoing out = {.target = "b",
				   .method = AHP_TASK,
				   .kind = AHP_FRAME,
				   .flags = t->flags};
	struct avp_frame_template template;
	struct avp_pair pair;
	struct avp_metadata m = metadata_of(t, &pair);
	uint64_t bytes = t->bytes;
	struct ahp_loan loan;
	void *payload, *frame;
	int head = 0, error;

	if (by_number)
		CU_ASSERT_EQUAL_FATAL(
			ahp_connect(a, "b", LONG_NS, &out.peer, NULL), 0);
	if (t->kv.num_layers)
		CU_ASSERT_EQUAL_FATAL(avp_kv_bytes(&t->kv, &bytes, NULL), 0);
	CU_ASSERT_EQUAL_FATAL(ahp_loan(a, NULL, bytes + 128, 8192, &loan, NULL),
			      0);
	/* 17 bytes of KV header, and the tensors on a boundary. */
	payload = frame = (char *)loan.data + (t->kv.num_layers ? 47 : 0);
	bytes = write_payload(t, payload, bytes);
	if (t->templated) {
		CU_ASSERT_EQUAL_FATAL(avp_frame_template_init(&template, &m,
							      AVP_DIALECT_0_2,
							      NULL),
				      0);
		out.frame = &template;
	} else {
		head = avp_frame_encode_before(&m, AVP_DIALECT_0_2, payload,
					       bytes, 8192, &frame, NULL);
		CU_ASSERT_FATAL(head > 0);
	}
	out.body = frame;
	out.body_bytes = (uint64_t)head + bytes;
	if (!t->tiny)
		out.loan = &loan;
	error = by_number ? ahp_send_many(a, &out, 1, 0, receipt, why)
			  : ahp_send(a, &out, 0, receipt, why);
	error = error == 1 ? 0 : error;
	/* What is refused stays the caller's. */
	CU_ASSERT_EQUAL(loan.handle != 0, error || t->tiny);
	ahp_loan_release(a, &loan);
	return error;
}

/* b gets it, or a learns that its shape is wrong. */
static bool arrives(const struct told *t)
{
	struct ahp_receipt receipt;
	struct ahp_message m;
	bool got;

	CU_ASSERT_EQUAL_FATAL(send_told(t, &receipt, NULL), 0);
	got = by_number ? ahp_receive_many(b, &m, 1, 0) == 1
			: !ahp_receive(b, &m, 0);
	if (got)
		ahp_release(b, &m);
	agents_settle(b, a);
	CU_ASSERT_EQUAL(ahp_status(a, &receipt), got ? 0 : AVP_SHAPE_MISMATCH);
	CU_ASSERT_EQUAL(agent_stats(a).bytes_lent, 0);
	return got;
}

#define STATE (896 * 4)
#define QWEN_KV                            \
	{                                  \
		24, 2, 64, 3, AVP_BFLOAT16 \
	}
#define COUNT_OF(list) (sizeof(list) / sizeof(*(list)))

static const struct told fitting[] = {
	{.bytes = STATE},
	{.bytes = 0, .tiny = true},
	{.bytes = 3 * STATE, .hidden_dim = 896},
	{.bytes = 3 * STATE, .shape = {3, 896}},
	{.bytes = 6 * STATE, .shape = {2, 3, 896}, .type = AVP_EMBEDDING},
	{.bytes = STATE, .long_head = 3000},
	{.bytes = STATE, .templated = true},
	{.kv = QWEN_KV, .type = AVP_KV_CACHE},
	{.kv = QWEN_KV, .type = AVP_KV_CACHE, .long_head = 3000},
	/* Not latent, or through a map into this model's space. */
	{.bytes = 100, .mode = AVP_MODE_HYBRID},
	{.bytes = 100, .mode = AVP_MODE_JSON, .tiny = true},
	{.bytes = 400, .map = true},
};

static const struct told misfits[] = {
	{.bytes = STATE - 4},
	{.bytes = 64, .tiny = true},
	{.bytes = STATE, .hidden_dim = 4096},
	{.bytes = STATE, .shape = {896, 1}},
	{.bytes = STATE, .shape = {2, 896}},
	{.bytes = STATE, .shape = {2, 448}},
	{.bytes = STATE - 4, .long_head = 3000},
	{.bytes = STATE - 4, .templated = true},
	{.bytes = 64, .templated = true, .tiny = true},
	{.bytes = STATE - 1},
	{.kv = {24, 14, 64, 3, AVP_BFLOAT16}, .type = AVP_KV_CACHE},
	{.kv = {24, 2, 128, 3, AVP_BFLOAT16}, .type = AVP_KV_CACHE},
	{.kv = {23, 2, 64, 3, AVP_BFLOAT16}, .type = AVP_KV_CACHE},
	{.kv = QWEN_KV, .type = AVP_KV_CACHE, .off = -1},
	{.kv = QWEN_KV, .type = AVP_KV_CACHE, .off = 1},
	{.kv = QWEN_KV, .type = AVP_KV_CACHE, .hidden_dim = 4096},
	{.bytes = 16, .type = AVP_KV_CACHE},
};

/* Twice each: the second time the head is known already. */
static void judge_all(void)
{
	unsigned sent = 0;

	open_models(NULL, &qwen);
	for (unsigned i = 0; i < 2 * COUNT_OF(fitting); i++, sent++)
		if (!arrives(&fitting[i / 2]))
			CU_FAIL("a frame that fits was refused");
	for (unsigned i = 0; i < 2 * COUNT_OF(misfits); i++, sent++)
		if (arrives(&misfits[i / 2]))
			CU_FAIL("a frame that does not fit came through");
	CU_ASSERT_EQUAL(agent_stats(a).rejected, 2 * COUNT_OF(misfits));
	CU_ASSERT_EQUAL(agent_stats(a).sent, sent);
	CU_ASSERT_EQUAL(agent_stats(b).received, 2 * COUNT_OF(fitting));
	CU_ASSERT_EQUAL(agent_stats(b).poisoned + agent_stats(a).poisoned, 0);
	CU_ASSERT_EQUAL(agent_stats(a).in_flight, 0);
	close_models();
}

static void judged_by_the_reader(void)
{
	judge_all();
	by_number = true;
	judge_all();
	by_number = false;
}

/* By what a reader does not tell, nothing is judged. */
static void judged_by_nobody(void)
{
	static const struct avp_identity nameless = {.model_hash = S("dd44")};

	for (int i = 0; i < 2; i++) {
		open_models(NULL, i ? &nameless : NULL);
		for (unsigned k = 0; k < COUNT_OF(misfits); k++)
			CU_ASSERT(arrives(&misfits[k]));
		close_models();
	}
}

/* A verdict is remembered for one head and one size, and for no other. */
static void remembered(void)
{
	static const struct {
		struct told t;
		bool fits;
	} of[] = {
		{{.bytes = STATE}, true},
		{{.bytes = STATE - 4}, false},
		{{.bytes = STATE}, true},
		{{.bytes = 2 * STATE}, true},
		{{.bytes = STATE, .hidden_dim = 7}, false},
		{{.bytes = STATE}, true},
		/* In the slot, with nothing else to be looked at. */
		{{.bytes = 0, .tiny = true}, true},
		{{.bytes = 64, .tiny = true}, false},
		{{.bytes = 0, .tiny = true}, true},
		{{.bytes = 60, .tiny = true}, false},
		{{.kv = {24, 2, 64, 3, AVP_BFLOAT16}, .type = AVP_KV_CACHE},
		 true},
		{{.bytes = STATE}, true},
		/* Too long for its slot: not the head that is remembered. */
		{{.bytes = STATE, .hidden_dim = 7, .long_head = 3000}, false},
		{{.bytes = STATE, .hidden_dim = 7, .long_head = 3000}, false},
		{{.bytes = STATE, .long_head = 3000}, true},
		{{.bytes = STATE}, true},
		{{.bytes = STATE, .type = AVP_KV_CACHE}, false},
		/* One head and one size, but the KV header says otherwise. */
		{{.kv = QWEN_KV, .type = AVP_KV_CACHE}, true},
		{{.kv = {24, 1, 128, 3, AVP_BFLOAT16}, .type = AVP_KV_CACHE},
		 false},
		{{.bytes = STATE, .mode = AVP_MODE_JSON}, true},
		{{.bytes = STATE - 4, .mode = AVP_MODE_JSON}, true},
		{{.bytes = STATE - 4}, false},
	};

	open_models(NULL, &qwen);
	for (unsigned i = 0; i < COUNT_OF(of); i++)
		if (arrives(&of[i].t) != of[i].fits) {
			fprintf(stderr, "frame %u\n", i);
			CU_FAIL("another verdict was due");
		}
	close_models();
}

/* A compressed payload is judged by its metadata alone. */
static void compressed(void)
{
	/* Nothing, as one zstd frame that says its size. */
	static const uint8_t zstd[] = {0x28, 0xb5, 0x2f, 0xfd, 0x20,
				       0,    1,	   0,	 0};
	struct avp_metadata m = {.dtype = AVP_FLOAT32,
				 .shape_count = 2,
				 .compression = S("zstd")};
	uint8_t frame[200];

	open_models(NULL, &qwen);
	for (int i = 0; i < 2; i++) {
		struct ahp_outgoing out = {.target = "b",
					   .method = AHP_TASK,
					   .kind = AHP_FRAME,
					   .body = frame};
		const uint32_t shape[2] = {1, i ? 896 : 895};
		struct ahp_receipt receipt;
		struct ahp_message message;

		m.shape = shape;
		CU_ASSERT_EQUAL_FATAL(avp_frame_encode(&m, AVP_DIALECT_0_2,
						       zstd, sizeof(zstd),
						       frame, sizeof(frame),
						       &out.body_bytes, NULL),
				      0);
		CU_ASSERT_EQUAL(ahp_send(a, &out, 0, &receipt, NULL), 0);
		CU_ASSERT_EQUAL(ahp_receive(b, &message, 0),
				i ? 0 : AVP_TIMEOUT);
		if (i)
			ahp_release(b, &message);
		agents_settle(b, a);
		CU_ASSERT_EQUAL(ahp_status(a, &receipt),
				i ? 0 : AVP_SHAPE_MISMATCH);
	}
	close_models();
}

/* Between messages that are worked on, and released late. */
static void between_others(void)
{
	const struct ahp_agent_options options = {.identity = &qwen,
						  .flags = AHP_EXPLICIT_ACK};
	struct ahp_message first, last;
	struct ahp_receipt receipt[3];

	a = agent_open("a", NULL);
	b = agent_open("b", &options);
	agents_link(a, b);
	CU_ASSERT_EQUAL(send_told(&fitting[0], &receipt[0], NULL), 0);
	CU_ASSERT_EQUAL(send_told(&misfits[0], &receipt[1], NULL), 0);
	CU_ASSERT_EQUAL(send_told(&fitting[0], &receipt[2], NULL), 0);
	CU_ASSERT_EQUAL_FATAL(ahp_receive(b, &first, 0), 0);
	CU_ASSERT_EQUAL_FATAL(ahp_receive(b, &last, 0), 0);
	CU_ASSERT_EQUAL(last.sequence, first.sequence + 2);
	agents_settle(b, a);
	CU_ASSERT_EQUAL(ahp_status(a, &receipt[0]), AVP_AGAIN);
	CU_ASSERT_EQUAL(ahp_status(a, &receipt[1]), AVP_SHAPE_MISMATCH);
	CU_ASSERT_EQUAL(ahp_status(a, &receipt[2]), AVP_AGAIN);
	ahp_accept(b, &last);
	ahp_release(b, &last);
	ahp_reject(b, &first);
	ahp_release(b, &first);
	agents_settle(b, a);
	CU_ASSERT_EQUAL(ahp_status(a, &receipt[0]), AVP_REJECTED);
	CU_ASSERT_EQUAL(ahp_status(a, &receipt[1]), AVP_SHAPE_MISMATCH);
	CU_ASSERT_EQUAL(ahp_status(a, &receipt[2]), 0);
	CU_ASSERT_EQUAL(agent_stats(a).bytes_lent, 0);
	close_models();
}

/* ---- frames that are not even sent -------------------------------------- */

static bool is_refused(const struct told *t, const char *because)
{
	struct avp_reason why = {0};
	int error = send_told(t, NULL, &why);
	struct ahp_message m;

	if (!error) {
		CU_ASSERT_EQUAL(ahp_receive(b, &m, 0), 0);
		ahp_release(b, &m);
		return false;
	}
	CU_ASSERT_EQUAL(error, AVP_SHAPE_MISMATCH);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, because));
	return true;
}

static void refused_at_once(void)
{
	static const struct avp_identity other = {.model_family = S("other"),
						  .hidden_dim = 896};
	const struct told mapped_cache = {
		.kv = QWEN_KV, .type = AVP_KV_CACHE, .map = true};
	const struct told mapped_state = {.bytes = STATE, .map = true};
	struct told words = {.bytes = 100, .mode = AVP_MODE_HYBRID};

	open_models(&qwen, &other);
	CU_ASSERT(is_refused(&fitting[0], "model_family: qwen2, other"));
	CU_ASSERT(is_refused(&fitting[1], "model_family: qwen2, other"));
	CU_ASSERT(is_refused(&fitting[5], "send JSON"));
	CU_ASSERT(is_refused(&fitting[6], "send JSON"));
	CU_ASSERT(is_refused(&fitting[7], "KV-caches"));
	CU_ASSERT(is_refused(&mapped_cache, "KV-caches"));
	CU_ASSERT_FALSE(is_refused(&mapped_state, ""));
	CU_ASSERT_FALSE(is_refused(&words, ""));
	words.mode = AVP_MODE_JSON;
	CU_ASSERT_FALSE(is_refused(&words, ""));
	CU_ASSERT_EQUAL(agent_say(a, "b", "{}", NULL), 0);
	CU_ASSERT(agent_hears(b, "{}"));
	agents_settle(b, a);
	by_number = true; /* ... when room for it is known, and in a batch */
	CU_ASSERT(is_refused(&fitting[1], "model_family: qwen2, other"));
	by_number = false;
	CU_ASSERT_EQUAL(agent_stats(a).rejected, 0);
	close_models();
}

static void only_caches_refused(void)
{
	struct avp_identity wide = qwen;

	wide.num_kv_heads = 14;
	open_models(&qwen, &wide);
	CU_ASSERT_FALSE(is_refused(&fitting[0], ""));
	CU_ASSERT(is_refused(&fitting[7], "num_kv_heads differs"));
	close_models();
}

/* ---- and reliable ones -------------------------------------------------- */

struct grave {
	int count, code, last;
	uint32_t deliveries;
};

static int bury(void *arg, const struct ahp_dead_letter *letter)
{
	struct grave *grave = arg;

	grave->count++;
	grave->code = letter->code;
	grave->last = letter->last;
	grave->deliveries = letter->deliveries;
	CU_ASSERT_PTR_NOT_NULL(strstr(letter->error, "does not fit"));
	return 0;
}

static const struct ahp_agent_options reliable = {
	.flags = AHP_RELIABLE,
	.retry_delay_ns = 1,
	.identity = &qwen,
};

/* A misfit is dead at once: it would not fit another time. */
static void never_retried(void)
{
	const struct ahp_agent_options same = {.identity = &qwen};
	struct ahp_receipt receipt;
	struct grave grave = {0};
	struct ahp_event event;
	struct ahp_message m;

	a = agent_open("a", &reliable);
	b = agent_open("b", &same);
	agents_link(a, b);
	ahp_agent_bury(a, bury, &grave);
	for (int i = 0; i < 2; i++) { /* in a loan, and in the slot */
		struct told t = misfits[i];

		t.flags = AHP_NOTIFY;
		CU_ASSERT_EQUAL(send_told(&t, &receipt, NULL), 0);
		CU_ASSERT_EQUAL(ahp_receive(b, &m, 0), AVP_TIMEOUT);
		CU_ASSERT_EQUAL(ahp_wait(a, &receipt, LONG_NS),
				AVP_SHAPE_MISMATCH);
		CU_ASSERT_EQUAL(ahp_next_event(a, &event, LONG_NS), 0);
		CU_ASSERT_EQUAL(event.code, AVP_SHAPE_MISMATCH);
		CU_ASSERT_EQUAL(event.deliveries, 1);
		CU_ASSERT_EQUAL(grave.count, i + 1);
		CU_ASSERT_EQUAL(grave.code, AVP_SHAPE_MISMATCH);
		CU_ASSERT_EQUAL(grave.last, AVP_SHAPE_MISMATCH);
		CU_ASSERT_EQUAL(grave.deliveries, 1);
	}
	agents_settle(a, b);
	CU_ASSERT_EQUAL(agent_stats(a).retried, 0);
	CU_ASSERT_EQUAL(agent_stats(a).dead, 2);
	CU_ASSERT_EQUAL(agent_stats(a).in_flight, 0);
	CU_ASSERT_EQUAL(agent_stats(a).bytes_lent, 0);
	close_models();
}

/* Taken for an agent that was not there, whose model turns out to be
 * another. */
static void posted_before(void)
{
	const struct ahp_agent_options other = {.identity = &llama};
	struct ahp_receipt receipt[3];
	struct grave grave = {0};

	a = agent_open("a", &reliable);
	ahp_agent_bury(a, bury, &grave);
	CU_ASSERT_EQUAL(send_told(&fitting[0], &receipt[0], NULL), 0);
	CU_ASSERT_EQUAL(send_told(&fitting[1], &receipt[1], NULL), 0);
	CU_ASSERT_EQUAL(agent_say(a, "b", "after", &receipt[2]), 0);
	b = agent_open("b", &other);
	agents_link(a, b);
	agents_settle(a, b);
	CU_ASSERT_EQUAL(ahp_wait(a, &receipt[0], LONG_NS), AVP_SHAPE_MISMATCH);
	CU_ASSERT_EQUAL(ahp_wait(a, &receipt[1], LONG_NS), AVP_SHAPE_MISMATCH);
	CU_ASSERT_EQUAL(grave.count, 2);
	CU_ASSERT_EQUAL(grave.code, AVP_SHAPE_MISMATCH);
	CU_ASSERT_EQUAL(grave.deliveries, 0);
	/* What stood behind them is not held up. */
	CU_ASSERT(agent_hears(b, "after"));
	agents_settle(b, a);
	CU_ASSERT_EQUAL(ahp_wait(a, &receipt[2], LONG_NS), 0);
	CU_ASSERT_EQUAL(agent_stats(a).bytes_lent, 0);
	close_models();
}

int main(void)
{
	static const struct test tests[] = {
		TEST(same_models),	    TEST(other_models),
		TEST(other_heads),	    TEST(unknown_models),
		TEST(changed_later),	    TEST(bad_identities),
		TEST(judged_by_the_reader), TEST(judged_by_nobody),
		TEST(remembered),	    TEST(compressed),
		TEST(between_others),	    TEST(refused_at_once),
		TEST(only_caches_refused),  TEST(never_retried),
		TEST(posted_before),	    {0},
	};

	agents_begin();
	return test_main("modes", tests);
}
