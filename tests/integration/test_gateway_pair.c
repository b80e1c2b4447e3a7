/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two real gateways, each with agents in a namespace of its own: a planner
 * here, a solver there, over HTTP/1.1, HTTP/2 and TLS; certificates that are
 * not right; SIGHUP.
 */
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "tests/agents.h"
#include "tests/gateway.h"
#include "tests/harness.h"

#define PATIENCE_S 20.0

static char program[PATH_MAX];
static char cert[PATH_MAX], key[PATH_MAX], other_cert[PATH_MAX],
	other_key[PATH_MAX], pin[80];

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* ---- certificates ------------------------------------------------------- */

static void add_address(X509 *x)
{
	X509_EXTENSION *e = X509V3_EXT_conf_nid(
		NULL, NULL, NID_subject_alt_name, "IP:127.0.0.1");

	CU_ASSERT_FATAL(e && X509_add_ext(x, e, -1));
	X509_EXTENSION_free(e);
}

/* sha256// and the hash of the public key, as libcurl and HPKP have it. */
static void pin_of(X509 *x)
{
	uint8_t hash[32], *der = NULL;
	char base64[64];
	int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(x), &der);

	EVP_Digest(der, (size_t)n, hash, NULL, EVP_sha256(), NULL);
	EVP_EncodeBlock((uint8_t *)base64, hash, sizeof(hash));
	snprintf(pin, sizeof(pin), "sha256//%s", base64);
	OPENSSL_free(der);
}

static void make_cert(char cert_path[PATH_MAX], char key_path[PATH_MAX],
		      const char *name)
{
	EVP_PKEY *pkey = EVP_EC_gen("P-256");
	X509 *x = X509_new();
	X509_NAME *n = X509_get_subject_name(x);
	FILE *f;

	ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
	X509_set_version(x, 2);
	X509_gmtime_adj(X509_getm_notBefore(x), -3600);
	X509_gmtime_adj(X509_getm_notAfter(x), 86400);
	X509_set_pubkey(x, pkey);
	X509_NAME_add_entry_by_txt(n, "CN", MBSTRING_ASC, (const uint8_t *)name,
				   -1, -1, 0);
	X509_set_issuer_name(x, n);
	add_address(x);
	CU_ASSERT_FATAL(X509_sign(x, pkey, EVP_sha256()));
	pin_of(x);
	snprintf(cert_path, PATH_MAX, "%s/%s.pem", test_dir(), name);
	snprintf(key_path, PATH_MAX, "%s/%s.key", test_dir(), name);
	f = fopen(cert_path, "we");
	CU_ASSERT_FATAL(f && PEM_write_X509(f, x));
	fclose(f);
	f = fopen(key_path, "we");
	CU_ASSERT_FATAL(
		f && PEM_write_PrivateKey(f, pkey, NULL, NULL, 0, NULL, NULL));
	fclose(f);
	X509_free(x);
	EVP_PKEY_free(pkey);
}

static void certificates(void)
{
	make_cert(other_cert, other_key, "other");
	make_cert(cert, key, "there");
}

/* ---- processes ---------------------------------------------------------- */

static void write_config(const char *name, const char *yaml)
{
	char path[PATH_MAX];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s.yaml", test_dir(), name);
	f = fopen(path, "we");
	CU_ASSERT_PTR_NOT_NULL_FATAL(f);
	fprintf(f, "dlq: {dir: %s/dlq}\n%s", test_dir(), yaml);
	fclose(f);
}

/* Starts a gateway in a namespace of its name; its ports, which it prints. */
static pid_t start(const char *name, const char *yaml, unsigned *port,
		   unsigned ports)
{
	char config[PATH_MAX], log[PATH_MAX], text[1024] = "", *at = text;
	double until = now_s() + PATIENCE_S;
	int out[2], fd;
	size_t len = 0;
	ssize_t n;
	pid_t pid;

	write_config(name, yaml);
	snprintf(config, sizeof(config), "%s/%s.yaml", test_dir(), name);
	snprintf(log, sizeof(log), "%s/%s.log", test_dir(), name);
	CU_ASSERT_FATAL(!pipe2(out, O_CLOEXEC | O_NONBLOCK));
	fflush(NULL);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
		dup2(out[1], 1);
		dup2(fd, 2);
		execl(program, program, "--config", config, "--namespace", name,
		      (char *)NULL);
		_exit(127);
	}
	close(out[1]);
	for (unsigned i = 0; i < ports && now_s() < until;) {
		n = read(out[0], text + len, sizeof(text) - 1 - len);
		if (!n)
			break;
		len += n > 0 ? (size_t)n : 0;
		for (; i < ports && (at = strstr(at, "port=")) &&
		       strchr(at, '\n');
		     i++, at += 5)
			port[i] = (unsigned)strtoul(at + 5, NULL, 10);
		at = at ? at : text + (len > 40 ? len - 40 : 0);
	}
	close(out[0]);
	return pid;
}

