/* SPDX-License-Identifier: Apache-2.0 */
/* Who is at the other end of a socket, and whether that process still lives. */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shm/shm_internal.h"

/* Newer than Debian 12's headers. */
#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif

/* The errors that say: that process has ended and was waited for. */
static bool is_gone(int error)
{
	return error == ESRCH || error == EINVAL;
}

/* -1, with errno, if there is none. */
static int open_pidfd(int sock, pid_t pid)
{
	socklen_t length = sizeof(int);
	int fd;

	if (!getsockopt(sock, SOL_SOCKET, SO_PEERPIDFD, &fd, &length))
		return fd;
	if (errno != ENOPROTOOPT || pid <= 0)
		return -1;
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

int avp_peer_open(struct avp_peer_id *peer, int sock, struct avp_reason *why)
{
	struct ucred cred;
	socklen_t length = sizeof(cred);
	int fd;

	if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &cred, &length))
		return avp__fail(why, AVP_IO, "SO_PEERCRED: %s",
				 strerror(errno));
	/* Of a socket that is not connected: pid 0, and no uid. */
	if (cred.uid == (uid_t)-1)
		return avp__fail(why, AVP_USAGE,
				 "the socket has no peer; connect it first");
	fd = open_pidfd(sock, cred.pid);
	if (fd < 0 && cred.pid > 0 && is_gone(errno))
		return avp__fail(why, AVP_CLOSED,
				 "the peer, process %d, has ended", cred.pid);
	if (fd < 0 && (errno == EMFILE || errno == ENFILE))
		return avp__fail(why, AVP_NO_MEMORY,
				 "no fd for the peer's pidfd: %s; raise "
				 "ulimit -n",
				 strerror(errno));
	/* Otherwise (old kernel, seccomp, hidden pid) hang-up must do. */
	*peer = (struct avp_peer_id){.pid = cred.pid,
				     .uid = cred.uid,
				     .gid = cred.gid,
				     .pidfd = fd < 0 ? -1 : fd};
	return AVP_OK;
}

void avp_peer_close(struct avp_peer_id *peer)
{
	if (peer->pidfd >= 0)
		close(peer->pidfd);
	peer->pidfd = -1;
}

int avp_pidfd_dead(int pidfd)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};

	/* poll ignores a negative fd: 0, not known to be dead. */
	return poll(&p, 1, 0) > 0 && p.revents & POLLIN;
}
