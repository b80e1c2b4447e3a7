/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two processes, as agents use this folder: the owner lends blocks out of an
 * arena that grows, tells the reader of each new segment before the block that
 * lies in it, and is killed in the end; the reader checks every byte, and goes
 * on reading what it has mapped.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <avp/shm.h>

#include "tests/harness.h"

#define ROUNDS 200
#define KIB    (UINT64_C(1) << 10)

/* What goes over the socket: a new segment (with its fd), or a block. */
struct note {
	uint32_t kind; /* 1 segment, 2 block, 3 given back, 4 the end */
	uint32_t segment;
	uint64_t off, bytes;
	uint32_t mark;
};

static unsigned char byte_of(uint32_t mark, uint64_t i)
{
	return (unsigned char)(mark * 31 + i * 7);
}

static void put(int sock, const struct note *note, const int *fd)
{
	int code;
	struct pollfd p = {.fd = sock, .events = POLLOUT};

	while ((code = avp_fd_send(sock, note, sizeof(*note), fd, fd ? 1 : 0,
				   NULL)) == AVP_AGAIN)
		poll(&p, 1, -1);
	if (code)
		_exit(10);
}

/* AVP_OK, or why there is no more. */
static int get(int sock, struct note *note, int *fd)
{
	struct pollfd p = {.fd = sock, .events = POLLIN};
	unsigned n;
	size_t len;
	int code;

	while ((code = avp_fd_receive(sock, note, sizeof(*note), &len, fd, 1,
				      &n, NULL)) == AVP_AGAIN)
		poll(&p, 1, -1);
	return code;
}

/* ---- the owner ---------------------------------------------------------- */

static void tell_new_segments(struct avp_arena *arena, int sock, uint32_t *told)
{
	uint32_t numbers[8], n = avp_arena_segments(arena, *told, numbers, 8);

	for (uint32_t i = 0; i < n; i++) {
		struct avp_segment s;
		struct note note = {.kind = 1, .segment = numbers[i]};

		if (avp_arena_segment(arena, numbers[i], &s))
			_exit(11);
		note.bytes = s.bytes;
		put(sock, &note, &s.fd);
		*told = numbers[i];
	}
}

static void lend_one(struct avp_arena *arena, int sock, uint32_t round)
{
	struct avp_block b;
	struct note note = {.kind = 2, .mark = round};
	static uint32_t told;
	static uint64_t known;
	int none;

	if (avp_arena_alloc(arena, 1 + round * 4001 % (96 * KIB), 0, &b, NULL))
		_exit(12);
	for (uint64_t i = 0; i < b.bytes; i++)
		((unsigned char *)b.data)[i] = byte_of(round, i);
	if (known != avp_arena_generation(arena))
		tell_new_segments(arena, sock, &told);
	known = avp_arena_generation(arena);
	note.segment = b.segment;
	note.off = b.off;
	note.bytes = b.bytes;
	put(sock, &note, NULL);
	/* Every third stays lent, so that the arena has to grow. */
	if (round % 3 == 0)
		return;
	if (get(sock, &note, &none) || note.kind != 3)
		_exit(13);
	avp_arena_release(arena, &b);
}

static void owner(int sock)
{
	struct avp_arena_options o = {.quota_bytes = 8192 * KIB,
				      .first_segment_bytes = 64 * KIB};
	struct note end = {.kind = 4};
	struct avp_arena *arena;

	if (avp_arena_open(&arena, &o, NULL))
		_exit(14);
	for (uint32_t round = 0; round < ROUNDS; round++)
		lend_one(arena, sock, round);
	put(sock, &end, NULL);
	for (;;)
		pause();
}

/* ---- the reader --------------------------------------------------------- */

struct reader {
	int sock;
	struct avp_segment segments[32];
	unsigned n, blocks, wrong;
	struct note last; /* a block that its owner never took back */
};

static void add_segment(struct reader *r, const struct note *note, int fd)
{
	CU_ASSERT_EQUAL_FATAL(note->segment, r->n + 1);
	CU_ASSERT_FATAL(note->segment < 32);
	CU_ASSERT_EQUAL_FATAL(avp_segment_import(&r->segments[note->segment],
						 fd, note->bytes, 8192 * KIB,
						 NULL),
			      AVP_OK);
	r->n = note->segment;
}

static bool is_right(const struct reader *r, const struct note *note)
{
	const struct avp_segment *s = &r->segments[note->segment];
	const unsigned char *p = s->base;

	if (note->segment > r->n || note->bytes > s->bytes ||
	    note->off > s->bytes - note->bytes)
		return false;
	for (uint64_t i = 0; i < note->bytes; i++)
		if (p[note->off + i] != byte_of(note->mark, i))
			return false;
	return true;
}

static void read_all(struct reader *r)
{
	struct note note, back = {.kind = 3};
	int fd;

	while (!get(r->sock, &note, &fd) && note.kind != 4) {
		if (note.kind == 1) {
			add_segment(r, &note, fd);
			continue;
		}
		r->blocks++;
		r->wrong += !is_right(r, &note);
		if (note.mark % 3 == 0)
			r->last = note;
		else
			put(r->sock, &back, NULL);
	}
}

static void blocks_of_a_growing_arena(void)
{
	struct reader r = {0};
	struct avp_peer_id peer;
	struct note note;
	int s[2], fd;
	pid_t pid;

	CU_ASSERT_EQUAL_FATAL(
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s), 0);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		close(s[0]);
		owner(s[1]);
	}
	close(s[1]);
	r.sock = s[0];
	read_all(&r);
	CU_ASSERT_EQUAL(r.blocks, ROUNDS);
	CU_ASSERT_EQUAL(r.wrong, 0);
	CU_ASSERT(r.n >= 4);

	/* Killed: its memory is as it was, for as long as we map it. */
	CU_ASSERT_EQUAL(avp_peer_open(&peer, s[0], NULL), AVP_OK);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	CU_ASSERT_EQUAL(get(s[0], &note, &fd), AVP_CLOSED);
	CU_ASSERT(is_right(&r, &r.last));
	avp_peer_close(&peer);
	for (unsigned i = 1; i <= r.n; i++)
		avp_segment_close(&r.segments[i]);
	close(s[0]);
}

int main(void)
{
	static const struct test tests[] = {
		TEST(blocks_of_a_growing_arena),
		{0},
	};

	return test_main("shm_processes", tests);
}
