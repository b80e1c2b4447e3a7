/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "tests/gateway.h"

#define PATIENCE_MS 20000 /* what only a failure waits for */

static char program[PATH_MAX];

void gateway_begin(const char *argv0)
{
	test_program(program, argv0, "avp-gateway");
	signal(SIGPIPE, SIG_IGN);
	agents_begin();
}

/* ---- the gateway -------------------------------------------------------------- */

static bool readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int got;

	while ((got = poll(&p, 1, PATIENCE_MS)) < 0 && errno == EINTR)
		continue;
	return got > 0;
}

static void run_gateway(int out, const char *config, const char *log)
{
	int err = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(out, 1);
	dup2(err, 2);
	execl(program, program, "--config", config, (char *)NULL);
	_exit(127);
}

/* Reads "listening address=.. port=N" lines until there are `want`. */
static void read_ports(struct gateway_run *g, int fd, unsigned want)
{
	char text[1024];
	size_t len = 0;

	while (g->ports < want && len < sizeof(text) - 1 && readable(fd)) {
		ssize_t n = read(fd, text + len, sizeof(text) - 1 - len);

		if (n <= 0)
			return;
		text[len + (size_t)n] = 0;
		len += (size_t)n;
		g->ports = 0;
		for (char *at = text; (at = strstr(at, "port=")); at += 5)
			if (strchr(at, '\n') && g->ports < GATEWAY_PORTS)
				g->port[g->ports++] =
					(unsigned)strtoul(at + 5, NULL, 10);
	}
}

static unsigned count_of(const char *text, const char *word)
{
	unsigned n = 0;

	while ((text = strstr(text, word))) {
		text += strlen(word);
		n++;
	}
	return n;
}

void gateway_start(struct gateway_run *g, const char *yaml)
{
	char config[PATH_MAX], log[PATH_MAX];
	int out[2];
	FILE *f;

	snprintf(config, sizeof(config), "%s/avp.yaml", test_dir());
	snprintf(log, sizeof(log), "%s/log", test_dir());
	f = fopen(config, "we");
	CU_ASSERT_FATAL(f && fputs(yaml, f) >= 0 && !fclose(f));
	CU_ASSERT_FATAL(!pipe2(out, O_CLOEXEC));
	*g = (struct gateway_run){0};
	fflush(NULL);
	g->pid = fork();
	if (!g->pid)
		run_gateway(out[1], config, log);
	close(out[1]);
	read_ports(g, out[0], count_of(yaml, "port: 0"));
	close(out[0]);
	g->err = open(log, O_RDONLY | O_CLOEXEC);
	CU_ASSERT_EQUAL_FATAL(g->ports, count_of(yaml, "port: 0"));
}

static void show_log(const struct gateway_run *g)
{
	char text[4096];
	ssize_t n;

	lseek(g->err, -(off_t)sizeof(text), SEEK_END);
	n = read(g->err, text, sizeof(text));
	fprintf(stderr, "--- the gateway said:\n%.*s\n", n > 0 ? (int)n : 0,
		text);
}

struct ending {
	pid_t pid;
	int status;
};

static bool has_ended(void *arg)
{
	struct ending *e = arg;

	return waitpid(e->pid, &e->status, WNOHANG) == e->pid;
}

void gateway_stop(struct gateway_run *g)
{
	struct ending e = {g->pid, -1};
	bool ended;

	kill(g->pid, SIGTERM);
	ended = test_wait(has_ended, &e, 20);
	CU_ASSERT(ended);
	if (!ended)
		child_kill(g->pid);
	CU_ASSERT_EQUAL(e.status, 0);
	if (e.status)
		show_log(g);
	close(g->err);
	CU_ASSERT_EQUAL(agents_names_left(), 0);
}

/* ---- local agents -------------------------------------------------------------- */

void role_reject(struct ahp_agent *agent, struct ahp_message *m)
{
	ahp_reject(agent, m);
	ahp_release(agent, m);
}

void role_silent(struct ahp_agent *agent, struct ahp_message *m)
{
	ahp_accept(agent, m);
	ahp_release(agent, m);
}

void role_deaf(struct ahp_agent *agent, struct ahp_message *m)
{
	(void)agent, (void)m;
}

