/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program whose loop is not ours: a child echoes messages, and whoever owns
 * the loop calls foreign_work() when foreign_fd() is readable. As a shared
 * library for asyncio; with -DUV a program on libuv.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <avp/ahp.h>

#define MESSAGES 5000
#define SECOND	 1000000000ll

int foreign_start(const char *runtime_dir);
int foreign_fd(void);
int foreign_work(void);
int foreign_stop(void);

static struct ahp_agent *agent;
static int sent, heard, full;
static pid_t child;

static struct ahp_agent *open_agent(const char *id, const char *runtime_dir)
{
	const struct ahp_agent_options o = {.size = sizeof(o),
					    .id = id,
					    .runtime_dir = runtime_dir,
					    .window = 16};
	struct ahp_agent *opened;
	struct avp_reason why;

	if (!ahp_agent_open(&opened, &o, &why))
		return opened;
	fprintf(stderr, "%s: %s\n", id, why.text);
	return NULL;
}

static int say(struct ahp_agent *from, uint32_t peer, int64_t timeout_ns)
{
	const struct ahp_outgoing m = {.target = "echo",
				       .peer = peer,
				       .method = AHP_TASK,
				       .body = "x",
				       .body_bytes = 1};

	return ahp_send(from, &m, timeout_ns, NULL, NULL);
}

static void echo(const char *runtime_dir)
{
	struct ahp_agent *me = open_agent("echo", runtime_dir);
	struct ahp_message m;

	for (int i = 0; me && i < MESSAGES; i++)
		if (ahp_receive(me, &m, 20 * SECOND) ||
		    say(me, m.peer, 20 * SECOND))
			_exit(1);
	ahp_agent_close(me);
	_exit(0);
}

int foreign_start(const char *runtime_dir)
{
	child = fork();
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		echo(runtime_dir);
	}
	agent = open_agent("foreign", runtime_dir);
	for (int i = 0; agent && i < 5000; i++) {
		if (!ahp_connect(agent, "echo", SECOND, NULL, NULL))
			return 0;
		ahp_agent_run(agent, 1000000);
	}
	return -1;
}

int foreign_fd(void)
{
	return ahp_agent_fd(agent);
}

/* All that can be done without waiting; armed when it returns. 1: it is
 * over. */
int foreign_work(void)
{
	struct ahp_message m;

	do {
		ahp_agent_run(agent, 0);
		for (; !ahp_receive(agent, &m, 0); heard++)
			ahp_release(agent, &m);
		while (sent < MESSAGES && !say(agent, 0, 0))
			sent++;
		full += sent < MESSAGES;
	} while (heard < MESSAGES && ahp_agent_arm(agent));
	return heard == MESSAGES;
}

/* How often there was no room; -1: the echo failed. */
int foreign_stop(void)
{
	int status;

	ahp_agent_close(agent);
	return waitpid(child, &status, 0) == child && !status ? full : -1;
}

#ifdef UV
#include <uv.h>

static int ticks, over;

static void readable(uv_poll_t *poll, int status, int events)
{
	(void)events;
	over = status || foreign_work();
	if (over)
		uv_stop(poll->loop);
}

/* The loop's own timers go on beside it; none of them may be needed. */
static void tick(uv_timer_t *timer)
{
	if (++ticks == 3000)
		uv_stop(timer->loop);
}

int main(int argc, char **argv)
{
	uv_loop_t *loop = uv_default_loop();
	uv_timer_t timer;
	uv_poll_t poll;
	int no_room;

	if (argc != 2 || foreign_start(argv[1]))
		return 1;
	uv_poll_init(loop, &poll, foreign_fd());
	uv_poll_start(&poll, UV_READABLE, readable);
	uv_timer_init(loop, &timer);
	uv_timer_start(&timer, tick, 10, 10);
	if (!foreign_work())
		uv_run(loop, UV_RUN_DEFAULT);
	uv_poll_stop(&poll);
	no_room = foreign_stop();
	printf("libuv %s: %d messages, %d times full, %d ticks\n",
	       uv_version_string(), heard, no_room, ticks);
	return heard != MESSAGES || no_room < 0 || ticks > 2000;
}
#endif
