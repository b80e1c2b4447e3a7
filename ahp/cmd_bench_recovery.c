/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A receiver that is killed while it holds a message, and started again, until
 * the message is in its hands a second time. It is a program of its own, as in
 * life: avpctl, executed anew. The baseline is the start of the same program that
 * does nothing but tell the time.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ahp/cmd_bench.h"
#include "gateway/cmd.h"

#define TURN_NS	    1000000 /* between two looks at the receiver's pipe */
#define PATIENCE_NS 20000000000ll
#define READER	    "bench-reader"
#define LETTER	    "{\"bench\":\"recovery\"}"

/* What the receiver says of a message, in one write. */
struct report {
	int64_t main_ns, open_ns, message_ns; /* CLOCK_MONOTONIC */
	uint64_t redelivered;
};

static struct {
	pid_t pid;
	int pipe[2];
} reader;

enum { STEP_KILL, STEP_START, STEP_OPEN, STEP_MESSAGE };
static const char *const step_names[BENCH_STEPS] = {
	"killed_p50", "started_p50", "opened_p50", "redelivered_p50"};

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static uint64_t as_ticks(int64_t ns)
{
	return ns > 0 ? (uint64_t)((double)ns * bench_ticks_per_ns()) : 0;
}

/* ---- the receiver ------------------------------------------------------------------ */

static void tell(int fd, const struct report *report)
{
	if (write(fd, report, sizeof(*report)) != sizeof(*report))
		_exit(CMD_SYSTEM);
}

/* Accepts what was sent again; holds what is new until it is killed. */
static void hold_messages(struct ahp_agent *agent, int fd,
			  struct report *report)
{
	struct ahp_message m;

	for (;;) {
		if (ahp_receive(agent, &m, AHP_FOREVER))
			bench_die("the receiver does not receive");
		report->message_ns = now_ns();
		report->redelivered = m.redelivered;
		if (m.redelivered)
			ahp_accept(agent, &m);
		ahp_release(agent, &m);
		tell(fd, report);
	}
}

int bench_reader(int argc, char **argv)
{
	struct report report = {.main_ns = now_ns()};
	struct ahp_agent_options options = {
		.size = sizeof(options),
		.flags = AHP_EXPLICIT_ACK,
		.id = READER,
		.name_space = "bench",
	};
	struct ahp_agent *agent;
	struct avp_reason why;
	int fd;

	if (argc != 3)
		return cmd_failf("bench", AVP_USAGE,
				 "--reader is for avpctl itself");
	fd = atoi(argv[1]);
	if (!*argv[2]) { /* the baseline: it has started, no more */
		tell(fd, &report);
		return CMD_DONE;
	}
	options.runtime_dir = argv[2];
	if (ahp_agent_open(&agent, &options, &why))
		bench_fail("open", &why);
	report.open_ns = now_ns();
	hold_messages(agent, fd, &report);
	return CMD_DONE;
}

/* ---- the sender -------------------------------------------------------------------- */

/* On the other core, where it will run: to be moved costs time too. */
static void start_reader(const struct bench_side *me, const char *dir)
{
	pid_t parent = getpid();
	char fd[16];

	snprintf(fd, sizeof(fd), "%d", reader.pipe[1]);
	reader.pid = fork();
	if (reader.pid < 0)
		bench_die("fork: %s", strerror(errno));
	if (reader.pid)
		return;
	bench_pin(me, 1);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() == parent)
		execl("/proc/self/exe", "avpctl", "bench", "--reader", fd, dir,
		      (char *)NULL);
	_exit(CMD_SYSTEM);
}

static int reap(void)
{
	int status = 0;

	while (waitpid(reader.pid, &status, 0) < 0 && errno == EINTR)
		continue;
	reader.pid = 0;
	return status;
}

/* Reads the next report, if there is one within that time. */
static bool read_report(struct report *report, int timeout_ms)
{
	struct pollfd p = {.fd = reader.pipe[0], .events = POLLIN};

	if (poll(&p, 1, timeout_ms) <= 0)
		return false;
	return read(p.fd, report, sizeof(*report)) == sizeof(*report);
}

