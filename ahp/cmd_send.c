/* SPDX-License-Identifier: Apache-2.0 */
/* avpctl send: one message to an agent of this host, and what became of it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ahp/cmd_agent.h"

#define LOOK_AGAIN_NS 5000000ll /* for an agent that is not there yet */

enum wait_for { WAIT_NOT, WAIT_ACK, WAIT_RESULT };

struct sender {
	const char *target, *json, *frame_file, *model;
	enum wait_for wait;
	int64_t timeout_ns, end_ns;
	bool patient; /* --timeout was given */
	struct ahp_agent *agent;
	struct ahp_outgoing out;
	struct ahp_receipt receipt;
	uint8_t id[16];
	char id_text[AHP_ID_TEXT_BYTES];
	struct cmd_file file;
	struct ahp_loan loan;
	struct cmd_body result;
	bool has_result;
};

/* ---- the body ----------------------------------------------------------- */

static int check_json(const char *text, struct avp_reason *why)
{
	struct avp_json_doc *doc = NULL;
	int err = avp_json_parse(&doc, text, strlen(text), NULL, why);

	if (!err)
		err = avp_json_expect_object(avp_json_root(doc),
					     "a message's payload", why);
	avp_json_free(doc);
	return err;
}

static int check_body(struct sender *s, struct avp_frame *frame,
		      struct avp_reason *why)
{
	int err;

	if (s->json) {
		s->out.kind = AHP_JSON;
		s->out.body = s->json;
		s->out.body_bytes = strlen(s->json);
		return check_json(s->json, why);
	}
	s->out.kind = AHP_FRAME;
	err = cmd_file_open(&s->file, s->frame_file, false, why);
	if (!err)
		err = cmd_frame_fill(&s->file, why);
	cmd_file_close(&s->file);
	if (!err)
		err = avp_frame_decode(s->file.data, s->file.len, frame, why);
	if (!err && !(frame->flags & AVP_FLAG_COMPRESSED))
		err = avp_frame_payload_check(frame, frame->payload,
					      frame->payload_bytes, why);
	return err;
}

/* So that the tensor, behind heads of any length, begins where loans are. */
static int place_frame(struct sender *s, const struct avp_frame *frame,
		       struct avp_reason *why)
{
	uint64_t kv = frame->metadata.payload_type == AVP_KV_CACHE ? 17 : 0;
	uint64_t len = avp_frame_bytes(frame), front = frame->payload_off + kv;
	int err;

	if (front > len)
		front = len;
	err = ahp_loan(s->agent, s->target, len - front + 1, (uint32_t)front,
		       &s->loan, why);
	if (err)
		return err;
	s->out.loan = &s->loan;
	s->out.body = (uint8_t *)s->loan.data - front;
	s->out.body_bytes = len;
	memcpy((uint8_t *)s->loan.data - front, s->file.data, len);
	return 0;
}

/* ---- sending ------------------------------------------------------------ */

/* An agent that is not there (yet) is waited for if a time was given for
 * that. */
static int link_target(struct sender *s, struct avp_reason *why)
{
	int err;

	do {
		if (cmd_signal())
			return cmd_interrupted(why);
		err = ahp_connect(s->agent, s->target, cmd_slice_ns(s->end_ns),
				  &s->out.peer, why);
		if (err == AVP_AGENT_NOT_FOUND && s->patient)
			ahp_agent_run(s->agent, LOOK_AGAIN_NS);
	} while ((err == AVP_TIMEOUT ||
		  (err == AVP_AGENT_NOT_FOUND && s->patient)) &&
		 cmd_slice_ns(s->end_ns));
	return err;
}

static int make_ids(struct sender *s, struct avp_reason *why)
{
	if (ahp_id_random(s->id))
		return avp__fail(why, AVP_IO, "no randomness for an id");
	ahp_id_write(s->id, s->id_text);
	s->out.message_id = s->id;
	if (s->wait == WAIT_RESULT && !s->out.task_id.len)
		s->out.task_id = avp_str_of(s->id_text);
	return 0;
}

static int publish(struct sender *s, const struct avp_frame *frame,
		   struct avp_reason *why)
{
	int err = cmd_agent_open(&s->agent, why);

