/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop on io_uring.
 *
 * Each watch is a one-shot poll, armed again after its callback. A poll that is
 * armed on what is ready completes at once, which is level-triggering; the new
 * poll goes to the kernel with the system call that waits next, so that it
 * costs none. (A multishot poll tells edges only: to see that a callback left
 * bytes unread would take a system call more for each event.) At most one poll
 * of a watch is under way, hence at most one completion that counts.
 *
 * Bells (bell.h) are futex waits, one under way for each, armed again in the
 * same way. liburing 2.3 does not know them: their fields are filled in here.
 *
 * A completion carries a name: place (an fd, or BELL | a bell's number) and
 * generation. The generation changes with every arming and every removal, so
 * that what was under way when a watch was removed is thrown away. Removing
 * cancels at once, since a poll holds the file: the peer of a socket would not
 * see it closed.
 *
 * No COOP_TASKRUN: with it a completion waits until the thread that armed the
 * poll enters the kernel, while it may be computing and another be waiting in
 * the loop (a millisecond and more was seen). An agent that is bound to one
 * thread could have it; it gains nothing that was measured (README.md).
 *
 * A request ends with ECANCELED when the thread that armed it ends: it is armed
 * again by the one that runs the loop.
 */
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ring/bell.h"
#include "ring/loop_internal.h"

#define SQ_ENTRIES 256	/* polls that go to the kernel at once */
#define CQ_ENTRIES 4096 /* more overflow into the kernel's own list: slower */
#define FEATURES                                         \
	(IORING_FEAT_NODROP /* 5.5: the list above */ |  \
	 IORING_FEAT_EXT_ARG /* 5.11: waiting timed */ | \
	 IORING_FEAT_CQE_SKIP /* 5.17: silent removal */)

/* user_data whose places are beyond any bell's */
#define NOTHING UINT64_MAX	 /* needs no answer */
#define SYNCED	(UINT64_MAX - 1) /* the fdatasync() that is under way */

/* IORING_OP_FUTEX_WAIT of Linux 6.7, and the flags of its futex_waitv's
 * kind. */
#define FUTEX_WAIT_OP 51
#define FUTEX_SIZE_U32 \
	2 /* FUTEX2_SIZE_U32; shared, as FUTEX2_PRIVATE is not set */
#define FUTEX_ANY UINT32_MAX /* FUTEX_BITSET_MATCH_ANY */

#define BELL (1u << 31) /* in a place: no fd is that high */

struct entry {
	struct avp_watch *watch; /* NULL: none for this fd, or a bell */
	struct avp__bell *bell;
	uint32_t generation;
	bool armed; /* a request of this generation is under way */
	bool dirty; /* it is in the list of what has to be armed */
};

struct table {
	struct entry *entry;
	uint32_t room;
};

struct uring_loop {
	struct avp_loop base;
	struct io_uring ring;
	struct table fds, bells;
	uint32_t *dirty; /* places: as many as both tables have */
	uint32_t dirties;
	bool cancelled; /* in this turn a poll ended that nobody cancelled */
	struct avp_sync *sync; /* under way, or NULL */
	bool sync_due;	       /* it is still to be told to the kernel */
};

static struct uring_loop *self(struct avp_loop *loop)
{
	return (struct uring_loop *)loop;
}

/* ---- opening and closing ------------------------------------------------ */

/* A filter may forbid entering a ring that it let us make. */
static int try_ring(struct io_uring *ring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;
	int got;

	io_uring_prep_nop(sqe);
	sqe->user_data = NOTHING;
	got = io_uring_submit_and_wait(ring, 1);
	if (got < 0)
		return got;
	got = io_uring_peek_cqe(ring, &cqe);
	if (!got)
		io_uring_cqe_seen(ring, cqe);
	return got;
}

static int init_ring(struct io_uring *ring, struct avp_reason *why)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
		.cq_entries = CQ_ENTRIES,
	};
	int error = io_uring_queue_init_params(SQ_ENTRIES, ring, &params);

	if (error)
		return avp__fail(why, AVP_UNSUPPORTED,
				 "io_uring_setup: %s; a seccomp filter or "
				 "kernel.io_uring_disabled may forbid it: use "
				 "AVP_LOOP=epoll",
				 strerror(-error));
	error = (ring->features & FEATURES) != FEATURES ? -ENOSYS : 0;
	if (!error)
		error = io_uring_ring_dontfork(ring);
	if (!error)
		error = try_ring(ring);
	if (!error)
		return 0;
	io_uring_queue_exit(ring);
	return avp__fail(why, AVP_UNSUPPORTED,
			 "io_uring: %s (Linux 5.17 has what is needed): use "
			 "AVP_LOOP=epoll",
			 strerror(-error));
}

