/* SPDX-License-Identifier: Apache-2.0 */
/* The event loop on epoll, level-triggered: for systems that forbid
 * io_uring. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "ring/loop_internal.h"

#define BATCH 64 /* events taken from the kernel at once */

struct epoll_loop {
	struct avp_loop base;
	int epoll;
	int batch; /* events of the turn under way */
	struct epoll_event event[BATCH];
};

static struct epoll_loop *self(struct avp_loop *loop)
{
	return (struct epoll_loop *)loop;
}

static int epoll_open(struct avp_loop **out, struct avp_reason *why)
{
	struct epoll_loop *loop = calloc(1, sizeof(*loop));

	if (!loop)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for a loop");
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll < 0) {
		int error = errno;

		free(loop);
		return avp__fail(why, AVP_IO, "epoll_create1: %s",
				 strerror(error));
	}
	*out = &loop->base;
	return 0;
}

static void epoll_close(struct avp_loop *base, bool forked)
{
	(void)forked; /* an fd of one's own either way */
	close(self(base)->epoll);
	free(base);
}

static int control(struct avp_loop *loop, int what, struct avp_watch *watch,
		   struct avp_reason *why)
{
	struct epoll_event event = {
		.events = avp__loop_mask(watch->events),
		.data.ptr = watch,
	};
	int code;

	if (!epoll_ctl(self(loop)->epoll, what, watch->fd, &event))
		return 0;
	if (errno == EEXIST)
		return avp__fail(why, AVP_USAGE, "fd %d is watched already",
				 watch->fd);
	if (errno == ENOENT)
		return avp__fail(why, AVP_USAGE, "fd %d is not watched",
				 watch->fd);
	code = errno == ENOMEM || errno == ENOSPC ? AVP_NO_MEMORY : AVP_IO;
	return avp__fail(why, code, "epoll_ctl on fd %d: %s", watch->fd,
			 strerror(errno));
}

static int epoll_add(struct avp_loop *loop, struct avp_watch *watch,
		     struct avp_reason *why)
{
	return control(loop, EPOLL_CTL_ADD, watch, why);
}

/* Events of the turn that are stale now are not told: they come again. */
static void forget(struct epoll_loop *loop, const struct avp_watch *watch)
{
	for (int i = 0; i < loop->batch; i++)
		if (loop->event[i].data.ptr == watch)
			loop->event[i].data.ptr = NULL;
}

static int epoll_change(struct avp_loop *loop, struct avp_watch *watch,
			struct avp_reason *why)
{
	int error = control(loop, EPOLL_CTL_MOD, watch, why);

	if (!error)
		forget(self(loop), watch);
	return error;
}

static void epoll_remove(struct avp_loop *loop, struct avp_watch *watch)
{
	epoll_ctl(self(loop)->epoll, EPOLL_CTL_DEL, watch->fd, NULL);
	forget(self(loop), watch);
}

/* No kernel call that waits for a disk can be waited for by epoll. */
static int epoll_sync(struct avp_loop *loop, struct avp_sync *sync)
{
	(void)loop;
	(void)sync;
	return AVP_UNSUPPORTED;
}

static int wait_events(struct epoll_loop *loop, int64_t timeout_ns)
{
	struct timespec timeout = {timeout_ns / 1000000000,
				   timeout_ns % 1000000000};
	int64_t ms = timeout_ns < 0 ? -1 : (timeout_ns + 999999) / 1000000;
	int n = epoll_pwait2(loop->epoll, loop->event, BATCH,
			     timeout_ns < 0 ? NULL : &timeout, NULL);

	if (n < 0 && errno != EINTR) /* before Linux 5.11, or a filter */
		n = epoll_wait(loop->epoll, loop->event, BATCH,
			       ms > INT32_MAX ? INT32_MAX : (int)ms);
	return n;
}

static int epoll_run(struct avp_loop *base, int64_t timeout_ns)
{
	struct epoll_loop *loop = self(base);
	int calls = 0, n = wait_events(loop, timeout_ns);

	if (n < 0)
		return errno == EINTR ? 0 : AVP_IO;
	loop->batch = n;
	for (int i = 0; i < n; i++) {
		struct avp_watch *watch = loop->event[i].data.ptr;

		if (!watch)
			continue;
		watch->ready(watch, avp__loop_events(loop->event[i].events));
		calls++;
	}
	loop->batch = 0;
	return calls;
}

static int epoll_fd(struct avp_loop *loop)
{
	return self(loop)->epoll;
}

const struct avp__loop_ops avp__loop_epoll = {
	.name = "epoll",
	.open = epoll_open,
	.close = epoll_close,
	.add = epoll_add,
	.change = epoll_change,
	.remove = epoll_remove,
	.sync = epoll_sync,
	.run = epoll_run,
	.fd = epoll_fd,
};
