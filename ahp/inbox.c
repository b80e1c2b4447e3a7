/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <avp/json.h>
#include <avp/leader.h>

#include "ahp/agent_internal.h"
#include "ahp/leader_internal.h"

/* A message and its place among those put aside, or among the spare ones. */
struct letter {
	struct ahp_message message; /* first: the application has its address */
	struct letter *next;
};

struct ahp_inbox {
	struct ahp_agent *agent;
	struct letter *first, **last; /* put aside */
	struct letter *spare;
	uint32_t count;
	uint64_t requests;
};

int ahp_inbox_open(struct ahp_inbox **out, struct ahp_agent *agent,
		   struct avp_reason *why)
{
	struct ahp_inbox *inbox;

	AHP_GUARD(agent);
	inbox = calloc(1, sizeof(*inbox));
	if (!inbox)
		return avp__fail(why, AVP_NO_MEMORY, "no memory for an inbox");
	inbox->agent = agent;
	inbox->last = &inbox->first;
	*out = inbox;
	return 0;
}

void ahp_inbox_done(struct ahp_inbox *inbox, struct ahp_message *message)
{
	struct letter *letter = (struct letter *)message;

	ahp_release(inbox->agent, message);
	letter->next = inbox->spare;
	inbox->spare = letter;
}

void ahp_inbox_close(struct ahp_inbox *inbox)
{
	struct letter *letter;

	if (!inbox)
		return;
	while ((letter = inbox->first)) {
		inbox->first = letter->next;
		ahp_inbox_done(inbox, &letter->message);
	}
	while ((letter = inbox->spare)) {
		inbox->spare = letter->next;
		free(letter);
	}
	free(inbox);
}

/* From the agent, past what was put aside. */
static int receive_new(struct ahp_inbox *inbox, struct letter **out,
		       int64_t timeout_ns)
{
	struct letter *letter = inbox->spare;
	int error;

	if (letter)
		inbox->spare = letter->next;
	else
		letter =
			aligned_alloc(_Alignof(struct letter), sizeof(*letter));
	if (!letter)
		return AVP_NO_MEMORY;
	error = ahp_receive(inbox->agent, &letter->message, timeout_ns);
	if (error) {
		letter->next = inbox->spare;
		inbox->spare = letter;
		return error;
	}
	*out = letter;
	return 0;
}

int ahp_inbox_receive(struct ahp_inbox *inbox, struct ahp_message **message,
		      int64_t timeout_ns)
{
	struct letter *letter = inbox->first;
	int error;

	if (letter) {
		inbox->first = letter->next;
		if (!inbox->first)
			inbox->last = &inbox->first;
		inbox->count--;
	} else {
		error = receive_new(inbox, &letter, timeout_ns);
		if (error)
			return error;
	}
	*message = &letter->message;
	return 0;
}

static void put_aside(struct ahp_inbox *inbox, struct letter *letter)
{
	letter->next = NULL;
	*inbox->last = letter;
	inbox->last = &letter->next;
	inbox->count++;
}

int ahp_request(struct ahp_inbox *inbox, const struct ahp_outgoing *request,
		int64_t timeout_ns, struct ahp_message **answer,
		struct avp_reason *why)
{
	int64_t now_ns = ahp__now_ns(), end_ns = AHP_FOREVER;
	uint8_t method = request->method == AHP_TOKEN_REQUEST
				 ? AHP_TOKEN_RESPONSE
				 : AHP_RESULT;
	struct ahp_receipt receipt;
	struct letter *letter;
	int error;

