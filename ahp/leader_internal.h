/* SPDX-License-Identifier: Apache-2.0 */
/* What inbox.c, broadcast.c and leader.c share. */
#ifndef AVP_AHP_LEADER_INTERNAL_H
#define AVP_AHP_LEADER_INTERNAL_H

#include <avp/json.h>
#include <avp/leader.h>

#define TOKEN_BODY_BYTES 4096 /* of a TOKEN_REQUEST or its answer */

/* Parses a copy of a short JSON body. */
int ahp__payload_parse(const struct ahp_message *m, struct avp_json_doc **doc,
		       struct avp_reason *why);

/* Takes an event if there is one; never waits. */
bool ahp__events_pop(struct ahp_agent *agent, struct ahp_event *event);

/*
 * A body that many readers have in common: the message's own loan, or a copy in
 * a new one if it is too long for slots. shared says which message to send
 * then.
 */
struct ahp__shared {
	struct ahp_outgoing message;
	struct ahp_loan loan; /* ours, if handle is not 0 */
};
int ahp__share_open(struct ahp_agent *agent, const struct ahp_outgoing *m,
		    struct ahp__shared *shared, struct avp_reason *why);
/* Gives our hold back; taken: and that of the caller's loan, as ahp_send(). */
void ahp__share_close(struct ahp_agent *agent, const struct ahp_outgoing *m,
		      struct ahp__shared *shared, bool taken);

#endif