void role_echo(struct ahp_agent *agent, struct ahp_message *m)
{
	static const char text[] =
		"{\"result\":{\"said\":\"\\u00e9\"},\"status\":\"success\"}";
	struct ahp_outgoing reply = {
		.target = m->source,
		.method = AHP_RESULT,
		.kind = m->kind,
		.task_id = m->task_id,
		.body = m->kind == AHP_FRAME ? m->body : text,
		.body_bytes =
			m->kind == AHP_FRAME ? m->body_bytes : sizeof(text) - 1,
	};

	ahp_accept(agent, m);
	if (m->method == AHP_TASK && m->task_id.len)
		CHECK(!ahp_send(agent, &reply, LONG_NS, NULL, NULL));
	ahp_release(agent, m);
}

struct player {
	const char *id;
	gateway_role *role;
	bool plain; /* without a model */
	int ready;
};

static void play(void *arg)
{
	static const struct avp_identity identity = {
		.model_family = {"llama", 5},
		.model_id = {"org/m", 5},
		.model_hash = {"cafe", 4},
		.hidden_dim = 8,
		.num_layers = 2,
	};
	const struct player *p = arg;
	const struct ahp_agent_options options = {
		.flags = AHP_EXPLICIT_ACK,
		.identity = p->plain ? NULL : &identity,
		.wait = AHP_WAIT_BLOCK,
	};
	struct ahp_agent *agent = agent_open(p->id, &options);
	struct ahp_message *m;

	CHECK(write(p->ready, "", 1) == 1);
	for (;;) {
		m = aligned_alloc(64, (sizeof(*m) + 63) & ~(size_t)63);
		CHECK(m && !ahp_receive(agent, m, AHP_FOREVER));
		p->role(agent, m);
		if (p->role != role_deaf)
			free(m);
	}
}

static pid_t start_player(struct player player)
{
	int pipes[2];
	char one;
	pid_t pid;

	CU_ASSERT_FATAL(!pipe2(pipes, O_CLOEXEC));
	player.ready = pipes[1];
	pid = child_start(play, &player);
	close(pipes[1]);
	CU_ASSERT_EQUAL_FATAL(read(pipes[0], &one, 1), 1);
	close(pipes[0]);
	return pid;
}

pid_t gateway_agent(const char *id, gateway_role *role)
{
	return start_player((struct player){.id = id, .role = role});
}

pid_t gateway_plain_agent(const char *id, gateway_role *role)
{
	return start_player(
		(struct player){.id = id, .role = role, .plain = true});
}

static void visit_nothing(void *arg, const struct ahp_observation *agent)
{
	(void)arg, (void)agent;
}

void gateway_agent_end(pid_t pid)
{
	child_kill(pid);
	ahp_observe(NULL, NULL, visit_nothing, NULL, NULL);
}

/* ---- the client ------------------------------------------------------------------ */

int client_open(unsigned port)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_port = htons((uint16_t)port),
				 .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	CU_ASSERT_FATAL(fd >= 0);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	CU_ASSERT_EQUAL_FATAL(connect(fd, (void *)&to, sizeof(to)), 0);
	return fd;
}

void client_reset(int fd)
{
	struct linger hard = {1, 0};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
	close(fd);
}

/* What cannot be said to who has hung up is none of the test's business. */
void client_say(int fd, const void *bytes, size_t n)
{
	const char *at = bytes;

	while (n) {
		ssize_t put = send(fd, at, n, MSG_NOSIGNAL);

		if (put < 0 && errno == EINTR)
			continue;
		if (put < 0)
			return;
		at += put;
		n -= (size_t)put;
	}
}

void client_says(int fd, const char *text)
{
	client_say(fd, text, strlen(text));
}

bool client_closed(int fd)
{
	char rest[4096];
	ssize_t n;

	while (readable(fd)) {
		n = recv(fd, rest, sizeof(rest), 0);
		if (n <= 0)
			return true;
	}
	return false;
}

static bool read_to(int fd, struct answer *a, size_t len)
{
	while (a->len < len) {
		ssize_t n;

		if (len >= sizeof(a->text) || !readable(fd))
			return false;
		n = recv(fd, a->text + a->len, len - a->len, 0);
		if (n <= 0)
			return false;
		a->len += (size_t)n;
		a->text[a->len] = 0;
	}
	return true;
}

static const char *field_of(const struct answer *a, const char *name)
{
	static char value[1024];
	size_t n = strlen(name);

	for (const char *at = strstr(a->text, "\r\n"); at;
	     at = strstr(at + 2, "\r\n")) {
		if (strncasecmp(at + 2, name, n) || at[2 + n] != ':')
			continue;
		at += 3 + n;
		at += strspn(at, " ");
		snprintf(value, sizeof(value), "%.*s", (int)strcspn(at, "\r"),
			 at);
		return value;
	}
	return NULL;
}