	if (!request->task_id.len)
		return avp__fail(why, AVP_USAGE,
				 "a request needs a task id, which its answer "
				 "repeats");
	if (timeout_ns == AHP_USUAL)
		timeout_ns = inbox->agent->options.task_timeout_ns;
	if (timeout_ns < AHP_FOREVER - now_ns)
		end_ns = now_ns + timeout_ns;
	error = ahp_send(inbox->agent, request, timeout_ns, &receipt, why);
	while (!error) {
		if (inbox->count == AHP_INBOX_MAX)
			return avp__fail(why, AVP_QUEUE_FULL,
					 "%d messages came before the answer, "
					 "the limit",
					 AHP_INBOX_MAX);
		now_ns = ahp__now_ns();
		error = receive_new(inbox, &letter,
				    end_ns == AHP_FOREVER ? AHP_FOREVER
				    : end_ns > now_ns	  ? end_ns - now_ns
							  : 0);
		if (error)
			return avp__fail(
				why, error, "no answer from %s in time",
				ahp_peer_id(inbox->agent, receipt.peer));
		if (letter->message.peer == receipt.peer &&
		    letter->message.method == method &&
		    avp_str_equal(letter->message.task_id, request->task_id)) {
			*answer = &letter->message;
			return 0;
		}
		put_aside(inbox, letter);
	}
	return error;
}

/* ---- tokens ------------------------------------------------------------- */

int ahp__payload_parse(const struct ahp_message *m, struct avp_json_doc **doc,
		       struct avp_reason *why)
{
	char text[TOKEN_BODY_BYTES];

	if (m->kind != AHP_JSON || m->body_bytes > sizeof(text))
		return avp__fail(why, AVP_INVALID_MESSAGE,
				 "%llu bytes of kind %u are no token message: "
				 "JSON of at most %d",
				 (unsigned long long)m->body_bytes, m->kind,
				 TOKEN_BODY_BYTES);
	ahp_message_copy(m, 0, text, m->body_bytes);
	return avp_json_parse(doc, text, m->body_bytes, NULL, why);
}

static int read_grant(const struct ahp_message *m, uint64_t wanted,
		      uint64_t *granted, uint64_t *remaining,
		      struct avp_reason *why)
{
	struct ahp_token_response_payload response;
	struct avp_json_doc *doc;
	int error = ahp__payload_parse(m, &doc, why);

	if (error)
		return error;
	error = ahp_token_response_read(&response, avp_json_root(doc), why);
	avp_json_free(doc);
	if (error)
		return error;
	if (response.tokens > wanted)
		return avp__fail(why, AVP_INVALID_MESSAGE,
				 "%s grants %llu tokens where %llu were asked",
				 m->source, (unsigned long long)response.tokens,
				 (unsigned long long)wanted);
	*granted = response.tokens;
	if (remaining)
		*remaining = response.remaining;
	return 0;
}

int ahp_request_tokens(struct ahp_inbox *inbox, const char *leader,
		       uint64_t tokens, int64_t timeout_ns, uint64_t *granted,
		       uint64_t *remaining, struct avp_reason *why)
{
	struct ahp_token_request_payload payload = {.tokens = tokens};
	struct ahp_outgoing request = {.target = leader,
				       .method = AHP_TOKEN_REQUEST};
	struct avp_buf buf = {0};
	struct avp_json_writer w;
	struct ahp_message *answer;
	char task[40];
	int error;

	/* Each its own, so that a late answer is not taken for the next. */
	snprintf(task, sizeof(task), "tokens-%llu",
		 (unsigned long long)++inbox->requests);
	avp_json_begin(&w, &buf, AVP_JSON_COMPACT);
	ahp_token_request_put(&w, &payload);
	error = avp_json_finish(&w);
	if (error) {
		avp_buf_fini(&buf);
		return avp__fail(why, error, "no memory for a request");
	}
	request.task_id = (struct avp_str){task, strlen(task)};
	request.body = buf.data;
	request.body_bytes = buf.len;
	error = ahp_request(inbox, &request, timeout_ns, &answer, why);
	avp_buf_fini(&buf);
	if (error)
		return error;
	error = read_grant(answer, tokens, granted, remaining, why);
	ahp_inbox_done(inbox, answer);
	return error;
}
