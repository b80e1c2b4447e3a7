/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the event loop costs, on each backend: a turn that finds nothing, a turn
 * that finds a byte, and the round trip of two processes that sleep in their
 * loops and ring each other by a byte in a socket, beside one without a loop.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <avp/ring.h>

#include "bench.h"

#define TURNS	500000
#define TRIPS	4000 /* of a batch */
#define BATCHES 5    /* of each kind, interleaved */

static void take_byte(struct avp_watch *watch, uint32_t events)
{
	char c;

	(void)events;
	if (read(watch->fd, &c, 1) != 1)
		exit(1); /* the other end is gone */
}

static struct avp_loop *open_loop(const char *backend)
{
	struct avp_reason why;
	struct avp_loop *loop;

	setenv("AVP_LOOP", backend, 1);
	if (!avp_loop_open(&loop, &why))
		return loop;
	printf("%s: %s\n", backend, why.text);
	exit(1);
}

/* ---- turns -------------------------------------------------------------- */

static void turns(const char *backend)
{
	struct avp_loop *loop = open_loop(backend);
	struct avp_watch watch[64];
	int sock[64][2], last;
	double start, idle, busy;

	for (int i = 0; i < 64; i++) {
		if (socketpair(AF_UNIX, SOCK_STREAM, 0, sock[i]))
			exit(1);
		watch[i] = (struct avp_watch){sock[i][0], AVP_READABLE,
					      take_byte, NULL};
		if (avp_loop_add(loop, &watch[i], NULL))
			exit(1);
	}
	last = sock[63][1];
	avp_loop_run(loop, 0);
	start = now_ns();
	for (int i = 0; i < TURNS; i++)
		avp_loop_run(loop, 0);
	idle = (now_ns() - start) / TURNS;
	start = now_ns();
	for (int i = 0; i < TURNS / 10; i++)
		if (write(last, "", 1) != 1 || avp_loop_run(loop, 0) != 1)
			exit(1);
	busy = (now_ns() - start) / (TURNS / 10.0);
	printf("%-9s 64 fds: idle turn %6.1f ns, byte written, told and read "
	       "%6.0f ns\n",
	       backend, idle, busy);
	avp_loop_close(loop);
	for (int i = 0; i < 64; i++) {
		close(sock[i][0]);
		close(sock[i][1]);
	}
}

/* ---- round trips -------------------------------------------------------- */

struct end {
	struct avp_loop *loop; /* NULL: blocking reads */
	struct avp_watch watch;
};

static void open_end(struct end *end, const char *backend, int sock)
{
	memset(end, 0, sizeof(*end));
	end->watch = (struct avp_watch){sock, AVP_READABLE, take_byte, NULL};
	if (!strcmp(backend, "read"))
		return;
	end->loop = open_loop(backend);
	if (avp_loop_add(end->loop, &end->watch, NULL))
		exit(1);
}

static void wait_byte(struct end *end)
{
	int calls = 0;

	if (!end->loop)
		take_byte(&end->watch, 0);
	while (end->loop && !calls)
		calls = avp_loop_run(end->loop, -1);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void batch(const char *backend, double *out)
{
	struct end end;
	int sock[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sock))
		exit(1);
	fflush(stdout);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pin(1);
		close(sock[0]);
		open_end(&end, backend, sock[1]);
		for (;;) {
			wait_byte(&end);
			if (write(sock[1], "", 1) != 1)
				_exit(0);
		}
	}
	close(sock[1]);
	pin(0);
	open_end(&end, backend, sock[0]);
	for (int i = -100; i < TRIPS; i++) {
		double start = now_ns();

		if (write(sock[0], "", 1) != 1)
			exit(1);
		wait_byte(&end);
		if (i >= 0)
			out[i] = now_ns() - start;
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	avp_loop_close(end.loop);
	close(sock[0]);
}

int main(void)
{
	static const char *const kind[] = {"read", "io_uring", "epoll"};
	static double trip[3][BATCHES * TRIPS];
	const int n = BATCHES * TRIPS;

	pin(0);
	turns("io_uring");
	turns("epoll");
	for (int b = 0; b < BATCHES; b++)
		for (int k = 0; k < 3; k++)
			batch(kind[k], trip[k] + b * TRIPS);
	for (int k = 0; k < 3; k++) {
		qsort(trip[k], n, sizeof(double), compare);
		printf("%-9s sleeping round trip p50 %5.1f us, p90 %5.1f, p99 "
		       "%5.1f\n",
		       kind[k], trip[k][n / 2] / 1e3, trip[k][n * 9 / 10] / 1e3,
		       trip[k][n * 99 / 100] / 1e3);
	}
	return 0;
}