/* Its absence is no error: links have sockets. */
static bool knows_futexes(struct io_uring *ring)
{
	struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
	bool knows = probe && io_uring_opcode_supported(probe, FUTEX_WAIT_OP);

	io_uring_free_probe(probe);
	return knows;
}

static int uring_open(struct avp_loop **out, struct avp_reason *why)
{
	struct uring_loop *loop = calloc(1, sizeof(*loop));
	int error;

	if (!loop)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for a loop");
	error = init_ring(&loop->ring, why);
	if (error) {
		free(loop);
		return error;
	}
	loop->base.bells = knows_futexes(&loop->ring);
	*out = &loop->base;
	return 0;
}

/* ---- requests ----------------------------------------------------------- */

static struct entry *entry_at(const struct uring_loop *loop, uint32_t place)
{
	return place & BELL ? &loop->bells.entry[place & ~BELL]
			    : &loop->fds.entry[place];
}

static uint64_t name_of(const struct uring_loop *loop, uint32_t place)
{
	return (uint64_t)entry_at(loop, place)->generation << 32 | place;
}

static struct io_uring_sqe *next_sqe(struct uring_loop *loop)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&loop->ring);

	if (sqe)
		return sqe;
	io_uring_submit(&loop->ring);
	return io_uring_get_sqe(&loop->ring);
}

static void mark_dirty(struct uring_loop *loop, uint32_t place)
{
	struct entry *e = entry_at(loop, place);

	if (e->dirty)
		return;
	e->dirty = true;
	loop->dirty[loop->dirties++] = place;
}

static void prepare_wait(struct io_uring_sqe *sqe, const struct avp__bell *bell)
{
	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = FUTEX_WAIT_OP;
	sqe->fd = FUTEX_SIZE_U32;
	sqe->addr = (uintptr_t)bell->word;
	sqe->addr2 = bell->seen;
	sqe->addr3 = FUTEX_ANY;
}

static bool arm(struct uring_loop *loop, uint32_t place)
{
	struct entry *e = entry_at(loop, place);
	struct io_uring_sqe *sqe;

	if ((!e->watch && !e->bell) || e->armed)
		return true;
	sqe = next_sqe(loop);
	if (!sqe)
		return false;
	e->generation++;
	e->armed = true;
	if (e->bell)
		prepare_wait(sqe, e->bell);
	else
		io_uring_prep_poll_add(sqe, (int)place,
				       avp__loop_mask(e->watch->events));
	sqe->user_data = name_of(loop, place);
	return true;
}

static void arm_sync(struct uring_loop *loop)
{
	struct io_uring_sqe *sqe = next_sqe(loop);

	if (!sqe)
		return;
	io_uring_prep_fsync(sqe, loop->sync->fd, IORING_FSYNC_DATASYNC);
	sqe->user_data = SYNCED;
	loop->sync_due = false;
}

/* What the kernel takes no more of stays for the next turn. */
static void arm_dirty(struct uring_loop *loop)
{
	if (loop->sync_due)
		arm_sync(loop);
	while (loop->dirties) {
		uint32_t place = loop->dirty[loop->dirties - 1];

		if (!arm(loop, place))
			return;
		entry_at(loop, place)->dirty = false;
		loop->dirties--;
	}
}

static void disarm(struct uring_loop *loop, uint32_t place)
{
	struct entry *e = entry_at(loop, place);
	struct io_uring_sqe *sqe = e->armed ? next_sqe(loop) : NULL;

	if (sqe) {
		if (place & BELL)
			io_uring_prep_cancel64(sqe, name_of(loop, place), 0);
		else
			io_uring_prep_poll_remove(sqe, name_of(loop, place));
		sqe->user_data = NOTHING;
		sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
	}
	e->armed = false;
	e->generation++;
}

/* For who polls our fd: what is not in the kernel cannot make it readable. */
static void submit(struct uring_loop *loop)
{
	arm_dirty(loop);
	if (io_uring_sq_ready(&loop->ring))
		io_uring_submit(&loop->ring);
}

/* ---- completions -------------------------------------------------------- */

/* What a completion is for; NULL if it is stale. */
static struct entry *entry_of(const struct uring_loop *loop, uint64_t name)
{
	uint32_t place = (uint32_t)name;
	const struct table *table = place & BELL ? &loop->bells : &loop->fds;
	struct entry *e;

	if ((place & ~BELL) >= table->room)
		return NULL;
	e = entry_at(loop, place);
	return e->armed && e->generation == name >> 32 ? e : NULL;
}

/* Takes stale completions off the queue's head, so that nobody wakes for
 * them. */
static void drop_stale(struct uring_loop *loop)
{
	struct io_uring_cqe *cqe;

	while (io_uring_cq_ready(&loop->ring) &&
	       !io_uring_peek_cqe(&loop->ring, &cqe) &&
	       cqe->user_data != SYNCED && !entry_of(loop, cqe->user_data))
		io_uring_cqe_seen(&loop->ring, cqe);
}

