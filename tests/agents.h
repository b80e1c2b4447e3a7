/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Agents for tests. Two agents of one process that are driven in turn make most
 * tests exact: nothing happens between two calls. What needs processes starts
 * them here, by fork before any agent is open.
 */
#ifndef AVP_TESTS_AGENTS_H
#define AVP_TESTS_AGENTS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include <unistd.h>

#include <avp/ahp.h>

#define SECOND_NS INT64_C(1000000000)
#define LONG_NS	  (20 * SECOND_NS) /* what only a failure waits for */
#define MIB	  (UINT64_C(1) << 20)

/* Points $AVP_RUNTIME_DIR to a directory of this program's own. */
void agents_begin(void);

/* Files in the namespace's directory: 0 when every agent is gone. */
int agents_names_left(void);

/* Opens an agent; more may be NULL. Does not return without one. */
struct ahp_agent *agent_open(const char *id,
			     const struct ahp_agent_options *more);

/* Links a to b, both of this process. */
void agents_link(struct ahp_agent *a, struct ahp_agent *b);

/* Lets both do what is due until neither is in the middle of something. */
void agents_settle(struct ahp_agent *a, struct ahp_agent *b);

/* Sends text as a TASK; the code. */
int agent_say(struct ahp_agent *agent, const char *to, const char *text,
	      struct ahp_receipt *receipt);

/* Sends bytes of the pattern of seed out of a loan; the code. */
int agent_lend(struct ahp_agent *agent, const char *to, uint64_t bytes,
	       uint32_t seed, struct ahp_receipt *receipt);

void pattern_fill(void *to, uint64_t bytes, uint32_t seed);
bool pattern_is(const void *from, uint64_t bytes, uint32_t seed);

/* The next message is there and has that text: true. It is released. */
bool agent_hears(struct ahp_agent *agent, const char *text);

/* A message to b and one back arrive as they were. */
bool agents_talk(struct ahp_agent *a, struct ahp_agent *b);

struct ahp_stats agent_stats(const struct ahp_agent *agent);

/* Counts what an agent logs: options.log_arg. */
struct agent_log {
	unsigned count, warnings;
	int last;
	char task[81], text[320];
	char warned_task[81]; /* of the last warning */
};
void agent_log(void *arg, enum ahp_log_level level, int code, const char *agent,
	       const char *task, const char *text);

/* In a child: an assertion that ends it. */
#define CHECK(condition)                                                   \
	do {                                                               \
		if (!(condition)) {                                        \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, \
				#condition);                               \
			_exit(1);                                          \
		}                                                          \
	} while (0)

/* Forks a child that runs and exits with 0; finish asserts that it did. */
pid_t child_start(void (*run)(void *), void *arg);
void child_finish(pid_t pid);
/* kill -9, and waits. */
void child_kill(pid_t pid);

/* Memory that children share with us, zeroed; freed with the program. */
void *shared_new(size_t bytes);
void shared_free(void *p, size_t bytes);

/* Waits until *word is at least value; false after LONG_NS. */
bool shared_await(_Atomic uint32_t *word, uint32_t value);

#endif
