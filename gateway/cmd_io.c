/* SPDX-License-Identifier: Apache-2.0 */
/* How avpctl's subcommands speak: failures, files, output. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/cmd.h"
#include "shm/reason.h"

int cmd_status(int code)
{
	switch (code) {
	case AVP_OK: return CMD_DONE;
	case AVP_USAGE:
	case AVP_BAD_CONFIG: return CMD_USAGE;
	case AVP_IO:
	case AVP_NO_MEMORY:
	case AVP_PERMISSION:
	case AVP_UNSUPPORTED:
	case AVP_FORKED: return CMD_SYSTEM;
	default: return CMD_REFUSED;
	}
}

int cmd_fail(const char *what, const struct avp_reason *why)
{
	fprintf(stderr, "avpctl: %s: %s: %s\n", what, avp_error_name(why->code),
		why->text);
	return cmd_status(why->code);
}

int cmd_failf(const char *what, int code, const char *format, ...)
{
	struct avp_reason why = {.code = code};
	va_list args;

	va_start(args, format);
	vsnprintf(why.text, sizeof(why.text), format, args);
	va_end(args);
	return cmd_fail(what, &why);
}

int cmd_bad_option(const char *what, int answer, char **argv)
{
	extern int optind;
	const char *option = argv[optind - 1];

	if (answer == ':')
		return cmd_failf(what, AVP_USAGE,
				 "%s needs a value; see avpctl %s --help",
				 option, what);
	return cmd_failf(what, AVP_USAGE,
			 "%s is no option here; see avpctl %s --help", option,
			 what);
}

int cmd_help(const char *text)
{
	fputs(text, stdout);
	return CMD_DONE;
}

int cmd_parse_bytes(const char *text, uint64_t *bytes, struct avp_reason *why)
{
	unsigned int shift = 0;
	unsigned long long n;
	char *end;

	errno = 0;
	n = strtoull(text, &end, 10);
	if (*end == 'K')
		shift = 10;
	else if (*end == 'M')
		shift = 20;
	else if (*end == 'G')
		shift = 30;
	if (shift)
		end++;
	if (*text < '0' || *text > '9' || *end || errno ||
	    n > UINT64_MAX >> shift)
		return avp__fail(why, AVP_USAGE,
				 "\"%s\" is no number of bytes; write 4096, "
				 "64K, 16M or 4G",
				 text);
	*bytes = (uint64_t)n << shift;
	return 0;
}

/* ---- files -------------------------------------------------------------- */

int cmd_io_fail(const char *path, const char *action, struct avp_reason *why)
{
	int code = errno == EACCES || errno == EPERM ? AVP_PERMISSION : AVP_IO;

	return avp__fail(why, code, "cannot %s %s: %s", action, path,
			 strerror(errno));
}

static int make_room(struct cmd_file *file, size_t capacity,
		     struct avp_reason *why)
{
	uint8_t *data;

	if (capacity <= file->capacity)
		return 0;
	data = realloc(file->data, capacity);
	if (!data)
		return avp__fail(why, AVP_NO_MEMORY,
				 "no memory for %zu bytes of input", capacity);
	file->data = data;
	file->capacity = capacity;
	return 0;
}

static int read_all(struct cmd_file *file, int fd, const char *path,
		    uint64_t max, struct avp_reason *why)
{
	ssize_t n;
	int err;

	for (;;) {
		if (file->len == file->capacity) {
			err = make_room(file, file->capacity * 2 + 4096, why);
			if (err)
				return err;
		}
		n = read(fd, file->data + file->len,
			 file->capacity - file->len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return cmd_io_fail(path, "read", why);
		if (!n)
			return 0;
		file->len += (size_t)n;
		if (file->len > max)
			return avp__fail(why, AVP_TOO_LARGE,
					 "%s has over %llu bytes, the limit",
					 path, (unsigned long long)max);
	}
}

int cmd_file_read(struct cmd_file *file, const char *path, uint64_t max,
		  struct avp_reason *why)
{
	bool is_stdin = !strcmp(path, "-");
	int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	int err = 0;

	if (fd < 0)
		return cmd_io_fail(path, "open", why);
	file->len = 0;
	/* One byte more than it has, to meet its end without growing. */
	if (!fstat(fd, &st) && S_ISREG(st.st_mode)) {
		if ((uint64_t)st.st_size > max)
			err = avp__fail(why, AVP_TOO_LARGE,
					"%s has %lld bytes, the limit is %llu",
					path, (long long)st.st_size,
					(unsigned long long)max);
		else
			err = make_room(file, (size_t)st.st_size + 1, why);
	}
	if (!err)
		err = read_all(file, fd, path, max, why);
	if (!is_stdin)
		close(fd);
	return err;
}

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

int cmd_file_write(const char *path, const struct cmd_piece *pieces,
		   size_t count, struct avp_reason *why)
{
	bool is_stdout = !strcmp(path, "-");
	int fd = STDOUT_FILENO, err = 0;

	if (!is_stdout)
		fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (fd < 0)
		return cmd_io_fail(path, "write", why);
	for (size_t i = 0; i < count && !err; i++)
		if (cmd_write(fd, pieces[i].data, pieces[i].len))
			err = cmd_io_fail(path, "write", why);
	if (!is_stdout && close(fd) && !err)
		err = cmd_io_fail(path, "write", why);
	return err;
}

int cmd_print(struct avp_buf *buf, struct avp_reason *why)
{
	int err = 0;

	if (cmd_write(STDOUT_FILENO, buf->data, buf->len))
		err = cmd_io_fail("stdout", "write", why);
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
