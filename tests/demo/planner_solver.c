/* SPDX-License-Identifier: Apache-2.0 */
/*
 * make demo: a planner hands the KV-cache that it has computed to a solver in
 * another process, which reads it where it lies; then the same bytes go over a
 * Unix stream socket, for comparison. Uses <avp/...> as any program would.
 *
 * Every round writes another cache, so that nothing is right by accident: the
 * planner puts a CRC-32 of each of the 48 tensors into the frame's metadata,
 * the solver computes them anew and rejects the task if one differs.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <avp/ahp.h>

#include "demo.h"

/* Qwen2.5-0.5B, 2,048 tokens, bf16: K and V of each layer. */
enum {
	LAYERS = 24,
	KV_HEADS = 2,
	HEAD_DIM = 64,
	TOKENS = 2048,
	HIDDEN = 896,
	TENSORS = 2 * LAYERS,
	TENSOR_BYTES = KV_HEADS * TOKENS * HEAD_DIM * 2,
	KV_BYTES = TENSORS * TENSOR_BYTES,
	KV_HEADER = 17,
	ROUNDS = 8,
};

#define PATIENCE_NS 5000000000ll
#define SUMS_BYTES  (TENSORS * 8) /* as hexadecimal digits */
#define SEGMENT	    (64ull << 20)

/* When a body was ready, in hand, and read to its end; all in one clock. */
struct times {
	int64_t sent, in_hand, read;
};

/* ---- the cache ---------------------------------------------------------- */

static void put_le32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

/* The header of an AVP KV-cache payload: four counts and the dtype. */
static void write_kv_header(uint8_t *p)
{
	put_le32(p, LAYERS);
	put_le32(p + 4, KV_HEADS);
	put_le32(p + 8, HEAD_DIM);
	put_le32(p + 12, TOKENS);
	p[16] = AVP_BFLOAT16;
}

/* Stands for the model: four bf16 numbers of -2..2 at a time, by xorshift. */
static void compute_tensors(uint8_t *tensors, uint64_t seed)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15u | 1, word;

	for (size_t i = 0; i < KV_BYTES; i += sizeof(word)) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		word = (x & 0x807f807f807f807fu) | 0x3f003f003f003f00u;
		memcpy(tensors + i, &word, sizeof(word));
	}
}

static void sum_tensors(const uint8_t *tensors, char sums[SUMS_BYTES + 1])
{
	for (int i = 0; i < TENSORS; i++)
		snprintf(sums + 8 * i, 9, "%08x",
			 avp_crc32(tensors + (size_t)i * TENSOR_BYTES,
				   TENSOR_BYTES));
}

/* Writes the frame's head so that it ends where the payload begins. */
static uint64_t write_head(uint8_t *tensors, uint32_t headroom, void **frame)
{
	char sums[SUMS_BYTES + 1];
	struct avp_pair extra = {avp_str_of("crc32"), {sums, SUMS_BYTES}};
	struct avp_metadata m = {
		.model_id = avp_str_of("Qwen/Qwen2.5-0.5B"),
		.payload_type = AVP_KV_CACHE,
		.dtype = AVP_BFLOAT16,
		.hidden_dim = HIDDEN,
		.num_layers = LAYERS,
		.shape_count = 5,
		.shape_inline = {LAYERS, 2, KV_HEADS, TOKENS, HEAD_DIM},
		.extra = &extra,
		.extra_count = 1,
	};
	struct avp_reason why;
	int head;

	sum_tensors(tensors, sums);
	write_kv_header(tensors - KV_HEADER);
	head = avp_frame_encode_before(&m, AVP_DIALECT_0_2, tensors - KV_HEADER,
				       KV_HEADER + KV_BYTES,
				       headroom - KV_HEADER, frame, &why);
	need(head > 0, "frame", &why);
	return (uint64_t)head + KV_HEADER + KV_BYTES;
}

/* Does every tensor of the frame have the checksum that was sent with it? */
static int is_whole(const struct avp_frame *frame)
{
	uint8_t expected[KV_HEADER];
	char sums[SUMS_BYTES + 1];
	struct avp_str sent;

	write_kv_header(expected);
	if (frame->payload_bytes != KV_HEADER + KV_BYTES ||
	    memcmp(frame->payload, expected, KV_HEADER) ||
	    !avp_metadata_extra_get(&frame->metadata, avp_str_of("crc32"),
				    &sent))
		return 0;
	sum_tensors((const uint8_t *)frame->payload + KV_HEADER, sums);
	return avp_str_equal(sent, (struct avp_str){sums, SUMS_BYTES});
}

