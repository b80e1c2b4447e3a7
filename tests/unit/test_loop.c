/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The event loop: every test is run on each backend, which must behave alike.
 * Where io_uring is forbidden its tests are passed over with a line that says
 * so.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <avp/ring.h>

#include "tests/harness.h"

#define SECOND 1000000000ll

static struct avp_loop *loop;

/* A watched socket of a pair, and what was called. */
struct ear {
	struct avp_watch watch;
	int other;
	unsigned calls;
	uint32_t events;
	unsigned read_bytes; /* how many to read in each call */
	void (*then)(struct ear *ear);
	struct ear *victim;
};

static void heard(struct avp_watch *watch, uint32_t events)
{
	struct ear *ear = watch->arg;
	char bytes[64];

	ear->calls++;
	ear->events = events;
	if (ear->read_bytes && read(watch->fd, bytes, ear->read_bytes) < 0)
		ear->events |= 0x100;
	if (ear->then)
		ear->then(ear);
}

static void open_ear(struct ear *ear)
{
	int sock[2];

	memset(ear, 0, sizeof(*ear));
	CU_ASSERT_FATAL(
		!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sock));
	ear->watch = (struct avp_watch){sock[0], AVP_READABLE, heard, ear};
	ear->other = sock[1];
	ear->read_bytes = 64;
	CU_ASSERT_EQUAL(avp_loop_add(loop, &ear->watch, NULL), 0);
}

static void close_ear(struct ear *ear)
{
	avp_loop_remove(loop, &ear->watch);
	close(ear->watch.fd);
	if (ear->other >= 0)
		close(ear->other);
}

static void say(struct ear *ear, const char *text)
{
	CU_ASSERT_EQUAL(write(ear->other, text, strlen(text)),
			(ssize_t)strlen(text));
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/*
 * A wait that must end by something ready. It may be interrupted: the kernel
 * has work for a thread some time after a ring was closed, which ends waits as
 * a signal does.
 */
static int run_until_called(void)
{
	double start = now();
	int calls;

	do
		calls = avp_loop_run(loop, 20 * SECOND);
	while (!calls && now() - start < 15);
	CU_ASSERT(now() - start < 15);
	return calls;
}

/* Runs f with a fresh loop of that backend. */
static void with(const char *backend, void (*f)(void))
{
	struct avp_reason why;

	setenv("AVP_LOOP", backend, 1);
	if (avp_loop_open(&loop, &why)) {
		CU_ASSERT(!strcmp(backend, "io_uring") &&
			  why.code == AVP_UNSUPPORTED);
		printf("skip loop: %s\n", why.text);
		return;
	}
	CU_ASSERT_STRING_EQUAL(avp_loop_backend(loop), backend);
	f();
	avp_loop_close(loop);
}

/* ---- waiting ------------------------------------------------------------ */

static void nothing(void)
{
	double start = now();
	int turns = 0;

	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
	CU_ASSERT_EQUAL(avp_loop_run(loop, 1), 0);
	for (; now() - start < 0.02; turns++) /* rarely more than one */
		CU_ASSERT_EQUAL(avp_loop_run(loop, 30000000), 0);
	CU_ASSERT(turns < 5);
	CU_ASSERT(now() - start < 5);
}

static void one_message(void)
{
	struct ear ear;

	open_ear(&ear);
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
	say(&ear, "x");
	CU_ASSERT_EQUAL(run_until_called(), 1);
	CU_ASSERT_EQUAL(ear.events, AVP_READABLE);
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
	say(&ear, "x");
	say(&ear, "y");
	CU_ASSERT_EQUAL(avp_loop_run(loop, -1), 1);
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
	close_ear(&ear);
}

/* Told again until it is read: a callback may leave what it likes. */
static void level_triggered(void)
{
	struct ear ear;

	open_ear(&ear);
	ear.read_bytes = 1;
	say(&ear, "four");
	for (int i = 0; i < 4; i++)
		CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 1);
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
	say(&ear, "x");
	ear.read_bytes = 0;
	for (int i = 0; i < 10; i++)
		CU_ASSERT_EQUAL(run_until_called(), 1);
	/* Read elsewhere: no more of it. */
	CU_ASSERT_EQUAL(recv(ear.watch.fd, &(char){0}, 1, 0), 1);
	CU_ASSERT(avp_loop_run(loop, 0) <= 1); /* it was polled before */
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
	close_ear(&ear);
}

