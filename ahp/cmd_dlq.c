/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl dlq: what could not be delivered, and what becomes of it. */
#include <stdlib.h>
#include <string.h>

#include <avp/dlq.h>

#include "ahp/cmd_agent.h"

struct request {
	const char *what, *agent, *message, *to;
	uint64_t number;
	int64_t timeout_ns;
	struct ahp_dlq *dlq;
	struct ahp_agent *sender;
	struct avp_buf out;
	struct avp_json_writer w;
	uint64_t count;
	int status; /* of letters that were not replayed */
};

static bool matches(const struct request *r, const struct ahp_dlq_entry *e)
{
	if (r->number && e->number != r->number)
		return false;
	if (r->agent && !avp_str_equal(e->agent, avp_str_of(r->agent)))
		return false;
	return !r->message ||
	       (e->has_message &&
		avp_str_equal(e->message.message_id, avp_str_of(r->message)));
}

static bool is(const struct request *r, const char *what)
{
	return !strcmp(r->what, what);
}

/* ---- show --------------------------------------------------------------- */

/* The frame as `frame decode` has it; one that is none is told as such. */
static int put_frame(struct request *r, const struct ahp_dlq_entry *e,
		     struct avp_reason *why)
{
	struct cmd_content content = {.max_bytes = CMD_CONTENT_MAX};
	uint8_t *body = malloc(e->body_bytes);
	int err;

	if (!body)
		return avp__fail(why, AVP_NO_MEMORY,
				 "no memory for a body of %llu bytes",
				 (unsigned long long)e->body_bytes);
	err = ahp_dlq_body(r->dlq, e, body, why);
	if (!err && cmd_content_decode(&content, body, e->body_bytes, why)) {
		avp_json_key(&r->w, "frame_error");
		avp_json_put_text(&r->w, avp_error_name(why->code));
	} else if (!err) {
		avp_json_key(&r->w, "frame");
		avp_json_open_object(&r->w);
		err = cmd_put_frame(&r->w, &content, why);
		avp_json_close_object(&r->w);
	}
	cmd_content_fini(&content);
	free(body);
	return err;
}

static int put_entry(struct request *r, const struct ahp_dlq_entry *e,
		     struct avp_reason *why)
{
	int err = 0;

	if (!is(r, "show") || !e->body_bytes || e->kind != AHP_FRAME) {
		ahp_dlq_entry_put(&r->w, e);
		return 0;
	}
	avp_json_open_object(&r->w);
	ahp_dlq_entry_members(&r->w, e);
	err = put_frame(r, e, why);
	avp_json_close_object(&r->w);
	return err;
}

/* ---- replay ------------------------------------------------------------- */

static int place_body(struct request *r, const struct ahp_dlq_replay *p,
		      struct ahp_outgoing *out, struct ahp_loan *loan,
		      struct avp_reason *why)
{
	/* A tensor lies best where loans begin. */
	uint64_t front =
		p->tensor_off < p->body_bytes ? p->tensor_off : p->body_bytes;
	int err = ahp_loan(r->sender, out->target, p->body_bytes - front + 1,
			   (uint32_t)front, loan, why);

	if (err)
		return err;
	out->loan = loan;
	out->body = (uint8_t *)loan->data - front;
	out->body_bytes = p->body_bytes;
	err = ahp_dlq_replay_read(r->dlq, p, (void *)out->body, why);
	if (err)
		ahp_loan_release(r->sender, loan);
	return err;
}

static int await(struct request *r, const struct ahp_receipt *receipt,
		 const char *target, struct avp_reason *why)
{
	int64_t end_ns = cmd_end_ns(r->timeout_ns);
	int status;

	do {
		if (cmd_signal())
			return cmd_interrupted(why);
		status = ahp_wait(r->sender, receipt, cmd_slice_ns(end_ns));
	} while (status == AVP_TIMEOUT && cmd_slice_ns(end_ns));
	return status ? avp__fail(why, status,
				  "%s has not accepted the message: %s", target,
				  avp_error_text(status))
		      : 0;
}