static void stop(pid_t pid)
{
	int status = -1;

	kill(pid, SIGTERM);
	CU_ASSERT_EQUAL(waitpid(pid, &status, 0), pid);
	CU_ASSERT(WIFEXITED(status) && !WEXITSTATUS(status));
}

static bool logged(const char *name, const char *words)
{
	char file[40];

	snprintf(file, sizeof(file), "%s.log", name);
	return gateway_logged(file, words);
}

static struct ahp_agent *open_in(const char *name_space, const char *id)
{
	struct avp_identity model = {.model_hash = avp_str_of("cafe")};

	return agent_open(id,
			  &(struct ahp_agent_options){.name_space = name_space,
						      .identity = &model});
}

/* ---- a world: planner | gateway here ... gateway there | solver --------- */

struct world {
	struct ahp_agent *planner, *solver;
	pid_t here, there;
	unsigned port;
	bool tls;
};

/* more: of its listener's tls. */
static void begin_there(struct world *w, bool tls, const char *more)
{
	char yaml[3 * PATH_MAX + 400], files[3 * PATH_MAX + 80] = "";

	*w = (struct world){.solver = open_in("there", "solver"), .tls = tls};
	if (tls)
		snprintf(files, sizeof(files), ", tls: {cert: %s, key: %s%s}",
			 cert, key, more);
	snprintf(yaml, sizeof(yaml),
		 "gateway:\n"
		 "  listeners: [{address: 127.0.0.1, port: 0%s}]\n",
		 files);
	w->there = start("there", yaml, &w->port, 1);
	CU_ASSERT_FATAL(w->port != 0);
}

static void begin_here(struct world *w, const char *peer)
{
	char yaml[4 * PATH_MAX];
	unsigned none;

	snprintf(yaml, sizeof(yaml),
		 "gateway:\n  log_level: debug\n  peers:\n"
		 "    - {url: \"http%s://127.0.0.1:%u\", agents: [solver], "
		 "max_retries: 0, %s}\n",
		 w->tls ? "s" : "", w->port, peer);
	w->here = start("here", yaml, &none, 0);
	w->planner = open_in("here", "planner");
}

static void turn(struct world *w)
{
	ahp_agent_run(w->planner, 200000);
	if (w->solver)
		ahp_agent_run(w->solver, 200000);
}

static bool links(struct world *w, const char *id)
{
	double until = now_s() + PATIENCE_S;

	while (ahp_connect(w->planner, id, 0, NULL, NULL)) {
		if (now_s() > until)
			return false;
		turn(w);
	}
	return true;
}

static void end(struct world *w)
{
	ahp_agent_close(w->planner);
	ahp_agent_close(w->solver);
	stop(w->here);
	stop(w->there);
}

static int settled(struct world *w, const struct ahp_receipt *receipt)
{
	double until = now_s() + PATIENCE_S;
	int code;

	while ((code = ahp_status(w->planner, receipt)) == AVP_AGAIN &&
	       now_s() < until)
		turn(w);
	return code;
}

static bool receive(struct world *w, struct ahp_agent *agent,
		    struct ahp_message *m)
{
	double until = now_s() + PATIENCE_S;

	while (ahp_receive(agent, m, 0)) {
		if (now_s() > until)
			return false;
		turn(w);
	}
	return true;
}

