/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Commands that are programs of their own, avpctl-NAME: what they link is
 * theirs alone. realign is one: OpenBLAS makes its threads and their buffers
 * when it is loaded, which costs every command and hangs where memory is
 * limited.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "gateway/cmd.h"

/* Below it OpenBLAS 0.3 may try for ever to get its threads' buffers. */
#define BLAS_ROOM ((rlim_t)1 << 30)

/* Beside avpctl in a build's folder; libexec/avp of the prefix it is under. */
static const char *const places[] = {"", "../libexec/avp/"};
#define PLACES (sizeof(places) / sizeof(*places))

/* The folder that this program lies in, with its slash. */
static int own_folder(char *to, size_t size)
{
	ssize_t n = readlink("/proc/self/exe", to, size - 1);
	char *slash;

	if (n < 0)
		return -1;
	to[n] = 0;
	slash = strrchr(to, '/');
	if (!slash)
		return -1;
	slash[1] = 0;
	return 0;
}

int cmd_helper(int argc, char **argv)
{
	char *const name = argv[0];
	char folder[4096], path[4096 + 128], self[64];
	struct rlimit room;

	(void)argc;
	if (own_folder(folder, sizeof(folder)))
		return cmd_failf(name, AVP_IO,
				 "cannot tell where avpctl lies, so not where "
				 "avpctl-%s does: mount /proc, or call it by "
				 "its path",
				 name);
	if (!getrlimit(RLIMIT_AS, &room) && room.rlim_cur < BLAS_ROOM)
		setenv("OPENBLAS_NUM_THREADS", "1", 0);
	snprintf(self, sizeof(self), "avpctl-%s", name);
	argv[0] = self;
	cmd_end_pipes();
	for (size_t i = 0; i < PLACES; i++) {
		snprintf(path, sizeof(path), "%s%s%s", folder, places[i], self);
		execv(path, argv);
		if (errno != ENOENT)
			break;
	}
	return cmd_failf(name, AVP_IO,
			 "cannot start %s: %s; install it together with avpctl "
			 "(make install)",
			 path, strerror(errno));
}
