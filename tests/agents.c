/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/agents.h"
#include "tests/harness.h"

void agents_begin(void)
{
	setenv("AVP_RUNTIME_DIR", test_dir(), 1);
	unsetenv("AVP_NAMESPACE");
}

int agents_names_left(void)
{
	char path[512];
	struct dirent *entry;
	int count = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "%s/default", test_dir());
	dir = opendir(path);
	while (dir && (entry = readdir(dir)))
		count += strcmp(entry->d_name, ".") != 0 &&
			 strcmp(entry->d_name, "..") != 0;
	if (dir)
		closedir(dir);
	return count;
}

struct ahp_agent *agent_open(const char *id,
			     const struct ahp_agent_options *more)
{
	struct ahp_agent_options options = {0};
	struct ahp_agent *agent;
	struct avp_reason why = {0};

	if (more)
		options = *more;
	options.size = sizeof(options);
	options.id = id;
	if (ahp_agent_open(&agent, &options, &why)) {
		fprintf(stderr, "%s: %s\n", id, why.text);
		_exit(1);
	}
	return agent;
}

void agents_settle(struct ahp_agent *a, struct ahp_agent *b)
{
	for (int i = 0; i < 4; i++) {
		ahp_agent_run(a, 0);
		ahp_agent_run(b, 0);
	}
}

void agents_link(struct ahp_agent *a, struct ahp_agent *b)
{
	for (int i = 0; i < 100; i++) {
		if (!ahp_connect(a, ahp_agent_id(b), 0, NULL, NULL)) {
			agents_settle(a, b);
			return;
		}
		ahp_agent_run(b, 0);
	}
	fprintf(stderr, "%s cannot link to %s\n", ahp_agent_id(a),
		ahp_agent_id(b));
	_exit(1);
}

int agent_say(struct ahp_agent *agent, const char *to, const char *text,
	      struct ahp_receipt *receipt)
{
	struct ahp_outgoing m = {
		.target = to,
		.method = AHP_TASK,
		.body = text,
		.body_bytes = strlen(text),
	};

	return ahp_send(agent, &m, 0, receipt, NULL);
}

int agent_lend(struct ahp_agent *agent, const char *to, uint64_t bytes,
	       uint32_t seed, struct ahp_receipt *receipt)
{
	struct ahp_outgoing m = {.target = to, .method = AHP_TASK};
	struct ahp_loan loan;
	int error = ahp_loan(agent, to, bytes, 0, &loan, NULL);

	if (error)
		return error;
	pattern_fill(loan.data, bytes, seed);
	m.loan = &loan;
	m.body = loan.data;
	m.body_bytes = bytes;
	error = ahp_send(agent, &m, 0, receipt, NULL);
	if (error)
		ahp_loan_release(agent, &loan);
	return error;
}

/* Eight bytes at a time, and what remains from the last word. */
static uint64_t word_of(uint64_t i, uint32_t seed)
{
	return (i + 1) * UINT64_C(0x9e3779b97f4a7c15) + seed;
}

void pattern_fill(void *to, uint64_t bytes, uint32_t seed)
{
	for (uint64_t i = 0; i < bytes; i += 8) {
		uint64_t word = word_of(i, seed);

		memcpy((char *)to + i, &word, bytes - i < 8 ? bytes - i : 8);
	}
}

bool pattern_is(const void *from, uint64_t bytes, uint32_t seed)
{
	for (uint64_t i = 0; i < bytes; i += 8) {
		uint64_t word = word_of(i, seed);

		if (memcmp((const char *)from + i, &word,
			   bytes - i < 8 ? bytes - i : 8))
			return false;
	}
	return true;
}

bool agent_hears(struct ahp_agent *agent, const char *text)
{
	struct ahp_message m;
	bool same;

	if (ahp_receive(agent, &m, 0))
		return false;
	same = m.body_bytes == strlen(text) &&
	       !memcmp(m.body, text, m.body_bytes);
	ahp_release(agent, &m);
	return same;
}

bool agents_talk(struct ahp_agent *a, struct ahp_agent *b)
{
	return !agent_say(a, ahp_agent_id(b), "ping", NULL) &&
	       agent_hears(b, "ping") &&
	       !agent_say(b, ahp_agent_id(a), "pong", NULL) &&
	       agent_hears(a, "pong");
}

struct ahp_stats agent_stats(const struct ahp_agent *agent)
{
	struct ahp_stats stats;

	ahp_agent_stats(agent, &stats);
	return stats;
}

void agent_log(void *arg, enum ahp_log_level level, int code, const char *agent,
	       const char *task, const char *text)
{
	struct agent_log *log = arg;

	(void)agent;
	log->count++;
	log->warnings += level <= AHP_LOG_WARNING;
	log->last = code;
	snprintf(log->task, sizeof(log->task), "%s", task);
	if (level <= AHP_LOG_WARNING)
		snprintf(log->warned_task, sizeof(log->warned_task), "%s",
			 task);
	snprintf(log->text, sizeof(log->text), "%s", text);
}

pid_t child_start(void (*run)(void *), void *arg)
{
	pid_t pid;

	fflush(NULL);
	pid = fork();
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	run(arg);
	_exit(0);
}

void child_finish(pid_t pid)
{
	int status = -1;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		continue;
	CU_ASSERT_EQUAL(status, 0);
}

void child_kill(pid_t pid)
{
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		continue;
}

void *shared_new(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("mmap");
		_exit(1);
	}
	return p;
}

void shared_free(void *p, size_t bytes)
{
	munmap(p, bytes);
}

bool shared_await(_Atomic uint32_t *word, uint32_t value)
{
	struct timespec t;
	time_t end;

	clock_gettime(CLOCK_MONOTONIC, &t);
	end = t.tv_sec + LONG_NS / SECOND_NS;
	/* acquire: what was stored before the word is seen with it */
	while (atomic_load_explicit(word, memory_order_acquire) < value) {
		sched_yield();
		clock_gettime(CLOCK_MONOTONIC, &t);
		if (t.tv_sec > end)
			return false;
	}
	return true;
}
