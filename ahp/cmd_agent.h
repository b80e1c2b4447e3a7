/* SPDX-License-Identifier: Apache-2.0 */
/* What avpctl's commands about agents share. */
#ifndef AVP_AHP_CMD_AGENT_H
#define AVP_AHP_CMD_AGENT_H

#include <avp/ahp.h>
#include <avp/config.h>

#include "gateway/cmd.h"

/* CLOCK_MONOTONIC. */
int64_t cmd_now_ns(void);

/* The moment that is so far away; AHP_FOREVER stays what it is. */
int64_t cmd_end_ns(int64_t timeout_ns);

/*
 * From now on SIGINT, SIGTERM and SIGHUP are noted, the first time: an agent
 * has names to remove. cmd_signal() tells which one came, or 0.
 */
void cmd_catch_signals(void);
int cmd_signal(void);

/*
 * How long a call may wait before cmd_signal() has to be asked again: until
 * end_ns, but no longer than a person notices.
 */
int64_t cmd_slice_ns(int64_t end_ns);

/* AVP_TIMEOUT, early: the signal ended what was being done. */
int cmd_interrupted(struct avp_reason *why);

/* A member whose text is another process's: what is no UTF-8 becomes '?'. */
void cmd_member_foreign(struct avp_json_writer *w, const char *key,
			struct avp_str text);

/*
 * The configuration that counts here, read at the first call: --config and so
 * on. NULL with the reason when it is wrong.
 */
const struct ahp_config *cmd_configuration(struct avp_reason *why);

/*
 * Fills what the configuration and --namespace say about agents, but for their
 * way to acknowledge: a command has its own. 0 or AVP_BAD_CONFIG.
 */
int cmd_agent_options(struct ahp_agent_options *options,
		      struct avp_reason *why);

/* Opens an agent for the time of a command, named after the process. */
int cmd_agent_open(struct ahp_agent **agent, struct avp_reason *why);

/*
 * Tells the agent's peers of the model with this config.json. 0, or as
 * avp_config_open(), AVP_IO, AVP_PERMISSION.
 */
int cmd_agent_model(struct ahp_agent *agent, const char *config_file,
		    struct avp_reason *why);

/* ahp_observe() where --namespace and the configuration say. */
int cmd_observe(ahp_visit *visit, void *arg, struct avp_reason *why);

/* Writes the counters of `avpctl stat` into the object that is open. */
void cmd_put_stats(struct avp_json_writer *w, const struct ahp_stats *stats);

/*
 * A private copy of a message's body, parsed: of JSON the document, of a frame
 * its content. Zeros and content.max_bytes to begin with; memory is reused from
 * message to message and freed by _fini.
 */
struct cmd_body {
	uint8_t kind; /* enum ahp_kind of what was read */
	struct cmd_file copy;
	struct cmd_content content;
	struct avp_json_doc *doc;
};

/*
 * 0; or BAD_JSON, INVALID_MESSAGE for what is no object, a frame's error,
 * TOO_LARGE, NO_MEMORY.
 */
int cmd_body_read(struct cmd_body *body, const struct ahp_message *message,
		  struct avp_reason *why);
void cmd_body_fini(struct cmd_body *body);

/* The body as the next value: JSON as it is, a frame as `frame decode` has
 * it. */
int cmd_put_body(struct avp_json_writer *w, const struct cmd_body *body,
		 struct avp_reason *why);

#endif
