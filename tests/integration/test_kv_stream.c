/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A KV-cache that travels layer by layer between two processes: the receiver
 * works on layer i while the sender still writes layer i + 1. Each side only
 * goes on when it has seen the other do so, in either order; then the bytes
 * are what was written. The two loops are the example of latent/README.md,
 * with checks.
 */
#include <stdatomic.h>
#include <string.h>

#include <avp/latent.h>

#include "tests/agents.h"
#include "tests/harness.h"

static const struct avp_kv_shape whole = {6, 2, 16, 5, AVP_BFLOAT16};

/* How far each is, in layers: shared by both. */
struct board {
	_Atomic uint32_t written; /* half of this layer, and all before it */
	_Atomic uint32_t ready;	  /* the reader has its name */
	_Atomic uint32_t read;	  /* this many */
};

static struct board *board;

static uint32_t seed_of(uint32_t layer, enum avp_kv_which which)
{
	return 2 * layer + which;
}

/* ---- the sender --------------------------------------------------------- */

/* Stands for the model, which computes K before V. */
static void compute(const struct avp_kv *kv, uint32_t layer,
		    enum avp_kv_which which)
{
	struct avp_tensor t;

	CHECK(!avp_kv_tensor(kv, layer, which, &t));
	CHECK((uintptr_t)t.data % 64 == 0);
	pattern_fill(t.data, avp_tensor_bytes(&t), seed_of(layer, which));
}

static void send_layer(struct ahp_agent *agent, uint32_t layer)
{
	struct avp_kv_part_extra extra;
	struct avp_metadata about = {.model_id = {"m", 1},
				     .payload_type = AVP_KV_CACHE,
				     .dtype = AVP_BFLOAT16};
	struct ahp_outgoing out = {.target = "reader",
				   .method = AHP_TASK,
				   .kind = AHP_FRAME,
				   .task_id = {"cache-1", 7}};
	struct avp_kv_shape shape;
	struct avp_kv_part part;
	struct ahp_loan loan;
	struct avp_kv kv;
	uint64_t bytes;
	void *frame, *payload;
	int head;

	CHECK(!avp_kv_part_at(&whole, 1, layer, &part, &shape));
	part.parts = 0; /* as one that does not know yet how far it will go */
	avp_kv_part_write(&part, &extra);
	about.extra = extra.pairs;
	about.extra_count = AVP_KV_PART_KEYS;
	CHECK(!avp_kv_bytes(&shape, &bytes, NULL));
	/* The tensors on the loan's boundary, the 17 bytes before them. */
	CHECK(!ahp_loan(agent, NULL, bytes, 0, &loan, NULL));
	payload = (uint8_t *)loan.data - AVP_KV_HEADER_BYTES;
	CHECK(!avp_kv_build(&kv, payload, bytes, &shape, NULL));
	kv.first_layer = layer;
	compute(&kv, layer, AVP_KV_K);
	atomic_store(&board->written, layer + 1);
	/* The layer before is worked on by now: this one is half written. */
	CHECK(shared_await(&board->read, layer));
	compute(&kv, layer, AVP_KV_V);
	head = avp_frame_encode_before(&about, AVP_DIALECT_0_2, payload, bytes,
				       loan.headroom - AVP_KV_HEADER_BYTES,
				       &frame, NULL);
	CHECK(head > 0);
	out.body = frame;
	out.body_bytes = (uint64_t)head + bytes;
	out.loan = &loan;
	CHECK(!ahp_send(agent, &out, LONG_NS, NULL, NULL));
}

static void run_sender(void *arg)
{
	struct ahp_agent *agent = agent_open("writer", NULL);
	struct ahp_message m;

	(void)arg;
	CHECK(shared_await(&board->ready, 1));
	for (uint32_t layer = 0; layer < whole.num_layers; layer++)
		send_layer(agent, layer);
	CHECK(!ahp_receive(agent, &m, LONG_NS));
	CHECK(m.method == AHP_RESULT);
	ahp_release(agent, &m);
	ahp_agent_close(agent);
}

/* ---- the receiver ------------------------------------------------------- */

static void work_on(const struct avp_kv *kv)
{
	uint32_t layer = kv->first_layer;
	struct avp_tensor t;

	for (int which = AVP_KV_K; which <= AVP_KV_V; which++) {
		CU_ASSERT_EQUAL_FATAL(
			avp_kv_tensor(kv, layer, (enum avp_kv_which)which, &t),
			0);
		CU_ASSERT_EQUAL(t.shape[0], whole.num_kv_heads);
		CU_ASSERT_EQUAL(t.shape[1], whole.seq_len);
		CU_ASSERT(pattern_is(t.data, avp_tensor_bytes(&t),
				     seed_of(layer, (enum avp_kv_which)which)));
	}
}

/* One part: 1 when the cache is complete. */
static int take_part(struct ahp_agent *agent, struct avp_kv_assembly *parts,
		     uint32_t expected)
{
	struct avp_kv_part part;
	struct ahp_message m;
	struct avp_kv kv;
	int complete;

	CU_ASSERT_EQUAL_FATAL(ahp_receive(agent, &m, LONG_NS), 0);
	CU_ASSERT(m.in_place);
	CU_ASSERT_EQUAL(avp_kv_part_read(&m.frame.metadata, &part, NULL), 1);
	complete = avp_kv_assembly_add(parts, &part, m.frame.payload,
				       m.frame.content_bytes, &kv, NULL);
	CU_ASSERT_FATAL(complete >= 0);
	CU_ASSERT_EQUAL(kv.first_layer, expected);
	/* Its successor is being written, and cannot be finished: the sender
	 * waits for us. */
	if (!complete)
		CU_ASSERT(shared_await(&board->written, expected + 2));
	CU_ASSERT_EQUAL(ahp_agent_run(agent, 0), 0);
	work_on(&kv);
	atomic_store(&board->read, expected + 1);
	ahp_release(agent, &m);
	return complete;
}

static void layer_by_layer(void)
{
	const struct avp_identity model = {.num_layers = whole.num_layers,
					   .num_kv_heads = whole.num_kv_heads,
					   .head_dim = whole.head_dim};
	const struct ahp_agent_options options = {.identity = &model};
	struct ahp_outgoing done = {.target = "writer", .method = AHP_RESULT};
	struct avp_kv_assembly parts = {0};
	struct ahp_agent *agent;
	uint32_t layer = 0;
	pid_t sender;

	board = shared_new(sizeof(*board));
	sender = child_start(run_sender, NULL);
	agent = agent_open("reader", &options);
	atomic_store(&board->ready, 1);
	while (!take_part(agent, &parts, layer))
		layer++;
	CU_ASSERT_EQUAL(layer, whole.num_layers - 1);
	CU_ASSERT_EQUAL(parts.parts_seen, whole.num_layers);
	CU_ASSERT_EQUAL(ahp_send(agent, &done, LONG_NS, NULL, NULL), 0);
	child_finish(sender);
	ahp_agent_close(agent);
	shared_free(board, sizeof(*board));
	CU_ASSERT_EQUAL(agents_names_left(), 0);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(layer_by_layer),
		{0},
	};

	agents_begin();
	return test_main("kv_stream", tests);
}
