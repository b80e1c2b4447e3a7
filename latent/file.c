/* SPDX-License-Identifier: Apache-2.0 */
/* Reading a small file whole: configurations and indices. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "latent/weights.h"

int avp__file_failed(const char *path, struct avp_reason *why)
{
	const int e = errno;
	char text[64];

	return avp__fail(why,
			 e == EACCES || e == EPERM ? AVP_PERMISSION : AVP_IO,
			 "%s: %s", path, strerror_r(e, text, sizeof(text)));
}

static int read_all(int fd, const char *path, char *to, size_t len,
		    struct avp_reason *why)
{
	size_t got = 0;

	while (got < len) {
		ssize_t n = read(fd, to + got, len - got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return avp__file_failed(path, why);
		if (n == 0)
			return avp__fail(why, AVP_IO,
					 "%s: became shorter while it was read",
					 path);
		got += (size_t)n;
	}
	return 0;
}

int avp__file_read(int dir_fd, const char *path, uint64_t limit, char **text,
		   size_t *len, struct avp_reason *why)
{
	int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	char *made = NULL;
	int err;

	if (fd < 0)
		return avp__file_failed(path, why);
	if (fstat(fd, &st))
		err = avp__file_failed(path, why);
	else if (!S_ISREG(st.st_mode))
		err = avp__fail(why, AVP_IO, "%s: is not a file", path);
	else if ((uint64_t)st.st_size > limit)
		err = avp__fail(why, AVP_TOO_LARGE,
				"%s: has %llu bytes, at most %llu are read",
				path, (unsigned long long)st.st_size,
				(unsigned long long)limit);
	else if (!(made = malloc((size_t)st.st_size + 1)))
		err = avp__fail(why, AVP_NO_MEMORY, "%s: no memory", path);
	else
		err = read_all(fd, path, made, (size_t)st.st_size, why);
	close(fd);
	if (err) {
		free(made);
		return err;
	}
	made[st.st_size] = 0;
	*text = made;
	*len = (size_t)st.st_size;
	return 0;
}
