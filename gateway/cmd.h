/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the subcommands of avpctl share. A subcommand is a function cmd_NAME in
 * a file cmd_NAME.c beside the module that it shows, and a row in avpctl.c. It
 * gets its arguments with its own name as argv[0], reads them by
 * cmd_arguments(), prints one JSON document a line on stdout and failures, one
 * line each, on stderr, and returns the program's exit status.
 */
#ifndef AVP_GATEWAY_CMD_H
#define AVP_GATEWAY_CMD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <avp/codec.h>

/* Exit statuses: done; input or peer refused; wrong usage; the system
 * failed. */
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
int cmd_instruction(int argc, char **argv);

/* Becomes the program avpctl-NAME of that command's name; returns if it
 * cannot. */
int cmd_helper(int argc, char **argv);

/*
 * What main() of a program of commands is: runs the command with a stdin,
 * stdout and stderr that are open, and sees to it that all it printed was
 * written; else its status is CMD_SYSTEM, or what SIGPIPE gives when the
 * reader went away.
 */
int cmd_main(int (*command)(int argc, char **argv), int argc, char **argv);

/* SIGPIPE as it was before, for the program that this one becomes. */
void cmd_end_pipes(void);

/* ---- arguments ---------------------------------------------------------- */

enum cmd_kind {
	CMD_FLAG,    /* bool: takes no value, sets true */
	CMD_TEXT,    /* const char *: a file, an id, a word; not empty */
	CMD_UTF8,    /* const char *: what is sent; UTF-8, may be empty */
	CMD_BYTES,   /* uint64_t: digits, then K, M or G for 1024 each */
	CMD_COUNT,   /* uint64_t: a whole number from 0 on */
	CMD_SECONDS, /* int64_t, in nanoseconds: "2" or "0.5" */
	CMD_NUMBER,  /* double: finite and above 0 */
};

/* An option: "--name" , or "-n" of a name of one letter. */
struct cmd_option {
	const char *name;
	enum cmd_kind kind;
	void *to;	   /* set when it is given */
	const char *value; /* what the page calls it; NULL of a flag */
	const char *help;
};

/* A command as its --help tells it; lines of at most 80 columns. */
struct cmd_page {
	const char *name;     /* "frame decode" */
	const char *operands; /* "FILE|-", "" if there are none */
	int least, most;      /* how many */
	const char *text;     /* what it does, takes and prints */
};

#define CMD_GO_ON (-1)

/*
 * Reads the options up to the one without a name, and --namespace, --config and
 * --help, which every command has. "--opt value" and "--opt=value" ("-o value")
 * may stand before, between and behind the operands; behind "--" all are
 * operands, and "-" always is one. What is unknown, given twice, or no value of
 * its kind is refused. CMD_GO_ON with the operands in argv from 1 on and *argc
 * for their number and 1; else the status to end with: it was told, or helped.
 */
int cmd_arguments(const struct cmd_page *page, const struct cmd_option *options,
		  int *argc, char **argv);

/* A command that is made of others. */
struct cmd_sub {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
};

/*
 * Runs the one that is named behind the group's options, and returns its
 * status; CMD_GO_ON if there are such options alone. The page lists the
 * commands.
 */
int cmd_group(const struct cmd_page *page, const struct cmd_option *options,
	      const struct cmd_sub *subs, int argc, char **argv);

/* --namespace and --config; NULL if not given. */
const char *cmd_namespace(void);
const char *cmd_config(void);

/* ---- failures ----------------------------------------------------------- */

/*
 * The code as scripts see it: one that the command-line contract lists. The
 * transport's own answers become the nearest of those, and the reason tells.
 */
int cmd_listed(int code);

/*
 * Prints "avpctl: what: CODE: reason" and returns the status of why->code. It
 * is one line, whatever a file's name or a peer's text has in it.
 */
int cmd_fail(const char *what, const struct avp_reason *why);

/* The same for one's own words. */
__attribute__((format(printf, 3, 4))) int cmd_failf(const char *what, int code,
						    const char *format, ...);