static bool read_head(int fd, struct answer *a)
{
	a->len = 0;
	a->text[0] = 0;
	while (!strstr(a->text, "\r\n\r\n"))
		if (!read_to(fd, a, a->len + 1))
			return false;
	return true;
}

bool client_hears(int fd, struct answer *a)
{
	const char *length, *connection;

	a->status = 0;
	do {
		if (!read_head(fd, a) ||
		    sscanf(a->text, "HTTP/1.1 %d ", &a->status) != 1)
			return false;
	} while (a->status == 100);
	a->body = a->text + a->len;
	connection = field_of(a, "connection");
	a->closes = connection && !strcmp(connection, "close");
	length = field_of(a, "content-length");
	a->body_len = length ? strtoul(length, NULL, 10) : 0;
	return read_to(fd, a, a->len + a->body_len);
}

bool answer_has(const struct answer *a, const char *text)
{
	if (strstr(a->text, text))
		return true;
	fprintf(stderr, "no \"%s\" in: %s\n", text, a->text);
	return false;
}

int client_asks(unsigned port, const char *method, const char *path,
		const char *headers, const void *body, size_t n,
		struct answer *a)
{
	bool head = !strcmp(method, "HEAD");
	int fd = client_open(port);
	char text[4096];

	snprintf(
		text, sizeof(text),
		"%s %s HTTP/1.1\r\nHost: test\r\n%sContent-Length: %zu\r\n\r\n",
		method, path, headers, n);
	client_says(fd, text);
	client_say(fd, body, n);
	if (head) {
		read_head(fd, a);
		a->status = 0;
		sscanf(a->text, "HTTP/1.1 %d ", &a->status);
		a->body_len = 0;
	} else {
		client_hears(fd, a);
	}
	close(fd);
	return a->status;
}

double gateway_metric(unsigned port, const char *name)
{
	static struct answer a;
	char line[256];
	const char *at;

	if (client_asks(port, "GET", "/metrics", "", "", 0, &a) != 200)
		return -1;
	snprintf(line, sizeof(line), "\n%s ", name);
	at = strstr(a.text, line);
	return at ? strtod(at + strlen(line), NULL) : -1;
}

static bool lends_nothing(void *arg)
{
	const struct gateway_run *g = arg;

	return gateway_metric(g->port[0], "avp_local_lent_bytes") == 0;
}

bool gateway_lends_nothing(const struct gateway_run *g)
{
	return test_wait(lends_nothing, (void *)g, 20);
}

size_t frame_make(void *to, const char *target, size_t n, uint32_t seed)
{
	const struct avp_metadata m = {
		.model_id = {"m", 1},
		.target_agent_id = avp_str_of(target),
	};
	void *payload = malloc(n + 8);
	uint64_t len = 0;

	pattern_fill(payload, n, seed);
	CU_ASSERT_EQUAL(avp_frame_encode(&m, AVP_DIALECT_0_2, payload, n, to,
					 n + 64, &len, NULL),
			0);
	free(payload);
	return len;
}

bool gateway_logged(const char *file, const char *words)
{
	static char text[1 << 20];
	char path[PATH_MAX];
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", test_dir(), file);
	f = fopen(path, "re");
	n = f ? fread(text, 1, sizeof(text) - 1, f) : 0;
	text[n] = 0;
	if (f)
		fclose(f);
	return strstr(text, words) != NULL;
}

/* ---- frames of HTTP/2 ---------------------------------------------------------- */

void h2_head(uint8_t to[H2_HEAD], size_t length, uint8_t type, uint8_t flags,
	     uint32_t stream)
{
	const uint8_t head[H2_HEAD] = {(uint8_t)(length >> 16),
				       (uint8_t)(length >> 8),
				       (uint8_t)length,
				       type,
				       flags,
				       (uint8_t)(stream >> 24),
				       (uint8_t)(stream >> 16),
				       (uint8_t)(stream >> 8),
				       (uint8_t)stream};

	memcpy(to, head, sizeof(head));
}

size_t h2_put(uint8_t *to, uint8_t type, uint8_t flags, uint32_t stream,
	      const void *payload, size_t n)
{
	h2_head(to, n, type, flags, stream);
	if (n)
		memcpy(to + H2_HEAD, payload, n);
	return H2_HEAD + n;
}

int h2_open(unsigned port)
{
	int fd = client_open(port);
	uint8_t settings[16];

	client_says(fd, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
	client_say(fd, settings, h2_put(settings, H2_SETTINGS, 0, 0, NULL, 0));
	return fd;
}
