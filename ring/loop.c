/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <avp/ring.h>

#include "shm/reason.h"

#define BATCH 64 /* events taken from the kernel at once */

struct avp_loop {
	int epoll;
	int batch; /* events of the turn under way */
	struct epoll_event event[BATCH];
};

int avp_loop_open(struct avp_loop **out, struct avp_reason *why)
{
	struct avp_loop *loop = calloc(1, sizeof(*loop));

	if (!loop)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for a loop");
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll < 0) {
		int error = errno;

		free(loop);
		return avp__fail(why, AVP_IO, "epoll_create1: %s",
				 strerror(error));
	}
	*out = loop;
	return 0;
}

void avp_loop_close(struct avp_loop *loop)
{
	if (!loop)
		return;
	close(loop->epoll);
	free(loop);
}

static int control(struct avp_loop *loop, int what, struct avp_watch *watch,
		   struct avp_reason *why)
{
	struct epoll_event event = {
		.events = (watch->events & AVP_READABLE ? EPOLLIN : 0) |
			  (watch->events & AVP_WRITABLE ? EPOLLOUT : 0),
		.data.ptr = watch,
	};

	if (epoll_ctl(loop->epoll, what, watch->fd, &event))
		return avp__fail(why, errno == ENOMEM ? AVP_NO_MEMORY : AVP_IO,
				 "epoll_ctl on fd %d: %s", watch->fd,
				 strerror(errno));
	return 0;
}

int avp_loop_add(struct avp_loop *loop, struct avp_watch *watch,
		 struct avp_reason *why)
{
	return control(loop, EPOLL_CTL_ADD, watch, why);
}

int avp_loop_change(struct avp_loop *loop, struct avp_watch *watch,
		    struct avp_reason *why)
{
	return control(loop, EPOLL_CTL_MOD, watch, why);
}

void avp_loop_remove(struct avp_loop *loop, struct avp_watch *watch)
{
	epoll_ctl(loop->epoll, EPOLL_CTL_DEL, watch->fd, NULL);
	for (int i = 0; i < loop->batch; i++)
		if (loop->event[i].data.ptr == watch)
			loop->event[i].data.ptr = NULL;
}

static int wait_events(struct avp_loop *loop, int64_t timeout_ns)
{
	struct timespec timeout = { timeout_ns / 1000000000,
				    timeout_ns % 1000000000 };
	int n = epoll_pwait2(loop->epoll, loop->event, BATCH,
			     timeout_ns < 0 ? NULL : &timeout, NULL);

	if (n < 0 && errno == ENOSYS) /* before Linux 5.11 */
		n = epoll_wait(loop->epoll, loop->event, BATCH,
			       timeout_ns < 0 ? -1 :
						(int)((timeout_ns + 999999) /
						      1000000));
	return n;
}

int avp_loop_run(struct avp_loop *loop, int64_t timeout_ns)
{
	int calls = 0;
	int n = wait_events(loop, timeout_ns);

	if (n < 0)
		return errno == EINTR ? 0 : AVP_IO;
	loop->batch = n;
	for (int i = 0; i < n; i++) {
		struct avp_watch *watch = loop->event[i].data.ptr;
		uint32_t got = loop->event[i].events;

		if (!watch)
			continue;
		watch->ready(watch,
			     (got & ~(uint32_t)EPOLLOUT ? AVP_READABLE : 0) |
				     (got & EPOLLOUT ? AVP_WRITABLE : 0));
		calls++;
	}
	loop->batch = 0;
	return calls;
}

int avp_loop_fd(const struct avp_loop *loop)
{
	return loop->epoll;
}

const char *avp_loop_backend(const struct avp_loop *loop)
{
	(void)loop;
	return "epoll";
}