static void round_trip(bool tls, const char *there, const char *peer)
{
	static uint8_t payload[3 << 20], frame[(3 << 20) + 1024];
	struct avp_metadata meta = {.model_id = avp_str_of("m")};
	struct ahp_outgoing task = {.target = "solver",
				    .method = AHP_TASK,
				    .kind = AHP_FRAME,
				    .task_id = avp_str_of("t-1"),
				    .body = frame};
	struct ahp_outgoing result = {.method = AHP_RESULT,
				      .kind = AHP_FRAME,
				      .task_id = avp_str_of("t-1"),
				      .body = frame};
	struct ahp_receipt receipt;
	struct ahp_message m;
	struct world w;

	pattern_fill(payload, sizeof(payload), 11);
	avp_frame_encode(&meta, AVP_DIALECT_0_2, payload, sizeof(payload),
			 frame, sizeof(frame), &task.body_bytes, NULL);
	result.body_bytes = task.body_bytes;
	begin_there(&w, tls, there);
	begin_here(&w, peer);
	CU_ASSERT(links(&w, "solver"));
	for (int i = 0; i < 3; i++) {
		CU_ASSERT_EQUAL_FATAL(
			ahp_send(w.planner, &task, LONG_NS, &receipt, NULL), 0);
		CU_ASSERT_FATAL(receive(&w, w.solver, &m));
		CU_ASSERT(m.body_bytes == task.body_bytes &&
			  !memcmp(m.body, frame, m.body_bytes));
		CU_ASSERT(avp_str_equal(m.task_id, task.task_id));
		result.peer = m.peer;
		CU_ASSERT_EQUAL(
			ahp_send(w.solver, &result, LONG_NS, NULL, NULL), 0);
		ahp_release(w.solver, &m);
		CU_ASSERT_EQUAL(settled(&w, &receipt), 0);
		CU_ASSERT_FATAL(receive(&w, w.planner, &m));
		CU_ASSERT_EQUAL(m.method, AHP_RESULT);
		CU_ASSERT_STRING_EQUAL(m.source, "solver");
		CU_ASSERT(m.body_bytes == task.body_bytes &&
			  !memcmp(m.body, frame, m.body_bytes));
		ahp_release(w.planner, &m);
	}
	end(&w);
}

static void tls_http2(void)
{
	char peer[PATH_MAX + 200];

	snprintf(peer, sizeof(peer),
		 "wait_result: true, tls: {ca: %s, pinned: \"%s\"}", cert, pin);
	round_trip(true, "", peer);
	CU_ASSERT(logged("here", "path=agent http=2"));
}

static void tls_http1(void)
{
	char peer[PATH_MAX + 200];

	snprintf(peer, sizeof(peer),
		 "wait_result: true, http: 1.1, tls: {ca: %s}", cert);
	round_trip(true, "", peer);
	CU_ASSERT(logged("here", "path=agent http=1.1"));
}

/* One connection for all: libcurl's prior knowledge is for its first
 * request. */
static void cleartext_http2(void)
{
	round_trip(false, "", "wait_result: true, http: 2");
	CU_ASSERT(logged("here", "path=agent http=2"));
}

/* ---- ids ---------------------------------------------------------------- */

static void sends_ids(struct world *w, struct avp_str task,
		      struct avp_str session, bool frame)
{
	static uint8_t bytes[64];
	struct avp_metadata meta = {.model_id = avp_str_of("m")};
	struct ahp_outgoing out = {.target = "solver",
				   .method = AHP_TASK,
				   .kind = frame ? AHP_FRAME : AHP_JSON,
				   .task_id = task,
				   .session_id = session,
				   .body = frame ? (const void *)bytes : "{}",
				   .body_bytes = 2};
	struct ahp_receipt receipt;
	struct ahp_message m;

	if (frame)
		avp_frame_encode(&meta, AVP_DIALECT_0_2, "12345678", 8, bytes,
				 sizeof(bytes), &out.body_bytes, NULL);
	CU_ASSERT_EQUAL_FATAL(
		ahp_send(w->planner, &out, LONG_NS, &receipt, NULL), 0);
	CU_ASSERT_FATAL(receive(w, w->solver, &m));
	CU_ASSERT(avp_str_equal(m.task_id, task));
	CU_ASSERT(avp_str_equal(m.session_id, session));
	ahp_release(w->solver, &m);
	CU_ASSERT_EQUAL(settled(w, &receipt), 0);
}

/* What no header field can hold, or could be taken for what it is not. */
static void any_ids(void)
{
	static const char all_bytes[80] =
		" %41%%2\0\1\t\r\nX: y\177\200\377\303\251 ";
	static const struct avp_str ids[] = {
		{"plain", 5},	      {" a b  c ", 8},	{"100%", 4},
		{"%41%zz%", 7},	      {"a\r\nb: c", 7}, {"a\0b", 3},
		{"\303\251t\303", 4}, {"\t", 1},	{all_bytes, 80},
	};
	struct world w;

	begin_there(&w, false, "");
	begin_here(&w, "mode: auto");
	CU_ASSERT(links(&w, "solver"));
	for (size_t i = 0; i < sizeof(ids) / sizeof(*ids); i++) {
		sends_ids(&w, ids[i], ids[(i + 3) % 9], true);
		/* Text is JSON, of which no strings are but UTF-8. */
		if (i < 6)
			sends_ids(&w, ids[i], ids[5 - i], false);
	}
	end(&w);
}