static void already_ready(void)
{
	struct ear ear;

	open_ear(&ear);
	avp_loop_remove(loop, &ear.watch);
	say(&ear, "x");
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
	CU_ASSERT_EQUAL(avp_loop_add(loop, &ear.watch, NULL), 0);
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 1);
	close_ear(&ear);
}

static void hang_up(void)
{
	struct ear ear;

	open_ear(&ear);
	ear.watch.events = 0; /* told nevertheless */
	CU_ASSERT_EQUAL(avp_loop_change(loop, &ear.watch, NULL), 0);
	say(&ear, "x");
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
	close(ear.other);
	ear.other = -1;
	CU_ASSERT_EQUAL(run_until_called(), 1);
	CU_ASSERT_EQUAL(ear.events, AVP_READABLE);
	ear.watch.events = AVP_READABLE | AVP_WRITABLE;
	CU_ASSERT_EQUAL(avp_loop_change(loop, &ear.watch, NULL), 0);
	CU_ASSERT_EQUAL(run_until_called(), 1);
	CU_ASSERT(ear.events & AVP_READABLE);
	close_ear(&ear);
}

static void writable(void)
{
	char block[4096] = {0};
	struct ear ear;

	open_ear(&ear);
	ear.watch.events = AVP_READABLE | AVP_WRITABLE;
	CU_ASSERT_EQUAL(avp_loop_change(loop, &ear.watch, NULL), 0);
	CU_ASSERT_EQUAL(run_until_called(), 1);
	CU_ASSERT_EQUAL(ear.events & 0xff, AVP_WRITABLE);
	while (write(ear.watch.fd, block, sizeof(block)) > 0)
		;
	ear.read_bytes = 0;
	while (avp_loop_run(loop, 0))
		; /* what was polled before */
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
	say(&ear, "x");
	CU_ASSERT_EQUAL(run_until_called(), 1);
	CU_ASSERT_EQUAL(ear.events, AVP_READABLE);
	while (read(ear.other, block, sizeof(block)) > 0)
		;
	CU_ASSERT_EQUAL(run_until_called(), 1);
	CU_ASSERT_EQUAL(run_until_called(), 1);
	CU_ASSERT_EQUAL(ear.events, AVP_READABLE | AVP_WRITABLE);
	close_ear(&ear);
}

static void child_ends(void)
{
	struct ear ear = {.other = -1};
	pid_t pid;
	int gate[2];

	CU_ASSERT_FATAL(!pipe(gate));
	pid = fork();
	if (!pid) {
		char c;

		close(gate[1]);
		_exit(read(gate[0], &c, 1) != 0);
	}
	ear.watch.fd = (int)syscall(SYS_pidfd_open, pid, 0);
	ear.watch.ready = heard;
	ear.watch.arg = &ear;
	ear.watch.events = AVP_READABLE;
	CU_ASSERT_EQUAL(avp_loop_add(loop, &ear.watch, NULL), 0);
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
	close(gate[1]);
	CU_ASSERT_EQUAL(run_until_called(), 1);
	CU_ASSERT_EQUAL(ear.events, AVP_READABLE);
	waitpid(pid, NULL, 0);
	close_ear(&ear);
	close(gate[0]);
}

/* ---- callbacks that change what is watched ------------------------------ */

static void remove_victim(struct ear *ear)
{
	avp_loop_remove(loop, &ear->victim->watch);
}

static void removed_in_a_callback(void)
{
	struct ear a, b;

	/* Both are ready, each removes the other: one call. */
	open_ear(&a);
	open_ear(&b);
	a.victim = &b;
	b.victim = &a;
	a.then = b.then = remove_victim;
	say(&a, "x");
	say(&b, "x");
	CU_ASSERT_EQUAL(run_until_called(), 1);
	CU_ASSERT_EQUAL(a.calls + b.calls, 1);
	for (int i = 0; i < 3; i++)
		CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
	close_ear(&a);
	close_ear(&b);
	/* Itself. */
	open_ear(&a);
	a.victim = &a;
	a.then = remove_victim;
	say(&a, "xx");
	a.read_bytes = 1;
	CU_ASSERT_EQUAL(run_until_called(), 1);
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
	close_ear(&a);
}

