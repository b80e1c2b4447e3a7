/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tests/bench/gateway needs beside the programs that it measures:
 *
 *	receive ID		an agent that reads what it gets and acknowledges it
 *	send ID FILE COUNT	frames to an agent, one after the other: the
 *				microseconds of each until it is acknowledged
 *	idle PORT COUNT		so many connections that have each made a request
 *	peak PID		the most memory but shared memory that it has, KiB
 *
 * The first prints "ready", as the last two do; these end with their stdin.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <avp/ahp.h>

#define WARM_UP	  200 /* messages that are not told */
#define WAIT_NS	  5000000000ll
#define FRAME_MAX (1 << 20)
#define SAMPLE_MS 2
#define ID	  "bench-sender"

static void need(bool so, const char *what)
{
	if (so)
		return;
	fprintf(stderr, "bench_gateway: %s\n", what);
	exit(1);
}

static void ready(void)
{
	puts("ready");
	fflush(stdout);
}

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* Waits so long; false when stdin has ended. */
static bool goes_on(int ms)
{
	struct pollfd in = {STDIN_FILENO, POLLIN, 0};

	return !poll(&in, 1, ms);
}

/* ---- agents ------------------------------------------------------------- */

static struct ahp_agent *open_agent(const char *id, uint32_t flags)
{
	struct ahp_agent_options options = {.id = id, .flags = flags};
	struct ahp_agent *agent;
	struct avp_reason why;

	if (ahp_agent_open(&agent, &options, &why))
		need(false, why.text);
	return agent;
}

static uint64_t read_all(const uint8_t *at, uint64_t bytes)
{
	uint64_t sum = 0, word;

	for (; bytes >= sizeof(word); bytes -= sizeof(word)) {
		memcpy(&word, at, sizeof(word));
		sum += word;
		at += sizeof(word);
	}
	return sum;
}

static void receive(const char *id)
{
	struct ahp_agent *agent = open_agent(id, AHP_EXPLICIT_ACK);
	struct ahp_message m;
	volatile uint64_t sum;

	ready();
	for (;;) {
		if (ahp_receive(agent, &m, AHP_FOREVER))
			continue;
		sum = read_all(m.body, m.body_bytes);
		(void)sum; /* written, so that the bytes have to be read */
		ahp_accept(agent, &m);
		ahp_release(agent, &m);
	}
}

static void send_one(struct ahp_agent *agent, const struct ahp_outgoing *m)
{
	struct ahp_receipt receipt;
	struct avp_reason why;

	if (ahp_send(agent, m, WAIT_NS, &receipt, &why))
		need(false, why.text);
	need(!ahp_wait(agent, &receipt, WAIT_NS), "not acknowledged");
}

static void send_many(const char *id, const char *file, int count)
{
	static uint8_t frame[FRAME_MAX];
	struct ahp_agent *agent = open_agent(ID, 0);
	struct ahp_outgoing m = {.target = id,
				 .flags = AHP_PROMPT_ACK,
				 .method = AHP_TASK,
				 .kind = AHP_FRAME,
				 .body = frame};
	FILE *f = fopen(file, "rb");

	need(f, "cannot open the frame");
	m.body_bytes = fread(frame, 1, sizeof(frame), f);
	fclose(f);
	for (int i = -WARM_UP; i < count; i++) {
		int64_t start_ns = now_ns();

		send_one(agent, &m);
		if (i >= 0)
			printf("%.1f\n", (double)(now_ns() - start_ns) * 1e-3);
	}
	ahp_agent_close(agent);
}

/* ---- connections -------------------------------------------------------- */

static void connect_one(unsigned port)
{
	static const char request[] = "GET /health HTTP/1.1\r\nHost: b\r\n\r\n";
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_port = htons((uint16_t)port)};
	char answer[1024];
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	need(fd >= 0, "no socket: is the limit of open files too low?");
	need(!connect(fd, (struct sockaddr *)&to, sizeof(to)), "no connection");
	need(write(fd, request, sizeof(request) - 1) > 0, "no request");
	need(read(fd, answer, sizeof(answer)) > 12 &&
		     !memcmp(answer, "HTTP/1.1 200", 12),
	     "no answer");
}

static void idle(unsigned port, int count)
{
	struct rlimit files;

	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	for (int i = 0; i < count; i++)
		connect_one(port);
	ready();
	while (goes_on(-1))
		;
}

/* ---- memory ------------------------------------------------------------- */

/* Private and file pages: RssShmem, the arena, is told beside them. */
static long used_kib(const char *path)
{
	FILE *f = fopen(path, "r");
	char line[128];
	long kib, sum = 0;

	need(f, "the process is gone");
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "RssAnon: %ld", &kib) == 1 ||
		    sscanf(line, "RssFile: %ld", &kib) == 1)
			sum += kib;
	fclose(f);
	return sum;
}

static void peak(int pid)
{
	char path[64];
	long most = 0, now;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	ready();
	do {
		now = used_kib(path);
		most = now > most ? now : most;
	} while (goes_on(SAMPLE_MS));
	printf("%ld\n", most);
}

int main(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[1] : "";

	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (argc == 3 && !strcmp(what, "receive"))
		receive(argv[2]);
	else if (argc == 5 && !strcmp(what, "send"))
		send_many(argv[2], argv[3], atoi(argv[4]));
	else if (argc == 4 && !strcmp(what, "idle"))
		idle((unsigned)atoi(argv[2]), atoi(argv[3]));
	else if (argc == 3 && !strcmp(what, "peak"))
		peak(atoi(argv[2]));
	else
		need(false, "receive ID | send ID FILE COUNT | "
			    "idle PORT COUNT | peak PID");
	return 0;
}