/* Who knows nothing of AHP-Encoding means what it says. */
static void foreign_ids(void)
{
	static const struct {
		const char *fields, *task;
	} said[] = {
		{"AHP-Task-ID: 100%25 of a%\r\n", "100%25 of a%"},
		{"AHP-Task-ID: 100%25\r\nAHP-Encoding: percent\r\n", "100%"},
		{"AHP-Task-ID: \303\251%C3%a9\r\nAHP-Encoding: percent\r\n",
		 "\303\251\303\251"},
		{"AHP-Task-ID: 5%\r\nAHP-Encoding: percent\r\n", NULL},
		{"AHP-Task-ID: 5%2\r\nAHP-Encoding: percent\r\n", NULL},
		{"AHP-Task-ID: %+1\r\nAHP-Encoding: percent\r\n", NULL},
		{"AHP-Task-ID: a\r\nAHP-Encoding: gzip\r\n", NULL},
	};
	static const char body[] = "{\"content\":\"x\"}";
	static char head[512];
	struct ahp_message m;
	struct answer a;
	struct world w;
	int fd;

	begin_there(&w, false, "");
	w.planner = open_in("here", "planner");
	for (size_t i = 0; i < sizeof(said) / sizeof(*said); i++) {
		fd = client_open(w.port);
		snprintf(head, sizeof(head),
			 "POST /agents/solver/avp/v2/text HTTP/1.1\r\n"
			 "Host: a\r\nContent-Length: %zu\r\n%s\r\n%s",
			 sizeof(body) - 1, said[i].fields, body);
		client_says(fd, head);
		if (said[i].task) {
			CU_ASSERT_FATAL(receive(&w, w.solver, &m));
			CU_ASSERT(avp_str_equal(m.task_id,
						avp_str_of(said[i].task)));
			ahp_release(w.solver, &m);
			turn(&w);
		}
		CU_ASSERT(client_hears(fd, &a));
		CU_ASSERT_EQUAL(a.status, said[i].task ? 200 : 400);
		close(fd);
	}
	ahp_agent_close(w.planner);
	ahp_agent_close(w.solver);
	stop(w.there);
}

/* ---- who is not trusted ------------------------------------------------- */

static void refused(const char *there, const char *peer, const char *words)
{
	struct ahp_receipt receipt;
	struct ahp_message m;
	struct world w;

	begin_there(&w, true, there);
	begin_here(&w, peer);
	CU_ASSERT(links(&w, "solver"));
	CU_ASSERT_EQUAL(agent_say(w.planner, "solver", "{}", &receipt), 0);
	CU_ASSERT_EQUAL(settled(&w, &receipt), AVP_REJECTED);
	CU_ASSERT_FATAL(receive(&w, w.planner, &m));
	CU_ASSERT(memmem(m.body, m.body_bytes, words, strlen(words)) != NULL);
	ahp_release(w.planner, &m);
	CU_ASSERT_EQUAL(ahp_receive(w.solver, &m, 0), AVP_TIMEOUT);
	end(&w);
}

static void wrong_certificates(void)
{
	char peer[PATH_MAX + 200];

	refused("", "mode: auto", "self-signed certificate");
	snprintf(peer, sizeof(peer), "tls: {ca: %s}", other_cert);
	refused("", peer, "certificate");
	snprintf(peer, sizeof(peer),
		 "tls: {ca: %s, pinned: "
		 "\"sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"}",
		 cert);
	refused("", peer, "pinned public key");
}

static void client_certificates(void)
{
	char there[PATH_MAX + 40], peer[3 * PATH_MAX + 200];

	snprintf(there, sizeof(there), ", client_ca: %s", other_cert);
	snprintf(peer, sizeof(peer),
		 "wait_result: true, tls: {ca: %s, cert: %s, key: %s}", cert,
		 other_cert, other_key);
	round_trip(true, there, peer);
	snprintf(peer, sizeof(peer), "tls: {ca: %s, cert: %s, key: %s}", cert,
		 cert, key);
	refused(there, peer, "CLOSED");
	snprintf(peer, sizeof(peer), "tls: {ca: %s}", cert);
	refused(there, peer, "CLOSED");
}

/* ---- SIGHUP ------------------------------------------------------------- */

