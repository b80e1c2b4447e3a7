/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A planner here, the real avp-gateway as a process, and far: a peer over
 * HTTP/1.1 that is scripted, in this process. Nothing of it happens but in
 * far_turn(), and in what waits.
 */
#ifndef AVP_TESTS_FAR_H
#define AVP_TESTS_FAR_H

#include "tests/agents.h"
#include "tests/harness.h"
#include "tests/web.h"

#define FAR_PATIENCE_S 20.0 /* what only a failure waits for */
#define FAR_OK	       "{\"success\":true,\"answer\":42}"

struct far_options {
	/* Of the peer's model; "": it tells none; "echo": what it was told. */
	const char *model_hash;
	const char *more;     /* YAML, of the peer: "max_retries: 0" */
	const char *sections; /* lines beside the section gateway; or NULL */
	void (*before_exec)(void); /* in the gateway's process; or NULL */
	/* Another server than the scripted one, and what it does in a turn. */
	unsigned port; /* 0: none */
	void (*serve)(void *arg);
	void *serve_arg;
};

struct far {
	struct far_options options;
	struct web *web;
	struct ahp_agent *planner;
	pid_t gateway;
	unsigned port;	   /* of its listener */
	bool knows_agents; /* paths of agents */
	unsigned handshakes, requests, healths;
	/*
	 * Answers to messages, one after the other; the last one stays. "-":
	 * hang up; "~TEXT": that, then hang up; "": say nothing; a text: as it
	 * is; "200 {...}": JSON. Or lie, if it is set, answers.
	 */
	const char *const *script;
	unsigned at;
	web_answer *lie;
	void *lie_arg;
	/* Of the last message that came. */
	char path[256], id[64], task[64], wait[16], type[64], token[64];
	char *body;
	size_t body_len;
	unsigned same_id;
	struct ahp_receipt receipt; /* of the last that was sent */
};

/* First of all, with argv[0]. */
void far_setup(const char *argv0);

/* Until the planner is linked to far. */
void far_begin(struct far *w, const char *model_hash, const char *more);
void far_begin_with(struct far *w, const struct far_options *options);
/* SIGTERM; asserts that the gateway exits with 0. */
void far_end(struct far *w);
void far_turn(struct far *w);
double far_now_s(void);

/* A TASK from the planner: what ahp_send() says. */
int far_text(struct far *w, const char *text);
int far_frame(struct far *w, const struct avp_metadata *m, const void *payload,
	      uint64_t bytes);
/* What became of the last one: ahp_status(), waited for. */
int far_outcome(struct far *w);
/* The next RESULT has these texts. */
bool far_hears(struct far *w, const char *a, const char *b);

/* Does the gateway's log have these words? */
bool far_logged(const char *words);
/* Dead letters of far whose error has that text. */
unsigned far_letters(const char *text);
/* The metric says that far is so; answers: the peer serves meanwhile. */
bool far_is(struct far *w, const char *state);
bool far_becomes(struct far *w, const char *state, bool answers);

#endif