/* The sender's thread serves its agent meanwhile, as it has to. */
static void await_report(struct bench_side *me, struct report *report,
			 bool redelivered)
{
	int64_t end_ns = now_ns() + PATIENCE_NS;

	while (!read_report(report, 0)) {
		ahp_agent_run(me->agent, TURN_NS);
		if (now_ns() > end_ns ||
		    waitpid(reader.pid, NULL, WNOHANG) == reader.pid)
			bench_die("the receiver ended or did not answer");
	}
	if (report->redelivered != redelivered)
		bench_die("a message came %s",
			  redelivered ? "that was not sent again" : "again");
}

/* The next message is in the receiver's hands, and not accepted. */
static void send_next(struct bench_side *me)
{
	struct ahp_outgoing m = {
		.target = READER,
		.method = AHP_TASK,
		.kind = AHP_JSON,
		.body = LETTER,
		.body_bytes = sizeof(LETTER) - 1,
	};
	struct report report;
	struct avp_reason why;

	if (ahp_send(me->agent, &m, BENCH_WAIT_NS, NULL, &why))
		bench_fail("send", &why);
	await_report(me, &report, false);
}

void bench_recovery_open(struct bench_side *me)
{
	struct ahp_agent_options options = {
		.size = sizeof(options),
		.flags = AHP_RELIABLE,
		.id = "bench-sender",
		.name_space = "bench",
		.runtime_dir = me->options->runtime_dir,
		.wait = me->options->wait,
	};
	struct avp_reason why;

	if (me->role)
		return;
	if (pipe(reader.pipe))
		bench_die("pipe: %s", strerror(errno));
	for (unsigned i = 0; i < BENCH_STEPS; i++)
		me->step[i] = bench_hist_new();
	if (ahp_agent_open(&me->agent, &options, &why))
		bench_fail("open", &why);
	start_reader(me, me->options->runtime_dir);
	send_next(me);
}

void bench_recovery_close(struct bench_side *me)
{
	if (me->role)
		return;
	kill(reader.pid, SIGKILL);
	reap();
	for (unsigned i = 0; i < BENCH_STEPS; i++)
		bench_note(me, step_names[i],
			   bench_hist_at(me->step[i], 0.5) /
				   bench_ticks_per_ns());
	ahp_agent_close(me->agent);
}

/* ---- stages ------------------------------------------------------------------------ */

void bench_process_start(struct bench_side *me, uint64_t trips,
			 struct bench_hist *hist)
{
	pid_t holder = reader.pid;
	struct report report;

	for (uint64_t i = 0; i < trips; i++) {
		int64_t begin_ns = now_ns();

		start_reader(me, "");
		if (!read_report(&report, PATIENCE_NS / 1000000) || reap())
			bench_die("the bare process did not start");
		bench_hist_add(hist, as_ticks(report.main_ns - begin_ns));
	}
	reader.pid = holder;
}

void bench_recovery(struct bench_side *me, uint64_t trips,
		    struct bench_hist *hist)
{
	struct report report;

	for (uint64_t i = 0; i < trips; i++) {
		int64_t begin_ns = now_ns(), gone_ns;

		kill(reader.pid, SIGKILL);
		reap();
		gone_ns = now_ns();
		start_reader(me, me->options->runtime_dir);
		await_report(me, &report, true);
		bench_hist_add(hist, as_ticks(report.message_ns - begin_ns));
		bench_hist_add(me->step[STEP_KILL],
			       as_ticks(gone_ns - begin_ns));
		bench_hist_add(me->step[STEP_START],
			       as_ticks(report.main_ns - gone_ns));
		bench_hist_add(me->step[STEP_OPEN],
			       as_ticks(report.open_ns - report.main_ns));
		bench_hist_add(me->step[STEP_MESSAGE],
			       as_ticks(report.message_ns - report.open_ns));
		send_next(me);
	}
}