/* ---- files and output --------------------------------------------------- */

/*
 * A file's bytes, in memory that is reused from file to file; zeros to begin
 * with, freed by cmd_file_fini().
 */
struct cmd_file {
	uint8_t *data;
	size_t len, capacity;
	uint64_t size; /* of it all; UINT64_MAX of a stream that goes on */
	const char *path;
	int fd;
};

/*
 * Opens a file, "-" for stdin, to be read piece by piece. regular: what is no
 * regular file is refused, but for stdin. 0 or AVP_IO, AVP_PERMISSION.
 */
int cmd_file_open(struct cmd_file *file, const char *path, bool regular,
		  struct avp_reason *why);

/* Reads on until there are so many bytes, or all. 0 or an error. */
int cmd_file_fill(struct cmd_file *file, uint64_t want, struct avp_reason *why);
void cmd_file_close(struct cmd_file *file);

/* Opens, reads and closes a file of at most max bytes. 0 or an error. */
int cmd_file_read(struct cmd_file *file, const char *path, uint64_t max,
		  struct avp_reason *why);
void cmd_file_fini(struct cmd_file *file);

/*
 * The frame of an open file: its header and metadata are judged before more is
 * read, and no more than they announce. Of a stream up to 1 MiB behind it is
 * passed over. file->size is that of all. 0, a frame's error, or AVP_IO.
 */
int cmd_frame_fill(struct cmd_file *file, struct avp_reason *why);

/*
 * An output that may be written: it is none of the inputs (up to NULL; links
 * are followed), whose bytes would be lost, nor stdout if that is for the
 * JSON. 0 or AVP_USAGE.
 */
int cmd_check_output(const char *option, const char *output, bool json,
		     const char *const *inputs, struct avp_reason *why);

/* Writes all of it to an open fd, whatever interrupts; 0, or -1 and errno. */
int cmd_write(int fd, const void *data, size_t len);

/* AVP_IO or AVP_PERMISSION for errno: "cannot ACTION PATH: ...". */
int cmd_io_fail(const char *path, const char *action, struct avp_reason *why);

/* Bytes in pieces, written one after the other. */
struct cmd_piece {
	const void *data;
	size_t len;
};

/*
 * Writes a file, "-" for stdout: a new one that takes the place of the old when
 * it is whole, so an old one stays if this fails. Devices and pipes are written
 * to. 0 or AVP_IO, AVP_PERMISSION.
 */
int cmd_file_write(const char *path, const struct cmd_piece *pieces,
		   size_t count, struct avp_reason *why);

/* What is read of a file that is no frame. */
#define CMD_INPUT_MAX ((uint64_t)8 << 30)

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

/*
 * How answers are written. A number that somebody else wrote stays as it was:
 * 1e400 read and written again would be Infinity, which JSON does not have.
 */
#define CMD_JSON (AVP_JSON_HTTP | AVP_JSON_AS_READ)

int cmd_write_stdout(const void *data, size_t len, struct avp_reason *why);

/* A write to stdout has met EPIPE. */
bool cmd_reader_is_gone(void);

/* What printf() still holds. 0 or AVP_IO. */
int cmd_flush(struct avp_reason *why);

/* Writes what was collected for stdout and empties it; 0 or AVP_IO. */
int cmd_print(struct avp_buf *buf, struct avp_reason *why);

/*
 * An answer that is one object: begun, its members written, and ended, which
 * prints it as one line and frees it; or, if err says why there is none, frees
 * it alone. 0 or the error.
 */
struct cmd_answer {
	struct avp_json_writer w;
	struct avp_buf out;
};
struct avp_json_writer *cmd_answer_begin(struct cmd_answer *answer);
int cmd_answer_end(struct cmd_answer *answer, int err, struct avp_reason *why);

/* Ends the document that w wrote into buf and prints it as one line. */
int cmd_print_json(struct avp_json_writer *w, struct avp_buf *buf,
		   struct avp_reason *why);

#endif