/* ---- the solver, in shared memory --------------------------------------- */

static struct ahp_agent *open_agent(const char *id, uint32_t flags,
				    enum ahp_wait wait)
{
	struct ahp_agent_options options = {.size = sizeof(options),
					    .id = id,
					    .name_space = "demo",
					    .flags = flags,
					    .wait = wait,
					    .first_segment_bytes = SEGMENT,
					    .memory_flags =
						    AVP_MEMORY_PREFAULT};
	struct ahp_agent *agent;
	struct avp_reason why;

	need(!ahp_agent_open(&agent, &options, &why), "open", &why);
	return agent;
}

static void report_progress(struct ahp_agent *agent, uint32_t peer,
			    struct avp_str task)
{
	static const char text[] =
		"{\"progress\":0.5,\"message\":\"48 tensors checked\"}";
	struct ahp_outgoing out = {.peer = peer,
				   .method = AHP_PROGRESS,
				   .kind = AHP_JSON,
				   .task_id = task,
				   .body = text,
				   .body_bytes = sizeof(text) - 1};
	struct avp_reason why;

	need(!ahp_send(agent, &out, PATIENCE_NS, NULL, &why), "progress", &why);
}

/* The answer: a hidden state of the model's width, and the solver's clock. */
static void send_result(struct ahp_agent *agent, uint32_t peer,
			struct avp_str task, const struct times *t)
{
	char clock[64];
	struct avp_pair extra = {avp_str_of("clock"), {clock, 0}};
	struct avp_metadata m = {.model_id = avp_str_of("Qwen/Qwen2.5-0.5B"),
				 .payload_type = AVP_HIDDEN_STATE,
				 .dtype = AVP_FLOAT32,
				 .hidden_dim = HIDDEN,
				 .shape_count = 2,
				 .shape_inline = {1, HIDDEN},
				 .extra = &extra,
				 .extra_count = 1};
	struct ahp_outgoing out = {.peer = peer,
				   .method = AHP_RESULT,
				   .kind = AHP_FRAME,
				   .task_id = task};
	struct ahp_loan loan;
	struct avp_reason why;
	void *frame;
	int head;

	extra.value.len =
		(size_t)snprintf(clock, sizeof(clock), "%lld %lld",
				 (long long)t->in_hand, (long long)t->read);
	need(!ahp_loan(agent, NULL, HIDDEN * sizeof(float), 0, &loan, &why),
	     "loan", &why);
	for (int i = 0; i < HIDDEN; i++)
		((float *)loan.data)[i] = (float)i / HIDDEN;
	head = avp_frame_encode_before(&m, AVP_DIALECT_0_2, loan.data,
				       HIDDEN * sizeof(float), loan.headroom,
				       &frame, &why);
	need(head > 0, "frame", &why);
	out.loan = &loan;
	out.body = frame;
	out.body_bytes = (uint64_t)head + HIDDEN * sizeof(float);
	need(!ahp_send(agent, &out, PATIENCE_NS, NULL, &why), "result", &why);
}

static void solve_in_place(enum ahp_wait wait)
{
	struct ahp_agent *agent = open_agent("solver", AHP_EXPLICIT_ACK, wait);
	struct ahp_message m;
	struct times t;
	int whole;

	for (;;) {
		need(!ahp_receive(agent, &m, PATIENCE_NS), "no message", NULL);
		t.in_hand = now_ns();
		if (m.method != AHP_TASK)
			break;
		need(m.in_place && m.kind == AHP_FRAME, "not in place", NULL);
		whole = is_whole(&m.frame);
		t.read = now_ns();
		if (!whole)
			ahp_reject(agent, &m);
		need(whole, "a tensor differs from its checksum", NULL);
		ahp_accept(agent, &m);
		report_progress(agent, m.peer, m.task_id);
		send_result(agent, m.peer, m.task_id, &t);
		ahp_release(agent, &m);
	}
	ahp_release(agent, &m);
	ahp_agent_close(agent);
}

/* ---- the planner, in shared memory -------------------------------------- */

static void link_solver(struct ahp_agent *agent)
{
	int64_t end = now_ns() + PATIENCE_NS;
	struct avp_reason why;
	int err;

	/* It may not have opened its agent yet. */
	do {
		err = ahp_connect(agent, "solver", PATIENCE_NS, NULL, &why);
		if (err == AVP_AGENT_NOT_FOUND)
			ahp_agent_run(agent, 1000000);
	} while (err == AVP_AGENT_NOT_FOUND && now_ns() < end);
	need(!err, "solver", &why);
}