/* The victim's memory and fd are used anew at once, by another. */
static void replace_victim(struct ear *ear)
{
	struct ear *v = ear->victim;

	if (!v)
		return;
	ear->victim = NULL;
	avp_loop_remove(loop, &v->watch);
	close(v->watch.fd);
	close(v->other);
	open_ear(v);
}

static void replaced_in_a_callback(void)
{
	struct ear a, b;

	for (int first = 0; first < 2; first++) {
		open_ear(&a);
		open_ear(&b);
		a.victim = &b;
		b.victim = &a;
		a.then = b.then = replace_victim;
		say(first ? &a : &b, "x");
		say(first ? &b : &a, "x");
		CU_ASSERT_EQUAL(run_until_called(), 1);
		/* The new one was told nothing of the old one's. */
		CU_ASSERT_EQUAL(a.calls + b.calls, 1);
		CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
		say(&a, "x");
		CU_ASSERT_EQUAL(run_until_called(), 1);
		say(&b, "x");
		CU_ASSERT_EQUAL(run_until_called(), 1);
		CU_ASSERT_EQUAL(a.calls + b.calls, 3);
		close_ear(&a);
		close_ear(&b);
	}
}

static struct ear late;

static void open_late(struct ear *ear)
{
	open_ear(&late);
	say(&late, "x");
	ear->then = NULL;
}

static void added_in_a_callback(void)
{
	struct ear ear;

	open_ear(&ear);
	ear.then = open_late;
	say(&ear, "x");
	CU_ASSERT_EQUAL(run_until_called(), 1);
	CU_ASSERT_EQUAL(late.calls, 0);
	CU_ASSERT_EQUAL(run_until_called(), 1);
	CU_ASSERT_EQUAL(late.calls, 1);
	close_ear(&late);
	close_ear(&ear);
}

static int nested;

static void run_again(struct ear *ear)
{
	(void)ear;
	nested = avp_loop_run(loop, 0);
}

static void not_re_entrant(void)
{
	struct ear ear;

	open_ear(&ear);
	ear.then = run_again;
	ear.read_bytes = 1;
	say(&ear, "xx");
	CU_ASSERT_EQUAL(run_until_called(), 1);
	CU_ASSERT_EQUAL(nested, AVP_USAGE);
	CU_ASSERT_EQUAL(ear.calls, 1);
	CU_ASSERT_EQUAL(run_until_called(), 1);
	close_ear(&ear);
}

/* ---- removing and closing ----------------------------------------------- */

/* Who closes a socket after removing it closes it: its peer reads the end. */
static void removal_lets_go_of_the_file(void)
{
	struct ear ear;
	char c;

	open_ear(&ear);
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
	avp_loop_remove(loop, &ear.watch);
	close(ear.watch.fd);
	CU_ASSERT_EQUAL(read(ear.other, &c, 1), 0);
	close(ear.other);
	/* And nothing is left that would wake anybody. */
	CU_ASSERT_EQUAL(poll(&(struct pollfd){.fd = avp_loop_fd(loop),
					      .events = POLLIN},
			     1, 0),
			0);
	open_ear(&ear);
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
	avp_loop_close(loop);
	close(ear.watch.fd);
	CU_ASSERT_EQUAL(read(ear.other, &c, 1), 0);
	close(ear.other);
	CU_ASSERT_EQUAL_FATAL(avp_loop_open(&loop, NULL), 0);
}

static void usage(void)
{
	struct ear ear, twin;
	struct avp_reason why;
	int fd = dup(0);
	FILE *file = tmpfile();

	open_ear(&ear);
	twin = ear;
	twin.watch.arg = &twin;
	CU_ASSERT_EQUAL(avp_loop_add(loop, &ear.watch, &why), AVP_USAGE);
	CU_ASSERT_EQUAL(avp_loop_add(loop, &twin.watch, &why), AVP_USAGE);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "already"));
	avp_loop_remove(loop, &ear.watch);
	CU_ASSERT_EQUAL(avp_loop_change(loop, &ear.watch, &why), AVP_USAGE);
	avp_loop_remove(loop, &ear.watch); /* nothing */
	CU_ASSERT_EQUAL(avp_loop_add(loop, &ear.watch, &why), 0);
	twin.watch.fd = fd;
	close(fd);
	CU_ASSERT_EQUAL(avp_loop_add(loop, &twin.watch, &why), AVP_USAGE);
	twin.watch.fd = -1;
	CU_ASSERT_EQUAL(avp_loop_add(loop, &twin.watch, &why), AVP_USAGE);
	avp_loop_remove(loop, &twin.watch);
	twin.watch.fd = fileno(file);
	CU_ASSERT_EQUAL(avp_loop_add(loop, &twin.watch, &why), AVP_USAGE);
	twin.watch.fd = ear.other;
	twin.watch.events = 4;
	CU_ASSERT_EQUAL(avp_loop_add(loop, &twin.watch, &why), AVP_USAGE);
	fclose(file);
	say(&ear, "x");
	CU_ASSERT_EQUAL(run_until_called(), 1);
	CU_ASSERT_EQUAL(ear.calls, 1);
	close_ear(&ear);
}