/* One whose thread has ended was cancelled: it is begun again. */
static int complete_sync(struct uring_loop *loop, int result)
{
	struct avp_sync *sync = loop->sync;

	if (result == -ECANCELED || result == -EINTR) {
		loop->sync_due = loop->cancelled = true;
		return 0;
	}
	loop->sync = NULL;
	sync->done(sync, result < 0 ? -result : 0);
	return 1;
}

/* EAGAIN: it was rung before the wait began. */
static int hear_bell(struct uring_loop *loop, struct entry *e, uint32_t place,
		     int result)
{
	if (result && result != -EAGAIN)
		return 0; /* no such memory: the sleeper's time-out serves */
	/* acquire: pairs with the release in avp__lane_ring() */
	e->bell->seen =
		atomic_load_explicit(e->bell->word, memory_order_acquire);
	mark_dirty(loop, place);
	e->bell->rung(e->bell);
	return 1;
}

static int complete(struct uring_loop *loop, uint64_t name, int result)
{
	struct entry *e = entry_of(loop, name);

	if (name == SYNCED)
		return complete_sync(loop, result);
	if (!e)
		return 0;
	e->armed = false;
	if (result == -ECANCELED) {
		mark_dirty(loop, (uint32_t)name);
		loop->cancelled = true;
		return 0;
	}
	if (e->bell)
		return hear_bell(loop, e, (uint32_t)name, result);
	if (result != -EBADF) /* closed while watched: nothing to arm */
		mark_dirty(loop, (uint32_t)name);
	e->watch->ready(e->watch, result < 0
					  ? AVP_READABLE
					  : avp__loop_events((uint32_t)result));
	return 1;
}

/* As many as are there now: what callbacks cause is for the next turn. */
static int deliver(struct uring_loop *loop)
{
	unsigned ready = io_uring_cq_ready(&loop->ring);
	struct io_uring_cqe *cqe;
	int calls = 0;

	while (ready-- && !io_uring_peek_cqe(&loop->ring, &cqe)) {
		uint64_t name = cqe->user_data;
		int result = cqe->res;

		io_uring_cqe_seen(&loop->ring, cqe);
		calls += complete(loop, name, result);
	}
	return calls;
}

/* ---- turns -------------------------------------------------------------- */

static bool overflown(const struct uring_loop *loop)
{
	return IO_URING_READ_ONCE(*loop->ring.sq.kflags) &
	       IORING_SQ_CQ_OVERFLOW;
}

/* 0, or -ETIME, -EINTR and other errors of the system. */
static int enter(struct uring_loop *loop, int64_t timeout_ns)
{
	struct __kernel_timespec timeout = {timeout_ns / 1000000000,
					    timeout_ns % 1000000000};
	struct io_uring_cqe *cqe;
	int got = 0;

	arm_dirty(loop);
	if (timeout_ns)
		got = io_uring_submit_and_wait_timeout(
			&loop->ring, &cqe, 1, timeout_ns < 0 ? NULL : &timeout,
			NULL);
	else if (io_uring_sq_ready(&loop->ring))
		got = io_uring_submit(&loop->ring);
	if (overflown(loop))
		io_uring_get_events(&loop->ring);
	return got < 0 ? got : 0;
}

static int64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ll + now.tv_nsec;
}

static int uring_run(struct avp_loop *base, int64_t timeout_ns)
{
	struct uring_loop *loop = self(base);
	int64_t end_ns = timeout_ns > 0 ? now_ns() + timeout_ns : 0;
	int calls, got;
	bool again;

	do {
		loop->cancelled = false;
		got = enter(loop, timeout_ns);
		calls = deliver(loop);
		/* Woken for what was stale: the rest of the time. */
		if (timeout_ns > 0) {
			timeout_ns = end_ns - now_ns();
			again = timeout_ns > 0;
		} else {
			again = timeout_ns < 0 || loop->cancelled;
		}
	} while (again && !calls && !got);
	if (base->foreign)
		submit(loop);
	if (!calls && got && got != -ETIME && got != -EINTR && got != -EAGAIN &&
	    got != -EBUSY)
		return AVP_IO;
	return calls;
}

/* ---- watches ------------------------------------------------------------ */

static int grow(struct uring_loop *loop, struct table *table, uint32_t at,
		struct avp_reason *why)
{
	uint32_t room = table->room ? table->room : 64;
	uint32_t others = loop->fds.room + loop->bells.room - table->room;
	struct entry *entry;
	uint32_t *dirty;