/* Waits for PROGRESS and RESULT; the result carries the solver's times. */
static void take_result(struct ahp_agent *agent, struct times *t)
{
	long long in_hand = 0, read = 0;
	struct ahp_message m;
	char text[64] = "";
	struct avp_str clock;
	const float *state;

	need(!ahp_receive(agent, &m, PATIENCE_NS) && m.method == AHP_PROGRESS,
	     "no PROGRESS", NULL);
	ahp_release(agent, &m);
	need(!ahp_receive(agent, &m, PATIENCE_NS) && m.method == AHP_RESULT &&
		     m.kind == AHP_FRAME,
	     "no RESULT", NULL);
	state = m.frame.payload;
	need(m.frame.payload_bytes == HIDDEN * sizeof(float) &&
		     state[HIDDEN / 2] == 0.5f,
	     "the hidden state is another", NULL);
	need(avp_metadata_extra_get(&m.frame.metadata, avp_str_of("clock"),
				    &clock) &&
		     clock.len < sizeof(text),
	     "no clock", NULL);
	memcpy(text, clock.data, clock.len);
	need(sscanf(text, "%lld %lld", &in_hand, &read) == 2, "no clock", NULL);
	t->in_hand = in_hand;
	t->read = read;
	ahp_release(agent, &m);
}

static uint64_t plan_in_place(struct times times[ROUNDS])
{
	struct ahp_agent *agent = open_agent("planner", 0, AHP_WAIT_BLOCK);
	struct ahp_outgoing out = {.target = "solver",
				   .method = AHP_TASK,
				   .kind = AHP_FRAME,
				   .task_id = avp_str_of("demo-task")};
	struct ahp_outgoing end = {.target = "solver", .method = AHP_HEARTBEAT};
	struct ahp_receipt receipt;
	struct ahp_loan loan;
	struct avp_reason why;
	void *frame;

	link_solver(agent);
	for (int i = 0; i < ROUNDS; i++) {
		need(!ahp_loan(agent, "solver", KV_BYTES, 0, &loan, &why),
		     "loan", &why);
		compute_tensors(loan.data, (uint64_t)i + 1);
		out.body_bytes = write_head(loan.data, loan.headroom, &frame);
		out.body = frame;
		out.loan = &loan;
		times[i].sent = now_ns();
		need(!ahp_send(agent, &out, PATIENCE_NS, &receipt, &why),
		     "send", &why);
		take_result(agent, &times[i]);
		need(!ahp_wait(agent, &receipt, PATIENCE_NS),
		     "the task was not accepted", NULL);
	}
	need(!ahp_send(agent, &end, PATIENCE_NS, NULL, &why), "end", &why);
	ahp_agent_close(agent);
	return out.body_bytes;
}

/* ---- the same over a socket --------------------------------------------- */

static void write_all(int fd, const void *data, size_t len)
{
	const uint8_t *p = data;
	ssize_t n;

	for (; len; p += n, len -= (size_t)n) {
		n = write(fd, p, len);
		need(n > 0, "socket", NULL);
	}
}

static void read_all(int fd, void *data, size_t len)
{
	uint8_t *p = data;
	ssize_t n;

	for (; len; p += n, len -= (size_t)n) {
		n = read(fd, p, len);
		need(n > 0, "socket", NULL);
	}
}

/* Memory of one's own for a frame, touched; the tensors begin on a page. */
static uint8_t *frame_memory(void)
{
	uint8_t *area = aligned_alloc(4096, 4096 + KV_BYTES);

	need(area != NULL, "memory", NULL);
	memset(area, 0, 4096 + KV_BYTES);
	return area + 4096;
}

static void solve_by_socket(int fd)
{
	uint8_t *area = frame_memory() - 4096;
	struct avp_frame frame;
	struct avp_reason why;
	struct times t;
	uint64_t bytes;

	for (int i = 0; i < ROUNDS; i++) {
		read_all(fd, &bytes, sizeof(bytes));
		need(bytes <= 4096 + KV_BYTES, "a frame is too long", NULL);
		read_all(fd, area, bytes);
		need(!avp_frame_decode(area, bytes, &frame, &why), "frame",
		     &why);
		t.in_hand = now_ns();
		need(is_whole(&frame), "a tensor differs from its checksum",
		     NULL);
		t.read = now_ns();
		write_all(fd, &t, sizeof(t));
	}
	free(area);
}