static int send_letter(struct request *r, const struct ahp_dlq_replay *p,
		       const char *target, struct avp_reason *why)
{
	const struct ahp_envelope *m = &p->entry.message;
	struct ahp_receipt receipt;
	struct ahp_loan loan = {0};
	struct ahp_outgoing out = {
		.target = target,
		.flags = AHP_PROMPT_ACK,
		.method = p->method,
		.kind = p->kind,
		.token_limit = m->token_limit > UINT32_MAX
				       ? UINT32_MAX
				       : (uint32_t)m->token_limit,
		.task_id = m->task_id,
		.session_id = m->session_id,
		.message_id = p->id,
	};
	int err = ahp_connect(r->sender, target, r->timeout_ns, &out.peer, why);

	if (!err)
		err = place_body(r, p, &out, &loan, why);
	if (err)
		return err;
	err = ahp_send(r->sender, &out, r->timeout_ns, &receipt, why);
	if (err) {
		ahp_loan_release(r->sender, &loan);
		return err;
	}
	return await(r, &receipt, target, why);
}

/* The agent's name as a string; it comes from a file. */
static int name_target(const struct request *r, const struct ahp_dlq_entry *e,
		       char target[AHP_ID_BYTES + 1], struct avp_reason *why)
{
	struct avp_str id = r->to ? avp_str_of(r->to) : e->agent;

	if (!id.len || id.len > AHP_ID_BYTES || memchr(id.data, 0, id.len))
		return avp__fail(why, AVP_AGENT_NOT_FOUND,
				 "letter %llu is for \"%.*s\", which is no id "
				 "of this host; name another by --to",
				 (unsigned long long)e->number,
				 (int)(id.len < 80 ? id.len : 80), id.data);
	memcpy(target, id.data, id.len);
	target[id.len] = 0;
	return 0;
}

static void put_replayed(struct request *r, const struct ahp_dlq_replay *p)
{
	char id[AHP_ID_TEXT_BYTES];

	ahp_id_write(p->id, id);
	avp_json_open_object(&r->w);
	ahp_dlq_entry_members(&r->w, &p->entry);
	avp_json_key(&r->w, "message_id");
	avp_json_put_text(&r->w, id);
	avp_json_key(&r->w, "status");
	avp_json_put_text(&r->w, "accepted");
	avp_json_close_object(&r->w);
}

/* 1 replayed, 0 gone meanwhile, or why not: the letter stays. */
static int replay_letter(struct request *r, uint64_t number,
			 struct avp_reason *why)
{
	char target[AHP_ID_BYTES + 1];
	struct ahp_dlq_replay p;
	struct avp_reason end_why;
	int found = ahp_dlq_replay_begin(r->dlq, number, &p, why), err, end;

	if (found <= 0)
		return found;
	err = name_target(r, &p.entry, target, why);
	if (!err)
		err = send_letter(r, &p, target, why);
	if (!err)
		put_replayed(r, &p);
	end = ahp_dlq_replay_end(r->dlq, &p, !err, &end_why);
	if (!err && end)
		*why = end_why;
	return err ? err : end ? end : 1;
}

/* One that cannot be replayed does not keep the others from it. */
static int replay(struct request *r, const struct ahp_dlq_entry *e,
		  struct avp_reason *why)
{
	int err = 0, status;

	if (!r->sender)
		err = cmd_agent_open(&r->sender, why);
	if (err)
		return err;
	err = replay_letter(r, e->number, why);
	if (err >= 0)
		return 0;
	if (err == AVP_BAD_CONFIG || cmd_signal())
		return err;
	status = cmd_fail("dlq", why);
	if (!r->status)
		r->status = status;
	return 0;
}

/* ---- all of them -------------------------------------------------------- */

static int clear_one(struct request *r, uint64_t number, struct avp_reason *why)
{
	int is_gone = ahp_dlq_remove(r->dlq, number, why);

	return is_gone < 0 ? is_gone : 0;
}

static int do_one(struct request *r, const struct ahp_dlq_entry *e,
		  struct avp_reason *why)
{
	r->count++;
	if (is(r, "replay"))
		return replay(r, e, why);
	if (is(r, "clear"))
		return clear_one(r, e->number, why);
	return put_entry(r, e, why);
}

static int walk(struct request *r, struct avp_reason *why)
{
	struct ahp_dlq_entry e;
	uint64_t after = 0;
	int found, err = 0;

	while (!err && (found = ahp_dlq_next(r->dlq, after, &e, why)) != 0) {
		if (found < 0)
			return found;
		after = e.number;
		if (matches(r, &e))
			err = do_one(r, &e, why);
		ahp_dlq_entry_fini(&e);
	}
	return err;
}

