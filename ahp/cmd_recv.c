/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl recv: an agent that prints what it gets, a message a line. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ahp/cmd_agent.h"
#include "codec/wire.h"

struct receiver {
	const char *id, *out_dir, *model;
	bool explicit_ack;
	uint64_t count, got;
	int64_t timeout_ns;
	struct ahp_agent *agent;
	struct cmd_body body;
	int dir;
	unsigned files;	 /* the number of the last one */
	char file[4200]; /* of the message at hand, or "" */
	struct avp_buf line;
};

/* ---- files -------------------------------------------------------------- */

static int open_dir(struct receiver *r, struct avp_reason *why)
{
	if (!r->out_dir)
		return 0;
	if (mkdir(r->out_dir, 0777) && errno != EEXIST)
		return cmd_io_fail(r->out_dir, "make", why);
	r->dir = open(r->out_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return r->dir < 0 ? cmd_io_fail(r->out_dir, "open", why) : 0;
}

/* Numbers are ours: no peer has a say in what a file is called. */
static int open_next(struct receiver *r, char name[32])
{
	int fd;

	do {
		snprintf(name, 32, "message-%06u.avp", ++r->files);
		fd = openat(r->dir, name,
			    O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW |
				    O_CLOEXEC,
			    0666);
	} while (fd < 0 && errno == EEXIST);
	return fd;
}

static int save_frame(struct receiver *r, struct avp_reason *why)
{
	char name[32];
	int fd = open_next(r, name), err = 0;

	snprintf(r->file, sizeof(r->file), "%s/%s", r->out_dir, name);
	if (fd < 0)
		return cmd_io_fail(r->file, "make", why);
	if (cmd_write(fd, r->body.copy.data, r->body.copy.len))
		err = cmd_io_fail(r->file, "write", why);
	if (close(fd) && !err)
		err = cmd_io_fail(r->file, "write", why);
	if (err)
		unlinkat(r->dir, name, 0);
	return err;
}

/* ---- the line ----------------------------------------------------------- */

/* When it was sent, by the sender's word; nonsense becomes now. */
static struct ahp_time sent_time(int64_t sent_ns)
{
	struct timespec t;
	int64_t age_ns = 0;

	if (sent_ns > 0 && sent_ns < cmd_now_ns())
		age_ns = cmd_now_ns() - sent_ns;
	clock_gettime(CLOCK_REALTIME, &t);
	return ahp_time_from_unix_ns(t.tv_sec * 1000000000ll + t.tv_nsec -
				     age_ns);
}

/* AHP's nine keys, in their order. */
static int put_envelope(struct avp_json_writer *w, const struct receiver *r,
			const struct ahp_message *m, bool readable,
			struct avp_reason *why)
{
	struct ahp_time sent = sent_time(m->sent_ns);
	char time[AHP_TIME_BYTES], id_text[AHP_ID_TEXT_BYTES];
	uint8_t id[16];
	int err = 0;

	ahp_time_write(&sent, time);
	ahp_message_id(m, id);
	ahp_id_write(id, id_text);
	avp_json_key(w, "method");
	avp_json_put_text(w, ahp_method_name(m->method));
	avp_json_member_string(w, "agent_id", avp_str_of(m->source));
	avp_json_member_string(w, "target_agent", avp_str_of(r->id));
	cmd_member_foreign(w, "task_id", m->task_id);
	cmd_member_foreign(w, "session_id", m->session_id);
	avp_json_key(w, "payload");
	if (readable && m->kind == AHP_JSON)
		err = cmd_put_body(w, &r->body, why);
	else
		avp_json_put_raw(w, avp_str_of("{}"));
	avp_json_member_uint(w, "token_limit", m->token_limit);
	avp_json_member_string(w, "timestamp", avp_str_of(time));
	avp_json_member_string(w, "message_id", avp_str_of(id_text));
	return err;
}

static void put_error(struct avp_json_writer *w, const struct avp_reason *bad)
{
	avp_json_key(w, "error");
	avp_json_open_object(w);
	avp_json_key(w, "code");
	avp_json_put_text(w, avp_error_name(bad->code));
	cmd_member_foreign(w, "message", avp_str_of(bad->text));
	avp_json_close_object(w);
}

/* bad: why the body cannot be shown, or NULL. */
static int print_message(struct receiver *r, const struct ahp_message *m,
			 const struct avp_reason *bad, struct avp_reason *why)
{
	struct avp_json_writer w;
	int err;

	avp_json_begin(&w, &r->line, CMD_JSON);
	avp_json_open_object(&w);
	err = put_envelope(&w, r, m, !bad, why);
	if (!err && !bad && m->kind == AHP_FRAME) {
		avp_json_key(&w, "frame");
		err = cmd_put_body(&w, &r->body, why);
	}
	if (r->file[0]) {
		avp_json_key(&w, "file");
		avp_json_put_text(&w, r->file);
	}
	if (m->redelivered)
		avp_json_member_bool(&w, "redelivered", true);
	if (bad)
		put_error(&w, bad);
	avp_json_close_object(&w);
	if (!err)
		err = cmd_print_json(&w, &r->line, why);
	avp_buf_clear(&r->line);
	return err;
}

/* ---- receiving ---------------------------------------------------------- */

static int deal_with(struct receiver *r, struct ahp_message *m,
		     struct avp_reason *why)
{
	struct avp_reason bad = {0};
	int unreadable = cmd_body_read(&r->body, m, &bad), err = 0;

	r->file[0] = 0;
	if (!unreadable && m->kind == AHP_FRAME && r->out_dir)
		err = save_frame(r, why);
	if (!err)
		err = print_message(r, m, unreadable ? &bad : NULL, why);
	if (err)
		return err; /* and not accepted */
	/* A sender that is gone, or a method without answer: nothing is
	 * owed. */
	if (unreadable)
		ahp_reject(r->agent, m);
	else
		ahp_accept(r->agent, m);
	r->got++;
	return 0;
}

/* 0: all of them; 1: the time or a signal ended it. */
static int receive_all(struct receiver *r, struct avp_reason *why)
{
	int64_t end_ns = cmd_end_ns(r->timeout_ns);
	struct ahp_message m;
	int err;

	while (!r->count || r->got < r->count) {
		if (cmd_signal())
			return 1;
		err = ahp_receive(r->agent, &m, cmd_slice_ns(end_ns));
		if (!err) {
			err = deal_with(r, &m, why);
			ahp_release(r->agent, &m);
			if (err)
				return err;
		} else if (err != AVP_TIMEOUT) {
			return avp__fail(why, err, "%s", avp_error_text(err));
		}
		if (!cmd_slice_ns(end_ns))
			return r->count && r->got == r->count ? 0 : 1;
	}
	return 0;
}

/* Why a message is not among the lines. */
static void tell(void *arg, enum ahp_log_level level, int code,
		 const char *agent, const char *task, const char *text)
{
	(void)arg, (void)agent, (void)task;
	if (level <= AHP_LOG_WARNING)
		fprintf(stderr, "avpctl: recv: warning: %s: %s\n",
			avp_error_name(code), text);
}

static int run(struct receiver *r, struct avp_reason *why)
{
	struct ahp_agent_options options = {
		.id = r->id,
		.flags = r->explicit_ack ? AHP_EXPLICIT_ACK : 0,
	};
	int err = cmd_agent_options(&options, why);

	options.log = tell;
	if (!err)
		err = open_dir(r, why);
	if (!err)
		err = ahp_agent_open(&r->agent, &options, why);
	if (!err && r->model)
		err = cmd_agent_model(r->agent, r->model, why);
	if (!err)
		err = receive_all(r, why);
	if (err != 1 || !r->count)
		return err < 0 ? err : 0;
	if (cmd_signal())
		return avp__fail(why, AVP_TIMEOUT,
				 "ended by signal %d after %llu of %llu "
				 "messages",
				 cmd_signal(), (unsigned long long)r->got,
				 (unsigned long long)r->count);
	return avp__fail(why, AVP_TIMEOUT, "%llu of %llu messages in %g s",
			 (unsigned long long)r->got,
			 (unsigned long long)r->count,
			 (double)r->timeout_ns * 1e-9);
}

/* ---- arguments ---------------------------------------------------------- */

static int parse(struct receiver *r, int argc, char **argv)
{
	static const struct cmd_page page = {
		"recv", "", 0, 0,
		"Is an agent, and prints a line for each message that it gets: "
		"AHP's nine keys,\n"
		"and of a frame \"frame\", as frame decode prints it. --as is "
		"needed. It ends\n"
		"with the time-out, a signal, or after --count messages.\n"};
	const struct cmd_option options[] = {
		{"as", CMD_TEXT, &r->id, "ID", "its name"},
		{"count", CMD_COUNT, &r->count, "N",
		 "end after N messages; fewer in the time are\n"
		 "a failure (0: any number)"},
		{"timeout", CMD_SECONDS, &r->timeout_ns, "SECONDS",
		 "end after that (never)"},
		{"out", CMD_TEXT, &r->out_dir, "DIR",
		 "write each frame to a new file of DIR, which\n"
		 "is made if it is not there: message-000001.avp\n"
		 "and so on; the line has it as \"file\""},
		{"no-auto-ack", CMD_FLAG, &r->explicit_ack, NULL,
		 "accept a message when its line was printed,\n"
		 "reject it if its body cannot be read"},
		{"model", CMD_TEXT, &r->model, "CONFIG",
		 "the config.json of its model: latent frames\n"
		 "that do not fit it are refused, with a line\n"
		 "on stderr"},
		{"max-payload", CMD_BYTES, &r->body.content.max_bytes, "BYTES",
		 "what decompression may produce (4G)"},
		{0},
	};
	int status = cmd_arguments(&page, options, &argc, argv);

	if (status != CMD_GO_ON)
		return status;
	if (!r->id)
		return cmd_failf("recv", AVP_USAGE,
				 "--as ID is needed; see avpctl recv --help");
	if (r->out_dir && (strlen(r->out_dir) > 4096 ||
			   !avp__utf8_valid(r->out_dir, strlen(r->out_dir))))
		return cmd_failf("recv", AVP_USAGE,
				 "--out has to be UTF-8 of at most 4096 bytes: "
				 "the lines have it in \"file\"");
	return CMD_GO_ON;
}

int cmd_recv(int argc, char **argv)
{
	struct receiver r = {
		.timeout_ns = AHP_FOREVER,
		.dir = -1,
		.body = {.content = {.max_bytes = CMD_CONTENT_MAX}},
	};
	struct avp_reason why;
	int status = parse(&r, argc, argv);

	if (status != CMD_GO_ON)
		return status;
	cmd_catch_signals();
	status = run(&r, &why) ? cmd_fail("recv", &why) : CMD_DONE;
	if (r.agent)
		ahp_agent_close(r.agent);
	if (r.dir >= 0)
		close(r.dir);
	cmd_body_fini(&r.body);
	avp_buf_fini(&r.line);
	return status;
}
