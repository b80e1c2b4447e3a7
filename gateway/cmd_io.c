/* SPDX-License-Identifier: Apache-2.0 */
/* The files that commands read and write. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/cmd.h"

/* What is asked of a stream at first: most frames' heads, in one call. */
#define FIRST_READ 4096

/* ---- files -------------------------------------------------------------- */

int cmd_io_fail(const char *path, const char *action, struct avp_reason *why)
{
	int code = errno == EACCES || errno == EPERM ? AVP_PERMISSION : AVP_IO;

	/* So that a long path leaves room for the reason. */
	return avp__fail(why, code, "cannot %s %.150s: %s", action, path,
			 strerror(errno));
}

/* ---- reading ------------------------------------------------------------ */

int cmd_file_open(struct cmd_file *file, const char *path, bool regular,
		  struct avp_reason *why)
{
	bool is_stdin = !strcmp(path, "-");
	struct stat st;
	int err = 0;

	file->path = is_stdin ? "stdin" : path;
	file->len = 0;
	file->size = UINT64_MAX;
	/* Opening a FIFO would wait for a writer. */
	file->fd = is_stdin ? STDIN_FILENO
			    : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY |
						 (regular ? O_NONBLOCK : 0));
	if (file->fd < 0)
		return cmd_io_fail(file->path, "open", why);
	if (fstat(file->fd, &st))
		err = cmd_io_fail(file->path, "read", why);
	else if (S_ISREG(st.st_mode))
		file->size = (uint64_t)st.st_size;
	else if (regular && !is_stdin)
		err = avp__fail(why, AVP_IO,
				"%.150s is no regular file; only such are read "
				"from a list",
				path);
	if (err)
		cmd_file_close(file);
	return err;
}

void cmd_file_close(struct cmd_file *file)
{
	if (file->fd > STDIN_FILENO)
		close(file->fd);
	file->fd = -1;
}

static int make_room(struct cmd_file *file, uint64_t capacity,
		     struct avp_reason *why)
{
	uint8_t *data;

	if (capacity <= file->capacity)
		return 0;
	data = realloc(file->data, capacity);
	if (!data)
		return avp__fail(why, AVP_NO_MEMORY,
				 "no memory for %llu bytes of input",
				 (unsigned long long)capacity);
	file->data = data;
	file->capacity = capacity;
	return 0;
}

/*
 * A known size is believed as far as it is asked for. Of a stream memory grows
 * with what has come, not with what a header announces.
 */
static int room_for(struct cmd_file *file, uint64_t want,
		    struct avp_reason *why)
{
	if (file->size == UINT64_MAX && want > 2 * file->len + FIRST_READ)
		want = 2 * file->len + FIRST_READ;
	else if (want > file->size + 1 && file->size != UINT64_MAX)
		want = file->size + 1;
	return make_room(file, want, why);
}

