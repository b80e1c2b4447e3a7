/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop's front: picks a backend, and checks what both need checked,
 * so that they answer alike.
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include "ring/loop_internal.h"

static_assert(POLLIN == 1 && POLLOUT == 4 && EPOLLIN == 1 && EPOLLOUT == 4,
	      "avp__loop_mask()");

/* The first that this system has. */
static const struct avp__loop_ops *const backend[] = {&avp__loop_uring,
						      &avp__loop_epoll};
#define BACKENDS (sizeof(backend) / sizeof(*backend))

static int open_any(struct avp_loop **out, struct avp_reason *why)
{
	int error = AVP_UNSUPPORTED;

	for (size_t i = 0; i < BACKENDS && error; i++) {
		error = backend[i]->open(out, why);
		if (!error)
			(*out)->ops = backend[i];
	}
	return error;
}

static int open_named(struct avp_loop **out, const char *name,
		      struct avp_reason *why)
{
	for (size_t i = 0; i < BACKENDS; i++) {
		int error;

		if (strcmp(name, backend[i]->name))
			continue;
		error = backend[i]->open(out, why);
		if (!error)
			(*out)->ops = backend[i];
		return error;
	}
	return avp__fail(
		why, AVP_USAGE,
		"AVP_LOOP is \"%.40s\"; it may be io_uring or epoll, or "
		"unset for the best that this system has",
		name);
}

int avp_loop_open(struct avp_loop **out, struct avp_reason *why)
{
	const char *name = secure_getenv("AVP_LOOP");
	struct avp__fork_guard guard;
	struct avp_loop *loop;
	int error = avp__fork_guard_init(&guard, why);

	if (error)
		return error;
	if (name && *name)
		error = open_named(&loop, name, why);
	else
		error = open_any(&loop, why);
	if (error) {
		avp__fork_guard_fini(&guard);
		return error;
	}
	loop->guard = guard;
	*out = loop;
	return 0;
}

void avp_loop_close(struct avp_loop *loop)
{
	struct avp__fork_guard guard;

	if (!loop)
		return;
	guard = loop->guard;
	loop->ops->close(loop, avp__forked(&guard));
	avp__fork_guard_fini(&guard);
}

static int check(const struct avp_loop *loop, const struct avp_watch *watch,
		 struct avp_reason *why)
{
	struct stat st;

	if (avp__forked(&loop->guard))
		return avp__fail(why, AVP_FORKED,
				 "this loop belongs to the parent process");
	if (!watch->ready || watch->events & ~(AVP_READABLE | AVP_WRITABLE))
		return avp__fail(why, AVP_USAGE,
				 "a watch needs a callback, and events of "
				 "AVP_READABLE | AVP_WRITABLE, not %#x",
				 watch->events);
	if (fstat(watch->fd, &st))
		return avp__fail(why, AVP_USAGE, "fd %d: %s", watch->fd,
				 strerror(errno));
	if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))
		return avp__fail(
			why, AVP_USAGE,
			"fd %d is a file, which is always ready: there "
			"is nothing to wait for",
			watch->fd);
	return 0;
}

int avp_loop_add(struct avp_loop *loop, struct avp_watch *watch,
		 struct avp_reason *why)
{
	int error = check(loop, watch, why);

	return error ? error : loop->ops->add(loop, watch, why);
}

int avp_loop_change(struct avp_loop *loop, struct avp_watch *watch,
		    struct avp_reason *why)
{
	int error = check(loop, watch, why);

	return error ? error : loop->ops->change(loop, watch, why);
}

void avp_loop_remove(struct avp_loop *loop, struct avp_watch *watch)
{
	if (!avp__forked(&loop->guard))
		loop->ops->remove(loop, watch);
}

int avp_loop_sync(struct avp_loop *loop, struct avp_sync *sync)
{
	if (avp__forked(&loop->guard))
		return AVP_FORKED;
	return loop->ops->sync(loop, sync);
}

int avp_loop_run(struct avp_loop *loop, int64_t timeout_ns)
{
	int calls;

	if (avp__forked(&loop->guard))
		return AVP_FORKED;
	if (loop->running)
		return AVP_USAGE;
	loop->running = true;
	calls = loop->ops->run(loop, timeout_ns);
	loop->running = false;
	return calls;
}

int avp_loop_fd(struct avp_loop *loop)
{
	if (avp__forked(&loop->guard))
		return AVP_FORKED;
	loop->foreign = true;
	return loop->ops->fd(loop);
}

bool avp__loop_has_bells(const struct avp_loop *loop)
{
	return loop->bells;
}

int avp__loop_bell_add(struct avp_loop *loop, struct avp__bell *bell,
		       struct avp_reason *why)
{
	if (avp__forked(&loop->guard))
		return avp__fail(why, AVP_FORKED,
				 "this loop belongs to the parent process");
	if (!loop->bells)
		return avp__fail(why, AVP_UNSUPPORTED,
				 "%s here cannot wait for a word of memory",
				 loop->ops->name);
	return loop->ops->bell_add(loop, bell, why);
}

void avp__loop_bell_remove(struct avp_loop *loop, struct avp__bell *bell)
{
	if (!avp__forked(&loop->guard))
		loop->ops->bell_remove(loop, bell);
}

const char *avp_loop_backend(const struct avp_loop *loop)
{
	return loop->ops->name;
}