static bool waits_for(struct world *w, const char *name, const char *words)
{
	double until = now_s() + PATIENCE_S;

	while (!logged(name, words)) {
		if (now_s() > until)
			return false;
		turn(w);
	}
	return true;
}

static void reload(void)
{
	char peer[PATH_MAX + 200], yaml[4 * PATH_MAX];
	struct world w;

	begin_there(&w, true, "");
	snprintf(peer, sizeof(peer), "tls: {ca: %s}", cert);
	begin_here(&w, peer);
	CU_ASSERT(links(&w, "solver"));
	/* What is wrong changes nothing. */
	write_config("here", "gateway: {peers: 3}\n");
	kill(w.here, SIGHUP);
	CU_ASSERT(waits_for(&w, "here", "reload_failed code=BAD_CONFIG"));
	CU_ASSERT(links(&w, "solver"));
	/* Another name for the same, and the old one is gone. */
	snprintf(yaml, sizeof(yaml),
		 "gateway:\n  log_level: debug\n  peers:\n"
		 "    - {url: \"https://127.0.0.1:%u\", agents: [other], %s}\n",
		 w.port, peer);
	write_config("here", yaml);
	kill(w.here, SIGHUP);
	CU_ASSERT(waits_for(&w, "here", "reloaded "));
	CU_ASSERT(links(&w, "other"));
	for (double until = now_s() + PATIENCE_S; now_s() < until;) {
		if (ahp_connect(w.planner, "solver", 0, NULL, NULL) ==
		    AVP_AGENT_NOT_FOUND)
			break;
		turn(&w);
	}
	CU_ASSERT_EQUAL(ahp_connect(w.planner, "solver", 0, NULL, NULL),
			AVP_AGENT_NOT_FOUND);
	end(&w);
}

/* ---- heartbeats --------------------------------------------------------- */

#define BEATS "ahp: {heartbeat_interval: 200ms}\n"

static bool is_now(unsigned port, const char *state)
{
	char name[80];

	snprintf(name, sizeof(name),
		 "avp_remote_agent_state{agent=\"solver\",state=\"%s\"}",
		 state);
	return gateway_metric(port, name) == 1;
}

/* The gateway there, for the second time: at the port that is known. */
static void restart_there(struct world *w)
{
	char yaml[200];
	unsigned port = 0;

	snprintf(yaml, sizeof(yaml),
		 BEATS "gateway:\n  listeners: [{address: 127.0.0.1, port: "
		       "%u}]\n",
		 w->port);
	w->there = start("there", yaml, &port, 1);
	CU_ASSERT_EQUAL(port, w->port);
}

static bool becomes(struct world *w, unsigned port, const char *state)
{
	double until = now_s() + PATIENCE_S;

	while (!is_now(port, state)) {
		if (now_s() > until)
			return false;
		turn(w);
	}
	return true;
}

/* What the planner is told of it, as of any agent of its host. */
static bool looks(struct world *w, enum ahp_liveness state)
{
	double until = now_s() + PATIENCE_S;

	while (ahp_liveness(w->planner, "solver", SECOND_NS / 2) != state) {
		if (now_s() > until)
			return false;
		turn(w);
	}
	return true;
}

/* What becomes of the solver, and what the gateway here says of it. */
static void heartbeats(void)
{
	struct world w;
	struct ahp_agent *solver;
	unsigned port;
	char yaml[400];

	w = (struct world){.solver = open_in("there", "solver")};
	w.there = start("there",
			BEATS "gateway:\n"
			      "  listeners: [{address: 127.0.0.1, port: 0}]\n",
			&w.port, 1);
	snprintf(yaml, sizeof(yaml),
		 BEATS "gateway:\n"
		       "  listeners: [{address: 127.0.0.1, port: 0}]\n"
		       "  peers: [{url: \"http://127.0.0.1:%u\", agents: "
		       "[solver], retry_delay: 10ms}]\n",
		 w.port);
	w.here = start("here", yaml, &port, 1);
	w.planner = open_in("here", "planner");
	CU_ASSERT(is_now(port, "never_seen"));
	CU_ASSERT(waits_for(&w, "here", "state=alive was=never_seen"));
	CU_ASSERT(becomes(&w, port, "alive"));
	CU_ASSERT(links(&w, "solver"));
	CU_ASSERT(looks(&w, AHP_ALIVE));
	/* It computes, and is not to be heard. */
	solver = w.solver;
	w.solver = NULL;
	CU_ASSERT(waits_for(&w, "here", "state=stuck was=alive"));
	CU_ASSERT(becomes(&w, port, "stuck"));
	CU_ASSERT(looks(&w, AHP_STUCK));
	w.solver = solver;
	CU_ASSERT(waits_for(&w, "here", "state=alive was=stuck"));
	CU_ASSERT(looks(&w, AHP_ALIVE));
	/* Its gateway is killed; it ends; its gateway is back, and so is it. */
	child_kill(w.there);
	CU_ASSERT(waits_for(&w, "here", "state=dead"));
	CU_ASSERT(becomes(&w, port, "dead"));
	restart_there(&w);
	CU_ASSERT(waits_for(&w, "here", "state=alive was=dead"));
	ahp_agent_close(w.solver);
	w.solver = NULL;
	CU_ASSERT(waits_for(&w, "here", "state=dead was=alive"));
	w.solver = open_in("there", "solver");
	CU_ASSERT(becomes(&w, port, "alive"));
	/* Nobody was given a message for that. */
	CU_ASSERT_EQUAL(agent_stats(w.solver).received, 0);
	end(&w);
}