	s->patient = s->timeout_ns != AHP_USUAL;
	if (!err && !s->patient)
		s->timeout_ns = cmd_configuration(why)->task_timeout_ns;
	s->end_ns = cmd_end_ns(s->timeout_ns);
	if (!err && s->model)
		err = cmd_agent_model(s->agent, s->model, why);
	if (!err)
		err = make_ids(s, why);
	if (!err)
		err = link_target(s, why);
	if (!err && s->out.kind == AHP_FRAME)
		err = place_frame(s, frame, why);
	if (s->wait != WAIT_NOT)
		s->out.flags |= AHP_PROMPT_ACK;
	if (!err)
		err = ahp_send(s->agent, &s->out, cmd_slice_ns(s->end_ns),
			       &s->receipt, why);
	return err;
}

/* ---- waiting ------------------------------------------------------------ */

/* Words for how a message ended, or for that it has not. */
static int judge(const struct sender *s, int status, struct avp_reason *why)
{
	switch (status) {
	case AVP_OK: return 0;
	case AVP_TIMEOUT:
		return avp__fail(why, status,
				 "%s has not accepted the message in %g s",
				 s->target, (double)s->timeout_ns * 1e-9);
	case AVP_REJECTED:
		return avp__fail(why, status, "%s refused the message",
				 s->target);
	case AVP_EXPIRED:
		return avp__fail(why, status, "%s read the message too late",
				 s->target);
	case AVP_SHAPE_MISMATCH:
		return avp__fail(why, status,
				 "the frame does not fit the model of %s; its "
				 "log says what differs. Send JSON, or see "
				 "avpctl resolve",
				 s->target);
	case AVP_CLOSED:
		return avp__fail(why, status,
				 "%s is gone and had not accepted the message",
				 s->target);
	default: return avp__fail(why, status, "%s", avp_error_text(status));
	}
}

static int wait_ack(struct sender *s, struct avp_reason *why)
{
	int status;

	do {
		if (cmd_signal())
			return cmd_interrupted(why);
		status = ahp_wait(s->agent, &s->receipt,
				  cmd_slice_ns(s->end_ns));
	} while (status == AVP_TIMEOUT && cmd_slice_ns(s->end_ns));
	return judge(s, status, why);
}

static bool is_result(const struct sender *s, const struct ahp_message *m)
{
	return m->method == AHP_RESULT &&
	       avp_str_equal(m->task_id, s->out.task_id);
}

/* Anybody may have done the task: the one who got it may have passed it on. */
static int wait_result(struct sender *s, struct avp_reason *why)
{
	struct ahp_message m;
	int err;

	for (;;) {
		if (cmd_signal())
			return cmd_interrupted(why);
		err = ahp_receive(s->agent, &m, cmd_slice_ns(s->end_ns));
		if (!err && is_result(s, &m)) {
			err = cmd_body_read(&s->result, &m, why);
			s->has_result = !err;
			ahp_release(s->agent, &m);
			return err;
		}
		if (!err)
			ahp_release(s->agent, &m);
		else if (err != AVP_TIMEOUT)
			return judge(s, err, why);
		err = ahp_status(s->agent, &s->receipt);
		if (err && err != AVP_AGAIN)
			return judge(s, err, why);
		if (!cmd_slice_ns(s->end_ns))
			return avp__fail(why, AVP_TIMEOUT,
					 "no RESULT of task %.*s in %g s",
					 (int)s->out.task_id.len,
					 s->out.task_id.data,
					 (double)s->timeout_ns * 1e-9);
	}
}

/* ---- the answer --------------------------------------------------------- */

static const char *status_name(const struct sender *s, int err)
{
	int known = ahp_status(s->agent, &s->receipt);

	if (s->wait == WAIT_NOT)
		return "sent";
	if (err == AVP_REJECTED || err == AVP_EXPIRED ||
	    err == AVP_SHAPE_MISMATCH)
		known = err;
	switch (known) {
	case AVP_OK: return "accepted";
	case AVP_REJECTED:
	case AVP_SHAPE_MISMATCH: return "rejected";
	case AVP_EXPIRED: return "expired";
	case AVP_CLOSED: return "closed";
	default: return "sent";
	}
}

static int print_answer(struct sender *s, int err, double seconds,
			struct avp_reason *why)
{
	struct cmd_answer answer;
	struct avp_json_writer *w = cmd_answer_begin(&answer);
	int bad = 0;

	avp_json_key(w, "message_id");
	avp_json_put_text(w, s->id_text);
	avp_json_key(w, "status");
	avp_json_put_text(w, status_name(s, err));
	avp_json_key(w, "seconds");
	avp_json_put_double(w, seconds);
	if (s->has_result) {
		avp_json_key(w, "result");
		bad = cmd_put_body(w, &s->result, why);
	}
	return cmd_answer_end(&answer, bad, why);
}

