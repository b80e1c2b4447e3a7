/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every allocation fails once, then all from each on, while agents are opened,
 * linked, send, die and are buried: each call says AVP_NO_MEMORY or does
 * without, and nothing is left when all is closed. Allocation is this file's:
 * malloc() and its like here come before the C library's, and ASan's, which
 * they call.
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>

#include <avp/config.h>
#include <avp/dlq.h>
#include <avp/leader.h>

#include "tests/agents.h"
#include "tests/harness.h"

#pragma GCC visibility push(default) /* for libraries too */
void *malloc(size_t bytes);
void *calloc(size_t count, size_t bytes);
void *realloc(void *p, size_t bytes);
void *aligned_alloc(size_t align, size_t bytes);
int posix_memalign(void **p, size_t align, size_t bytes);
void free(void *p);
#pragma GCC visibility pop

/* ---- allocation --------------------------------------------------------- */

static void *(*next_malloc)(size_t);
static void *(*next_calloc)(size_t, size_t);
static void *(*next_realloc)(void *, size_t);
static void *(*next_aligned)(size_t, size_t);
static int (*next_memalign)(void **, size_t, size_t);
static void (*next_free)(void *);

/* volatile: a compiler believes that malloc() changes nothing of its file. */
static volatile long left = -1; /* allocations until one fails; -1: none does */
static volatile bool for_good;	/* and all after it do */
static volatile bool failed;
static volatile long live;

/* What dlsym() itself asks for, before there is anything to ask. */
static _Alignas(16) char early[8192];
static size_t early_used;

static bool is_early(const void *p)
{
	return (const char *)p >= early &&
	       (const char *)p < early + sizeof(early);
}

static void *take_early(size_t bytes)
{
	void *p = early + early_used;

	early_used += (bytes + 15) & ~(size_t)15;
	return early_used <= sizeof(early) ? p : NULL;
}

static void look_up(void)
{
	static bool busy;

	if (next_free || busy)
		return;
	busy = true;
	*(void **)&next_malloc = dlsym(RTLD_NEXT, "malloc");
	*(void **)&next_calloc = dlsym(RTLD_NEXT, "calloc");
	*(void **)&next_realloc = dlsym(RTLD_NEXT, "realloc");
	*(void **)&next_aligned = dlsym(RTLD_NEXT, "aligned_alloc");
	*(void **)&next_memalign = dlsym(RTLD_NEXT, "posix_memalign");
	*(void **)&next_free = dlsym(RTLD_NEXT, "free");
	busy = false;
}

static bool fails(void)
{
	if (left < 0 || (left && left--))
		return false;
	failed = true;
	if (!for_good)
		left = -1;
	return true;
}

static void *counted(void *p)
{
	live += p != NULL;
	return p;
}

void *malloc(size_t bytes)
{
	look_up();
	if (!next_malloc)
		return take_early(bytes);
	return fails() ? NULL : counted(next_malloc(bytes));
}

void *calloc(size_t count, size_t bytes)
{
	look_up();
	if (!next_calloc)
		return take_early(count * bytes);
	return fails() ? NULL : counted(next_calloc(count, bytes));
}

void *realloc(void *p, size_t bytes)
{
	void *q;

	look_up();
	if (!p)
		return malloc(bytes);
	if (fails())
		return NULL;
	if (!is_early(p))
		return next_realloc(p, bytes);
	q = counted(next_malloc(bytes));
	if (q)
		memcpy(q, p, bytes);
	return q;
}

void *aligned_alloc(size_t align, size_t bytes)
{
	look_up();
	return fails() ? NULL : counted(next_aligned(align, bytes));
}

int posix_memalign(void **p, size_t align, size_t bytes)
{
	int error;

	look_up();
	if (fails())
		return 12; /* ENOMEM */
	error = next_memalign(p, align, bytes);
	live += !error;
	return error;
}

void free(void *p)
{
	if (!p || is_early(p))
		return;
	live--;
	next_free(p);
}

/* ---- what is done ------------------------------------------------------- */

/* ASan's own strdup() and the like are not seen here; LeakSanitizer counts. */
#ifdef __SANITIZE_ADDRESS__
enum { COUNTED = 0, STEP = 5 };
#else
enum { COUNTED = 1, STEP = 1 };
#endif
enum { BODY = 3000, TURNS = 40 };

static struct ahp_agent *a, *b;
static char dir[] = "/dev/shm/avp-test-XXXXXX"; /* thousands of fdatasync() */

/* A call that tells of memory tells of nothing else. */
static bool ok(int code)
{
	if (code < 0 && code != AVP_NO_MEMORY)
		fprintf(stderr, "  %s\n", avp_error_name(code));
	CU_ASSERT(code >= 0 || code == AVP_NO_MEMORY);
	return code >= 0;
}

static void turns(unsigned count)
{
	while (count--) {
		ahp_agent_run(a, 0);
		ahp_agent_run(b, 0);
	}
}

/* Links fail within turns: the other side sees a hang-up, or nothing. */
static bool link_them(void)
{
	for (unsigned i = 0; i < TURNS; i++) {
		uint32_t peer;

		if (!ahp_connect(a, "b", 0, &peer, NULL))
			return true;
		turns(1);
	}
	return false;
}