/* ---- many --------------------------------------------------------------- */

#define MANY 1000

static void many_watches(void)
{
	static struct ear ears[MANY];
	struct rlimit limit;
	unsigned calls = 0, wrong = 0;
	int n;

	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	for (int i = 0; i < MANY; i++)
		open_ear(&ears[i]);
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
	for (int round = 1; round <= 3; round++) {
		for (int i = 0; i < MANY; i++)
			say(&ears[i], "x");
		for (calls = 0; (n = avp_loop_run(loop, 0)) > 0;)
			calls += (unsigned)n;
		CU_ASSERT_EQUAL(calls, MANY);
		for (int i = 0; i < MANY; i++)
			wrong += ears[i].calls != (unsigned)round;
	}
	CU_ASSERT_EQUAL(wrong, 0);
	for (int i = 0; i < MANY; i += 2) {
		say(&ears[i], "x");
		close_ear(&ears[i]);
	}
	say(&ears[MANY - 1], "x");
	CU_ASSERT_EQUAL(run_until_called(), 1);
	for (int i = 1; i < MANY; i += 2)
		close_ear(&ears[i]);
}

/* More changes than the kernel's queues hold, without a turn in between. */
static void many_changes(void)
{
	struct ear ears[4];

	for (int i = 0; i < 4; i++)
		open_ear(&ears[i]);
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
	say(&ears[2], "x");
	for (int round = 0; round < 6000; round++) {
		struct ear *ear = &ears[round % 4];

		if (round % 3)
			avp_loop_change(loop, &ear->watch, NULL);
		avp_loop_remove(loop, &ear->watch);
		avp_loop_add(loop, &ear->watch, NULL);
		if (round % 5 == 0)
			avp_loop_fd(loop); /* polls go to the kernel */
	}
	CU_ASSERT_EQUAL(run_until_called(), 1);
	CU_ASSERT_EQUAL(ears[2].calls, 1);
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
	for (int i = 0; i < 4; i++)
		close_ear(&ears[i]);
}

static void *ring_often(void *arg)
{
	struct ear *ear = arg;
	char c;

	for (int i = 0; i < 20000; i++)
		if (write(ear->other, "x", 1) != 1 ||
		    read(ear->other, &c, 1) == 0)
			break;
	return NULL;
}

static void answer(struct ear *ear)
{
	CU_ASSERT_EQUAL(write(ear->watch.fd, "y", 1), 1);
}

/* A ping-pong in which the loop's side always sleeps: no wake-up is lost. */
static void many_wake_ups(void)
{
	pthread_t thread;
	struct ear ear;

	open_ear(&ear);
	ear.then = answer;
	fcntl(ear.other, F_SETFL, 0); /* it blocks */
	pthread_create(&thread, NULL, ring_often, &ear);
	while (ear.calls < 20000)
		if (run_until_called() < 1)
			break;
	CU_ASSERT_EQUAL(ear.calls, 20000);
	shutdown(ear.watch.fd, SHUT_RDWR);
	pthread_join(thread, NULL);
	close_ear(&ear);
}

/* ---- signals, forks, threads -------------------------------------------- */

static void on_alarm(int sig)
{
	(void)sig;
}

static void signals_end_a_wait(void)
{
	struct sigaction act = {.sa_handler = on_alarm};
	struct itimerval soon = {.it_value = {0, 20000}};
	double start = now();

	while (now() - start < 0.02)
		avp_loop_run(loop, 30000000);
	sigaction(SIGALRM, &act, NULL);
	setitimer(ITIMER_REAL, &soon, NULL);
	CU_ASSERT_EQUAL(avp_loop_run(loop, 20 * SECOND), 0);
	CU_ASSERT(now() - start < 10);
}

