/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directory in which the agents of a bench meet. A process that does nothing
 * else keeps it: it waits until every process of the bench has let go of a pipe,
 * by ending, even by SIGKILL, and removes what is left.
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ahp/cmd_bench.h"

#define TREE_FDS 8

static pid_t keeper;
static int held = -1; /* our end of its pipe; every child inherits it */

static int remove_one(const char *path, const struct stat *st, int type,
		      struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	remove(path);
	return 0;
}

__attribute__((noreturn)) static void keep(int fd, const char *path)
{
	static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
	char byte;

	for (size_t i = 0; i < sizeof(ignored) / sizeof(*ignored); i++)
		signal(ignored[i], SIG_IGN);
	while (read(fd, &byte, 1) < 0 && errno == EINTR)
		continue;
	nftw(path, remove_one, TREE_FDS, FTW_DEPTH | FTW_PHYS);
	_exit(0);
}

static int failed(struct avp_reason *why, const char *what)
{
	return avp__fail(why, AVP_IO, "%s: %s", what, strerror(errno));
}

int bench_dir_make(char *path, size_t cap, struct avp_reason *why)
{
	const char *base = getenv("TMPDIR");
	int fds[2];

	if ((size_t)snprintf(path, cap, "%s/avp-bench-XXXXXX",
			     base && *base ? base : "/tmp") >= cap)
		return avp__fail(why, AVP_IO,
				 "$TMPDIR is longer than %zu bytes", cap);
	if (pipe(fds)) /* not CLOEXEC: a started receiver holds it too */
		return failed(why, "pipe");
	if (!mkdtemp(path)) {
		failed(why, path);
		goto fail_pipe;
	}
	keeper = fork();
	if (keeper < 0) {
		failed(why, "fork");
		rmdir(path);
		goto fail_pipe;
	}
	if (!keeper) {
		close(fds[1]);
		keep(fds[0], path);
	}
	close(fds[0]);
	held = fds[1];
	return 0;
fail_pipe:
	close(fds[0]);
	close(fds[1]);
	return AVP_IO;
}

void bench_dir_remove(void)
{
	close(held);
	while (waitpid(keeper, NULL, 0) < 0 && errno == EINTR)
		continue;
}
