/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages with fds over a SOCK_SEQPACKET socket.
 *
 * The kernel installs received fds before we can judge them, so the only way
 * not to get any is to offer no room for them: it then drops them and says
 * MSG_CTRUNC. The room offered is CMSG_LEN, not CMSG_SPACE, whose padding would
 * let one more fd in than was allowed.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shm/shm_internal.h"

/* Room for the control message, aligned for its header. */
union control {
	struct cmsghdr header;
	char bytes[CMSG_SPACE(AVP_FD_MAX * sizeof(int))];
};

/* ---- sending ------------------------------------------------------------ */

static int send_answer(int error, size_t len, struct avp_reason *why)
{
	switch (error) {
	case EAGAIN:
	case ENOBUFS:
		return avp__fail(why, AVP_AGAIN, "the peer's queue is full");
	case EPIPE:
	case ECONNRESET:
	case ENOTCONN:
		return avp__fail(why, AVP_CLOSED, "the peer hung up: %s",
				 strerror(error));
	case EMSGSIZE:
		return avp__fail(why, AVP_TOO_LARGE,
				 "a message of %zu bytes is over the socket's "
				 "send buffer",
				 len);
	case ETOOMANYREFS:
		return avp__fail(why, AVP_NO_MEMORY,
				 "too many fds of this user are in flight; "
				 "raise ulimit -n or wait until peers read");
	case ENOMEM:
		return avp__fail(why, AVP_NO_MEMORY,
				 "no kernel memory for a message");
	default: return avp__fail(why, AVP_IO, "sendmsg: %s", strerror(error));
	}
}

int avp_fd_send(int sock, const void *msg, size_t len, const int *fds,
		unsigned n, struct avp_reason *why)
{
	struct iovec iov = {.iov_base = (void *)msg, .iov_len = len};
	struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};
	union control control;
	ssize_t sent;

	if (!len || n > AVP_FD_MAX)
		return avp__fail(
			why, AVP_USAGE,
			"%zu bytes with %u fds; at least 1 byte and at "
			"most %d fds make a message",
			len, n, AVP_FD_MAX);
	if (n) {
		memset(&control, 0, sizeof(control));
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(&control.header), fds, n * sizeof(int));
		header.msg_control = &control;
		header.msg_controllen = CMSG_SPACE(n * sizeof(int));
	}
	do
		sent = sendmsg(sock, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	return sent < 0 ? send_answer(errno, len, why) : AVP_OK;
}

/* ---- receiving ---------------------------------------------------------- */

/* What came in, before it is judged. */
struct received {
	ssize_t len;
	unsigned n;
	int flags;
	int fds[AVP_FD_MAX];
};

static void collect_fds(struct msghdr *header, struct received *r)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c;
	     c = CMSG_NXTHDR(header, c)) {
		size_t n;

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		if (n > AVP_FD_MAX - r->n)
			n = AVP_FD_MAX - r->n;
		memcpy(r->fds + r->n, CMSG_DATA(c), n * sizeof(int));
		r->n += (unsigned)n;
	}
}

/* 0 or an errno. */
static int receive(int sock, void *msg, size_t cap, unsigned max_fds,
		   struct received *r)
{
	struct iovec iov = {.iov_base = msg, .iov_len = cap};
	union control control;
	struct msghdr header;
	unsigned resets = 0;

	for (;;) {
		memset(&header, 0, sizeof(header));
		header.msg_iov = &iov;
		header.msg_iovlen = 1;
		if (max_fds) {
			header.msg_control = &control;
			header.msg_controllen = CMSG_LEN(max_fds * sizeof(int));
		}
		r->len =
			recvmsg(sock, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
		if (r->len >= 0)
			break;
		/* A peer that closed with our messages unread: the error is
		 * told once, and what it sent before is still to come. */
		if (errno == ECONNRESET && !resets++)
			continue;
		if (errno != EINTR)
			return errno;
	}
	r->n = 0;
	r->flags = header.msg_flags;
	collect_fds(&header, r);
	return 0;
}

static int receive_answer(int error, struct avp_reason *why)
{
	switch (error) {
	case EAGAIN: return avp__fail(why, AVP_AGAIN, "no message is there");
	case ECONNRESET:
	case ENOTCONN:
		return avp__fail(why, AVP_CLOSED, "the peer hung up: %s",
				 strerror(error));
	case ENOMEM:
	case ENOBUFS:
		return avp__fail(why, AVP_NO_MEMORY,
				 "no kernel memory for a message");
	default: return avp__fail(why, AVP_IO, "recvmsg: %s", strerror(error));
	}
}

static int judge(const struct received *r, size_t cap, unsigned max_fds,
		 struct avp_reason *why)
{
	if (r->flags & MSG_CTRUNC && r->n < max_fds)
		return avp__fail(why, AVP_NO_MEMORY,
				 "this process is at its fd limit: %u fds of a "
				 "message were lost; raise ulimit -n",
				 max_fds - r->n);
	if (r->flags & MSG_CTRUNC)
		return avp__fail(why, AVP_POISONED,
				 "the peer sent more fds than the %u allowed",
				 max_fds);
	if (r->flags & MSG_TRUNC)
		return avp__fail(why, AVP_POISONED,
				 "the peer's message is longer than the %zu "
				 "bytes allowed",
				 cap);
	if (!r->len)
		return avp__fail(why, AVP_CLOSED, "the peer hung up");
	return AVP_OK;
}

int avp_fd_receive(int sock, void *msg, size_t cap, size_t *len, int *fds,
		   unsigned max_fds, unsigned *n, struct avp_reason *why)
{
	struct received r;
	int code;

	if (!cap || max_fds > AVP_FD_MAX)
		return avp__fail(
			why, AVP_USAGE,
			"room for %zu bytes and %u fds; at least 1 and "
			"at most %d",
			cap, max_fds, AVP_FD_MAX);
	code = receive(sock, msg, cap, max_fds, &r);
	if (code)
		return receive_answer(code, why);
	code = judge(&r, cap, max_fds, why);
	if (code) {
		for (unsigned i = 0; i < r.n; i++)
			avp_fd_dispose(r.fds[i]);
		return code;
	}
	if (max_fds)
		memcpy(fds, r.fds, r.n * sizeof(int));
	if (n)
		*n = r.n;
	*len = (size_t)r.len;
	return AVP_OK;
}

/* ---- disposal ----------------------------------------------------------- */

static void *close_it(void *fd)
{
	close((int)(intptr_t)fd);
	return NULL;
}

void avp_fd_dispose(int fd)
{
	pthread_attr_t attr;
	sigset_t all, before;
	pthread_t thread;

	if (fd < 0)
		return;
	/* Only memfds and the like have seals: closing them never waits. */
	if (fcntl(fd, F_GET_SEALS) >= 0) {
		close(fd);
		return;
	}
	if (pthread_attr_init(&attr))
		return;
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	/* The application's signals are for its own threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	if (pthread_create(&thread, &attr, close_it, (void *)(intptr_t)fd))
		(void)fd; /* stays open, as the header says */
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
}