static void forked(void)
{
	struct ear ear;
	int status = -1;
	pid_t pid;

	open_ear(&ear);
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
	pid = fork();
	if (!pid) {
		int bad = avp_loop_run(loop, 0) != AVP_FORKED;

		bad += avp_loop_add(loop, &ear.watch, NULL) != AVP_FORKED;
		bad += avp_loop_change(loop, &ear.watch, NULL) != AVP_FORKED;
		bad += avp_loop_fd(loop) != AVP_FORKED;
		avp_loop_remove(loop, &ear.watch);
		avp_loop_close(loop);
		_exit(bad);
	}
	CU_ASSERT_EQUAL(waitpid(pid, &status, 0), pid);
	CU_ASSERT_EQUAL(status, 0);
	say(&ear, "x"); /* the child has removed nothing */
	CU_ASSERT_EQUAL(run_until_called(), 1);
	close_ear(&ear);
}

static void *run_once(void *arg)
{
	*(int *)arg = avp_loop_run(loop, 0);
	return NULL;
}

static void *add_and_end(void *arg)
{
	struct ear *ear = arg;

	open_ear(ear);
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
	return NULL;
}

/* What a thread that has ended had armed is still watched. */
static void another_thread(void)
{
	struct ear ear;
	pthread_t thread;
	int calls = -1;

	pthread_create(&thread, NULL, add_and_end, &ear);
	pthread_join(thread, NULL);
	say(&ear, "x");
	/* The kernel takes its time to end what the thread had under way. */
	while (poll(&(struct pollfd){.fd = avp_loop_fd(loop), .events = POLLIN},
		    1, 5000) < 0)
		;
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 1);
	say(&ear, "x");
	pthread_create(&thread, NULL, run_once, &calls);
	pthread_join(thread, NULL);
	CU_ASSERT_EQUAL(calls, 1);
	say(&ear, "x");
	CU_ASSERT_EQUAL(run_until_called(), 1);
	close_ear(&ear);
}

static _Atomic int state;

static void *arm_and_compute(void *arg)
{
	(void)arg;
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
	state = 1;
	while (state == 1)
		; /* no system call: the thread computes */
	return NULL;
}

/* And what a thread armed that computes now. */
static void armed_by_a_busy_thread(void)
{
	pthread_t thread;
	struct ear ear;

	open_ear(&ear);
	state = 0;
	pthread_create(&thread, NULL, arm_and_compute, NULL);
	while (!state)
		sched_yield();
	say(&ear, "x");
	CU_ASSERT_EQUAL(run_until_called(), 1);
	state = 2;
	pthread_join(thread, NULL);
	close_ear(&ear);
}

/* ---- the pollable fd ---------------------------------------------------- */

static int foreign;

static void open_foreign(uint32_t flags)
{
	struct epoll_event event = {.events = EPOLLIN | flags};

	foreign = epoll_create1(EPOLL_CLOEXEC);
	CU_ASSERT_EQUAL(
		epoll_ctl(foreign, EPOLL_CTL_ADD, avp_loop_fd(loop), &event),
		0);
}

static int foreign_wait(int ms)
{
	struct epoll_event event;
	int n;

	while ((n = epoll_wait(foreign, &event, 1, ms)) < 0 && errno == EINTR)
		;
	return n;
}

static void in_a_foreign_loop(uint32_t flags)
{
	struct ear a, b;

	open_ear(&a);
	open_foreign(flags);
	open_ear(&b); /* also what is added after the fd was asked for */
	CU_ASSERT_EQUAL(foreign_wait(0), 0);
	for (int round = 0; round < 100; round++) {
		say(round & 1 ? &a : &b, "x");
		CU_ASSERT_EQUAL(foreign_wait(5000), 1);
		CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 1);
		CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
		CU_ASSERT_EQUAL(foreign_wait(0), 0);
	}
	/* In one turn, but not read to the end. */
	a.read_bytes = 1;
	say(&a, "xyz");
	CU_ASSERT_EQUAL(foreign_wait(5000), 1);
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 1);
	if (!(flags & EPOLLET))
		CU_ASSERT_EQUAL(foreign_wait(0), 1);
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 1);
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 1);
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 0);
	CU_ASSERT_EQUAL(foreign_wait(0), 0);
	/* Removed while ready: nothing to wake for. */
	say(&b, "x");
	close_ear(&b);
	if (!(flags & EPOLLET))
		CU_ASSERT_EQUAL(foreign_wait(0), 0);
	say(&a, "x");
	CU_ASSERT_EQUAL(foreign_wait(5000), 1);
	CU_ASSERT_EQUAL(avp_loop_run(loop, 0), 1);
	close(a.other);
	a.other = -1;
	CU_ASSERT_EQUAL(foreign_wait(5000), 1);
	close_ear(&a);
	close(foreign);
}