	while (room <= at)
		room *= 2;
	dirty = realloc(loop->dirty, (others + room) * sizeof(*dirty));
	if (dirty)
		loop->dirty = dirty;
	entry = dirty ? realloc(table->entry, room * sizeof(*entry)) : NULL;
	if (!entry)
		return avp__fail(why, AVP_NO_MEMORY,
				 "no memory to wait for %u things", room);
	memset(entry + table->room, 0, (room - table->room) * sizeof(*entry));
	table->entry = entry;
	table->room = room;
	return 0;
}

static int uring_add(struct avp_loop *base, struct avp_watch *watch,
		     struct avp_reason *why)
{
	struct uring_loop *loop = self(base);
	uint32_t fd = (uint32_t)watch->fd;
	int error = fd < loop->fds.room ? 0 : grow(loop, &loop->fds, fd, why);

	if (error)
		return error;
	if (loop->fds.entry[fd].watch)
		return avp__fail(why, AVP_USAGE, "fd %u is watched already",
				 fd);
	loop->fds.entry[fd].watch = watch;
	mark_dirty(loop, fd);
	if (base->foreign && !base->running)
		submit(loop);
	return 0;
}

static bool watched(const struct uring_loop *loop,
		    const struct avp_watch *watch)
{
	uint32_t fd = (uint32_t)watch->fd;

	return fd < loop->fds.room && loop->fds.entry[fd].watch == watch;
}

static int uring_change(struct avp_loop *base, struct avp_watch *watch,
			struct avp_reason *why)
{
	struct uring_loop *loop = self(base);

	if (!watched(loop, watch))
		return avp__fail(why, AVP_USAGE, "fd %d is not watched",
				 watch->fd);
	disarm(loop, (uint32_t)watch->fd);
	mark_dirty(loop, (uint32_t)watch->fd);
	if (base->foreign && !base->running)
		submit(loop);
	return 0;
}

/* Cancels what was just disarmed, before its fd or memory goes. */
static void cancel(struct uring_loop *loop)
{
	if (io_uring_sq_ready(&loop->ring))
		io_uring_submit(&loop->ring);
	drop_stale(loop);
}

static void uring_remove(struct avp_loop *base, struct avp_watch *watch)
{
	struct uring_loop *loop = self(base);

	if (!watched(loop, watch))
		return;
	loop->fds.entry[watch->fd].watch = NULL;
	disarm(loop, (uint32_t)watch->fd);
	cancel(loop);
}

static int uring_bell_add(struct avp_loop *base, struct avp__bell *bell,
			  struct avp_reason *why)
{
	struct uring_loop *loop = self(base);
	struct table *bells = &loop->bells;
	uint32_t at = 0;

	while (at < bells->room && bells->entry[at].bell)
		at++;
	if (at == bells->room && grow(loop, bells, at, why))
		return AVP_NO_MEMORY;
	bell->place = BELL | at;
	bells->entry[at].bell = bell;
	mark_dirty(loop, bell->place);
	if (base->foreign && !base->running)
		submit(loop);
	return 0;
}

static void uring_bell_remove(struct avp_loop *base, struct avp__bell *bell)
{
	struct uring_loop *loop = self(base);

	entry_at(loop, bell->place)->bell = NULL;
	disarm(loop, bell->place);
	cancel(loop);
}

static int uring_sync(struct avp_loop *base, struct avp_sync *sync)
{
	struct uring_loop *loop = self(base);

	if (loop->sync)
		return AVP_AGAIN;
	loop->sync = sync;
	loop->sync_due = true;
	if (base->foreign && !base->running)
		submit(loop);
	return 0;
}

static void uring_close(struct avp_loop *base, bool forked)
{
	struct uring_loop *loop = self(base);

	if (forked) {
		/* The ring is not mapped here: at its address may be ours. */
		close(loop->ring.ring_fd);
	} else {
		/* The kernel ends them some time after; files hang on them. */
		for (uint32_t fd = 0; fd < loop->fds.room; fd++)
			disarm(loop, fd);
		for (uint32_t i = 0; i < loop->bells.room; i++)
			disarm(loop, BELL | i);
		io_uring_submit(&loop->ring);
		io_uring_queue_exit(&loop->ring);
	}
	free(loop->fds.entry);
	free(loop->bells.entry);
	free(loop->dirty);
	free(loop);
}

static int uring_fd(struct avp_loop *base)
{
	if (!base->running)
		submit(self(base));
	return self(base)->ring.ring_fd;
}

const struct avp__loop_ops avp__loop_uring = {
	.name = "io_uring",
	.open = uring_open,
	.close = uring_close,
	.add = uring_add,
	.change = uring_change,
	.remove = uring_remove,
	.sync = uring_sync,
	.run = uring_run,
	.fd = uring_fd,
	.bell_add = uring_bell_add,
	.bell_remove = uring_bell_remove,
};
