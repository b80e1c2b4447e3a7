/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The real avp-gateway with local agents around it, each a process of its own,
 * and a client that says to it exactly the bytes that a test wants said.
 */
#ifndef AVP_TESTS_GATEWAY_H
#define AVP_TESTS_GATEWAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/agents.h"
#include "tests/harness.h"
#include "tests/vectors.h"

/* Finds the avp-gateway beside this program, and calls agents_begin(). */
void gateway_begin(const char *argv0);

#define GATEWAY_PORTS 4
struct gateway_run {
	pid_t pid;
	int err; /* its stderr, a file that was opened for reading */
	unsigned ports, port[GATEWAY_PORTS]; /* in the configuration's order */
};

/* Starts it with that YAML and waits until it listens; fatal if it does not. */
void gateway_start(struct gateway_run *g, const char *yaml);
/* SIGTERM; asserts that it exits with 0 in time, leaving nothing behind. */
void gateway_stop(struct gateway_run *g);

/* What a local agent does with each message; it lives until it is killed. */
typedef void gateway_role(struct ahp_agent *agent, struct ahp_message *m);
/* Accepts; a TASK with a task id has a RESULT: its frame, or {"result":..}. */
gateway_role role_echo;
gateway_role role_reject; /* everything */
gateway_role role_deaf;	  /* answers nothing, and keeps what it gets */
gateway_role role_silent; /* accepts, and sends no RESULT */

/*
 * Starts one and waits until it can be found. Its model has hidden_dim 8 and
 * model_hash "cafe"; _plain_ has none.
 */
pid_t gateway_agent(const char *id, gateway_role *role);
pid_t gateway_plain_agent(const char *id, gateway_role *role);
void gateway_agent_end(pid_t pid);

/* ---- the client -------------------------------------------------------------- */

int client_open(unsigned port);
/* Closes with a reset. */
void client_reset(int fd);
void client_say(int fd, const void *bytes, size_t n);
void client_says(int fd, const char *text);
/* Has the other end closed? Waits; whatever else comes is thrown away. */
bool client_closed(int fd);

/* An answer of HTTP/1.1. */
struct answer {
	int status; /* 0: none came */
	bool closes;
	char text[65536]; /* all of it, with a NUL behind */
	size_t len;
	const char *body;
	size_t body_len;
};
/* Reads one, skipping "100 Continue"; what follows it stays to be read. */
bool client_hears(int fd, struct answer *a);
bool answer_has(const struct answer *a, const char *text);

/* A request with a connection of its own; headers are lines with CR LF. */
int client_asks(unsigned port, const char *method, const char *path,
		const char *headers, const void *body, size_t n,
		struct answer *a);

/* The value of a metric, by the whole text before it. */
double gateway_metric(unsigned port, const char *name);

/* All that was lent to local agents comes back: waits for it. */
bool gateway_lends_nothing(const struct gateway_run *g);

/* Are these words in that file of the test's directory? */
bool gateway_logged(const char *file, const char *words);

/* A frame: model "m", a payload of the pattern of seed. Room for n + 64. */
size_t frame_make(void *to, const char *target, size_t n, uint32_t seed);

/* ---- frames of HTTP/2 -------------------------------------------------------- */

enum {
	H2_DATA,
	H2_HEADERS,
	H2_PRIORITY,
	H2_RESET,
	H2_SETTINGS,
	H2_PUSH,
	H2_PING,
	H2_GOAWAY,
	H2_WINDOW,
	H2_CONTINUATION
};

#define H2_HEAD 9 /* bytes of a frame's header */

void h2_head(uint8_t to[H2_HEAD], size_t length, uint8_t type, uint8_t flags,
	     uint32_t stream);
/* Writes one to where there is room for H2_HEAD bytes more than its payload. */
size_t h2_put(uint8_t *to, uint8_t type, uint8_t flags, uint32_t stream,
	      const void *payload, size_t n);
/* A connection that has said its preface and empty settings. */
int h2_open(unsigned port);

#endif