static void foreign_level(void)
{
	in_a_foreign_loop(0);
}

static void foreign_edge(void)
{
	in_a_foreign_loop(EPOLLET);
}

/* 200 at once, more than one turn takes: run until there is no more. */
static void foreign_edge_many(void)
{
	static struct ear ears[200];
	unsigned calls = 0;
	int n;

	for (int i = 0; i < 200; i++)
		open_ear(&ears[i]);
	open_foreign(EPOLLET);
	for (int round = 0; round < 5; round++) {
		for (int i = 0; i < 200; i++)
			say(&ears[i], "x");
		CU_ASSERT_EQUAL(foreign_wait(5000), 1);
		while ((n = avp_loop_run(loop, 0)) > 0)
			calls += (unsigned)n;
	}
	CU_ASSERT_EQUAL(calls, 1000);
	for (int i = 0; i < 200; i++)
		close_ear(&ears[i]);
	close(foreign);
}

/* A thread sleeps in the foreign loop while others ring. */
static void foreign_sleep(void)
{
	pthread_t thread;
	struct ear ear;

	open_ear(&ear);
	ear.then = answer;
	fcntl(ear.other, F_SETFL, 0); /* it blocks */
	open_foreign(EPOLLET);
	pthread_create(&thread, NULL, ring_often, &ear);
	while (ear.calls < 20000 && foreign_wait(5000) == 1)
		while (avp_loop_run(loop, 0) > 0)
			;
	CU_ASSERT_EQUAL(ear.calls, 20000);
	shutdown(ear.watch.fd, SHUT_RDWR);
	pthread_join(thread, NULL);
	close_ear(&ear);
	close(foreign);
}

/* ---- the choice --------------------------------------------------------- */

static void choice(void)
{
	struct avp_loop *l = NULL;
	struct avp_reason why = {0};

	setenv("AVP_LOOP", "kqueue", 1);
	CU_ASSERT_EQUAL(avp_loop_open(&l, &why), AVP_USAGE);
	CU_ASSERT_PTR_NOT_NULL(strstr(why.text, "kqueue"));
	CU_ASSERT_PTR_NULL(l);
	setenv("AVP_LOOP", "", 1);
	CU_ASSERT_EQUAL_FATAL(avp_loop_open(&l, &why), 0);
	printf("AVP_LOOP unset: %s\n", avp_loop_backend(l));
	avp_loop_close(l);
	unsetenv("AVP_LOOP");
	CU_ASSERT_EQUAL_FATAL(avp_loop_open(&l, &why), 0);
	avp_loop_close(l);
	avp_loop_close(NULL);
}

/* CUnit's tests take no argument: two functions for each. */
#define BOTH(f)                        \
	static void f##_io_uring(void) \
	{                              \
		with("io_uring", f);   \
	}                              \
	static void f##_epoll(void)    \
	{                              \
		with("epoll", f);      \
	}
#define ALL(X)                         \
	X(nothing)                     \
	X(one_message)                 \
	X(level_triggered)             \
	X(already_ready)               \
	X(hang_up)                     \
	X(writable)                    \
	X(child_ends)                  \
	X(removed_in_a_callback)       \
	X(replaced_in_a_callback)      \
	X(added_in_a_callback)         \
	X(not_re_entrant)              \
	X(removal_lets_go_of_the_file) \
	X(usage)                       \
	X(many_watches)                \
	X(many_changes)                \
	X(many_wake_ups)               \
	X(signals_end_a_wait)          \
	X(forked)                      \
	X(another_thread)              \
	X(armed_by_a_busy_thread)      \
	X(foreign_level)               \
	X(foreign_edge)                \
	X(foreign_edge_many)           \
	X(foreign_sleep)
ALL(BOTH)

#define TESTS(f) TEST(f##_io_uring), TEST(f##_epoll),

int main(void)
{
	static const struct test tests[] = {
		ALL(TESTS) TEST(choice),
		{0},
	};

	return test_main("loop", tests);
}