static void plan_by_socket(int fd, struct times times[ROUNDS])
{
	uint8_t *tensors = frame_memory();
	uint64_t bytes;
	int64_t sent;
	void *frame;

	for (int i = 0; i < ROUNDS; i++) {
		compute_tensors(tensors, (uint64_t)i + 1);
		bytes = write_head(tensors, 4096, &frame);
		sent = now_ns();
		write_all(fd, &bytes, sizeof(bytes));
		write_all(fd, frame, bytes);
		read_all(fd, &times[i], sizeof(times[i]));
		times[i].sent = sent;
	}
	free(tensors - 4096);
}

/* ---- the account -------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* Microseconds, median of the rounds after the first. */
static double median(const struct times *t, int whole)
{
	double us[ROUNDS - 1];

	for (int i = 1; i < ROUNDS; i++)
		us[i - 1] = (double)((whole ? t[i].read : t[i].in_hand) -
				     t[i].sent) *
			    1e-3;
	qsort(us, ROUNDS - 1, sizeof(*us), by_value);
	return us[(ROUNDS - 1) / 2];
}

/* All that was measured: a solver that sleeps, one that polls, the socket. */
struct account {
	struct times asleep[ROUNDS], polling[ROUNDS], socket[ROUNDS];
	uint64_t bytes; /* of the frame */
};

static double first(const struct times *t)
{
	return (double)(t[0].in_hand - t[0].sent) * 1e-3;
}

static void print_row(const char *what, double asleep, double polling,
		      double by_socket)
{
	printf("  %-32s %12.1f %12.1f %12.1f\n", what, asleep, polling,
	       by_socket);
}

static void print_account(const struct account *a)
{
	double asleep = median(a->asleep, 0), polling = median(a->polling, 0),
	       by_socket = median(a->socket, 0);

	printf("A planner hands its KV-cache to a solver, two processes of "
	       "this host.\n\n"
	       "  Qwen2.5-0.5B: %d layers, K and V, %d heads x %d tokens x %d, "
	       "bf16\n"
	       "  %d tensors, %d bytes; %llu of frame and KV header before "
	       "them\n"
	       "  %d rounds, each with another cache, every tensor checked "
	       "by CRC-32\n\n",
	       LAYERS, KV_HEADS, TOKENS, HEAD_DIM, TENSORS, KV_BYTES,
	       (unsigned long long)(a->bytes - KV_BYTES), ROUNDS);
	printf("  %-32s %25s %12s\n", "", "shared memory, solver",
	       "Unix socket,");
	printf("  %-32s %12s %12s %12s\n", "microseconds", "asleep", "polling",
	       "asleep");
	print_row("until it has the cache, first", first(a->asleep),
		  first(a->polling), first(a->socket));
	print_row("until it has the cache, median", asleep, polling, by_socket);
	print_row("until every byte is checked", median(a->asleep, 1),
		  median(a->polling, 1), median(a->socket, 1));
	printf("  %-32s %12d %12d %12llu\n", "bytes copied on the way", 0, 0,
	       (unsigned long long)(2 * a->bytes));
	printf("  %-32s %11.0fx %11.0fx\n\n", "the socket takes, median",
	       by_socket / asleep, by_socket / polling);
	printf("  Asleep is what a solver is while a planner computes: the "
	       "figure is the time\n"
	       "  to wake it. The first hand-over also maps the memory. Each "
	       "TASK was read where\n"
	       "  it lay, accepted, and answered with PROGRESS and a RESULT of "
	       "%d float32.\n",
	       HIDDEN);
}

static pid_t start(const char *name)
{
	pid_t child;

	fflush(stdout);
	child = fork();
	need(child >= 0, "fork", NULL);
	if (!child) {
		me = name;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	}
	return child;
}

static void finish(pid_t child)
{
	int status = 1;

	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	need(!status, "the solver failed", NULL);
}

static uint64_t share(enum ahp_wait wait, struct times times[ROUNDS])
{
	pid_t child = start("solver");
	uint64_t bytes;

	if (!child) {
		solve_in_place(wait);
		exit(0);
	}
	bytes = plan_in_place(times);
	finish(child);
	return bytes;
}

static void compare(struct times times[ROUNDS])
{
	pid_t child;
	int pair[2];

	need(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair),
	     "socketpair", NULL);
	child = start("solver");
	if (!child) {
		close(pair[0]);
		solve_by_socket(pair[1]);
		exit(0);
	}
	close(pair[1]);
	plan_by_socket(pair[0], times);
	finish(child);
	close(pair[0]);
}

int main(void)
{
	static struct account account;

	me = "planner";
	signal(SIGPIPE, SIG_IGN);
	account.bytes = share(AHP_WAIT_BLOCK, account.asleep);
	share(AHP_WAIT_BUSY, account.polling);
	compare(account.socket);
	print_account(&account);
	return 0;
}