static void send_some(void)
{
	static char body[BODY];
	struct ahp_outgoing out = {.target = "b",
				   .method = AHP_TASK,
				   .flags = AHP_NOTIFY,
				   .task_id = {"t", 1},
				   .body = body};
	const uint8_t id[16] = {1};
	struct ahp_loan loan;

	memset(body, 'x', sizeof(body));
	ahp_send(a, &out, 0, NULL, NULL);
	out.body_bytes = BODY;
	out.flags |= AHP_RELIABLE;
	out.message_id = id;
	ahp_send(a, &out, 0, NULL, NULL);
	out.target = "nobody";
	ahp_send(a, &out, 0, NULL, NULL);
	out.target = "b";
	/* The link may have been lost to a failure before. */
	if (ahp_loan(a, "b", BODY, 0, &loan, NULL))
		return;
	out.loan = &loan;
	out.body = loan.data;
	if (ahp_send(a, &out, 0, NULL, NULL))
		ahp_loan_release(a, &loan);
}

static void take_some(bool reject)
{
	struct ahp_message m;

	for (unsigned i = 0; i < TURNS; i++) {
		if (ahp_receive(b, &m, 0)) {
			turns(1);
			continue;
		}
		if (reject)
			ahp_reject(b, &m);
		else
			ahp_accept(b, &m);
		ahp_release(b, &m);
	}
}

static void lead(void)
{
	static const char *const targets[] = {"b", "b2"};
	struct ahp_outgoing task = {
		.task_id = {"lead", 4}, .body = "{}", .body_bytes = 2};
	struct ahp_inbox *inbox;
	struct ahp_leader *leader;
	struct ahp_news news;

	if (ok(ahp_inbox_open(&inbox, a, NULL)))
		ahp_inbox_close(inbox);
	if (!ok(ahp_leader_open(&leader, a, NULL, NULL)))
		return;
	ahp_leader_dispatch(leader, &task, targets, 2, 0, NULL, NULL);
	take_some(true);
	for (unsigned i = 0; i < TURNS; i++)
		if (!ahp_leader_next(leader, &news, 0))
			ahp_leader_done(leader, &news);
	ahp_leader_close(leader);
}

static bool open_all(struct ahp_dlq **dlq)
{
	static const struct ahp_agent_options base = {
		.size = sizeof(base),
		.flags = AHP_EXPLICIT_ACK,
		.max_retries = AHP_NO_RETRY,
		.wait = AHP_WAIT_BLOCK,
	};
	struct ahp_agent_options of_a = base, of_b = base;
	const struct ahp_dlq_options o = {
		.size = sizeof(o), .dir = dir, .name_space = "dlq"};

	of_a.id = "a";
	of_b.id = "b";
	return ok(ahp_agent_open(&a, &of_a, NULL)) &&
	       ok(ahp_agent_open(&b, &of_b, NULL)) &&
	       ok(ahp_dlq_open(dlq, &o, NULL)) &&
	       ok(ahp_agent_keep_dlq(a, *dlq, NULL));
}

static void look_at(struct ahp_dlq *dlq)
{
	struct ahp_dlq_replay replay;
	static char body[BODY];
	struct ahp_dlq_entry e;
	uint64_t after = 0;

	while (ahp_dlq_next(dlq, after, &e, NULL) == 1) {
		after = e.number;
		CU_ASSERT_FALSE(e.body_lost);
		CU_ASSERT_EQUAL(e.body_bytes,
				e.message.task_id.len == 1 ? BODY : 0);
		if (e.body_bytes)
			ok(ahp_dlq_body(dlq, &e, body, NULL));
		ahp_dlq_entry_fini(&e);
		if (ahp_dlq_replay_begin(dlq, after, &replay, NULL) == 1)
			ahp_dlq_replay_end(dlq, &replay, false, NULL);
	}
}

static void everything(void)
{
	struct ahp_dlq *dlq = NULL;
	struct ahp_config config;
	struct ahp_event event;

	a = b = NULL;
	ok(ahp_config_read(&config, "ahp/avp.example.yaml", NULL));
	if (open_all(&dlq) && link_them()) {
		send_some();
		take_some(false);
		send_some();
		take_some(true);
		lead();
		while (!ahp_next_event(a, &event, 0))
			continue;
	}
	ahp_agent_close(b);
	ahp_agent_close(a);
	if (dlq)
		look_at(dlq);
	left = -1;
	if (dlq)
		ahp_dlq_clear(dlq, avp_str_of(""), NULL, NULL);
	ahp_dlq_close(dlq);
	ERR_clear_error(); /* texts of what failed in OpenSSL */
}

static void fail_each(bool all_after)
{
	long at, before;

	for (int i = 0; i < 3; i++) /* what libraries keep for good */
		everything();
	for_good = all_after;
	for (at = 0;; at += all_after ? 5 * STEP : STEP) {
		before = live;
		failed = false;
		left = at;
		everything();
		left = -1;
		if (COUNTED && live != before) {
			fprintf(stderr, "  allocation %ld: %ld left\n", at,
				live - before);
			CU_FAIL("something was left");
		}
		if (!failed)
			break;
	}
	printf("  %ld allocations\n", at);
	CU_ASSERT(at > 100);
	CU_ASSERT_EQUAL(agents_names_left(), 0);
}

static void one_fails(void)
{
	fail_each(false);
}

static void all_fail_from_one_on(void)
{
	fail_each(true);
}

static void remove_queue(void)
{
	char path[80];

	snprintf(path, sizeof(path), "%s/dlq/journal", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/dlq/.lock", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/dlq", dir);
	rmdir(path);
	CU_ASSERT_EQUAL(rmdir(dir), 0);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(one_fails),
		TEST(all_fail_from_one_on),
		TEST(remove_queue),
		{0},
	};

	agents_begin();
	if (!mkdtemp(dir))
		return 1;
	return test_main("no_memory", tests);
}