int cmd_file_fill(struct cmd_file *file, uint64_t want, struct avp_reason *why)
{
	ssize_t n;
	int err;

	while (file->len < want) {
		err = file->len == file->capacity ? room_for(file, want, why)
						  : 0;
		if (err)
			return err;
		n = read(file->fd, file->data + file->len,
			 (want < file->capacity ? want : file->capacity) -
				 file->len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return cmd_io_fail(file->path, "read", why);
		if (!n) {
			file->size = file->len;
			return 0;
		}
		file->len += (size_t)n;
	}
	return 0;
}

int cmd_file_read(struct cmd_file *file, const char *path, uint64_t max,
		  struct avp_reason *why)
{
	int err = cmd_file_open(file, path, false, why);

	if (err)
		return err;
	if (file->size == UINT64_MAX || file->size <= max)
		/* One byte more than it may have, to meet its end. */
		err = cmd_file_fill(file, max + 1, why);
	if (!err && (file->len > max || file->size > max))
		err = avp__fail(why, AVP_TOO_LARGE,
				"%.150s has over %llu bytes, the limit",
				file->path, (unsigned long long)max);
	cmd_file_close(file);
	return err;
}

/* ---- writing ------------------------------------------------------------ */

void cmd_file_fini(struct cmd_file *file)
{
	free(file->data);
	memset(file, 0, sizeof(*file));
}

int cmd_write(int fd, const void *data, size_t len)
{
	const char *p = data;
	ssize_t n;

	while (len) {
		n = write(fd, p, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static int write_pieces(int fd, const struct cmd_piece *pieces, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (cmd_write(fd, pieces[i].data, pieces[i].len))
			return -1;
	return 0;
}

/*
 * A new file in path's folder. It has no name yet, so that nothing is left if
 * we are killed; where the file system has no such files it has its scratch
 * name at once.
 */
static int open_new(const char *path, char scratch[PATH_MAX], bool *named)
{
	const char *slash = strrchr(path, '/');
	int n = slash ? (int)(slash - path) + 1 : 0, fd;

	*named = false;
	if (snprintf(scratch, PATH_MAX, "%.*s.avpctl-%d", n, path,
		     (int)getpid()) >= PATH_MAX) {
		errno = ENAMETOOLONG;
		return -1;
	}
	/* The dot of the scratch name is the folder itself. */
	scratch[n + 1] = 0;
	fd = open(scratch, O_WRONLY | O_TMPFILE | O_CLOEXEC, 0666);
	scratch[n + 1] = 'a';
	if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR))
		return fd;
	fd = open(scratch, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	*named = fd >= 0;
	return fd;
}

static int give_name(int fd, const char *name)
{
	char self[40];

	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	return linkat(AT_FDCWD, self, AT_FDCWD, name, AT_SYMLINK_FOLLOW);
}

/* Readers of path see the old file or the whole new one. 0, or -1 and errno. */
static int replace(const char *path, const struct stat *old,
		   const struct cmd_piece *pieces, size_t count)
{
	char scratch[PATH_MAX];
	bool named, failed;
	int fd = open_new(path, scratch, &named), kept;

	if (fd < 0)
		return -1;
	failed = write_pieces(fd, pieces, count) ||
		 (old && fchmod(fd, old->st_mode & 0777));
	if (!failed && !named) {
		failed = give_name(fd, scratch);
		named = !failed;
	}
	failed = close(fd) || failed || rename(scratch, path);
	if (!failed)
		return 0;
	kept = errno;
	if (named)
		unlink(scratch);
	errno = kept;
	return -1;
}

/* A pipe or device: there is nothing to replace. */
static int write_in_place(const char *path, const struct cmd_piece *pieces,
			  size_t count)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY), failed;

	if (fd < 0)
		return -1;
	failed = write_pieces(fd, pieces, count);
	return close(fd) || failed ? -1 : 0;
}

int cmd_file_write(const char *path, const struct cmd_piece *pieces,
		   size_t count, struct avp_reason *why)
{
	char real[PATH_MAX];
	struct stat st;
	bool exists, failed;
	int err = 0;

	if (!strcmp(path, "-")) {
		for (size_t i = 0; i < count && !err; i++)
			err = cmd_write_stdout(pieces[i].data, pieces[i].len,
					       why);
		return err;
	}
	exists = !stat(path, &st);
	if (exists && !S_ISREG(st.st_mode))
		failed = write_in_place(path, pieces, count);
	else if (exists) /* a link stays what it is */
		failed = !realpath(path, real) ||
			 replace(real, &st, pieces, count);
	else
		failed = replace(path, NULL, pieces, count);
	return failed ? cmd_io_fail(path, "write", why) : 0;
}

static bool same_file(const char *input, const char *output)
{
	struct stat in, out;

	if (strcmp(input, "-") ? stat(input, &in) : fstat(STDIN_FILENO, &in))
		return false;
	return !stat(output, &out) && S_ISREG(in.st_mode) &&
	       in.st_dev == out.st_dev && in.st_ino == out.st_ino;
}

int cmd_check_output(const char *option, const char *output, bool json,
		     const char *const *inputs, struct avp_reason *why)
{
	if (json && !strcmp(output, "-"))
		return avp__fail(why, AVP_USAGE,
				 "%s -: stdout is for the JSON; name a file",
				 option);
	for (; *inputs; inputs++)
		if (same_file(*inputs, output))
			return avp__fail(why, AVP_USAGE,
					 "%s %.80s is %.80s, an input, whose "
					 "bytes would be lost; name another",
					 option, output, *inputs);
	return 0;
}

/* ---- stdout ------------------------------------------------------------- */

static bool reader_is_gone; /* EPIPE was met */

bool cmd_reader_is_gone(void)
{
	return reader_is_gone;
}

int cmd_write_stdout(const void *data, size_t len, struct avp_reason *why)
{
	if (!cmd_write(STDOUT_FILENO, data, len))
		return 0;
	reader_is_gone |= errno == EPIPE;
	return cmd_io_fail("stdout", "write", why);
}

int cmd_flush(struct avp_reason *why)
{
	if (ferror(stdout))
		errno = errno ? errno : EIO; /* of an earlier write */
	else if (!fflush(stdout))
		return 0;
	reader_is_gone |= errno == EPIPE;
	return cmd_io_fail("stdout", "write", why);
}

int cmd_print(struct avp_buf *buf, struct avp_reason *why)
{
	int err = cmd_write_stdout(buf->data, buf->len, why);

	avp_buf_clear(buf);
	return err;
}

int cmd_print_json(struct avp_json_writer *w, struct avp_buf *buf,
		   struct avp_reason *why)
{
	int err = avp_json_finish(w);

	if (!err)
		err = avp_buf_append(buf, "\n", 1);
	if (err)
		return avp__fail(why, err, "cannot write the answer: %s",
				 avp_error_text(err));
	return cmd_print(buf, why);
}

struct avp_json_writer *cmd_answer_begin(struct cmd_answer *answer)
{
	answer->out = (struct avp_buf){0};
	avp_json_begin(&answer->w, &answer->out, CMD_JSON);
	avp_json_open_object(&answer->w);
	return &answer->w;
}

int cmd_answer_end(struct cmd_answer *answer, int err, struct avp_reason *why)
{
	avp_json_close_object(&answer->w);
	if (!err)
		err = cmd_print_json(&answer->w, &answer->out, why);
	avp_buf_fini(&answer->out);
	return err;
}