/* ---- a request that is under way ---------------------------------------- */

/* The solver has it and has not answered yet. */
static void begin_request(struct world *w, struct ahp_receipt *receipt,
			  struct ahp_message *m)
{
	begin_there(w, false, "");
	ahp_agent_close(w->solver);
	w->solver = agent_open("solver", &(struct ahp_agent_options){
						 .name_space = "there",
						 .flags = AHP_EXPLICIT_ACK});
	begin_here(w, "mode: auto");
	CU_ASSERT(links(w, "solver"));
	CU_ASSERT_EQUAL(agent_say(w->planner, "solver", "{}", receipt), 0);
	CU_ASSERT_FATAL(receive(w, w->solver, m));
	CU_ASSERT_EQUAL(ahp_status(w->planner, receipt), AVP_AGAIN);
}

static void end_request(struct world *w, struct ahp_receipt *receipt,
			struct ahp_message *m)
{
	CU_ASSERT_EQUAL(ahp_accept(w->solver, m), 0);
	ahp_release(w->solver, m);
	CU_ASSERT_EQUAL(settled(w, receipt), 0);
	end(w);
}

/* Nobody ends it, for longer than the gateway takes to look at who leaves. */
static bool stays_open(struct world *w, const struct ahp_receipt *receipt)
{
	double until = now_s() + 0.1;

	while (now_s() < until) {
		if (ahp_status(w->planner, receipt) != AVP_AGAIN)
			return false;
		turn(w);
	}
	return true;
}

/* Also when its peer is not in the configuration any more. */
static void reload_meanwhile(void)
{
	struct ahp_receipt receipt;
	struct ahp_message m;
	struct world w;

	begin_request(&w, &receipt, &m);
	write_config("here", "gateway: {log_level: debug}\n");
	kill(w.here, SIGHUP);
	kill(w.there, SIGHUP);
	CU_ASSERT(waits_for(&w, "here", "reloaded "));
	CU_ASSERT(waits_for(&w, "there", "reloaded "));
	CU_ASSERT(stays_open(&w, &receipt));
	end_request(&w, &receipt, &m);
}

/* Whichever end is told to stop: it ends with 0, and the message has
 * arrived. */
static void drains_meanwhile(bool here)
{
	struct ahp_receipt receipt;
	struct ahp_message m;
	struct world w;

	begin_request(&w, &receipt, &m);
	kill(here ? w.here : w.there, SIGTERM);
	CU_ASSERT(waits_for(&w, here ? "here" : "there", "draining"));
	end_request(&w, &receipt, &m);
}

static void drain_meanwhile(void)
{
	drains_meanwhile(true);
	drains_meanwhile(false);
}

int main(int argc, char **argv)
{
	static const struct test tests[] = {TEST(certificates),
					    TEST(tls_http2),
					    TEST(tls_http1),
					    TEST(cleartext_http2),
					    TEST(any_ids),
					    TEST(foreign_ids),
					    TEST(wrong_certificates),
					    TEST(client_certificates),
					    TEST(reload),
					    TEST(heartbeats),
					    TEST(reload_meanwhile),
					    TEST(drain_meanwhile),
					    {0}};

	(void)argc;
	test_program(program, argv[0], "avp-gateway");
	signal(SIGPIPE, SIG_IGN);
	agents_begin();
	return test_main("gateway_pair", tests);
}
