/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the subcommands of avpctl share. A subcommand is a function cmd_NAME in
 * a file cmd_NAME.c beside the module that it shows, and a row in avpctl.c. It
 * gets its arguments with its own name as argv[0], prints one JSON document a
 * line on stdout and failures, one line each, on stderr, and returns the
 * program's exit status.
 */
#ifndef AVP_GATEWAY_CMD_H
#define AVP_GATEWAY_CMD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <avp/codec.h>

/* Exit statuses: done; input or peer refused; wrong usage; the system failed. */
enum { CMD_DONE = 0, CMD_REFUSED = 1, CMD_USAGE = 2, CMD_SYSTEM = 3 };

int cmd_bench(int argc, char **argv);
int cmd_dlq(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_frame(int argc, char **argv);
int cmd_ls(int argc, char **argv);
int cmd_recv(int argc, char **argv);
int cmd_send(int argc, char **argv);
int cmd_stat(int argc, char **argv);
int cmd_top(int argc, char **argv);
int cmd_identity(int argc, char **argv);
int cmd_resolve(int argc, char **argv);
int cmd_kv(int argc, char **argv);
int cmd_realign(int argc, char **argv);
int cmd_frame_encode(int argc, char **argv); /* by cmd_frame() */
extern const char cmd_frame_usage[];

int cmd_instruction(int argc, char **argv);

/* --namespace and --config, which every subcommand takes; NULL if not given. */
const char *cmd_namespace(void);
const char *cmd_config(void);

/* The status that belongs to a code. */
int cmd_status(int code);

/* Prints "avpctl: what: CODE: reason" and returns the status of why->code. */
int cmd_fail(const char *what, const struct avp_reason *why);

/* The same for one's own words. */
__attribute__((format(printf, 3, 4))) int cmd_failf(const char *what, int code,
						    const char *format, ...);

/* What getopt_long() refused, with opterr 0 and a ':' before the options. */
int cmd_bad_option(const char *what, int answer, char **argv);

/* Prints help and returns CMD_DONE. */
int cmd_help(const char *text);

/* A number of bytes: digits, then K, M or G for 1024 each. 0 or AVP_USAGE. */
int cmd_parse_bytes(const char *text, uint64_t *bytes, struct avp_reason *why);

/*
 * A file's bytes, in memory that is reused from call to call; zeros to begin
 * with, freed by cmd_file_fini().
 */
struct cmd_file {
	uint8_t *data;
	size_t len, capacity;
};

/* Reads a file, "-" for stdin, of at most max bytes. 0 or an error. */
int cmd_file_read(struct cmd_file *file, const char *path, uint64_t max,
		  struct avp_reason *why);
void cmd_file_fini(struct cmd_file *file);

/* Writes all of it to an open fd, whatever interrupts; 0, or -1 and errno. */
int cmd_write(int fd, const void *data, size_t len);

/* AVP_IO or AVP_PERMISSION for errno: "cannot ACTION PATH: ...". */
int cmd_io_fail(const char *path, const char *action, struct avp_reason *why);

/* Bytes in pieces, written one after the other. */
struct cmd_piece {
	const void *data;
	size_t len;
};

/* Writes (anew) a file, "-" for stdout. 0 or AVP_IO, AVP_PERMISSION. */
int cmd_file_write(const char *path, const struct cmd_piece *pieces,
		   size_t count, struct avp_reason *why);

/* A frame's 4 GiB, and as much behind it; more is no file of a frame. */
#define CMD_FRAME_INPUT_MAX ((uint64_t)8 << 30)

/* What decompression may produce unless --max-payload says otherwise. */
#define CMD_CONTENT_MAX ((uint64_t)4 << 30)

/*
 * A decoded frame and its payload, uncompressed. Zeros and max_bytes to begin
 * with; memory is reused from frame to frame and freed by _fini.
 */
struct cmd_content {
	uint64_t max_bytes;	/* that decompression may produce */
	struct avp_frame frame; /* content_bytes is filled in */
	const void *data;	/* of content_bytes */
	struct avp_zstd *zstd;	/* from here on private */
	void *expanded;
	uint64_t expanded_capacity;
};

/*
 * Decodes a frame, expands its payload and checks its checksum. The bytes are
 * borrowed until the next call and must not change. 0 or a frame's error.
 */
int cmd_content_decode(struct cmd_content *content, const void *bytes,
		       uint64_t len, struct avp_reason *why);
void cmd_content_fini(struct cmd_content *content);

/*
 * Writes the members that the command-line contract gives a decoded frame into
 * the object that is open in w. 0 or AVP_NO_MEMORY.
 */
int cmd_put_frame(struct avp_json_writer *w, const struct cmd_content *content,
		  struct avp_reason *why);

/* Writes what was collected for stdout and empties it; 0 or AVP_IO. */
int cmd_print(struct avp_buf *buf, struct avp_reason *why);

/* Ends the document that w wrote into buf and prints it as one line. */
int cmd_print_json(struct avp_json_writer *w, struct avp_buf *buf,
		   struct avp_reason *why);

#endif