static int each(struct request *r, struct avp_reason *why)
{
	int err;

	avp_json_begin(&r->w, &r->out, CMD_JSON);
	avp_json_open_object(&r->w);
	avp_json_key(&r->w, "entries");
	avp_json_open_array(&r->w);
	/* All of an agent at once: one writing instead of one for each. */
	if (is(r, "clear") && !r->message && !r->number)
		err = ahp_dlq_clear(r->dlq, avp_str_of(r->agent), &r->count,
				    why);
	else
		err = walk(r, why);
	avp_json_close_array(&r->w);
	if (is(r, "clear"))
		avp_json_member_uint(&r->w, "cleared", r->count);
	avp_json_close_object(&r->w);
	if (!err)
		err = cmd_print_json(&r->w, &r->out, why);
	if (!err && !r->count && (r->message || r->number))
		err = avp__fail(why, AVP_UNKNOWN,
				"no such dead letter; avpctl dlq ls shows "
				"those that there are");
	return err;
}

static int run(struct request *r, struct avp_reason *why)
{
	struct ahp_dlq_options o = {.name_space = cmd_namespace()};
	const struct ahp_config *config = cmd_configuration(why);
	int err;

	if (!config)
		return why->code;
	if (r->timeout_ns == AHP_USUAL)
		r->timeout_ns = config->task_timeout_ns;
	ahp_config_dlq(config, &o);
	if (is(r, "ls") || is(r, "show"))
		o.flags |= AHP_DLQ_READ_ONLY;
	err = ahp_dlq_open(&r->dlq, &o, why);
	return err ? err : each(r, why);
}

/* ---- arguments ---------------------------------------------------------- */

static int check_words(struct request *r, const char *word)
{
	static const char *const words[] = {"ls", "show", "replay", "clear"};

	for (size_t i = 0; i < 4; i++)
		if (!strcmp(word, words[i]))
			r->what = words[i];
	if (!r->what)
		return cmd_failf("dlq", AVP_USAGE,
				 "say one of ls, show, replay, clear; see "
				 "avpctl dlq --help");
	if (r->to && !is(r, "replay"))
		return cmd_failf("dlq", AVP_USAGE, "--to is for replay");
	return CMD_GO_ON;
}

static int parse(struct request *r, int argc, char **argv)
{
	static const struct cmd_page page = {
		"dlq", "ls|show|replay|clear", 1, 1,
		"The dead letters of a namespace: all, or those that the "
		"options name. ls lists\n"
		"them, show adds what a frame says, clear removes them. replay "
		"sends each again,\n"
		"with a new id, and removes it once it was accepted.\n"};
	uint64_t number = UINT64_MAX;
	const struct cmd_option options[] = {
		{"agent", CMD_TEXT, &r->agent, "ID", "those to an agent"},
		{"message", CMD_TEXT, &r->message, "ID", "that message"},
		{"number", CMD_COUNT, &number, "N",
		 "the one of that number in the queue"},
		{"to", CMD_TEXT, &r->to, "ID", "replay to that agent instead"},
		{"timeout", CMD_SECONDS, &r->timeout_ns, "SECONDS",
		 "how long each may take to be accepted (the\n"
		 "task_timeout of the configuration: 60)"},
		{0},
	};
	int status = cmd_arguments(&page, options, &argc, argv);

	if (status != CMD_GO_ON)
		return status;
	if (!number)
		return cmd_failf("dlq", AVP_USAGE, "--number counts from 1 on");
	r->number = number == UINT64_MAX ? 0 : number;
	return check_words(r, argv[1]);
}

int cmd_dlq(int argc, char **argv)
{
	struct request r = {.timeout_ns = AHP_USUAL};
	struct avp_reason why;
	int status = parse(&r, argc, argv);

	if (status != CMD_GO_ON)
		return status;
	cmd_catch_signals();
	status = run(&r, &why) ? cmd_fail("dlq", &why) : r.status;
	if (r.sender)
		ahp_agent_close(r.sender);
	ahp_dlq_close(r.dlq);
	avp_buf_fini(&r.out);
	return status;
}