static int send_message(struct sender *s, struct avp_reason *why)
{
	struct avp_reason unprinted;
	struct avp_frame frame;
	int64_t start_ns;
	int err = check_body(s, &frame, why);

	if (err)
		return err;
	start_ns = cmd_now_ns();
	err = publish(s, &frame, why);
	if (err)
		return err;
	if (s->wait == WAIT_ACK)
		err = wait_ack(s, why);
	else if (s->wait == WAIT_RESULT)
		err = wait_result(s, why);
	/* It was sent: its id is told, however it went on. */
	if (print_answer(s, err, (double)(cmd_now_ns() - start_ns) / 1e9,
			 &unprinted) &&
	    !err) {
		*why = unprinted;
		err = why->code;
	}
	return err;
}

/* ---- arguments ---------------------------------------------------------- */

static int parse_method(const char *name, uint8_t *method)
{
	*method = (uint8_t)ahp_method_of(avp_str_of(name));
	if (*method != AHP_OTHER)
		return CMD_GO_ON;
	return cmd_failf("send", AVP_USAGE,
			 "--method %.80s; choose TASK, RESULT, PROGRESS, ACK, "
			 "HEARTBEAT, TOKEN_REQUEST or TOKEN_RESPONSE",
			 name);
}

static int parse(struct sender *s, int argc, char **argv)
{
	static const struct cmd_page page = {
		"send", "AGENT", 1, 1,
		"Sends an agent of this host one message, a JSON object or an "
		"AVP frame, and\n"
		"prints {\"message_id\",\"status\",\"seconds\"}, and "
		"\"result\" if one was waited for.\n"
		"One of --json and --frame is needed.\n"};
	const char *method = "TASK", *task = "", *session = "";
	bool ack = false, result = false;
	const struct cmd_option options[] = {
		{"json", CMD_TEXT, &s->json, "TEXT", "a JSON object"},
		{"frame", CMD_TEXT, &s->frame_file, "FILE|-",
		 "the file of an AVP frame"},
		{"method", CMD_TEXT, &method, "METHOD",
		 "TASK (the default), RESULT, PROGRESS, ACK,\n"
		 "HEARTBEAT, TOKEN_REQUEST or TOKEN_RESPONSE"},
		{"task", CMD_UTF8, &task, "ID", "the task it belongs to"},
		{"session", CMD_UTF8, &session, "ID", "and the session"},
		{"wait-ack", CMD_FLAG, &ack, NULL,
		 "wait until the agent has accepted it"},
		{"wait-result", CMD_FLAG, &result, NULL,
		 "wait for a RESULT of the same task; an id\n"
		 "is made up if --task names none"},
		{"model", CMD_TEXT, &s->model, "CONFIG",
		 "the config.json of the frame's model: an\n"
		 "agent of another one does not get it"},
		{"timeout", CMD_SECONDS, &s->timeout_ns, "SECONDS",
		 "for all of it (the task_timeout of the\n"
		 "configuration: 60); if given, an agent\n"
		 "that is not there yet is waited for"},
		{0},
	};
	int status = cmd_arguments(&page, options, &argc, argv);

	if (status == CMD_GO_ON)
		status = parse_method(method, &s->out.method);
	if (status != CMD_GO_ON)
		return status;
	if (ack && result)
		return cmd_failf("send", AVP_USAGE,
				 "choose one of --wait-ack and --wait-result");
	if (!s->json == !s->frame_file)
		return cmd_failf("send", AVP_USAGE,
				 "give one of --json TEXT and --frame FILE");
	s->wait = ack ? WAIT_ACK : result ? WAIT_RESULT : WAIT_NOT;
	s->out.task_id = avp_str_of(task);
	s->out.session_id = avp_str_of(session);
	s->target = argv[1];
	return CMD_GO_ON;
}

int cmd_send(int argc, char **argv)
{
	struct sender s = {
		.file = {.fd = -1},
		.timeout_ns = AHP_USUAL,
		.result = {.content = {.max_bytes = CMD_CONTENT_MAX}},
	};
	struct avp_reason why;
	int status = parse(&s, argc, argv);

	if (status != CMD_GO_ON)
		return status;
	cmd_catch_signals();
	status = send_message(&s, &why) ? cmd_fail("send", &why) : CMD_DONE;
	if (s.agent)
		ahp_agent_close(s.agent);
	cmd_body_fini(&s.result);
	cmd_file_fini(&s.file);
	return status;
}
